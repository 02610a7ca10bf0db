"""Facts about one image file: size, faults, hashes."""

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

from densenet121.datasets.decoding import MAX_PIXELS, decode, format_of
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.png import png_without_notes
from densenet121.datasets.reading import AS_BYTES, Reading
from densenet121.utils.errors import InputError
from densenet121.utils.pillow_input import pillow_input
from densenet121.utils.strays import stray, unread_image

SIDE = 32  # of the small grey image that is compared to find near copies
_MOST_LOW_BITS = 14  # sensors give 10, 12 or 14 bits; samples with more use the range
_FLAT = 3.0  # grey levels; images with a smaller spread cannot be compared

# Usual extensions of each format.
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "DICOM": (".dcm", ".dicom"),
}
# Last bytes of a complete file; other bytes may follow them.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image.

    Attributes:
        fault: ``empty``, ``not_a_picture``, ``truncated`` or ``damaged``; None if there is none.
        reason: error message of the decoder.
        remarks: (kind, detail) of what is unusual: ``wrong_extension``, ``cmyk``, ``alpha``,
            ``rotated``, ``several``, ``low_range``.
        height: pixels; 0 if there is a fault.
        width: pixels; 0 if there is a fault.
        digest: hash of the pixels.
        perceptual: 64-bit hash that changes little if the image changes little.
        grey: ``(SIDE, SIDE)`` float32, mean 0 and length 1; None if it is nearly uniform.
    """

    fault: str | None
    reason: str = ""
    remarks: tuple[tuple[str, str], ...] = ()
    height: int = 0
    width: int = 0
    digest: bytes = b""
    perceptual: int = 0
    grey: NDArray[np.float32] | None = None


def facts_of(dataset: ImageDataset, index: int, reading: Reading = AS_BYTES) -> ImageFacts:
    """Read one image and decode it as ``reading`` says."""
    try:
        data = dataset.read(index)
    except InputError as error:
        return ImageFacts("damaged", str(error))
    if not isinstance(data, bytes):
        return _measure(data, ())
    if not data:
        return ImageFacts("empty", "0 bytes")
    name = format_of(data)
    if name is None:
        instead = unread_image(data[:512]) or stray(data[:512])
        reason = f"it is {instead}" if instead else "its first bytes match no known format"
        return ImageFacts("not_a_picture", reason)
    remarks = (
        *_extension(dataset.paths[index], name),
        *_header(data, name),
        *(_low_range(data, name) if reading == AS_BYTES else ()),
    )
    try:
        return _measure(decode(data, reading=reading), remarks)
    except InputError as error:
        end = _ENDS.get(name, b"")
        cut = bool(end) and end not in data[-1024:]
        if name in ("WEBP", "BMP"):  # their headers contain the length of the file
            at = 4 if name == "WEBP" else 2
            cut = int.from_bytes(data[at : at + 4], "little") + (8 if name == "WEBP" else 0) > len(
                data
            )
        return ImageFacts("truncated" if cut else "damaged", str(error), remarks)


def _measure(pixels: NDArray[np.uint8], remarks: tuple[tuple[str, str], ...]) -> ImageFacts:
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
    return (("wrong_extension", f"{name} data in a {extension} file"),)


def _low_range(data: bytes, name: str) -> list[tuple[str, str]]:
    """A remark on 16-bit samples that come from fewer bits, as those of X-rays and microscopes."""
    try:
        most = _largest_sample(data, name)
    except Exception:  # damaged data raises exceptions of almost any type; decode() reports it
        return []
    if not most or most.bit_length() > _MOST_LOW_BITS:
        return []
    is_colour = name == "PNG" and bool(data[25] & 2)
    advice = f"depth 16 with window 0,{2 ** most.bit_length() - 1} keeps them"
    if is_colour:
        advice = "depth 16 is for grey images: save it as grey, or its samples with 8 bits"
    detail = (
        f"16-bit samples of at most {most}, as of {most.bit_length()} bits: only the high byte is "
        f"used, so {(most >> 8) + 1} of 256 levels are left; {advice}"
    )
    return [("low_range", detail)]


def _largest_sample(data: bytes, name: str) -> int | None:
    """The largest sample of a 16-bit PNG, or of a grey TIFF or PGM; None for other images."""
    if name == "PNG" and data[24:25] == b"\x10":
        decode(data)  # OpenCV must not see what it may not be given
        quiet = png_without_notes(data) or data
        pixels = cv2.imdecode(np.frombuffer(quiet, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16:
            return None
        return int((pixels[..., :3] if pixels.ndim == 3 else pixels).max())  # without opacity
    if name in ("TIFF", "PPM"):
        with _open(data, name) as image:
            # Pillow scales a PGM by its maximum to 16 bits, and calls their mode I.
            is_deep = image.mode.startswith("I;16") if name == "TIFF" else image.mode == "I"
            return int(np.asarray(image).max()) if is_deep else None
    return None


def _header(data: bytes, name: str) -> list[tuple[str, str]]:
    """Remarks on colours, orientation and pages from the header of the image."""
    if name == "DICOM":
        return []
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(data, name) as image:
                mode, has_alpha = image.mode, image.has_transparency_data
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                # Telephones put a second picture into a JPEG, which is no series.
                several = name != "JPEG" and _has_second(image)
    except Exception:  # damaged data raises exceptions of almost any type; decode() reports it
        return []
    if mode == "CMYK":
        found.append(("cmyk", "CMYK, converted to RGB without a colour profile"))
    if has_alpha:
        found.append(("alpha", f"{mode} with transparency, which is dropped"))
    if orientation not in (0, 1):
        found.append(("rotated", f"EXIF orientation {orientation}, which is not applied"))
    if several:
        found.append(("several", "several pages or frames, of which only the first is used"))
    return found


def _open(data: bytes, name: str) -> Image.Image:
    return Image.open(io.BytesIO(pillow_input(data, MAX_PIXELS)), formats=[name])


def _has_second(image: Image.Image) -> bool:
    """Whether there is another page or frame; they are not counted, as a file may have millions."""
    try:
        image.seek(1)
    except Exception:  # EOFError, or of almost any type for damaged data
        return False
    return True
