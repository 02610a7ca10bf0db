"""Labels of images with several findings, from the columns of a table.

Either one column a label (1, 0, -1, blank, true, false, yes, no), as in CheXpert's files, or one
column with all findings of an image (``Edema|Mass``), as in NIH's. Nothing is guessed: what -1
(uncertain) and blank cells mean has to be said.
"""

import ast
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.sources.text import is_error_value
from densenet121.datasets.tables import Table
from densenet121.utils.errors import InputError, UsageError, some

Meaning = Literal["ignore", "0", "1"]
# What all labels have, or by label, with "" for those that are not named; None refuses the cells.
Choice = Meaning | Mapping[str, Meaning] | None

_MEANINGS = {"ignore": np.nan, "0": 0.0, "1": 1.0}
# Programs write 1 with decimals, and a blank cell as nan (Python), NA (R) or NULL (SQL).
_DECIMALS = ("", *("." + "0" * count for count in range(1, 21)))
_CELLS = {"true": 1.0, "yes": 1.0} | {f"1{zeros}": 1.0 for zeros in _DECIMALS}
_CELLS |= {"false": 0.0, "no": 0.0} | {f"0{zeros}": 0.0 for zeros in _DECIMALS}
_UNCERTAIN = frozenset(f"-1{zeros}" for zeros in _DECIMALS)
_BLANK = frozenset(("", "nan", "na", "null"))
_NO_WORDS = frozenset(("", "nan", "null"))  # in a column that lists labels, where NA may be one
_PYTHON_LIST = re.compile(r"""\[(\s*['"].*['"]\s*)?\]""")
# Every cell that can be in a column of labels, in lower case; those without a value of their own
# are nan.
LABEL_CELLS = _CELLS | dict.fromkeys((*_UNCERTAIN, *_BLANK), math.nan)


def class_of_columns(names: Sequence[str], cells: Sequence[str], where: str) -> str:
    """The one class whose column has a 1, where those of all others have a 0, as in ISIC's tables.

    Args:
        names: the classes, which are columns.
        cells: their cells in a row.
        where: the place of the row, for messages.

    Raises:
        InputError: a cell is neither, or not exactly one is 1.
    """
    values = [_CELLS.get(cell.lower()) for cell in cells]
    if None in values:
        at = values.index(None)
        raise InputError(f'{where}, column {names[at]}: "{cells[at]}" is neither 1 nor 0')
    found = [name for name, value in zip(names, values, strict=True) if value]
    if len(found) != 1:
        which = f"the classes {some(found)} have" if found else "no class has"
        raise InputError(
            f"{where}: {which} a 1; one class per image is needed, or `task` multilabel"
        )
    return found[0]


def labels_of_columns(
    table: Table,
    names: Sequence[str],
    *,
    uncertain: Choice = None,
    missing: Choice = None,
    partial: bool = False,
) -> NDArray[np.float64]:
    """``(n, L)``: 1, 0 or nan (unknown) from one column a label.

    Args:
        table: the table.
        names: the labels, which are columns.
        uncertain: what a -1 means; None refuses it.
        missing: what a blank cell means; None refuses it.
        partial: accept a column that is blank throughout, where a blank cell means unknown.

    Raises:
        InputError: a label is no column, a cell is something else, a column is blank throughout,
            or there are cells whose meaning is not said.
    """
    for name in names:
        if name not in table.columns:
            raise InputError(
                f"{table.file}: no column named {name} (`labels`); it has "
                f"{some(list(table.columns), 20)}; a column that lists the labels is named by "
                "`label_column`"
            )
    found = np.empty((len(table), len(names)))
    uncertain_cells: Counter[str] = Counter()
    missing_cells: Counter[str] = Counter()
    blank_cells: Counter[str] = Counter()
    for column, name in enumerate(names):
        of_uncertain, of_missing = meaning(uncertain, name), meaning(missing, name)
        for row, cell in enumerate(table.columns[name]):
            value = _CELLS.get(cell.lower())
            if value is not None:
                found[row, column] = value
            elif cell in _UNCERTAIN:
                uncertain_cells[name] += of_uncertain is None
                found[row, column] = _MEANINGS[of_uncertain or "ignore"]
            elif cell.lower() in _BLANK:
                blank_cells[name] += 1
                missing_cells[name] += of_missing is None
                found[row, column] = _MEANINGS[of_missing or "ignore"]
            else:
                raise InputError(
                    f'{table.where(row, name)}: "{cell}" is not a label; allowed are 1, 0, -1, '
                    "blank, true, false, yes and no"
                )
    blank = [name for name in names if blank_cells[name] == len(table)]
    _refuse_blank(table, blank, missing, partial)
    _refuse(table, uncertain_cells, "-1 (uncertain)", "uncertain", "ignore, 0 or 1")
    _refuse(table, missing_cells, "blank", "missing", "ignore or 0")
    return found


def _refuse_blank(table: Table, blank: Sequence[str], missing: Choice, partial: bool) -> None:
    """Refuse columns that are blank throughout, unless they may be unknown, and are said to be."""
    advice = "leave it out of `labels`"
    if partial:
        blank = [name for name in blank if meaning(missing, name) != "ignore"]
        advice = "pass `missing` ignore if it is not known for these images"
    if blank:
        raise InputError(
            f"{table.file}: all {len(table)} cells of {some(blank)} are blank; {advice}"
        )


def meaning(choice: Choice, name: str) -> Meaning | None:
    """What the cells of a label mean by this choice; None refuses them."""
    if choice is None or isinstance(choice, str):
        return choice
    return choice.get(name, choice.get(""))


def labels_of_lists(
    table: Table,
    column: str,
    names: Sequence[str],
    *,
    separator: str | None = None,
    negative: str | None = None,
    ignored: Collection[str] = (),
    missing: Choice = None,
) -> NDArray[np.float64]:
    """``(n, L)``: 1, 0 or nan (unknown) from one column that lists the findings of each image.

    Findings are compared as a whole: "Mass" is not found in "Massive".

    Args:
        table: the table.
        column: the column.
        names: the labels.
        separator: what separates the findings of an image; None: a cell is one finding.
        negative: the word for no finding.
        ignored: findings that are no label, and are passed over.
        missing: what a blank cell means for all labels of the image; None refuses it.

    Raises:
        InputError: no such column, an unknown finding, a label that is the negative word in other
            letters, the negative word beside a finding, a column that is blank throughout, or
            blank cells whose meaning is not said.
        UsageError: a label is ignored.
    """
    return labels_of_findings(
        table,
        column,
        listed_in(table, column, separator, {negative, *ignored}),
        names,
        separator=separator,
        negative=negative,
        ignored=ignored,
        missing=missing,
    )


def listed_in(
    table: Table, column: str, separator: str | None, words: Collection[str | None]
) -> list[list[str] | None]:
    """The findings that each cell of a column lists; None for a blank cell.

    Where all cells are lists as Python writes them, as in PadChest's table, these are read; an
    empty one has no finding. ``words`` are those for no label.

    Raises:
        InputError: no such column, lists of Python beside other cells or with a separator, or a
            spreadsheet's word for an error.
    """
    cells = table.cells(column, "label_column")
    blank = [is_blank(cell, words) for cell in cells]
    python = [_python_list(cell) for cell in cells]
    known = [none or found is not None for none, found in zip(blank, python, strict=True)]
    if separator is None and all(known):
        return python
    for row, cell in enumerate(cells):
        if python[row] is not None:
            raise InputError(
                f"{table.where(row, column)}: {cell} is a list as Python writes it; write all "
                "cells so and omit `label_separator`, or none, as in Edema|Mass"
            )
        if is_error_value(cell) and cell not in words:
            raise InputError(
                f"{table.where(row, column)}: {cell} is what a spreadsheet writes where a formula "
                "fails; write the labels, or leave the cell blank"
            )
    return [
        None if none else (parts_of(cell, separator) if separator else [cell]) or None
        for cell, none in zip(cells, blank, strict=True)
    ]


def _python_list(cell: str) -> list[str] | None:
    """The texts of a list as Python writes it, without blank ones; None if it is no such list."""
    if not _PYTHON_LIST.fullmatch(cell):
        return None
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in found):
        return None
    return [text.strip() for text in found if text.strip()]


def is_blank(cell: str, words: Collection[str | None]) -> bool:
    """Whether a cell of such a column has no label; unless it is one of ``words``, nan has none."""
    return cell.lower() in _NO_WORDS and cell not in words


def parts_of(cell: str, separator: str) -> list[str]:
    """The findings that a cell lists; blank parts, as after a last separator, are none."""
    return [part.strip() for part in cell.split(separator) if part.strip()]


def labels_of_findings(
    table: Table,
    column: str,
    listed: Sequence[Sequence[str] | None],
    names: Sequence[str],
    *,
    separator: str | None = None,
    negative: str | None = None,
    ignored: Collection[str] = (),
    missing: Choice = None,
) -> NDArray[np.float64]:
    """As ``labels_of_lists``, from lists; one that is None is a blank cell.

    ``table`` and ``column`` are for messages.
    """
    _check_words(table, column, names, negative, ignored)
    place = {name: index for index, name in enumerate(names)}
    found = np.zeros((len(table), len(names)))
    unknown: Counter[str] = Counter()
    blank = 0
    for row, findings in enumerate(listed):
        if findings is None:
            blank += 1
            found[row] = [_MEANINGS[meaning(missing, name) or "ignore"] for name in names]
            continue
        if negative in findings and len(set(findings)) > 1:
            cell = (separator or ", ").join(findings)
            raise InputError(
                f'{table.where(row, column)}: "{cell}" has {negative} (`negative_label`) beside '
                "a finding"
            )
        for finding in findings:
            if finding in place:
                found[row, place[finding]] = 1.0
            elif finding != negative and finding not in ignored:
                unknown[finding] += 1
    if blank == len(table):
        raise InputError(f"{table.file}: all {blank} cells of {column} are blank")
    if unknown:
        raise InputError(_unknown(table, column, unknown, names, separator))
    if blank and any(meaning(missing, name) is None for name in names):
        _refuse(table, Counter({column: blank}), "blank", "missing", "ignore or 0")
    return found


def _check_words(
    table: Table,
    column: str,
    names: Sequence[str],
    negative: str | None,
    ignored: Collection[str],
) -> None:
    for name in names:
        # Else images without a finding would have this one.
        if negative is not None and name != negative and name.casefold() == negative.casefold():
            raise InputError(
                f"{table.file}, column {column}: the label {name} and the word for no finding, "
                f"{negative} (`negative_label`), differ in upper and lower case alone; write both "
                "in one way"
            )
        if name in ignored:
            raise UsageError(
                f"{table.file}: `ignore_labels` names {name}, which is one of the labels "
                f"{some(names, 20)}; only other words of the column {column} can be ignored"
            )


def _unknown(
    table: Table, column: str, unknown: Counter[str], names: Sequence[str], separator: str | None
) -> str:
    found = _counted(unknown)
    hint = "name a word for no finding by `negative_label`, others that do not count by "
    hint += "`ignore_labels`"
    joined = [mark for mark in "|;," if any(mark in finding for finding in unknown)]
    if separator is None and joined:
        hint = f"`label_separator` {joined[0]} would separate them"
    return (
        f"{table.file}, column {column}: {found} is not among the labels {some(names, 20)}; {hint}"
    )


def _refuse(table: Table, cells: Counter[str], what: str, field: str, choices: str) -> None:
    cells = +cells  # without zeros
    if cells:
        raise InputError(
            f"{table.file}: of {len(table)} rows these are {what}: {_counted(cells)}; "
            f"`{field}` says what that means: {choices}"
        )


def _counted(cells: Counter[str]) -> str:
    return some([f"{name} ({count})" for name, count in cells.most_common()])
