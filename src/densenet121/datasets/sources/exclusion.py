"""Leave out the images that a file names, such as the list that ``audit`` writes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.splits import Split
from densenet121.datasets.sources.text import names_of
from densenet121.utils.errors import UsageError, some

_SPLITS: tuple[Split, ...] = get_args(Split)


def without_excluded(
    sides: Mapping[Split, ImageDataset], exclude: Path | None
) -> dict[Split, ImageDataset]:
    """The datasets without the images that a file names; validation may lose a class.

    Args:
        sides: the images of each side that is read.
        exclude: the file; see ``excluded_paths``.

    Raises:
        UsageError: as ``excluded_paths``.
        InputError: a class of training, or a side, would lose its last image.
    """
    if exclude is None:
        return dict(sides)
    excluded, passed_over = excluded_paths(exclude, {s: part.paths for s, part in sides.items()})
    found = {
        split: part.without(excluded[split], partial=split == "val")
        for split, part in sides.items()
    }
    if passed_over:
        first = next(iter(found))
        note = (
            f"{exclude}: lines of a side that is not read here, and passed over: "
            f"{some(passed_over, 1)}"
        )
        found[first] = found[first].with_notes(note)
    return found


def excluded_paths(
    exclude: Path, sides: Mapping[Split, Iterable[str]]
) -> tuple[dict[Split, set[str]], list[str]]:
    """The paths to leave out of each side, and the lines about a side that is not read.

    A line is ``train/PATH`` or ``val/PATH``, the image of that side alone; or a path without a
    side, that image of every side that has it.

    Args:
        exclude: the file, one image per line.
        sides: the paths of each side that is read.

    Raises:
        UsageError: a line names no image, or one as a path and another with its side.
    """
    lines = set(names_of(exclude))
    named = {line: _named(line) for line in lines}
    wanted = lines | {found[1] for found in named.values() if found}
    own = {split: {path for path in paths if path in wanted} for split, paths in sides.items()}
    excluded: dict[Split, set[str]] = {split: set() for split in sides}
    passed_over = []
    for line in sorted(lines):
        side = named[line]
        with_side = side if side and side[1] in own.get(side[0], ()) else None
        as_path = [split for split in sides if line in own[split]]
        if side and with_side and as_path:
            raise UsageError(
                f"`exclude` {exclude}: {line} may be {with_side[1]} or {line}, and both are there; "
                f"write {as_path[0]}/{line} for the second, and rename the folder {side[0]} to "
                "leave out the first"
            )
        if with_side:
            excluded[with_side[0]].add(with_side[1])
        elif as_path:
            for split in as_path:
                excluded[split].add(line)
        elif side and side[0] not in sides:
            passed_over.append(line)
        else:
            raise UsageError(f"`exclude` {exclude}: there is no image {line}")
    return excluded, passed_over


def _named(line: str) -> tuple[Split, str] | None:
    """The side and the path of a line that begins with a side."""
    start, _, path = line.partition("/")
    return next(((split, path) for split in _SPLITS if split == start and path), None)
