"""Weights with a head of their own: trained with, and named where a classifier is needed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.commands.probe import probe
from densenet121.config import ProbeConfig
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.utils.errors import InputError
from densenet121.utils.var_init import initialise

from helpers.training import train_config


def backbone() -> dict[str, Tensor]:
    model = build("densenet40", num_classes=3)
    initialise(model, torch.Generator().manual_seed(3))
    return {n: t for n, t in model.state_dict().items() if n.startswith("features.")}


def linear(name: str, outputs: int, inputs: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


WIDTH = 132  # features of densenet40
HEADS: dict[str, tuple[dict[str, Tensor], str]] = {
    "none": ({}, "it has no head"),
    "hidden layer": (
        linear("classifier.0", 256, WIDTH) | linear("classifier.3", 3, 256),
        "its head is another (classifier.0.weight, classifier.0.bias, classifier.3.weight, "
        "classifier.3.bias) and is left out",
    ),
    "two in a sequence": (
        linear("classifier.0", 14, WIDTH) | linear("classifier.1", 3, 14),
        "its head is another (classifier.0.weight",
    ),
    "another name": (linear("fc", 3, WIDTH), "its head is another (fc.weight, fc.bias)"),
    "after a layer": (
        linear("hidden", 64, WIDTH) | linear("classifier", 3, 64),
        "its head is another (hidden.weight",
    ),
}


@pytest.mark.parametrize("prefix", ["", "module.", "module.densenet121."])
@pytest.mark.parametrize("head", HEADS)
def test_another_head_is_replaced_and_all_else_is_taken(
    head: str, prefix: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, said = HEADS[head]
    file = tmp_path / "w.pth"
    torch.save({"state_dict": {prefix + n: t for n, t in (backbone() | tensors).items()}}, file)
    weights = read_weights(file)
    assert weights.other_head == tuple(tensors)
    if prefix:
        return
    flags: dict[str, Any] = {"pretrained": str(file), "max_epoch": 1, "lr": 1e-9}
    result = train(train_config(image_folder, tmp_path / "run", **flags))
    shown = capsys.readouterr().out
    assert f"load model {file} success; {said}" in shown and "so the head is new" in shown
    assert "None" not in shown.split("load model")[1].split("\n")[0]
    trained = read_weights(result.folder / "last.safetensors").state_dict
    for name, tensor in backbone().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(trained[name], tensor, rtol=1e-4, atol=1e-6)
    assert trained["classifier.weight"].shape == (3, WIDTH)


@pytest.mark.parametrize("head", HEADS)
def test_weights_that_cannot_classify_say_what_their_head_is(head: str, tmp_path: Path) -> None:
    tensors, _ = HEADS[head]
    torch.save(backbone() | tensors, tmp_path / "w.pth")
    words = "its head is another than one linear layer" if tensors else 'no "classifier.weight"'
    for use in (Predictor, load_pretrained):
        with pytest.raises(InputError, match=rf"w\.pth: {words}.* train with it as `pretrained`"):
            use(tmp_path / "w.pth")
    shown = inspect(tmp_path / "w.pth")
    assert ("another head: " + next(iter(tensors)) if tensors else "no classifier") in shown


@pytest.mark.parametrize("name", ["classifier", "classifier.1", "module.classifier"])
def test_a_linear_layer_without_a_bias_is_one_of_bias_0(
    name: str, image_folder: Path, tmp_path: Path
) -> None:
    head = {"weight": torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))}
    prefix, _, layer = name.rpartition("module.")
    for file, parts in (("a.pth", head), ("b.pth", head | {"bias": torch.zeros(3)})):
        tensors = backbone() | {f"{layer}.{part}": tensor for part, tensor in parts.items()}
        torch.save({prefix + n: t for n, t in tensors.items()}, tmp_path / file)
    images = sorted((image_folder / "val").rglob("*.png"))[:3]
    a, b = (
        Predictor(tmp_path / file, net="densenet40", amp="fp32", image_size=32)
        for file in ("a.pth", "b.pth")
    )
    assert a.predict(images) == b.predict(images)
    shown = inspect(tmp_path / "a.pth")
    assert "another head" not in shown
    flags: dict[str, Any] = {"pretrained": str(tmp_path / "a.pth"), "max_epoch": 1}
    assert train(train_config(image_folder, tmp_path / "run", **flags)).folder.is_dir()


def test_a_classifier_without_an_output_cannot_classify(tmp_path: Path) -> None:
    torch.save(backbone() | linear("classifier", 0, WIDTH), tmp_path / "w.pth")
    for use in (lambda file: Predictor(file, net="densenet40"), load_pretrained):
        with pytest.raises(InputError, match=r"w\.pth: a classifier of 0 rows, so these are not"):
            use(tmp_path / "w.pth")


@pytest.mark.parametrize("head", ["none", "hidden layer"])
def test_probe_takes_features_with_any_head(head: str, image_folder: Path, tmp_path: Path) -> None:
    torch.save(backbone() | HEADS[head][0], tmp_path / "w.pth")
    flags: dict[str, Any] = {"image_size": 32, "eval_resize": "32,32", "amp": "fp32", "workers": 0}
    config = ProbeConfig(
        data_dir=str(image_folder),
        pretrained=str(tmp_path / "w.pth"),
        net="densenet40",
        method="class_mean",
        **flags,
    )
    output = probe(config).output
    assert output is not None
    written = read_weights(output).state_dict
    assert written["classifier.weight"].shape == (3, WIDTH)
    for name, tensor in backbone().items():
        assert torch.equal(written[name], tensor)


def test_a_name_within_the_features_is_still_unknown(image_folder: Path, tmp_path: Path) -> None:
    torch.save(backbone() | {"features.more.weight": torch.ones(1)}, tmp_path / "w.pth")
    flags: dict[str, Any] = {"pretrained": str(tmp_path / "w.pth"), "max_epoch": 1}
    with pytest.raises(InputError, match=r'unknown parameter "features\.more\.weight"'):
        train(train_config(image_folder, tmp_path / "run", **flags))
