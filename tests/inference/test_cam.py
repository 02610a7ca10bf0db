"""Class-activation maps: analytic at the last layer, true to finite differences elsewhere."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densenet121.inference.cam import (
    LAST,
    OF_SMALL_IMAGES,
    class_activation_maps,
    evidence_maps,
    overlay,
)
from densenet121.inference.layers import layer_names, plain_forward
from densenet121.inference.maps import write_map
from densenet121.network import DenseNet
from densenet121.utils.errors import InputError

from helpers.commands import run_command
from helpers.weights import write_weights


def network(variant: str = "paper", stem: str = "imagenet") -> DenseNet:
    torch.manual_seed(3)
    model = DenseNet(
        growth_rate=4,
        block_config=(2, 3),
        num_init_features=8,
        num_classes=5,
        variant=variant,  # type: ignore[arg-type]
        stem=stem,  # type: ignore[arg-type]
    ).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


IMAGES = torch.randn(3, 3, 40, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([4, 0, 2])


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_plain_forward_is_the_networks(variant: str, stem: str) -> None:
    model = network(variant, stem)
    with torch.no_grad():
        torch.testing.assert_close(plain_forward(model, IMAGES), model(IMAGES))


def test_the_map_of_the_last_layer_is_the_analytic_one() -> None:
    model = network()
    with torch.no_grad():
        features = F.relu(model.features(IMAGES))
    positions = features.shape[2] * features.shape[3]
    weights = model.classifier.weight[CLASSES].detach()
    analytic = torch.einsum("nc,nchw->nhw", weights, features) / positions
    found = class_activation_maps(model, IMAGES, CLASSES)
    torch.testing.assert_close(found, analytic.float())


@pytest.mark.parametrize(("side", "shape"), [(8, (2, 2)), (16, (2, 2)), (40, (5, 5))])
def test_without_a_layer_a_map_has_several_positions(side: int, shape: tuple[int, int]) -> None:
    model = network()
    images = IMAGES[:, :, :side, :side].repeat(1, 1, 1, 2)[:, :, :, :side]
    layer = OF_SMALL_IMAGES if side == 8 else LAST
    found = evidence_maps(model, images, CLASSES)
    torch.testing.assert_close(found, class_activation_maps(model, images, CLASSES, layer))
    asked = evidence_maps(model, images, CLASSES, LAST)
    torch.testing.assert_close(asked, class_activation_maps(model, images, CLASSES, LAST))
    assert side == 8 or tuple(found.shape[1:]) == shape


def test_the_map_sums_to_the_logit_without_its_bias() -> None:
    model = network()
    with torch.no_grad():
        logits = model(IMAGES) - model.classifier.bias
    found = class_activation_maps(model, IMAGES, CLASSES).sum(dim=(1, 2))
    torch.testing.assert_close(found, logits.gather(1, CLASSES[:, None])[:, 0].float())


@pytest.mark.parametrize("layer", layer_names(network()))
def test_the_map_of_any_layer_is_that_of_finite_differences(layer: str) -> None:
    model, images, eps = network(), IMAGES[:1], 1e-6
    kept: list[torch.Tensor] = []

    def moved(channel: int | None, step: float) -> float:
        """The logit with the same small step at every position of a channel of the layer."""

        def tap(name: str, x: torch.Tensor) -> torch.Tensor:
            if name != layer:
                return x
            if channel is None:
                kept.append(x)
                return x
            x = x.clone()
            x[:, channel] += step
            return x

        with torch.no_grad():
            return float(plain_forward(model, images, tap)[0, 4])

    moved(None, 0)
    (activation,) = kept
    positions = activation.shape[2] * activation.shape[3]
    slopes = torch.tensor(
        [(moved(c, eps) - moved(c, -eps)) / (2 * eps) for c in range(activation.shape[1])]
    )
    if layer.endswith((".relu", ".relu0", "features", "pool0")):  # a kink at 0: one side only
        slopes = torch.tensor(
            [(moved(c, eps) - moved(c, 0)) / eps for c in range(activation.shape[1])]
        )
    expected = (slopes[:, None, None] / positions * activation[0]).sum(dim=0)
    found = class_activation_maps(model, images, torch.tensor([4]), layer)[0]
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-5)


def test_maps_leave_the_network_and_inference_mode_alone() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        class_activation_maps(model, IMAGES.clone(), CLASSES, "features.denseblock1")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean features\.denseblock1\?"):
        class_activation_maps(network(), IMAGES, CLASSES, "denseblock1")


def test_the_overlay_leaves_the_image_where_nothing_speaks_for_the_class() -> None:
    pixels = np.full((64, 48, 3), 90, np.uint8)
    heat = -np.ones((4, 3), np.float32)
    assert (overlay(pixels, heat, side=48) == 90).all()
    heat[0, 0] = 1.0
    shown = overlay(pixels, heat, side=48)
    assert (shown[0, 0] != 90).any() and (shown[-1, -1] == 90).all()


def test_predict_writes_a_map_of_every_image(image_folder: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    folder = image_folder / "val" / "cat"
    run = run_command(
        "predict", folder, "--pretrained", weights, "--workers", 0, "--cam", tmp_path / "maps"
    )
    assert (run.returncode, run.stderr) == (0, "")
    files = sorted((tmp_path / "maps").iterdir())
    assert [file.name for file in files] == [f"{i:06d}_{i:03d}.png" for i in range(7)]
    shown = cv2.imread(str(files[0]))
    assert shown is not None and shown.shape == (256, 256, 3)
    run = run_command("predict", folder, "--pretrained", weights, "--workers", 0, "--cam", files[0])
    assert (run.returncode, run.stdout) == (1, "")  # before an image is classified
    assert run.stderr.endswith(f"{files[0]}: cannot create the output folder (File exists)\n")


@pytest.mark.parametrize("sign", ["\N{GRINNING FACE}", "\N{CJK UNIFIED IDEOGRAPH-5F71}", "\udcff"])
def test_a_map_of_an_image_with_a_long_name_is_written(sign: str, tmp_path: Path) -> None:
    stem = sign * (251 // len(os.fsencode(sign)))
    write_map(tmp_path, 7, f"images/{stem}.png", b"png")
    (file,) = tmp_path.iterdir()
    assert stem.startswith(file.stem.removeprefix("000007_")) and len(file.stem) > 50


def test_maps_are_not_written_among_class_folders(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/ant/1.png"), np.zeros((16, 16, 3), np.uint8))
    for place in ("images/maps", "images/ant/maps"):
        flags = ("--pretrained", weights, "--workers", 0, "--cam", tmp_path / place)
        run = run_command("predict", tmp_path / "images", *flags)
        assert (run.returncode, run.stdout) == (2, "")
        assert f"--cam {tmp_path / place} is among the class folders of" in run.stderr
        assert not (tmp_path / place).exists()


@pytest.mark.parametrize("place", ["images", "images/maps", "link/maps"])
def test_maps_are_not_written_where_the_next_predict_would_classify_them(
    place: str, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    cv2.imwrite(str(tmp_path / "images/1.png"), np.zeros((16, 16, 3), np.uint8))
    flags = ("--pretrained", weights, "--workers", 0, "--cam")
    run = run_command("predict", "images", *flags, place, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert "is in images, whose images are classified" in run.stderr
    assert [file.name for file in (tmp_path / "images").iterdir()] == ["1.png"]


def test_maps_may_be_beside_a_file_or_in_a_hidden_folder(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((16, 16, 3), np.uint8))
    for given, place in ((".", ".maps"), ("1.png", "maps")):
        flags = ("--pretrained", weights, "--workers", 0, "--cam", place)
        run = run_command("predict", given, *flags, cwd=tmp_path)
        assert (run.returncode, run.stderr) == (0, "")
        assert len(list((tmp_path / place).iterdir())) == 1
