"""Map the parameter names of other programs to ours, which are torchvision's."""

import functools
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from densenet121.network import NETWORKS, build
from densenet121.utils.errors import InputError, one_line

T = TypeVar("T")

# torchvision's files from before 2018 have norm.1 instead of norm1.
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(1|2)\.")
_MINDSPORE_LAST = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_MINDSPORE_LAST_BACK = {ours: theirs for theirs, ours in _MINDSPORE_LAST.items()}
_WRAPPERS = ("network", "backbone", "_backbone")
# Entries of a MindSpore training checkpoint besides weights and moments; the network needs none.
MINDSPORE_STATE = frozenset(
    (
        "global_step",
        "momentum",
        "learning_rate",
        "epoch_num",
        "step_num",
        "scale_sense",
        "loss_scale",
        "weight_decay",
        "current_iterator_step",
        "last_overflow_iterator_step",
        "beta1_power",
        "beta2_power",
        "mu_schedule",  # of mindcv's NAdam
        "updates",  # of mindcv's training step, with an average, clipped or accumulated gradients
    )
)


def renamed(values: Mapping[str, T], rename: Callable[[str], str], path: Path) -> dict[str, T]:
    """The values under other names.

    Raises:
        InputError: two names become the same, so one value would silently replace the other.
    """
    before: dict[str, str] = {}
    for name in values:
        new = rename(name)
        if new in before:
            first, second = one_line(before[new]), one_line(name)
            raise InputError(
                f'{path}: "{first}" and "{second}" both map to {one_line(new)}, so which of them '
                "the network uses is unknown; save a state dict that has only the one"
            )
        before[new] = name
    return {new: values[name] for new, name in before.items()}


def from_torchvision(name: str) -> str:
    """Torchvision's and timm's names equal ours; torchvision's before 2018 have more dots."""
    return _DOTTED.sub(r"\1\2.", name)


def from_mindspore(name: str) -> str:
    """From the model zoo's ``backbone.features...gamma`` or mindcv's ``features...gamma``."""
    for word in _WRAPPERS:
        name = name.removeprefix(f"{word}.")
    name = re.sub(r"^head\.fc\.", "classifier.", name)
    name = re.sub(
        r"^(features\.denseblock\d+)\.cell_list\.(\d+)\.",
        lambda found: f"{found[1]}.denselayer{int(found[2]) + 1}.",
        name,
    )
    name = re.sub(r"^(features\.transition\d+)\.features\.", r"\1.", name)
    rest, _, last = name.rpartition(".")
    return f"{rest}.{_MINDSPORE_LAST.get(last, last)}" if rest else name


def mindspore_copies(names: Collection[str]) -> list[str]:
    """Names of what a training checkpoint has for each parameter beside it.

    Optimisers put a word before the parameter's name, such as ``moment1`` of Adam, and averages
    ``ema``. The words of a network that is wrapped, as in ``network.backbone``, are no such words.
    """
    own = {from_mindspore(name) for name in names}
    split = ((name, *name.partition(".")[::2]) for name in names)
    return [n for n, word, rest in split if word not in _WRAPPERS and from_mindspore(rest) in own]


def to_mindspore(name: str, *, model_zoo: bool) -> str:
    """Our name to that of the model zoo's network, or of mindcv's."""
    rest, _, last = name.rpartition(".")
    if rest.startswith("features.") and ".conv" not in f".{rest}":
        last = _MINDSPORE_LAST_BACK[last]
    rest = re.sub(
        r"^(features\.denseblock\d+)\.denselayer(\d+)\.",
        lambda found: f"{found[1]}.cell_list.{int(found[2]) - 1}.",
        rest,
    )
    rest = re.sub(r"^(features\.transition\d+)\.", r"\1.features.", rest)
    if model_zoo:
        rest = "head.fc" if rest == "classifier" else f"backbone.{rest}"
    return f"{rest}.{last}"


def from_mmpretrain(name: str) -> str:
    """From mmpretrain's ``backbone.stages.0.block.0.norm1.weight`` and ``head.fc.weight``.

    Its last transition is only the last batch norm, named by number.
    """
    name = name.removeprefix("backbone.")
    name = re.sub(r"^head\.fc\.", "classifier.", name)
    name = re.sub(r"^stem\.0\.", "features.conv0.", name)
    name = re.sub(r"^stem\.1\.", "features.norm0.", name)
    name = re.sub(
        r"^stages\.(\d+)\.block\.(\d+)\.",
        lambda found: f"features.denseblock{int(found[1]) + 1}.denselayer{int(found[2]) + 1}.",
        name,
    )
    name = re.sub(r"^transitions\.\d+\.0\.", "features.norm5.", name)
    return re.sub(
        r"^transitions\.(\d+)\.",
        lambda found: f"features.transition{int(found[1]) + 1}.",
        name,
    )


def from_densenet_bc(name: str) -> str:
    """From the CIFAR networks of andreasveit/densenet-pytorch and its many forks."""
    name = re.sub(r"^conv1\.", "features.conv0.", name)
    name = re.sub(r"^bn1\.", "features.norm5.", name)
    name = re.sub(r"^fc\.", "classifier.", name)
    name = re.sub(
        r"^block(\d+)\.layer\.(\d+)\.(bn|conv)",
        lambda found: (
            f"features.denseblock{found[1]}.denselayer{int(found[2]) + 1}."
            f"{'norm' if found[3] == 'bn' else 'conv'}"
        ),
        name,
    )
    name = re.sub(r"^trans(\d+)\.bn1\.", r"features.transition\1.norm.", name)
    return re.sub(r"^trans(\d+)\.conv1\.", r"features.transition\1.conv.", name)


def network_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The network of NETWORKS with this stem and these blocks, by names and shapes only."""
    layers: dict[int, int] = {}
    for name in tensors:
        found = re.fullmatch(r"features\.denseblock(\d+)\.denselayer(\d+)\.conv2\.weight", name)
        if found:
            layers[int(found[1])] = max(layers.get(int(found[1]), 0), int(found[2]))
    blocks = tuple(layers[b] for b in sorted(layers))
    stem = tensors.get("features.conv0.weight")
    growth = tensors.get("features.denseblock1.denselayer1.conv2.weight")
    if stem is None or growth is None:
        return None
    signature = (blocks, _outputs_and_size(stem), int(growth.shape[0]))
    return next((net for net in NETWORKS if _signature(net) == signature), None)


def _outputs_and_size(stem: Tensor) -> tuple[int, ...]:
    return (stem.shape[0], *stem.shape[2:])


@functools.cache
def _signature(net: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Layers of each block, outputs and size of conv0, and growth rate."""
    with torch.device("meta"):  # shapes without memory
        model = build(net, num_classes=2)
    return (
        model.block_config,
        _outputs_and_size(model.state_dict()["features.conv0.weight"]),
        model.growth_rate,
    )
