"""Labels that predictions of networks which have not seen the image contradict.

Source: Northcutt, Jiang and Chuang 2021, "Confident Learning" (the threshold of a class is the mean
probability of the class over the images with this label, so that a rare class, to which networks
give small probabilities, is not always the one in doubt), with the ranking by probabilities less
the thresholds of its program, cleanlab.
"""

from dataclasses import dataclass

import numpy as np

from densenet121.metrics.values import Counts, Floats


@dataclass(frozen=True)
class Doubts:
    """Labels in doubt, the most doubtful first; each array has one value for each.

    Attributes:
        image: number of the image.
        suggested: number of the class that the predictions suggest.
        score: by how much more the suggested class exceeds what is usual for it than the label
            does: ``(p_suggested - t_suggested) - (p_label - t_label)``.
    """

    image: Counts
    suggested: Counts
    score: Floats


def doubtful_labels(labels: Counts, probability: Floats) -> Doubts:
    """The images of which another class than their label is confidently predicted.

    A class is confident if its probability is at least the mean over the images with that label. Of
    several, the most probable counts.

    Args:
        labels: ``(n,)`` number of each image's class.
        probability: ``(n, C)`` by networks that have not seen the image.
    """
    rows = np.arange(len(labels))
    limits = class_thresholds(labels, probability)
    confident = probability >= limits
    best = np.where(confident, probability, -1.0).argmax(axis=1)
    found = np.flatnonzero(confident.any(axis=1) & (best != labels))
    excess = probability - np.where(np.isfinite(limits), limits, 0.0)
    score = excess[rows, best] - excess[rows, labels]
    # Of equal scores the first image comes first.
    order = found[np.argsort(-score[found], kind="stable")]
    return Doubts(order, best[order], score[order])


def doubtful_cells(truth: Floats, probability: Floats) -> Doubts:
    """``doubtful_labels`` for one of several labels: 1, 0 or nan, which is not in doubt.

    Args:
        truth: ``(n,)``.
        probability: ``(n,)`` of being positive.
    """
    known = np.flatnonzero(~np.isnan(truth))
    both = np.stack([1 - probability[known], probability[known]], axis=1)
    found = doubtful_labels(truth[known].astype(np.int64), both)
    return Doubts(known[found.image], found.suggested, found.score)


def class_thresholds(labels: Counts, probability: Floats) -> Floats:
    """``(C,)`` mean probability of each class over the images with that label; inf without any."""
    classes = probability.shape[1]
    images = np.bincount(labels, minlength=classes)
    own = probability[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=classes)
    means: Floats = np.divide(sums, images, out=np.full(classes, np.inf), where=images > 0)
    return means
