"""A training step on several ranks of this machine: ``python -m densenet121.bench.ranks JSON``.

The started process is rank 0; it starts the others, which end with it. It answers each line of
standard input with one line of JSON: the seconds of a ``step``, of a ``local`` step without
exchange of gradients, or of an ``exchange`` of all gradients alone, as float32 or
(``exchange_bf16``) as bfloat16; of a ``solo`` step or an ``update`` of the weights of rank 0 while
the others wait; or of a ``copy`` of COPY_BYTES by every rank at once.
"""

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import (
    from_rank_0,
    is_distributed,
    keep_gradients_local,
    process_group,
)
from densenet121.engine.state import Training
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.losses import smooth_cross_entropy
from densenet121.network import build
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.utils.memory import prepare_for_training

COPY_BYTES = 64 * 2**20  # beyond the caches
_REPETITIONS = 4  # of a copy


def main() -> None:
    """Serve as one rank."""
    spec = json.loads(sys.argv[1])
    out = sys.stdout
    sys.stdout = sys.stderr
    if "RANK" not in os.environ and spec["ranks"] > 1:
        _start_others(spec["ranks"])
    torch.set_num_threads(spec["threads"])
    prepare_for_training()
    process = join(True, 0, 1)
    with process_group(process, torch.device("cpu"), 600):
        ranks = _Ranks(spec, process.rank)
        if process.rank == 0:
            print(json.dumps({"note": f"{ranks.gradients.numel()}"}), file=out, flush=True)
        while True:
            line = from_rank_0(sys.stdin.readline().strip() if process.rank == 0 else "")
            if not line:
                return
            seconds = ranks.measure(line)
            if process.rank == 0:
                print(json.dumps({"seconds": seconds}), file=out, flush=True)


def _start_others(count: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in reversed(range(count)):
        place = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(place)
        if rank:
            subprocess.Popen([sys.executable, *_own_arguments()], stdin=subprocess.DEVNULL)


def _own_arguments() -> list[str]:
    return ["-m", "densenet121.bench.ranks", sys.argv[1]]


class _Ranks:
    """A network in training and its gradients."""

    def __init__(self, spec: dict[str, Any], rank: int) -> None:
        self._is_first = rank == 0
        torch.manual_seed(0)
        model = build(spec["net"], num_classes=1000, variant=spec["variant"])
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._training = Training.begin(
            model,
            momentum_sgd(get_param_groups(model, 1e-4), lr=0.01, momentum=0.9),
            scale_loss=False,
        )
        model.train()
        height, width = spec["size"]
        images = torch.randn(spec["batch_size"], 3, height, width)
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.randint(0, 1000, (spec["batch_size"],))
        self._precision = torch.bfloat16 if spec["amp"] == "bf16" else torch.float32
        self.gradients = torch.zeros(sum(p.numel() for p in model.parameters()))

    def measure(self, what: str) -> float:
        """Seconds from when all ranks are ready until all are done."""
        if is_distributed():
            dist.barrier()
        start = time.perf_counter()
        if what == "step":
            self._step()
        elif what == "copy":
            return self._copy()
        elif what in ("solo", "update"):
            self._alone(what)
        elif what == "local":
            with keep_gradients_local(self._training.synchronised, True):
                self._step()
        else:
            dtype = torch.bfloat16 if what == "exchange_bf16" else torch.float32
            dist.all_reduce(self.gradients.to(dtype))
        if is_distributed():
            dist.barrier()
        return time.perf_counter() - start

    def _alone(self, what: str) -> None:
        """What rank 0 does while the others wait."""
        if self._is_first and what == "update":
            self._training.optimizer.step()
        elif self._is_first:
            with keep_gradients_local(self._training.synchronised, True):
                self._step()

    def _copy(self) -> float:
        """Seconds of a copy of COPY_BYTES by every rank at once, the fastest of some."""
        source, best = torch.zeros(COPY_BYTES, dtype=torch.uint8), float("inf")
        target = torch.empty_like(source)
        for _ in range(_REPETITIONS):
            if is_distributed():
                dist.barrier()
            start = time.perf_counter()
            target.copy_(source)
            if is_distributed():
                dist.barrier()
            best = min(best, time.perf_counter() - start)
        return best

    def _step(self) -> None:
        train_step(
            self._training.synchronised,
            self._training.optimizer,
            self._training.scaler,
            [TrainingBatch(self._images, self._labels, 1.0)],
            smooth_cross_entropy,
            lr=0.01,
            precision=self._precision,
        )


if __name__ == "__main__":
    main()
