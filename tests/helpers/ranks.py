"""Ranks on this machine, started by torchrun."""

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from helpers.commands import environment
from helpers.forking import Forked

NAMES = ["ant", "bee", "cat"]
# Of one host with two devices, for the original's scripts.
RANK_TABLE = (
    '{"version": "1.0", "status": "completed", "server_list": [{"server_id": "10.0.0.10", '
    '"device": [{"device_id": "0", "rank_id": "0"}, {"device_id": "1", "rank_id": "1"}]}]}'
)
SMALL = ["--net", "densenet40", "--image_size", "16", "--device", "cpu", "--amp", "fp32"]


def torchrun(ranks: int, *command: object, **more: str) -> "subprocess.Popen[str]":
    """Start ranks of ``python ...`` on this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, command)],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_ranks(
    ranks: int, *command: object, folder: Path, **more: str
) -> tuple[list[Forked], Path]:
    """Ranks of ``python ...`` with the variables of a launcher, and the file of what they print.

    The file is in ``folder``, which must have no ranks that still write.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = folder / "output.txt"
    place = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        Forked(
            command,
            environment(**place, RANK=str(rank), LOCAL_RANK=str(rank), **more),
            output=(output, output),
        )
        for rank in range(ranks)
    ]
    return processes, output


def run(ranks: int, *command: object) -> str:
    """The output of ranks that end well."""
    with tempfile.TemporaryDirectory(prefix="ranks") as folder:
        processes, output = start_ranks(ranks, *command, folder=Path(folder))
        statuses = [process.wait() for process in processes]
        text = output.read_text(errors="surrogateescape")
    assert statuses == [0] * ranks, text[-3000:]
    return text


def train(ranks: int, image_folder: Path, folder: Path, *more: object) -> str:
    flags = [
        "--data_dir",
        image_folder,
        "--output_dir",
        folder,
        "--per_batch_size",
        5,
        "--lr",
        0.02,
    ]
    flags += ["--max_epoch", 2, "--log_interval", 3, "--ckpt_interval", 1]
    flags += ["--keep_checkpoint_max", 0]
    return run(ranks, "-m", "densenet121", "train", *SMALL, *flags, *more)


def result(folder: Path) -> tuple[bytes, list[dict[str, Any]], str]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("images_per_second", None)
        row.pop("data_wait", None)
    predictions = (folder / "predictions.csv").read_text()
    return (folder / "last.safetensors").read_bytes(), rows, predictions


def ranks_of(launcher: "subprocess.Popen[Any]") -> list[int]:
    """Process numbers of the ranks that a launcher has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(number) for number in children.read_text().split()]
