"""Labels from the columns of a table: exact words, and nothing guessed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.datasets.label_cells import labels_of_columns, labels_of_lists
from densenet121.datasets.tables import Table, read_table
from densenet121.utils.errors import InputError

NAN = float("nan")


def table(**columns: list[str]) -> Table:
    rows = len(next(iter(columns.values())))
    return Table(Path("x.csv"), columns, list(range(2, rows + 2)))


def test_every_way_to_write_a_cell() -> None:
    cells = ["1", "0", "1.0", "0.0", "true", "False", "YES", "no", "-1", "-1.0", ""]
    found = labels_of_columns(table(a=cells), ["a"], uncertain="1", missing="0")
    assert found[:, 0].tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0]
    found = labels_of_columns(table(a=cells), ["a"], uncertain="ignore", missing="ignore")
    assert np.isnan(found[8:, 0]).all() and not np.isnan(found[:8, 0]).any()


def test_what_uncertain_and_blank_mean_is_never_guessed() -> None:
    found = table(a=["1", "-1", "-1"], b=["", "0", "-1"])
    with pytest.raises(
        InputError, match=r"of 3 rows these are -1 \(uncertain\): a \(2\), b \(1\); "
    ):
        labels_of_columns(found, ["a", "b"], missing="0")
    message = r"x\.csv: of 3 rows these are blank: b \(1\); `missing` says .*: ignore or 0"
    with pytest.raises(InputError, match=message):
        labels_of_columns(found, ["a", "b"], uncertain="0")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["1", "2"]}, r'x\.csv, line 3, column a: "2" is not a label; allowed are 1, 0, -1'),
        ({"a": ["1", "0.5"]}, r'column a: "0\.5" is not a label'),
        ({"a": ["", ""]}, r"all 2 cells of a are blank; leave it out of `labels`"),
        ({"b": ["1", "0"]}, r"no column named a \(`labels`\); it has b"),
    ],
)
def test_other_cells_and_columns_are_refused(columns: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        labels_of_columns(table(**columns), ["a"], uncertain="0", missing="0")


def lists(cells: list[str], names: list[str], **choices: object) -> list[list[float]]:
    settings_of: dict[str, object] = {"separator": "|", "negative": "none"}
    found = labels_of_lists(table(x=cells), "x", names, **settings_of | choices)  # type: ignore[arg-type]
    return [[float(value) for value in row] for row in found]


def test_findings_are_whole_words() -> None:
    cells = ["Mass|Edema", "Mass effect", "none", " Edema | Mass ", "Mass"]
    found = lists(cells, ["Mass", "Edema", "Mass effect"])
    assert found == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_blank_parts_of_a_list_are_no_findings() -> None:
    cells = ["Edema|", "|Mass", "Mass||Edema", "none|", " | "]
    found = lists(cells, ["Mass", "Edema"], missing="0")
    assert found == [[0, 1], [1, 0], [1, 1], [0, 0], [0, 0]]
    with pytest.raises(InputError, match=r"of 5 rows these are blank: x \(1\); `missing` says"):
        lists(cells, ["Mass", "Edema"])


def test_a_blank_list_is_unknown_for_every_label_or_negative() -> None:
    assert np.isnan(lists(["a", ""], ["a", "b"], missing="ignore")[1]).all()
    assert lists(["a", ""], ["a", "b"], missing="0")[1] == [0, 0]
    with pytest.raises(InputError, match=r"these are blank: x \(1\); `missing` says"):
        lists(["a", ""], ["a"])


@pytest.mark.parametrize(
    ("cells", "choices", "message"),
    [
        (["a", "c", "c"], {}, r"column x: c \(2\) is not among the labels a, b; .*`ignore_labels`"),
        (["none|a"], {}, r'line 2, column x: "none\|a" has none \(`negative_label`\) beside'),
        (["a|b"], {"separator": None}, r"a\|b \(1\) is not .*; `label_separator` \| would"),
        (["", ""], {"missing": "0"}, r"all 2 cells of x are blank"),
    ],
)
def test_other_findings_are_refused(
    cells: list[str], choices: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        lists(cells, ["a", "b"], **choices)


def test_findings_that_do_not_count_are_passed_over() -> None:
    assert lists(["a|c", "c"], ["a", "b"], ignored=("c",)) == [[1, 0], [0, 0]]


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from(["a", "b", "ab"])), min_size=1))
def test_lists_and_columns_say_the_same(rows: list[set[str]]) -> None:
    names = ["a", "b", "ab"]
    joined = ["|".join(sorted(row)) or "none" for row in rows]
    columns = {name: [str(int(name in row)) for row in rows] for name in names}
    assert lists(joined, names) == labels_of_columns(table(**columns), names).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,2,3\n", r"line 2: has 3 cells, but the header has 2"),
        ("a,a\n1,2\n", "the header has a twice"),
        ('a,b\n"1,2\n', r"line 2: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "x.csv")


def test_a_table_is_read_with_its_lines(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes('\ufeffa\t b \n\n1\t"two\nlines"\n3\t,\n'.encode())
    found = read_table(tmp_path / "x.tsv")
    assert found.columns == {"a": ["1", "3"], "b": ["two\nlines", ","]}
    assert found.lines == [4, 5] and len(found) == 2
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1.5", r"x\.csv, line 3, column p: 1\.5 is outside 0 to 1, as are 1 of 2 rows; logits"),
        ("inf", "inf is outside 0 to 1"),
        ("", '"" is not a probability'),
        ("nan", '"nan" is not a probability'),
        ("high", '"high" is not a probability'),
        ("0,25", '"0,25" is not a probability; write decimals with a point'),
        ("25 %", '"25 %" is not a probability; divide per cent by 100'),
    ],
)
def test_probabilities_are_numbers_from_0_to_1(cell: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table(p=["0.5", cell]).probabilities("p", "probability_prefix")


def test_every_row_needs_an_id() -> None:
    with pytest.raises(InputError, match=r"column g: is blank, as are 2 of 3 rows; `group` needs"):
        table(g=["1", "", ""]).identities("g", "group")
