"""A network of one channel through every command: train, eval, predict, export and the others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from densenet121.bench.serve import running_server
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.cli import main
from densenet121.config import TrainConfig
from densenet121.datasets.grey import as_grey
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.utils.errors import UsageError

from helpers.commands import environment
from helpers.ranks import result
from helpers.ranks import train as train_ranks
from helpers.serving import ask
from helpers.training import train_config
from helpers.weights import eval_config, write_weights


def settings(image_folder: Path, folder: Path, **flags: Any) -> TrainConfig:
    return train_config(image_folder, folder, **({"channels": 1} | flags))


@pytest.fixture(scope="module")
def trained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grey") / "run"
    train(settings(image_folder, folder, ckpt_interval=2, keep_checkpoint_max=0))
    return folder


@pytest.fixture(scope="module")
def weights(trained: Path) -> Path:
    return trained / "last.safetensors"


@pytest.fixture(scope="module")
def grey_folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, already grey."""
    root = tmp_path_factory.mktemp("grey_images")
    for path in image_folder.rglob("*.png"):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        assert pixels is not None
        target = root / path.relative_to(image_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), as_grey(np.asarray(pixels, np.uint8))[..., 0])
    return root


def log_of(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.glob("*.log"))


def test_training_sees_the_grey_of_colours(
    image_folder: Path, grey_folder: Path, trained: Path, tmp_path: Path
) -> None:
    train(settings(grey_folder, tmp_path / "run"))
    found, expected = (read_weights(f / "last.safetensors") for f in (tmp_path / "run", trained))
    assert found.info == expected.info and found.info is not None
    assert found.channels == found.info.preprocessing.channels == 1
    assert found.state_dict["features.conv0.weight"].shape == (24, 1, 3, 3)
    for name, tensor in expected.state_dict.items():
        assert torch.equal(found.state_dict[name], tensor), name
    assert "images are read with one grey channel; colours become L" in log_of(trained)
    assert json.loads((trained / "run.json").read_text())["settings"]["channels"] == 1


def test_a_resumed_run_is_exact_and_keeps_its_channels(
    image_folder: Path, trained: Path, tmp_path: Path
) -> None:
    middle = next(trained.glob("0-1_2.ckpt"), None) or next(trained.glob("0-*_2.ckpt"))
    again = settings(image_folder, tmp_path / "again", resume=str(middle), workers=2)
    for config in (again, replace(again, channels=None, output_dir=str(tmp_path / "default"))):
        train(config)
        assert config.output_dir is not None
        for name in ("last.safetensors", "predictions.csv"):
            found = (Path(config.output_dir) / name).read_bytes()
            assert found == (trained / name).read_bytes()
    with pytest.raises(UsageError, match=r"`channels` is 3, but the run of .* has images of 1"):
        train(replace(again, channels=3, output_dir=str(tmp_path / "other")))


def test_eval_and_predict_read_colours_as_grey(
    image_folder: Path,
    grey_folder: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digests = [
        evaluate(eval_config(root, weights, tmp_path / root.name)).evaluations[weights]
        for root in (image_folder, grey_folder)
    ]
    assert digests[0] is not None and digests[1] is not None
    assert digests[0].digest == digests[1].digest
    path = next((image_folder / "val").rglob("*.png"))
    predictor = Predictor(weights)
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    given: list[Any] = [
        path,
        path.read_bytes(),
        pixels,
        grey_folder / path.relative_to(image_folder),
    ]
    # One at a time: on AVX2 the rows of the product for the classifier differ in the last bit.
    answers = [predictor.predict([one])[0] for one in given]
    assert all(answer == answers[0] for answer in answers)
    assert main(["predict", "--pretrained", str(weights), str(path)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("densenet121: images are read with one grey channel; colours become L")
    assert "mean 114.495, std 57.630; one grey channel" in inspect(weights)


@pytest.mark.parametrize(
    "command",
    [
        "predict --pretrained W --cam cams I/val/ant/000.png",
        "calibrate --pretrained W --data_dir I --output calibrated.safetensors",
        "probe --pretrained W --data_dir I --output probed.safetensors --C 0.1",
        "average W B --output mean.safetensors --data_dir I",
        "show --pretrained W --data_dir I --output page.html --mixup 0.3 --images 2 --versions 2",
        "show --channels 1 --data_dir I --output page.html --images 2 --versions 1 --image_size 16",
        "lr-find --channels 1 --net densenet40 --image_size 16 --per_batch_size 9 --data_dir I",
        "report R",
        "card R",
    ],
    ids=lambda text: str(text).split(" ")[0],
)
def test_every_command_takes_grey_weights(
    command: str,
    image_folder: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"W": trained / "last.safetensors", "I": image_folder, "R": trained}
    names["B"] = trained / "best.safetensors"
    words = [str(names.get(word, word)) for word in command.split()]
    words = [w.replace("I/val", f"{image_folder}/val") if w.startswith("I/") else w for w in words]
    assert main(words) == 0
    for file in tmp_path.glob("*.safetensors"):
        assert read_weights(file).channels == 1


@pytest.mark.parametrize(
    ("form", "uint8_input"),
    [
        ("onnx", 0),
        ("onnx", 1),
        pytest.param("torch", 0, marks=pytest.mark.slow),
        pytest.param("torch", 1, marks=pytest.mark.slow),
    ],
)
def test_an_exported_network_takes_one_channel(
    form: str, uint8_input: int, image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    output = tmp_path / ("net.onnx" if form == "onnx" else "net.pt2")
    words = ["export", "--pretrained", str(weights), "--data_dir", str(image_folder)]
    words += ["--output", str(output), "--format", form, "--uint8_input", str(uint8_input)]
    assert main(words) == 0
    if form == "torch":
        return
    import onnxruntime

    (given,) = onnxruntime.InferenceSession(output).get_inputs()
    assert given.shape[1:] == ([16, 16, 1] if uint8_input else [1, 16, 16])
    runs = [
        next(iter(evaluate(config).evaluations.values()))
        for config in (
            eval_config(image_folder, output, tmp_path / "a"),
            eval_config(image_folder, weights, tmp_path / "b"),
        )
    ]
    assert runs[0] is not None and runs[1] is not None
    assert runs[0].digest == runs[1].digest


def test_a_hugging_face_folder_has_three_channels_and_the_same_function(
    grey_folder: Path, tmp_path: Path
) -> None:
    model = build("densenet121", num_classes=3, in_channels=1)
    info = ModelInfo(
        "densenet121",
        "paper",
        ("ant", "bee", "cat"),
        Preprocessing((32, 32), "36,36", (110.0,), (50.0,)),
    )
    save_weights(tmp_path / "grey.safetensors", model.state_dict(), info, {})
    words = ["convert", str(tmp_path / "grey.safetensors"), str(tmp_path / "hub")]
    assert main([*words, "--to", "huggingface"]) == 0
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["pretrained_cfg"][
        "input_size"
    ] == [3, 32, 32]
    paths = sorted((grey_folder / "val").rglob("*.png"))[:5]
    logits = [
        np.concatenate([found for _, found in Predictor(file, amp="fp32").batches(paths)])
        for file in (tmp_path / "grey.safetensors", tmp_path / "hub")
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-5 * np.abs(logits[0]).max())


def test_weights_of_the_other_number_of_channels_are_converted_and_said_so(
    image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    rgb = write_weights(tmp_path / "rgb.safetensors")
    train(settings(image_folder, tmp_path / "grey", pretrained=str(rgb), max_epoch=1))
    said = log_of(tmp_path / "grey")
    assert "the first convolution is summed over them, the same function for grey images" in said
    assert read_weights(tmp_path / "grey" / "last.safetensors").channels == 1
    train(
        settings(image_folder, tmp_path / "rgb", pretrained=str(weights), channels=3, max_epoch=1)
    )
    assert "each of the three channels has a third of the first conv" in log_of(tmp_path / "rgb")
    found = read_weights(tmp_path / "rgb" / "last.safetensors")
    assert found.channels == 3 and found.info is not None
    assert found.info.preprocessing.mean == pytest.approx((114.495,) * 3)
    train(
        settings(
            image_folder, tmp_path / "own", pretrained=str(weights), channels=None, max_epoch=1
        )
    )
    assert read_weights(tmp_path / "own" / "last.safetensors").channels == 1


def test_weights_that_are_converted_and_frozen_give_the_answers_of_before(
    grey_folder: Path, tmp_path: Path
) -> None:
    """With one mean for R, G and B, nothing is lost, not even at the border."""
    torch.manual_seed(3)
    model = build("densenet40", num_classes=3)
    p = Preprocessing((16, 16), "20,20", (110.0,) * 3, (50.0, 55.0, 60.0))
    info = ModelInfo("densenet40", "paper", ("ant", "bee", "cat"), p)
    save_weights(tmp_path / "rgb.safetensors", model.state_dict(), info, {})
    words = ["convert", str(tmp_path / "rgb.safetensors"), str(tmp_path / "grey.safetensors")]
    assert main([*words, "--to", "native", "--channels", "1"]) == 0
    paths = sorted((grey_folder / "val").rglob("*.png"))
    logits = [
        np.concatenate([found for _, found in Predictor(file, amp="fp32").batches(paths)])
        for file in (tmp_path / "rgb.safetensors", tmp_path / "grey.safetensors")
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-5 * np.abs(logits[0]).max())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_teacher_may_have_the_other_number_of_channels(
    channels: int, image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    teacher = weights if channels == 3 else write_weights(tmp_path / "rgb.safetensors")
    config = settings(
        image_folder, tmp_path / "run", teacher=str(teacher), channels=channels, max_epoch=1
    )
    train(config)
    assert read_weights(tmp_path / "run" / "last.safetensors").channels == channels


@pytest.mark.parametrize(
    ("normalisation", "mean"), [("data", None), ("120,50", 120.0), ("original", 114.495)]
)
def test_normalisation_is_that_of_one_channel(
    normalisation: str, mean: float | None, image_folder: Path, grey_folder: Path, tmp_path: Path
) -> None:
    found = []
    for root in (image_folder, grey_folder):
        folder = tmp_path / root.name
        train(settings(root, folder, normalisation=normalisation, max_epoch=1))
        info = read_weights(folder / "last.safetensors").info
        assert info is not None
        found.append((info.preprocessing.mean, info.preprocessing.std))
    assert found[0] == found[1] and len(found[0][0]) == 1
    assert mean is None or found[0][0][0] == pytest.approx(mean)


def test_what_contradicts_one_channel_is_one_line(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    words += ["--net", "densenet40", "--image_size", "16"]
    assert main([*words, "--channels", "1", "--normalisation", "1,2,3,50,50,50"]) == 2
    error = capsys.readouterr().err
    assert "is for R, G and B, but the network has one channel" in error
    assert error.count("\n") == 1
    assert main([*words, "--channels", "2"]) == 2
    assert "--channels must be one of 1, 3, got 2" in capsys.readouterr().err


def test_members_of_an_average_with_other_channels_are_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgb = write_weights(tmp_path / "rgb.safetensors")
    words = ["average", str(weights), str(rgb), "--output", str(tmp_path / "mean.safetensors")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "only weights of one kind can be averaged" in error and error.count("\n") == 1


def test_the_server_answers_as_predict_with_maps(image_folder: Path, weights: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    path = next((image_folder / "val").rglob("*.png"))
    (expected,) = Predictor(weights, amp="fp32").predict([path], top_k=3)
    flags = ["--amp", "fp32", "--top_k", 3, "--workers", 1]
    with running_server(weights, *flags, environment=environment()) as (port, _):
        status, answer, _ = ask(port, path.read_bytes(), "/predict?cam=1")
        (_, pixels) = ask(port, None, "/v2/models/densenet40", "GET")[1]["inputs"]
    assert pixels["shape"] == [-1, 1, 16, 16]
    assert status == 200
    (shown,) = answer["predictions"]
    assert shown["cam"].startswith("data:image/png")
    assert [row["class"] for row in shown["top"]] == list(expected.classes)
    assert [row["probability"] for row in shown["top"]] == pytest.approx(expected.probabilities)


@pytest.mark.slow
def test_two_ranks_train_a_grey_network_and_resume_exactly(
    image_folder: Path, tmp_path: Path
) -> None:
    train_ranks(2, image_folder, tmp_path / "whole", "--channels", 1)
    middle = tmp_path / "whole" / "0-2_2.ckpt"
    train_ranks(2, image_folder, tmp_path / "again", "--channels", 1, "--resume", middle)
    assert result(tmp_path / "again")[0] == result(tmp_path / "whole")[0]
    assert read_weights(tmp_path / "again" / "last.safetensors").channels == 1
