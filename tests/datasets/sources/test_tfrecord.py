"""TFRecord files: ImageNet's and TensorFlow Datasets' features, numbers of classes, damage."""

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources.crc32c import by_numpy, crc32c
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.datasets.sources.splits import split_of_file
from densenet121.datasets.sources.tf_example import NotAnExampleError, parse_example
from densenet121.utils.errors import InputError, UsageError

from helpers import tfrecord as own
from helpers.image_kernels import builds, kernel
from helpers.tfrecord import example, message, record, write_tfrecord

PLAIN = LabelRules()


def rows(labels: Any, key: str = "label", **more: Any) -> list[dict[str, Any]]:
    return [
        {"image": b"image %d" % i, key: label} | {name: of[i] for name, of in more.items()}
        for i, label in enumerate(labels)
    ]


def imagenet(numbers: Any, names: Any = (), feature: str = "image/class/text") -> Any:
    return [
        {"image/encoded": b"image %d" % i, "image/class/label": number, "image/height": 3}
        | ({feature: names[i]} if names else {})
        for i, number in enumerate(numbers)
    ]


def test_another_column_that_may_have_the_classes_is_named(tmp_path: Path) -> None:
    own = [row | {"label": n // 2} for n, row in enumerate(rows([0, 1, 2, 0], "class"))]
    found = open_training(write_tfrecord(tmp_path / "a.tfrecord", own).parent)[0]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert "those of the column label, not of class; rename label" in found.notes[-1]


def test_the_sum_is_that_of_rfc_3720() -> None:
    for sum_of in (crc32c, by_numpy):
        assert sum_of(b"123456789") == 0xE3069283
        assert sum_of(b"\0" * 32) == 0x8A9136AA  # RFC 3720, B.4
        assert sum_of(bytes(range(32))) == 0x46DD794E


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([0, 1, 2, 40, 130]))
def test_the_sum_by_blocks_is_the_sum_bit_by_bit(part: bytes, times: int) -> None:
    data = part * times
    assert crc32c(data) == by_numpy(data) == own.crc32c(data)


@builds
def test_every_build_of_the_kernel_has_the_same_sum(build: str) -> None:
    library = kernel(build)
    if library.crc32c(b"") is None:
        pytest.skip("the kernels were built before they had a sum; make builds them anew")
    data = bytes(range(256)) * 3
    for start in range(9):
        for end in range(start, 40):
            assert library.crc32c(data[start:end]) == own.crc32c(data[start:end])
    assert library.crc32c(data) == own.crc32c(data)


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.lists(st.binary(max_size=9), max_size=3),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
            st.lists(st.floats(width=32, allow_nan=False), max_size=3),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_every_example_is_parsed(features: dict[str, list[Any]], packed: bool) -> None:
    data = b"before" + example(features, packed=packed) + b"after"
    found = parse_example(data, 6, len(data) - 5)
    assert {
        name: [data[v[0] : v[1]] if isinstance(v, tuple) else v for v in values]
        for name, values in found.items()
    } == features


@pytest.mark.parametrize(
    "data",
    [
        message(2, b""),  # a SequenceExample
        message(1, b"") * 2,
        message(1, message(1, message(1, b"a")) * 2),  # a feature twice
        message(1, message(2, b"")),
        message(1, message(1, message(3, b""))),
        message(1, message(1, message(2, message(3, message(2, b"\1"))))),
        message(1, message(1, message(2, message(3, message(1, b"\x80"))))),
        message(1, message(1, message(2, message(3, message(1, b"\xff" * 9 + b"\x7f"))))),
        message(1, message(1, message(2, message(2, message(1, b"\0\0\0"))))),
        message(1, message(1, message(2, message(1, b"") + message(3, b"")))),
        message(1, message(1, message(1, b"\xff"))),
        b"\x08\x01",
        b"\x0a\x7f",
    ],
)
def test_what_protobuf_would_pass_over_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnExampleError):
        parse_example(data, 0, len(data))


def test_the_sum_of_many_blocks_is_that_of_its_parts() -> None:
    data = bytes(range(256)) * 300  # more than a slab
    assert crc32c(data) == by_numpy(data) == own.crc32c(data)


def test_names_beside_the_numbers_settle_where_they_begin(tmp_path: Path) -> None:
    for first in (0, 1, 7):
        numbers = [first + n for n in (2, 0, 1, 0)]
        file = write_tfrecord(tmp_path / "a.tfrecord", imagenet(numbers, ["c", "a", "b", "a"]))
        dataset, _ = open_training(file)
        assert (dataset.class_names, dataset.labels.tolist()) == (("a", "b", "c"), [2, 0, 1, 0])
        assert dataset.read(2) == b"image 2"
    both = imagenet([1, 2], ["Tench", "Goldfish"])
    for row, synset in zip(both, ("n01440764", "n01443537"), strict=True):
        row["image/class/synset"] = synset
    write_tfrecord(tmp_path / "a.tfrecord", both)
    assert open_training(tmp_path)[0].class_names == ("n01440764", "n01443537")


@pytest.mark.parametrize("key", ["image/class/label", "label"])
def test_numbers_that_may_begin_with_0_or_with_1_are_refused(key: str, tmp_path: Path) -> None:
    file = write_tfrecord(tmp_path / "a.tfrecord", rows([1, 2, 3, 2], key))
    for read in (open_training, open_evaluation):
        with pytest.raises(InputError, match=r"are 1 to 3, and may begin with 0 or with 1; write"):
            read(file)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")  # no line is left for a 0
    assert open_training(file)[0].labels.tolist() == [0, 1, 2, 1]
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(InputError, match=r"may begin with 0 or with 1; write the names into"):
        open_training(file)
    (tmp_path / "labels.txt").write_text("0:a\n1:b\n2:c\n3:d\n")
    dataset, _ = open_training(file)
    assert (dataset.class_names[1], dataset.labels.tolist()) == ("b", [1, 2, 3, 2])
    (tmp_path / "labels.txt").write_text("1:b\n2:c\n")
    with pytest.raises(InputError, match=r"record 2: the label is 3, which .*labels.txt does not"):
        open_training(file)
    for text, reason in (("cat\n", r'line 1: "cat" is not NUM'), ("1:a\n2:a\n", "occurs twice")):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(InputError, match=reason):
            open_training(file)


def test_numbers_with_a_0_are_as_everywhere(tmp_path: Path) -> None:
    file = write_tfrecord(tmp_path / "a.tfrecord", rows([0, 2, 1]))
    assert open_training(file)[0].labels.tolist() == [0, 2, 1]
    write_tfrecord(file, rows(["dog", "cat", "dog"]))
    assert open_training(file)[0].class_names == ("cat", "dog")
    write_tfrecord(file, rows([0, -1, 1]))
    with pytest.raises(InputError, match=r'record 1: has the label "-1", which is no class'):
        open_training(file)


def test_names_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tfrecord"
    for numbers, names in (([1, 2, 1], ["a", "b", "b"]), ([1, 2, 3], ["a", "b", "a"])):
        write_tfrecord(file, imagenet(numbers, names))
        with pytest.raises(InputError, match=r"record 2: its class is \d \".\", where another"):
            open_training(file)
    write_tfrecord(file, imagenet([1, 2, 1], ["a", "b", ""]))
    with pytest.raises(InputError, match=r"record 2: has no name of its class"):
        open_training(file)


def test_tensorflow_datasets_splits_names_and_labels(tmp_path: Path) -> None:
    assert split_of_file("cifar10-train.tfrecord-00000-of-00002") == "train"
    assert split_of_file("my-set-validation.tfrecord-00000-of-00002") == "val"
    for number in range(2):
        name = f"pets-train.tfrecord-{number:05d}-of-00002"
        write_tfrecord(tmp_path / name, rows([1, 2], file_name=[f"{number}a", f"{number}b"]))
    write_tfrecord(tmp_path / "pets-test.tfrecord-00000-of-00001", rows([2]))
    (tmp_path / "label.labels.txt").write_text("ant\nbee\ncat\n")
    train, val = open_training(tmp_path)
    assert val is not None
    assert (train.paths, train.labels.tolist()) == (("0a", "0b", "1a", "1b"), [1, 2, 1, 2])
    assert (val.class_names, val.labels.tolist()) == (("ant", "bee", "cat"), [2])
    assert "no file is named after validation, so the test images are used" in val.notes[0]
    (tmp_path / "pets-train.tfrecord-00000-of-00002").unlink()
    with pytest.raises(InputError, match=r"of the 2 files pets-train.tfrecord-.*, 1 are missing, "):
        open_training(tmp_path)


def test_imagenets_files_have_no_extension(tmp_path: Path) -> None:
    for number in range(2):
        write_tfrecord(tmp_path / f"train-{number:05d}-of-00002", imagenet([1, 2], ["a", "b"]))
    write_tfrecord(tmp_path / "validation-00000-of-00001", imagenet([2], ["b"]))
    train, val = open_training(tmp_path)
    assert val is not None and (len(train), val.class_names) == (4, ("a", "b"))
    assert val.labels.tolist() == [1]


EXPECTED = ("a", "b"), [[1, 1], [0, 0], [0, 1]]


def test_several_labels_in_lists_and_in_columns(tmp_path: Path) -> None:
    forms: list[list[dict[str, Any]]] = [
        rows([["b", "a"], [], ["b"]], "labels"),
        rows([1, 0, 0], "a", b=[1.0, 0.0, 1.0], age=[70, 80, 90]),
        rows([[1, 0], [], [1]]),
        rows(["b|a", "none", "b"], "found", patient=[3, 3, 4]),
    ]
    rules = [PLAIN, PLAIN, PLAIN, LabelRules(label_column="found", separator="|", negative="none")]
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for form, rule in zip(forms, rules, strict=True):
        file = write_tfrecord(tmp_path / "a.tfrecord", form)
        dataset, _ = open_labelled_training(file, None, rule)
        assert (dataset.class_names, dataset.labels.tolist()) == EXPECTED
    assert dataset.columns["patient"] == ["3", "3", "4"]
    with pytest.raises(InputError, match=r"record 0: the label is a list \(\['b', 'a'\]\); one cl"):
        open_training(write_tfrecord(file, forms[0]))


def test_lists_that_may_be_numbers_or_one_hot_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    file = write_tfrecord(tmp_path / "a.tfrecord", rows([[0, 1], [1, 0]], "labels"))
    with pytest.raises(InputError, match=r"every list in labels is 0, 1 or 1, 0; that may be"):
        open_labelled_training(file, None, PLAIN)
    write_tfrecord(file, rows([[0, 1, 0], [1, 0, 0]], "labels"))
    with pytest.raises(InputError, match=r"record 0: the numbers \[0, 1, 0\] repeat"):
        open_labelled_training(file, None, PLAIN)


def test_pack_keeps_images_and_labels(tmp_path: Path) -> None:
    file = write_tfrecord(tmp_path / "a.tfrecord", imagenet([1, 2, 1], ["x", "y", "x"]))
    pack(PackConfig(source=str(file), output=str(tmp_path / "shards")))
    packed, _ = open_training(tmp_path / "shards")
    source, _ = open_training(file)
    assert packed.fingerprint == source.fingerprint
    assert [packed.read(i) for i in range(3)] == [source.read(i) for i in range(3)]


SMALL = rows([0, 1, 2])


def test_a_file_cut_at_any_byte_is_refused_or_has_whole_records(tmp_path: Path) -> None:
    file = write_tfrecord(tmp_path / "a.tfrecord", SMALL)
    whole = file.read_bytes()
    ends = {0, *(len(whole) // 3 * n for n in (1, 2))}
    for length in reversed(range(len(whole))):
        os.truncate(file, length)
        if length in ends and length > len(whole) // 3:  # two classes; the format has no end
            assert open_training(file)[0].labels.tolist() == [0, 1]
            continue
        with pytest.raises(InputError, match=r"a\.tfrecord|has only one class") as told:
            open_training(file)
        assert "\n" not in str(told.value)


def test_a_changed_byte_is_refused_when_opened_or_when_read(tmp_path: Path) -> None:
    file = write_tfrecord(tmp_path / "a.tfrecord", SMALL)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(InputError) as told:
            dataset = open_training(file)[0]
            for index in range(len(dataset)):
                dataset.read(index)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (
            gzip.compress(b"x" * 99, mtime=0),
            r"record 0 is wrong: the file is compressed; write it without",
        ),
        (b"x" * 99, "the sum of the length of record 0 is wrong: it is damaged"),
        (record(b"no example"), r"record 0: is no tf.train.Example"),
        (record(example({"image": [b"a", b"b"], "label": 0})), "image has 2 values; one image is"),
        (record(example({"image": 5, "label": 0})), "image has 1 values; one image"),
        # Damage in a feature that is only looked at for the message.
        (
            record(message(1, message(1, message(1, b"x") + message(2, b"\x0a\x09a")))),
            "longer than",
        ),
        (record(example({"pixels": b"a", "label": 0})), r"no feature .* it has label, pixels"),
        (record(example({"image": b"a", "y": 0})), "no feature image/class/label or .* a label"),
        (record(example({"image": b"a", "label": [0, 1]})), r"the label is a list \(\[0, 1\]\)"),
        (record(example({"image": b"a", "label": 0.5})), "the label is 0.5, which is no class"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-LFS pointer"),
        (struct.pack("<Q", 2**63) + own.masked(struct.pack("<Q", 2**63)), "cut short in record 0"),
    ],
)
def test_records_that_cannot_be_used_are_one_line(
    data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.tfrecord").write_bytes(data)
    with pytest.raises(InputError, match=message) as told:
        open_training(tmp_path / "a.tfrecord")
    assert "\n" not in str(told.value)


def test_a_split_without_a_file_is_named(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "train.tfrecord", SMALL)
    with pytest.raises(UsageError, match=r"no TFRecord file is named after val, the first is tra"):
        open_evaluation(tmp_path)
