"""The project's own files: the state of a run (``.ckpt``) and weights (``.safetensors``).

Both are safetensors files, which contain only numbers and text and cannot execute code. Their
metadata has a JSON text and a SHA-256 of everything: a truncated file, or one with a single changed
bit, is refused when it is read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from densenet121.checkpoint.archives import refuse_pipe
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import Variant
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.files import write_atomic
from densenet121.utils.json_values import is_text, parse_json

FORMAT = 1
METADATA_KEY = "densenet121"
DEFAULT_TASK = "single_label"  # for files that do not name a task
_ONE_OUTPUT_EACH = (DEFAULT_TASK, "multilabel")  # a caller's own task may have another number
CLASSES_DTYPE = "classes_dtype"  # in the origin of weights: of the estimator's classes in numpy
Kind = Literal["checkpoint", "weights"]


@dataclass(frozen=True)
class ModelInfo:
    """Network, task, classes and preprocessing of weights.

    Attributes:
        net: a key of ``network.NETWORKS``.
        variant: variant of the pooling.
        class_names: class names by index; empty if unknown.
        preprocessing: preprocessing of the images.
        task: name of the task, see ``densenet121.tasks``.
    """

    net: str
    variant: Variant
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    task: str = DEFAULT_TASK

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the default task is omitted, as in older files."""
        content = asdict(self) | {"preprocessing": self.preprocessing.to_json()}
        if self.task == DEFAULT_TASK:
            del content["task"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ModelInfo":
        """Read the result of ``to_json``.

        Raises:
            ValueError: something is missing, or not of its type.
        """
        try:
            preprocessing = Preprocessing.from_json(content["preprocessing"])
            net, names = content["net"], content["class_names"]
            variant: Variant = "model_zoo" if content["variant"] == "model_zoo" else "paper"
            known = content["variant"] == variant
            task = str(content.get("task", DEFAULT_TASK))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(repr(error)) from None
        if not isinstance(net, str) or not isinstance(names, list | tuple):
            raise ValueError("the network or its classes")
        if not known:  # another pooling would give other numbers
            raise ValueError("the variant is unknown")
        if not all(map(is_text, names)):
            raise ValueError("the name of a class is no text")
        return cls(net, variant, tuple(names), preprocessing, task)


def check_names(info: ModelInfo | None, outputs: int | None, path: Path) -> None:
    """Refuse names that are not one for each output, because a name would stand for another class.

    Args:
        info: what the file records, or None.
        outputs: of the network; None without a classifier.
        path: the file, for the error.

    Raises:
        InputError: there are names, but more or fewer than outputs, or two are equal.
    """
    names = info.class_names if info else ()
    if info is None or not names:
        return
    if info.task in _ONE_OUTPUT_EACH and outputs not in (None, len(names)):
        raise InputError(
            f"{path}: has names for {len(names)} classes, but its network has {outputs} outputs; "
            "write it again with one name for each output, or without names"
        )
    if twice := named_twice(names):
        raise InputError(
            f"{path}: {twice} of its classes; write it again with another name for each, or "
            "without names"
        )


def check_one_output(task: str, outputs: int | None, path: Path) -> None:
    """Refuse one class per image of a single output: every image would have it with 100 %.

    Raises:
        InputError: it is so.
    """
    if task == DEFAULT_TASK and outputs == 1:
        raise InputError(
            f"{path}: says one class per image, but its network has one output, which would be "
            "100 % for every image; convert the file that it was made from again, or train with "
            "two classes or `task` multilabel"
        )


def named_twice(names: Sequence[str]) -> str:
    """A name that several have, in words; empty if all differ."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    return f'"{one_line(name)}" is the name of {count}' if count > 1 else ""


def save(
    path: Path,
    kind: Kind,
    tensors: Mapping[str, Tensor],
    content: Mapping[str, Any],
    *,
    with_format: bool = False,
) -> None:
    """Write tensors and JSON content into one file, atomically.

    ``with_format`` adds the "format" to the metadata that transformers asks for.

    Raises:
        OSError: disk full or no permission; an existing file of that name is unchanged.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(content, allow_nan=False)
    note = {"format": FORMAT, "kind": kind, "content": text, "sha256": _digest(kind, text, on_cpu)}
    # One key, because safetensors writes several in random order; equal runs must give equal bytes.
    metadata = {METADATA_KEY: json.dumps(note)}
    data = _as_safetensors(on_cpu, metadata)
    write_atomic(path, _with_format(data) if with_format else data)


def _as_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The same bytes by the library's way for NumPy, in a third of the time; it has no bfloat16."""
    try:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    except TypeError:
        return safetensors.torch.save(dict(tensors), metadata)
    return safetensors.numpy.save(arrays, metadata)


def _with_format(data: bytes) -> bytes:
    """The same file with a second key in its metadata, always in the same order."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"]["format"] = "pt"
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors are aligned
    return len(text).to_bytes(8, "little") + text + data[start:]


def read(path: Path, kind: Kind | None = None) -> tuple[Kind, dict[str, Tensor], dict[str, Any]]:
    """Read and check a file that ``save`` wrote: its kind, its tensors, its JSON content.

    Raises:
        InputError: not such a file, of another kind, truncated, or changed since it was written.
    """
    tensors, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise InputError(f"{path}: not a file of this program (no {METADATA_KEY} in its metadata)")
    try:
        note = parse_json(metadata[METADATA_KEY])
        found: Kind = "checkpoint" if note["kind"] == "checkpoint" else "weights"
        known = note["format"] == FORMAT and note["kind"] == found
        intact = note["sha256"] == _digest(found, note["content"], tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    if not known:
        raise InputError(
            f"{path}: unknown format; was it written by a newer version? Then upgrade densenet121"
        )
    if not intact:
        raise InputError(f"{path}: damaged (its SHA-256 does not match)")
    if kind is not None and found != kind:
        raise InputError(f"{path}: is a {found} file, but a {kind} file is needed")
    return found, tensors, _content(path, note)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file, which is read once.

    Raises:
        InputError: missing, unreadable, or not a complete safetensors file.
    """
    refuse_pipe(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file ({error})") from None
    # The library has checked the header, but does not return its metadata when reading from memory.
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header.get("__metadata__") or {}  # it may be null


def read_note(path: Path, metadata: Mapping[str, str]) -> tuple[Kind, dict[str, Any]]:
    """Kind and JSON content from the metadata alone; the checksum is not verified.

    Raises:
        InputError: the metadata cannot be read.
    """
    try:
        note = parse_json(metadata[METADATA_KEY])
        kind: Kind = "checkpoint" if note["kind"] == "checkpoint" else "weights"
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    return kind, _content(path, note)


def _content(path: Path, note: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON content. Its parts are objects, of whatever is in them.

    Raises:
        InputError: it is not; a file whose checksum is right may have been made by anybody.
    """
    try:
        content = parse_json(note["content"])
        if not isinstance(content, dict):
            raise ValueError("not an object")
        for name in ("model", "origin", "state", "run", "data", "calibration", "int8"):
            if not isinstance(content.get(name) or {}, dict):
                raise ValueError(f"{name} is not an object")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    return content


def save_weights(
    path: Path,
    state_dict: Mapping[str, Tensor],
    info: ModelInfo,
    origin: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    *,
    with_format: bool = False,
    int8: Mapping[str, Any] | None = None,
) -> None:
    """Write weights with their description and their origin (epoch, step, score).

    ``data`` describes the images, see ``data_note``, if anything is known of them; ``with_format``
    is that of ``save``; ``int8`` is that of ``Weights``.
    """
    content = {"model": info.to_json(), "origin": dict(origin)}
    more = {} if calibration is None else {"calibration": dict(calibration)}
    more |= {"data": dict(data)} if data else {}
    more |= {} if int8 is None else {"int8": dict(int8)}
    save(path, "weights", state_dict, content | more, with_format=with_format)


def data_note(data: Mapping[str, Any]) -> dict[str, Any]:
    """The "data" of run.json for a weights file: without paths, since weights are passed on."""
    return {
        split: {**found, "folder": folder_digest(found["folder"])}
        for split, found in data.items()
        if found
    }


def folder_digest(folder: str) -> str:
    """A digest that identifies a folder without its path."""
    return hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:16]


def _digest(kind: str, text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{kind}\n{text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
