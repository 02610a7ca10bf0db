"""MindRecord files: sets of files, labels, a missing index, damage."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.mindrecord_file import integers
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.messagepack import unpack

from helpers import mindrecord as own
from helpers.mindrecord import write_index, write_mindrecord

PLAIN = LabelRules()


def rows(labels: Any, key: str = "label", first: int = 0) -> list[dict[str, Any]]:
    return [
        {"data": b"image %d" % n, key: label, "file_name": f"a/{n}.jpg"}
        for n, label in enumerate(labels, first)
    ]


VALUES = st.recursive(
    st.one_of(st.text(max_size=40), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_another_column_that_may_have_the_classes_is_named(tmp_path: Path) -> None:
    own = [row | {"label": n // 2} for n, row in enumerate(rows([0, 1, 2, 0], "class"))]
    found = open_training(write_mindrecord(tmp_path / "a.mindrecord", own).parent)[0]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert "those of the column label, not of class; rename label" in found.notes[-1]


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_values_are_unpacked(value: Any) -> None:
    assert unpack(own.pack(value)) == value


@pytest.mark.parametrize(
    ("data", "value"),
    [  # from the specification
        (b"\xc0", None),
        (b"\xc2", False),
        (b"\x93\x01\xff\xc3", [1, -1, True]),
        (b"\xcd\x01\x00", 256),
        (b"\xdc\x00\x01\xa1a", ["a"]),
        (b"\xde\x00\x01\xa1a\xd1\xff\x00", {"a": -256}),
        (b"\xca\x3f\x80\x00\x00", 1.0),
        (b"\xda\x00\x02\xc3\xa9", "\u00e9"),
    ],
)
def test_every_kind_of_the_specification_is_unpacked(data: bytes, value: Any) -> None:
    assert unpack(data) == value
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"damaged|cut short"):
            unpack(data[:length])
    for wrong in (data + b"\0", b"\xc1", b"\x91" * 99):
        with pytest.raises(ValueError, match=r"fill|kind|deep"):
            unpack(wrong)


def test_integers_of_every_width_are_unpacked() -> None:
    data = bytes([0, 0, 0, 5, 0b00011011, 0b01000000, 255, 0, 1, 0, 0, 1, 0])
    data += (-(2**40)).to_bytes(8, "little", signed=True) + b"\x2a\0"
    assert integers(data) == [-1, 256, 65536, -(2**40), 42]
    for length in range(len(data)):
        with pytest.raises(ValueError, match="cut short"):
            integers(data[:length])


def test_a_set_is_read_whole_in_the_order_of_its_files(tmp_path: Path) -> None:
    names = [f"set.mindrecord{n}" for n in range(3)]
    for number, name in enumerate(names):
        part = rows([0, 1], first=2 * number)
        write_mindrecord(tmp_path / name, part, shard=number, names=names)
    for where in (tmp_path, tmp_path / names[1]):
        dataset, _ = open_training(where)
        assert dataset.paths == [f"a/{n}.jpg" for n in range(6)]
        assert [dataset.read(n) for n in range(6)] == [b"image %d" % n for n in range(6)]
    (tmp_path / names[1]).unlink()
    with pytest.raises(InputError, match=r"of the 3 files set.mindrecord0 ... of a set, set.mind"):
        open_training(tmp_path)
    with pytest.raises(InputError, match=r"mindrecord1: is missing; set.mindrecord0 is one of 3"):
        open_training(tmp_path / names[0])


def test_rows_are_found_in_every_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "PAGE", 4096)
    images = [bytes([n]) * 900 for n in range(12)]
    content = [{"image": image, "label": n % 3} for n, image in enumerate(images)]
    file = write_mindrecord(tmp_path / "a.mindrecord", content)
    dataset, _ = open_training(file)
    assert [dataset.read(n) for n in range(12)] == images
    assert dataset.paths[3] == "a.mindrecord/00000003"


def test_splits_go_by_the_names_of_the_files(tmp_path: Path) -> None:
    write_mindrecord(tmp_path / "train.mindrecord", rows([0, 1]))
    with pytest.raises(UsageError, match=r"no MindRecord file is named after val, the first is tr"):
        open_evaluation(tmp_path)
    write_mindrecord(tmp_path / "val.mindrecord", rows([1], first=7))
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    train, val = open_training(tmp_path)
    assert val is not None and (len(train), val.paths) == (2, ["a/7.jpg"])
    assert val.class_names == ("ant", "bee")


EXPECTED = ("a", "b"), [[1, 1], [0, 0], [0, 1]]


def test_several_labels_in_arrays_and_in_columns(tmp_path: Path) -> None:
    forms: list[list[dict[str, Any]]] = [
        rows([[1, 0], [], [1]], "labels"),
        [row | {"b": b} for row, b in zip(rows([1, 0, 0], "a"), (1, 0, 1), strict=True)],
        rows(["b|a", "none", "b"], "found"),
    ]
    rules = [PLAIN, PLAIN, LabelRules(label_column="found", separator="|", negative="none")]
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for form, rule in zip(forms, rules, strict=True):
        file = write_mindrecord(tmp_path / "a.mindrecord", form)
        dataset, _ = open_labelled_training(file, None, rule)
        assert (dataset.class_names, dataset.labels.tolist()) == EXPECTED
        assert dataset.read(1) == b"image 1"
    with pytest.raises(InputError, match=r"row 0: the label is a list \(\[1, 0\]\); one class"):
        open_training(write_mindrecord(file, forms[0]))


def test_pack_keeps_images_and_labels(tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1, 0]))
    pack(PackConfig(source=str(file), output=str(tmp_path / "shards")))
    packed, source = open_training(tmp_path / "shards")[0], open_training(file)[0]
    assert packed.fingerprint == source.fingerprint
    assert [packed.read(i) for i in range(3)] == [source.read(i) for i in range(3)]


def test_a_missing_index_or_that_of_another_file_is_named(tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1, 0]))
    index = tmp_path / "a.mindrecord.db"
    other = write_mindrecord(tmp_path / "b.mindrecord", rows([0, 1]))
    index.write_bytes((tmp_path / "b.mindrecord.db").read_bytes())
    with pytest.raises(InputError, match=r"db: has 2 rows, but a.mindrecord has 3; they are of"):
        open_training(file)
    write_mindrecord(other, rows([10**9, 1, 0]))
    index.write_bytes((tmp_path / "b.mindrecord.db").read_bytes())
    with pytest.raises(InputError, match=r"row 0: is damaged \(its length is not that of the ind"):
        open_training(file)
    index.unlink()
    with pytest.raises(InputError, match=r"its index a.mindrecord.db is not beside it; copy it"):
        open_training(file)
    index.write_bytes(b"<!DOCTYPE html>" + b" " * 999)
    with pytest.raises(InputError, match=r"a.mindrecord.db: is a web page"):
        open_training(file)


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "PAGE", 96)
    monkeypatch.setattr(own, "HEADER", 416)
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1]))
    whole = file.read_bytes()
    assert len(open_training(file)[0]) == 2
    for length in reversed(range(len(whole))):
        os.truncate(file, length)
        with pytest.raises(InputError, match=r"a\.mindrecord") as told:
            open_training(file)
        assert "\n" not in str(told.value)


def test_changed_bytes_of_head_and_index_are_refused_or_change_nothing(tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1]))
    index = tmp_path / "a.mindrecord.db"
    for target, step in ((file, 5), (index, 37)):
        whole = target.read_bytes()
        for at in range(0, min(len(whole), 9000 if target == index else 600), step):
            target.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            try:
                dataset = open_training(file)[0]
            except (InputError, UsageError) as error:
                assert "\n" not in str(error)
                continue
            assert [dataset.read(n) for n in range(2)] == [b"image 0", b"image 1"]
            assert dataset.labels.tolist() == [0, 1]
        target.write_bytes(whole)


def test_an_index_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1]))
    index = tmp_path / "a.mindrecord.db"
    whole = index.read_bytes()
    for length in range(0, len(whole), 61):
        index.write_bytes(whole[:length])
        with pytest.raises(InputError) as told:
            open_training(file)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"pixels": b"x", "label": 0}], r"no column image or img or picture or data; it has pix"),
        ([{"data": b"x", "y": 0}], r"no column label or labels or class or fine_label; it has y"),
        ([{"label": 0, "name": "x"}], r"no column image .*; it has no column of bytes"),
        (rows([0, -1, 1]), r'row 1: has the label "-1", which is no class'),
        (rows([0, 2]), r"not all of 0 to 2 occur"),
        (rows([0.5, 1.0]), r"row 0: the label is 0.5, which is no class"),
    ],
)
def test_columns_that_cannot_be_used_are_one_line(
    content: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as told:
        open_training(write_mindrecord(tmp_path / "a.mindrecord", content))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["../a.mindrecord1", "", "x" * 400])
def test_sets_of_files_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.mindrecord0"
    write_mindrecord(file, rows([0, 1]), names=[file.name, name])
    with pytest.raises(InputError, match=r"it names files outside its folder|xxx: is missing"):
        open_training(file)


COLUMNS = (
    *("ROW_ID", "PAGE_ID_RAW", "PAGE_OFFSET_RAW", "PAGE_OFFSET_RAW_END"),
    *("PAGE_ID_BLOB", "PAGE_OFFSET_BLOB", "PAGE_OFFSET_BLOB_END"),
)
PAIRS = ", ".join(f"(SELECT 0 UNION SELECT 1) t{n}" for n in range(60))
DOUBLED = [f"c{n} INT AS (c{n - 1} + c{n - 1})" for n in range(1, 41)]
LONG = [f"c{n} TEXT AS (c{n - 1} || c{n - 1})" for n in range(1, 22)]
ENDLESS = {
    "a view that counts": "VIEW INDEXES AS WITH RECURSIVE c(x) AS (SELECT 0 UNION ALL SELECT x + 1 "
    f"FROM c) SELECT {', '.join(f'x {name}' for name in COLUMNS)} FROM c",
    "a view of pairs": "VIEW INDEXES AS SELECT "
    f"{', '.join(f'0 {name}' for name in COLUMNS)} FROM {PAIRS}",
    "a view of functions": "VIEW INDEXES AS SELECT "
    + ", ".join(f"length(randomblob(900000000)) {name}" for name in COLUMNS),
    "columns of columns": f"TABLE INDEXES (c0 INT, {', '.join(DOUBLED)}, "
    + ", ".join(f"{name} INT AS (c40)" for name in COLUMNS)
    + ")",
    "long columns": f"TABLE INDEXES (c0 TEXT, {', '.join(LONG)}, "
    + ", ".join(f"{name} TEXT AS (c21)" for name in COLUMNS)
    + ")",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_index_that_computes_is_refused(kind: str, tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1]))
    with closing(sqlite3.connect(tmp_path / "a.mindrecord.db")) as opened:
        opened.execute("ALTER TABLE INDEXES RENAME TO ROWS_OF_IT")
        try:
            opened.execute(f"CREATE {ENDLESS[kind]}")
        except MemoryError:
            pytest.skip(f"SQLite {sqlite3.sqlite_version} does not make such a table")
        if "TABLE" in ENDLESS[kind]:
            opened.execute("INSERT INTO INDEXES (c0) VALUES (1), (2)")
        opened.commit()
    with pytest.raises(InputError, match=r"a\.mindrecord\.db: is no index of MindRecord, or dam"):
        open_training(file)


def test_a_number_of_rows_that_is_only_claimed_needs_no_memory(tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0, 1]))
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    for claimed in (2**31, 2**62 - 1):
        head = whole[8 : 8 + size].replace(b'"end_row_id": 2', b'"end_row_id": %d' % claimed)
        changed = len(head).to_bytes(8, "little") + head
        file.write_bytes(changed.ljust(own.HEADER, b"\0") + whole[own.HEADER :])
        with pytest.raises(InputError, match=rf"has 2 rows, but a\.mindrecord has {claimed}; they"):
            open_training(file)


def test_positions_outside_the_file_are_refused(tmp_path: Path) -> None:
    file = write_mindrecord(tmp_path / "a.mindrecord", rows([0]))
    with sqlite3.connect(tmp_path / "a.mindrecord.db") as opened:
        good = opened.execute("SELECT * FROM INDEXES").fetchone()
    opened.close()
    for at in range(1, 7):
        for value in (-1, 2**40, 2**62, own.PAGE - 1, "x", None):
            write_index(file, [(*good[:at], value, *good[at + 1 :])])
            with pytest.raises(InputError, match=r"is damaged") as told:
                open_training(file)
            assert "\n" not in str(told.value)
