"""Read and write MindSpore's ``.ckpt`` without MindSpore.

The format is a protobuf message (mindspore/core/proto or ``checkpoint.proto``): for every tensor
one ``Checkpoint { Value { tag = 1; TensorProto tensor = 2 } }``, with ``TensorProto { dims = 1;
tensor_type = 2; tensor_content = 3 }``, one after the other. There is no magic number, no header
and no length, so the reader checks everything that the format allows to check.
"""

import math
import mmap
import zlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from densenet121.utils.errors import InputError

# Files of MindSpore 1.x write "Uint8" where 2.x writes "UInt8".
DTYPES = {
    "Int8": torch.int8,
    "UInt8": torch.uint8,
    "Uint8": torch.uint8,
    "Int16": torch.int16,
    "UInt16": torch.uint16,
    "Uint16": torch.uint16,
    "Int32": torch.int32,
    "UInt32": torch.uint32,
    "Uint32": torch.uint32,
    "Int64": torch.int64,
    "UInt64": torch.uint64,
    "Uint64": torch.uint64,
    "Float16": torch.float16,
    "Float32": torch.float32,
    "Float64": torch.float64,
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
}
_TYPE_NAMES = {
    torch.int32: "Int32",
    torch.int64: "Int64",
    torch.float16: "Float16",
    torch.bfloat16: "BFloat16",
    torch.float32: "Float32",
    torch.float64: "Float64",
    torch.bool: "Bool",
}
_VARINT, _BYTES = 0, 2  # protobuf wire types; the format uses no others
_CRC_MARK = b"crc_num"
_CRC_SIZE = len(_CRC_MARK) + 10
_LARGEST_DIM = 2**40

Fields = list[tuple[int, int | memoryview]]


_SMALL = 16  # numbers; tensors up to this size, such as a step, are always read


def looks_like(data: bytes) -> bool:
    """Whether a file begins as a ``.ckpt`` does: a Value that begins with a tag."""
    try:
        _, inside = _varint(memoryview(data[:16]), 1)
        size, text = _varint(memoryview(data[:16]), inside + 1)
    except (ValueError, IndexError):
        return False
    return data[:1] == b"\n" and data[inside : inside + 1] == b"\n" and size > 0 and text < 16


def decode(
    data: bytes | mmap.mmap, source: object, *, shapes_only: bool = False
) -> dict[str, Tensor | str]:
    """Every tensor and text of a ``.ckpt``, by tag, in the order of the file.

    Slices of a large tensor (consecutive values of one tag) are joined. A CRC at the end of the
    file is checked, which MindSpore itself does only on request.

    Args:
        data: the file.
        source: its name, for errors.
        shapes_only: return large tensors without content (on the device "meta"), and do not check
            the CRC.

    Raises:
        InputError: truncated, damaged, encrypted, or with a type, shape or repetition that
            MindSpore does not write; the text names the tensor.
    """
    view = _without_crc(data, source, check=not shapes_only)
    if not view:
        raise InputError(f"{source}: damaged or not a MindSpore checkpoint (it is empty)")
    pieces: dict[str, tuple[tuple[int, ...], str, list[memoryview]]] = {}
    last = ""
    try:
        for number, value in _fields(view, "the file"):
            if number != 1 or isinstance(value, int):
                raise ValueError(f"unexpected field {number}; encrypted, or from another program?")
            tag, shape, kind, content = _value(value)
            if tag not in pieces:
                pieces[tag] = (shape, kind, [content])
            elif tag != last or pieces[tag][:2] != (shape, kind):
                raise ValueError(f'"{tag}" occurs twice')
            else:
                pieces[tag][2].append(content)
            last = tag
        return {tag: _assemble(tag, *piece, shapes_only) for tag, piece in pieces.items()}
    except ValueError as error:
        raise InputError(f"{source}: damaged or not a MindSpore checkpoint ({error})") from None


def encode(tensors: Mapping[str, Tensor], *, crc: bool = False) -> bytes:
    """The bytes of a ``.ckpt`` as MindSpore 2.x writes them.

    Args:
        tensors: tensors by MindSpore's names, none empty (MindSpore omits empty ones).
        crc: append the checksum that ``save_checkpoint(crc_check=True)`` appends.
    """
    parts = []
    for name, tensor in tensors.items():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        dims = b"".join(b"\x08" + _encode_varint(n) for n in tensor.shape)
        kind = _TYPE_NAMES[tensor.dtype].encode()
        proto = dims + _encode_bytes(2, kind) + _encode_bytes(3, content)
        parts.append(_encode_bytes(1, _encode_bytes(1, name.encode()) + _encode_bytes(2, proto)))
    data = b"".join(parts)
    return data + _CRC_MARK + zlib.crc32(data).to_bytes(10, "big") if crc else data


def _without_crc(data: bytes | mmap.mmap, source: object, *, check: bool) -> memoryview:
    view = memoryview(data)
    if data[-_CRC_SIZE:-10] != _CRC_MARK:
        return view
    content, recorded = view[:-_CRC_SIZE], int.from_bytes(data[-10:], "big")
    if check and zlib.crc32(content) != recorded:
        raise InputError(f"{source}: damaged (its CRC does not match)")
    return content


def _value(view: memoryview) -> tuple[str, tuple[int, ...], str, memoryview]:
    """Tag, shape, type and content of one Value; nothing may be missing, extra or repeated."""
    fields = _fields(view, "a value")
    if [number for number, _ in fields] != [1, 2]:
        raise ValueError("a value is not a tag and a tensor")
    tag = _text(fields[0][1], "a tag")
    dims: list[int] = []
    kind, content = "", None
    for number, value in _fields(fields[1][1], f'"{tag}"'):
        if number == 1 and isinstance(value, int) and value <= _LARGEST_DIM:
            dims.append(value)
        elif number == 2 and not kind:
            kind = _text(value, f'the type of "{tag}"')
        elif number == 3 and content is None and isinstance(value, memoryview):
            content = value
        else:
            raise ValueError(f'"{tag}" has an invalid field {number}')
    if not kind or content is None:
        raise ValueError(f'"{tag}" has no {"content" if kind else "type"}')
    return tag, tuple(dims), kind, content


def _assemble(
    tag: str, shape: tuple[int, ...], kind: str, contents: list[memoryview], shapes_only: bool
) -> Tensor | str:
    length = sum(len(content) for content in contents)
    if kind == "str":
        try:
            return b"".join(contents).decode("utf-32-le")
        except UnicodeDecodeError:
            raise ValueError(f'"{tag}" is not text') from None
    if kind not in DTYPES:
        raise ValueError(f'"{tag}" has the unknown type "{kind}"')
    if shape == (0,):  # a scalar as written by 1.x
        shape = ()
    size = DTYPES[kind].itemsize
    wanted = math.prod(shape) * size
    if length != wanted or not length:
        raise ValueError(f'"{tag}" has {length} bytes of content, {kind} {shape} needs {wanted}')
    if shapes_only and math.prod(shape) > _SMALL:
        return torch.empty(shape, dtype=DTYPES[kind], device="meta")
    data = b"".join(contents)
    if kind == "Bool" and max(data) > 1:
        raise ValueError(f'"{tag}" has a Bool that is neither 0 nor 1')
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return tensor.view(DTYPES[kind]).reshape(shape)


def _fields(value: int | memoryview, where: str) -> Fields:
    """Number and content of each field of a message."""
    if isinstance(value, int):
        raise ValueError(f"{where} is a number, but a message is needed")
    return list(_iterate(value, where))


def _iterate(view: memoryview, where: str) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        number, wire = key >> 3, key & 7
        size, position = _varint(view, position)
        if wire == _VARINT:
            yield number, size
            continue
        if wire != _BYTES or number == 0:
            raise ValueError(f"{where} has a field {number} of wire type {wire}")
        if size > len(view) - position:
            raise ValueError(f"{where} is truncated")
        yield number, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A base-128 number and the position after it."""
    result = 0
    for shift in range(0, 64, 7):
        if position >= len(view):
            raise ValueError("a number is truncated")
        byte = view[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
    raise ValueError("a number is too long")


def _text(value: int | memoryview, where: str) -> str:
    if isinstance(value, int):
        raise ValueError(f"{where} is a number, but text is needed")
    text = str(bytes(value), "utf-8", "replace")
    if not text or not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        raise ValueError(f"{where} is not text")
    return text


def _encode_varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def _encode_bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | _BYTES]) + _encode_varint(len(content)) + content
