"""convert says each thing in which a file of another program would mislead its reader."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121.checkpoint.convert import Target, convert
from densenet121.checkpoint.foreign.identify import PREPROCESSING
from densenet121.checkpoint.hugging_face import write_hugging_face
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.not_recorded import not_recorded
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import MEAN, STD
from densenet121.network import build

OWN = Preprocessing((224, 224), "short:256", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "pillow_bilinear")
INFO = ModelInfo("densenet121", "paper", ("ant", "bee", "cat"), OWN)
SAYS = "the new file does not record "
# What differs in the file that was written, and the words for it.
DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"mean": (1.0, 2.0, 9.0)}, "that grey levels of 0 to 255 must be normalised by mean 1, 2, 9"),
    ({"std": (4.0, 5.0, 9.0)}, "that grey levels of 0 to 255 must be normalised by mean 1, 2, 3"),
    ({"image_size": (64, 48)}, "that images are of 64 x 48 pixels (`image_size`)"),
    ({"eval_resize": "short:288"}, "that images are resized to short:288 (`eval_resize`)"),
    ({"interpolation": "pillow_bicubic"}, "that images are resized by pillow_bicubic"),
    ({"depth": 16}, "that images are read with depth 16"),
    ({"depth": 16, "window": "0,40000"}, "that images are read with depth 16, window 0,40000"),
    ({"tta": "flip"}, "that the mean over the views of `tta` flip is taken"),
]


@pytest.mark.parametrize(("changes", "words"), DIFFERENCES)
def test_each_difference_of_the_images_is_one_sentence(changes: dict[str, Any], words: str) -> None:
    (said,) = not_recorded(replace(INFO, preprocessing=replace(OWN, **changes)), INFO)
    assert said.startswith(SAYS + words)


def test_a_fill_counts_only_around_padded_images() -> None:
    for resize, fill, count in (
        ("pad:256", (0, 0, 0), 1),
        ("pad:256", (1, 2, 3), 0),  # the mean, which is filled up with anyway
        ("short:256", (0, 0, 0), 0),
    ):
        without = replace(OWN, eval_resize=resize)
        own = replace(INFO, preprocessing=replace(without, fill=fill))
        assert len(not_recorded(own, replace(INFO, preprocessing=without))) == count


def test_the_usual_normalisation_of_the_other_program_is_no_difference() -> None:
    """Our own means have the digits of float32, those of other programs all digits."""
    for family in ("torchvision", "mindspore", "mindcv"):
        theirs = PREPROCESSING[family]
        usual = replace(theirs, mean=tuple(MEAN.tolist()), std=tuple(STD.tolist()))
        assert usual.mean != theirs.mean
        back = replace(INFO, preprocessing=theirs)
        assert not_recorded(replace(INFO, preprocessing=usual), back) == []


def test_the_task_and_the_classes_are_said() -> None:
    assert not_recorded(INFO, INFO) == []
    several = replace(INFO, task="multilabel")
    assert not_recorded(several, INFO) == [
        f"{SAYS}that its outputs are those of the task multilabel: labels, by sigmoids"
    ]
    assert not_recorded(INFO, several) == [
        f"{SAYS}that its outputs are those of the task single_label: one class per image, "
        "by a softmax"
    ]
    assert not_recorded(INFO, replace(INFO, class_names=())) == [
        f"{SAYS}the classes: ant, bee, cat"
    ]


@pytest.mark.parametrize(
    ("to", "suffix"),
    [("torchvision", ".pth"), ("timm", ".pth"), ("mindcv", ".ckpt"), ("monai", ".pth")],
)
def test_a_file_that_records_nothing_is_said_to_in_everything(
    to: Target, suffix: str, tmp_path: Path
) -> None:
    unusual = Preprocessing(
        (64, 48), "72,56", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "pillow_nearest", "flip", 16, "0,40000"
    )
    torch.manual_seed(0)
    state = build("densenet121", num_classes=3).state_dict()
    info = replace(INFO, preprocessing=unusual, task="multilabel")
    save_weights(tmp_path / "w.safetensors", state, info, {})
    notes = convert(tmp_path / "w.safetensors", tmp_path / f"new{suffix}", to).notes
    expected = ["grey levels", "classes", "64 x 48", "72,56", "pillow_nearest", "depth 16"]
    expected += ["`tta` flip", "multilabel"]
    assert len(notes) == len(expected)
    assert all(word in note for word, note in zip(expected, notes, strict=True))
    # Whoever follows the notes has what the weights were trained with.
    back = read_weights(tmp_path / f"new{suffix}").info
    assert back is not None and back.task == "single_label"
    followed = back.preprocessing.changed(
        (64, 48), "72,56", "pillow_nearest", "flip", 16, "0,40000"
    )
    assert replace(followed, mean=unusual.mean, std=unusual.std) == unusual
    # A file with room for them says nothing, and reads the same.
    notes = convert(tmp_path / "w.safetensors", tmp_path / "all.safetensors", to).notes
    assert notes == ()
    assert read_weights(tmp_path / "all.safetensors").info == info


def test_one_class_per_image_in_a_file_of_torchxrayvision_is_said(tmp_path: Path) -> None:
    """Its networks are read with sigmoids."""
    torch.manual_seed(0)
    state = build("densenet121", num_classes=3, in_channels=1).state_dict()
    p = Preprocessing((224, 224), "short:224", (127.5,), (255 / 2048,), "pillow_bilinear")
    save_weights(tmp_path / "w.safetensors", state, replace(INFO, preprocessing=p), {})
    (note,) = convert(tmp_path / "w.safetensors", tmp_path / "new.pth", "torchxrayvision").notes
    assert "the task single_label: one class per image, by a softmax" in note


@pytest.mark.parametrize("to", ["torchvision", "huggingface", "native"])
def test_offsets_that_lose_their_temperatures_are_named(to: str, tmp_path: Path) -> None:
    state = build("densenet121", num_classes=3).state_dict()
    stored: dict[str, Any] = {"temperature": 31.5, "scores": [], "abstain_below": None}
    for offsets, expected in (([0.5, 0.0, -43.0], to != "native"), (None, False)):
        stored["note"] = {} if offsets is None else {"offsets": offsets}
        source, target = tmp_path / "w.safetensors", tmp_path / f"new_{offsets is None}"
        save_weights(source, state, INFO, {}, stored)
        if to == "huggingface":
            notes = write_hugging_face(source, target, lambda *_: "page").notes
        else:
            suffix = ".pth" if to == "torchvision" else ".safetensors"
            notes = convert(source, target.with_suffix(suffix), to).notes  # type: ignore[arg-type]
        said = [note for note in notes if "offsets that calibrate fitted (`fit_bias`)" in note]
        assert len(said) == expected and all("divide the logits by 31.5 first" in x for x in said)
