"""The steps after the resize: their order, their keys, and that nothing else changes a bit."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from densenet121.datasets.augmentation import NUM_UNIFORMS, Augmentation
from densenet121.datasets.decoding import decode
from densenet121.datasets.geometry import Affine, erased_box, resample, turn
from densenet121.datasets.loader import load_batches
from densenet121.datasets.policies import RandAugment, TrivialAugment, perform
from densenet121.datasets.preparation import prepare_training, training_images
from densenet121.datasets.sampler import epoch_order, training_batches
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.transforms import MEAN, STD, TrainTransform, normalise, uniforms

from helpers.images import write_classes

Pixels = NDArray[np.uint8]
MEAN_FILL = (124, 116, 104)
ALL = Augmentation(
    policy=TrivialAugment(),
    affine=Affine(20, 0.1, (0.8, 1.2), 5),
    vflip_prob=0.5,
    turns=True,
    erase_prob=0.5,
    fill=MEAN_FILL,
    erased=MEAN_FILL,
)
DRAWS = np.stack([uniforms(1, 0, index, NUM_UNIFORMS) for index in range(2000)])
P = 1e-4


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_more_numbers_leave_the_first_ones_as_they_are() -> None:
    for index in range(20):
        np.testing.assert_array_equal(uniforms(3, 2, index), uniforms(3, 2, index, 96)[:32])
    assert TrainTransform(8, 8).num_uniforms == 32
    assert TrainTransform(8, 8, after=ALL).num_uniforms == NUM_UNIFORMS == 96


def test_all_numbers_of_an_image_are_independent() -> None:
    assert stats.kstest(DRAWS.ravel(), "uniform").pvalue > P
    between = np.corrcoef(DRAWS, rowvar=False) - np.eye(NUM_UNIFORMS)
    assert np.abs(between).max() < 0.11  # 4.9 standard deviations, of 4560 pairs


def test_steps_come_in_the_order_described() -> None:
    image = noise(32, 32)
    for u in DRAWS[:50]:
        expected = perform(image, TrivialAugment().chosen(32, 32, u[64:]), "bilinear", MEAN_FILL)
        matrix = ALL.affine.matrix(32, 32, u[34:39])
        expected = resample(expected, matrix, "bilinear", MEAN_FILL)
        if u[32] < 0.5:
            expected = np.ascontiguousarray(expected[::-1])
        expected = np.array(turn(expected, float(u[33])))
        box = erased_box(32, 32, (0.02, 0.33), u[40:62])
        if u[39] < 0.5 and box:
            top, left, h, w = box
            expected[top : top + h, left : left + w] = MEAN_FILL
        np.testing.assert_array_equal(ALL(image, u), expected)
    np.testing.assert_array_equal(image, noise(32, 32))  # never written to


@pytest.mark.parametrize(
    ("augmentation", "is_on"),
    [
        (Augmentation(), False),
        (Augmentation(fill=(1, 2, 3), erased=(1, 2, 3), interpolation="nearest"), False),
        (Augmentation(policy=RandAugment()), True),
        (Augmentation(affine=Affine(translate=0.1)), True),
        (Augmentation(affine=Affine(scale=(0.9, 0.9))), True),
        (Augmentation(vflip_prob=0.1), True),
        (Augmentation(turns=True), True),
        (Augmentation(erase_prob=0.1), True),
    ],
)
def test_only_steps_that_are_on_run(augmentation: Augmentation, is_on: bool) -> None:
    assert augmentation.is_on == is_on
    if not is_on:
        np.testing.assert_array_equal(augmentation(noise(9, 9), DRAWS[0]), noise(9, 9))


def test_erasing_with_the_mean_is_0_after_normalisation_up_to_rounding() -> None:
    erasing = Augmentation(erase_prob=1.0, erased=MEAN_FILL)
    image = noise(32, 32)
    for u in DRAWS[:50]:
        found = erasing(image, u)
        box = erased_box(32, 32, (0.02, 0.33), u[40:62])
        assert box
        top, left, h, w = box
        x = normalise(torch.from_numpy(found)[None], MEAN, STD)[0]
        assert x[:, top : top + h, left : left + w].abs().max() < 0.01
        kept = np.ones((32, 32), bool)
        kept[top : top + h, left : left + w] = False
        np.testing.assert_array_equal(found[kept], image[kept])


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (3, 2), (5, 5)])
def test_tiny_images_are_erased_in_part_or_not_at_all(size: tuple[int, int]) -> None:
    erasing = Augmentation(erase_prob=1.0, erased=(7, 7, 7))
    image = np.zeros((*size, 3), np.uint8)
    for u in DRAWS[:200]:
        box = erased_box(*size, (0.02, 0.33), u[40:62])
        expected = image.copy()
        if box:
            top, left, h, w = box
            expected[top : top + h, left : left + w] = 7
        np.testing.assert_array_equal(erasing(image, u), expected)


def test_probabilities_are_those_asked_for() -> None:
    image = noise(8, 8)
    for prob in (0.25, 0.9):
        flips = sum(
            np.array_equal(Augmentation(vflip_prob=prob)(image, u), image[::-1]) for u in DRAWS
        )
        assert stats.binomtest(flips, len(DRAWS), prob).pvalue > P
        erased = sum(
            not np.array_equal(
                Augmentation(erase_prob=prob, erase_scale=(0.3, 0.3))(image, u), image
            )
            for u in DRAWS
        )
        assert stats.binomtest(erased, len(DRAWS), prob).pvalue > P


@pytest.mark.parametrize("kind", ["jpeg", "png", "pixels"])
def test_steps_follow_the_kernels_image(kind: str) -> None:
    pixels = noise(50, 70)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG" if kind == "png" else "JPEG")
    source = pixels if kind == "pixels" else file.getvalue()
    decoded = source if isinstance(source, np.ndarray) else decode(source)
    plain, augmented = TrainTransform(32, 32), TrainTransform(32, 32, after=ALL)
    before, after = np.empty((2, 32, 32, 3), np.uint8)
    for u in DRAWS[:20]:
        prepare_training(source, plain, u, before)
        prepare_training(source, augmented, u, after)
        np.testing.assert_array_equal(before, plain(decoded, u))
        np.testing.assert_array_equal(after, ALL(before, u))
        np.testing.assert_array_equal(after, augmented(decoded, u))


def test_images_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    dataset = scan(write_classes(tmp_path, ["a", "b"], 20))
    batches = training_batches(epoch_order(len(dataset), seed=1, epoch=3), 8)
    for policy in (TrivialAugment(), RandAugment()):
        after = Augmentation(policy, ALL.affine, 0.5, True, 0.5, fill=MEAN_FILL)
        prepare = training_images(dataset, TrainTransform(24, 24, after=after), 1, 3)
        found = [
            torch.cat([b.images for b in load_batches(prepare, batches, (24, 24), workers=w)])
            for w in (0, 1, 2, 5)
        ]
        assert all(torch.equal(images, found[0]) for images in found[1:])
