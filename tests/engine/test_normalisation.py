"""Mean and standard deviation of the images: measured exactly, or given."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from densenet121.checkpoint.load import read_weights
from densenet121.config import TrainConfig
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sources.open import open_training
from densenet121.engine.image_statistics import mean_and_std
from densenet121.engine.train import train
from densenet121.utils.errors import InputError, UsageError

from helpers.images import draw

SHAPES = [(40, 48), (30, 60), (61, 33), (17, 17), (100, 20)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("ant", "bee")):
        (root / name).mkdir()
        for index, size in enumerate(SHAPES):
            cv2.imwrite(str(root / name / f"{index}.png"), draw(label, index, size))
    return root


@pytest.mark.parametrize("resize", ["24,20", "short:20", "pad:24"])
def test_data_gives_the_moments_of_all_resized_pixels(images: Path, resize: str) -> None:
    transform = Preprocessing((16, 16), resize).transform
    pixels = []
    for file in sorted(images.rglob("*.png")):
        image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        height, width = image.shape[:2]
        sides = {
            "24,20": (24, 20),
            "short:20": (int(20 * height / width), 20)
            if width <= height
            else (20, int(20 * width / height)),
            "pad:24": (24, max(1, int(24 * width / height + 0.5)))
            if height >= width
            else (max(1, int(24 * height / width + 0.5)), 24),
        }[resize]
        pixels.append(cv2.resize(image, sides[::-1]).reshape(-1, 3))
    everything = np.concatenate(pixels).astype(np.float64)
    dataset, _ = open_training(images)
    found = [mean_and_std(dataset, transform, workers=n) for n in (0, 1, 3)]
    np.testing.assert_allclose(found[0][0], everything.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found[0][1], everything.std(axis=0), rtol=1e-12)
    assert found[0] == found[1] == found[2]


def config_of(images: Path, folder: Path, normalisation: str) -> TrainConfig:
    return TrainConfig(
        data_dir=str(images),
        net="densenet40",
        image_size=16,
        eval_resize="24,20",
        normalisation=normalisation,
        lr=0.01,
        max_epoch=1,
        per_batch_size=5,
        workers=0,
        amp="fp32",
        is_distributed=0,
        output_dir=str(folder),
    )


def test_a_run_stores_what_it_measured_and_resumes_with_it(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = config_of(images, folder, "data")
    train(config)
    info = read_weights(next(folder.glob("**/*.safetensors"))).info
    dataset, _ = open_training(images)
    expected = mean_and_std(dataset, Preprocessing((16, 16), "24,20").transform, workers=1)
    assert info is not None
    assert (info.preprocessing.mean, info.preprocessing.std) == expected
    log = "".join(file.read_text() for file in folder.glob("*.log"))
    assert f"`normalisation` data: mean {expected[0][0]:.3f}, " in log.replace("--norm", "`norm")
    assert json.loads((folder / "run.json").read_text())["settings"]["normalisation"] == "data"
    train(replace(config, resume="auto"))
    with pytest.raises(UsageError, match="--normalisation was data, is now 128,60"):
        train(replace(config, resume="auto", normalisation="128,60"))


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [("128,60", (128,) * 3, (60,) * 3), ("1,2,3,40,50.5,60", (1, 2, 3), (40, 50.5, 60))],
)
def test_numbers_are_for_all_colours_or_each(
    text: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    assert TrainConfig(data_dir="x", normalisation=text).mean_std == (mean, std)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("imagenet", "must be weights, original, data, or the mean and std in grey levels"),
        ("1,2,3", "must be weights, original"),
        ("nan,1", "must be weights, original"),
        ("300,1", "needs means from 0 to 255"),
        ("100,0", "needs means from 0 to 255 and stds above 0"),
        ("0.5,0.25", r"is in grey levels 0 to 255, and 0\.5,0\.25 looks like shares of 1"),
    ],
)
def test_what_cannot_be_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"^--normalisation {reason}"):
        TrainConfig(data_dir="x", normalisation=text)


def test_images_of_one_value_have_no_deviation(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), np.full((20, 20, 3), 7, np.uint8))
    dataset, _ = open_training(tmp_path)
    transform = Preprocessing((16, 16), "20").transform
    with pytest.raises(InputError, match="all pixels of a colour have the same value"):
        mean_and_std(dataset, transform, workers=1)
