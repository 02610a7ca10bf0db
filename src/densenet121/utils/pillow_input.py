"""What Pillow is given of a file, so that time and memory follow from its pixels and its bytes.

Pillow and libtiff read notes that no pixel needs, and believe what they claim: a TIFF of 1 MB
whose tags share their bytes takes gigabytes, and a PPM with comments is read for hours.
"""

import re
import struct

from densenet121.utils.errors import InputError, TooLargeError

_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"eXIf", b"IEND")

_PPM_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
_PPM_HEAD = re.compile(rb"P(?:[14]|[2356]\s+\d+)(?:\s+\d+){2}\s")
_PPM_HEAD_BYTES = 2**16

# Of a TIFF's types: the bytes of a value, and those that are read as bytes, not as numbers.
_TIFF_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_TIFF_TEXTS = (1, 2, 6, 7)
_TIFF_NUMBERS = 2**16  # the values of one tag
_TIFF_PARTS = 2**20  # strips or tiles of an image
_TIFF_PLACES = (273, 279, 324, 325)  # tags with a value for each of them
_TIFF_OWN = 700  # the last tag of the format itself; others of the first folder stay bytes
_TIFF_TILE = (322, 323)  # its width and height
_TIFF_FOLDERS = (34665, 34853, 40965)  # tags that name another folder of tags


def pillow_input(data: bytes, max_pixels: int) -> bytes:
    """The file as Pillow may read it: the same pixels and EXIF orientation.

    Args:
        data: content of the file.
        max_pixels: maximum number of pixels of a TIFF's tile, which is decoded as a whole.

    Raises:
        InputError: it claims more than it has, or a tile is too large (a ``TooLargeError``).
    """
    if data[:4] in (b"II*\0", b"MM\0*"):
        _check_folders(data, max_pixels)
    elif data[:1] == b"P" and data[1:2] in b"123456":
        return _without_comments(data)
    elif data[:4] == b"\x89PNG":
        return _without_chunks(data)
    elif data[:2] == b"\xff\xd8":
        return _without_segments(data)
    return data


def _check_folders(data: bytes, max_pixels: int) -> None:
    """Check the first folder of a TIFF's tags, and those that it names."""
    order = "<" if data[:2] == b"II" else ">"
    waiting, seen, claimed = [data[4:8]], set[int](), 0
    while waiting:
        (place,) = struct.unpack(order + "I", waiting.pop().ljust(4, b"\0"))
        if place in seen or place + 2 > len(data):
            continue  # Pillow refuses, or does without
        seen.add(place)
        (count,) = struct.unpack_from(order + "H", data, place)
        there = min(count, (len(data) - place - 2) // 12)
        tile = {}
        for entry in range(place + 2, place + 2 + 12 * there, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
            value = data[entry + 8 : entry + 12]
            size = values * (_TIFF_BYTES[kind] if kind < len(_TIFF_BYTES) else 0)
            if size > 4 and struct.unpack(order + "I", value)[0] + size <= len(data):
                claimed += size  # what lies beyond the end is passed over by all readers
                if tag <= _TIFF_OWN or len(seen) > 1:
                    _check_numbers(tag, kind, values)
            if claimed > len(data):
                raise InputError("TIFF whose tags claim more bytes than the file has")
            if tag in _TIFF_FOLDERS:
                waiting.append(value)
            elif tag in _TIFF_TILE:
                tile[tag] = struct.unpack(order + ("H2x" if kind == 3 else "I"), value)[0]
        width, height = (tile.get(tag, 0) for tag in _TIFF_TILE)
        if width * height > max_pixels:
            raise TooLargeError(
                f"TIFF with tiles of {width} x {height} pixels; the limit is {max_pixels} pixels"
            )


def _check_numbers(tag: int, kind: int, values: int) -> None:
    """Refuse a tag that would become millions of numbers of Python."""
    most = _TIFF_PARTS if tag in _TIFF_PLACES else _TIFF_NUMBERS
    if kind not in _TIFF_TEXTS and values > most:
        raise InputError(f"TIFF whose tag {tag} has {values} numbers; the limit is {most}")


def _without_comments(data: bytes) -> bytes:
    """A PPM without the comments that Pillow would read byte by byte, or copy its numbers for."""
    if data[1:2] in b"123":  # numbers as text, between which comments may be, too
        data = data[:3] + _PPM_COMMENT.sub(b"", data[3:])
    head = data[:3] + _PPM_COMMENT.sub(b"", data[3:_PPM_HEAD_BYTES])
    if len(data) > _PPM_HEAD_BYTES and not _PPM_HEAD.match(head):
        raise InputError(f"PPM with a header of more than {_PPM_HEAD_BYTES} bytes")
    return data


def _without_chunks(data: bytes) -> bytes:
    """A PNG without comments and profiles, of which there may be a million."""
    view = memoryview(data)
    kept, start = [view[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in _PNG_CHUNKS:
            kept.append(view[start:end])
        start = end
    return b"".join(kept)


def _without_segments(data: bytes) -> bytes:
    """A JPEG with one segment of EXIF and no other notes before its first scan.

    Pillow joins the segments of EXIF, whose tags may then have millions of numbers.
    """
    view = memoryview(data)
    kept, start, has_exif = [view[:2]], 2, False
    while data[start : start + 1] == b"\xff":
        marker = data[start + 1 : start + 2]
        size = int.from_bytes(data[start + 2 : start + 4], "big")
        end = start + 2 + size
        if marker < b"\xc0" or b"\xd0" <= marker <= b"\xda" or marker == b"\xff":
            break
        if size < 2 or end > len(data):
            break
        is_exif = marker == b"\xe1" and data[start + 4 : start + 10] == b"Exif\0\0"
        is_note = (b"\xe1" <= marker <= b"\xef" and marker != b"\xee") or marker == b"\xfe"
        if not is_note or (is_exif and not has_exif):
            kept.append(view[start:end])
        has_exif = has_exif or is_exif
        start = end
    return b"".join([*kept, view[start:]])
