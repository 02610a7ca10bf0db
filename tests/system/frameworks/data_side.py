"""TensorFlow's, MindSpore's and datasets' half of tests/system/test_frameworks_data.py.

    python data_side.py tensorflow|tfds|mindspore|datasets FOLDER OUTPUT

writes the images of the class folders of FOLDER in its format, reads them again, and prints what it
read as JSON: path, label and SHA-256 of each image.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def images(folder):
    names = sorted(path.name for path in folder.iterdir())
    found = []
    for label, name in enumerate(names):
        found += [(f"{name}/{p.name}", label, p) for p in sorted((folder / name).iterdir())]
    return names, found


def told(path, label, data):
    return [path, int(label), hashlib.sha256(data).hexdigest()]


def by_tensorflow(folder, output):
    """The features of the script that makes ImageNet's files."""
    import tensorflow as tf

    names, found = images(folder)
    half = len(found) // 2
    output.mkdir(parents=True)
    for number, part in enumerate((found[:half], found[half:])):
        with tf.io.TFRecordWriter(str(output / f"train-{number:05d}-of-00002")) as out:
            for path, label, file in part:
                out.write(_imagenet(tf, path, label, file, names))
    files = sorted(str(file) for file in output.iterdir())
    wanted = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
    }
    rows = []
    for data in tf.data.TFRecordDataset(files):
        row = tf.io.parse_single_example(data, wanted)
        path = row["image/filename"].numpy().decode()
        rows.append(told(path, row["image/class/label"] - 1, row["image/encoded"].numpy()))
    return rows


def _imagenet(tf, path, label, file, names):
    def integers(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def texts(*values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def floats(*values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    feature = {
        "image/height": integers(40),
        "image/width": integers(48),
        "image/colorspace": texts(b"RGB"),
        "image/channels": integers(3),
        "image/class/label": integers(label + 1),
        "image/class/synset": texts(names[label].encode()),
        "image/class/text": texts(names[label].upper().encode()),
        "image/object/bbox/xmin": floats(0.1, 0.25),
        "image/object/bbox/label": integers(),
        "image/format": texts(b"JPEG"),
        "image/filename": texts(path.encode()),
        "image/encoded": texts(file.read_bytes()),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def by_tfds(folder, output):
    import tensorflow_datasets as tfds

    names, found = images(folder)

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=names),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for path, label, file in found:
                yield path, {"image": str(file), "label": label, "file_name": path}

    builder = Small(data_dir=str(output))
    builder.download_and_prepare()
    decoders = {"image": tfds.decode.SkipDecoding()}
    rows = builder.as_dataset(split="train", decoders=decoders, shuffle_files=False)
    read = [
        told(row["file_name"].decode(), row["label"], row["image"]) for row in tfds.as_numpy(rows)
    ]
    print(json.dumps(str(builder.data_dir)))
    return read


def by_mindspore(folder, output):
    from mindspore.dataset import MindDataset
    from mindspore.mindrecord import FileWriter

    output.mkdir(parents=True)
    _, found = images(folder)
    file = output / "train.mindrecord"
    writer = FileWriter(str(file), 2)
    schema = {"file_name": "string", "label": "int32", "data": "bytes", "score": "float32"}
    columns = {name: {"type": kind} for name, kind in schema.items()}
    columns["findings"] = {"type": "int64", "shape": [-1]}
    writer.add_schema(columns, "small")
    writer.add_index(["file_name", "label"])
    largest = max(file.stat().st_size for _, _, file in found)
    writer.set_page_size(max(1 << 15, 4 * largest))  # so that there are several pages
    import numpy as np

    writer.write_raw_data(
        [
            {
                "file_name": path,
                "label": label,
                "data": file.read_bytes(),
                "score": 0.5,
                "findings": np.array([label, 300, -70000][: 1 + label % 3], dtype=np.int64),
            }
            for path, label, file in found
        ]
    )
    writer.commit()
    rows = MindDataset(str(file) + "0", shuffle=False).create_dict_iterator(
        num_epochs=1, output_numpy=True
    )
    return [
        [
            *told(str(row["file_name"]), row["label"], row["data"].tobytes()),
            row["findings"].tolist(),
        ]
        for row in rows
    ]


def by_datasets(folder, output):
    import datasets

    names, found = images(folder)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=names),
            "file_name": datasets.Value("string"),
        }
    )
    content = {
        "image": [{"bytes": file.read_bytes(), "path": path} for path, _, file in found],
        "label": [label for _, label, _ in found],
        "file_name": [path for path, _, _ in found],
    }
    saved = datasets.Dataset.from_dict(content, features=features)
    halves = {
        "train": saved,
        "validation": saved.shuffle(seed=1).filter(lambda row: row["label"] != 1),
    }
    datasets.DatasetDict(halves).save_to_disk(str(output), num_shards={"train": 2, "validation": 1})
    read = datasets.load_from_disk(str(output))["validation"]
    read = read.cast_column("image", datasets.Image(decode=False))
    return [told(row["file_name"], row["label"], row["image"]["bytes"]) for row in read]


if __name__ == "__main__":
    action, folder, output = sys.argv[1:]
    print(json.dumps(globals()[f"by_{action}"](Path(folder), Path(output))))
