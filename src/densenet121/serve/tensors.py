"""Requests and answers of the Open Inference Protocol (KServe v2), with its binary data extension.

https://github.com/kserve/open-inference-protocol: a request is JSON; with the header
Inference-Header-Content-Length, that many bytes of JSON and then the tensors that say
``binary_data_size``, one after the other. A BYTES tensor is, for each element, its length in 4
bytes (little-endian) and its bytes.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.serve.bodies import NamedImage, Refusal, check_coding, whole_number
from densenet121.utils.json_values import parse_json

IMAGE, PIXELS = "image", "pixels"
LENGTH = "inference-header-content-length"
_MOST_OUTPUTS = 16
_MOST_SIGNS = 10_000  # of each sign of JSON, outside the numbers of tensors
_SIGNS = {"{": "objects", "[": "lists", '"': "quotes", ",": "commas"}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """An output that a request asks for, and whether as bytes."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A request.

    Attributes:
        id: the client's id, or None.
        outputs: the outputs, in the order of the answer.
        top_k: number of classes of "answer"; None for the server's default.
        items: encoded images, or normalised tensors ``(C, H, W)``.
    """

    id: str | None
    outputs: tuple[Wanted, ...]
    top_k: int | None
    items: tuple[NamedImage | Floats, ...]


@dataclass(frozen=True)
class Allowed:
    """What a server takes.

    Attributes:
        outputs: the names of its outputs.
        images: maximum number of images in a request.
        size: height and width of a tensor; None if it takes no tensors.
        low: smallest value of each channel of a tensor.
        high: largest value of each channel.
    """

    outputs: tuple[str, ...]
    images: int
    size: tuple[int, int] | None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def parse(body: bytes, headers: Mapping[str, str], allowed: Allowed) -> InferRequest:
    """Read the body of a request.

    Raises:
        Refusal: it is malformed, has too many images, or asks for what there is not.
    """
    check_coding(headers)
    head, rest = _parts(body, headers.get(LENGTH))
    _check_signs(head, allowed)
    content = _json(head)
    _only(content, ("id", "parameters", "inputs", "outputs"), "the request")
    parameters = _parameters(content, ("binary_data_output", "top_k"), "the request")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refusal(400, f"inputs must be one tensor, {IMAGE} or {PIXELS}")
    binary = _flag(parameters, "binary_data_output")
    top_k, own_id = parameters.get("top_k"), content.get("id")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise Refusal(400, f"top_k must be a whole number from 1, got {_shown(top_k)}")
    if own_id is not None and not isinstance(own_id, str):
        raise Refusal(400, f"id must be text, got {_shown(own_id)}")
    outputs = _outputs(content.get("outputs"), allowed.outputs, binary)
    return InferRequest(own_id, outputs, top_k, tuple(_items(inputs[0], rest, allowed)))


def _parts(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    if length is None:
        return body, b""
    is_number = length.isascii() and length.isdecimal()
    if not is_number or (head := whole_number(length)) > len(body):
        raise Refusal(400, f"{LENGTH} must be at most the {len(body)} bytes of the body")
    return body[:head], body[head:]


def _check_signs(data: bytes, allowed: Allowed) -> None:
    """Refuse more values than any request has, before all others wait for them.

    Python's reader of JSON lets no other thread run: millions of empty lists would take it half a
    minute. The largest request of numbers takes less than a second.
    """
    height, width = allowed.size or (0, 0)
    planes = allowed.images * len(allowed.low)
    numbers = {"[": planes * (height + 2), ",": planes * height * width}
    for sign, what in _SIGNS.items():
        most = _MOST_SIGNS + numbers.get(sign, 0)
        if data.count(sign.encode()) > most:
            raise Refusal(413, f"the JSON of the request has more than {most} {what}")


def _json(data: bytes) -> dict[str, Any]:
    try:
        content = parse_json(data)
    except ValueError:
        raise Refusal(400, "the request is not valid JSON") from None
    if not isinstance(content, dict):
        raise Refusal(400, "the request must be a JSON object")
    return content


def _only(content: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    unknown = next((name for name in content if name not in known), None)
    if unknown is not None:
        raise Refusal(400, f"{what} has {_shown(unknown)}; it may have {', '.join(known)}")


def _parameters(content: Mapping[str, Any], known: Sequence[str], what: str) -> dict[str, Any]:
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, f"the parameters of {what} must be a JSON object")
    _only(parameters, known, f"the parameters of {what}")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false, got {_shown(value)}")
    return value


def _outputs(asked: object, known: Sequence[str], binary: bool) -> tuple[Wanted, ...]:
    if asked is None:
        return tuple(Wanted(name, binary) for name in known)
    if not isinstance(asked, list) or len(asked) > _MOST_OUTPUTS:
        raise Refusal(400, "outputs must be a list of tensors")
    found = []
    for one in asked:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or name not in known:
            raise Refusal(400, f"there is no output {_shown(name)}; there are {', '.join(known)}")
        _only(one, ("name", "parameters"), f"the output {name}")
        given = _parameters(one, ("binary_data",), f"the output {name}")
        found.append(Wanted(name, _flag(given, "binary_data", binary)))
    if not found:
        return tuple(Wanted(name, binary) for name in known)
    return tuple(found)


def _items(tensor: dict[str, Any], rest: bytes, allowed: Allowed) -> Sequence[NamedImage | Floats]:
    name = tensor.get("name")
    kinds = {IMAGE: "BYTES"} | ({PIXELS: "FP32"} if allowed.size else {})
    if name not in kinds:
        more = "" if allowed.size else " (this network takes no tensors)"
        raise Refusal(400, f"there is no input {_shown(name)}; there is {' or '.join(kinds)}{more}")
    _only(tensor, ("name", "shape", "datatype", "parameters", "data"), f"the input {name}")
    if tensor.get("datatype") != kinds[name]:
        kind = _shown(tensor.get("datatype"))
        raise Refusal(400, f"the datatype of {name} must be {kinds[name]}, got {kind}")
    wanted = [-1] if name == IMAGE else [-1, len(allowed.low), *(allowed.size or ())]
    count = _count(name, tensor.get("shape"), wanted, allowed.images)
    parameters = _parameters(tensor, ("binary_data_size", "content_type"), f"the input {name}")
    size, data = parameters.get("binary_data_size"), tensor.get("data")
    if (size is None) == (data is None):
        raise Refusal(400, f"the input {name} must have either data or binary_data_size")
    if size is not None and size != len(rest):
        raise Refusal(
            400, f"binary_data_size of {name} is {_shown(size)}, but {len(rest)} bytes follow"
        )
    if name == IMAGE:
        return (
            _binary_images(rest, count) if data is None else _json_images(parameters, data, count)
        )
    shape = (count, *wanted[1:])
    if data is None and len(rest) % 4:
        raise Refusal(
            400,
            f"the input {name} has {len(rest)} bytes, but its shape {list(shape)} needs "
            f"{4 * math.prod(shape)}",
        )
    numbers = np.frombuffer(rest, "<f4") if data is None else _numbers(data, shape)
    return _tensors(numbers, shape, allowed)


def _count(name: str, shape: object, wanted: Sequence[int], most: int) -> int:
    """The number of images, from the shape of a tensor."""
    numbers = shape if isinstance(shape, list) and all(type(n) is int for n in shape) else []
    if len(numbers) != len(wanted) or numbers[1:] != wanted[1:] or numbers[0] < 1:
        raise Refusal(400, f"the shape of {name} must be {list(wanted)}, got {_shown(shape)}")
    if numbers[0] > most:
        raise Refusal(413, f"more than {most} images in one request")
    return int(numbers[0])


def _binary_images(data: bytes, count: int) -> list[NamedImage]:
    images, start = [], 0
    for _ in range(count):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            raise Refusal(400, f"the input {IMAGE} is truncated: it has {len(data)} bytes")
        images.append(NamedImage("", data[start + 4 : end]))
        start = end
    if start != len(data):
        raise Refusal(400, f"the input {IMAGE} has {len(data) - start} bytes after its last image")
    return images


def _json_images(parameters: Mapping[str, Any], data: object, count: int) -> list[NamedImage]:
    if parameters.get("content_type") != "base64":
        raise Refusal(
            400, f'images in JSON are base64: give the input {IMAGE} the content_type "base64"'
        )
    if not isinstance(data, list) or len(data) != count:
        raise Refusal(400, f"data of {IMAGE} must be a list of {count} texts")
    try:
        return [NamedImage("", base64.b64decode(text, validate=True)) for text in data]
    except (binascii.Error, TypeError, ValueError):
        raise Refusal(400, f"data of {IMAGE} is not base64") from None


def _numbers(data: object, shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers of JSON, flat or nested as the shape says."""
    try:
        found = np.asarray(data)
    except ValueError:
        found = np.asarray("")
    if found.dtype.kind not in "iuf":
        raise Refusal(400, f"data of {PIXELS} must be numbers, flat or nested by its shape")
    if found.ndim > 1 and found.shape != shape:
        # Read in another order the numbers would be another image.
        raise Refusal(
            400,
            f"data of {PIXELS} is nested as {list(found.shape)}, but its shape is {list(shape)}",
        )
    return found.reshape(-1)


def _tensors(numbers: NDArray[Any], shape: tuple[int, ...], allowed: Allowed) -> list[Floats]:
    if len(numbers) != math.prod(shape):
        raise Refusal(
            400,
            f"the input {PIXELS} has {len(numbers)} numbers, but its shape {list(shape)} needs "
            f"{math.prod(shape)}",
        )
    with np.errstate(over="ignore"):  # infinite, and so refused below
        images = numbers.astype(np.float32).reshape(shape)
    for channel, (low, high) in enumerate(zip(allowed.low, allowed.high, strict=True)):
        values = images[:, channel]
        # With not, so that nan is outside.
        if not (float(values.min()) >= low and float(values.max()) <= high):
            raise Refusal(
                422,
                f"channel {channel} of {PIXELS} must be normalised, from about {low:.4g} to "
                f"{high:.4g}; got {float(values.min()):.4g} to {float(values.max()):.4g}",
            )
    return list(images)


def write(
    head: dict[str, Any], found: Mapping[str, Floats | list[str]], wanted: Sequence[Wanted]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if bytes follow.

    Args:
        head: name, version and id.
        found: the outputs: numbers ``(N, K)``, or a text for each image.
        wanted: which of them, in which order and form.
    """
    outputs, parts = [], []
    for one in wanted:
        values = found[one.name]
        numbers = isinstance(values, np.ndarray)
        shape = list(values.shape) if isinstance(values, np.ndarray) else [len(values)]
        kind = "FP32" if numbers else "BYTES"
        tensor: dict[str, Any] = {"name": one.name, "datatype": kind, "shape": shape}
        if one.binary:
            parts.append(_as_bytes(values))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            flat = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
            tensor["data"] = flat
        outputs.append(tensor)
    text = json.dumps(head | {"outputs": outputs}, allow_nan=False).encode()
    return text + b"".join(parts), len(text) if parts else None


def _as_bytes(values: Floats | list[str]) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype("<f4").tobytes()
    encoded = [text.encode() for text in values]
    return b"".join(len(data).to_bytes(4, "little") + data for data in encoded)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
