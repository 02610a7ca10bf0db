"""The content of a weights file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.checkpoint.channels import channels_of, with_channels
from densenet121.checkpoint.foreign.labels import Family
from densenet121.checkpoint.native import DEFAULT_TASK, ModelInfo, check_one_output
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import DenseNet, Variant
from densenet121.utils.errors import InputError, some


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
    def task(self) -> str:
        """Name of the task that the file records; else what so many outputs can mean."""
        if self.info is not None:
            return self.info.task
        return "multilabel" if self.num_classes == 1 else DEFAULT_TASK

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
            InputError: there is no classifier, or it is not one linear layer, or has a single
                output for one class per image.
        """
        if self.other_head:
            raise InputError(
                f"{file}: its head is another than one linear layer ({some(self.other_head, 4)}), "
                "so it cannot classify here; train with it as `pretrained`, which takes all other "
                "weights and makes a new head"
            )
        if not self.num_classes:
            what = (
                'no "classifier.weight"' if self.num_classes is None else "a classifier of 0 rows"
            )
            raise InputError(
                f"{file}: {what}, so these are not weights that can classify; "
                "train with it as `pretrained`, which makes a new head"
            )
        check_one_output(self.task, self.num_classes, file)

    def check_finite(self, file: Path) -> None:
        """Refuse weights of which a number is nan or infinite, as of a training that diverged.

        Raises:
            InputError: one is; the text names its tensor.
        """
        for name, tensor in self.state_dict.items():
            if not tensor.is_floating_point():
                continue
            check_type(tensor, name, file)
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"{file}: {name} has nan or infinite numbers, so the file is damaged or its "
                    "training diverged; take other weights"
                )

    def known_info(self, file: Path) -> ModelInfo:
        """Their description, where it is written into new weights.

        Raises:
            InputError: the file does not say of which network they are.
        """
        if self.info is None:
            raise InputError(
                f"{file}: does not record its network; densenet121 convert with `to` native and "
                "its `net` writes a file that does"
            )
        return self.info

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


def check_type(tensor: Tensor, name: str, source: object) -> None:
    """Refuse a weight that is no number by itself.

    An integer is a quantised weight without its scale, or one that was cut to its integer; so is a
    floating-point number of 8 bits.

    Raises:
        InputError: it is; the text names ``source`` and ``name``.
    """
    if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
        return
    kind = str(tensor.dtype).removeprefix("torch.")
    raise InputError(
        f"{source}: {name} is of {kind}, but the network needs floating-point numbers of 16 bits "
        "or more; save its weights in float32"
    )
