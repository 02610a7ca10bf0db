"""Frozen stages: what does not learn does not change, and costs no memory and little time."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from densenet121.network import (
    DenseNet,
    densenet121,
    frozen_stages,
    plain_network,
    set_frozen,
    stages,
)
from densenet121.utils.errors import UsageError
from densenet121.utils.modes import evaluation_mode


@pytest.fixture
def model() -> Iterator[DenseNet]:
    torch.manual_seed(1)
    model = DenseNet(
        growth_rate=8, block_config=(2, 3, 2), num_init_features=16, num_classes=3, bn_size=2
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    yield model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 64, 64, generator=generator).to(memory_format=torch.channels_last)


def test_everything_up_to_the_named_stage_is_frozen(model: DenseNet) -> None:
    assert frozen_stages(model, "none") == []
    assert frozen_stages(model, "stem") == ["stem"]
    assert frozen_stages(model, "block2") == ["stem", "block1", "block2"]
    assert frozen_stages(model, "all_but_head") == ["stem", "block1", "block2", "block3"]
    with pytest.raises(UsageError, match="must be one of none, stem, block1, block2, block3, all"):
        frozen_stages(model, "block4")


def test_stages_have_every_module_once() -> None:
    with torch.device("meta"):
        model = densenet121()
    found = [id(p) for modules in stages(model).values() for m in modules for p in m.parameters()]
    assert found == [id(p) for p in model.parameters()]


@pytest.mark.parametrize(
    "names", [["stem"], ["stem", "block1"], ["stem", "block1", "block2", "block3"]]
)
@pytest.mark.parametrize("amp", [False, True])
def test_a_step_leaves_frozen_tensors_and_statistics_to_the_bit(
    model: DenseNet, names: list[str], amp: bool
) -> None:
    set_frozen(model, names, "auto")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for seed in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = model(images(seed)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parts = stages(model)
    inside = {id(t) for n in names for m in parts[n] for t in (*m.parameters(), *m.buffers())}
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert torch.equal(tensor, before[name]) == (id(tensor) in inside), name


def test_the_gradients_behind_a_frozen_prefix_are_those_of_the_plain_network(
    model: DenseNet,
) -> None:
    set_frozen(model, ["stem", "block1"], "auto")
    x = images().double()
    model.double()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    fast = gradients()
    with plain_network():
        plain = gradients()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert len(fast) == len(plain) == len(learning)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_frozen_prefix_stores_nothing_for_the_backward_pass(model: DenseNet) -> None:
    stored: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        stored.append(tensor.numel() * tensor.element_size())
        return tensor

    sizes = []
    for names in ([], ["stem", "block1"], ["stem", "block1", "block2", "block3"]):
        set_frozen(model, names, "auto")
        stored.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(images())
        sizes.append(sum(stored))
    everything, two_stages, head = sizes
    assert two_stages < everything / 3
    # the pooled features, the classifier's weight, and the mask of nothing else
    assert head <= 4 * (4 * model.num_features + 3 * model.num_features)


def test_batch_norms_are_fixed_where_they_are_asked_to_be(model: DenseNet) -> None:
    def learning() -> set[str]:
        return {
            name
            for name, modules in stages(model).items()
            for module in modules
            for norm in module.modules()
            if isinstance(norm, nn.BatchNorm2d) and norm.training
        }

    set_frozen(model, ["stem", "block1"], "auto")
    assert learning() == {"block2", "block3"}
    set_frozen(model, ["stem", "block1"], "0")
    assert learning() == {"stem", "block1", "block2", "block3"}
    set_frozen(model, ["stem", "block1"], "1")
    assert learning() == set()
    assert model.classifier.training
    set_frozen(model, [], "auto")
    assert learning() == {"stem", "block1", "block2", "block3"}
    assert all(p.requires_grad for p in model.parameters())


def test_an_evaluation_gives_every_module_its_own_mode_back(model: DenseNet) -> None:
    set_frozen(model, ["stem", "block1"], "auto")
    before = [module.training for module in model.modules()]
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    with pytest.raises(RuntimeError, match="inside"), evaluation_mode(model):
        raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == before
