"""run.json: the settings, versions, device, source commit and data of a run."""

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.device import describe_device
from densenet121.native.network import instruction_set
from densenet121.runs.layout import STARTED
from densenet121.runtime import Runtime
from densenet121.version import __version__


def describe_run(
    command: str,
    settings: Mapping[str, Any],
    runtime: Runtime,
    task_name: str,
    class_names: Sequence[str],
    train: ImageDataset | None,
    val: ImageDataset | None,
) -> dict[str, Any]:
    """The content of run.json."""
    return {
        "command": command,
        "settings": dict(settings),
        "task": task_name,
        "versions": {
            "densenet121": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "platform": platform.platform(),
        "device": str(runtime.device),
        "accelerator": describe_device(runtime.device),
        "threads": torch.get_num_threads(),
        "kernels": instruction_set(runtime.device),
        "git_commit": _git_commit(),
        "class_names": list(class_names),
        "data": {"train": _describe(train), "val": _describe(val)},
        "started": time.strftime(STARTED),
    }


# A resumed run neither loads weights nor begins at another checkpoint than before.
_OF_THE_START = ("pretrained", "resume")
_OF_A_TIME = ("started", "resumed")


def resumed_record(
    before: Mapping[str, Any], now: Mapping[str, Any], step: int, checkpoint: Path
) -> dict[str, Any]:
    """run.json of a run that goes on: as it is now, with its first start and each resumption.

    Args:
        before: run.json until now, or what the checkpoint has of it.
        now: result of ``describe_run``.
        step: steps done.
        checkpoint: the checkpoint that it is resumed from.
    """
    content, settings = dict(now), dict(now["settings"])
    earlier = before.get("settings")
    if isinstance(earlier, dict):
        settings |= {name: earlier[name] for name in _OF_THE_START if name in earlier}
        content["settings"] = settings
    entry: dict[str, Any] = {"at": now["started"], "step": step, "from": str(checkpoint)}
    changed = _changed(before, content)
    if changed:
        entry["changed"] = changed
    resumed = before.get("resumed")
    content["started"] = before.get("started", now["started"])
    content["resumed"] = [*(resumed if isinstance(resumed, list) else []), entry]
    return content


def steps_as_now(done: int, before: Mapping[str, Any], now: Mapping[str, Any]) -> int:
    """The steps of an epoch that train on the images of ``done`` steps of an earlier run's epoch.

    A whole epoch stays one. Else the number of images counts, because the ranks share each step,
    and a step that was begun is done, so that no image comes twice.

    Args:
        done: steps of the epoch that were done.
        before: the run then, with its "steps_per_epoch" and, unless it is old, "world_size".
        now: the run now.
    """
    steps, ranks = now["steps_per_epoch"], now["world_size"]
    if done == before["steps_per_epoch"]:
        return int(steps)
    return int(min(-(-done * before.get("world_size", ranks) // ranks), steps))


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, by its name: what it was, and is now. What ``before`` lacks is not known."""
    found: dict[str, Any] = {}
    for name, value in now.items():
        was = before.get(name, value)
        if name in _OF_A_TIME or was == value:
            continue
        if isinstance(was, dict) and isinstance(value, dict):
            found |= {f"{name}.{key}": pair for key, pair in _changed(was, value).items()}
        else:
            found[name] = {"was": was, "now": value}
    return found


def _describe(dataset: ImageDataset | None) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "folder": str(dataset.source),
        "pictures": len(dataset),
        "fingerprint": dataset.fingerprint,
    }


def _git_commit() -> str | None:
    """Commit of the source tree this package runs from, None if it is installed."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
