"""The image kernel: from a JPEG, or pixels, to a resized, flipped and colour-adjusted crop.

It is C++ that is built at installation and selected by an environment variable, like the kernels of
the network (``densenet121.native.network``). It runs in the calling thread, without the GIL.
"""

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.native.library import load_library
from densenet121.native.network import unknown_kernels
from densenet121.native.processor import capabilities

# Best first; each with the capabilities that its code needs.
_BUILDS: dict[str, tuple[str, ...]] = {
    "avx2": ("avx2", "fma3", "f16c", "bmi", "bmi2"),
    "portable": (),
}
_DONE, _UNSUPPORTED, _NO_MEMORY, _INVALID = 0, 1, 2, 3
VERSION = 1  # of ImageArguments; see structures.py of the network


class ImageArguments(ctypes.Structure):
    """``ImageArguments`` of images.cpp."""

    _fields_ = [
        ("data", ctypes.c_char_p),
        ("size", ctypes.c_int64),
        ("pixels", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),
        ("sides", ctypes.c_int64 * 2),
        ("crop", ctypes.c_int64 * 4),
        ("resized", ctypes.c_int64 * 2),
        ("window", ctypes.c_int64 * 4),
        ("flip", ctypes.c_int64),
        ("steps", ctypes.c_int64),
        ("step", ctypes.c_int64 * 3),
        ("factor", ctypes.c_double * 3),
        ("out", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class ImageKernel:
    """A loaded build.

    Attributes:
        build: "avx2" or "portable".
        library: its functions.
    """

    build: str
    library: ctypes.CDLL

    def __post_init__(self) -> None:
        """Declare the arguments of the functions that take more than one."""
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        library = self.library
        library.densenet121_jpeg_size.argtypes = [ctypes.c_char_p, size, pointer]
        library.densenet121_affine.argtypes = [pointer, size, size, pointer, pointer, pointer]
        library.densenet121_sharpen.argtypes = [pointer, size, size, ctypes.c_float, pointer]
        library.densenet121_sharpen.restype = None
        if hasattr(library, "densenet121_crc32c"):  # not in builds of before November 2026
            library.densenet121_crc32c.argtypes = [ctypes.c_char_p, size]
            library.densenet121_crc32c.restype = ctypes.c_uint32

    def jpeg_size(self, data: bytes) -> tuple[int, int] | None:
        """Height and width of a JPEG of a supported kind, else None.

        Damage is detected only by ``image``.
        """
        sides = (ctypes.c_int64 * 2)()
        found = self.library.densenet121_jpeg_size(data, ctypes.c_int64(len(data)), sides)
        return (sides[0], sides[1]) if _is_done(found) else None

    def image(
        self,
        source: bytes | NDArray[np.uint8],
        out: NDArray[np.uint8],
        *,
        crop: tuple[int, int, int, int],
        resized: tuple[int, int],
        window: tuple[int, int],
        flip: bool = False,
        steps: tuple[tuple[int, float], ...] = (),
    ) -> bool:
        """Crop ``source``, resize it, take a window of the size of ``out``, flip, adjust colours.

        Args:
            source: a JPEG that ``jpeg_size`` read, or ``(H, W, 3)`` uint8 RGB, rows contiguous.
            out: ``(h, w, 3)`` uint8, C-contiguous; the result.
            crop: top, left, height, width; within the image.
            resized: height and width that the crop is resized to, bilinearly.
            window: top and left of the result in the resized crop.
            flip: exchange left and right.
            steps: at most three of (0 brightness, 1 contrast, 2 saturation) with a factor.

        Returns:
            False if the JPEG is damaged; then ``out`` is unchanged.

        Raises:
            ValueError: the crop is not in the image, the window not in the resized crop, a step
                is unknown, its factor not a number or beyond a million, or an array unsuitable.
            MemoryError: there was not enough memory.
        """
        high, wide, channels = out.shape
        if len(steps) > 3:
            raise ValueError(f"{len(steps)} steps; at most 3")
        if not (out.flags.c_contiguous and out.dtype == np.uint8 and channels == 3):
            raise ValueError("out is not contiguous uint8 RGB")
        arguments = ImageArguments(
            crop=crop,
            resized=resized,
            window=(*window, high, wide),
            flip=flip,
            steps=len(steps),
            step=tuple(step for step, _ in steps),
            factor=tuple(factor for _, factor in steps),
            out=out.ctypes.data,
        )
        if isinstance(source, bytes):
            arguments.data, arguments.size = source, len(source)
        else:
            if source.strides[1:] != (3, 1) or source.dtype != np.uint8:
                raise ValueError("the rows of the pixels are not contiguous uint8 RGB")
            arguments.pixels, arguments.row_bytes = source.ctypes.data, source.strides[0]
            arguments.sides[:] = source.shape[:2]
        status = self.library.densenet121_image(ctypes.byref(arguments))
        if status == _INVALID:
            raise ValueError(
                f"invalid crop {crop}, resized {resized}, window {window}, steps {steps} or out "
                f"{out.shape}"
            )
        return _is_done(status)

    def affine(
        self,
        image: NDArray[np.uint8],
        matrix: tuple[float, float, float, float, float, float],
        fill: tuple[int, int, int],
    ) -> NDArray[np.uint8]:
        """Resample an image bilinearly, equal to Pillow's ``Image.transform`` with AFFINE.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            matrix: a, b, c, d, e, f; pixel (x, y) of the result comes from (a x + b y + c,
                d x + e y + f), all measured at the middle of a pixel.
            fill: R, G, B where that is outside the image.
        """
        image = _rgb(image)
        out = np.empty_like(image)
        status = self.library.densenet121_affine(
            image.ctypes.data,
            *image.shape[:2],
            (ctypes.c_double * 6)(*matrix),
            (ctypes.c_uint8 * 3)(*fill),
            out.ctypes.data,
        )
        _is_done(status)
        return out

    def crc32c(self, data: bytes) -> int | None:
        """The sum of RFC 3720, or None if the library was built before it had one."""
        if not hasattr(self.library, "densenet121_crc32c"):
            return None
        return int(self.library.densenet121_crc32c(data, len(data)))

    def sharpen(self, image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
        """Sharpen an image, equal to Pillow's ``ImageEnhance.Sharpness``.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            factor: 0 smooths, 1 changes nothing, more sharpens.
        """
        image = _rgb(image)
        out = np.empty_like(image)
        self.library.densenet121_sharpen(
            image.ctypes.data, *image.shape[:2], factor, out.ctypes.data
        )
        return out


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``image`` without gaps between its rows."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"not RGB of uint8: {image.dtype} of shape {image.shape}")
    return np.ascontiguousarray(image)


def _is_done(status: int) -> bool:
    if status == _NO_MEMORY:
        raise MemoryError("not enough memory for an image")
    return status == _DONE


@functools.cache
def image_kernel() -> ImageKernel | str:
    """The best build that this machine can run, or the reason why there is none."""
    wanted = os.environ.get("DENSENET121_KERNELS", "")
    if wanted == "off":
        return "DENSENET121_KERNELS is off"
    if (unknown := unknown_kernels()) is not None:
        return unknown
    reasons = []
    for build, needed in _BUILDS.items():
        if wanted == "portable" and build != "portable":
            continue
        if not capabilities().issuperset(needed):
            reasons.append(f"{build}: not supported by this processor")
            continue
        loaded = load_library(Path(__file__).parent, build, VERSION, (ImageArguments,))
        if isinstance(loaded, ctypes.CDLL):
            return ImageKernel(build, loaded)
        reasons.append(f"{build}: {loaded}")
    return "; ".join(reasons)
