"""The settings of ``metrics``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from densenet121.config.labels import Column, LabelSettings, Names, names_in, pairs_in
from densenet121.config.shared import File
from densenet121.config.values import at_least, between, numbers
from densenet121.utils.checks import number_in
from densenet121.utils.errors import UsageError

Pairs = Annotated[str, "LABEL=VALUE,..."]
Numbers = Annotated[str, "NUMBER,..."]
_MOST_LIMITS = 100  # of net benefits


@dataclass(frozen=True, kw_only=True)
class MetricsConfig(LabelSettings):
    """Compute AUROC, average precision and others, with intervals, from any file of predictions.

    Attributes:
        file: CSV or TSV file with a header and one row per image: its labels and probabilities.
        probability_prefix: what the names of the columns with probabilities begin with, before the
            label.
        probability_columns: the columns with probabilities, instead of a prefix: label=column
            pairs separated by commas.
        ignore_labels: labels in label_column that do not count. Among several labels of an image
            they are passed over; where each image has one class, the images of these are left out
            (default: none; a label without a probability is an error).
        group: column with an id, such as the patient, whose images belong together; intervals then
            come from resampling ids (default: images are independent).
        by: column, or several separated by commas, such as View,Sex: the metrics of each of its
            values as well (default: none).
        threshold: probability from which on an image is called positive, for sensitivity,
            specificity and others: one number, or label=value pairs separated by commas (default:
            none of these).
        prevalence: share of positives where the network is used, for PPV and NPV there, by the
            calls at threshold, and for net benefits: one number, or label=value pairs separated by
            commas (default: that of the file alone).
        net_benefit: probabilities from which on one would act, such as 0.05,0.1,0.2: the net
            benefit of acting on the images that reach them, beside that of acting on all (default:
            none).
        least_positives: labels with fewer positives are left out of the macro means.
        resamples: resamples of the bootstrap; 0 leaves out the intervals that need it.
        seed: seed of the bootstrap.
        json: print JSON instead of tables.
        output: file for the JSON (default: none).
    """

    section: ClassVar[str] = "metrics"
    positional: ClassVar[tuple[str, ...]] = ("file",)
    file: str
    probability_prefix: str | None = None
    probability_columns: Pairs | None = None
    ignore_labels: Names | None = None
    group: Column | None = None
    by: Names | None = None
    threshold: Pairs | None = None
    prevalence: Pairs | None = None
    net_benefit: Numbers | None = None
    least_positives: int = 1
    resamples: int = 2000
    seed: int = 1
    json: bool = False
    output: File | None = None

    @property
    def columns(self) -> dict[str, str] | None:
        """Label to its column of probabilities; None: by the prefix."""
        text = self.probability_columns
        return None if text is None else pairs_in("probability_columns", text)

    @property
    def by_columns(self) -> tuple[str, ...]:
        """The columns of the subgroups."""
        return names_in("by", self.by) if self.by else ()

    @property
    def thresholds(self) -> dict[str, float] | float | None:
        """One threshold for all labels, or by label; None: none."""
        return _shares("threshold", self.threshold)

    @property
    def prevalences(self) -> dict[str, float] | float | None:
        """One prevalence for all labels, or by label; None: none."""
        return _shares("prevalence", self.prevalence)

    @property
    def act_from(self) -> tuple[float, ...]:
        """The probabilities of ``net_benefit``, in order."""
        return () if self.net_benefit is None else tuple(numbers("net_benefit", self.net_benefit))

    def check(self) -> None:
        """Refuse values out of range, and two ways to name the probabilities."""
        if not self.file:
            raise UsageError("metrics needs a file of predictions")
        if (self.probability_prefix is None) == (self.probability_columns is None):
            raise UsageError(
                "give one of --probability_prefix and --probability_columns; of predictions.csv, "
                "as eval writes it, --probability_prefix probability_, and with one class per "
                "image --label_column label, too"
            )
        if self.probability_prefix == "":
            raise UsageError("--probability_prefix must not be empty; see --probability_columns")
        at_least("least_positives", self.least_positives, 1, "image")
        if self.resamples:
            at_least("resamples", self.resamples, 100)
        between("seed", self.seed, 0, 2**63 - 1)
        _ = self.columns, self.by_columns
        thresholds, prevalences = self.thresholds, self.prevalences
        if prevalences is not None and thresholds is None and self.net_benefit is None:
            raise UsageError(
                "--prevalence needs --threshold, whose calls have the PPV and NPV: one number, or "
                "label=value pairs; or --net_benefit"
            )
        for value in prevalences.values() if isinstance(prevalences, dict) else [prevalences]:
            if value in (0, 1):
                raise UsageError(f"--prevalence must be greater than 0 and below 1, got {value:g}")
        if len(self.act_from) > _MOST_LIMITS:
            raise UsageError(
                f"--net_benefit takes at most {_MOST_LIMITS} probabilities, got "
                f"{len(self.act_from)}"
            )
        for value in self.act_from:
            if not 0 < value < 1:
                raise UsageError(f"--net_benefit must be above 0 and below 1, got {value:g}")


def _shares(flag: str, text: str | None) -> dict[str, float] | float | None:
    """One number, or a number of each label; None: none."""
    if text is None:
        return None
    if "=" not in text:
        return _share(flag, text)
    return {name: _share(flag, value) for name, value in pairs_in(flag, text).items()}


def _share(flag: str, text: str) -> float:
    try:
        value = number_in(text)
    except ValueError:
        raise UsageError(f"--{flag} must be a number or label=value pairs, got {text}") from None
    between(flag, value, 0, 1)
    return value
