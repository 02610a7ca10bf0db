"""Small JPEGs of images named in a file; refuses huge files and unlisted paths outside the data."""

import io
import stat
import warnings
from collections.abc import Callable, Collection
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densenet121.utils.pillow_input import pillow_input

_SIDE = 128  # maximum, in pixels
_MAX_BYTES = 50 * 1000**2
_MAX_PIXELS = 89_000_000  # close to Pillow's limit for decompression bombs
# Formats that are decoded in this process; EPS, for example, would start another program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_DICOM = b"DICM"  # at byte 128

# Of the bytes of a file the pixels ``(H, W, 3)``, as the network had them.
Decode = Callable[[bytes], NDArray[np.uint8]]


def thumbnail(
    data_dir: Path | None, path: str, decode: Decode, listed: Collection[str] = ()
) -> tuple[bytes | None, str]:
    """A JPEG of at most 128 x 128 pixels and "", or None and the reason.

    EXIF orientation is not applied, so the image is as the network saw it.

    Args:
        data_dir: the data folder.
        path: the image, relative to it.
        decode: reads DICOM and grey samples of more than 8 bits, for which Pillow knows no window.
        listed: paths that may be outside of it, because the user's own list names them.
    """
    relative = PurePath(path)
    # Only the text of the path is checked: users may have links inside the data folder.
    if (relative.is_absolute() or ".." in relative.parts) and path not in listed:
        return None, "outside the data folder"
    if data_dir is None:
        return None, "data folder unknown"
    try:
        status = (data_dir / relative).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could block forever
            return None, "not a file"
        if status.st_size > _MAX_BYTES:
            return None, "larger than 50 MB"
        return _shrink(data_dir / relative, decode)
    except FileNotFoundError:
        return None, "no longer exists"
    except Exception:
        # Damaged data makes decoders raise exceptions of any type; the page is written anyway.
        return None, "not readable"


def _shrink(path: Path, decode: Decode) -> tuple[bytes | None, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about size (checked here) and damaged metadata
        raw = path.read_bytes()
        if raw[128:132] == _DICOM:
            return _jpeg(Image.fromarray(decode(raw))), ""
        data = pillow_input(raw, _MAX_PIXELS)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None, "larger than 89 megapixels"
            if image.mode.startswith("I"):  # more than 8 bits, which convert would cut at 255
                return _jpeg(Image.fromarray(decode(raw))), ""
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # JPEG: decodes at a fraction of its size
            return _jpeg(image.convert("RGB")), ""


def _jpeg(image: Image.Image) -> bytes:
    image.thumbnail((_SIDE, _SIDE))
    jpeg = io.BytesIO()
    image.save(jpeg, format="JPEG", quality=85)
    return jpeg.getvalue()
