"""Keras files: which layer is the classifier, and that no layer takes the place of another."""

from pathlib import Path

import numpy as np
import pytest
import torch

from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.utils.errors import InputError

h5py = pytest.importorskip("h5py")
WIDTH = 4  # features, and units of the hidden layer: the shapes alone do not tell them apart


def write(
    path: Path, arrays: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]
) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def numbers(*shape: int, first: float = 0.0) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return (np.arange(np.prod(shape), dtype=np.float32) + np.float32(first)).reshape(shape)


def by_name(path: Path, heads: dict[str, int]) -> Path:
    """The first convolution, the last norm and dense layers, as Keras 2 writes them."""
    arrays = {"conv1/conv/conv1/conv/kernel:0": numbers(7, 7, 3, WIDTH)}
    arrays |= {f"bn/bn/{part}:0": numbers(WIDTH) for part in ("gamma", "beta")}
    for layer, units in heads.items():
        arrays[f"{layer}/{layer}/kernel:0"] = numbers(WIDTH, units)
        arrays[f"{layer}/{layer}/bias:0"] = numbers(units, first=100)
    return write(path, {f"model_weights/{name}": array for name, array in arrays.items()})


def by_number(path: Path, heads: dict[str, int]) -> Path:
    """The same as Keras 3 writes them."""
    arrays = {"conv2d/vars/0": numbers(7, 7, 3, WIDTH)}
    for norm in ("batch_normalization", "batch_normalization_1"):
        arrays |= {f"{norm}/vars/{part}": numbers(WIDTH) for part in range(4)}
    for layer, units in heads.items():
        arrays[f"{layer}/vars/0"] = numbers(WIDTH, units)
        arrays[f"{layer}/vars/1"] = numbers(units, first=100)
    return write(path, {f"layers/{name}": array for name, array in arrays.items()})


FORMS = pytest.mark.parametrize("form", [by_name, by_number])


@FORMS
def test_bfloat16_of_keras_are_the_numbers_they_stand_for(form: object, tmp_path: Path) -> None:
    """HDF5 has no such type: with the policy "bfloat16", Keras writes two bytes without a type."""
    assert callable(form)
    path = form(tmp_path / "w.h5", {"dense": 3})
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
        for name in names:
            wide = np.asarray(file[name][()], "<f4")
            del file[name]
            file[name] = (wide.view("<u4") >> 16).astype("<u2").view("V2")
    weights = read_weights(path)
    wanted = torch.from_numpy(numbers(WIDTH, 3).T.copy())
    assert torch.equal(weights.state_dict["classifier.weight"], wanted)  # all have 8 bits at most
    first = torch.from_numpy(numbers(7, 7, 3, WIDTH).transpose(3, 2, 0, 1).copy())
    cut = (first.view(torch.int32) & -(1 << 16)).view(torch.float32)
    assert torch.equal(weights.state_dict["features.conv0.weight"], cut)


@FORMS
@pytest.mark.parametrize("layer", ["dense", "dense_1"])
def test_the_only_dense_layer_is_the_classifier(form: object, layer: str, tmp_path: Path) -> None:
    assert callable(form)
    weights = read_weights(form(tmp_path / "w.h5", {layer: 3}))
    assert weights.other_head == ()
    assert weights.state_dict["classifier.weight"].tolist() == numbers(WIDTH, 3).T.tolist()
    assert weights.state_dict["classifier.bias"].tolist() == [100, 101, 102]


@FORMS
def test_a_network_that_is_a_layer_of_another_one_is_read_as_it_alone(
    form: object, tmp_path: Path
) -> None:
    assert callable(form)
    alone = form(tmp_path / "alone.h5", {"dense": 3})
    nested = tmp_path / "nested.h5"
    with h5py.File(alone, "r") as before, h5py.File(nested, "w") as file:
        for group in ("model_weights", "layers"):
            for name, content in before.get(group, {}).items():
                inner = f"{group}/densenet121/layers" if group == "layers" else f"{group}/densenet"
                before.copy(content, file, f"{group if name == 'dense' else inner}/{name}")
    one, other = (read_weights(path).state_dict for path in (alone, nested))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_a_dense_layer_of_any_name_is_the_classifier(tmp_path: Path) -> None:
    weights = read_weights(by_name(tmp_path / "w.h5", {"my_answer": 3}))
    assert weights.state_dict["classifier.weight"].tolist() == numbers(WIDTH, 3).T.tolist()
    assert weights.state_dict["classifier.bias"].tolist() == [100, 101, 102]


@FORMS
@pytest.mark.parametrize("hidden", [WIDTH, 6])
def test_a_hidden_dense_layer_is_never_left_out_in_silence(
    form: object, hidden: int, tmp_path: Path
) -> None:
    assert callable(form)
    path = form(tmp_path / "w.h5", {"dense": hidden, "dense_1": 3})
    with pytest.raises(
        InputError, match=r"w\.h5: its head is another.*dense\..*dense_1\..*train with it as"
    ):
        load_pretrained(path)
    assert "another head: dense." in inspect(path)
    weights = read_weights(path)
    assert weights.num_classes is None
    assert {"dense.weight", "dense_1.weight"} <= set(weights.other_head)
    assert weights.state_dict["dense.weight"].shape == (hidden, WIDTH)


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("conv1/conv/kernel:0", "conv1_conv/kernel:0", "features.conv0.weight"),
        ("dense/dense/kernel:0", "dense/kernel:0", "classifier.weight"),
        ("bn/gamma:0", "bn/kernel:0", "features.norm5.weight"),
    ],
)
def test_two_arrays_of_one_meaning_are_refused_by_both_names(
    first: str, second: str, name: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "w.h5", {first: numbers(2, 2), second: numbers(2, 2, first=9)})
    with pytest.raises(InputError) as refused:
        read_weights(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert f'"{first}"' in said and f'"{second}"' in said and f"both map to {name}," in said


@pytest.mark.parametrize("extra", ["conv2d_0/vars/0", "dense/vars/2", "batch_normalization/vars/4"])
def test_an_array_that_keras_3_does_not_write_is_named(extra: str, tmp_path: Path) -> None:
    path = by_number(tmp_path / "w.h5", {"dense": 3})
    with h5py.File(path, "a") as file:
        file[f"layers/{extra}"] = numbers(2, 2)
    with pytest.raises(InputError, match=f'"layers/{extra}" is not part of Keras'):
        read_weights(path)


@pytest.mark.parametrize("norms", [1, 2, 3])
def test_batch_norms_without_convolutions_are_no_densenet(norms: int, tmp_path: Path) -> None:
    names = ["batch_normalization", *(f"batch_normalization_{n}" for n in range(1, norms))]
    arrays = {f"layers/{name}/vars/{part}": numbers(4) for name in names for part in range(4)}
    path = write(tmp_path / "w.h5", arrays | {"layers/dense/vars/0": numbers(4, 3)})
    with pytest.raises(InputError, match=rf"w\.h5: 0 convolutions and {norms} batch norms do not"):
        read_weights(path)


def test_what_is_in_another_file_is_passed_over(tmp_path: Path) -> None:
    other = write(tmp_path / "other.h5", {"x": numbers(7, 7, 3, 64)})
    with h5py.File(tmp_path / "w.h5", "w") as file:
        layout = h5py.VirtualLayout((7, 7, 3, 64), dtype="f4")
        layout[...] = h5py.VirtualSource(str(other), "x", shape=(7, 7, 3, 64))
        file.create_virtual_dataset("conv1_conv/conv1_conv/kernel:0", layout)
        file["bn_conv"] = h5py.ExternalLink(str(other), "x")
        file["bn/gamma:0"] = numbers(4)
    assert set(read_weights(tmp_path / "w.h5").state_dict) == {"features.norm5.weight"}
