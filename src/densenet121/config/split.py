"""The settings of ``split``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from densenet121.config.labels import LabelTableSettings
from densenet121.config.shared import Folder
from densenet121.config.values import MOST_FOLDS, at_least, between
from densenet121.utils.errors import UsageError

_DEFAULT_VAL = 0.2


@dataclass(frozen=True, kw_only=True)
class SplitConfig(LabelTableSettings):
    """Split images into training and validation lists, without a patient in two of them.

    Attributes:
        source: images: a folder of class folders, a list, or a CSV or TSV file with a column of
            paths and any other columns.
        output: new folder for the lists.
        val: share of the groups for validation (default: 0.2 without `folds`).
        folds: number of folds instead: each image is in the validation list of one fold.
        test: share of the groups for a test list.
        group: what must not be divided, such as a patient: a column of the file, or a regular
            expression that finds the id in the path, in parentheses if there are any (default: each
            image by itself).
        stratify: choose, of 1,000 seeds, the one that divides the labels most evenly.
        seed: the assignment is a function of seed and group.
    """

    section: ClassVar[str] = "split"
    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    output: Folder
    val: float | None = None
    folds: int | None = None
    test: float = 0.0
    group: Annotated[str, "COLUMN|REGEX"] | None = None
    stratify: bool = False
    seed: int = 1

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels, or none; else each has one class."""
        given = self.labels, self.label_separator, self.negative_label, self.ignore_labels
        return any(value is not None for value in given)

    @property
    def parts(self) -> dict[str, float]:
        """Name and share of each part; those of folds are "0", "1", ..."""
        rest = 1 - self.test
        held_back = {"test": self.test} if self.test else {}
        if self.folds is not None:
            return held_back | {str(fold): rest / self.folds for fold in range(self.folds)}
        val = _DEFAULT_VAL if self.val is None else self.val
        return held_back | {"val": val, "train": rest - val}

    def check(self) -> None:
        """Refuse shares out of range, both kinds of split, and settings of several labels alone."""
        if not self.source or not self.output:
            raise UsageError("split needs images and --output, a new folder")
        for name in ("uncertain", "missing"):
            if getattr(self, name) is not None and not self.several_labels:
                raise UsageError(
                    f"--{name} is for several labels per image, but each image has one class here; "
                    "name the labels by --labels or --label_separator, or omit it"
                )
        if self.val is not None and self.folds is not None:
            raise UsageError("--val makes one split, --folds several; give one of the two")
        at_least("folds", self.folds, 2, "folds")
        between("folds", self.folds, 2, MOST_FOLDS)
        for name, value in (("val", self.val), ("test", self.test or None)):
            if value is not None and not 0 < value < 1:
                raise UsageError(f"--{name} must be above 0 and below 1, got {value}")
        if min(self.parts.values()) <= 1e-9:
            raise UsageError(f"--val {self.val} and --test {self.test} leave nothing to train on")
        # The seeds among which --stratify chooses are 1,000 times as large.
        between("seed", self.seed, 0, 2**53 if self.stratify else 2**63 - 1)
