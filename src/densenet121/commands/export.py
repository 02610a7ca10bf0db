"""The ``export`` command: export the network for another runtime, with a parity report."""

import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.checkpoint.weights import Weights
from densenet121.commands import DONE, print_notes
from densenet121.config import ExportConfig, absolute
from densenet121.datasets.image_dataset import ImageDataset, with_classes
from densenet121.engine.images import open_images
from densenet121.inference.classifier import Choices, Classifier, load_classifier, make_classifier
from densenet121.inference.exporting import (
    BATCH,
    ExportedNetwork,
    inputs_of,
    onnx_export,
    quantise,
    torch_export,
    with_metadata,
)
from densenet121.inference.onnx_model import OnnxModel
from densenet121.network import DenseNet
from densenet121.network.int8 import VERSION, measure, quantise_network
from densenet121.runtime import check_kernels
from densenet121.tasks import Task
from densenet121.tasks.given import metrics_of, rows_of, scores_of, targets_of
from densenet121.utils.errors import InputError
from densenet121.utils.files import FULL, check_output, json_bytes, write_together
from densenet121.utils.rounding import rounded_down

_REPETITIONS = 3
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def export(config: ExportConfig, task: Task | None = None) -> dict[str, Any]:
    """Export the network; returns the parity report, which is also printed and stored beside it.

    Args:
        config: the settings.
        task: the caller's own task; None uses the one that the weights name.

    Raises:
        InputError: weights or images cannot be used, a package is missing, or the exported
            network differs by more than allowed; then nothing is written.
    """
    source, output = absolute(config.pretrained), absolute(config.output)
    certificate = output.with_name(output.name + ".certificate.json")
    for file in (output, certificate):
        check_output(file, "output", [source, absolute(config.data_dir)])
    weights = read_weights(source)
    info = weights.known_info(source)
    weights.check_finite(source)
    classifier = make_classifier(weights, source, Choices(net=info.net, task=task))
    dataset = open_images(config, info.task, info.class_names)
    print_notes(f"note: {note}" for note in weights.notes)
    wanted = _spread(len(dataset), config.pictures)
    checked = _pixels(dataset, classifier, wanted[::2])
    calibrating = _pixels(dataset, classifier, wanted[1::2]) if config.int8 else None
    module = ExportedNetwork(classifier, uint8_input=bool(config.uint8_input)).eval()
    if config.format == "native":
        assert calibrating is not None
        data, run = _as_native(classifier, weights, dataset, calibrating)
    else:
        write = _as_torch if config.format == "torch" else _as_onnx
        data, run = write(module, weights, checked, calibrating)

    def reference(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = classifier.preprocessing.normalise(torch.from_numpy(pixels))
            return np.asarray(classifier.model(images))

    parity = {
        "source": source.name,
        "format": config.format,
        "int8": bool(config.int8),
        "uint8_input": module.uint8_input,
        "bytes": len(data),
        **_parity(classifier, reference, run, checked, _targets(classifier, dataset, wanted[::2])),
    }
    _check_parity(parity, config)
    write_together({output: data, certificate: json_bytes(parity)})
    print(json.dumps(parity, indent=2))  # noqa: T201 (the command's output)
    return parity


def _as_torch(
    module: ExportedNetwork,
    weights: Weights,
    shown: NDArray[np.uint8],
    calibrating: NDArray[np.uint8] | None,
) -> tuple[bytes, Run]:
    """The content of the file, and a function that runs it; ``calibrating`` is not used."""
    data = torch_export(module, inputs_of(module, shown[:2]), weights)
    with warnings.catch_warnings():  # torch 2.10 warns of how it reads them itself
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        program = torch.export.load(io.BytesIO(data)).module()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(program(inputs_of(module, pixels)))

    return data, run


def _as_onnx(
    module: ExportedNetwork,
    weights: Weights,
    shown: NDArray[np.uint8],
    calibrating: NDArray[np.uint8] | None,
) -> tuple[bytes, Run]:
    """The content of the file, and a function that runs it; int8 if ``calibrating`` is given."""
    with _scratch() as scratch:
        path = scratch / "plain.onnx"
        onnx_export(module, (shown.shape[1], shown.shape[2]), path)
        if calibrating is not None:
            path = quantise(path, inputs_of(module, calibrating))
        data = with_metadata(path, weights, int8=calibrating is not None)
        whole = scratch / "whole.onnx"
        whole.write_bytes(data)
        exported = OnnxModel(whole)

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = inputs_of(module, pixels)
        # OnnxModel always takes NCHW, also if the file takes NHWC.
        given = images.permute(0, 3, 1, 2) if module.uint8_input else images
        return np.asarray(exported(given))

    return data, run


def _as_native(
    classifier: Classifier,
    weights: Weights,
    dataset: ImageDataset,
    calibrating: NDArray[np.uint8],
) -> tuple[bytes, Run]:
    """The content of a file of int8 weights, and a function that runs it."""
    assert isinstance(classifier.model, DenseNet) and weights.info is not None
    preprocessing = classifier.preprocessing
    batches = (preprocessing.normalise(torch.from_numpy(part)) for part in _parts(calibrating))
    with torch.inference_mode():
        statistics = measure(classifier.model, batches)
    tensors = quantise_network(classifier.model, statistics, preprocessing.mean, preprocessing.std)
    note = {"pictures": len(calibrating), "fingerprint": dataset.fingerprint}
    int8 = {"version": VERSION, "calibration": note}
    with _scratch() as scratch:
        path = scratch / "int8.safetensors"
        save_weights(
            path,
            tensors,
            weights.info,
            weights.origin,
            weights.calibration,
            weights.data,
            int8=int8,
        )
        content = path.read_bytes()
        model = load_classifier(path, Choices(task=classifier.task)).model

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model(preprocessing.normalise(torch.from_numpy(pixels))))

    return content, run


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder.

    Raises:
        InputError: it is full; libraries do not name what they could not write.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
    except OSError as error:
        if error.errno not in FULL:
            raise
        advice = "name a folder with more room in the environment variable TMPDIR"
        raise InputError(f"{tempfile.gettempdir()}: {error.strerror}; {advice}") from None


def _spread(images: int, count: int) -> NDArray[np.int64]:
    """Images to check parity on and, between them, others to calibrate int8 with."""
    return np.unique(np.linspace(0, images - 1, min(2 * count, images)).astype(np.int64))


def _pixels(
    dataset: ImageDataset, classifier: Classifier, wanted: NDArray[np.int64]
) -> NDArray[np.uint8]:
    preprocessing = classifier.preprocessing.changed(tta="none")  # one view is exported
    prepare, size = preprocessing.reader(dataset), preprocessing.image_size
    pixels = np.empty((len(wanted), *size, 3), dtype=np.uint8)
    for index, out in zip(wanted.tolist(), pixels, strict=True):
        prepare(index, out)
    return pixels


def _targets(
    classifier: Classifier, dataset: ImageDataset, wanted: NDArray[np.int64]
) -> Tensor | None:
    """What the images are; None if their classes are not those of the weights."""
    try:
        dataset = with_classes(dataset, classifier.class_names, str(dataset.root))
    except InputError:
        return None
    return targets_of(classifier.task, dataset, wanted)


def _parity(
    classifier: Classifier,
    reference: Run,
    run: Run,
    pixels: NDArray[np.uint8],
    targets: Tensor | None,
) -> dict[str, Any]:
    task, calibration = classifier.task, classifier.calibration
    expected = np.concatenate([reference(part) for part in _parts(pixels)])
    found = np.concatenate([run(part) for part in _parts(pixels)])
    same = task.same_answers(expected, found, calibration)
    same = rows_of(task, "same_answers", same, len(pixels))
    before, after = (task.probabilities(logits, calibration) for logits in (expected, found))
    more: dict[str, Any] = {}
    if before is not None and after is not None:
        more["largest_probability_difference"] = float(np.abs(before - after).max())
    if targets is not None:
        for name, logits in (("metrics_before", expected), ("metrics_after", found)):
            scores = scores_of(task, torch.from_numpy(logits), targets)
            scores = task.calibrated(scores, targets, calibration)  # as eval measures them
            more[name] = metrics_of(task, scores, targets, classifier.class_names)
    return {
        "pictures": len(pixels),
        "largest_logit_difference": float(np.abs(expected - found).max()),
        "largest_logit": float(np.abs(expected).max()),
        "top1_agreement": float(same.mean()),
        **more,
        "images_per_second": _speed(run, pixels),
        "images_per_second_torch": _speed(reference, pixels),
    }


def _parts(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]


def _speed(run: Run, pixels: NDArray[np.uint8]) -> float:
    batch = pixels[:BATCH]
    seconds = []
    for _ in range(_REPETITIONS + 1):
        start = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - start)
    return len(batch) / float(np.median(seconds[1:]))


def _check_parity(parity: dict[str, Any], config: ExportConfig) -> None:
    agreement = config.min_agreement
    if agreement is None:
        agreement = 0.95 if config.int8 else 1.0
    if parity["top1_agreement"] < agreement:
        reached = rounded_down(parity["top1_agreement"], 2, times=100)
        raise InputError(
            f"the exported network agrees on {reached} % of {parity['pictures']} images, but "
            f"`min_agreement` is {agreement}; nothing was written"
        )
    tolerance = config.tolerance
    if tolerance is None and not config.int8:
        tolerance = 1e-3 * max(1.0, parity["largest_logit"])
    if tolerance is not None and not parity["largest_logit_difference"] <= tolerance:
        raise InputError(
            f"the exported network's logits differ by {parity['largest_logit_difference']:.3g}, "
            f"but `tolerance` is {tolerance:.3g}; nothing was written"
        )


def run(config: ExportConfig) -> int:
    """Export a network and print the parity report."""
    check_kernels()
    export(config)
    return DONE
