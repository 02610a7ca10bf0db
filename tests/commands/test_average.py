"""average: means in float64, statistics as torch re-estimates them, a soup chosen by hand."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import update_bn

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.pretrained import load_model
from densenet121.cli import main
from densenet121.commands.average import average
from densenet121.config import AverageConfig
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import epoch_order
from densenet121.datasets.sources.open import open_training
from densenet121.engine.averaging import estimate_statistics, mean_of
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.network.fused import plain_network
from densenet121.runtime import make_runtime

from helpers.images import write_classes
from helpers.training import train_config
from helpers.weights import eval_config, write_weights


def config(files: list[Path], output: Path, **flags: Any) -> AverageConfig:
    given: dict[str, Any] = {"per_batch_size": 7, "workers": 1, "amp": "fp32"}
    return AverageConfig(inputs=[str(f) for f in files], output=str(output), **(given | flags))


@pytest.fixture(scope="module")
def members(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Weights after one, two and three epochs of a run, and of an untrained network."""
    folder = tmp_path_factory.mktemp("members")
    settings = {"amp": "fp32", "color_jitter": "0,0,0", "crop_scale": "0.8,1"}
    run = train(train_config(image_folder, folder / "run", max_epoch=3, **settings)).folder
    found = []
    for epoch in (1, 2, 3):
        checkpoint = read_weights(run / f"0-{epoch}_3.ckpt")
        assert checkpoint.info is not None
        path = folder / f"{epoch}.safetensors"
        save_weights(path, checkpoint.state_dict, checkpoint.info, {})
        found.append(path)
    last = read_weights(found[-1])
    assert last.info is not None
    other = {name: tensor.clone() for name, tensor in last.state_dict.items()}
    other["classifier.weight"] = -9 * other["classifier.weight"]
    save_weights(folder / "bad.safetensors", other, last.info, {})
    return [*found, folder / "bad.safetensors"]


def accuracy(data_dir: Path, weights: Path, folder: Path) -> dict[str, Any]:
    (found,) = evaluate(eval_config(data_dir, weights, folder)).evaluations.values()
    assert found is not None
    return found.metrics


def test_the_average_is_the_mean_in_float64(
    members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    average(config(members[:3], tmp_path / "soup.safetensors"))
    states = [read_weights(file).state_dict for file in members[:3]]
    soup = read_weights(tmp_path / "soup.safetensors")
    for name, tensor in soup.state_dict.items():
        parts = [state[name].numpy() for state in states]
        if tensor.is_floating_point():
            mean = np.mean([part.astype(np.float64) for part in parts], axis=0)
            assert np.array_equal(tensor.numpy(), mean.astype(np.float32)), name
        else:
            assert np.array_equal(tensor.numpy(), parts[0])
    assert "batch norm: the members' statistics, averaged" in capsys.readouterr().out
    assert soup.origin["average"] == "uniform, 3 of 3 files"
    assert [line.split()[0] for line in soup.origin["members"]] == [f.name for f in members[:3]]
    assert soup.info == read_weights(members[0]).info


def test_a_float32_sum_would_be_another_number() -> None:
    values = [1.0, 1e-8, -1.0]
    found = mean_of([{"x": torch.tensor([value])} for value in values])["x"]
    assert abs(float(found) / (1e-8 / 3) - 1) < 1e-6


@pytest.mark.parametrize("kinds", [("half", "half"), ("half", "float"), ("bfloat16", "float")])
def test_the_mean_of_weights_in_16_bits_is_not_rounded_to_16_bits(
    kinds: tuple[str, str], members: list[Path], tmp_path: Path
) -> None:
    files: list[Path] = []
    for file, kind in zip(members, kinds, strict=False):
        stored = read_weights(file)
        assert stored.info is not None
        state = {
            name: tensor.to(getattr(torch, kind)) if tensor.is_floating_point() else tensor
            for name, tensor in stored.state_dict.items()
        }
        files.append(tmp_path / f"{len(files)}.safetensors")
        save_weights(files[-1], state, stored.info, {})
    states = [read_weights(file).state_dict for file in files]
    for order in (files, files[::-1]):
        output = tmp_path / f"soup_{order[0].stem}.safetensors"
        average(config(order, output))
        for name, tensor in read_weights(output).state_dict.items():
            if tensor.is_floating_point():
                mean = sum(state[name].double() for state in states) / 2
                assert torch.equal(tensor, torch.as_tensor(mean).float()), name


def test_the_statistics_are_those_of_torchs_own_function(
    image_folder: Path, members: list[Path]
) -> None:
    dataset, _ = open_training(image_folder)
    preprocessing = Preprocessing((16, 16), "20,20")
    runtime = make_runtime("cpu", "fp32", 8, 0)
    found, expected = load_model(members[0]), load_model(members[0])
    count = estimate_statistics(found, dataset, preprocessing, runtime, most=30, seed=4)
    assert count == 24 and not found.training
    assert all(n.momentum == 0.1 for n in found.modules() if isinstance(n, torch.nn.BatchNorm2d))
    read, batches = preprocessing.reader(dataset), []
    order = epoch_order(len(dataset), 4, 0)[:24]
    for indices in order.reshape(3, 8):
        images = np.empty((8, 16, 16, 3), np.uint8)
        for index, out in zip(indices, images, strict=True):
            read(int(index), out)
        batches.append(preprocessing.normalise(torch.from_numpy(images)))
    with plain_network():
        update_bn(batches, expected)
    for (name, a), b in zip(
        found.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name
    assert int(found.state_dict()["features.norm5.num_batches_tracked"]) == 3


def test_eval_finds_the_metrics_of_the_soup(
    image_folder: Path, members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "soup.safetensors"
    result = average(config(members[:3], output, data_dir=str(image_folder)))
    assert result.metrics == accuracy(image_folder, output, tmp_path / "eval")
    printed = capsys.readouterr().out
    assert "batch norm: estimated on 42 training images" in printed
    assert f"val: top1_correct={result.metrics['top1_correct']}, tot=21" in printed
    assert read_weights(output).data["train"]["pictures"] == 45
    again = tmp_path / "again.safetensors"
    average(config(members[:3], again, data_dir=str(image_folder), workers=0))
    assert again.read_bytes() == output.read_bytes()


def test_the_greedy_soup_is_never_worse_than_its_best_member(
    image_folder: Path, members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "soup.safetensors"
    given = [members[3], *members[:3]]
    result = average(config(given, output, data_dir=str(image_folder), method="greedy"))
    alone = [accuracy(image_folder, f, tmp_path / f.stem)["top1_correct"] for f in given]
    assert result.metrics is not None
    assert result.metrics["top1_correct"] >= max(alone)
    assert result.members[0] == given[int(np.argmax(alone))]
    assert members[3] not in result.members
    assert result.metrics == accuracy(image_folder, output, tmp_path / "soup")
    printed = capsys.readouterr().out
    assert printed.count("alone: ") == 4 and f"left out: {members[3]}" in printed
    assert "chosen on these validation images" in printed


def test_a_greedy_soup_of_one_is_that_member(
    image_folder: Path, members: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "soup.safetensors"
    given = [members[3], members[2]]
    result = average(config(given, output, data_dir=str(image_folder), method="greedy"))
    assert result.members == (members[2],)
    expected = read_weights(members[2]).state_dict
    found = read_weights(output).state_dict
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def changed(path: Path, **changes: Any) -> Path:
    """Random weights of densenet40 with another description."""
    write_weights(path)
    weights = read_weights(path)
    assert weights.info is not None
    content = weights.info.to_json() | {"task": "single_label"}
    content["preprocessing"] = content["preprocessing"] | changes.pop("preprocessing", {})
    save_weights(path, weights.state_dict, ModelInfo.from_json(content | changes), {})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net": "densenet121"}, "its net is densenet121, but that of"),
        ({"variant": "model_zoo"}, "its variant is model_zoo, but that of"),
        ({"class_names": ("ant", "bee", "dog")}, "its class_names is ant, bee, dog, but that of"),
        ({"class_names": ()}, "its class_names is not recorded, but that of"),
        ({"task": "ordinal"}, "its task is ordinal, but that of"),
        ({"preprocessing": {"image_size": [32, 32]}}, "its image_size is 32, 32, but that of"),
        ({"preprocessing": {"mean": [0, 0, 0]}}, "its mean is 0, 0, 0, but that of"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_weights_of_another_kind_are_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_weights(tmp_path / "a.safetensors")
    b = changed(tmp_path / "b.safetensors", **changes)
    assert main(["average", str(a), str(b), "--output", str(tmp_path / "o")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and str(b) in error
    assert not (tmp_path / "o").exists()


def test_what_only_holds_for_a_member_is_dropped_and_said_by_its_name(
    members: list[Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated = tmp_path / "calibrated.safetensors"
    flags = ["--data_dir", str(image_folder), "--tta", "flip", "--output", str(calibrated)]
    assert main(["calibrate", "--pretrained", str(members[1]), *flags, "--amp", "fp32"]) == 0
    before = read_weights(calibrated)
    assert before.info is not None and before.info.preprocessing.tta == "flip"
    capsys.readouterr()
    # Views are no difference of kind: they end with the calibration that they belong to.
    average(config([members[0], calibrated], tmp_path / "soup.safetensors"))
    shown = capsys.readouterr().out
    assert f"the calibration of {calibrated} was dropped, because" in shown
    assert "run densenet121 calibrate on the new weights; " in shown and "of tta flip" in shown
    assert f"calibration of {members[0]}" not in shown
    soup = read_weights(tmp_path / "soup.safetensors")
    assert soup.calibration is None
    assert soup.info == read_weights(members[0]).info
    average(config(members[:2], tmp_path / "plain.safetensors"))
    assert "calibration" not in capsys.readouterr().out


def test_offsets_that_stay_in_the_average_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_weights(tmp_path / "plain.safetensors")
    weights, biased = read_weights(plain), tmp_path / "biased.safetensors"
    assert weights.info is not None
    calibration = {"temperature": 2.0, "note": {"offsets": [2.0, -1.0, -1.0]}}
    save_weights(biased, weights.state_dict, weights.info, {}, calibration)
    average(config([plain, biased], tmp_path / "soup.safetensors"))
    shown = capsys.readouterr().out
    assert f"the offsets in the bias of {biased} (calibrate --fit_bias) are averaged" in shown
    assert "calibrate the new weights with --fit_bias, too" in shown


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["a"], 2, "name two or more weights files"),
        (["a", "a"], 2, "a is named twice"),
        (["a", "b", "--method", "greedy"], 2, "--method greedy needs --data_dir"),
        (["a", "b", "--val_dir", "v"], 2, "--val_dir needs --data_dir"),
        (["a", "b", "--statistics_images", "1"], 2, "--statistics_images must be at least 2"),
        (["a", "b", "--method", "best"], 2, "--method must be one of uniform, greedy, got best"),
        (["a", "b"], 1, "there is no such weights file"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["average", *flags, "--output", str(tmp_path / "o")]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_images_that_do_not_fit_are_one_line(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write_weights(tmp_path / f"{seed}.safetensors", seed)) for seed in (1, 2)]

    def refusal(data_dir: Path, *flags: str) -> str:
        output = ["--output", str(tmp_path / "o"), "--data_dir", str(data_dir)]
        assert main(["average", *files, *output, *flags]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "unknown: dog" in refusal(write_classes(tmp_path / "x", ["ant", "bee", "dog"], 1))
    greedy = ["--method", "greedy"]
    assert "no validation images to choose by" in refusal(image_folder / "val", *greedy)
    shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "images" / "train" / "ant" / "003.png").write_bytes(b"")
    assert "003.png" in refusal(tmp_path / "images", "--per_batch_size", "45")


@pytest.mark.parametrize("method", ["uniform", "greedy"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_member_whose_training_diverged_is_named(
    value: float,
    method: str,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, bad = (write_weights(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    state = read_weights(bad).state_dict
    state["features.norm5.running_var"][3] = value
    write_weights(bad, state=state)
    output = tmp_path / "soup.safetensors"
    given = ["--output", str(output), "--data_dir", str(image_folder), "--method", method]
    assert main(["average", str(good), str(bad), *given]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not output.exists()
    assert f"{bad}: features.norm5.running_var has nan or infinite numbers" in error


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_weights(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    before = [file.read_bytes() for file in files]
    for output, message in (
        (tmp_path / "no" / "o", "there is no folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "." / "2.safetensors", "is an input, which would be lost"),
    ):
        assert main(["average", *map(str, files), "--output", str(output)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--output" in error and message in error
    assert [file.read_bytes() for file in files] == before


def test_a_checkpoint_is_a_member_too(
    image_folder: Path, members: list[Path], tmp_path: Path
) -> None:
    run = members[0].parent / "run"
    output = tmp_path / "soup.safetensors"
    average(config([run / "0-1_3.ckpt", run / "best.safetensors"], output))
    assert len(read_weights(output).origin["members"]) == 2
