"""Recognise exported networks, ONNX, torch.export and TorchScript, which are no weights files."""

import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densenet121.checkpoint.native import METADATA_KEY
from densenet121.utils.errors import InputError
from densenet121.utils.json_values import parse_json

ONNX = ".onnx"
# The second field of a protobuf model: its first is the version of the format, a small number.
_SECOND_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
# In the archives of torch.export, of torch from 2.8 on and before.
_PROGRAMS = ("models/model.json", "serialized_exported_program.json")
_LARGEST_NOTE = 2**26  # bytes; a calibration has a number for each of its images


def is_onnx(path: Path) -> bool:
    """Whether a file is ONNX, by its name in any case or by its first bytes."""
    if path.suffix.lower() == ONNX:
        return True
    try:
        if not path.is_file():  # opening a pipe could block forever
            return False
        with path.open("rb") as file:
            start = file.read(16)
    except (OSError, ValueError):  # for others to say
        return False
    # A safetensors file could begin so, too, but then has the bracket of its header.
    known = len(start) == 16 and start[0] == 8 and 0 < start[1] < 64 and start[8:9] != b"{"
    return known and start[2] in _SECOND_FIELDS


def refuse_exported(path: Path, members: Sequence[str]) -> None:
    """Refuse an exported network where weights are needed; ``members`` are its ``names_in``.

    Raises:
        InputError: it is one; the text names who takes it.
    """
    if is_onnx(path):
        raise InputError(
            f"{path}: is an exported network (ONNX), which only eval, predict, serve and inspect "
            "take; pass the weights that it was exported from"
        )
    if any("/code/" in n for n in members) and any(n.endswith("constants.pkl") for n in members):
        raise InputError(
            f"{path}: is a TorchScript program; if you trust the file, run this where torch is "
            f"installed: {_state_dict_of(path)}"
        )
    if any(name.endswith(_PROGRAMS) for name in members):
        raise InputError(
            f"{path}: is an exported network (torch.export), which is for torch.export.load; no "
            "command but inspect takes it: pass the weights that it was exported from"
        )


def program_note(path: Path) -> dict[str, Any] | None:
    """What `export` wrote into a file of torch.export; None for any other file.

    The program in it is not read.

    Raises:
        InputError: it cannot be read.
    """
    members = names_in(path) if path.is_file() else []  # opening a pipe could block forever
    notes = [name for name in members if name.endswith(f"/{METADATA_KEY}.json")]
    if len(notes) != 1 or not any(name.endswith(_PROGRAMS) for name in members):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(notes[0]).file_size > _LARGEST_NOTE:
                raise ValueError(f"more than {_LARGEST_NOTE} bytes")
            found = parse_json(archive.read(notes[0]))
    except Exception as error:  # zipfile fails in many ways
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    return found if isinstance(found, dict) else {}


def names_in(path: Path) -> list[str]:
    """Names of the files in a zip archive; none if it is not one, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # not an archive, or a damaged one, in which zipfile fails in many ways
        return []


def _state_dict_of(path: Path) -> str:
    """The command that makes a state dict of a TorchScript program."""
    code = (
        "import sys, torch; m = torch.jit.load(sys.argv[1], map_location='cpu'); "
        "torch.save(m.state_dict(), sys.argv[2])"
    )
    new = shlex.quote(str(path.with_name(f"{path.stem}-state.pth")))
    return f'python -c "{code}" {shlex.quote(str(path))} {new}'
