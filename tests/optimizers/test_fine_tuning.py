"""Optimisers against torch's own, groups of stages, averaged weights against the formula."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densenet121.network import DenseNet, densenet121, stages
from densenet121.optimizers import (
    OPTIMIZERS,
    AveragedWeights,
    get_param_groups,
    make_optimizer,
    stage_factors,
)


def small_net() -> nn.Sequential:
    """One tensor of each kind that a DenseNet has."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 7))


def step(optimizer: torch.optim.Optimizer, params: Sequence[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    optimizer.step()


REFERENCES: dict[str, Any] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, foreach=False),
    "nesterov": lambda groups: torch.optim.SGD(
        groups, lr=0.01, momentum=0.9, nesterov=True, foreach=False
    ),
    "adam": lambda groups: torch.optim.Adam(
        groups, lr=0.01, betas=(0.8, 0.99), eps=1e-6, foreach=False
    ),
    "adamw": lambda groups: torch.optim.AdamW(
        groups, lr=0.01, betas=(0.8, 0.99), eps=1e-6, foreach=False
    ),
    "rmsprop": lambda groups: torch.optim.RMSprop(
        groups, lr=0.01, momentum=0.9, eps=1e-6, foreach=False
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_equal_torchs_own(name: str) -> None:
    model, reference = small_net(), small_net()
    ours, theirs = list(model.parameters()), list(reference.parameters())
    optimizer = make_optimizer(
        name,
        get_param_groups(model, 0.05),
        lr=0.01,
        momentum=0.9,
        betas=(0.8, 0.99),
        eps=1e-6,
    )
    decays = [{"params": [p], "weight_decay": 0.05 if p.ndim > 1 else 0.0} for p in theirs]
    expected = REFERENCES[name](decays)
    for seed in range(100):
        step(optimizer, ours, seed)
        step(expected, theirs, seed)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_adam_adds_the_decay_to_the_gradient_and_adamw_shrinks_the_weights() -> None:
    for name, expected in (("adam", 1 - 0.1), ("adamw", 1 - 0.1 * 0.5)):
        weight = nn.Parameter(torch.ones(2, 2))
        groups = [{"params": [weight], "weight_decay": 0.5, "lr_factor": 1.0}]
        optimizer = make_optimizer(name, groups, lr=0.1)
        weight.grad = torch.zeros(2, 2)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), torch.full((2, 2), expected))


def test_every_weight_is_in_one_group_and_has_the_factor_of_its_stage() -> None:
    with torch.device("meta"):
        model: Any = densenet121()
    parts = stages(model)
    assert list(parts) == ["stem", "block1", "block2", "block3", "block4", "head"]
    factors = stage_factors(list(parts), head_lr_mult=10, layer_lr_decay=0.5)
    assert factors == {
        "stem": 0.5**5,
        "block1": 0.5**4,
        "block2": 0.5**3,
        "block3": 0.25,
        "block4": 0.5,
        "head": 10,
    }
    groups = get_param_groups(model, 0.1, parts, factors)
    found = [(id(p), group["lr_factor"]) for group in groups for p in group["params"]]
    assert sorted(i for i, _ in found) == sorted(id(p) for p in model.parameters())
    by_id = dict(found)
    assert by_id[id(model.features.conv0.weight)] == 0.5**5
    assert by_id[id(model.features.transition3.conv.weight)] == 0.25
    assert by_id[id(model.features.norm5.weight)] == 0.5
    assert by_id[id(model.classifier.bias)] == 10
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.1) for p in group["params"])


def test_without_stages_there_are_the_two_groups_of_always() -> None:
    model = small_net()
    groups = get_param_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [3, 2]
    assert [group["weight_decay"] for group in groups] == [0.0, 0.1]


def test_averaged_weights_follow_the_formula_with_its_warm_up() -> None:
    model: Any = small_net()
    average = AveragedWeights(model, 0.9)
    weight = model[0].weight
    expected = weight.detach().double().clone()
    for t in range(200):
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(t)))
            model[1].running_mean.fill_(t)
            model[1].num_batches_tracked.fill_(t)
        average.update(model, t)
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight.detach().double()
    own: Any = average.model
    assert own[0].weight.dtype == torch.float32
    torch.testing.assert_close(own[0].weight.double(), expected, rtol=1e-5, atol=1e-5)
    assert own[1].num_batches_tracked == 199
    assert 185 < own[1].running_mean[0] < 199  # it lags behind
    assert not own.training
    assert not any(p.requires_grad for p in own.parameters())


def test_weights_that_do_not_change_are_their_own_average_to_the_bit() -> None:
    model = DenseNet(growth_rate=4, block_config=(2,), num_init_features=6, stem="cifar")
    average = AveragedWeights(model, 0.99)
    for t in range(20):
        average.update(model, t)
    for a, b in zip(model.state_dict().values(), average.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
