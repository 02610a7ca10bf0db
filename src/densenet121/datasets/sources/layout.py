"""Which folders are splits, which are classes, and what else lies in them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from densenet121.datasets.decoding import EXTENSIONS
from densenet121.datasets.sources.hidden_folders import is_hidden_folder
from densenet121.datasets.sources.splits import VAL_FOLDERS, are_splits, split_of, split_within
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.strays import broken_link

# Kinds of files that hold many images: what messages call them, and their names.
PACKED = {
    ".tar": ("tar files", re.compile(r".*\.tar")),
    ".parquet": ("Parquet files", re.compile(r".*\.parquet")),
    # name.tfrecord, TensorFlow Datasets' name-train.tfrecord-00000-of-00004, and ImageNet's
    # train-00000-of-01024.
    ".tfrecord": (
        "TFRecord files",
        re.compile(r".*\.tfrec(ords?)?(-\d+-of-\d+)?|[^.]+-\d{5}-of-\d{5}"),
    ),
    ".mindrecord": ("MindRecord files", re.compile(r".*\.mindrecord\d*")),
    ".h5": ("HDF5 files", re.compile(r".*\.(h5|hdf5)", re.IGNORECASE)),
    ".arrow": ("Arrow files", re.compile(r".*\.arrow")),  # of a folder with state.json
}

# What is read only after it was unpacked: x.tar.gz, x.tgz, x.zip, x.tfrecord.gz and others.
_COMPRESSED = re.compile(
    r".*\.(tar|parquet|tfrec(ords?)?|h5|hdf5)\.(gz|bz2|xz|zst|lz4)|.*\.(tgz|tbz2?|txz|tzst|zip|7z|rar)",
    re.IGNORECASE,
)


def split_folders(data_dir: Path, val_dir: Path | None) -> tuple[Path, Path | None]:
    """The folders of the training and the validation images.

    ``data_dir`` has class folders, or ``train/`` with or without ``val/`` (or ``valid/`` or
    ``validation/``). Without ``val_dir`` the one beside ``train`` is used, if it exists.

    Raises:
        UsageError: several folders of validation images lie beside ``train``.
    """
    train_dir = data_dir / "train" if is_split(data_dir / "train") else data_dir
    if val_dir is None and train_dir.name == "train":
        val_dir = _validation_beside(train_dir)
    return train_dir, val_dir


def evaluation_folder(data_dir: Path) -> Path:
    """The validation images beside ``data_dir/train``, or ``data_dir`` without ``train/``.

    Raises:
        UsageError: there is a ``train/`` but no ``val/``, so the folder is ambiguous; or several.
    """
    if not is_split(data_dir / "train"):
        return data_dir
    found = _validation_beside(data_dir / "train")
    if found:
        return found
    others = [name for name in subfolders(data_dir) if split_of(name) in ("val", "test")]
    raise UsageError(
        f"`data_dir` {data_dir} has train/ but no val/; pass the folder to evaluate, "
        f"e.g. {data_dir / (others[0] if others else 'train')}"
    )


def folder_notes(data_dir: Path, train_dir: Path, val_dir: Path | None) -> list[str]:
    """What lies beside ``train/`` and is not read, for the log."""
    if train_dir == data_dir:
        return []
    read = {train_dir, *([val_dir] if val_dir else [])}
    notes = []
    for name in subfolders(data_dir):
        if data_dir / name in read or not has_images(data_dir / name):
            continue
        if val_dir is None and split_of(name) == "val":
            notes.append(f"{name}/ is not read: validation images are expected in val/")
        elif val_dir is None and split_of(name) == "test":
            notes.append(
                f"{name}/ is not read, because weights that are chosen by test images look better "
                f"than they are; to validate on it pass `val_dir` {data_dir / name}"
            )
        elif split_of(name) is None:
            notes.append(f"{name}/ beside train/ is not read")
    return [f"{data_dir}: {note}" for note in notes]


def _validation_beside(train_dir: Path) -> Path | None:
    found = [train_dir.with_name(name) for name in VAL_FOLDERS]
    for folder in found:
        _refuse_broken(folder)
    found = [folder for folder in found if folder.is_dir()]
    if len(found) > 1:
        found = [folder for folder in found if has_images(folder)] or found[:1]
    return only_one(found)


def only_one(found: Sequence[Path]) -> Path | None:
    """The only folder of validation images, None if there is none.

    Raises:
        UsageError: there are several.
    """
    if len(found) > 1:
        raise UsageError(
            f"`data_dir` {found[0].parent} has {' and '.join(f'{f.name}/' for f in found)}, and "
            "either may be the validation images; pass one as `val_dir`"
        )
    return found[0] if found else None


def is_split(folder: Path) -> bool:
    """Whether a folder called train has classes of its own: folders or packed files.

    A folder that has only images right inside is a class that is called train.
    """
    if not folder.is_dir():
        return False
    if has_packed(folder) or not images_inside(folder):
        return True
    return any(has_images(folder / name) for name in subfolders(folder))


def refuse_splits(root: Path, field: str, names: Sequence[str]) -> None:
    """Refuse class folders that are splits under other names than train and val.

    Raises:
        InputError: the text says what is expected.
    """
    within = {name: _unpacked(root / name) for name in names if split_within(name)}
    folders = {name: set(subfolders(folder)) for name, folder in within.items()}
    # Only splits have the same folders within; where a name has other words, too, more than one.
    nested = [a for a in within if any(_alike(a, b, folders) for b in within if b != a)]
    meant = {name: split_within(name) for name in nested}
    if len(set(meant.values())) > 1:
        train = next((name for name in nested if meant[name] == "train"), nested[0])
        others = [name for name in nested if name != train]
        val = next((name for name in others if meant[name] == "val"), others[0])
        raise InputError(
            f"`{field}` {root}: {some(nested)} have the same folders within, so they are splits "
            f"and not classes; call them train and val, or pass `data_dir` {within[train]} "
            f"`val_dir` {within[val]}"
        )
    _refuse_splits_of_classes(root, field, names)
    if are_splits(names):
        first = sorted(names, key=lambda name: split_of(name) != "train")
        raise InputError(
            f"`{field}` {root}: {some(names)} are names of splits, but have no class folders "
            "within; a split needs one folder of images per class, and for classes of these names "
            f'pass a list of "path label" lines{table_hint([root / name for name in first])}'
        )


def _unpacked(folder: Path) -> Path:
    """A folder, or the only one within if that has the same name, as some archives unpack."""
    return folder / folder.name if subfolders(folder) == [folder.name] else folder


def _alike(first: str, second: str, folders: Mapping[str, set[str]]) -> bool:
    exact = split_of(first) and split_of(second)
    return len(folders[first] & folders[second]) >= (1 if exact else 2)


def _refuse_splits_of_classes(root: Path, field: str, names: Sequence[str]) -> None:
    """Refuse class folders that all have splits within: their test images would be trained on."""
    found: set[str] = set()
    for name in names:
        splits = [inner for inner in subfolders(root / name) if split_of(inner)]
        if not are_splits(splits):
            return
        found.update(splits)
    if len(names) > 1:
        raise InputError(
            f"`{field}` {root}: {some(names)} each have splits within ({some(sorted(found))}); "
            f"for classes with splits move the images to {root / 'train' / names[0]} and so on, or "
            f"pass lists; for one of several data sets pass its folder, as {root / names[0]}"
        )


def folders_within_note(root: Path) -> list[str]:
    """A note where all class folders hold nothing but the same folders, which may be the classes.

    As in 2023/cat, 2023/dog, 2024/cat, 2024/dog. The first class folder settles it nearly always.
    """
    names = subfolders(root) if root.is_dir() else []
    shared: set[str] = set()
    for name in names:
        inner = subfolders(root / name)
        shared = shared & set(inner) if name != names[0] else set(inner)
        if len(shared) < 2 or images_inside(root / name):
            return []
    if len(names) < 2:
        return []
    return [
        f"{root}: the classes are {some(names)}, and each holds the folders "
        f"{some(sorted(shared))}; if these are the classes, put them right inside one folder, or "
        "pass a list"
    ]


def table_hint(folders: Sequence[Path]) -> str:
    """The end of a message about folders without classes, where a table lies beside the images."""
    for folder in folders:
        with os.scandir(folder) as entries:
            files = sorted(entry.name for entry in entries if entry.name[0] != ".")
        for name in files:
            if name.lower().endswith((".csv", ".tsv")):
                return f"; if {folder / name} has paths and labels, pass it in place of the folder"
            if name == "metadata.jsonl":
                return f"; write {folder / name} as a .csv with the columns file_name and label"
    return ""


def refuse_packed_splits(where: str, paths: Sequence[str]) -> None:
    """Refuse tar files that hold the folders of several splits.

    Raises:
        InputError: the text names them.
    """
    first = {os.path.normpath(path).partition("/")[0] for path in paths if "/" in path}
    if are_splits(sorted(first)):
        raise InputError(
            f"{where}: holds the folders {some(sorted(first))}, which are splits; each split needs "
            "tar files of its own, in train/ and val/"
        )


def subfolders(folder: Path) -> list[str]:
    """Names of the folders that are not hidden nor of a system, in byte order."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not is_hidden_folder(entry.name)]
            names = [entry.name for entry in shown if entry.is_dir()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in shown:
        # A class or a split on a disk that is not mounted would be left out without a word.
        if entry.is_symlink():
            _refuse_broken(entry.path)
    return sorted(names, key=os.fsencode)


def _refuse_broken(path: str | os.PathLike[str]) -> None:
    if link := broken_link(path):
        raise InputError(f"{path}: is {link}")


def images_inside(folder: Path) -> bool:
    """Whether a folder has an image right inside."""
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) for entry in entries)


def has_images(folder: Path) -> bool:
    """Whether an image lies anywhere below a folder, or a packed file right inside."""
    if has_packed(folder):
        return True
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden_folder(name)]
        if any(map(is_image, files)):
            return True
    return False


def has_packed(folder: Path) -> bool:
    """Whether a folder has a file of many images right inside."""
    return bool(packed_files(folder))


def packed_files(folder: Path) -> dict[str, list[Path]]:
    """By kind of ``PACKED``, the files right inside a folder, not hidden, in byte order."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        kinds = [(packed_kind(e.name), e.name) for e in entries if e.name[0] != "." and e.is_file()]
    found: dict[str, list[Path]] = {}
    for kind, name in sorted(
        ((k, n) for k, n in kinds if k), key=lambda pair: os.fsencode(pair[1])
    ):
        found.setdefault(kind, []).append(folder / name)
    return {kind: found[kind] for kind in PACKED if kind in found}


def compressed_in(folder: Path) -> list[str]:
    """The compressed archives right inside a folder, not hidden, in byte order; none of a file."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name[0] != "." and e.is_file()]
    return sorted(filter(is_compressed, names), key=os.fsencode)


def is_compressed(name: str) -> bool:
    """Whether a file is by its name an archive that has to be unpacked before it is read."""
    return _COMPRESSED.fullmatch(name) is not None


def packed_in(folder: Path, kind: str) -> list[Path]:
    """The files of a kind of ``PACKED`` right inside a folder, not hidden, in byte order."""
    return packed_files(folder).get(kind, [])


def packed_kind(name: str) -> str | None:
    """The kind of ``PACKED`` that a file is by its name, or None."""
    return next((kind for kind, (_, names) in PACKED.items() if names.fullmatch(name)), None)


def is_image(name: str) -> bool:
    """Whether a file has the name of an image and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122
