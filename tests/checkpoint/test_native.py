"""The project's own files: whole and bit for bit, or refused; never half of one, never changed."""

import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from densenet121.checkpoint.native import (
    Kind,
    ModelInfo,
    read,
    read_safetensors,
    save,
    save_weights,
)
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.runs.layout import checkpoint_name, checkpoints_in, position_in_name
from densenet121.utils.errors import InputError

from helpers.commands import no_file_beyond

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
TENSORS = {
    "model.features.conv0.weight": torch.tensor([[1.5, -0.0], [math.inf, 2.0**-149]]),
    "model.num_batches_tracked": torch.tensor(5),
    "momentum.features.conv0.weight": torch.tensor([0.1, 0.2], dtype=torch.bfloat16),
}
CONTENT = {"step": 7, "best": 0.1, "class_names": ["ant", "b\xe4r", "\u732b", os.fsdecode(b"\xff")]}
INFO = ModelInfo(
    net="densenet121",
    variant="model_zoo",
    class_names=("ant", "bee"),
    preprocessing=Preprocessing((224, 192), "256", (123.675, 116.28, 103.53), (58.4, 57.1, 57.4)),
)


def same_bits(one: Tensor, other: Tensor) -> bool:
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


def is_whole(found: tuple[Kind, dict[str, Tensor], dict[str, Any]]) -> bool:
    kind, tensors, content = found
    same = all(same_bits(tensors[name], tensor) for name, tensor in TENSORS.items())
    return kind == "checkpoint" and tensors.keys() == TENSORS.keys() and same and content == CONTENT


def accepts(path: Path, data: bytes) -> bool:
    """Whether these bytes are read as the file; if they are, the content must not have changed."""
    path.write_bytes(data)
    try:
        assert is_whole(read(path))
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        return False
    return True


@pytest.fixture
def saved(tmp_path: Path) -> bytes:
    save(tmp_path / "whole.ckpt", "checkpoint", TENSORS, CONTENT)
    return (tmp_path / "whole.ckpt").read_bytes()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", "checkpoint", TENSORS, CONTENT)
    assert is_whole(read(tmp_path / "a.ckpt"))
    assert is_whole(read(tmp_path / "a.ckpt", "checkpoint"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    limit = 2 if dtype == torch.bool else 256  # any pattern of bits, nan among them
    raw = torch.randint(limit, (24 * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    whole = raw.view(dtype).reshape(2, 3, 2, 2)
    tensors = {
        "whole": whole,
        "scalar": whole[0, 0, 0, 0].clone(),
        "empty": whole[:0].clone(),
        "channels_last": whole.clone(memory_format=torch.channels_last),
        "transposed": whole.transpose(0, 2),
        "part": whole[:, 1:, :, 0],
        "expanded": whole[:, :1].expand(2, 5, 2, 2),
    }
    save(tmp_path / "a.ckpt", "weights", tensors, {})
    _, found, _ = read(tmp_path / "a.ckpt", "weights")
    assert [name for name in tensors if not same_bits(found[name], tensors[name])] == []
    assert found.keys() == tensors.keys()


def test_parameters_are_saved_without_their_gradient(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    save(tmp_path / "a", "weights", {"w": weight}, {})
    assert not read(tmp_path / "a")[1]["w"].requires_grad


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, saved: bytes) -> None:
    save(tmp_path / "again.ckpt", "checkpoint", TENSORS, CONTENT)
    assert (tmp_path / "again.ckpt").read_bytes() == saved


def test_the_bytes_are_those_of_safetensors_for_torch(tmp_path: Path) -> None:
    tensors = {
        **{str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES},
        **{"number": torch.tensor(3), "empty": torch.zeros(0, 2), "turned": torch.rand(3, 2).T},
    }
    del tensors["torch.bfloat16"]
    for number, more in enumerate(({}, {"half": torch.rand(3).bfloat16()})):
        path = tmp_path / f"{number}.safetensors"
        save(path, "weights", tensors | more, CONTENT)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
        contiguous = {name: tensor.contiguous() for name, tensor in (tensors | more).items()}
        assert path.read_bytes() == safetensors.torch.save(contiguous, metadata)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, saved: bytes) -> None:
    assert accepts(tmp_path / "cut.ckpt", saved)
    lengths = [n for n in range(len(saved)) if accepts(tmp_path / "cut.ckpt", saved[:n])]
    assert lengths == []


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path, saved: bytes) -> None:
    header = 8 + int.from_bytes(saved[:8], "little")
    rng = random.Random(1)
    bits = [
        *range(64),  # the length of the header
        *(8 * byte + rng.randrange(8) for byte in range(8, header)),
        *range(8 * header, 8 * len(saved)),
    ]
    for bit in bits:
        changed = bytearray(saved)
        changed[bit // 8] ^= 1 << bit % 8
        accepted = accepts(tmp_path / "flipped.ckpt", bytes(changed))
        assert not (accepted and bit >= 8 * header)  # a bit of a tensor always counts


def test_a_file_with_something_behind_it_is_refused(tmp_path: Path, saved: bytes) -> None:
    assert not accepts(tmp_path / "long.ckpt", saved + b"\0")
    assert not accepts(tmp_path / "twice.ckpt", saved + saved)


@pytest.mark.parametrize("size", [0, 1, 8, 9, 100, 10_000])
def test_random_bytes_are_refused(size: int, tmp_path: Path) -> None:
    assert not accepts(tmp_path / "noise.ckpt", random.Random(size).randbytes(size))


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not a file of this program"):
        read(path)


def test_another_kind_is_refused(tmp_path: Path, saved: bytes) -> None:
    with pytest.raises(InputError, match="is a checkpoint file, but a weights file is needed"):
        read(tmp_path / "whole.ckpt", "weights")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: cannot be read \(No such file or directory\)"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "whole.ckpt"
    with no_file_beyond(len(saved) // 2), pytest.raises(OSError, match="File too large"):
        save(path, "checkpoint", {"w": torch.zeros(len(saved))}, CONTENT)
    assert path.read_bytes() == saved
    assert [file.name for file in tmp_path.iterdir()] == ["whole.ckpt"]
    save(path, "checkpoint", TENSORS, {"step": 8})
    assert read(path)[2] == {"step": 8}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_json_does_not_know_are_refused(
    bad: float, tmp_path: Path, saved: bytes
) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(tmp_path / "whole.ckpt", "checkpoint", TENSORS, {"best": bad})
    assert (tmp_path / "whole.ckpt").read_bytes() == saved


def test_what_weights_are_weights_of_travels_with_them(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", {"x": torch.ones(1)}, INFO, {"epoch": 3, "step": 99})
    kind, tensors, content = read(tmp_path / "w")
    assert (kind, list(tensors)) == ("weights", ["x"])
    assert ModelInfo.from_json(content["model"]) == INFO
    assert content["origin"] == {"epoch": 3, "step": 99}


@pytest.mark.parametrize(
    ("rank", "step", "steps_per_epoch", "name"),
    [
        (0, 0, 5, "0-1_0.ckpt"),  # nothing done yet
        (0, 1, 5, "0-1_1.ckpt"),
        (0, 5, 5, "0-1_5.ckpt"),  # the first epoch is done, the second not begun
        (0, 6, 5, "0-2_1.ckpt"),
        (7, 600_480, 5004, "7-120_5004.ckpt"),  # the original's last, on its eighth device
    ],
)
def test_checkpoints_are_named_as_in_the_original(
    rank: int, step: int, steps_per_epoch: int, name: str
) -> None:
    assert checkpoint_name(rank, step, steps_per_epoch) == name
    position = position_in_name(Path("folder") / name)
    assert position is not None
    epoch, step_in_epoch = position
    assert (epoch - 1) * steps_per_epoch + step_in_epoch == step


def test_checkpoints_are_listed_newest_first_by_number(tmp_path: Path) -> None:
    newest_first = ["0-10_1.ckpt", "0-9_120.ckpt", "0-9_15.ckpt", "0-2_3.ckpt", "0-1_0.ckpt"]
    others = ["1-11_1.ckpt", "10-1_1.ckpt", "0-3_1.ckpt.bak", "0-3_1.ckpt.tmp", "0-x_1.ckpt"]
    others += [".0-4_1.ckpt.77.tmp", "best.safetensors", "0-3.ckpt", "00-3_1_1.ckpt"]
    for name in newest_first[::2] + others + newest_first[1::2]:
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints_in(tmp_path)] == newest_first
    assert [path.name for path in checkpoints_in(tmp_path, rank=1)] == ["1-11_1.ckpt"]
    assert [path.name for path in checkpoints_in(tmp_path, rank=10)] == ["10-1_1.ckpt"]
    assert checkpoints_in(tmp_path / "none") == []
    assert position_in_name(Path("best.safetensors")) is None


@pytest.mark.parametrize("variant", ["model", None, True, ["paper"]])
def test_an_unknown_variant_is_refused(variant: object) -> None:
    with pytest.raises(ValueError, match="variant"):
        ModelInfo.from_json(INFO.to_json() | {"variant": variant})


def test_metadata_that_is_null_is_none(tmp_path: Path) -> None:
    header = b'{"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    file = tmp_path / "w.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\5")
    tensors, metadata = read_safetensors(file)
    assert (tensors["a"].tolist(), metadata) == ([5], {})
    with pytest.raises(InputError, match="not a file of this program"):
        read(file)
