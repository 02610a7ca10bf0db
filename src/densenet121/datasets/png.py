"""The chunks of a PNG file (ISO/IEC 15948, section 11)."""

import zlib

from densenet121.utils.errors import InputError

_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


def png_without_notes(data: bytes) -> bytes | None:
    """A PNG without the chunks that do not change its pixels; None if it is animated.

    libpng writes to stderr about a wrong comment or colour profile, for every image, and about
    damage, which is an error here anyway: sums of the chunks that matter are checked first. OpenCV
    would allocate what a chunk claims to need, up to 4 GiB, before it reads the chunk.

    Raises:
        InputError: a chunk is cut or damaged; the reason only.
    """
    view = memoryview(data)
    kept: list[memoryview | bytes] = [view[:8]]
    start, kind = 8, b""
    while start < len(data) and kind != b"IEND":
        kind = data[start + 4 : start + 8]
        if kind == b"acTL":
            return None
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        is_needed = not kind or not kind[0] & 0x20  # a capital
        if kind == b"IEND":
            kept.append(_END)  # whatever its sum and length
        elif is_needed or kind == b"tRNS":
            kept.append(view[start:end])
        if is_needed and kind != b"IEND" and end <= len(data):
            expected = int.from_bytes(data[end - 4 : end], "big")
            if zlib.crc32(view[start + 4 : end - 4]) != expected:
                raise InputError("truncated, damaged or unsupported PNG")
        start = end
    if start > len(data) or kind != b"IEND":
        raise InputError("truncated, damaged or unsupported PNG")
    return b"".join(kept)
