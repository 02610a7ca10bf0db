"""densenet121.datasets.decoding against Pillow and against files built byte by byte."""

import io
import os
import random
import resource
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densenet121.datasets.decoding import MAX_BYTES, MAX_PIXELS, decode, read_image
from densenet121.datasets.pillow_images import from_pillow
from densenet121.datasets.reading import make_reading
from densenet121.utils.errors import InputError

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet-sample"
Pixels = NDArray[np.uint8]


def photo(height: int = 37, width: int = 53) -> Pixels:
    """A smooth image with some noise: neither trivial nor impossible to compress."""
    noise = np.random.default_rng(0).integers(0, 15, (height, width, 3))
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[:, :, None]
    return (slope % 200 + [0, 20, 40] + noise).astype(np.uint8)


RGB = Image.fromarray(photo())
GREY = RGB.convert("L")
ALPHA = Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 53), dtype=np.uint8))
RGBA = Image.merge("RGBA", (*RGB.split(), ALPHA))
PALETTE = RGB.convert("P", palette=Image.Palette.ADAPTIVE)
DEEP = np.random.default_rng(2).integers(0, 65536, (7, 5, 4), dtype=np.uint16)


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        image.info.pop("transparency", None)
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("luma", [(h, v) for h in (1, 2, 3, 4) for v in (1, 2, 3, 4)])
@pytest.mark.parametrize("chroma", [(h, v) for h in (1, 2, 4) for v in (1, 2, 4)])
def test_a_jpeg_of_any_subsampling_is_read_as_pillow_reads_it(
    luma: tuple[int, int], chroma: tuple[int, int]
) -> None:
    """Also 4:1:1 turned to 4:4:1, (1, 4) and (1, 1), which simplejpeg has no name for."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((70, 90))
    data = bytearray(encode(image, "JPEG", subsampling=0))
    frame = data.index(b"\xff\xc0")
    for component, (h, v) in enumerate((luma, chroma, chroma)):
        data[frame + 11 + 3 * component] = h << 4 | v
    try:
        expected = pillow(bytes(data))
    except OSError:  # it refuses so many blocks at once
        with pytest.raises(InputError, match="truncated, damaged or unsupported JPEG"):
            decode(bytes(data))
        return
    np.testing.assert_array_equal(decode(bytes(data)), expected)


def png_chunk(kind: bytes, content: bytes, *, wrong: bool = False) -> bytes:
    check = zlib.crc32(kind + content) ^ wrong
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


@pytest.mark.parametrize(
    "note",
    [
        png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
        png_chunk(b"sRGB", b"\x09"),
        png_chunk(b"gAMA", struct.pack(">I", 1)),
        png_chunk(b"tEXt", b"a\0b", wrong=True),
        png_chunk(b"eXIf", b"no exif"),
        png_chunk(b"prVt", bytes(99)),
    ],
)
@pytest.mark.parametrize("image", [RGB, GREY, PALETTE, RGBA])
def test_notes_in_a_png_change_no_pixel_and_say_nothing(
    note: bytes, image: Image.Image, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode(image, "PNG")
    expected = decode(data)
    np.testing.assert_array_equal(decode(data[:33] + note + data[33:]), expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow; the command line leaves them out
def test_a_damaged_tiff_says_nothing_beside_its_error(
    compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode(Image.fromarray(photo(48, 48)), "TIFF", compression=compression)
    rng = random.Random(1)
    refused = 0
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            decode(bytes(damaged[: rng.randrange(8, len(damaged))]))
        except InputError as error:
            refused += len(str(error).splitlines())
    assert refused > 50
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("end", "is_read"),
    [
        (b"\0\0\0\0IENDxxxx", True),
        (b"\0\0\0\1IENDxxxxx", True),
        (b"", False),
        (b"\0\0\0\0IEND", False),
    ],
)
def test_a_png_with_a_wrong_end_says_nothing_and_one_without_is_refused(
    end: bytes, is_read: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    image = Image.fromarray(photo(9, 8))
    data = encode(image, "PNG")[:-12] + end
    if is_read:
        np.testing.assert_array_equal(decode(data), np.asarray(image))
    else:
        with pytest.raises(InputError, match="PNG"):
            decode(data)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_png_says_nothing_beside_its_error(capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(RGB, "PNG")
    for at in range(8, len(data) - 12, 97):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(InputError, match="truncated, damaged or unsupported PNG"):
            decode(bytes(broken))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-LFS pointer"),
        (b"/annex/objects/MD5E-s12--ab.png\n", "a git-annex pointer"),
        (b"<!DOCTYPE html>", "a web page saved in place of the file"),
        (b"\x08\0\x05\0CS\n\0ISO_IR 100", "DICOM without the mark DICM"),
        (b"\x08\0\x16\0UI\x1a\x001.2.840.10008", "DICOM without the mark DICM"),
        (b"\x08\0\x08\0\x16\0\0\0ORIGINAL", "DICOM without the mark DICM"),
        (b"\0\x08\0\x18UI\0\x1a1.2.840.10008", "DICOM without the mark DICM"),
        (b"DICM\x02\0\0\0UL\x04\0\xc0\0\0\0", "DICOM without the 128 bytes"),
        (b"\x02\0\0\0UL\x04\0\xc0\0\0\0", "DICOM without the mark DICM"),
        (b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01", "DICOM without the mark DICM"),
        (b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1", "DICOM without the mark DICM"),
    ],
)
def test_what_is_saved_in_place_of_an_image_is_named(start: bytes, word: str) -> None:
    with pytest.raises(InputError, match=f"^not an image, but {word}"):
        decode(start)


def tiff(samples: NDArray[Any], photometric: int, changed: dict[int, int] | None = None) -> bytes:
    """An uncompressed TIFF of ``(H, W, C)`` samples in their byte order; tags can be changed."""
    end = ">" if samples.dtype.byteorder == ">" else "<"
    height, width, channels = samples.shape
    bits = struct.pack(end + "H" * channels, *[8 * samples.itemsize] * channels)
    raw = bits + samples.tobytes()
    tags = {256: width, 257: height, 259: 1, 262: photometric, 273: 8 + len(bits), 277: channels}
    tags |= {278: height, 279: samples.nbytes} | (changed or {})
    entries = {tag: struct.pack(end + "HHII", tag, 4, 1, value) for tag, value in tags.items()}
    inline = bits.ljust(4, b"\0") if channels < 3 else struct.pack(end + "I", 8)
    entries.setdefault(258, struct.pack(end + "HHI", 258, 3, channels) + inline)
    start = (b"MM\0*" if end == ">" else b"II*\0") + struct.pack(end + "I", 8 + len(raw)) + raw
    table = b"".join(entries[tag] for tag in sorted(entries))
    return start + struct.pack(end + "H", len(entries)) + table + bytes(4)


LOSSLESS = {"lossless": True, "exact": True}
FILES = {
    **{name.lower(): encode(RGB, name) for name in ("PNG", "WEBP", "BMP", "TIFF", "PPM")},
    **{f"{name}-grey": encode(GREY, name) for name in ("JPEG", "PNG", "GIF", "PPM")},
    **{f"{name}-1": encode(RGB.convert("1"), name) for name in ("PNG", "BMP", "PPM")},
    **{f"{name}-palette": encode(PALETTE, name) for name in ("PNG", "BMP", "TIFF")},
    "gif": encode(PALETTE, "GIF"),
    "jpeg": encode(RGB, "JPEG", quality=90),
    "jpeg-4:4:4": encode(RGB, "JPEG", quality=95, subsampling=0),
    "jpeg-progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg-rgb": encode(RGB, "JPEG", keep_rgb=True),
    "jpeg-cmyk": encode(RGB.convert("CMYK"), "JPEG", quality=90),
    "jpeg-restart": encode(RGB, "JPEG", restart_marker_blocks=2),
    "png-palette-4": encode(RGB.quantize(16), "PNG", bits=4),
    "webp-lossless": encode(RGB, "WEBP", **LOSSLESS),
    "tiff-lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "tiff-group4": encode(RGB.convert("1"), "TIFF", compression="group4"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_equal_pillow(name: str) -> None:
    pixels = decode(FILES[name])
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, pillow(FILES[name]))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_small_and_narrow_images(name: str, height: int, width: int) -> None:
    data = encode(Image.fromarray(photo(height, width)), name)
    np.testing.assert_array_equal(decode(data), pillow(data))


TURNED = Image.Exif()
TURNED[0x112] = 6  # a quarter turn
JPEG_PIXELS = pillow(FILES["jpeg"])
BAD_PROFILE = b"\0\0\0\3iCCPabc" + bytes(4)  # too short, with a wrong checksum
FRAMES: Any = {"save_all": True, "append_images": [Image.fromarray(255 - photo())]}
SAME_PIXELS: dict[str, tuple[bytes, Image.Image]] = {
    "alpha-png": (encode(RGBA, "PNG"), RGB),
    "alpha-tiff": (encode(RGBA, "TIFF"), RGB),
    "alpha-webp": (encode(RGBA, "WEBP", **LOSSLESS), RGB),
    "alpha-grey-png": (encode(Image.merge("LA", (GREY, ALPHA)), "PNG"), GREY),
    "alpha-grey-tiff": (encode(Image.merge("LA", (GREY, ALPHA)), "TIFF"), GREY),
    "transparent-colour": (encode(RGB, "PNG", transparency=(0, 30, 60)), RGB),
    "transparent-palette": (encode(PALETTE, "PNG", transparency=bytes(range(99))), PALETTE),
    "transparent-gif": (encode(PALETTE, "GIF", transparency=3), PALETTE),
    "exif-jpeg": (encode(RGB, "JPEG", quality=90, exif=TURNED), Image.fromarray(JPEG_PIXELS)),
    "exif-png": (encode(RGB, "PNG", exif=TURNED), RGB),
    "exif-webp": (encode(RGB, "WEBP", exif=TURNED, **LOSSLESS), RGB),
    "turned-tiff": (tiff(photo(), 2, {274: 6}), RGB.rotate(-90, expand=True)),
    "frames-gif": (encode(GREY, "GIF", save_all=True, append_images=[ALPHA]), GREY),
    "frames-png": (encode(RGB, "PNG", **FRAMES), RGB),
    "frames-webp": (encode(RGB, "WEBP", **FRAMES, **LOSSLESS), RGB),
    "frames-tiff": (encode(RGB, "TIFF", **FRAMES), RGB),
    "default-png": (encode(RGB, "PNG", default_image=True, **FRAMES), RGB),
    "bad-profile-png": (FILES["png"][:33] + BAD_PROFILE + FILES["png"][33:], RGB),
}


@pytest.mark.parametrize("name", SAME_PIXELS)
def test_what_is_dropped_ignored_and_followed(name: str) -> None:
    data, expected = SAME_PIXELS[name]
    np.testing.assert_array_equal(decode(data), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_keep_their_high_byte(channels: int) -> None:
    expected = (DEEP[:, :, :3] if channels > 1 else DEEP[:, :, :1].repeat(3, axis=2)) >> 8
    bgra = DEEP[:, :, {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]
    np.testing.assert_array_equal(decode(cv2.imencode(".png", bgra)[1].tobytes()), expected)
    for order in ("<u2", ">u2") if channels < 4 else ():
        data = tiff(DEEP[:, :, :channels].astype(order), 1 if channels == 1 else 2)
        np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_tiff_whose_zero_is_white(dtype: str) -> None:
    samples = np.arange(0, 250, 10).reshape(5, 5, 1)
    shifted = (samples << 8 * (np.dtype(dtype).itemsize - 1)).astype(dtype)
    np.testing.assert_array_equal(decode(tiff(shifted, 0)), 255 - samples.repeat(3, axis=2))


def test_full_scale_of_pgm_and_16_bit_bmp_is_255() -> None:
    expected = np.array([[0, 17, 119, 255]])[:, :, None].repeat(3, axis=2)
    deep = struct.pack(">4H", 0, 17 * 257, 119 * 257, 65535)
    for data in (b"P5 4 1 15\n\0\1\7\17", b"P2 4 1 15\n0 1 7 15\n", b"P5 4 1 65535\n" + deep):
        np.testing.assert_array_equal(decode(data), expected)
    header = struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    assert decode(b"BM" + header + b"\xff\x7f\0\0").tolist() == [[[255, 255, 255]]]


BOX = DEEP[:, :, :1]
REFUSED = {
    "float": (tiff(BOX.astype("<f4"), 1, {339: 3}), "TIFF with samples of Pillow's mode F"),
    "32 bits": (tiff(BOX.astype("<u4"), 1), "TIFF with samples of Pillow's mode I"),
    "signed": (tiff(BOX.astype("<i2"), 1, {339: 2}), "TIFF with signed samples"),
    "signed 8 bits": (tiff(photo()[:, :, :1], 1, {339: 2}), "TIFF with signed samples"),
    "12 bits": (tiff(BOX, 1, {258: 12}), "TIFF with 12-bit samples"),
    "planes": (tiff(DEEP[:, :, :3], 2, {284: 2}), "TIFF with 16-bit samples in separate planes"),
    "lab": (tiff(photo(), 8), "TIFF with samples of Pillow's mode LAB"),
    **{
        name: (first, f"{name}, which is not read; convert it to PNG or JPEG")
        for name, first in {
            "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
            "JPEG XL": b"\xff\n\xfa\x1f",
            "HEIC": b"\0\0\0\x1cftypheic\0\0\0\0mif1",
            "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0mif1",
            "BigTIFF": b"II+\0\x08\0\0\0",
        }.items()
    },
    "unknown": (b"qoif\0\0\0\x30", "not an image (no known format)"),
    "nothing": (b"", "the file is empty"),
    "jpeg cut": (FILES["jpeg"][:-200], "truncated, damaged or unsupported JPEG"),
    "png cut": (FILES["png"][:-1], "truncated, damaged or unsupported PNG"),
    "no pixels": (FILES["png"][:16] + bytes(8) + FILES["png"][24:], "0 x 0 pixels"),
    "too long": (bytes(MAX_BYTES + 1), "134217729 bytes; the limit is 134217728"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(InputError) as caught:
        decode(data)
    assert str(caught.value) == reason


def test_a_signed_tiff_is_not_called_colour_at_depth_16() -> None:
    with pytest.raises(InputError, match=r"^TIFF with signed samples$"):
        decode(REFUSED["signed"][0], reading=make_reading(16, None))


def claim(name: str, width: int, height: int) -> bytes:
    """A file whose header claims ``width`` x ``height`` pixels."""
    if name in ("TIFF", "PPM"):
        ppm = b"P6 %d %d 255\n" % (width, height)
        return ppm if name == "PPM" else tiff(photo(), 2, {256: width, 257: height})
    data = FILES[name.lower()]
    start, size = {
        "PNG": (16, struct.pack(">II", width, height)),
        "GIF": (6, struct.pack("<HH", width, height)),
        "BMP": (18, struct.pack("<II", width, height)),
        "JPEG": (data.find(b"\xff\xc0") + 5, struct.pack(">HH", height, width)),
    }[name]
    return data[:start] + size + data[start + len(size) :]


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_too_many_pixels_are_refused_before_decoding(name: str) -> None:
    for width in (12000, 60000):  # Pillow's warning, an error here, and Pillow's error
        with pytest.raises(
            InputError, match=f"the limit of {MAX_PIXELS} |the limit is {MAX_PIXELS} pixels"
        ):
            decode(claim(name, width, 9000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(
            InputError, match=f"^12000 x 9000 pixels; the limit is {MAX_PIXELS} pixels"
        ):
            decode(claim(name, 12000, 9000))


def test_png_chunk_that_claims_4_gib_takes_no_memory() -> None:
    start = FILES["png"].index(b"IDAT") - 4
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    with pytest.raises(InputError, match="unsupported PNG"):
        decode(FILES["png"][:start] + b"\xff\xff\xff\xf0" + FILES["png"][start + 4 :])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18


def test_harmless_faults_of_jpeg_are_accepted() -> None:
    for name in ("jpeg", "jpeg-progressive", "JPEG-grey"):
        cut = FILES[name][:-2]  # the end mark, without which the original decodes a file, too
        for end in (b"", b"\xff", bytes(5) + b"\xff\xd9", b"\xff\xd9 after the end"):
            np.testing.assert_array_equal(decode(cut + end), pillow(FILES[name]))


@pytest.mark.parametrize("name", FILES)
def test_file_cut_anywhere_is_refused_or_whole(name: str) -> None:
    data, whole = FILES[name], decode(FILES[name])
    for end in [*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 30, len(data))]:
        try:
            pixels = decode(data[:end])
        except InputError:
            continue
        assert pixels.shape == whole.shape
        if name != "jpeg-progressive":  # cut between two scans it is whole, but coarser
            # What a file holds beyond its pixels (end marks, checksums, padding) is short.
            assert end > len(data) - 30
            np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_never_raise_anything_else(name: str, action: Any) -> None:
    rng = np.random.default_rng(4)
    with warnings.catch_warnings():  # Pillow warns of odd metadata
        warnings.simplefilter(action)
        for _ in range(80):
            data = bytearray(FILES[name])
            # Half of the time in the header, where the parsers are.
            reach = len(data) if rng.random() < 0.5 else min(200, len(data))
            for _ in range(rng.integers(1, 5)):
                data[rng.integers(2, reach)] = rng.integers(256)
            try:
                pixels = decode(bytes(data))
            except InputError:
                continue
            assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)


def test_read_image_names_the_file_and_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a png.JPEG"  # the suffix decides nothing
    path.write_bytes(FILES["png"])
    assert np.array_equal(read_image(path), photo()) and np.array_equal(
        read_image(str(path)), photo()
    )
    (tmp_path / "cut.JPEG").write_bytes(FILES["jpeg"][:-200])
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", MAX_BYTES + 1)  # sparse
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "cut.JPEG": "truncated, damaged or unsupported JPEG",
        "large.png": f"{MAX_BYTES + 1} bytes; the limit is {MAX_BYTES}",
        "pipe.png": "not a file",
        "gone.png": "No such file or directory",
        "": "not a file",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: not a readable image ({reason})"
    with pytest.raises(InputError, match="null"):
        read_image("nul\0.png")


def test_threads_decode_alike() -> None:
    files = list(FILES.values()) * 4
    with ThreadPoolExecutor(4) as pool:
        for data, pixels in zip(files, pool.map(decode, files), strict=True):
            np.testing.assert_array_equal(pixels, decode(data))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no ../shared/data/imagenet-sample here")
def test_imagenet_images_equal_pillow() -> None:
    paths = sorted(SAMPLE.glob("*/*.JPEG"))
    assert len(paths) == 250
    for path in paths:
        np.testing.assert_array_equal(read_image(path), pillow(path.read_bytes()))


@pytest.mark.parametrize("scale", [1, 257])
def test_a_palette_of_a_tiff_may_have_8_bits_in_place_of_16(scale: int) -> None:
    """As libtiff takes it; Pillow makes the image black."""
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 2, 255])
    colours = [[7, 80, 200, *range(253)], [9, 0, 100, *range(253)], [255, 3, 4, *range(253)]]
    image.putpalette(bytes(np.array(colours, np.uint8).T.tobytes()))
    data = encode(image, "TIFF")
    values = np.array(colours, "<u2")
    written = (256 * values).tobytes()  # by Pillow
    assert data.count(written) == 1
    data = data.replace(written, (scale * values).tobytes())
    expected = [[[7, 9, 255], [80, 0, 3]], [[200, 100, 4], [252, 252, 252]]]
    assert decode(data).tolist() == expected
    with Image.open(io.BytesIO(data)) as opened:
        assert np.asarray(from_pillow(opened)).tolist() == expected
