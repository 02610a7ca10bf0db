"""``Predictor``: images in any form to answers, prepared as in evaluation."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.exported import is_onnx
from densenet121.datasets.decoding import MAX_PIXELS, not_readable, read_file
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import Batch, load_batches
from densenet121.datasets.sampler import evaluation_batches
from densenet121.inference.classifier import Choices, load_classifier, logits_of
from densenet121.inference.image_input import ImageInput, as_encoded, check_prepared, in_order
from densenet121.inference.onnx_model import OnnxModel, load_onnx
from densenet121.network import Variant, constant_network
from densenet121.runtime import make_runtime
from densenet121.tasks import AnswerOptions, Task
from densenet121.tasks.given import rows_of
from densenet121.tasks.single_label.predictions import Prediction
from densenet121.utils.callers_modes import own_modes
from densenet121.utils.checks import check_type, check_whole, checked_path
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.resizing import default_eval_resize

__all__ = ["ImageInput", "Prediction", "Predictor"]


class Predictor:
    """Classifies images with given weights.

    Threads may share it, and it can be pickled; that of an exported .onnx reads its file again. A
    process that is forked after torch has computed on several threads hangs at its first image, as
    with any network of torch on a CPU: start processes by spawn, or load the weights in each.

    Attributes:
        classifier: the network with its classes, task and preprocessing.
        runtime: device, arithmetic, batch size and workers.
    """

    @own_modes()
    def __init__(
        self,
        weights: str | Path,
        *,
        net: str | None = None,
        variant: Variant | None = None,
        image_size: int | tuple[int, int] | None = None,
        eval_resize: int | str | None = None,
        tta: str | None = None,
        depth: int | None = None,
        window: str | None = None,
        device: str | None = None,
        amp: str | None = None,
        batch_size: int | None = None,
        workers: int = 1,
        task: Task | None = None,
    ) -> None:
        """Load weights; by default settings come from the weights or suit the machine.

        Args:
            weights: a checkpoint, a weights file of a supported program, or an exported .onnx.
            net: the network, for weights that do not record it (default: densenet121).
            variant: paper or model_zoo, for weights that do not record it.
            image_size: height and width of the network's input, in pixels, or one number for both.
            eval_resize: size before the central crop, such as 256 or "short:256" (default: a
                given image_size by 8/7, otherwise as the weights record).
            tta: views whose probabilities are averaged: none, flip, dihedral or ten_crop.
            depth: bits that are used of 16-bit grey images, 8 or 16.
            window: values that become black and white, such as "0,4095".
            device: name of the device in torch.
            amp: fp32, bf16 or fp16; an exported network or int8 weights compute in their own.
            batch_size: images per forward.
            workers: threads that decode; 0 decodes in the calling thread.
            task: the caller's own task; None uses the one that the weights name.

        Raises:
            InputError: the weights cannot be used; a UsageError if a value cannot.
        """
        check_type("task", task, Task, NoneType)
        check_whole("batch_size", batch_size, 1)
        check_whole("workers", workers, 0)
        runtime = make_runtime(device, amp, batch_size, workers)
        path = checked_path("weights", weights)
        size = _height_and_width(image_size)
        if size and eval_resize is None:
            eval_resize = default_eval_resize(size)  # as the commands do
        choices = Choices(
            net,
            variant,
            size,
            None if eval_resize is None else str(eval_resize),
            tta=tta,
            depth=depth,
            window=None if window is None else str(window),
            task=task,
        )
        load = load_onnx if is_onnx(path) else load_classifier
        self.classifier = load(path, choices)
        self.runtime = runtime.computing_in(self.classifier.arithmetic, amp, path)
        self.classifier.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.runtime.device

    @property
    def precision(self) -> torch.dtype:
        """Dtype of the network's arithmetic."""
        return self.runtime.precision

    @property
    def batch_size(self) -> int:
        """Images per forward."""
        return self.runtime.batch_size

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return self.classifier.preprocessing.image_size

    @property
    def pixels_size(self) -> tuple[int, int]:
        """Rows and columns of prepared pixels; larger than ``size`` for ten crops."""
        return self.classifier.preprocessing.pixels_size

    @property
    def normalised_shape(self) -> tuple[int, int, int] | None:
        """Channels, rows and columns of a normalised image that ``logits`` takes.

        None where it takes pixels only: several views are averaged, or an exported network
        normalises itself.
        """
        model, preprocessing = self.classifier.model, self.classifier.preprocessing
        inside = isinstance(model, OnnxModel) and model.takes_uint8
        one_view = preprocessing.tta == "none" and not inside
        return (preprocessing.channels, *self.size) if one_view else None

    def prepare(self, image: ImageInput, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """The ``(*pixels_size, 3)`` uint8 pixels of an image for ``logits``.

        Args:
            image: a path, the bytes of an encoded image, ``(H, W, 3)`` uint8 RGB, or a PIL image.
            max_pixels: maximum pixels of an encoded image; checked in the header first.

        Raises:
            InputError: it cannot be read, or is of another type.
        """
        out = np.empty((*self.pixels_size, 3), np.uint8)
        self._prepare(image, out, max_pixels)
        return out

    def _prepare(
        self, image: ImageInput, out: NDArray[np.uint8], max_pixels: int = MAX_PIXELS
    ) -> None:
        preprocessing = self.classifier.preprocessing
        if not isinstance(image, str | Path):
            preprocessing.prepare(as_encoded(image), out, max_pixels)
            return
        try:
            preprocessing.prepare(read_file(Path(image)), out, max_pixels)
        except InputError as error:
            raise not_readable(str(image), error) from error

    @own_modes()
    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> NDArray[np.float32]:
        """Logits ``(N, K)`` of prepared images ``(N, *pixels_size, 3)`` uint8.

        Or of normalised ones, ``(N, *normalised_shape)`` float32, where there is such a shape.

        Raises:
            InputError: ``images`` are of another shape or type, or a logit is not finite.
        """
        classifier = self.classifier
        check_prepared(images, (*self.pixels_size, 3), self.normalised_shape)
        with self.runtime.named_memory_errors():
            found = logits_of(
                classifier.model, images, classifier.preprocessing, classifier.task, self.runtime
            )
        if not bool(torch.isfinite(found).all()):
            advice = "try `amp` fp32"
            if self.precision == torch.float32:
                advice = "they are damaged or their training diverged, so take others"
            raise InputError(f"the weights give nan or infinite logits; {advice}")
        return found.numpy()

    def batches(
        self,
        images: Sequence[ImageInput] | ImageDataset,
        *,
        skip_bad: bool = False,
        advance: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Each batch and its logits, in order, with the same batches as in eval.

        Raises:
            InputError: an image cannot be read and ``skip_bad`` is False.
        """
        if isinstance(images, ImageDataset):
            prepare = self.classifier.preprocessing.reader(images)
        else:
            images = given = in_order(images)

            def prepare(index: int, out: NDArray[np.uint8]) -> None:
                image = given[index]
                try:
                    self._prepare(image, out)
                except InputError as error:
                    if len(given) == 1 or isinstance(image, str | Path):  # whose error names it
                        raise
                    raise InputError(f"images[{index}]: {error}") from error

        for batch in load_batches(
            prepare,
            evaluation_batches(len(images), self.batch_size),
            self.pixels_size,
            workers=self.runtime.workers,
            skip_bad=skip_bad,
            pin_memory=self.runtime.pins_memory,
        ):
            empty = np.empty((0, self.num_outputs), np.float32)
            logits = self.logits(batch.images) if len(batch.indices) else empty
            yield batch, logits
            advance()

    def predict(
        self,
        images: Sequence[ImageInput],
        *,
        top_k: int | None = None,
        coverage: float | None = None,
        abstain_below: float | None = None,
    ) -> list[Any]:
        """Classify images: returns a list of ``Prediction``, or of the task's answers.

        Args:
            images: paths, bytes, uint8 RGB arrays or PIL images, in any mixture; a sequence, or a
                column of pandas in the order of its rows.
            top_k: number of classes to return for each (default: 5); of several labels all are
                returned.
            coverage: coverage of the prediction sets, in (0, 1); needs calibrated weights.
            abstain_below: probability below which there is no answer (default: the calibrated
                value, else never).

        Raises:
            InputError: an image cannot be read, ``images`` is one image, or the weights are not
                calibrated.
        """
        options = AnswerOptions(top_k, coverage, abstain_below)
        self.check_options(options)
        found: list[Any] = []
        with constant_network(self.classifier.model):
            for _, logits in self.batches(images):
                found += self.answers(logits, options)
        return found

    __call__ = predict

    def check_options(self, options: AnswerOptions) -> None:
        """Refuse options that no answer of this network can have, before an image is read.

        Raises:
            InputError: an option is not for its task, or needs calibrated weights.
        """
        self.answers(np.zeros((1, self.num_outputs), np.float32), options)

    def answers(
        self,
        logits: NDArray[np.float32],
        options: AnswerOptions = AnswerOptions(),  # noqa: B008 (frozen)
    ) -> Sequence[Any]:
        """The answers of ``predict`` for images with these logits, ``(N, K)``."""
        classifier = self.classifier
        task = classifier.task
        found = task.answers(logits, classifier.class_names, classifier.calibration, options)
        return rows_of(task, "answers", found, len(logits))

    @property
    def num_outputs(self) -> int:
        """Number of columns of the logits."""
        return self.classifier.task.num_outputs(len(self.classifier.class_names))


def _height_and_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Both sides of an image size, of which one number may stand for both.

    Raises:
        UsageError: it is something else, or too small for the five halvings of the network.
    """
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise UsageError(f"`image_size` must be one number or (height, width), got {size!r}")
    for side in sides:
        check_whole("image_size", side, 16)
    return int(sides[0]), int(sides[1])
