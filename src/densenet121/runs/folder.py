"""The folder of a training run, written during the run."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from densenet121.checkpoint.native import ModelInfo, data_note, save, save_weights
from densenet121.runs.best import bring_best
from densenet121.runs.checkpoints import Checkpoint
from densenet121.runs.evaluations import copy_evaluation, remove_evaluation
from densenet121.runs.layout import (
    METRICS,
    RECORD,
    checkpoint_name,
    checkpoints_in,
    position_in_name,
    read_record,
)
from densenet121.runs.metrics import MetricsFile, read_rows
from densenet121.runs.record import resumed_record, steps_as_now
from densenet121.runs.trackers import Trackers
from densenet121.utils.errors import InputError, UnreadableError, cannot_write
from densenet121.utils.files import write_json
from densenet121.utils.locks import locked


class RunFolder:
    """The files of a training run.

    Attributes:
        path: the folder.
        is_first: whether this is rank 0, which writes all but the other ranks' checkpoints.
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
        log_to: Sequence[str] = (),
    ) -> None:
        """Set the values that the files need; writes nothing.

        Args:
            path: the folder, which exists.
            rank: rank of this process, the first part of a checkpoint's name.
            keep: number of newest checkpoints to keep, 0 for all.
            info: network, variant, task, classes and preprocessing of the weights.
            run: result of ``describe_run`` with "steps_per_epoch"; stored in every checkpoint.
            resumed_from: the checkpoint that the run was resumed from.
            saves: whether this rank writes checkpoints; only rank 0 writes the other files.
            log_to: names of trackers that mirror the metrics.
        """
        self.path = path
        self._trackers = Trackers(log_to if rank == 0 else (), path, run["settings"])
        self._metrics = MetricsFile(path / METRICS)
        self._last_good = resumed_from
        self._superseded: list[Path] = []
        self._rank, self._keep, self._info, self._run = rank, keep, info, run
        self.is_first, self.saves = rank == 0, saves
        self._check_owner: Callable[[], None] | None = None

    @contextmanager
    def alone(self, found: Collection[str]) -> Iterator[None]:
        """A context in which no other run writes into the folder.

        Args:
            found: names of the checkpoints by which it was decided where this run starts.

        Raises:
            InputError: another one does, or did since they were found.
        """
        if not self.is_first:
            yield
            return
        with locked(self.path, "output_dir") as self._check_owner:
            there = {path.name for path in checkpoints_in(self.path)}
            if there != set(found):
                raise InputError(
                    f"`output_dir` {self.path}: another run has written checkpoints there while "
                    "this one started; start it again, with `resume` auto to go on from them"
                )
            yield

    def begin(
        self,
        step: int,
        checkpoint: Checkpoint | None,
        first_batch: Callable[[], bytes] | None = None,
    ) -> tuple[str, ...]:
        """Write run.json; in a resumed run, remove metrics after the checkpoint.

        Args:
            step: steps done.
            checkpoint: the one that the run is resumed from, None for a fresh run.
            first_batch: draws the images of the first batch, for the trackers.

        Returns:
            The fields of the checkpoint's state whose best weights are lost.

        Raises:
            InputError: a file cannot be written; the text names the last good checkpoint.
        """
        self._superseded = self._renamed(step, checkpoint) if checkpoint else []
        if not self.is_first:
            return ()
        with self.writing():
            if checkpoint is None:
                self._metrics.keep_until(0, 0)
                remove_evaluation(self.path)
                write_json(self.path / RECORD, dict(self._run))
                self._trackers.begin([], None, first_batch)
                return ()
            source = checkpoint.path.parent
            self._keep_metrics(step, checkpoint)
            self._trackers.begin(read_rows(self.path / METRICS), source, first_batch)
            # If it is missing or damaged, the checkpoint has everything that is needed.
            before = read_record(source) or checkpoint.content["run"]
            record = resumed_record(before, self._run, step, checkpoint.path)
            write_json(self.path / RECORD, record)
            state = checkpoint.content["state"]
            lost = bring_best(source, self.path, state)
            if source != self.path:
                copy_evaluation(source, self.path, state["evaluated_epochs"])
            return lost

    @contextmanager
    def writing(self, file: Path | None = None) -> Iterator[None]:
        """A context that writes ``file``, or several.

        Raises:
            InputError: one cannot be written, and the text names the last good checkpoint; or the
                folder is another run's now.
        """
        if self._check_owner:
            self._check_owner()
        try:
            yield
        except OSError as error:
            path = file or error.filename or self.path
            raise cannot_write(path, error, self.good) from None

    def _renamed(self, step: int, checkpoint: Checkpoint) -> list[Path]:
        """Checkpoints of the interrupted epoch that would pass for newer than this run's.

        Where an epoch has other steps than it had, their names count steps that are none now.
        """
        names = ("steps_per_epoch", "world_size")
        before, now = checkpoint.content["run"], self._run
        if all(before.get(name, now[name]) == now[name] for name in names):
            return []
        epoch = checkpoint.content["state"]["evaluated_epochs"]
        done = step - epoch * now["steps_per_epoch"]
        found = ((path, position_in_name(path)) for path in checkpoints_in(self.path, self._rank))
        return [path for path, at in found if at and at[0] == epoch + 1 and at[1] > done]

    def _keep_metrics(self, step: int, checkpoint: Checkpoint) -> None:
        """Keep the rows up to the checkpoint; ``step`` is the number of its steps in this run."""
        state, before = checkpoint.content["state"], checkpoint.content["run"]
        epochs, had = state["evaluated_epochs"], before["steps_per_epoch"]
        first = epochs * self._run["steps_per_epoch"]

        def renumbered(row_step: int) -> int:
            done = steps_as_now(row_step + 1 - epochs * had, before, self._run)
            return min(int(first) + done, step) - 1

        source = checkpoint.path.parent / METRICS
        self._metrics.keep_until(state["step"], epochs, source, renumbered)

    def note(self, row: Mapping[str, Any]) -> None:
        """Append a row to the metrics, and to the trackers before.

        Raises:
            InputError: the file cannot be written; the text names the last good checkpoint.
        """
        if self.is_first:
            # A killed run then has no row in its metrics that a tracker has not got.
            self._trackers.note(row)
            with self.writing(self._metrics.path):
                self._metrics.write(row)

    def show(self, name: str, step: int, draw: Callable[[], bytes | None]) -> None:
        """Give an image to the trackers, if there are any; it is drawn only then."""
        if self.is_first:
            self._trackers.show(name, step, draw)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End the run in the trackers; an error of torch, as of a lost rank, says how to go on."""
        self._trackers.close(failed=kind is not None)
        if isinstance(error, RuntimeError) and (last := self._last()):
            error.add_note(
                f"the last good checkpoint is {last}; continue with `resume` auto `output_dir` "
                f"{self.path}"
            )

    def checkpoint_path(self, step: int) -> Path:
        """Path of this rank's checkpoint after ``step`` steps."""
        return self.path / checkpoint_name(self._rank, step, self._run["steps_per_epoch"])

    def write_checkpoint(
        self, step: int, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint, and remove the oldest ones beyond the number to keep.

        Raises:
            InputError: the file cannot be written; the text names the last good checkpoint.
        """
        path = self.checkpoint_path(step)
        whole = {"model": self._info.to_json(), **content, "run": dict(self._run)}
        with self.writing(path):
            save(path, "checkpoint", tensors, whole)
        self._last_good = path
        for old in self._superseded:
            if old != path:
                old.unlink(missing_ok=True)
        self._superseded = []
        self._remove_old(path)
        return path

    def save_weights(
        self, name: str, state_dict: Mapping[str, Tensor], origin: Mapping[str, Any]
    ) -> None:
        """Write only the weights, for use elsewhere.

        Raises:
            InputError: the file cannot be written.
        """
        if not self.is_first:
            return
        data = data_note(self._run["data"])
        with self.writing(self.path / name):
            save_weights(self.path / name, state_dict, self._info, origin, data=data)

    @property
    def good(self) -> str:
        """The last good checkpoint, as text for a message."""
        if last := self._last():
            return f"the last good checkpoint is {last}"
        if self._last_good and self.saves:
            return f"the checkpoints of this run are gone from {self._last_good.parent}"
        return "this run has not written a checkpoint yet"

    def _last(self) -> Path | None:
        """The last good checkpoint, if it is there; someone may have removed the folder."""
        last = self._last_good
        if not self.saves:  # then rank 0 has written them, into this folder or on another host
            with suppress(InputError):  # it is for the text of another error
                last = next(iter(checkpoints_in(self.path)), last)
            return last
        return last if last and last.exists() else None

    def unreadable(self, fault: object, kept: str) -> UnreadableError:
        """The error for images that cannot be read; ``kept`` says what is not lost."""
        return UnreadableError(
            fault,
            f"{kept}; repair or remove the image, or pass `on_bad_image` skip, and continue with "
            f"`resume` auto `output_dir` {self.path}",
        )

    def _remove_old(self, current: Path) -> None:
        """Remove old checkpoints, keeping the newest ones up to ``current``.

        A checkpoint of a later step was left by the interrupted run; it does not count as newer.
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
