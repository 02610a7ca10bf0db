"""The image files that lists and tables name, and what is wrong where there is none."""

import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from densenet121.datasets.decoding import EXTENSIONS
from densenet121.datasets.sources.hidden_folders import is_hidden_folder
from densenet121.datasets.sources.splits import split_within
from densenet121.utils.errors import InputError, some
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


class ListedFiles:
    """The files below a folder that the paths of a list mean.

    A path is relative to the folder. Where the first one is no such file, but a name alone, with or
    without its extension, that an image somewhere below the folder has, all are such names: tables
    of ids lie beside folders of images. Either all are found so, or none.
    """

    def __init__(
        self, source: Path, image_dir: Path | None, first: str, kind: str = "list"
    ) -> None:
        """``kind`` is what messages call the file ``source``, ``first`` the first path in it.

        Raises:
            InputError: there is no folder ``image_dir``.
        """
        if image_dir is not None and not image_dir.is_dir():
            raise InputError(f"`image_dir` {image_dir}: there is no such folder")
        self.root = image_dir or source.parent
        self._source, self._kind, self._is_given = source, kind, image_dir is not None
        self._by_name: dict[str, list[str]] | None = None
        if not _URL.match(first) and not _is_file(self.root / first):
            found = _images_below(self.root)
            self._by_name = found if first in found else None

    def find(self, path: str, where: str, advice: str = "") -> tuple[str, int]:
        """The path of an image, relative to the folder, and its bytes.

        Args:
            path: the path or the name, as it is written.
            where: the place that names it, for messages.
            advice: what to do where there is no such file; else what paths are relative to.

        Raises:
            InputError: there is no such file, or several have the name; the text says which.
        """
        if self._by_name is None:
            return path, bytes_of(self.root, path, where, advice or self._advice(path))
        found = self._by_name.get(path, [])
        if len(found) != 1:
            several = (
                f"is the name of {some(found)}; pass the folder that is meant as `image_dir`, "
            )
            several += "or write the paths with their folders"
            none = f"no image below {self.root} has this name, as those before it have"
            raise InputError(f"{where}: {path}: {several if found else none}")
        self._check_split(found[0], where)
        return found[0], bytes_of(self.root, found[0], where, "")

    def _check_split(self, path: str, where: str) -> None:
        """Refuse test.csv whose numbers are found in train/, as where test/ is not there."""
        own = None if self._is_given else split_within(self._source.stem)
        for folder in Path(path).parts[:-1] if own else ():
            if (other := split_within(folder)) not in (None, own):
                raise InputError(
                    f"{where}: the name is found in {folder}/, which is called after {other}, but "
                    f"{self._source.name} after {own}; if these are its images, pass the folder as "
                    "`image_dir`"
                )

    def _advice(self, path: str) -> str:
        if self._is_given:
            return "paths are relative to `image_dir`"
        if _is_file(self.root.parent / path):
            return f"there is one below {self.root.parent}; pass it as `image_dir`"
        return (
            f"paths are relative to the {self._kind}; pass another folder for them as `image_dir`"
        )

    def notes(self, first: str, found: Sequence[str]) -> tuple[str, ...]:
        """A note if the images were found by their names; ``found`` are the paths."""
        if self._by_name is None:
            return ()
        return (
            f"{self._source}: the images were found by their names below {self.root}: {first} is "
            f"{found[0]}",
        )


def _images_below(root: Path) -> dict[str, list[str]]:
    """The images below a folder, by name, and by name and by path without the extension."""
    found: dict[str, list[str]] = {}
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        place = os.stat(folder)  # noqa: PTH116
        if (place.st_dev, place.st_ino) in seen:  # a link to a folder that is above it, or here
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below = os.path.relpath(folder, root)
        folders[:] = sorted(name for name in folders if not is_hidden_folder(name))
        for name in sorted(files):
            stem, extension = os.path.splitext(name)  # noqa: PTH122
            if name[0] == "." or extension.lower() not in EXTENSIONS:
                continue
            path = name if below == os.curdir else os.path.join(below, name)  # noqa: PTH118
            for key in {name, stem, path.removesuffix(extension)}:
                found.setdefault(key, []).append(path)
    return found


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
