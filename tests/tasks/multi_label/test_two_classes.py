"""Two classes as one label: what ``calibrate`` says to do for an operating point works."""

from pathlib import Path

import pytest

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.inference.predictor import Predictor
from densenet121.tasks.single_label.calibrate import no_operating_point

from helpers.images import write_classes
from helpers.weights import write_weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("two"), ["ill", "normal"], 40)


def test_the_way_that_the_message_names_leads_to_a_threshold(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "lists"
    assert main(["split", str(folders), "--val", "0.5", "--output", str(lists)]) == 0
    two = write_weights(tmp_path / "two.safetensors", class_names=("ill", "normal"))
    one, calibrated = tmp_path / "one.safetensors", tmp_path / "calibrated.safetensors"
    assert main(["convert", str(two), str(one), "--to", "native", "--positive_class", "ill"]) == 0
    assert "note: ill is the only label, and normal its absence" in capsys.readouterr().out
    own = ["--label_column", "label", "--negative_label", "normal"]
    words = ["calibrate", "--pretrained", str(one), "--data_dir", str(lists / "val.csv"), *own]
    words += ["--operating_point", "sensitivity=0.9", "--output", str(calibrated)]
    assert main(words) == 0
    images = sorted(folders.rglob("*.png"))[::9]
    before, after = Predictor(two).predict(images, top_k=2), Predictor(one).predict(images)
    for two_classes, label in zip(before, after, strict=True):
        share = dict(zip(two_classes.classes, two_classes.probabilities, strict=True))["ill"]
        assert label.probabilities == (pytest.approx(share, abs=1e-6),)
    decided = Predictor(calibrated).predict(images)
    assert all(answer.positive in ((), ("ill",)) for answer in decided)


def test_a_training_with_one_label_leads_to_a_threshold(folders: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    assert main(["split", str(folders), "--val", "0.5", "--output", str(lists)]) == 0
    own = ["--label_column", "label", "--negative_label", "normal"]
    train = ["train", "--task", "multilabel", "--data_dir", str(lists / "train.csv"), *own]
    train += ["--val_dir", str(lists / "val.csv"), "--output_dir", str(tmp_path / "run")]
    train += ["--net", "densenet40", "--image_size", "16", "--max_epoch", "1", "--lr", "0.05"]
    assert main([*train, "--per_batch_size", "10"]) == 0
    weights, held_out = tmp_path / "run" / "last.safetensors", str(lists / "val.csv")
    calibrated = tmp_path / "calibrated.safetensors"
    words = ["calibrate", "--pretrained", str(weights), "--data_dir", held_out, *own]
    words += ["--operating_point", "youden", "--output", str(calibrated)]
    assert main(words) == 0
    info = read_weights(calibrated).info
    assert info is not None and info.class_names == ("ill",)
    (answer,) = Predictor(calibrated).predict([next(folders.rglob("*.png"))])
    assert answer.labels == ("ill",) and answer.positive in ((), ("ill",))


def test_one_class_per_image_says_why_it_has_no_threshold(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    words = ["calibrate", "--pretrained", str(weights), "--data_dir", str(image_folder)]
    assert main([*words, "--operating_point", "youden"]) == 2
    error = capsys.readouterr().err
    assert "the answer of single_label is the most probable class" in error
    assert error.endswith("eval counts too: pass --target_accuracy\n") and error.count("\n") == 1
    two = no_operating_point(("ill", "normal"))
    assert "densenet121 convert with `positive_class` ill or normal" in two
    assert "`label_column` and the other class as `negative_label`; or pass" in two
