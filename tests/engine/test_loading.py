"""A run that waits for its images says so, and what to do about it."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from densenet121.engine.loading import LoadingClock, advice
from densenet121.native.images import image_kernel

from helpers.commands import run_command
from helpers.images import draw


def clock(read: float = 0.2, total: float = 1.0, images: int = 100) -> LoadingClock:
    made = LoadingClock()
    made.read_seconds, made.total_seconds, made.images, made.bytes = read, total, images, 110_000
    return made


def said(own: LoadingClock, share: float = 0.4, **changed: Any) -> str | None:
    settings: dict[str, Any] = {"workers": 4, "device_type": "cuda", "cores": 4, **changed}
    return advice(own, waited_share=share, **settings)


def test_a_run_that_hardly_waits_is_told_nothing() -> None:
    assert said(clock(), 0.09) is None
    assert said(LoadingClock(), 0.9) is None


@pytest.mark.parametrize(
    ("own", "changed", "expected"),
    [
        (clock(), {"workers": 2}, "Raise `workers` from 2 to 4"),
        (clock(), {"workers": 0, "device_type": "cpu"}, "Pass `workers` 4"),
        (clock(read=0.7), {}, "densenet121 pack makes shards"),
        (clock(), {"device_type": "cpu"}, "training share the cores"),
        (clock(), {}, "All 4 cores are decoding: store smaller images"),
    ],
)
def test_the_advice_fits_the_cause(
    own: LoadingClock, changed: dict[str, Any], expected: str
) -> None:
    if isinstance(image_kernel(), str) and "smaller" in expected:
        pytest.skip("without the image kernel that is what it says first")
    text = said(own, **changed)
    assert text is not None and expected in text
    assert text.startswith("data loading is the bottleneck: 40% of the epoch was spent waiting for")
    assert "A worker prepares 100 images/s of 1 kB each" in text


def test_a_run_with_large_images_and_no_workers_is_told_so(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            file = tmp_path / "data" / name / f"{index}.png"
            cv2.imwrite(str(file), draw(label, index, (1500, 2000)))
    result = run_command(
        *("train", "--data_dir", tmp_path / "data", "--net", "densenet100", "--image_size", 16),
        *("--per_batch_size", 4, "--max_epoch", 1, "--workers", 0, "--log_interval", 1),
        *("--output_dir", tmp_path / "run"),
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "is the bottleneck" in line]
    assert len(lines) == 1 and ":WARNING:" in lines[0] and "Pass `workers`" in lines[0]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(row["data_wait"] for row in rows if row["kind"] == "train") > 0.1
