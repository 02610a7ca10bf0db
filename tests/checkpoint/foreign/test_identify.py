"""Weights of other programs: read, written, converted; damaged and hostile files refused."""

import argparse
import random
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.foreign import mindspore
from densenet121.checkpoint.foreign.identify import identify
from densenet121.checkpoint.foreign.names import to_mindspore
from densenet121.checkpoint.foreign.torch_file import without_prefix
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.network import DenseNet, build
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import run_command

SMALL = {
    "backbone.features.conv0.weight": torch.arange(3.0).reshape(1, 3, 1, 1),
    "backbone.features.norm0.gamma": torch.ones(1),
    "head.fc.weight": torch.tensor([[1.5], [-2.0]]),
}


@pytest.fixture(scope="module")
def network() -> DenseNet:
    torch.manual_seed(1)
    return build("densenet121", num_classes=3, variant="model_zoo")


def mindspore_tensors(model: DenseNet, *, model_zoo: bool = True) -> dict[str, Tensor]:
    return {
        to_mindspore(name, model_zoo=model_zoo): tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def test_the_bytes_are_those_of_mindspore() -> None:
    """The example of original_system.md 4.1, made with MindSpore 2.10.0."""
    tensor = torch.arange(4, dtype=torch.float32).reshape(2, 2)
    expected = bytes.fromhex("0a260a03663332121f080208021207") + b"Float32" + bytes.fromhex("1a10")
    data = mindspore.encode({"f32": tensor})
    assert data == expected + np.arange(4, dtype="<f4").tobytes()
    found = mindspore.decode(data, "x.ckpt")
    assert isinstance(found["f32"], Tensor)
    assert torch.equal(found["f32"], tensor)


def value(tag: bytes, dims: bytes, kind: bytes, content: bytes) -> bytes:
    tensor = dims + bytes([0x12, len(kind)]) + kind + bytes([0x1A, len(content)]) + content
    inside = bytes([0x0A, len(tag)]) + tag + bytes([0x12, len(tensor)]) + tensor
    return bytes([0x0A, len(inside)]) + inside


def test_both_dialects_slices_scalars_and_texts_are_read() -> None:
    data = value(b"old", b"\x08\x00", b"Uint8", b"\x07")  # 1.x: a scalar has dims [0]
    data += value(b"new", b"", b"UInt8", b"\x07")
    data += value(b"half", b"\x08\x04", b"Float16", b"\x00\x3c\x00\x40")  # two slices
    data += value(b"half", b"\x08\x04", b"Float16", b"\x00\x42\x00\x44")
    data += value(b"note", b"\x08\x00", b"str", "pï".encode("utf-32-le"))
    found = mindspore.decode(data, "x.ckpt")
    assert found["note"] == "pï"
    tensors = {name: item for name, item in found.items() if isinstance(item, Tensor)}
    assert tensors["old"].shape == tensors["new"].shape == ()
    assert int(tensors["old"]) == int(tensors["new"]) == 7
    assert tensors["half"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            value(b"a", b"\x08\x02", b"Float32", b"1234"),
            r'"a" has 4 bytes .* Float32 \(2,\) needs 8',
        ),
        (value(b"a", b"\x08\x01", b"Float32", b"12345678"), r'"a" has 8 bytes .* needs 4'),
        (value(b"a", b"\x08\x01", b"Float31", b"1234"), '"a" has the unknown type "Float31"'),
        (value(b"a", b"", b"Bool", b"\x02"), '"a" has a Bool that is neither 0 nor 1'),
        (
            value(b"a", b"", b"Int8", b"1")
            + value(b"b", b"", b"Int8", b"1")
            + value(b"a", b"", b"Int8", b"1"),
            '"a" occurs twice',
        ),
    ],
)
def test_what_mindspore_would_load_as_garbage_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mindspore.decode(data, "x.ckpt")


def test_a_crc_is_checked() -> None:
    data = bytearray(mindspore.encode(SMALL, crc=True))
    assert mindspore.decode(bytes(data), "x.ckpt").keys() == SMALL.keys()
    data[-30] ^= 1
    with pytest.raises(InputError, match="its CRC does not match"):
        mindspore.decode(bytes(data), "x.ckpt")


def small_file(path: Path) -> bytes:
    if path.suffix == ".ckpt":
        path.write_bytes(mindspore.encode(SMALL))
        return path.read_bytes()
    ours = {"features.conv0.weight": torch.ones(1, 3, 1, 1), "classifier.weight": torch.ones(2, 1)}
    if path.suffix == ".pth":
        torch.save(ours, path)
    else:
        safetensors.torch.save_file(ours, path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".pth"])
def test_a_file_cut_anywhere_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    whole = small_file(path)
    names = set(read_weights(path).state_dict)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = set(read_weights(path).state_dict)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
        else:  # a .ckpt cut between two tensors is whole; the network then finds one missing
            assert suffix == ".ckpt"
            assert found < names


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".pth"])
def test_changed_bytes_are_read_or_refused(suffix: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    whole = small_file(path)
    rng = random.Random(1)
    refused = 0
    for _ in range(count):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            read_weights(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert 0 < refused < count


def test_a_checkpoint_cut_between_two_tensors_names_what_is_missing(
    network: DenseNet, tmp_path: Path
) -> None:
    tensors = mindspore_tensors(network)
    last = tensors.popitem()[0]
    assert last == "head.fc.bias"
    (tmp_path / "w.ckpt").write_bytes(mindspore.encode(tensors))
    with pytest.raises(InputError, match=r'"classifier\.bias" is missing \(1 in all\)'):
        load_pretrained(tmp_path / "w.ckpt")


def test_a_training_checkpoint_gives_weights_momentum_and_step(
    network: DenseNet, tmp_path: Path
) -> None:
    plain = mindspore_tensors(network)
    tensors = {f"network.{name}": tensor for name, tensor in plain.items()}
    parameters = dict(network.named_parameters())
    tensors |= {f"moments.{to_mindspore(n, model_zoo=True)}": p for n, p in parameters.items()}
    tensors |= {"global_step": torch.tensor([7], dtype=torch.int32)}
    tensors |= {"learning_rate": torch.ones(5), "momentum": torch.tensor(0.9)}
    (tmp_path / "0-1_7.ckpt").write_bytes(mindspore.encode(tensors))
    weights = read_weights(tmp_path / "0-1_7.ckpt")
    assert (weights.family, weights.num_classes) == ("mindspore", 3)
    assert weights.momentum.keys() == parameters.keys()
    assert int(weights.state["global_step"]) == 7
    assert weights.info is not None
    assert weights.info.variant == "model_zoo"
    said = inspect(tmp_path / "0-1_7.ckpt")
    assert "momentum of 364 parameters" in said
    assert "model_zoo" in said
    (tmp_path / "w.ckpt").write_bytes(mindspore.encode(tensors | {"extra": torch.ones(1)}))
    with pytest.raises(InputError, match='unknown parameter "extra"'):
        load_pretrained(tmp_path / "w.ckpt")


def test_a_network_goes_to_mindspore_and_back_bit_for_bit(
    network: DenseNet, tmp_path: Path
) -> None:
    (tmp_path / "in.ckpt").write_bytes(mindspore.encode(mindspore_tensors(network)))
    done = convert(tmp_path / "in.ckpt", tmp_path / "w.safetensors", "native")
    assert (done.info.variant, done.tensors) == ("model_zoo", 727)
    convert(tmp_path / "w.safetensors", tmp_path / "out.ckpt", "mindspore")
    assert (tmp_path / "out.ckpt").read_bytes() == (tmp_path / "in.ckpt").read_bytes()
    with pytest.raises(
        InputError, match="of the variant model_zoo give wrong results in torchvision"
    ):
        convert(tmp_path / "w.safetensors", tmp_path / "w.pth", "torchvision")
    with pytest.raises(UsageError, match="already exists"):
        convert(tmp_path / "w.safetensors", tmp_path / "in.ckpt", "mindspore")
    with pytest.raises(UsageError, match=r"must be written as \.ckpt or \.safetensors"):
        convert(tmp_path / "w.safetensors", tmp_path / "w.bin", "mindspore")


def test_the_commands_say_what_they_did(network: DenseNet, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    done = run_command("convert", "w.pth", "w.ckpt", "--to", "mindcv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all 727 tensors are bit-identical after reading back" in done.stdout
    done = run_command("inspect", "w.ckpt", cwd=tmp_path)
    assert "mindcv before October 2022 used model_zoo; model_zoo has the same names" in done.stdout
    done = run_command("inspect", "none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "model.backbone_net."])
def test_what_wrappers_put_in_front_is_dropped(prefix: str) -> None:
    state = {"features.conv0.weight": torch.ones(1), "features.a.conv1.weight": torch.ones(1)}
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    assert without_prefix(wrapped, Path("w.pth")).keys() == state.keys()


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("model.classifier.weight", "classifier.weight", "classifier.weight"),
        (
            "model.features.a.denselayer1.norm.1.bias",
            "model.features.a.denselayer1.norm1.bias",
            "features.a.denselayer1.norm1.bias",
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_two_tensors_of_one_name_are_refused_by_both(
    first: str, second: str, name: str, turned: bool, tmp_path: Path
) -> None:
    """Which of them the network used is not in the file: a module may have replaced its head."""
    names = ["model.features.conv0.weight", *([second, first] if turned else [first, second])]
    torch.save({n: torch.full((2, 2), float(k)) for k, n in enumerate(names)}, tmp_path / "w.pth")
    with pytest.raises(InputError) as refused:
        read_weights(tmp_path / "w.pth")
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'w.pth'}: ") and f"both map to {name}," in said
    for given in (first, second):
        assert f'"{given}"' in said or f'"{given.removeprefix("model.")}"' in said


def test_mmpretrains_names_are_ours() -> None:
    state = {
        "backbone.stem.0.weight": "features.conv0.weight",
        "backbone.stem.1.running_mean": "features.norm0.running_mean",
        "backbone.stages.2.block.23.conv2.weight": (
            "features.denseblock3.denselayer24.conv2.weight"
        ),
        "backbone.transitions.0.conv.weight": "features.transition1.conv.weight",
        "backbone.transitions.3.0.bias": "features.norm5.bias",
        "head.fc.weight": "classifier.weight",
    }
    found = identify({name: torch.ones(1) for name in state}, Path("w.pth"), {}, None)
    assert found.family == "mmpretrain"
    assert list(found.state_dict) == list(state.values())


def test_a_densenetblur_is_refused_by_name() -> None:
    names = ("features.conv0.weight", "features.conv1.weight")
    with pytest.raises(InputError, match="densenetblur121d"):
        identify({name: torch.ones(1) for name in names}, Path("w.pth"), {}, None)


def test_the_flags_of_timms_training_tell_another_network() -> None:
    """As its ``train.py`` saves them; neither names nor shapes of the tensors tell it."""
    state = {"features.conv0.weight": torch.ones(1), "classifier.weight": torch.ones(3, 4)}

    def found(**flags: object) -> dict[str, torch.Tensor]:
        beside = {"arch": "densenet121", "args": argparse.Namespace(**flags)}
        return identify(state, Path("w.pth"), beside, None).state_dict

    ours: list[dict[str, object]] = [{}, {"gp": None, "model_kwargs": {}}, {"gp": "avg"}, {"gp": 3}]
    for plain in ours:
        assert "classifier.weight" in found(**plain)
    assert "global_pool max.classifier.weight" in found(gp="max", model_kwargs={})
    with pytest.raises(InputError, match=r'flags of its .* act_layer "silu", not "relu"'):
        found(model_kwargs={"act_layer": "silu"})


def test_a_name_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        identify({"features.co\n\x04weight": torch.zeros(1)}, tmp_path / "case.pth", {}, None, "")
    assert "\n" not in str(refused.value)


def test_a_keras_file_whose_groups_have_no_end_is_refused_in_one_line(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "round.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = file.create_group("a")  # a group in itself
    with pytest.raises(InputError, match=r"round\.h5: more than 20000 objects, or deeper than 32"):
        read_weights(path)
    wide = tmp_path / "wide.h5"
    with h5py.File(wide, "w") as file:
        inner = file.create_group("0")
        for _ in range(15):  # 2 ** 15 ways to the innermost
            outer = file.create_group(f"{inner.name}_")
            outer["x"], outer["y"] = inner, inner
            inner = outer
    with pytest.raises(InputError, match=r"wide\.h5: more than 20000 objects"):
        read_weights(wide)
