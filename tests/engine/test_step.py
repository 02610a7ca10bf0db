"""One training step: against a step written by hand, and without waiting for the device."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from densenet121.engine.state import LossMeter
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.losses import smooth_cross_entropy
from densenet121.network import DenseNet
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.utils.var_init import initialise


def tiny() -> DenseNet:
    model = DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)
    initialise(model, torch.Generator().manual_seed(0))
    return model


def test_parameters_after_two_steps_equal_sgd_written_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 6, 3, 20, 20, generator=generator)
    labels = torch.randint(0, 3, (2, 6), generator=generator)
    ours, theirs = tiny(), tiny()
    optimizer = momentum_sgd(get_param_groups(ours, 0.01), lr=99.0, momentum=0.9)
    velocity = {name: torch.zeros_like(p) for name, p in theirs.named_parameters()}
    for step, lr in enumerate((0.1, 0.05)):
        loss = train_step(
            ours,
            optimizer,
            torch.amp.GradScaler("cpu", enabled=False),
            [TrainingBatch(images[step], labels[step], 1.0)],
            partial(smooth_cross_entropy, smooth_factor=0.1),
            lr=lr,
            precision=torch.float32,
        )
        theirs.zero_grad()
        target = torch.full((6, 3), 0.1 / 2).scatter_(1, labels[step][:, None], 0.9)
        expected = -(target * F.log_softmax(theirs(images[step]), dim=1)).sum(dim=1).mean()
        expected.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                assert p.grad is not None
                decay = 0.01 if p.ndim > 1 else 0.0
                velocity[name] = 0.9 * velocity[name] + p.grad + decay * p
                p.sub_(lr * velocity[name])
        torch.testing.assert_close(loss, expected.detach())
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), p, rtol=1e-4, atol=1e-6)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_an_overflowed_fp16_step_changes_no_weight_and_halves_the_scale() -> None:
    model = tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    images = torch.randn(4, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    train_step(
        model,
        momentum_sgd(get_param_groups(model, 1e-4), lr=0.1, momentum=0.9),
        scaler,
        [TrainingBatch(images, torch.tensor([0, 1, 2, 0]), 1.0)],
        smooth_cross_entropy,
        lr=0.1,
        precision=torch.float16,
    )
    assert scaler.get_scale() == 2.0**119
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_step_never_waits_for_the_device() -> None:
    # Tensors on "meta" have no values: reading one on the host, as .item() does, raises.
    model = tiny().to("meta")
    losses = LossMeter(torch.device("meta"))
    images = torch.empty(4, 3, 20, 20, device="meta")
    loss = train_step(
        model,
        momentum_sgd(get_param_groups(model, 1e-4), lr=0.1, momentum=0.9),
        torch.amp.GradScaler("cpu", enabled=False),
        [TrainingBatch(images, torch.empty(4, dtype=torch.int64, device="meta"), 1.0)],
        partial(smooth_cross_entropy, smooth_factor=0.1),
        lr=0.1,
        precision=torch.float32,
    )
    losses.add(loss)
    with pytest.raises(RuntimeError):
        losses.mean()


def test_the_meter_averages_finite_losses_and_counts_bad_ones_in_a_row() -> None:
    losses = LossMeter(torch.device("cpu"))
    for value in (1.0, float("inf"), 3.0, float("nan"), float("nan")):
        losses.add(torch.tensor(value))
    assert losses.mean() == 2.0
    assert int(losses.bad_run) == 2
    again = LossMeter(torch.device("cpu"))
    again.restore(losses.of_all_ranks(), losses.steps, 0)
    assert (again.mean(), int(again.bad_run)) == (2.0, 2)
    losses.reset()
    assert math.isnan(losses.mean()) and int(losses.bad_run) == 2
    losses.add(torch.tensor(math.inf))
    assert math.isnan(losses.mean()) and int(losses.bad_run) == 3


def test_the_losses_of_an_older_checkpoint_go_on_as_they_did() -> None:
    """It has no number of bad steps: in each of its two columns is what it had."""
    losses = LossMeter(torch.device("cpu"))
    losses.restore(torch.tensor([[6.0, 2.0]], dtype=torch.float64), 3, 0)
    assert (losses.mean(), int(losses.bad_run)) == (2.0, 2)
    losses.add(torch.tensor(4.0))
    assert (losses.mean(), int(losses.bad_run)) == (2.5, 0)


def test_a_step_counts_in_the_mean_as_the_weight_of_its_images() -> None:
    losses = LossMeter(torch.device("cpu"))
    for value, weight in ((1.0, 1.0), (4.0, 0.5), (9.0, 0.0), (float("inf"), 7.0)):
        losses.add(torch.tensor(value), weight)
    assert losses.mean() == (1.0 + 4.0 * 0.5) / 1.5
    again = LossMeter(torch.device("cpu"))
    again.restore(losses.of_all_ranks(), losses.steps, 0)
    assert again.mean() == losses.mean()
    again.reset()
    again.add(torch.tensor(0.0), 0.0)  # no image of it has a label
    assert math.isnan(again.mean())


def test_the_losses_of_another_number_of_ranks_keep_their_mean_and_weight() -> None:
    losses = LossMeter(torch.device("cpu"))
    # Of two ranks: 3 and 5 over weights 1 and 3; an older one has 6 and 4 over 3 - 1 and 3 steps.
    losses.restore(torch.tensor([[3.0, 0, 0, 1], [5, 0, 0, 3]], dtype=torch.float64), 4, 0)
    assert (losses.mean(), float(losses.weight)) == (2.0, 4.0)
    losses.restore(torch.tensor([[6.0, 0, 1], [4, 0, 0]], dtype=torch.float64), 3, 0)
    assert (losses.mean(), float(losses.weight)) == (2.0, 5.0)
