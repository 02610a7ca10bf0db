"""The ``inspect`` command."""

from pathlib import Path

from densenet121.checkpoint.exported import is_onnx
from densenet121.checkpoint.inspect import inspect
from densenet121.commands import DONE
from densenet121.config import InspectConfig


def run(config: InspectConfig) -> int:
    """Print a description of a weights file, or of a network that was exported to ONNX."""
    path = Path(config.file)
    if is_onnx(path):
        from densenet121.inference.inspect_onnx import inspect_onnx

        print(inspect_onnx(path))  # noqa: T201 (the command's output)
    else:
        print(inspect(path))  # noqa: T201
    return DONE
