"""The commands of the original's README, letter by letter, on real pictures."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from densenet121.network import densenet121

from conftest import REPOSITORY, SHARED, environment

PHOTOS = SHARED / "data" / "photos"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:INFO:"

pytestmark = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="real pictures are needed: ../shared/data/photos is not there"
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands need of a clone's root, with a place of its own for output/."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "eval.py", "scripts"):
        (root / name).symlink_to(REPOSITORY / name)
    torch.save(densenet121(1000).state_dict(), root / "pretrained.pth")
    return root


@pytest.fixture(scope="module")
def photos(clone: Path) -> Path:
    """Some of the photographs, by link: full size, but few enough for a quick step at 224 x 224."""
    for split, count in (("train", 4), ("val", 3)):
        for name in ("ants", "bees"):
            folder = clone / "photos" / split / name
            folder.mkdir(parents=True)
            for picture in sorted((PHOTOS / split / name).iterdir())[:count]:
                (folder / picture.name).symlink_to(picture)
    return clone / "photos"


def start(command: str, root: Path) -> int:
    """Run a line of the README in a shell that leaves a job behind; the job's process number."""
    line = command.replace("python ", f"{sys.executable} ") + " echo $!"
    env = environment()
    shell = subprocess.run(["sh", "-c", line], cwd=root, env=env, capture_output=True, text=True)
    assert shell.returncode == 0, shell.stderr
    return int(shell.stdout)


def wait_for(pattern: str, file: Path, timeout_seconds: float = 240) -> str:
    """The file's text once it holds the pattern."""
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        text = file.read_text() if file.exists() else ""
        if re.search(pattern, text):
            return text
        time.sleep(0.2)
    raise AssertionError(f"no {pattern!r} in {file}:\n{text}")


def stop(process: int, log: Path) -> str:
    """SIGTERM, and the log when it has ended."""
    subprocess.run(["kill", "-TERM", str(process)], check=True)
    return wait_for("stopped by a signal", log)


def test_the_readmes_training_and_evaluation_commands_run_as_written(
    clone: Path, photos: Path
) -> None:
    process = start(
        f"python train.py --data_dir {photos} --pretrained {clone / 'pretrained.pth'} "
        "--is_distributed 0 > train.log 2>&1 &",
        clone,
    )
    wait_for("after allreduce eval: top5_correct", clone / "train.log")
    text = stop(process, clone / "train.log")
    assert re.search(
        rf"{TIME}epoch\[0\], iter\[0\], loss:\d+\.\d+, mean_fps:\d+\.\d\d imgs/sec\n"
        rf"{TIME}local passed\n"
        rf"{TIME}after allreduce eval: top1_correct=\d+, tot=6, acc=\d+\.\d\d%\n"
        rf"{TIME}after allreduce eval: top5_correct=6, tot=6, acc=100\.00%\n",
        text,
    )
    assert "load model" in text and "the head is new" in text
    (run,) = (clone / "output").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_time_\d\d_\d\d_\d\d", run.name)
    assert (run / f"{run.name}_rank_0.log").read_text() in text

    newest = sorted(run.glob("0-*.ckpt"))[-1]
    start(f"python eval.py --data_dir {photos} --pretrained {newest} > eval.log 2>&1 &", clone)
    text = wait_for("results: ", clone / "eval.log")
    assert re.search(rf"{TIME}after allreduce eval: top1_correct=\d+, tot=6, acc=", text)


def test_the_readmes_scripts_run_on_one_device_and_say_so_of_more(
    clone: Path, photos: Path
) -> None:
    (clone / "rank_table.json").write_text("{}")
    script = "sh scripts/run_distribute_train.sh {} rank_table.json " + f"{photos} pretrained.pth"
    eight = subprocess.run(script.format(8).split(), cwd=clone, capture_output=True, text=True)
    assert eight.returncode == 2
    assert eight.stderr == (
        "launch.sh: DEVICE_NUM is 8; this version computes on one device: pass 1\n"
    )
    one = subprocess.run(
        script.format(1).split(),
        cwd=clone,
        capture_output=True,
        text=True,
        env=environment(PYTHON=sys.executable),
    )
    assert one.returncode == 0, one.stderr
    log = clone / "train0" / "log.txt"
    wait_for("local passed", log)
    stop(int((clone / "train0" / "pid").read_text()), log)
    assert list((clone / "train0" / "output").glob("*_time_*/0-*.ckpt"))


def test_the_scripts_are_posix() -> None:
    for script in sorted((REPOSITORY / "scripts").glob("*.sh")):
        checked = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
