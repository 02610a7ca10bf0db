"""The image kernel against the plain way: libjpeg's pixels, cooked step by step with OpenCV."""

import ctypes
import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from densenet121.datasets.decoding import decode
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.operations import (
    BRIGHTNESS,
    CONTRAST,
    SATURATION,
    Operations,
    apply,
)
from densenet121.datasets.preparation import prepare_evaluation, prepare_training
from densenet121.datasets.transforms import EvalTransform, TrainTransform, uniforms
from densenet121.native.images import ImageArguments, ImageKernel
from densenet121.utils.errors import InputError

from helpers.commands import SHARED
from helpers.image_kernels import builds, kernel

Pixels = NDArray[np.uint8]
SAMPLINGS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def scene(height: int, width: int, seed: int = 0, noise: int = 40) -> Pixels:
    """Shapes, slopes and noise: smooth and busy parts, and values at both ends."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], -1)
    image = np.where(((x // 11 + y // 7) % 3 == 0)[..., None], 255 - slopes, slopes)
    image = image + rng.integers(-noise, noise + 1, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, *, sampling: str = "444", quality: int = 90, **more: int) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    for name, value in more.items():
        flags += [getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value]
    done, data = cv2.imencode(".jpg", pixels if pixels.ndim == 2 else pixels[..., ::-1], flags)
    assert done
    return data.tobytes()


def cooked(kernel: ImageKernel, operations: Operations, source: bytes | Pixels) -> Pixels | None:
    top, left, height, width = operations.window
    # Bytes behind the image's own must stay as they are.
    memory = np.full(height * width * 3 + 64, 77, np.uint8)
    out = memory[: height * width * 3].reshape(height, width, 3)
    done = kernel.image(
        source,
        out,
        crop=operations.crop,
        resized=operations.resized,
        window=(top, left),
        flip=operations.flip,
        steps=operations.steps,
    )
    assert (memory[height * width * 3 :] == 77).all()
    return out if done else None


def whole(height: int, width: int) -> Operations:
    return Operations((0, 0, height, width), (height, width), (0, 0, height, width))


@st.composite
def recipes(draw: st.DrawFn, height: int, width: int) -> Operations:
    def part(size: int) -> tuple[int, int]:
        length = draw(st.integers(1, size))
        return draw(st.integers(0, size - length)), length

    (top, high), (left, wide) = part(height), part(width)
    kind = draw(st.sampled_from(["any", "same", "half", "third", "large"]))
    if kind == "half" and min(high, wide) > 1:
        high, wide = high & ~1, wide & ~1
    resized = {
        "any": (draw(st.integers(1, 90)), draw(st.integers(1, 90))),
        "same": (high, wide),
        "half": (max(1, high // 2), max(1, wide // 2)),
        "third": (max(1, high // 3), max(1, wide // 3)),
        "large": (2 * high, 3 * wide),
    }[kind]
    (window_top, window_high), (window_left, window_wide) = part(resized[0]), part(resized[1])
    factors = st.floats(0, 2.5)
    steps = draw(st.lists(st.sampled_from([BRIGHTNESS, CONTRAST, SATURATION]), max_size=3))
    return Operations(
        (top, left, high, wide),
        resized,
        (window_top, window_left, window_high, window_wide),
        draw(st.booleans()),
        tuple((step, draw(factors)) for step in steps),
    )


@builds
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_recipe_of_any_jpeg_gives_the_plain_ways_bytes(build: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 70)), data.draw(st.integers(6, 70))
    encoded = jpeg(
        scene(height, width, data.draw(st.integers(0, 99))),
        sampling=data.draw(st.sampled_from(list(SAMPLINGS))),
        quality=data.draw(st.sampled_from([5, 50, 75, 95, 100])),
        optimize=data.draw(st.integers(0, 1)),
        rst_interval=data.draw(st.sampled_from([0, 1, 3, 20])),
    )
    operations = data.draw(recipes(height, width))
    assert kernel(build).jpeg_size(encoded) == (height, width)
    result = cooked(kernel(build), operations, encoded)
    assert result is not None
    np.testing.assert_array_equal(result, apply(operations, decode(encoded)))


@builds
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_recipe_of_pixels_gives_the_plain_ways_bytes(build: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    pixels = scene(height + 3, width + 5, data.draw(st.integers(0, 99)))[2:-1, 4:-1]
    operations = data.draw(recipes(height, width))
    result = cooked(kernel(build), operations, pixels)
    assert result is not None
    np.testing.assert_array_equal(result, apply(operations, pixels))


@builds
@pytest.mark.parametrize(
    ("step", "amount"), list(itertools.product([BRIGHTNESS, CONTRAST, SATURATION], [0.4, 1.0]))
)
def test_colours_of_every_level_are_the_plain_ways(build: str, step: int, amount: float) -> None:
    levels = np.arange(256, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels[::5], levels[::51], indexing="ij"), -1)
    pixels = np.ascontiguousarray(grid.reshape(256, -1, 3))
    for factor in np.random.default_rng(step).uniform(1 - amount, 1 + amount, 40):
        operations = Operations(
            (0, 0, *pixels.shape[:2]),
            *(whole(*pixels.shape[:2]).resized,),
            (0, 0, *pixels.shape[:2]),
            False,
            ((step, float(factor)),),
        )
        result = cooked(kernel(build), operations, pixels)
        assert result is not None
        np.testing.assert_array_equal(result, apply(operations, pixels))


@builds
def test_contrast_rounds_a_mean_that_lies_on_a_half_as_the_plain_way(build: str) -> None:
    for size, low in itertools.product([(2, 3), (6, 5), (14, 7), (224, 224)], range(0, 255, 3)):
        pixels = np.full((*size, 3), low, np.uint8)
        pixels.reshape(-1, 3)[::2] = low + 1
        operations = Operations((0, 0, *size), size, (0, 0, *size), False, ((CONTRAST, 0.7),))
        result = cooked(kernel(build), operations, pixels)
        assert result is not None
        np.testing.assert_array_equal(result, apply(operations, pixels), err_msg=f"{size} {low}")


@builds
def test_levels_that_lie_on_a_half_are_rounded_as_the_plain_way(build: str) -> None:
    """Where a fused multiply-add would round once and numpy rounds twice."""
    pixels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2).repeat(4, 0)
    for step, half in itertools.product([BRIGHTNESS, CONTRAST], np.arange(0.5, 3, 0.25)):
        for factor in (half, np.nextafter(half, 0), np.nextafter(half, 9)):
            size = pixels.shape[0], pixels.shape[1]
            operations = Operations(
                (0, 0, *size), size, (0, 0, *size), False, ((step, float(factor)),)
            )
            result = cooked(kernel(build), operations, pixels)
            assert result is not None
            np.testing.assert_array_equal(result, apply(operations, pixels), err_msg=str(factor))


@builds
def test_grey_jpegs_are_taken(build: str) -> None:
    encoded = jpeg(scene(37, 53)[..., 0])
    result = cooked(kernel(build), whole(37, 53), encoded)
    assert result is not None
    np.testing.assert_array_equal(result, decode(encoded))


@builds
def test_real_photographs_come_out_as_the_plain_way_has_them(build: str) -> None:
    files = sorted((SHARED / "data/imagenet-sample").glob("*/*"))[::5]
    files += sorted((SHARED / "data/photos/val").glob("*/*"))
    if not files:
        pytest.skip("the photographs of ../shared are not here")
    train = TrainTransform(224, 224)
    own = kernel(build)
    for index, file in enumerate(files):
        encoded = file.read_bytes()
        pixels = decode(encoded)
        size = pixels.shape[:2]
        assert own.jpeg_size(encoded) == size
        u = uniforms(1, 0, index)
        resize = parse_eval_resize(["256", "short:256", "300,280"][index % 3])
        of_evaluation = EvalTransform(224, 224, resize).operations(*size)
        assert of_evaluation is not None
        for operations in (train.operations(*size, u), of_evaluation):
            result = cooked(own, operations, encoded)
            assert result is not None
            np.testing.assert_array_equal(result, apply(operations, pixels), err_msg=str(file))


def other_kinds() -> dict[str, bytes]:
    from io import BytesIO

    from PIL import Image

    pixels = scene(40, 50)
    kinds = {
        "progressive": jpeg(pixels, progressive=1),
        "440": jpeg(pixels, sampling_factor=cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
        "411": jpeg(pixels, sampling_factor=cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    }
    for mode, more in (("CMYK", {}), ("RGB", {"keep_rgb": True})):
        file = BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, "JPEG", **more)
        kinds[mode] = file.getvalue()
    kinds["PNG"] = cv2.imencode(".png", pixels)[1].tobytes()
    kinds["nothing"] = b""
    kinds["mark alone"] = b"\xff\xd8\xff"
    return kinds


@builds
@pytest.mark.parametrize("kind", other_kinds())
def test_other_kinds_are_left_to_the_libraries(build: str, kind: str) -> None:
    encoded = other_kinds()[kind]
    assert kernel(build).jpeg_size(encoded) is None
    out = np.empty((20, 24, 3), np.uint8)
    transform, u = TrainTransform(20, 24), uniforms(1, 0, 5)
    if len(encoded) < 4:
        with pytest.raises(InputError):
            prepare_training(encoded, transform, u, out)
        return
    prepare_training(encoded, transform, u, out)
    np.testing.assert_array_equal(out, transform(decode(encoded), u))


@pytest.mark.parametrize("interpolation", ["opencv_bilinear", "pillow_bicubic"])
def test_evaluation_images_are_the_plain_ways(interpolation: str) -> None:
    encoded = jpeg(scene(61, 83), sampling="420")
    transform = EvalTransform(20, 24, parse_eval_resize("short:28"), interpolation)
    out = np.empty((20, 24, 3), np.uint8)
    for image in (encoded, decode(encoded)):
        prepare_evaluation(image, transform, out)
        np.testing.assert_array_equal(out, transform(decode(encoded)))


def check_damaged(own: ImageKernel, damaged: bytes, size: tuple[int, int]) -> bool:
    """Whether it was taken; then libjpeg must have no complaint, and the same pixels."""
    if own.jpeg_size(damaged) is None:
        return False
    found = own.jpeg_size(damaged)
    if found is None or found[0] * found[1] > 200 * 200:
        return False
    # A crop in the corner: the rest is not transformed, but must be sound all the same.
    high, wide = min(found[0], 9), min(found[1], 10)
    operations = Operations((0, 0, high, wide), (high, wide), (0, 0, high, wide))
    result = cooked(own, operations, damaged)
    if result is None:
        return False
    np.testing.assert_array_equal(result, decode(damaged)[:high, :wide])
    return True


@builds
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_jpeg_cut_anywhere_is_not_taken(build: str, sampling: str) -> None:
    encoded = jpeg(scene(24, 31), sampling=sampling, rst_interval=4)
    for length in range(len(encoded)):
        assert not check_damaged(kernel(build), encoded[:length], (24, 31))


@builds
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_changed_jpeg_is_not_taken_or_read_as_libjpeg_reads_it(build: str, sampling: str) -> None:
    own, rng = kernel(build), np.random.default_rng(3)
    taken = 0
    for interval, quality in ((0, 90), (2, 60)):
        encoded = bytearray(
            jpeg(scene(24, 31), sampling=sampling, quality=quality, rst_interval=interval)
        )
        for _ in range(1500):
            damaged = bytearray(encoded)
            damaged[rng.integers(len(encoded))] = rng.integers(256)
            taken += check_damaged(own, bytes(damaged), (24, 31))
    assert taken > 20  # else the test would not look at what is taken


def test_what_would_read_or_write_elsewhere_is_refused() -> None:
    own = kernel("portable")
    pixels, out = scene(10, 12), np.empty((4, 4, 3), np.uint8)

    def call(**changed: object) -> None:
        allowed = {"crop": (0, 0, 10, 12), "resized": (4, 4), "window": (0, 0)}
        own.image(pixels, out, **{**allowed, **changed})  # type: ignore[arg-type]

    call()
    for crop in ((-1, 0, 5, 5), (0, 0, 11, 5), (6, 0, 5, 5), (0, 8, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(ValueError, match="crop"):
            call(crop=crop)
    for window in ((1, 0), (0, 1), (-1, 0)):
        with pytest.raises(ValueError, match="window"):
            call(window=window)
    with pytest.raises(ValueError, match="contiguous"):
        own.image(pixels[:, ::-1], out, crop=(0, 0, 4, 4), resized=(4, 4), window=(0, 0))
    with pytest.raises(ValueError, match="steps"):
        call(steps=((3, 1.0),))
    with pytest.raises(ValueError, match="at most 3"):
        call(steps=((0, 1.0),) * 4)
    with pytest.raises(ValueError, match="out"):
        own.image(pixels, out[:, ::-1], crop=(0, 0, 4, 4), resized=(4, 4), window=(0, 0))


def test_what_is_not_there_is_refused_by_the_library_too() -> None:
    """Called without Python's part, for pixels and for a JPEG."""
    library, invalid = kernel("portable").library, 3
    pixels, out = scene(10, 12), np.empty((4, 4, 3), np.uint8)
    encoded = jpeg(pixels)

    def call(**changed: object) -> int:
        fields = {"crop": (0, 0, 10, 12), "resized": (4, 4), "window": (0, 0, 4, 4), **changed}
        arguments = ImageArguments(**fields, sides=(10, 12), row_bytes=36)
        arguments.pixels, arguments.out = pixels.ctypes.data, out.ctypes.data
        of_pixels = library.densenet121_image(ctypes.byref(arguments))
        arguments.data, arguments.size = encoded, len(encoded)
        assert library.densenet121_image(ctypes.byref(arguments)) == of_pixels
        return int(of_pixels)

    assert call() == 0
    assert call(steps=3, step=(0, 1, 2), factor=(1.5, 0.5, 0.0)) == 0
    huge = 2**63 - 1
    for crop in (
        (-1, 0, 5, 5),
        (0, 0, 11, 5),
        (6, 0, 5, 5),
        (0, 8, 5, 5),
        (0, 0, 0, 5),
        (0, 1, 1, huge),
    ):
        assert call(crop=crop) == invalid, crop
    for window in ((1, 0, 4, 4), (0, 1, 4, 4), (-1, 0, 4, 4), (0, 0, 0, 4), (huge, 0, 4, 4)):
        assert call(window=window) == invalid, window
    assert call(resized=(huge, 4)) == invalid
    for step in (3, -1, huge):  # no such operation
        assert call(steps=1, step=(step, 0, 0), factor=(1, 0, 0)) == invalid
    for factor in (math.nan, math.inf, -1e300):
        assert call(steps=1, step=(0, 0, 0), factor=(factor, 0, 0)) == invalid
    assert call(steps=4) == call(steps=-1) == invalid
