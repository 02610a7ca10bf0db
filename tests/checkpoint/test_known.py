"""What a person knows of weights becomes part of the file that convert writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from densenet121 import Predictor
from densenet121.checkpoint.convert import Converted, convert
from densenet121.checkpoint.hugging_face import write_hugging_face
from densenet121.checkpoint.known import Known
from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.datasets.transforms import MEAN
from densenet121.network import build
from densenet121.tasks.multi_label.calibration import Calibration
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.var_init import initialise

from helpers.weights import write_weights

NAMES = ("nevus", "melanoma", "keratosis")


def plain(path: Path, channels: int = 3) -> tuple[Path, Callable[[Tensor], Tensor]]:
    """A file of nothing but tensors, and the network whose they are."""
    model = build("densenet40", num_classes=3, in_channels=channels)
    initialise(model, torch.Generator().manual_seed(4))
    torch.save(model.state_dict(), path)
    return path, model.eval()


def names_file(folder: Path, text: str = "nevus\nmelanoma\nkeratosis\n") -> Path:
    (folder / "names.txt").write_text(text)
    return folder / "names.txt"


def written(source: Path, folder: Path, **known: Any) -> Converted:
    options: dict[str, Any] = {"net": "densenet40"} if source.suffix == ".pth" else {}
    return convert(source, folder / "new.safetensors", "native", known=Known(**known), **options)


def answers(file: Path, image: Path) -> dict[str, float]:
    """The probability of each class, by name."""
    predictor = Predictor(file, amp="fp32")
    (found,) = predictor.predict([image])
    names = getattr(found, "classes", predictor.classifier.class_names)  # by rank, or all labels
    return dict(zip(names, found.probabilities, strict=True))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize(
    ("task", "function"),
    [(None, lambda logits: logits.softmax(1)), ("multilabel", torch.sigmoid)],
)
def test_answers_are_those_of_the_network_as_it_was_trained(
    task: str | None, function: Callable[[Tensor], Tensor], image: Path, tmp_path: Path
) -> None:
    """Pixels divided by 255 and no more, of 32 x 32."""
    source, model = plain(tmp_path / "w.pth")
    known = {"image_size": (32, 32), "eval_resize": "32", "mean_std": ((0,) * 3, (255,) * 3)}
    written(source, tmp_path, class_names=names_file(tmp_path), task=task, **known)
    pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = function(model(pixels))[0].tolist()
    expected_of = dict(zip(NAMES, expected, strict=True))
    assert answers(tmp_path / "new.safetensors", image) == pytest.approx(expected_of, abs=1e-5)


def test_a_grey_network_takes_the_mean_of_three(tmp_path: Path) -> None:
    source, _ = plain(tmp_path / "w.pth", channels=1)
    written(source, tmp_path, mean_std=((90.0, 100.0, 110.0), (50.0, 60.0, 70.0)))
    info = read_weights(tmp_path / "new.safetensors").info
    assert info is not None
    assert (info.preprocessing.mean, info.preprocessing.std) == ((100.0,), (60.0,))


def test_a_size_without_a_resizing_is_in_proportion_as_in_predict(tmp_path: Path) -> None:
    source, _ = plain(tmp_path / "w.pth")
    done = written(source, tmp_path, image_size=(28, 56), interpolation="pillow_bicubic")
    preprocessing = done.info.preprocessing
    assert (preprocessing.image_size, preprocessing.eval_resize) == ((28, 56), "32,64")
    assert preprocessing.interpolation == "pillow_bicubic"


def test_each_replaced_record_is_told(tmp_path: Path) -> None:
    source = write_weights(tmp_path / "w.safetensors")
    known = {"image_size": (32, 32), "mean_std": ((9.0,) * 3, (8.0,) * 3), "task": "multilabel"}
    done = written(source, tmp_path, class_names=names_file(tmp_path), **known)
    means = ",".join(f"{level:g}" for level in MEAN.tolist())
    assert done.notes == (
        "the classes have other names than the weights record",
        "the outputs are those of the task multilabel, in place of single_label",
        "image_size is 32,32, in place of 16,16",
        "eval_resize is 37,37, in place of 20,20",
        f"mean is 9,9,9, in place of {means}",
        "std is 8,8,8, in place of 58.395,57.12,57.375",
    )
    assert read_weights(tmp_path / "new.safetensors").info == done.info


@pytest.mark.parametrize(
    ("known", "kept"), [({"class_names": True}, True), ({"image_size": (32, 32)}, False)]
)
def test_a_calibration_stays_where_the_probabilities_do(
    known: dict[str, Any], kept: bool, tmp_path: Path
) -> None:
    """Operating points are of the order of the outputs, whatever they are called."""
    measured = Calibration((2.0, 0.5, 1.5), (), "", {"offsets": [1.0, -0.5, 0.0]})
    source = write_weights(tmp_path / "w.safetensors", calibration=measured, task="multilabel")
    if "class_names" in known:
        known = {"class_names": names_file(tmp_path)}
    done = written(source, tmp_path, **known)
    stored = read_weights(tmp_path / "new.safetensors").calibration
    assert stored == (
        {**measured.to_json(), "temperatures": [2.0, 0.5, 1.5], "points": []} if kept else None
    )
    assert any("the calibration is left out" in note for note in done.notes) == (not kept)
    assert any("stay in the bias" in note for note in done.notes) == (not kept)


def test_a_hugging_face_folder_has_what_is_known(tmp_path: Path) -> None:
    model = build("densenet121", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    known = Known(class_names=names_file(tmp_path), image_size=(96, 96), task="multilabel")
    write_hugging_face(tmp_path / "w.pth", tmp_path / "hub", lambda *_: "page", known=known)
    info = read_weights(tmp_path / "hub").info
    assert info is not None
    assert (info.class_names, info.task) == (NAMES, "multilabel")
    assert info.preprocessing.image_size == (96, 96)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", r"names\.txt: has 2 names, but the network has 3 outputs; name one class on"),
        ("a\nb\na\n", r'names\.txt: "a" is the name of 2 classes; give each another name'),
    ],
)
def test_names_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    source, _ = plain(tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        written(source, tmp_path, class_names=names_file(tmp_path, text))
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("to", "suffix", "given", "message"),
    [
        ("torchvision", ".pth", "class_names", r"a \.pth file for torchvision; write .safetensors"),
        ("mindspore", ".ckpt", "image_size", r"a \.ckpt file for mindspore; write .safetensors"),
        ("torchxrayvision", ".pth", "image_size", r"a \.pth .*write .safetensors for native"),
        ("torchxrayvision", ".pth", "task", r"a \.pth .*write .safetensors for native"),
    ],
)
def test_what_a_format_cannot_record_is_refused(
    to: Any, suffix: str, given: str, message: str, tmp_path: Path
) -> None:
    known: dict[str, Any] = {"class_names": tmp_path / "names.txt", "image_size": (32, 32)}
    known["task"] = "single_label"
    with pytest.raises(UsageError, match=f"`{given}` cannot be recorded in {message}"):
        convert(tmp_path / "w", tmp_path / f"new{suffix}", to, known=Known(**{given: known[given]}))


def test_contradictions_are_refused(tmp_path: Path) -> None:
    source = write_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"eval_resize"):
        written(source, tmp_path, image_size=(64, 64), eval_resize="32")
    own = write_weights(tmp_path / "own.safetensors", task="ordinal")
    with pytest.raises(UsageError, match="is of the task ordinal, not multilabel; omit `task`"):
        written(own, tmp_path, task="multilabel")
    model = build("densenet40", num_classes=1)
    torch.save(model.state_dict(), tmp_path / "one.pth")
    with pytest.raises(InputError, match="one class per image, but its network has one output"):
        written(tmp_path / "one.pth", tmp_path, task="single_label")


def test_the_command_records_what_its_flags_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = plain(tmp_path / "w.pth")
    flags = ["--net", "densenet40", "--class_names", str(names_file(tmp_path))]
    flags += ["--image_size", "32", "--normalisation", "0,255", "--task", "multilabel"]
    target = tmp_path / "new.safetensors"
    assert main(["convert", str(source), str(target), "--to", "native", *flags]) == 0
    info = read_weights(target).info
    assert info is not None
    assert (info.class_names, info.task) == (NAMES, "multilabel")
    assert (info.preprocessing.mean, info.preprocessing.std) == ((0.0,) * 3, (255.0,) * 3)
    assert (info.preprocessing.image_size, info.preprocessing.depth) == ((32, 32), 8)
    said = capsys.readouterr().out
    assert "note: mean is 0,0,0, in place of 125.307,122.961,113.858" in said
    flags[flags.index("0,255")] = "data"
    assert main(["convert", str(source), str(target), "--to", "native", *flags]) == 2
    assert 'as "M,S" or "M,M,M,S,S,S", got data' in capsys.readouterr().err
