"""The best weights of a run that is resumed: those that its checkpoint knows, or none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densenet121.checkpoint.native import data_note, read, save_weights
from densenet121.runs.checkpoints import Checkpoint, open_checkpoint
from densenet121.runs.layout import BEST_AVERAGE, BEST_WEIGHTS, checkpoints_in, position_in_name
from densenet121.tasks import Metrics
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic
from densenet121.utils.logging import log

# File, the field of the state with its metrics, and its tensors in a checkpoint.
_KINDS = ((BEST_WEIGHTS, "best", "model"), (BEST_AVERAGE, "best_average", "average"))


def plain_metrics(metrics: Metrics) -> Metrics:
    """The metrics that are one number each, which is what weights record of their validation."""
    return {name: value for name, value in metrics.items() if not isinstance(value, dict)}


def bring_best(source: Path, target: Path, state: Mapping[str, Any]) -> tuple[str, ...]:
    """Leave the best weights of a checkpoint in the folder where its run goes on.

    A file that is lost, damaged, or of another epoch is written again from the checkpoint of its
    epoch.

    Args:
        source: the folder of the checkpoint.
        target: that of the resumed run, perhaps the same.
        state: of the checkpoint.

    Returns:
        The fields of the state whose weights are lost.

    Raises:
        OSError: a file cannot be written.
    """
    lost = []
    for name, field, tensors in _KINDS:
        epoch = state.get(f"{field}_epoch")
        if epoch is None:
            continue
        if not (fault := _fault(source / name, epoch)):
            if source != target:
                write_atomic(target / name, (source / name).read_bytes())
        elif found := _end_of(epoch, source):
            made = {"epoch": epoch, "step": found.content["state"]["step"] - 1}
            origin = made | plain_metrics(state.get(field) or {})
            data = data_note(found.content["run"]["data"])
            save_weights(target / name, found.set_of(tensors), found.info, origin, data=data)
            log.warning("%s; %s has its weights: written again", fault, found.path)
        else:
            lost.append(field)
            text = "%s, and no checkpoint of its end is left: the best from here on is kept"
            log.warning(text, fault)
    return tuple(lost)


def _fault(file: Path, best: int) -> str:
    """Why a file is not the weights of the best epoch; "" if it is. Older ones do not say."""
    try:
        _, _, content = read(file, "weights")
    except InputError as error:
        return f"{error}; the best until here was epoch[{best}]"
    epoch = content.get("origin", {}).get("epoch", best)
    same = epoch == best
    return "" if same else f"{file} is of epoch[{epoch}], not of epoch[{best}], the best until here"


def _end_of(epoch: int, folder: Path) -> Checkpoint | None:
    """The checkpoint of the end of an epoch, if there is an intact one."""
    for path in checkpoints_in(folder):
        if (position_in_name(path) or (0, 0))[0] != epoch + 1:
            continue
        try:
            found = open_checkpoint(path)
        except InputError:
            continue
        if found.content["state"]["step"] == (epoch + 1) * found.content["run"]["steps_per_epoch"]:
            return found
    return None
