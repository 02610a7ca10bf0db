"""Images that a caller holds, paths or pixels, as a dataset."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import read_file
from densenet121.datasets.image_dataset import Encoded, ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.inference.image_input import ImageInput, as_encoded
from densenet121.utils.errors import InputError

_ROOT = Path("X")  # what scikit-learn calls the images
# Grey images (N, H, W) of this height are not 3 pixels wide: the array is one (H, W, 3).
_LEAST_SIDE = 16


def as_dataset(
    images: Sequence[ImageInput],
    labels: NDArray[np.int64] | None = None,
    class_names: Sequence[str] = (),
) -> ImageDataset:
    """The result of ``list_images`` as a dataset.

    Args:
        images: the images.
        labels: ``(N,)`` index of the class of each; None for all 0.
        class_names: in the order of the labels.

    Raises:
        InputError: a file is missing.
    """
    labels = np.zeros(len(images), np.int64) if labels is None else labels
    sizes = [_size(number, image) for number, image in enumerate(images)]
    digest = hashlib.sha256("\0".join(class_names).encode(errors="surrogateescape"))
    for image, size, label in zip(images, sizes, labels.tolist(), strict=True):
        digest.update(f"\n{label} {size} ".encode())
        digest.update(_identity(image))
    return ImageDataset(
        _ROOT,
        tuple(class_names),
        Names.of(_name(number, image) for number, image in enumerate(images)),
        labels,
        np.array(sizes, dtype=np.int64),
        read_one=lambda index: _read(images[index]),
        known_fingerprint=digest.hexdigest(),
    )


def list_images(x: Any) -> Sequence[ImageInput]:
    """The images of ``x``, one by one.

    Args:
        x: a sequence of paths, bytes, PIL images and uint8 arrays ``(H, W, 3)`` or ``(H, W)``, also
            as an array of objects or strings or a column of pandas; or one uint8 array
            ``(N, H, W)`` or ``(N, H, W, C)`` with C of 1 or 3.

    Raises:
        InputError: it is none of these, or empty.
    """
    if isinstance(x, str | bytes | Path) or not hasattr(x, "__len__"):
        raise InputError(
            f"X must be a sequence of images (paths, arrays, PIL images), got {type(x).__name__}"
        )
    if hasattr(x, "iloc") and x.ndim == 2:  # a table of pandas, whose elements are its columns
        if x.shape[1] != 1:
            raise InputError(f"X must have one column of images, got {x.shape[1]}; pass that one")
        x = x.iloc[:, 0]
    if not len(x):
        raise InputError("X has 0 images; at least one is needed")
    if isinstance(x, np.ndarray) and x.dtype.kind not in "OUS":
        if x.ndim == 3 and x.shape[2] in (3, 4) and x.shape[1] >= _LEAST_SIDE:
            raise InputError(f"X is one colour image, of shape {x.shape}; pass X[None]")
        return list(_of_array(x))
    if isinstance(x, np.ndarray) and x.ndim != 1:
        raise InputError(f"X must have one image an element, got an array of shape {x.shape}")
    return [_single(image, number) for number, image in enumerate(x)]


def _of_array(x: NDArray[Any]) -> NDArray[np.uint8]:
    """``(N, H, W)`` or ``(N, H, W, 3)``, without a copy."""
    grey = x.ndim == 4 and x.shape[3] == 1
    if not (x.ndim == 3 or grey or (x.ndim == 4 and x.shape[3] == 3)):
        hint = "; rows of pixels need X.reshape(-1, H, W)" if x.ndim == 2 else ""
        raise InputError(
            f"X must be images (N, H, W) or (N, H, W, 3), got an array of shape {x.shape}{hint}"
        )
    if x.dtype != np.uint8:
        raise InputError(
            f"X must be pixels of uint8, 0 to 255, got {x.dtype}; scale them to that range and "
            "pass X.astype(numpy.uint8)"
        )
    if 0 in x.shape:
        raise InputError(f"the images of X have no pixels: {x.shape}")
    return x[..., 0] if grey else x


def _single(image: Any, number: int) -> ImageInput:
    """One element of a sequence, checked."""
    if isinstance(image, str | Path):
        return str(Path(image).absolute())
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return np.asarray(_of_array(image[None])[0])
    try:
        return as_encoded(image)
    except InputError as error:
        raise InputError(f"X[{number}]: {error}") from None


def _read(image: ImageInput) -> Encoded:
    if isinstance(image, str | Path):
        return read_file(Path(image))
    if isinstance(image, np.ndarray) and image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return as_encoded(image)


def _name(number: int, image: ImageInput) -> str:
    return str(image) if isinstance(image, str | Path) else f"[{number}]"


def _size(number: int, image: ImageInput) -> int:
    if isinstance(image, str | Path):
        try:
            return Path(image).stat().st_size
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"X[{number}], {image}: {reason}") from None
    return image.nbytes if isinstance(image, np.ndarray) else len(as_bytes(image))


def _identity(image: ImageInput) -> bytes:
    if isinstance(image, str | Path):
        return str(image).encode(errors="surrogateescape")
    return as_bytes(image)


def as_bytes(image: ImageInput) -> bytes:
    """The bytes of an image in memory, with its shape if they are pixels."""
    if isinstance(image, np.ndarray):
        return str(image.shape).encode() + np.ascontiguousarray(image).tobytes()
    assert isinstance(image, bytes)
    return image
