"""A contact sheet: rows of images of equal size, with a caption below each."""

from collections.abc import Sequence
from typing import NamedTuple

from densenet121.pages.markup import escape, image

CSS = """
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 12px; }
.sheet figure { margin: 0; min-width: 0; break-inside: avoid; font-size: 12px; line-height: 1.4; }
.sheet img { display: block; width: 100%; height: auto; border-radius: 4px; }
.sheet img.enlarged { image-rendering: pixelated; }
.sheet figcaption { margin-top: 4px; color: var(--faint); overflow-wrap: anywhere; }
.sheet .before img { outline: 2px solid var(--blue); outline-offset: 1px; }
.sheet .before figcaption { color: var(--ink); font-weight: 600; }
"""


class SheetImage(NamedTuple):
    """One image of a sheet.

    Attributes:
        content: encoded as ``kind``.
        kind: "png" or "jpeg".
        caption: text below it.
        before: whether it is what the others of its row are made from.
        enlarged: whether its pixels are to be shown as squares.
    """

    content: bytes
    kind: str
    caption: str
    before: bool = False
    enlarged: bool = False


def row(images: Sequence[SheetImage]) -> str:
    """HTML of images side by side, as many as fit."""
    return f'<div class="sheet">{"".join(map(_figure, images))}</div>'


def _figure(one: SheetImage) -> str:
    attributes = ' class="enlarged"' if one.enlarged else ""
    shown = image(one.content, one.kind, one.caption, attributes)
    start = '<figure class="before">' if one.before else "<figure>"
    return f"{start}{shown}<figcaption>{escape(one.caption)}</figcaption></figure>"
