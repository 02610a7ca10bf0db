"""What a whole model of Keras says about its images and outputs is followed, or said."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from densenet121.checkpoint.foreign.identify import PREPROCESSING
from densenet121.checkpoint.foreign.keras_config import read_keras_config
from densenet121.checkpoint.foreign.keras_geometry import geometry_of
from densenet121.checkpoint.foreign.keras_scale import statistic_of
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.weights import Weights
from densenet121.network import build
from densenet121.utils.errors import InputError

h5py = pytest.importorskip("h5py")
DOCUMENTED = PREPROCESSING["keras"]
INPUT = ("InputLayer", {"batch_shape": [None, 96, 128, 3]})
TO_1 = ("Rescaling", {"scale": 1 / 255, "offset": 0.0})
Layers = list[tuple[str, dict[str, Any]]]
OPERATIONS: Layers = [("TrueDivide", {}), ("Add", {})]


def model(before: Layers, dense: dict[str, Any], pooling: str = "Average") -> dict[str, Any]:
    """A network within another one, as in Keras's guide to fine-tuning."""
    inside = layer("Functional", layers=[layer("InputLayer"), layer("Conv2D", activation="relu")])
    after = [layer(f"Global{pooling}Pooling2D"), layer("Dense", **dense)]
    return layer("Functional", layers=[*(layer(k, **c) for k, c in before), inside, *after])


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": config}


def in_h5(path: Path, text: str) -> Path:
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = text
    return path


def in_archive(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
    return path


FORMS = pytest.mark.parametrize("form", [in_h5, in_archive])


@FORMS
@pytest.mark.parametrize(
    ("before", "size", "mean", "std", "notes"),
    [
        ([INPUT], (96, 128), DOCUMENTED.mean, DOCUMENTED.std, r""),
        ([INPUT, TO_1], (96, 128), (0,) * 3, (255,) * 3, r""),
        (
            [
                ("InputLayer", {"batch_input_shape": [None, None, None, 3]}),
                ("RandomFlip", {}),
                ("Rescaling", {"scale": 1 / 127.5, "offset": -1}),
            ],
            (224, 224),
            (127.5,) * 3,
            (127.5,) * 3,
            r"",
        ),
        (
            [("Rescaling", {"scale": [0.1, 0.2, 0.5], "offset": [-1, 0, 1]})],
            (224, 224),
            (10, 0, -2),
            (10, 5, 2),
            r"",
        ),
        ([INPUT, *OPERATIONS], (96, 128), DOCUMENTED.mean, DOCUMENTED.std, r"\(TrueDivide, Add\)"),
        ([TO_1, ("Lambda", {})], (224, 224), DOCUMENTED.mean, DOCUMENTED.std, "Rescaling, Lambda"),
        (
            [INPUT, ("Resizing", {"height": 64, "width": 32}), TO_1],
            (64, 32),
            (0,) * 3,
            (255,) * 3,
            r"^its Resizing layer is left out",
        ),
    ],
)
def test_size_and_scale_are_those_of_the_model_and_other_layers_are_said(
    form: Callable[[Path, str], Path],
    before: Layers,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    notes: str,
    tmp_path: Path,
) -> None:
    text = json.dumps(model(before, {"units": 4, "activation": "softmax"}))
    found = read_keras_config(form(tmp_path / "m", text))
    used = found.applied(DOCUMENTED)
    assert (used.image_size, used.eval_resize) == (size, f"{size[0]},{size[1]}")
    assert (used.mean, used.std) == (mean, std)
    resizes = any(kind == "Resizing" for kind, _ in before)
    assert used.interpolation == ("opencv_bilinear" if resizes else DOCUMENTED.interpolation)
    assert len(found.notes) == bool(notes) and re.search(notes, "".join(found.notes))


CROP = ("CenterCrop", {"height": 64, "width": 64})


def resizing(height: int, width: int, **config: Any) -> tuple[str, dict[str, Any]]:
    return "Resizing", {"height": height, "width": width, **config}


@pytest.mark.parametrize(
    ("before", "size", "eval_resize", "interpolation", "note"),
    [
        ([resizing(96, 64), TO_1], (96, 64), "96,64", "opencv_bilinear", "its Resizing layer"),
        ([resizing(96, 96, interpolation="nearest")], (96, 96), "96,96", "pillow_nearest", "its R"),
        ([TO_1, resizing(96, 96, crop_to_aspect_ratio=True)], (96, 96), "short:96", None, "its R"),
        ([resizing(80, 96), CROP, TO_1], (64, 64), "80,96", None, "left out: its Resizing and Cen"),
        ([resizing(64, 96, pad_to_aspect_ratio=True)], (64, 96), "pad:64,96", None, "its Resizing"),
        ([INPUT, TO_1, CROP], (64, 64), "96,128", "pillow_nearest", "left out: its CenterCrop"),
        ([CROP, TO_1], (64, 64), "64,64", "pillow_nearest", "not followed exactly: its CenterCrop"),
        ([resizing(64, 96, crop_to_aspect_ratio=True)], (64, 96), "64,96", None, "not followed"),
        ([resizing(96, 96, interpolation="area")], (96, 96), "96,96", None, "not followed exactly"),
        ([resizing(32, 32), CROP], (64, 64), "64,64", None, "not followed exactly: its Resizing"),
        (
            [resizing(96, 96), ("RandomCrop", {"height": 64, "width": 64}), TO_1],
            (64, 64),
            "64,64",
            "opencv_bilinear",
            r"not followed .* and RandomCrop; images are resized to 64,64 \(opencv_bilinear\), and",
        ),
    ],
)
def test_images_are_resized_and_cropped_as_the_model_does_it(
    before: Layers,
    size: tuple[int, int],
    eval_resize: str,
    interpolation: str | None,
    note: str,
    tmp_path: Path,
) -> None:
    text = json.dumps(model(before, {"units": 4, "activation": "softmax"}))
    found = read_keras_config(in_archive(tmp_path / "m", text))
    used = found.applied(DOCUMENTED)
    assert (used.image_size, used.eval_resize) == (size, eval_resize)
    assert used.interpolation == (interpolation or "opencv_bilinear")
    assert (used.std == (255,) * 3) == (TO_1 in before)
    (said,) = found.notes
    assert re.match(note, said)
    assert used.transform.resize.size


@pytest.mark.parametrize(
    ("before", "fill"),
    [
        ([resizing(64, 64, pad_to_aspect_ratio=True, fill_value=9.0), TO_1], (9, 9, 9)),
        ([resizing(64, 64, pad_to_aspect_ratio=True), ("TrueDivide", {})], (0, 0, 0)),
        ([TO_1, resizing(64, 64, pad_to_aspect_ratio=True, fill_value=0.2)], (51, 51, 51)),
        ([resizing(64, 64, pad_to_aspect_ratio=True)], (124, 116, 104)),  # of normalised images
    ],
)
def test_what_a_model_pads_its_images_with_is_kept(
    before: Layers, fill: tuple[int, int, int], tmp_path: Path
) -> None:
    text = json.dumps(model(before, {"units": 4, "activation": "softmax"}))
    used = read_keras_config(in_archive(tmp_path / "m", text)).applied(DOCUMENTED)
    assert (used.eval_resize, used.transform.fill) == ("pad:64,64", fill)


@pytest.mark.parametrize("side", [63, 64])
def test_a_resizing_of_keras_is_that_of_opencv(side: int) -> None:
    """Keras's bilinear: the weights of the four nearest pixels, without antialiasing."""
    levels = np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8)
    geometry = geometry_of([resizing(side, 80)], lambda kind: False)
    pixels = np.empty((side, 80, 3), np.uint8)
    geometry.applied(DOCUMENTED).prepare(levels, pixels)
    images = torch.from_numpy(levels).permute(2, 0, 1)[None].float()
    theirs = F.interpolate(images, (side, 80), mode="bilinear", align_corners=False)[0]
    assert np.abs(pixels - theirs.permute(1, 2, 0).numpy()).max() < 1


@pytest.mark.parametrize(
    ("activation", "task"),
    [("sigmoid", "multilabel"), ("softmax", ""), ("linear", "")],
)
def test_a_sigmoid_of_several_outputs_is_several_labels(
    activation: str, task: str, tmp_path: Path
) -> None:
    text = json.dumps(model([], {"units": 3, "activation": activation}))
    assert read_keras_config(in_archive(tmp_path / "m", text)).task == task


@FORMS
@pytest.mark.parametrize(
    ("name", "from_logits", "activation", "task"),
    [
        ("BinaryCrossentropy", True, "linear", "multilabel"),
        ("BinaryFocalCrossentropy", True, None, "multilabel"),
        ("BinaryCrossentropy", False, "linear", ""),
        ("BinaryCrossentropy", True, "softmax", ""),
        ("CategoricalCrossentropy", True, "linear", ""),
    ],
)
def test_logits_that_were_trained_as_sigmoids_are_several_labels(
    form: Callable[[Path, str], Path],
    name: str,
    from_logits: bool,
    activation: str | None,
    task: str,
    tmp_path: Path,
) -> None:
    """Keras saves what ``compile`` was given: in an archive beside the layers, else apart."""
    compiled = {"loss": {"class_name": name, "config": {"from_logits": from_logits}}}
    whole = model([], {"units": 3, "activation": activation})
    path = form(tmp_path / "m", json.dumps(whole | {"compile_config": compiled}))
    if form is in_h5:
        with h5py.File(path, "a") as file:
            file.attrs["training_config"] = json.dumps(compiled)
    assert read_keras_config(path).task == task


def test_weights_of_a_whole_model_have_what_it_says(tmp_path: Path) -> None:
    text = json.dumps(model([INPUT, TO_1], {"units": 3, "activation": "sigmoid"}))
    weights = read_weights(in_h5(densenet121(tmp_path / "m.h5"), text))
    assert weights.info is not None and weights.task == "multilabel"
    assert weights.info.preprocessing.image_size == (96, 128)
    assert weights.info.preprocessing.std == (255,) * 3
    assert weights.num_classes == 3


def test_a_linear_layer_after_another_pooling_is_another_head(tmp_path: Path) -> None:
    text = json.dumps(model([], {"units": 3, "activation": "softmax"}, pooling="Max"))
    path = in_h5(densenet121(tmp_path / "m.h5"), text)
    weights = read_weights(path)
    assert weights.num_classes is None
    with pytest.raises(InputError, match=r"its head is another .*GlobalMaxPooling2D\.classifier"):
        weights.check_head(path)


def test_a_flattened_maximum_before_the_linear_layer_is_another_head(tmp_path: Path) -> None:
    whole = model([INPUT], {"units": 3, "activation": "softmax"})
    pool = [layer("MaxPooling2D", pool_size=[3, 4]), layer("Flatten")]
    whole["config"]["layers"][-2:-1] = pool
    path = in_h5(densenet121(tmp_path / "m.h5"), json.dumps(whole))
    with pytest.raises(InputError, match=r"its head is another .*MaxPooling2D\.classifier"):
        read_weights(path).check_head(path)


@pytest.mark.parametrize(
    ("pool", "size", "other"),
    [
        ([3, 4], [96, 128], ()),
        (3, [97, 124], ()),
        ([3, 4], [95, 125], ()),  # 125, 63, 32, 16, 8, 4
        (2, [96, 96], ("AveragePooling2D of a part",)),
        ([4, 4], [224, 224], ("AveragePooling2D of a part",)),
        ([7, 7], [None, None], ("AveragePooling2D of a part",)),
    ],
)
def test_an_average_of_a_part_of_the_features_is_another_head(
    pool: object, size: list[int | None], other: tuple[str, ...], tmp_path: Path
) -> None:
    """Keras's pooling drops what no whole window covers: 4 x 4 of 7 x 7 leaves one window."""
    whole = model([("InputLayer", {"batch_shape": [None, *size, 3]})], {"units": 3})
    whole["config"]["layers"][-2:-1] = [
        layer("AveragePooling2D", pool_size=pool),
        layer("Flatten"),
    ]
    config = read_keras_config(in_archive(tmp_path / "m", json.dumps(whole)))
    assert (config.pooling,) * bool(config.pooling) == other


@pytest.mark.parametrize(
    ("head", "other"),
    [
        ([("UnitNormalization", {}), ("Dense", {})], "UnitNormalization"),
        ([("Dense", {}), ("Rescaling", {"scale": 0.1}), ("Softmax", {})], "Rescaling"),
        ([("Dense", {}), ("Sigmoid", {})], "Sigmoid"),  # keras.ops.sigmoid
        ([("Dense", {"activation": "tanh"})], "Dense of another function"),
        ([("Dense", {}), ("Activation", {"activation": "relu"})], "Activation of another function"),
        ([("Dense", {"activation": {"config": {}}})], "Dense of another function"),
        ([("Activation", {"activation": "relu"}), ("Dropout", {}), ("Dense", {})], ""),
        ([("Flatten", {}), ("Dense", {}), ("Activation", {"activation": "softmax"})], ""),
    ],
)
def test_a_layer_that_changes_the_logits_without_weights_is_another_head(
    head: Layers, other: str, tmp_path: Path
) -> None:
    whole = model([INPUT], {"units": 3})
    whole["config"]["layers"][-1:] = [layer(kind, **config) for kind, config in head]
    path = in_h5(densenet121(tmp_path / "m.h5"), json.dumps(whole))
    weights = read_weights(path)
    assert read_keras_config(path).pooling == other
    assert weights.num_classes == (None if other else 3)


def test_weights_alone_say_nothing(tmp_path: Path) -> None:
    weights = read_weights(densenet121(tmp_path / "w.h5"))
    assert weights.info is not None
    assert (weights.info.preprocessing, weights.notes) == (DOCUMENTED, ())


@FORMS
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"class_name": 3, "config": {}}', '{"class_name": "A", "config": []}']
    + ["[" * 10_000]
    + [
        json.dumps(model([("Rescaling", config)], {}))
        for config in ({"scale": 0, "offset": 0}, {"scale": 1}, {"scale": [1, 2], "offset": 0})
    ]
    + [json.dumps(model([("Rescaling", {"scale": -1.0, "offset": 0})], {}))]
    + [json.dumps(model([("InputLayer", {"batch_shape": [1, 2]})], {}))],
)
def test_a_configuration_that_is_none_is_refused(
    form: Callable[[Path, str], Path], text: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"m: its configuration is not Keras's; save the weights"):
        read_keras_config(form(tmp_path / "m", text))


def densenet121(path: Path) -> Path:
    """A DenseNet-121 within another model, of zeros, by the names of Keras 2."""
    with torch.device("meta"):
        state = build("densenet121", num_classes=3).state_dict()
    with h5py.File(path, "w") as file:
        for name, tensor in state.items():
            if not name.endswith("num_batches_tracked"):
                turned = (*tensor.shape[2:], *reversed(tensor.shape[:2]))
                file.create_dataset(_keras(name), turned, "f4")
    return path


def _keras(name: str) -> str:
    layer, _, part = name.rpartition(".")
    if layer == "classifier":
        return f"model_weights/answer/answer/{'kernel' if part == 'weight' else part}:0"
    of_norm = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    last = "kernel" if "conv" in layer.rpartition(".")[2] else of_norm[part]
    for ours, theirs in (
        (r"features\.denseblock(\d)\.denselayer(\d+)\.", r"conv\1_block\2_"),
        (r"features\.transition(\d)\.", r"pool\1_"),
        (r"features\.(conv|norm)0", r"conv1_\1"),
        (r"features\.norm5", "bn"),
        ("_norm1", "_0_bn"),
        ("_conv1", "_1_conv"),
        ("_norm2", "_1_bn"),
        ("_conv2", "_2_conv"),
        ("norm", "bn"),
    ):
        layer = re.sub(f"^{ours}" if ours.startswith("features") else f"{ours}$", theirs, layer)
    layer = re.sub(
        r"^(conv|pool)(\d)(?=_block|_conv|_bn)",
        lambda m: f"{m[1]}{int(m[2]) + ('block' in layer or m[1] == 'pool')}",
        layer,
    )
    return f"model_weights/densenet121/{layer}/{last}:0"


def test_the_scale_of_a_grey_network_is_that_of_one_channel(tmp_path: Path) -> None:
    text = json.dumps(model([TO_1], {"units": 4, "activation": "softmax"}))
    used = read_keras_config(in_archive(tmp_path / "m", text)).applied(DOCUMENTED.with_channels(1))
    assert (used.mean, used.std) == ((0,), (255,))


GREYS = np.array([[0.0, 0, 0], [255, 255, 255], [12, 128, 250]])  # three pixels of R, G, B
LEVELS, DEVIATIONS = np.array([120.0, 110, 100]), np.array([50.0, 60, 70])


def normalization(**config: Any) -> tuple[str, dict[str, Any]]:
    given = {"axis": [-1], "mean": None, "variance": None, "invert": False}
    return "Normalization", {"name": "normalization", **given, **config}


def constant(mean: Any, deviation: Any, **config: Any) -> tuple[str, dict[str, Any]]:
    variance = (np.asarray(deviation, np.float64) ** 2).tolist()
    return normalization(mean=np.asarray(mean).tolist(), variance=variance, **config)


def normalised(weights: Weights) -> NDArray[Any]:
    assert weights.info is not None
    used = weights.info.preprocessing
    found: NDArray[Any] = (GREYS - np.asarray(used.mean)) / np.asarray(used.std)
    return found


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([INPUT, constant(LEVELS, DEVIATIONS)], (GREYS - LEVELS) / DEVIATIONS),
        ([INPUT, constant([[[LEVELS.tolist()]]], [[[DEVIATIONS.tolist()]]])],
            (GREYS - LEVELS) / DEVIATIONS),
        ([INPUT, constant(127.5, 50.0, axis=[])], (GREYS - 127.5) / 50),
        ([INPUT, constant(2.0, 0.5, axis=None, invert=True)], GREYS * 0.5 + 2),
        ([TO_1, constant([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])],
            (GREYS / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]),
        ([TO_1, ("Rescaling", {"scale": 2.0, "offset": -1.0})], GREYS / 255 * 2 - 1),
        ([constant(LEVELS, DEVIATIONS), ("Rescaling", {"scale": 0.5, "offset": [1, 2, 3]})],
            (GREYS - LEVELS) / DEVIATIONS * 0.5 + [1, 2, 3]),
    ],
)  # fmt: skip
def test_layers_that_scale_are_followed_in_their_order(
    before: Layers, expected: NDArray[Any], tmp_path: Path
) -> None:
    text = json.dumps(model(before, {"units": 3, "activation": "softmax"}))
    weights = read_weights(in_h5(densenet121(tmp_path / "m.h5"), text))
    np.testing.assert_allclose(normalised(weights), expected, rtol=1e-5, atol=1e-5)
    assert weights.notes == ()


def adapted(path: Path, root: str, names: tuple[str, str]) -> Path:
    """A DenseNet-121 whose Normalization layer keeps what it was adapted to among the weights."""
    with h5py.File(densenet121(path), "a") as file:
        for name, values in zip(names, (LEVELS, DEVIATIONS**2), strict=True):
            file[root + name] = values
        file[f"{root}count"] = np.int64(7)
    return path


ADAPTED = pytest.mark.parametrize(
    ("root", "names"),
    [
        ("model_weights/normalization/normalization/", ("mean:0", "variance:0")),
        ("model_weights/scale/scale/", ("mean", "variance")),
    ],
)


@ADAPTED
def test_what_a_normalization_layer_was_adapted_to_is_followed(
    root: str, names: tuple[str, str], tmp_path: Path
) -> None:
    text = json.dumps(model([INPUT, normalization()], {"units": 3, "activation": "softmax"}))
    weights = read_weights(in_h5(adapted(tmp_path / "m.h5", root, names), text))
    expected = (GREYS - LEVELS) / DEVIATIONS
    np.testing.assert_allclose(normalised(weights), expected, rtol=1e-5, atol=1e-5)
    assert weights.num_classes == 3 and weights.notes == ()


def test_the_numbered_arrays_of_a_normalization_layer_are_its_mean_and_variance() -> None:
    for prefix in ("", "layers/functional/"):
        for layer in ("normalization", "normalization_2"):
            found = [statistic_of(f"{prefix}layers/{layer}/vars/{k}") for k in range(2)]
            assert found == ["normalization/mean", "normalization/variance"]
    for other in ("layers/batch_normalization/vars/0", "bn/moving_mean:0", "normalization/gamma:0"):
        assert statistic_of(other) is None


@ADAPTED
def test_an_adapted_layer_without_the_model_is_refused(
    root: str, names: tuple[str, str], tmp_path: Path
) -> None:
    path = adapted(tmp_path / "w.h5", root, names)
    with pytest.raises(InputError, match=r"w\.h5: has the mean and variance of a Normalization"):
        read_weights(path)


@pytest.mark.parametrize("layer", [normalization(), constant(1.0, 2.0, axis=[1, 2])])
def test_a_normalization_that_cannot_be_followed_is_said(
    layer: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    text = json.dumps(model([INPUT, layer], {"units": 3}))
    found = read_keras_config(in_archive(tmp_path / "m", text))
    assert found.applied(DOCUMENTED).mean == DOCUMENTED.mean
    assert re.search(r"\(Normalization\) are taken for", "".join(found.notes))


def test_a_fill_between_two_scales_is_not_called_exact(tmp_path: Path) -> None:
    pads = resizing(64, 96, pad_to_aspect_ratio=True, fill_value=0.5)
    text = json.dumps(model([TO_1, pads, constant(0.5, 0.25)], {"units": 3}))
    (note,) = read_keras_config(in_archive(tmp_path / "m", text)).notes
    assert note.startswith("not followed exactly: its Resizing")
