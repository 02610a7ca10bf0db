"""Weights for grey images from weights for RGB, and back: what of the function stays the same."""

from collections.abc import Mapping

import torch
from torch import Tensor

from densenet121.datasets.preprocessing import Preprocessing

CONV0 = "features.conv0.weight"
THIRDS = (
    "for one channel before: each of the three channels has a third of the first convolution, the "
    "same function for grey images"
)
SUMMED = (
    "for R, G and B before: the first convolution is summed over them, the same function for grey "
    "images"
)
_BORDER = (
    "except at the border: the means of R, G and B differ, which the next norm makes up for where "
    "no window of the first convolution reaches over the border"
)


def channels_of(state_dict: Mapping[str, Tensor]) -> int:
    """Channels of the images, by the first convolution; 3 without one."""
    weight = state_dict.get(CONV0)
    return int(weight.shape[1]) if weight is not None and weight.ndim == 4 else 3


def three_channels(weight: Tensor) -> Tensor:
    """The first convolution ``(O, 1, k, k)`` for three channels: a third of it for each.

    A grey image has three equal channels, so with one mean and one standard deviation the sum over
    the channels is the same function. Of a colour image it sees the mean of R, G and B.
    """
    weight = weight.float()
    third = weight / 3
    # The last one takes up the rounding: this difference is exact (Sterbenz), hence also the sum.
    return torch.cat([third, third, weight - 2 * third], 1)


def one_channel(
    weight: Tensor, rgb: Preprocessing, grey: Preprocessing
) -> tuple[Tensor, Tensor | None]:
    """The first convolution for grey images, ``(O, 1, k, k)``, and what its output lacks.

    With w, m, s of each channel and M, S of the grey image, a grey level g gives in a window within
    the image::

        sum w (g - m) / s  =  sum (w S / s) (g - M) / S  +  sum w (M - m) / s

    The last sum is a constant of each filter, ``(O,)``; None if all m are M. A window that reaches
    over the border has only a part of it, because the padding is 0 after normalisation: a grey of m
    in each channel there, and of M here.
    """
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (rgb.mean, rgb.std)
    )
    wide = weight.double()
    own = (wide * (grey.std[0] / std)).sum(1, keepdim=True).to(weight.dtype)
    if set(rgb.mean) == set(grey.mean):
        return own, None
    return own, (wide * (grey.mean[0] - mean) / std).sum((1, 2, 3))


def is_same_function(preprocessing: Preprocessing, channels: int) -> bool:
    """Whether ``with_channels`` gives the same function of grey images, also at the border."""
    grey = preprocessing.with_channels(1)
    return channels == 3 or set(preprocessing.mean) == set(grey.mean)


def with_channels(
    state_dict: Mapping[str, Tensor], preprocessing: Preprocessing, channels: int
) -> tuple[dict[str, Tensor], Preprocessing, str]:
    """Weights for another number of channels, their preprocessing, and a sentence on the change.

    Args:
        state_dict: by our names; its first convolution has 1 or 3 channels.
        preprocessing: of the weights as they are.
        channels: 1 or 3, another number than that of the weights.
    """
    tensors, after = dict(state_dict), preprocessing.with_channels(channels)
    if channels == 3:
        return tensors | {CONV0: three_channels(tensors[CONV0])}, after, THIRDS
    tensors[CONV0], constant = one_channel(tensors[CONV0], preprocessing, after)
    if constant is None:
        return tensors, after, SUMMED
    for name in norms_after_conv0(tensors):
        mean = tensors[name].clone()
        mean[: len(constant)] -= constant.to(mean.dtype)
        tensors[name] = mean
    return tensors, after, f"{SUMMED}, {_BORDER}"


def norms_after_conv0(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names of the running means of all norms that read conv0's output, which are their first ones.

    That is norm0; or, without one, those of the first dense block and of what follows it.
    """
    name = "features.norm0.running_mean"
    if name in state_dict:
        return [name]
    block = [n for n in state_dict if n.startswith("features.denseblock1.")]
    following = next(
        (
            n
            for n in ("features.transition1.norm.running_mean", "features.norm5.running_mean")
            if n in state_dict
        ),
        None,
    )
    return [n for n in block if n.endswith("norm1.running_mean")] + (
        [following] if following else []
    )
