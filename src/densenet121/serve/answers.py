"""Answers in JSON, whatever names are in them."""

import json
from typing import Any

from fastapi.responses import JSONResponse


class Json(JSONResponse):
    """A body in JSON; see ``json_text``."""

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json_text(content, separators=(",", ":")).encode()


def json_text(content: Any, separators: tuple[str, str] | None = None) -> str:
    """JSON that can be sent as UTF-8.

    Names of classes may have bytes that are not UTF-8 (folders with names in Latin-1), and texts of
    clients half of a character. Where there are any, all but ASCII is written as escapes, as in the
    JSON of the ``predict`` command.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=separators)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, allow_nan=False, separators=separators)
    return text
