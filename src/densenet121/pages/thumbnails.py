"""Small JPEGs of images that a file names: nothing outside the data folder, nothing enormous."""

import io
import stat
import warnings
from pathlib import Path, PurePath

from PIL import Image

_SIDE = 128  # pixels, at most
_MAX_BYTES = 50 * 1000**2
_MAX_PIXELS = 89_000_000  # what Pillow, too, calls a decompression bomb
# Formats that decode in this process alone; EPS, for one, would start another program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


def thumbnail(data_dir: Path | None, path: str) -> tuple[bytes | None, str]:
    """A JPEG of at most 128 x 128 pixels and "", or None and why there is none.

    Upright as the file stores it, as the network saw it: EXIF orientation is not applied.
    """
    relative = PurePath(path)
    # By the path's text: links inside the data folder are the user's way to lay out data.
    if relative.is_absolute() or ".." in relative.parts:
        return None, "outside the data folder"
    if data_dir is None:
        return None, "data folder not known"
    try:
        status = (data_dir / relative).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return None, "not a file"
        if status.st_size > _MAX_BYTES:
            return None, "larger than 50 MB"
        return _shrink(data_dir / relative)
    except FileNotFoundError:
        return None, "no longer there"
    except Exception:
        # Whatever a decoder raises on damaged bytes: the page is worth more than one image.
        return None, "not readable"


def _shrink(path: Path) -> tuple[bytes | None, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on size (checked here) and damaged metadata
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None, "larger than 89 megapixels"
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # JPEG: decodes at a fraction of its size
            small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        jpeg = io.BytesIO()
        small.save(jpeg, format="JPEG", quality=85)
    return jpeg.getvalue(), ""
