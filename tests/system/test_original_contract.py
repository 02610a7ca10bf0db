"""The commands of the original's README, letter by letter, on real images."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from densenet121.network import densenet121

from helpers import forking
from helpers.commands import REPOSITORY, SHARED, environment
from helpers.images import write_classes
from helpers.ranks import RANK_TABLE

PHOTOS = SHARED / "data" / "photos"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:INFO:"

pytestmark = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="real images are needed: ../shared/data/photos is not there"
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
    return link_photos(clone / "photos", train=4, val=3)


def link_photos(root: Path, *, train: int, val: int) -> Path:
    """So many photographs of each class."""
    for split, count in (("train", train), ("val", val)):
        for name in ("ants", "bees"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in sorted((PHOTOS / split / name).iterdir())[:count]:
                (folder / image.name).symlink_to(image)
    return root


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


def script(
    clone: Path, command: str, python: str = sys.executable
) -> "subprocess.CompletedProcess[str]":
    """A command of the README in the clone, on this Python."""
    return subprocess.run(
        command.split(),
        cwd=clone,
        capture_output=True,
        text=True,
        env=environment(PYTHON=python),
        timeout=240,
    )


def forked_python(file: Path) -> str:
    """A Python for `python -m MODULE` and `python SCRIPT.py` that is forked, not started."""
    client = Path(forking.__file__).with_name("fork_client.py")
    python = f'"{sys.executable}" -I -S "{client}" "{forking.forking_socket()}"'
    file.write_text(f'#!/bin/sh\n[ "$1" != -m ] || shift\nexec {python} "$@"\n')
    file.chmod(0o755)
    return str(file)


@pytest.mark.slow  # a minute of both cores; tests/distributed runs the scripts, too
def test_the_readmes_distributed_commands_run_as_written(clone: Path, tmp_path: Path) -> None:
    image_folder = tmp_path / "pictures"
    for split, count in (("train", 32), ("val", 4)):  # a step of 2 ranks of 32
        for source in sorted((SHARED / "data" / "imagenette" / split).iterdir())[:2]:
            folder = image_folder / split / source.name
            folder.mkdir(parents=True)
            for image in sorted(source.iterdir())[:count]:
                (folder / image.name).symlink_to(image)
    (clone / "rank_table.json").write_text(RANK_TABLE)
    eight = script(clone, f"sh scripts/run_distribute_train.sh 8 rank_table.json {image_folder}")
    assert eight.returncode == 2
    assert eight.stderr == (
        "densenet121: DEVICE_NUM is 8, but rank_table.json lists 2 devices of this host\n"
    )
    two = script(
        clone, f"sh scripts/run_distribute_train.sh 2 rank_table.json {image_folder} pretrained.pth"
    )
    assert two.returncode == 0, two.stderr
    wait_for("after allreduce eval: top5_correct", clone / "train0" / "log.txt")
    assert script(clone, "sh scripts/run_distribute_train.sh --stop").returncode == 0
    text = wait_for("stopped by a signal", clone / "train0" / "log.txt")
    assert re.search(rf"{TIME}epoch\[0\], iter\[0\], loss:\d+\.\d+, mean_fps:", text)
    assert re.search(rf"{TIME}after allreduce eval: top1_correct=\d+, tot=8, acc=", text)
    assert list((clone / "train1" / "output").glob("*_time_*/*_rank_1.log"))
    weights = sorted((clone / "train0" / "output").glob("*_time_*/0-*.ckpt"))[-1]

    flags = f"--wait 2 rank_table.json {image_folder} {weights}"
    evaluated = script(clone, f"sh scripts/run_distribute_eval.sh {flags}")
    assert evaluated.returncode == 0, (clone / "eval.out").read_text()
    log = (clone / "eval0" / "log.txt").read_text()
    assert re.search(rf"{TIME}after allreduce eval: top1_correct=\d+, tot=8, acc=", log)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [4, 8])
def test_the_distributed_commands_run_on_more_ranks(ranks: int, tmp_path: Path) -> None:
    """As written, at a small size, which those commands have no flag for, on real images."""
    (tmp_path / "scripts").symlink_to(REPOSITORY / "scripts")
    (tmp_path / "train.yaml").write_text("image_size: 32\nper_batch_size: 4\nmax_epoch: 1\n")
    (tmp_path / "eval.yaml").write_text("per_batch_size: 3\n")
    for command in ("train", "eval"):
        (tmp_path / f"{command}.py").write_text(
            "import sys\nfrom densenet121.cli import main\n"
            f'sys.exit(main(["{command}", "--config", "../{command}.yaml", *sys.argv[1:]]))\n'
        )
    for split, count in (("train", 20), ("val", 7)):
        for source in sorted((SHARED / "data" / "imagenette" / split).iterdir())[:3]:
            folder = tmp_path / "images" / split / source.name
            folder.mkdir(parents=True)
            for image in sorted(source.iterdir())[:count]:
                (folder / image.name).symlink_to(image)
    devices = [{"device_id": str(i), "rank_id": str(i)} for i in range(ranks)]
    table = {"version": "1.0", "status": "completed"}
    servers = [{"server_id": "10.0.0.10", "device": devices}]
    (tmp_path / "rank_table.json").write_text(json.dumps(table | {"server_list": servers}))
    flags = f"--wait {ranks} rank_table.json images"
    trained = script(tmp_path, f"sh scripts/run_distribute_train.sh {flags}")
    assert trained.returncode == 0, (tmp_path / "train0" / "log.txt").read_text()[-3000:]
    log = (tmp_path / "train0" / "log.txt").read_text()
    assert re.search(rf"{TIME}epoch\[0\], iter\[{60 // (4 * ranks) - 1}\], loss:", log)
    assert re.search(rf"{TIME}after allreduce eval: top1_correct=\d+, tot=21, acc=", log)
    assert list((tmp_path / f"train{ranks - 1}" / "output").glob(f"*/*_rank_{ranks - 1}.log"))
    (weights,) = (tmp_path / "train0" / "output").glob("*/last.safetensors")
    evaluated = script(tmp_path, f"sh scripts/run_distribute_eval.sh {flags} {weights}")
    assert evaluated.returncode == 0, (tmp_path / "eval0" / "log.txt").read_text()[-3000:]
    validated, counted = (
        re.findall(r"after allreduce eval: (top1_correct=.*)", text)[-1]
        for text in (log, (tmp_path / "eval0" / "log.txt").read_text())
    )
    assert counted == validated


def test_wait_tells_that_a_rank_failed(clone: Path, tmp_path: Path) -> None:
    image_folder = link_photos(tmp_path / "photos", train=3, val=1)
    (clone / "rank_table.json").write_text(RANK_TABLE)
    command = f"sh scripts/run_distribute_train.sh --wait 2 rank_table.json {image_folder}"
    done = script(clone, command, forked_python(tmp_path / "python"))
    assert done.returncode == 1
    assert "fewer than the 2 x" in (clone / "train0" / "log.txt").read_text()
    ended = script(clone, "sh scripts/run_distribute_train.sh --stop")
    assert ended.returncode == 2
    assert "has ended" in ended.stderr


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_the_run_ends_as_if_undisturbed(
    clone: Path, tmp_path: Path
) -> None:
    """The scripts' way to restart, on a small network in place of theirs."""
    (clone / "rank_table.json").write_text(RANK_TABLE)
    write_classes(tmp_path / "p" / "train", ["ant", "bee"], 64)
    write_classes(tmp_path / "p" / "val", ["ant", "bee"], 5)
    (tmp_path / "small.yaml").write_text(
        "net: densenet40\nimage_size: 16\nmax_epoch: 12\nckpt_interval: 1\namp: fp32\n"
    )
    results = []
    for name, disturbed in (("quiet", False), ("killed", True)):
        root = tmp_path / name
        root.mkdir()
        (root / "scripts").symlink_to(REPOSITORY / "scripts")
        (root / "train.py").write_text(
            "import sys\nfrom densenet121.cli import main\n"
            f'sys.exit(main(["train", "--config", {str(tmp_path / "small.yaml")!r}, '
            "*sys.argv[1:]]))\n"
        )
        command = ["sh", "scripts/run_distribute_train.sh", "2"]
        started = subprocess.run(
            [*command, str(clone / "rank_table.json"), str(tmp_path / "p")],
            cwd=root,
            env=environment(PYTHON=sys.executable, MAX_RESTARTS="2"),
            capture_output=True,
            text=True,
        )
        assert started.returncode == 0, started.stderr
        if disturbed:
            wait_for(r"epoch\[2\]", root / "train0" / "log.txt")
            launcher = (root / "train.pid").read_text().strip()
            children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
            subprocess.run(["kill", "-KILL", children[1]], check=True)
        log = wait_for("end network train", root / "train0" / "log.txt")
        assert ("resumed from" in log) == disturbed
        (run,) = (root / "train0" / "output").iterdir()
        results.append((run / "last.safetensors").read_bytes())
    assert results[0] == results[1]


def test_the_scripts_are_posix() -> None:
    for script in sorted((REPOSITORY / "scripts").glob("*.sh")):
        checked = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
