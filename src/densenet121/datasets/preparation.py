"""From an encoded image to the pixels of the network's input, in the fastest way.

If the image kernel is available (``densenet121.native.images``), only the needed part of a JPEG is
decoded, and crop, resize, flip and colour are one pass. The result equals
``apply(operations, decode(data))`` bit for bit, which is used for all other images.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import MAX_BYTES, MAX_PIXELS, decode, not_readable
from densenet121.datasets.grey import as_grey, is_grey_jpeg
from densenet121.datasets.image_dataset import Encoded, ImageDataset
from densenet121.datasets.operations import Operations, apply
from densenet121.datasets.transforms import EvalTransform, TrainTransform, uniforms
from densenet121.native.images import ImageKernel, image_kernel
from densenet121.utils.errors import InputError

Pixels = NDArray[np.uint8]
Prepare = Callable[[int, Pixels], None]


def training_images(
    dataset: ImageDataset,
    transform: TrainTransform,
    seed: int,
    epoch: int,
    read: Callable[[ImageDataset, int], Encoded] = ImageDataset.read,
) -> Prepare:
    """A ``prepare`` for ``load_batches``: each image as augmented in this epoch.

    It takes the draws of ``class_draws`` too: every copy of an image has its own augmentation.
    """

    def prepare(draw: int, out: Pixels) -> None:
        index = draw % len(dataset)
        try:
            u = uniforms(seed, epoch, draw, transform.num_uniforms)
            prepare_training(read(dataset, index), transform, u, out)
        except InputError as error:
            raise not_readable(dataset.name(index), error) from error

    return prepare


def evaluation_images(
    dataset: ImageDataset, transform: EvalTransform, five_crops: bool = False
) -> Prepare:
    """A ``prepare`` for ``load_batches``: each image as prepared for evaluation."""

    def prepare(index: int, out: Pixels) -> None:
        try:
            prepare_evaluation(dataset.read(index), transform, out, five_crops=five_crops)
        except InputError as error:
            raise not_readable(dataset.name(index), error) from error

    return prepare


def prepare_training(
    image: bytes | Pixels, transform: TrainTransform, u: NDArray[np.float64], out: Pixels
) -> None:
    """Write the training image for the numbers ``u`` to ``out``.

    Args:
        image: an encoded image, or ``(H, W, 3)`` RGB.
        transform: its augmentation.
        u: the result of ``uniforms``, ``transform.num_uniforms`` of them.
        out: ``(height, width, 3)``, C-contiguous.

    Raises:
        InputError: the image cannot be decoded; the reason only.
    """

    def operations_for(height: int, width: int) -> Operations:
        return transform.operations(height, width, u)

    _prepare(image, operations_for, out, transform)
    if transform.after.is_on:
        out[...] = transform.after(out, u)


def prepare_evaluation(
    image: bytes | Pixels,
    transform: EvalTransform,
    out: Pixels,
    max_pixels: int = MAX_PIXELS,
    *,
    five_crops: bool = False,
) -> None:
    """Write the evaluation image, or its ``five_crops``, to ``out``, as ``prepare_training`` does.

    Raises:
        InputError: the image cannot be decoded or has too many pixels, or the crop does not fit.
    """
    if five_crops or not transform.in_one_pass:
        pixels = _decoded(image, max_pixels, transform)
        out[...] = transform.five_crops(pixels) if five_crops else transform(pixels)
    else:
        _prepare(image, transform.operations, out, transform, max_pixels)


def _prepare(
    image: bytes | Pixels,
    operations_for: Callable[[int, int], Operations],
    out: Pixels,
    transform: TrainTransform | EvalTransform,
    max_pixels: int = MAX_PIXELS,
) -> None:
    found = image_kernel()
    kernel = None if isinstance(found, str) else found
    as_it_is = isinstance(image, bytes) and (not transform.grey or is_grey_jpeg(image))
    if kernel and isinstance(image, bytes) and as_it_is and len(image) <= MAX_BYTES:
        size = kernel.jpeg_size(image)
        fits = size is not None and size[0] * size[1] <= max_pixels
        if size and fits and _apply(kernel, operations_for(*size), image, out):
            return
    pixels = _decoded(image, max_pixels, transform)
    operations = operations_for(*pixels.shape[:2])
    if not (kernel and _apply(kernel, operations, pixels, out)):
        out[...] = apply(operations, pixels)


def _decoded(
    image: bytes | Pixels, max_pixels: int, transform: TrainTransform | EvalTransform
) -> Pixels:
    pixels = decode(image, max_pixels, transform.reading) if isinstance(image, bytes) else image
    return as_grey(pixels) if transform.grey else pixels


def _apply(
    kernel: ImageKernel, operations: Operations, source: bytes | Pixels, out: Pixels
) -> bool:
    top, left, height, width = operations.window
    assert out.shape == (height, width, 3)
    return kernel.image(
        source,
        out,
        crop=operations.crop,
        resized=operations.resized,
        window=(top, left),
        flip=operations.flip,
        steps=operations.steps,
    )
