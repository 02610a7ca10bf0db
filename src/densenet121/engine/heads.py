"""Classifiers of features by scikit-learn, as linear layers where they are linear.

``N`` images, ``F`` features, ``C`` classes. Features are standardised before the fit: mean 0 and
standard deviation 1 over the training images; the layer takes them as they are.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.utils.errors import InputError

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)  # candidates for the regularisation C
MAX_ITERATIONS = 2000
# Of the gradient. A fit is accurate to float32; to choose among candidates less is enough.
_TOLERANCE = 1e-6
_ROUGH = 1e-3
_MOST_FOLDS = 5

Values = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A linear layer: logits are ``features @ weight.T + bias``.

    Attributes:
        weight: ``(C, F)`` float64.
        bias: ``(C,)`` float64.
        converged: whether the fit reached its tolerance.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    converged: bool = True

    def logits(self, features: Values) -> NDArray[np.float64]:
        """``(N, C)`` float64."""
        return np.asarray(features.astype(np.float64) @ self.weight.T + self.bias)


def fit_logistic(features: Values, labels: Labels, C: float, tolerance: float = _TOLERANCE) -> Head:
    """Multinomial logistic regression of standardised features, with an L2 penalty.

    Minimises ``C * sum of log losses + |weight|^2 / 2``; the bias has no penalty
    (``sklearn.linear_model.LogisticRegression``). Of two classes scikit-learn fits one logit, which
    becomes half of it for the one and minus half for the other: the probabilities are the same.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``; each class from 0 to the largest occurs.
        C: inverse strength of the penalty.
        tolerance: largest component of the gradient, of the mean loss, at the end.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = _standard(features)
    model = LogisticRegression(C=C, max_iter=MAX_ITERATIONS, tol=tolerance)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit((features - mean) / scale, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = (np.concatenate([-found / 2, found / 2]) for found in (weight, bias))
    weight = weight / scale
    failed = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return Head(weight, bias - weight @ mean, not failed)


def fit_labels(features: Values, targets: Values, C: float) -> Head:
    """A logistic regression for each label, on the images for which the label is known.

    Args:
        features: ``(N, F)``.
        targets: ``(N, K)``, 1, 0 or nan for not known; each label has positive and negative images.
        C: inverse strength of the penalty, see ``fit_logistic``.
    """
    weights, biases, converged = [], [], True
    for column in targets.T:
        known = ~np.isnan(column)
        head = fit_logistic(features[known], column[known].astype(np.int64), C)
        # One logit whose sigmoid is the softmax of the two.
        weights.append(head.weight[1] - head.weight[0])
        biases.append(head.bias[1] - head.bias[0])
        converged = converged and head.converged
    return Head(np.stack(weights), np.array(biases), converged)


def choose_strength(features: Values, targets: NDArray[Any], seed: int) -> tuple[float, int]:
    """The C of ``STRENGTHS`` with the lowest log loss in cross-validation, and the number of folds.

    The folds are stratified, and each standardises by its own training images. Of equal losses the
    stronger regularisation wins. Several labels have folds of their own and one C: that with the
    lowest sum of losses; the number of folds is the smallest.

    Args:
        features: ``(N, F)``.
        targets: labels ``(N,)``, each class from 0 to the largest at least twice; or ``(N, K)``, 1,
            0 or nan, where each label has two positive and two negative images.
        seed: seed of the folds.
    """
    if targets.ndim == 1:
        losses, folds = _held_out_losses(features, targets, seed)
        return STRENGTHS[int(np.argmin(losses))], folds
    found = []
    for column in targets.T:
        known = ~np.isnan(column)
        found.append(_held_out_losses(features[known], column[known].astype(np.int64), seed))
    total = np.sum([losses for losses, _ in found], axis=0)
    return STRENGTHS[int(np.argmin(total))], min(folds for _, folds in found)


def _held_out_losses(
    features: Values, labels: Labels, seed: int
) -> tuple[NDArray[np.float64], int]:
    """Summed log loss of the images for each C, when held out; and the number of folds."""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    folds = min(_MOST_FOLDS, int(np.bincount(labels).min()))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    losses = np.zeros(len(STRENGTHS))
    classes = np.arange(labels.max() + 1)
    for train, held_out in splits.split(features, labels):
        for position, C in enumerate(STRENGTHS):
            head = fit_logistic(features[train], labels[train], C, _ROUGH)
            losses[position] += log_loss(
                labels[held_out],
                _softmax(head.logits(features[held_out])),
                labels=classes,
                normalize=False,
            )
    return losses, folds


def class_means(features: Values, labels: Labels) -> Head:
    """The class whose mean is nearest by Euclidean distance, on standardised features.

    ``-|x - m|^2 / 2`` is ``x m - |m|^2 / 2`` but for a term that all classes share, so it is a
    linear layer (``sklearn.neighbors.NearestCentroid``). Its softmax is far too sure.
    """
    mean, scale = _standard(features)
    standard = (features - mean) / scale
    means = np.stack([standard[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    weight = means / scale
    return Head(weight, -(means**2).sum(axis=1) / 2 - weight @ mean)


def nearest_neighbours(
    features: Values, labels: Labels, queries: Values, neighbours: int
) -> NDArray[np.int64]:
    """The majority class of the nearest images by cosine, ``(num_queries,)``.

    Of equally many votes the class that comes first wins (``sklearn.neighbors``).

    Raises:
        InputError: there are fewer images than neighbours.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if neighbours > len(features):
        raise InputError(
            f"`neighbours` must be at most the {len(features)} training images, got {neighbours}"
        )
    model = KNeighborsClassifier(neighbours, metric="cosine")
    found = model.fit(features, labels).predict(queries)
    return np.asarray(found, dtype=np.int64)


def _standard(features: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature; 1 in place of 0 for a constant one."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype(np.float64))
    return scaler.mean_, scaler.scale_


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import softmax

    return np.asarray(softmax(logits, axis=1))
