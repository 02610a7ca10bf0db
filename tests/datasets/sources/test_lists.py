"""Lists as people and spreadsheets write them."""

import re
import time
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densenet121.datasets.sources.label_table import LabelRules, read_label_table
from densenet121.datasets.sources.lists import read_list
from densenet121.datasets.sources.open import open_evaluation, open_splits, open_training
from densenet121.utils.errors import InputError

ROWS = [(f"p/{name}/{i}.jpg", name) for name in ("ant", "bee") for i in range(2)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, _ in [*ROWS, ("#food/1.jpg", ""), ("p/cat/1.jpg", "")]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"pixels")
    return tmp_path


def write(root: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def rows_of(text: str) -> str:
    return "".join(text.format(path=path, label=label) for path, label in ROWS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", rows_of("{path} {label}\n")),
        ("l.txt", rows_of("{path}\t{label}\r\n")),
        ("l.csv", "path,label\n" + rows_of("{path},{label}\n")),
        ("l.csv", "path,label\n" + rows_of('"{path}", "{label}"\n')),
        ("l.csv", "Label , Path\n" + rows_of(' {label} , "{path}"\n')),
        ("l.csv", "path;label\n" + rows_of("{path};{label}\n")),
        ("l.csv", rows_of("{path}\t{label}\r")),
        ("l.tsv", rows_of("{path}\t{label}\n")),
        ("metadata.csv", "file_name,label,text\n" + rows_of('{path},{label},"a, b"\n')),
        ("l.csv", ",path,label,,\n" + rows_of("7,{path},{label},,\n") + ",,,,\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_read_as_it_is_meant(name: str, text: str, encoding: str, root: Path) -> None:
    found = open_evaluation(write(root, name, text, encoding))
    assert found.paths == tuple(path for path, _ in ROWS)
    assert found.class_names == ("ant", "bee")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.notes == ()


def test_utf_16_without_a_mark_is_named(root: Path) -> None:
    file = write(root, "l.txt", rows_of("{path} {label}\n"), "utf-16-le")
    with pytest.raises(InputError, match=r"l.txt: is no text, or UTF-16 without its mark; save"):
        open_training(file)


@pytest.mark.parametrize("word", ["path", "image", "file", "label", "class", "target"])
def test_a_class_may_be_called_as_a_column_is(word: str, root: Path) -> None:
    text = "".join(f"{path},{word if label == 'ant' else label}\n" for path, label in ROWS)
    found = open_evaluation(write(root, "l.csv", text))
    assert sorted(found.class_names) == sorted((word, "bee"))
    assert len(found) == 4


def test_a_header_without_a_label_column_is_named(root: Path) -> None:
    file = write(root, "l.csv", "path,width\n" + rows_of("{path},{label}\n"))
    with pytest.raises(InputError, match=r"no column named label, .*; it has path, width"):
        open_training(file)


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("path,label,label", "{path},{label},ant", "columns label, label could be the label"),
        ("path,label,Class", "{path},{label},ant", "columns label, Class could be the label"),
        ("image,label,path", "{path},{label},x.jpg", "columns image, path could be the path"),
        (
            "path,label,subset,split",
            "{path},{label},val,train",
            "columns subset, split could be the split",
        ),
    ],
)
def test_two_columns_that_could_be_meant_are_refused_unless_they_agree(
    header: str, cells: str, message: str, root: Path
) -> None:
    file = write(root, "l.csv", f"{header}\n" + rows_of(cells + "\n"))
    with pytest.raises(InputError, match=rf"l.csv: the {message}; remove or rename all but one"):
        open_training(file)
    twice = {"label": "{label}", "path": "{path}", "split": "train"}
    names = header.lower().replace("class", "label").replace("image", "path")
    same = ",".join(twice[name] for name in names.replace("subset", "split").split(","))
    file = write(root, "l.csv", f"{header}\n" + rows_of(same + "\n"))
    found, _ = open_training(file)
    assert len(found) == 4 and found.class_names == ("ant", "bee")


def test_a_path_that_begins_with_a_hash_is_an_image_and_a_comment_is_none(root: Path) -> None:
    text = "# soups, by hand\n#p/cat/1.jpg cat\n#food/1.jpg food\n" + rows_of("{path} {label}\n")
    found = open_evaluation(write(root, "l.txt", text))
    assert found.class_names == ("ant", "bee", "food")
    assert found.paths[0] == "#food/1.jpg"
    assert found.notes == (
        f"{root / 'l.txt'}: 2 lines that begin with # are comments, first line 1",
    )
    text = "#food/2.jpg food\n" + rows_of("{path} {label}\n")
    with pytest.raises(InputError, match=r"l.txt, line 1: .*#food/2.jpg: there is no such image"):
        open_training(write(root, "l.txt", text))


@pytest.mark.parametrize(
    ("second", "advice"),
    [
        ("p/ant/0.jpg ant", "already in line 1; remove one of the two lines"),
        ("./p/ant/0.jpg ant", "already in line 1; remove one of the two lines"),
        ("p/ant/0.jpg bee", "already in line 1; with the label ant, and one class per image"),
    ],
)
def test_an_image_that_is_listed_twice_is_refused(second: str, advice: str, root: Path) -> None:
    file = write(root, "l.txt", f"p/ant/0.jpg ant\n{second}\np/bee/0.jpg bee\n")
    with pytest.raises(InputError, match=rf"line 2: .* {advice}"):
        open_training(file)


SPLITS = (
    "path,label,split\np/ant/0.jpg,ant,train\np/ant/1.jpg,ant,{other}\np/bee/0.jpg,bee,Train\n"
    "p/bee/1.jpg,bee,test\n"
)


@pytest.mark.parametrize("other", ["val", "valid", "Validation", "dev"])
def test_a_column_of_splits_is_obeyed(other: str, root: Path) -> None:
    file = write(root, "l.csv", SPLITS.format(other=other))
    train, val = open_training(file)
    assert val is not None
    assert (train.paths, val.paths) == (("p/ant/0.jpg", "p/bee/0.jpg"), ("p/ant/1.jpg",))
    assert val.class_names == ("ant", "bee")  # though it has no bee
    assert "no image of bee" in val.notes[-1]
    assert open_evaluation(file).paths == val.paths
    assert set(open_splits(file)) == {"train", "val"}


def test_test_rows_are_for_validation_only_where_there_are_no_others(root: Path) -> None:
    file = write(root, "l.csv", SPLITS.format(other="train"))
    train, val = open_training(file)
    assert val is not None and (len(train), val.paths) == (3, ("p/bee/1.jpg",))
    assert "so the test images are used" in val.notes[0]
    with pytest.raises(InputError, match=r'line 3: the split is "tset"; it must be train, val'):
        open_training(write(root, "l.csv", SPLITS.format(other="tset")))
    text = "path,label,split\np/ant/0.jpg,ant,val\np/bee/0.jpg,bee,test\n"
    with pytest.raises(InputError, match=r"no row is of the split train; it has test, val"):
        open_training(write(root, "l.csv", text))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_list_of_one_split_is_read_whole(split: str, root: Path) -> None:
    text = f"path,label,split\np/ant/0.jpg,ant,{split}\np/bee/0.jpg,bee,{split}\n"
    file = write(root, "l.csv", text)
    train, val = open_training(file)
    assert (len(train), val, train.notes) == (2, None, ())
    assert open_evaluation(file).notes == () and len(open_evaluation(file)) == 2


def test_numbers_may_have_a_gap_in_validation_only(root: Path) -> None:
    train = write(root, "t.txt", "p/ant/0.jpg 0\np/bee/0.jpg 1\np/cat/1.jpg 2\n")
    gap = write(root, "v.txt", "p/ant/1.jpg 0\np/bee/1.jpg 2\n")
    _, val = open_training(train, gap)
    assert val is not None
    assert (val.class_names, val.labels.tolist()) == (("0", "1", "2"), [0, 2])
    with pytest.raises(InputError, match=r"not all of 0 to 2 occur"):
        open_training(gap)


@pytest.mark.parametrize("label", ["-1", "None", "nan", "null"])
def test_a_number_or_word_for_no_class_is_named_with_its_line(label: str, root: Path) -> None:
    text = f"p/ant/0.jpg 0\np/bee/0.jpg 1\np/cat/1.jpg {label}\n"
    with pytest.raises(InputError, match=f'line 3: has the label "{label}", which is no class'):
        open_training(write(root, "l.txt", text))


def test_a_class_may_be_called_none_among_names(root: Path) -> None:
    text = "p/ant/0.jpg none\np/bee/0.jpg scratch\np/cat/1.jpg none\n"
    assert open_training(write(root, "l.txt", text))[0].class_names == ("none", "scratch")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("p/ant/0", "there is 0.jpg; a path has to end in the extension of its file"),
        ("p/ant/0.JPG", "there is 0.jpg; upper and lower case have to be the same"),
        ("p\\ant\\0.jpg", "folders are separated by /, not by "),
        ("~/p/ant/0.jpg", "~ is not followed; write the whole path"),
        ("https://x.org/0.jpg", "line 3.*: https://x.org/0.jpg: is a URL; download the image"),
        ("p/ant", "line 3.*: .*p/ant: is a folder"),
        ("p/ant/7.jpg", "No such file or directory; paths are relative to the "),
        ("none/7.jpg", "No such file or directory; paths are relative to the "),
        ("p/gone.jpg", "line 3.*: .*p/gone.jpg: is a link to /gone.jpg, which is not there; "),
    ],
)
def test_a_path_that_is_no_image_says_what_to_write(path: str, advice: str, root: Path) -> None:
    file = write(root, "l.csv", f"path,label\np/bee/0.jpg,1\n{path},0\n")
    (root / "p" / "gone.jpg").symlink_to("/gone.jpg")
    with pytest.raises(InputError, match=advice):
        open_training(file)
    with pytest.raises(InputError, match=advice):
        read_label_table(file, LabelRules())


@pytest.mark.parametrize(("there", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_path_whose_accents_have_another_code_says_so(
    there: Literal["NFC", "NFD"], written: Literal["NFC", "NFD"], tmp_path: Path
) -> None:
    """Unpacked by macOS, listed by Excel: both look alike, and no such file is there."""
    folder, name = (
        unicodedata.normalize(there, text) for text in ("K\xe4fer", "K\xe4fer/gr\xfcn.jpg")
    )
    (tmp_path / folder).mkdir()
    for file in (name, "0.jpg"):
        (tmp_path / file).write_bytes(b"")
    text = f"path,label\n0.jpg,a\n{unicodedata.normalize(written, name)},b\n"
    with pytest.raises(InputError, match=rf"line 3: .*looks alike, {re.escape(ascii(name))}; "):
        open_training(write(tmp_path, "l.csv", text))


def test_a_path_in_the_code_of_a_plain_csv_of_excel_says_so(tmp_path: Path) -> None:
    for name in ("gr\xfcn.jpg", "0.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "l.csv").write_bytes("path;label\n0.jpg;a\ngr\xfcn.jpg;b\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"line 3: .* not UTF-8, .*; save the list as CSV UTF-8"):
        open_training(tmp_path / "l.csv")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "l.csv",
            "id_code,dx\np/ant/0.jpg,a\n",
            "id_code: No such file .*; if it is a header, n",
        ),
        ("l.csv", ",id_code,dx\n0,p/ant/0.jpg,a\n", "no path or no label; if it is a header, "),
        ("l.csv", "path|label\np/ant/0.jpg|a\n", "separated by commas, semicolons or tabs"),
        ("l.txt", "path\tlabel\np/ant/0.jpg\ta\n", "line 1: .*; a .txt has no header; remove it, "),
        ("l.tsv", "path,label\np/ant/0.jpg,a\n", "cells have to be separated by tabs"),
        (
            "l.csv",
            "id,label\np/ant/0.jpg,a\n",
            "it has id, label; pass the one that is meant as `",
        ),
        ("l.csv", "path,label\np/ant/0.jpg,a, mild\n", "line 2: has 3 cells, but the header has 2"),
    ],
)
def test_a_table_with_other_columns_says_what_is_needed(
    name: str, text: str, message: str, root: Path
) -> None:
    with pytest.raises(InputError, match=message):
        open_training(write(root, name, text))


def test_whole_numbers_with_decimals_are_numbers(root: Path) -> None:
    images = [f"p/{number:02d}.jpg" for number in range(12)]
    for image in images:
        (root / image).write_bytes(b"pixels")
    rows = "".join(f"{image},{number}.0\n" for number, image in enumerate(images))
    train = write(root, "t.csv", "path,label\n" + rows)
    found, val = open_training(train, write(root, "v.txt", "p/02.jpg 2\np/10.jpg 10\n"))
    assert found.class_names == tuple(map(str, range(12)))
    assert found.labels.tolist() == list(range(12))
    assert val is not None and val.labels.tolist() == [2, 10]
    (root / "classes.txt").write_text("".join(f"{number}.0\n" for number in range(12)))
    assert open_training(train)[0].class_names[10] == "10.0"


def test_a_missing_number_with_decimals_is_named(root: Path) -> None:
    for label in ("-1.0", "nan"):
        text = f"p/ant/0.jpg 0.0\np/bee/0.jpg 1.0\np/cat/1.jpg {label}\n"
        with pytest.raises(InputError, match=r"line 3: has the label .*, which is no class"):
            open_training(write(root, "l.txt", text))


def test_grades_with_halves_are_the_same_where_validation_has_none(root: Path) -> None:
    train = write(root, "t.txt", "p/ant/0.jpg 0.0\np/ant/1.jpg 0.5\np/bee/0.jpg 1.0\n")
    found, val = open_training(train, write(root, "v.txt", "p/bee/1.jpg 1.0\np/cat/1.jpg 0.0\n"))
    assert val is not None and val.class_names == found.class_names == ("0.0", "0.5", "1.0")
    assert val.labels.tolist() == [2, 0]


def test_lists_of_one_folder_are_told_apart(root: Path) -> None:
    file = write(root, "l.txt", rows_of("{path} {label}\n"))
    assert (open_training(file)[0].source, open_training(file)[0].root) == (file, root)


LINE_BREAKS = "\n\r"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.text(
        st.characters(exclude_characters="/\0\n\r", exclude_categories=["Cs"]),
        min_size=1,
        max_size=20,
    ).filter(lambda name: name.strip() == name and name not in (".", ".."))
)
def test_a_path_of_any_characters_is_found_in_a_list(name: str, tmp_path: Path) -> None:
    if len(name.encode()) > 200:
        return
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "a" / name).write_bytes(b"x")
    (tmp_path / "b" / "1.jpg").write_bytes(b"x")
    file = tmp_path / "list.txt"
    file.write_bytes(f"a/{name} ant\nb/1.jpg bee\n".encode())
    assert read_list(file, "train").paths == (f"a/{name}", "b/1.jpg")


def test_a_table_with_very_many_columns_is_read_in_time_that_grows_with_their_number(
    root: Path,
) -> None:
    """Each was counted among all: a million columns were hours, which no signal ended."""
    names = [f"c{at}" for at in range(20_000)]
    cells = ",1" * len(names)
    labels = write(root, "m.csv", f"path,{','.join(names)}\np/ant/0.jpg{cells}\n")
    classes = write(root, "l.csv", f"path,label,{','.join(names)}\np/ant/0.jpg,ant{cells}\n")
    begun = time.process_time()
    read_label_table(labels, LabelRules(names=("c1", "c19999")))
    assert len(read_list(classes, "train", partial=True, columns=True).columns) >= len(names)
    assert time.process_time() - begun < 2
