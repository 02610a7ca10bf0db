"""Recognise archives in which a weights file may be, and files that cannot be read as one."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from densenet121.datasets.decoding import format_of
from densenet121.utils.errors import InputError, some

# First bytes of compressed files, and what they are.
_COMPRESSED = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7z"}
# MindSpore's blocks in AES-GCM, AES-CBC and SM4-CBC, after their first byte.
_ENCRYPTED = b"\x5e\x3a\x7f"
_ARRAYS = "torch.save({n: torch.from_numpy(a) for n, a in numpy.load(FILE).items()}, 'weights.pth')"

# How Hugging Face's libraries name weights in several files, and the file that lists them.
_INDEX = ".index.json"
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}(\.safetensors|\.bin)")
_TENSORS = "{n: t for f in glob.glob(sys.argv[1]) for n, t in %s.items()}, sys.argv[2])"
# How Keras 3 names weights in several files, and a folder of TensorFlow.
_KERAS_INDEX = ".weights.json"
_KERAS_PART = re.compile(r"(.+)_\d{5}\.weights\.h5")
_SAVED_MODEL = "saved_model.pb"
_JOIN = {
    "safetensors": (
        "import glob, sys; from safetensors.torch import load_file, save_file; "
        f"save_file({_TENSORS % 'load_file(f)'}",
        "safetensors",
    ),
    "bin": (
        f"import glob, sys, torch; torch.save({_TENSORS % 'torch.load(f, weights_only=True)'}",
        "pth",
    ),
}


def refuse_no_file(path: Path) -> None:
    """Refuse what has no content that can be read more than once.

    Raises:
        InputError: it is a pipe or a device, or empty.
    """
    refuse_pipe(path)
    if not path.stat().st_size:
        raise InputError(f"{path}: is empty; download it or save it again")


def refuse_pipe(path: Path) -> None:
    """Refuse what opening could block for ever, or what has no end.

    Raises:
        InputError: it is a pipe or a device.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is a pipe or a device; save the weights in a file")


def refuse_part(path: Path) -> None:
    """Refuse weights that Hugging Face's libraries or Keras have divided into several files.

    Raises:
        InputError: the folder or the file is of such weights, or of TensorFlow; the text says how
            to join them, or what to save instead.
    """
    _refuse_part_of_keras(path)
    index = path
    if path.is_dir():
        index = next(iter(sorted(path.glob(f"*{_INDEX}"))), path)
    elif part := _PART.fullmatch(path.name):
        index = path.with_name(f"{part[1]}{part[2]}{_INDEX}")
    if not index.name.endswith(_INDEX) or not index.is_file():
        return
    name = index.name.removesuffix(_INDEX)
    stem, suffix = name.rpartition(".")[::2]
    parts = index.with_name(f"{stem}-*-of-*.{suffix}")
    code, new = _JOIN.get(suffix, _JOIN["bin"])
    joined = index.with_name(f"{stem}-joined.{new}")
    raise InputError(
        f"{path}: the weights are divided into several files, {parts.name}; join them: "
        f'python -c "{code}" {shlex.quote(str(parts))} {shlex.quote(str(joined))}'
    )


def _refuse_part_of_keras(path: Path) -> None:
    part = _KERAS_PART.fullmatch(path.name)
    index = path.with_name(f"{part[1]}{_KERAS_INDEX}") if part else path
    if index.name.endswith(_KERAS_INDEX) and index.is_file():
        raise InputError(
            f"{path}: the weights are divided into several files; join them in Keras, where the "
            f"network is `model`: model.load_weights({str(index)!r}); model.save('model.keras')"
        )
    folder = path.parent if path.name == _SAVED_MODEL else path
    if (folder / _SAVED_MODEL).is_file():
        raise InputError(
            f"{path}: is a SavedModel of TensorFlow, which is not read; save the network in Keras: "
            "model.save('model.keras')"
        )


def refuse_archive(path: Path, members: Sequence[str]) -> None:
    """Refuse an image, and what must be unpacked first; ``members`` are its ``names_in``.

    Raises:
        InputError: it is an image, encrypted or an archive of files; the text says what to do.
    """
    with path.open("rb") as file:
        start = file.read(512)
    # A safetensors file may begin with any bytes, the length of its header "{...}".
    kinds = [kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)]
    if start[257:262] == b"ustar":
        kinds.append("tar")
    if kinds and start[8:9] != b"{":
        raise InputError(f"{path}: is packed ({kinds[0]}); unpack it and pass the weights file")
    if start[1:4] == _ENCRYPTED and 0xD8 <= start[0] <= 0xDA and start[8:9] != b"{":
        raise InputError(
            f"{path}: is an encrypted checkpoint of MindSpore; save it without a key there: "
            "save_checkpoint(load_checkpoint(FILE, dec_key=KEY), 'weights.ckpt')"
        )
    image = format_of(start)
    if image and start[8:9] != b"{":
        raise InputError(f"{path}: is an image ({image}); pass a weights file")
    names = members if start.startswith(b"PK\3\4") else []
    if any(name == "model.weights.h5" or name.endswith("data.pkl") for name in names):
        return
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(f"{path}: is an archive of NumPy's arrays; in Python: {_ARRAYS}")
    if names:
        raise InputError(
            f"{path}: is a zip archive ({some(names, 3)}); unpack it and pass the weights file"
        )
