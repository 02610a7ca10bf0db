"""The asymmetric loss against its formula, the paper's program, and what it contains."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from densenet121.losses import Asymmetry, masked_asymmetric_loss, masked_binary_cross_entropy
from densenet121.utils.errors import InputError


def batch(seed: int, unknown: float, n: int = 7, k: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * 3
    targets = (torch.rand(n, k, generator=generator) < 0.3).double()
    targets[torch.rand(n, k, generator=generator) < unknown] = math.nan
    return logits.requires_grad_(), targets


def papers_cells(logits: Tensor, targets: Tensor, asymmetry: Asymmetry) -> Tensor:
    """``AsymmetricLoss.forward`` of Alibaba-MIIL/ASL before its sum, of known cells."""
    y, anti = targets, 1 - targets
    xs_pos = logits.sigmoid()
    xs_neg = (1 - xs_pos + asymmetry.clip).clamp(max=1)
    loss = y * xs_pos.clamp(min=1e-8).log() + anti * xs_neg.clamp(min=1e-8).log()
    pt = xs_pos * y + xs_neg * anti
    gamma = asymmetry.gamma_pos * y + asymmetry.gamma_neg * anti
    return -loss * (1 - pt) ** gamma


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_a_batch_by_hand() -> None:
    # p = 0.8, 0.5, 0.2 and 0.04, which is within the margin
    logits = torch.tensor([[0.8, 0.5, 0.2, 0.04]], dtype=torch.float64).logit()
    targets = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    cells = [
        -0.2 * math.log(0.8),
        -(0.45**4) * math.log(0.55),
        -0.8 * math.log(0.2),
        0,
    ]
    found = masked_asymmetric_loss(logits, targets, Asymmetry())
    assert found.item() == pytest.approx(sum(cells) / 4, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000),
    st.floats(0, 1),
    st.sampled_from([0.0, 1.0, 2.0, 4.0]),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([0.0, 0.05, 0.3]),
)
def test_loss_and_gradient_are_those_of_the_papers_program_over_the_known_cells(
    seed: int, unknown: float, negative: float, positive: float, clip: float
) -> None:
    logits, targets = batch(seed, unknown)
    asymmetry = Asymmetry(negative, positive, clip)
    loss = masked_asymmetric_loss(logits, targets, asymmetry)
    found, known = gradient(loss, logits), ~targets.isnan()
    assert torch.isfinite(found).all() and not found[~known].any()  # exactly 0
    if not known.any():
        assert loss == 0
        return
    expected = papers_cells(logits[known], targets[known], asymmetry).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found, gradient(expected, logits), rtol=1e-9, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]))
def test_equal_exponents_without_a_margin_are_the_focal_loss_and_cross_entropy(
    seed: int, unknown: float, gamma: float
) -> None:
    logits, targets = batch(seed, unknown)
    loss = masked_asymmetric_loss(logits, targets, Asymmetry(gamma, gamma, 0.0))
    expected = masked_binary_cross_entropy(logits, targets, gamma=gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradient(loss, logits), gradient(expected, logits), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize(
    "asymmetry", [Asymmetry(), Asymmetry(0.5, 0.5, 0.0), Asymmetry(2.0, 0.0, 0.2)], ids=str
)
def test_its_gradient_is_that_of_finite_differences(asymmetry: Asymmetry) -> None:
    logits, targets = batch(3, 0.3)
    assert torch.autograd.gradcheck(lambda x: masked_asymmetric_loss(x, targets, asymmetry), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "asymmetry", [Asymmetry(), Asymmetry(0.1, 0.1, 0.0), Asymmetry(0.0, 0.0, 0.05)], ids=str
)
def test_extreme_logits_have_a_finite_loss_and_gradient(
    asymmetry: Asymmetry, dtype: torch.dtype
) -> None:
    sides = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]], dtype=dtype)
    logits = sides.repeat(2, 1).requires_grad_()
    targets = torch.tensor([[0.0], [1.0]]).expand(2, 5)
    loss = masked_asymmetric_loss(logits, targets, asymmetry)
    assert torch.isfinite(loss) and torch.isfinite(gradient(loss, logits)).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, targets = batch(1, 0.2)
    half = logits.detach().bfloat16()
    found = masked_asymmetric_loss(half, targets.float(), Asymmetry())
    assert found.dtype == torch.float32
    assert found == masked_asymmetric_loss(half.float(), targets.float(), Asymmetry())


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match=r"needs logits and targets \(N, K\)"):
        masked_asymmetric_loss(torch.zeros(2, 3), torch.zeros(2), Asymmetry())
