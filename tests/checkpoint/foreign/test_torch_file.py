"""What training scripts save beside the weights, and what is saved in place of them."""

import argparse
import collections
import datetime
import decimal
import pathlib
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from densenet121.checkpoint.foreign.identify import identify
from densenet121.checkpoint.foreign.torch_file import read_torch_file, without_prefix
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.inference.classifier import Choices
from densenet121.inference.onnx_model import load_onnx
from densenet121.utils.errors import InputError

STATE = {"features.conv0.weight": torch.arange(6.0).reshape(2, 3), "classifier.bias": torch.ones(2)}
BESIDE: dict[str, Any] = {
    "float64": np.float64(0.93),
    "float32": np.float32(0.93),
    "int64": np.int64(3),
    "bool": np.bool_(True),
    "str": np.str_("densenet121"),
    "array": np.arange(3.0),
    "dtype": np.dtype("float32"),
    "defaultdict": collections.defaultdict(list, loss=[0.5, 0.4]),
    "defaultdict of defaultdict": collections.defaultdict(dict, a={1: np.float64(2)}),
    "deque": collections.deque([1, 2], maxlen=5),
    "path": pathlib.Path("/data/images"),
    "pure path": pathlib.PurePosixPath("images"),
    "windows path": pathlib.PureWindowsPath("C:/images"),
    "date": datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    "seconds": datetime.timedelta(seconds=3),
    "decimal": decimal.Decimal("0.1"),
    "frozen set": frozenset(["a"]),
    "range": range(3),
    "slice": slice(1, 2),
    "namespace": types.SimpleNamespace(lr=0.1, path=pathlib.Path("a")),
    "flags": argparse.Namespace(lr=np.float64(0.1), data=pathlib.Path("a"), names={"a", "b"}),
    "nested": {"history": [{"top1": np.float32(0.5)}, (np.int64(1), None)]},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("what", BESIDE)
def test_harmless_types_beside_the_weights_are_passed_over(
    what: str, zipped: bool, tmp_path: Path
) -> None:
    content = {"best": BESIDE[what], "state_dict": STATE, "arch": "densenet121"}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    tensors, beside = read_torch_file(tmp_path / "w.pth")
    assert beside["arch"] == "densenet121"
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_file_from_torch_before_1_6_is_described_as_a_newer_one(
    wrap: Any, tmp_path: Path
) -> None:
    shown = []
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        torch.save(wrap(STATE), tmp_path / name, _use_new_zipfile_serialization=zipped)
        shown.append(inspect(tmp_path / name).splitlines()[1:])  # the first line is the file
        found = read_weights(tmp_path / name, shapes_only=True)
        assert {n: t.shape for n, t in found.state_dict.items()} == {
            n: t.shape for n, t in STATE.items()
        }
    assert shown[0] == shown[1]


def test_state_dicts_in_a_defaultdict_are_read(tmp_path: Path) -> None:
    torch.save(collections.defaultdict(dict, state_dict=STATE), tmp_path / "w.pth")
    assert read_torch_file(tmp_path / "w.pth")[0].keys() == STATE.keys()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "model_state": state},
        lambda state: {"params": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"model": {"state_dict": state}, "arch": "densenet121"},
        lambda state: {"best": {"score": 0.5, "network": state}, "history": {"loss": [1.0]}},
        lambda state: {7: state},
    ],
)
def test_the_only_network_in_a_file_is_found_under_any_name(wrap: Any, tmp_path: Path) -> None:
    torch.save(wrap(STATE), tmp_path / "w.pth")
    tensors, _ = read_torch_file(tmp_path / "w.pth")
    assert tensors.keys() == STATE.keys()


def test_of_several_networks_in_a_file_none_is_chosen(tmp_path: Path) -> None:
    torch.save({"student": STATE, "teacher": STATE, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"w\.pth: has several networks \(student, teacher\); save"
    ):
        read_torch_file(tmp_path / "w.pth")
    torch.save({"state_dict": STATE, "teacher": STATE}, tmp_path / "w.pth")
    assert read_torch_file(tmp_path / "w.pth")[0].keys() == STATE.keys()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("first", "one", "other"),
    [
        ("features.conv0.weight", "student", "teacher"),
        ("features.conv0.weight", "model", "model.ema"),
        ("stem.0.weight", "a.backbone", "b.backbone"),
        ("conv1.weight", "encoder_k", "encoder_q"),
        ("conv0.weight", "k", "q"),
    ],
)
def test_of_several_networks_in_one_state_dict_none_is_chosen(
    first: str, one: str, other: str, suffix: str, tmp_path: Path
) -> None:
    """As a module saves them that has a student and its teacher, each with another head."""
    deeper = ("block1.layer.0.conv1.weight", "denseblock1.denselayer1.conv1.weight")
    state = {
        f"{name}.{tensor}": torch.full((2,), float(number))
        for number, name in enumerate((one, other))
        for tensor in (first, *deeper, "fc.weight")
    }
    path = tmp_path / f"w{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(state, path)
    with pytest.raises(InputError, match=rf"has several networks \({one}, {other}\); save a state"):
        read_weights(path)


def test_a_network_that_is_saved_under_two_names_is_one(tmp_path: Path) -> None:
    """A module with ``self.features = self.model.features`` has its tensors twice."""
    features = {"features.conv0.weight": torch.ones(2), "features.norm0.bias": torch.ones(3)}
    state = features | {f"model.{name}": tensor for name, tensor in features.items()}
    torch.save(state | {"model.classifier.bias": torch.zeros(2)}, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth").state_dict
    assert {n: t for n, t in found.items() if n.startswith("features.")}.keys() == features.keys()


@pytest.mark.parametrize(
    "name", ["criterion.weight", "loss_fn.pos_weight", "train_loss.weight", "net.class_weights"]
)
def test_what_belongs_to_the_loss_is_left_out_and_said(name: str, tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in STATE.items()}
    torch.save({"state_dict": state | {name: torch.ones(2)}}, tmp_path / "w.ckpt")
    tensors, _ = read_torch_file(tmp_path / "w.ckpt")
    found = identify(without_prefix(tensors, Path("w.ckpt")), Path("w.ckpt"), {}, None)
    assert found.state_dict.keys() == STATE.keys()
    assert found.notes == (f"of the loss, and so left out: {name}",)


def test_counts_of_metrics_are_left_out_and_said(tmp_path: Path) -> None:
    """As of torchmetrics whose states are persistent."""
    state = {f"model.{key}": tensor for key, tensor in STATE.items()}
    counts = {"train_acc.confmat": torch.ones(2, 2).long(), "val.f1.tp": torch.tensor(3)}
    torch.save({"state_dict": state | counts}, tmp_path / "w.ckpt")
    tensors, _ = read_torch_file(tmp_path / "w.ckpt")
    found = identify(without_prefix(tensors, Path("w.ckpt")), Path("w.ckpt"), {}, None)
    assert found.state_dict.keys() == STATE.keys()
    assert found.notes == ("of counts of a metric, and so left out: train_acc.confmat, val.f1.tp",)


@pytest.mark.parametrize("name", ["head.fc.weight", "encoder.norm.num_batches_tracked"])
def test_integers_of_a_layer_are_no_counts_of_a_metric(name: str) -> None:
    tensors = STATE | {name: torch.tensor([3])}
    assert name in identify(tensors, Path("w.pth"), {}, None).state_dict


@pytest.mark.parametrize("size", [100, 5000, 60000, -100])
def test_a_file_without_its_end_says_so_in_a_few_words(size: int, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"features.conv0.weight": torch.ones(30000)}, file)
    file.write_bytes(file.read_bytes()[:size])
    for shapes_only in (False, True):
        with pytest.raises(InputError) as refused:
            read_weights(file, shapes_only=shapes_only)
        assert str(refused.value) == (
            f"{file}: damaged or not a torch file (its end is missing or changed; download it or "
            "save it again)"
        )


@pytest.mark.parametrize("prefix", ["", "0.", "0.0.", "backbone.0.", "module.encoder."])
def test_features_that_were_taken_out_of_their_network_are_read(
    prefix: str, tmp_path: Path
) -> None:
    inside = ("conv0.weight", "denseblock1.denselayer1.norm1.weight", "transition1.conv.weight")
    state = {f"{prefix}{name}": torch.full((1,), float(n)) for n, name in enumerate(inside)}
    torch.save(state | {"1.2.weight": torch.ones(2)}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert {n: float(t[0]) for n, t in weights.state_dict.items() if n.startswith("f")} == {
        f"features.{name}": n for n, name in enumerate(inside)
    }
    assert weights.other_head == ("1.2.weight",)


def test_arrays_in_place_of_tensors_are_named(tmp_path: Path) -> None:
    torch.save({n: t.numpy() for n, t in STATE.items()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"'features.conv0.weight' is of type \w+, but a tensor"):
        read_torch_file(tmp_path / "w.pth")


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "sparse by rows", "without content", "quantised"])
@pytest.mark.filterwarnings("ignore")  # of torch, about kinds of tensors that are new or old
def test_tensors_that_are_no_plain_numbers_are_refused(
    kind: str, mmap: bool, tmp_path: Path
) -> None:
    plain = torch.eye(3)
    tensor = {
        "sparse": lambda: plain.to_sparse(),
        "sparse by rows": lambda: plain.to_sparse_csr(),
        "without content": lambda: plain.to("meta"),
        "quantised": lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
    }[kind]()
    torch.save(STATE | {"classifier.weight": tensor}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: 'classifier\.weight' is sparse, quantised or "):
        read_torch_file(tmp_path / "w.pth", mmap=mmap)


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("wrap", [list, collections.deque, lambda x: collections.defaultdict(x[0])])
def test_a_harmless_type_does_not_open_a_door(wrap: Any, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for attack in (Attack(Path.mkdir, target), Attack(eval, f"open({str(target)!r}, 'w')")):
        try:
            hidden = wrap([attack])
        except TypeError:  # a factory must be callable
            hidden = collections.defaultdict(list, a=attack)
        torch.save({"best": hidden, "state_dict": STATE}, tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"refused, because reading it would run code"):
            read_torch_file(tmp_path / "w.pth")
        assert not target.exists()
        # numpy would unpickle the bytes of a scalar that is an object
        inner = pickle.dumps(attack)
        scalar = Attack(np.float64(0).__reduce__()[0], np.dtype("O"), inner)
        torch.save({"best": scalar, "state_dict": STATE}, tmp_path / "w.pth")
        assert read_torch_file(tmp_path / "w.pth")[0].keys() == STATE.keys()
        assert not target.exists()


def test_a_refusal_says_what_to_save_instead(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"run code \(torch.nn.*\); save a state dict"):
        read_torch_file(tmp_path / "w.pth")


def test_a_changed_bit_of_a_tensor_is_damage_and_not_another_network(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    numbers = STATE["features.conv0.weight"]
    torch.save(STATE, file)
    whole = numbers.numpy().tobytes()
    changed = (-numbers).numpy().tobytes()
    assert file.read_bytes().count(whole) == 1
    file.write_bytes(file.read_bytes().replace(whole, changed))
    assert not torch.equal(torch.load(file)["features.conv0.weight"], numbers)  # torch sees nothing
    with pytest.raises(InputError) as refused:
        read_torch_file(file)
    assert str(refused.value) == (
        f"{file}: damaged (the CRC of w/data/0 does not match); download it or save it again"
    )


def test_a_file_that_torch_wrote_without_sums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_torch_file(tmp_path / "w.pth")[0].keys() == STATE.keys()


def with_pickle(path: Path, content: bytes) -> Path:
    """A torch file with another pickle."""
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, content if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "key",
    [b")" + b"\x85" * 2_000_000, b"K\1\x85q\0" + b"(h\0h\0tq\0" * 60 + b"h\0"],
    ids=["a million deep", "2 ** 60 parts"],
)
def test_a_key_that_would_crash_or_never_end_is_refused(
    key: bytes, zipped: bool, tmp_path: Path
) -> None:
    if zipped:
        content = b"\x80\2}" + key + b"K\1s."
        path = with_pickle(tmp_path / "w.pth", content)
    else:  # after the magic number, the protocol and the facts of the system
        path = tmp_path / "w.pth"
        torch.save({}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(b"\x80\2}q\0.", b"\x80\2}" + key + b"K\1s."))
    with pytest.raises(InputError, match=r"w\.pth: damaged or .* values within values"):
        read_torch_file(path)


def test_values_beside_the_weights_are_not_written_out(tmp_path: Path) -> None:
    value = ["a"]
    for _ in range(60):
        value = [value, value]  # type: ignore[list-item]
    content = {"state_dict": STATE, "arch": value, "labels": value}
    torch.save(content, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").state_dict.keys() == STATE.keys()


@pytest.mark.parametrize("mmap", [False, True])
def test_a_tensor_of_more_numbers_than_the_file_has_is_refused(mmap: bool, tmp_path: Path) -> None:
    large = torch.ones(1, 1).expand(2**40, 1024)
    torch.save(STATE | {"classifier.weight": large}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: 'classifier\.weight' has .* repeated"):
        read_torch_file(tmp_path / "w.pth", mmap=mmap)
    small = torch.ones(1).expand(20)
    torch.save(STATE | {"classifier.bias": small}, tmp_path / "w.pth")
    assert torch.equal(read_torch_file(tmp_path / "w.pth")[0]["classifier.bias"], small)


def test_an_archive_that_unpacks_to_more_than_a_weights_file_may_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(STATE | {"classifier.weight": torch.zeros(100, 100)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert read_torch_file(tmp_path / "w.pth")[0]["classifier.weight"].shape == (100, 100)
    monkeypatch.setattr("densenet121.checkpoint.foreign.torch_file.LARGEST", 40_000)
    with pytest.raises(InputError, match=r"w\.pth: unpacks to \d+ bytes; the limit is 40000"):
        read_torch_file(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.ckpt", "w.keras", "w.h5", "w"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 32342954\n",
            "is a git-LFS pointer, not the file itself; run git lfs pull in its repository",
        ),
        ("<!DOCTYPE html>\n<html><head>", "is a web page saved in place of the file"),
        ("\ufeff\n  <HTML lang=en>", "is a web page saved in place of the file"),
        ('<?xml version="1.0"?><Error>AccessDenied', "is a web page saved in place of the file"),
    ],
)
def test_what_is_saved_in_place_of_weights_is_named(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"{name}: {message}"):
        read_weights(tmp_path / name)


def test_what_is_saved_in_place_of_an_exported_network_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "w.onnx").write_text("<!doctype html>")
    with pytest.raises(InputError, match=r"w\.onnx: is a web page saved in place of the file"):
        load_onnx(tmp_path / "w.onnx", Choices())
