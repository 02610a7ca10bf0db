"""The threshold below which there is no answer."""

import numpy as np

from densenet121.tasks.single_label.calibrate import halves, learn
from densenet121.tasks.single_label.calibration import probabilities
from densenet121.tasks.single_label.task import SingleLabel


def test_what_is_said_of_the_answers_is_true_of_probabilities_without_a_number_between() -> None:
    """A threshold between two numbers that follow each other was rounded to the lower one."""
    third = np.linspace(-28, -36, 40_001, dtype=np.float32)
    given = np.stack([0 * third, 0 * third - np.float32(0.9), third], axis=1)
    shares = np.ascontiguousarray(probabilities(given)[:, 0])
    even = shares.view(np.uint64) % 2 == 0  # to which a tie is rounded
    at = np.flatnonzero(even[:-1] & (shares[1:] == np.nextafter(shares[:-1], 1)))[0]
    fitted, kept = halves(40, 1)
    logits, labels = np.zeros((40, 3), np.float32), np.zeros(40, np.int64)
    logits[fitted, 0] = 5.0  # all right, so that the temperature stays 1
    logits[kept], labels[kept] = given[at], 1
    logits[kept[:10]], labels[kept[:10]] = given[at + 1], 0
    found, _, _ = learn(logits, labels, seed=1, target_accuracy=0.9)
    answers = SingleLabel().answers(logits[kept], ["a", "b", "c"], found)
    assert [one.abstained for one in answers] == [False] * 10 + [True] * 10
    assert found.note["answered"] == 0.5
    assert found.note["right"]["share"] == 1.0
