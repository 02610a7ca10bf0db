"""HTML building blocks. All text is escaped with ``escape``."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.utils.rounding import percent


class Share(float):
    """A share in 0..1; a table shows it as per cent with a bar behind it."""


Cell = str | int | Share


def escape(value: object) -> str:
    """Any value as text that is safe between tags and in a quoted attribute."""
    # Bytes of a file name that are not UTF-8 were read as surrogates, which UTF-8 cannot encode.
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def mapping(value: object) -> dict[str, Any]:
    """The value if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: float, form: str) -> str:
    """A formatted number, or a dash for nan."""
    return "-" if math.isnan(value) else format(value, form)


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], texts: int) -> str:
    """A table; the first ``texts`` columns are text, the others are right-aligned numbers."""
    cells = "".join(
        f"<th{'' if index < texts else ' class=figure'}>{escape(name)}</th>"
        for index, name in enumerate(head)
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(value, index < texts) for index, value in enumerate(row))}</tr>"
        for row in rows
    )
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>\n{body}\n</tbody></table></div>'


def _cell(value: Cell, is_text: bool) -> str:
    if isinstance(value, Share):
        shown = escape(percent(value))
        return f'<td class="figure share" style="--share:{100 * value:.1f}%">{shown}</td>'
    return f"<td{'' if is_text else ' class=figure'}>{escape(value)}</td>"


def section(title: str, text: str, *content: str) -> str:
    """A section with a title; ``text`` is escaped, ``content`` is HTML."""
    below = f"<p>{escape(text)}</p>" if text else ""
    return f"<section>\n<h2>{escape(title)}</h2>{below}\n" + "\n".join(content) + "\n</section>"


def card(value: str, label: str, *below: str, main: bool = False) -> str:
    """One headline number."""
    lines = "".join(f"<span>{escape(line)}</span>" for line in below if line)
    kind = "card main" if main else "card"
    return f'<div class="{kind}"><span>{escape(label)}</span><b>{escape(value)}</b>{lines}</div>'


def bullets(kind: str, title: str, lines: Sequence[str]) -> str:
    """A list of sentences; empty if there are none."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="{kind}"><h2>{escape(title)}</h2><ul>{items}</ul></section>'


def image(content: bytes, kind: str, alt: str, attributes: str = "") -> str:
    """An embedded image; ``kind`` is "png" or "jpeg", ``attributes`` is HTML."""
    data = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}"{attributes}>'


def with_interval(found: Mapping[str, Any], name: str) -> str:
    """A metric of a class or label with its interval, if it has one."""
    value, interval = found.get(name), found.get(f"{name}_ci")
    if value is None:
        return "-"
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")
