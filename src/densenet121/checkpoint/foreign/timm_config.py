"""config.json of a Hugging Face folder, in the form of timm and of transformers' timm wrapper.

timm's ``models/_hub.py`` and ``data/transforms_factory.py`` say what the fields mean.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densenet121.checkpoint.foreign.timm_network import other_function, other_pooling
from densenet121.checkpoint.native import ModelInfo
from densenet121.datasets.eval_resize import Resize, parse_eval_resize
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.json_values import is_text, parse_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# The order in which timm looks for the weights of a local folder.
_WEIGHTS = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_LARGEST = 2**24  # bytes of config.json; the names of 20,000 classes are 2 million
_INTERPOLATIONS = {
    "bilinear": "pillow_bilinear",
    "bicubic": "pillow_bicubic",
    "nearest": "pillow_nearest",
}
_PROBLEMS = {
    "single_label": "single_label_classification",
    "multilabel": "multi_label_classification",
}
# What timm assumes of a pretrained_cfg that lacks them, models/_pretrained.py.
_DEFAULTS: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
# timm has no DenseNet-264 (its densenet264d is another), but makes it from other blocks.
_NETS: dict[str, dict[str, Any]] = {
    "densenet121": {"architecture": "densenet121", "num_features": 1024},
    "densenet161": {"architecture": "densenet161", "num_features": 2208},
    "densenet169": {"architecture": "densenet169", "num_features": 1664},
    "densenet201": {"architecture": "densenet201", "num_features": 1920},
    "densenet264": {
        "architecture": "densenet121",
        "num_features": 2688,
        "model_args": {"block_config": [6, 12, 64, 48]},
    },
}
_MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    ZeroDivisionError,
    OverflowError,
    AttributeError,
)


@dataclass(frozen=True)
class TimmConfig:
    """What config.json says about weights of a DenseNet.

    Attributes:
        preprocessing: preprocessing of the images.
        class_names: in the order of the outputs; empty if it has none.
        task: name of the task.
        notes: sentences on what cannot be done here as timm does it.
        pooling: before the classifier, if it is not the average; the classifier is another head.
    """

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    task: str
    notes: tuple[str, ...] = ()
    pooling: str = ""


def weights_in(folder: Path) -> Path | None:
    """The weights of a Hugging Face folder, as timm chooses them; None if it is none."""
    if not (folder / CONFIG).is_file():
        return None
    return next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)


def read_config(weights: Path) -> TimmConfig | None:
    """The config.json beside a weights file; None without one, or if it is of another network.

    Raises:
        InputError: it is not in timm's form, or asks for images or a network that cannot be made
            here.
    """
    content = _densenet(weights)
    if content is None:
        return None
    file = weights.with_name(CONFIG)
    try:
        given = _DEFAULTS | content.get("pretrained_cfg", content)
        preprocessing, notes = _preprocessing(given, file)
        names = _class_names(content.get("label_names") or given.get("label_names") or ())
        several = content.get("problem_type") == _PROBLEMS["multilabel"]
        other, pooling = other_function(content), other_pooling(content)
    except InputError:
        raise
    except _MALFORMED:
        raise InputError(
            f"{file}: its pretrained_cfg is not in timm's format; move the file away to read the "
            "weights without it"
        ) from None
    if other:
        raise InputError(
            f"{file}: its network has {other}, which does not show in the weights, and would give "
            "wrong results here; use them with timm, or take other weights"
        )
    task = "multilabel" if several else "single_label"
    return TimmConfig(preprocessing, names, task, notes, pooling)


def _densenet(weights: Path) -> dict[str, Any] | None:
    """The content of config.json beside a weights file, if it is one of a DenseNet.

    Raises:
        InputError: it is damaged; without it, images and classes would be others.
    """
    file = weights.with_name(CONFIG)
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        content = parse_json(file.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{file}: is damaged ({one_line(error)}); download it or save it again, or move it "
            "away to read the weights without it"
        ) from None
    try:
        return content if "densenet" in content["architecture"] else None
    except (KeyError, TypeError):
        return None


def _preprocessing(given: Mapping[str, Any], file: Path) -> tuple[Preprocessing, tuple[str, ...]]:
    _, height, width = (int(side) for side in given["input_size"])
    mean, std = (tuple(float(value) * 255 for value in given[name]) for name in ("mean", "std"))
    if len(mean) not in (1, 3) or len(std) != len(mean) or not all(map(math.isfinite, mean + std)):
        raise ValueError
    if min(std) <= 0 or min(height, width) <= 0:
        raise ValueError
    kind = given["interpolation"]
    if kind not in _INTERPOLATIONS:
        raise InputError(
            f'{file}: interpolation must be {", ".join(_INTERPOLATIONS)} here, got "{kind}"'
        )
    resized = tuple(math.floor(side / float(given["crop_pct"])) for side in (height, width))
    modes = {"center": f"short:{min(resized)}", "border": f"pad:{resized[0]},{resized[1]}"}
    mode = given["crop_mode"]
    notes: tuple[str, ...] = ()
    if mode == "center" and height != width:
        notes = ("timm resizes images for a network that takes no squares in another way",)
    preprocessing = Preprocessing(
        (height, width),
        f"{resized[0]},{resized[1]}" if mode == "squash" else modes[mode],
        mean,
        std,
        _INTERPOLATIONS[kind],
    )
    try:
        _ = preprocessing.transform
    except InputError as error:
        raise InputError(f"{file}: its input_size, crop_pct and crop_mode: {error}") from None
    return preprocessing, notes


def _class_names(found: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """From a list, or from a dict of index to name without gaps."""
    if isinstance(found, Mapping):
        found = [found[str(index)] for index in range(len(found))]
    if isinstance(found, str) or not all(map(is_text, found)):
        raise TypeError
    return tuple(found)


def make_config(info: ModelInfo, num_classes: int) -> tuple[dict[str, Any], list[str]]:
    """The content of config.json, and what timm and transformers will do in another way.

    Raises:
        InputError: timm has no such network, or transformers no such task; the reason only.
    """
    if info.net not in _NETS:
        raise InputError(f"{info.net} is not a network of timm; convert it to native")
    if info.task not in _PROBLEMS:
        raise InputError(f"the task {info.task} is none of transformers; convert it to native")
    p = info.preprocessing
    mode, crop_pct, notes = _crop(p)
    interpolation = next(
        (theirs for theirs, ours in _INTERPOLATIONS.items() if ours == p.interpolation), "bilinear"
    )
    height, width = p.image_size
    labels = {"label_names": list(info.class_names)} if info.class_names else {}
    content = _NETS[info.net] | {
        "num_classes": num_classes,
        "global_pool": "avg",
        **labels,
        "pretrained_cfg": {
            "tag": "densenet121",
            "custom_load": False,
            "input_size": [3, height, width],
            "fixed_input_size": False,
            "interpolation": interpolation,
            "crop_pct": crop_pct,
            "crop_mode": mode,
            # As precise as float32, in which the images are normalised: 0.485 stays 0.485.
            "mean": [float(f"{level / 255:.7g}") for level in p.mean],
            "std": [float(f"{level / 255:.7g}") for level in p.std],
            "num_classes": num_classes,
            "pool_size": [height // 32, width // 32],
            "first_conv": "features.conv0",
            "classifier": "classifier",
        },
        "problem_type": _PROBLEMS[info.task],
        "architectures": ["TimmWrapperForImageClassification"],
        "model_type": "timm_wrapper",
    }
    return content, notes + _differences(p)


def _crop(p: Preprocessing) -> tuple[str, float, list[str]]:
    """crop_mode and crop_pct, and a note if timm cannot resize to the same size."""
    resize = parse_eval_resize(p.eval_resize)
    mode, outer = _mode(resize)
    sizes = list(zip(p.image_size, outer, strict=True))
    if mode == "center":  # for a square; else timm has another rule than the shorter side
        sizes = [(min(p.image_size), outer[0])]
    highest = min(inner / whole for inner, whole in sizes)
    lowest = max(inner / (whole + 1) for inner, whole in sizes)
    # Of the values that are rounded down to the size the largest, which is often a short number.
    for crop_pct in (highest, math.nextafter(highest, 0), (lowest + highest) / 2):
        same = all(math.floor(inner / crop_pct) == whole for inner, whole in sizes)
        if same and (mode != "center" or p.image_size[0] == p.image_size[1]):
            return mode, crop_pct, []
    return mode, highest, [f"timm cannot resize to {resize} before the crop, only to about it"]


def _mode(resize: Resize) -> tuple[str, tuple[int, int]]:
    if isinstance(resize.size, int):
        return "center", (resize.size, resize.size)
    return "border" if resize.pad else "squash", resize.size


def _differences(p: Preprocessing) -> list[str]:
    """What timm and transformers do not do to an image."""
    notes = []
    if p.interpolation == "opencv_bilinear":
        notes.append(
            "timm and transformers resize by Pillow's bilinear, which averages over the pixels "
            "that it leaves out; here OpenCV's takes the nearest four, so images that are made "
            "smaller differ a little"
        )
    if p.tta != "none":
        notes.append(f"timm and transformers take one view of an image, not those of tta {p.tta}")
    if p.depth != 8 or p.window:
        notes.append(f"timm and transformers read 8 bits of a sample, not {p.reading_note}")
    if p.fill is not None and p.fill != tuple(round(level) for level in p.mean):
        notes.append(f"timm and transformers fill up with the mean, not with {p.fill}")
    return notes


def check_config(weights: Path, info: ModelInfo, num_classes: int) -> None:
    """Refuse a config.json that was changed after our weights beside it were written.

    Raises:
        InputError: it differs from what was written with the weights.
    """
    found = _densenet(weights)
    if found is None:
        return
    file = weights.with_name(CONFIG)
    try:
        made, _ = make_config(info, num_classes)
    except InputError as error:
        raise InputError(f"{file}: does not belong to {weights.name}: {error}") from None
    inner = found.get("pretrained_cfg")
    pairs = [
        (name, found.get(name), made.get(name))
        for name in ("architecture", "model_args", "num_classes", "label_names", "problem_type")
    ]
    pairs += [
        (name, inner.get(name) if isinstance(inner, dict) else None, made["pretrained_cfg"][name])
        for name in _DEFAULTS
    ]
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise InputError(
                f"{file}: {name} is {_short(theirs)}, but {weights.name} was written with "
                f"{_short(ours)}; restore it, or move {CONFIG} away to read the weights alone"
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
