"""Describe an exported ``.onnx`` file by what the export has written into it."""

from collections.abc import Iterator
from pathlib import Path

from densenet121.checkpoint.inspect import (
    calibration_rows,
    class_row,
    described,
    images_line,
)
from densenet121.inference.onnx_model import OnnxModel


def inspect_onnx(path: Path) -> str:
    """The lines of ``inspect`` for an exported network.

    Raises:
        InputError: missing, damaged, or not written by ``export``.
    """
    return described(path, _rows(OnnxModel(path), path))


def _rows(model: OnnxModel, path: Path) -> Iterator[tuple[str, str]]:
    info, calibration = model.recorded(path)
    yield "weights of", "densenet121, exported to ONNX: for predict, eval and serve"
    yield "network", info.net
    yield "variant", info.variant
    yield class_row(info, str(model.num_classes))
    yield from calibration_rows(calibration or {})
    yield "content", f"computes in {model.arithmetic}; takes {model.input_text}"
    yield "images", images_line(info.preprocessing)
