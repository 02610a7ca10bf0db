"""Files that are written anew while they are read."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from densenet121.datasets.sources.open import open_evaluation
from densenet121.datasets.sources.read_at import ReadUnchanged
from densenet121.utils.errors import InputError

from helpers.arrow import write_arrow
from helpers.mindrecord import write_mindrecord
from helpers.tfrecord import write_tfrecord

Images = list[tuple[bytes, int]]


def shard(folder: Path, images: Images) -> Path:
    with tarfile.open(folder / "val-000000.tar", "w") as tar:
        for number, (image, label) in enumerate(images):
            for suffix, data in (("png", image), ("cls", b"%d" % label)):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder / "val-000000.tar"


def arrow(folder: Path, images: Images) -> Path:
    feature = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    rows = [{"image": {"bytes": image, "path": None}, "label": label} for image, label in images]
    write_arrow(folder, rows, feature)
    return folder / "data-00000-of-00001.arrow"


def tfrecord(folder: Path, images: Images) -> Path:
    rows = [{"image/encoded": image, "image/class/label": label} for image, label in images]
    return write_tfrecord(folder / "val.tfrecord", rows)


def parquet(folder: Path, images: Images) -> Path:
    import pyarrow.parquet

    rows = [{"image": {"bytes": image, "path": None}, "label": label} for image, label in images]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "val.parquet", row_group_size=4)
    return folder / "val.parquet"


def mindrecord(folder: Path, images: Images) -> Path:
    rows = [{"data": image, "label": label} for image, label in images]
    return write_mindrecord(folder / "val.mindrecord", rows)


@pytest.mark.parametrize("write", [shard, arrow, tfrecord, parquet, mindrecord])
def test_no_image_of_a_file_that_was_written_anew_has_the_label_of_another(
    write: Callable[[Path, Images], Path], tmp_path: Path
) -> None:
    """All images have one size, so those of the new order are where others were."""
    images = [(b"\x89PNG\r\n\x1a\n" + b"%03d" % n, n % 2) for n in range(8)]
    file = write(tmp_path, images)
    found = open_evaluation(tmp_path)
    os.utime(file, ns=(1, 1))
    assert [found.read(index) for index in range(4)] == [image for image, _ in images[:4]]
    write(tmp_path, images[::-1])
    with pytest.raises(InputError, match=rf"{file.name} has changed since it was opened"):
        found.read(7)  # of Parquet the first ones are kept
    again = open_evaluation(tmp_path)
    pairs = {(again.read(index), int(again.labels[index])) for index in range(8)}
    assert pairs == set(images)


def test_a_file_that_has_grown_or_is_shorter_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    read = ReadUnchanged([file])
    for size in (100_001, 99_999, 0):
        file.write_bytes(bytes(size))
        os.utime(file, ns=(size, size))
        with pytest.raises(InputError, match="has changed since it was opened"):
            read(file, 0, 1)
    file.unlink()
    with pytest.raises(InputError, match="No such file"):
        read(file, 0, 1)
