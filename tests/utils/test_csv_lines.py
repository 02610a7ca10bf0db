"""Rows of CSV are read back as they were written, whatever is in a cell."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from densenet121.utils.csv_lines import csv_writer

CELLS = st.text(st.sampled_from('ab\r\n\t",; \v\x85\u2028'))


@given(st.lists(st.lists(CELLS, min_size=2, max_size=3)))
def test_rows_are_read_back(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv_writer(text).writerows(rows)
    assert list(csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True)) == rows


def test_a_row_ends_in_a_line_feed_alone() -> None:
    text = io.StringIO()
    csv_writer(text).writerows([["path", "class"], ["a.png", 1.5], ["b\r\n", None]])
    assert text.getvalue() == 'path,class\na.png,1.5\n"b\r\n",\n'
