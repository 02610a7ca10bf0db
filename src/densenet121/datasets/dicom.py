"""Decode DICOM files to RGB pixels, through the package pydicom.

The order is that of the standard (PS3.3, C.11): modality LUT or rescale, then VOI LUT or window,
then 8 bits, and last the inversion of MONOCHROME1. Colour has none of them: a palette is looked up,
and YBR is converted to RGB by pydicom.

No element about a patient is ever parsed: only those in ``_ELEMENTS`` are, and no text of the file
or of pydicom goes into an error. pydicom's warnings and log quote what they warn about, so both are
switched off for the process when the first DICOM file is read.
"""

import io
import logging
import math
import struct
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.reading import Reading, Window, grey_levels
from densenet121.utils.errors import InputError

MARK = b"DICM"  # at byte 128

_PALETTE = ("Red", "Green", "Blue")
_TABLE = ("Descriptor", "Data")
# The elements that are read: what describes the pixels, and nothing else.
_ELEMENTS = [
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in _PALETTE for part in _TABLE),
    "SegmentedRedPaletteColorLookupTableData",
]
# Without these no sample can be read.
_NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_FUNCTIONS = {"LINEAR", "LINEAR_EXACT", "SIGMOID"}  # of a window
_THREE_SAMPLES = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}  # RGB from pydicom
_COLOURS = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *_THREE_SAMPLES}
_OTHER_COLOURS = {"YBR_PARTIAL_420", "YBR_PARTIAL_422", "XYB", "HSV", "ARGB", "CMYK"}
# Its inflated size is not known before, so the limit on bytes could not be kept.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"  # of 8 or of 12 bits


def decode_dicom(
    data: bytes, check_size: Callable[[int, int], None], reading: Reading
) -> NDArray[np.uint8]:
    """The pixels of a DICOM file: ``(H, W, 3)`` RGB.

    Args:
        data: content of the file, with its preamble.
        check_size: raises an InputError for a width and height that are too large.
        reading: a window overrides that of the file; ``depth`` has no meaning here.

    Raises:
        InputError: pydicom is not installed, or the file is of a kind that is not read, truncated
            or damaged. The text is the reason only.
    """
    pydicom = _pydicom()
    if _transfer_syntax(data) == _DEFLATED:
        raise InputError("DICOM with a deflated data set, which is not read")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), specific_tags=_ELEMENTS)
        _check_kind(dataset)
        check_size(int(dataset.Columns), int(dataset.Rows))
        _check_decoder(dataset.file_meta.TransferSyntaxUID, int(dataset.BitsStored))
        samples = dataset.pixel_array
        _check_shape(dataset, samples)
        if dataset.PhotometricInterpretation in _THREE_SAMPLES:
            return np.array(samples, dtype=np.uint8, order="C")
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _through_palette(samples, dataset)
        grey = _grey_levels(dataset, samples, reading.window)
    except InputError:
        raise
    except Exception:  # damaged data makes pydicom raise exceptions of almost any type
        raise InputError("truncated, damaged or unsupported DICOM") from None
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[:, :, None], 3, axis=2)


@cache
def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise InputError("DICOM needs pydicom; pip install 'densenet121[dicom]'") from None
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return pydicom


def _transfer_syntax(data: bytes) -> bytes:
    """Its UID, from the file's first elements, which are always little-endian and explicit."""
    at = data.find(b"\x02\0\x10\0UI", 132, 132 + 65536)
    if at < 0 or len(data) < at + 8:
        return b""
    (length,) = struct.unpack_from("<H", data, at + 6)
    return data[at + 8 : at + 8 + length].rstrip(b"\0 ")


def _check_kind(dataset: Any) -> None:
    """Refuse what is not one image of grey levels, a palette or 8-bit colour, by name."""
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise InputError("DICOM with float samples, which are not read")
        raise InputError("DICOM without pixels")
    missing = [name for name in _NEEDED if dataset.get(name) in (None, "")]
    if missing:
        raise InputError(
            f"DICOM without {missing[0]}, which its pixels need; write it into the file"
        )
    if "TransferSyntaxUID" not in dataset.file_meta:
        raise InputError("DICOM without a transfer syntax; write it anew as a DICOM file")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise InputError("DICOM with several frames; write each as an image")
    if "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset:
        raise InputError("DICOM with functional groups (an enhanced kind), which are not read")
    colour = str(dataset.PhotometricInterpretation).strip()
    if colour not in _COLOURS:
        name = colour if colour in _OTHER_COLOURS else "that is unknown"
        raise InputError(
            f"DICOM with a colour space {name}; grey levels, palettes, RGB and YBR_FULL are read"
        )
    bits, highest = int(dataset.BitsStored), dataset.get("HighBit")
    if bits < dataset.BitsAllocated and highest not in (None, "", bits - 1):
        raise InputError(f"DICOM with HighBit {highest} of {bits} stored bits; {bits - 1} is read")
    if colour in _THREE_SAMPLES and dataset.BitsAllocated != 8:
        raise InputError(f"DICOM with {colour} of more than 8 bits")
    if colour == "PALETTE COLOR" and "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise InputError("DICOM with a palette in segments, which is not read")


def _check_shape(dataset: Any, samples: NDArray[Any]) -> None:
    """Refuse samples that do not fit what the file says of them, such as grey in three channels."""
    channels = (3,) if dataset.PhotometricInterpretation in _THREE_SAMPLES else ()
    if samples.shape != (dataset.Rows, dataset.Columns, *channels):
        raise InputError(
            f"DICOM with samples of shape {samples.shape}, which is not one image of "
            f"{dataset.PhotometricInterpretation}"
        )


def _check_decoder(syntax: Any, bits: int) -> None:
    """Refuse pixels that no installed package can decompress, by the standard's name of them."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        plugins = get_decoder(syntax).available_plugins
        # Pillow has JPEG of 8 bits only.
        available = get_decoder(syntax).is_available and not (
            syntax == _JPEG_EXTENDED and bits != 8 and plugins == ("pillow",)
        )
    except NotImplementedError:
        available = False
    if not available:
        name = "that is unknown" if syntax.is_private or syntax.name == syntax else syntax.name
        advice = "write it uncompressed"
        if "JPEG" in name:
            advice = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg may help"
        raise InputError(
            f"DICOM with a transfer syntax {name}, which the installed packages cannot decode; "
            + advice
        )


def _grey_levels(dataset: Any, samples: NDArray[Any], window: Window | None) -> NDArray[np.uint8]:
    """Through the modality LUT and a window: the file's own unless there is another."""
    from pydicom.pixels.processing import apply_modality_lut, apply_windowing

    _check_rescaling(dataset)
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        values = _through_table(samples, dataset, item.LUTDescriptor, item.LUTData)
    else:
        values = apply_modality_lut(samples, dataset)
    if window is not None and window.kind in ("values", "percentile"):
        return grey_levels(values, *window.limits(_without_padding(values, samples, dataset)))
    low, high = _range(dataset)
    if window is not None and window.kind == "full":
        return grey_levels(values, min(low, high), max(low, high))
    tables = [item for item in dataset.get("VOILUTSequence") or () if "LUTData" in item]
    count = len(tables) if tables else _number_of_windows(dataset)
    index = window.index if window else 0
    if window is not None and index >= count:
        raise InputError(f"DICOM with {count} windows, numbered from 0; there is no index:{index}")
    if count == 0:
        if dataset.BitsStored > 8:
            counted = _without_padding(values, samples, dataset)
            low, high = float(counted.min()), float(counted.max())
        return grey_levels(values, min(low, high), max(low, high))
    if tables:
        item = tables[index]
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        if first >= 2**15 and first > max(low, high):
            first -= 2**16  # it is signed (PS3.3, C.11.2.1.1), which implicit VR cannot say
        shown = _through_table(values, dataset, (count, first, bits), item.LUTData)
        return grey_levels(shown, 0.0, float(2 ** int(item.LUTDescriptor[2]) - 1))
    _check_window(dataset, index)
    shown = apply_windowing(values, dataset, index)
    if low > high:  # a negative slope: the window's own black is the upper end
        shown, low, high = -shown, -low, -high
    return grey_levels(shown, low, high)


def _without_padding(values: NDArray[Any], samples: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """The values of what was imaged, not of what fills the rest (PS3.3, C.7.5.1.1.2)."""
    if dataset.get("PixelPaddingValue") is None:
        return values
    first = int(dataset.PixelPaddingValue)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = (first, first if limit is None else int(limit))
    # Some programs write the padding of signed samples as the unsigned number of the same bits.
    low, high = sorted(int(np.array(end).astype(samples.dtype)) for end in ends)
    image = values[(samples < low) | (samples > high)]
    return image if image.size else values


def _check_rescaling(dataset: Any) -> None:
    """Refuse half of a rescaling or a slope of 0; remove a blank one: pydicom cannot apply it."""
    blank = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}  # what they do without effect
    for name in list(blank):
        if numbers := _numbers(dataset, name):
            found, without_effect = name, blank.pop(name) == numbers[0]
        elif name in dataset:
            del dataset[name]
    if len(blank) == 1 and not without_effect:
        raise InputError(f"DICOM with a {found} but no {next(iter(blank))}")
    if 0 in _numbers(dataset, "RescaleSlope") and not dataset.get("ModalityLUTSequence"):
        raise InputError(
            "DICOM with a RescaleSlope of 0, which makes all samples one value; write the slope of "
            "its device into the file"
        )


def _through_palette(samples: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of a palette (PS3.3, C.7.6.3.1.5), the upper 8 bits of its entries."""
    planes = []
    for colour in _PALETTE:
        name = f"{colour}PaletteColorLookupTable"
        descriptor, data = dataset[f"{name}Descriptor"].value, dataset[f"{name}Data"].value
        plane = _through_table(samples, dataset, descriptor, data)
        planes.append((plane >> max(int(descriptor[2]) - 8, 0)).astype(np.uint8))
    return np.stack(planes, axis=2)


def _through_table(
    values: NDArray[Any], dataset: Any, descriptor: Any, found: Any
) -> NDArray[np.uint16]:
    """The entries of a table (PS3.3, C.11.1.1.1) for the whole part of each value.

    Not by pydicom, whose index has the type of the entries or of the samples, and wraps in it: of
    4096 entries of 8 bits it uses 256. Entries of 8 bits may be stored in 8 or in 16.
    """
    count, first, bits = (int(number) for number in descriptor)
    count = count or 2**16
    words = np.dtype("<u2" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">u2")
    data = found if isinstance(found, bytes) else np.array(found, dtype=words).tobytes()
    packed = bits <= 8 and len(data) <= count + count % 2
    table = np.frombuffer(data, np.uint8 if packed else words, count)
    places = np.clip(np.floor(values).astype(np.float64) - first, 0, count - 1)
    return np.asarray(table[places.astype(np.int64)], dtype=np.uint16)


def _numbers(dataset: Any, name: str) -> list[float]:
    """The numbers of an element; none if it is absent or blank.

    Raises:
        InputError: one is nan or infinite, which would make the whole image black.
    """
    value = dataset.get(name)
    numbers = [] if value in (None, "") else np.ravel(np.asarray(value, dtype=np.float64)).tolist()
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"DICOM with a {name} that is not a finite number")
    return numbers


def _check_window(dataset: Any, index: int) -> None:
    """Refuse a window of the file that shows nothing (PS3.3, C.11.2.1.2)."""
    advice = "; pass `window`, such as full, to use another"
    _numbers(dataset, "WindowCenter")
    widths = _numbers(dataset, "WindowWidth")
    width = widths[index if len(widths) > 1 else 0]
    if not str(dataset.get("VOILUTFunction") or "").strip():  # optional, so it may be blank
        dataset.VOILUTFunction = "LINEAR"
    function = str(dataset.VOILUTFunction).strip().upper()
    if function not in _FUNCTIONS:
        raise InputError(f"DICOM with an unknown function of its window{advice}")
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise InputError(f"DICOM with a window of width {width:g}{advice}")


def _number_of_windows(dataset: Any) -> int:
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return 0
    return int(dataset["WindowCenter"].VM)


def _range(dataset: Any) -> tuple[float, float]:
    """The values that samples can have after the modality LUT, from those of the stored bits."""
    if dataset.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    bits = int(dataset.BitsStored)
    low, high = (0, 2**bits - 1)
    if dataset.PixelRepresentation == 1:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return float(low), float(high)
    return low * float(slope) + float(intercept), high * float(slope) + float(intercept)
