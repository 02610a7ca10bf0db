"""The audit of images with several labels: counts, copies with other labels, patients."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from densenet121.cli import main

TRAIN = {"a": (1, 0, "", 1), "b": (0, 0, 1, 1), "c": (1, 0, 0, 2), "d": (0, 0, 1, 3)}
VAL = {"e": (1, 1, 0, 3), "f": (0, 0, 1, 4), "g": (0, 0, 1, 5)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    for split, rows in (("train", TRAIN), ("val", VAL)):
        folder = tmp_path / split
        folder.mkdir()
        lines = ["path,x,y,z,patient"]
        for name, cells in rows.items():
            pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{name}.png"), pixels)
            lines.append(f"{name}.png," + ",".join(map(str, cells)))
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


FLAGS = ["--task", "multilabel", "--labels", "x,y,z", "--missing", "ignore"]


def findings(images: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[tuple[str, str]]:
    main(["audit", str(images), *FLAGS, "--json", *more])
    found = json.loads(capsys.readouterr().out)["findings"]
    return [(one["kind"], f"{one['split']}/{one['path']}: {one['detail']}") for one in found]


def test_labels_are_counted_with_those_that_are_not_known(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["audit", str(images), *FLAGS, "--json"])
    train = json.loads(capsys.readouterr().out)["splits"]["train"]
    assert train["labels"]["x"] == {"positive": 2, "negative": 2, "unknown": 0}
    assert train["labels"]["z"] == {"positive": 2, "negative": 1, "unknown": 1}
    assert train["both_positive"] == [[2, 0, 0], [0, 0, 0], [0, 0, 2]]


def test_a_label_that_is_never_positive_is_a_fault(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert findings(images, capsys) == [("one_kind", "train/y: no image is positive")]
    assert main(["audit", str(images), *FLAGS]) == 1
    assert "y  0 positive, 4 negative, 0 unknown" in capsys.readouterr().out


def test_equal_images_with_other_labels_and_in_both_splits_are_found(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(images / "train" / "a.png", images / "val" / "e.png")
    kinds = [kind for kind, _ in findings(images, capsys)]
    assert kinds == ["train_and_val", "two_classes", "one_kind"]


def test_patients_in_both_splits_are_named(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dict(findings(images, capsys, "--group", "patient"))
    assert found["group_in_both"] == "val/e.png: 3: 1 images in val, 1 in train"


def test_a_table_without_the_task_is_named(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(images)]) == 2
    assert "is a table of labels; pass --task multilabel" in capsys.readouterr().err
