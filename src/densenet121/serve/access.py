"""Who may use the server: a token that each request must bring, and TLS."""

import base64
import binascii
import hmac
import ssl
from pathlib import Path

from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from densenet121.serve.bodies import drain
from densenet121.utils.errors import InputError
from densenet121.utils.files import read_input

_SHORTEST = 16  # characters of a token
_OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")  # probes have no token


def read_token(path: Path) -> bytes:
    """The token in a file: one line of printable ASCII characters without spaces.

    Raises:
        InputError: it cannot be read, or is no token; the text never has the token.
    """
    try:
        data = read_input(path)
    except OSError as error:
        raise InputError(f"`token_file` {path}: cannot be read ({error.strerror})") from None
    token = data.strip()
    if not all(33 <= byte < 127 for byte in token):
        raise InputError(
            f"`token_file` {path}: must be one line of printable ASCII characters without spaces"
        )
    if len(token) < _SHORTEST:
        raise InputError(
            f"`token_file` {path}: the token has {len(token)} characters; at least {_SHORTEST} are "
            "needed, for instance from: openssl rand -hex 32"
        )
    return token


def check_tls(certificate: Path, key: Path) -> None:
    """Refuse a certificate and key that cannot be used together.

    Raises:
        InputError: one cannot be read, is damaged, has a passphrase, or is not the other's.
    """
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            read_input(path)
        except OSError as error:
            raise InputError(f"`{name}` {path}: cannot be read ({error.strerror})") from None
        if not path.is_file():  # it is read again
            raise InputError(f"`{name}` {path}: is no file; save it as one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or "damaged"
        raise InputError(
            f"`tls_certificate` {certificate}, `tls_key` {key}: not a certificate and its key, "
            f"both as PEM without a passphrase ({reason})"
        ) from None


class TokenNeeded:
    """Answers 401 to requests without the token; health stays open.

    The token comes as ``Authorization: Bearer TOKEN``, or as the password of any user, which a
    browser asks for.
    """

    def __init__(self, app: ASGIApp, token: bytes) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in _OPEN or self._may(scope):
            await self._app(scope, receive, send)
            return
        await drain(Request(scope, receive))
        reason = "a token is needed: Authorization: Bearer TOKEN"
        answer = JSONResponse({"error": reason}, 401, {"connection": "close"})
        for kind in ('Basic realm="densenet121"', "Bearer"):
            answer.headers.append("www-authenticate", kind)
        await answer(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        kind, _, value = given[0].partition(b" ")
        if kind.lower() == b"basic":
            try:
                value = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        # As long for a wrong token as for the right one, so that the time says nothing.
        return hmac.compare_digest(value.strip(), self._token)
