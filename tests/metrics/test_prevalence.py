"""PPV and NPV where another share of the images is positive than in the file."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from densenet121.metrics.bootstrap import draw
from densenet121.metrics.decisions import Decisions, wilson_interval
from densenet121.metrics.prevalence import predictive_intervals, predictive_values
from densenet121.metrics.summary import summarise
from densenet121.metrics.values import Counts, Floats

PPV, NPV = "ppv_at_prevalence", "npv_at_prevalence"
RNG = np.random.default_rng(7)
TRUTH = (RNG.random((300, 1)) < 0.4).astype(float)
PROBABILITY = np.clip(0.3 * TRUTH + 0.7 * RNG.random((300, 1)), 0, 1)


def summary(
    truth: Floats,
    probability: Floats,
    prevalence: float,
    resamples: int,
    group: Counts | None = None,
) -> dict[str, Any]:
    return summarise(
        truth,
        probability,
        ["A"],
        thresholds={"A": 0.5},
        prevalences={"A": prevalence},
        resamples=resamples,
        group=group,
    )


def test_they_are_those_of_the_calculation_by_hand() -> None:
    """Of 1000 people 100 are ill: 90 are found, and so are 180 of the 900 others."""
    found = predictive_values(0.9, 0.8, 0.1)
    assert found[PPV] == pytest.approx(90 / 270, abs=1e-15)
    assert found[NPV] == pytest.approx(720 / 730, abs=1e-15)


def test_at_the_share_of_the_file_they_are_its_own() -> None:
    share = float(TRUTH.mean())
    found = summary(TRUTH, PROBABILITY, share, resamples=0)["labels"]["A"]
    assert found["prevalence"] == share
    assert found[PPV] == pytest.approx(found["ppv"], abs=1e-14)
    assert found[NPV] == pytest.approx(found["npv"], abs=1e-14)


@pytest.mark.parametrize("cells", [(40, 7, 93, 10), (10, 1, 49, 10), (5, 90, 10, 95)])
def test_the_interval_is_movers_of_wilsons_limits(cells: tuple[int, int, int, int]) -> None:
    """The two ends in the form in which Donner and Zou print them."""
    calls = Decisions(*cells)
    hits, rejections = calls.shares["sensitivity"], calls.shares["specificity"]
    found = predictive_intervals(hits, rejections, 0.05)
    for name, above, below, before in (
        (PPV, hits, (calls.fp, calls.tn + calls.fp), 0.05 / 0.95),
        (NPV, rejections, (calls.fn, calls.tp + calls.fn), 0.95 / 0.05),
    ):
        of_above, of_below = wilson_interval(*above), wilson_interval(*below)
        assert of_above is not None and of_below is not None
        (low, high), (low_b, high_b) = of_above, of_below
        a, b = above[0] / above[1], below[0] / below[1]
        root = math.sqrt((a * b) ** 2 - low * high_b * (2 * a - low) * (2 * b - high_b))
        ends = [(a * b - root) / (high_b * (2 * b - high_b))]
        root = math.sqrt((a * b) ** 2 - high * low_b * (2 * a - high) * (2 * b - low_b))
        ends += [(a * b + root) / (low_b * (2 * b - low_b))]
        shares = [ratio * before / (1 + ratio * before) for ratio in ends]
        assert found[name] == pytest.approx(shares, rel=1e-9)


@pytest.mark.parametrize(
    ("positives", "negatives", "sensitivity", "specificity", "prevalence"),
    [(20, 20, 0.8, 0.8, 0.1), (50, 50, 0.9, 0.9, 0.02), (30, 120, 0.9, 0.98, 0.01)],
)
def test_the_interval_covers_the_true_value_in_95_of_100_studies(
    positives: int, negatives: int, sensitivity: float, specificity: float, prevalence: float
) -> None:
    """Exactly: over every outcome that a study can have, by its probability."""
    true = predictive_values(sensitivity, specificity, prevalence)
    of_hits = binom.pmf(range(positives + 1), positives, sensitivity)
    of_rejections = binom.pmf(range(negatives + 1), negatives, specificity)
    covered = dict.fromkeys((PPV, NPV), 0.0)
    for hits, rejections in np.argwhere(np.outer(of_hits, of_rejections) > 1e-8).tolist():
        found = predictive_intervals((hits, positives), (rejections, negatives), prevalence)
        for name, interval in found.items():
            if interval is not None and interval.low <= true[name] <= interval.high:
                covered[name] += of_hits[hits] * of_rejections[rejections]
    assert 0.935 < covered[PPV] < 0.98 and 0.935 < covered[NPV] < 0.98


def test_without_a_false_call_the_interval_still_has_a_width() -> None:
    ppv = predictive_intervals((18, 20), (50, 50), 0.02)[PPV]
    assert ppv is not None and 0.1 < ppv.low < 0.3 and ppv.high == 1
    assert float(predictive_values(0.9, 1, 0.02)[PPV]) == 1
    npv = predictive_intervals((20, 20), (40, 50), 0.02)[NPV]
    assert npv is not None and 0.99 < npv.low < npv.high == 1


@pytest.mark.parametrize("prevalence", [5e-324, 1e-300, 1 - 2**-53])
def test_at_the_smallest_and_the_largest_share_the_ends_are_numbers(prevalence: float) -> None:
    for interval in predictive_intervals((9, 10), (80, 100), prevalence).values():
        assert interval is not None and 0 <= interval.low <= interval.high <= 1


def test_calls_that_there_are_not_have_no_value() -> None:
    """No image is called positive; no positive; no negative."""
    assert np.isnan(predictive_values(0, 1, 0.1)[PPV])
    assert predictive_intervals((0, 20), (50, 50), 0.1)[PPV] is None
    assert predictive_intervals((0, 0), (50, 50), 0.1) == {PPV: None, NPV: None}
    found = summary(np.zeros((9, 1)), PROBABILITY[:9], 0.1, resamples=100)["labels"]["A"]
    assert [found[f"{name}{end}"] for name in (PPV, NPV) for end in ("", "_ci")] == [None] * 4


def test_with_groups_each_resample_has_its_own() -> None:
    group = np.arange(300) // 5
    found = summary(TRUTH, PROBABILITY, 0.01, resamples=200, group=group)
    ill, called = TRUTH[:, 0] == 1, PROBABILITY[:, 0] >= 0.5
    drawn = []
    for times in draw(60, 0, 200, 1).T[:, group]:
        hits = times[ill & called].sum() / times[ill].sum()
        rejections = times[~ill & ~called].sum() / times[~ill].sum()
        drawn.append(0.01 * hits / (0.01 * hits + 0.99 * (1 - rejections)))
    own = found["labels"]["A"]
    assert own[f"{PPV}_ci"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=1e-12)
    assert found["intervals"]["at_prevalence"].startswith("percentile bootstrap over groups")


def test_with_groups_a_value_of_1_has_the_interval_of_as_many_images_as_groups() -> None:
    """No resample has another value there."""
    probability = np.where(TRUTH == 1, 0.9, 0.1)
    probability[np.flatnonzero(TRUTH)[::2], 0] = 0.2  # half of the positives are missed
    group = np.arange(300) // 5
    found = summary(TRUTH, probability, 0.01, resamples=100, group=group)["labels"]["A"]
    of_positives, of_negatives = (len(np.unique(group[TRUTH[:, 0] == kind])) for kind in (1, 0))
    hits = found["sensitivity"] * of_positives
    expected = predictive_intervals((hits, of_positives), (of_negatives, of_negatives), 0.01)[PPV]
    assert expected is not None
    assert (found[PPV], found[f"{PPV}_ci"]) == (1, list(expected))
