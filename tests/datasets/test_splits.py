"""Splits by group: sets, hash values, balance beside scikit-learn's."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from densenet121.datasets.groups import check_spelling, group_ids, ids_by_pattern
from densenet121.datasets.splits import (
    CANDIDATES,
    Members,
    assign,
    best_seed,
    group_hashes,
    imbalance,
    positions,
)
from densenet121.utils.errors import InputError

IDS = st.sets(st.text(max_size=5), max_size=40)
SEEDS = st.integers(0, 2**63 - 1)
MASK = 2**64 - 1


def finaliser(z: int) -> int:
    """That of SplitMix64 (Steele, Lea and Flood 2014, figure 16; Vigna's splitmix64.c)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.text(max_size=20), SEEDS)
def test_the_place_of_a_group_is_a_function_of_seed_and_id(name: str, seed: int) -> None:
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    mixed = finaliser((int(digest[:16], 16) + finaliser((seed + 0x9E3779B97F4A7C15) & MASK)) & MASK)
    assert positions(group_hashes([name]), seed).tolist() == [(mixed >> 11) / 2**53]


def test_the_places_stay_the_same_in_every_version() -> None:
    found = positions(group_hashes(["1", "2", "patient 3"]), seed=1)
    assert found.tolist() == [0.8777287609852843, 0.38391915660463183, 0.20000337225241704]
    assert finaliser(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first output of seed 0


@settings(deadline=None)
@given(IDS, IDS, SEEDS)
def test_added_groups_do_not_move_old_ones(old: set[str], added: set[str], seed: int) -> None:
    shares = [0.1, 0.2, 0.7]
    everything = sorted(old | added)
    before = dict(zip(sorted(old), assign(group_hashes(sorted(old)), shares, seed), strict=True))
    after = dict(zip(everything, assign(group_hashes(everything), shares, seed), strict=True))
    assert all(after[name] == part for name, part in before.items())
    assert set(after.values()) <= {0, 1, 2}


@settings(deadline=None)
@given(IDS, SEEDS)
def test_a_larger_share_takes_no_group_away(ids: set[str], seed: int) -> None:
    hashes = group_hashes(sorted(ids))
    small = assign(hashes, [0.2, 0.8], seed) == 0
    assert not (small & (assign(hashes, [0.3, 0.7], seed) != 0)).any()


def test_shares_are_met_on_average_and_seeds_are_independent() -> None:
    hashes = group_hashes(map(str, range(20_000)))
    sizes = np.bincount(assign(hashes, [0.1, 0.2, 0.7], 1)) / 20_000
    # Standard deviations of 0.002 to 0.003.
    assert sizes == pytest.approx([0.1, 0.2, 0.7], abs=0.012)
    one, two, thousand = (positions(hashes, seed) for seed in (1, 2, 1000))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert abs(np.corrcoef(one, thousand)[0, 1]) < 0.03


def members(seed: int, groups: int, classes: int) -> Members:
    """Groups of 1 to 8 images, whose classes are mostly alike; the classes are unbalanced."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, groups)
    group = np.repeat(np.arange(groups), sizes)
    frequent = rng.choice(
        classes, groups, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    )
    label = np.where(
        rng.random(len(group)) < 0.7, frequent[group], rng.integers(0, classes, len(group))
    )
    return Members(group_hashes(map(str, range(groups))), group, label, classes)


def test_counts_and_imbalance_by_hand() -> None:
    found = Members(group_hashes("abc"), np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 2)
    counts = found.counts(np.array([0, 1, 1]), 2)
    assert counts.tolist() == [[1, 1], [0, 2]]
    # Expected 0.5, 1.5 of each part: 4 * (0.5^2 / 0.5 or 1.5).
    assert imbalance(counts, [0.5, 0.5]) == pytest.approx(2 * 0.25 / 0.5 + 2 * 0.25 / 1.5)


def test_the_best_seed_is_the_most_balanced_of_its_thousand() -> None:
    found = members(1, groups=60, classes=3)
    shares = [0.25] * 4
    seed = best_seed(found, shares, 2)
    assert 2 * CANDIDATES <= seed < 3 * CANDIDATES
    scores = [
        imbalance(found.counts(assign(found.hashes, shares, one), 4), shares)
        for one in range(2 * CANDIDATES, 3 * CANDIDATES)
    ]
    assert seed == 2 * CANDIDATES + int(np.argmin(scores))
    assert min(scores) < 0.5 * float(np.median(scores))


def spread(found: Members, parts: np.ndarray, folds: int) -> float:
    """Root mean square over folds and labels of the relative deviation from equal counts."""
    counts = found.counts(parts, folds)
    return float(np.sqrt(((counts * folds / counts.sum(axis=0) - 1) ** 2).mean()))


@pytest.mark.parametrize("data", [1, 2, 3])
def test_balance_beside_stratified_group_k_fold(data: int) -> None:
    """Half the deviation of chance; scikit-learn's greedy choice is closer, but not stable.

    5 folds of 300 groups, 5 unbalanced classes: 0.23, 0.11 and 0.01 of the equal count.
    """
    folds, found = 5, members(data, groups=300, classes=5)
    shares = [1 / folds] * folds
    chance = [spread(found, assign(found.hashes, shares, seed), folds) for seed in range(1, 101)]
    own = spread(found, assign(found.hashes, shares, best_seed(found, shares, 1)), folds)
    greedy = np.zeros(300, dtype=np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=1)
    for fold, (_, held) in enumerate(splitter.split(found.label, found.label, found.group)):
        greedy[found.group[held]] = fold
    other = spread(found, greedy, folds)
    print(f"chance {np.mean(chance):.3f}, best seed {own:.3f}, scikit-learn {other:.3f}")
    assert other < own < 0.75 * np.mean(chance)


def test_scikit_learns_choice_moves_groups_when_some_are_added() -> None:
    """Why it is not used here."""
    found = members(1, groups=300, classes=5)
    fold_of = []
    for groups in (290, 300):
        keep = found.group < groups
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=1)
        own = np.zeros(groups, dtype=np.int64)
        parts = splitter.split(found.label[keep], found.label[keep], found.group[keep])
        for fold, (_, held) in enumerate(parts):
            own[found.group[keep][held]] = fold
        fold_of.append(own)
    assert (fold_of[0] != fold_of[1][:290]).mean() > 0.5


def test_ids_in_paths() -> None:
    paths = ["a/00013_001.png", "b/00013_002.png", "00027_000.png"]
    assert ids_by_pattern(paths, r"(\d+)_\d+\.png$", "x") == ["00013", "00013", "00027"]
    assert ids_by_pattern(paths, r"\d{5}", "x") == ["00013", "00013", "00027"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(\d+)_(\d+)", r"has 2 parentheses; one is allowed"),
        (r"(", r"neither a column nor a regular expression \("),
        (r"^a/(\d+)", r"images: `group` \^a/.* is no column and finds no id in b/2\.png, nor in 0"),
        (r"()\d", r"finds no id in a/1\.png, nor in 1 more of 2 paths"),
        ("Patient", r"`group` Patient is no column and finds no id"),
    ],
)
def test_paths_without_an_id_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ids_by_pattern(["a/1.png", "b/2.png"], pattern, "images")


def test_a_group_that_is_no_column_is_answered_with_those_there_are() -> None:
    columns = {"label": ["a"], "Patient ID": ["1"]}
    with pytest.raises(InputError, match=r"of 1 paths; the columns are label, Patient ID$"):
        group_ids(["b.png"], columns, "PatientID", "list.csv")


def test_one_number_written_in_two_ways_is_refused() -> None:
    check_spelling(["5", "50", "a5", "5", "100000000000000001", "100000000000000002", "1.2.3"], "p")
    for other in ("5.0", "05"):
        with pytest.raises(InputError, match=r"`group` p: .* are one number; write ids in one way"):
            check_spelling(["5", other], "p")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("P7", "P007"),
        ("p7", "P7"),
        ("Doe  J", "Doe J"),
        ("Doe\xa0J", "Doe J"),
        ("Mu\u0308ller", "M\xfcller"),
        ("M\udcfcller", "M\xfcller"),  # of a list in Latin-1, and of one in UTF-8
        ("7A", "007a"),
        ("5", "5,0"),
        ("5", "5\u200b"),  # a blank of no width, as copied from a page
        ("\ufeffP7", "P7"),  # a mark of the byte order, where two files were joined
        ("Doe^John", "DOE^JOHN^^^"),  # of DICOM, with parts that are blank
    ],
)
def test_one_patient_written_in_two_ways_is_not_two(one: str, two: str) -> None:
    """Such a patient was in train and in val, and no step said so."""
    with pytest.raises(InputError, match=r"^`group` p: .* are (one|alike)") as caught:
        check_spelling([one, "other", two], "p")
    assert ascii(one) in str(caught.value) or one in str(caught.value)


def test_ids_that_only_look_alike_are_two() -> None:
    ids = [
        "a01b1",
        "a1b01",
        "P1.5",
        "P1.50",
        "P10",
        "P1",
        "1.2.3",
        "1.2.30",
        "0",
        "P0",
        "-1",
        "1",
        "^",
    ]
    check_spelling(ids, "p")


def test_ids_that_a_spreadsheet_has_rounded_are_refused() -> None:
    for name in ("1.23457E+12", "1,23457E+12", "1E+15", "1.23457e+12"):
        with pytest.raises(
            InputError, match=r"is a number that a spreadsheet has rounded, so that"
        ):
            check_spelling(["7", name], "p")
    check_spelling(["1E5", "E+12", "1.5e"], "p")


@pytest.mark.parametrize(
    "name", ["nan", "NaN", "NaT", "<NA>", "None", "NULL", "null", "NA", "N/A", "n/a"]
)
def test_what_programs_write_for_a_blank_id_is_no_patient(name: str) -> None:
    """The images without an id counted as one patient's."""
    with pytest.raises(InputError, match=f"^`group` p: {name} is how programs write a blank cell"):
        check_spelling(["7", name], "p")
    check_spelling(["Nan", "Na", "Null"], "p")  # are names


@pytest.mark.parametrize("name", ["#N/A", "#NV", "#REF!", "######"])
def test_what_a_spreadsheet_writes_for_an_error_is_no_patient(name: str) -> None:
    with pytest.raises(InputError, match=f"^`group` p: {name} is what a spreadsheet writes where"):
        check_spelling(["7", name], "p")
