"""Cases of the readers written in Python, from bytes that libFuzzer chooses.

What hides code from a fuzzer is put around its bytes: sums of a tar's headers and of records, and
the zip of a PyTorch file or an index.
"""

import io
import json
import random
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from campaigns import file_cases, request_cases, source_cases, weight_cases
from campaigns.campaign import SLOW_SECONDS, forbidden
from campaigns.image_cases import corpus
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.shards import index_shards

from helpers.serving import FORM, form
from helpers.tfrecord import example, record

_FOLDER: list[Path] = []


@dataclass(frozen=True)
class Guided:
    """A reader.

    Attributes:
        run: reads what is made of the bytes; every exception is a fault.
        seeds: bytes to begin with.
        load: called once, with a folder for files.
    """

    run: Callable[[bytes], str]
    seeds: Callable[[], list[bytes]]
    load: Callable[[Path], None]


def attempt(target: Guided, data: bytes) -> str:
    """What came of a case.

    Raises:
        AssertionError: it tried what a file may not, or took long.
    """
    forbidden.clear()
    start = time.process_time()
    outcome = target.run(data)
    taken = time.process_time() - start
    assert not forbidden, f"tried {forbidden[0]}"
    assert taken < SLOW_SECONDS, f"took {taken:.1f} s"
    return outcome


def _weights(name: str, around: Callable[[bytes], bytes] = bytes) -> Callable[[bytes], str]:
    return lambda data: weight_cases.run((name, around(data)))


def _torch_zip(data: bytes) -> bytes:
    """A PyTorch file with this pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in (("data.pkl", data), ("version", b"3\n"), ("byteorder", b"little")):
            file.writestr(f"archive/{name}", content)
        for number in range(5):
            file.writestr(f"archive/data/{number}", bytes(864))
    return out.getvalue()


def _pickles() -> list[bytes]:
    found = []
    for data in weight_cases.corpus(_FOLDER[0])["torch"]:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            found += [file.read(name) for name in file.namelist() if name.endswith("data.pkl")]
    return found


def with_right_sums(data: bytes) -> bytes:
    """A tar whose headers have the sums of what is in them."""
    result, at = bytearray(data), 0
    while at + 512 <= len(result):
        header = result[at : at + 512]
        if any(header):
            header[148:156] = b" " * 8
            result[at + 148 : at + 156] = b"%06o\0 " % sum(header)
        digits = bytes(header[124:136]).strip(b" \0")
        size = int(digits, 8) if digits and all(48 <= digit < 56 for digit in digits) else 0
        at += 512 + -(-size // 512) * 512
    return bytes(result)


def _tars() -> list[bytes]:
    """Of one sample each, so that they are small."""
    image, found = corpus()["png"][0][:100], []
    labels = (("cls", b"ant"), ("json", b'{"label": "ant", "path": "ant/1.png"}'))
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for stem in ("ant/1", "\u00e9"):
            for end, label in labels:
                out = io.BytesIO()
                with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
                    for name, data in ((f"{stem}.png", image), (f"{stem}.{end}", label)):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
                found.append(out.getvalue().rstrip(b"\0"))
    return found


def _lists() -> list[bytes]:
    tables = (b"path,label,split\n", b"path\tEdema\tMass\n", b"", b"Path,Edema\n")
    rows = [b"ant/0.png,0,train\nant/1.png,1,val\n", b"ant/0.png\t1\t-1\n", b"ant/0.png ant\n"]
    return [bytes([kind]) + head + row for kind in range(4) for head in tables for row in rows]


def _run_list(data: bytes) -> str:
    kinds = ("list.txt", "list.csv", "list.tsv", "labels.csv")
    return file_cases.run_list((kinds[data[0] % 4], data[1:])) if data else ""


# The members of an .npz, each with its length: their sums would hide them.
def _npz(data: bytes, names: list[str]) -> bytes:
    out, at = io.BytesIO(), 0
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            size = int.from_bytes(data[at : at + 2], "little")
            file.writestr(name, data[at + 2 : at + 2 + size])
            at += 2 + size
    return out.getvalue()


def _members(npz: bytes) -> tuple[bytes, list[str]]:
    with zipfile.ZipFile(io.BytesIO(npz)) as file:
        parts = [file.read(name) for name in file.namelist()]
        return b"".join(len(part).to_bytes(2, "little") + part for part in parts), file.namelist()


_INDEXES: dict[str, tuple[bytes, list[str]]] = {}


def _load_indexes(folder: Path) -> None:
    file_cases.load(folder)
    _INDEXES["folder"] = _members(file_cases.sound_index())
    packed, image = folder / "packed", corpus()["png"][0]
    packed.mkdir()
    with tarfile.open(packed / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("ant", "bee"):
            for end, data in (("png", image), ("cls", name.encode())):
                member = tarfile.TarInfo(f"{name}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    _INDEXES["shards"] = _members(bytes(index_shards(packed).to_npz()))


def _run_folder_index(data: bytes) -> str:
    return file_cases.run_index(("index", _npz(data, _INDEXES["folder"][1])))


def _run_shard_index(data: bytes) -> str:
    packed = _FOLDER[0] / "packed"
    (packed / "index.npz").write_bytes(_npz(data, _INDEXES["shards"][1]))

    def read() -> None:
        dataset = open_evaluation(packed)
        for index in range(min(len(dataset), 5)):
            dataset.read(index)

    return file_cases.outcome_of("index", (lambda: open_training(packed), read))


def _records() -> list[bytes]:
    row: dict[str, Any] = {"image/encoded": corpus()["png"][0][:40], "image/class/label": 1}
    rows = [row, {**row, "image/class/text": "a"}, {"image": b"x", "label": [0, 1]}]
    return [example(made, packed=packed) for made in rows for packed in (True, False)]


def _run_record(data: bytes) -> str:
    return source_cases.run(("tfrecord", "a.tfrecord", record(data) * 2))


# A body, and in its first byte what is said of it.
def _bodies() -> list[bytes]:
    image = corpus()["png"][0][:60]
    forms = [form([("a.png", image)]), form([(None, b"x"), ("b", b"")]), form([], end=False)]
    extended = forms[0].replace(b"filename=", b"filename*=utf-8''a%20b; filename=")
    return [bytes([kind]) + body for kind in range(3) for body in (*forms, extended, image)]


_KINDS = (FORM["content_type"].encode(), b"image/png", b"multipart/form-data; boundary=--xx")


def _run_body(data: bytes) -> str:
    if not data:
        return ""
    headers = [(b"host", b"x"), (b"content-type", _KINDS[data[0] % 3])]
    cut = data[0] // 3
    return request_cases.run(("POST", "/predict", b"", headers, [data[1:cut], data[max(1, cut) :]]))


def _tables() -> list[bytes]:
    return [file_cases.make_rank_table(random.Random(seed))[1] for seed in range(20)]


def _weight_files(name: str) -> Callable[[], list[bytes]]:
    return lambda: weight_cases.corpus(_FOLDER[0])[name]


def _description() -> list[bytes]:
    return [json.dumps(weight_cases.sound_content()).encode()]


def _load(load: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(folder: Path) -> None:
        _FOLDER[:] = [folder]
        torch.set_num_threads(1)
        load(folder)

    return both


READERS = {
    "mindspore": (_weights("mindspore"), _weight_files("mindspore"), weight_cases.load),
    "torch": (_weights("torch", _torch_zip), _pickles, weight_cases.load),
    "torch-legacy": (_weights("legacy"), _weight_files("legacy"), weight_cases.load),
    "safetensors": (_weights("safetensors"), _weight_files("safetensors"), weight_cases.load),
    "description": (weight_cases.run_description, _description, weight_cases.load),
    "rank-tables": (lambda data: file_cases.run_rank_table(("", data)), _tables, file_cases.load),
    "lists": (_run_list, _lists, file_cases.load),
    "tars": (lambda data: file_cases.run_tar(("", with_right_sums(data))), _tars, file_cases.load),
    "folder-index": (_run_folder_index, lambda: [_INDEXES["folder"][0]], _load_indexes),
    "shard-index": (_run_shard_index, lambda: [_INDEXES["shards"][0]], _load_indexes),
    "records": (_run_record, _records, source_cases.load),
    "requests": (_run_body, _bodies, request_cases.load),
}


def reader_of(name: str) -> Guided:
    """A reader by its name."""
    run, seeds, load = READERS[name]
    return Guided(run, seeds, _load(load))
