"""The folder of a run: found or made at the start, filled as the run goes on."""

import contextlib
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from densenet121.checkpoint.load import is_mindspore_file
from densenet121.checkpoint.native import (
    ModelInfo,
    checkpoint_name,
    checkpoints_in,
    data_note,
    position_in_name,
    save_weights,
)
from densenet121.config import absolute
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.state import (
    Checkpoint,
    Training,
    newest_checkpoint,
    open_checkpoint,
    save_training,
)
from densenet121.native.network import instruction_set
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import remove_temporary_files, write_json
from densenet121.utils.logging import MetricsFile
from densenet121.version import __version__

STAMP = "%Y-%m-%d_time_%H_%M_%S"


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        folder: that is to be used, None for a new dated one.
        checkpoint: to go on from, None to start afresh.
        warnings: damaged checkpoints that were passed over.
        mindspore: a training checkpoint of MindSpore to go on from, else None.
    """

    folder: Path | None
    checkpoint: Checkpoint | None
    warnings: tuple[str, ...] = ()
    mindspore: Path | None = None


def find_start(resume: str | None, output_dir: Path | None, ckpt_path: Path, rank: int) -> Start:
    """Decide what --resume, --output_dir and --ckpt_path come to.

    Raises:
        UsageError: the output folder holds a run that is not being resumed.
        InputError: a checkpoint named by --resume cannot be used, or none of a run's is intact.
    """
    if resume is None:
        held = checkpoints_in(output_dir, rank) if output_dir else []
        if held:
            raise UsageError(
                f"--output_dir {output_dir} already holds a run ({held[0].name}); pass --resume "
                "auto to go on with it, or name another folder"
            )
        return Start(output_dir, None)
    if resume != "auto":
        file = absolute(resume)
        if file.is_file() and is_mindspore_file(file):
            return Start(output_dir, None, mindspore=file)
        checkpoint = open_checkpoint(Path(resume))
        return Start(output_dir or checkpoint.path.parent, checkpoint)
    folder = output_dir or _newest_run(ckpt_path)
    if folder is None or not checkpoints_in(folder, rank):
        return Start(output_dir, None)
    newest, warnings = newest_checkpoint(folder, rank)
    if newest is None:
        raise InputError(f"no checkpoint in {folder} is intact: {warnings[0].split(';')[0]}")
    return Start(folder, newest, tuple(warnings))


def _newest_run(parent: Path) -> Path | None:
    """The newest dated folder that a training run made; evaluations have dated folders too."""
    folders = sorted(parent.glob("*_time_*"), reverse=True)
    return next((folder for folder in folders if command_of(folder) == "train"), None)


def command_of(folder: Path) -> str | None:
    """The command that made a run folder, None for any other folder."""
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("command") if isinstance(content, dict) else None


def make_folder(folder: Path | None, parent: Path, stamp: str | None = None) -> tuple[Path, str]:
    """Make ``folder``, or a new dated one in ``parent``: its path and the date for file names.

    With ``stamp``, the date is that one: rank 0's, whose folder this may be or not.

    Raises:
        InputError: no permission, no space, or a file is in the way.
    """
    try:
        if stamp is not None:
            folder = folder or parent / stamp
            folder.mkdir(parents=True, exist_ok=True)
            return folder, stamp
        while folder is None:
            stamp = time.strftime(STAMP)
            try:
                (parent / stamp).mkdir(parents=True)
                return parent / stamp, stamp
            except FileExistsError:
                if not (parent / stamp).is_dir():
                    raise
                time.sleep(0.1)  # another run began in this very second
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(folder)
        return folder, time.strftime(STAMP)
    except OSError as error:
        where = folder or parent
        raise InputError(f"{where}: the output folder cannot be made ({error.strerror})") from None


class RunFolder:
    """A training run's files.

    Attributes:
        path: the folder.
        metrics: metrics.jsonl.
        last_good: the newest checkpoint that was written or resumed from.
        is_first: this is rank 0, which writes all but the other ranks' checkpoints.
    """

    def __init__(
        self,
        path: Path,
        *,
        rank: int,
        steps_per_epoch: int,
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
            steps_per_epoch: for a checkpoint's name.
            keep: newest checkpoints to keep, 0 for all.
            info: what the weights are weights of.
            run: as ``describe_run`` gives it, stored in every checkpoint.
            resumed_from: the checkpoint that the run goes on from.
            saves: whether this rank writes checkpoints; all else is written by rank 0 alone.
        """
        self.path = path
        self.metrics = MetricsFile(path / "metrics.jsonl")
        self.last_good = resumed_from
        self._rank, self._steps_per_epoch, self._keep = rank, steps_per_epoch, keep
        self._info, self._run = info, run
        self.is_first, self._saves = rank == 0, saves

    def begin(self, training: Training, source: Path | None) -> None:
        """Write run.json; on a resumed run, cut the metrics back to where it goes on.

        Args:
            training: as it will go on.
            source: folder of the checkpoint that is resumed, None for a fresh run.
        """
        if not self.is_first:
            return
        content = dict(self._run)
        if source is None:
            self.metrics.keep_until(0, 0)
            write_json(self.path / "run.json", content)
            return
        state = training.state
        self.metrics.keep_until(state.step, state.evaluated_epochs, source / "metrics.jsonl")
        # Where it was moved away or damaged, the checkpoint has all that matters.
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((source / "run.json").read_text(encoding="utf-8"))
        content.setdefault("resumed", []).append(
            {"at": self._run["started"], "step": state.step, "from": str(self.last_good)}
        )
        write_json(self.path / "run.json", content)
        if source != self.path:
            for name in ("best.safetensors", "eval.json", "predictions.csv"):
                if (source / name).exists():
                    shutil.copyfile(source / name, self.path / name)

    def note(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl."""
        if self.is_first:
            self.metrics.write(row)

    def save_checkpoint(self, training: Training, *, alone: bool = False) -> Path:
        """Write the whole state, and remove checkpoints beyond the number to keep.

        All ranks call this together, unless one is ``alone`` with its trouble; one that does not
        save returns the path.

        Raises:
            InputError: the weights are nan or infinite, or the file cannot be written; the text
                names the last good checkpoint.
        """
        step = training.state.step
        if not all(bool(p.isfinite().all()) for p in training.model.parameters()):
            raise InputError(f"weights are nan or infinite after step {step - 1}; {self.good}")
        path = self.path / checkpoint_name(self._rank, step, self._steps_per_epoch)
        losses = training.losses.of_all_ranks(alone)
        if not self._saves:
            return path
        try:
            save_training(path, training, losses, self._info, self._run)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); {self.good}") from None
        self.last_good = path
        self._remove_old(path)
        return path

    def save_weights(self, name: str, training: Training, origin: Mapping[str, Any]) -> None:
        """Write weights alone, for use elsewhere.

        Raises:
            InputError: the file cannot be written.
        """
        if not self.is_first:
            return
        try:
            save_weights(
                self.path / name,
                training.model.state_dict(),
                self._info,
                origin,
                data=data_note(self._run["data"]),
            )
        except OSError as error:
            raise InputError(
                f"{self.path / name}: cannot be written ({error.strerror}); {self.good}"
            ) from None

    @property
    def good(self) -> str:
        """The last good checkpoint, in words."""
        return f"the last good checkpoint is {self.last_good or 'none: this run has written none'}"

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


def describe_run(
    command: str,
    settings: Mapping[str, Any],
    device: torch.device,
    class_names: tuple[str, ...],
    train: ImageDataset | None,
    val: ImageDataset | None,
) -> dict[str, Any]:
    """The content of run.json: settings, versions, device, source commit, data."""
    return {
        "command": command,
        "settings": dict(settings),
        "versions": {
            "densenet121": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "platform": platform.platform(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "kernels": instruction_set(device),
        "git_commit": _git_commit(),
        "class_names": list(class_names),
        "data": {"train": _describe(train), "val": _describe(val)},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _describe(dataset: ImageDataset | None) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "folder": str(dataset.root),
        "pictures": len(dataset),
        "fingerprint": dataset.fingerprint,
    }


def _git_commit() -> str | None:
    """Commit of the source tree this package runs from, None where it is installed."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
