"""What calibrate says of the images that the temperature was not fitted on."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from densenet121.tasks.single_label.calibrate import describe, halves, learn, more_than_chance
from densenet121.tasks.single_label.calibration import probabilities


def logits_and_labels(
    count: int, scale: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of three classes whose softmax, divided by ``scale``, is right."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (count, 3))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return (scale * logits).astype(np.float32), labels.astype(np.int64)


def test_the_log_loss_before_and_after_is_scikit_learns_on_the_images_not_fitted_on() -> None:
    logits, labels = logits_and_labels(400, scale=3.0, seed=1)
    found, before, after = learn(logits, labels, seed=1, target_accuracy=None)
    kept = halves(len(labels), 1)[1]
    for name, temperature in (("before", 1.0), ("after", found.temperature)):
        expected = log_loss(
            labels[kept], probabilities(logits[kept], temperature), labels=[0, 1, 2]
        )
        assert found.note["log_loss"][name] == pytest.approx(expected, rel=1e-5)
    losses = found.note["log_loss"]
    (line,) = describe(found, before, after)
    assert (
        f"log loss {losses['before']:.4f} before, {losses['after']:.4f} after (on 200 images"
        in line
    )


def test_a_temperature_that_makes_other_images_worse_is_warned_of() -> None:
    """The half that it is fitted on is surer and more often right, as training images are."""
    logits, labels = logits_and_labels(400, scale=1.0, seed=2)
    fitted = halves(len(labels), 1)[0]
    sure = fitted[: len(fitted) * 9 // 10]
    labels[sure] = logits[sure].argmax(axis=1)
    found, before, after = learn(logits, labels, seed=1, target_accuracy=None)
    assert found.note["log_loss"]["after"] > found.note["log_loss"]["before"]
    assert describe(found, before, after)[1] == (
        "warning: the probabilities of these images are worse with the temperature, by their log "
        "loss; pass more images, or keep the weights as they were"
    )


def test_right_probabilities_are_rarely_said_to_be_worse_by_chance() -> None:
    """One-sided, 1 in 100; of 100 draws more than 5 by 1 in 1,000 (binomial)."""
    warned = 0
    for seed in range(100):
        logits, labels = logits_and_labels(200, scale=1.0, seed=seed)
        found, _, _ = learn(logits, labels, seed=seed, target_accuracy=None)
        warned += "worse" in found.note
    assert warned <= 5


def test_images_of_one_group_count_once_for_the_warning() -> None:
    """Copies of an image are no more evidence than the image."""
    differences = np.random.default_rng(1).normal(0.3, 1, 20)
    group = np.repeat(np.arange(20), 20)
    assert not more_than_chance(differences, None)
    assert not more_than_chance(differences[group], group)
    assert more_than_chance(differences[group], None)
