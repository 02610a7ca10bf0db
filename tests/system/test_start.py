"""A command imports what it needs and no more: people wait for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from densenet121.cli import COMMANDS

from helpers.commands import environment, run_code
from helpers.weights import write_weights

IMPORTED = """
import sys
from densenet121.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print("status", status, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(*arguments: str, code: str = IMPORTED) -> set[str]:
    """The top-level modules that a process has after it ran a command, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=True,
    )
    word, status, *names = done.stdout.splitlines()[-1].split()
    assert (word, status) == ("status", "0"), done.stderr
    return set(names)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    heavy = {"torch", "numpy", "cv2", "PIL", "scipy", "sklearn", "matplotlib", "rich", "yaml"}
    assert imported(*command, "--help") & heavy == set()


def test_predict_imports_neither_plots_nor_statistics(image_folder: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    names = imported("predict", str(image_folder / "val"), "--pretrained", str(weights))
    assert "torch" in names
    heavy = {"matplotlib", "scipy", "sklearn", "rich", "yaml", "onnx", "onnxruntime", "h5py"}
    assert names & heavy == set()


def test_eval_and_its_report_import_no_statistics(image_folder: Path, tmp_path: Path) -> None:
    """scikit-learn and the parts of scipy that it imports took 3 s of each run's report."""
    weights = write_weights(tmp_path / "w.safetensors")
    report = f"main(['report', {str(tmp_path / 'out')!r}])\n"
    flags = ["--data_dir", str(image_folder), "--pretrained", str(weights)]
    names = imported(
        *["eval", *flags, "--output_dir", str(tmp_path / "out")],
        code=IMPORTED.replace("print(", f"{report}print("),
    )
    assert (tmp_path / "out" / "report.html").exists()
    assert "matplotlib" in names
    assert names & {"scipy", "sklearn", "pandas"} == set()


@pytest.mark.parametrize("part", ["densenet121.cli", "densenet121.config", "torch"])
def test_ctrl_c_while_the_program_is_imported_is_one_line(part: str) -> None:
    code = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {part!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.argv = ['densenet121', 'inspect', 'none.ckpt']\n"
        "runpy.run_module('densenet121', run_name='__main__')\n"
    )
    done = run_code(code)
    assert done.returncode == 143
    assert done.stderr == "densenet121: stopped; everything saved before is intact\n"


def test_without_docstrings_every_command_takes_its_settings_and_lists_its_flags(
    image_folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    stripped = [sys.executable, "-OO", "-m", "densenet121"]
    predict = ["predict", str(image_folder / "val"), "--pretrained", str(weights)]
    for command in (predict, ["predict", "--help"], ["--help"]):
        done = subprocess.run(
            [*stripped, *command], capture_output=True, text=True, env=environment(), timeout=120
        )
        assert (done.returncode, done.stderr) == (0, "")
        if command[-1] == "--help":
            assert "python -OO drops the texts" in " ".join(done.stdout.split())
