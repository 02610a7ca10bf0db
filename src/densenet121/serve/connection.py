"""A connection of the server: uvicorn's, with limits of time and size, and a graceful shutdown."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536
CONNECTIONS = 1024
# An idle connection stays open this long after SIGTERM, because the client may already have sent a
# request.
LINGER_SECONDS = 0.5


class Connection(HttpToolsProtocol):
    """One client's connection.

    In addition to uvicorn: the request line and headers must arrive within ``head_seconds`` and
    ``HEAD_BYTES``; there are at most ``CONNECTIONS`` at a time; at shutdown, requests that are
    already on their way to an idle connection are still answered.

    Attributes:
        most_bytes: maximum size of a request; beyond it the connection is closed.
        head_seconds: time limit for the request line and headers.
    """

    most_bytes = 2**26
    head_seconds = 10.0
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _message_bytes = 0
    _shutting_down = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse("503 Service Unavailable", "too many connections", "retry-after: 1\r\n")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser; end a request whose headers or body are too large."""
        if self.transport.is_closing():
            return
        self._message_bytes += len(data)
        while data and not self.transport.is_closing():
            # Of headers the parser gets no more than is allowed, however much has arrived.
            awaited = self._head_timer
            room = HEAD_BYTES - self._head_bytes if awaited is not None else len(data)
            part, data = data[:room], data[room:]
            self._head_bytes += len(part)
            super().data_received(part)
            if awaited is not None and self._head_timer is awaited and len(part) == room:
                self._refuse(
                    "431 Request Header Fields Too Large", f"at most {HEAD_BYTES} bytes of headers"
                )
        if self._message_bytes > self.most_bytes:
            self.transport.close()  # the answer 413 was already sent

    def on_message_begin(self) -> None:
        """Start the timer of a request's headers."""
        super().on_message_begin()
        self._message_bytes = 0
        self._await_head()

    def on_headers_complete(self) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().on_headers_complete()
        if self._shutting_down and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Answer the current request, then close."""
        self._shutting_down = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
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
        body = f'{{"error": "{reason}"}}'
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{header}connection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()
