"""Images that a caller holds as PIL images, under the rules for the files that they came from."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from densenet121.datasets.decoding import PILLOW_MODES, check_tiff, to_rgb, white_is_zero
from densenet121.utils.errors import InputError, one_line


def from_pillow(image: Image.Image) -> bytes | NDArray[np.uint8]:
    """A PIL image as ``(H, W, 3)`` uint8 RGB; of 16-bit grey samples as a PNG that keeps them.

    How 16 bits become grey levels is a matter of `depth` and `window`, as for a file. Pillow's own
    conversion to RGB would make all samples above 255 white.

    Raises:
        InputError: it cannot be loaded, has no pixels, or samples that are refused in files, too.
    """
    if 0 in image.size:
        raise InputError(f"the PIL image has no pixels: {image.size}")
    tiff = image if isinstance(image, TiffImageFile) else None
    if tiff is not None and not hasattr(tiff, "tag_v2"):
        # Pillow leaves out the tags, which say how the samples are to be read.
        raise InputError(
            "a PIL image of a TIFF that was pickled, as for another process, or copied by "
            "copy.deepcopy has lost its tags; pass the path or the bytes of the file"
        )
    try:
        if tiff is not None:
            check_tiff(tiff)
        image.load()
        # Pillow scales a PGM of more than 8 bits to 16.
        deep = image.mode.startswith("I;16") or (image.format, image.mode) == ("PPM", "I")
        if deep and not (tiff is not None and white_is_zero(tiff)):
            samples = np.asarray(image).astype(np.uint16)
            return cv2.imencode(".png", samples, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        if image.mode in PILLOW_MODES:
            # The caller's image stays as it is: to_rgb removes its transparency.
            return to_rgb(image.copy() if "transparency" in image.info else image)
    except InputError:
        raise
    except Exception as error:  # damaged data makes Pillow raise exceptions of almost any type
        raise InputError(f"the PIL image cannot be loaded ({one_line(error)})") from error
    if deep:
        raise InputError("a PIL image of a 16-bit TIFF whose 0 is white; pass the path of the file")
    raise InputError(
        f"a PIL image of mode {image.mode}; pass one of 8 bits (L, RGB, ...) or of 16-bit grey "
        "(I;16)"
    )
