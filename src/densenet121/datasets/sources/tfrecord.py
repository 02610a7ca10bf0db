"""TFRecord files of images: ImageNet's features, those of TensorFlow Datasets, and like ones.

A record is its length (8 bytes), a sum of the length, the data, and a sum of the data (CRC-32C,
masked). The data are a ``tf.train.Example`` (``tf_example.py``). Opening the files checks the
lengths and finds the features, but does not touch the images; the sum of a record is checked
whenever its image is read.

The label is ``image/class/label``, or ``label`` and others as in Parquet files. Its name is
``image/class/synset`` or ``image/class/text`` of the record (``tfrecord_names.py``).
"""

from pathlib import Path

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.layout import packed_in
from densenet121.datasets.sources.rows import class_of, label_notes
from densenet121.datasets.sources.splits import (
    SPLIT_COLUMNS,
    Split,
    refuse_split_rows,
    required_files,
)
from densenet121.datasets.sources.tfrecord_index import IMAGES, LABELS, PATHS, Records
from densenet121.datasets.sources.tfrecord_names import classes_of

_NAMES = ("image/class/synset", "image/class/text")


def read_tfrecords(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of a TFRecord file, or of those of a folder, in their order.

    Of a folder whose files are named after splits, those of ``split`` are read; test files are
    taken for validation only if there are no others.

    Args:
        where: the file or the folder.
        split: the files of a folder to read.
        partial: allow missing classes, as validation images may have.

    Raises:
        InputError: a file is damaged or missing, an image has no class, or the numbers of the
            classes could begin with 0 or with 1.
        UsageError: the folder has no file of the split.
    """
    files, notes = _files(where, split)
    records = Records()
    for file in files:
        records.add(file, {*IMAGES, *LABELS, *_NAMES, *PATHS, *SPLIT_COLUMNS})
    records.check(where)
    for name in SPLIT_COLUMNS:
        refuse_split_rows(where, f"the feature {name}", filter(None, records.texts(name)))
    key = records.key(LABELS, "a label")
    labels = [
        class_of(value[0] if isinstance(value, list) and len(value) == 1 else value, place)
        for value, place in zip(records.values(key), records.places(), strict=True)
    ]
    class_names, numbers = classes_of(
        labels,
        [records.texts(name) for name in _NAMES],
        files[0].parent,
        key,
        records.place,
        partial=partial,
    )
    notes += label_notes(where, records.names, key, LABELS)
    return records.dataset(where, class_names, numbers, notes)


def read_label_tfrecords(where: Path, rules: LabelRules, split: Split) -> ImageDataset:
    """As ``read_tfrecords``, with several labels of each image.

    A feature is a list of labels if any record has none or several values in it; numbers are those
    of ``classes.txt`` or ``labels.txt``. Otherwise it is a column, as in a table.

    Raises:
        InputError: a file is damaged, or a label cannot be used; the text names the record.
        UsageError: a setting does not fit.
    """
    files, notes = _files(where, split)
    records = Records()
    for file in files:
        records.add(file, None)
    records.check(where)
    folder = files[0].parent
    class_names, labels, columns = records.columns(folder).labels(
        where, records.places(), folder / "classes.txt", rules
    )
    return records.dataset(where, class_names, labels, notes, columns)


def _files(where: Path, split: Split) -> tuple[list[Path], list[str]]:
    """The files of a split, and notes.

    Raises:
        InputError, UsageError: as ``required_files``.
    """
    if where.is_file():
        return [where], []
    return required_files(where, packed_in(where, ".tfrecord"), split, "TFRecord")
