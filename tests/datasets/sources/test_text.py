"""Text as spreadsheets write it."""

import os
from pathlib import Path

import pytest

from densenet121.datasets.sources.text import csv_rows, is_error_value, names_of
from densenet121.datasets.tables import read_table
from densenet121.utils.errors import InputError


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("path;label;Patient, ID", ["path", "label", "Patient, ID"]),
        ('path;label;"Dose, mGy, in, all"', ["path", "label", "Dose, mGy, in, all"]),
        ("path,label,kind (a;b)", ["path", "label", "kind (a;b)"]),
        ("path,label;class", ["path", "label;class"]),
        ("path\tlabel\tAge, years", ["path", "label", "Age, years"]),
        ("path", ["path"]),
    ],
)
def test_a_header_is_separated_by_the_mark_that_it_has_most(
    header: str, expected: list[str]
) -> None:
    assert next(csv_rows(Path("t.csv"), f"{header}\r\n")) == expected


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_first_line_for_excel_is_no_row_but_counts_as_a_line(
    first: str, tmp_path: Path
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"{first}\r\npath;Dose, mGy, all\r\na.png;0,5\r\n")
    table = read_table(file)
    assert table.columns == {"path": ["a.png"], "Dose, mGy, all": ["0,5"]}
    assert list(table.lines) == [3]
    file.write_text(f"{first}\r\npath;a\r\na.png;0;5\r\n")
    with pytest.raises(InputError, match=r"line 3: has 3 cells, but the header has 2"):
        read_table(file)


def test_a_column_may_begin_with_sep() -> None:
    assert next(csv_rows(Path("t.csv"), "sep=,path\n")) == ["sep=", "path"]
    assert next(csv_rows(Path("t.csv"), "sep=\n\na,b\n")) == ["sep="]


def test_a_list_that_is_a_pipe_without_a_writer_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match=r"pipe.txt: cannot be read \(is a pipe into which"):
        names_of(tmp_path / "pipe.txt")


@pytest.mark.parametrize(
    "cell",
    [
        "#N/A",
        "#NV",
        "#N/D",
        "#REF!",
        "#DIV/0!",
        "#NAME?",
        "#WERT!",
        "#\xa1VALOR!",
        "#WA\u017bNE!",
        "#\u0417\u041d\u0410\u0427!",
        "#\u0414\u0415\u041b/0!",
        "#\u041d/\u0414",
        "#I/T",
        "#YOK",
        "#HI\xc1NYZIK",
        "Err:502",
        "#####",
    ],
)
def test_what_spreadsheets_write_for_an_error_is_known(cell: str) -> None:
    assert is_error_value(cell)


@pytest.mark.parametrize(
    "cell", ["#1", "##", "#food", "#FOOD", "N/A", "NV", "C#", "#12!", "#food!", "Err:5", ""]
)
def test_other_words_are_no_errors_of_spreadsheets(cell: str) -> None:
    assert not is_error_value(cell)
