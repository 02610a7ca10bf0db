"""Weights of MONAI, torchxrayvision and CheXNet: the same function, labels and decisions here.

The other networks are written below by their own names of the parameters; make test-frameworks
runs the real ones.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.checkpoint.convert import Target, convert
from densenet121.checkpoint.foreign.identify import identify
from densenet121.checkpoint.foreign.medical import (
    CHEXNET_LABELS,
    XRAY_LABELS,
    to_monai,
)
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.tasks import MultiLabel
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import run_command

NAN = float("nan")


def random_weights(outputs: int, channels: int) -> dict[str, Tensor]:
    """Of DenseNet-121, by torchvision's names, with statistics that a network could have."""
    generator = torch.Generator().manual_seed(outputs)
    state = build("densenet121", num_classes=outputs).state_dict()
    state["features.conv0.weight"] = torch.empty(64, channels, 7, 7)
    for name, tensor in state.items():
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1, generator=generator)
    return state


def as_monai(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "classifier":
        return f"class_layers.out.{parts[1]}"
    if "denselayer" in name:
        parts.insert(3, "layers")
    return ".".join(parts)


def as_chexnet(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "classifier":
        return f"module.densenet121.classifier.0.{parts[1]}"
    if "denselayer" in name:
        parts[3] = f"{parts[3][:-1]}.{parts[3][-1]}"  # norm1 was norm.1 until 2018
    return f"module.densenet121.{'.'.join(parts)}"


@torch.inference_mode()
def theirs(state: dict[str, Tensor], x: Tensor, renamed: Callable[[str], str]) -> Tensor:
    """Logits of a DenseNet-121, by the other program's names."""

    def get(name: str) -> Tensor:
        return state[renamed(name)]

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var = get(f"{name}.running_mean"), get(f"{name}.running_var")
        return F.relu(F.batch_norm(x, mean, var, get(f"{name}.weight"), get(f"{name}.bias")))

    x = F.conv2d(x, get("features.conv0.weight"), stride=2, padding=3)
    x = F.max_pool2d(norm_relu(x, "features.norm0"), 3, 2, 1)
    for b, layers in enumerate((6, 12, 24, 16), start=1):
        for k in range(layers):
            name = f"features.denseblock{b}.denselayer{k + 1}"
            new = F.conv2d(norm_relu(x, f"{name}.norm1"), get(f"{name}.conv1.weight"))
            new = F.conv2d(norm_relu(new, f"{name}.norm2"), get(f"{name}.conv2.weight"), padding=1)
            x = torch.cat([x, new], 1)
        if b < 4:
            name = f"features.transition{b}"
            x = F.conv2d(norm_relu(x, f"{name}.norm"), get(f"{name}.conv.weight"))
            x = F.avg_pool2d(x, 2)
    x = norm_relu(x, "features.norm5").mean((2, 3))
    return F.linear(x, get("classifier.weight"), get("classifier.bias"))


def assert_near(ours: Tensor, wanted: Tensor) -> None:
    assert ours.shape == wanted.shape
    assert float((ours - wanted).abs().max()) < 1e-5 * float(wanted.max() - wanted.min())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


LEVELS = np.random.default_rng(1).integers(0, 256, (2, 48, 40), dtype=np.uint8)


def grey_logits(file: Path) -> Tensor:
    """Of LEVELS, as images of three equal channels, by the file's own preprocessing."""
    loaded = load_pretrained(file)
    assert loaded.info is not None
    images = torch.from_numpy(np.repeat(LEVELS[..., None], 3, axis=3))
    with torch.inference_mode():
        logits: Tensor = loaded.model(loaded.info.preprocessing.normalise(images))
    return logits


@pytest.mark.parametrize("channels", [1, 3])
def test_monai_weights_give_monais_logits(channels: int, tmp_path: Path) -> None:
    state = {as_monai(n): t for n, t in random_weights(5, channels).items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "w.pt")
    scaled = torch.from_numpy(LEVELS).float().div(255)[:, None].repeat(1, channels, 1, 1)
    assert_near(grey_logits(tmp_path / "w.pt"), theirs(state, scaled, as_monai))
    weights = read_weights(tmp_path / "w.pt")
    assert (weights.family, weights.num_classes) == ("monai", 5)
    assert weights.info is not None
    assert (weights.info.net, weights.info.task) == ("densenet121", "single_label")
    assert any("are assumed" in note for note in weights.notes)
    assert weights.channels == channels == weights.info.preprocessing.channels


@pytest.mark.parametrize("net", ["densenet121", "densenet169", "densenet201", "densenet264"])
def test_names_of_monais_networks_go_here_and_back(net: str) -> None:
    with torch.device("meta"):
        ours = build(net, num_classes=2).state_dict()
    named = {as_monai(name): tensor for name, tensor in ours.items()}
    found = identify(named, Path("w.pth"), {}, None)
    assert (found.family, found.net, found.variant_is_certain) == ("monai", net, True)
    assert list(found.state_dict) == list(ours)
    assert [to_monai(name) for name in ours] == list(named)


def test_the_scale_of_torchxrayvision_is_exact_on_every_grey_level(tmp_path: Path) -> None:
    torch.save(xray_file(), tmp_path / "w.pth")
    info = read_weights(tmp_path / "w.pth").info
    assert info is not None
    p = info.preprocessing
    g = np.arange(256, dtype=np.float64)
    for mean, std in zip(p.mean, p.std, strict=True):
        np.testing.assert_allclose((g - mean) / std, (2 * g / 255 - 1) * 1024, rtol=1e-14)
        assert (mean, std) == (float(np.float32(mean)), float(np.float32(std)))


def xray_file(thresholds: list[float] | None = None) -> dict[str, Tensor]:
    state = random_weights(18, 1)
    # For inputs of +-1024 a trained norm0 has such a variance.
    state["features.norm0.running_var"] *= 1e6
    if thresholds is not None:
        state["op_threshs"] = torch.tensor(thresholds)
    return state


def op_norm(p: Tensor, t: Tensor) -> Tensor:
    return torch.where(p < t, p / (2 * t), 1 - (1 - p) / (2 * (1 - t)))


@pytest.mark.parametrize("untrained", ["none", "some"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchxrayvision_weights_give_its_logits_labels_and_decisions(
    untrained: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"w{suffix}"
    state = xray_file()
    scaled = (2 * torch.from_numpy(LEVELS).float() / 255 - 1)[:, None] * 1024
    logits = theirs(state, scaled, lambda name: name)
    # Each between the probabilities of the two images; torchxrayvision has nan for no label.
    thresholds = logits.sigmoid().mean(0)
    if untrained == "some":
        thresholds[::4] = NAN
    kept = [k for k in range(18) if not torch.isnan(thresholds[k])]
    state["op_threshs"] = thresholds
    torch.save(state, file) if suffix == ".pth" else safetensors.torch.save_file(state, file)

    weights = read_weights(file)
    assert weights.family == "torchxrayvision" and weights.info is not None
    assert weights.info.task == "multilabel"
    assert weights.info.class_names == tuple(XRAY_LABELS[k] for k in kept)
    ours = grey_logits(file)
    assert_near(ours, logits[:, kept])
    calibration = MultiLabel().read_calibration(weights.calibration or {})
    answers = MultiLabel().answers(ours.numpy(), weights.info.class_names, calibration)
    shown = op_norm(logits.sigmoid(), thresholds)[:, kept]
    for answer, row in zip(answers, shown, strict=True):
        positive = [k for k, value in zip(kept, row, strict=True) if value >= 0.5]
        assert list(answer.positive or ()) == [XRAY_LABELS[k] for k in positive]
    said = inspect(file)
    assert "weights of  torchxrayvision" in said and "op_threshs are the thresholds" in said
    dropped = ", ".join(XRAY_LABELS[k] for k in range(18) if k not in kept)
    assert (f"without a threshold are left out: {dropped}" in said) == bool(dropped)
    assert f"{float(thresholds[kept[1]]):.4g}" in said
    assert "mean 127.500, std 0.12451; one grey channel; colours become L" in said


def test_a_threshold_itself_is_positive_in_both() -> None:
    p = torch.tensor([0.1])
    assert op_norm(p, p).item() == 0.5
    assert MultiLabel().same_answers(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))


@pytest.mark.parametrize("values", [[0.1] * 17, [NAN] * 18, [0.1] * 17 + [1.5], [0.0] * 18])
def test_op_threshs_that_are_none_are_refused(values: list[float], tmp_path: Path) -> None:
    torch.save(xray_file(values), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: op_threshs must be 18 numbers between 0 and 1"):
        read_weights(tmp_path / "w.pth")


def test_files_that_lack_a_part_are_refused_by_name(tmp_path: Path) -> None:
    state = {as_monai(n): t for n, t in random_weights(2, 1).items()}
    del state["features.conv0.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r'w\.pth: has no "features\.conv0\.weight"'):
        read_weights(tmp_path / "w.pth")
    torch.save(xray_file([0.1] * 18) | {"classifier.bias": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"classifier\.bias has shape \(3,\)"):
        load_pretrained(tmp_path / "w.pth")


def test_chexnet_weights_give_its_logits_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "m-25012018.pth.tar"
    state = {as_chexnet(n): t for n, t in random_weights(14, 3).items() if "batches" not in n}
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"epoch": 1, "state_dict": state, "best_loss": 0.1, "optimizer": optimizer}, file)
    weights = read_weights(file)
    assert weights.family == "chexnet" and weights.info is not None
    assert (weights.info.task, weights.info.class_names) == ("multilabel", CHEXNET_LABELS)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.from_numpy(LEVELS).float().div(255)[..., None].sub(mean).div(std)
    logits = theirs(state, images.permute(0, 3, 1, 2), as_chexnet)
    assert_near(grey_logits(file), logits)
    answer = Predictor(file).predict([np.repeat(LEVELS[0][..., None], 3, axis=2)])[0]
    assert answer.labels == CHEXNET_LABELS
    assert "labels      14: Atelectasis, Cardiomegaly" in inspect(file)


@pytest.mark.parametrize("layer", ["classifier.0", "classifier.1", "classifier.fc"])
def test_one_linear_layer_within_the_classifier_is_the_classifier(
    layer: str, tmp_path: Path
) -> None:
    state = random_weights(14, 3)
    torch.save({n.replace("classifier", layer): t for n, t in state.items()}, tmp_path / "w.pth")
    loaded = load_pretrained(tmp_path / "w.pth")
    assert_same(dict(loaded.model.state_dict()), state)
    # What follows the layer is not in the file; without the module around it, no labels either.
    assert loaded.info is not None
    assert (loaded.family, loaded.info.task) == ("torchvision", "single_label")


def test_a_grey_network_of_torchvision_is_read_as_scaled_to_1(tmp_path: Path) -> None:
    state = random_weights(3, 1)
    torch.save(state, tmp_path / "w.pth")
    scaled = torch.from_numpy(LEVELS).float().div(255)[:, None]
    assert_near(grey_logits(tmp_path / "w.pth"), theirs(state, scaled, lambda name: name))
    assert "a scale of 0 to 1 is assumed" in inspect(tmp_path / "w.pth")


@pytest.mark.parametrize("to", ["monai", "torchxrayvision"])
def test_grey_weights_go_back_bit_for_bit(to: Target, tmp_path: Path) -> None:
    state = random_weights(5, 1) if to == "monai" else xray_file()
    named = {as_monai(n): t for n, t in state.items()} if to == "monai" else state
    torch.save(named, tmp_path / "w.pth")
    before = grey_logits(tmp_path / "w.pth")
    convert(tmp_path / "w.pth", tmp_path / "w.safetensors", "native")
    assert torch.equal(grey_logits(tmp_path / "w.safetensors"), before)
    done = convert(tmp_path / "w.safetensors", tmp_path / "back.pth", to, channels=1)
    assert done.channels == 1
    back = torch.load(tmp_path / "back.pth")
    assert_same(back if to == "monai" else back["state_dict"], named)
    assert torch.equal(grey_logits(tmp_path / "back.pth"), before)  # split in the same way
    info = read_weights(tmp_path / "back.pth").info
    assert info is not None
    assert info.class_names == (() if to == "monai" else XRAY_LABELS)


def test_thresholds_labels_and_task_are_kept_by_convert(tmp_path: Path) -> None:
    torch.save(xray_file([0.1] * 14 + [NAN] * 4), tmp_path / "w.pth")
    command = ("convert", "w.pth", "w.safetensors", "--to", "native")
    done = run_command(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: 4 outputs without a threshold are left out: Lung Lesion" in done.stdout
    found, wanted = read_weights(tmp_path / "w.safetensors"), read_weights(tmp_path / "w.pth")
    assert found.info == wanted.info
    read = MultiLabel().read_calibration
    assert read(found.calibration or {}) == read(wanted.calibration or {})
    assert found.num_classes == 14
    command = ("convert", "w.safetensors", "back.pth", "--to", "torchxrayvision")
    done = run_command(*command, cwd=tmp_path)
    assert "variant paper, for one channel, from native" in done.stdout
    assert "the calibration was dropped" in done.stdout
    assert "does not record" not in done.stdout
    moved = convert(tmp_path / "w.safetensors", tmp_path / "monai.pth", "monai", channels=1).notes
    assert moved[0].endswith("must be normalised by mean 127.5 and std 0.1245117")
    assert moved[1].startswith("the new file does not record the classes: Atelectasis, Consol")
    back = read_weights(tmp_path / "back.pth")
    assert back.info is not None
    assert (back.family, back.info.class_names) == ("torchxrayvision", XRAY_LABELS[:14])


def test_one_channel_of_colour_weights_is_written_in_the_scale_of_the_program(
    tmp_path: Path,
) -> None:
    torch.save(random_weights(3, 3), tmp_path / "rgb.pth")
    notes = convert(tmp_path / "rgb.pth", tmp_path / "x.pth", "monai", channels=1).notes
    assert "the same function for grey images, except at the border" in notes[0]
    assert notes[1].endswith("must be normalised by mean 114.495 and std 57.63")
    with pytest.raises(InputError, match=r"torchxrayvision scales images to -1024 \.\.\. 1024"):
        convert(tmp_path / "rgb.pth", tmp_path / "y.pth", "torchxrayvision")
    with pytest.raises(UsageError, match="`channels` 3 cannot be written for torchxrayvision"):
        convert(tmp_path / "rgb.pth", tmp_path / "y.pth", "torchxrayvision", channels=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.conv0.weight": torch.ones(2, 1, 7, 7, 7)}, "MONAI with spatial_dims 3"),
        ({"features.conv0.weight": torch.ones(2, 1, 7)}, "MONAI with spatial_dims 1"),
        ({"features.norm0.running_mean": None}, "MONAI with another norm than batch"),
        ({"features.conv0.weight": torch.ones(2, 4, 7, 7)}, "for images of 4 channels; 3, and 1"),
    ],
)
def test_networks_of_monai_that_cannot_be_ours_are_refused(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state: dict[str, Any] = {
        "features.conv0.weight": torch.ones(2, 3, 7, 7),
        "features.norm0.running_mean": torch.ones(2),
        "features.denseblock1.denselayer1.layers.conv1.weight": torch.ones(2, 2, 1, 1),
    }
    state = {name: t for name, t in (state | change).items() if t is not None}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "w.pth")


LIBRARY = """
from torch import nn
class DenseNet(nn.Module):
    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = features, classifier
"""


def test_the_conversion_that_a_refusal_prints_makes_a_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchxrayvision").mkdir()
    (tmp_path / "torchxrayvision" / "__init__.py").write_text("")
    (tmp_path / "torchxrayvision" / "models.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    from torchxrayvision.models import DenseNet  # type: ignore[import-not-found]

    model = build("densenet121", num_classes=7)
    file = tmp_path / "nih best.pt"
    torch.save(DenseNet(model.features, model.classifier), file)
    with pytest.raises(InputError, match=r"run code \(torchxrayvision\.models\.DenseNet\)") as told:
        read_weights(file)
    assert "\n" not in str(told.value)
    command = str(told.value).partition("run this where torchxrayvision is installed: ")[2]
    words = shlex.split(command)
    assert words[0] == "python"
    done = subprocess.run(
        [sys.executable, *words[1:]], env={"PYTHONPATH": str(tmp_path)}, check=False
    )
    assert done.returncode == 0
    weights = read_weights(tmp_path / "nih best-state.pth")
    assert (weights.family, weights.num_classes) == ("torchxrayvision", 7)
    assert_same(weights.state_dict, dict(model.state_dict()))
