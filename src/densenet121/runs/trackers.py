"""Mirrors of metrics.jsonl in TensorBoard, Weights & Biases and MLflow.

A tracker that fails is a warning, never the end of a run: its rows wait until the next validation,
and are then tried again. A resumed run goes on in the same place, with every row once.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from densenet121.runs.layout import TENSORBOARD, TRACKERS
from densenet121.utils.files import write_json
from densenet121.utils.logging import log

Row = Mapping[str, Any]
_KINDS = {"train": "train", "eval": "val", "eval_ema": "val_ema"}
_PROJECT = "densenet121"
_MOST_PARAMS = 100  # that MLflow takes at once


class Tracker(Protocol):
    """Where the rows go to."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows that are not there yet."""

    def close(self, *, failed: bool) -> None:
        """End the run there."""


class Trackers:
    """The trackers of a run; without any, nothing happens."""

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        """Open nothing yet; see ``begin``."""
        self._names, self._folder, self._settings = names, folder, settings
        self._ids: dict[str, str] = {}  # of the runs in the trackers
        self._open: dict[str, Tracker] = {}
        self._waiting: dict[str, list[Row]] = {}
        self._warned: set[str] = set()

    def begin(self, kept: Sequence[Row], source: Path | None) -> None:
        """Open them.

        Args:
            kept: the rows of metrics.jsonl up to the checkpoint that the run is resumed from.
            source: folder of the interrupted run, None for a fresh one.
        """
        self._ids = _read_ids(source) if source else {}
        for name in self._names:
            self._try(name, partial(self._begin, name, kept))
        if self._ids:
            write_json(self._folder / TRACKERS, dict(sorted(self._ids.items())))

    def _begin(self, name: str, kept: Sequence[Row]) -> None:
        folder, settings = self._folder, self._settings
        tracker: Tracker
        if name == "tensorboard":
            tracker = _TensorBoard(folder, settings)
        elif name == "wandb":
            tracker = _WandB(folder, settings, self._ids.setdefault(name, uuid.uuid4().hex))
        else:
            tracker = mlflow = _MLflow(folder, settings, self._ids.get(name))
            self._ids[name] = mlflow.run_id
        self._open[name] = tracker
        tracker.write(kept)

    def note(self, row: Row) -> None:
        """Mirror one row."""
        for name, tracker in self._open.items():
            waiting = self._waiting.setdefault(name, [])
            waiting.append(row)
            # After a failure the next validation is soon enough: some of them take minutes to fail.
            if len(waiting) == 1 or row["kind"] != "train":
                self._try(name, partial(self._flush, name, tracker))

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
        tracker.write(self._waiting[name])
        self._waiting[name].clear()

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Do something with a tracker, with a warning at its first failure."""
        try:
            action()
        except Exception as error:  # any of a library's: a run does not end for it
            if name not in self._warned:
                self._warned.add(name)
                reason = " ".join(str(error).split())[:300]
                log.warning("%s: %s: %s; the run goes on", name, type(error).__name__, reason)


def values_of(row: Row) -> dict[str, float]:
    """The numbers of a row, by the names that trackers show: "train/loss", "lr", "val/top1"."""
    place = _KINDS[row["kind"]]
    return {
        name if name == "lr" else f"{place}/{name}": value
        for name, value in row.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in ("epoch", "step")
    }


class _TensorBoard:
    """Event files in the run folder; those of an interrupted run are written anew."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        where = folder / TENSORBOARD
        for old in where.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(where))
        lines = [f"| {name} | {value} |" for name, value in settings.items()]
        text = "\n".join(["| setting | value |", "| --- | --- |", *lines])
        self._writer.add_text("settings", text, 0)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in values_of(row).items():
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases, whose id is kept.

    Its steps only rise, and the server knows the last one. Offline, a killed process leaves files
    that lack its last rows, so they are written anew unless they were synchronised.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], run_id: str) -> None:
        import wandb

        earlier = list(folder.glob(f"wandb/offline-run-*-{run_id}"))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run_id,
            name=folder.name,
            dir=str(folder),
            config=dict(settings),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        for old in earlier if self._run.offline else ():
            if not list(old.glob("*.synced")):
                shutil.rmtree(old)
        self._next_step = self._run.step

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row["step"] >= self._next_step:
                self._run.log(values_of(row), step=row["step"])

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    """A run of MLflow, which knows its rows; by default in a database beside the run folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], run_id: str | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        store = None  # the environment names it
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            store = f"sqlite:///{folder.resolve().parent / 'mlflow.db'}"
        self._client = MlflowClient(store)
        self._done: set[tuple[str, int]] = set()
        if run_id is not None:
            self.run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
            for kind, metric in (
                ("train", "lr"),
                ("eval", "val/loss"),
                ("eval_ema", "val_ema/loss"),
            ):
                history = self._client.get_metric_history(run_id, metric)
                self._done |= {(kind, point.step) for point in history}
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self.run_id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in settings.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self.run_id, params=params[start : start + _MOST_PARAMS])

    def write(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        for row in rows:
            key = (row["kind"], row["step"])
            if key in self._done:
                continue
            now = int(time.time() * 1000)
            values = values_of(row).items()
            metrics = [Metric(name, float(value), now, row["step"]) for name, value in values]
            self._client.log_batch(self.run_id, metrics=metrics)
            self._done.add(key)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


def _read_ids(folder: Path) -> dict[str, str]:
    """The ids of the runs in the trackers; empty if there are none."""
    try:
        found = json.loads((folder / TRACKERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in known if isinstance(value, str)}
