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
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


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
