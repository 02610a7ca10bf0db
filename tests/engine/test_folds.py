"""The lists of the folds give every run the labels of the whole table, however it is written."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densenet121.config import StudyConfig
from densenet121.datasets.division import lists_of
from densenet121.engine.folds import data_digest, folds_of, run_settings, study_images
from densenet121.engine.images import find_datasets
from densenet121.runs.study import StudyFolder

FORMS: dict[str, dict[str, Any]] = {
    "a column a label": {"missing": "ignore", "uncertain": "1", "path_column": "Image Index"},
    "one column": {
        "label_column": "findings", "label_separator": "|", "negative_label": "none",
        "path_column": "Image Index",
    },
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """60 images of 20 patients; a column looks like labels but for one cell."""
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Image Index", "image", "Mass", "Edema", "code", "findings", "patient"])
        for i in range(60):
            name = f"{i}.png"
            (tmp_path / "data" / name).write_bytes(b"x" * (i + 1))
            mass, edema = ["1", "0", "", "-1"][i % 4], "01"[i % 3 == 1]
            findings = "|".join(w for w, on in (("Mass", i % 4 == 0), ("Edema", i % 3 == 1)) if on)
            code = "x" if i == 7 else "01"[i % 2]
            rows.writerow([name, f"scan {i}", mass, edema, code, findings or "none", i // 3])
    return tmp_path / "data" / "labels.csv"


def config(table: Path, **flags: Any) -> StudyConfig:
    folder = table.parents[1] / "study"
    given: dict[str, Any] = {"folds": 4, "group": "patient", "task": "multilabel"}
    given |= {"stratify": True} | flags
    return StudyConfig(data_dir=str(table), run_dir=str(folder), **given)


@pytest.mark.parametrize("form", FORMS)
def test_every_run_has_the_labels_of_the_whole_table(form: str, table: Path) -> None:
    study = config(table, **FORMS[form])
    images = study_images(study)
    assert set(images.names) == {"Mass", "Edema"}
    division, folder = folds_of(images, study), StudyFolder(Path(study.run_dir))
    folder.begin(resume=False)
    folder.write_start({}, lists_of(images, division, folder.path / "folds"))
    seen = []
    for fold in range(4):
        settings = run_settings(study, images, folder.lists(fold), folder.run(fold, 1), 1)
        train, val = find_datasets(settings)
        assert val is not None
        assert train.class_names == val.class_names == tuple(images.names)
        inside = np.flatnonzero(division.part == fold)
        for dataset, chosen in ((val, inside), (train, np.flatnonzero(division.part != fold))):
            assert [Path(path).name for path in dataset.paths] == [
                images.paths[at] for at in chosen.tolist()
            ]
            assert np.array_equal(dataset.labels, images.labels[chosen], equal_nan=True)
            assert [len(dataset.read(at)) for at in range(len(dataset))] == (chosen + 1).tolist()
        seen += inside.tolist()
    assert sorted(seen) == list(range(60))


def test_the_digest_changes_with_anything_but_the_place(table: Path, tmp_path: Path) -> None:
    study = config(table, **FORMS["one column"])
    images = study_images(study)
    before = data_digest(images, folds_of(images, study))
    text = table.read_text()
    for old, new in (("30.png,scan 30", "30.png,scan x"), (",none,19", ",none,18")):
        assert old in text
        table.write_text(text.replace(old, new))
        changed = study_images(study)
        assert data_digest(changed, folds_of(changed, study)) != before
    table.write_text(text)
    (table.parent / "5.png").write_bytes(b"x" * 99)
    assert data_digest(images, folds_of(images, study)) != before
    (table.parent / "5.png").write_bytes(b"x" * 6)
    table.parent.rename(tmp_path / "elsewhere")
    moved = config(tmp_path / "elsewhere" / "labels.csv", **FORMS["one column"])
    images = study_images(moved)
    assert data_digest(images, folds_of(images, moved)) == before


def test_a_column_that_one_cell_keeps_from_being_a_label_is_known(table: Path) -> None:
    images = study_images(config(table, **FORMS["a column a label"]))
    (note,) = images.notes
    assert f'{table}, line 9, column code: "x" is not 1, 0, -1, blank' in note
