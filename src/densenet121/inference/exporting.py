"""Export a network: ONNX in float or int8, and torch.export."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densenet121.checkpoint.native import METADATA_KEY
from densenet121.checkpoint.weights import Weights
from densenet121.datasets.transforms import normalise
from densenet121.inference.classifier import Classifier
from densenet121.inference.layers import plain_forward
from densenet121.inference.onnx_graph import onnx_graph
from densenet121.network import DenseNet
from densenet121.utils.errors import InputError

BATCH = 16


class ExportedNetwork(nn.Module):
    """The network in plain modules; with ``uint8_input`` it includes the normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier, *, uint8_input: bool) -> None:
        super().__init__()
        assert isinstance(classifier.model, DenseNet)
        self.model = classifier.model
        for name in ("mean", "std"):
            values = torch.tensor(getattr(classifier.preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values.view(-1, 1, 1))
        self.uint8_input = uint8_input

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` of the result of ``inputs_of``."""
        if self.uint8_input:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return plain_forward(self.model, images)


def inputs_of(module: ExportedNetwork, pixels: NDArray[np.uint8]) -> Tensor:
    """The exported network's input for prepared images ``(N, H, W, 3)``."""
    images = torch.from_numpy(pixels)[..., : len(module.get_buffer("mean"))].contiguous()
    if module.uint8_input:
        return images
    mean, std = module.get_buffer("mean").flatten(), module.get_buffer("std").flatten()
    return normalise(images, mean, std).contiguous()


def _content(weights: Weights, *, int8: bool = False) -> str:
    assert weights.info is not None
    content = {
        "model": weights.info.to_json(),
        "calibration": weights.calibration,
        "int8": int8,
    }
    return json.dumps(content, allow_nan=False)


def torch_export(module: nn.Module, shown: Tensor, weights: Weights) -> bytes:
    """The content of a torch.export file for any number of images; ``shown`` is an example."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(module, (shown,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={f"{METADATA_KEY}.json": _content(weights)})
    return file.getvalue()


def onnx_export(module: ExportedNetwork, size: tuple[int, int], path: Path) -> None:
    """Write an ONNX file for any number of images of ``size``, height and width in pixels.

    Raises:
        InputError: a package is missing.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 (the parity report needs it)
    except ImportError as error:
        raise InputError(f"{error}; pip install 'densenet121[export]'") from None
    inside = (module.mean, module.std) if module.uint8_input else None
    onnx.save(onnx_graph(module.model, size, inside), path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the quantiser's messages for its developers: stdout, logging and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def quantise(path: Path, images: Tensor, batch_size: int = BATCH) -> Path:
    """Static int8 quantisation of only the convolutions and the classifier.

    A concatenation in int8 would force one scale on all channels of a dense block, whose ranges
    differ by orders of magnitude, so concatenation and batch norm stay in float. Weights have 7
    bits, because the 16-bit sums of CPUs before VNNI overflow with 8.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(torch.split(images, batch_size))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._left, None)
            return None if batch is None else {"images": batch.numpy()}

    folded, quantised = path.with_name("folded.onnx"), path.with_name("int8.onnx")
    with _quiet():
        quant_pre_process(path, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            quantised,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return quantised


def with_metadata(path: Path, weights: Weights, *, int8: bool) -> bytes:
    """The content of an ONNX file, with classes, preprocessing, calibration and arithmetic."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: _content(weights, int8=int8)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
