"""The settings of ``audit``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from densenet121.config.labels import TaskSettings
from densenet121.config.shared import AnyPath, File, SampleSettings, Settings, WorkerSettings
from densenet121.config.values import at_least, between, ends_in
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AuditThresholds(Settings):
    """Thresholds of the remarks.

    Attributes:
        near: largest number of bits, of 64, in which the fingerprints of near duplicates differ; -1
            finds exact duplicates only.
        least_side: an image is tiny if one of its sides has fewer pixels.
        most_pixels: an image is huge if it has more pixels, in millions.
        imbalance: classes are out of balance if the largest has this many times the images of the
            smallest.
    """

    section: ClassVar[str] = "thresholds"
    near: int = 4
    least_side: int = 32
    most_pixels: float = 40.0
    imbalance: float = 10.0

    def check(self) -> None:
        """Refuse values out of range."""
        between("near", self.near, -1, 16)
        at_least("least_side", self.least_side, 1, "pixel")
        at_least("most_pixels", self.most_pixels, 0)
        at_least("imbalance", self.imbalance, 1)


@dataclass(frozen=True, kw_only=True)
class AuditConfig(TaskSettings, AuditThresholds, SampleSettings, WorkerSettings):
    """Check every image of a dataset and report what is wrong; nothing is changed.

    Attributes:
        source: images, in any source that `train` reads; `train/` and `val/` are compared.
        val_dir: validation images (default: the `val` beside `train`, else none).
        group: what must not be in both, such as a patient: a column of the list, or a regular
            expression that finds the id in the path, in parentheses if there are any (default:
            not checked).
        json: print JSON instead of the table.
        page: file for an HTML page that shows the images found (default: none).
        exclude_list: file for the images that cannot be used, the second and further copies, and
            the training images that are in val as well; for --exclude of train and eval. Its
            lines are train/PATH and val/PATH, or PATH where there is no val (default: none).
        depth: as in `train` (default: 8).
        window: as in `train` (default: full).
        workers: threads (default: number of cores).
    """

    section: ClassVar[str] = "data and output"
    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    val_dir: AnyPath | None = None
    group: Annotated[str, "COLUMN|REGEX"] | None = None
    json: bool = False
    page: File | None = None
    exclude_list: File | None = None

    def check(self) -> None:
        """Refuse an empty path and no threads."""
        at_least("workers", self.workers, 1, "thread")
        if not self.source:
            raise UsageError("audit needs images")
        ends_in("page", self.page, ".html", ".htm")
