"""What can be seen in one image file."""

import hashlib
import io
import os
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from scipy import fft

from densenet121.datasets.decoding import decode, format_of
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.utils.errors import InputError

SIDE = 32  # of the small grey image that near duplicates are told by
_FLAT = 3.0  # grey levels: a smaller spread tells nothing apart

# What a format is usually called.
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
# Where a whole file ends, give or take bytes that were added to it.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image.

    Attributes:
        fault: ``empty``, ``not_a_picture``, ``truncated`` or ``damaged``, None of a sound one.
        reason: what the decoder said of it.
        remarks: (kind, detail) of what is unusual: ``wrong_extension``, ``cmyk``, ``alpha``,
            ``rotated``.
        height: pixels; 0 of a faulty one.
        width: likewise.
        digest: of the pixels.
        perceptual: 64 bits that change little when the image does.
        grey: ``(SIDE, SIDE)`` float32, mean 0 and length 1; None where it is all but flat.
    """

    fault: str | None
    reason: str = ""
    remarks: tuple[tuple[str, str], ...] = ()
    height: int = 0
    width: int = 0
    digest: bytes = b""
    perceptual: int = 0
    grey: NDArray[np.float32] | None = None


def facts_of(dataset: ImageDataset, index: int) -> ImageFacts:
    """Read and decode one image."""
    try:
        data = dataset.read(index)
    except InputError as error:
        return ImageFacts("damaged", str(error))
    if not isinstance(data, bytes):
        return _seen(data, ())
    if not data:
        return ImageFacts("empty", "0 bytes")
    name = format_of(data)
    if name is None:
        return ImageFacts("not_a_picture", "its first bytes are those of no known format")
    remarks = (*_extension(dataset.paths[index], name), *_header(data, name))
    try:
        return _seen(decode(data), remarks)
    except InputError as error:
        end = _ENDS.get(name, b"")
        cut = bool(end) and end not in data[-1024:]
        if name in ("WEBP", "BMP"):  # which say in their heads how long they are
            at = 4 if name == "WEBP" else 2
            cut = int.from_bytes(data[at : at + 4], "little") + (8 if name == "WEBP" else 0) > len(
                data
            )
        return ImageFacts("truncated" if cut else "damaged", str(error), remarks)


def _seen(pixels: NDArray[np.uint8], remarks: tuple[tuple[str, str], ...]) -> ImageFacts:
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(f"{height},{width},".encode() + pixels.tobytes(), digest_size=16)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    # The lowest 8 x 8 cosines without the mean, each above or below their median (pHash).
    low = fft.dctn(small, norm="ortho")[:8, :8].ravel()
    bits = np.packbits(low > np.median(low[1:]))
    flat = small - small.mean()
    return ImageFacts(
        None,
        remarks=remarks,
        height=height,
        width=width,
        digest=digest.digest(),
        perceptual=int.from_bytes(bits.tobytes(), "big"),
        grey=None if small.std() < _FLAT else flat / np.linalg.norm(flat),
    )


def _extension(path: str, name: str) -> tuple[tuple[str, str], ...]:
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122
    if not extension or extension in _EXTENSIONS[name]:
        return ()
    return (("wrong_extension", f"{name} in a file called {extension}"),)


def _header(data: bytes, name: str) -> list[tuple[str, str]]:
    """What the image's head says of its colours and its orientation."""
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[name]) as image:
                mode, has_alpha = image.mode, image.has_transparency_data
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged data makes Pillow's parsers raise nearly anything; decode tells
        return []
    if mode == "CMYK":
        found.append(("cmyk", "CMYK, converted to RGB without a colour profile"))
    if has_alpha:
        found.append(("alpha", f"{mode} with transparency, which is dropped"))
    if orientation not in (0, 1):
        found.append(("rotated", f"EXIF orientation {orientation}, which is not followed"))
    return found
