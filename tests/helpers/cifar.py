"""CIFAR in the layouts of its makers."""

import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def cifar(where: Path, kind: str) -> tuple[Path, NDArray[np.uint8], list[int]]:
    """Twelve training and six test images in one of the makers' layouts."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (18, 3, 32, 32), dtype=np.uint8)
    labels = [int(label) for label in rng.integers(0, 3, 18)]
    names = ["airplane", "bird", "cat"]
    train, test = slice(0, 12), slice(12, 18)
    if kind == "binary-10":
        (where / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
        for file, part in (("data_batch_1.bin", train), ("test_batch.bin", test)):
            rows = zip(labels[part], pixels[part], strict=True)
            (where / file).write_bytes(b"".join(bytes([n]) + p.tobytes() for n, p in rows))
    elif kind == "binary-100":
        (where / "fine_label_names.txt").write_text("\n".join(names))
        for file, part in (("train.bin", train), ("test.bin", test)):
            rows = zip(labels[part], pixels[part], strict=True)
            (where / file).write_bytes(b"".join(bytes([9, n]) + p.tobytes() for n, p in rows))
    else:
        ten = kind == "python-10"
        meta = {b"label_names" if ten else b"fine_label_names": [n.encode() for n in names]}
        (where / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(meta, 2))
        files = ("data_batch_1", "test_batch") if ten else ("train", "test")
        for file, part in zip(files, (train, test), strict=True):
            batch = {
                b"data": pixels[part].reshape(-1, 3072),
                b"labels" if ten else b"fine_labels": labels[part],
            }
            (where / file).write_bytes(pickle.dumps(batch, 2))
    return where, pixels, labels
