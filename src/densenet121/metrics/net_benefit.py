"""Net benefit of acting on the images that a network gives a probability: the decision curve.

Source: Vickers and Elkin 2006, "Decision curve analysis". Who acts from a probability of p on takes
(1 - p) / p false alarms for one case that is found, so that one false alarm costs p / (1 - p) of a
case. With another share of positives than in the file: sensitivity and specificity are taken to be
the same there, as by ``prevalence.py``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from densenet121.metrics.bootstrap import percentile_interval, resampled_sums
from densenet121.metrics.values import Counts, Floats


def net_benefits(
    truth: Floats,
    probability: Floats,
    act_from: Sequence[float],
    prevalences: Sequence[float | None],
    *,
    group: Counts | None = None,
    resamples: int,
    seed: int,
) -> list[list[dict[str, Any]]]:
    """The net benefit of each label at each probability, in true positives per image.

    Args:
        truth: ``(n, L)``: 1, 0 or nan, which is left out for that label.
        probability: ``(n, L)``.
        act_from: T probabilities between 0 and 1 from which on one would act.
        prevalences: for each label the share of positives where the network is used; None is that
            of the file.
        group: ``(n,)`` number of each image's group, which the bootstrap draws; None: images.
        resamples: resamples of the bootstrap; 0 leaves out the intervals.
        seed: seed of the bootstrap.

    Returns:
        For each label T times ``act_from``, ``net_benefit`` of the network, ``of_all`` of acting on
        all images, ``gain`` over the better of that and of acting on none, which is 0; with
        intervals. Undefined ones are None.
    """
    units = np.arange(len(truth)) if group is None else group
    groups = int(units.max()) + 1 if len(units) else 0
    found = []
    # Label by label: all at once the sums would need gigabytes for a million images.
    for row, share in enumerate(prevalences):
        counts = _counts(truth[:, row], probability[:, row], act_from, units, groups)
        drawn = np.full((len(counts), 1), np.nan)
        if resamples and groups > 1:
            drawn = resampled_sums(counts, resamples, seed)
        own = []
        for at, limit in enumerate(act_from, start=1):
            rows = [0, 1, 2 * at, 2 * at + 1]
            own.append(_at(counts[rows].sum(axis=1), drawn[rows], limit, share))
        found.append(own)
    return found


def _counts(
    truth: Floats, probability: Floats, act_from: Sequence[float], units: Counts, groups: int
) -> Floats:
    """Positives and negatives of each unit, and at each limit its hits and false alarms.

    Returns:
        ``(2 + 2 T, groups)``.
    """
    kinds = [truth == 1, truth == 0]
    called = [kind & (probability >= limit) for limit in act_from for kind in kinds]
    return np.stack([np.bincount(units, column, groups) for column in kinds + called])


def _at(whole: Floats, drawn: Floats, limit: float, prevalence: float | None) -> dict[str, Any]:
    model, of_all = _benefits(whole, limit, prevalence)
    of_draws, all_of_draws = _benefits(drawn, limit, prevalence)
    # The better of acting on all and on none in the file, also where a resample has it otherwise.
    default, of_default = (of_all, all_of_draws) if of_all > 0 else (0.0, 0.0)
    gain = _defined(model - default)
    return {
        "act_from": limit,
        **({} if prevalence is None else {"prevalence": prevalence}),
        "net_benefit": _defined(model),
        "net_benefit_ci": _interval(of_draws, _defined(model)),
        "of_all": _defined(of_all),
        "gain": gain,
        "gain_ci": _interval(of_draws - of_default, gain),
    }


def _defined(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(drawn: Floats, of: float | None) -> list[float] | None:
    found = None if of is None else percentile_interval(drawn, of=of)
    return None if found is None else list(found)


def _benefits(counts: Floats, limit: float, prevalence: float | None) -> tuple[Floats, Floats]:
    """Net benefit of the calls and of acting on all, of positives, negatives, hits and alarms."""
    positives, negatives, hits, alarms = counts
    cost = limit / (1 - limit)
    with np.errstate(invalid="ignore", divide="ignore"):
        if prevalence is None:
            images = positives + negatives
            return (hits - cost * alarms) / images, (positives - cost * negatives) / images
        other = cost * (1 - prevalence)
        model = prevalence * hits / positives - other * alarms / negatives
        return model, np.full_like(model, prevalence - other)
