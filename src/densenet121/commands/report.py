"""The ``report`` command."""

from pathlib import Path

from densenet121.commands import DONE
from densenet121.config import ReportConfig
from densenet121.report import write_report
from densenet121.report.study import write_study_pages
from densenet121.runs.study import STUDY


def run(config: ReportConfig) -> int:
    """Write the report of a run, or the pages of a study, and print the path."""
    folder = Path(config.run)
    write = write_study_pages if (folder / STUDY).is_file() else write_report
    print(write(folder))  # noqa: T201 (the command's output)
    return DONE
