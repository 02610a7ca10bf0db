"""Images that a file names are left out of the side that its line names, from any source."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from densenet121.audit.audit import audit
from densenet121.config import AuditConfig, StudyConfig
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
)
from densenet121.engine.folds import study_images
from densenet121.utils.errors import UsageError


def draw(file: Path, seed: int) -> None:
    """An image like no other."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    cv2.imwrite(str(file), cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC))


def listed(file: Path, paths: str) -> Path:
    """A list, also a table of one label, of images that are drawn beside it if they are not."""
    lines = ["path,label" if file.suffix == ".csv" and "labels" not in file.name else "path,sick"]
    for number, path in enumerate(paths.split()):
        name = "ab"[number % 2] if "label" in lines[0] else str(number % 2)
        lines.append(f"{path},{name}")
        if not (file.parent / path).exists():
            draw(file.parent / path, zlib.crc32(str(file.parent / path).encode()))
    file.write_text("\n".join(lines) + "\n")
    return file


def excluding(folder: Path, *lines: str) -> Path:
    (folder / "bad.txt").write_text("\n".join(lines) + "\n")
    return folder / "bad.txt"


def test_the_list_of_an_audit_leaves_validation_whole_and_eval_reads_it(tmp_path: Path) -> None:
    """Two lists of one folder share images: train loses them, val keeps them."""
    train = listed(tmp_path / "train.csv", "0.png 1.png 2.png 3.png 6.png 7.png")
    val = listed(tmp_path / "val.csv", "6.png 7.png 8.png 9.png")
    bad = tmp_path / "bad.txt"
    audit(AuditConfig(source=str(train), val_dir=str(val), exclude_list=str(bad)))
    assert bad.read_text().splitlines() == ["train/6.png", "train/7.png"]
    kept, validation = open_training(train, val, exclude=bad)
    assert validation is not None
    assert list(kept.paths) == ["0.png", "1.png", "2.png", "3.png"]
    assert list(validation.paths) == ["6.png", "7.png", "8.png", "9.png"]
    evaluated = open_evaluation(val, exclude=bad)
    assert list(evaluated.paths) == list(validation.paths)
    assert evaluated.notes[-1].endswith(
        "bad.txt: lines of a side that is not read here, and passed over: train/6.png and 1 more"
    )
    found = audit(AuditConfig(source=str(train), val_dir=str(val)))
    assert found.excluded == ("train/6.png", "train/7.png")  # the files are as they were


def test_folders_of_one_name_on_both_sides_are_told_apart(tmp_path: Path) -> None:
    for seed, path in enumerate(("a/0.png", "a/1.png", "b/0.png", "b/1.png")):
        draw(tmp_path / "train" / path, seed)
        draw(tmp_path / "val" / path, 100 + seed)
    bad = excluding(tmp_path, "train/a/0.png", "val/b/1.png")
    train, val = open_training(tmp_path, exclude=bad)
    assert val is not None
    assert list(train.paths) == ["a/1.png", "b/0.png", "b/1.png"]
    assert list(val.paths) == ["a/0.png", "a/1.png", "b/0.png"]
    assert list(open_evaluation(tmp_path, exclude=bad).paths) == list(val.paths)
    # Lines without a side are of both, as in lists that were written before.
    train, val = open_training(tmp_path, exclude=excluding(tmp_path, "a/0.png"))
    assert val is not None
    assert len(train) == len(val) == 3
    with pytest.raises(UsageError, match=r"there is no image val/a/9.png"):
        open_training(tmp_path, exclude=excluding(tmp_path, "val/a/9.png"))


def test_tables_of_labels_lose_images_of_the_side_that_is_named(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        listed(tmp_path / split / "labels.csv", "0.png 1.png 2.png 3.png")
    bad = excluding(tmp_path, "train/0.png", "val/3.png")
    train, val = open_labelled_training(tmp_path, None, LabelRules(), bad)
    assert val is not None
    assert list(train.paths) == ["1.png", "2.png", "3.png"]
    assert list(val.paths) == ["0.png", "1.png", "2.png"]
    found = open_labelled_evaluation(tmp_path, LabelRules(), bad)
    assert list(found.paths) == ["0.png", "1.png", "2.png"]


def test_a_path_that_begins_with_a_side_is_one_image_or_refused(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.csv", "train/0.png train/1.png train/2.png")
    val = listed(tmp_path / "val.csv", "val/0.png val/1.png train/3.png")
    for line in ("train/0.png", "train/train/0.png"):  # as before, and as an audit writes it
        kept, whole = open_training(train, val, exclude=excluding(tmp_path, line))
        assert whole is not None
        assert list(kept.paths) == ["train/1.png", "train/2.png"] and len(whole) == 3
    kept, less = open_training(train, val, exclude=excluding(tmp_path, "train/3.png"))
    assert less is not None
    assert len(kept) == 3 and list(less.paths) == ["val/0.png", "val/1.png"]
    train = listed(tmp_path / "train.csv", "train/0.png 0.png 1.png 2.png train/1.png")
    bad = excluding(tmp_path, "train/0.png")
    with pytest.raises(UsageError, match=r"train/0.png may be 0.png or train/0.png, and both are"):
        open_training(train, val, exclude=bad)
    kept, _ = open_training(train, val, exclude=excluding(tmp_path, "train/train/0.png"))
    assert list(kept.paths) == ["0.png", "1.png", "2.png", "train/1.png"]


def test_an_audit_without_validation_writes_paths_alone(tmp_path: Path) -> None:
    """So that the list fits whatever reads these images: train, eval or study."""
    file = listed(tmp_path / "all.csv", "0.png 1.png 2.png 3.png")
    draw(tmp_path / "2.png", 5)
    draw(tmp_path / "3.png", 5)
    bad = tmp_path / "bad.txt"
    audit(AuditConfig(source=str(file), exclude_list=str(bad)))
    assert bad.read_text() == "3.png\n"
    for found in (open_evaluation(file, exclude=bad), open_training(file, exclude=bad)[0]):
        assert list(found.paths) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("line", ["1.png", "train/1.png", "val/1.png"])
def test_a_study_leaves_an_image_out_whichever_side_a_line_names(line: str, tmp_path: Path) -> None:
    """It divides all images anew."""
    file = listed(tmp_path / "all.csv", "0.png 1.png 2.png 3.png")
    bad = excluding(tmp_path, line)
    config = StudyConfig(data_dir=str(file), exclude=str(bad), run_dir=str(tmp_path / "run"))
    assert list(study_images(config).paths) == ["0.png", "2.png", "3.png"]
