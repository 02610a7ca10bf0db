"""The settings of ``convert``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import (
    File,
    Interpolation,
    Net,
    Settings,
    Variant,
    WeightsSettings,
)
from densenet121.config.values import Triple, parse_mean_std
from densenet121.utils.errors import UsageError

Target = Literal[
    "native",
    "huggingface",
    "torchvision",
    "timm",
    "mindcv",
    "mindspore",
    "monai",
    "torchxrayvision",
]


@dataclass(frozen=True, kw_only=True)
class KnownSettings(WeightsSettings):
    """What the weights do not record, or record wrongly; the new file records it.

    Attributes:
        class_names: text file of the classes' names, one on each line in the order of the network's
            outputs (default: those that the weights record).
        task: what the outputs mean: single_label (one class per image, by a softmax) or multilabel
            (any number of labels, each by a sigmoid) (default: what the weights record).
        interpolation: how images are resized, as in eval (default: what the weights record).
        normalisation: mean and std that the images had in training, in grey levels 0 to 255, for
            all of R, G, B or three each: 0,255 where pixels were only divided by 255, 127.5,127.5
            where they were scaled to -1 ... 1 (default: what the weights record).
    """

    section: ClassVar[str] = "what is known of the weights"
    class_names: File | None = None
    task: Literal["single_label", "multilabel"] | None = None
    interpolation: Interpolation | None = None
    normalisation: Annotated[str, "M,S"] | None = None

    @property
    def mean_std(self) -> tuple[Triple, Triple] | None:
        """Mean and std of R, G, B in grey levels."""
        return None if self.normalisation is None else parse_mean_std(self.normalisation)

    def check(self) -> None:
        """Refuse a normalisation that is a word."""
        if self.normalisation is not None and self.mean_std is None:
            raise UsageError(
                "--normalisation must be the mean and std in grey levels as "
                f'"M,S" or "M,M,M,S,S,S", got {self.normalisation}'
            )


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(KnownSettings):
    """Convert weights between densenet121, torchvision, timm, MONAI, MindSpore and others.

    Attributes:
        source: weights file in any format that can be read, or a Hugging Face folder.
        target: file to write; its suffix chooses among the formats of that program. For huggingface
            a folder, which must be new or empty.
        to: program that will read the file: native is densenet121, mindspore the network of the
            model zoo (variant model_zoo), mindcv its network (variant paper). huggingface writes a
            folder that timm, transformers and densenet121 read: model.safetensors, config.json and
            README.md, the model card.
        net: the network, for weights that do not record it (default: densenet121).
        variant: paper or model_zoo, for weights that do not record it for certain (default: what
            the weights suggest).
        channels: input channels of the network in the file that is written: 3, or 1 (grey images)
            for native, timm, monai and torchxrayvision. For 1, the first convolution is summed over
            R, G and B, for 3 each channel gets a third of it, the same function for grey images
            (default: those of the weights where the program has such networks).
        positive_class: with native, of weights with two classes the one that becomes their only
            label (task multilabel), with the same probability; its threshold is then that of
            calibrate's operating_point (default: they stay two classes).
    """

    section: ClassVar[str] = Settings.section
    positional: ClassVar[tuple[str, ...]] = ("source", "target")
    source: str
    target: str
    to: Target
    net: Net | None = None
    variant: Variant | None = None
    channels: Literal[1, 3] | None = None
    positive_class: Annotated[str, "CLASS"] | None = None
