"""The focal loss against its definition, torchvision's binary form, and cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.losses import focal_loss, smooth_cross_entropy
from densenet121.utils.errors import InputError


def batch(classes: int, count: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(count, classes, dtype=torch.float64, generator=generator)
    return logits, torch.randint(classes, (count,), generator=generator)


def by_hand(logits: Tensor, labels: Tensor, gamma: float, weights: list[float]) -> float:
    """Image by image, in Python's own numbers."""
    total = of = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = math.exp(row[label]) / sum(map(math.exp, row))
        total += weights[label] * -((1 - p) ** gamma) * math.log(p)
        of += weights[label]
    return total / of


def sigmoid_focal_loss(inputs: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """``torchvision.ops.sigmoid_focal_loss`` with alpha -1 and reduction "mean", written out."""
    p = torch.sigmoid(inputs)
    ce_loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    return (ce_loss * ((1 - p_t) ** gamma)).mean()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_is_its_definition(gamma: float, classes: int) -> None:
    logits, labels = batch(classes)
    weights = [1 + 0.5 * label for label in range(classes)]
    found = focal_loss(logits, labels, gamma, torch.tensor(weights))
    assert found.item() == pytest.approx(by_hand(logits, labels, gamma, weights), rel=1e-9)
    plain = focal_loss(logits, labels, gamma)
    assert plain.item() == pytest.approx(by_hand(logits, labels, gamma, [1.0] * classes), rel=1e-9)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_of_two_classes_it_is_torchvisions_binary_loss_with_its_gradient(gamma: float) -> None:
    logits, labels = batch(2, 50)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = sigmoid_focal_loss(theirs[:, 1] - theirs[:, 0], labels.double(), gamma)
    found = focal_loss(ours, labels, gamma)
    assert torch.allclose(found, expected, rtol=1e-10)
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


def test_without_an_exponent_it_is_cross_entropy_to_the_bit() -> None:
    logits, labels = batch(7)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        given = logits.to(dtype)
        assert torch.equal(focal_loss(given, labels, 0.0), smooth_cross_entropy(given, labels))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_certain_answers_have_finite_gradients(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [0.0, 1e-4]], dtype=dtype)
    logits.requires_grad_()
    loss = focal_loss(logits, torch.tensor([0, 0, 1]), gamma)  # sure and right, sure and wrong
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and loss.dtype == torch.float32
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    assert logits.grad[0].abs().sum() == 0 < logits.grad[1].abs().sum()


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits, labels = batch(4, 5)
    assert torch.autograd.gradcheck(
        lambda x: focal_loss(x, labels, 2.0, torch.tensor([1.0, 2.0, 0.5, 1.5])),
        logits.requires_grad_(),
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="from 0 to 2, got 3"):
        focal_loss(torch.zeros(1, 3), torch.tensor([3]), 2.0)
    with pytest.raises(InputError, match="needs logits"):
        focal_loss(torch.zeros(3), torch.tensor([0]), 2.0)
