"""Mirrors of metrics.jsonl, and of some images, in TensorBoard, Weights & Biases and MLflow.

A tracker that fails is a warning, never the end of a run: its rows wait until the next validation,
and are then tried again; an image is tried once. A resumed run goes on in the same place, with
every row and image once. Images are kept in the run folder, from which they are written anew.
"""

import json
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from densenet121.runs.layout import TRACKER_IMAGES, TRACKERS
from densenet121.runs.tracker_libraries import (
    IMAGES,
    MLflow,
    Row,
    TensorBoard,
    Tracker,
    WandB,
)
from densenet121.utils.errors import one_line
from densenet121.utils.files import read_input, write_atomic, write_json
from densenet121.utils.logging import log

_IMAGE = "image"
_FIRST = "first_batch"
_FILE = re.compile(r"(\d{8,})_(\w+)\.png")


class Trackers:
    """The trackers of a run; without any, nothing happens."""

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        """Open nothing yet; see ``begin``."""
        self._names, self._folder, self._settings = names, folder, settings
        self._ids: dict[str, str] = {}  # of the runs in the trackers
        self._open: dict[str, Tracker] = {}
        self._waiting: dict[str, list[Row]] = {}
        self._warned: set[str] = set()

    def begin(
        self,
        kept: Sequence[Row],
        source: Path | None,
        first_batch: Callable[[], bytes] | None = None,
    ) -> None:
        """Open them.

        Args:
            kept: the rows of metrics.jsonl up to the checkpoint that the run is resumed from.
            source: folder of the interrupted run, None for a fresh one.
            first_batch: draws the images of the first batch.
        """
        if not self._names:
            return
        self._ids = _read_ids(source) if source else {}
        images: list[Row] = []
        self._try(IMAGES, lambda: images.extend(_kept_images(self._folder, kept, source)))
        if first_batch:
            self._try(IMAGES, lambda: images.extend(self._draw(_FIRST, 0, first_batch)))
        # After the metrics of their step; steps only rise.
        rows = sorted([*kept, *images], key=lambda row: (row["step"], row["kind"] == _IMAGE))
        for name in self._names:
            self._try(name, partial(self._begin, name, rows))
        if self._ids:
            write_json(self._folder / TRACKERS, dict(sorted(self._ids.items())))

    def _begin(self, name: str, kept: Sequence[Row]) -> None:
        folder, settings = self._folder, self._settings
        tracker: Tracker
        if name == "tensorboard":
            tracker = TensorBoard(folder, settings)
        elif name == "wandb":
            tracker = WandB(folder, settings, self._ids.setdefault(name, uuid.uuid4().hex))
        else:
            tracker = mlflow = MLflow(folder, settings, self._ids.get(name))
            self._ids[name] = mlflow.run_id
        self._open[name] = tracker
        self._write(name, tracker, [*kept])

    def note(self, row: Row) -> None:
        """Mirror one row."""
        for name, tracker in self._open.items():
            waiting = self._waiting.setdefault(name, [])
            waiting.append(row)
            # After a failure the next validation is soon enough: some of them take minutes to fail.
            if len(waiting) == 1 or row["kind"] != "train":
                self._try(name, partial(self._flush, name, tracker))

    def show(self, name: str, step: int, draw: Callable[[], bytes | None]) -> None:
        """Draw an image and mirror it."""
        drawn: list[Row] = []
        if self._open:
            self._try(IMAGES, lambda: drawn.extend(self._draw(name, step, draw)))
        for image in drawn:
            for tracker_name, tracker in self._open.items():
                if self._waiting.get(tracker_name):  # it comes after them
                    self._waiting[tracker_name].append(image)
                else:
                    self._try(tracker_name, partial(tracker.show, image))

    def _draw(self, name: str, step: int, draw: Callable[[], bytes | None]) -> list[Row]:
        """An image as a row, which is a file of the run folder; none if nothing was drawn."""
        content = draw()
        if content is None:
            return []
        file = self._folder / TRACKER_IMAGES / f"{step:08d}_{name}.png"
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, content)
        return [{"kind": _IMAGE, "name": name, "step": step, "file": file}]

    def close(self, *, failed: bool) -> None:
        """Write what waits, and end the runs there."""
        for name, tracker in self._open.items():
            if self._waiting.get(name):
                self._try(name, partial(self._flush, name, tracker))
            self._try(name, partial(tracker.close, failed=failed))
            if left := len(self._waiting.get(name, [])):
                log.warning("%s has not got the last %d rows; metrics.jsonl has them", name, left)
        self._open.clear()

    def _flush(self, name: str, tracker: Tracker) -> None:
        self._write(name, tracker, self._waiting[name])

    def _write(self, name: str, tracker: Tracker, rows: list[Row]) -> None:
        """Write rows and images in their order, and remove what was written from ``rows``."""
        while rows:
            group = list(takewhile(lambda row: row["kind"] != _IMAGE, rows))
            if group:
                tracker.write(group)
                del rows[: len(group)]
            else:
                self._try(name, partial(tracker.show, rows.pop(0)))

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Do something with a tracker, with a warning at its first failure."""
        try:
            action()
        except Exception as error:  # any of a library's: a run does not end for it
            if name not in self._warned:
                self._warned.add(name)
                reason = one_line(error)[:300]
                log.warning("%s: %s: %s; the run goes on", name, type(error).__name__, reason)


def _kept_images(folder: Path, kept: Sequence[Row], source: Path | None) -> list[Row]:
    """The images of the rows that are kept, in this folder; others are removed."""
    steps = {row["step"] for row in kept if row["kind"] == "eval"}
    found: list[Row] = []
    own = folder / TRACKER_IMAGES
    for file in sorted((source / TRACKER_IMAGES).glob("*.png")) if source else ():
        match = _FILE.fullmatch(file.name)
        if match and match[2] != _FIRST and int(match[1]) in steps:
            if source != folder:
                own.mkdir(exist_ok=True)
                shutil.copyfile(file, own / file.name)
            row = {"kind": _IMAGE, "name": match[2], "step": int(match[1])}
            found.append(row | {"file": own / file.name})
    for file in own.glob("*.png"):
        if file not in [row["file"] for row in found]:
            file.unlink()
    return found


def _read_ids(folder: Path) -> dict[str, str]:
    """The ids of the runs in the trackers; empty if there are none."""
    try:
        found = json.loads(read_input(folder / TRACKERS))
    except (OSError, ValueError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in known if isinstance(value, str)}
