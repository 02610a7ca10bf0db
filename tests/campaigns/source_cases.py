"""Damaged files of other programs' formats: IDX, NumPy archives, TFRecord, MindRecord, Arrow,
HDF5.
"""

import gzip
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from campaigns.campaign import Target
from campaigns.image_cases import corpus, one_line
from campaigns.mutation import damaged
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError, UsageError

from helpers.arrow import write_arrow
from helpers.mindrecord import write_mindrecord
from helpers.tfrecord import example, record, write_tfrecord

# The format, the file to damage, and its content.
Case = tuple[str, str, bytes]
_FOLDER: list[Path] = []
_SOUND: dict[tuple[str, str], bytes] = {}
_PATHS = {"npz": "a.npz", "hdf5": "a.h5", "tfrecord": "a.tfrecord", "mindrecord": "a.mindrecord"}


def load(folder: Path) -> None:
    """Sound files of every format."""
    _FOLDER[:] = [folder]
    image = corpus()["png"][0]
    labels = (0, 1, 0, 1)
    pixels = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    numbers = np.array(labels, dtype=np.uint8)
    for name in ("idx", "npz", "tfrecord", "mindrecord", "arrow", "hdf5"):
        (folder / name).mkdir(exist_ok=True)
    np.savez_compressed(
        folder / "npz" / "a.npz", train_images=pixels, train_labels=numbers[:, None]
    )
    for name, array in (("train-images-idx3", pixels), ("train-labels-idx1", numbers)):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        data = gzip.compress(head + array.tobytes(), mtime=0)
        (folder / "idx" / f"{name}-ubyte.gz").write_bytes(data)
    write_tfrecord(folder / "tfrecord" / "a.tfrecord", [_row(image, n) for n in labels])
    rows = [{"data": image, "label": n, "tags": [n, 300]} for n in labels]
    write_mindrecord(folder / "mindrecord" / "a.mindrecord", rows)
    names = {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    saved = [{"image": {"bytes": image, "path": f"{n}.png"}, "label": n} for n in labels]
    write_arrow(folder / "arrow", saved, names)
    with h5py.File(folder / "hdf5" / "a.h5", "w") as opened:
        opened.create_dataset("x", data=pixels, chunks=(2, 5, 6), compression="gzip")
        opened["y"], opened["name"] = numbers, [b"ant", b"bee", b"ant", b"bee"]
    for file in folder.glob("*/*"):
        _SOUND[file.parent.name, file.name] = file.read_bytes()


def _row(image: bytes, label: int) -> dict[str, Any]:
    return {"image/encoded": image, "image/class/label": label, "image/class/text": "ab"[label]}


def make(rng: random.Random) -> Case:
    """A damaged file; or, in TFRecord, a damaged record with the right sums."""
    kind, name = rng.choice(sorted(_SOUND))
    data = _SOUND[kind, name]
    if kind == "tfrecord" and rng.random() < 0.8:
        image = corpus()["png"][0]
        rows = [damaged(rng, example(_row(image[:40], number))) for number in (0, 1)]
        return kind, name, b"".join(map(record, rows))
    if kind == "idx" and rng.random() < 0.5:
        return kind, name, gzip.compress(damaged(rng, gzip.decompress(data)))
    return kind, name, damaged(rng, data)


def run(case: Case) -> str:
    """Read it with one class and with several labels, and read the images."""
    kind, name, data = case
    folder = _FOLDER[0] / kind
    (folder / name).write_bytes(data)
    where = folder / _PATHS.get(kind, "")
    ways: tuple[Callable[[], object], ...] = (
        lambda: open_training(where)[0],
        lambda: open_labelled_training(where, None, LabelRules(missing="0", uncertain="0"))[0],
    )
    outcome = "refused"
    try:
        for way in ways:
            try:
                dataset = way()
                for index in range(len(dataset)):  # type: ignore[arg-type]
                    dataset.read(index)  # type: ignore[attr-defined]
                outcome = "read"
            except (InputError, UsageError) as error:
                one_line(error)
    finally:
        (folder / name).write_bytes(_SOUND[kind, name])
    return f"{kind} {outcome}"


def targets(folder: Path) -> list[Target]:
    """Of this file; ``folder`` is for files."""
    return [Target("data-files", make, run, lambda: load(folder))]
