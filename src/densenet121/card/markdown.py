"""Markdown building blocks. All text that comes from files goes through ``escape``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.utils.errors import visible


def escape(value: object) -> str:
    """Any value as one line of text without the signs that Markdown or HTML would interpret."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", visible(" ".join(text.split())))


def code(value: object) -> str:
    """A short text as code, such as a digest."""
    return f"`{' '.join(str(value).replace('`', ' ').split())}`"


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
