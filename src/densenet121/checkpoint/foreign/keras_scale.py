"""What the layers of a Keras model that scale grey levels are in our preprocessing.

Source: ``keras/src/layers/preprocessing/rescaling.py`` and ``normalization.py``. A Normalization
layer has its mean and variance in the configuration, or, where it was adapted to data, in the file.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

SCALES = ("Rescaling", "Normalization")
_EPSILON = 1e-7  # keras.config.epsilon(), below which no deviation is
# Before the names that these have among the tensors; no module of torch has a name with a slash.
_OWN = "normalization/"
_STATISTIC = re.compile(
    r"(?:.*/)?layers/normalization(?:_[1-9]\d*)?/vars/([01])|.*/(mean|variance)(?::0)?"
)
_Layer = tuple[str, dict[str, Any]]
_Three = tuple[float, ...]


def statistic_of(name: str) -> str | None:
    """Our name of an array of a Normalization layer, by its path in the file; None of others."""
    found = _STATISTIC.fullmatch(name)
    if found is None:
        return None
    return _OWN + (found[2] or ("mean", "variance")[int(found[1])])


def split_statistics(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """The tensors of the network, and the mean and variance of an adapted Normalization layer."""
    network = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OWN)}
    statistics = {
        name.removeprefix(_OWN): tensor.reshape(-1).tolist()
        for name, tensor in tensors.items()
        if name.startswith(_OWN)
    }
    return network, statistics


def scale_of(
    layers: Sequence[_Layer], statistics: Mapping[str, list[float]]
) -> tuple[_Three, _Three]:
    """Mean and standard deviation of the layers together, which are all of SCALES.

    Empty without layers, and where one scales other axes than the channels or its numbers are not
    in the file.

    Raises:
        KeyError, TypeError, ValueError: it is no configuration of Keras, or of no three channels.
    """
    factor: _Three = (1.0, 1.0, 1.0)
    shift: _Three = (0.0, 0.0, 0.0)  # so far the levels x are x factor + shift
    for kind, config in layers:
        step = _rescaling(config) if kind == "Rescaling" else _normalization(config, statistics)
        if step is None:
            return (), ()
        factor = tuple(f * by for f, by in zip(factor, step[0], strict=True))
        shift = tuple(s * by + to for s, by, to in zip(shift, *step, strict=True))
    if not layers:
        return (), ()
    # x factor + shift is (x - mean) / std.
    mean = tuple(-s / f + 0.0 for s, f in zip(shift, factor, strict=True))
    std = tuple(_rounded(1 / f) for f in factor)
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError
    return tuple(map(_rounded, mean)), std


def _rescaling(config: dict[str, Any]) -> tuple[_Three, _Three]:
    return _three(config["scale"]), _three(config["offset"])


def _normalization(
    config: dict[str, Any], statistics: Mapping[str, list[float]]
) -> tuple[_Three, _Three] | None:
    """Factor and shift; None where they are not known."""
    axis = config.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    given = config if config.get("mean") is not None else statistics
    if axes not in ([-1], [3], [None], []) or not {"mean", "variance"} <= set(given):
        return None
    mean, variance = _three(given["mean"]), _three(given["variance"])
    deviation = tuple(max(math.sqrt(v), _EPSILON) for v in variance)
    if config.get("invert"):
        return deviation, mean
    shift = tuple(-m / d for m, d in zip(mean, deviation, strict=True))
    return tuple(1 / d for d in deviation), shift


def _three(value: Any) -> _Three:
    while isinstance(value, list) and len(value) == 1:  # of one number, or nested as [[[[...]]]]
        value = value[0]
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3:
        raise ValueError
    return tuple(float(v) for v in values)


def _rounded(level: float) -> float:
    """As precise as float32, in which images are normalised: 1 / (1 / 255) is 255."""
    return float(f"{level:.8g}")
