"""TrivialAugmentWide and RandAugment: magnitudes, draws, and each operation by its formula.

tests/system/test_frameworks.py compares them with torchvision's own code, image by image.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import stats

from densenet121.datasets.policies import OPERATIONS, RandAugment, TrivialAugment, perform
from densenet121.native.images import image_kernel

from helpers.image_kernels import builds, kernel

Pixels = NDArray[np.uint8]
FILL = (124, 116, 104)
DRAWS = np.random.default_rng(2).random((10_000, 6))
P = 1e-4
SIGNED = OPERATIONS[1:10]
PLAIN = ("identity", "auto_contrast", "equalize")  # without a magnitude


def smooth(height: int = 40, width: int = 50) -> Pixels:
    """Every channel with a range of its own, so that auto_contrast and equalize have work."""
    y, x = np.mgrid[:height, :width]
    planes = [40 + 3 * x, 20 + 2 * x + 2 * y, 200 - 4 * y]
    grain = np.random.default_rng(0).integers(-9, 10, (height, width, 3))
    return np.clip(np.stack(planes, -1) + grain, 0, 255).astype(np.uint8)


def done(name: str, magnitude: float, interpolation: str = "bilinear") -> NDArray[np.int64]:
    return perform(smooth(), [(name, magnitude)], interpolation, FILL).astype(np.int64)


def close(found: NDArray[np.int64], expected: NDArray[np.floating]) -> bool:
    return bool(np.abs(found - np.clip(np.rint(expected), 0, 255)).max() <= 1)


def magnitude_of(policy: TrivialAugment | RandAugment, name: str, level: float) -> float:
    u = np.array([(OPERATIONS.index(name) + 0.5) / 14, level, 0.75])
    ((found, magnitude),) = policy.chosen(100, 200, u)
    assert found == name
    return magnitude


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("shear_x", 0, 0.99),
        ("translate_x", 0, 32),
        ("translate_y", 0, 32),
        ("rotate", 0, 135),
        ("brightness", 0, 0.99),
        ("sharpness", 0, 0.99),
        ("posterize", 8, 2),
        ("solarize", 255, 0),
        ("equalize", 0, 0),
    ],
)
def test_wide_magnitudes(name: str, first: float, last: float) -> None:
    policy = TrivialAugment()
    assert magnitude_of(policy, name, 0.0) == pytest.approx(first)
    assert magnitude_of(policy, name, 0.9999) == pytest.approx(last)
    middle = magnitude_of(policy, name, 15.5 / 31)
    assert middle == pytest.approx((first + last) / 2)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("shear_y", 0, 0.3),
        ("translate_x", 0, 150 / 331 * 200),  # of the width
        ("translate_y", 0, 150 / 331 * 100),  # of the height
        ("rotate", 0, 30),
        ("color", 0, 0.9),
        ("contrast", 0, 0.9),
        ("posterize", 8, 4),
        ("solarize", 255, 0),
        ("auto_contrast", 0, 0),
    ],
)
def test_magnitudes_of_rand_augment(name: str, first: float, last: float) -> None:
    found = [magnitude_of(RandAugment(1, level), name, 0.5) for level in (0, 15, 30)]
    assert found == pytest.approx([first, (first + last) / 2, last])


def test_distribution_of_trivial_draws() -> None:
    found = [TrivialAugment().chosen(100, 200, u)[0] for u in DRAWS]
    counts = [sum(name == own for own, _ in found) for name in OPERATIONS]
    assert stats.chisquare(counts).pvalue > P
    for name in OPERATIONS:
        values = np.array([m for own, m in found if own == name])
        if name in PLAIN:
            assert (values == 0).all()
            continue
        levels, times = np.unique(np.abs(values), return_counts=True)
        assert len(levels) == (7 if name == "posterize" else 31)
        if name != "posterize":  # five bins of each number of bits, but of the ends
            assert stats.chisquare(times).pvalue > P
        if name in SIGNED:
            moved = values[values != 0]
            assert stats.binomtest(int((moved < 0).sum()), len(moved)).pvalue > P
        else:
            assert (values >= 0).all()


def test_rand_augment_draws_each_operation_alone() -> None:
    found = [RandAugment(2, 9).chosen(100, 200, u) for u in DRAWS]
    assert all(len(pair) == 2 for pair in found)
    table = np.zeros((14, 14))
    for (a, _), (b, _) in found:
        table[OPERATIONS.index(a), OPERATIONS.index(b)] += 1
    assert stats.chisquare(table.ravel()).pvalue > P  # independent and uniform
    assert (np.diag(table) > 0).all()  # one may come twice


def test_operations_run_in_the_order_drawn() -> None:
    both = [("solarize", 100.0), ("posterize", 3.0)]
    one_by_one = perform(perform(smooth(), both[:1], "bilinear", FILL), both[1:], "bilinear", FILL)
    np.testing.assert_array_equal(perform(smooth(), both, "bilinear", FILL), one_by_one)


@pytest.mark.parametrize("magnitude", [-0.9, -0.33, 0.0, 0.27, 0.99])
def test_enhancers_mix_with_their_grey_or_blurred_image(magnitude: float) -> None:
    image = smooth().astype(np.float64)
    factor = 1 + magnitude
    assert close(done("brightness", magnitude), image * factor)
    grey = np.rint(image @ [0.299, 0.587, 0.114])[..., None]
    assert close(done("color", magnitude), image * factor + grey * (1 - factor))
    mean = int(grey.mean() + 0.5)
    assert close(done("contrast", magnitude), image * factor + mean * (1 - factor))
    # Sharpness: each pixel 5 of 13, each neighbour 1 of 13; the border is left as it is.
    blurred = image.copy()
    rows, columns = range(-1, 2), range(-1, 2)
    total = sum(image[1 + y : 39 + y, 1 + x : 49 + x] for y in rows for x in columns)
    blurred[1:-1, 1:-1] = np.rint((total + 4 * image[1:-1, 1:-1]) / 13)
    assert close(done("sharpness", magnitude), image * factor + blurred * (1 - factor))


def test_operations_on_levels() -> None:
    image = smooth().astype(np.int64)
    for bits in (2, 4, 8):
        kept = 256 - 2 ** (8 - bits)
        np.testing.assert_array_equal(done("posterize", bits), image & kept)
    for threshold in (0.0, 136.0, 255.0):
        inverted = np.where(image < threshold, image, 255 - image)
        np.testing.assert_array_equal(done("solarize", threshold), inverted)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    assert close(done("auto_contrast", 0.0), (image - low) * 255 / (high - low))
    for channel in range(3):
        # The cumulated histogram, with steps of an equal number of pixels.
        counts = np.bincount(image[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])
        table = np.minimum((step // 2 + below) // step, 255)
        expected = table[image[..., channel]]
        np.testing.assert_array_equal(done("equalize", 0.0)[..., channel], expected)


def test_identity_and_strength_0_change_nothing() -> None:
    for name in OPERATIONS:
        if name not in ("auto_contrast", "equalize", "posterize", "solarize"):
            np.testing.assert_array_equal(done(name, 0.0), smooth())


def test_shears_and_shifts_go_where_their_names_say() -> None:
    image = smooth()
    right = done("translate_x", 7.9)  # whole pixels, rounded towards 0
    np.testing.assert_array_equal(right[:, 7:], image[:, :-7])
    assert (right[:, :7] == FILL).all()
    up = done("translate_y", -7.9)
    np.testing.assert_array_equal(up[:-7], image[7:])
    # A pixel's centre in row y moves left by 0.8 * (y + 0.5); the corner of the image stays.
    sheared = done("shear_x", 0.8, "nearest")
    for y, left in enumerate((0, 1, 2, 3, 4)):
        np.testing.assert_array_equal(sheared[y, :45], image[y, left : left + 45])
    turned = perform(smooth(40, 40), [("rotate", 90.0)], "bilinear", FILL)
    np.testing.assert_array_equal(turned, np.rot90(smooth(40, 40)))  # anticlockwise


@builds
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(-2, 4, width=32),
    st.integers(0, 2**32 - 1),
)
def test_image_kernel_sharpens_to_the_bytes_of_pillow(
    build: str, size: tuple[int, int], factor: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    spread = int(rng.integers(1, 257))  # narrow ones too, where much is equal
    image = rng.integers(0, spread, (*size, 3), dtype=np.uint8)
    expected = ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor)
    np.testing.assert_array_equal(kernel(build).sharpen(image, factor), expected)


def test_policies_are_the_same_without_the_image_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)

    def images() -> list[Pixels]:
        return [
            perform(image, policy.chosen(32, 40, u), interpolation, FILL)
            for u in DRAWS[:300]
            for policy in (TrivialAugment(), RandAugment(2, 30))
            for interpolation in ("bilinear", "nearest")
        ]

    with_kernel = images()
    monkeypatch.setenv("DENSENET121_KERNELS", "off")
    image_kernel.cache_clear()
    try:
        for one, other in zip(with_kernel, images(), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        image_kernel.cache_clear()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (32, 32)])
def test_any_size_keeps_its_shape(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = image.copy()
    for u in DRAWS[:200]:
        for policy in (TrivialAugment(), RandAugment(2, 30)):
            found = perform(image, policy.chosen(*size, u), "bilinear", FILL)
            assert found.shape == image.shape and found.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
