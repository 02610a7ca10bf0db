"""probe: scikit-learn's logits, and the accuracy that eval finds in the weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.commands.probe import ProbeResult, probe
from densenet121.config import ExportConfig, ProbeConfig
from densenet121.datasets.sources.open import open_training
from densenet121.engine.evaluate import evaluate
from densenet121.engine.features import compute_features
from densenet121.engine.heads import choose_strength, class_means, fit_logistic
from densenet121.inference.classifier import Choices, load_classifier
from densenet121.inference.predictor import Predictor
from densenet121.runtime import make_runtime

from helpers.images import write_classes
from helpers.weights import eval_config, write_weights

NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ten other classes."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return write_weights(path, class_names=tuple("0123456789"))


def config(data_dir: Path, weights: Path, **flags: Any) -> ProbeConfig:
    given: dict[str, Any] = {"per_batch_size": 7, "workers": 1, "amp": "fp32"} | flags
    return ProbeConfig(data_dir=str(data_dir), pretrained=str(weights), **given)


def features(data_dir: Path, weights: Path) -> list[tuple[Any, Any]]:
    """Features and labels of the training and the validation images."""
    classifier = load_classifier(weights, Choices())
    runtime = make_runtime("cpu", "fp32", 7, 0)
    found: list[tuple[Any, Any]] = []
    for side in open_training(data_dir):
        assert side is not None
        model: Any = classifier.model
        computed = compute_features(model, side, classifier.preprocessing, runtime)
        found.append((computed.values, side.labels))
    return found


def test_the_features_are_the_classifiers_input(image_folder: Path, weights: Path) -> None:
    classifier = load_classifier(weights, Choices())
    _, (values, _) = features(image_folder, weights)
    predictor = Predictor(weights, amp="fp32", batch_size=7, device="cpu")
    paths = [image_folder / "val" / name / f"{i:03d}.png" for name in NAMES for i in range(7)]
    expected = np.concatenate([logits for _, logits in predictor.batches(paths)])
    model: Any = classifier.model
    with torch.inference_mode():
        found = model.classifier(torch.from_numpy(values)).numpy()
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("names", [NAMES, NAMES[:2]], ids=["three classes", "two classes"])
def test_the_head_is_that_of_scikit_learn(
    names: tuple[str, ...], weights: Path, tmp_path: Path
) -> None:
    for split, count in (("train", 12), ("val", 5)):
        write_classes(tmp_path / split, list(names), count)
    result = probe(config(tmp_path, weights, C=0.1, output=str(tmp_path / "out.safetensors")))
    (x, y), (held_out, truth) = features(tmp_path, weights)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000, tol=1e-8))
    reference.fit(x.astype(np.float64), y)
    state = read_weights(tmp_path / "out.safetensors").state_dict
    with torch.inference_mode():
        logits = torch.nn.functional.linear(
            torch.from_numpy(held_out), state["classifier.weight"], state["classifier.bias"]
        )
    shares = reference.predict_proba(held_out.astype(np.float64))
    assert np.allclose(logits.softmax(dim=1).numpy(), shares, atol=1e-4)
    if len(names) > 2:  # of two classes scikit-learn has one logit
        expected = reference.decision_function(held_out.astype(np.float64))
        assert np.allclose(logits.numpy(), expected, atol=1e-3)
    assert result.metrics["top1"] == reference.score(held_out.astype(np.float64), truth)


def test_folding_the_standardisation_changes_no_logit(image_folder: Path, weights: Path) -> None:
    (x, y), (held_out, _) = features(image_folder, weights)
    head = fit_logistic(x, y, 0.1)
    scaler = StandardScaler().fit(x.astype(np.float64))
    plain = LogisticRegression(C=0.1, max_iter=2000, tol=1e-6)
    plain.fit(scaler.transform(x.astype(np.float64)), y)
    expected = plain.decision_function(scaler.transform(held_out.astype(np.float64)))
    assert np.allclose(head.logits(held_out), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("amp", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["logistic", "class_mean"])
def test_eval_finds_the_accuracy_and_the_loss_that_were_printed(
    method: str,
    amp: str,
    image_folder: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "probe.safetensors"
    result = probe(
        config(image_folder, weights, output=str(output), method=method, amp=amp, workers=0)
    )
    assert result.output == output
    settings = eval_config(image_folder, output, tmp_path / "eval", amp=amp)
    (evaluation,) = evaluate(settings).evaluations.values()
    assert evaluation is not None and evaluation.metrics == result.metrics
    correct = result.metrics["top1_correct"]
    line = f"val: top1_correct={correct}, tot=21, acc={100 * correct / 21:.2f}%"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("int8.safetensors", {"format": "native", "int8": 1, "min_agreement": 0}),
        pytest.param("p.pt2", {"format": "torch"}, marks=pytest.mark.slow),
    ],
)
def test_the_weights_are_ordinary_ones(
    name: str, flags: dict[str, Any], image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    from densenet121.commands.export import export

    output = tmp_path / "probe.safetensors"
    probe(config(image_folder, weights, output=str(output), image_size="24,16"))
    stored, before = read_weights(output), read_weights(weights)
    assert stored.info is not None and stored.info.class_names == NAMES
    assert stored.info.task == "single_label" and stored.num_classes == 3
    assert stored.info.preprocessing.image_size == (24, 16)
    for key, tensor in before.state_dict.items():
        if not key.startswith("classifier"):
            assert torch.equal(stored.state_dict[key], tensor)
    assert stored.data["train"]["pictures"] == 45 and stored.data["val"]["pictures"] == 21
    (answer,) = Predictor(output, amp="fp32")([image_folder / "val" / "bee" / "000.png"])
    assert set(answer.classes) == set(NAMES)
    report = export(
        ExportConfig(
            data_dir=str(image_folder),
            pretrained=str(output),
            output=str(tmp_path / name),
            **flags,
        )
    )
    assert report["format"] == flags["format"]


def test_the_same_call_writes_the_same_bytes(
    image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    written = []
    for workers in (0, 2):
        output = tmp_path / f"{workers}.safetensors"
        probe(config(image_folder, weights, output=str(output), workers=workers))
        written.append(output.read_bytes())
    assert written[0] == written[1]


def test_knn_is_that_of_scikit_learn_and_writes_nothing(
    image_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "w.safetensors"
    shutil.copy(weights, copy)
    result = probe(config(image_folder, copy, method="knn", neighbours=3))
    (x, y), (held_out, truth) = features(image_folder, weights)
    reference = KNeighborsClassifier(3, metric="cosine").fit(x, y)
    assert result.metrics["top1"] == reference.score(held_out, truth)
    assert result.output is None and list(tmp_path.iterdir()) == [copy]
    assert "no weights are written" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")  # some features are always 0
def test_the_nearest_class_mean_is_that_of_scikit_learn(image_folder: Path, weights: Path) -> None:
    (x, y), (held_out, _) = features(image_folder, weights)
    scaler = StandardScaler().fit(x.astype(np.float64))
    reference = NearestCentroid().fit(scaler.transform(x.astype(np.float64)), y)
    expected = reference.predict(scaler.transform(held_out.astype(np.float64)))
    assert np.array_equal(class_means(x, y).logits(held_out).argmax(axis=1), expected)


def test_the_chosen_strength_has_the_lowest_loss_in_cross_validation() -> None:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(3), 20)
    x = (rng.normal(size=(60, 12)) + 0.7 * labels[:, None]).astype(np.float32)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": [0.0001, 0.001, 0.01, 0.1, 1.0]},
        scoring="neg_log_loss",
        cv=StratifiedKFold(5, shuffle=True, random_state=7),
    )
    search.fit(x.astype(np.float64), labels)
    assert choose_strength(x, labels, 7) == (search.best_params_["logisticregression__C"], 5)


def test_that_test_images_were_measured_on_is_said(
    image_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,label,split"]
    for split, side in (("train", "train"), ("test", "val")):
        images = sorted((image_folder / side).rglob("*.png"))
        rows += [f"{path},{path.parent.name},{split}" for path in images]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    command = ["probe", "--data_dir", str(tmp_path / "list.csv"), "--pretrained", str(weights)]
    assert main([*command, "--output", str(tmp_path / "probe.safetensors"), "--amp", "fp32"]) == 0
    assert "no row is of the split val" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_left_out_and_reported(
    image_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    bad = tmp_path / "images" / "train" / "ant" / "003.png"
    bad.write_bytes(b"not an image")
    command = ["probe", "--data_dir", str(tmp_path / "images"), "--pretrained", str(weights)]
    command += ["--output", str(tmp_path / "o.safetensors"), "--C", "0.1"]
    assert main(command) == 1
    assert not (tmp_path / "o.safetensors").exists()
    assert main([*command, "--on_bad_image", "skip"]) == 1
    assert (tmp_path / "o.safetensors").exists()
    assert str(bad) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--C", "0"], 2, "--C must be from 1e-9 to 1e9, got 0"),
        (["--method", "svm"], 2, "--method must be one of logistic, class_mean, knn, got svm"),
        (["--method", "knn", "--C", "1"], 2, "--C is for --method logistic"),
        (["--neighbours", "3"], 2, "--neighbours is for --method knn"),
        (["--method", "knn", "--output", "x"], 2, "--output needs a linear layer"),
        (["--method", "knn", "--neighbours", "46"], 1, "must be at most the 45 training images"),
        (["--image_size", "3"], 2, "--image_size must be at least 16"),
        (["--output", "no/such/folder/o"], 1, "--output"),
        (["--seed", "-1"], 2, "--seed must be at least 0"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str],
    status: int,
    message: str,
    image_folder: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--data_dir", str(image_folder), "--pretrained", str(weights), *flags]
    assert main(["probe", *given]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_images_that_cannot_be_probed_are_one_line(
    image_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(data_dir: Path, *flags: str) -> str:
        given = ["--data_dir", str(data_dir), "--pretrained", str(weights), "--workers", "0"]
        assert main(["probe", *given, "--output", str(tmp_path / "o"), *flags]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "o").exists()
        return error

    assert "no validation images" in refusal(image_folder / "val")
    only = tmp_path / "only"
    write_classes(only / "train", ["ant"], 2)
    assert "only one class folder (ant)" in refusal(only)
    # A list may have a class without images, if a file names the classes.
    lists = tmp_path / "lists"
    lists.mkdir()
    for split, names in (("train", NAMES[:2]), ("val", NAMES)):
        rows = [f"{image_folder}/{split}/{name}/00{i}.png {name}" for name in names for i in (0, 1)]
        (lists / f"{split}.txt").write_text("\n".join(rows) + "\n")
    (lists / "classes.txt").write_text("\n".join(NAMES) + "\n")
    val = ["--val_dir", str(lists / "val.txt")]
    assert "no training image of class cat" in refusal(lists / "train.txt", *val)
    single = tmp_path / "single"
    write_classes(single / "train", ["ant", "bee"], 1)
    write_classes(single / "val", ["ant", "bee"], 1)
    assert "a single training image of class ant, class bee, so --C cannot" in refusal(single)
    other = tmp_path / "other"
    write_classes(other, ["ant", "dog"], 1)
    assert "unknown: dog" in refusal(image_folder, "--val_dir", str(other))


def test_weights_that_give_no_features_are_one_line(
    image_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    resnet = tmp_path / "resnet.safetensors"
    save_file({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, resnet)
    for pretrained in (resnet, tmp_path / "nothing"):
        given = ["--data_dir", str(image_folder), "--pretrained", str(pretrained)]
        assert main(["probe", *given]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(pretrained) in error
    given = ["--data_dir", str(image_folder), "--pretrained", str(weights)]
    assert main(["probe", *given, "--variant", "model_zoo"]) == 2
    assert "has weights of paper" in capsys.readouterr().err
    assert isinstance(probe(config(image_folder, weights, method="knn")), ProbeResult)


def test_the_weights_are_a_start_for_training(
    image_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from densenet121.engine.train import train

    from helpers.training import train_config

    output = tmp_path / "probe.safetensors"
    result = probe(config(image_folder, weights, output=str(output)))
    flags = {"pretrained": str(output), "lr": 0.0, "max_epoch": 1, "freeze_bn": "1", "amp": "fp32"}
    trained = train(train_config(image_folder, tmp_path / "run", image_size=None, **flags))
    assert trained.evaluation is not None
    assert trained.evaluation.metrics["top1_correct"] == result.metrics["top1_correct"]


def test_its_own_weights_are_not_written_over(
    image_folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data_dir", str(image_folder), "--pretrained", str(weights)]
    assert main(["probe", *given, "--output", str(weights)]) == 1
    assert "is an input, which would be lost" in capsys.readouterr().err
