"""The stages of a network, from the images to the logits: what can be frozen, or learn slower."""

from collections.abc import Sequence

from torch import nn

from densenet121.network.densenet import DenseNet
from densenet121.utils.errors import UsageError


def stages(model: DenseNet) -> dict[str, list[nn.Module]]:
    """Name to modules, in order: stem, block1 and so on, head.

    The stem has everything before the first block; a block its transition, or after the last block
    norm5; the head is the classifier. Together they have every parameter exactly once.
    """
    found: dict[str, list[nn.Module]] = {"stem": []}
    current = "stem"
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            current = name.removeprefix("dense")
            found[current] = []
        found[current].append(module)
    return found | {"head": [model.classifier]}


def frozen_stages(model: DenseNet, freeze: str) -> list[str]:
    """Names of the stages that ``freeze`` freezes: all from the stem to the one that it names.

    Raises:
        UsageError: the network has no such stage.
    """
    names = list(stages(model))
    if freeze == "none":
        return []
    if freeze == "all_but_head":
        return names[:-1]
    if freeze not in names:
        allowed = ", ".join(["none", *names[:-1], "all_but_head"])
        raise UsageError(f"`freeze` must be one of {allowed} for this network, got {freeze}")
    return names[: names.index(freeze) + 1]


def set_frozen(model: DenseNet, names: Sequence[str], norms: str) -> None:
    """Freeze the stages ``names``, and thaw all others.

    A frozen stage gets no gradients. Its batch norms are in evaluation mode, so neither their
    weights nor their running statistics change.

    Args:
        model: the network; every module's mode is set.
        names: stages to freeze, from the stem on.
        norms: "auto" fixes the statistics of the batch norms in frozen stages, "1" those of all
            batch norms, "0" those of none.
    """
    for name, modules in stages(model).items():
        for module in modules:
            module.train()
            module.requires_grad_(name not in names)
            for norm in module.modules():
                if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                    norm.train(norms == "0" or (norms == "auto" and name not in names))
