"""The image files that lists and tables name, and what is wrong where there is none."""

import os
import re
import stat
import unicodedata
from pathlib import Path

from densenet121.datasets.decoding import EXTENSIONS
from densenet121.utils.errors import InputError
from densenet121.utils.strays import broken_link

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def plain_path(root: Path, path: str) -> str:
    """A path below ``root`` in one spelling: ``./a.png`` and ``b/../a.png`` are ``a.png``.

    Where ``..`` comes after a link to a folder, it leads elsewhere, and the path stays as it is.
    """
    plain = os.path.normpath(path)
    if Path(path).parts.count("..") == Path(plain).parts.count(".."):
        return plain
    places = {os.path.realpath(os.path.join(root, one)) for one in (plain, path)}  # noqa: PTH118
    return plain if len(places) == 1 else path


def bytes_of(root: Path, path: str, where: str, advice: str) -> int:
    """The bytes of an image.

    Args:
        root: the folder that the path is relative to.
        path: the path, as it is written.
        where: the place that names it, for messages.
        advice: what to do where there is no such file, and nothing better is known.

    Raises:
        InputError: there is no such file; the text says which there is, if it is called alike.
    """
    if _URL.match(path):
        raise InputError(f"{where}: {path}: is a URL; download the image, and write its path")
    try:
        found = (root / path).stat()
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and (link := broken_link(root / path)):
            raise InputError(f"{where}: {root / path}: is {link}") from None
        reason = getattr(error, "strerror", None) or str(error)
        advice = _other_spelling(root, path) or advice
        raise InputError(f"{where}: {root / path}: {reason}; {advice}") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{where}: {root / path}: is a folder; each image needs a line of its own")
    return found.st_size


def _other_spelling(root: Path, path: str) -> str | None:
    """What to write instead, where a path is spelt otherwise than its file; None if unknown."""
    if path.startswith("~"):
        return "~ is not followed; write the whole path"
    if "\\" in path:
        return "folders are separated by /, not by \\, and a drive such as C: is not known here"
    if re.search("[\udc80-\udcff]", path):
        return (
            "it has bytes that are not UTF-8, as Excel writes accents in a plain CSV; save the "
            "list as CSV UTF-8"
        )
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, path)) != path and _is_file(root / other):
            return (
                f"there is one that looks alike, {other!a}; write the path with the same codes of "
                "accents: macOS writes a letter and its accent apart, Excel as one"
            )
    folder, name = os.path.split(root / path)
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (OSError, ValueError):
        return None
    for other in sorted(names):
        if other.casefold() == name.casefold():
            return f"there is {other}; upper and lower case have to be the same"
        stem, extension = os.path.splitext(other)  # noqa: PTH122
        if stem == name and extension.lower() in EXTENSIONS:
            return f"there is {other}; a path has to end in the extension of its file"
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
