"""The settings of ``calibrate``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from densenet121.config.labels import Column, LabelTableSettings
from densenet121.config.shared import (
    AnyPath,
    BatchSettings,
    DeviceSettings,
    File,
    PrecisionSettings,
    Switch,
    Tta,
    WorkerSettings,
)
from densenet121.config.values import between, names_weights
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(
    LabelTableSettings, BatchSettings, PrecisionSettings, DeviceSettings, WorkerSettings
):
    """Calibrate the confidence of weights on held-out images, and store it with the weights.

    Attributes:
        data_dir: images used neither for training nor to choose the weights: a folder of class
            folders, or one that holds `train/` and `val/`, of which those of `val/` are taken.
        pretrained: weights: a checkpoint, weights file or Hugging Face folder.
        output: file for the calibrated weights (default: beside them, with "_calibrated" in the
            name).
        target_accuracy: share of predict's answers that shall be right, such as 0.99; predict
            abstains below the confidence that this takes (default: it always answers).
        operating_point: for several labels per image, of which there may be one: how the threshold
            of each label is chosen: youden, f1, sensitivity=X, specificity=X or precision=X
            (default: no thresholds).
        fit_bias: 1 adds an offset of each class or label to the classifier's bias, fitted with the
            temperature: for networks trained with weights, a sampler, the focal loss, or on other
            shares of the classes than where they are used. Answers change with it.
        tta: views of each image whose probabilities are averaged, stored with the weights, so that
            predict, serve and eval use the same (default: what the weights have, else none).
        group: column of a table or list of the images that those of one patient, or another group,
            have in common, or a regular expression that finds the group in the path: a group stays
            in one half, and prediction sets and intervals are those of new groups (default: images
            are independent).
        seed: seed of the split: one half of the images gives the temperature, the other the rest.
    """

    section: ClassVar[str] = "calibration"
    data_dir: AnyPath
    pretrained: AnyPath
    output: File | None = None
    target_accuracy: float | None = None
    operating_point: Annotated[str, "RULE"] | None = None
    fit_bias: Switch = 0
    tta: Tta | None = None
    group: Column | None = None
    seed: int = 1

    def check(self) -> None:
        """Refuse empty paths and values out of range."""
        if not self.data_dir or not self.pretrained:
            raise UsageError("--data_dir and --pretrained must not be empty")
        names_weights("output", self.output)
        between("seed", self.seed, 0, 2**63 - 1)
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise UsageError(
                f"--target_accuracy must be above 0 and at most 1, got {self.target_accuracy}"
            )
