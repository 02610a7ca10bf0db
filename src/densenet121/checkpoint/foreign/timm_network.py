"""What config.json says of the network itself, where neither names nor shapes tell it.

timm's ``models/_hub.py`` (1.0.31) writes the arguments that made the network as ``model_args``.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from densenet121.utils.errors import one_line
from densenet121.utils.json_values import is_text

# Of timm's DenseNet: what changes its function, but not its tensors, and what is ours.
_OURS: dict[str, tuple[Any, ...]] = {
    "act_layer": ("relu", None),
    "norm_layer": ("batchnorm2d", "batchnorm", None),
    "aa_layer": ("", None),
    "stem_type": ("", None),
}
_AVERAGES = ("avg", "fast", "fastavg")


def other_function(content: Mapping[str, Any]) -> str:
    """The first of the network's arguments that ours cannot follow, in words; empty without.

    Raises:
        TypeError: its arguments are no object.
    """
    arguments = _arguments(content)
    for name, ours in _OURS.items():
        given = arguments.get(name)
        if (given.replace("_", "").lower() if isinstance(given, str) else given) not in ours:
            wanted = f'"{ours[0]}"' if ours[0] else "none"
            return f"{name} {one_line(json.dumps(given))}, not {wanted}"
    return ""


def other_pooling(content: Mapping[str, Any]) -> str:
    """The pooling before the classifier, if it is not the average; else empty.

    Raises:
        TypeError: the network's arguments are no object, or this one no text.
    """
    given = _arguments(content).get("global_pool", content.get("global_pool", "avg"))
    if given is None or given in _AVERAGES:
        return ""
    if not is_text(given):
        raise TypeError
    return f"global_pool {one_line(given)}"


def of_training(beside: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the flags that timm's ``train.py`` saves beside the weights; empty without."""
    flags = vars(given) if isinstance(given := beside.get("args"), argparse.Namespace) else {}
    made, pooling = flags.get("model_kwargs"), flags.get("gp")
    pooled = {"global_pool": pooling} if isinstance(pooling, str) else {}
    return {"model_args": (made if isinstance(made, dict) else {}) | pooled}


def _arguments(content: Mapping[str, Any]) -> Mapping[str, Any]:
    found = content.get("model_args") or {}
    if not isinstance(found, dict):
        raise TypeError
    return found
