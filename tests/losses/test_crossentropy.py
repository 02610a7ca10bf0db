import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.losses import smooth_cross_entropy
from densenet121.network import densenet121
from densenet121.utils.errors import InputError
from densenet121.utils.var_init import initialise


def batch(num_classes: int, n: int = 6, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(num_classes, (n,), generator=generator)


@settings(deadline=None)  # a busy machine is not a failure
@given(
    num_classes=st.integers(2, 30),
    smooth_factor=st.floats(0, 0.999),
    seed=st.integers(0, 2**32),
)
def test_loss_and_gradient_are_those_of_the_originals_dense_target(
    num_classes: int, smooth_factor: float, seed: int
) -> None:
    logits, labels = batch(num_classes, seed=seed)
    logits.requires_grad_()
    target = torch.full_like(logits, smooth_factor / (num_classes - 1), requires_grad=False)
    target.scatter_(1, labels.unsqueeze(1), 1 - smooth_factor)
    expected = F.cross_entropy(logits, target)
    loss = smooth_cross_entropy(logits, labels, smooth_factor)
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, logits)
    (expected_grad,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(grad, expected_grad)


def test_without_smoothing_it_is_torchs_cross_entropy() -> None:
    logits, labels = batch(1000)
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(smooth_cross_entropy(logits, labels), expected)
    torch.testing.assert_close(
        smooth_cross_entropy(logits.float(), labels), expected.float(), rtol=1e-6, atol=1e-6
    )


def test_torchs_label_smoothing_needs_a_larger_number_for_the_same_loss() -> None:
    logits, labels = batch(1000)
    loss = smooth_cross_entropy(logits, labels, 0.1)
    same = F.cross_entropy(logits, labels, label_smoothing=0.1 * 1000 / 999)  # 0.1001001
    torch.testing.assert_close(loss, same)
    assert loss > F.cross_entropy(logits, labels, label_smoothing=0.1)


def test_two_classes_by_hand() -> None:
    # logits (0, ln 3): probabilities 1/4 and 3/4; label 1
    logits, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])
    expected = -(0.4 * math.log(0.75) + 0.6 * math.log(0.25))
    assert smooth_cross_entropy(logits, labels, 0.6).item() == pytest.approx(expected)


def test_equal_logits_cost_the_log_of_the_number_of_classes() -> None:
    for smooth_factor in (0.0, 0.1, 0.9):
        loss = smooth_cross_entropy(torch.zeros(3, 10), torch.tensor([0, 5, 9]), smooth_factor)
        assert loss.item() == pytest.approx(math.log(10))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_class_weights_are_those_of_torch(classes: int) -> None:
    logits, labels = batch(classes)
    weights = torch.arange(1.0, classes + 1, dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, weight=weights)
    assert torch.allclose(smooth_cross_entropy(logits, labels, weights=weights), expected)
    # The scale of the weights does not matter, and equal weights are none.
    assert torch.allclose(smooth_cross_entropy(logits, labels, weights=9 * weights), expected)
    ones = torch.ones(classes)
    plain = smooth_cross_entropy(logits, labels, 0.1)
    assert torch.allclose(smooth_cross_entropy(logits, labels, 0.1, ones), plain)


def test_a_weighted_smoothed_loss_weighs_each_image_by_its_class() -> None:
    logits, labels = batch(5)
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.25], dtype=torch.float64)
    each = [
        smooth_cross_entropy(logits[i : i + 1], labels[i : i + 1], 0.2) for i in range(len(labels))
    ]
    own = weights[labels]
    expected = (torch.stack(each) * own).sum() / own.sum()
    assert torch.allclose(smooth_cross_entropy(logits, labels, 0.2, weights), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = batch(1000)
    half = (1000 * logits).to(dtype)  # their sum is far beyond float16's 65504
    loss = smooth_cross_entropy(half, labels, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, smooth_cross_entropy(half.float(), labels, 0.1))
    assert loss.isfinite()


def test_float64_logits_give_a_float64_loss() -> None:
    assert smooth_cross_entropy(*batch(5), 0.1).dtype == torch.float64


@pytest.mark.parametrize("label", [-100, -1, 10, 999])
@pytest.mark.parametrize("smooth_factor", [0.0, 0.1])
def test_a_label_outside_the_classes_is_refused_never_ignored(
    label: int, smooth_factor: float
) -> None:
    with pytest.raises(InputError, match=rf"from 0 to 9, got {label};"):
        smooth_cross_entropy(torch.zeros(3, 10), torch.tensor([0, label, 9]), smooth_factor)


@pytest.mark.parametrize("smooth_factor", [-0.1, 1.0, math.nan])
def test_a_smooth_factor_outside_its_range_is_refused(smooth_factor: float) -> None:
    with pytest.raises(InputError, match=r"smooth_factor must be in \[0, 1\)"):
        smooth_cross_entropy(torch.zeros(1, 10), torch.tensor([0]), smooth_factor)


def test_one_class_has_no_loss_and_cannot_be_smoothed() -> None:
    logits, labels = torch.randn(2, 1), torch.tensor([0, 0])
    assert smooth_cross_entropy(logits, labels).item() == 0
    with pytest.raises(InputError, match="there is no wrong class"):
        smooth_cross_entropy(logits, labels, 0.1)


@pytest.mark.parametrize(
    "shapes", [((3, 10), (2,)), ((3, 10), (3, 10)), ((10,), ()), ((0, 5), (0,))]
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    logits, labels = torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64)
    with pytest.raises(InputError, match="needs logits"):
        smooth_cross_entropy(logits, labels)


def test_loss_of_a_new_densenet121_is_near_the_log_of_the_number_of_classes() -> None:
    model, generator = densenet121(num_classes=100), torch.Generator().manual_seed(1)
    initialise(model, generator)
    images = torch.randn(8, 3, 64, 64, generator=generator)
    labels = torch.arange(8) * 12
    with torch.no_grad():
        loss = smooth_cross_entropy(model.train()(images), labels).item()
    assert loss == pytest.approx(math.log(100), abs=0.3)
