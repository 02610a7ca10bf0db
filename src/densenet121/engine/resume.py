"""Whether a checkpoint may be gone on from, and what is to be said of it."""

from collections.abc import Mapping
from typing import Any

from densenet121.config import differences
from densenet121.datasets.pictures import check_same_classes
from densenet121.engine.state import Checkpoint, RunState
from densenet121.processes import gather
from densenet121.utils.errors import InputError, UsageError


def check_resumable(checkpoint: Checkpoint, run: dict[str, Any]) -> list[str]:
    """Refuse a resumption that would not be the same run; warnings where it may not be.

    Raises:
        UsageError: a flag that matters differs.
        InputError: the classes differ.
    """
    before = checkpoint.content["run"]
    changed = differences(before["settings"], run["settings"])
    if changed:
        raise UsageError(
            f"cannot resume {checkpoint.path} with other settings: {'; '.join(changed)}"
        )
    check_same_classes(
        before["class_names"], str(checkpoint.path), run["class_names"], "the training data"
    )
    warnings = []
    for split in ("train", "val"):
        was, now = before["data"][split], run["data"][split]
        if (was and was["fingerprint"]) != (now and now["fingerprint"]):
            count = [data["pictures"] if data else 0 for data in (was, now)]
            warnings.append(
                f"the {split} data changed since {checkpoint.path.name}: {count[0]} pictures then, "
                f"{count[1]} now; the result will not be that of an uninterrupted run"
            )
    for name in ("device", "threads", "kernels", "world_size"):
        was = before.get(name, run[name])  # older checkpoints do not tell all of them
        if was != run[name]:
            warnings.append(
                f"{name} was {was}, is {run[name]}: sums are rounded in another order, "
                "the result may differ in the last bits"
            )
    if before["versions"]["torch"] != run["versions"]["torch"]:
        warnings.append(
            f"torch was {before['versions']['torch']}, is {run['versions']['torch']}: the result "
            "may differ in the last bits"
        )
    return warnings


def check_same_data(run: Mapping[str, Any]) -> None:
    """Refuse ranks that see other pictures, as a folder that differs from host to host makes them.

    Raises:
        InputError: naming the first rank that differs from rank 0.
    """
    seen = gather({s: d and (d["pictures"], d["fingerprint"]) for s, d in run["data"].items()})
    for rank, data in enumerate(seen):
        for split, found in data.items():
            if found != seen[0][split]:
                counts = [d[split][0] if d[split] else 0 for d in (data, seen[0])]
                raise InputError(
                    f"the {split} data of rank {rank} ({counts[0]} pictures) is not that of rank 0 "
                    f"({counts[1]} pictures): every host needs the same files and names"
                )


def renumber(state: RunState, checkpoint: Checkpoint, epoch_steps: int) -> list[str]:
    """Fit the step count to epochs that have become longer or shorter with the data."""
    before = checkpoint.content["run"]["steps_per_epoch"]
    if before == epoch_steps:
        return []
    in_epoch = state.step - state.evaluated_epochs * before
    done = epoch_steps if in_epoch == before else min(in_epoch, epoch_steps)
    state.step = state.evaluated_epochs * epoch_steps + done
    return [f"an epoch had {before} steps and has {epoch_steps}; going on at step {state.step}"]
