"""``bench data``: compare our loading of images with other libraries, in turns."""

import contextlib
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from typing import Any

from densenet121.bench.peers import peer_script
from densenet121.bench.process import Worker, environment_of, running
from densenet121.bench.quantiles import quartiles
from densenet121.config import BenchConfig, absolute
from densenet121.datasets.sources.open import open_training
from densenet121.device import has_bf16, pick_device
from densenet121.utils.errors import InputError

_OWN = ("ours", "plain", "compute", "both")
_NAMES = {"compute": "training alone", "both": "loading and training"}


@dataclass(frozen=True)
class LoadingSide:
    """Measurements of one side.

    Attributes:
        name: ``ours``, one of ``--against``; or ``compute`` and ``both``, our training steps.
        note: its library and version.
        images_per_second: median over the turns.
        low: first quartile of the same.
        high: third quartile.
        ratio: median over the rounds of our images per second divided by its; None for training.
        waited: for ``both``, share of the time spent waiting for images, else None.
    """

    name: str
    note: str
    images_per_second: float
    low: float
    high: float
    ratio: float | None
    waited: float | None


@dataclass(frozen=True)
class Loading:
    """Result of a comparison.

    Attributes:
        settings: effective settings of the run.
        pictures: number of images, and their mean size in bytes.
        sides: the measurements, ours first.
    """

    settings: dict[str, Any]
    pictures: tuple[int, float]
    sides: tuple[LoadingSide, ...]


def compare_loading(config: BenchConfig) -> Loading:
    """Measure loading for us and every side in ``config.against``; training alone; and both.

    Raises:
        InputError: the images cannot be read, or a side's process failed.
    """
    assert config.data_dir is not None
    dataset, _ = open_training(absolute(config.data_dir))
    spec = {
        "data_dir": str(dataset.root),
        "workers": config.num_workers,
        "batch_size": min(config.per_batch_size, len(dataset)),
        "size": config.size,
        "net": config.net,
        "variant": config.variant,
        "amp": config.amp or ("bf16" if has_bf16(pick_device("cpu")) else "fp32"),
        "steps": config.steps,
    }
    names = ("ours", *config.sides, "compute", "both")
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                running(name, _command(name, spec, config.interpreters), environment_of(name, _OWN))
            )
            for name in names
        ]
        for turn in range(config.warmup + config.rounds):
            for name, worker in zip(names, workers, strict=True):
                answer = worker.ask(str(turn))
                if turn >= config.warmup:
                    answers[name].append(answer)
        ours = answers["ours"]
        sides = tuple(_side(w, answers[w.name], ours) for w in workers)
    size = float(dataset.sizes.mean())
    return Loading({**asdict(config), **spec}, (len(dataset), size), sides)


def _command(side: str, spec: dict[str, Any], interpreters: dict[str, str]) -> list[str]:
    text = json.dumps({**spec, "side": side})
    if side == "plain":
        return ["env", "DENSENET121_KERNELS=off", *_command("ours", spec, {})]
    if side in _OWN:
        return [sys.executable, "-m", "densenet121.bench.own_loader", text]
    python = interpreters.get(side, sys.executable)
    if not os.access(python, os.X_OK):
        raise InputError(f"--python {side}={python}: there is no such program")
    return [python, str(peer_script("loaders.py")), text]


def _side(worker: Worker, answers: list[dict[str, Any]], ours: list[dict[str, Any]]) -> LoadingSide:
    rates = [answer["images"] / answer["seconds"] for answer in answers]
    own = [answer["images"] / answer["seconds"] for answer in ours]
    low, middle, high = quartiles(rates)
    loads = worker.name not in ("compute", "both")
    ratios = [mine / its for mine, its in zip(own, rates, strict=True)]
    waited = [answer["waited"] for answer in answers] if worker.name == "both" else []
    return LoadingSide(
        name=worker.name,
        note=worker.note,
        images_per_second=middle,
        low=low,
        high=high,
        ratio=statistics.median(ratios) if loads else None,
        waited=statistics.median(waited) if waited else None,
    )


def loading_table(loading: Loading) -> str:
    """The comparison as text."""
    settings, (count, size) = loading.settings, loading.pictures
    lines = [
        f"data: {count} images of {size / 1000:.0f} kB, batch {settings['batch_size']} of "
        f"{settings['size'][0]} x {settings['size'][1]}, {settings['workers']} workers on as many "
        f"cores, {settings['rounds']} rounds",
        "",
        f"{'':22}{'images/s':>9}  {'quartiles':>15}  {'ours / its':>10}",
    ]
    for side in loading.sides:
        ratio = "" if side.ratio is None else f"{side.ratio:.2f}"
        name = {"compute": "training alone", "both": "loading and training"}.get(
            side.name, side.name
        )
        lines.append(
            f"{name:22}{side.images_per_second:9.1f}  "
            f"{f'{side.low:.1f} - {side.high:.1f}':>15}  {ratio:>10}"
        )
    both = loading.sides[-1]
    lines += ["", f"training waits for images for {both.waited:.0%} of its time", ""]
    lines += [f"{side.name}: {side.note}" for side in loading.sides[:-2]]
    return "\n".join(lines)
