"""A file that could not be written at the end is refused before anything is read or computed."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.commands import environment, run_code, run_command
from helpers.images import write_classes

# INPUT is a file that no command can read; there are no images, and the run is an empty folder.
COMMANDS = {
    "average": "average INPUT other --output OUTPUT.safetensors",
    "calibrate": "calibrate --pretrained INPUT --data_dir images --output OUTPUT.safetensors",
    "compare": "compare INPUT other --output OUTPUT.safetensors",
    "export": "export --format native --int8 1 --pretrained INPUT --data_dir images"
    " --output OUTPUT.safetensors",
    "metrics": "metrics INPUT --probability_prefix p_ --output OUTPUT.safetensors",
    "rank-table": "rank-table --merge INPUT --output OUTPUT.safetensors",
    "probe": "probe --pretrained INPUT --data_dir images --output OUTPUT.safetensors",
    "audit": "audit images --page OUTPUT.html",
    "audit's list": "audit images --exclude_list OUTPUT.txt",
    "card": "card run --output OUTPUT.md",
    "lr-find": "lr-find --data_dir images --output OUTPUT.png",
    "show": "show --data_dir images --output OUTPUT.html",
}
READS_A_FILE = [name for name, command in COMMANDS.items() if "INPUT" in command]


def refused(name: str, folder: Path, output: str) -> str:
    """The one line that the command says; it leaves everything as it was."""
    (folder / "run").mkdir()
    (folder / "in.safetensors").write_bytes(b"{")
    before = sorted(folder.rglob("*"))
    words = COMMANDS[name].replace("INPUT", "in.safetensors").replace("OUTPUT", output)
    done = run_command(*words.split(), cwd=folder)
    assert done.returncode in (1, 2) and not done.stdout
    assert sorted(folder.rglob("*")) == before
    assert (folder / "in.safetensors").read_bytes() == b"{"
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_in_a_folder_that_is_not_there_is_refused_first(
    name: str, tmp_path: Path
) -> None:
    line = refused(name, tmp_path, "no/such/out")
    assert line.endswith(f": there is no folder {tmp_path / 'no' / 'such'}")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_is_a_folder_is_refused_first(name: str, tmp_path: Path) -> None:
    suffix = COMMANDS[name].rpartition("OUTPUT")[2]
    (tmp_path / f"out{suffix}").mkdir()
    line = refused(name, tmp_path, "out")
    assert line.endswith(f"out{suffix}: is a folder; name a file")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_is_a_pipe_or_a_device_is_refused_first(name: str, tmp_path: Path) -> None:
    """A file that takes the place of /dev/null would break every program of the machine."""
    suffix = COMMANDS[name].rpartition("OUTPUT")[2]
    os.mkfifo(tmp_path / f"out{suffix}")
    line = refused(name, tmp_path, "out")
    assert line.endswith(f"out{suffix}: is a device or a pipe, not a file; name a file")
    assert (tmp_path / f"out{suffix}").is_fifo()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_whose_name_is_too_long_is_refused_first(name: str, tmp_path: Path) -> None:
    line = refused(name, tmp_path, "x" * 260)
    assert line.endswith(": File name too long; name another file")


def test_an_output_in_a_folder_that_may_not_be_written_is_refused_first(tmp_path: Path) -> None:
    """Images were read and networks computed, and the result was lost."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o555)
    tmp_path.chmod(0o755)
    code = """
import os, sys
from pathlib import Path
from densenet121.utils.errors import InputError
from densenet121.utils.files import check_output
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
try:
    check_output(Path("folder/out"), "output")
except InputError as error:
    print(error)
"""
    said = run_code(code, str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == (
        "`output` folder/out: nothing can be written into folder (a read-only disk, or no "
        "permission); name a file in another folder\n"
    )


@pytest.mark.parametrize("name", READS_A_FILE)
def test_an_output_that_is_the_input_is_refused_first(name: str, tmp_path: Path) -> None:
    line = refused(name, tmp_path, "in")
    assert line.endswith("in.safetensors: is an input, which would be lost; name another file")


def test_a_file_where_the_folder_of_a_demonstration_would_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"kept")
    done = run_command("demo", "--output_dir", "out", cwd=tmp_path)
    line = f"densenet121: {tmp_path / 'out'}: cannot create the output folder (File exists)\n"
    assert (done.returncode, done.stderr, done.stdout) == (1, line, "")
    assert (tmp_path / "out").read_bytes() == b"kept"


def test_a_run_folder_that_is_a_link_to_a_disk_that_is_not_there_is_named_as_that(
    tmp_path: Path,
) -> None:
    (tmp_path / "out").symlink_to("disk/out")
    done = run_command("demo", "--output_dir", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"densenet121: {tmp_path / 'out'}: cannot create the output folder (a link to disk/out, "
        "which is not there; remove the link, or mount what it leads to)\n"
    )


LABELS = b"path,a,b\n1.png,1,0\n"
# A file that the user has -> the commands that would write over it, two of which do not name it.
OVER_A_FILE = [
    ("scan.csv", "lr-find --data_dir scan.csv --output scan.png"),
    ("scan.csv", "lr-find --data_dir other.csv --val_dir scan.csv --output scan.png"),
    ("scan.csv", "lr-find --data_dir images --exclude scan.csv --output scan.png"),
    ("scan.csv", "lr-find --data_dir images --output scan.png"),
    ("scan.csv", "audit scan.csv --exclude_list scan.csv"),
    ("scan.csv", "audit other.csv --val_dir scan.csv --exclude_list scan.csv"),
    ("run/eval.json", "compare run other --output run/eval.json"),
    ("run/predictions.csv", "compare other run/predictions.csv --output run/predictions.csv"),
    ("run/run.json", "card run --output run/run.json"),
    ("run/best.safetensors", "card run --output run/best.safetensors"),
    ("other/eval.json", "card run --evaluation other --output other/eval.json"),
]


@pytest.mark.parametrize(("file", "command"), OVER_A_FILE)
def test_no_file_of_the_user_is_written_over(file: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / file).write_bytes(LABELS)
    done = run_command(*command.split(), cwd=tmp_path)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(("densenet121: --output ", "densenet121: --exclude_list "))
    assert str(tmp_path / file) in line and line.endswith("; name another file")
    assert (tmp_path / file).read_bytes() == LABELS


def test_a_certificate_that_could_not_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "in.safetensors").write_bytes(b"{")
    (tmp_path / "out.onnx.certificate.json").mkdir()
    flags = ["--pretrained", "in.safetensors", "--data_dir", "images", "--output", "out.onnx"]
    done = run_command("export", *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("out.onnx.certificate.json: is a folder; name a file\n")
    assert not (tmp_path / "out.onnx").exists()


def test_an_exclude_list_is_not_written_over_the_table_in_the_folder(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    (tmp_path / "1.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    (tmp_path / "labels.csv").write_bytes(LABELS)
    flags = ["--task", "multilabel", "--exclude_list", "labels.csv"]
    done = run_command("audit", ".", *flags, cwd=tmp_path)
    assert done.returncode == 1 and "labels.csv: is an input" in done.stderr
    assert (tmp_path / "labels.csv").read_bytes() == LABELS


LOOPS = {
    "train --data_dir loop --output_dir out": "--data_dir {}: there is no such folder",
    "train --data_dir images --val_dir loop --output_dir out": "--val_dir {}: there is no such",
    "train --data_dir images --output_dir loop --resume 1.ckpt": "{}: cannot be read (Too many",
    "pack images --output loop": "{}: Too many levels of symbolic links",
}


def test_a_link_that_leads_to_itself_is_one_line(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", ["a", "b"], 1)
    (tmp_path / "1.ckpt").write_bytes(b"{")
    (tmp_path / "loop").symlink_to("loop")
    for words, expected in LOOPS.items():
        done = run_command(*words.split(), cwd=tmp_path)
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"densenet121: {expected.format(tmp_path / 'loop')}")
        assert done.returncode == 1 and not done.stdout


LIMITED = (
    "import resource, sys; from densenet121.cli import main; "
    "sys.dont_write_bytecode = True; "  # a module would be stored cut short, for every later import
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)); sys.exit(main())"
)
# A command whose work is what it prints -> the file that it cannot write, and what it says.
PRINTED = {
    "audit images --page out.html": ("out.html", "no findings"),
    "metrics table.csv --probability_prefix p_ --resamples 0 --output out.json": ("out.json", "AU"),
    "compare run run --output out.json": ("out.json", "McNemar"),
}


@pytest.mark.parametrize("command", PRINTED)
def test_what_a_command_found_is_printed_where_its_file_cannot_be_written(
    command: str, tmp_path: Path
) -> None:
    write_classes(tmp_path / "images", ["a", "b"], 3)
    rows = "".join(f"{number}.png,{number % 2},0.{number}\n" for number in range(1, 9))
    (tmp_path / "table.csv").write_text(f"path,a,p_a\n{rows}")
    (tmp_path / "run").mkdir()
    rows = "".join(f"{number}.png,a,a,0.5,1\n" for number in range(4))
    head = "path,label,predicted,probability,rank\n"
    (tmp_path / "run" / "predictions.csv").write_text(f"{head}{rows}")
    # Its output is a pipe: in a file it would be limited too.
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *command.split()],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    name, said = PRINTED[command]
    line = f"densenet121: {tmp_path / name}: File too large\n"
    assert (done.returncode, done.stderr) == (1, line)
    assert said in done.stdout
    assert not (tmp_path / name).exists()
