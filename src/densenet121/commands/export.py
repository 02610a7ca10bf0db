"""The ``export`` command: ONNX (float or int8) or torch.export, with a parity certificate."""

import contextlib
import io
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densenet121.checkpoint.load import Weights, read_weights
from densenet121.checkpoint.native import METADATA_KEY
from densenet121.commands import DONE
from densenet121.config import ExportConfig, absolute
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preparation import evaluation_images
from densenet121.datasets.sources.open import open_evaluation
from densenet121.datasets.transforms import normalise
from densenet121.inference.classifier import Classifier, make_classifier
from densenet121.inference.layers import plain_forward
from densenet121.inference.onnx_model import OnnxModel
from densenet121.network import DenseNet
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic, write_json

_BATCH = 16
_REPETITIONS = 3
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class _Exported(nn.Module):
    """The plain reference modules; with ``uint8_input`` the normalisation is inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier, *, uint8_input: bool) -> None:
        super().__init__()
        assert isinstance(classifier.model, DenseNet)
        self.model = classifier.model
        self.register_buffer("mean", classifier.mean.view(3, 1, 1))
        self.register_buffer("std", classifier.std.view(3, 1, 1))
        self.uint8_input = uint8_input

    def forward(self, images: Tensor) -> Tensor:
        if self.uint8_input:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return plain_forward(self.model, images)


def export(config: ExportConfig) -> dict[str, Any]:
    """Write the network for another program; the parity certificate, printed and stored beside it.

    Raises:
        InputError: weights or images cannot be used, a package is missing, or the exported
            network differs by more than is tolerated; then nothing is written.
    """
    source, output = absolute(config.pretrained), absolute(config.output)
    weights = read_weights(source)
    if weights.info is None:
        raise InputError(f"{source}: tells no classes; export takes this program's weights")
    classifier = make_classifier(
        weights,
        source,
        net=weights.info.net,
        variant=None,
        image_size=None,
        eval_resize=None,
    )
    folder = open_evaluation(absolute(config.data_dir))
    checked, calibrating = _pick(folder, classifier, config.pictures)
    uint8_input = bool(config.uint8_input)
    module = _Exported(classifier, uint8_input=uint8_input).eval()
    shown = _inputs(module, checked[: min(2, len(checked))])
    if config.format == "torch":
        data = _torch_export(module, shown, weights)
        program = torch.export.load(io.BytesIO(data)).module()

        def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return np.asarray(program(_inputs(module, pixels)))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "plain.onnx"
            _onnx_export(module, shown, plain)
            if config.int8:
                plain = _quantise(plain, _inputs(module, calibrating))
            data = _with_metadata(plain, weights)
            whole = Path(scratch) / "whole.onnx"
            whole.write_bytes(data)
            exported = OnnxModel(whole)

        def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            images = _inputs(module, pixels)
            # OnnxModel takes a network's layout, also where the file takes images'.
            given = images.permute(0, 3, 1, 2) if uint8_input else images
            return np.asarray(exported(given))

    def reference(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = normalise(torch.from_numpy(pixels), classifier.mean, classifier.std)
            return np.asarray(classifier.model(images))

    certificate = {
        "source": source.name,
        "format": config.format,
        "int8": bool(config.int8),
        "uint8_input": uint8_input,
        "bytes": len(data),
        **_parity(reference, run, checked),
    }
    _judge(certificate, config)
    write_atomic(output, data)
    write_json(output.with_name(output.name + ".certificate.json"), certificate)
    print(json.dumps(certificate, indent=2))  # noqa: T201 (the command's output)
    return certificate


def _pick(
    folder: ImageDataset, classifier: Classifier, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images to check parity on, and others to calibrate int8 with, from all over the folder."""
    wanted = np.unique(np.linspace(0, len(folder) - 1, min(2 * count, len(folder))).astype(int))
    prepare = evaluation_images(folder, classifier.transform)
    size = (classifier.transform.height, classifier.transform.width, 3)
    pixels = np.empty((len(wanted), *size), dtype=np.uint8)
    for index, out in zip(wanted.tolist(), pixels, strict=True):
        prepare(index, out)
    return pixels[::2], pixels[1::2]


def _inputs(module: _Exported, pixels: NDArray[np.uint8]) -> Tensor:
    """What the exported network takes for prepared images ``(N, H, W, 3)``."""
    images = torch.from_numpy(pixels)
    if module.uint8_input:
        return images
    mean, std = module.get_buffer("mean").flatten(), module.get_buffer("std").flatten()
    return normalise(images, mean, std).contiguous()


def _content(weights: Weights) -> str:
    assert weights.info is not None
    content = {"model": weights.info.to_json(), "calibration": weights.calibration}
    return json.dumps(content, allow_nan=False)


def _torch_export(module: nn.Module, shown: Tensor, weights: Weights) -> bytes:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(module, (shown,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={f"{METADATA_KEY}.json": _content(weights)})
    return file.getvalue()


def _onnx_export(module: nn.Module, shown: Tensor, path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401 (the certificate needs it)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}: pip install 'densenet121[export]'") from None
    with _quiet():
        torch.onnx.export(
            module,
            (shown,),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes to their own developers, on stdout, stderr and as warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _quantise(path: Path, images: Tensor) -> Path:
    """Int8 by static quantisation of the convolutions and the classifier, nothing else.

    A concatenation in int8 would force one scale on all channels of a dense block, whose ranges
    differ by orders of magnitude; so concatenation and batch norm stay in float. Weights have 7
    bits: the 16-bit sums of CPUs before VNNI overflow with 8.
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
            self._left = iter(torch.split(images, _BATCH))

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


def _with_metadata(path: Path, weights: Weights) -> bytes:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: _content(weights)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _parity(reference: Run, run: Run, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    expected = np.concatenate([reference(part) for part in _parts(pixels)])
    found = np.concatenate([run(part) for part in _parts(pixels)])
    same = expected.argmax(axis=1) == found.argmax(axis=1)
    return {
        "pictures": len(pixels),
        "largest_logit_difference": float(np.abs(expected - found).max()),
        "largest_logit": float(np.abs(expected).max()),
        "top1_agreement": float(same.mean()),
        "images_per_second": _speed(run, pixels),
        "images_per_second_torch": _speed(reference, pixels),
    }


def _parts(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)]


def _speed(run: Run, pixels: NDArray[np.uint8]) -> float:
    batch = pixels[:_BATCH]
    seconds = []
    for _ in range(_REPETITIONS + 1):
        start = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - start)
    return len(batch) / float(np.median(seconds[1:]))


def _judge(certificate: dict[str, Any], config: ExportConfig) -> None:
    agreement = config.min_agreement
    if agreement is None:
        agreement = 0.95 if config.int8 else 1.0
    if certificate["top1_agreement"] < agreement:
        raise InputError(
            f"the exported network agrees on {100 * certificate['top1_agreement']:.2f} % of "
            f"{certificate['pictures']} images, --min_agreement is {agreement}; nothing written"
        )
    tolerance = config.tolerance
    if tolerance is None and not config.int8:
        tolerance = 1e-3 * max(1.0, certificate["largest_logit"])
    if tolerance is not None and not certificate["largest_logit_difference"] <= tolerance:
        raise InputError(
            f"the exported network's logits differ by {certificate['largest_logit_difference']:.3g}"
            f", --tolerance is {tolerance:.3g}; nothing written"
        )


def run(config: ExportConfig) -> int:
    """Export a network and print the parity report."""
    export(config)
    return DONE
