"""Read the checkpoints of a run, and decide where a run starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from densenet121.checkpoint.exported import is_onnx
from densenet121.checkpoint.foreign.keras import is_keras_file
from densenet121.checkpoint.foreign.torch_file import is_torch_file
from densenet121.checkpoint.load import is_mindspore_file
from densenet121.checkpoint.native import ModelInfo, read
from densenet121.runs.layout import (
    BEST_WEIGHTS,
    EVALUATION,
    LAST_WEIGHTS,
    checkpoints_in,
    dated_runs,
    read_evaluated,
)
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import real_path


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found intact.

    Attributes:
        path: path of the file.
        tensors: weights, running statistics, optimiser state, losses not yet logged.
        content: counters, loss scale, and in ``run`` the settings and the fingerprint of the data.
    """

    path: Path
    tensors: dict[str, Tensor]
    content: dict[str, Any]

    @property
    def info(self) -> ModelInfo:
        """Network, variant, task, classes and preprocessing of its weights."""
        return ModelInfo.from_json(self.content["model"])

    def set_of(self, name: str) -> dict[str, Tensor]:
        """The tensors of a set, such as "model" or "optimizer", by their names in the set."""
        prefix = f"{name}."
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        folder: the run folder to use, None for a new dated one.
        checkpoint: the checkpoint to resume from, None for a fresh run.
        warnings: messages about damaged checkpoints that were skipped.
        mindspore: a MindSpore training checkpoint to resume from, else None.
        found: names of the checkpoints of rank 0 in ``folder``, when this was decided.
    """

    folder: Path | None
    checkpoint: Checkpoint | None
    warnings: tuple[str, ...] = ()
    mindspore: Path | None = None
    found: frozenset[str] = frozenset()


def open_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        InputError: it is missing, damaged, or not a checkpoint of this program.
    """
    _, tensors, content = read(path, "checkpoint")
    return Checkpoint(path, tensors, content)


def newest_checkpoint(folder: Path, rank: int) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint of a run folder, and a warning for each damaged newer one."""
    warnings: list[str] = []
    for path in checkpoints_in(folder, rank):
        try:
            return open_checkpoint(path), warnings
        except InputError as error:
            warnings.append(f"{error}; falling back to the checkpoint before it")
    return None, warnings


def find_start(
    resume: str | Path | None, output_dir: Path | None, ckpt_path: Path, rank: int
) -> Start:
    """Decide where a run starts.

    Args:
        resume: None, "auto", or the path of a checkpoint.
        output_dir: the run folder, if given.
        ckpt_path: parent of dated run folders.
        rank: rank of this process.

    Raises:
        UsageError: the output folder has a run, and ``resume`` is None or a file of another
            folder; or it has only the weights of a run.
        InputError: the checkpoint cannot be used, or no checkpoint of the run is intact.
    """
    if resume is None:
        _refuse_run(output_dir, rank)
        _refuse_results_alone(output_dir)
        return Start(output_dir, None)
    if isinstance(resume, Path):
        if resume.is_dir():
            raise InputError(
                f"`resume` {resume} is a folder; pass `resume` auto `output_dir` {resume} to go on "
                "from its newest checkpoint, or one of its .ckpt files"
            )
        if not resume.exists():
            raise InputError(f"`resume` must be auto or a checkpoint; there is no file {resume}")
        if output_dir and real_path(output_dir) != real_path(resume).parent:
            _refuse_run(output_dir, rank)
            # The best weights may be those that this run copied before it was killed.
            _refuse_results_alone(output_dir, (LAST_WEIGHTS,))
        if resume.is_file() and is_mindspore_file(resume):
            return Start(output_dir, None, mindspore=resume, found=_names(output_dir, rank))
        _refuse_foreign(resume)
        own = output_dir or resume.parent
        found = _names(own, rank)
        return Start(own, open_checkpoint(resume), found=found)
    folder = output_dir or next(iter(dated_runs(ckpt_path)), None)
    if folder is None or not checkpoints_in(folder, rank):
        _refuse_results_alone(output_dir)
        passed = () if output_dir or not folder else _passed_over(folder, ckpt_path, rank)
        return Start(output_dir, None, passed)
    found = _names(folder, rank)
    newest, warnings = newest_checkpoint(folder, rank)
    if newest is None:
        raise InputError(f"no checkpoint in {folder} is intact: {warnings[0].split(';')[0]}")
    return Start(folder, newest, tuple(warnings), found=found)


def _names(folder: Path | None, rank: int) -> frozenset[str]:
    return frozenset(path.name for path in checkpoints_in(folder, rank)) if folder else frozenset()


def _refuse_foreign(file: Path) -> None:
    """Refuse a file of another program, which is no damaged checkpoint.

    Raises:
        InputError: it is one.
    """
    kinds = (
        ("an exported network (ONNX)", is_onnx),
        ("a file of Keras", is_keras_file),
        ("a file of torch", is_torch_file),
    )
    kind = next((kind for kind, known in kinds if file.is_file() and known(file)), None)
    if kind:
        raise InputError(
            f"`resume` {file} is {kind}, not a checkpoint of densenet121: pass one of the .ckpt "
            "files of a run, or weights as `pretrained` to start from them"
        )


def _passed_over(newest: Path, ckpt_path: Path, rank: int) -> tuple[str, ...]:
    """A warning about an older run that could be resumed, where the newest one cannot."""
    others = (path for path in dated_runs(ckpt_path) if checkpoints_in(path, rank))
    if (older := next(others, None)) is None:
        return ()
    return (
        f"the newest run {newest} has no checkpoint, so a new one begins; the older {older} has "
        f"one: pass `output_dir` {older} to go on with it",
    )


def _refuse_run(folder: Path | None, rank: int) -> None:
    """Refuse a folder with the checkpoints of a run: two would be mixed.

    Raises:
        UsageError: it has some.
    """
    held = checkpoints_in(folder, rank) if folder else []
    if held:
        raise UsageError(
            f"`output_dir` {folder} already has a run ({held[0].name}); pass `resume` auto to "
            "continue it, or choose another folder"
        )


def _refuse_results_alone(
    folder: Path | None, names: Sequence[str] = (BEST_WEIGHTS, LAST_WEIGHTS)
) -> None:
    """Refuse a folder whose checkpoints were removed: a new run would replace the weights in it.

    A run killed in its first epoch may have written its last weights, and begins again. So may one
    with the results that it took over, which have an epoch; those of `eval` have none.

    Raises:
        UsageError: the folder has weights of a run that went further, or results of `eval`, which
            the report would show as those of the run.
    """
    found = read_evaluated(folder) if folder else {}
    if found and "epoch" not in found:
        raise UsageError(
            f"`output_dir` {folder} has the results of an evaluation ({EVALUATION}); choose "
            "another folder"
        )
    for name in names:
        if folder is None or not (folder / name).is_file():
            continue
        if name == BEST_WEIGHTS or epoch_of(folder / name) != 0:
            raise UsageError(
                f"`output_dir` {folder} has the weights of a run ({name}), and no checkpoint to go "
                "on from; choose another folder, or remove this one to train again"
            )


def epoch_of(file: Path) -> Any:
    """The epoch that weights record, from 0; None if they do not."""
    try:
        _, _, content = read(file, "weights")
    except InputError:
        return None
    return content.get("origin", {}).get("epoch")
