"""The split command: lists that train reads, no group in two of them, one line for wrong input."""

import csv
import json
from pathlib import Path

import pytest

from densenet121.cli import main
from densenet121.datasets.sources.lists import read_list
from densenet121.datasets.sources.open import open_training

from helpers.commands import SHARED
from helpers.images import write_classes

NIH = SHARED / "data" / "nih-chest" / "train" / "labels.csv"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """120 images of 40 patients in a file with several findings an image; classes by grade."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = ["path,findings,grade,patient,Edema"]
    for number in range(120):
        path = f"images/p{number // 3:02d}_{number % 3}.png"
        (folder / path).write_bytes(b"x")
        findings = ["none", "Mass", "Mass|Edema", "Edema"][number % 4]
        rows.append(f"{path},{findings},{number % 3},{number // 3},{int(number % 4 > 1)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


MULTI = ["--label_column", "findings", "--label_separator", "|", "--negative_label", "none"]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def split(*arguments: object) -> None:
    assert main(["split", *map(str, arguments)]) == 0


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    assert main(["split", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_every_image_is_in_one_list_and_every_patient_too(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    split(table, *MULTI, "--group", "patient", "--test", 0.2, "--val", 0.2, "--output", out)
    lists = {name: rows_of(out / f"{name}.csv") for name in ("train", "val", "test")}
    assert sum(map(len, lists.values())) == 120
    assert len({row["path"] for rows in lists.values() for row in rows}) == 120
    patients = [{row["patient"] for row in rows} for rows in lists.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 40
    before = {Path(row["path"]).name: row for row in rows_of(table)}
    for row in (row for rows in lists.values() for row in rows):
        assert (out / row["path"]).read_bytes() == b"x"
        old = before[Path(row["path"]).name]
        assert {**row, "path": ""} == {**old, "path": ""}
    assert not (out / "classes.txt").exists()
    found = json.loads((out / "split.json").read_text())
    assert found["parts"]["val"]["images"] == len(lists["val"])
    edema = sum("Edema" in row["findings"] for row in lists["val"])
    assert found["parts"]["val"]["labels"]["Edema"] == edema
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["test", "val", "train"]
    assert "seed 1; lists are in" in printed


def test_each_image_is_validated_in_one_fold(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    split(table, "--label_column", "grade", "--group", "patient", "--folds", 4, "--output", out)
    held = []
    for fold in range(4):
        train, val = (rows_of(out / f"fold_{fold}" / f"{part}.csv") for part in ("train", "val"))
        assert len(train) + len(val) == 120
        assert not {row["patient"] for row in train} & {row["patient"] for row in val}
        held += [row["path"] for row in val]
        datasets = open_training(out / f"fold_{fold}/train.csv", out / f"fold_{fold}/val.csv")
        assert datasets[0].class_names == ("0", "1", "2")
    assert len(held) == len(set(held)) == 120


def test_train_reads_the_lists_of_a_folder(image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    split(image_folder / "val", "--val", 0.4, "--output", out)
    train, val = open_training(out / "train.csv", out / "val.csv")
    assert val is not None and len(train) + len(val) == 21
    assert train.class_names == val.class_names == ("ant", "bee", "cat")
    for dataset in (train, val):
        for index, path in enumerate(dataset.paths):
            assert Path(path).parent.name == dataset.class_names[dataset.labels[index]]
            assert dataset.read(index)


def test_added_images_do_not_move_old_ones(table: Path, tmp_path: Path) -> None:
    flags = [table, *MULTI, "--group", "patient"]
    split(*flags, "--stratify", "--output", tmp_path / "a")
    seed = json.loads((tmp_path / "a" / "split.json").read_text())["seed"]
    assert 1000 <= seed < 2000
    for number in range(30):
        (table.parent / f"images/new{number}.png").write_bytes(b"x")
    more = [f"images/new{n}.png,Mass,0,{n + 30},0\n" for n in range(30)]  # 10 patients are old
    table.write_text(table.read_text() + "".join(more))
    split(*flags, "--seed", seed, "--output", tmp_path / "b")
    for part in ("train", "val"):
        before = {row["path"] for row in rows_of(tmp_path / "a" / f"{part}.csv")}
        after = {row["path"] for row in rows_of(tmp_path / "b" / f"{part}.csv")}
        assert before <= after


def test_a_class_whose_name_no_line_can_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lists of the folders "cat" and "cat " could not be read."""
    write_classes(tmp_path / "images", ["cat", "cat ", "dog"], 6)
    command = ["split", str(tmp_path / "images"), "--val", "0.3"]
    assert main([*command, "--output", str(tmp_path / "lists")]) == 1
    assert "the class 'cat ' begins or ends with a blank" in capsys.readouterr().err
    assert not (tmp_path / "lists").exists()


def test_lines_that_are_no_images_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path, ["a", "b"], 6)
    lines = [f"{name}/{n:03d}.png {name}" for name in "ab" for n in range(6)]
    (tmp_path / "list.txt").write_text("\n".join(["# by hand", *lines]))
    command = ["split", str(tmp_path / "list.txt"), "--val", "0.3"]
    assert main([*command, "--output", str(tmp_path / "lists")]) == 0
    assert "list.txt: 1 lines that begin with # are comments" in capsys.readouterr().err


def test_groups_are_found_in_paths(table: Path, tmp_path: Path) -> None:
    by_column, by_path = tmp_path / "a", tmp_path / "b"
    split(table, "--label_column", "grade", "--group", r"/p(\d+)_", "--output", by_path)
    patients = [{row["patient"] for row in rows_of(by_path / f"{p}.csv")} for p in ("train", "val")]
    assert not patients[0] & patients[1]
    split(table, "--labels", "Edema", "--group", "patient", "--output", by_column)
    found = json.loads((by_column / "split.json").read_text())
    assert found["groups"] == 40 and list(found["parts"]["val"]["labels"]) == ["Edema"]


def test_a_number_in_paths_that_is_written_in_two_ways_is_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table.parent / "images/p5_9.png").write_bytes(b"x")
    table.write_text(table.read_text() + "images/p5_9.png,Mass,0,5,0\n")
    flags = ["--label_column", "grade", "--output", tmp_path / "a", "--group"]
    said = refusal(capsys, table, *flags, r"/p(\d+)_")
    assert "--group /p(\\d+)_: 05 and 5 are one number; write ids in one way" in said
    split(table, *flags, r"/p0*(\d+)_")  # the parentheses leave the zeros out
    assert json.loads((tmp_path / "a" / "split.json").read_text())["groups"] == 40


def test_a_split_is_the_same_again_and_differs_by_seed(table: Path, tmp_path: Path) -> None:
    flags = [table, *MULTI, "--group", "patient"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split(*flags, "--seed", seed, "--output", tmp_path / name)
    lists = [(tmp_path / name / "val.csv").read_text() for name in "abc"]
    assert lists[0] == lists[1] != lists[2]


def test_other_names_of_columns_become_those_that_train_reads(table: Path, tmp_path: Path) -> None:
    text = table.read_text().replace("path,findings,grade", "Image Index,findings,severity")
    table.write_text(text)
    flags = ["--path_column", "Image Index", "--label_column", "severity"]
    split(table, *flags, "--output", tmp_path / "out")
    assert len(read_list(tmp_path / "out" / "train.csv", "train")) > 60


@pytest.mark.skipif(not NIH.exists(), reason="needs the chest X-rays in ../shared/data/nih-chest")
def test_patients_of_nih_stay_together_and_labels_are_balanced(tmp_path: Path) -> None:
    flags = [NIH, "--group", "Patient ID", "--label_column", "Finding Labels"]
    flags += ["--label_separator", "|", "--negative_label", "No Finding", "--folds", 5]
    split(*flags, "--output", tmp_path / "a")
    split(*flags, "--stratify", "--output", tmp_path / "b")
    off = []
    for name in "ab":
        found = json.loads((tmp_path / name / "split.json").read_text())
        labels = [part["labels"] for part in found["parts"].values()]
        total = {label: sum(part[label] for part in labels) for label in labels[0]}
        off.append(sum((p[x] - n / 5) ** 2 * 5 / n for p in labels for x, n in total.items()))
        patients = [
            {row["Patient ID"] for row in rows_of(tmp_path / name / f"fold_{fold}" / "val.csv")}
            for fold in range(5)
        ]
        assert sum(map(len, patients)) == len(set.union(*patients)) == found["groups"]
    assert off[1] < 0.7 * off[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("p01_0.png,Edema,0,1,1", "p01_0.png,Edema,0,,1", "column patient (--group) is blank for"),
        (",1,1\nimages/p01_1", ",1.0,1\nimages/p01_1", "--group patient: 1 and 1.0 are one number"),
        (
            "images/p01_1.png",
            "images/p01_0.png",
            "column path: images/p01_0.png is already in line 5",
        ),
        (
            "images/p01_1.png",
            "images/./p01_0.png",
            "column path: images/./p01_0.png is already in line 5",
        ),
        ("images/p01_1.png", "images/gone.png", "gone.png: No such file"),
        ("patient", "id", "--group patient is no column and finds no id in images/p00_0.png"),
        (",grade,", ",label,", "has another column called label; rename it"),
        ("path,", "file,", "no column named path (--path_column); it has file, findings"),
    ],
)
def test_wrong_tables_are_one_line(
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    flags = ["--group", "patient", "--label_column", "Edema", "--path_column", "path"]
    assert message in refusal(capsys, table, *flags, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ([], 1, "has no column called label; name the labels by --label_column or --labels"),
        ([*MULTI, "--group", "findings", "--folds", "9"], 1, "would have none of the 4 groups"),
        (["--val", "0.2", "--folds", "5"], 2, "--val makes one split, --folds several; give one"),
        (["--val", "0.6", "--test", "0.4"], 2, "leave nothing to train on"),
        (["--val", "1"], 2, "--val must be above 0 and below 1, got 1.0"),
        (["--folds", "1"], 2, "--folds must be at least 2 folds, got 1"),
        (["--folds", "100001"], 2, "--folds must be at least 2 and at most 100000, got 100001"),
        (["--label_column", "findings"], 2, '"Mass|Edema" looks like several labels; pass --label'),
        (
            ["--missing", "0"],
            2,
            "--missing is for several labels per image, but each image has one",
        ),
        (
            ["--label_column", "grade", "--missing", "ignore"],
            2,
            "--missing is for several labels per image",
        ),
        (["--uncertain", "1"], 2, "--uncertain is for several labels per image"),
        (["--negative_label", "y"], 2, "--negative_label goes with --label_column"),
    ],
)
def test_wrong_settings_are_one_line(
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    status: int,
    message: str,
) -> None:
    found = refusal(capsys, table, *flags, "--output", tmp_path / "out", status=status)
    assert message in found


@pytest.mark.parametrize("output", ["lists", "far/lists"])
def test_lists_find_images_beside_the_folder_that_a_link_means(output: str, tmp_path: Path) -> None:
    """``link/../imgs/0.png`` lies beside the folder ``far/im``, not beside the link."""
    for folder in ("data/imgs", "far/im", "far/imgs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/link").symlink_to(tmp_path / "far/im")
    rows = ["path,label"]
    for number in range(20):
        (tmp_path / f"far/imgs/{number}.png").write_bytes(b"x%d" % number)
        rows.append(f"link/../imgs/{number}.png,{number % 2}")
    (tmp_path / "data/imgs/x.png").write_bytes(b"other")
    rows.append("imgs/../imgs/x.png,1")  # no link, so in one spelling
    (tmp_path / "data/all.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / output
    split(tmp_path / "data/all.csv", "--output", out)
    found = [read_list(out / f"{part}.csv", "train", partial=True) for part in ("train", "val")]
    read = {part.read(index) for part in found for index in range(len(part))}
    assert read == {b"other", *(b"x%d" % number for number in range(20))}
    paths = [path for part in found for path in part.paths]
    assert sum(path.endswith("data/imgs/x.png") for path in paths) == 1


@pytest.mark.parametrize("flags", [[], ["--label_column", "class"]])
def test_two_columns_of_classes_are_refused_as_training_refuses_them(
    flags: list[str], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(table.read_text().replace("grade,patient", "class,target"))
    out = [*flags, "--output", tmp_path / "out"]
    said = refusal(capsys, table, *out)
    assert "target" in said and "rename" in said
    table.write_text(table.read_text().replace("class,target", "class,patient"))
    split(table, *out)
    assert len(rows_of(tmp_path / "out/train.csv")[0]) == 6
    open_training(tmp_path / "out/train.csv", tmp_path / "out/val.csv")


def test_what_cannot_be_split_is_refused(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", tmp_path / "out"]
    for part in (image_folder, image_folder / "train"):
        said = refusal(capsys, part, *out)
        assert f": {image_folder}: is split already into train and val; to divide" in said
        assert "into one folder, or pass one list of paths and classes" in said
    val = image_folder / "val"
    assert "so --label_column means" in refusal(capsys, val, "--label_column", "a", *out)
    full = refusal(capsys, val, "--output", image_folder, status=2)
    assert "already exists; choose a new folder" in full
    within = refusal(capsys, val, "--output", val / "lists", status=2)
    assert f"--output {val / 'lists'} is among the class folders of {val}" in within
    assert not (val / "lists").exists()


@pytest.mark.parametrize("flags", [MULTI, ["--label_column", "grade"]])
def test_images_that_a_column_splits_already_are_not_split_again(
    flags: list[str], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},Split", *(f"{line},test" for line in lines[1:])]))
    said = refusal(capsys, table, *flags, "--val", 0.2, "--output", tmp_path / "out")
    assert "is split already, by its column Split, which train and eval obey" in said
