"""``DenseNetClassifier``: training and prediction by scikit-learn's conventions."""

import contextlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import CLASSES_DTYPE, ModelInfo, save_weights
from densenet121.config import TrainConfig, absolute
from densenet121.engine.train import train
from densenet121.inference.classifier import Choices, make_classifier
from densenet121.inference.predictor import Predictor
from densenet121.integrations.classes import classes_of, labels_in, names_of, typed
from densenet121.integrations.images_in_memory import as_dataset, list_images
from densenet121.runs.layout import (
    BEST_AVERAGE,
    BEST_WEIGHTS,
    LAST_AVERAGE,
    LAST_WEIGHTS,
    METRICS,
    checkpoints_in,
)
from densenet121.runs.metrics import read_rows
from densenet121.tasks import SingleLabel
from densenet121.utils.checks import checked_path
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import write_atomic
from densenet121.utils.logging import quiet

# Parameters that are settings of `train` of the same name; None leaves them to the recipe.
_SETTINGS = (
    *("net", "pretrained", "image_size", "max_epoch", "lr", "per_batch_size"),
    *("device", "amp", "workers", "output_dir"),
)
# Settings that the estimator itself decides.
_DECIDED = {
    "data_dir": "X",
    "val_dir": "`validation` of fit",
    "exclude": "X",
    "image_dir": "X",
    "path_column": "X",
    "label_column": "y",
    "labels": "y",
    "num_classes": "y",
    "task": "y",
    "seed": "`random_state`",
    "resume": "fit, which begins anew",
    "ckpt_path": "`output_dir`",
    "is_distributed": "the estimator, which is one process",
}
# Networks of fitted estimators, ready to predict, with the settings they were made with.
_READY: "WeakKeyDictionary[DenseNetClassifier, tuple[Any, Predictor]]" = WeakKeyDictionary()


class DenseNetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A DenseNet that is trained and used as an estimator of scikit-learn.

    ``fit`` is a run of ``train``, with its recipes, augmentation and determinism. X is a sequence
    of paths, bytes, PIL images or uint8 arrays ``(H, W, 3)`` or ``(H, W)``; or one uint8 array
    ``(N, H, W)`` or ``(N, H, W, 3)``. y has one class per image, of any type that
    ``numpy.unique`` sorts.

    Attributes:
        classes_: the classes, sorted.
        history_: the rows of metrics.jsonl: loss, learning rate, and validation if there was one.
        weights_: the content of the weights file, a safetensors file.
    """

    def __init__(
        self,
        *,
        recipe: str = "auto",
        pretrained: str | None = None,
        net: str = "densenet121",
        image_size: int | str | None = None,
        max_epoch: int | None = None,
        lr: float | None = None,
        per_batch_size: int | None = None,
        random_state: Any = 1,
        device: str | None = None,
        amp: str | None = None,
        workers: int | None = None,
        output_dir: str | None = None,
        settings: Mapping[str, Any] | None = None,
        verbose: int = 0,
    ) -> None:
        """Set parameters; ``fit`` checks them. None leaves a value to the recipe.

        Args:
            recipe: settings to start from: finetune, scratch_small, original; auto is finetune with
                ``pretrained`` and scratch_small without.
            pretrained: weights to start from, of any program that `train` reads.
            net: the network.
            image_size: height and width of the network's input, "H,W" or one number.
            max_epoch: epochs to train.
            lr: base learning rate.
            per_batch_size: images per step.
            random_state: seed of everything random: a number, or as in scikit-learn.
            device: name of the device in torch.
            amp: arithmetic: fp32, bf16 or fp16.
            workers: threads that decode images.
            output_dir: run folder to keep (default: a temporary one).
            settings: further settings of `train`, by name.
            verbose: 1 shows the log of the run.
        """
        self.recipe = recipe
        self.pretrained = pretrained
        self.net = net
        self.image_size = image_size
        self.max_epoch = max_epoch
        self.lr = lr
        self.per_batch_size = per_batch_size
        self.random_state = random_state
        self.device = device
        self.amp = amp
        self.workers = workers
        self.output_dir = output_dir
        self.settings = settings
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> Self:
        """Train a new network, or one that starts from ``pretrained``.

        Args:
            X: images.
            y: ``(N,)`` the class of each.
            validation: images and classes to validate on after every epoch; the best weights are
                then taken, else the last ones; with ``ema_decay`` the averaged ones of those.

        Raises:
            InputError: a ValueError: images, classes or settings cannot be used.
            KeyboardInterrupt: a signal stopped the run.
        """
        images = list_images(X)
        classes, labels = classes_of(y)
        check_consistent_length(images, labels)
        names = names_of(classes)
        held_out = None
        if validation is not None:
            if not isinstance(validation, tuple | list) or len(validation) != 2:
                raise InputError("`validation` must be a pair (images, classes)")
            others, known = list_images(validation[0]), labels_in(classes, validation[1])
            check_consistent_length(others, known)
            held_out = as_dataset(others, known, names)
        with contextlib.ExitStack() as stack:
            folder = self.output_dir
            if folder is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="densenet121-"))
            elif held := checkpoints_in(absolute(folder), 0):
                raise UsageError(
                    f"`output_dir` {folder} already has a run ({held[0].name}), and fit begins "
                    "anew; choose another folder, or None where there are several fits"
                )
            if not self.verbose:
                stack.enter_context(quiet())
            config = self._config(folder)
            result = train(config, images=(as_dataset(images, labels, names), held_out))
            if result.stopped:
                kept = "nothing of the run is kept, which needs `output_dir`"
                if self.output_dir is not None:
                    kept = f"{result.folder} has the state"
                raise KeyboardInterrupt(f"stopped by a signal; {kept}")
            last, best = (LAST_WEIGHTS, LAST_AVERAGE), (BEST_WEIGHTS, BEST_AVERAGE)
            name = (last if held_out is None else best)[config.ema_decay is not None]
            self.weights_ = (result.folder / name).read_bytes()
            self.history_ = read_rows(result.folder / METRICS)
        self.classes_ = classes
        _READY.pop(self, None)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """``(N, K)``: the probability of each class, in the order of ``classes_``.

        Raises:
            InputError: an image cannot be used.
        """
        check_is_fitted(self)
        images, predictor = as_dataset(list_images(X)), self._predictor()
        parts = [logits for _, logits in predictor.batches(images)]
        classifier = predictor.classifier
        found = classifier.task.probabilities(np.concatenate(parts), classifier.calibration)
        assert found is not None
        # Weights of others may have their classes in any order.
        known = typed(classifier.class_names, self.classes_.dtype.kind).tolist()
        column = {name: number for number, name in enumerate(known)}
        shares = found.astype(np.float64)[:, [column[name] for name in self.classes_.tolist()]]
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> NDArray[Any]:
        """``(N,)``: the most probable class of each image.

        Raises:
            InputError: an image cannot be used.
        """
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def save(self, path: str | Path) -> None:
        """Write the weights, which every command reads, with the type of the classes.

        Raises:
            InputError: the file cannot be written.
        """
        check_is_fitted(self)
        with tempfile.TemporaryDirectory(prefix="densenet121-") as folder:
            weights = read_weights(self._file(Path(folder) / LAST_WEIGHTS))
        assert weights.info is not None
        origin = weights.origin | {CLASSES_DTYPE: self.classes_.dtype.kind}
        known = weights.info, origin, weights.calibration, weights.data
        file = absolute(str(checked_path("path", path)))
        try:
            save_weights(file, weights.state_dict, *known)
        except OSError as error:
            raise InputError(f"{file}: cannot be written ({error.strerror})") from None

    @classmethod
    def load(cls, path: str | Path, **parameters: Any) -> Self:
        """A fitted estimator from weights of one class per image, of any program.

        Args:
            path: the file; that of ``save`` also has the type of the classes.
            parameters: those of the estimator.

        Raises:
            InputError: the file cannot be used.
        """
        file, loaded = absolute(str(checked_path("path", path))), cls(**parameters)
        weights = read_weights(file)
        found = make_classifier(weights, file, Choices(None if weights.info else loaded.net))
        if found.task.name != SingleLabel.name:
            raise InputError(f"{file}: has several labels per image, and predict gives one class")
        info = ModelInfo(found.net, found.variant, found.class_names, found.preprocessing)
        kind = str(weights.origin.get(CLASSES_DTYPE, "U"))
        loaded.classes_ = np.sort(typed(found.class_names, kind))
        loaded.history_ = []
        with tempfile.TemporaryDirectory(prefix="densenet121-") as folder:
            own = Path(folder) / LAST_WEIGHTS
            save_weights(
                own, weights.state_dict, info, weights.origin, weights.calibration, weights.data
            )
            loaded.weights_ = own.read_bytes()
        return loaded

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: images, no rows of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = True  # paths; grey images
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _config(self, folder: str) -> TrainConfig:
        """The settings of the run.

        Raises:
            UsageError: one is unknown, given twice, or the estimator's own.
        """
        if not isinstance(self.settings or {}, Mapping):
            raise UsageError(f"`settings` must be a dict, got {self.settings!r}")
        further, known = dict(self.settings or {}), {field.name for field in fields(TrainConfig)}
        for name in further:
            if name in _DECIDED:
                raise UsageError(f"`settings` has `{name}`, which is decided by {_DECIDED[name]}")
            if name in _SETTINGS:
                raise UsageError(f"`settings` has `{name}`; pass it as the parameter `{name}`")
            if name not in known:
                raise UsageError(f"`settings` has `{name}`, which is no setting of train")
        own = {name: getattr(self, name) for name in _SETTINGS}
        given = {name: value for name, value in own.items() if value is not None} | further
        recipe = self.recipe
        if recipe == "auto":
            recipe = "finetune" if self.pretrained else "scratch_small"
        state = self.random_state
        if not isinstance(state, int | np.integer):
            state = check_random_state(state).randint(2**31 - 1)
        given |= {"data_dir": "X", "seed": int(state), "is_distributed": 0, "output_dir": folder}
        if self.output_dir is None:
            given.setdefault("keep_checkpoint_max", 1)
        try:
            return TrainConfig.from_recipe(recipe, **given)
        except UsageError as error:  # the settings speak of flags
            raise UsageError(re.sub(r"--(\w+)", r"`\1`", str(error))) from None

    def _device(self) -> dict[str, Any]:
        """The parameters that prediction shares with training."""
        workers = 1 if self.workers is None else self.workers
        return {"device": self.device, "amp": self.amp, "workers": workers}

    def _predictor(self) -> Predictor:
        made_with, predictor = _READY.get(self, (None, None))
        if predictor is None or made_with != self._device():
            with tempfile.TemporaryDirectory(prefix="densenet121-") as folder:
                file = self._file(Path(folder) / LAST_WEIGHTS)
                predictor = Predictor(file, **self._device())
            _READY[self] = (self._device(), predictor)
        return predictor

    def _file(self, path: Path) -> Path:
        """The weights as a file.

        Raises:
            InputError: it cannot be written.
        """
        try:
            write_atomic(path, self.weights_)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        return path
