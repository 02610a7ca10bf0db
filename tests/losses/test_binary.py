"""The loss of several labels against torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from densenet121.losses import masked_binary_cross_entropy
from densenet121.utils.errors import InputError


def batch(seed: int, unknown: float, n: int = 7, k: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * 3
    targets = (torch.rand(n, k, generator=generator) < 0.3).double()
    targets[torch.rand(n, k, generator=generator) < unknown] = math.nan
    return logits.requires_grad_(), targets


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 0.9), st.booleans())
def test_loss_and_gradient_are_torchs_over_the_known_cells_each_with_its_weight(
    seed: int, unknown: float, smooth: float, weighted: bool
) -> None:
    logits, targets = batch(seed, unknown)
    weight = torch.rand(5, dtype=torch.float64) * 10 if weighted else None
    loss = masked_binary_cross_entropy(logits, targets, smooth_factor=smooth, pos_weight=weight)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    known = ~targets.isnan()
    if not known.any():
        assert loss == 0
        assert not logits.grad.any()
        return
    copy = logits.detach().clone().requires_grad_()
    wanted = targets.nan_to_num() * (1 - smooth) + smooth / 2
    cells = F.binary_cross_entropy_with_logits(copy, wanted, reduction="none")
    if weight is not None:
        cells = cells * torch.where(targets == 1, weight, 1.0)
    expected = cells[known].mean()
    torch.autograd.backward(expected)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits.grad, copy.grad, rtol=1e-12, atol=1e-12)
    assert not logits.grad[~known].any()  # exactly 0


def test_without_smoothing_the_weight_of_positive_cells_is_torchs() -> None:
    logits, targets = batch(3, 0.0)
    weight = torch.tensor([0.2, 1.0, 3.0, 50.0, 7.0], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    torch.testing.assert_close(
        masked_binary_cross_entropy(logits, targets, pos_weight=weight), expected
    )


def test_a_smoothed_negative_cell_is_not_learned_as_a_positive_one() -> None:
    """The smallest loss is at the smoothed target, whatever the weight of positive cells is."""
    for target, smoothed in ((0.0, 0.05), (1.0, 0.95)):
        logit = torch.tensor([[smoothed]], dtype=torch.float64).logit().requires_grad_()
        loss = masked_binary_cross_entropy(
            logit,
            torch.tensor([[target]], dtype=torch.float64),
            smooth_factor=0.1,
            pos_weight=torch.tensor([50.0], dtype=torch.float64),
        )
        torch.autograd.backward(loss)
        assert logit.grad is not None
        assert abs(logit.grad.item()) < 1e-12


def test_half_precision_is_computed_in_float32() -> None:
    logits, targets = batch(1, 0.2)
    half = logits.detach().bfloat16()
    found = masked_binary_cross_entropy(half, targets.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, masked_binary_cross_entropy(half.float(), targets.float()), rtol=0, atol=0
    )


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match=r"needs logits and targets \(N, K\)"):
        masked_binary_cross_entropy(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_is_its_formula_over_the_known_cells(gamma: float) -> None:
    logits, targets = batch(2, 0.3)
    found = masked_binary_cross_entropy(logits, targets, gamma=gamma)
    known = ~targets.isnan()
    share = torch.where(targets == 1, logits.sigmoid(), 1 - logits.sigmoid())[known]
    torch.testing.assert_close(found, (-((1 - share) ** gamma) * share.log()).mean())
    torch.autograd.backward(found)
    assert logits.grad is not None
    assert not logits.grad[~known].any()
