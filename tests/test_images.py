"""densenet121.datasets.images against Pillow and against files built byte by byte."""

import io
import os
import resource
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densenet121.datasets.images import EXTENSIONS, MAX_BYTES, MAX_PIXELS, decode, read_image
from densenet121.utils.errors import InputError

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-sample"
Pixels = NDArray[np.uint8]


def photo(height: int = 37, width: int = 53, seed: int = 0) -> Pixels:
    """A smooth picture with some noise: neither trivial nor impossible to compress."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[:, :, None]
    return (slope % 200 + [0, 20, 40] + rng.integers(0, 15, (height, width, 3))).astype(np.uint8)


RGB = Image.fromarray(photo())
GREY = RGB.convert("L")
ALPHA = Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 53), dtype=np.uint8))
RGBA = Image.merge("RGBA", (*RGB.split(), ALPHA))
PALETTE = RGB.convert("P", palette=Image.Palette.ADAPTIVE)


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        image.info.pop("transparency", None)
        return np.array(image.convert("RGB"))


def png(depth: int, colour_type: int, rows: list[bytes], width: int, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def tiff(samples: NDArray[Any], photometric: int, **tags: int) -> bytes:
    """An uncompressed TIFF of ``(H, W, C)`` samples in their own byte order."""
    end = ">" if samples.dtype.byteorder == ">" else "<"
    height, width, channels = samples.shape
    raw = samples.tobytes()
    bits = struct.pack(end + "H" * channels, *[8 * samples.itemsize] * channels)
    longs = {256: width, 257: height, 273: 8 + len(bits), 278: height, 279: len(raw)}
    shorts = {259: 1, 262: photometric, 277: channels}
    shorts |= {int(name[1:]): value for name, value in tags.items()}  # t339=3: tag 339 is 3
    entries = {tag: struct.pack(end + "HHII", tag, 4, 1, value) for tag, value in longs.items()}
    entries |= {t: struct.pack(end + "HHIHH", t, 3, 1, value, 0) for t, value in shorts.items()}
    inline = bits.ljust(4, b"\0") if channels < 3 else struct.pack(end + "I", 8)
    entries.setdefault(258, struct.pack(end + "HHI", 258, 3, channels) + inline)
    magic = b"MM\0*" if end == ">" else b"II*\0"
    start = struct.pack(end + "I", 8 + len(bits) + len(raw)) + bits + raw
    table = b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return magic + start + struct.pack(end + "H", len(entries)) + table


LOSSLESS = {"lossless": True, "exact": True}
FILES = {
    "jpeg": encode(RGB, "JPEG", quality=90),
    "jpeg-4:4:4": encode(RGB, "JPEG", quality=95, subsampling=0),
    "jpeg-progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg-grey": encode(GREY, "JPEG"),
    "jpeg-rgb": encode(RGB, "JPEG", keep_rgb=True),
    "jpeg-cmyk": encode(RGB.convert("CMYK"), "JPEG", quality=90),
    "jpeg-restart": encode(RGB, "JPEG", restart_marker_blocks=2),
    "png": encode(RGB, "PNG"),
    "png-grey": encode(GREY, "PNG"),
    "png-1": encode(RGB.convert("1"), "PNG"),
    "png-palette": encode(PALETTE, "PNG"),
    "png-palette-4": encode(RGB.quantize(16), "PNG", bits=4),
    "webp": encode(RGB, "WEBP"),
    "webp-lossless": encode(RGB, "WEBP", **LOSSLESS),
    "webp-alpha": encode(RGBA, "WEBP", quality=80),
    "gif": encode(PALETTE, "GIF"),
    "gif-grey": encode(GREY, "GIF"),
    "bmp": encode(RGB, "BMP"),
    "bmp-palette": encode(PALETTE, "BMP"),
    "bmp-1": encode(RGB.convert("1"), "BMP"),
    "tiff": encode(RGB, "TIFF"),
    "tiff-lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": encode(GREY, "TIFF", compression="tiff_adobe_deflate"),
    "tiff-jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "tiff-group4": encode(RGB.convert("1"), "TIFF", compression="group4"),
    "tiff-palette": encode(PALETTE, "TIFF"),
    "tiff-cmyk": encode(RGB.convert("CMYK"), "TIFF"),
    "ppm": encode(RGB, "PPM"),
    "pgm": encode(GREY, "PPM"),
    "pbm": encode(RGB.convert("1"), "PPM"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_equal_pillow(name: str) -> None:
    pixels = decode(FILES[name])
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, pillow(FILES[name]))


@pytest.mark.parametrize("name", ["png", "webp-lossless", "bmp", "tiff", "tiff-lzw", "ppm"])
def test_lossless_formats_give_back_the_picture(name: str) -> None:
    np.testing.assert_array_equal(decode(FILES[name]), photo())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_small_and_narrow_pictures(name: str, height: int, width: int) -> None:
    data = encode(Image.fromarray(photo(height, width)), name)
    assert decode(data).shape == (height, width, 3)
    np.testing.assert_array_equal(decode(data), pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        encode(RGBA, "PNG"),
        encode(RGBA, "TIFF"),
        encode(RGBA, "WEBP", **LOSSLESS),
        encode(RGB, "PNG", transparency=(0, 30, 60)),
    ],
    ids=["png", "tiff", "webp", "png-transparent-colour"],
)
def test_alpha_is_dropped(data: bytes) -> None:
    np.testing.assert_array_equal(decode(data), photo())


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_alpha_of_grey_is_dropped(name: str) -> None:
    data = encode(Image.merge("LA", (GREY, ALPHA)), name)
    np.testing.assert_array_equal(decode(data), np.asarray(GREY.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes(range(100))], ids=["one", "each"])
def test_transparent_palette_keeps_its_colours(transparency: object) -> None:
    expected = np.asarray(PALETTE.convert("RGB"))
    data = encode(PALETTE, "PNG", transparency=transparency)
    np.testing.assert_array_equal(decode(data), expected)


def test_transparent_gif_keeps_its_colours() -> None:
    data = encode(PALETTE, "GIF", transparency=3)
    np.testing.assert_array_equal(decode(data), np.asarray(PALETTE.convert("RGB")))


def test_animated_png_shows_its_default_picture() -> None:
    frames = [Image.fromarray(255 - photo()), RGB]
    data = encode(RGB, "PNG", save_all=True, append_images=frames, default_image=True)
    np.testing.assert_array_equal(decode(data), photo())
    grey = Image.fromarray(np.arange(0, 65000, 250, dtype=np.uint16).reshape(13, 20))
    data = encode(grey, "PNG", save_all=True, append_images=[grey.rotate(180)])
    np.testing.assert_array_equal(decode(data)[:, :, 1], np.asarray(grey) >> 8)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(name: str) -> None:
    options = LOSSLESS if name == "WEBP" else {}
    first = GREY if name == "GIF" else RGB
    second = Image.fromarray(255 - photo()).convert(first.mode)
    data = encode(first, name, save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(decode(data), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_ignored(name: str) -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # a quarter turn
    np.testing.assert_array_equal(decode(encode(RGB, name, exif=exif)), decode(encode(RGB, name)))


def test_orientation_of_tiff_is_part_of_the_picture() -> None:
    turned = tiff(photo(), 2, t274=6)
    np.testing.assert_array_equal(decode(turned), np.rot90(photo(), -1))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bit_png_keeps_the_high_byte(colour_type: int, channels: int) -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (7, 5, channels), dtype=np.uint16)
    data = png(16, colour_type, [row.astype(">u2").tobytes() for row in samples], 5)
    colours = samples[:, :, :3] if channels > 2 else samples[:, :, :1].repeat(3, axis=2)
    np.testing.assert_array_equal(decode(data), colours >> 8)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_tiff_keeps_the_high_byte(order: str, channels: int) -> None:
    samples = np.random.default_rng(3).integers(0, 65536, (7, 5, channels)).astype(order)
    expected = (samples >> 8).repeat(3 // channels, axis=2)
    np.testing.assert_array_equal(decode(tiff(samples, 1 if channels == 1 else 2)), expected)


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_tiff_whose_zero_is_white(dtype: str) -> None:
    samples = np.arange(0, 250, 10).reshape(5, 5, 1).astype(dtype)
    samples <<= 8 * (samples.itemsize - 1)
    expected = 255 - np.arange(0, 250, 10).reshape(5, 5, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(decode(tiff(samples, 0)), expected)


def test_pgm_is_scaled_by_its_maximum() -> None:
    expected = np.array([[0, 17, 119, 255]])[:, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(decode(b"P5 4 1 15\n" + bytes([0, 1, 7, 15])), expected)
    wide = struct.pack(">4H", 0, 17 * 257, 119 * 257, 65535)
    np.testing.assert_array_equal(decode(b"P5 4 1 65535\n" + wide), expected)
    np.testing.assert_array_equal(decode(b"P2 4 1 15\n0 1 7 15\n"), expected)


def test_bmp_white_of_16_bits_is_255() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + header + struct.pack("<HH", 0x7FFF, 0)
    assert decode(data).tolist() == [[[255, 255, 255]]]


GREY_16 = np.arange(12, dtype="<u2").reshape(3, 4, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(GREY_16.astype("<f4"), 1, t339=3), "mode F"),
        (tiff(GREY_16.astype("<u4"), 1), "mode I"),
        (tiff(GREY_16.astype("<i2"), 1, t339=2), "mode I"),
        (tiff(GREY_16.astype("<f4").repeat(3, axis=2), 2, t339=3), "unsupported TIFF"),
        (tiff(GREY_16, 1, t258=12), "12-bit"),
        (tiff(GREY_16.repeat(3, axis=2), 2, t284=2), "16-bit samples in separate planes"),
        (tiff(photo(), 8), "mode LAB"),
        (encode(RGB.convert("F"), "PPM"), "unsupported PPM"),
    ],
    ids=["float", "32", "signed", "float-rgb", "12", "planes", "lab", "pfm"],
)
def test_samples_that_are_not_8_or_16_bits_are_refused(data: bytes, reason: str) -> None:
    if data.startswith(b"Pf"):
        reason = "no known format"
    with pytest.raises(InputError, match=reason):
        decode(data)


def test_damaged_colour_profile_of_png_is_harmless() -> None:
    rows = [row.tobytes() for row in photo()]
    profile = struct.pack(">I", 3) + b"iCCPabc" + bytes(4)  # neither length nor checksum is right
    np.testing.assert_array_equal(decode(png(8, 2, rows, 53, profile)), photo())


def test_png_chunk_that_claims_4_gib_takes_no_memory() -> None:
    data = bytearray(FILES["png"])
    start = data.index(b"IDAT") - 4
    data[start : start + 4] = b"\xff\xff\xff\xf0"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    with pytest.raises(InputError, match="unsupported PNG"):
        decode(bytes(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18


def test_jpeg_without_its_end_mark_is_whole() -> None:
    # As in the original (system 2.3): cut by 2 bytes decodes.
    for name in ("jpeg", "jpeg-progressive", "jpeg-grey"):
        for cut in (1, 2):
            np.testing.assert_array_equal(decode(FILES[name][:-cut]), decode(FILES[name]))


def test_jpeg_cut_by_200_bytes_is_refused() -> None:
    for name in [name for name in FILES if name.startswith("jpeg")]:
        with pytest.raises(InputError, match="truncated, damaged or unsupported JPEG"):
            decode(FILES[name][:-200])


def test_harmless_warning_of_jpeg_is_accepted() -> None:
    extraneous = FILES["jpeg"][:-2] + bytes(5) + b"\xff\xd9" + b"after the end"
    np.testing.assert_array_equal(decode(extraneous), decode(FILES["jpeg"]))


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


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_never_raise_anything_else(name: str) -> None:
    rng = np.random.default_rng(4)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd metadata; as errors: next test
        for _ in range(100):
            data = bytearray(FILES[name])
            # Half of the time in the header, where the parsers are.
            reach = len(data) if rng.random() < 0.5 else min(200, len(data))
            for _ in range(rng.integers(1, 5)):
                data[rng.integers(2, reach)] = rng.integers(256)
            try:
                pixels = decode(bytes(data))
            except InputError:
                refused += 1
                continue
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert refused > 0


@pytest.mark.parametrize("name", ["jpeg-cmyk", "webp", "gif", "bmp", "tiff-lzw", "ppm"])
def test_damaged_bytes_with_warnings_as_errors(name: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(150):
        data = bytearray(FILES[name])
        data[rng.integers(2, min(300, len(data)))] = rng.integers(256)
        try:
            decode(bytes(data))
        except InputError:
            continue


def oversized(name: str, width: int, height: int) -> bytes:
    """A file of format ``name`` whose header claims ``width`` x ``height`` pixels."""
    data = bytearray(FILES[name.lower()])
    if name == "PNG":
        rows = png(8, 2, [b"\0\0\0"], 1)
        data = bytearray(rows.replace(struct.pack(">II", 1, 1), struct.pack(">II", width, height)))
    elif name == "JPEG":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif name == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif name == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif name == "PPM":
        data = bytearray(b"P6 %d %d 255\n" % (width, height))
    elif name == "TIFF":
        patch = {width: (256, 53), height: (257, 37)}
        data = bytearray(tiff(photo(), 2))
        for size, (tag, old) in patch.items():
            entry = struct.pack("<HHII", tag, 4, 1, old)
            data = data.replace(entry, struct.pack("<HHII", tag, 4, 1, size))
    elif name == "WEBP":  # VP8X: 24 bits each of width - 1 and height - 1
        canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + FILES["webp"][12:]
        data = bytearray(b"RIFF" + struct.pack("<I", len(body)) + body)
    return bytes(data)


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_too_many_pixels_are_refused_before_decoding(name: str) -> None:
    with pytest.raises(InputError, match=f"^12000 x 9000 pixels, at most {MAX_PIXELS} are allowed"):
        decode(oversized(name, 12000, 9000))


@pytest.mark.parametrize("name", ["GIF", "BMP", "PPM", "TIFF"])
def test_too_many_pixels_for_pillow_too(name: str) -> None:
    with pytest.raises(InputError, match=f"^more than {MAX_PIXELS} pixels are not allowed"):
        decode(oversized(name, 12000, 9000))  # Pillow's warning, an error here
    with pytest.raises(InputError, match=f"^more than {MAX_PIXELS} pixels are not allowed"):
        decode(oversized(name, 60000, 50000))  # Pillow's error
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(InputError, match=r"^12000 x 9000 pixels, at most"),
    ):
        decode(oversized(name, 12000, 9000))


def test_huge_webp_is_refused() -> None:
    with pytest.raises(InputError):
        decode(oversized("WEBP", 16000, 16000))


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_picture_without_pixels_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        decode(oversized(name, 5, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"a text, not a picture",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",  # JPEG 2000
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\x00\x00\x01\x00\x01\x00",  # ICO
        b"\xff\xd8",
        bytes(1000),
    ],
)
def test_no_known_format(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^not a picture \(no known format\)$"):
        decode(data)


def test_empty_and_oversized_data() -> None:
    with pytest.raises(InputError, match=r"^the file is empty$"):
        decode(b"")
    with pytest.raises(InputError, match=f"^134217729 bytes, at most {MAX_BYTES} are allowed$"):
        decode(bytes(MAX_BYTES + 1))


def test_read_image_equals_decode(tmp_path: Path) -> None:
    path = tmp_path / "a picture.JPEG"
    path.write_bytes(FILES["jpeg"])
    np.testing.assert_array_equal(read_image(path), decode(FILES["jpeg"]))
    np.testing.assert_array_equal(read_image(str(path)), decode(FILES["jpeg"]))


def test_suffix_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "really_png.jpg"
    path.write_bytes(FILES["png"])
    np.testing.assert_array_equal(read_image(path), photo())


def test_read_image_names_the_file_and_the_reason(tmp_path: Path) -> None:
    cut = tmp_path / "cut.JPEG"
    cut.write_bytes(FILES["jpeg"][:-200])
    (tmp_path / "empty.png").touch()
    large = tmp_path / "large.png"
    large.touch()
    os.truncate(large, MAX_BYTES + 1)  # sparse
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "cut.JPEG": "truncated, damaged or unsupported JPEG",
        "empty.png": "the file is empty",
        "large.png": f"{MAX_BYTES + 1} bytes, at most {MAX_BYTES} are allowed",
        "pipe.png": "not a file",
        "gone.png": "No such file or directory",
        "": "not a file",
    }
    for name, reason in reasons.items():
        path = tmp_path / name
        with pytest.raises(InputError) as caught:
            read_image(path)
        assert str(caught.value) == f"{path}: not a readable image ({reason})"
    with pytest.raises(InputError, match="null"):
        read_image("nul\0.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(FILES["png"])
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_image(path)


def test_threads_decode_alike() -> None:
    files = list(FILES.values()) * 4
    with ThreadPoolExecutor(4) as pool:
        for data, pixels in zip(files, pool.map(decode, files), strict=True):
            np.testing.assert_array_equal(pixels, decode(data))


def test_extensions_are_lower_case_suffixes() -> None:
    assert len(EXTENSIONS) == 14
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in EXTENSIONS)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no ../shared/data/imagenet-sample here")
def test_imagenet_pictures_equal_pillow() -> None:
    paths = sorted(SAMPLE.glob("*/*.JPEG"))
    assert len(paths) == 250
    for path in paths:
        np.testing.assert_array_equal(read_image(path), pillow(path.read_bytes()))
