"""The classifier in evaluation without gradients.

An image's logits have the same bits in any batch and with any number of threads, which libraries'
matrix products do not promise.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from densenet121.native.network.structures import ClassifierArguments
from densenet121.network.fused.conditions import (
    holds_its_numbers,
    is_untouched,
    real,
    usable_kernels,
)


def classify(classifier: nn.Module, features: Tensor) -> Tensor:
    """The logits ``(N, K)`` of features ``(N, num_features)``, by the kernel where it can.

    Without gradients they are float32 under autocast too: rounded to 8 bits, the scores of many
    images would be equal, and so would their ranks (AUROC).
    """
    logits: Tensor | None = fused_classifier(classifier, features)
    if logits is not None:
        return logits
    if torch.is_grad_enabled() or not isinstance(features, Tensor):
        return classifier(features)  # type: ignore[no-any-return]
    if not _is_rounded(classifier, features.device.type):
        return classifier(features)  # type: ignore[no-any-return]
    with torch.autocast(features.device.type, enabled=False):
        return classifier(features.float())  # type: ignore[no-any-return]


def _is_rounded(classifier: nn.Module, device: str) -> bool:
    """Whether autocast would round the weights and the logits of a float32 classifier."""
    return (
        torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
        and all(parameter.dtype == torch.float32 for parameter in classifier.parameters())
    )


def fused_classifier(classifier: nn.Module, features: Tensor) -> Tensor | None:
    """The logits ``(N, K)``, or None if the plain implementation must compute them.

    Args:
        classifier: a linear layer.
        features: its input, ``(N, num_features)``. Those in bf16 are multiplied in float32, with
            weights that are not rounded, and the logits are float32.
    """
    if torch.is_grad_enabled():
        return None
    found = usable_kernels((), features, dim=2)
    if found is None or found[1] != features.dtype:
        return None
    if found[1] == torch.bfloat16 and not torch.is_autocast_enabled("cpu"):
        return None  # the plain implementation raises the error
    x = features.to(real(found[1])).contiguous()
    prepared = prepare_classifier(classifier, x)
    if prepared is None:
        return None
    found[0].call("classifier_run", x.dtype, prepared.arguments)
    return prepared.logits


class PreparedClassifier(NamedTuple):
    """Arguments of the kernel, which writes the logits; they point to the tensors."""

    arguments: ClassifierArguments
    logits: Tensor
    others: tuple[Tensor | None, ...]


def _can_read(tensor: Tensor, dtype: torch.dtype) -> bool:
    return holds_its_numbers(tensor) and tensor.is_cpu and tensor.dtype == dtype


def prepare_classifier(classifier: nn.Module, features: Tensor) -> PreparedClassifier | None:
    """What the kernel needs to classify features, which may still have to be written.

    Args:
        classifier: a module; None is returned if it is not an unmodified linear layer for them.
        features: ``(N, num_features)`` without gaps, in float32 or float64 on the CPU; the logits
            have their type.
    """
    if not is_untouched(classifier, nn.Linear):
        return None
    assert isinstance(classifier, nn.Linear)
    weight: Tensor = classifier.weight
    bias: Tensor | None = classifier.bias
    images, columns = features.shape
    if not _can_read(weight, features.dtype) or weight.shape[1] != columns:
        return None  # the plain implementation computes it, or raises the error
    weight, classes = weight.contiguous(), weight.shape[0]
    if bias is not None:
        if not _can_read(bias, features.dtype):
            return None
        bias = bias.contiguous()
    logits = torch.empty((images, classes), dtype=features.dtype, device="cpu")
    arguments = ClassifierArguments(
        images=images,
        columns=columns,
        classes=classes,
        threads=torch.get_num_threads(),
        x=features.data_ptr(),
        weight=weight.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        y=logits.data_ptr(),
    )
    return PreparedClassifier(arguments, logits, (features, weight, bias))
