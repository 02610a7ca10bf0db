"""The settings of ``study``."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from densenet121.config.flags import flags_of
from densenet121.config.shared import Folder, Settings
from densenet121.config.train import TrainConfig, differences
from densenet121.config.values import MOST_FOLDS, at_least, between
from densenet121.utils.errors import UsageError

# Settings of train that a study sets for each of its runs, and what to use in their place.
_OF_A_RUN = {
    "val_dir": "each fold is validated in turn; pass all images as --data_dir",
    "output_dir": "pass --run_dir, in which each run gets a folder",
    "ckpt_path": "pass --run_dir, in which each run gets a folder",
    "rank": "its runs are in one process, one after the other",
    "group_size": "its runs are in one process, one after the other",
}
# Settings that do not change the runs, so that a study that goes on may change them.
_FREE_ON_RESUME = ("run_dir", "resamples")


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """The folds and seeds of a study.

    Attributes:
        run_dir: folder of the study: the lists of the folds, a run folder for each fold and seed,
            the pooled predictions, study.json and the pages.
        folds: number of folds; each image is held out in one of them.
        seeds: networks for each fold, with the seeds `seed`, `seed` + 1, ...; a study that is done
            can be resumed with more.
        group: what must not be in two folds, such as a patient: a column of the list or table, or
            a regular expression that finds the id in the path, in parentheses if there are any;
            intervals are then over groups (default: each image by itself).
        stratify: choose, of 1,000 assignments to folds, the one that divides the labels most
            evenly.
        split_seed: the fold of a group is a function of split_seed and the group, as with --seed
            of `split`.
        resamples: resamples of the bootstrap; 0 leaves out the intervals that need it.
        data_dir: all images of the study: a folder of class folders, a list of paths and labels
            (.txt, .csv, .tsv), or a table of labels; not split into train and val.
        seed: seed of the initial weights, the order of the images and their augmentation; with
            several seeds the first.
        val_dir: no setting of a study, which validates each fold in turn.
        output_dir: no setting of a study; see run_dir.
        ckpt_path: no setting of a study; see run_dir.
        resume: auto goes on with the study in run_dir: finished runs are kept, one that was
            interrupted continues from its newest checkpoint; it starts afresh where there is none.
        keep_checkpoint_max: newest checkpoints to keep of the run that is training; those of a
            finished run are removed, and its weights kept. 0 keeps all.
    """

    section: ClassVar[str] = "study"
    run_dir: Folder
    folds: int = 5
    seeds: int = 1
    group: Annotated[str, "COLUMN|REGEX"] | None = None
    stratify: bool = False
    split_seed: int = 1
    resamples: int = 2000
    keep_checkpoint_max: int = 2

    def check(self) -> None:
        """Refuse counts out of range."""
        if not self.run_dir:
            raise UsageError("--run_dir must name a folder, got an empty path")
        at_least("folds", self.folds, 2, "folds")
        between("folds", self.folds, 2, MOST_FOLDS)
        at_least("seeds", self.seeds, 1, "seed")
        between("seeds", self.seeds, 1, MOST_FOLDS)
        # The seeds among which --stratify chooses are 1,000 times as large.
        between("split_seed", self.split_seed, 0, 2**53 if self.stratify else 2**63 - 1)
        if self.resamples:
            at_least("resamples", self.resamples, 100)


@dataclass(frozen=True, kw_only=True)
class StudyConfig(StudySettings, TrainConfig):
    """Cross-validate: train on all folds but one, with several seeds, and pool the predictions."""

    def check(self) -> None:
        """Refuse what a study sets for its runs, and seeds that are too large."""
        defaults = {flag.name: flag.default for flag in flags_of(TrainConfig)}
        for name, instead in _OF_A_RUN.items():
            if getattr(self, name) != defaults[name]:
                raise UsageError(f"--{name} has no place in study: {instead}")
        if self.resume not in (None, "auto"):
            raise UsageError(f"--resume of study must be auto, got {self.resume}")
        self.check_frozen(has_weights=bool(self.pretrained))  # its runs begin with them
        between("seed", self.seed, 0, 2**63 - self.seeds)

    @property
    def seed_numbers(self) -> list[int]:
        """The seed of each network of a fold."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def parts(self) -> dict[str, float]:
        """Name and share of each fold, as `split` has them."""
        return {str(fold): 1 / self.folds for fold in range(self.folds)}

    def of_run(self, **changed: Any) -> TrainConfig:
        """The settings of one of its runs: those of `train`, with some of them changed."""
        own = {flag.name: getattr(self, flag.name) for flag in flags_of(TrainConfig)}
        return TrainConfig(**(own | changed))


def study_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Changed flags that would change the result of a study: "--flag was x, is now y".

    Args:
        before: the settings of the study in the folder.
        now: those of the study that goes on; it may have more seeds.
    """
    free = list(_FREE_ON_RESUME)
    if now["seeds"] >= before["seeds"]:
        free.append("seeds")
    return differences(before, now, free)
