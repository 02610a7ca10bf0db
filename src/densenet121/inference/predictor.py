"""``Predictor``: images in any form to classes and probabilities, by the path that eval takes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from densenet121.datasets.decoding import MAX_PIXELS, not_readable, read_file
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import Batch, load_batches
from densenet121.datasets.preparation import evaluation_images, prepare_evaluation
from densenet121.datasets.sampler import evaluation_batches
from densenet121.device import default_batch_size, pick_device, pick_precision
from densenet121.inference.classifier import Classifier, load_classifier, logits_of
from densenet121.inference.onnx_model import SUFFIX, load_onnx
from densenet121.network import Variant
from densenet121.utils.errors import InputError

ImageInput = str | Path | bytes | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        classes: names of the top classes, the likeliest first.
        probabilities: theirs, calibrated where the weights are.
        abstained: the first is below the abstain threshold: no answer should be given.
        prediction_set: classes that hold the true one with the coverage asked for; None where no
            coverage was asked for.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    abstained: bool = False
    prediction_set: tuple[str, ...] | None = None


class Predictor:
    """Weights that are ready to classify.

    Attributes:
        classifier: the network, its classes and what its images go through.
        device: where it computes.
        precision: dtype of its arithmetic.
        batch_size: images a step.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        net: str = "densenet121",
        variant: Variant | None = None,
        image_size: tuple[int, int] | None = None,
        eval_resize: str | None = None,
        device: str | None = None,
        amp: str | None = None,
        batch_size: int | None = None,
        workers: int = 1,
    ) -> None:
        """Load the weights; what is None is as the weights were validated, or as eval has it.

        Args:
            weights: a file that eval takes.
            net: the network, for weights that do not tell it.
            variant: paper or model_zoo, likewise.
            image_size: height and width of the network's input, pixels.
            eval_resize: as --eval_resize has it.
            device: as torch names it.
            amp: fp32, bf16 or fp16.
            batch_size: images a step.
            workers: threads that decode.

        Raises:
            InputError: the weights cannot be used.
        """
        self.device = pick_device(device)
        self.precision = pick_precision(amp, self.device)
        self.batch_size = batch_size or default_batch_size(self.device)
        path = Path(weights)
        self.classifier: Classifier = (
            load_onnx(path, image_size=image_size, eval_resize=eval_resize)
            if path.suffix == SUFFIX
            else load_classifier(
                path, net=net, variant=variant, image_size=image_size, eval_resize=eval_resize
            )
        )
        self.classifier.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._workers = workers

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        return self.classifier.transform.height, self.classifier.transform.width

    def prepare(self, image: ImageInput, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """The ``(H, W, 3)`` uint8 pixels that the network is shown of an image.

        Args:
            image: a path, an encoded image's bytes, ``(H, W, 3)`` uint8 RGB, or a PIL image.
            max_pixels: most that an encoded image may have; its header is looked at first.

        Raises:
            InputError: it cannot be read, or is none of these.
        """
        out = np.empty((*self.size, 3), np.uint8)
        self._prepare(image, out, max_pixels)
        return out

    def _prepare(
        self, image: ImageInput, out: NDArray[np.uint8], max_pixels: int = MAX_PIXELS
    ) -> None:
        transform = self.classifier.transform
        if not isinstance(image, str | Path):
            prepare_evaluation(_checked(image), transform, out, max_pixels)
            return
        try:
            prepare_evaluation(read_file(Path(image)), transform, out, max_pixels)
        except InputError as error:
            raise not_readable(str(image), error) from error

    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> NDArray[np.float32]:
        """Logits ``(N, C)`` of prepared images ``(N, H, W, 3)`` uint8.

        Raises:
            InputError: one of them is not finite.
        """
        classifier = self.classifier
        found = logits_of(
            classifier.model, images, classifier.mean, classifier.std, self.device, self.precision
        )
        if not bool(torch.isfinite(found).all()):
            raise InputError("the weights give nan or infinite logits; try --amp fp32")
        return found.numpy()

    def batches(
        self,
        images: Sequence[ImageInput] | ImageDataset,
        *,
        skip_bad: bool = False,
        advance: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Each batch and its logits, in order: the batches that eval makes.

        Raises:
            InputError: an image cannot be read and ``skip_bad`` is False.
        """
        if isinstance(images, ImageDataset):
            prepare = evaluation_images(images, self.classifier.transform)
        else:
            given = images

            def prepare(index: int, out: NDArray[np.uint8]) -> None:
                self._prepare(given[index], out)

        for batch in load_batches(
            prepare,
            evaluation_batches(len(images), self.batch_size),
            self.size,
            workers=self._workers,
            skip_bad=skip_bad,
            pin_memory=self.device.type != "cpu",
        ):
            empty = np.empty((0, len(self.classifier.class_names)), np.float32)
            logits = self.logits(batch.images) if len(batch.indices) else empty
            yield batch, logits
            advance()

    def predict(
        self,
        images: Sequence[ImageInput],
        *,
        top_k: int = 5,
        coverage: float | None = None,
        abstain_below: float | None = None,
    ) -> list[Prediction]:
        """Classify images, each of any form.

        Args:
            images: paths, bytes, uint8 RGB arrays or PIL images.
            top_k: how many classes to tell of each.
            coverage: of the prediction sets, in (0, 1); needs calibrated weights.
            abstain_below: probability below which there is no answer (default: what calibrate
                stored, else never).

        Raises:
            InputError: an image cannot be read, or the weights are not calibrated.
        """
        found: list[Prediction] = []
        for _, logits in self.batches(images):
            found += self.answers(
                logits, top_k=top_k, coverage=coverage, abstain_below=abstain_below
            )
        return found

    __call__ = predict

    def answers(
        self,
        logits: NDArray[np.float32],
        *,
        top_k: int = 5,
        coverage: float | None = None,
        abstain_below: float | None = None,
    ) -> list[Prediction]:
        """What ``predict`` says of images with these logits, ``(N, C)``."""
        calibration, names = self.classifier.calibration, self.classifier.class_names
        if coverage is not None and calibration is None:
            raise InputError(
                "prediction sets need calibrated weights: run densenet121 calibrate first"
            )
        threshold = calibration.set_threshold(coverage) if calibration and coverage else 0.0
        if abstain_below is None:
            abstain_below = (calibration.abstain_below if calibration else None) or 0.0
        shares = self.probabilities(logits)
        # Equal logits: the lower class first, as eval ranks them.
        order = np.argsort(-shares, axis=1, kind="stable")
        found = []
        for row, ranked in zip(shares, order, strict=True):
            top = ranked[:top_k]
            chosen = None
            if coverage is not None:
                inside = [k for k in ranked if row[k] >= threshold]
                # Never empty: the likeliest class is added, which can only raise the coverage.
                chosen = tuple(names[k] for k in inside or ranked[:1])
            found.append(
                Prediction(
                    classes=tuple(names[k] for k in top),
                    probabilities=tuple(float(row[k]) for k in top),
                    abstained=bool(row[ranked[0]] < abstain_below),
                    prediction_set=chosen,
                )
            )
        return found

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(N, C)``: eval's softmax, bit for bit, of logits over the temperature (1 without)."""
        scaled = torch.from_numpy(logits)
        if self.classifier.calibration is not None:
            scaled = scaled / self.classifier.calibration.temperature
        return scaled.softmax(dim=1).numpy()


def _checked(image: ImageInput) -> bytes | NDArray[np.uint8]:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"an array must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        if 0 in image.shape:
            raise InputError(f"an array without pixels: {image.shape}")
        return image
    raise InputError(
        f"an image must be a path, bytes, an array or a PIL image, got {type(image).__name__}"
    )
