"""Durations come from clocks that do not jump."""

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "densenet121"
WALL = re.compile(r"time\.time\(|time\.time_ns\(|datetime\.(?:datetime\.)?(?:now|utcnow|today)\(")
# Times of day that are written down.
ALLOWED = {"runs/tracker_libraries.py"}


def test_the_wall_clock_is_read_only_for_times_of_day() -> None:
    """`make torture` lets it jump; what would wait or measure by it must not come in."""
    found = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if WALL.search(file.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED
