"""What weights record of their images may lack anything."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densenet121.card import run_card
from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import folder_digest, save_weights
from densenet121.cli import main
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.open import open_evaluation
from densenet121.engine.eval_weights import splits_of

from helpers.images import write_classes
from helpers.weights import write_weights

ONE = np.zeros(1, np.int64)
IMAGES = ImageDataset(Path("images"), ("ant",), ["a.png"], ONE, ONE)


@pytest.mark.parametrize("lacks", ["pictures", "fingerprint", "folder"])
def test_a_note_that_lacks_something_is_of_other_images(lacks: str) -> None:
    note: dict[str, Any] = {"pictures": 1, "fingerprint": IMAGES.fingerprint, "folder": "x"}
    assert splits_of({"val": note}, IMAGES) == ["val"]
    del note[lacks]
    assert splits_of({"val": note}, IMAGES) == (["val"] if lacks == "folder" else [])


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_label_of_two_classes_is_noticed_on_the_images_of_its_training(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eval said that the images had changed, and the card that they were others."""
    write_classes(tmp_path, ["ill", "normal"], 12)
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in sorted(tmp_path.rglob("*.png"))]
    images = tmp_path / "list.csv"
    images.write_text("\n".join(["path,label", *rows[::-1]]) + "\n")
    seen = open_evaluation(images)
    note = {"pictures": 24, "fingerprint": seen.fingerprint, "folder": folder_digest(str(images))}
    two = read_weights(write_weights(tmp_path / "w.safetensors", class_names=("ill", "normal")))
    assert two.info is not None
    source, one = tmp_path / "two.safetensors", tmp_path / "one.safetensors"
    save_weights(source, two.state_dict, two.info, {}, data={split: note})
    convert(source, one, "native", positive_class="normal")
    flags = ["--data_dir", str(images), "--label_column", "label", "--negative_label", "ill"]
    calibrated, folder = tmp_path / "calibrated.safetensors", tmp_path / "eval"
    known = ["--pretrained", str(one), "--output", str(calibrated)]
    assert main(["calibrate", *flags, *known]) == 0
    told = {"train": "weights were trained on these same", "val": "validated on these same images"}
    assert told[split] in capsys.readouterr().err
    known = ["--pretrained", str(calibrated), "--output_dir", str(folder)]
    assert main(["eval", *flags, *known]) == 0
    log = capsys.readouterr().out
    assert told[split] in log and "changed" not in log
    text = run_card(folder)
    assert "these are not the images" not in text and "held-out" not in text
    assert ("weights were trained on" in text) == (split == "train")
    # Other labels of the same images are others.
    images.write_text(images.read_text().replace("normal\n", "ill\n", 1))
    assert main(["eval", *flags, "--pretrained", str(one), "--log_path", str(tmp_path)]) == 0
    assert f"the {split} data changed since" in capsys.readouterr().out
