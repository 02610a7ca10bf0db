"""Tests that need kernels, and how far two tensors are apart."""

import pytest
import torch
from torch import Tensor

from densenet121.native.network import kernels

LIBRARY = kernels()
needs_kernels = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernels here: {LIBRARY}")
needs_bf16 = pytest.mark.skipif(
    isinstance(LIBRARY, str) or not LIBRARY.supports(torch.bfloat16),
    reason="no kernels for bf16 on this machine",
)


def distance(a: Tensor | None, b: Tensor | None, floor: float = 1e-30) -> float:
    """Relative to b, in the Euclidean norm; or to ``floor`` where b is smaller than that."""
    assert a is not None
    assert b is not None
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(floor))
