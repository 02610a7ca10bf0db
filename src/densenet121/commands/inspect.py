"""The ``inspect`` command."""

from pathlib import Path

from densenet121.checkpoint.inspect import inspect
from densenet121.commands import DONE
from densenet121.config import InspectConfig


def run(config: InspectConfig) -> int:
    """Print a description of a weights file."""
    print(inspect(Path(config.file)))  # noqa: T201 (the command's output)
    return DONE
