"""DICOM: every file of pydicom's wheel is read to its own pixels, or refused by name."""

import io
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom", reason="needs densenet121[dicom]")

from pydicom.pixels.processing import (  # noqa: E402
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
)

from densenet121.audit.audit import audit  # noqa: E402
from densenet121.audit.output import table  # noqa: E402
from densenet121.config import AuditConfig  # noqa: E402
from densenet121.datasets.decoding import decode, read_image  # noqa: E402
from densenet121.datasets.reading import make_reading  # noqa: E402
from densenet121.inference.predictor import Predictor  # noqa: E402
from densenet121.utils.errors import InputError, TooLargeError  # noqa: E402

from helpers.commands import run_command  # noqa: E402
from helpers.weights import write_weights  # noqa: E402

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
# Every reason for which a file of the wheel may be refused.
REASONS = (
    "DICOM without pixels",
    "DICOM without Rows, which its pixels need",
    "DICOM with several frames",
    "DICOM with functional groups",
    "DICOM with RGB of more than 8 bits",
    "DICOM with a deflated data set",
    "DICOM with a transfer syntax JPEG",
    "truncated, damaged or unsupported DICOM",
    "not an image, but DICOM without the mark DICM",
    r"not an image \(no known format\)",
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """As the module itself arranges it in a process where nobody resets the filters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\b")
        yield


def levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if high == low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    scaled = np.floor((values.astype(np.float64) - low) / (high - low) * 255 + 0.5)
    return np.clip(scaled, 0, 255).astype(np.uint8)


def through_table(values: NDArray[Any], item: Any) -> NDArray[np.int64]:
    """PS3.3 C.11.1.1.1: the first entry below the first value mapped, the last one above."""
    (count, first, _), data = item.LUTDescriptor, item.LUTData
    table = np.frombuffer(data, "<u2").tolist() if isinstance(data, bytes) else list(data)
    last = (count or 65536) - 1
    places = [min(max(int(value) - first, 0), last) for value in values.ravel()]
    return np.array([table[place] for place in places]).reshape(values.shape)


def reference(dataset: Any, index: int = 0) -> NDArray[np.uint8]:
    """Grey levels by pydicom's own functions, and the ranges of the standard (C.11.2.1.2)."""
    samples = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        shown = apply_color_lut(samples, dataset)
        return np.asarray(shown >> 8 if shown.dtype == np.uint16 else shown).astype(np.uint8)
    if not dataset.PhotometricInterpretation.startswith("MONOCHROME"):
        return np.asarray(samples)
    values = apply_modality_lut(samples, dataset)
    bits, slope = dataset.BitsStored, float(dataset.get("RescaleSlope", 1))
    least = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    low, high = (level * slope + float(dataset.get("RescaleIntercept", 0)) for level in
                 (least, least + 2**bits - 1))  # fmt: skip
    if "ModalityLUTSequence" in dataset:
        low, high = 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    if "WindowCenter" not in dataset and bits > 8:
        low, high = values.min(), values.max()
    if "VOILUTSequence" in dataset:
        low, high = 0, 2 ** dataset.VOILUTSequence[index].LUTDescriptor[2] - 1
        shown = through_table(values, dataset.VOILUTSequence[index])
    else:
        shown = apply_voi_lut(values, dataset, index)
    grey = levels(shown, low, high)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return grey[:, :, None].repeat(3, axis=2)


def test_every_file_of_the_wheel_is_read_to_its_own_pixels_or_refused_by_name() -> None:
    read, refused = 0, Counter[str]()
    for file in sorted(path for path in FILES.rglob("*") if path.is_file()):
        data = file.read_bytes()
        try:
            found = decode(data)
        except InputError as error:
            assert "\n" not in str(error) and error.__cause__ is None
            reason = next(known for known in REASONS if re.match(known, str(error)))
            refused[reason] += 1
            continue
        np.testing.assert_array_equal(
            found, reference(pydicom.dcmread(io.BytesIO(data))), file.name
        )
        assert found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable
        read += 1
    assert read >= 62 and set(refused) == set(REASONS), (read, refused)


def make(samples: NDArray[Any], **elements: Any) -> Any:
    """A dataset of grey samples with the given elements."""
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.Rows, dataset.Columns = samples.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * samples.itemsize
    dataset.BitsStored = 12 if samples.itemsize == 2 else 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(samples.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", samples.tobytes())
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def encoded(dataset: Any) -> bytes:
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def sequence(bits: int, first: int, count: int, seed: int) -> Any:
    item = pydicom.Dataset()
    item.LUTDescriptor = [count, first, bits]
    table = np.sort(np.random.default_rng(seed).integers(0, 2**bits, count))
    item.add_new("LUTData", "US", table.tolist())
    item.LUTDescriptor = [count, first, bits]
    return item


SAMPLES = np.random.default_rng(0).integers(0, 4096, (9, 7), dtype=np.uint16)
WINDOWED: dict[str, Any] = {
    "none": {},
    "window": {"WindowCenter": 1000, "WindowWidth": 700},
    "two": {"WindowCenter": [1000, 2000], "WindowWidth": [700, 3000]},
    "rescaled": {"RescaleSlope": 0.5, "RescaleIntercept": -300, "WindowCenter": 200,
                 "WindowWidth": 400},
    "exact": {"WindowCenter": 900, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 900, "WindowWidth": 500, "VOILUTFunction": "SIGMOID"},
    "falling": {"RescaleSlope": -1, "RescaleIntercept": 0, "WindowCenter": -1000,
                "WindowWidth": 900},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1000,
                 "WindowWidth": 700},
    "table": {"VOILUTSequence": [sequence(8, 100, 3000, 1)]},
    "two tables": {"VOILUTSequence": [sequence(8, 0, 4096, 1), sequence(12, 0, 4096, 2)]},
    "modality": {"ModalityLUTSequence": [sequence(16, 0, 4096, 3)], "WindowCenter": 900,
                 "WindowWidth": 800},
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_and_tables_are_those_of_the_standard(name: str) -> None:
    dataset = make(SAMPLES, **WINDOWED[name])
    if name == "modality":
        dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    data = encoded(dataset)
    np.testing.assert_array_equal(decode(data), reference(dataset))
    if name.startswith("two"):
        found = decode(data, reading=make_reading(8, "index:1"))
        np.testing.assert_array_equal(found, reference(dataset, 1))
        with pytest.raises(
            InputError, match=r"^DICOM with 2 windows, numbered from 0; there is no"
        ):
            decode(data, reading=make_reading(8, "index:2"))


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
RISING = np.arange(4096) // 16  # 12 bits to 8


def of_table(table: NDArray[Any], bits: int, first: int, vr: str = "US") -> Any:
    """An item with this table; its VR is US (numbers) or OW (bytes)."""
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(table) % 65536, first, bits]
    data = table.tolist() if vr == "US" else table.astype("u1" if vr == "8" else "<u2").tobytes()
    item.add_new("LUTData", "US" if vr == "US" else "OW", data)
    item.ModalityLUTType = "US"
    return item


@pytest.mark.parametrize("vr", ["US", "OW", "8"])
@pytest.mark.parametrize("where", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_of_8_bits_keeps_all_of_its_4096_entries(vr: str, where: str) -> None:
    """The place in the table wrapped at 256: the image was black but for its darkest values."""
    dataset = make(RAMP, **{where: [of_table(RISING, 8, 0, vr)]})
    reading = make_reading(8, "full" if where == "ModalityLUTSequence" else None)
    found = decode(encoded(dataset), reading=reading)[:, :, 0]
    np.testing.assert_array_equal(found.ravel(), RISING)


def test_a_modality_table_of_all_signed_16_bits_does_not_wrap() -> None:
    samples = np.arange(-32768, 32768, 16, dtype=np.int16).reshape(64, 64)
    tables = [of_table(np.arange(65536), 16, -32768, "OW")]
    dataset = make(samples, BitsStored=16, HighBit=15, ModalityLUTSequence=tables)
    found = decode(encoded(dataset), reading=make_reading(8, "full"))[:, :, 0]
    np.testing.assert_array_equal(found, levels(samples.astype(int) + 32768, 0, 65535))


def test_values_far_above_a_table_have_its_last_entry() -> None:
    samples = np.array([[0, 100, 4095, 70000, 2**32 - 1]], np.uint32)
    tables = [of_table(np.arange(4096), 12, 0)]
    dataset = make(samples, BitsStored=32, HighBit=31, VOILUTSequence=tables)
    assert decode(encoded(dataset))[0, :, 0].tolist() == [0, 6, 255, 255, 255]


@pytest.mark.parametrize("implicit", [False, True])
def test_a_table_that_begins_below_0_is_one_of_signed_values(implicit: bool) -> None:
    """Implicit VR cannot say so where the samples are unsigned: the image was black."""
    table = of_table(np.arange(4096), 12, 0)
    table.add_new("LUTDescriptor", "SS", [4096, -1024, 12])
    dataset = make(RAMP, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[table])
    if implicit:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    found = decode(encoded(dataset))[:, :, 0]
    np.testing.assert_array_equal(found, levels(RAMP, 0, 4095))


def test_a_table_that_begins_in_the_upper_half_of_16_bits_begins_there() -> None:
    samples = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    tables = [of_table(np.arange(4096), 12, 40000)]
    dataset = make(samples, BitsStored=16, HighBit=15, VOILUTSequence=tables)
    found = decode(encoded(dataset))[:, :, 0]
    np.testing.assert_array_equal(found, levels(np.clip(samples, 40000, 44095), 40000, 44095))


def of_colour(samples: NDArray[np.uint8], colour: str, **elements: Any) -> Any:
    """A dataset of three samples a pixel."""
    dataset = make(samples[:, :, 0], SamplesPerPixel=3, PlanarConfiguration=0, **elements)
    dataset.PhotometricInterpretation = colour
    dataset.PixelData = samples.tobytes() + b"\0" * (samples.size % 2)
    return dataset


def test_ybr_becomes_rgb_by_the_formula_of_the_standard() -> None:
    """PS3.3 C.7.6.3.1.2, within the rounding to whole levels."""
    ybr = np.random.default_rng(3).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    y, b, r = np.moveaxis(ybr.astype(np.float64) - [0, 128, 128], 2, 0)
    rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=2)
    found = decode(encoded(of_colour(ybr, "YBR_FULL"))).astype(np.float64)
    assert np.abs(found - np.clip(rgb, 0, 255)).max() <= 1


def with_palette(entries: NDArray[Any], bits: int, first: int = 0, *, packed: bool = False) -> Any:
    """An image of all 4096 values of 12 bits, and a palette whose columns are R, G and B."""
    dataset = make(RAMP, PhotometricInterpretation="PALETTE COLOR")
    for colour, column in zip(("Red", "Green", "Blue"), entries.T, strict=True):
        name = f"{colour}PaletteColorLookupTable"
        setattr(dataset, f"{name}Descriptor", [len(entries) % 65536, first, bits])
        data = column.astype("u1" if packed else "<u2").tobytes()
        dataset.add_new(f"{name}Data", "OW", data)
    return dataset


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("count", [256, 4096])
def test_a_palette_of_8_bits_gives_its_entries(count: int, packed: bool) -> None:
    entries = np.random.default_rng(4).integers(0, 256, (count, 3))
    found = decode(encoded(with_palette(entries, 8, 5, packed=packed)))
    places = np.clip(RAMP.astype(int) - 5, 0, count - 1)
    np.testing.assert_array_equal(found, entries[places])


@pytest.mark.parametrize("scale", [256, 257])
def test_a_palette_of_16_bits_gives_their_upper_8(scale: int) -> None:
    """Levels of 8 bits are written as 0xAB00 by some scanners, as 0xABAB by others."""
    entries = np.random.default_rng(5).integers(0, 256, (4096, 3))
    found = decode(encoded(with_palette(entries * scale, 16)))
    np.testing.assert_array_equal(found, entries[RAMP])


@pytest.mark.parametrize("spoiled", ["GreenPaletteColorLookupTableData", "length"])
def test_a_damaged_palette_is_refused(spoiled: str) -> None:
    dataset = with_palette(np.zeros((4096, 3), int), 16)
    if spoiled == "length":
        dataset.BluePaletteColorLookupTableData = b"\0" * 8190
    else:
        del dataset[spoiled]
    with pytest.raises(InputError, match=r"^truncated, damaged or unsupported DICOM$"):
        decode(encoded(dataset))


@pytest.mark.parametrize(
    ("syntax", "advice"),
    [
        ("1.2.840.10008.1.2.4.51", "pip install pylibjpeg"),
        ("1.2.840.10008.1.2.4.80", "pip install pylibjpeg"),
        ("1.2.840.10008.1.2.4.100", "write it"),
    ],
    ids=["JPEG of 12 bits", "JPEG-LS", "MPEG2"],
)
def test_a_compression_that_cannot_be_decoded_is_named_with_what_helps(
    syntax: str, advice: str
) -> None:
    dataset = make(SAMPLES)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 64])
    with pytest.raises(InputError, match=rf"packages cannot decode; {advice}"):
        decode(encoded(dataset))


def test_colour_that_is_not_read_is_named() -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r"^DICOM with a colour space HSV; grey levels, palettes,"):
        decode(encoded(of_colour(rgb, "HSV")))
    deep = of_colour(rgb, "YBR_FULL", BitsAllocated=16, BitsStored=16, HighBit=15)
    with pytest.raises(InputError, match=r"^DICOM with YBR_FULL of more than 8 bits$"):
        decode(encoded(deep))
    segments = with_palette(np.zeros((4096, 3), int), 16)
    segments.add_new("SegmentedRedPaletteColorLookupTableData", "OW", b"\0\0")
    with pytest.raises(InputError, match=r"^DICOM with a palette in segments, which is not read$"):
        decode(encoded(segments))


@pytest.mark.parametrize("shift", [0, 4])
def test_samples_in_other_bits_than_the_lowest_are_refused(shift: int) -> None:
    """HighBit 15 of 12 stored bits: the lowest 12 were read, noise where the others hold it."""
    data = encoded(make(RAMP << shift, HighBit=15))
    with pytest.raises(InputError, match=r"^DICOM with HighBit 15 of 12 stored bits; 11 is read$"):
        decode(data)


CHEST = np.array([[-2000, 100, 1123], [-2000, 400, -2000]], np.int16)


@pytest.mark.parametrize(
    "padding",
    [
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1500},
        {"PixelPaddingValue": -1500, "PixelPaddingRangeLimit": -3000},
        {"PixelPaddingValue": 63536},  # the same bits, as an unsigned number
    ],
)
def test_padding_is_not_the_darkest_of_the_image(padding: dict[str, int]) -> None:
    """The image had the upper 84 of 256 levels, above those down to the padding."""
    dataset = make(CHEST, BitsStored=16, HighBit=15)
    for name, number in padding.items():
        dataset.add_new(name, "US" if number > 0 else "SS", number)
    found = decode(encoded(dataset))[:, :, 0]
    np.testing.assert_array_equal(found, levels(np.maximum(CHEST, 100), 100, 1123))
    found = decode(encoded(dataset), reading=make_reading(8, "percentile:50,100"))[:, :, 0]
    np.testing.assert_array_equal(found, levels(np.maximum(CHEST, 400), 400, 1123))
    found = decode(encoded(dataset), reading=make_reading(8, "-2000,1123"))[:, :, 0]
    np.testing.assert_array_equal(found, levels(CHEST, -2000, 1123))


def test_an_image_of_padding_alone_is_read() -> None:
    dataset = make(np.full((4, 4), 7, np.uint16), PixelPaddingValue=7)
    assert decode(encoded(dataset)).max() == 0


def test_a_blank_rescaling_is_none() -> None:
    elements = {"RescaleSlope": None, "RescaleIntercept": None, "WindowCenter": 900,
                "WindowWidth": 500}  # fmt: skip
    plain = broken(WindowCenter=900, WindowWidth=500)
    np.testing.assert_array_equal(decode(broken(**elements)), decode(plain))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"RescaleSlope": 2}, "DICOM with a RescaleSlope but no RescaleIntercept$"),
        ({"RescaleIntercept": -1024}, "DICOM with a RescaleIntercept but no RescaleSlope$"),
        ({"RescaleSlope": None, "RescaleIntercept": 5}, "DICOM with a RescaleIntercept but no"),
        ({"RescaleSlope": 1}, None),
        ({"RescaleIntercept": 0}, None),
    ],
)
def test_half_a_rescaling_is_not_passed_over(elements: dict[str, Any], reason: str | None) -> None:
    """A window in Hounsfield units was then one of stored values."""
    reading = make_reading(8, "-1000,400")
    if reason is None:
        expected = levels(SAMPLES, -1000, 400)
        np.testing.assert_array_equal(
            decode(broken(**elements), reading=reading)[:, :, 0], expected
        )
        return
    with pytest.raises(InputError, match=f"^{reason}"):
        decode(broken(**elements), reading=reading)


def test_a_linear_window_by_hand() -> None:
    """PS3.3 C.11.2.1.2.1: below 2048 - 0.5 - 4095/2 is black, above + 4095/2 white."""
    dataset = make(SAMPLES, WindowCenter=2048, WindowWidth=4096)
    expected = np.floor(SAMPLES / 4095 * 255 + 0.5)
    np.testing.assert_array_equal(decode(encoded(dataset))[:, :, 0], expected)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_setting_overrides_the_window_of_the_file(kind: str, depth: int) -> None:
    elements = WINDOWED["rescaled"] | {"PhotometricInterpretation": kind}
    data, values = encoded(make(SAMPLES, **elements)), SAMPLES * 0.5 - 300
    for window, (low, high) in {
        "-100,600": (-100, 600),
        "percentile:5,95": np.percentile(values, [5, 95]),
        "full": (-300, 4095 * 0.5 - 300),
    }.items():
        grey = levels(values, low, high)
        found = decode(data, reading=make_reading(depth, window))[:, :, 1]
        np.testing.assert_array_equal(found, 255 - grey if kind == "MONOCHROME1" else grey)


def test_8_bits_without_a_window_stay_as_they_are() -> None:
    grey = (SAMPLES & 127).astype(np.uint8)
    np.testing.assert_array_equal(decode(encoded(make(grey)))[:, :, 2], grey)


def broken(**elements: Any) -> bytes:
    return encoded(make(SAMPLES, **elements))


def without_pixels() -> bytes:
    dataset = make(SAMPLES)
    del dataset.PixelData
    return encoded(dataset)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (without_pixels(), "DICOM without pixels"),
        (broken(NumberOfFrames=2), "DICOM with several frames"),
        (broken(PhotometricInterpretation="HSV"), "DICOM with a colour space HSV;"),
        (broken(PhotometricInterpretation="DOE JANE"), "DICOM with a colour space that is unknown"),
        (broken(PixelData=b"12"), "truncated, damaged or unsupported DICOM$"),
        (broken(Rows=60000, Columns=60000), "60000 x 60000 pixels; the limit is 89478485 pixels"),
        (broken()[:400], "truncated, damaged or unsupported DICOM$|DICOM without pixels"),
    ],
)
def test_what_is_not_read_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=f"^({reason})") as caught:
        decode(data)
    assert "JANE" not in str(caught.value)


NEEDED = ["Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
          "BitsStored", "PixelRepresentation"]  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("blank", [True, False])
def test_an_element_that_pixels_need_is_named_where_it_is_missing(name: str, blank: bool) -> None:
    dataset = make(SAMPLES)
    if blank:
        setattr(dataset, name, None)
    else:
        delattr(dataset, name)
    with pytest.raises(InputError, match=f"^DICOM without {name}, which its pixels need; write"):
        decode(encoded(dataset))


def test_a_file_without_a_transfer_syntax_is_refused_by_name() -> None:
    data = broken()
    start = data.index(b"\x02\0\x10\0UI")
    end = start + 8 + int.from_bytes(data[start + 6 : start + 8], "little")
    with pytest.raises(InputError, match=r"^DICOM without a transfer syntax; write it anew"):
        decode(data[:start] + data[end:])


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"WindowWidth": 0}, "DICOM with a window of width 0; pass `window`, such as full"),
        ({"WindowWidth": [0, 700]}, "DICOM with a window of width 0; pass `window`"),
        ({"WindowWidth": -3, "VOILUTFunction": "SIGMOID"}, "DICOM with a window of width -3;"),
        ({"VOILUTFunction": "DOE JANE"}, "DICOM with an unknown function of its window; pass"),
        ({"WindowCenter": float("nan")}, "DICOM with a WindowCenter that is not a finite number"),
        ({"WindowWidth": float("inf")}, "DICOM with a WindowWidth that is not a finite number"),
    ],
)
def test_a_window_that_shows_nothing_is_named_and_another_can_be_used(
    elements: dict[str, Any], reason: str
) -> None:
    data = broken(**({"WindowCenter": 900, "WindowWidth": 700} | elements))
    with pytest.raises(InputError, match=f"^{reason}") as caught:
        decode(data)
    assert "JANE" not in str(caught.value)
    expected = levels(SAMPLES, 0, 4095)
    found = decode(data, reading=make_reading(8, "full"))
    np.testing.assert_array_equal(found[:, :, 0], expected)


@pytest.mark.parametrize("blank", [None, "", " "])
def test_a_blank_function_of_the_window_is_linear(blank: str | None) -> None:
    window = {"WindowCenter": 900, "WindowWidth": 700}
    found = decode(broken(**window, VOILUTFunction=blank))
    np.testing.assert_array_equal(found, decode(broken(**window)))


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("window", [None, "full", "0,900"])
def test_a_rescaling_to_nan_is_refused_and_not_a_black_image(name: str, window: str | None) -> None:
    data = broken(**({"RescaleSlope": 1, "RescaleIntercept": 0} | {name: float("nan")}))
    with pytest.raises(InputError, match=f"^DICOM with a {name} that is not a finite number$"):
        decode(data, reading=make_reading(8, window))


@pytest.mark.parametrize("window", [None, "full", "0,900"])
def test_a_slope_of_0_is_refused_and_not_a_black_image(window: str | None) -> None:
    elements = {"RescaleSlope": 0, "RescaleIntercept": 0}
    reading = make_reading(8, window)
    with pytest.raises(InputError, match=r"^DICOM with a RescaleSlope of 0, which"):
        decode(broken(**elements), reading=reading)
    of_table = {"ModalityLUTSequence": [sequence(12, 0, 4096, seed=1)]}
    assert decode(broken(**elements, **of_table), reading=reading).std() > 0


def test_samples_that_do_not_fit_the_colour_space_are_refused() -> None:
    """They became an array of four dimensions."""
    dataset = make(np.zeros((6, 4), np.uint16), BitsStored=16)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PixelData = bytes(6 * 4 * 3 * 2)
    with pytest.raises(InputError, match=r"samples of shape \(6, 4, 3\), which is not one image"):
        decode(encoded(dataset))


def test_limits_hold() -> None:
    with pytest.raises(TooLargeError, match="7 x 9 pixels; the limit is 62 pixels"):
        decode(broken(), 62)


NAME, NUMBER = "PLANTED^PATIENT", "ID-90210"


def planted(samples: NDArray[Any], **elements: Any) -> bytes:
    """A file whose every text about people has the planted words."""
    dataset = make(samples, **elements)
    for name in ("PatientName", "ReferringPhysicianName", "OperatorsName"):
        setattr(dataset, name, NAME)
    for name in ("PatientID", "AccessionNumber", "StudyDescription", "InstitutionName"):
        setattr(dataset, name, NUMBER)
    dataset.PatientBirthDate = "19420617"
    return encoded(dataset)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of DICOM files, one of which cannot be decoded."""
    root = tmp_path_factory.mktemp("dicom")
    for split, count in (("train", 6), ("val", 4)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([label, index, count])
                samples = rng.integers(900 * label, 900 * (label + 1), (24, 20), dtype=np.uint16)
                (folder / f"{index}.dcm").write_bytes(planted(samples))
    (root / "bad.dcm").write_bytes(planted(SAMPLES, PhotometricInterpretation="HSV"))
    (root / "cut.dcm").write_bytes(planted(SAMPLES, PixelData=b"1234", NumberOfFrames="1"))
    rows = [f"val/ant/{i}.dcm,ant" for i in range(4)] + [f"val/bee/{i}.dcm,bee" for i in range(4)]
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root


def test_no_patient_data_in_any_output(patients: Path, tmp_path: Path) -> None:
    """Train, eval, predict, show, audit and errors: the planted words are in no byte of them."""
    weights = write_weights(tmp_path / "w.safetensors")
    (tmp_path / "outputs").mkdir()
    small = ["--image_size", "16", "--workers", "1", "--per_batch_size", "4", "--amp", "fp32"]
    out = tmp_path / "outputs"
    train = ["--net", "densenet40", "--max_epoch", "1", "--is_distributed", "0"]
    texts = []
    for command in (
        ["train", "--data_dir", patients, *train, *small, "--output_dir", out / "run"],
        ["eval", "--data_dir", patients, "--pretrained", weights, "--output_dir", out / "eval"],
        ["eval", "--data_dir", patients / "list.csv", "--pretrained", weights,
         "--output_dir", out / "list"],
        ["predict", patients / "val", "--pretrained", weights, "--cam", out / "cam"],
        ["predict", patients / "bad.dcm", "--pretrained", weights],
        ["predict", patients / "cut.dcm", "--pretrained", weights],
        ["show", "--data_dir", patients, "--image_size", "16", "--output", out / "sheet.html"],
        ["audit", patients, "--page", out / "audit.html"],
        ["pack", patients, "--output", out / "shards"],
    ):  # fmt: skip
        done = run_command(*command, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        texts.append((command[0], done.returncode, done.stdout + done.stderr))
    codes = [code for _, code, _ in texts]
    assert codes == [0, 0, 0, 0, 1, 1, 0, 0, 1], texts
    assert "DICOM with a colour space HSV" in texts[4][2]
    assert "DICOM may say who the patient is, so it is not copied" in texts[8][2]
    written = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert len(written) > 20
    for content in (*written, *(text.encode() for _, _, text in texts)):
        for word in (NAME, NUMBER, "PLANTED", "19420617"):
            assert word.encode() not in content


def test_dicom_is_read_the_same_from_a_path_bytes_and_the_evaluation(patients: Path) -> None:
    file = patients / "val" / "bee" / "2.dcm"
    np.testing.assert_array_equal(read_image(file), decode(file.read_bytes()))


def test_audit_names_dicom_in_the_file_of_another_format(patients: Path, tmp_path: Path) -> None:
    shutil.copytree(patients / "train", tmp_path / "images")
    (tmp_path / "images" / "ant" / "0.dcm").rename(tmp_path / "images" / "ant" / "0.png")
    found = audit(AuditConfig(source=str(tmp_path / "images"), workers=1))
    assert "DICOM data in a .png file" in table(found)


def test_a_predictor_takes_the_window(patients: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    image = patients / "val" / "cat" / "1.dcm"
    own, wide = (Predictor(weights, window=window, workers=0) for window in (None, "0,65535"))
    assert own.prepare(image).max() > 250 and wide.prepare(image).max() < 20
