"""Processor time of reading the same JPEGs from every format, beside the programs that write them.

Usage: ``python benchmarks/data_formats.py IMAGES FOLDER [HOMES]``

IMAGES has class folders; FOLDER is for the files. HOMES (default: .frameworks) has the environments
of `make test-frameworks`, which write TFRecord, MindRecord and Arrow and read them too. Times are
of the processor, of all threads, so that other work on the machine matters less than in wall time;
the median of ROUNDS rounds, all formats in turn.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.transforms import TrainTransform

ROUNDS = 7
HERE = Path(__file__).resolve()
WRITER = HERE.parents[1] / "tests" / "system" / "frameworks" / "data_side.py"
NATIVE = HERE.with_name("data_readers.py")
WRITTEN_BY = {"tensorflow": "data", "datasets": "data", "mindspore": "mindspore"}


def main() -> None:
    """Write every format, then measure all of them in turn."""
    images, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    homes = Path(sys.argv[3] if len(sys.argv) > 3 else ".frameworks").absolute()
    sources = write(images, folder, homes)
    readers = {name: open_training(where)[0] for name, where in sources.items()}
    expected = [digest for digest in map(hash, contents(readers["folder"]))]
    for name, dataset in readers.items():
        assert list(map(hash, contents(dataset))) == expected, name
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in readers}
    for number in range(ROUNDS):
        for name, dataset in readers.items():
            found[name].append(measure(sources[name], dataset, number))
    count = len(readers["folder"])
    print(f"{count} images, {readers['folder'].sizes.mean() / 1e3:.0f} kB on average")
    for name, rounds in found.items():
        opened, read, prepared = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:12} {opened:8.1f} ms to open {read:8.1f} us/read {prepared:8.3f} ms/image")
    for action, home in WRITTEN_BY.items():
        print(native(homes / home / "bin" / "python", action, folder / action), end="", flush=True)


def write(images: Path, folder: Path, homes: Path) -> dict[str, Path]:
    """Every format of the images, as it is there already or newly written."""
    sources = {"folder": images}
    sources["tar"] = folder / "tar"
    if not sources["tar"].exists():
        pack(PackConfig(source=str(images), output=str(sources["tar"])))
    sources["Parquet"] = folder / "parquet"
    if not sources["Parquet"].exists():
        write_parquet(scan(images), sources["Parquet"])
    for action, home in WRITTEN_BY.items():
        where = folder / action
        if not where.exists():
            command = [homes / home / "bin" / "python", WRITER, action, images, where]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder / "datasets" / "validation", ignore_errors=True)
    sources |= {"TFRecord": folder / "tensorflow", "MindRecord": folder / "mindspore"}
    return sources | {"Arrow": folder / "datasets"}


def write_parquet(images: ImageDataset, where: Path) -> None:
    """As the hub has it, in groups of 100 rows."""
    where.mkdir(parents=True)
    rows = [
        {"image": {"bytes": images.read(i), "path": path}, "label": int(images.labels[i])}
        for i, path in enumerate(images.paths)
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, where / "train-00000.parquet", row_group_size=100)


def contents(dataset: ImageDataset) -> list[bytes]:
    """The bytes of every image."""
    return [bytes(dataset.read(index)) for index in range(len(dataset))]


def measure(where: Path, dataset: ImageDataset, number: int) -> tuple[float, float, float]:
    """Milliseconds to open, microseconds to read an image, milliseconds to prepare one."""
    opened = timed(lambda: open_training(where))
    order = np.random.default_rng(number).permutation(len(dataset)).tolist()
    read = timed(lambda: [dataset.read(index) for index in order]) / len(order)
    prepare = training_images(dataset, TrainTransform(224, 224), 1, number)
    out = np.empty((224, 224, 3), np.uint8)
    prepared = timed(lambda: [prepare(index, out) for index in order]) / len(order)
    return opened * 1e3, read * 1e6, prepared * 1e3


def timed(work: Callable[[], object]) -> float:
    """Seconds of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


def native(python: Path, action: str, where: Path) -> str:
    """What a program's own reader takes, in its environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, NATIVE, action, where, str(ROUNDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    name, value = json.loads(done.stdout.splitlines()[-1])
    return f"{name:40} {value:8.1f} us/read\n"


if __name__ == "__main__":
    main()
