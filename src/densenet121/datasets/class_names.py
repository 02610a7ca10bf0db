"""Names of classes and labels that people read as one, and those with other bytes than UTF-8."""

import unicodedata
from collections.abc import Collection, Sequence

_MOST = 4  # groups of names in a note


def name_notes(where: object, names: Sequence[str]) -> list[str]:
    """What a user should know of the names of the classes or labels in ``where``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_read_as(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    notes = []
    if alike:
        shown = "; ".join(" and ".join(map(shown_apart, group)) for group in alike[:_MOST])
        more = f" and {len(alike) - _MOST} more" if len(alike) > _MOST else ""
        notes.append(
            f"{where}: names that differ only in case, blanks or the codes of an accent are "
            f"different classes or labels: {shown}{more}; write them alike if they mean the same"
        )
    others = [name for name in names if not _is_utf8(name)]
    if others:
        notes.append(
            f"{where}: the name {others[0]!a} has bytes that are not UTF-8 ({len(others)} of "
            f"{len(names)} names), so it is another than the same name in UTF-8; save the list, or "
            "rename the folder, in UTF-8"
        )
    return notes


def told_apart(names: Sequence[str], others: Collection[str]) -> list[str]:
    """Names as a message shows them beside ``others``, from which a reader has to tell them."""
    read = set(map(_read_as, others))
    return [shown_apart(name) if _read_as(name) in read else name for name in names]


def shown_apart(name: str) -> str:
    """A name in which blanks at its ends and the codes of accents can be seen."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def _read_as(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
