"""Checks and defaults of settings; each error is one line that names the flag."""

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from densenet121.utils.checks import number_in, whole_number_in
from densenet121.utils.errors import UsageError

MOST_FOLDS = 100_000  # folds, or seeds; a list of many more would fill the memory before any image


def numbers(
    flag: str, value: int | str, *, count: int | None = None, whole: bool = False
) -> Sequence[float]:
    """The numbers of a comma-separated list, ``count`` of them; ``whole`` allows only integers.

    Raises:
        UsageError: the text is something else, or has nan or infinity.
    """
    parts = str(value).split(",")
    kind = "whole numbers" if whole else "numbers"
    try:
        found = [whole_number_in(part) if whole else number_in(part) for part in parts]
    except ValueError:
        raise UsageError(f"--{flag} must be {kind} separated by commas, got {value!r}") from None
    if count is not None and len(found) != count:
        raise UsageError(f"--{flag} must be {count} {kind} separated by commas, got {value!r}")
    if not all(abs(number) < math.inf for number in found):
        raise UsageError(f"--{flag} must be finite, got {value!r}")
    return found


def at_least(flag: str, value: float | None, least: float, unit: str = "") -> None:
    """Refuse a value below ``least``, nan or infinity; None passes.

    Raises:
        UsageError: the text has the flag and what is allowed.
    """
    if value is not None and not least <= value < math.inf:
        raise UsageError(f"--{flag} must be at least {f'{least} {unit}'.strip()}, got {value}")


def above(flag: str, value: float | None, low: float) -> None:
    """Refuse a value that is not greater than ``low``, nan or infinity; None passes.

    Raises:
        UsageError: the text has the flag and what is allowed.
    """
    if value is not None and not low < value < math.inf:
        raise UsageError(f"--{flag} must be greater than {low}, got {value}")


def between(
    flag: str, value: float | None, low: float, high: float, *, upper_open: bool = False
) -> None:
    """Refuse a value outside ``[low, high]``, or ``[low, high)``; None passes.

    Raises:
        UsageError: the text has the flag and what is allowed.
    """
    if value is None:
        return
    if not (low <= value <= high) or (upper_open and value == high):
        end = "below" if upper_open else "at most"
        raise UsageError(f"--{flag} must be at least {low} and {end} {high}, got {value}")


def parse_image_size(value: int | str, flag: str = "image_size") -> tuple[int, int]:
    """Height and width from "H,W" or one number.

    Raises:
        UsageError: not one or two whole numbers, or less than 16 pixels (too small for the five
            halvings of the network).
    """
    sizes = [int(x) for x in numbers(flag, value, whole=True)]
    if len(sizes) not in (1, 2):
        raise UsageError(f'--{flag} must be "H,W" or one number, got {value}')
    if min(sizes) < 16:
        raise UsageError(f"--{flag} must be at least 16 pixels, got {value}")
    return sizes[0], sizes[-1]


Triple = tuple[float, float, float]


def parse_mean_std(text: str) -> tuple[Triple, Triple] | None:
    """Mean and std of R, G, B from "M,S" or "M,M,M,S,S,S", in grey levels; None for a word.

    Raises:
        UsageError: neither weights, original, data nor numbers, or no grey levels.
    """
    if text in ("weights", "original", "data"):
        return None
    try:
        found = [number_in(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (2, 6) or not all(math.isfinite(number) for number in found):
        raise UsageError(
            "--normalisation must be weights, original, data, or the mean and std in grey levels "
            f'as "M,S" or "M,M,M,S,S,S", got {text}'
        )
    half = len(found) // 2
    means, stds = found[:half] * (3 // half), found[half:] * (3 // half)
    if not (min(means) >= 0 and max(means) <= 255 and min(stds) > 0):
        raise UsageError(
            f"--normalisation needs means from 0 to 255 and stds above 0, in grey levels, "
            f"got {text}"
        )
    if max(means) <= 1 and max(stds) <= 1:
        raise UsageError(
            f"--normalisation is in grey levels 0 to 255, and {text} looks like shares of 1; "
            "multiply by 255"
        )
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def absolute(path: str) -> Path:
    """The path with ~ and the working directory resolved, symbolic links kept.

    As in a shell, ~NAME is a file's name where there is no such user, or no home folder.
    """
    # Path.resolve() follows links, and Path.expanduser() raises a RuntimeError.
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def names_weights(flag: str, path: str | None) -> None:
    """Refuse a name of other programs' weights for those that are written; None passes.

    Raises:
        UsageError: the text has the flag and what is allowed.
    """
    others = [".bin", ".ckpt", ".h5", ".keras", ".npz", ".onnx", ".pkl", ".pt", ".pt2", ".pth"]
    if path is not None and PurePath(path).suffix.lower() in others:
        raise UsageError(
            f"--{flag} must be a .safetensors file, got {path}; `densenet121 convert` writes the "
            "formats of other programs"
        )


def ends_in(flag: str, path: str | None, *suffixes: str) -> None:
    """Refuse a name that ends in none of these; None passes.

    Raises:
        UsageError: the text has the flag and the first suffix.
    """
    if path is not None and not path.lower().endswith(suffixes):
        raise UsageError(f"--{flag} must be a {suffixes[0]} file, got {path or 'an empty path'}")
