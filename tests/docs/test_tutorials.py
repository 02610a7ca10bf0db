"""The commands of the tutorials run, from top to bottom."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import REPOSITORY, environment

pytestmark = pytest.mark.tutorials
TUTORIALS = REPOSITORY / "docs" / "tutorials"
PAGES = sorted(path.stem for path in TUTORIALS.glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# The same commands in seconds: fewer images and epochs, and so more doubt; the run is stopped as
# soon as there is a checkpoint.
SHORTER = [
    (r"enumerate\(zip\(digits.images, digits.target\)\)", r"list(\g<0>)[:500]"),
    (r"--target_accuracy [\d.]+", "--target_accuracy 0.1"),
    (r"--max_epoch \d+", "--max_epoch 1"),
    (r"sleep \d+", "until ls output/stopped/*.ckpt; do sleep 0.1; done > found.log 2>&1"),
]


def run_page(name: str, folder: Path, *, shorten: bool) -> str:
    """Run the bash blocks of a page in one shell, after writing its files; return the output."""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    for pattern, shorter in SHORTER if shorten else []:
        text = re.sub(pattern, shorter, text)
    blocks = BLOCK.findall(text)
    work = folder / "work"
    work.mkdir()
    for _, title, content in blocks:
        if title:
            (work / title).write_text(content, encoding="utf-8")
    script = "".join(content for language, _, content in blocks if language == "bash")
    port = free_port()
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", STOP_SERVER + script.replace("8000", str(port))],
        cwd=work,
        env=environment(PATH=commands(folder), PET_MASTER_PORT=str(free_port())),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    (folder / "output.txt").write_text(done.stdout, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    return done.stdout


STOP_SERVER = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"


def commands(folder: Path) -> str:
    """A PATH on which the page's commands are those of this Python."""
    shims = {"densenet121": "-m densenet121", "torchrun": "-m torch.distributed.run", "python": ""}
    for name, arguments in shims.items():
        shim = folder / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        shim.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_first_tutorial_ends_with_an_answer_of_the_server(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the page asks the server with curl, which is not installed")
    output = run_page("first-model", tmp_path, shorten=True)
    assert re.search(r'\{"predictions":\[\{"name":"","predicted":.*"prediction_set":\[', output)


def test_the_tutorial_on_the_weights_of_others_runs(tmp_path: Path) -> None:
    output = run_page("others-weights", tmp_path, shorten=True)
    assert "its 4 classes differ from the 3 of the data" in output


def test_the_tutorial_on_resuming_ends_with_the_bits_it_promises(tmp_path: Path) -> None:
    output = run_page("resume", tmp_path, shorten=True)
    assert "stopped by a signal after" in output
    assert "resumed from" in output
    digests = re.findall(r'"digest": "(\w+)"', output)
    assert len(digests) == 2
    assert len(set(digests)) == 1


def test_no_tutorial_is_left_out() -> None:
    assert PAGES == ["first-model", "others-weights", "resume"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_whole_tutorial_runs_as_written(name: str, tmp_path: Path) -> None:
    output = run_page(name, tmp_path, shorten=False)
    accuracies = re.findall(r"INFO:best: .*acc=([\d.]+)%", output)
    assert max(map(float, accuracies)) > 90
