"""The other side of data_formats.py: encoded images by a program's own reader, in its environment.

Usage: ``python data_readers.py tensorflow|mindspore|datasets FOLDER ROUNDS`` prints the name of the
reader and the median of the microseconds of the processor for each image, as JSON.
"""

import json
import random
import statistics
import sys
import time


def by_tensorflow(folder):
    """tf.data in the order of the files, each Example parsed."""
    import tensorflow as tf

    files = sorted(str(file) for file in folder.iterdir())
    wanted = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    rows = tf.data.TFRecordDataset(files).map(lambda x: tf.io.parse_single_example(x, wanted))
    return "tf.data, in order", lambda: [row["image/encoded"] for row in rows.as_numpy_iterator()]


def by_mindspore(folder):
    """MindDataset with its shuffling, one thread."""
    from mindspore.dataset import MindDataset

    rows = MindDataset(
        str(folder / "train.mindrecord0"),
        columns_list=["data", "label"],
        num_parallel_workers=1,
        shuffle=True,
    )
    return "MindDataset, shuffled", lambda: [
        row["data"].tobytes() for row in rows.create_dict_iterator(num_epochs=1, output_numpy=True)
    ]


def by_datasets(folder):
    """Rows in a random order, images not decoded."""
    import datasets

    saved = datasets.load_from_disk(str(folder / "train"))
    saved = saved.cast_column("image", datasets.Image(decode=False))
    order = list(range(len(saved)))

    def read():
        random.shuffle(order)
        return [saved[index]["image"]["bytes"] for index in order]

    return "datasets, in a random order", read


def main():
    """Measure one reader."""
    from pathlib import Path

    action, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    name, read = globals()[f"by_{action}"](folder)
    count = len(read())
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        assert len(read()) == count
        seconds.append((time.process_time() - start) / count)
    print(json.dumps([name, statistics.median(seconds) * 1e6]))


if __name__ == "__main__":
    main()
