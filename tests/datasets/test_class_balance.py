"""Class weights by their formulas, and draws whose frequencies pass a chi-square test."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.utils.class_weight import compute_class_weight

from densenet121.datasets.class_balance import (
    balanced_weights,
    effective_weights,
    read_weights_file,
    sqrt_weights,
)
from densenet121.datasets.sampler import class_draws
from densenet121.utils.errors import InputError

COUNTS = np.array([900, 90, 10])
LABELS = np.repeat([0, 1, 2], COUNTS)


def test_balanced_weights_are_in_proportion_to_those_of_scikit_learn() -> None:
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert np.allclose(balanced_weights(COUNTS), theirs / theirs.mean())


def test_weights_by_hand() -> None:
    assert np.allclose(balanced_weights(np.array([1, 3])), [1.5, 0.5])
    assert np.allclose(sqrt_weights(np.array([1, 4])), [4 / 3, 2 / 3])
    # (1 - 0.5) / (1 - 0.5^n) for n = 1 and 2: 1 and 2/3
    assert np.allclose(effective_weights(np.array([1, 2]), 0.5), [1.2, 0.8])
    assert effective_weights(COUNTS, 0.0).tolist() == [1, 1, 1]


@given(
    counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=50),
    beta=st.floats(0, 1, exclude_max=True),
)
def test_every_rule_has_mean_1_and_gives_rare_classes_no_less(
    counts: list[int], beta: float
) -> None:
    n = np.array(counts)
    order = np.argsort(n, kind="stable")
    for weights in (balanced_weights(n), sqrt_weights(n), effective_weights(n, beta)):
        assert abs(weights.mean() - 1) < 1e-9 and (weights > 0).all()
        assert (np.diff(weights[order]) <= 1e-12).all()


def test_effective_weights_lie_between_none_and_balanced() -> None:
    assert np.allclose(effective_weights(COUNTS, 1 - 1e-12), balanced_weights(COUNTS), rtol=1e-6)
    assert np.allclose(effective_weights(COUNTS, 1e-9), 1, rtol=1e-6)


def test_a_file_gives_weights_by_name(tmp_path: Path) -> None:
    file = tmp_path / "weights.csv"
    file.write_text('cat,4\n"a, b",1\n\nbee , 1\n')
    assert np.allclose(read_weights_file(file, ("a, b", "bee", "cat")), [0.5, 0.5, 2.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant,1\n", "no weight for class bee"),
        ("ant,1\nbee\n", "line 2: must be a class and a weight above 0"),
        ("ant,1\nbee,0\n", "line 2: must be a class and a weight above 0"),
        ("ant,1\nbee,inf\n", "line 2: must be a class and a weight above 0"),
        ("ant,1\nbee,x\n", "line 2: must be a class and a weight above 0"),
        ("ant,1\nbee,1\ncat,1\n", "line 3: the data has no class cat"),
        ("ant,1\nbee,1\nant,1\n", "line 3: class ant occurs twice"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_weights_file(file, ("ant", "bee"))
    with pytest.raises(InputError, match="cannot be read"):
        read_weights_file(tmp_path / "nothing.csv", ("ant", "bee"))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_and_images_are_drawn_as_often_as_stated(power: float) -> None:
    drawn = np.concatenate(
        [class_draws(LABELS, COUNTS**power, seed=3, epoch=epoch) % 1000 for epoch in range(200)]
    )
    shares = COUNTS**power / (COUNTS**power).sum()
    found = np.bincount(LABELS[drawn], minlength=3)
    assert chisquare(found, shares * len(drawn)).pvalue > 1e-3
    # Within a class every image is equally likely.
    second = np.bincount(drawn[LABELS[drawn] == 1] - 900, minlength=90)
    assert len(second) == 90 and chisquare(second).pvalue > 1e-3


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
)
def test_an_epoch_of_draws_is_as_long_and_every_copy_has_its_own_number(
    counts: list[int], seed: int, epoch: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    shares = np.ones(len(counts))
    draws = class_draws(labels, shares, seed, epoch)
    n = len(labels)
    assert len(draws) == len(set(draws.tolist())) == n
    for image in range(n):
        copies = draws[draws % n == image] // n
        assert copies.tolist() == list(range(len(copies)))  # the first one keeps its own number
    assert draws.tolist() == class_draws(labels, shares, seed, epoch).tolist()


def test_the_draws_are_the_same_on_every_machine_and_version() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = [class_draws(labels, np.ones(3), 1, epoch).tolist() for epoch in (0, 1)]
    assert found == [[3, 1, 0, 5, 4, 11], [3, 4, 5, 0, 10, 2]]
