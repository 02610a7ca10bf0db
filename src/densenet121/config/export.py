"""The settings of ``export``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import ClassVar, Literal

from densenet121.config.labels import LabelTableSettings
from densenet121.config.shared import AnyPath, File, Switch
from densenet121.config.values import at_least, between
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ExportConfig(LabelTableSettings):
    """Export the network for another runtime or as int8 weights, with a parity report.

    Attributes:
        pretrained: weights: a checkpoint, weights file or Hugging Face folder.
        output: file to write, such as model.onnx, model.pt2 or int8.safetensors; the parity report
            goes beside it.
        data_dir: images to compare both networks on: a folder of class folders, or one that holds
            `train/` and `val/`, of which those of `val/` are taken.
        format: onnx, torch for torch.export, or native for weights of densenet121, which need int8.
        int8: 1 quantises to int8, calibrated on other images of data_dir: of onnx by ONNX Runtime,
            of native by densenet121 itself, for its own kernels of CPUs.
        uint8_input: 1 puts the normalisation inside: the input is (N, H, W, C) uint8, resized and
            cropped; 0 takes (N, C, H, W) float32, normalised. C is 3 for RGB, 1 for a network of
            one channel.
        pictures: number of images to compare on; int8 is calibrated with as many others.
        tolerance: largest difference of a logit (default: a thousandth of the largest logit, at
            least 0.001; int8: any).
        min_agreement: smallest share of images with the same top class (default: 1; int8: 0.95).
    """

    section: ClassVar[str] = "export"
    suffixes: ClassVar[Mapping[str, str]] = MappingProxyType(
        {".onnx": "onnx", ".pt2": "torch", ".safetensors": "native"}
    )
    pretrained: AnyPath
    output: File
    data_dir: AnyPath
    format: Literal["onnx", "torch", "native"] = "onnx"
    int8: Switch = 0
    uint8_input: Switch = 0
    pictures: int = 64
    tolerance: float | None = None
    min_agreement: float | None = None

    def check(self) -> None:
        """Refuse empty paths and values out of range."""
        if not (self.pretrained and self.output and self.data_dir):
            raise UsageError("--pretrained, --output and --data_dir must not be empty")
        if self.int8 and self.format == "torch":
            raise UsageError("--int8 1 needs --format onnx or native")
        if self.format == "native" and not self.int8:
            raise UsageError("--format native needs --int8 1")
        if self.format == "native" and self.uint8_input:
            raise UsageError("--uint8_input 1 needs --format onnx or torch, got native")
        self._check_suffix()
        at_least("pictures", self.pictures, 2)
        at_least("tolerance", self.tolerance, 0)
        between("min_agreement", self.min_agreement, 0, 1)

    def _check_suffix(self) -> None:
        """Refuse a file whose name does not say its format; readers choose by the name."""
        suffix = PurePath(self.output).suffix.lower()
        named = self.suffixes.get(suffix)
        if named is None:
            expected = next(end for end, name in self.suffixes.items() if name == self.format)
            raise UsageError(
                f"--output must be a {expected} file for --format {self.format}, got {self.output}"
            )
        if named != self.format:
            raise UsageError(
                f"--output {self.output} is named as --format {named} writes it, but --format is "
                f"{self.format}; pass --format {named} or another name"
            )
