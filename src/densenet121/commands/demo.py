"""The ``demo`` command: train DenseNet-121 on handwritten digits, evaluate, write a report."""

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from densenet121.commands import DONE, STOPPED
from densenet121.config import DemoConfig, EvalConfig, TrainConfig, absolute
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.report import write_report
from densenet121.runs.layout import LAST_WEIGHTS, RECORD, make_folder
from densenet121.utils.errors import InputError, cannot_write

_HELD_OUT = 4  # every fourth digit is for evaluation only


@dataclass(frozen=True)
class DemoResult:
    """Result of the demonstration.

    Attributes:
        folder: contains the images and the run.
        report: path of the report page.
        top1: share of the held-out digits that the last weights classify correctly.
    """

    folder: Path
    report: Path
    top1: float


def demo(config: DemoConfig) -> DemoResult | None:
    """Write the digits as class folders, train, evaluate and report; None if stopped.

    The settings differ from those for photographs: digits are small, must not be mirrored, and need
    little cropping.
    """
    start = time.perf_counter()
    stamp = time.strftime("%Y-%m-%d_time_%H_%M_%S")
    folder = absolute(config.output_dir or f"output/demo_{stamp}")
    data_dir, run_dir = folder / "digits", folder / "run"
    if (run_dir / RECORD).exists():
        raise InputError(f"{run_dir} already has a run; choose another --output_dir")
    make_folder(folder, folder.parent)
    write_digits(data_dir)
    trained = train(
        TrainConfig(
            data_dir=str(data_dir),
            output_dir=str(run_dir),
            image_size=32,
            eval_resize=32,
            per_batch_size=32,
            lr=0.03,
            warmup_epochs=min(2, config.max_epoch),
            max_epoch=config.max_epoch,
            weight_decay=5e-4,
            label_smooth=1,
            crop_scale="0.6,1.0",
            crop_ratio="0.8,1.25",
            flip_prob=0,
            log_interval=10,
            workers=config.workers,
            device=config.device,
        )
    )
    if trained.stopped:
        return None
    last = run_dir / LAST_WEIGHTS
    evaluated = evaluate(
        EvalConfig(
            data_dir=str(data_dir),
            pretrained=str(last),
            output_dir=str(folder / "eval"),
            per_batch_size=32,
            workers=config.workers,
            device=config.device,
        )
    )
    evaluation = evaluated.evaluations.get(last)
    if evaluation is None:
        return None
    report = write_report(run_dir)
    metrics = evaluation.metrics
    print(  # noqa: T201 (the command's output)
        f"{metrics['top1_correct']} of {metrics['total']} held-out digits correct "
        f"({100 * metrics['top1']:.2f} %) after {time.perf_counter() - start:.0f} s; images, log, "
        f"weights and metrics are in {folder}, the report is {report}"
    )
    return DemoResult(folder, report, metrics["top1"])


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits (UCI optdigits, test part) as PNG class folders.

    8 x 8 pixels of 17 grey levels become 32 x 32 of 256. Every fourth goes to ``val/``: as in any
    random split of these digits, both parts have digits by the same writers.

    Raises:
        InputError: an image cannot be written.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "val" if index % _HELD_OUT == 0 else "train"
        path = folder / split / str(digit) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = cv2.resize(
            (pixels / 16 * 255).astype(np.float32), (32, 32), interpolation=cv2.INTER_CUBIC
        )
        _, png = cv2.imencode(".png", np.clip(np.rint(grey), 0, 255).astype(np.uint8))
        try:
            path.write_bytes(png.tobytes())
        except OSError as error:
            raise cannot_write(path, error) from None


def run(config: DemoConfig) -> int:
    """Run the demonstration."""
    return STOPPED if demo(config) is None else DONE
