"""Images as a caller of ``Predictor`` gives them."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from densenet121.datasets.pillow_images import from_pillow
from densenet121.utils.errors import InputError

ImageInput = str | Path | bytes | NDArray[np.uint8] | Image.Image


def in_order(images: Any) -> Sequence[ImageInput]:
    """Several images so that ``images[i]`` is the one at place ``i``.

    Args:
        images: a sequence, which is returned as it is and may read an image when it is asked for
            it; or a column of pandas, whose own ``[i]`` is the row with the label ``i``.

    Raises:
        InputError: it is one image, or has no order.
    """
    if hasattr(images, "iloc"):
        if images.ndim == 2 and images.shape[1] != 1:
            raise InputError(
                f"`images` must have one column of images, got {images.shape[1]}; pass that one"
            )
        return list(images.iloc[:, 0] if images.ndim == 2 else images)
    one = isinstance(images, str | bytes | Path | Image.Image)
    if one or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        what = f"array {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"`images` must be a sequence of images, got one {what}; pass [image]")
    unordered = isinstance(images, Mapping | AbstractSet)
    if unordered or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise InputError(
            f"`images` must be a sequence of images, got {type(images).__name__}; pass a list"
        )
    return images  # type: ignore[no-any-return]


def as_encoded(image: bytes | NDArray[np.uint8] | Image.Image) -> bytes | NDArray[np.uint8]:
    """An image in memory as the bytes of an encoded one, or contiguous ``(H, W, 3)`` uint8 RGB.

    Raises:
        InputError: it is of another type or shape.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"an array must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        if 0 in image.shape:
            raise InputError(f"the array has no pixels: {image.shape}")
        return np.ascontiguousarray(image)  # that of BGR[..., ::-1] is not
    raise InputError(
        f"an image must be a path, bytes, an array or a PIL image, got {type(image).__name__}"
    )


def check_prepared(
    images: torch.Tensor, pixels: tuple[int, ...], normalised: tuple[int, ...] | None
) -> None:
    """Refuse prepared images that a network would read as others.

    Args:
        images: ``(N, *pixels)`` uint8 or ``(N, *normalised)`` float32.
        pixels: shape of an image before normalisation.
        normalised: shape of one after it, or None where the network takes none.

    Raises:
        InputError: they are of another shape or type.
    """
    allowed = {"uint8": pixels} | ({"float32": normalised} if normalised else {})
    found = type(images).__name__
    if isinstance(images, torch.Tensor):
        kind = str(images.dtype).removeprefix("torch.")
        if images.ndim and images.shape[1:] == allowed.get(kind):
            return
        found = f"{tuple(images.shape)} {kind}"
    shapes = [f"(N, {', '.join(map(str, shape))}) {kind}" for kind, shape in allowed.items()]
    raise InputError(
        f"`images` must be a tensor of {' or, normalised, '.join(shapes)}, got {found}; `prepare` "
        "makes the pixels of an image, and `image_size` of Predictor sets their size"
    )
