"""Calibration: the temperature that was planted, coverage within its binomial bounds."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import betabinom

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.commands.calibrate import calibrate
from densenet121.config import CalibrateConfig, EvalConfig
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import Predictor
from densenet121.metrics.probabilities import mean_is_off
from densenet121.network import build
from densenet121.tasks import AnswerOptions, MultiLabel, SingleLabel
from densenet121.tasks.multi_label.calibration import Calibration as OfLabels
from densenet121.tasks.multi_label.calibration import OperatingPoint
from densenet121.tasks.single_label.calibrate import halves, learn
from densenet121.tasks.single_label.calibration import (
    Calibration,
    abstain_threshold,
    fit_temperature,
    probabilities,
    reliability,
    scores_of,
)
from densenet121.utils.errors import InputError

from helpers.tables import COLOURS, write_label_table
from helpers.weights import write_weights


def drawn(
    count: int, seed: int
) -> tuple[
    "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
    "np.ndarray[tuple[int], np.dtype[np.int64]]",
]:
    """Logits and labels that are drawn from their own softmax: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 6)) * 2
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("planted", [0.3, 1.0, 4.0])
def test_the_planted_temperature_is_found(planted: float) -> None:
    logits, labels = drawn(20_000, 1)
    assert abs(fit_temperature(logits * planted, labels).value / planted - 1) < 0.03


def test_the_error_of_calibration_falls_and_is_small() -> None:
    logits, labels = drawn(20_000, 2)
    found, before, after = learn(logits * 4, labels, seed=1, target_accuracy=0.9)
    assert before > 0.15 and after < 0.02
    fresh, truth = drawn(20_000, 3)
    shares = probabilities(fresh * 4, found.temperature)
    answered = shares.max(axis=1) >= (found.abstain_below or 0)
    assert abs((shares.argmax(axis=1) == truth)[answered].mean() - 0.9) < 0.02


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_the_sets_hold_the_truth_as_often_as_stated(coverage: float) -> None:
    logits, labels = drawn(2000, 4)
    found, _, _ = learn(logits * 3, labels, seed=1, target_accuracy=None)
    fresh, truth = drawn(5000, 5)
    shares = probabilities(fresh * 3, found.temperature)
    inside = int((shares[np.arange(5000), truth] >= found.set_threshold(coverage)).sum())
    # Given the scores, the coverage of n of them is Beta(k, n + 1 - k): Angelopoulos and Bates, 3.2
    n = len(found.scores)
    k = int(np.ceil((n + 1) * coverage))
    low, high = betabinom.ppf([0.0005, 0.9995], 5000, k, n + 1 - k)
    assert low <= inside <= high


def test_too_few_scores_promise_coverage_with_all_classes_only() -> None:
    found = Calibration(1.0, (0.1, 0.2, 0.3), None, {})
    assert found.set_threshold(0.9) == 0.0
    assert found.set_threshold(0.75) == 0.7


def test_the_score_that_bounds_a_set_is_the_one_of_the_coverage_in_decimal_digits() -> None:
    found = Calibration(1.0, tuple(number / 128 for number in range(1, 100)), None, {})
    assert found.set_threshold(0.55) == 1 - 55.5 / 128  # 100 * 0.55 is 55.00000000000001
    assert found.set_threshold(0.57) == 1 - 57.5 / 128  # 100 * 0.57 is 56.99999999999999


def test_the_error_of_calibration_by_hand() -> None:
    confidence = np.array([0.05, 0.95, 0.95, 1.0])
    correct = np.array([True, True, False, True])
    found = reliability(confidence, correct, bins=10)
    assert found.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert abs(found.ece - (0.95 * 1 + abs(2.9 / 3 - 2 / 3) * 3) / 4) < 1e-12


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1), st.floats(0.1, 1))
def test_the_threshold_is_the_least_that_reaches_the_target(
    rows: list[tuple[int, bool]], target: float
) -> None:
    confidence = np.array([level / 20 for level, _ in rows])
    correct = np.array([right for _, right in rows])
    reaching = [t for t in set(confidence) if correct[confidence >= t].mean() >= target]
    found = abstain_threshold(confidence, correct, target)
    if not reaching:
        assert found is None
        return
    assert found is not None
    below = max((t for t in set(confidence) if t < min(reaching)), default=min(reaching))
    assert found == pytest.approx((below + min(reaching)) / 2, rel=1e-15)
    assert ((confidence >= found) == (confidence >= min(reaching))).all()


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("classes", [2, 6])
def test_predict_treats_the_images_of_calibration_as_calibrate_counted_them(
    seed: int, classes: int
) -> None:
    """Of n images at least ceil((n + 1) coverage) have the truth in their set."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 60)
    drawn = rng.normal(0, 1, (60, classes)) + 2 * np.eye(classes)[labels]
    if seed % 2:  # ties, as of bf16
        drawn = drawn.round(1)
    if seed % 3 == 0:  # of true classes with tiny probabilities
        drawn[:10] *= 30
    logits = drawn.astype(np.float32)
    found, _, _ = learn(logits, labels, seed=1, target_accuracy=0.5)
    kept = np.random.default_rng(1).permutation(60)[30:]
    task, names = SingleLabel(), [str(k) for k in range(classes)]
    stored = task.read_calibration(json.loads(json.dumps(found.to_json())))
    for coverage in (0.5, 0.8, 0.9, 0.95):
        answers = task.answers(logits[kept], names, stored, AnswerOptions(coverage=coverage))
        shares = task.probabilities(logits[kept], stored).astype(np.float64)
        true = shares[np.arange(30), labels[kept]]
        least = math.ceil(31 * coverage)
        assert (true >= stored.set_threshold(coverage)).sum() >= least
        held = zip(labels[kept], answers, strict=True)
        inside = [names[k] in (answer.prediction_set or ()) for k, answer in held]
        assert sum(inside) >= least
        # Not one image more than those with the same probability as the last one needed.
        last = np.sort(true)[::-1][least - 1]
        assert (true >= stored.set_threshold(coverage)).sum() == (true >= last).sum()
        answered = np.mean([not answer.abstained for answer in answers])
        assert answered == pytest.approx(found.note["answered"])


def test_calibrate_stores_it_and_predict_uses_it(image_folder: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    config = CalibrateConfig(
        data_dir=str(image_folder), pretrained=str(weights), workers=1, amp="fp32"
    )
    result = calibrate(config)
    assert result.output == tmp_path / "w_calibrated.safetensors"
    stored = read_weights(result.output)
    assert stored.calibration == {
        **result.calibration.to_json(),
        "scores": list(result.calibration.scores),
    }
    path = image_folder / "val" / "ant" / "000.png"
    plain, calibrated = (Predictor(w, amp="fp32") for w in (weights, result.output))
    (answer,) = calibrated.predict([path], coverage=0.5, top_k=3, abstain_below=1.0)
    logits = plain.logits(next(iter(plain.batches([path])))[0].images)
    expected = probabilities(logits, result.calibration.temperature)[0]
    assert np.allclose(answer.probabilities, np.sort(expected)[::-1], atol=1e-6)
    assert answer.prediction_set and set(answer.prediction_set) <= {"ant", "bee", "cat"}
    # eval takes the file and says the same as of the weights alone
    digests = set()
    for source in (weights, result.output):
        folder = tmp_path / source.stem
        flags = EvalConfig(
            data_dir=str(image_folder), pretrained=str(source), output_dir=str(folder)
        )
        digests |= {e.digest for e in evaluate(flags).evaluations.values() if e is not None}
    assert len(digests) == 1


def test_a_target_out_of_reach_is_refused() -> None:
    logits, labels = drawn(100, 6)
    with pytest.raises(InputError, match="target_accuracy"):
        learn(logits, (labels + 1) % 6, seed=1, target_accuracy=1.0)


@pytest.mark.parametrize("damage", [{"temperature": 0}, {"scores": [2, 1]}, {"scores": 3}])
def test_a_damaged_calibration_is_refused(damage: dict[str, object]) -> None:
    content = {"temperature": 1.0, "scores": [0.1], "abstain_below": None, "note": {}} | damage
    with pytest.raises(InputError, match="damaged"):
        Calibration.from_json(content)


@pytest.mark.parametrize("views", ["none", "dihedral"])
def test_weights_are_calibrated_anew_with_any_views_as_if_for_the_first_time(
    views: str, image_folder: Path, tmp_path: Path
) -> None:
    def calibrated(source: Path, tta: str) -> Path:
        output = tmp_path / f"{source.stem}_{tta}.safetensors"
        flags: dict[str, Any] = {"workers": 1, "amp": "fp32", "tta": tta, "output": str(output)}
        calibrate(CalibrateConfig(data_dir=str(image_folder), pretrained=str(source), **flags))
        return output

    weights = write_weights(tmp_path / "w.safetensors")
    again, once = calibrated(calibrated(weights, "flip"), views), calibrated(weights, views)
    assert read_weights(again).calibration == read_weights(once).calibration
    assert read_weights(again).info == read_weights(once).info


def test_a_confidence_to_answer_that_is_not_asked_for_again_is_left_out_with_a_word(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "w.safetensors"
    write_weights(source, calibration=Calibration(1.0, (0.1,), 0.5, {"pictures": 9}))
    assert main(["calibrate", "--pretrained", str(source), "--data_dir", str(image_folder)]) == 0
    error = capsys.readouterr().err
    assert f"the confidence below which {source} has no answer is left out, because" in error
    assert "pass --target_accuracy" in error


def test_thresholds_that_are_not_asked_for_again_are_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_label_table(tmp_path / "images", 32, 2)
    source = tmp_path / "w.safetensors"
    points = (OperatingPoint(0.3, 0, 0, 0, 0),) * len(COLOURS)
    stored = OfLabels((1.0,) * len(COLOURS), points, "youden", {"source": "others"})
    write_weights(source, calibration=stored, class_names=tuple(COLOURS), task="multilabel")
    command = ["calibrate", "--pretrained", str(source), "--data_dir", str(tmp_path / "images")]
    command += ["--missing", "ignore"]
    assert main(command) == 0
    error = capsys.readouterr().err
    assert f"the thresholds of {source} are left out, because" in error
    assert "pass --operating_point" in error
    assert main([*command, "--operating_point", "f1"]) == 0
    assert "left out" not in capsys.readouterr().err


def with_one_channel(path: Path, seed: int) -> Path:
    """Weights of others for grey images, which do not record their scale."""
    torch.manual_seed(seed)
    names = {
        r"features\.conv0": "conv1",
        r"features\.norm5": "bn1",
        "classifier": "fc",
        r"features\.transition(\d)\.norm": r"trans\1.bn1",
        r"features\.transition(\d)\.conv": r"trans\1.conv1",
    }
    state = {}
    for name, tensor in build("densenet40", num_classes=3, in_channels=1).state_dict().items():
        layer = re.match(r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)(.*)", name)
        if layer:
            kind = layer[3].replace("norm", "bn")
            name = f"block{layer[1]}.layer.{int(layer[2]) - 1}.{kind}{layer[4]}"
        for ours, theirs in names.items():
            name = re.sub(f"^{ours}", theirs, name)
        state[name] = tensor
    torch.save(state, path)
    return path


@pytest.mark.parametrize("command", ["calibrate", "average", "export"])
def test_what_is_assumed_of_weights_of_others_is_said_before_it_is_written_into_new_ones(
    command: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(with_one_channel(tmp_path / f"{seed}.pth", seed)) for seed in (1, 2)]
    output = ["--output", str(tmp_path / "new.safetensors")]
    given = ["--data_dir", str(image_folder), "--pretrained", files[0]]
    flags = {
        "calibrate": given,
        "average": files,
        "export": [*given, "--format", "native", "--int8", "1", "--min_agreement", "0"],
    }
    assert main([command, *flags[command], *output]) == 0
    assert capsys.readouterr().err.count("note: a scale of 0 to 1 is assumed") == 1


def test_each_group_weighs_one_in_the_scores_of_groups() -> None:
    """Groups of one image are images; of others the k-th score has a weight of k below it."""
    shares = np.array([0.9, 0.5, 0.7, 0.2, 0.6, 0.8], dtype=np.float32)
    each = scores_of(shares)
    assert scores_of(shares, np.arange(6)).tolist() == each.tolist()
    assert scores_of(np.repeat(shares, 3), np.repeat(np.arange(6), 3)).tolist() == each.tolist()
    # Weights 1/4 (0.1, 0.2, 0.3, 0.5) and 1/2 (0.4, 0.8): 1 at 0.4 (0.75 + 0.5), 2 at 0.8.
    found = scores_of(shares, np.array([0, 0, 0, 1, 1, 0]))
    assert found == pytest.approx([0.4, 0.8], abs=1e-7)


def test_sets_hold_the_truth_of_new_groups_as_often_as_stated() -> None:
    """Taken for independent, 10 alike images a group promise 99 % from 10 groups."""
    inside: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(12):
        logits, labels = drawn(20, seed)
        numbers = np.repeat(np.arange(20), 10)
        many = logits[numbers] * 3, labels[numbers]
        fresh, truth = drawn(1000, 1000 + seed)
        for grouped, found in inside.items():
            groups = numbers if grouped else None
            fitted, _, _ = learn(*many, seed=seed, target_accuracy=None, groups=groups)
            shares = probabilities(fresh * 3, fitted.temperature)
            found.append(float((shares[range(1000), truth] >= fitted.set_threshold(0.99)).mean()))
    assert np.mean(inside[True]) == 1.0  # 10 groups cannot promise it with less than all classes
    assert np.mean(inside[False]) < 0.975


def test_a_group_stays_in_one_half() -> None:
    groups = np.random.default_rng(1).integers(0, 9, 200)
    fitted, kept = halves(200, 3, groups)
    assert sorted([*fitted, *kept]) == list(range(200))
    assert not set(groups[fitted]) & set(groups[kept]) and len(set(groups[kept])) == 5
    with pytest.raises(InputError, match="all images are of one `group`"):
        halves(200, 3, np.zeros(200, dtype=np.int64))


def test_calibrate_takes_groups(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    flags: dict[str, Any] = {"data_dir": str(image_folder), "pretrained": str(weights)}
    flags |= {"workers": 1, "amp": "fp32", "target_accuracy": 0.1}
    result = calibrate(CalibrateConfig(**flags, group=r"(\d+)\.png"))
    assert len(result.calibration.scores) == 4  # of 7 groups 3 are fitted on
    note = (read_weights(result.output).calibration or {})["note"]
    assert note["group"] == r"(\d+)\.png" and note["groups"] == 7
    out = capsys.readouterr().out
    assert "(on 12 images of 4 groups not used for fitting)" in out
    assert re.search(r"it answers [\d.]+ % of these images, [\d.]+ % of them rightly \(", out)
    assert "with fewer than 20 groups such intervals are too narrow" in out
    with pytest.raises(InputError, match=r"`group` patient"):
        calibrate(CalibrateConfig(**flags, group="patient"))


def test_calibrated_weights_do_not_say_where_the_images_are(
    image_folder: Path, tmp_path: Path
) -> None:
    """They are passed on, and a folder may be called like a hospital or a patient."""
    weights = write_weights(tmp_path / "w.safetensors")
    flags: dict[str, Any] = {"data_dir": str(image_folder), "pretrained": str(weights)}
    result = calibrate(CalibrateConfig(**flags, workers=1, amp="fp32"))
    assert str(image_folder).encode() not in result.output.read_bytes()
    note = (read_weights(result.output).calibration or {})["note"]
    assert len(note["folder"]) == 16 and len(note["fingerprint"]) == 64


def test_what_a_threshold_reaches_has_an_interval_over_groups() -> None:
    """Ten copies of each image tell no more than the image."""
    rng = np.random.default_rng(1)
    truth = np.arange(60) % 2 * 1.0
    logits = (truth * 2 - 1 + rng.normal(0, 1.5, 60)).astype(np.float32)[:, None]

    def lines_of(truth: NDArray[Any], copies: int, **groups: NDArray[Any]) -> Sequence[str]:
        return MultiLabel().calibrate(
            np.repeat(logits, copies, axis=0),
            torch.from_numpy(np.repeat(truth, copies)[:, None]),
            seed=1,
            target_accuracy=None,
            note={},
            operating_point="sensitivity=0.8",
            class_names=("mass",),
            **groups,
        )[1]

    widths = []
    of_image = np.repeat(np.arange(60), 10)
    for copies, grouped in ((1, False), (10, False), (10, True)):
        lines = lines_of(truth, copies, **({"groups": of_image} if grouped else {}))
        (low, high) = re.findall(r"sensitivity [\d.]+ \(([\d.]+) to ([\d.]+)\)", lines[0])[0]
        widths.append(float(high) - float(low))
        assert lines[1].endswith("95 % intervals over 60 groups" if grouped else "95 % intervals")
        assert not any("too narrow" in line for line in lines)
    assert widths[1] < widths[0] / 2 and widths[2] > widths[0] * 0.8
    few = np.where((truth == 1) & (np.arange(60) > 30), np.nan, truth)
    assert (
        "positives, or negatives, of fewer than 20 groups: mass"
        in lines_of(few, 10, groups=of_image)[2]
    )
    lines = lines_of(truth, 10, groups=np.zeros(600, np.int64))
    assert re.search(r"sensitivity [\d.]+  specificity [\d.]+$", lines[0])
    assert lines[2].startswith("all images are of one group, so that only shares of 0 or 1 have")


def test_alike_images_of_a_group_are_no_wrong_mean() -> None:
    """The same gap of 30 groups of 40 images is chance, of 1,200 images it is not."""
    rng = np.random.default_rng(5)
    truth = np.repeat((np.arange(30) % 3 == 0) * 1.0, 40)
    shares = np.full(1200, 0.5) + rng.normal(0, 0.01, 1200)
    assert mean_is_off(truth, shares)
    assert not mean_is_off(truth, shares, group=np.repeat(np.arange(30), 40))
