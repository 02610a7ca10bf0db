"""Grey images, and the normalisation of one channel that stands for three."""

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

NOTE = (
    "one grey channel; colours become L = (19595 R + 38470 G + 7471 B + 32768) / 65536, rounded "
    "down, as by Pillow"
)
# R, G, B in L, of Pillow's Convert.c.
SHARES = (19595 / 65536, 38470 / 65536, 7471 / 65536)


def as_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image ``(H, W, 3)`` RGB with Pillow's L in all three channels; a grey one is unchanged."""
    grey = np.asarray(Image.fromarray(image).convert("L"))
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def is_grey_jpeg(data: bytes) -> bool:
    """Whether a JPEG has one channel, by its header."""
    try:
        return str(simplejpeg.decode_jpeg_header(data)[2]).upper() in ("GRAY", "GREY")
    except (ValueError, KeyError):
        return False


def mean_of(values: tuple[float, ...]) -> tuple[float, ...]:
    """The mean or std of one channel for those of R, G and B: their mean."""
    first = values[0]
    return (first if len(set(values)) == 1 else sum(values) / len(values),)
