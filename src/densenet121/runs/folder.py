"""The folder of a training run, filled as the run goes on."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from densenet121.checkpoint.native import ModelInfo, data_note, save, save_weights
from densenet121.runs.evaluations import copy_evaluation
from densenet121.runs.layout import (
    BEST_WEIGHTS,
    METRICS,
    RECORD,
    checkpoint_name,
    checkpoints_in,
    position_in_name,
)
from densenet121.runs.metrics import MetricsFile
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_json


class RunFolder:
    """A training run's files.

    Attributes:
        path: the folder.
        is_first: this is rank 0, which writes all but the other ranks' checkpoints.
        saves: whether this rank writes checkpoints.
    """

    def __init__(
        self,
        path: Path,
        *,
        rank: int,
        keep: int,
        info: ModelInfo,
        run: Mapping[str, Any],
        resumed_from: Path | None,
        saves: bool = True,
    ) -> None:
        """Hold what each file is made with.

        Args:
            path: the folder, which exists.
            rank: of this process, the first part of a checkpoint's name.
            keep: newest checkpoints to keep, 0 for all.
            info: network, variant, task, classes and preprocessing of the weights.
            run: as ``describe_run`` gives it, with "steps_per_epoch"; stored in every checkpoint.
            resumed_from: the checkpoint that the run goes on from.
            saves: whether this rank writes checkpoints; all else is written by rank 0 alone.
        """
        self.path = path
        self._metrics = MetricsFile(path / METRICS)
        self._last_good = resumed_from
        self._rank, self._keep, self._info, self._run = rank, keep, info, run
        self.is_first, self.saves = rank == 0, saves

    def begin(self, step: int, evaluated_epochs: int, source: Path | None) -> None:
        """Write run.json; on a resumed run, cut the metrics back to where it goes on.

        Args:
            step: steps that are done.
            evaluated_epochs: epochs that are done and validated.
            source: folder of the checkpoint that is resumed, None for a fresh run.
        """
        if not self.is_first:
            return
        content = dict(self._run)
        if source is None:
            self._metrics.keep_until(0, 0)
            write_json(self.path / RECORD, content)
            return
        self._metrics.keep_until(step, evaluated_epochs, source / METRICS)
        # Where it was moved away or damaged, the checkpoint has all that matters.
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((source / RECORD).read_text(encoding="utf-8"))
        content.setdefault("resumed", []).append(
            {"at": self._run["started"], "step": step, "from": str(self._last_good)}
        )
        write_json(self.path / RECORD, content)
        if source != self.path:
            if (source / BEST_WEIGHTS).exists():
                shutil.copyfile(source / BEST_WEIGHTS, self.path / BEST_WEIGHTS)
            copy_evaluation(source, self.path)

    def note(self, row: Mapping[str, Any]) -> None:
        """Add a row to the metrics."""
        if self.is_first:
            self._metrics.write(row)

    def checkpoint_path(self, step: int) -> Path:
        """Where this rank's checkpoint after ``step`` steps belongs."""
        return self.path / checkpoint_name(self._rank, step, self._run["steps_per_epoch"])

    def write_checkpoint(
        self, step: int, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint, and remove those beyond the number to keep.

        Raises:
            InputError: the file cannot be written; the text names the last good checkpoint.
        """
        path = self.checkpoint_path(step)
        whole = {"model": self._info.to_json(), **content, "run": dict(self._run)}
        try:
            save(path, "checkpoint", tensors, whole)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); {self.good}") from None
        self._last_good = path
        self._remove_old(path)
        return path

    def save_weights(
        self, name: str, state_dict: Mapping[str, Tensor], origin: Mapping[str, Any]
    ) -> None:
        """Write weights alone, for use elsewhere.

        Raises:
            InputError: the file cannot be written.
        """
        if not self.is_first:
            return
        data = data_note(self._run["data"])
        try:
            save_weights(self.path / name, state_dict, self._info, origin, data=data)
        except OSError as error:
            raise InputError(
                f"{self.path / name}: cannot be written ({error.strerror}); {self.good}"
            ) from None

    @property
    def good(self) -> str:
        """The last good checkpoint, in words."""
        return f"the last good checkpoint is {self._last_good or 'none: this run has written none'}"

    def _remove_old(self, current: Path) -> None:
        """Keep the newest checkpoints up to ``current``.

        One of a later step was left by the run that was resumed; it does not count as newer.
        """
        if self._keep == 0:
            return
        now = position_in_name(current)
        done = [
            path
            for path in checkpoints_in(self.path, self._rank)
            if (position := position_in_name(path)) and now and position <= now
        ]
        for path in done[self._keep :]:
            path.unlink(missing_ok=True)
