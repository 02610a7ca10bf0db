"""Find the weights files to evaluate, and load each as a classifier for the dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densenet121.checkpoint.exported import ONNX, is_onnx
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, folder_digest
from densenet121.checkpoint.weights import Weights
from densenet121.config import EvalConfig, weights_choices
from densenet121.datasets.image_dataset import ImageDataset, with_classes, with_two_classes
from densenet121.datasets.views import VIEWS
from densenet121.inference.classifier import Choices, Classifier, make_classifier
from densenet121.inference.onnx_model import OnnxModel, load_onnx
from densenet121.pages.markup import mapping
from densenet121.runs.layout import position_in_name
from densenet121.tasks import SingleLabel, Task, task_named
from densenet121.utils.errors import InputError
from densenet121.utils.logging import log

_SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", ONNX)


def weights_files(source: Path) -> list[Path]:
    """The file, or all weights of a folder: those with epoch and step first, newest first.

    Raises:
        InputError: the folder has no weights files.
    """
    if not source.is_dir():
        return [source]
    shown = (file for file in source.iterdir() if file.name[0] != ".")
    files = [file for file in shown if file.suffix.lower() in _SUFFIXES]
    if not files:
        raise InputError(f"{source}: no weights in this folder ({', '.join(_SUFFIXES)})")
    # Names without an epoch come after those with one, sorted by modification time.
    return sorted(
        files,
        key=lambda file: (position_in_name(file) or (-1, -1), file.stat().st_mtime),
        reverse=True,
    )


def task_and_names(
    weights: Weights | None, files: Sequence[Path], task: Task | None
) -> tuple[str, tuple[str, ...]]:
    """Name of the task, and the classes or labels, of the weights to evaluate.

    Args:
        weights: the only weights file, if it was read already.
        files: the weights files; the first that can be read decides.
        task: the caller's own task.
    """
    if weights is None:
        for file in files:
            try:
                if is_onnx(file):
                    found = load_onnx(file, Choices(task=task))
                    return found.task.name, found.class_names
                weights = read_weights(file, shapes_only=True, int8=True)
                break
            except InputError:
                continue  # it is reported when its turn comes
    info = weights.info if weights else None
    name = task.name if task else weights.task if weights else SingleLabel.name
    return name, info.class_names if info else ()


def fit_classes(dataset: ImageDataset, weights: Weights, file: Path) -> ImageDataset:
    """The images with the classes of the weights, of which they may lack some.

    Raises:
        InputError: an image is of a class that the weights do not have.
    """
    names = weights.info.class_names if weights.info else ()
    return with_classes(dataset, names, str(file)) if names else dataset


def load_for(
    weights: Weights | None,
    file: Path,
    config: EvalConfig,
    dataset: ImageDataset,
    task: Task | None,
) -> tuple[Classifier, ImageDataset]:
    """Build the classifier to evaluate; settings override what the file contains.

    Returns:
        The classifier, and the images with its classes.

    Raises:
        InputError: the file cannot be used, or its classes differ from those of the dataset.
    """
    choices = Choices(**weights_choices(config), task=task)
    if is_onnx(file):
        return _load_onnx(file, choices, dataset, config)
    weights = weights or read_weights(file, int8=True)
    dataset = fit_classes(dataset, weights, file)
    task = task_named(weights.task, file, task)
    if weights.num_classes is not None:
        check_outputs(file, weights.num_classes, task, dataset)
    classifier = make_classifier(weights, file, choices)
    log.info("load model %s success", file)
    if weights.int8 is not None:
        log.info("int8 weights: 8-bit arithmetic, an approximation of the network exported")
    _compare_data(weights.data, dataset)
    _compare_calibration(weights.calibration, dataset)
    for note in weights.notes:
        log.info("note: %s", note)
    _log_preprocessing(classifier, config, _origin(weights))
    return classifier, dataset


def check_outputs(file: Path, outputs: int, task: Task, dataset: ImageDataset) -> None:
    """Refuse weights without names that have another number of classes than the images.

    Raises:
        InputError: they have.
    """
    if outputs != task.num_outputs(len(dataset.class_names)):
        raise InputError(
            f"{file} has {outputs} classes (without names), but "
            f"{dataset.source} has {len(dataset.class_names)}"
        )


def _origin(weights: Weights) -> str:
    """Where the preprocessing of weights comes from."""
    if weights.info is None:
        return "the original's, since the file has no preprocessing"
    if weights.family == "native":
        return "as recorded with the weights"
    return "assumed" if weights.family == "monai" else f"as documented by {weights.family}"


def _log_preprocessing(classifier: Classifier, config: EvalConfig, origin: str) -> None:
    if (config.image_size, config.eval_resize, config.interpolation) != (None, None, None):
        origin = "from the settings"
    transform = classifier.preprocessing.transform
    log.info(
        "network %s, variant %s; images resized to %s (%s), central %d x %d (%s)",
        classifier.net,
        classifier.variant,
        transform.resize,
        transform.interpolation,
        transform.height,
        transform.width,
        origin,
    )
    _log_views(classifier)


def _log_views(classifier: Classifier) -> None:
    if classifier.preprocessing.decoding_note:
        log.info("images are read with %s", classifier.preprocessing.decoding_note)
    tta = classifier.preprocessing.tta
    if tta != "none":
        log.info("probabilities are the mean of %d views of each image (%s)", VIEWS[tta], tta)


def _load_onnx(
    file: Path, choices: Choices, dataset: ImageDataset, config: EvalConfig
) -> tuple[Classifier, ImageDataset]:
    """Load an exported network, which has a fixed image size."""
    classifier = load_onnx(file, choices)
    assert isinstance(classifier.model, OnnxModel)
    named = ModelInfo.from_json(classifier.model.content["model"]).class_names
    if named:
        dataset = with_classes(dataset, named, str(file))
    check_outputs(file, classifier.model.num_classes, classifier.task, dataset)
    log.info("load model %s success, runs in ONNX Runtime on the CPU", file)
    _log_preprocessing(classifier, config, "as recorded at its export")
    _compare_calibration(classifier.model.content.get("calibration"), dataset)
    return classifier, dataset


def splits_of(data: Mapping[str, Any], dataset: ImageDataset) -> list[str]:
    """Of `train` and `val` those that were these same images, as far as the weights record it."""
    return [split for split, note in data.items() if _is_of(note, dataset)]


def _is_of(note: Mapping[str, Any], dataset: ImageDataset) -> bool:
    """Whether a note is of these images, perhaps with the classes that became their label."""
    classes = note.get("classes")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        dataset = with_two_classes(dataset, classes)
    recorded = note.get("pictures"), note.get("fingerprint")
    return recorded == (len(dataset), dataset.fingerprint)


def _compare_data(data: Mapping[str, Any], dataset: ImageDataset) -> None:
    """Log whether the weights were trained or validated on these images, if the file records it."""
    same = splits_of(data, dataset)
    if "train" in same:
        log.warning("the weights were trained on these same images")
    if "val" in same:
        log.info("the training run validated on these same images")
    if same:
        return
    here = folder_digest(str(dataset.source))
    changed = [split for split, note in data.items() if note.get("folder") == here]
    # A source with splits of its own has one folder for both; eval reads the validation images.
    if changed:
        split = "val" if "val" in changed else changed[0]
        log.warning(
            "the %s data changed since these weights were written: %s images then, %d now",
            split,
            data[split].get("pictures", "unknown"),
            len(dataset),
        )


def _compare_calibration(calibration: Any, dataset: ImageDataset) -> None:
    """Log that the weights were calibrated on these images, if the file records that they were."""
    note = mapping(mapping(calibration).get("note"))
    if note.get("fingerprint") == dataset.fingerprint:
        log.warning(
            "the weights were calibrated on these same images; on new ones, probabilities and "
            "thresholds may do worse"
        )
