"""Markdown building blocks. All text that comes from files goes through ``escape``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.utils.errors import visible


def escape(value: object) -> str:
    """Any value as one line of text without the signs that Markdown or HTML would interpret."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", _line(value))


def code(value: object) -> str:
    """A short text as code, such as a digest; a bar in it does not end the cell of a table."""
    return f"`{_line(str(value).replace('`', ' ')).replace('|', chr(92) + '|')}`"


def block(value: object) -> str:
    """A line as a block of code, which nothing in the line ends."""
    text = visible(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return f"```\n{text}\n```"


def _line(value: object) -> str:
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return visible(" ".join(text.split()))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; all columns but the first are right-aligned. Cells are not escaped."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def section(title: str, *paragraphs: str) -> str:
    """A section with a title; paragraphs that are empty are left out."""
    return "\n\n".join([f"## {title}", *filter(None, paragraphs)])


def document(metadata: Mapping[str, Any], title: str, sections: Sequence[str]) -> str:
    """The whole page: the hub's metadata, the title (plain text), sections that are not empty."""
    import yaml

    block = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=2**31)
    parts = [f"---\n{block}---", f"# {escape(title)}", *filter(None, sections)]
    return "\n\n".join(parts) + "\n"
