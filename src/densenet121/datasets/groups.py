"""Groups of images that belong together, such as those of a patient."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from densenet121.utils.errors import InputError


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
        found = ids_by_pattern(paths, group, where)
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


def ids_by_pattern(paths: Sequence[str], pattern: str, where: str) -> list[str]:
    """The id in each path: what the parentheses of a regular expression match, else the whole.

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
        )
    return found


def check_spelling(ids: Sequence[str], group: str) -> None:
    """Refuse ids that are one number written in two ways, such as 5 and 5.0: one patient, not two.

    Raises:
        InputError: there are such ids.
    """
    seen: dict[Decimal, str] = {}
    for name in set(ids):
        if not re.fullmatch(r"\d+(\.\d+)?", name, re.ASCII):
            continue
        one, two = sorted((seen.setdefault(Decimal(name), name), name))
        if one != two:
            raise InputError(
                f"`group` {group}: {one} and {two} are one number; write ids in one way"
            )
