"""The size to which evaluation resizes an image, as the setting ``eval_resize`` writes it."""

import re
from dataclasses import dataclass

from densenet121.datasets.decoding import MAX_PIXELS
from densenet121.utils.errors import InputError


@dataclass(frozen=True)
class Resize:
    """The size that evaluation resizes an image to before the centre crop.

    Attributes:
        size: height and width, for any shape of the image; or the length of the shorter side.
        pad: whether the image keeps its aspect ratio within ``size`` and the rest is filled.
    """

    size: tuple[int, int] | int
    pad: bool = False

    def inner(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image itself, without what ``pad`` adds.

        One side fills that of ``size``, the other is rounded, half up, and at least a pixel.
        """
        if not (self.pad and isinstance(self.size, tuple)):
            return self.shape(height, width)
        outer_height, outer_width = self.size
        if height * outer_width >= width * outer_height:
            return outer_height, max(1, (2 * width * outer_height + height) // (2 * height))
        return max(1, (2 * height * outer_width + width) // (2 * width)), outer_width

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a resized ``height`` x ``width`` image.

        The longer side is rounded down as in torchvision's Resize.

        Raises:
            InputError: the result would have too many pixels.
        """
        if isinstance(self.size, tuple):
            height, width = self.size
        elif width <= height:
            height, width = int(self.size * height / width), self.size
        else:
            height, width = self.size, int(self.size * width / height)
        if height * width > MAX_PIXELS:
            raise InputError(
                f"`eval_resize` {self} gives {width} x {height} pixels; the limit is {MAX_PIXELS} "
                "pixels"
            )
        return height, width

    def __str__(self) -> str:
        """In the form that ``parse_eval_resize`` reads."""
        if isinstance(self.size, int):
            return f"short:{self.size}"
        return "pad:" * self.pad + sides(*self.size)


def parse_eval_resize(text: str) -> Resize:
    """Parse ``256`` (256 x 256, as the original), ``256,300``, ``short:256``, ``pad:256``.

    Raises:
        InputError: the text is none of these.
    """
    side = "([1-9][0-9]{0,4})"
    if short := re.fullmatch(f"short:{side}", text):
        return Resize(int(short[1]))
    found = re.fullmatch(f"(pad:)?{side}(?:,{side})?", text)
    if found is None:
        raise InputError(
            '`eval_resize` must be "256" (both sides), "256,300" (height,width), "short:256" '
            f'(the shorter side) or "pad:256" (the longer side, filled up), got "{text}"'
        )
    pad, height, width = found.groups()
    return Resize((int(height), int(width or height)), pad is not None)


def sides(height: int, width: int) -> str:
    """Height and width in the form of the setting."""
    return str(height) if height == width else f"{height},{width}"
