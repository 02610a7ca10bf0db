"""Read weights files of this program and of others."""

import math
import mmap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from densenet121.checkpoint.archives import refuse_archive, refuse_no_file, refuse_part
from densenet121.checkpoint.channels import channels_of
from densenet121.checkpoint.exported import names_in, refuse_exported
from densenet121.checkpoint.foreign import mindspore
from densenet121.checkpoint.foreign.identify import Foreign, identify
from densenet121.checkpoint.foreign.keras import is_keras_file, read_keras
from densenet121.checkpoint.foreign.labels import ONE_OUTPUT, Family
from densenet121.checkpoint.foreign.timm_config import CONFIG, WEIGHTS, check_config, weights_in
from densenet121.checkpoint.foreign.torch_file import (
    LARGEST,
    is_torch_file,
    prefix_of,
    read_torch_file,
    without_prefix,
)
from densenet121.checkpoint.native import (
    METADATA_KEY,
    ModelInfo,
    check_names,
    data_note,
    read,
    read_note,
    read_safetensors,
)
from densenet121.checkpoint.weights import Weights
from densenet121.utils.errors import InputError
from densenet121.utils.files import is_utf8
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import broken_link, refuse_stray

_SMALL = 64  # numbers in a tensor whose content is read with the shapes, such as thresholds
_HUGGING_FACE = f", or a Hugging Face folder, which has {CONFIG} beside {WEIGHTS}"
# What users of other programs pass for weights that are downloaded, or for none.
_NO_FILE = ("none", "false", "true", "default", "imagenet", "imagenet1k", "densenet121")
MODEL_KEY = "densenet121_model"  # in the metadata of safetensors that ``convert`` writes


def read_weights(path: Path, *, shapes_only: bool = False, int8: bool = False) -> Weights:
    """Read weights of this program or another; docs/guides/weights.md lists the formats.

    Nothing in a file is ever executed.

    Args:
        path: the file, or a Hugging Face folder.
        shapes_only: tensors may have no content, and checksums are not verified.
        int8: weights of 8-bit integers, which can only classify, are read too.

    Raises:
        InputError: missing, damaged, or of another format.
    """
    if path.is_dir():
        found_in = weights_in(path)
        if found_in is None:
            refuse_part(path)
            inside = sorted(path.glob("*.safetensors"))  # of a run the best is the first
            which = f" in it, as {inside[0]}" if inside else _HUGGING_FACE
            raise InputError(f"{path}: is a folder; pass one weights file{which}")
        path = found_in
    if not path.exists():
        nothing = f"is {link}" if (link := broken_link(path)) else "there is no such weights file"
        raise InputError(f"{path}: {nothing}{_instead_of(path)}")
    refuse_no_file(path)
    refuse_part(path)
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: has {path.stat().st_size} bytes; the limit is {LARGEST}")
    refuse_stray(path)
    members = names_in(path)
    refuse_exported(path, members)
    refuse_archive(path, members)
    family: Family | None = None
    metadata: Mapping[str, Any] = {}
    prefix = ""
    if is_keras_file(path):
        tensors, family = read_keras(path), "keras"
    elif is_torch_file(path):
        tensors, metadata = read_torch_file(path, mmap=shapes_only)
        prefix, tensors = prefix_of(tensors), without_prefix(tensors, path)
    elif is_mindspore_file(path):
        tensors, metadata = _read_mindspore(path, shapes_only)
    else:
        tensors, metadata = (_shapes if shapes_only else read_safetensors)(path)
        if METADATA_KEY in metadata:
            weights = _native(path, tensors, metadata, shapes_only)
            if weights.int8 is not None and not int8:
                raise InputError(
                    f"{path}: has int8 weights, which only eval, predict, serve and inspect "
                    "take; pass the weights that they were exported from"
                )
            return weights
        prefix, tensors = prefix_of(tensors), without_prefix(tensors, path)
    text = metadata.get(MODEL_KEY)
    found = identify(tensors, path, metadata, family, prefix)
    weights = _weights(found, _info(text, path) if text else None)
    check_names(weights.info, weights.num_classes, path)
    return weights


def _instead_of(missing: Path) -> str:
    """What to pass in place of a file that is not there, or nothing."""
    if missing.name.lower() in _NO_FILE:
        return "; no weights come with this program, so name a file"
    rest = missing.name.removeprefix("best")
    if rest != missing.name and (last := missing.with_name(f"last{rest}")).is_file():
        return f"; a run without validation images has no best weights, so pass {last}"
    return ""


def _native(
    path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, Any], shapes_only: bool
) -> Weights:
    if shapes_only:
        kind, content = read_note(path, metadata)
    else:
        kind, tensors, content = read(path)
    if kind == "checkpoint":
        prefix = "model."
        tensors = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        origin = content.get("origin") or {
            name: content["state"][name] for name in ("step",) if name in content.get("state", {})
        }
        data = content.get("data") or data_note(content.get("run", {}).get("data", {}))
        info = ModelInfo.from_json(content["model"])
        if not all(isinstance(found, dict) for found in data.values()):
            raise ValueError("the data of a split is not an object")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    calibration = content.get("calibration")
    int8 = content.get("int8")
    weights = Weights(tensors, info, origin, calibration=calibration, data=data, int8=int8)
    check_names(info, weights.num_classes, path)
    if path.name == WEIGHTS:
        check_config(path, info, weights.num_classes or 0)
    return weights


def _weights(foreign: Foreign, info: ModelInfo | None) -> Weights:
    if info is None and foreign.net and foreign.preprocessing:
        info = ModelInfo(
            foreign.net, foreign.variant, foreign.class_names, foreign.preprocessing, foreign.task
        )
        certain, notes = foreign.variant_is_certain, foreign.notes
    else:
        certain, notes = info is not None, ()
        if info is None:  # what is assumed of images is not used, but what the outputs mean is
            notes = tuple(note for note in foreign.notes if note == ONE_OUTPUT)
    if info is not None:  # a file of ours has the mean of R, G and B also where it is grey
        channels = channels_of(foreign.state_dict)
        info = replace(info, preprocessing=info.preprocessing.with_channels(channels))
    return Weights(
        foreign.state_dict,
        info,
        {},
        foreign.family,
        certain,
        foreign.momentum,
        foreign.state,
        _thresholds(foreign) if info is not None else None,
        notes=notes,
    )


def _thresholds(foreign: Foreign) -> dict[str, Any] | None:
    """Thresholds of another program as what `calibrate` stores, without what they reach."""
    from densenet121.tasks.multi_label.calibration import Calibration, OperatingPoint

    if not foreign.thresholds:
        return None
    points = tuple(OperatingPoint(value, 0, 0, 0, 0) for value in foreign.thresholds)
    rule = f"youden, by {foreign.family}"
    return Calibration((1.0,) * len(points), points, rule, {"source": foreign.family}).to_json()


def _info(text: str, path: Path) -> ModelInfo:
    try:
        return ModelInfo.from_json(parse_json(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: damaged (its metadata {MODEL_KEY} cannot be read)") from None


def is_mindspore_file(path: Path) -> bool:
    """Whether an existing file begins like a MindSpore ``.ckpt``."""
    with path.open("rb") as file:
        start = file.read(16)
    return mindspore.looks_like(start) and start[8:9] != b"{"


def _read_mindspore(path: Path, shapes_only: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    if shapes_only:
        with path.open("rb") as file:
            # Unmapped with its last user: an error in decode still holds parts of it.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        content = mindspore.decode(data, path, shapes_only=True)
    else:
        content = mindspore.decode(path.read_bytes(), path)
    texts = {name: value for name, value in content.items() if isinstance(value, str)}
    return {n: v for n, v in content.items() if isinstance(v, Tensor)}, texts


def _shapes(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read only the header of a safetensors file; all but small tensors are on "meta"."""
    if not is_utf8(path):
        return read_safetensors(path)  # the library opens no such path
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                view = file.get_slice(name)
                dtype = _DTYPES.get(view.get_dtype())
                if dtype is None:
                    raise InputError(f"{path}: {name} has the unknown type {view.get_dtype()}")
                shape = view.get_shape()
                if math.prod(shape) <= _SMALL:
                    tensors[name] = file.get_tensor(name)
                else:
                    tensors[name] = torch.empty(shape, dtype=dtype, device="meta")
            return tensors, file.metadata() or {}
    except InputError:
        raise
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file ({error})") from None


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
