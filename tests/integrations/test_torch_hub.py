"""hubconf.py, loaded by torch.hub itself from this folder."""

import importlib.util
import pickle
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121 import load_model
from densenet121.network import DenseNet
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import REPOSITORY
from helpers.weights import write_weights

PARAMETERS = {  # the paper's table 1 and the docstrings of network/densenet.py
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "densenet100": 769_162,
    "densenet40": 176_122,
}


def load(name: str, *arguments: Any, **more: Any) -> DenseNet:
    repository = str(REPOSITORY)
    found = torch.hub.load(repository, name, *arguments, source="local", **more)  # type: ignore[no-untyped-call]
    assert type(found).__name__ == "DenseNet"
    return found  # type: ignore[no-any-return]


def test_the_hub_has_the_networks_and_nothing_else() -> None:
    found = runpy.run_path(str(REPOSITORY / "hubconf.py"))
    entries = {name for name, value in found.items() if callable(value) and name[0] != "_"}
    assert entries == set(PARAMETERS)
    assert all(importlib.util.find_spec(name) for name in found["dependencies"])


@pytest.mark.parametrize("name", ["densenet121", "densenet40"])
def test_a_network_has_the_size_of_the_paper(name: str) -> None:
    found = load(name)
    assert sum(parameter.numel() for parameter in found.parameters()) == PARAMETERS[name]
    assert found.training


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_every_network_has_the_size_of_the_paper(name: str) -> None:
    assert sum(parameter.numel() for parameter in load(name).parameters()) == PARAMETERS[name]


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    file = write_weights(tmp_path / "w.safetensors")
    found, expected = load("densenet40", weights=str(file)), load_model(file)
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(found(images), expected(images))
    assert not found.training
    assert load("densenet40", str(file), num_classes=3).num_classes == 3


def test_arguments_that_contradict_the_weights_are_refused(tmp_path: Path) -> None:
    file = str(write_weights(tmp_path / "w.safetensors"))
    with pytest.raises(UsageError, match=r"`num_classes` is 5, but .* has 3; omit it"):
        load("densenet40", file, num_classes=5)
    with pytest.raises(UsageError, match=r"`in_channels` is 1, but .* has 3"):
        load("densenet40", file, in_channels=1)
    with pytest.raises(InputError, match="weights of densenet40; load that instead"):
        load("densenet121", file)
    with pytest.raises(InputError, match=r"missing\.pth"):
        load("densenet121", str(tmp_path / "missing.pth"))


class Harmful:
    """Would write a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_code_in_weights_does_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Harmful(tmp_path / "ran")}, tmp_path / "w.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Harmful(tmp_path / "ran")))
    for name in ("w.pth", "old.pth"):
        with pytest.raises(InputError, match=name):
            load("densenet121", str(tmp_path / name))
    assert not (tmp_path / "ran").exists()
