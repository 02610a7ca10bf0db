"""Digests of what the image kernel makes of drawn recipes: image_bits.py FOLDER.

Writes JPEGs into the folder if it has none, and reads them otherwise, so that two machines can be
compared: the encoders, OpenCV and Pillow round differently on different processors.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densenet121.native.images import ImageKernel, image_kernel

Pixels = NDArray[np.uint8]
RECIPES = 60


def write_jpegs(folder: Path, rng: np.random.Generator) -> None:
    """Of each kind that the kernel reads, in odd sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(24):
        height, width = (int(n) for n in rng.integers(9, 150, 2))
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        image = small.resize((width, height), Image.Resampling.BICUBIC)
        if number % 4 == 3:
            image.convert("L").save(folder / f"{number:02}.jpg", quality=85)
        else:
            quality = int(rng.integers(30, 100))
            image.save(folder / f"{number:02}.jpg", quality=quality, subsampling=number % 4)


def draw(kernel: ImageKernel, source: bytes | Pixels, rng: np.random.Generator) -> bytes:
    """The pixels of one recipe."""
    sides = kernel.jpeg_size(source) if isinstance(source, bytes) else source.shape[:2]
    assert sides is not None

    def part(whole: int) -> tuple[int, int]:
        size = int(rng.integers(1, whole + 1))
        return int(rng.integers(0, whole - size + 1)), size

    top, crop_height = part(sides[0])
    left, crop_width = part(sides[1])
    resized = int(rng.integers(1, 90)), int(rng.integers(1, 90))
    window_top, height = part(resized[0])
    window_left, width = part(resized[1])
    out = np.zeros((height, width, 3), np.uint8)
    assert kernel.image(
        source,
        out,
        crop=(top, left, crop_height, crop_width),
        resized=resized,
        window=(window_top, window_left),
        flip=bool(rng.integers(2)),
        steps=tuple((int(s), float(rng.uniform(0, 2))) for s in rng.permutation(3)),
    )
    return out.tobytes()


def main() -> None:
    """Print a digest for each JPEG, for pixels, and for affine maps and sharpening."""
    folder = Path(sys.argv[1])
    if not list(folder.glob("*.jpg")):
        write_jpegs(folder, np.random.default_rng(1))
    kernel = image_kernel()
    assert isinstance(kernel, ImageKernel), kernel
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (71, 93, 3), dtype=np.uint8)
    sources: dict[str, bytes | Pixels] = {
        p.name: p.read_bytes() for p in sorted(folder.glob("*.jpg"))
    }
    for name, source in {**sources, "pixels": pixels}.items():
        images = b"".join(draw(kernel, source, rng) for _ in range(RECIPES))
        print(name, hashlib.sha256(images).hexdigest())
    digest = hashlib.sha256()
    for _ in range(RECIPES):
        a, b, d, e = (float(n) for n in rng.uniform(-2, 2, 4))
        c, f = (float(n) for n in rng.uniform(-60, 60, 2))
        digest.update(kernel.affine(pixels, (a, b, c, d, e, f), (1, 2, 3)).tobytes())
        digest.update(kernel.sharpen(pixels, float(rng.uniform(0, 3))).tobytes())
    print("affine and sharpened", digest.hexdigest())


main()
