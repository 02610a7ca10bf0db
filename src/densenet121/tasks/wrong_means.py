"""What to say where the mean probability is not the share of the images."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from densenet121.utils.errors import some


def of_mean(name: str, truth: NDArray[Any], probability: NDArray[Any]) -> str:
    """A label or class with its mean probability and its share of the images."""
    return f"{name} ({probability.mean():.4f}; of the images {truth.mean():.4f})"


def advice(kind: str, off: Sequence[str], *, grouped: bool = False) -> list[str]:
    """A line on labels or classes whose mean probability is not their share of the images.

    Args:
        kind: "label" or "class".
        off: each a result of ``of_mean``.
        grouped: images of a group were not taken for independent.
    """
    if not off:
        return []
    what = some(off)
    independent = "" if grouped else " if each is of another patient or place"
    return [
        f"warning: the mean probability of a {kind} is not its share of these images, by more than "
        f"chance{independent}: {what}; no temperature corrects that, "
        "pass `fit_bias` 1"
    ]
