"""Weights from files of this program and of others into a network, or one word on why not."""

import copy
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save, save_weights
from densenet121.checkpoint.pretrained import load_model, load_state
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import DenseNet, build
from densenet121.utils.errors import InputError

PREPROCESSING = Preprocessing((32, 32), "37,37", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
INFO = ModelInfo("densenet40", "paper", ("ant", "bee", "cat"), PREPROCESSING)


def tiny(num_classes: int = 3, blocks: tuple[int, ...] = (2, 2)) -> DenseNet:
    return DenseNet(
        growth_rate=4, block_config=blocks, num_init_features=8, num_classes=num_classes
    )


def random_state(model: DenseNet) -> dict[str, Tensor]:
    """Every parameter and statistic another than a new network has."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(tensor.shape, generator=generator).add(0.5).to(tensor.dtype)
        if tensor.is_floating_point()
        else torch.full_like(tensor, 7)
        for name, tensor in model.state_dict().items()
    }


STATE = random_state(tiny())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def dotted(name: str) -> str:
    """torchvision's names of before 2018: norm.1 for norm1, within the dense layers."""
    for part in ("norm", "conv"):
        for number in "12":
            name = name.replace(f".{part}{number}.", f".{part}.{number}.")
    return name


FORMS: dict[str, Any] = {
    "bare": STATE,
    "in state_dict": {"state_dict": STATE, "epoch": 90, "arch": "densenet121"},
    "in model": {"model": STATE, "args": {"lr": 0.1}},
    "of DataParallel": {f"module.{name}": tensor for name, tensor in STATE.items()},
    "of before 2018": {dotted(name): tensor for name, tensor in STATE.items()},
    "all of it": {"state_dict": {f"module.{dotted(n)}": t for n, t in STATE.items()}},
    "parameters": {name: torch.nn.Parameter(t, False) for name, t in STATE.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_torchvision_files_are_read_in_every_form(form: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(FORMS[form], path, _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    assert (weights.info, weights.origin, weights.num_classes) == (None, {}, 3)
    assert_same(weights.state_dict, STATE)


def test_torchvision_names_are_read_from_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(FORMS["of DataParallel"], tmp_path / "w.safetensors")
    assert_same(read_weights(tmp_path / "w.safetensors").state_dict, STATE)


def test_old_names_are_really_old() -> None:
    assert dotted("features.denseblock1.denselayer2.norm1.weight") == (
        "features.denseblock1.denselayer2.norm.1.weight"
    )
    assert dotted("features.norm0.weight") == "features.norm0.weight"


def test_weights_of_this_program_tell_what_they_are(tmp_path: Path) -> None:
    save_weights(tmp_path / "best.safetensors", STATE, INFO, {"epoch": 3})
    weights = read_weights(tmp_path / "best.safetensors")
    assert (weights.info, weights.origin) == (INFO, {"epoch": 3})
    assert_same(weights.state_dict, STATE)


def test_of_a_checkpoint_the_weights_are_taken(tmp_path: Path) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in STATE.items()}
    tensors |= {f"momentum.{name}": torch.zeros(1) for name in STATE}
    save(tmp_path / "0-1_1.ckpt", "checkpoint", tensors, {"model": INFO.to_json()})
    weights = read_weights(tmp_path / "0-1_1.ckpt")
    assert weights.info == INFO
    assert_same(weights.state_dict, STATE)


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK"])
def test_a_header_as_long_as_a_torch_file_begins_is_no_torch_file(
    start: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, STATE, INFO, {"note": ""})
    shorter = int.from_bytes(path.read_bytes()[:8], "little")
    # A safetensors file begins with the length of its header, here 640 or 19280 modulo 65536.
    padding = (int.from_bytes(start, "little") - shorter) % 65536
    save_weights(path, STATE, INFO, {"note": "x" * padding})
    assert path.read_bytes()[:2] == start
    weights = read_weights(path)
    assert weights.info == INFO
    assert_same(weights.state_dict, STATE)


class Attack:
    """Pickled, this asks whoever reads it to make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["zip", "before 1.6", *map(str, range(6))])
def test_code_in_a_file_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    path, target = tmp_path / "w.pth", tmp_path / "target"
    content = {"features.conv0.weight": Attack(target)}
    if how.isdigit():
        path.write_bytes(pickle.dumps(content, protocol=int(how)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(InputError, match=f"^{path}: ") as error:
        read_weights(path)
    assert not target.exists()
    if how in ("zip", "before 1.6", "2"):
        assert "refused, because reading it would run code (posix.mkdir); save a state dict" in str(
            error
        )
    pickle.loads(pickle.dumps(Attack(target)))
    assert target.exists()  # the attack is real


def test_a_pickled_network_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"run code \(densenet121\.network\.densenet\.DenseNet\)"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_damaged_torch_file_is_an_input_error(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    content = {"features.conv0.weight": torch.ones(2, 2), "classifier.weight": torch.ones(2, 2)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    rng = random.Random(1)
    cut = [whole[: rng.randrange(len(whole))] for _ in range(100)]
    flipped = []
    for _ in range(200):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        flipped.append(bytes(changed))
    for data in cut + flipped:
        path.write_bytes(data)
        try:
            read_weights(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert data in flipped or "damaged" in str(error) or "run code" in str(error)


@pytest.mark.parametrize("start", [b"", b"\n", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x89HDF"])
def test_foreign_bytes_are_refused(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mindspore.ckpt"
    rng = random.Random(1)
    for size in (0, 1, 7, 60, 3000):
        for _ in range(10):
            path.write_bytes(start + rng.randbytes(size))
            said = "damaged or not a " if path.stat().st_size else "is empty; "
            with pytest.raises(InputError, match=f"^{path}: {said}"):
                read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "is of type list, but a state dict is needed"),
        (torch.ones(1), "is of type Tensor, but a state dict is needed"),
        ({}, "is of type dict, but a state dict is needed"),
        ({"epoch": 3, **STATE}, "'epoch' is of type int, but a tensor is needed"),
        ({1: torch.ones(1)}, "1 is of type Tensor, but a tensor is needed"),
        ({"layer1.0.conv1.weight": torch.ones(1)}, 'has no "features.conv0.weight" or'),
    ],
)
def test_what_is_no_state_dict_of_a_densenet_is_refused(
    content: Any, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no such weights file"):
        read_weights(Path(name))


@pytest.mark.parametrize("end", [".safetensors", "_ema.safetensors"])
def test_the_best_weights_of_a_run_that_validated_nothing_are_refused_with_the_last(
    end: str, tmp_path: Path
) -> None:
    missing, last = tmp_path / f"best{end}", tmp_path / f"last{end}"
    with pytest.raises(InputError, match=r"there is no such weights file$"):
        read_weights(missing)
    last.touch()
    with pytest.raises(InputError, match=f"no best weights, so pass {last}$"):
        read_weights(missing)
    with pytest.raises(InputError, match=r"there is no such weights file$"):
        read_weights(tmp_path / "best.pth")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: there is no such weights file"):
        read_weights(tmp_path / "none")
    with pytest.raises(InputError, match=f"^{tmp_path}: is a folder; pass one weights file"):
        read_weights(tmp_path)
    for name in ("last.safetensors", "best_ema.safetensors", "best.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"file in it, as {tmp_path}/best.safetensors$"):
        read_weights(tmp_path)
    for name in ("None", "imagenet", "densenet121"):
        with pytest.raises(InputError, match="file; no weights come with this program"):
            read_weights(tmp_path / name)


def test_every_parameter_and_statistic_is_copied() -> None:
    model = tiny()
    load_state(model, STATE, "w.pth")
    assert_same(model.state_dict(), STATE)


def test_counts_of_batches_may_be_missing_and_start_at_nought() -> None:
    model = tiny()
    counts = {name for name in STATE if name.endswith("num_batches_tracked")}
    load_state(model, {n: t for n, t in STATE.items() if n not in counts}, "w.pth")
    zero = torch.tensor(0)
    assert_same(model.state_dict(), {n: zero if n in counts else t for n, t in STATE.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features.x": torch.ones(1), "y": torch.ones(1)},
            r'^w\.pth: unknown parameter "features\.x" \(2 in all\); this network has blocks '
            r"of 2/2 layers: choose another `net`\?$",
        ),
        (
            {"encoder_k.features.x": torch.ones(1), "y": torch.ones(1)},
            r'^w\.pth: unknown parameter "encoder_k\.features\.x" \(2 in all\), no part of a '
            r"DenseNet; save a state dict of the network alone$",
        ),
        (
            {"features.norm5.weight": None, "features.norm5.running_var": None},
            r'^w\.pth: parameter "features\.norm5\.weight" is missing \(2 in all\); this network ',
        ),
        (
            {"features.norm0.bias": torch.ones(9)},
            r"^w\.pth: features\.norm0\.bias has shape \(9,\), but the network needs \(8,\)$",
        ),
        (
            {"classifier.weight": torch.ones(10, 16), "classifier.bias": torch.ones(10)},
            r"classifier\.weight has shape \(10, 16\), .* \(3, 16\); pass `num_classes` 10$",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    change: dict[str, Tensor | None], message: str
) -> None:
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    state = {name: tensor for name, tensor in (STATE | change).items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        load_state(model, state, "w.pth")
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2],
    ids=str,
)
@pytest.mark.parametrize("name", ["features.conv0.weight", "features.norm5.running_var"])
def test_numbers_that_are_not_floating_point_are_no_weights(name: str, dtype: torch.dtype) -> None:
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(InputError, match=rf"^w\.pth: {name} is of {kind}, but the network needs "):
        load_state(model, STATE | {name: STATE[name].to(dtype)}, "w.pth")
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_8_bits_are_described_and_refused_in_one_line(
    suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"w.{suffix}"
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in STATE.items()}
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(state, file)
    assert read_weights(file, shapes_only=True).state_dict.keys() == STATE.keys()
    with pytest.raises(InputError, match=r" is of float8_e4m3fn, but the network needs .* 16 bits"):
        read_weights(file).check_finite(file)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_floating_point_numbers_of_any_width_are_rounded_to_float32(dtype: torch.dtype) -> None:
    model = tiny()
    load_state(model, {name: tensor.to(dtype) for name, tensor in STATE.items()}, "w.pth")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, STATE[name].to(dtype).to(tensor.dtype))


def test_weights_of_a_deeper_network_are_refused() -> None:
    with pytest.raises(InputError, match=r'unknown parameter ".*denselayer3\.norm1\.weight"'):
        load_state(tiny(), random_state(tiny(blocks=(2, 3))), "w.pth")


def test_a_model_is_what_its_file_tells(tmp_path: Path) -> None:
    state = random_state(build("densenet40", num_classes=3))
    save_weights(tmp_path / "w.safetensors", state, INFO, {})
    torch.save(state, tmp_path / "w.pth")
    told = load_model(str(tmp_path / "w.safetensors"), net="densenet121")  # the file knows better
    asked = load_model(tmp_path / "w.pth", net="densenet40")
    for model in (told, asked):
        assert not model.training
        assert_same(model.state_dict(), state)


def test_a_model_needs_a_classifier_and_the_right_network(tmp_path: Path) -> None:
    torch.save({"features.conv0.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r'w\.pth: no "classifier\.weight", so these are not weights'
    ):
        load_model(tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"blocks of 6/6/6 layers: choose another `net`\?"):
        load_model(tmp_path / "w.pth", net="densenet40")


@pytest.mark.parametrize("kind", ["weights", "safetensors", "torch", "torch before 1.6"])
def test_a_folder_whose_name_is_not_utf_8_holds_weights_like_any_other(
    kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"m\xfcller")
    folder.mkdir()
    file, state = folder / "w.pth", tiny().state_dict()
    if kind == "weights":
        save_weights(file, state, INFO, {})
    elif kind == "safetensors":
        file.write_bytes(safetensors.torch.save(state))
    else:
        with file.open("wb") as opened:
            torch.save(state, opened, _use_new_zipfile_serialization=kind == "torch")
    for shapes_only in (False, True):
        found = read_weights(file, shapes_only=shapes_only).state_dict
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in state.items()}
