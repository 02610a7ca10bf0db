import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network import (
    NETWORKS,
    DenseNet,
    MaxPoolSame,
    Stem,
    Transition,
    Variant,
    build,
    densenet40,
    densenet100,
    densenet121,
)
from densenet121.network.fused import classify, plain_network
from densenet121.utils.errors import InputError
from densenet121.utils.var_init import initialise

ROOT = Path(__file__).resolve().parents[2]
TORCHVISION_STATE = ROOT.parent / "shared" / "reference" / "tv_densenet121_state.txt"

Shapes = list[tuple[str, tuple[int, ...]]]


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(
    variant: Variant = "paper",
    *,
    block_config: tuple[int, ...] = (2, 3, 1, 2),
    stem: Stem = "imagenet",
    num_classes: int = 5,
) -> DenseNet:
    model = DenseNet(
        growth_rate=4,
        block_config=block_config,
        num_init_features=6,
        num_classes=num_classes,
        bn_size=2,
        variant=variant,
        stem=stem,
    )
    initialise(model, generator())
    return model


def norm_shapes(name: str, size: int) -> Shapes:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return [(f"{name}.{part}", (size,)) for part in per_channel] + [
        (f"{name}.num_batches_tracked", ())
    ]


def paper_state(k: int, blocks: tuple[int, ...], size: int, num_classes: int) -> Shapes:
    """State of an ImageNet DenseNet-BC, written from table 1 of the paper, torchvision's names."""
    state: Shapes = [("features.conv0.weight", (size, 3, 7, 7))]
    state += norm_shapes("features.norm0", size)
    for b, num_layers in enumerate(blocks, start=1):
        for i in range(1, num_layers + 1):
            layer = f"features.denseblock{b}.denselayer{i}"
            state += norm_shapes(f"{layer}.norm1", size)
            state += [(f"{layer}.conv1.weight", (4 * k, size, 1, 1))]
            state += norm_shapes(f"{layer}.norm2", 4 * k)
            state += [(f"{layer}.conv2.weight", (k, 4 * k, 3, 3))]
            size += k
        if b < len(blocks):
            state += norm_shapes(f"features.transition{b}.norm", size)
            state += [(f"features.transition{b}.conv.weight", (size // 2, size, 1, 1))]
            size //= 2
    state += norm_shapes("features.norm5", size)
    return [*state, ("classifier.weight", (num_classes, size)), ("classifier.bias", (num_classes,))]


def functional_densenet(state: dict[str, Tensor], images: Tensor, variant: Variant) -> Tensor:
    """Evaluation pass in torch.nn.functional: each layer reads the list of all before it."""

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)
        return F.relu(x)

    x = F.conv2d(images, state["features.conv0.weight"], stride=2, padding=3)
    x = norm_relu(x, "features.norm0")
    x = F.max_pool2d(x, 3, 2, padding=1) if variant == "paper" else same_pool(x)
    b = 1
    while f"features.denseblock{b}.denselayer1.conv1.weight" in state:
        found, i = [x], 1
        while f"features.denseblock{b}.denselayer{i}.conv1.weight" in state:
            layer = f"features.denseblock{b}.denselayer{i}"
            y = norm_relu(torch.cat(found, 1), f"{layer}.norm1")
            y = norm_relu(F.conv2d(y, state[f"{layer}.conv1.weight"]), f"{layer}.norm2")
            found.append(F.conv2d(y, state[f"{layer}.conv2.weight"], padding=1))
            i += 1
        x = torch.cat(found, 1)
        if f"features.transition{b}.conv.weight" in state:
            x = norm_relu(x, f"features.transition{b}.norm")
            x = F.conv2d(x, state[f"features.transition{b}.conv.weight"])
            x = F.avg_pool2d(x, 2) if variant == "paper" else F.max_pool2d(x, 2)
        b += 1
    x = F.adaptive_avg_pool2d(norm_relu(x, "features.norm5"), 1).flatten(1)
    return F.linear(x, state["classifier.weight"], state["classifier.bias"])


def same_pool(x: Tensor) -> Tensor:
    """MindSpore's pad_mode "same" for 3 x 3 at stride 2, by its formula and explicit padding."""
    pads = []
    for n in (x.shape[3], x.shape[2]):
        total = max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0)
        pads += [total // 2, total - total // 2]
    return F.max_pool2d(F.pad(x, pads, value=-math.inf), 3, 2)


def test_densenet121_has_torchvisions_names_order_and_shapes() -> None:
    if not TORCHVISION_STATE.exists():
        pytest.skip(f"{TORCHVISION_STATE} is not here: it is kept outside the repository")
    expected = TORCHVISION_STATE.read_text().splitlines()
    with torch.device("meta"):
        state = densenet121().state_dict()
    assert [f"{n}\t{tuple(t.shape)}\t{t.dtype}" for n, t in state.items()] == expected


@pytest.mark.parametrize(
    ("net", "growth_rate", "blocks", "num_init_features", "num_parameters"),
    [  # numbers of parameters: torchvision's, for 264 the sum over paper_state
        ("densenet121", 32, (6, 12, 24, 16), 64, 7_978_856),
        ("densenet161", 48, (6, 12, 36, 24), 96, 28_681_000),
        ("densenet169", 32, (6, 12, 32, 32), 64, 14_149_480),
        ("densenet201", 32, (6, 12, 48, 32), 64, 20_013_928),
        ("densenet264", 32, (6, 12, 64, 48), 64, 33_337_704),
    ],
)
def test_names_order_and_shapes_follow_table_1_of_the_paper(
    net: str, growth_rate: int, blocks: tuple[int, ...], num_init_features: int, num_parameters: int
) -> None:
    expected = paper_state(growth_rate, blocks, num_init_features, 1000)
    # 12 entries a layer, 6 a transition, then conv0, norm0, norm5 and the classifier
    assert len(expected) == 12 * sum(blocks) + 6 * 3 + 1 + 5 + 5 + 2
    for variant in ("paper", "model_zoo"):
        with torch.device("meta"):
            model = build(net, num_classes=1000, variant=variant)
        assert [(n, tuple(t.shape)) for n, t in model.state_dict().items()] == expected
        assert sum(p.numel() for p in model.parameters()) == num_parameters


def test_densenet100_is_the_papers_for_32_pixels() -> None:
    model = densenet100().eval()
    assert sum(p.numel() for p in model.parameters()) == 769_162  # the paper, table 2: 0.8M
    names = [name for name, _ in model.features.named_children()]
    between = ["denseblock1", "transition1", "denseblock2", "transition2", "denseblock3"]
    assert names == ["conv0", *between, "norm5"]
    images = torch.randn(1, 3, 32, 32, generator=generator())
    with torch.no_grad():
        # 24 + 16 * 12 = 216 channels, halved; 108 + 192 = 300, halved; 150 + 192 = 342
        assert model.features[:2](images).shape == (1, 216, 32, 32)
        assert model.features(images).shape == (1, 342, 8, 8)


def test_densenet40_has_six_layers_in_each_of_three_blocks() -> None:
    model = densenet40().eval()
    # Layer with n inputs: 2n + 48n + 96 + 48 * 12 * 9; conv0, transitions, norm and classifier.
    layers = sum(50 * (first + 12 * i) + 5280 for first in (24, 48, 60) for i in range(6))
    others = 24 * 27 + (2 * 96 + 96 * 48) + (2 * 120 + 120 * 60) + 2 * 132 + 132 * 10 + 10
    assert sum(p.numel() for p in model.parameters()) == layers + others == 176_122
    images = torch.randn(1, 3, 32, 32, generator=generator())
    with torch.no_grad():
        assert model.features(images).shape == (1, 132, 8, 8)


def test_every_network_can_be_built_by_name_and_says_what_it_is() -> None:
    assert list(NETWORKS) == [f"densenet{n}" for n in (121, 161, 169, 201, 264, 100, 40)]
    with torch.device("meta"):
        model = build("densenet121", num_classes=12, variant="model_zoo")
    assert (model.variant, model.num_classes, model.growth_rate) == ("model_zoo", 12, 32)
    assert (model.block_config, model.num_features) == ((6, 12, 24, 16), 1024)


def test_unknown_names_and_values_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(InputError, match='"densenet122"; choose one of densenet121, densenet161'):
        build("densenet122", num_classes=10)
    with pytest.raises(InputError, match="also uses average pooling"):
        build("densenet100", num_classes=10, variant="model_zoo")
    with pytest.raises(InputError, match='densenet40 has no variant "model_zoo"'):
        build("densenet40", num_classes=10, variant="model_zoo")
    with pytest.raises(InputError, match=r"variant must be one of \('paper', 'model_zoo'\)"):
        tiny("torchvision")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="stem must be one of"):
        tiny(stem="mnist")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_classes must be at least 1, got 0"):
        tiny(num_classes=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"growth_rate": 0}, "growth_rate must be at least 1, got 0"),
        ({"num_init_features": 0}, "num_init_features must be at least 1, got 0"),
        ({"bn_size": -1}, "bn_size must be at least 1, got -1"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"in_channels": "3"}, "in_channels must be a whole number, got '3'"),
        ({"num_classes": 2.5}, r"num_classes must be a whole number, got 2\.5"),
        ({"num_classes": None}, "num_classes must be a whole number, got None"),
        ({"num_classes": True}, "num_classes must be a whole number, got True"),
        ({"block_config": ()}, "blocks of block_config must be at least 1, got 0"),
        ({"block_config": (2, 0)}, "layers of each block of block_config must be at least 1"),
    ],
)
def test_a_number_that_no_network_can_have_is_refused_by_its_name(
    sizes: dict[str, Any], message: str
) -> None:
    network: dict[str, Any] = {"growth_rate": 4, "block_config": (2, 2), "num_init_features": 8}
    with pytest.raises(InputError, match=message):
        DenseNet(**network | sizes)


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize("size", [(64, 64), (65, 65), (97, 70)])
def test_forward_equals_a_functional_reference(variant: Variant, size: tuple[int, int]) -> None:
    model = tiny(variant).train()
    images = torch.randn(2, 3, *size, generator=generator())
    with torch.no_grad():
        model(images)  # moves the running statistics away from 0 and 1
        model.eval()
        expected = functional_densenet(model.state_dict(), images, variant)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_the_two_variants_differ_although_all_names_and_shapes_fit() -> None:
    images = torch.randn(1, 3, 64, 64, generator=generator())
    paper, model_zoo = tiny("paper").eval(), tiny("model_zoo").eval()
    model_zoo.load_state_dict(paper.state_dict())
    assert not torch.allclose(paper(images), model_zoo(images), atol=1e-2)


@pytest.mark.parametrize("height", [1, 2, 3, 7, 48, 49, 112])
@pytest.mark.parametrize("width", [1, 2, 16, 33])
def test_model_zoo_pool0_pads_as_mindspores_same(height: int, width: int) -> None:
    x = -1 - torch.rand(2, 3, height, width, generator=generator())  # negative: 0-padding shows
    x.requires_grad_()
    pooled, expected = MaxPoolSame()(x), same_pool(x)
    assert pooled.shape == (2, 3, math.ceil(height / 2), math.ceil(width / 2))
    assert torch.equal(pooled, expected)
    weight = torch.rand(pooled.shape, generator=generator())
    (grad,) = torch.autograd.grad((pooled * weight).sum(), x)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)
    assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("size", [8, 9])
def test_transitions_pool_by_average_or_by_maximum_and_drop_an_odd_end(size: int) -> None:
    x = torch.randn(2, 4, size, size, generator=generator(), dtype=torch.float64)
    for variant, pool in (("paper", F.avg_pool2d), ("model_zoo", F.max_pool2d)):
        transition = Transition(4, 2, cast(Variant, variant)).double().eval()
        # Written as the paper and the original have it: the pooling comes last.
        before_pool = transition.conv(F.relu(transition.norm(x)))
        assert transition(x).shape == (2, 2, 4, 4)
        torch.testing.assert_close(transition(x), pool(before_pool, 2), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_feature_maps_have_the_papers_sizes(variant: Variant) -> None:
    model = densenet121(num_classes=3, variant=variant).eval()
    with torch.no_grad():
        for size, last in ((224, 7), (96, 3), (65, 2), (33, 1)):
            images = torch.randn(1, 3, size, size, generator=generator())
            features = model.features(images)
            assert features.shape == (1, 1024, last, last)
            assert model(images).shape == (1, 3)


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 29), ("cifar", 8)])
def test_min_image_size_is_the_smallest_that_works(
    variant: Variant, stem: Stem, smallest: int
) -> None:
    model = tiny(variant, stem=stem).eval()
    assert model.min_image_size == smallest
    assert model(torch.zeros(1, 3, smallest, smallest)).shape == (1, 5)
    with pytest.raises(RuntimeError, match="too small"):
        model(torch.zeros(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize(
    ("stem", "height", "width", "least"),
    [
        ("imagenet", 29, 29, 2),
        ("imagenet", 60, 60, 2),  # 60 to 30, 15, 7, 3 and 1 pixels
        ("imagenet", 61, 61, 1),  # 61 to 31, 16, 8, 4 and 2
        ("imagenet", 29, 61, 1),
        ("cifar", 15, 15, 2),
        ("cifar", 15, 16, 1),
    ],
)
def test_least_batch_is_what_the_batch_norms_can_train_on(
    stem: Stem, height: int, width: int, least: int
) -> None:
    model = tiny("paper", stem=stem).train()
    assert model.least_batch(height, width) == least
    assert model(torch.zeros(least, 3, height, width)).shape == (least, 5)
    if least == 2:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.zeros(1, 3, height, width))


def test_initialise_draws_the_originals_distributions() -> None:
    model = densenet121()
    initialise(model, generator())
    state, bound = model.state_dict(), 1 / math.sqrt(1024)
    for name, std in (  # sqrt(2 / (C_out * kh * kw)): the fan in gives others for the first two
        ("features.conv0.weight", math.sqrt(2 / (64 * 7 * 7))),
        ("features.denseblock4.denselayer16.conv1.weight", math.sqrt(2 / 128)),
        ("features.denseblock4.denselayer16.conv2.weight", math.sqrt(2 / (32 * 3 * 3))),
        ("classifier.weight", bound / math.sqrt(3)),
    ):
        assert state[name].std().item() == pytest.approx(std, rel=0.03), name
    assert 0.999 * bound < state["classifier.weight"].abs().max().item() <= bound
    assert not state["classifier.bias"].any()
    assert torch.equal(state["features.norm5.weight"], torch.ones(1024))
    assert not state["features.norm5.bias"].any()


def test_initialise_refuses_a_module_it_has_no_rule_for() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GroupNorm(2, 4))
    with pytest.raises(TypeError, match="1: no rule to initialise a GroupNorm"):
        initialise(model, generator())


def test_initialise_depends_on_its_generator_and_on_nothing_else() -> None:
    used, fresh, other = tiny().train(), tiny(), tiny()
    used(torch.randn(2, 3, 64, 64))  # running statistics are reset too
    global_state = torch.get_rng_state()
    initialise(used, generator(7))
    torch.rand(5)  # must not matter
    torch.set_rng_state(global_state)
    initialise(fresh, generator(7))
    initialise(other, generator(8))
    assert torch.equal(torch.get_rng_state(), global_state)
    for name, tensor in used.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name
    assert not torch.equal(fresh.classifier.weight, other.classifier.weight)


def test_no_activation_is_overwritten_in_place() -> None:
    model = tiny(stem="cifar", block_config=(2, 2))
    seen: list[tuple[Tensor, Tensor]] = []
    for module in model.modules():
        module.register_forward_hook(lambda _m, _x, y: seen.append((y, y.detach().clone())))
    model.eval()(torch.randn(1, 3, 8, 8, generator=generator()))
    assert len(seen) > 20
    assert all(torch.equal(output, copy) for output, copy in seen)


@pytest.mark.parametrize("way", [contextlib.nullcontext, plain_network])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_different_images_are_not_rounded_to_the_same(
    way: Callable[[], AbstractContextManager[None]], dtype: torch.dtype
) -> None:
    net = tiny().eval()
    images = torch.randn(40, 3, 33, 33, generator=generator())
    nn.init.constant_(net.classifier.bias, -6)  # a rare finding; bf16 has steps of 1/32 there
    with way(), torch.autocast("cpu", dtype):
        with torch.no_grad():
            features = net.pooled(images)
            for logits in (classify(net.classifier, features), net(images)):
                assert logits.dtype == torch.float32
                assert all(len(column.unique()) == 40 for column in logits.T)
        assert classify(net.classifier, features).dtype == dtype  # training is as torch has it
