"""Damaged rank tables, lists, tables of labels, tar shards and folder indexes."""

import csv
import io
import json
import random
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.campaign import Target
from campaigns.image_cases import corpus, one_line
from campaigns.mutation import any_value, damaged, json_text
from densenet121.datasets.sources.label_table import LabelRules, read_label_table
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.distributed.rank_table import find_place, read_rank_table
from densenet121.utils.errors import InputError, UsageError

Case = tuple[str, bytes]
_FOLDER: list[Path] = []
_NAMES = [f"{kind}/{number}.png" for kind in ("ant", "bee") for number in range(3)]


def load(folder: Path) -> None:
    """A folder with images, which lists may name."""
    _FOLDER[:] = [folder]
    _INDEX.clear()
    image = corpus()["png"][0]
    for name in _NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def _ranks(rng: random.Random) -> Any:
    """One of the five forms of a rank table."""
    devices = [
        {"device_id": str(n), "device_ip": f"10.0.0.{n}", "rank_id": str(n)} for n in range(4)
    ]
    servers = [{"server_id": f"10.1.0.{n}", "device": devices[2 * n : 2 * n + 2]} for n in range(2)]
    instances = [
        {"devices": [device], "rank_id": device["rank_id"], "server_id": "10.1.0.0"}
        for device in devices
    ]
    return rng.choice(
        (
            {"version": "1.0", "server_count": "2", "server_list": servers, "status": "completed"},
            {"status": "completed", "group_list": [{"instance_list": instances}]},
            {"version": "2.0", "status": "completed", "rank_list": devices},
        )
    )


def make_rank_table(rng: random.Random) -> Case:
    """A changed rank table."""
    return "rank table", json_text(rng, _ranks(rng))


def run_rank_table(case: Case) -> str:
    """Read it, and find every host in it."""
    path = _FOLDER[0] / "table.json"
    path.write_bytes(case[1])
    try:
        servers = read_rank_table(path)
        for names in (["10.1.0.0"], ["nowhere"], []):
            for count in (1, 2, 4):
                _refused(lambda n=count, own=names: find_place(servers, n, own, "table.json"))  # type: ignore[misc]
    except (InputError, UsageError) as error:
        one_line(error)
        return "refused"
    return "read"


def _refused(use: Callable[[], Any]) -> None:
    try:
        use()
    except (InputError, UsageError) as error:
        one_line(error)


def _rows(rng: random.Random) -> list[list[str]]:
    words = ("0", "1", "-1", "", "ant", "bee", "train", "val", "nan", "1.0", "yes", "a|b", "é")
    return [[name, rng.choice(words), rng.choice(words)] for name in _NAMES]


def make_list(rng: random.Random) -> Case:
    """A list, a CSV or a table of labels, then damaged."""
    kind = rng.choice(("list.txt", "list.csv", "list.tsv", "labels.csv"))
    rows = _rows(rng)
    if kind == "list.txt":
        data = "\n".join(f"{row[0]} {row[1] or 'ant'}" for row in rows).encode()
    else:
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t" if kind == "list.tsv" else ",")
        header = ["path", rng.choice(("label", "Edema")), rng.choice(("split", "Mass", "x"))]
        writer.writerows([header, *rows])
        data = out.getvalue().encode()
    if rng.random() < 0.05:
        data = data.decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    return kind, damaged(rng, data) if rng.random() < 0.9 else data


def run_list(case: Case) -> str:
    """Every reader of lists."""
    name, data = case
    path = _FOLDER[0] / name
    path.write_bytes(data)
    rules = LabelRules(uncertain="0", missing="0")
    ways: tuple[Callable[[], Any], ...] = (
        lambda: open_training(path),
        lambda: open_evaluation(path),
        lambda: open_training(_FOLDER[0], exclude=path),
        lambda: read_label_table(path, LabelRules()),
        lambda: read_label_table(path, rules),
    )
    return outcome_of(name, ways)


def outcome_of(name: str, ways: tuple[Callable[[], Any], ...]) -> str:
    """Whether one of the ways read it; what refuses must say so in one line."""
    read = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for way in ways:
            try:
                way()
                read = True
            except (InputError, UsageError) as error:
                one_line(error)
    return f"{name} {'read' if read else 'refused'}"


def make_tar(rng: random.Random) -> Case:
    """A shard with images and labels, then damaged; or a sound one with odd labels."""
    out = io.BytesIO()
    kinds = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    with tarfile.open(fileobj=out, mode="w", format=rng.choice(kinds)) as tar:
        for number in range(3):
            label = rng.choice(
                (b"ant", b"1", b"", b"\xff", json.dumps(any_value(rng)).encode("utf-8", "replace"))
            )
            ending = rng.choice(("cls", "json", "json"))
            if ending == "json":
                label = json_text(rng, {"label": "ant", "path": "ant/1.png"})
            stem = f"{rng.choice(('ant', 'x' * 120, 'é'))}/{number}"
            for name, data in ((f"{stem}.png", corpus()["png"][0]), (f"{stem}.{ending}", label)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    data = out.getvalue()
    return "tar", damaged(rng, data) if rng.random() < 0.7 else data


def run_tar(case: Case) -> str:
    """Read it as training and as evaluation images, and read the images."""
    path = _FOLDER[0] / "shard.tar"
    path.write_bytes(case[1])

    def read() -> None:
        dataset = open_evaluation(path)
        for index in range(len(dataset)):
            dataset.read(index)

    return outcome_of("tar", (lambda: open_training(path), read))


def sound_index() -> bytes:
    """The index of a folder of images, made once."""
    from densenet121.datasets.sources import index_cache

    if not _INDEX:
        root = _FOLDER[0] / "indexed"
        for name in _NAMES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(corpus()["png"][0])
        kept = _FOLDER[0] / "cache"
        before, index_cache._LEAST_CACHED = index_cache._LEAST_CACHED, 1
        try:
            index_cache.scan_cached(root, "data_dir", kept)
        finally:
            index_cache._LEAST_CACHED = before
        _INDEX.extend(path.read_bytes() for path in kept.rglob("*.npz"))
    return _INDEX[0]


def make_index(rng: random.Random) -> Case:
    """The index of a folder of images, damaged."""
    return "index", damaged(rng, sound_index())


_INDEX: list[bytes] = []


def run_index(case: Case) -> str:
    """A damaged index is made again: the images are the same."""
    root, kept = _FOLDER[0] / "indexed", _FOLDER[0] / "cache"
    for path in kept.rglob("*.npz"):
        path.write_bytes(case[1])
    dataset, _ = open_training(root, cache_dir=kept)
    assert len(dataset) == len(_NAMES)
    return "index read"


def make_parquet(rng: random.Random) -> Case:
    """A Parquet file of images, damaged."""
    if not _PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        image = [{"bytes": corpus()["png"][0], "path": None}] * 4
        for labels in ([0, 1, 0, 1], ["ant", "bee", "ant", "bee"]):
            out = io.BytesIO()
            pq.write_table(pa.table({"image": image, "label": labels}), out)
            _PARQUET.append(out.getvalue())
    return "parquet", damaged(rng, rng.choice(_PARQUET))


_PARQUET: list[bytes] = []


def run_parquet(case: Case) -> str:
    """Read it, and read the images."""
    folder = _FOLDER[0] / "parquet"
    folder.mkdir(exist_ok=True)
    path = folder / "train-00000.parquet"
    path.write_bytes(case[1])

    def read() -> None:
        dataset, _ = open_training(path)
        for index in range(len(dataset)):
            dataset.read(index)

    return outcome_of("parquet", (read,))


def targets(folder: Path) -> list[Target]:
    """Of this file; ``folder`` is for files."""

    def target(
        name: str, make: Callable[[random.Random], Any], run: Callable[[Any], str]
    ) -> Target:
        return Target(name, make, run, lambda: load(folder))

    return [
        target("rank-tables", make_rank_table, run_rank_table),
        target("lists", make_list, run_list),
        target("tars", make_tar, run_tar),
        target("indexes", make_index, run_index),
        target("parquet", make_parquet, run_parquet),
    ]
