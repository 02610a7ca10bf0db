"""The numbers of a study: the ensemble, single networks, and their spread over seeds and folds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.engine.held_out import Pool, Pooled
from densenet121.metrics.predictions import summarise_predictions

_CLASSES = ("accuracy", "balanced_accuracy")
_MACRO = ("auroc", "average_precision", "brier", "log_loss")


def study_results(pool: Pool) -> dict[str, Any]:
    """The content of study.json, without the settings.

    ``ensemble`` and each of ``seeds`` are what ``densenet121 metrics`` says about the file of
    predictions; ``folds`` has the headline metrics of the images of each fold; ``spread`` has, for
    each headline metric, its values over seeds and over folds with mean and standard deviation.
    """
    images, config = pool.images, pool.config
    ensemble = _metrics(pool, pool.ensemble, resamples=config.resamples)
    seeds = {str(config.seed): ensemble}
    if len(pool.seeds) > 1:
        seeds = {
            str(seed): _metrics(pool, one, resamples=config.resamples)
            for seed, one in pool.seeds.items()
        }
    folds = [_fold(pool, fold) for fold in range(config.folds)]
    heads = {seed: headlines(found) for seed, found in seeds.items()}
    return {
        "task": pool.task.name,
        "class_names": list(images.names),
        "data_dir": str(images.root),
        "group": config.group,
        "split_seed": pool.division.summary["seed"],
        "n_images": len(pool.scored),
        "n_groups": ensemble["n_groups"],
        "n_folds": config.folds,
        "seed_numbers": config.seed_numbers,
        "complete": not pool.errors,
        "ensemble": ensemble,
        "seeds": seeds,
        "folds": folds,
        "spread": {
            name: {
                "ensemble": value,
                "ensemble_ci": _interval(ensemble, name),
                "seeds": spread([head[name] for head in heads.values()]),
                "folds": spread([found["ensemble"][name] for found in folds]),
            }
            for name, value in headlines(ensemble).items()
        },
        "bad_images": [
            {"path": images.paths[at], "error": reason} for at, reason in pool.errors.items()
        ],
    }


def headlines(found: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics that a study compares, of a result of ``summarise_predictions``."""
    classes = found.get("classes")
    heads = {} if classes is None else {name: classes[name] for name in _CLASSES}
    return heads | {name: found["macro"][name] for name in _MACRO}


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Values with their mean and standard deviation (of a sample); undefined ones are left out."""
    defined = [value for value in values if value is not None]
    mean = math.fsum(defined) / len(defined) if defined else None
    deviation = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
    return {"values": list(values), "mean": mean, "sd": deviation}


def _interval(found: Mapping[str, Any], name: str) -> list[float] | None:
    part = found["classes"] if name in _CLASSES else found["macro"]
    interval: list[float] | None = part.get(f"{name}_ci")
    return interval


def _fold(pool: Pool, fold: int) -> dict[str, Any]:
    """The numbers of the images of a fold that could be read."""
    inside = pool.fold == fold
    found = _metrics(pool, pool.ensemble, inside)
    images = int(inside.sum())
    positive = (pool.truth[inside] == 1).sum(axis=0).tolist()
    return {
        "images": images,
        "groups": images if found["n_groups"] is None else found["n_groups"],
        "left_out": found["macro"]["left_out"],
        "ensemble": headlines(found),
        "seeds": {
            str(seed): headlines(_metrics(pool, one, inside)) for seed, one in pool.seeds.items()
        },
        "labels": dict(zip(pool.images.names, positive, strict=True)),
    }


def _metrics(
    pool: Pool, pooled: Pooled, inside: NDArray[np.bool_] | None = None, resamples: int = 0
) -> dict[str, Any]:
    """The metrics of all scored images, or of some."""
    chosen = np.ones(len(pool.scored), dtype=np.bool_) if inside is None else inside
    return summarise_predictions(
        pool.truth[chosen],
        pooled.probability[chosen],
        pool.images.names,
        ids=None if pool.ids is None else pool.ids[chosen],
        one_class=not pool.images.several_labels,
        resamples=resamples,
    )
