"""Affine transforms, turns and erased boxes: against matrices, torch and the definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch.nn import functional as F

from densenet121.datasets.geometry import (
    INTERPOLATIONS,
    NUMBERS_OF_ERASING,
    Affine,
    Matrix,
    erased_box,
    inverse_affine,
    resample,
    rotation,
    turn,
)

from helpers.image_kernels import builds, kernel

Pixels = NDArray[np.uint8]
FILL = (124, 116, 104)
DRAWS = np.random.default_rng(1).random((4000, NUMBERS_OF_ERASING))
P = 1e-4  # as in test_transforms.py

ANGLES = st.floats(-60, 60)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def moved(image: Pixels, matrix: Matrix, interpolation: str = "bilinear") -> Pixels:
    return resample(image, matrix, interpolation, FILL)


@given(
    st.floats(-180, 180),
    st.integers(-50, 50),
    st.integers(-50, 50),
    st.floats(0.2, 5),
    ANGLES,
    ANGLES,
)
def test_matrix_is_the_inverse_of_the_definition(
    angle: float, right: int, down: int, scale: float, shear_x: float, shear_y: float
) -> None:
    def shift(x: float, y: float) -> NDArray[np.float64]:
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)

    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    along_x = np.array([[1, -math.tan(math.radians(shear_x)), 0], [0, 1, 0], [0, 0, 1]])
    along_y = np.array([[1, 0, 0], [-math.tan(math.radians(shear_y)), 1, 0], [0, 0, 1]])
    inner = rotation @ np.diag([scale, scale, 1.0]) @ along_y @ along_x
    forward = shift(right, down) @ shift(64, 48) @ inner @ shift(-64, -48)
    found = inverse_affine(
        (64, 48), angle=angle, translate=(right, down), scale=scale, shear=(shear_x, shear_y)
    )
    inverse = np.vstack([np.reshape(found, (2, 3)), [0, 0, 1]])
    np.testing.assert_allclose(inverse @ forward, np.eye(3), atol=1e-9)


@builds
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5),
    st.sampled_from([Affine(180, 0.4, (0.2, 5), 60), Affine(0, 0.5), Affine(0, 0, (1, 2))]),
    st.integers(0, 2**32 - 1),
)
def test_image_kernel_resamples_to_the_bytes_of_pillow(
    build: str, size: tuple[int, int], u: list[float], affine: Affine, seed: int
) -> None:
    height, width = size
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    matrix = affine.matrix(height, width, np.array(u))
    expected = Image.fromarray(image).transform(
        (width, height),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=FILL,
    )
    np.testing.assert_array_equal(kernel(build).affine(image, matrix, FILL), expected)


@builds
def test_image_kernel_takes_any_matrix(build: str) -> None:
    image = noise(5, 7)
    for number in (math.nan, math.inf, -math.inf, 1e300, -1e300):
        for place in range(6):
            matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
            matrix[place] = number
            found = kernel(build).affine(image, tuple(matrix), FILL)  # type: ignore[arg-type]
            assert (found == FILL).all()
    flipped = image[:, ::-1]  # rows that are not contiguous
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    np.testing.assert_array_equal(kernel(build).affine(flipped, identity, FILL), flipped)
    with pytest.raises(ValueError, match="not RGB of uint8"):
        kernel(build).affine(image[..., :2], identity, FILL)


@given(st.integers(1, 60), st.integers(1, 60), st.floats(-720, 720))
def test_rotation_is_that_of_pillow(height: int, width: int, degrees: float) -> None:
    assume(degrees % 90 != 0)  # which Pillow does by exchanging rows and columns
    image = noise(height, width)
    for interpolation in ("bilinear", "nearest"):
        expected = Image.fromarray(image).rotate(
            degrees, INTERPOLATIONS[interpolation], fillcolor=FILL
        )
        found = moved(image, rotation(height, width, degrees), interpolation)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "affine", [Affine(30), Affine(0, 0.3), Affine(0, 0, (0.5, 2.0)), Affine(20, 0.1, (0.8, 1.2), 9)]
)
def test_bilinear_is_that_of_torch(affine: Affine) -> None:
    image = noise(48, 64)
    for u in DRAWS[:20, :5]:
        a, b, c, d, e, f = affine.matrix(48, 64, u)
        # torch's theta, from -1..1 to -1..1; both have the origin at the centre of the image.
        theta = torch.tensor(
            [
                [a, b * 48 / 64, (a * 32 + b * 24 + c - 32) / 32],
                [d * 64 / 48, e, (d * 32 + e * 24 + f - 24) / 24],
            ]
        )[None]
        grid = F.affine_grid(theta.double(), [1, 3, 48, 64], align_corners=False)
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
        expected = F.grid_sample(planes, grid, align_corners=False)[0].permute(1, 2, 0).numpy()
        # Where one of the four neighbours is outside, torch mixes with 0 and Pillow does not.
        x, y = (grid[0, ..., 0] + 1) * 32, (grid[0, ..., 1] + 1) * 24
        inside = ((x > 0.5) & (x < 63.5) & (y > 0.5) & (y < 47.5)).numpy()
        outside = ((x < -0.01) | (x > 64.01) | (y < -0.01) | (y > 48.01)).numpy()
        found = moved(image, affine.matrix(48, 64, u))
        assert inside.sum() > 500
        rounded_off = expected[inside] - found[inside]  # Pillow rounds down
        assert rounded_off.min() > -1e-3 and rounded_off.max() < 1 + 1e-3
        assert (found[outside] == FILL).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_shift_by_whole_pixels_is_exact(interpolation: str) -> None:
    image = noise(20, 30)
    found = moved(image, inverse_affine((15, 10), translate=(7, -4)), interpolation)
    expected = np.full_like(image, FILL)
    expected[:-4, 7:] = image[4:, :-7]
    np.testing.assert_array_equal(found, expected)


def test_positive_angles_are_clockwise() -> None:
    image = noise(40, 40)
    found = moved(image, inverse_affine((20, 20), angle=90.0), "nearest")
    np.testing.assert_array_equal(found, np.rot90(image, -1))


def test_affine_draws_are_uniform_in_their_ranges() -> None:
    affine = Affine(15, 0.1, (0.8, 1.25), 0)
    matrices = np.array([affine.matrix(100, 200, u) for u in DRAWS[:, :5]])
    a, b = matrices[:, 0], matrices[:, 1]
    scale = 1 / np.hypot(a, b)
    angle = np.degrees(np.arctan2(b, a))
    assert stats.kstest(angle, "uniform", (-15, 30)).pvalue > P
    assert stats.kstest(scale, "uniform", (0.8, 0.45)).pvalue > P
    only = np.array([Affine(0, 0.1).matrix(100, 200, u) for u in DRAWS[:, :5]])
    right, down = -only[:, 2], -only[:, 5]
    assert (right == right.round()).all() and (down == down.round()).all()
    assert (right.min(), right.max(), down.min(), down.max()) == (-20, 20, -10, 10)
    shears = np.array([Affine(0, 0, (1, 1), 12).matrix(100, 200, u) for u in DRAWS[:, :5]])
    angles = np.degrees(np.arctan(shears[:, 1]))
    assert stats.kstest(angles, "uniform", (-12, 24)).pvalue > P


def test_turns_are_all_eight_and_equally_likely() -> None:
    image = noise(6, 6)
    results = [turn(image, (number + 0.5) / 8) for number in range(8)]
    group = [np.rot90(side, k) for side in (image, image.transpose(1, 0, 2)) for k in range(4)]
    assert {r.tobytes() for r in results} == {g.tobytes() for g in group}
    assert len({r.tobytes() for r in results}) == 8
    found = [turn(image, u).tobytes() for u in DRAWS[:, 0]]
    counts = [found.count(result.tobytes()) for result in results]
    assert stats.chisquare(counts).pvalue > P


def test_erased_box_by_hand() -> None:
    u = np.full(NUMBERS_OF_ERASING, 0.5)
    # Area 0.175 * 20,000 = 3500; ratio exp of the middle of the logarithms = sqrt(0.99);
    # h = sqrt(3500 * 0.99499) = 59.01, w = sqrt(3500 / 0.99499) = 59.31; 42 and 142 places.
    assert erased_box(100, 200, (0.02, 0.33), u) == (21, 71, 59, 59)
    u[:2] = 1 - 2.0**-53  # 0.33 of the area at 3.3 is 147 high: the next attempt is taken
    assert erased_box(100, 200, (0.02, 0.33), u) == (21, 71, 59, 59)
    assert erased_box(100, 200, (1.0, 1.0), np.full(NUMBERS_OF_ERASING, 0.999)) is None


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=22, max_size=22),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([(0.02, 0.33), (0.0, 0.0), (0.9, 1.0)]),
)
def test_erased_box_lies_in_the_image(
    u: list[float], H: int, W: int, scale: tuple[float, float]
) -> None:
    box = erased_box(H, W, scale, np.array(u))
    if box:
        top, left, h, w = box
        assert 0 <= top <= H - h and 0 <= left <= W - w and 0 <= h < H and 0 <= w < W


def test_distribution_of_erased_boxes() -> None:
    # Boxes of at most a quarter of a square always fit at these ratios.
    found = [erased_box(2000, 2000, (0.02, 0.25), u) for u in DRAWS]
    top, left, h, w = np.array(found, dtype=np.float64).T
    assert stats.kstest(h * w / 2000**2, "uniform", (0.02, 0.23)).pvalue > P
    logs = np.log(h / w)
    assert stats.kstest(logs, "uniform", (math.log(0.3), math.log(11.0))).pvalue > P
    assert stats.kstest(top / (2001 - h), "uniform").pvalue > P
    assert stats.kstest(left / (2001 - w), "uniform").pvalue > P
