"""From an encoded picture to what the network takes, by the shortest way.

Where the picture kernel runs (``densenet121.native.pictures``), a JPEG is decoded only where its
recipe needs it, and cropping, resizing, mirroring and colours are one pass; the result is to the
bit that of the plain way, ``cook(recipe, decode(data))``, which everything else takes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.images import MAX_BYTES, MAX_PIXELS, decode, not_readable
from densenet121.datasets.pictures import Encoded, Pictures
from densenet121.datasets.recipes import Recipe, cook
from densenet121.datasets.transforms import EvalTransform, TrainTransform, uniforms
from densenet121.native.pictures import PictureKernel, picture_kernel
from densenet121.utils.errors import InputError

Pixels = NDArray[np.uint8]
Prepare = Callable[[int, Pixels], None]


def training_pictures(
    pictures: Pictures,
    transform: TrainTransform,
    seed: int,
    epoch: int,
    read: Callable[[Pictures, int], Encoded] = Pictures.read,
) -> Prepare:
    """For ``load_batches``: each picture as it is in this epoch, read by ``read``."""

    def prepare(index: int, out: Pixels) -> None:
        try:
            prepare_training(read(pictures, index), transform, uniforms(seed, epoch, index), out)
        except InputError as error:
            raise not_readable(pictures.name(index), error) from error

    return prepare


def evaluation_pictures(pictures: Pictures, transform: EvalTransform) -> Prepare:
    """For ``load_batches``: each picture as evaluation sees it."""

    def prepare(index: int, out: Pixels) -> None:
        try:
            prepare_evaluation(pictures.read(index), transform, out)
        except InputError as error:
            raise not_readable(pictures.name(index), error) from error

    return prepare


def prepare_training(
    picture: bytes | Pixels, transform: TrainTransform, u: NDArray[np.float64], out: Pixels
) -> None:
    """Write the training picture for the numbers ``u`` to ``out``.

    Args:
        picture: an encoded picture, or ``(H, W, 3)`` RGB.
        transform: what it goes through.
        u: of ``uniforms``.
        out: ``(height, width, 3)``, C-contiguous.

    Raises:
        InputError: the picture cannot be decoded; the reason only.
    """
    _prepare(picture, lambda height, width: transform.recipe(height, width, u), out)


def prepare_evaluation(
    picture: bytes | Pixels, transform: EvalTransform, out: Pixels, max_pixels: int = MAX_PIXELS
) -> None:
    """Write the evaluation picture to ``out``, as ``prepare_training`` does.

    Raises:
        InputError: the picture cannot be decoded or has more pixels, or the crop does not fit.
    """
    if transform.by_pillow:
        pixels = decode(picture, max_pixels) if isinstance(picture, bytes) else picture
        out[...] = transform(pixels)
    else:
        _prepare(picture, transform.recipe, out, max_pixels)


def _prepare(
    picture: bytes | Pixels,
    recipe_for: Callable[[int, int], Recipe],
    out: Pixels,
    max_pixels: int = MAX_PIXELS,
) -> None:
    found = picture_kernel()
    kernel = None if isinstance(found, str) else found
    if kernel and isinstance(picture, bytes) and len(picture) <= MAX_BYTES:
        size = kernel.jpeg_size(picture)
        fits = size is not None and size[0] * size[1] <= max_pixels
        if size and fits and _cook(kernel, recipe_for(*size), picture, out):
            return
    pixels = decode(picture, max_pixels) if isinstance(picture, bytes) else picture
    recipe = recipe_for(*pixels.shape[:2])
    if not (kernel and _cook(kernel, recipe, pixels, out)):
        out[...] = cook(recipe, pixels)


def _cook(kernel: PictureKernel, recipe: Recipe, source: bytes | Pixels, out: Pixels) -> bool:
    top, left, height, width = recipe.window
    assert out.shape == (height, width, 3)
    return kernel.picture(
        source,
        out,
        crop=recipe.crop,
        resized=recipe.resized,
        window=(top, left),
        flip=recipe.flip,
        steps=recipe.steps,
    )
