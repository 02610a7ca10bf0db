"""The settings of ``report``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import Settings


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Settings):
    """Write report.html of a run folder, or the pages of a study, again.

    Attributes:
        run: run folder, with metrics.jsonl or eval.json in it, or the folder of a study.
    """

    positional: ClassVar[tuple[str, ...]] = ("run",)
    run: str
