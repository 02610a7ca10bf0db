"""The log of a run."""

from pathlib import Path

import pytest

from densenet121.utils.logging import log, run_log


def test_a_name_in_the_log_is_no_line_and_no_command_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of classes come with weights, which may be another's."""
    with run_log(tmp_path, "now", 0) as path:
        log.info("%s", "cat\n2026:INFO:top1=100.00%\x1b[8m")
    for text in (path.read_text(), capsys.readouterr().out):
        assert text.endswith(":INFO:cat\\n2026:INFO:top1=100.00%\\x1b[8m\n")
        assert text.count("\n") == 1
