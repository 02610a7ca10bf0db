"""torchvision's half of tests/system/test_frameworks_augmentation.py.

Runs torchvision's own transforms, with given numbers in place of its random ones:
image_*.npy (uint8) and draws.npy in FOLDER -> found.npz, versions.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import v2

MEAN_FILL = [124, 116, 104]
BILINEAR = T.InterpolationMode.BILINEAR


class Numbers:
    """In place of torch.randint and torch.empty(1).uniform_: the next of the given numbers."""

    def __init__(self):
        self.queue = []

    def randint(self, *bounds, **_):
        low, high = bounds[:2] if len(bounds) > 1 and isinstance(bounds[1], int) else (0, bounds[0])
        return torch.tensor([low + int(self.queue.pop(0) * (high - low))])

    def empty(self, *_, **__):
        return self

    def uniform_(self, low, high):
        low, high = float(low), float(high)
        return torch.tensor([low + self.queue.pop(0) * (high - low)], dtype=torch.float64)

    def rand(self, *_):
        return torch.zeros(1)

    def sample(self, *_):
        return torch.tensor([self.queue.pop(0)], dtype=torch.float64)


NUMBERS = Numbers()


def policy_numbers(kind, operations, u):
    """In the order in which torchvision asks: operation, magnitude, sign, where there are any."""
    space = T.TrivialAugmentWide()._augmentation_space(31)
    for operation in range(operations):
        name, magnitude, sign = u[3 * operation : 3 * operation + 3]
        magnitudes, signed = list(space.values())[int(name * 14)]
        yield name
        if kind == "trivial" and magnitudes.ndim > 0:
            yield magnitude
        if signed:
            yield 1 - 2**-53 - sign  # it negates for 1, we below a half


def policies(images, draws):
    found = {}
    for name, image in images.items():
        for mode in ("bilinear", "nearest"):
            how = {"interpolation": T.InterpolationMode(mode), "fill": MEAN_FILL}
            for kind, transform, operations in (
                ("trivial", T.TrivialAugmentWide(**how), 1),
                ("rand", T.RandAugment(2, 9, **how), 2),
                ("rand", T.RandAugment(3, 20, **how), 3),
            ):
                for number, u in enumerate(draws):
                    NUMBERS.queue = list(policy_numbers(kind, operations, u[64:]))
                    result = np.asarray(transform(Image.fromarray(image)))
                    assert not NUMBERS.queue
                    found[f"{kind}{operations}/{name}/{mode}/{number}"] = result
    return found


def affine(images, draws):
    found = {}
    transform = T.RandomAffine(25, (0.1, 0.1), (0.8, 1.2), 10, BILINEAR, MEAN_FILL)
    for name, image in images.items():
        for number, u in enumerate(draws):
            NUMBERS.queue = list(u[34:39])
            found[f"affine/{name}/{number}"] = np.asarray(transform(Image.fromarray(image)))
    return found


def erasing(images, draws):
    """On a tensor of ones, so that what is erased shows."""
    found = {}
    transform = T.RandomErasing(1.0)
    for name, image in images.items():
        for number, u in enumerate(draws):
            # Area and ratio of as many attempts as it takes; then the place.
            for attempts in range(1, 11):
                NUMBERS.queue = [*u[40 : 40 + 2 * attempts], *u[60:62]]
                try:
                    result = transform(torch.ones(3, *image.shape[:2]))
                except IndexError:
                    continue
                if not NUMBERS.queue:
                    break
            found[f"erasing/{name}/{number}"] = result[0].numpy() == 0
    return found


def mixes(folder):
    """Batches of mixup and CutMix, for given shares and centres."""
    batch = torch.from_numpy(np.load(folder / "batch.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    found = {}
    for number, (share, down, right) in enumerate(np.load(folder / "shares.npy")):
        for name, transform in (
            ("mixup", v2.MixUp(num_classes=7)),
            ("cutmix", v2.CutMix(num_classes=7)),
        ):
            transform._dist = NUMBERS
            NUMBERS.queue = [share, right, down] if name == "cutmix" else [share]
            images, targets = transform(batch, labels)
            found[f"{name}/{number}/images"] = images.numpy()
            found[f"{name}/{number}/targets"] = targets.numpy()
    return found


def main(folder):
    folder = Path(folder)
    images = {file.stem[6:]: np.load(file) for file in sorted(folder.glob("image_*.npy"))}
    draws = np.load(folder / "draws.npy")
    found = mixes_with_numbers(folder)
    torch.randint, torch.rand = NUMBERS.randint, NUMBERS.rand
    found |= policies(images, draws)
    torch.empty = NUMBERS.empty
    found |= affine(images, draws) | erasing(images, draws)
    np.savez(folder / "found.npz", **found)
    versions = {"torchvision": torchvision.__version__, "pillow": PIL.__version__}
    (folder / "versions.json").write_text(json.dumps(versions))


def mixes_with_numbers(folder):
    own = torch.randint
    torch.randint = NUMBERS.randint
    try:
        return mixes(folder)
    finally:
        torch.randint = own


main(*sys.argv[1:])
