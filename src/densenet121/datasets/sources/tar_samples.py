"""Find the samples of tar shards: which image belongs to which label.

All shards are looked at before it is decided what the labels are, because a writer that crashed, or
a filter, may have lost the label files of some of them.
"""

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densenet121.datasets.decoding import EXTENSIONS, MAX_BYTES
from densenet121.datasets.sources.hidden_folders import is_system_folder
from densenet121.datasets.sources.splits import refuse_split_rows, split_columns
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.json_values import is_text, parse_json
from densenet121.utils.strays import refuse_stray

_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_MOST_NOTE_BYTES = 2**16  # maximum size of a .cls or .json
_MOST_END = 2**26  # bytes after the end of a tar file that are looked at


@dataclass(slots=True)
class Sample:
    """An image of a shard, with its label.

    Attributes:
        shard: number of the shard.
        member: its name in the tar.
        path: its path, which a .json may give.
        label: a class name or a number.
        offset: position of its first byte.
        size: bytes.
    """

    shard: int
    member: str
    path: str
    label: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Note:
    """A .cls or .json of a shard; ``label`` is empty if it has none, or several.

    ``content`` is the object of a .json.
    """

    member: str
    label: str
    path: str
    is_cls: bool
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Members:
    """The images of a shard, (name, offset, bytes) each, and its label files."""

    images: list[tuple[str, int, int]]
    notes: list[Note]


def read_members(file: Path) -> Members:
    """The members of one shard, in their order.

    Raises:
        InputError: it is damaged, or a member is too large.
    """
    found, end = Members([], []), 0
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                end = tar.offset
                if member.size < 0:  # Python before 3.13.6 goes back by it, and on without end
                    raise ValueError(f"{member.name}: {member.size} bytes")
                *folders, base = member.name.split("/")
                extension = base.rpartition(".")[2].lower()
                if member.isdir() or base.startswith(".") or "." not in base:
                    continue
                if any(map(is_system_folder, folders)):
                    continue
                if "." + extension in (*EXTENSIONS, ".cls", ".json"):
                    _check_plain(file, member)
                if "." + extension in EXTENSIONS:
                    if member.size > MAX_BYTES:
                        raise ValueError(
                            f"{member.name}: {member.size} bytes; the limit is {MAX_BYTES}"
                        )
                    found.images.append((member.name, member.offset_data, member.size))
                elif extension in ("cls", "json") and member.size <= _MOST_NOTE_BYTES:
                    content = tar.extractfile(member)
                    text = content.read().decode("utf-8", "surrogateescape") if content else ""
                    found.notes.append(_note(file, member.name, text))
            _check_end(file, end, tar.offset)
    except InputError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        refuse_stray(file)
        _refuse_compressed(file)
        raise InputError(f"{file}: damaged or not a tar file ({error})") from None
    return found


def _check_end(file: Path, end: int, last: int) -> None:
    """Refuse members after what tarfile takes for the end without a word.

    That is the first head that is damaged, or the first empty block, as between two tar files that
    cat has put together. A file that ends without empty blocks has a note (``cut_short``).

    Args:
        file: the shard.
        end: where the last member that was read ends.
        last: where tarfile ended.
    """
    with file.open("rb") as opened:
        opened.seek(end)
        head = opened.read(tarfile.BLOCKSIZE)
        if end != last or (len(head) == tarfile.BLOCKSIZE and head.strip(b"\0")):
            raise ValueError(f"what is at byte {end} is no head of a member")
        place, rest = end, head
        while rest and place < end + _MOST_END:
            if rest.strip(b"\0") and len(head) == tarfile.BLOCKSIZE:
                raise InputError(
                    f"{file}: goes on after the empty blocks at byte {end}, where a tar file ends, "
                    "as files do that cat has put together; unpack it with tar --ignore-zeros "
                    "(without, tar ends there, too) and write one anew"
                )
            place, rest = opened.tell(), opened.read(2**20)


def _refuse_compressed(file: Path) -> None:
    """Refuse a file that is compressed though its name does not say so, as of ``tar czf x.tar``."""
    with file.open("rb") as opened:
        start = opened.read(6)
    for first, name in _COMPRESSED:
        if start.startswith(first):
            raise InputError(f"{file}: is compressed ({name}); unpack it, and pass the .tar")


def _check_plain(file: Path, member: tarfile.TarInfo) -> None:
    """Refuse an image or a label whose bytes are not where its head is.

    Raises:
        InputError: it is a link, a sparse file or no file.
    """
    if not member.isreg() or member.issparse():
        kind = "a link" if member.islnk() or member.issym() else "no plain file"
        raise InputError(
            f"{file}: {member.name} is {kind}, so its bytes are not there; write the tar file "
            "with --dereference --hard-dereference and without --sparse"
        )


def _note(file: Path, member: str, text: str) -> Note:
    if member.lower().endswith(".cls"):
        return Note(member, text.strip(), "", is_cls=True)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{file}: {member} is damaged or no JSON ({one_line(error)})") from None
    path, label = "", ""
    if isinstance(content, dict):
        given = content.get("path")
        path = given if isinstance(given, str) else ""
        given = content.get("label")
        if isinstance(given, float) and given.is_integer():  # pandas, where another label is none
            given = int(given)
        if isinstance(given, int | str) and not isinstance(given, bool):
            label = str(given)
        if not (is_text(path) and is_text(label)):
            raise InputError(f"{file}: the path or label in {member} has half a character")
    known = content if isinstance(content, dict) else None
    return Note(member, label, path, is_cls=False, content=known)


def _refuse_several(file: Path, notes: Sequence[Note], label: str) -> None:
    """Refuse several labels of an image where one class is asked for."""
    for note in notes:
        content = note.content or {}
        for key in ("label", "labels"):
            given = content.get(key)
            if isinstance(given, list | dict) and (key == "label" or not label):
                raise InputError(
                    f"{file}: the {key} in {note.member} is a {type(given).__name__}; one class "
                    "per image is needed, or `task` multilabel"
                )


def notes_of_images(file: Path, shard: Members) -> list[Note]:
    """The .json of each image of a shard, in the order of the images.

    Raises:
        InputError: an image has none or several, or two images share one.
    """
    key_of = _key_of(shard)
    notes: dict[str, list[Note]] = {}
    for note in shard.notes:
        if note.content is not None:
            notes.setdefault(key_of(note.member), []).append(note)
    found = []
    seen: set[str] = set()
    for name, _, _ in shard.images:
        key = key_of(name)
        if key in seen:
            raise InputError(f"{file}: two images have the name {key}")
        seen.add(key)
        own = notes.get(key, [])
        if len(own) != 1:
            problem = "has no .json beside it" if not own else f"has {len(own)} .json beside it"
            raise InputError(
                f'{file}: {name} {problem}; several labels are read from one, as {{"labels": ...}}'
            )
        found += own
    return found


def label_samples(files: Sequence[Path], shards: Iterable[Members]) -> list[Sample]:
    """Every image with its label, in the order of the shards.

    Args:
        files: the shards.
        shards: the members of each; one shard is looked at after the other.

    Raises:
        InputError: an image has no label or two images share one; a label has no image; a folder
            of images is within another.
    """
    samples: list[Sample] = []
    bare: list[tuple[int, Members]] = []
    splits: dict[str, set[object]] = {}
    for number, shard in enumerate(shards):
        for content in (note.content or {} for note in shard.notes):
            for name in split_columns(content):
                if isinstance(content[name], str):
                    splits.setdefault(name, set()).add(content[name])
        if _annotated(shard):
            samples += _by_note(files[number], number, shard)
        elif shard.images:
            bare.append((number, shard))
    if samples and bare:
        number, shard = bare[0]
        samples += _by_note(files[number], number, shard)  # raises
    _refuse_nested(files, bare)
    for name, values in splits.items():
        refuse_split_rows(files[0].parent, f"{name} in the .json of its shards", values)
    for number, shard in bare:
        samples += _by_folder(files[number], number, shard)
    return samples


def _refuse_nested(files: Sequence[Path], bare: Sequence[tuple[int, Members]]) -> None:
    """Refuse folders of images within others, either of which could be the class.

    Class folders that are no tar give the images of cat/new to the class cat. Those of cat/cat are
    of the class cat in both.
    """
    first: dict[str, tuple[int, str]] = {}  # of each folder, its first image
    for number, shard in bare:
        for name, _, _ in shard.images:
            first.setdefault(os.path.dirname(os.path.normpath(name)), (number, name))  # noqa: PTH120
    for folder, (number, name) in first.items():
        own = Path(folder).name
        around = (one for one in Path(folder).parents if str(one) in first and one.name != own)
        if outer := next(map(str, around), None):
            raise InputError(
                f"{files[number]}: {name} is in the class {own} or, with "
                f"{first[outer][1]}, in {Path(outer).name}; write all images of a class right "
                "inside its folder, or a .cls beside each"
            )


def _annotated(shard: Members) -> bool:
    """Whether an image has a .cls or .json, or there is a .cls at all."""
    keys = {_short_key(name) for name, _, _ in shard.images}
    return any(note.is_cls or _short_key(note.member) in keys for note in shard.notes)


def _by_folder(file: Path, number: int, shard: Members) -> Iterator[Sample]:
    """Without label files the folder is the class; the name up to its last dot is the key."""
    seen: set[str] = set()
    for name, offset, size in shard.images:
        key = _long_key(name)
        if key in seen:
            raise InputError(f"{file}: two images have the name {key}")
        seen.add(key)
        label = os.path.basename(os.path.dirname(key))  # noqa: PTH119, PTH120
        if not label:
            raise InputError(
                f"{file}: {name} has no label: no .cls, no .json with a label, no folder"
            )
        yield Sample(number, name, name, label, offset, size)


def _key_of(shard: Members) -> Callable[[str], str]:
    """WebDataset's key, which ends at the first dot, unless two images would share it.

    The key that ends at the last dot may still tell them apart: "Photo 10.20.33.jpeg".
    """
    if len({_short_key(name) for name, _, _ in shard.images}) < len(shard.images):
        long = {_long_key(name) for name, _, _ in shard.images}
        noted = {_long_key(note.member) for note in shard.notes}
        if len(long) == len(shard.images) and long <= noted:
            return _long_key
    return _short_key


def _by_note(file: Path, number: int, shard: Members) -> Iterator[Sample]:
    key_of = _key_of(shard)
    notes: dict[str, list[Note]] = {}
    for note in shard.notes:
        notes.setdefault(key_of(note.member), []).append(note)
    seen: set[str] = set()
    unlabelled = []
    samples = []
    for name, offset, size in shard.images:
        key = key_of(name)
        if key in seen:
            raise InputError(f"{file}: two images have the name {key}")
        seen.add(key)
        own = sorted(notes.get(key, []), key=lambda note: (not note.is_cls, note.member.count(".")))
        label = next((note.label for note in own if note.label), "")
        _refuse_several(file, own, label)
        for note in own[1:]:
            if note.is_cls and note.member.count(".") == own[0].member.count("."):
                raise InputError(
                    f"{file}: {name} has two labels, {own[0].member} and {note.member}"
                )
        path = next((note.path for note in own if note.path), name)
        if not label:
            unlabelled.append(name)
        samples.append(Sample(number, name, path, label, offset, size))
    if unlabelled:
        raise InputError(
            f"{file}: {unlabelled[0]} has no label: no .cls and no .json with a label "
            f"({len(unlabelled)} of {len(shard.images)} images); folders are classes only where no "
            "image of all the shards has a .cls or .json"
        )
    alone = [note.member for key in notes.keys() - seen for note in notes[key] if note.label]
    if alone:
        raise InputError(
            f"{file}: {min(alone)} has a label, but no image beside it ({len(alone)} in all)"
        )
    yield from samples


def _short_key(name: str) -> str:
    """Folder and name up to the first dot."""
    folder, _, base = os.path.normpath(name).rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def _long_key(name: str) -> str:
    """Folder and name up to the last dot."""
    return os.path.normpath(name).rpartition(".")[0]
