"""The settings of a list reach it, whichever command opens the images."""

from pathlib import Path
from typing import Any

import pytest

from densenet121.config import EvalConfig, StudyConfig, TrainConfig
from densenet121.datasets.division import divide
from densenet121.engine.folds import folds_of, run_settings, study_images
from densenet121.engine.images import find_datasets, open_images
from densenet121.utils.errors import UsageError

SETTINGS: dict[str, Any] = {"path_column": "id", "label_column": "dx"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ids of images in another folder, with the class in a column of another name."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(8):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"image %d" % number)
        rows.append(f"{number // 2},{number},{'ab'[number % 2]},{number % 2},{1 - number % 2}\n")
    (tmp_path / "tables").mkdir()
    file = tmp_path / "tables" / "t.csv"
    file.write_text("patient,id,dx,A,B\n" + "".join(rows))
    return file


def test_training_and_evaluation_read_the_columns_that_are_named(table: Path) -> None:
    folder = str(table.parent.parent / "images")
    train, _ = find_datasets(TrainConfig(data_dir=str(table), image_dir=folder, **SETTINGS))
    config = EvalConfig(data_dir=str(table), pretrained="w", image_dir=folder, **SETTINGS)
    evaluated = open_images(config, "single_label", ("a", "b"))
    for found in (train, evaluated):
        assert found.paths == [f"{number}.png" for number in range(8)]
        assert (found.class_names, found.labels.tolist()) == (("a", "b"), [0, 1] * 4)
        assert found.read(5) == b"image 5"
    assert evaluated.columns["patient"] == list("00112233")


def test_a_column_for_each_class_is_read(table: Path) -> None:
    folder = str(table.parent.parent / "images")
    config = TrainConfig(data_dir=str(table), image_dir=folder, path_column="id", labels="A,B")
    found, _ = find_datasets(config)
    assert (found.class_names, found.labels.tolist()) == (("A", "B"), [1, 0] * 4)


@pytest.mark.parametrize("named", [{"label_column": "dx"}, {"labels": "A,B"}])
def test_the_runs_of_a_study_read_its_lists_without_the_settings(
    named: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    """A study that was begun before there were such settings has runs without them, too."""
    config = StudyConfig(
        data_dir=str(table),
        run_dir=str(tmp_path / "study"),
        image_dir=str(table.parent.parent / "images"),
        path_column="id",
        group="patient",
        folds=2,
        **named,
    )
    images = study_images(config)
    assert (
        folds_of(images, config).groups
        == divide(images, config.parts, group="patient", stratify=False, seed=1).groups
    )
    run = run_settings(config, images, tmp_path / "fold_0", tmp_path / "run", 1)
    own = (run.path_column, run.label_column, run.labels, run.image_dir)
    assert own == (None, None, None, None)


def test_settings_of_several_labels_are_refused_with_one_class(table: Path) -> None:
    with pytest.raises(UsageError, match="need --task multilabel"):
        TrainConfig(data_dir=str(table), missing="0")
    config = EvalConfig(data_dir=str(table), pretrained="w", missing="0")
    with pytest.raises(UsageError, match="are for the task multilabel, but the weights are of si"):
        open_images(config, "single_label", ("a", "b"))
