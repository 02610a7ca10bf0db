"""Convert weights between formats, and read the new file back as a check."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from densenet121.checkpoint.channels import is_same_function, with_channels
from densenet121.checkpoint.foreign import mindspore
from densenet121.checkpoint.foreign.identify import PREPROCESSING
from densenet121.checkpoint.foreign.medical import (
    LABELS,
    XRAY_PREPROCESSING,
    to_monai,
)
from densenet121.checkpoint.foreign.names import to_mindspore
from densenet121.checkpoint.known import NOTHING_KNOWN, Known, with_known
from densenet121.checkpoint.load import MODEL_KEY, read_weights
from densenet121.checkpoint.native import DEFAULT_TASK, ModelInfo, save_weights
from densenet121.checkpoint.not_recorded import not_recorded
from densenet121.checkpoint.one_label import as_one_label
from densenet121.checkpoint.pretrained import Pretrained, load_pretrained, load_state
from densenet121.network import FOR_SMALL_IMAGES, NETWORKS, Variant, build
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.files import scratch_folder, write_atomic

Target = Literal["native", "torchvision", "timm", "mindcv", "mindspore", "monai", "torchxrayvision"]
SUFFIXES: dict[Target, tuple[str, ...]] = {
    "native": (".safetensors",),
    "torchvision": (".pth", ".safetensors"),
    "timm": (".safetensors", ".pth"),
    "mindcv": (".ckpt", ".safetensors"),
    "mindspore": (".ckpt", ".safetensors"),
    "monai": (".pth", ".safetensors"),
    "torchxrayvision": (".pth",),
}
# Channels of the networks of each program; the first is taken for weights of another number.
CHANNELS: dict[Target, tuple[int, ...]] = {
    "native": (3, 1),
    "torchvision": (3,),
    "timm": (3, 1),
    "mindcv": (3,),
    "mindspore": (3,),
    "monai": (3, 1),
    "torchxrayvision": (1,),
}


@dataclass(frozen=True)
class Converted:
    """Result of ``convert``.

    Attributes:
        info: description of the weights.
        family: the program that the weights came from.
        tensors: number of tensors that were written and verified.
        lost: whether a calibration was dropped because the format cannot store it.
        channels: input channels of the network in the new file.
        notes: what was assumed, changed or left out when the weights were read, and what the new
            file does not record.
    """

    info: ModelInfo
    family: str
    tensors: int
    lost: bool = False
    channels: int = 3
    notes: tuple[str, ...] = ()


def convert(
    source: Path,
    target: Path,
    to: Target,
    *,
    net: str | None = None,
    variant: Variant | None = None,
    channels: int | None = None,
    known: Known = NOTHING_KNOWN,
    positive_class: str | None = None,
) -> Converted:
    """Write the weights of ``source`` to ``target`` in the format of the program ``to``.

    The new file is read back before it gets its name: every tensor must be equal bit for bit.

    Args:
        source: any file that ``read_weights`` reads.
        target: a new file; its suffix selects one of the program's formats.
        to: the program. Its networks must have the variant of the weights.
        net: the network, for files that do not record it.
        variant: the variant, for files that do not record it.
        channels: input channels in the new file, see ``CHANNELS`` (default: those of the weights
            if the program has such networks).
        known: what the file does not record, or what shall replace it. A calibration is kept
            only where the probabilities stay the same.
        positive_class: of weights with two classes, the one that becomes their only label; the
            probabilities stay the same but for rounding. None keeps the classes.

    Raises:
        UsageError: the weights do not have two classes, the program does not use this suffix or
            number of channels, ``target`` exists, or cannot record what is ``known``.
        InputError: the weights cannot be read, or the program has no such network.
        OSError: ``target`` cannot be written.
    """
    _check_target(target, to)
    _check_channels(to, channels)
    _check_recordable(to, target, known)
    if positive_class is not None and to != "native":
        raise UsageError(f"`positive_class` is for `to` native, not for {to}; omit it")
    info, loaded, changes = _read(source, to, net, variant, known, positive_class)
    state_dict = loaded.model.state_dict()
    own = loaded.model.in_channels
    wanted = channels or (own if own in CHANNELS[to] else CHANNELS[to][0])
    changed = ""
    if wanted != own:
        if not is_same_function(info.preprocessing, wanted):
            loaded = _without_calibration(loaded, changes)
        state_dict, preprocessing, changed = with_channels(state_dict, info.preprocessing, wanted)
        info = replace(info, preprocessing=preprocessing)
    if to == "torchxrayvision":
        _check_scale(info, source)
    with scratch_folder(target) as folder:
        trial = folder / target.name
        _write(trial, state_dict, info, to, loaded)
        back = check_same(trial, state_dict, info)
        write_atomic(target, trial.read_bytes())
    lost = loaded.calibration is not None and to != "native"
    more = [*changes, *filter(None, [changed]), *(of_offsets(loaded.calibration) if lost else ())]
    notes = (*loaded.notes, *more, *not_recorded(info, back))
    return Converted(info, loaded.family, len(state_dict), lost, wanted, notes)


def _read(
    source: Path,
    to: Target,
    net: str | None,
    variant: Variant | None,
    known: Known,
    positive_class: str | None,
) -> tuple[ModelInfo, Pretrained, list[str]]:
    """The weights as they shall be written, their description, and what changed, in words."""
    loaded = load_pretrained(source, net=net or "densenet121", variant=variant)
    info = described(loaded, net or "densenet121")
    check_network(info, to, source)
    info, loaded, changes = replaced(loaded, info, known, source)
    if positive_class is None:
        return info, loaded, changes
    others = [name for name in info.class_names if name != positive_class]
    info, loaded = as_one_label(loaded, info, positive_class, source)
    loaded = _without_calibration(loaded, changes, "classes")
    changes.append(
        f"{positive_class} is the only label, and {others[0]} its absence; run calibrate with "
        "`operating_point` for its threshold"
    )
    return info, loaded, changes


def has_offsets(calibration: Mapping[str, Any] | None) -> bool:
    """Whether the bias of the classifier has offsets that `calibrate` fitted (`fit_bias`)."""
    note = (calibration or {}).get("note")
    return isinstance(note, dict) and bool(note.get("offsets"))


def of_offsets(calibration: Mapping[str, Any] | None) -> list[str]:
    """What another program must do with weights whose bias has the offsets of `fit_bias`."""
    if calibration is None or not has_offsets(calibration):
        return []
    found = calibration.get("temperatures") or [calibration.get("temperature")]
    return [
        "the offsets that calibrate fitted (`fit_bias`) stay in the bias of the classifier, and "
        "without the temperatures mean probabilities are not shares of images: divide the logits "
        f"by {some([f'{float(value):.6g}' for value in found], 20)} first"
    ]


def _check_target(target: Path, to: Target) -> None:
    if target.suffix not in SUFFIXES[to]:
        raise UsageError(
            f"{target}: weights for {to} must be written as {' or '.join(SUFFIXES[to])}; "
            "change the suffix"
        )
    if target.exists():
        raise UsageError(f"{target}: already exists; choose another name or remove it")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: there is no such folder")


def _check_channels(to: Target, asked: int | None) -> None:
    if asked not in (None, *CHANNELS[to]):
        raise UsageError(
            f"`channels` {asked} cannot be written for {to}, which takes "
            f"{' or '.join(map(str, CHANNELS[to]))}; omit it"
        )


def _check_recordable(to: Target, target: Path, known: Known) -> None:
    """Refuse what the new file would not tell its reader."""
    if target.suffix == ".safetensors":
        return
    told: tuple[str, ...] = ()
    if to == "torchxrayvision":  # all of its are multilabel
        told = ("class_names", "task") if known.task == "multilabel" else ("class_names",)
    if lost := [name for name in known.given if name not in told]:
        raise UsageError(
            f"`{lost[0]}` cannot be recorded in a {target.suffix} file for {to}; write .safetensors"
            + (" for native" if ".safetensors" not in SUFFIXES[to] else "")
        )


def replaced(
    loaded: Pretrained, info: ModelInfo, known: Known, source: Path
) -> tuple[ModelInfo, Pretrained, list[str]]:
    """The description with what is known, the weights, and what changed, in words.

    The calibration is left out where it was measured on other probabilities.

    Raises:
        InputError: what is known does not fit to the weights; a UsageError for the task.
    """
    outputs, channels = loaded.model.num_classes, loaded.model.in_channels
    new, changes = with_known(info, known, outputs, channels, source)
    same = (new.task, new.preprocessing) == (info.task, info.preprocessing)
    return new, loaded if same else _without_calibration(loaded, changes), changes


def _without_calibration(
    loaded: Pretrained, changes: list[str], of: str = "probabilities"
) -> Pretrained:
    """The weights as they are if they have none; else a sentence says that it is left out."""
    if loaded.calibration is None:
        return loaded
    changes.append(f"the calibration is left out, because it is of other {of}")
    if has_offsets(loaded.calibration):
        changes.append(
            "the offsets that it had added (`fit_bias`) stay in the bias of the classifier: run "
            "calibrate with `fit_bias` again, which fits further ones"
        )
    return replace(loaded, calibration=None)


def _check_scale(info: ModelInfo, source: Path) -> None:
    """Refuse weights of another scale than torchxrayvision's."""
    p, theirs = info.preprocessing, XRAY_PREPROCESSING.with_channels(1)
    if (p.mean, p.std) != (theirs.mean, theirs.std):
        raise InputError(
            f"{source}: was trained with mean {p.mean} and std {p.std}, but torchxrayvision "
            "scales images to -1024 ... 1024 (mean 127.5, std 0.1245), so the weights would "
            "give wrong results there; convert them to torchvision or native"
        )


def described(loaded: Pretrained, net: str) -> ModelInfo:
    """What the file records, else what is usual for its network."""
    if loaded.info is not None:
        return loaded.info
    family: Literal["densenet-bc", "torchvision"]
    family = "densenet-bc" if net in FOR_SMALL_IMAGES else "torchvision"
    preprocessing = PREPROCESSING[family].with_channels(loaded.model.in_channels)
    task = "multilabel" if loaded.model.num_classes == 1 else DEFAULT_TASK
    return ModelInfo(net, loaded.model.variant, (), preprocessing, task)


def check_network(info: ModelInfo, to: Target, source: Path) -> None:
    """Refuse weights of a network or variant that the program does not have.

    Raises:
        InputError: it has none of them.
    """
    if to == "native":
        return
    if info.net not in NETWORKS or info.net in FOR_SMALL_IMAGES:
        raise InputError(f"{source}: {info.net} is not a network of {to}; convert it to native")
    if to == "monai" and info.net == "densenet161":
        raise InputError(f"{source}: monai has no densenet161; convert it to torchvision or native")
    if to in ("torchvision", "mindcv") and info.net == "densenet264":
        raise InputError(f"{source}: {to} has no densenet264; convert it to timm or native")
    wanted = "model_zoo" if to == "mindspore" else "paper"
    if info.variant != wanted:
        others = "native or mindspore" if wanted == "paper" else "native, mindcv or torchvision"
        raise InputError(
            f"{source}: weights of the variant {info.variant} give wrong results in {to}, whose "
            f"networks have the variant {wanted}; convert them to {others}"
        )


def _write(
    path: Path, state_dict: dict[str, Tensor], info: ModelInfo, to: Target, loaded: Pretrained
) -> None:
    """In the format of the program; only ours has room for what is known of the images."""
    if to == "native":
        save_weights(path, state_dict, info, loaded.origin, loaded.calibration, loaded.data)
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    if to in ("mindcv", "mindspore"):
        tensors = {
            to_mindspore(name, model_zoo=to == "mindspore"): tensor
            for name, tensor in tensors.items()
            if not name.endswith("num_batches_tracked")  # MindSpore does not have it
        }
    if to == "monai":
        tensors = {to_monai(name): tensor for name, tensor in tensors.items()}
    content: Any = tensors
    if to == "torchxrayvision":  # its names are torchvision's; `arch` tells them apart
        content = {"arch": to, LABELS: list(info.class_names), "state_dict": tensors}
    if path.suffix == ".ckpt":
        path.write_bytes(mindspore.encode(tensors))
    elif path.suffix == ".pth":
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path.write_bytes(buffer.getvalue())
    else:
        metadata = {"format": "ms" if to in ("mindcv", "mindspore") else "pt"}
        metadata[MODEL_KEY] = json.dumps(info.to_json())
        path.write_bytes(safetensors.torch.save(tensors, metadata))


def check_same(path: Path, state_dict: dict[str, Tensor], info: ModelInfo) -> ModelInfo | None:
    """Read the file back and compare; returns what it records."""
    weights = read_weights(path)
    back = build(
        info.net,
        num_classes=weights.num_classes or 1,
        variant=info.variant,
        in_channels=weights.channels,
    )
    load_state(back, weights.state_dict, path)
    found = back.state_dict()
    for name, tensor in state_dict.items():
        counts = name.endswith("num_batches_tracked") and name not in weights.state_dict
        if not counts and not torch.equal(_bits(found[name]), _bits(tensor)):
            raise InputError(f"{path.name}: {name} differs after reading back; nothing was written")
    return weights.info


def _bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor: a nan is not equal to itself, but its bits are."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
