"""Build the network of a weights file, with a clear error if they do not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from densenet121.checkpoint.foreign.labels import Family
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo
from densenet121.checkpoint.weights import check_type
from densenet121.network import DenseNet, Variant, build
from densenet121.utils.checks import checked_path
from densenet121.utils.errors import InputError


def load_state(model: DenseNet, state_dict: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy every parameter and buffer into the network; names must match exactly.

    Raises:
        InputError: a name is unknown or missing, a shape differs, or a parameter is not of
            floating-point numbers; the text names the first.
    """
    own = model.state_dict()
    # Files from other frameworks do not count batches; the count then starts at 0.
    missing = [n for n in own if n not in state_dict and not n.endswith("num_batches_tracked")]
    unknown = [name for name in state_dict if name not in own]
    blocks = "/".join(str(layers) for layers in model.block_config)
    if unknown and not any(name.startswith("features.") for name in unknown):
        raise InputError(
            f'{source}: unknown parameter "{unknown[0]}" ({len(unknown)} in all), no part of a '
            "DenseNet; save a state dict of the network alone"
        )
    if unknown:
        raise InputError(
            f'{source}: unknown parameter "{unknown[0]}" ({len(unknown)} in all); this '
            f"network has blocks of {blocks} layers: choose another `net`?"
        )
    if missing:
        raise InputError(
            f'{source}: parameter "{missing[0]}" is missing ({len(missing)} in all); this '
            f"network has blocks of {blocks} layers: choose another `net`?"
        )
    for name, tensor in state_dict.items():
        if tensor.shape != own[name].shape:
            hint = f"; pass `num_classes` {tensor.shape[0]}" if name == "classifier.weight" else ""
            raise InputError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, but the network needs "
                f"{tuple(own[name].shape)}{hint}"
            )
        if own[name].is_floating_point():
            check_type(tensor, name, source)
    model.load_state_dict(state_dict, strict=False)


@dataclass(frozen=True)
class Pretrained:
    """A network with weights, and their description.

    Attributes:
        model: the network, in evaluation mode.
        info: network, variant, classes and preprocessing; None if the file does not record them.
        family: the program that the weights come from.
        calibration: what `calibrate` added, as plain JSON values.
        notes: of ``Weights``.
        origin: of ``Weights``.
        data: of ``Weights``.
    """

    model: DenseNet
    info: ModelInfo | None
    family: Family
    calibration: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def load_pretrained(
    path: str | Path, *, net: str = "densenet121", variant: Variant | None = None
) -> Pretrained:
    """Build the network of a weights file, with its preprocessing.

    Args:
        path: any file that ``read_weights`` reads.
        net: the network, for files that do not record it.
        variant: the variant, for files where it is not certain (default: the usual one of their
            program).

    Raises:
        InputError: the file cannot be used.
    """
    file = checked_path("path", path)
    weights = read_weights(file)
    weights.check_head(file)
    assert weights.num_classes is not None
    info = weights.info
    chosen = weights.variant_for(variant)
    model = build(
        info.net if info else net,
        num_classes=weights.num_classes,
        variant=chosen,
        in_channels=weights.channels,
    )
    load_state(model, weights.state_dict, path)
    if info is not None:
        info = replace(info, variant=chosen)
    return Pretrained(
        model.eval(),
        info,
        weights.family,
        weights.calibration,
        weights.notes,
        weights.origin,
        weights.data,
    )


def load_model(
    path: str | Path, *, net: str = "densenet121", variant: Variant | None = None
) -> DenseNet:
    """The network of ``load_pretrained``, in evaluation mode.

    Raises:
        InputError: the file cannot be used.
    """
    return load_pretrained(path, net=net, variant=variant).model
