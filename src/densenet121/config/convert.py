"""The settings of ``convert``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.shared import Net, Settings, Variant

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
class ConvertConfig(Settings):
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
            for native, timm, monai and torchxrayvision (default: those of the weights where the
            program has such networks). For 1, the first convolution is summed over R, G and B,
            for 3 each channel gets a third of it, the same function for grey images.
    """

    positional: ClassVar[tuple[str, ...]] = ("source", "target")
    source: str
    target: str
    to: Target
    net: Net | None = None
    variant: Variant | None = None
    channels: Literal[1, 3] | None = None
