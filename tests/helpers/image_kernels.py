"""Each build of the image kernel that this machine can run."""

from pathlib import Path

import pytest

from densenet121.native import images as native_images
from densenet121.native.images import ImageKernel, image_kernel
from densenet121.native.library import load_library


def kernel(build: str) -> ImageKernel:
    """The build; the test is skipped where it does not run."""
    best = image_kernel()
    if isinstance(best, str):
        pytest.skip(best)
    if build == best.build:
        return best
    if best.build == "portable":
        pytest.skip(f"{build} does not run on this processor")
    folder = Path(native_images.__file__).parent
    loaded = load_library(folder, build, native_images.VERSION, (native_images.ImageArguments,))
    assert not isinstance(loaded, str), loaded
    return ImageKernel(build, loaded)


builds = pytest.mark.parametrize("build", ["avx2", "portable"])
