"""What holds weights, or holds nothing, is refused with what to do first."""

import gzip
import os
import re
import shlex
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from densenet121.checkpoint.load import read_weights
from densenet121.utils.errors import InputError


def write(path: Path, kind: str) -> None:
    inside = path.with_name("inside.pth")
    torch.save({"a": torch.ones(1)}, inside)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inside, "inside.pth")
    elif kind == "tar":
        with tarfile.open(path, "w") as packed:
            packed.add(inside, "inside.pth")
    elif kind == "gzip":
        path.write_bytes(gzip.compress(inside.read_bytes()))
    elif kind == "arrays":
        with path.open("wb") as file:
            np.savez(file, np.ones(1))
    elif kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    elif kind == "image":
        Image.new("RGB", (600, 600)).save(path, "JPEG")
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files_come_with_the_command_that_joins_them(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"features.conv0.weight": torch.ones(2, 3, 3, 3), "classifier.bias": torch.zeros(2)}
    folder = tmp_path / "in two"
    folder.mkdir()
    parts = [folder / f"model-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    for part, (name, tensor) in zip(parts, state.items(), strict=True):
        (save_file if suffix == "safetensors" else torch.save)({name: tensor}, part)
    index = folder / f"model.{suffix}.index.json"
    with pytest.raises(InputError, match='has no "features') as alone:
        read_weights(parts[1])
    assert "divided" not in str(alone.value)  # without an index it is a file like any other
    index.write_text("{}")
    for path in (folder, index, *parts):
        said = f"^{re.escape(str(path))}: the weights are divided into several files, "
        with pytest.raises(InputError, match=said) as refused:
            read_weights(path)
    code, *words = shlex.split(str(refused.value).partition("python -c ")[2])
    monkeypatch.setattr(sys, "argv", ["-c", *words])
    exec(code, {})
    joined = (load_file if suffix == "safetensors" else torch.load)(words[1])
    assert all(torch.equal(joined[name], state[name]) for name in state)


@pytest.mark.parametrize("shapes_only", [False, True])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("zip", r"is a zip archive \(inside\.pth\); unpack it and pass the weights file"),
        ("tar", r"is packed \(tar\); unpack it and pass the weights file"),
        ("gzip", r"is packed \(gzip\); unpack it and pass the weights file"),
        ("arrays", r"is an archive of NumPy's arrays; in Python: torch\.save\(\{n: torch\.from_"),
        ("script", r"is a TorchScript program; .*torch\.jit\.load.* \S+/w-state\.pth"),
        ("image", r"is an image \(JPEG\); pass a weights file"),
        ("empty", r"is empty; download it or save it again"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, about TorchScript's age
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_archive_or_image_is_named_with_what_to_do(
    kind: str, said: str, shapes_only: bool, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    write(path, kind)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {said}") as refused:
        read_weights(path, shapes_only=shapes_only)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("given", ["w.weights.json", "w_00000.weights.h5"])
def test_keras_weights_in_several_files_come_with_what_joins_them(
    given: str, tmp_path: Path
) -> None:
    """As ``save_weights("w.weights.json", max_shard_size=0.01)`` writes them."""
    (tmp_path / "w.weights.json").write_text('{"metadata": {}, "weight_map": {}}')
    (tmp_path / "w_00000.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError) as refused:
        read_weights(tmp_path / given)
    joins = f"model.load_weights({str(tmp_path / 'w.weights.json')!r}); model.save('model.keras')"
    assert str(refused.value).startswith(f"{tmp_path / given}: the weights are divided into")
    assert str(refused.value).endswith(joins)


def test_a_saved_model_of_tensorflow_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x04")
    with pytest.raises(InputError, match=r"is a SavedModel of TensorFlow, .* model\.save\("):
        read_weights(tmp_path)


@pytest.mark.parametrize("first", [0xD8, 0xD9, 0xDA], ids=["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_an_encrypted_checkpoint_of_mindspore_is_named(first: int, tmp_path: Path) -> None:
    (tmp_path / "w.ckpt").write_bytes(bytes([first]) + b"\x5e\x3a\x7f\x35\xd9\xd7\xc4" + bytes(99))
    with pytest.raises(InputError, match=r"is an encrypted checkpoint of MindSpore; .*dec_key=KEY"):
        read_weights(tmp_path / "w.ckpt")


def test_a_device_and_a_pipe_are_refused_without_being_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path(os.devnull), pipe):
        found: list[str] = []

        def read(path: Path = path, found: list[str] = found) -> None:
            with pytest.raises(InputError) as refused:
                read_weights(path)
            found.append(str(refused.value))

        reader = threading.Thread(target=read, daemon=True)  # opening a pipe would wait for ever
        reader.start()
        reader.join(20)
        assert found == [f"{path}: is a pipe or a device; save the weights in a file"]
