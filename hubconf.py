"""The networks for torch.hub: ``torch.hub.load("FOLDER", "densenet121", source="local")``.

``weights`` is the path of a weights file of any program that densenet121 reads, by parsers that run
no code of the file.
"""

import sys
from pathlib import Path as _Path

_SOURCE = str(_Path(__file__).resolve().parent / "src")
if _SOURCE not in sys.path:
    sys.path.insert(0, _SOURCE)

from densenet121.checkpoint.pretrained import load_pretrained as _load
from densenet121.network import NETWORKS as _NETWORKS
from densenet121.network import DenseNet as _DenseNet
from densenet121.network import Variant as _Variant
from densenet121.utils.errors import InputError as _InputError
from densenet121.utils.errors import UsageError as _UsageError

# What reading weights imports, by the names of the modules.
dependencies = ["torch", "numpy", "cv2", "simplejpeg", "PIL", "safetensors"]


def _network(
    net: str,
    weights: str | None,
    num_classes: int | None,
    variant: _Variant | None,
    in_channels: int | None,
) -> _DenseNet:
    if weights is None:
        known = {"num_classes": num_classes, "variant": variant, "in_channels": in_channels}
        return _NETWORKS[net](**{key: value for key, value in known.items() if value is not None})
    found = _load(weights, net=net, variant=variant)
    if found.info is not None and found.info.net != net:
        raise _InputError(f"{weights}: weights of {found.info.net}; load that instead of {net}")
    if variant is not None and found.model.variant != variant:
        raise _UsageError(f"`variant` is {variant}, but {weights} is of {found.model.variant}")
    for name, given in (("num_classes", num_classes), ("in_channels", in_channels)):
        if given is not None and given != getattr(found.model, name):
            raise _UsageError(
                f"`{name}` is {given}, but {weights} has {getattr(found.model, name)}; omit it"
            )
    return found.model


def densenet121(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-121; with weights in evaluation mode, without them torch's random ones.

    Args:
        weights: path of a weights file; it says the other arguments, which must then fit.
        num_classes: number of logits (default: 1000).
        variant: paper (average pooling) or model_zoo (max pooling) (default: as in the file, else
            paper).
        in_channels: channels of the images, 3 for RGB or 1 for grey (default: 3).
    """
    return _network("densenet121", weights, num_classes, variant, in_channels)


def densenet161(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-161; the arguments are those of densenet121."""
    return _network("densenet161", weights, num_classes, variant, in_channels)


def densenet169(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-169; the arguments are those of densenet121."""
    return _network("densenet169", weights, num_classes, variant, in_channels)


def densenet201(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-201; the arguments are those of densenet121."""
    return _network("densenet201", weights, num_classes, variant, in_channels)


def densenet264(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-264; the arguments are those of densenet121."""
    return _network("densenet264", weights, num_classes, variant, in_channels)


def densenet100(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-BC (L = 100, k = 12) for 32 x 32 images; 10 classes if nothing else is said."""
    return _network("densenet100", weights, num_classes, variant, in_channels)


def densenet40(
    weights: str | None = None,
    *,
    num_classes: int | None = None,
    variant: _Variant | None = None,
    in_channels: int | None = None,
) -> _DenseNet:
    """DenseNet-BC (L = 40, k = 12) for 32 x 32 images; 10 classes if nothing else is said."""
    return _network("densenet40", weights, num_classes, variant, in_channels)
