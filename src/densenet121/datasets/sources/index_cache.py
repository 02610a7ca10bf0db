"""Cache the index of a large folder, so that a run need not scan every file again.

The cache has the result of ``scan`` and the mtime of every folder. Adding, removing or renaming a
file changes the mtime of its folder, and the index is made again. Overwriting a file in place does
not; a changed size is noticed when the file is read (``ImageDataset.read``).
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names, check_integers, from_npz, to_npz
from densenet121.datasets.sources.folder import Folder, check_counts, check_names, scan_folders
from densenet121.utils.files import real_path, write_atomic
from densenet121.utils.logging import log

_LEAST_CACHED = 20_000  # images; a scan of fewer is fast enough
_VERSION = 2  # 1 had the images in folders of systems, such as @eaDir


def scan_cached(
    root: Path, field: str, cache_dir: Path | None, *, partial: bool = False
) -> ImageDataset:
    """As ``scan``, with an index in ``cache_dir`` if the folder is large.

    Raises:
        InputError: as ``scan``.
    """
    dataset = _scan(root, field, cache_dir, partial=partial)
    check_counts(dataset, field, partial=partial)
    return dataset


def _scan(root: Path, field: str, cache_dir: Path | None, *, partial: bool) -> ImageDataset:
    if cache_dir is None:
        return scan_folders(root, field, partial=partial)[0]
    key = hashlib.sha256(os.fsencode(real_path(root))).hexdigest()[:16]
    file = cache_dir / ".index" / f"{root.name[:40]}-{key}.npz"
    found = _load(file, root)
    if found is not None:
        check_names(root, field, found.class_names, partial=partial)
        log.info("%s: index of %d images from %s", root, len(found), file)
        return found
    dataset, folders = scan_folders(root, field, partial=partial)
    if len(dataset) >= _LEAST_CACHED:
        try:
            _save(file, dataset, folders)
        except OSError as error:  # the run can continue without it
            log.warning("%s: the index cannot be written (%s)", file, error.strerror)
    return dataset


def _save(file: Path, dataset: ImageDataset, folders: list[Folder]) -> None:
    paths = dataset.paths
    assert isinstance(paths, Names)
    file.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Names | NDArray[Any]] = {
        "version": np.array(_VERSION),
        "root": Names.of([str(real_path(dataset.root))]),
        "folders": Names.of(name for name, _ in folders),
        "changed": np.array([changed for _, changed in folders], dtype=np.int64),
        "class_names": Names.of(dataset.class_names),
        "paths": paths,
        "labels": dataset.labels,
        "sizes": dataset.sizes,
        "ignored": Names.of(dataset.ignored),
        "fingerprint": Names.of([dataset.fingerprint]),
    }
    write_atomic(file, to_npz(content))


def _load(file: Path, root: Path) -> ImageDataset | None:
    """The index, if it is valid and the folders have not changed."""
    if not file.is_file():
        return None
    try:
        content = from_npz(file)
        if content["version"] != _VERSION or content["root"] != (str(real_path(root)),):
            return None
        check_integers({name: content[name] for name in ("changed", "labels", "sizes")})
        for folder, changed in zip(content["folders"], content["changed"].tolist(), strict=True):
            if (root / folder).stat().st_mtime_ns != changed:
                return None
        dataset = ImageDataset(
            root=root,
            class_names=tuple(content["class_names"]),
            paths=content["paths"],
            labels=content["labels"],
            sizes=content["sizes"],
            ignored=tuple(content["ignored"]),
            known_fingerprint=content["fingerprint"][0],
        )
        if not len(dataset.labels) == len(dataset.sizes) == len(dataset):
            return None
        if not all(0 <= label < len(dataset.class_names) for label in set(dataset.labels.tolist())):
            return None
    except FileNotFoundError:  # a folder was removed
        return None
    except Exception as error:  # a damaged zip makes numpy raise exceptions of almost any type
        log.warning("%s: damaged (%s), will be made again", file, error)
        return None
    return dataset
