"""DenseNetClassifier: a run of train behind scikit-learn's conventions."""

import logging
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from densenet121 import DenseNetClassifier, Predictor, TrainConfig, train
from densenet121.checkpoint.load import read_weights
from densenet121.integrations.classes import names_of, typed
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.logging import log

from helpers.images import draw, write_classes
from helpers.weights import write_weights

SMALL: dict[str, Any] = {"net": "densenet40", "image_size": 16, "max_epoch": 1, "workers": 0,
                         "per_batch_size": 6, "amp": "fp32",
                         "settings": {"warmup_epochs": 0}}  # fmt: skip
ARRAYS = np.stack([draw(label, index) for label in (0, 1) for index in range(6)])
CLASSES = np.repeat([3, 7], 6)


@pytest.fixture(scope="module")
def fitted() -> DenseNetClassifier:
    return DenseNetClassifier(**SMALL).fit(ARRAYS, CLASSES)


def same_weights(a: bytes, b: bytes, folder: Path) -> bool:
    files = [folder / "a.safetensors", folder / "b.safetensors"]
    for file, content in zip(files, (a, b), strict=True):
        file.write_bytes(content)
    one, other = (read_weights(file).state_dict for file in files)
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_fit_has_the_weights_of_a_run_of_train(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", ["ant", "bee"], 6)
    run = tmp_path / "run"
    config = TrainConfig.from_recipe(
        "scratch_small",
        data_dir=str(root),
        output_dir=str(run),
        seed=5,
        **{name: value for name, value in SMALL.items() if name != "settings"},
        **SMALL["settings"],
    )
    expected = (train(config).folder / "last.safetensors").read_bytes()
    files = sorted(root.rglob("*.png"))
    classifier = DenseNetClassifier(**SMALL, random_state=5)
    classifier.fit(files, [file.parent.name for file in files])
    assert same_weights(classifier.weights_, expected, tmp_path)
    assert [row["kind"] for row in classifier.history_] == ["train"]


def test_probabilities_are_those_of_the_weights(fitted: DenseNetClassifier, tmp_path: Path) -> None:
    assert fitted.classes_.tolist() == [3, 7]
    shares = fitted.predict_proba(ARRAYS)
    assert shares.shape == (12, 2)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-12)
    fitted.save(tmp_path / "saved.safetensors")
    answers = Predictor(tmp_path / "saved.safetensors", amp="fp32").predict(list(ARRAYS), top_k=2)
    for answer, own in zip(answers, shares, strict=True):
        told = dict(zip(answer.classes, answer.probabilities, strict=True))
        assert [told["3"], told["7"]] == pytest.approx(own.tolist(), abs=1e-6)
    predicted = fitted.predict(ARRAYS)
    assert predicted.tolist() == [(3, 7)[column] for column in shares.argmax(axis=1)]
    assert fitted.score(ARRAYS, CLASSES) == np.mean(predicted == CLASSES)


def test_every_form_of_the_same_images_has_the_same_answer(
    fitted: DenseNetClassifier, tmp_path: Path
) -> None:
    pandas_like = np.empty(2, dtype=object)
    files = []
    for i in range(2):
        files.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(files[i]), ARRAYS[i][:, :, ::-1])
        pandas_like[i] = ARRAYS[i]
    expected = fitted.predict_proba(ARRAYS[:2])
    for x in (
        files,
        [str(file) for file in files],
        np.array([str(file) for file in files]),
        [Image.fromarray(pixels) for pixels in ARRAYS[:2]],
        [file.read_bytes() for file in files],
        list(ARRAYS[:2]),
        pandas_like,
        [files[0], ARRAYS[1]],
    ):
        assert np.array_equal(fitted.predict_proba(x), expected)
    grey = ARRAYS[:2, :, :, 0]
    colour = np.repeat(grey[..., None], 3, axis=3)
    assert np.array_equal(fitted.predict_proba(grey), fitted.predict_proba(colour))
    assert np.array_equal(fitted.predict_proba(grey[..., None]), fitted.predict_proba(colour))


def test_a_copy_of_a_fitted_estimator_answers_alike(
    fitted: DenseNetClassifier, tmp_path: Path
) -> None:
    expected = fitted.predict_proba(ARRAYS)
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(ARRAYS), expected)
    fitted.save(tmp_path / "w.safetensors")
    loaded = DenseNetClassifier.load(tmp_path / "w.safetensors", amp="fp32")
    assert np.array_equal(loaded.predict_proba(ARRAYS), expected)
    assert loaded.classes_.dtype.kind == "i"
    assert loaded.predict(ARRAYS).tolist() == fitted.predict(ARRAYS).tolist()
    assert not hasattr(clone(fitted), "weights_")
    with pytest.raises(NotFittedError):
        clone(fitted).predict(ARRAYS)


def test_numbers_of_64_bits_are_classes_as_they_are() -> None:
    """As digests are. Together, 1 and one of the larger half became floating-point numbers."""
    classes = np.array([1, 2**64 - 1, 2**64 - 2], dtype=np.uint64)
    names = names_of(classes)
    assert typed(names, "u").tolist() == classes.tolist()
    assert typed(names, "u").dtype == np.uint64
    assert typed(("-9223372036854775808", "3"), "i").tolist() == [-(2**63), 3]


def test_saving_replaces_a_file_once_and_with_all_that_belongs_to_it(
    fitted: DenseNetClassifier, tmp_path: Path
) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"old")
    kept: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(arguments[1]) == file:
            kept.append(str(read_weights(Path(arguments[0])).origin.get("classes_dtype")))

    sys.addaudithook(note)  # stays, and concerns this file alone
    fitted.save(file)
    assert kept == ["i"]
    with pytest.raises(InputError, match=r"none/w\.safetensors: cannot be written \(No such file"):
        fitted.save(tmp_path / "none" / "w.safetensors")


def test_any_weights_of_one_class_per_image_are_a_fitted_estimator(tmp_path: Path) -> None:
    file = write_weights(tmp_path / "w.safetensors")
    assert DenseNetClassifier.load(file).predict(ARRAYS).tolist() == (
        [answer.classes[0] for answer in Predictor(file).predict(list(ARRAYS))]
    )
    torch.save(read_weights(file).state_dict, tmp_path / "theirs.pth")  # without any description
    theirs = pickle.loads(
        pickle.dumps(DenseNetClassifier.load(tmp_path / "theirs.pth", net="densenet40"))
    )
    assert theirs.classes_.tolist() == ["0", "1", "2"]
    assert theirs._predictor().num_outputs == 3
    several = write_weights(tmp_path / "several.safetensors", task="multilabel")
    with pytest.raises(InputError, match="several labels per image"):
        DenseNetClassifier.load(several)


def test_classes_of_any_weights_are_sorted_with_their_probabilities(tmp_path: Path) -> None:
    state = read_weights(write_weights(tmp_path / "sure.safetensors")).state_dict
    state["classifier.weight"] = state["classifier.weight"] * 1e-4  # no probability is 0 or 1
    names = ("cat", "ant", "bee")
    file = write_weights(tmp_path / "w.safetensors", state=state, class_names=names)
    loaded = DenseNetClassifier.load(file, amp="fp32")
    assert loaded.classes_.tolist() == ["ant", "bee", "cat"]
    answers = Predictor(file, amp="fp32").predict(list(ARRAYS), top_k=3)
    told = [dict(zip(answer.classes, answer.probabilities, strict=True)) for answer in answers]
    assert len(set(told[0].values())) == 3
    expected = np.array([[one[name] for name in sorted(names)] for one in told])
    shares = loaded.predict_proba(ARRAYS)
    assert np.allclose(shares, expected, atol=1e-6)
    assert loaded.predict(ARRAYS).tolist() == [answer.classes[0] for answer in answers]
    loaded.save(tmp_path / "saved.safetensors")
    again = DenseNetClassifier.load(tmp_path / "saved.safetensors", amp="fp32")
    assert np.array_equal(again.predict_proba(ARRAYS), shares)


def test_a_fit_shows_nothing_and_leaves_stdout_to_other_threads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdout, seen = sys.stdout, []

    class Look(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(sys.stdout is stdout)

    look = Look()
    log.addHandler(look)
    try:
        DenseNetClassifier(**SMALL).fit(ARRAYS, CLASSES)
    finally:
        log.removeHandler(look)
    assert seen and all(seen)
    assert capsys.readouterr().out == ""


def test_averaged_weights_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    settings = {"warmup_epochs": 0, "ema_decay": 0.9}
    classifier = DenseNetClassifier(**SMALL | {"settings": settings}, output_dir=str(tmp_path))
    classifier.fit(ARRAYS, CLASSES)
    assert classifier.weights_ == (tmp_path / "last_ema.safetensors").read_bytes()
    assert classifier.weights_ != (tmp_path / "last.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((12, 5)), r"shape \(12, 5\); rows of pixels need X.reshape\(-1, H, W\)"),
        (np.zeros((12, 8, 8)), "pixels of uint8, 0 to 255, got float64"),
        (np.zeros((12, 8, 8, 4), np.uint8), r"\(N, H, W\) or \(N, H, W, 3\)"),
        (
            np.zeros((12, 16, 3), np.uint8),
            r"^X is one colour image, of shape \(12, 16, 3\); pass X\[None\]$",
        ),
        ("a.png", "a sequence of images .* got str"),
        ([], "0 images"),
        (["missing.png"] * 12, r"X\[0\], .*missing.png: No such file"),
        ([3] * 12, r"X\[0\]: an image must be a path, bytes, an array or a PIL image, got int"),
        (ARRAYS[:5], "inconsistent numbers of samples"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DenseNetClassifier(**SMALL).fit(x, CLASSES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1] * 12, "y has 1 class; a classifier needs at least 2 classes"),
        (np.linspace(0, 1, 12), "Unknown label type"),
        (np.eye(12), "should be a 1d array"),
        (np.array([1, "1"] * 6, dtype=object), "Unknown label type"),
        (None, "requires y to be passed"),
        (["ant", None] * 6, r"^y\[1\] is missing \(None\); leave images without a class out$"),
        (np.array([1.0, 2.0, np.nan] * 4), r"^y\[2\] is missing \(nan\)"),
        (np.array(["2020-01-01", "2021-01-01"] * 6, "datetime64[D]"), "of the type datetime64"),
        (np.array([1, 2] * 6, "timedelta64[s]"), "of the type timedelta64"),
        (np.array(["ant", "bee"] * 6, np.dtypes.StringDType()), "of the type StringDType"),
    ],
)
def test_classes_that_cannot_be_learnt_are_refused(y: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        DenseNetClassifier(**SMALL).fit(ARRAYS, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([9], "`validation` has the class 9, which y does not have"),
        (["3"], "`validation` has the class '3', which y does not have"),
        ([None], r"y of `validation`\[0\] is missing"),
    ],
)
def test_a_validation_of_other_classes_is_refused(y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseNetClassifier(**SMALL).fit(ARRAYS, CLASSES, validation=(ARRAYS[:1], y))


@pytest.mark.parametrize("pair", [(ARRAYS[:1],), (ARRAYS[:1], [3], [1.0]), ARRAYS[:2], "ab"])
def test_a_validation_that_is_no_pair_is_refused(pair: Any) -> None:
    with pytest.raises(InputError, match=r"`validation` must be a pair \(images, classes\)"):
        DenseNetClassifier(**SMALL).fit(ARRAYS, CLASSES, validation=pair)


@pytest.mark.parametrize("kept", [False, True])
def test_a_fit_that_a_signal_stops_says_what_is_kept(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = threading.Event()

    def interrupt_the_run() -> None:
        while not done.is_set() and not any(tmp_path.glob("*/metrics.jsonl")):
            done.wait(0.01)
        if not done.is_set():
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "run"
    given = SMALL | {"max_epoch": 500, "output_dir": str(folder) if kept else None}
    message = f"{folder} has the state" if kept else "nothing of the run is kept, which needs `out"
    thread = threading.Thread(target=interrupt_the_run)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt, match=f"^stopped by a signal; {message}"):
            DenseNetClassifier(**given).fit(ARRAYS, CLASSES)
    finally:
        done.set()
        thread.join()
    assert folder.exists() == kept


def test_a_folder_takes_one_fit(tmp_path: Path) -> None:
    (tmp_path / "0-1_2.ckpt").touch()
    with pytest.raises(UsageError, match="fit begins anew; choose another folder, or None where"):
        DenseNetClassifier(**SMALL, output_dir=str(tmp_path)).fit(ARRAYS, CLASSES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.1}, "`settings` has `lr`; pass it as the parameter `lr`"),
        ({"seed": 2}, "`settings` has `seed`, which is decided by `random_state`"),
        ({"label_column": "a"}, "`settings` has `label_column`, which is decided by y"),
        ({"image_dir": "a"}, "`settings` has `image_dir`, which is decided by X"),
        ({"learning_rate": 2}, "`settings` has `learning_rate`, which is no setting of train"),
        ("lr", "`settings` must be a dict, got 'lr'"),
        ({"warmup_epochs": 2}, "^`warmup_epochs` 2 is more than `max_epoch` 1"),
    ],
)
def test_settings_that_contradict_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DenseNetClassifier(**SMALL | {"settings": settings}).fit(ARRAYS, CLASSES)


@pytest.mark.slow
def test_validation_takes_the_best_weights_and_the_folder_is_kept(tmp_path: Path) -> None:
    classifier = DenseNetClassifier(**SMALL | {"max_epoch": 3}, output_dir=str(tmp_path / "run"))
    classifier.fit(ARRAYS, CLASSES, validation=(ARRAYS[3:9], CLASSES[3:9]))
    assert classifier.weights_ == (tmp_path / "run" / "best.safetensors").read_bytes()
    rows = [row for row in classifier.history_ if row["kind"] == "eval"]
    assert max(row["top1"] for row in rows) == classifier.score(ARRAYS[3:9], CLASSES[3:9])
    with pytest.raises(InputError, match="has the class 9, which y does not have"):
        classifier.fit(ARRAYS, CLASSES, validation=(ARRAYS[:1], [9]))


@pytest.mark.slow
def test_searches_and_cross_validation_take_paths_and_arrays(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", ["ant", "bee"], 6)
    files = [str(file) for file in sorted(root.rglob("*.png"))]
    scores = cross_val_score(DenseNetClassifier(**SMALL), files, CLASSES, cv=2)
    search = GridSearchCV(DenseNetClassifier(**SMALL), {"lr": [1e-3, 1e-2]}, cv=2)
    search.fit(ARRAYS, CLASSES)
    assert len(scores) == 2
    assert search.best_params_["lr"] in (1e-3, 1e-2)


# scikit-learn's own checks. Those for rows of numbers go through an estimator that draws each row
# as an image of one column per number, so that they test the rest of the estimator.


class OfRows(DenseNetClassifier):
    """Rows of numbers as images."""

    def fit(self, X: Any, y: Any, *, validation: Any = None) -> "OfRows":
        X, y = validate_data(self, X, y)
        super().fit(drawn(X), y)
        return self

    def predict_proba(self, X: Any) -> Any:
        # As in fitted estimators of scikit-learn, the number of columns is checked first.
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return super().predict_proba(drawn(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = False
        tags.input_tags.string = False
        tags.classifier_tags.poor_score = True  # one epoch
        return tags


def drawn(x: Any) -> Any:
    levels = np.round(255 * (np.arctan(np.asarray(x, dtype=np.float64)) / np.pi + 0.5))
    return np.repeat(levels.astype(np.uint8)[:, None, :], 4, axis=1)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
)
def test_the_checks_without_data_pass(check: Callable[[str, Any], None]) -> None:
    check("DenseNetClassifier", DenseNetClassifier(**SMALL))
    estimator_checks.check_parameters_default_constructible("DenseNetClassifier",
                                                           DenseNetClassifier())  # fmt: skip


CANNOT: dict[str, str] = {}


@pytest.mark.slow
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [OfRows(**SMALL | {"per_batch_size": 32})],
    expected_failed_checks=lambda _: CANNOT,
)
def test_the_checks_for_rows_pass_with_rows_drawn_as_images(estimator: Any, check: Any) -> None:
    check(estimator)
