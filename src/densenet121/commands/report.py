"""The ``report`` command."""

from pathlib import Path

from densenet121.commands import DONE
from densenet121.config import ReportConfig
from densenet121.report import write_report


def run(config: ReportConfig) -> int:
    """Write the report and print its path."""
    print(write_report(Path(config.run)))  # noqa: T201 (the command's output)
    return DONE
