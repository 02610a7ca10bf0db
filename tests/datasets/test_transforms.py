"""densenet121.datasets.transforms against torch, numpy formulas, and expected distributions."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch.nn import functional as F

from densenet121.datasets import operations, transforms
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.transforms import EvalTransform, TrainTransform, crop_box, uniforms
from densenet121.utils.errors import InputError

Pixels = NDArray[np.uint8]
SCALE, RATIO = (0.08, 1.0), (0.75, 1.333)
# 4000 images' numbers, fixed. About 20 statistics are taken of them, so each is asked for
# p > 1e-4: a wrong distribution of this size is far below that.
DRAWS = np.stack([uniforms(1, 0, index) for index in range(4000)])
P = 1e-4


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rint(levels: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(levels), 0, 255), dtype=np.uint8)


def pillow_grey(image: Pixels) -> NDArray[np.int64]:
    return np.asarray(Image.fromarray(image).convert("L")).astype(np.int64)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"."""
    mask = 2**64 - 1
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def test_uniforms_are_the_published_philox() -> None:
    # First word of the authors' known answers (Random123, kat_vectors).
    assert philox([0] * 4, [0] * 2)[0] == 0x16554D9ECA36314C
    assert philox([2**64 - 1] * 4, [2**64 - 1] * 2)[0] == 0x87B092C3013FE90B
    for seed, epoch, index in [(0, 0, 0), (1, 2, 3), (2**64 - 1, 2**63 - 1, 2**64 - 1)]:
        blocks = [philox([block, 0, 0, index], [seed, epoch]) for block in range(1, 9)]
        expected = [(word >> 11) / 2**53 for block in blocks for word in block]
        assert uniforms(seed, epoch, index).tolist() == expected
    first = [0.06344102965932141, 0.707504754819708, 0.27756060377104574]
    assert uniforms(1, 2, 3)[:3].tolist() == first


@pytest.mark.parametrize("place", [0, 1, 2])
def test_neighbouring_keys_are_independent(place: int) -> None:
    keys = np.full((1000, 3), 5)
    keys[:, place] = np.arange(1000)
    draws = np.stack([uniforms(*(int(part) for part in key)) for key in keys])
    assert len(np.unique(draws)) == draws.size
    assert stats.kstest(draws.ravel(), "uniform").pvalue > P
    # Each with its next: 32,000 pairs, so a correlation of 0.022 is 3.9 standard deviations.
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.022


@pytest.mark.parametrize("key", [(-1, 0, 0), (2**64, 0, 0), (0, 2**63, 0), (0, 0, -1)])
def test_keys_out_of_range_are_refused(key: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        uniforms(*key)


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=32, max_size=32),
    st.integers(1, 600),
    st.integers(1, 600),
    st.sampled_from([SCALE, (1.0, 1.0), (0.0, 0.001), (9.0, 9.0)]),
    st.sampled_from([RATIO, (1.0, 1.0), (0.05, 20.0), (0.001, 0.002)]),
)
def test_crop_lies_in_the_image(
    u: list[float], H: int, W: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    top, left, h, w = crop_box(np.array(u), H, W, scale, ratio)
    assert h >= 1 and w >= 1 and 0 <= top <= H - h and 0 <= left <= W - w


def test_crop_by_hand() -> None:
    u = np.zeros(32)
    u[[0, 1, 20, 21]] = 0.5, 0.25, 0.5, 0.999
    # Area 0.54 * 120,000; ratio 0.75 * (1.333 / 0.75)**0.25 = 0.86597; w = sqrt(56116) = 236.9;
    # h = 237 / 0.86597 = 273.7; top = int(0.5 * 27); left = int(0.999 * 164).
    assert crop_box(u, 300, 400, SCALE, RATIO) == (13, 163, 274, 237)
    # Height from the rounded width, not from the area: 3.4 -> 3, 3 / 0.75 = 4 (not 4.53 -> 5).
    u[0:2] = 0.0
    assert crop_box(u, 100, 100, (0.001541, 0.001541), RATIO)[2:] == (4, 3)


def test_first_crop_that_fits_is_taken() -> None:
    u = np.full(32, 1 - 2.0**-53)  # nearly the whole area at 1.333, in a square: too wide
    u[2 * 7 : 2 * 8] = 0.0
    # 0.08 * 10,000 * 0.75 = 600 = 24.5 squared; 24 / 0.75 = 32; the last position of all.
    assert crop_box(u, 100, 100, SCALE, RATIO) == (68, 76, 32, 24)


def test_crop_of_the_whole_area_is_the_whole_image() -> None:
    # These once gave 223 x 224: the drawn shape fits after rounding.
    u = np.zeros(32)
    u[1:20:2] = 0.5 - math.log(224 / 223.4) / (2 * math.log(10_000))
    assert crop_box(u, 224, 224, (1.0, 1.0), (0.0001, 10_000)) == (0, 0, 224, 224)
    for H, W in [(224, 224), (100, 120), (1, 9), (37, 5)]:
        for u in DRAWS[:2000]:
            assert crop_box(u, H, W, (1.0, 1.0), (0.0001, 10_000)) == (0, 0, H, W)


@pytest.mark.parametrize(
    ("H", "W", "box"),
    [
        (100, 1000, (0, 434, 100, 133)),  # 1.333 * 100; (1000 - 133 + 1) // 2
        (1000, 100, (434, 0, 133, 100)),  # 100 / 0.75
        (100, 100, (0, 0, 100, 100)),
        (1, 1000, (0, 500, 1, 1)),
    ],
)
def test_crop_when_none_fits(H: int, W: int, box: tuple[int, int, int, int]) -> None:
    assert crop_box(np.full(32, 0.999), H, W, (9.0, 9.0), RATIO) == box


def uniform_pvalue(values: NDArray[np.float64], low: float, high: float) -> float:
    return float(stats.kstest(values, "uniform", (low, high - low)).pvalue)


def test_distribution_of_crops() -> None:
    # Crops of at most half of a square always fit at these ratios, so nothing is redrawn.
    draws = [crop_box(u, 2000, 2000, (0.08, 0.5), RATIO) for u in DRAWS]
    top, left, h, w = np.array(draws, dtype=np.float64).T
    assert uniform_pvalue(h * w / 2000**2, 0.08, 0.5) > P
    assert uniform_pvalue(np.log(w / h), math.log(0.75), math.log(1.333)) > P
    assert uniform_pvalue(top / (2001 - h), 0, 1) > P
    assert uniform_pvalue(left / (2001 - w), 0, 1) > P
    # Every position is as likely: a crop of 3 x 3 in 5 x 5 has 9, first and last included.
    counts = np.zeros((3, 3))
    for u in DRAWS:
        y, x, *size = crop_box(u, 5, 5, (0.36, 0.36), (1.0, 1.0))
        assert size == [3, 3]
        counts[y, x] += 1
    assert stats.chisquare(counts.ravel()).pvalue > P


def test_mean_area_where_crops_are_redrawn() -> None:
    # Against an independent simulation of the same rule in real numbers.
    rng = np.random.default_rng(0)
    area = rng.uniform(0.08, 1.0, 100_000)
    ratio = np.exp(rng.uniform(math.log(0.75), math.log(1.333), area.size))
    width = np.sqrt(area * ratio * 375 * 500)
    area = area[(width <= 500) & (width / ratio <= 375)]
    crops = np.array([crop_box(u, 375, 500, SCALE, RATIO)[2:] for u in DRAWS])
    mean = float((crops[:, 0] * crops[:, 1]).mean()) / (375 * 500)
    assert abs(mean - float(area.mean())) < 4 * float(area.std()) / math.sqrt(4000)


@pytest.mark.parametrize(
    ("source", "target"),
    [((375, 500), (256, 256)), ((37, 53), (224, 224)), ((300, 200), (100, 150)), ((9, 9), (9, 9))],
)
def test_resize_is_bilinear_without_antialiasing(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    batch = torch.from_numpy(noise(*source)).permute(2, 0, 1)[None].float()
    expected = F.interpolate(batch, target, mode="bilinear", align_corners=False)[0]
    difference = operations.resize(noise(*source), *target) - expected.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1.0  # OpenCV's fixed point, as in the original


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.77777, 1.0, 1.23456, 1.4])
@pytest.mark.parametrize("dark", [1, 2, 3])
def test_colour_formulas(factor: float, dark: int) -> None:
    image = noise(224, 224, dark) // dark
    np.testing.assert_array_equal(operations.adjust_brightness(image, factor), rint(image * factor))
    mean = int(pillow_grey(image).mean() + 0.5)
    expected = rint(image * factor + mean * (1 - factor))
    np.testing.assert_array_equal(operations.adjust_contrast(image, factor), expected)
    grey = operations._grey(image)[:, :, None]
    expected = rint(image * factor + grey * (1 - factor))
    np.testing.assert_array_equal(operations.adjust_saturation(image, factor), expected)
    # Pillow's mode L rounds otherwise: 1 off, for at most 0.2 % of the pixels.
    assert np.abs(grey[:, :, 0] - pillow_grey(image)).max() <= 1
    pillow = rint(image * factor + pillow_grey(image)[:, :, None] * (1 - factor)).astype(int)
    off = operations.adjust_saturation(image, factor) - pillow
    assert np.abs(off).max() <= 1 and (off != 0).mean() <= 0.002


def test_training_image_step_by_step() -> None:
    image, transform = noise(300, 400), TrainTransform(96, 128)
    adjust = (
        operations.adjust_brightness,
        operations.adjust_contrast,
        operations.adjust_saturation,
    )
    orders, flips = list(permutations(range(3))), 0
    for u in DRAWS[:30]:
        top, left, h, w = crop_box(u, 300, 400, SCALE, RATIO)
        expected = operations.resize(
            np.ascontiguousarray(image[top : top + h, left : left + w]), 96, 128
        )
        if u[22] < 0.5:
            expected, flips = np.ascontiguousarray(expected[:, ::-1]), flips + 1
        for step in orders[int(u[23] * 6)]:
            expected = adjust[step](expected, 0.6 + 0.8 * float(u[24 + step]))
        np.testing.assert_array_equal(transform(image, u), expected)
    assert 5 < flips < 25


def test_distribution_of_flip_order_and_factors() -> None:
    assert stats.binomtest(int((DRAWS[:, 22] < 0.5).sum()), 4000).pvalue > P
    orders = np.bincount((DRAWS[:, 23] * 6).astype(int), minlength=6)
    assert len(orders) == 6 and stats.chisquare(orders).pvalue > P
    assert all(uniform_pvalue(DRAWS[:, 24 + step], 0, 1) > P for step in range(3))
    between = np.corrcoef(DRAWS, rowvar=False) - np.eye(32)
    assert np.abs(between).max() < 0.07  # 4.4 standard deviations


@pytest.mark.parametrize(("amount", "low", "high"), [(0.4, 30, 70), (0.1, 45, 55), (3.0, 0, 200)])
def test_range_of_factors(amount: float, low: int, high: int) -> None:
    # A constant image of level 50 under brightness alone: its level tells the factor.
    transform = TrainTransform(2, 2, color_jitter=(amount, 0.0, 0.0))
    image = np.full((4, 4, 3), 50, dtype=np.uint8)
    levels = np.array([transform(image, u)[0, 0, 0] for u in DRAWS])
    assert (levels.min(), levels.max()) == (low, high)
    assert abs(levels.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 4000)


def test_amounts_and_probabilities_of_0_leave_steps_out() -> None:
    image, u = noise(50, 60), DRAWS[0]
    plain = TrainTransform(50, 60, (1.0, 1.0), (1.2, 1.2), 0.0, (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(plain(image, u), image)
    mirrored = TrainTransform(50, 60, (1.0, 1.0), (1.2, 1.2), 1.0, (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(mirrored(image, u), image[:, ::-1])


@pytest.mark.parametrize(
    ("H", "W"), [(1, 1), (1, 100), (100, 1), (2, 3), (3, 4000), (4000, 3), (600, 600)]
)
def test_any_shape_can_be_transformed(H: int, W: int) -> None:
    image = noise(H, W)
    for u in DRAWS[:20]:
        assert TrainTransform(32, 40)(image, u).shape == (32, 40, 3)
    for text in ("48", "40,64", "short:41"):
        transform = EvalTransform(32, 40, parse_eval_resize(text))
        assert transform(image).shape == (32, 40, 3)
    np.testing.assert_array_equal(image, noise(H, W))  # never written to


@pytest.mark.parametrize(
    ("text", "resized"),
    [
        ("256", (256, 256)),
        ("256,300", (256, 300)),
        ("short:256", (256, 341)),  # int(256 * 500 / 375), torchvision's Resize(256)
        ("257,259", (257, 259)),  # the crop at 16, 17, as the original; torchvision: 16, 18
    ],
)
def test_evaluation_image(text: str, resized: tuple[int, int]) -> None:
    parsed = parse_eval_resize(text)
    assert parsed.shape(375, 500) == resized and str(parsed) == text
    assert parsed.shape(500, 375) == (resized[::-1] if "short" in text else resized)
    top, left = (resized[0] - 224) // 2, (resized[1] - 224) // 2
    expected = operations.resize(noise(375, 500), *resized)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(EvalTransform(224, 224, parsed)(noise(375, 500)), expected)


@pytest.mark.parametrize("text", ["", "0", "-5", "256,", "1,2,3", "256x256", "short:", "short:1,2"])
def test_bad_eval_resize_is_named(text: str) -> None:
    with pytest.raises(InputError, match=f'^`eval_resize` must be .*, got "{text}"$'):
        parse_eval_resize(text)


@pytest.mark.parametrize(
    ("text", "H", "W", "message"),
    [
        ("64", 96, 96, "`eval_resize` 64 is smaller than `image_size` 96"),
        ("64,128", 96, 128, "`eval_resize` 64,128 is smaller than `image_size` 96,128"),
        ("short:64", 96, 65, "`eval_resize` short:64 is smaller than `image_size` 96,65"),
        (
            "20000",
            9,
            9,
            "`eval_resize` 20000 gives 20000 x 20000 pixels; the limit is 89478485 pixels",
        ),
    ],
)
def test_crop_that_never_fits(text: str, H: int, W: int, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        EvalTransform(H, W, parse_eval_resize(text))


def test_crop_that_fits_some_images_only() -> None:
    transform = EvalTransform(60, 80, parse_eval_resize("short:64"))
    assert transform(noise(100, 200)).shape == (60, 80, 3)
    with pytest.raises(InputError, match="smaller than `image_size` 60,80"):
        transform(noise(100, 100))
    with pytest.raises(InputError, match="`eval_resize` short:64 gives 1920000 x 64 pixels"):
        transform(noise(1, 30000))


def test_normalise_is_exact_and_channels_last() -> None:
    assert transforms.MEAN.tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert transforms.STD.tolist() == pytest.approx([58.395, 57.12, 57.375])
    images = np.stack([noise(5, 7, seed) for seed in range(4)])
    x = transforms.normalise(torch.from_numpy(images), transforms.MEAN, transforms.STD)
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)
    expected = (images.astype(np.float32) - transforms.MEAN.numpy()) / transforms.STD.numpy()
    np.testing.assert_array_equal(x.numpy(), expected.transpose(0, 3, 1, 2))
    assert transforms.normalise(
        torch.from_numpy(images[:0]), transforms.MEAN, transforms.STD
    ).shape == (0, 3, 5, 7)
