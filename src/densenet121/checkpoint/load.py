"""Load weights from a file into a network, with a clear error if they do not fit."""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from densenet121.checkpoint.channels import channels_of, with_channels
from densenet121.checkpoint.foreign import mindspore
from densenet121.checkpoint.foreign.identify import Foreign, identify
from densenet121.checkpoint.foreign.keras import is_keras_file, read_keras
from densenet121.checkpoint.foreign.labels import Family
from densenet121.checkpoint.foreign.timm_config import CONFIG, WEIGHTS, check_config, weights_in
from densenet121.checkpoint.foreign.torch_file import (
    is_torch_file,
    prefix_of,
    read_torch_file,
    without_prefix,
)
from densenet121.checkpoint.native import (
    METADATA_KEY,
    ModelInfo,
    data_note,
    read,
    read_note,
    read_safetensors,
)
from densenet121.datasets.image_dataset import some
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import DenseNet, Variant, build
from densenet121.utils.errors import InputError
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import refuse_stray

LARGEST = 4 * 2**30  # bytes of a weights file; DenseNet-121 with its momentum has 66 million
_SMALL = 64  # numbers in a tensor whose content is read with the shapes, such as thresholds
MODEL_KEY = "densenet121_model"  # in the metadata of safetensors that ``convert`` writes


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers under torchvision's names.

    Attributes:
        state_dict: name to tensor.
        info: network, variant, classes and preprocessing; None if the file does not record them.
        origin: epoch, step and score of the weights, if the file records them.
        family: the program that the weights come from.
        variant_is_certain: False if both variants have these names; ``info`` then has the variant
            that this program usually uses.
        momentum: momentum of a MindSpore training checkpoint, by our names.
        state: numbers of that run, such as global_step.
        calibration: what `calibrate` added, as plain JSON values.
        data: number of images, fingerprint and folder digest of the training and validation data,
            by split; empty if the file does not record them.
        notes: sentences on what was assumed, changed or left out of weights of another program.
        int8: how `export` calibrated weights of 8-bit integers; None for all others.
    """

    state_dict: dict[str, Tensor]
    info: ModelInfo | None
    origin: dict[str, Any]
    family: Family = "native"
    variant_is_certain: bool = True
    momentum: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    int8: dict[str, Any] | None = None

    @property
    def num_classes(self) -> int | None:
        """Number of rows of the classifier; None without one, or with another head."""
        classifier = self.state_dict.get("classifier.weight")
        if classifier is None or not classifier.ndim or self.other_head:
            return None
        return int(classifier.shape[0])

    @property
    def channels(self) -> int:
        """Channels of the images: 3 for RGB, 1 for grey."""
        return channels_of(self.state_dict)

    def with_channels(self, channels: int | None) -> "Weights":
        """The weights for images of so many channels, with a note if they are changed.

        None leaves them as they are.
        """
        if channels in (None, self.channels):
            return self
        assert channels is not None
        used = self.info.preprocessing if self.info else Preprocessing((224, 224), "256,256")
        state_dict, preprocessing, note = with_channels(self.state_dict, used, channels)
        info = replace(self.info, preprocessing=preprocessing) if self.info else None
        return replace(self, state_dict=state_dict, info=info, notes=(*self.notes, note))

    @property
    def other_head(self) -> tuple[str, ...]:
        """Names of the layers after the features, if they are not one linear ``classifier``."""
        names = [name for name in self.state_dict if not name.startswith("features.")]
        weight = self.state_dict.get("classifier.weight")
        last = self.state_dict.get("features.norm5.weight")
        if self.family == "native" or (weight is None and not names):
            return ()
        fits = weight is not None and weight.ndim == 2
        if weight is not None and fits and last is not None:
            fits = weight.shape[1] == last.shape[0]
        return () if fits else tuple(names)

    def check_head(self, file: Path) -> None:
        """Refuse weights that cannot classify.

        Raises:
            InputError: there is no classifier, or it is not one linear layer.
        """
        if self.other_head:
            raise InputError(
                f"{file}: its head is another than one linear layer ({some(self.other_head, 4)}), "
                "so it cannot classify here; train with it as `pretrained`, which takes all other "
                "weights and makes a new head"
            )
        if self.num_classes is None:
            raise InputError(
                f'{file}: no "classifier.weight", so these are not weights that can classify; '
                "train with it as `pretrained`, which makes a new head"
            )

    def with_head_of(self, model: DenseNet) -> dict[str, Tensor]:
        """The state dict with the head of ``model`` in place of its own, whatever that is."""
        left_out = {"classifier.weight", "classifier.bias", *self.other_head}
        kept = {name: tensor for name, tensor in self.state_dict.items() if name not in left_out}
        head = model.classifier.state_dict()
        return kept | {f"classifier.{name}": tensor for name, tensor in head.items()}

    def variant_for(self, asked: Variant | None) -> Variant:
        """The variant to build: the file's if certain, else ``asked``, else paper."""
        recorded = self.info.variant if self.info else None
        if recorded and (self.variant_is_certain or asked is None):
            return recorded
        return asked or "paper"


def read_weights(path: Path, *, shapes_only: bool = False, int8: bool = False) -> Weights:
    """Read weights of this program or another; docs/guides/weights.md lists the formats.

    Nothing in a file is ever executed.

    Args:
        path: the file, or a Hugging Face folder.
        shapes_only: tensors may have no content, and checksums are not verified.
        int8: weights of 8-bit integers, which can only classify, are read too.

    Raises:
        InputError: missing, damaged, or of another format.
    """
    if path.is_dir():
        found_in = weights_in(path)
        if found_in is None:
            raise InputError(
                f"{path}: is a folder; pass one weights file, or a Hugging Face folder, which has "
                f"{CONFIG} beside {WEIGHTS}"
            )
        path = found_in
    if not path.exists():
        raise InputError(f"{path}: there is no such weights file")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: has {path.stat().st_size} bytes; the limit is {LARGEST}")
    refuse_stray(path)
    family: Family | None = None
    metadata: Mapping[str, Any] = {}
    prefix = ""
    if is_keras_file(path):
        tensors, family = read_keras(path), "keras"
    elif is_torch_file(path):
        tensors, metadata = read_torch_file(path, mmap=shapes_only)
        prefix, tensors = prefix_of(tensors), without_prefix(tensors)
    elif is_mindspore_file(path):
        tensors, metadata = _read_mindspore(path, shapes_only)
    else:
        tensors, metadata = (_shapes if shapes_only else read_safetensors)(path)
        if METADATA_KEY in metadata:
            weights = _native(path, tensors, metadata, shapes_only)
            if weights.int8 is not None and not int8:
                raise InputError(
                    f"{path}: has int8 weights, which only eval, predict and serve can use; pass "
                    "the weights that they were exported from"
                )
            return weights
        prefix, tensors = prefix_of(tensors), without_prefix(tensors)
    text = metadata.get(MODEL_KEY)
    found = identify(tensors, path, metadata, family, prefix)
    return _weights(found, _info(text, path) if text else None)


def _native(
    path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, Any], shapes_only: bool
) -> Weights:
    if shapes_only:
        kind, content = read_note(path, metadata)
    else:
        kind, tensors, content = read(path)
    if kind == "checkpoint":
        prefix = "model."
        tensors = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        origin = content.get("origin") or {
            name: content["state"][name] for name in ("step",) if name in content.get("state", {})
        }
        data = content.get("data") or data_note(content.get("run", {}).get("data", {}))
        info = ModelInfo.from_json(content["model"])
        if not all(isinstance(found, dict) for found in data.values()):
            raise ValueError("the data of a split is not an object")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error!r} in its metadata)") from None
    calibration = content.get("calibration")
    int8 = content.get("int8")
    weights = Weights(tensors, info, origin, calibration=calibration, data=data, int8=int8)
    if path.name == WEIGHTS:
        check_config(path, info, weights.num_classes or 0)
    return weights


def _weights(foreign: Foreign, info: ModelInfo | None) -> Weights:
    if info is None and foreign.net and foreign.preprocessing:
        info = ModelInfo(
            foreign.net, foreign.variant, foreign.class_names, foreign.preprocessing, foreign.task
        )
        certain, notes = foreign.variant_is_certain, foreign.notes
    else:
        certain, notes = info is not None, ()
    if info is not None:  # a file of ours has the mean of R, G and B also where it is grey
        channels = channels_of(foreign.state_dict)
        info = replace(info, preprocessing=info.preprocessing.with_channels(channels))
    return Weights(
        foreign.state_dict,
        info,
        {},
        foreign.family,
        certain,
        foreign.momentum,
        foreign.state,
        _thresholds(foreign) if info is not None else None,
        notes=notes,
    )


def _thresholds(foreign: Foreign) -> dict[str, Any] | None:
    """Thresholds of another program as what `calibrate` stores, without what they reach."""
    from densenet121.tasks.multi_label.calibration import Calibration, OperatingPoint

    if not foreign.thresholds:
        return None
    points = tuple(OperatingPoint(value, 0, 0, 0, 0) for value in foreign.thresholds)
    rule = f"youden, by {foreign.family}"
    return Calibration((1.0,) * len(points), points, rule, {"source": foreign.family}).to_json()


def _info(text: str, path: Path) -> ModelInfo:
    try:
        return ModelInfo.from_json(parse_json(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: damaged (its metadata {MODEL_KEY} cannot be read)") from None


def is_mindspore_file(path: Path) -> bool:
    """Whether an existing file begins like a MindSpore ``.ckpt``."""
    with path.open("rb") as file:
        start = file.read(16)
    return mindspore.looks_like(start) and start[8:9] != b"{"


def _read_mindspore(path: Path, shapes_only: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    if shapes_only:
        with path.open("rb") as file:
            # Unmapped with its last user: an error in decode still holds parts of it.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        content = mindspore.decode(data, path, shapes_only=True)
    else:
        content = mindspore.decode(path.read_bytes(), path)
    texts = {name: value for name, value in content.items() if isinstance(value, str)}
    return {n: v for n, v in content.items() if isinstance(v, Tensor)}, texts


def _shapes(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read only the header of a safetensors file; all but small tensors are on "meta"."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                view = file.get_slice(name)
                dtype = _DTYPES.get(view.get_dtype())
                if dtype is None:
                    raise InputError(f"{path}: {name} has the unknown type {view.get_dtype()}")
                shape = view.get_shape()
                if math.prod(shape) <= _SMALL:
                    tensors[name] = file.get_tensor(name)
                else:
                    tensors[name] = torch.empty(shape, dtype=dtype, device="meta")
            return tensors, file.metadata() or {}
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file ({error})") from None


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load_state(model: DenseNet, state_dict: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy every parameter and buffer into the network; names must match exactly.

    Raises:
        InputError: a name is unknown or missing, or a shape differs; the text names the first.
    """
    own = model.state_dict()
    # Files from other frameworks do not count batches; the count then starts at 0.
    missing = [n for n in own if n not in state_dict and not n.endswith("num_batches_tracked")]
    unknown = [name for name in state_dict if name not in own]
    blocks = "/".join(str(layers) for layers in model.block_config)
    if unknown:
        raise InputError(
            f'{source}: unknown parameter "{unknown[0]}" ({len(unknown)} in all); this '
            f"network has blocks of {blocks} layers: choose another `net`?"
        )
    if missing:
        raise InputError(
            f'{source}: parameter "{missing[0]}" is missing ({len(missing)} in all); this '
            f"network has blocks of {blocks} layers: choose another `net`?"
        )
    for name, tensor in state_dict.items():
        if tensor.shape != own[name].shape:
            hint = f"; pass `num_classes` {tensor.shape[0]}" if name == "classifier.weight" else ""
            raise InputError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, but the network needs "
                f"{tuple(own[name].shape)}{hint}"
            )
    model.load_state_dict(state_dict, strict=False)


@dataclass(frozen=True)
class Pretrained:
    """A network with weights, and their description.

    Attributes:
        model: the network, in evaluation mode.
        info: network, variant, classes and preprocessing; None if the file does not record them.
        family: the program that the weights come from.
        calibration: what `calibrate` added, as plain JSON values.
        notes: of ``Weights``.
        origin: of ``Weights``.
        data: of ``Weights``.
    """

    model: DenseNet
    info: ModelInfo | None
    family: Family
    calibration: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def load_pretrained(
    path: str | Path, *, net: str = "densenet121", variant: Variant | None = None
) -> Pretrained:
    """Build the network of a weights file, with its preprocessing.

    Args:
        path: any file that ``read_weights`` reads.
        net: the network, for files that do not record it.
        variant: the variant, for files where it is not certain (default: the usual one of their
            program).

    Raises:
        InputError: the file cannot be used.
    """
    weights = read_weights(Path(path))
    weights.check_head(Path(path))
    assert weights.num_classes is not None
    info = weights.info
    chosen = weights.variant_for(variant)
    model = build(
        info.net if info else net,
        num_classes=weights.num_classes,
        variant=chosen,
        in_channels=weights.channels,
    )
    load_state(model, weights.state_dict, path)
    if info is not None:
        info = replace(info, variant=chosen)
    return Pretrained(
        model.eval(),
        info,
        weights.family,
        weights.calibration,
        weights.notes,
        weights.origin,
        weights.data,
    )


def load_model(
    path: str | Path, *, net: str = "densenet121", variant: Variant | None = None
) -> DenseNet:
    """The network of ``load_pretrained``, in evaluation mode.

    Raises:
        InputError: the file cannot be used.
    """
    return load_pretrained(path, net=net, variant=variant).model
