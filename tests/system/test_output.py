"""Output into pipes and for terminals that cannot show every character."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import environment, run_command
from helpers.images import write_classes
from helpers.weights import write_weights

NAMES = ["$5 or $_{x", "caf\xe9", "\u82f9\u679c \U0001f34e"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    write_classes(root / "val", NAMES, 40)
    write_weights(root / "w.safetensors", class_names=tuple(NAMES))
    return root


def run(folder: Path, command: str, **more: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a shell command; ``$D`` is densenet121."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=folder,
        env=environment(D=f"{sys.executable} -m densenet121", **more),
        capture_output=True,
        timeout=120,
        check=False,
    )


def written(folder: Path, command: str, encoding: str) -> bytes:
    """What a command writes that ends well and without a word, where files have an encoding."""
    done = run_command(*command.split(), cwd=folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.encode("utf-8", "surrogateescape")


PREDICT = "predict val --pretrained w.safetensors --top_k 3 --format"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_image_and_class_can_be_told_apart_in_any_encoding(
    encoding: str, folder: Path
) -> None:
    text = written(folder, f"{PREDICT} csv", encoding).decode(encoding)
    rows = list(csv.DictReader(io.StringIO(text)))
    shown = [name.encode(encoding, "backslashreplace").decode(encoding) for name in NAMES]
    assert {row["class"] for row in rows} == set(shown)
    assert {row["path"].split("/")[1] for row in rows} == set(shown)
    assert len({row["path"] for row in rows}) == 120


@pytest.mark.parametrize("kind", ["table", "jsonl"])
def test_other_formats_have_a_line_an_image_in_ascii(kind: str, folder: Path) -> None:
    text = written(folder, f"{PREDICT} {kind}", "ascii").decode("ascii")
    assert text.count("\n") == 120
    if kind == "jsonl":
        paths = [json.loads(line)["path"] for line in text.splitlines()]
        assert {path.split("/")[1] for path in paths} == set(NAMES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "command", ["--version", "train --help", "inspect w.safetensors", "inspect no.pth"]
)
def test_output_on_a_full_disk_is_one_line(command: str, folder: Path) -> None:
    """It was "Exception ignored in: <_io.TextIOWrapper name='<stdout>' ..." and status 120."""
    done = run(folder, f"env -u PYTHONUNBUFFERED $D {command} > /dev/full")
    said = "standard output: cannot be written (No space left on device)"
    if "no.pth" in command:
        said = "no.pth: there is no such weights file"
    assert (done.returncode, done.stderr.decode()) == (1, f"densenet121: {said}\n")


@pytest.mark.parametrize("command", ["inspect w.safetensors"])
def test_other_commands_write_escapes_too(command: str, folder: Path) -> None:
    done = run(folder, f"$D {command}", PYTHONIOENCODING="ascii")
    assert b"Traceback" not in done.stderr and done.stdout


def test_the_log_of_an_evaluation_has_escapes_and_its_file_has_the_names(folder: Path) -> None:
    (folder / "val" / NAMES[2] / "notes.txt").write_text("x")
    flags = "--data_dir val --pretrained w.safetensors --output_dir e --is_distributed 0"
    log = written(folder, f"eval {flags}", "ascii")
    assert rb"first \u82f9\u679c \U0001f34e/notes.txt" in log or b"tot=120" in log
    text = (folder / "e" / "predictions.csv").read_text(encoding="utf-8")
    assert NAMES[2] in text


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("command", [f"$D {PREDICT} csv", "$D audit val --json"])
def test_a_reader_that_leaves_early_ends_the_command_without_a_word(
    command: str, buffered: str, folder: Path
) -> None:
    done = run(folder, f"{command} | head -n 1", PYTHONUNBUFFERED=buffered)
    assert (done.stderr, done.stdout.count(b"\n")) == (b"", 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_run_goes_on_if_the_disk_of_its_output_is_full(folder: Path) -> None:
    """Each line of the log was a traceback on stderr."""
    flags = "--data_dir val --pretrained w.safetensors --output_dir g --is_distributed 0"
    done = run(folder, f"$D eval {flags} > /dev/full")
    assert (done.returncode, done.stderr.decode()) == (
        0,
        "densenet121: standard output: cannot be written (No space left on device); the run goes "
        "on, and its log file has every line\n",
    )
    assert any(
        "top1_correct=" in line
        for file in (folder / "g").glob("*.log")
        for line in file.read_text().splitlines()
    )


def test_a_run_goes_on_if_nobody_reads_its_output(folder: Path) -> None:
    flags = "--data_dir val --pretrained w.safetensors --output_dir f --is_distributed 0"
    done = run(folder, f"$D eval {flags} | head -n 1")
    assert done.stderr == b""
    assert re.search(r"top1_correct=\d+, tot=120", "".join(
        file.read_text() for file in (folder / "f").glob("*.log")
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("command", "product"),
    [
        ("average w.safetensors v.safetensors", "average.safetensors"),
        ("probe --data_dir val --val_dir val --pretrained w.safetensors", "probe.safetensors"),
    ],
)
def test_a_command_writes_its_files_though_nobody_reads_its_output(
    command: str, product: str, folder: Path
) -> None:
    shutil.copy(folder / "w.safetensors", folder / "v.safetensors")
    done = run(folder, f"$D {command} --output {product} | true")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / product).exists()
    (folder / product).unlink()
    if Path("/dev/full").exists():
        done = run(folder, f"$D {command} --output {product} > /dev/full")
        line = b"densenet121: standard output: cannot be written (No space left on device)\n"
        assert (done.returncode, done.stderr) == (1, line)
        assert (folder / product).exists()


@pytest.mark.parametrize(
    ("command", "closed"),
    [("predict val", ">&-"), ("eval --data_dir val --output_dir c", "<&- >&- 2>&-")],
)
def test_a_command_runs_with_its_standard_files_closed(
    command: str, closed: str, folder: Path
) -> None:
    """As from some daemons: it was a traceback, where one could be seen."""
    done = run(folder, f"$D {command} --pretrained w.safetensors {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_wrong_usage_has_its_status_with_standard_error_closed(folder: Path) -> None:
    done = run(folder, "$D predict --nonsense 2>&-")
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_closed_standard_file_lends_its_number_to_no_other(folder: Path) -> None:
    """What a library prints would be in the log, or in a checkpoint."""
    code = (
        "import os; from densenet121.utils.output import open_closed; open_closed(); "
        "opened = os.open('opened', os.O_WRONLY | os.O_CREAT); os.write(1, b'a library'); "
        "os.write(2, b'a library'); raise SystemExit(opened < 3 or os.fstat(opened).st_size)"
    )
    assert run(folder, f'{sys.executable} -c "{code}" <&- >&- 2>&-').returncode == 0


def test_a_working_directory_that_was_removed_is_one_line(folder: Path) -> None:
    """It was a fatal error of MKL, with the exit status of wrong usage."""
    gone = f"mkdir gone; cd gone; rmdir ../gone; $D inspect {folder / 'w.safetensors'}"
    done = run(folder, gone)
    assert (done.returncode, done.stderr.decode()) == (
        1,
        "densenet121: the working directory was removed; change to another\n",
    )
