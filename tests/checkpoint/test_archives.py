"""What holds weights, or holds nothing, is refused with what to do first."""

import gzip
import os
import re
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
