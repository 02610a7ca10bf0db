"""The settings of ``report``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import Settings


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Settings):
    """Write report.html of a run folder again.

    Attributes:
        run: run folder, with metrics.jsonl or eval.json in it.
    """

    positional: ClassVar[tuple[str, ...]] = ("run",)
    run: str
