"""TensorBoard, Weights & Biases and MLflow: where the rows and images of a run go."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from densenet121.runs.layout import TENSORBOARD

Row = Mapping[str, Any]
IMAGES = "images"
_KINDS = {"train": "train", "eval": "val", "eval_ema": "val_ema"}
_PROJECT = "densenet121"
_MOST_PARAMS = 100  # that MLflow takes at once


class Tracker(Protocol):
    """Where the rows go to."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows that are not there yet."""

    def show(self, image: Row) -> None:
        """Write an image, if it is not there yet: a row with "name", "step" and "file"."""

    def close(self, *, failed: bool) -> None:
        """End the run there."""


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


class TensorBoard:
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
        """Write rows."""
        for row in rows:
            for name, value in values_of(row).items():
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def show(self, image: Row) -> None:
        """Write an image."""
        with Image.open(image["file"]) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        self._writer.add_image(image["name"], pixels, image["step"], dataformats="HWC")
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._writer.close()


class WandB:
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
            # Else a run that the caller has open would be taken for this one, or ended.
            settings=wandb.Settings(console="off", silent=True, reinit="create_new"),
        )
        for old in earlier if self._run.offline else ():
            if not list(old.glob("*.synced")):
                shutil.rmtree(old)
        self._next_step = self._run.step

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        for row in rows:
            if row["step"] >= self._next_step:
                self._run.log(values_of(row), step=row["step"])

    def show(self, image: Row) -> None:
        """Write an image."""
        import wandb

        if image["step"] >= self._next_step:
            shown = wandb.Image(str(image["file"]))
            self._run.log({image["name"]: shown}, step=image["step"])

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow, which knows its rows; by default in a database beside the run folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], run_id: str | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        store = files = None  # the environment names them
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            parent = folder.resolve().parent
            store, files = f"sqlite:///{parent / 'mlflow.db'}", (parent / "mlflow_files").as_uri()
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
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(name, artifact_location=files)
        )
        self.run_id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in settings.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self.run_id, params=params[start : start + _MOST_PARAMS])

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
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

    def show(self, image: Row) -> None:
        """Write an image."""
        self._client.log_artifact(self.run_id, str(image["file"]), IMAGES)  # replaces its own

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
