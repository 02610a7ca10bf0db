"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch.

Each image is mixed with the one before it in the batch, the first with the last, as in torchvision;
the order of the images is random already. Targets stay as they are: the loss is the mean of the two
images' losses with the same shares, which equals the loss of mixed targets for every loss that is
linear in them, such as cross-entropy, with or without label smoothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

# Beside the streams of augmentation (below 2**63) and of the image order, whose counter has 0 in
# its last place (datasets/sampler.py).
_STREAM = 2**63


@dataclass(frozen=True)
class Mix:
    """How the images of one batch are mixed.

    Attributes:
        share: of each image itself in its loss; the rest is that of the other image.
        box: top, bottom, left, right of what comes from the other image (CutMix); None mixes all
            pixels (mixup).
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def images(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)``, mixed; in the memory format of ``images``."""
        other = images.roll(1, 0)
        if self.box is None:
            return images * self.share + other * (1 - self.share)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return mixed

    def loss(
        self, loss_function: Callable[..., Tensor], logits: Tensor, targets: Tensor, *more: Tensor
    ) -> Tensor:
        """Loss of the logits of mixed images, from the targets of the images as they were.

        ``more`` is of the mixed images already, such as a teacher's logits.
        """
        other = loss_function(logits, targets.roll(1, 0), *more)
        return loss_function(logits, targets, *more) * self.share + other * (1 - self.share)


@dataclass(frozen=True)
class Mixing:
    """What is drawn for each batch; with both on, one of the two with equal probability.

    Attributes:
        mixup: alpha of the distribution Beta(alpha, alpha) of the share; 0 is off.
        cutmix: the same for CutMix, of the share before the box is clipped.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether any batch is mixed."""
        return bool(self.mixup or self.cutmix)

    def draw(
        self, size: tuple[int, int], *, seed: int, epoch: int, step: int, rank: int, part: int
    ) -> Mix:
        """The mix of one batch: a pure function of these keys.

        Args:
            size: height and width of the images, in pixels.
            seed: seed of the run.
            epoch: number of the epoch.
            step: number of the step in its epoch.
            rank: number of the process.
            part: number of the batch in its step.
        """
        key = np.array([seed, _STREAM + epoch], dtype=np.uint64)
        counter = np.array([0, part, rank, step + 1], dtype=np.uint64)
        raw = np.random.Philox(key=key, counter=counter).random_raw(4)
        kind, share, *centre = ((raw >> np.uint64(11)) * 2.0**-53).tolist()
        is_cutmix = bool(self.cutmix and (not self.mixup or kind < 0.5))
        share = _beta(self.cutmix if is_cutmix else self.mixup, share)
        if not is_cutmix:
            return Mix(share)
        half = 0.5 * math.sqrt(1 - share)
        top, bottom = _side(size[0], half, centre[0])
        left, right = _side(size[1], half, centre[1])
        # Of the box as clipped.
        share = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
        return Mix(share, (top, bottom, left, right))


def _beta(alpha: float, u: float) -> float:
    """The number of the distribution Beta(alpha, alpha) below which a share ``u`` lies."""
    from scipy.special import betaincinv  # not at the top: most runs need no scipy

    return float(betaincinv(alpha, alpha, u))


def _side(length: int, half: float, u: float) -> tuple[int, int]:
    """Where a box of ``2 * half`` of the length begins and ends, around a uniform centre."""
    centre, reach = int(u * length), int(half * length)
    return max(centre - reach, 0), min(centre + reach, length)
