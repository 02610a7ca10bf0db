"""Describe a weights file by its names and shapes, mostly without reading its content."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densenet121.checkpoint.exported import program_note
from densenet121.checkpoint.foreign.timm_config import weights_in
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import CLASSES_DTYPE, DEFAULT_TASK, ModelInfo
from densenet121.checkpoint.weights import Weights
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.metrics.decisions import threshold_text
from densenet121.utils.errors import InputError, visible


def inspect(path: Path) -> str:
    """A few lines that describe a weights file, or a network that torch.export wrote.

    Of ``.safetensors`` only the header is read, of ``.ckpt`` and ``.pth`` only names and shapes;
    Keras files are read whole. Checksums are not verified.

    Raises:
        InputError: missing, damaged, or of another format.
    """
    path = weights_in(path) or path
    note = program_note(path)
    if note is not None:
        return described(path, _of_program(note))
    weights = read_weights(path, shapes_only=True, int8=True)
    return described(path, _rows(weights))


def described(path: Path, rows: Iterator[tuple[str, str]]) -> str:
    """A line for each row, after that of the file itself.

    Raises:
        InputError: the rows cannot be made of what the file records.
    """
    try:
        shown = [("file", f"{path} ({path.stat().st_size:,} bytes)"), *rows]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    width = max(len(what) for what, _ in shown)
    # A name in the file can neither begin a line of its own nor rewrite what the terminal shows.
    return "\n".join(visible(f"{what:<{width}}  {content}") for what, content in shown)


def _rows(weights: Weights) -> Iterator[tuple[str, str]]:
    info = weights.info
    names = {
        "native": "densenet121",
        "mindspore": "MindSpore (model zoo)",
        "mindcv": "MindSpore (mindcv)",
        "torchvision": "torchvision (timm uses the same names)",
        "monai": "MONAI",
        "chexnet": "CheXNet (a densenet121 within another module, with sigmoids)",
    }
    yield "weights of", names.get(weights.family, weights.family)
    yield "network", info.net if info else "unknown: not recorded, and no known network matches"
    variant: str = weights.variant_for(None) if info else "unknown"
    if info and not weights.variant_is_certain:
        caveat = "model_zoo has the same names; if it is model_zoo, pass `variant` model_zoo"
        if weights.family == "mindcv":
            caveat = "mindcv before October 2022 used model_zoo; " + caveat
        variant += f" ({caveat})"
    yield "variant", variant
    classes = str(weights.num_classes or "no classifier")
    if weights.other_head:
        classes = f"another head: {', '.join(weights.other_head[:4])}"
    yield class_row(info, classes)
    yield from calibration_rows(weights.calibration or {})
    tensors = weights.state_dict
    counted = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in counted.values()})
    count = sum(t.numel() for t in tensors.values())
    yield "content", f"{len(weights.state_dict)} tensors, {count:,} numbers, {', '.join(dtypes)}"
    if weights.int8 is not None:
        note = weights.int8["calibration"]
        yield "int8", f"calibrated on {note['pictures']} images ({note['fingerprint']})"
    if weights.momentum or weights.state:
        step = weights.state.get("global_step")
        shown = f" at step {int(step)}" if step is not None and step.device.type != "meta" else ""
        momentum = f"momentum of {len(weights.momentum)} parameters" if weights.momentum else ""
        numbers = ", ".join(sorted(weights.state))
        yield "training", f"{momentum}{shown}; {numbers}".strip("; ")
    for name, value in weights.origin.items():
        yield name, str(value)
    yield "images", images_line(info.preprocessing) if info else "preprocessing not recorded"
    for note in _notes(weights):
        yield "note", note


def _of_program(note: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    info = ModelInfo.from_json(note["model"])
    yield "weights of", "densenet121, exported by torch.export: for torch.export.load"
    yield "network", info.net
    yield "variant", info.variant
    yield class_row(info, str(len(info.class_names) or "names not recorded"))
    yield from calibration_rows(note.get("calibration") or {})
    yield "images", images_line(info.preprocessing)


def class_row(info: ModelInfo | None, count: str) -> tuple[str, str]:
    """How many classes or labels there are, and the names of the first ten."""
    if info and info.class_names:
        shown = ", ".join(info.class_names[:10])
        count += f": {shown}{', ...' if len(info.class_names) > 10 else ''}"
    several = info is not None and info.task == "multilabel"
    return "labels" if several else "classes", count


def images_line(p: Preprocessing) -> str:
    """How images are prepared."""
    return (
        f"resized to {p.eval_resize} ({p.interpolation}), central {p.image_size[0]} x "
        f"{p.image_size[1]}, mean {_triple(p.mean)}, std {_triple(p.std)}"
        + ("" if p.tta == "none" else f"; mean of the views of tta {p.tta}")
        + (f"; {p.decoding_note}" if p.decoding_note else "")
    )


def calibration_rows(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What `calibrate` stored, as far as it is there: files of own tasks have other things."""
    points = [point["threshold"] for point in content.get("points", ())]
    if points:
        yield "thresholds", _some(points, threshold_text)
    if "source" in content.get("note", {}):  # of another program, which a note says
        return
    found = []
    if "temperature" in content:
        found.append(f"temperature {float(content['temperature']):.4g}")
    if "temperatures" in content:
        found.append(f"temperatures {_some(content['temperatures'])}")
    if "offsets" in content.get("note", {}):
        found.append(f"offsets in the classifier's bias {_some(content['note']['offsets'])}")
    if content.get("rule"):
        found.append(f"operating point {content['rule']}")
    if content.get("abstain_below") is not None:
        found.append(f"no answer below {threshold_text(float(content['abstain_below']))}")
    if content.get("scores"):
        of = "groups" if "groups" in content.get("note", {}) else "images"
        found.append(f"prediction sets from {len(content['scores'])} {of}")
    if found:
        yield "calibration", "; ".join(found)


def _some(values: Sequence[float], text: Callable[[float], str] = "{:.4g}".format) -> str:
    """The first ten."""
    shown = ", ".join(text(float(value)) for value in values[:10])
    return shown + (", ..." if len(values) > 10 else "")


def _notes(weights: Weights) -> Iterator[str]:
    yield from weights.notes
    if weights.int8 is not None and weights.origin.keys() - {CLASSES_DTYPE}:
        yield "epoch and scores are of the float weights from which these were made"
    elif weights.calibration and weights.origin.keys() - {"epoch", "step", CLASSES_DTYPE}:
        yield "scores are of the weights before calibrate: without temperature and stored views"
    if weights.task == DEFAULT_TASK and weights.num_classes == 1:
        yield "one class per image of one output, so it cannot classify"
    info = weights.info
    if info and weights.num_classes and not info.class_names:
        yield (
            "its classes have no names; `convert` records them (`class_names`), and how images are "
            "prepared where that is not as above (`normalisation` and others)"
        )


def _triple(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" if value >= 1 else f"{value:.5g}" for value in values)
