"""What the configuration in a Keras file says about images and outputs; it is read, never run.

A ``.keras`` archive has it as ``config.json``, the ``.h5`` of a whole model as an attribute. A file
of weights alone has none.
"""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densenet121.checkpoint.foreign.keras_geometry import GEOMETRY, Geometry, geometry_of
from densenet121.checkpoint.foreign.keras_scale import SCALES, scale_of
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.utils.errors import InputError, one_line, some
from densenet121.utils.json_values import parse_json

_LARGEST = 2**26  # bytes of a configuration; that of DenseNet-201 has 600,000
_MOST_LAYERS = 20_000
# Before the first convolution these leave the pixels of an evaluation as they are.
_NO_CHANGE = ("InputLayer", "ZeroPadding2D", "Dropout", "GaussianNoise", "Random")
# From the last convolution on these leave the logits as they are, or `_other_pooling` tells them.
_PLAIN = (
    *("InputLayer", "Concatenate", "BatchNormalization", "Flatten", "Dense", "Softmax"),
    *("GlobalAveragePooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "MaxPooling2D"),
    *("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
    *("ActivityRegularization", "Conv2D", "Activation"),
)
_OUTPUTS = ("linear", "softmax", "sigmoid", "log_softmax", "log_sigmoid", None)
_LOSSES_OF_SIGMOIDS = ("BinaryCrossentropy", "BinaryFocalCrossentropy")
_Layer = tuple[str, dict[str, Any]]  # class and configuration


@dataclass(frozen=True)
class KerasConfig:
    """What is known of images and outputs.

    Attributes:
        geometry: size of the input, and how images are resized and cropped to it.
        mean: of Rescaling and Normalization layers, in grey levels; empty without them.
        std: likewise.
        task: name of the task; empty if it does not say.
        pooling: the last pooling, if it is not the average of all of the features, or a layer
            between them and the outputs that ours has not, so that the classifier is another head.
        notes: sentences on layers that are taken for something.
    """

    geometry: Geometry = Geometry()  # noqa: RUF009 (frozen)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    task: str = ""
    pooling: str = ""
    notes: tuple[str, ...] = ()

    def applied(self, documented: Preprocessing) -> Preprocessing:
        """The preprocessing that Keras documents, with what the file says."""
        if self.mean:
            scaled = replace(documented, mean=self.mean, std=self.std)
            documented = scaled.with_channels(documented.channels)
        return self.geometry.applied(documented)


def read_keras_config(path: Path, statistics: Mapping[str, list[float]] = {}) -> KerasConfig:
    """The configuration of a Keras file; one that says nothing for weights alone.

    ``statistics`` are the mean and variance of a Normalization layer that are among the weights.

    Raises:
        InputError: it is damaged, or missing beside such a layer.
    """
    text, compiled = _texts(path)
    if text is None and statistics:
        raise InputError(
            f"{path}: has the mean and variance of a Normalization layer, but not the model's "
            "layers, so what they scale is unknown; save the whole model: model.save('model.keras')"
        )
    if text is None:
        return KerasConfig()
    try:
        content = parse_json(text)
        layers = list(_layers(content))
        before = layers[: _first_convolution(layers)]
        names = [kind for kind, _ in before if _changes_levels(kind)]
        scales = [one for one in before if one[0] in SCALES] if {*names} <= {*SCALES} else []
        mean, std = scale_of(scales, statistics)
        geometry = geometry_of(before, _changes_levels)
        ends_in = _activation(layers)
        by_loss = ends_in in ("linear", None) and _has_loss_of_sigmoids(content, compiled)
        several = (ends_in == "sigmoid" or by_loss) and _units(layers) != 1
        return KerasConfig(
            geometry,
            mean,
            std,
            "multilabel" if several else "",
            _other_pooling(layers, geometry) or _other_layer(layers),
            (*geometry.notes, *_notes(names, bool(mean))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError):
        raise InputError(
            f"{path}: its configuration is not Keras's; save the weights alone there: "
            "model.save_weights('densenet.weights.h5')"
        ) from None


def _texts(path: Path) -> tuple[str | None, str | None]:
    """The JSON of the layers, and of what `compile` was given where that is apart; else None."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if "config.json" not in archive.namelist():
                    return None, None
                if archive.getinfo("config.json").file_size > _LARGEST:
                    raise ValueError("too large")
                return archive.read("config.json").decode(), None
        import h5py

        with h5py.File(path, "r") as file:
            found = [file.attrs.get(name) for name in ("model_config", "training_config")]
        layers, compiled = (text.decode() if isinstance(text, bytes) else text for text in found)
        return layers, compiled
    except Exception as error:  # a damaged file makes h5py raise exceptions of almost any type
        reason = one_line(str(error) or type(error).__name__)
        raise InputError(f"{path}: its configuration cannot be read ({reason})") from None


def _has_loss_of_sigmoids(content: dict[str, Any], apart: str | None) -> bool:
    """Whether the model was compiled with a loss that takes a sigmoid of each logit."""
    compiled = parse_json(apart) if apart is not None else content.get("compile_config")
    loss = compiled.get("loss") if isinstance(compiled, dict) else None
    if not isinstance(loss, dict) or loss.get("class_name") not in _LOSSES_OF_SIGMOIDS:
        return False
    return loss["config"].get("from_logits") is True


def _layers(model: Any) -> Iterator[_Layer]:
    """Every layer in order, also those of a network within it."""
    waiting, count = [model], 0
    while waiting:
        layer = waiting.pop()
        kind, config = layer["class_name"], layer["config"]
        count += 1
        if not isinstance(kind, str) or count > _MOST_LAYERS:
            raise ValueError
        inside = config.get("layers")
        if inside is None:
            yield kind, config
        else:
            waiting += reversed(inside)


def _first_convolution(layers: list[_Layer]) -> int:
    return next((k for k, (kind, _) in enumerate(layers) if kind == "Conv2D"), 0)


def _changes_levels(kind: str) -> bool:
    return kind not in GEOMETRY and not kind.startswith(_NO_CHANGE)


def _other_pooling(layers: list[_Layer], geometry: Geometry) -> str:
    """The pooling of the features, if it is not the average of all of them; else empty."""
    after = _after(layers)
    kinds = [kind for kind, _ in layers if kind == "GlobalMaxPooling2D"]
    kinds += [kind for kind, _ in after if kind == "MaxPooling2D"]
    averages = [config for kind, config in after if kind == "AveragePooling2D"]
    # The stem halves the sides twice, rounding up; three transitions halve them, rounding down.
    sides = [(side + 3) // 4 // 8 for side in geometry.size or ()]
    if any(_pair(config["pool_size"]) != sides for config in averages):
        kinds.append("AveragePooling2D of a part")
    return next(iter(kinds), "")


def _after(layers: list[_Layer]) -> list[_Layer]:
    """From the last convolution on; the poolings of the stem and of the transitions are before."""
    last = max((at for at, (kind, _) in enumerate(layers) if kind == "Conv2D"), default=len(layers))
    return layers[last:]


def _other_layer(layers: list[_Layer]) -> str:
    """The first layer after the features that changes the logits without weights; else empty."""
    plain: tuple[object, ...] = ("relu", *_OUTPUTS)  # of the features, which are not negative
    for kind, config in _after(layers):
        if kind not in _PLAIN:
            return one_line(kind)
        if kind == "Dense":
            plain = _OUTPUTS
        if kind in ("Dense", "Activation") and config.get("activation") not in plain:
            return f"{kind} of another function"
    return ""


def _pair(size: Any) -> list[Any]:
    return list(size) if isinstance(size, list) else [size, size]


def _activation(layers: list[_Layer]) -> object:
    found = [c.get("activation") for kind, c in layers if kind in ("Dense", "Activation")]
    return found[-1] if found else None


def _units(layers: list[_Layer]) -> object:
    found = [config.get("units") for kind, config in layers if kind == "Dense"]
    return found[-1] if found else None


def _notes(names: list[str], followed: bool) -> tuple[str, ...]:
    if followed or not names:
        return ()
    kinds = some(list(dict.fromkeys(names)), 4)
    return (
        f"its layers before the first convolution ({kinds}) are taken for "
        "keras.applications.densenet.preprocess_input, which is not checked",
    )
