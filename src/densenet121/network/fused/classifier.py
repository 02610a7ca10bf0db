"""The classifier in evaluation without gradients.

An image's logits have the same bits in any batch and with any number of threads, which libraries'
matrix products do not promise.
"""

import torch
from torch import Tensor, nn

from densenet121.native.network.structures import ClassifierArguments
from densenet121.network.fused.conditions import is_untouched, usable_kernels


def classify(classifier: nn.Module, features: Tensor) -> Tensor:
    """The logits ``(N, K)`` of features ``(N, num_features)``, by the kernel where it can."""
    logits = fused_classifier(classifier, features)
    if logits is None:
        logits = classifier(features)
    return logits


def fused_classifier(classifier: nn.Module, features: Tensor) -> Tensor | None:
    """The logits ``(N, K)``, or None if the plain implementation must compute them.

    Args:
        classifier: a linear layer.
        features: its input, ``(N, num_features)``.
    """
    if torch.is_grad_enabled() or not is_untouched(classifier, nn.Linear):
        return None
    assert isinstance(classifier, nn.Linear)
    weight, bias = classifier.weight, classifier.bias
    parameters = [weight] if bias is None else [weight, bias]
    found = usable_kernels(parameters, features, dim=2)
    if (
        found is None
        or found[1] != features.dtype
        or found[1] not in (torch.float32, torch.float64)
    ):
        return None
    if features.shape[1] != weight.shape[1]:
        return None  # the plain implementation raises the error
    kernels, dtype = found
    # Variables, so that copies live until the kernel has ended.
    x, w = features.contiguous(), weight.contiguous()
    b = None if bias is None else bias.contiguous()
    y = torch.empty((len(x), len(w)), dtype=dtype)
    arguments = ClassifierArguments(
        images=len(x),
        columns=x.shape[1],
        classes=len(w),
        threads=torch.get_num_threads(),
        x=x.data_ptr(),
        weight=w.data_ptr(),
        bias=None if b is None else b.data_ptr(),
        y=y.data_ptr(),
    )
    kernels.call("classifier_run", dtype, arguments)
    return y
