"""Weights for grey images from those for RGB and back: what is the same function, and where."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from densenet121.checkpoint.channels import (
    CONV0,
    SUMMED,
    norms_after_conv0,
    one_channel,
    three_channels,
    with_channels,
)
from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import DenseNet, Stem, Variant
from densenet121.utils.errors import UsageError

IMAGENET = Preprocessing((32, 32), "32,32")
ALIKE = Preprocessing((32, 32), "32,32", (100.0,) * 3, (50.0, 60.0, 70.0))


def network(stem: Stem = "imagenet", channels: int = 3, variant: Variant = "paper") -> DenseNet:
    """In float64, with running statistics of its own."""
    torch.manual_seed(7)
    model = DenseNet(
        growth_rate=4,
        block_config=(2, 2),
        num_init_features=6,
        num_classes=3,
        stem=stem,
        variant=variant,
        in_channels=channels,
    ).double()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(norm.bias)
    return model.eval()


def grey_of(model: DenseNet, p: Preprocessing) -> tuple[DenseNet, Preprocessing, str]:
    state, after, note = with_channels(model.state_dict(), p, 1)
    grey = network(model.stem, 1, model.variant)
    grey.load_state_dict(state)
    return grey, after, note


def levels(size: int = 41) -> Tensor:
    """Grey images ``(2, H, W, 3)``."""
    generator = torch.Generator().manual_seed(3)
    grey = torch.randint(0, 256, (2, size, size, 1), dtype=torch.uint8, generator=generator)
    return grey.expand(2, size, size, 3)


def normalised(p: Preprocessing, images: Tensor) -> Tensor:
    """As ``Preprocessing.normalise``, in float64."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (p.mean, p.std))
    return ((images[..., : p.channels].double() - mean) / std).permute(0, 3, 1, 2)


def seen_first(model: DenseNet, x: Tensor) -> list[Tensor]:
    """What each norm that reads conv0's output makes of it."""
    x = model.features.conv0(x)  # type: ignore[operator]
    found = []
    for name in norms_after_conv0(model.state_dict()):
        norm = model.get_submodule(name.removesuffix(".running_mean"))
        assert isinstance(norm, torch.nn.BatchNorm2d)
        state = {
            part: tensor[: x.shape[1]] for part, tensor in norm.state_dict().items() if tensor.ndim
        }
        found.append(F.batch_norm(x, **state, eps=norm.eps))
    return found


@torch.no_grad()
@pytest.mark.parametrize(("stem", "border", "norms"), [("imagenet", 2, 1), ("cifar", 1, 3)])
def test_with_imagenets_means_the_interior_is_the_same_and_the_border_is_not(
    stem: Stem, border: int, norms: int
) -> None:
    model, images = network(stem), levels()
    grey, after, note = grey_of(model, IMAGENET)
    assert "except at the border" in note
    assert after.mean == (sum(IMAGENET.mean) / 3,) and after.std == (sum(IMAGENET.std) / 3,)
    expected = seen_first(model, normalised(IMAGENET, images))
    found = seen_first(grey, normalised(after, images))
    assert len(found) == norms
    inside = slice(border, -border)
    for a, b in zip(found, expected, strict=True):
        difference = (a - b).abs()
        assert difference[..., inside, inside].max() < 1e-12
        assert difference.max() > 1e-3


@torch.no_grad()
def test_the_difference_at_the_border_is_that_of_the_padded_means() -> None:
    model, images = network(), levels()
    grey, after, _ = grey_of(model, IMAGENET)
    weight = model.state_dict()[CONV0]

    def convolved(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, stride=2, padding=3)

    before = convolved(normalised(IMAGENET, images), weight)
    now = convolved(normalised(after, images), grey.state_dict()[CONV0])
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (IMAGENET.mean, IMAGENET.std))
    shift = ((after.mean[0] - mean) / std).view(1, 3, 1, 1)
    within = convolved(shift.expand(1, 3, 41, 41), weight)
    torch.testing.assert_close(before - now, within.expand_as(now), rtol=0, atol=1e-12)
    constant = one_channel(weight, IMAGENET, after)[1]
    torch.testing.assert_close(within[0, :, 10, 10], constant, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_with_one_mean_the_whole_network_is_the_same_function(stem: Stem, variant: Variant) -> None:
    model, images = network(stem, variant=variant), levels()
    grey, after, note = grey_of(model, ALIKE)
    assert note == SUMMED
    found = grey(normalised(after, images))
    expected = model(normalised(ALIKE, images))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_for_three_channels_the_whole_network_is_the_same_function_of_grey_images() -> None:
    p = Preprocessing((32, 32), "32,32", (127.5,), (60.0,))
    model, images = network(channels=1), levels()
    state, after, note = with_channels(model.state_dict(), p, 3)
    assert after.mean == (127.5,) * 3 and "a third" in note
    model.load_state_dict(model.state_dict() | {CONV0: state[CONV0].double().sum(1, keepdim=True)})
    colour = network()
    colour.load_state_dict(state)
    torch.testing.assert_close(
        colour(normalised(after, images)), model(normalised(p, images)), rtol=1e-10, atol=1e-10
    )


@given(st.floats(2.0**-100, 2.0**100, width=32), st.sampled_from([1, -1]))
def test_three_thirds_are_the_weight_to_the_bit(value: float, sign: int) -> None:
    weight = torch.full((1, 1, 1, 1), sign * value)
    thirds = three_channels(weight)
    p = Preprocessing((32, 32), "32,32", (127.5,) * 3, (60.0,) * 3)
    back, constant = one_channel(thirds, p, p.with_channels(1))
    assert constant is None and torch.equal(back, weight)
    for third in thirds.flatten().tolist():
        assert third == pytest.approx(sign * value / 3, rel=3e-7)


def weights_file(
    folder: Path, p: Preprocessing = IMAGENET, calibration: dict[str, Any] | None = None
) -> Path:
    from densenet121.network import build

    torch.manual_seed(1)
    model = build("densenet40", num_classes=2, in_channels=p.channels)
    info = ModelInfo("densenet40", "paper", ("a", "b"), p)
    save_weights(folder / "w.safetensors", model.state_dict(), info, {}, calibration)
    return folder / "w.safetensors"


def test_convert_writes_grey_weights_and_says_what_changed(tmp_path: Path) -> None:
    done = convert(weights_file(tmp_path), tmp_path / "grey.safetensors", "native", channels=1)
    assert done.channels == 1 and "except at the border" in done.notes[0]
    loaded = load_pretrained(tmp_path / "grey.safetensors")
    assert loaded.model.in_channels == 1 and loaded.info is not None
    assert loaded.info.preprocessing.channels == 1
    again = convert(tmp_path / "grey.safetensors", tmp_path / "same.safetensors", "native")
    assert again.channels == 1 and not again.notes
    assert (tmp_path / "same.safetensors").read_bytes() == (
        tmp_path / "grey.safetensors"
    ).read_bytes()
    back = convert(
        tmp_path / "grey.safetensors", tmp_path / "rgb.safetensors", "native", channels=3
    )
    assert back.channels == 3 and "a third of the first convolution" in back.notes[0]


@pytest.mark.parametrize(
    ("before", "channels", "kept"),
    [(IMAGENET, 1, False), (ALIKE, 1, True), (IMAGENET.with_channels(1), 3, True)],
)
def test_a_calibration_stays_where_another_number_of_channels_is_the_same_function(
    before: Preprocessing, channels: int, kept: bool, tmp_path: Path
) -> None:
    note = {"offsets": [1.0, -1.0]}
    measured = {"temperature": 2.0, "scores": [0.5], "abstain_below": 0.7, "note": note}
    file = weights_file(tmp_path, before, measured)
    done = convert(file, tmp_path / "new.safetensors", "native", channels=channels)
    assert read_weights(tmp_path / "new.safetensors").calibration == (measured if kept else None)
    assert any("the calibration is left out" in note for note in done.notes) == (not kept)
    assert any("stay in the bias" in text for text in done.notes) == (not kept)


def test_a_program_without_grey_networks_gets_three_channels(tmp_path: Path) -> None:
    from densenet121.network import build

    model = build("densenet121", num_classes=2, in_channels=1)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    done = convert(tmp_path / "w.pth", tmp_path / "tv.pth", "torchvision")
    assert done.channels == 3 and any("a third" in note for note in done.notes)
    assert read_weights(tmp_path / "tv.pth").channels == 3
    assert convert(tmp_path / "w.pth", tmp_path / "timm.pth", "timm").channels == 1
    with pytest.raises(UsageError, match="`channels` 1 cannot be written for torchvision, which"):
        convert(tmp_path / "w.pth", tmp_path / "x.pth", "torchvision", channels=1)
