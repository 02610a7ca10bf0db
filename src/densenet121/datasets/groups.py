"""Groups of images that belong together, such as those of a patient."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal

from densenet121.datasets.sources.text import is_error_value
from densenet121.utils.errors import InputError, some

_NUMBER = re.compile(r"\d+([.,]\d+)?", re.ASCII)
_WITH_NUMBER = re.compile(r"([^0-9]*)([0-9]+)([^0-9]*)")
# 1.23457E+12, as spreadsheets show ids, and 1.23457e+12, as programs print them.
_ROUNDED = re.compile(r"\d([.,]\d+)?[Ee]\+\d\d", re.ASCII)
# What programs write for a blank cell: Python, pandas, SQL, R, and people.
_NO_ID = frozenset(("nan", "NaN", "NaT", "<NA>", "None", "NULL", "null", "NA", "N/A", "n/a"))


def group_ids(
    paths: Sequence[str], columns: Mapping[str, Sequence[str]], group: str, where: str
) -> list[str]:
    """The id of each image's group.

    Args:
        paths: path of each image.
        columns: what else is known of each image, by column.
        group: a column, or a regular expression that finds the id in the path
            (``ids_by_pattern``).
        where: where the images come from, for messages.

    Raises:
        InputError: an image has no id, or a number is written in two ways.
    """
    if group not in columns:
        found = ids_by_pattern(paths, group, where, list(columns))
        check_spelling(found, group)
        return found
    found = list(columns[group])
    blank = [path for path, name in zip(paths, found, strict=True) if not name]
    if blank:
        raise InputError(
            f"{where}: column {group} (`group`) is blank for {blank[0]} and {len(blank) - 1} more "
            f"of {len(found)} images"
        )
    check_spelling(found, group)
    return found


def ids_by_pattern(
    paths: Sequence[str], pattern: str, where: str, columns: Sequence[str] = ()
) -> list[str]:
    """The id in each path: what the parentheses of a regular expression match, else the whole.

    ``columns`` are those that could have been meant, for messages.

    Raises:
        InputError: the expression is invalid or has several parentheses, or a path has no id.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"`group` {pattern}: neither a column nor a regular expression ({error})"
        ) from None
    if expression.groups > 1:
        raise InputError(f"`group` {pattern}: has {expression.groups} parentheses; one is allowed")
    matches = [expression.search(path) for path in paths]
    found = [match[expression.groups] or "" if match else "" for match in matches]
    without = [path for path, name in zip(paths, found, strict=True) if not name]
    if without:
        raise InputError(
            f"{where}: `group` {pattern} is no column and finds no id in {without[0]}, nor in "
            f"{len(without) - 1} more of {len(paths)} paths"
            + (f"; the columns are {some(columns, 20)}" if columns else "")
        )
    return found


def check_spelling(ids: Sequence[str], group: str) -> None:
    """Refuse ids that are one patient, not two: 5 and 5.0, P7 and p007, Doe J with two blanks.

    Raises:
        InputError: there are such ids, or one that a spreadsheet has rounded or that is none.
    """
    seen: dict[tuple[str, Decimal, str], str] = {}
    for name in sorted(set(ids)):
        if _ROUNDED.fullmatch(name):
            raise InputError(
                f"`group` {group}: {name} is a number that a spreadsheet has rounded, so that "
                "several ids may be the same; write ids as text"
            )
        if name in _NO_ID:
            raise InputError(
                f"`group` {group}: {name} is how programs write a blank cell, so that images of "
                "several patients would be of one; give each image its id"
            )
        if is_error_value(name):
            raise InputError(
                f"`group` {group}: {name} is what a spreadsheet writes where a formula fails, so "
                "that images of several patients would be of one; give each image its id"
            )
        one = seen.setdefault(_spelling(name), name)
        if one == name:
            continue
        if _NUMBER.fullmatch(one) and _NUMBER.fullmatch(name):
            how = f"{one} and {name} are one number"
        else:
            how = (
                f"{one!a} and {name!a} are alike but for capitals, blanks, zeros before "
                "a number, ^ at the end or the code of a letter"
            )
        raise InputError(f"`group` {group}: {how}; write ids in one way")


def _spelling(name: str) -> tuple[str, Decimal, str]:
    """What is left of an id without the ways to write it.

    An id with several numbers keeps their zeros, which may tell hashes of one length apart.
    """
    # Bytes that are no UTF-8 are most likely Latin-1, of a list that another program saved.
    name = re.sub("[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), name)
    seen = "".join(one for one in name if unicodedata.category(one) != "Cf")  # no width, no sign
    plain = " ".join(unicodedata.normalize("NFKC", seen).casefold().split())
    plain = plain.rstrip("^ ") or plain  # of a name in DICOM, whose last parts may be left blank
    if _NUMBER.fullmatch(plain):
        return "", Decimal(plain.replace(",", ".")), ""
    if found := _WITH_NUMBER.fullmatch(plain):
        return found[1], Decimal(found[2]), found[3]
    return plain, Decimal(-1), ""
