"""Names of the files in a run folder; find or create a run folder."""

import datetime
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from densenet121.utils.errors import InputError
from densenet121.utils.files import read_input
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import broken_link

RECORD = "run.json"
METRICS = "metrics.jsonl"
EVALUATION = "eval.json"
PREDICTIONS = "predictions.csv"
REPORT = "report.html"
BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"
BEST_AVERAGE = "best_ema.safetensors"
LAST_AVERAGE = "last_ema.safetensors"
ERROR_MAPS = "error_maps"
TRACKERS = "trackers.json"
TENSORBOARD = "tensorboard"
TRACKER_IMAGES = "tracker_images"

STARTED = "%Y-%m-%dT%H:%M:%S%z"  # in run.json
_STAMP = "%Y-%m-%d_time_%H_%M_%S"
_CHECKPOINT = re.compile(r"(\d+)-(\d+)_(\d+)\.ckpt")


def checkpoint_name(rank: int, step: int, steps_per_epoch: int) -> str:
    """Name as in the original, rank-epoch_step.ckpt: epoch from 1, steps done in that epoch."""
    if step == 0:
        return f"{rank}-1_0.ckpt"
    epoch, step_in_epoch = divmod(step - 1, steps_per_epoch)
    return f"{rank}-{epoch + 1}_{step_in_epoch + 1}.ckpt"


def position_in_name(path: Path) -> tuple[int, int] | None:
    """(epoch, step in it) from the name of a checkpoint, None for any other file."""
    match = _CHECKPOINT.fullmatch(path.name)
    return (int(match[2]), int(match[3])) if match else None


def checkpoints_in(folder: Path, rank: int = 0) -> list[Path]:
    """Checkpoints of a rank in a run folder, newest (by epoch and step) first.

    Raises:
        InputError: the folder is there and cannot be read: it may have some.
    """
    found = [
        (position, path)
        for path in _inside(folder)
        if path.name.startswith(f"{rank}-") and (position := position_in_name(path)) is not None
    ]
    return [path for _, path in sorted(found, reverse=True)]


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, nothing if there is none. glob passes over one that cannot be read."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def error_map(folder: Path, path: str) -> Path:
    """Path of the map of a misclassified image; ``path`` is its path in the dataset."""
    name = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:16]
    return folder / ERROR_MAPS / f"{name}.jpg"


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a folder; empty if it cannot be read."""
    return _object_in(folder / RECORD)


def read_evaluated(folder: Path) -> dict[str, Any]:
    """eval.json of a folder; empty if it cannot be read."""
    return _object_in(folder / EVALUATION)


def _object_in(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_input(file))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def dated_runs(parent: Path) -> Iterator[Path]:
    """The dated folders of training runs, the last one that was started first.

    Evaluations have dated folders too. A training run whose run.json is lost or damaged is known by
    its checkpoints, in which everything is that it needs.

    Raises:
        InputError: ``parent``, or the folder of such a run, is there and cannot be read.
    """
    dated = [path for path in _inside(parent) if "_time_" in path.name]
    records = [(path, read_record(path)) for path in dated]
    found = [
        (_started(path, record), path)
        for path, record in records
        if (record.get("command") == "train" if record else checkpoints_in(path))
    ]
    return (path for _, path in sorted(found, reverse=True))


def _started(folder: Path, record: Mapping[str, Any]) -> float:
    """When a run was started: its name has the clock of its time zone, and daylight saving."""
    for text, form in ((record.get("started"), STARTED), (folder.name, _STAMP)):
        try:
            return datetime.datetime.strptime(str(text), form).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return 0.0


def make_folder(folder: Path | None, parent: Path, stamp: str | None = None) -> tuple[Path, str]:
    """Create ``folder``, or a new dated one in ``parent``; returns its path and the date.

    ``stamp`` is the date of rank 0, for the other ranks. Their folder may be the same or another.

    Raises:
        InputError: no permission, no space, or a file has this name.
    """
    try:
        if stamp is not None:
            folder = folder or parent / stamp
            folder.mkdir(parents=True, exist_ok=True)
            return folder, stamp
        while folder is None:
            stamp = time.strftime(_STAMP)
            try:
                (parent / stamp).mkdir(parents=True)
                return parent / stamp, stamp
            except FileExistsError:
                if not (parent / stamp).is_dir():
                    raise
                time.sleep(0.1)  # another run started in the same second
        folder.mkdir(parents=True, exist_ok=True)
        return folder, time.strftime(_STAMP)
    except OSError as error:
        where = folder or parent
        reason = broken_link(where) or error.strerror
        raise InputError(f"{where}: cannot create the output folder ({reason})") from None
