"""A connection of the server: uvicorn's, with limits of time and size, and a graceful shutdown."""

import asyncio
import re
from collections.abc import Callable

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536
CONNECTIONS = 1024
# The parser gets so many bytes at a time. What is pipelined in them waits as requests, which take a
# hundred times as many.
_PART = 8192
# An idle connection stays open this long after SIGTERM, because the client may already have sent a
# request.
LINGER_SECONDS = 0.5
# With TLS a closed connection waits until the client closes it, too, which clients that keep a
# connection for later do when they need it next. At shutdown it waits no longer than this.
GOODBYE_SECONDS = 1.0


class _Flow(FlowControl):
    """Reads nothing from a client while something of it waits to be parsed."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless something waits."""
        if not self.held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One client's connection.

    In addition to uvicorn: the request line and headers must arrive within ``head_seconds`` and
    ``HEAD_BYTES``; there are at most ``CONNECTIONS`` at a time; pipelined requests wait as bytes,
    of which few are read before those ahead of them are answered; at shutdown, requests that are
    already on their way to an idle connection are still answered; other protocols are declined, and
    the request that offered one is answered; a client that reads nothing of an answer for
    ``reading_seconds`` is let go.

    Attributes:
        counted: called with the status of each answer that is given without the application.
        most_bytes: maximum size of a request; beyond it the connection is closed once it is
            answered.
        head_seconds: time limit for the request line and headers.
        reading_seconds: time limit for the client to read something of an answer.
    """

    counted: Callable[[int], None] = staticmethod(lambda status: None)
    most_bytes = 2**26
    head_seconds = 10.0
    reading_seconds = 30.0
    _head_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None
    _goodbye_timer: asyncio.TimerHandle | None = None
    _declines = False
    _head_bytes = 0
    _message_bytes = 0
    _waiting = b""
    _shutting_down = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many."""
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse("503 Service Unavailable", "too many connections", "retry-after: 1\r\n")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_timer()
        self._stop_reading_timer()
        if self._goodbye_timer is not None:
            self._goodbye_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data as far as nothing before it waits for its answer."""
        self._waiting += data
        self._parse()

    def on_response_complete(self) -> None:
        """Begin with the next request, if there is one."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()
            if self._shutting_down:
                self._await_goodbye()
        self._parse()

    def _parse(self) -> None:
        """Pass data to the parser; end a request whose headers or body are too large."""
        data, self._waiting = self._waiting, b""
        while data and not self.pipeline and not self.transport.is_closing():
            # Of headers the parser gets no more than is allowed, however much has arrived.
            awaited = self._head_timer
            room = _PART if awaited is None else min(_PART, HEAD_BYTES - self._head_bytes)
            part, data = data[:room], data[room:]
            self._head_bytes += len(part)
            self._message_bytes += len(part)
            self._feed(part)
            in_head = awaited is not None and self._head_timer is awaited
            if in_head and self._head_bytes >= HEAD_BYTES:
                self._refuse(
                    "431 Request Header Fields Too Large", f"at most {HEAD_BYTES} bytes of headers"
                )
            answered = self.cycle is not None and self.cycle.response_complete
            if answered and self._message_bytes > self.most_bytes:
                self._close()  # until it is answered, it is read for a limited time
        if self.transport.is_closing():
            return
        self._waiting = data
        held, self.flow.held = self.flow.held, bool(data)
        if data:
            self.flow.pause_reading()
        elif held and not self.pipeline:
            self.flow.resume_reading()

    def _feed(self, data: bytes) -> None:
        """Pass bytes to the parser, as uvicorn does.

        A request that offers another protocol, as curl and Java do for HTTP/2, ends for the parser
        with its headers. It is read again as one without the offer, and so with its body.
        """
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                self._refuse("400 Bad Request", "this is not a valid HTTP request")
                return

    def _head_without_offer(self) -> bytes:
        parser = self.parser
        version = parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                value = re.sub(rb"(?i)(?<![^\s,])(upgrade|http2-settings)(?![^\s,])", b"", value)
            if name != b"upgrade":
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Start the timer of a request's headers."""
        super().on_message_begin()
        self._message_bytes = 0
        self._await_head()

    def on_headers_complete(self) -> None:
        """Begin with a request, unless it offers another protocol, and so is read again."""
        self._declines = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._declines:
            return
        self._stop_timer()
        super().on_headers_complete()
        if self._shutting_down and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The body is whole."""
        if not self._declines:
            super().on_message_complete()

    def shutdown(self) -> None:
        """Answer the current request, then close."""
        self._shutting_down = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._close()
            self._await_goodbye()

    def _await_goodbye(self) -> None:
        self._goodbye_timer = self.loop.call_later(GOODBYE_SECONDS, self._end)

    def _end(self) -> None:
        if self._unread():  # for which there is a timer of its own
            self._await_goodbye()
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Wait until the client reads; for a limited time."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Write on, since the client has read."""
        super().resume_writing()
        if not self.transport.is_closing():  # then the rest waits for it too
            self._stop_reading_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._await_reader()

    def _unread(self) -> int:
        try:
            return self.transport.get_write_buffer_size()
        except AttributeError:  # of asyncio with TLS, after it was closed twice
            return 0

    def _await_reader(self) -> None:
        left = self._unread()
        if left and self._reading_timer is None:
            self._reading_timer = self.loop.call_later(
                self.reading_seconds, self._reader_is_late, left
            )

    def _reader_is_late(self, before: int) -> None:
        self._reading_timer = None
        if self._unread() < before:
            self._await_reader()
        else:
            self.transport.abort()

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._waiting:  # the rest of it is here, and waits for an answer to what is before it
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)
            return
        self._head_timer = None
        self._refuse("408 Request Timeout", f"no complete headers within {self.head_seconds:g} s")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: str, reason: str, header: str = "") -> None:
        """Answer without the application, and close."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        self.counted(int(status[:3]))
        body = f'{{"error": "{reason}"}}'
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{header}connection: close\r\n\r\n{body}".encode()
        )
        self._close()
