"""Files whose notes or claims would make Pillow or libtiff work far longer than their pixels."""

import io
import resource
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densenet121.datasets.decoding import MAX_PIXELS, decode
from densenet121.pages.thumbnails import thumbnail
from densenet121.utils.errors import InputError, TooLargeError
from densenet121.utils.pillow_input import pillow_input

LINES = bytes(range(100))  # 10 x 10 pixels


def tiff(tags: dict[int, tuple[int, int, int]], extra: bytes = b"") -> bytes:
    """A deflated grey TIFF with more tags, of which -1 as value is the place of ``extra``."""
    data = zlib.compress(LINES)
    known = {256: (3, 1, 10), 257: (3, 1, 10), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1)}
    known |= {277: (3, 1, 1), 278: (3, 1, 10), 279: (4, 1, len(data)), 273: (4, 1, -2)} | tags
    start = 8 + 2 + 12 * len(known) + 4
    places = {-1: start + len(data), -2: start}
    entries = [
        struct.pack("<HHII", tag, kind, count, places.get(value, value))
        for tag, (kind, count, value) in sorted(known.items())
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(known))
    return head + b"".join(entries) + bytes(4) + data + extra


def shared_tags() -> bytes:
    """1,000 tags that all have the same 200 kB."""
    return tiff({1000 + tag: (1, 200_000, -1) for tag in range(1000)}, bytes(200_001))


def many_bits() -> bytes:
    return tiff({258: (3, 2_000_000, -1)}, bytes(4_000_000))


def many_fractions() -> bytes:
    return tiff({282: (5, 100_000, -1)}, bytes(range(1, 101)) * 8000)


def nested_numbers() -> bytes:
    """A folder of EXIF with a tag of a million numbers."""
    place = len(tiff({34665: (4, 1, 0)}))
    folder = struct.pack("<HHHIII", 1, 282, 3, 1_000_000, place + 18, 0)
    return tiff({34665: (4, 1, place)}, folder + bytes(2_000_000))


def large_tile() -> bytes:
    """One tile of 16,000 x 16,000 pixels, of which 10 x 10 are the image."""
    tags = {322: (4, 1, 16_000), 323: (4, 1, 16_000), 324: (4, 1, -2)}
    return tiff(tags | {325: (4, 1, len(zlib.compress(LINES)))})


def long_comment() -> bytes:
    return b"P5 #" + b"a" * 3_000_000 + b"\n10 10 255\n" + LINES


def long_space() -> bytes:
    return b"P2" + b" " * 3_000_000 + b"10 10 255\n" + b"1 " * 100


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "shared tags": (shared_tags, "TIFF whose tags claim more bytes than the file has"),
    "bits": (many_bits, "TIFF whose tag 258 has 2000000 numbers; the limit is 65536"),
    "fractions": (many_fractions, "TIFF whose tag 282 has 100000 numbers; the limit is 65536"),
    "nested": (nested_numbers, "TIFF whose tag 282 has 1000000 numbers; the limit is 65536"),
    "tile": (large_tile, f"TIFF with tiles of 16000 x 16000 pixels; the limit is {MAX_PIXELS} "),
    "comment": (long_comment, "PPM with a header of more than 65536 bytes"),
    "space": (long_space, "PPM with a header of more than 65536 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_claims_far_more_than_its_pixels_is_refused_at_once(
    name: str, tmp_path: Path
) -> None:
    make, reason = REFUSED[name]
    data = make()
    used, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError, match=reason) as error:
        decode(data)
    assert isinstance(error.value, TooLargeError) == (name == "tile")
    (tmp_path / "image").write_bytes(data)
    assert thumbnail(tmp_path, "image", decode) == (None, "not readable")
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 50_000  # kB


def test_tags_that_no_reader_needs_may_be_long_or_wrong() -> None:
    """A table of a camera's, and a tag that lies beyond the end of the file."""
    data = tiff({50_000: (4, 100_000, -1), 50_001: (4, 100_000, 2**31)}, bytes(400_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on the second
        assert decode(data)[..., 0].tobytes() == LINES


def plain_with_comments() -> bytes:
    """Pillow copies all numbers for each of the 300,000 comments."""
    numbers = b"".join(b"%d\n" % value for value in LINES)
    return b"P2 # a header\n10 #\n10 255\n" + b"#a\n" * 300_000 + numbers


def animated_with_texts() -> bytes:
    frames = [Image.fromarray(np.frombuffer(LINES, np.uint8).reshape(10, 10) + i) for i in (0, 1)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    data = file.getvalue()
    texts = b"".join(
        struct.pack(">I", 10) + (kind := b"tEXt%08d\0a" % i) + struct.pack(">I", zlib.crc32(kind))
        for i in range(50_000)
    )
    return data[:33] + texts + data[33:]


@pytest.mark.parametrize("make", [plain_with_comments, animated_with_texts])
def test_notes_that_change_no_pixel_take_no_time(make: Callable[[], bytes]) -> None:
    data = make()
    start = time.process_time()
    assert decode(data)[..., 0].tobytes() == LINES
    assert time.process_time() - start < 1


def test_a_jpeg_keeps_one_segment_of_exif_and_its_colours() -> None:
    """Pillow joins all segments of EXIF; their tags could have a million fractions."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.linear_gradient("L").convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, comment=b"a" * 1000, icc_profile=b"b" * 1000)
    data = file.getvalue()
    more = b"\xff\xe1" + struct.pack(">H", 60_008) + b"Exif\0\0" + bytes(60_000)
    given = pillow_input(data[:2] + data[2:].replace(b"\xff\xfe", more * 20 + b"\xff\xfe", 1), 1)
    assert len(given) < len(data) - 2000
    with Image.open(io.BytesIO(given)) as left, Image.open(io.BytesIO(data)) as whole:
        assert left.getexif()[0x0112] == 6
        assert np.array_equal(np.asarray(left), np.asarray(whole))


@pytest.mark.parametrize("cut", [2, 3, 5, 7, 9, 11, 15, 30, 60, 100, 130])
@pytest.mark.parametrize("name", ["TIFF", "JPEG", "PNG", "PPM"])
def test_a_file_that_is_cut_is_left_to_pillow(name: str, cut: int) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, name)
    data = file.getvalue()[:cut]
    assert data.startswith(pillow_input(data, MAX_PIXELS))
