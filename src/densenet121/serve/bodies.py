"""Read the body of a request within its limits, and find its images; nothing is decoded here."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_DRAIN_SECONDS = 5.0
_FORM_FIELDS = 64  # maximum number of parts that are not files
_PART_HEAD_BYTES = 8192


class Refusal(Exception):
    """A request that is refused with a status and a reason.

    Attributes:
        status: HTTP status.
        reason: one line of text.
        retry_after: seconds, for 503.
        unread: whether part of the body was not read, so that the connection must close.
    """

    def __init__(
        self, status: int, reason: str, *, retry_after: int | None = None, unread: bool = False
    ) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.retry_after, self.unread = retry_after, unread


@dataclass(frozen=True)
class NamedImage:
    """An encoded image and the client's name for it."""

    name: str
    data: bytes


def whole_number(digits: str) -> int:
    """The number that digits mean, or one that is beyond any limit; Python reads at most 4,300."""
    return int(digits.lstrip("0")[:20] or 0)


def check_coding(headers: Mapping[str, str]) -> None:
    """Refuse a body that is compressed.

    Raises:
        Refusal: 415.
    """
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise Refusal(415, f"content-encoding {coding} is not supported")


async def read_body(
    request: Request, max_bytes: int, seconds: float, hold: Callable[[int], None]
) -> bytes:
    """The whole body.

    Args:
        request: the request.
        max_bytes: maximum size of the body.
        seconds: within which it must arrive.
        hold: called with the size of each part that has arrived; a Refusal of it ends the request.

    Raises:
        Refusal: 413 too large, by its content-length or its actual size; 408 too slow; of ``hold``.
        ClientDisconnect: the client has disconnected.
    """
    length = request.headers.get("content-length", "0")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            if whole_number(length) <= max_bytes:  # the HTTP parser allows only digits
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > max_bytes:
                        break
                    hold(len(chunk))
                else:
                    return bytes(body)
    except TimeoutError:
        raise Refusal(
            408, f"the body did not arrive within {seconds:g} s, only {len(body)} bytes of it",
            unread=True,
        ) from None  # fmt: skip
    except Refusal:
        body.clear()
        await drain(request)
        raise
    await drain(request)
    raise Refusal(413, f"the body is larger than {max_bytes} bytes", unread=True)


async def drain(request: Request) -> None:
    """Discard the rest of the body, for a limited time: a client reads no answer while it sends."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in request.stream():
                pass
    except (TimeoutError, RuntimeError):  # RuntimeError: it was read already
        pass


def images_of(body: bytes, content_type: str, max_images: int) -> list[NamedImage]:
    """The images of a multipart form, or the body itself as a single image.

    Raises:
        Refusal: 400 empty or malformed; 413 too many.
    """
    if not body:
        raise Refusal(400, "the body is empty; send an image, or a multipart form with images")
    if not content_type.lower().startswith("multipart/"):
        return [NamedImage("", body)]
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(400, "a multipart body must be multipart/form-data with a boundary")
    form = _Form(body, max_images)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"malformed multipart form ({error})") from None
    if not form.ended:
        raise Refusal(400, "the multipart form is truncated: its last boundary is missing")
    if not form.images:
        raise Refusal(400, "the multipart form has no files; each image needs a filename")
    return form.images


def _extended_name(disposition: bytes) -> str | None:
    """The name that ``filename*`` gives in the form of RFC 8187; None if there is none."""
    unquoted = re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', disposition)
    found = re.search(rb";\s*filename\*\s*=\s*([^';\s]*)'[^';\s]*'([^;\s]*)", unquoted, re.I)
    if not found:
        return None
    charset = found[1].decode("ascii", "replace").lower()
    if charset not in ("utf-8", "iso-8859-1"):  # those that every reader must know
        raise Refusal(400, f"filename* must be UTF-8 or ISO-8859-1, got {charset}")
    return unquote_to_bytes(found[2]).decode(charset, "replace")


class _Form:
    """The files of a form, collected by callbacks of the parser."""

    def __init__(self, body: bytes, max_images: int) -> None:
        self.images: list[NamedImage] = []
        self.ended = False
        self._max_images, self._fields = max_images, 0
        self._body = body
        self._field = self._value = b""
        self._name: str | None = None
        self._data: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._name, self._data = None, []

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > _PART_HEAD_BYTES:
            raise Refusal(400, "malformed multipart form (a part's header is too long)")

    def _on_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            name = options.get(b"filename")
            self._name = None if name is None else name.decode("utf-8", "replace")
            extended = _extended_name(self._value)  # takes precedence (RFC 6266, section 4.3)
            self._name = self._name if extended is None else extended
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._data.append(data[start:end])

    def _end(self) -> None:
        if self._name is None:
            self._fields += 1
            if self._fields > _FORM_FIELDS:
                raise Refusal(413, f"more than {_FORM_FIELDS} fields that are not files")
            return
        if len(self.images) == self._max_images:
            raise Refusal(413, f"more than {self._max_images} images in one request")
        self.images.append(NamedImage(self._name, b"".join(self._data)))

    def _finish(self) -> None:
        self.ended = True
