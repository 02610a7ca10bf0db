"""Decode image files to RGB pixels, or raise an InputError that gives the reason.

Which library reads which format, and why (opencv 5.0, Pillow 13, simplejpeg 1.9):

- JPEG: libjpeg-turbo through simplejpeg; Pillow decides about files it refuses. CMYK: Pillow.
- PNG, WebP: OpenCV, about twice as fast as Pillow in several threads and strict about damage.
- DICOM: pydicom (dicom.py).
- GIF, BMP, TIFF, PPM: Pillow. OpenCV multiplies a TIFF's colours by its alpha, is off by one for
  16-bit TIFF, ignores the maximum of a PGM, and decodes white as 248 in 16-bit BMP.

Rules for every format:

- EXIF orientation is ignored, as in the original; only TIFF's own orientation tag is applied.
- Grey becomes three equal channels, a palette its colours, CMYK and YCbCr are converted.
- Alpha and transparency are dropped: the result is the stored colour.
- 16-bit samples keep their high byte (``value >> 8``); a PPM is first scaled by its maximum. Where
  a ``Reading`` asks for all 16 bits of grey samples, they go through its window.
- The first image of an animation is used.
- Refused: samples that are float, signed, 12 or 32 bits; CIELAB; truncated and damaged files.

The functions are thread-safe and change no setting of OpenCV or Pillow, with one exception: libtiff
writes no more to stderr once a TIFF was read.
"""

import contextlib
import ctypes
import functools
import io
import os
import re
import stat
import struct
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, _imaging
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COLORMAP,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from densenet121.datasets.dicom import MARK, decode_dicom
from densenet121.datasets.png import png_without_notes
from densenet121.datasets.reading import AS_BYTES, Reading
from densenet121.utils.errors import InputError, TooLargeError, UnreadableError
from densenet121.utils.pillow_input import pillow_input
from densenet121.utils.strays import stray, unopened, unread_image

MAX_BYTES = 2**27
MAX_PIXELS = 89_478_485  # Pillow's limit; above it Pillow only warns

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".dcm", ".dicom"}
)

# First bytes -> Pillow's name of the format. Only that parser is given the data.
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"RIFF", "WEBP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    *((b"P%d" % kind, "PPM") for kind in range(1, 7)),
)

# The header of a colour PPM: width, height and, in the group, the largest value of a sample.
_PPM_COLOUR = re.compile(rb"P[36](?:(?:\s|#[^\r\n]*[\r\n])+(\d+)){3}")

_OPENCV_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

# Pillow's modes whose convert("RGB") is exact. Not "I", "F" (clipped at 255, unscaled) and "LAB".
PILLOW_MODES = frozenset(
    {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The pixels of an image file, see :func:`decode`.

    Raises:
        InputError: the file cannot be opened, exceeds ``MAX_BYTES`` or is not a readable image;
            the text starts with the path.
    """
    try:
        return decode(read_file(Path(path)))
    except InputError as error:
        raise not_readable(os.fspath(path), error) from error


def not_readable(name: str, reason: InputError) -> UnreadableError:
    """The error for an image that cannot be used."""
    return UnreadableError(f"{name}: not a readable image ({reason})")


def is_image(data: bytes) -> bool:
    """Whether the bytes begin like an image of a known format."""
    return format_of(data) is not None


def format_of(data: bytes) -> str | None:
    """The format by the first bytes: DICOM, or Pillow's JPEG, PNG, WEBP, GIF, BMP, TIFF or PPM."""
    if data[128:132] == MARK:
        return "DICOM"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def named_instead(data: bytes) -> str | None:
    """What data of no known format are, and what to do; None if they cannot be told."""
    if unread := unread_image(data[:512]):
        return unread
    instead = stray(data[:512])
    return f"not an image, but {instead}" if instead else None


def decode(
    data: bytes, max_pixels: int = MAX_PIXELS, reading: Reading = AS_BYTES
) -> NDArray[np.uint8]:
    """The pixels of one encoded image: ``(H, W, 3)`` RGB, C-contiguous, writable.

    Args:
        data: content of an image file.
        max_pixels: maximum number of pixels, up to ``MAX_PIXELS``; checked in the header first.
        reading: how samples of more than 8 bits become grey levels.

    Raises:
        InputError: the image is empty, too large (then a ``TooLargeError``), of no known format,
            truncated or damaged. The text is the reason only.
    """
    if not data:
        raise InputError("the file is empty")
    if len(data) > MAX_BYTES:
        raise TooLargeError(f"{len(data)} bytes; the limit is {MAX_BYTES}")
    name = format_of(data)
    if name is None:
        raise InputError(named_instead(data) or "not an image (no known format)")
    if name == "DICOM":
        return decode_dicom(data, partial(_check_size, max_pixels=max_pixels), reading)
    if name == "JPEG":
        return _decode_jpeg(data, max_pixels)
    if name == "PNG":
        return _decode_png(data, max_pixels, reading)
    if name == "WEBP":
        _open(data, name, max_pixels).close()
        return _decode_opencv(data, name)
    return _decode_pillow(data, name, max_pixels, reading)


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        InputError: it cannot be opened, is not a file, or exceeds ``MAX_BYTES``; the reason only.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could block forever
            raise InputError("not a file")
        if status.st_size > MAX_BYTES:
            raise InputError(f"{status.st_size} bytes; the limit is {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(unopened(error)) from error
    except InputError:
        raise
    except ValueError as error:  # a NUL character in the name
        raise InputError(str(error)) from error


def _unreadable(name: str) -> InputError:
    return InputError(f"truncated, damaged or unsupported {name}")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise TooLargeError(f"{width} x {height} pixels; the limit is {max_pixels} pixels")


def _decode_jpeg(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # KeyError: a subsampling that it has no name for, as 4:4:1
        return _decode_pillow(data, "JPEG", max_pixels)
    _check_size(width, height, max_pixels)
    if colours in ("CMYK", "YCCK"):  # Adobe stores them inverted, which Pillow handles
        return _decode_pillow(data, "JPEG", max_pixels)
    # Only the end marker may be missing, as in the original. libjpeg warns if anything else is
    # missing (except whole scans of a progressive file), and a warning is a ValueError here.
    for end in (b"", b"\xff\xd9"):
        try:
            pixels = simplejpeg.decode_jpeg(data + end, "RGB", fastdct=False, fastupsample=False)
        except ValueError:
            continue
        return np.asarray(pixels, dtype=np.uint8)
    # Pillow ignores libjpeg's warnings (such as extraneous bytes) but refuses a truncated file.
    return _decode_pillow(data, "JPEG", max_pixels)


def _decode_opencv(data: bytes, name: str) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _OPENCV_FLAGS)
    except cv2.error as error:
        raise _unreadable(name) from error
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise _unreadable(name)
    return np.asarray(pixels, dtype=np.uint8)


def _decode_png(data: bytes, max_pixels: int, reading: Reading) -> NDArray[np.uint8]:
    # Not with Pillow, which refuses an image with a damaged comment or colour profile.
    if data[12:16] != b"IHDR" or len(data) < 24:
        raise _unreadable("PNG")
    width, height = struct.unpack(">II", data[16:24])
    _check_size(width, height, max_pixels)
    quiet = png_without_notes(data)
    if quiet is None:  # animated: Pillow decodes the image that other programs show
        return _decode_pillow(data, "PNG", max_pixels, reading)
    bits, colour = data[24:26].ljust(2, b"\0")
    if bits == 16 and reading != AS_BYTES:
        _refuse_deep_colour("PNG", colour & 2 != 0)
        return _grey_to_rgb(reading.grey_levels(_deep_png(quiet)))
    return _decode_opencv(quiet, "PNG")


def _deep_png(data: bytes) -> NDArray[np.uint16]:
    """The samples of a 16-bit grey PNG, ``(H, W)``, without opacity."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _unreadable("PNG") from error
    if pixels is None or pixels.dtype != np.uint16:
        raise _unreadable("PNG")
    return np.asarray(pixels if pixels.ndim == 2 else pixels[:, :, 0])


def _refuse_deep_colour(name: str, is_colour: bool) -> None:
    if is_colour:
        raise InputError(
            f"{name} with 16-bit colour; `depth` 16 and `window` are for grey: pass `depth` 8 "
            "without `window`"
        )


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Open the image: the header is read and the size checked, the pixels are not yet decoded."""
    data = pillow_input(data, max_pixels)
    try:
        image = Image.open(io.BytesIO(data), formats=[name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(f"more pixels than the limit of {max_pixels} ({error})") from error
    except Exception as error:  # damaged data makes Pillow raise exceptions of almost any type
        raise _unreadable(name) from error
    _check_size(*image.size, max_pixels)
    return image


def _decode_pillow(
    data: bytes, name: str, max_pixels: int, reading: Reading = AS_BYTES
) -> NDArray[np.uint8]:
    with _open(data, name, max_pixels) as image:
        try:
            if isinstance(image, TiffImageFile):
                return _decode_tiff(image, reading)
            image.load()
            # 16-bit grey: an animated PNG, or a PPM, which Pillow scales to 16 bits.
            if (name, image.mode) in (("PNG", "I;16"), ("PPM", "I")):
                return _grey_to_rgb(reading.grey_levels(np.asarray(image, dtype=np.uint16)))
            if name == "PNG" and reading != AS_BYTES:
                _refuse_deep_colour(name, data[24:25] == b"\x10")
            if name == "PPM" and reading != AS_BYTES:
                header = _PPM_COLOUR.match(data)
                _refuse_deep_colour(name, header is not None and int(header[1]) > 255)
            return to_rgb(image)
        except InputError:
            raise
        except Exception as error:  # as in _open
            raise _unreadable(name) from error


@functools.cache
def _quiet_libtiff() -> None:
    """Stop libtiff's lines on stderr; damage is an error here anyway."""
    with contextlib.suppress(OSError, AttributeError):  # a Pillow without libtiff, or built into it
        library = ctypes.CDLL(_imaging.__file__)  # and the libraries that it has loaded
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


def _decode_tiff(image: TiffImageFile, reading: Reading) -> NDArray[np.uint8]:
    bits = check_tiff(image)
    image.load()
    if not image.mode.startswith("I;16"):
        _refuse_deep_colour("TIFF", bits == 16 and reading != AS_BYTES)
        return to_rgb(image)
    grey = reading.grey_levels(np.asarray(image).astype(np.uint16))
    return _grey_to_rgb(255 - grey if white_is_zero(image) else grey)  # Pillow inverts 8 bits only


def check_tiff(image: TiffImageFile) -> int:
    """The bits of each sample of a TIFF, whether its pixels are decoded or not yet.

    Raises:
        InputError: Pillow reads such samples wrongly.
    """
    _quiet_libtiff()
    if 2 in image.tag_v2.get(SAMPLEFORMAT, ()):  # Pillow takes -1 of 8 bits for 255
        raise InputError("TIFF with signed samples")
    bits = int(max(image.tag_v2.get(BITSPERSAMPLE, (1,))))
    if bits > 8 and image.tag_v2.get(PLANAR_CONFIGURATION, 1) != 1:  # Pillow keeps the low bytes
        raise InputError(f"TIFF with {bits}-bit samples in separate planes")
    if image.mode.startswith("I;16") and bits != 16:  # Pillow does not scale 12 bits to 16
        raise InputError(f"TIFF with {bits}-bit samples")
    return bits


def white_is_zero(image: TiffImageFile) -> bool:
    """Whether 0 is white."""
    return bool(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0)


def _grey_to_rgb(grey: NDArray[np.integer]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an opened image of at most 8 bits; forgets its transparency.

    Raises:
        InputError: its samples are of another kind.
    """
    if image.mode not in PILLOW_MODES:
        raise InputError(f"{image.format} with samples of Pillow's mode {image.mode}")
    # Otherwise Pillow may warn, or try to keep the transparent colour.
    image.info.pop("transparency", None)
    return np.array(_with_palette_of_bytes(image).convert("RGB"))


def _with_palette_of_bytes(image: Image.Image) -> Image.Image:
    """The image; of a TIFF whose palette has 8 bits in place of 16, with that palette.

    Some programs write it so, libtiff tells it by the same rule, and Pillow makes such an image
    black.
    """
    colours = image.tag_v2.get(COLORMAP, ()) if isinstance(image, TiffImageFile) else ()
    if image.mode != "P" or not colours or max(colours) > 255:
        return image
    image = image.copy()
    image.putpalette(np.array(colours, np.uint8).reshape(3, -1).T.tobytes())
    return image
