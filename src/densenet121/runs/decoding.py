"""How the images of a run were decoded, for the pages that show them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import decode
from densenet121.datasets.reading import make_reading


def decoder(recorded: Mapping[str, Any]) -> Callable[[bytes], NDArray[np.uint8]]:
    """Of the bytes of an image file the pixels ``(H, W, 3)``, through the recorded window.

    Args:
        recorded: has "depth" and "window", as settings or eval.json; without them 8 bits.

    Raises:
        UsageError: they are not allowed.
    """
    depth, window = recorded.get("depth") or 8, recorded.get("window")
    reading = make_reading(depth, None if window is None else str(window))
    return partial(decode, reading=reading)
