"""Tables of several labels: read as they are meant, or refused with what to pass."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.datasets.division import images_with_class
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.label_table import LabelRules, read_label_table
from densenet121.datasets.sources.lists import read_list
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
    refuse_label_table,
)
from densenet121.utils.errors import InputError, UsageError

WIDE = """path,Age,Edema,Mass,Patient ID,Note
a.png,61,1,0,1,x
b.png,7,no,TRUE,0,y
c.png,1,0.0,1.0,1,
"""


ONE: dict[str, Any] = {"label_column": "L", "separator": "|"}


def table(folder: Path, text: str, images: str = "abc", name: str = "labels.csv") -> Path:
    folder.mkdir(exist_ok=True)
    for image in images:
        (folder / f"{image}.png").write_bytes(b"image")
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(file: Path, **rules: Any) -> ImageDataset:
    return read_label_table(file, LabelRules(**rules))


def test_columns_of_nothing_but_labels_are_the_labels_and_numbers_of_patients_never(
    tmp_path: Path,
) -> None:
    found = read(table(tmp_path, WIDE))
    assert found.class_names == ("Edema", "Mass")
    assert found.labels.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert found.labels.dtype == np.float32
    assert list(found.paths) == ["a.png", "b.png", "c.png"]
    assert found.columns["Age"] == ["61", "7", "1"]
    assert found.columns["Patient ID"] == ["1", "0", "1"]


@pytest.mark.parametrize("field", ["uncertain", "missing"])
def test_a_choice_for_something_that_is_no_label_is_refused(field: str, tmp_path: Path) -> None:
    message = f"`{field}` names Edma, which is no label; the labels are Edema, Mass"
    with pytest.raises(UsageError, match=message):
        read(table(tmp_path, WIDE), **{field: {"": "ignore", "Edma": "0"}})


def test_a_column_that_is_never_positive_is_named_and_no_label(tmp_path: Path) -> None:
    """It may be a label that the table has only the name of, or something else."""
    file = table(tmp_path, "path,Edema,Mass,Hernia\na.png,1,0,\nb.png,0,0,\n")
    found = read(file)
    assert found.class_names == ("Edema",)
    (note,) = found.notes
    assert note.startswith(f"{file}: no cell of Mass, Hernia is positive, so it is not taken for")
    assert read(file, names=("Edema", "Mass")).notes == ()


def test_a_column_that_a_few_cells_keep_from_being_a_label_is_named(tmp_path: Path) -> None:
    """One cell of 223,414 could leave a label out of the training without a word."""
    file = table(
        tmp_path,
        "path,Edema,Mass,count,weight,index,Sex\na.png,1,1,0,3,0,F\nb.png,O,0,2,1,1,M\n"
        "c.png,,1,3,2,2,F\nd.png,0,1,1,4,3,F\n",
        "abcd",
    )
    found = read(file)
    assert found.class_names == ("Mass",)
    (note,) = found.notes
    assert note == (
        f'{file}, line 3, column Edema: "O" is not 1, 0, -1, blank, true, false, yes or no, as are '
        "1 of 4 cells, so Edema is not taken for a label; correct them if it is one"
    )
    assert read(file, names=("Mass",)).notes == ()


@pytest.mark.parametrize(
    "cells", ["0,0 1,0", "FALSCH WAHR", "N Y", "- +", "negative positive", "#N/A 1"]
)
def test_a_column_of_labels_in_the_words_of_another_program_is_named(
    cells: str, tmp_path: Path
) -> None:
    """A German spreadsheet writes 1.0 as 1,0 and true as WAHR, and the label was left out."""
    no, yes = cells.split()
    rows = f"a.png;1;{no};M;-\nb.png;0;{yes};F;-\nc.png;1;;F;-\n"
    found = read(table(tmp_path, f"path;Mass;Edema;Sex;Comment\n{rows}", "abc"))
    assert found.class_names == ("Mass",)
    (note,) = found.notes
    assert f'line 2, column Edema: "{no}" is not 1, 0, -1' in note
    wrong = 1 if yes == "1" else 2
    assert f"{wrong} of 3 cells, so Edema is not taken for a label" in note


SPLIT = """path,Edema,Mass,Split
a.png,1,0,train
b.png,0,1,Train
c.png,1,1,{other}
d.png,0,0,test
"""


@pytest.mark.parametrize("other", ["val", "validation", "dev"])
def test_a_column_of_splits_is_obeyed(other: str, tmp_path: Path) -> None:
    file = table(tmp_path, SPLIT.format(other=other), "abcd")
    train, val = open_labelled_training(file, None, LabelRules())
    assert val is not None
    assert (list(train.paths), list(val.paths)) == (["a.png", "b.png"], ["c.png"])
    assert train.columns["Split"] == ["train", "Train"]
    assert list(open_labelled_evaluation(file, LabelRules()).paths) == ["c.png"]
    two = SPLIT.format(other=other).replace("Edema", "subset,Edema").replace("png,", "png,train,")
    with pytest.raises(InputError, match="the columns subset, Split could be the split; remove"):
        open_labelled_training(table(tmp_path, two, "abcd", "two.csv"), None, LabelRules())
    given = table(tmp_path / "other", "path,Edema,Mass\na.png,0,1\n")
    assert open_labelled_training(file, given, LabelRules())[1] is not None


def test_test_rows_are_for_validation_only_where_there_are_no_others(tmp_path: Path) -> None:
    file = table(tmp_path, SPLIT.format(other="train"), "abcd")
    train, val = open_labelled_training(file, None, LabelRules())
    assert val is not None and (len(train), list(val.paths)) == (3, ["d.png"])
    assert "so the test images are used" in val.notes[0]
    file = table(tmp_path, SPLIT.format(other="tset"), "abcd")
    with pytest.raises(
        InputError, match=r'column Split: "tset" is no split; it must be train, val'
    ):
        open_labelled_training(file, None, LabelRules())
    only = table(tmp_path, "path,Edema,Mass,split\na.png,1,0,train\nb.png,0,1,train\n", "ab")
    assert open_labelled_training(only, None, LabelRules())[1] is None
    assert len(open_labelled_evaluation(only, LabelRules())) == 2  # it tells nothing apart


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_table_of_validation_may_lie_in_valid_or_validation(name: str, tmp_path: Path) -> None:
    text = "path,Edema,Mass\na.png,1,0\nb.png,0,1\n"
    table(tmp_path / "train", text, "ab")
    table(tmp_path / name, text, "ab")
    train, val = open_labelled_training(tmp_path, None, LabelRules())
    assert val is not None and (train.root, val.root) == (tmp_path / "train", tmp_path / name)
    assert open_labelled_evaluation(tmp_path, LabelRules()).root == tmp_path / name
    table(tmp_path / "val", text, "ab")
    table(tmp_path / "valid", text, "ab")
    with pytest.raises(UsageError, match="either may be the validation images"):
        open_labelled_training(tmp_path, None, LabelRules())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets_are_read(encoding: str, tmp_path: Path) -> None:
    file = table(tmp_path, "")
    file.write_bytes('path; "Edema"; Mass\na.png; 1; "0"\nb.png; 0; 1\n'.encode(encoding))
    found = read(file)
    assert found.class_names == ("Edema", "Mass")
    assert found.labels.tolist() == [[1, 0], [0, 1]]


def test_cells_are_read_as_programs_write_them(tmp_path: Path) -> None:
    text = ",file_name,Edema,Mass,,\n0,a.png,1.00,NaN,,\n1,b.png,0.000000,1,,\n0,c.png,-1.00,NA,,\n"
    file = table(tmp_path, text)
    with pytest.raises(InputError, match=r"blank: Mass \(2\); `missing` says"):
        read(file, uncertain="1")
    found = read(file, uncertain="1", missing="ignore")
    assert found.class_names == ("Edema", "Mass")  # and not the index of pandas, which has no name
    expected = [[1, np.nan], [0, 1], [1, np.nan]]
    np.testing.assert_equal(found.labels, np.array(expected, np.float32))


def test_nan_is_no_label_of_a_list_unless_it_is_said_to_mean_none(tmp_path: Path) -> None:
    file = table(tmp_path, "path,L\na.png,A|B\nb.png,nan\nc.png,A\n")
    with pytest.raises(InputError, match=r"blank: L \(1\); `missing` says"):
        read(file, **ONE)
    found = read(file, **ONE, missing="ignore")
    assert found.class_names == ("A", "B") and np.isnan(found.labels[1]).all()
    assert read(file, **ONE, negative="nan").labels.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_a_spreadsheets_word_for_an_error_is_no_label(tmp_path: Path) -> None:
    file = table(tmp_path, "path,L\na.png,Mass\nb.png,#N/A\n", "ab")
    with pytest.raises(InputError, match=r"line 3, column L: #N/A is what a spreadsheet writes"):
        read(file, label_column="L")
    assert read(file, label_column="L", ignored=("#N/A",)).labels.tolist() == [[1], [0]]


def test_lists_as_python_writes_them_are_read(tmp_path: Path) -> None:
    """PadChest's table: blanks at the ends, empty lists and texts, commas in a label."""
    text = "path,L\na.png,\"['Edema, mild ', 'Mass']\"\nb.png,[]\nc.png,\"['', 'normal']\"\n"
    file = table(tmp_path, text)
    found = read(file, label_column="L", negative="normal", ignored=("Mass",))
    assert (found.class_names, found.labels.tolist()) == (("Edema, mild",), [[1], [0], [0]])
    assert found.notes == ()
    assert read(file, label_column="L").class_names == ("Edema, mild", "Mass", "normal")
    file = table(tmp_path, text.replace("[]", ""))
    with pytest.raises(InputError, match=r"of 3 rows these are blank: L \(1\); `missing` says"):
        read(file, label_column="L")
    assert np.isnan(read(file, label_column="L", missing="ignore").labels[1]).all()


@pytest.mark.parametrize(
    ("separator", "other"), [(",", "[]"), ("|", "[]"), (None, "Mass"), (None, "['a', 3]")]
)
def test_lists_as_python_writes_them_are_refused_beside_others(
    separator: str | None, other: str, tmp_path: Path
) -> None:
    file = table(tmp_path, f"path,L\na.png,\"['Edema', 'Mass']\"\nb.png,\"{other}\"\n")
    with pytest.raises(InputError, match=r"line 2, column L: .* is a list as Python writes it; wr"):
        read(file, label_column="L", separator=separator)


def test_named_columns_are_taken_in_the_order_of_the_names(tmp_path: Path) -> None:
    found = read(table(tmp_path, WIDE), names=("Mass", "Edema"))
    assert found.class_names == ("Mass", "Edema")
    assert found.labels[0].tolist() == [0, 1]


def test_one_column_is_split_into_whole_words(tmp_path: Path) -> None:
    text = "path,Finding\na.png,Mass|Pleural Mass\nb.png,No Finding\nc.png, Pleural Mass\n"
    rules = {"label_column": "Finding", "separator": "|", "negative": "No Finding"}
    found = read(table(tmp_path, text), **rules)
    assert found.class_names == ("Mass", "Pleural Mass")
    assert found.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    again = read(table(tmp_path, text.replace("Mass\n", "Mass|\n")), **rules)
    assert again.class_names == found.class_names
    assert again.labels.tolist() == found.labels.tolist()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("ignore", math.nan), ("0", 0.0), ("1", 1.0), ({"": "ignore", "Mass": "1"}, 1.0)],
)
def test_an_uncertain_cell_becomes_what_is_asked_for(
    tmp_path: Path, choice: Any, expected: float
) -> None:
    file = table(tmp_path, "path,Edema,Mass\na.png,1,-1\nb.png,0,0\nc.png,0,1\n")
    np.testing.assert_equal(read(file, uncertain=choice).labels[0, 1], np.float32(expected))


def test_uncertain_and_blank_cells_are_refused_with_counts_and_the_settings(
    tmp_path: Path,
) -> None:
    file = table(tmp_path, "path,Edema,Mass\na.png,1,-1\nb.png,,0\nc.png,0,1\n")
    with pytest.raises(InputError, match=r"-1 \(uncertain\): Mass \(1\); `uncertain` says what"):
        read(file)
    with pytest.raises(InputError, match=r"blank: Edema \(1\); `missing` says what that means"):
        read(file, uncertain="0", missing={"Mass": "0"})
    assert np.isnan(read(file, uncertain="0", missing="ignore").labels[1, 0])


@pytest.mark.parametrize(
    ("text", "rules", "message"),
    [
        ("path,Edema\na.png,1\na.png,0\n", {}, "line 3, column path: a.png is already in line 2"),
        ("path,Edema\na.png,1\n./a.png,0\n", {}, "line 3.*: ./a.png is already in line 2"),
        ("path,Edema\nz.png,1\n", {}, "line 2, column path: .*z.png: No such file"),
        ("path,Edema\n,1\n", {}, "line 2, column path: no path"),
        ("path,Edema\na.png,maybe\n", {"names": ("Edema",)}, '"maybe" is not a label'),
        ("path,Edema\na.png,1,2\n", {}, "line 2: has 3 cells, but the header has 2"),
        ("path,Edema\na.png,\n", {"names": ("Edema",)}, "all 1 cells of Edema are blank"),
        ("path,L\na.png,None|x\n", ONE | {"negative": "None"}, "has None .* beside a finding"),
        ("path,L\na.png,y\n", ONE | {"names": ("x",)}, r"y \(1\) is not among the labels x"),
        ("path,A,B\na.png,1,\nb.png,0,\n", {"names": ("A", "B"), "missing": "0"}, "B are blank"),
        ("path,B\na.png,-1\n", {"names": ("B",), "uncertain": "ignore"}, "no image has a known"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, text: str, rules: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(table(tmp_path, text), **rules)


def test_one_file_by_two_paths_is_refused_and_two_files_behind_a_link_are_not(
    tmp_path: Path,
) -> None:
    """``..`` after a link leads beside the folder that the link means."""
    for folder in (tmp_path, tmp_path / "b", tmp_path / "far/b"):
        folder.mkdir(exist_ok=True, parents=True)
        table(folder, "")
    (tmp_path / "link").symlink_to(tmp_path / "far/b")
    two = "path,label\nlink/../b/a.png,1\nb/a.png,0\n"
    assert list(read(table(tmp_path, two)).paths) == ["link/../b/a.png", "b/a.png"]
    assert len(read_list(table(tmp_path, two, name="list.csv"), "train")) == 2
    one = "path,label\nb/../a.png,1\na.png,0\n"
    with pytest.raises(InputError, match=r"line 3.*: a.png is already in line 2"):
        read(table(tmp_path, one))
    with pytest.raises(InputError, match=r"line 3: a.png is already in line 2"):
        read_list(table(tmp_path, one, name="list.csv"), "train")


@pytest.mark.parametrize(
    ("text", "rules", "message"),
    [
        (
            "path,L\na.png,x|y\n",
            {"label_column": "L"},
            r"looks like several .* `label_separator` \|",
        ),
        ("scan,Edema\na.png,1\n", {}, "no column is called like the path; pass `path_column`"),
        ("path,file,Edema\na.png,a,1\n", {}, "the columns path, file could be the path"),
        ("path,Age\na.png,61\n", {}, "no column has only labels"),
    ],
)
def test_settings_that_do_not_fit_are_named_with_what_there_is(
    tmp_path: Path, text: str, rules: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(table(tmp_path, text), **rules)


@pytest.mark.parametrize("rules", [{"names": ("Mass",)}, {"label_column": "X"}])
def test_a_column_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, rules: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"no column named \w+ .*; it has path, Edema"):
        read(table(tmp_path, "path,Edema\na.png,1\n"), **rules)


def test_a_folder_with_two_tables_is_training_and_validation_with_the_same_labels(
    tmp_path: Path,
) -> None:
    table(tmp_path / "train", "path,L\na.png,x|y\nb.png,z\n")
    table(tmp_path / "val", "path,L\na.png,y\n")
    rules = LabelRules(label_column="L", separator="|")
    train, val = open_labelled_training(tmp_path, None, rules)
    assert val is not None
    assert train.class_names == val.class_names == ("x", "y", "z")
    assert val.labels.tolist() == [[0, 1, 0]]
    assert len(open_labelled_evaluation(tmp_path, rules)) == 1
    with pytest.raises(InputError, match=r"has no labels\.csv; the task multilabel needs a"):
        open_labelled_training(tmp_path / "..", None, rules)


def test_a_word_for_no_finding_that_no_image_has_is_named(tmp_path: Path) -> None:
    file = table(tmp_path, "path,L\na.png,Edema\nb.png,No Finding\nc.png,Mass|\n")
    rules = {**ONE, "negative": "none", "ignored": ("Mass", "Rib")}
    found = read(file, **rules)
    assert found.class_names == ("Edema", "No Finding")
    assert [note.partition("column L has ")[2] for note in found.notes] == [
        "none (`negative_label`); words are compared as they are written",
        "Rib (`ignore_labels`); words are compared as they are written",
    ]
    assert read(file, **ONE, negative="No Finding").notes == ()
    # The images of validation may all have one.
    assert read(file, names=("Edema", "No Finding"), **rules).notes == ()


def test_the_word_for_no_finding_in_other_letters_is_no_label(tmp_path: Path) -> None:
    file = table(tmp_path, "path,L\na.png,Edema\nb.png,No Finding\nc.png,Mass\n")
    message = r"the label No Finding and the word for no finding, no finding \(`negative_label`\)"
    with pytest.raises(InputError, match=message):
        read(file, **ONE, negative="no finding")


@pytest.mark.parametrize("text", ["path,Edema\nx/a.png,1\ny/b.png,0\n", "id,file\n1,./y/b.png\n"])
def test_a_table_of_images_in_several_folders_is_not_passed_over_for_them(
    tmp_path: Path, text: str
) -> None:
    table(tmp_path / "x", "")
    table(tmp_path / "y", "")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=r"labels.csv: is a table of labels; pass `task` multilab"):
        refuse_label_table(tmp_path)
    with pytest.raises(UsageError, match=r"labels.csv: is a table of labels; name the file itself"):
        images_with_class(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "Image Index,Finding Labels\na.png,Edema\nb.png,Mass|Edema\n",
        "image,label\nb.png,x\na.png,y\n",  # the same names, but not of these images
    ],
)
def test_a_table_of_bare_names_is_not_passed_over_for_the_folders_beside_it(
    tmp_path: Path, text: str
) -> None:
    """NIH's images lie in images_001/images and so on; its table has their names alone."""
    for name, image in (("images_001", "a.png"), ("images_002", "b.png")):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "images" / image).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=r"labels.csv: is a table of labels; pass `task` multilab"):
        refuse_label_table(tmp_path)


def test_a_path_that_is_not_there_is_said_to_be_relative_to_the_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file or directory; paths are relative to the t"):
        read(table(tmp_path, "path,Edema\n00000001_000.png,1\n"))


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nx/a.png,x\ny/b.png,y\n",  # says what the folders say
        "file,breed\na.png,x\nb.png,x\nc.png,x\nlost.png,z\n",  # in x and in y
        "hospital,scanner\nx,1\ny/b,2\n",
        "not,a\ntable\n",
        "",
    ],
)
def test_class_folders_with_another_file_beside_them_are_class_folders(
    tmp_path: Path, text: str
) -> None:
    table(tmp_path / "x", "")
    table(tmp_path / "y", "")
    (tmp_path / "labels.csv").write_text(text)
    refuse_label_table(tmp_path)
    assert images_with_class(tmp_path).names == ["x", "y"]


def test_an_excluded_image_is_left_out_with_its_columns(tmp_path: Path) -> None:
    file = table(tmp_path, WIDE)
    (tmp_path / "out.txt").write_text("b.png\n")
    found, _ = open_labelled_training(file, None, LabelRules(), tmp_path / "out.txt")
    assert list(found.paths) == ["a.png", "c.png"]
    assert found.labels.tolist() == [[1, 0], [0, 1]]
    assert found.columns["Age"] == ["61", "1"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["1", "0", "-1", "", "yes", "No"]), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    )
)
def test_every_cell_is_one_zero_or_unknown(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("table")
    # A first line that gives every label a known value.
    lines = [f"{i}.png,{','.join(cells)}" for i, cells in enumerate([["1", "1", "1"], *rows])]
    text = "path,x,y,z\n" + "\n".join(lines) + "\n"
    file = table(folder, text, images=[str(i) for i in range(len(lines))])  # type: ignore[arg-type]
    found = read(file, uncertain="ignore", missing="0").labels[1:]
    meaning = {"1": 1.0, "yes": 1.0, "0": 0.0, "No": 0.0, "": 0.0, "-1": math.nan}
    expected = np.array([[meaning[cell] for cell in row] for row in rows], np.float32)
    np.testing.assert_equal(found, expected)
