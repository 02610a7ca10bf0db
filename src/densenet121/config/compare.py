"""The settings of ``compare``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.labels import Column
from densenet121.config.shared import File, Settings
from densenet121.config.values import at_least, between


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Settings):
    """Compare two evaluations of the same images: is B worse than A?

    Attributes:
        a: the reference: a folder that `eval` wrote, or its predictions.csv.
        b: what is compared with it: a folder that `eval` wrote, or its predictions.csv.
        fail_if_worse_by: exit status 1 if B's top-1 (of several labels: mean AUROC) is lower by
            more than this many percentage points (default: never).
        format: text for people, or json with every image whose answer changed.
        output: file for the whole comparison as JSON (default: none).
        top: number of classes and of changed images that the text shows.
        group: column of predictions.csv with an id, such as the patient, whose images belong
            together: intervals then come from resampling ids (default: images are independent).
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.
    """

    positional: ClassVar[tuple[str, ...]] = ("a", "b")
    a: str
    b: str
    fail_if_worse_by: float | None = None
    format: Literal["text", "json"] = "text"
    output: File | None = None
    top: int = 20
    group: Column | None = None
    resamples: int = 9999
    seed: int = 1

    def check(self) -> None:
        """Refuse values out of range."""
        at_least("fail_if_worse_by", self.fail_if_worse_by, 0, "percentage points")
        at_least("top", self.top, 0)
        at_least("resamples", self.resamples, 100)
        between("seed", self.seed, 0, 2**63 - 1)
