"""``show``: its images are those of evaluation and of training, to the bit."""

import base64
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densenet121 import cli
from densenet121.commands.show import show
from densenet121.config import AugmentationSettings, ShowConfig, TrainConfig
from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sources.open import open_training
from densenet121.engine.augmentation import describe, make_mixing, make_transform
from densenet121.engine.setup import pick_preprocessing
from densenet121.utils.errors import InputError, UsageError

from helpers.weights import write_weights

Pixels = NDArray[np.uint8]
SIZE = 24  # small enough to be shown without losses


def sheet(image_folder: Path, tmp_path: Path, **settings: Any) -> str:
    given: dict[str, Any] = {"image_size": SIZE, "images": 3, "versions": 4} | settings
    output = tmp_path / "sheet.html"
    config = ShowConfig(data_dir=str(image_folder), output=str(output), **given)
    assert show(config) == output
    return output.read_text(encoding="utf-8")


def figures(page: str) -> list[tuple[str, Pixels]]:
    """Caption and pixels of every image."""
    found = re.findall(r'base64,([^"]+)" alt="([^"]*)"', page)
    shown = []
    for data, caption in found:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
        shown.append((caption, np.asarray(pixels, dtype=np.uint8)))
    return shown


@pytest.mark.parametrize("augment", ["original", "trivial", "none"])
def test_each_version_is_the_image_of_that_epoch_of_training(
    image_folder: Path, tmp_path: Path, augment: str
) -> None:
    shown = figures(sheet(image_folder, tmp_path, augment=augment, seed=7, erase_prob=0.5))
    given: dict[str, Any] = {"image_size": SIZE, "augment": augment, "seed": 7, "erase_prob": 0.5}
    config = TrainConfig(data_dir=str(image_folder), **given)
    dataset, _ = open_training(image_folder)
    preprocessing = pick_preprocessing(config, None, None)
    transform = make_transform(config, SIZE, SIZE, preprocessing)
    indices = np.array([0, 22, 44])
    assert len(shown) == 3 * (2 + 4)
    for place, index in enumerate(indices):
        own = shown[6 * place : 6 * (place + 1)]
        assert [caption.partition(":")[0] for caption, _ in own] == [
            "the whole image, 48 x 40",
            "evaluation",
            *(f"epoch {number}" for number in range(4)),
        ]
        evaluated = np.empty((SIZE, SIZE, 3), np.uint8)
        preprocessing.reader(dataset)(int(index), evaluated)
        np.testing.assert_array_equal(own[1][1], evaluated)
    for epoch in range(4):
        prepare = training_images(dataset, transform, 7, epoch)
        (batch,) = load_batches(prepare, [indices], (SIZE, SIZE), workers=2)
        for place, expected in enumerate(batch.images.numpy()):
            np.testing.assert_array_equal(shown[6 * place + 2 + epoch][1], expected)


@pytest.mark.parametrize("augment", ["original", "trivial"])
def test_the_first_epochs_are_shown_at_the_small_size_that_they_train_on(
    image_folder: Path, tmp_path: Path, augment: str
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text(
        f"image_size: {SIZE}\nsmall_size: 16,20\nsmall_epochs: 2\nseed: 7\naugment: {augment}\n"
    )
    output = tmp_path / "sheet.html"
    flags = ["--data_dir", str(image_folder), "--output", str(output), "--images", "1"]
    assert cli.main(["show", "--config", str(settings), *flags, "--versions", "3"]) == 0
    page = output.read_text(encoding="utf-8")
    assert "20 x 16" in page and "in the first 2 epochs, pixels" in page
    whole, evaluation, *shown = figures(page)
    assert whole[0] == "the whole image, 48 x 40" and evaluation[1].shape == (SIZE, SIZE, 3)
    given: dict[str, Any] = {"image_size": SIZE, "augment": augment}
    config = TrainConfig(data_dir=str(image_folder), **given)
    dataset, _ = open_training(image_folder)
    preprocessing = pick_preprocessing(config, None, None)
    sizes = [(16, 20), (16, 20), (SIZE, SIZE)]
    assert len(shown) == 3
    for epoch, (size, (caption, pixels)) in enumerate(zip(sizes, shown, strict=True)):
        name = f"epoch {epoch}" + (", 20 x 16 pixels" if epoch < 2 else "")
        assert caption.partition(":")[0] == name
        expected = np.empty((*size, 3), np.uint8)
        prepare = training_images(dataset, make_transform(config, *size, preprocessing), 7, epoch)
        prepare(0, expected)
        np.testing.assert_array_equal(pixels, expected)


def test_small_batches_are_mixed_as_well(image_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"small_size": "16", "small_epochs": 1, "versions": 2, "mixup": 0.4}
    shown = figures(sheet(image_folder, tmp_path, **given))
    assert [pixels.shape[0] for _, pixels in shown[3 * 4 :]] == [16] * 3 + [SIZE] * 3
    with pytest.raises(UsageError, match="--small_size and --small_epochs need each other"):
        ShowConfig(data_dir="data", small_size="16")


def test_size_and_mean_are_those_of_the_weights_that_training_will_start_from(
    image_folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")  # for images of 16 x 16
    turned = {"augment": "none", "rotate": 45.0, "image_size": None, "pretrained": str(weights)}
    shown = figures(sheet(image_folder, tmp_path, images=1, versions=1, **turned))
    assert [pixels.shape for _, pixels in shown[1:]] == [(16, 16, 3)] * 2


def test_mixed_batches_are_shown_as_they_are_mixed(image_folder: Path, tmp_path: Path) -> None:
    shown = figures(sheet(image_folder, tmp_path, versions=1, mixup=0.4))
    batch = np.stack([shown[3 * place + 2][1] for place in range(3)])
    dataset, _ = open_training(image_folder)
    mixing = make_mixing(TrainConfig(data_dir="data", mixup=0.4), dataset, 3)
    assert mixing
    mix = mixing.draw((SIZE, SIZE), seed=1, epoch=0, step=0, rank=0, part=0)
    expected = mix.images(torch.from_numpy(batch).permute(0, 3, 1, 2).double())
    for place in range(3):
        caption, pixels = shown[9 + place]
        assert caption == f"epoch 0: mixup, {100 * mix.share:.0f} % its own label"
        off = torch.from_numpy(pixels).permute(2, 0, 1) - expected[place]
        assert off.abs().max() <= 0.5 + 1e-3


def test_the_page_is_one_file_that_needs_no_other(image_folder: Path, tmp_path: Path) -> None:
    page = sheet(image_folder, tmp_path, augment="rand")
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", page)
    assert "RandAugment: 2 random operations of strength 9 of 30" in page
    assert "<h2>ant</h2>" in page and "ant/000.png" in page


def test_a_table_of_several_labels_is_shown(image_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    ants = [image_folder / "train" / "ant" / f"00{number}.png" for number in range(3)]
    rows = zip(ants, ("1,1", "0,1", "0,0"), strict=True)
    lines = ["path,small,red", *(f"{path},{cells}" for path, cells in rows)]
    table.write_text("\n".join(lines), encoding="utf-8")
    page = sheet(table, tmp_path, task="multilabel", mixup=0.2, versions=1)
    titles = re.findall("<h2>([^<]*)</h2>", page)
    assert titles == ["In this order", "small, red", "red", "no label", "Mixed batches"]


def test_names_are_escaped(tmp_path: Path, image_folder: Path) -> None:
    root = tmp_path / "data"
    for name in ("<b>a</b>".replace("/", "_"), "c"):
        (root / name).mkdir(parents=True)
        source = image_folder / "train" / "ant" / "000.png"
        (root / name / "<i>.png").write_bytes(source.read_bytes())
    page = sheet(root, tmp_path, images=9, versions=1)
    assert "<b>a" not in page and "&lt;b&gt;a" in page and "&lt;i&gt;.png" in page
    assert len(figures(page)) == 2 * 3  # all there are


def test_settings_of_a_training_run_can_be_given(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"lr: 0.3\nmax_epoch: 9\nimage_size: {SIZE}\nflip_prob: 0\nseed: 3\n")
    output = tmp_path / "sheet.html"
    flags = ["--data_dir", str(image_folder), "--output", str(output), "--images", "1"]
    assert cli.main(["show", "--config", str(recipe), *flags]) == 0
    assert capsys.readouterr().out == f"sheet: {output}\n"
    page = output.read_text(encoding="utf-8")
    assert "left-right flip" not in page and f"{SIZE} x {SIZE}" in page
    assert cli.main(["show", "--recipe", "finetune", *flags]) == 0
    assert "a crop of 35 % to 100 %" in output.read_text(encoding="utf-8")
    capsys.readouterr()
    # What no training knows is still refused, and so is a setting of training alone as a flag.
    recipe.write_text("lrr: 0.3\n")
    assert cli.main(["show", "--config", str(recipe), *flags]) == 2
    assert "unknown key lrr; did you mean lr?" in capsys.readouterr().err
    assert cli.main(["show", *flags, "--lr", "0.3"]) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augment": "none"}, ["the whole image, resized"]),
        (
            {"augment": "light", "flip_prob": 0.0},
            [
                "a crop of 50 % to 100 % of the area, as wide as 0.75 to 1.333 times its height, "
                "resized",
                "brightness, contrast and saturation by up to 20 %, 20 %, 20 %, in random order",
            ],
        ),
        (
            {
                "augment": "none",
                "policy": "trivial",
                "rotate": 15.0,
                "translate": 0.05,
                "scale": "0.9,1.1",
                "shear": 5.0,
                "turns": 1,
                "erase_prob": 0.25,
                "augment_fill": "black",
                "mixup": 0.2,
                "cutmix": 1.0,
                "mix_off_epochs": 2,
            },
            [
                "the whole image, resized",
                "TrivialAugmentWide: one random operation of random strength",
                "rotated by up to 15 degrees, shifted by up to 5 % of each side, scaled by 0.9 to "
                "1.1, sheared by up to 5 degrees; bilinear, filled with black",
                "one of the eight flips and quarter turns",
                "a box of 2 % to 33 % of the area erased with probability 0.25",
                "each batch: mixup with alpha 0.2 or CutMix with alpha 1, but in the last 2 epochs",
            ],
        ),
    ],
)
def test_settings_in_words(settings: dict[str, Any], words: list[str]) -> None:
    assert describe(AugmentationSettings(**settings)) == words


def test_what_cannot_be_shown_is_one_line(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--images must be at least 1 image, got 0"):
        ShowConfig(data_dir="data", images=0)
    with pytest.raises(InputError, match=r"`output` .*/no/sheet.html: there is no folder .*/no"):
        show(ShowConfig(data_dir=str(image_folder), output=str(tmp_path / "no" / "sheet.html")))
