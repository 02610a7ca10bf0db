"""The settings of ``inspect``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import Settings


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Settings):
    """Describe a weights file: network, variant, classes, training state, preprocessing.

    Attributes:
        file: weights file, a Hugging Face folder, or an .onnx or .pt2 file that export wrote.
    """

    positional: ClassVar[tuple[str, ...]] = ("file",)
    file: str
