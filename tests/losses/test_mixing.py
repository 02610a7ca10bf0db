"""Mixup and CutMix: the papers' definitions by hand, the draws' distributions, their keys."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from densenet121.losses import masked_binary_cross_entropy, smooth_cross_entropy
from densenet121.losses.mixing import Mix, Mixing

KEYS: dict[str, Any] = {"seed": 1, "epoch": 0, "step": 0, "rank": 0, "part": 0}
P = 1e-4


def images(count: int = 5, height: int = 8, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, height, width, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def drawn(mixing: Mixing, count: int, size: tuple[int, int] = (100, 60)) -> list[Mix]:
    return [mixing.draw(size, **KEYS | {"step": step}) for step in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5, 32])
def test_mixup_by_hand(count: int) -> None:
    x = images(count)
    found = Mix(0.7).images(x)
    for i in range(count):
        expected = 0.7 * x[i] + (1 - 0.7) * x[i - 1]  # the first with the last
        torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, images(count))


def test_cutmix_by_hand() -> None:
    x = images()
    found = Mix(0.75, (2, 6, 0, 3)).images(x)
    for i in range(5):
        expected = x[i].clone()
        expected[:, 2:6, 0:3] = x[i - 1][:, 2:6, 0:3]
        assert torch.equal(found[i], expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, images())


@settings(deadline=None)
@given(
    share=st.floats(0, 1),
    num_classes=st.integers(2, 12),
    smooth=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_loss_and_gradient_are_those_of_the_mixed_targets(
    share: float, num_classes: int, smooth: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, num_classes, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    labels = torch.randint(num_classes, (6,), generator=generator)
    # Dense targets, smoothed once: share s off the true class, s / (C - 1) to each other.
    one_hot = F.one_hot(labels, num_classes).double()
    dense = one_hot * (1 - smooth) + (1 - one_hot) * smooth / (num_classes - 1)
    mixed = share * dense + (1 - share) * dense[[5, 0, 1, 2, 3, 4]]
    expected = -(mixed * logits.log_softmax(1)).sum(1).mean()
    found = Mix(share).loss(lambda a, b: smooth_cross_entropy(a, b, smooth), logits, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    (ours,) = torch.autograd.grad(found, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_several_labels_are_mixed_where_they_are_known() -> None:
    logits = torch.randn(3, 2, generator=torch.manual_seed(1), dtype=torch.float64)
    logits.requires_grad_()
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    mixed = 0.3 * targets + 0.7 * targets[[2, 0, 1]]
    expected = F.binary_cross_entropy_with_logits(logits, mixed.double())
    found = Mix(0.3).loss(masked_binary_cross_entropy, logits, targets)
    torch.testing.assert_close(found, expected)
    # Unknown in image 0: its share of the loss of images 0 and 1 is missing, no more.
    unknown = targets.clone()
    unknown[0, 1] = torch.nan
    found = Mix(0.3).loss(masked_binary_cross_entropy, logits, unknown)
    cells = [F.binary_cross_entropy_with_logits(logits, t.double(), reduction="none") for t in
             (targets, targets[[2, 0, 1]])]  # fmt: skip
    shares = [torch.full((3, 2), 0.3), torch.full((3, 2), 0.7)]
    shares[0][0, 1] = shares[1][1, 1] = 0.0
    expected = (cells[0] * shares[0] + cells[1] * shares[1]).sum() / 5
    torch.testing.assert_close(found, expected)


def test_a_teachers_logits_are_those_of_the_mixed_images() -> None:
    logits, teacher = (torch.randn(4, 3, generator=torch.manual_seed(n)) for n in (1, 2))
    labels = torch.tensor([0, 1, 2, 1])

    def learn(own: Tensor, targets: Tensor, taught: Tensor) -> Tensor:
        return F.cross_entropy(own, targets) + F.mse_loss(own, taught)

    expected = 0.3 * F.cross_entropy(logits, labels)
    expected = expected + 0.7 * F.cross_entropy(logits, labels[[3, 0, 1, 2]])
    expected = expected + F.mse_loss(logits, teacher)
    torch.testing.assert_close(Mix(0.3).loss(learn, logits, labels, teacher), expected)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    found = [mix.share for mix in drawn(Mixing(mixup=alpha), 4000)]
    assert stats.kstest(found, stats.beta(alpha, alpha).cdf).pvalue > P
    assert all(mix.box is None for mix in drawn(Mixing(mixup=alpha), 10))


def test_boxes_lie_in_the_image_and_the_share_is_what_is_left() -> None:
    for mix in drawn(Mixing(cutmix=1.0), 2000):
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 100 and 0 <= left <= right <= 60
        assert mix.share == 1 - (bottom - top) * (right - left) / 6000


def test_boxes_have_the_papers_size_and_a_uniform_centre() -> None:
    # A large alpha holds the share near a half, so that boxes near the middle are not clipped.
    found = drawn(Mixing(cutmix=1e6), 4000, size=(1000, 1000))
    boxes = np.array([mix.box for mix in found])
    side = 2 * int(0.5 * math.sqrt(0.5) * 1000)
    inside = (boxes[:, [0, 2]] > 0).all(axis=1) & (boxes[:, [1, 3]] < 1000).all(axis=1)
    assert inside.sum() > 200
    assert np.abs(boxes[inside, 1] - boxes[inside, 0] - side).max() <= 4
    # The centre, from the end that is not clipped.
    half = side / 2
    for first, last in ((0, 1), (2, 3)):
        centre = np.where(boxes[:, first] > 0, boxes[:, first] + half, boxes[:, last] - half)
        assert stats.kstest(centre / 1000, "uniform").statistic < 0.03


def test_with_both_on_each_batch_takes_one_with_equal_probability() -> None:
    found = drawn(Mixing(0.2, 1.0), 4000)
    cut = sum(mix.box is not None for mix in found)
    assert stats.binomtest(cut, 4000).pvalue > P
    shares = [mix.share for mix in found if mix.box is None]
    assert stats.kstest(shares, stats.beta(0.2, 0.2).cdf).pvalue > P


def test_every_key_has_a_draw_of_its_own_and_always_the_same() -> None:
    names = ("seed", "epoch", "step", "rank", "part")
    keys = [
        dict(zip(names, values, strict=True)) for values in itertools.product(range(3), repeat=5)
    ]
    mixing = Mixing(mixup=1.0)
    found = [mixing.draw((8, 8), **key).share for key in keys]
    assert len(set(found)) == len(keys)
    assert stats.kstest(found, "uniform").pvalue > P
    assert [mixing.draw((8, 8), **key).share for key in reversed(keys)] == found[::-1]


@pytest.mark.parametrize("alpha", [1e-3, 1e3])
def test_any_alpha_gives_a_share(alpha: float) -> None:
    for mix in drawn(Mixing(alpha, alpha), 300, size=(1, 1)):
        assert 0 <= mix.share <= 1


def test_nothing_is_on_by_default() -> None:
    assert not Mixing().is_on
    assert Mixing(mixup=0.1).is_on and Mixing(cutmix=0.1).is_on
