"""A run of MindSpore goes on here: weights, running statistics, momentum, step."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densenet121.checkpoint.foreign import mindspore
from densenet121.checkpoint.foreign.names import to_mindspore
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import read, save_weights
from densenet121.network import Variant

from helpers.commands import run_command

FLAGS = ("--image_size", 32, "--per_batch_size", 15, "--amp", "fp32", "--lr", 0.01)


def as_mindspore(checkpoint: Path, variant: Variant) -> dict[str, Tensor]:
    """The content of one of our checkpoints, as MindSpore's ModelCheckpoint would hold it."""
    _, tensors, content = read(checkpoint, "checkpoint")
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        kind, _, own = name.partition(".")
        if kind not in ("model", "optimizer") or own.endswith("num_batches_tracked"):
            continue
        prefix = "moments." if kind == "optimizer" else ""
        own = own.removesuffix(".momentum_buffer")
        named[prefix + to_mindspore(own, model_zoo=variant == "model_zoo")] = tensor
    step = torch.tensor([content["state"]["step"]], dtype=torch.int32)
    return named | {"global_step": step, "learning_rate": torch.tensor(0.01)}


@pytest.fixture(scope="module", params=["model_zoo", pytest.param("paper", marks=pytest.mark.slow)])
def runs(
    request: pytest.FixtureRequest, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Variant]:
    """A run of two epochs, and what MindSpore would have saved after its fourth step of six."""
    folder = tmp_path_factory.mktemp("run")
    data = ("--data_dir", image_folder, "--variant", request.param)
    intervals = ("--max_epoch", 2, "--ckpt_interval", 1)
    result = run_command("train", *data, *FLAGS, *intervals, "--output_dir", folder / "whole")
    assert result.returncode == 0, result.stderr
    file = folder / "0-2_4.ckpt"
    found = sorted((folder / "whole").glob("0-2_1.ckpt"))
    assert found, sorted(path.name for path in (folder / "whole").iterdir())
    file.write_bytes(mindspore.encode(as_mindspore(found[0], request.param), crc=True))
    return folder / "whole", file, request.param


def go_on(file: Path, image_folder: Path, output: Path, *more: object) -> "tuple[int, str, str]":
    flags = ("--data_dir", image_folder, "--max_epoch", 2, "--resume", file, "--output_dir", output)
    result = run_command("train", *flags, *FLAGS, *more)
    return result.returncode, result.stdout, result.stderr


def test_a_continued_run_ends_with_the_weights_of_the_uninterrupted_one(
    runs: tuple[Path, Path, Variant], image_folder: Path, tmp_path: Path
) -> None:
    whole, file, variant = runs
    # mindcv's names are those of both variants
    more = () if variant == "model_zoo" else ("--variant", "paper")
    status, said, errors = go_on(file, image_folder, tmp_path / "run", *more)
    assert status == 0, errors
    (line,) = [line for line in said.splitlines() if "resumed a MindSpore run" in line]
    assert "momentum of 364 parameters, 4 steps done; continuing at epoch 1, step 1 of it" in line
    ours, theirs = (read_weights(f / "last.safetensors") for f in (tmp_path / "run", whole))
    assert ours.state_dict.keys() == theirs.state_dict.keys()
    for name, tensor in ours.state_dict.items():
        if not name.endswith("num_batches_tracked"):  # MindSpore does not count them
            assert torch.equal(tensor, theirs.state_dict[name]), name
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["epoch"], row["step"]) for row in rows] == [
        ("train", 1, 5),
        ("eval", 1, 5),
    ]


def test_what_cannot_go_on_is_refused_in_one_line(
    runs: tuple[Path, Path, Variant], image_folder: Path, tmp_path: Path
) -> None:
    _, file, _ = runs
    content = mindspore.decode(file.read_bytes(), file)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({n: t for n, t in tensors.items() if not n.startswith("moments.")}, "no momentum of"),
        ({n: t for n, t in tensors.items() if n != "global_step"}, "none of global_step, step_num"),
    ]
    for number, (given, message) in enumerate(cases):
        bad = tmp_path / f"{number}.ckpt"
        bad.write_bytes(mindspore.encode(given))
        status, _, errors = go_on(bad, image_folder, tmp_path / "run")
        assert status == 1 and errors.count("\n") == 1
        assert message in errors and "pass it as --pretrained to use its weights" in errors
    status, _, errors = go_on(file, image_folder / "train/ant", tmp_path / "run")
    assert status == 1 and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_inspect_tells_the_step(runs: tuple[Path, Path, Variant]) -> None:
    result = run_command("inspect", runs[1])
    assert result.returncode == 0, result.stderr
    assert "momentum of 364 parameters at step 4" in result.stdout


def test_a_calibration_stays_with_converted_weights_or_is_said_to_stay_behind(
    runs: tuple[Path, Path, Variant], tmp_path: Path
) -> None:
    weights = read_weights(runs[0] / "last.safetensors")
    calibration = {"temperature": 1.5, "thresholds": {}, "abstain_below": None}
    source = tmp_path / "calibrated.safetensors"
    assert weights.info is not None
    save_weights(source, weights.state_dict, weights.info, weights.origin, calibration)
    result = run_command("convert", source, tmp_path / "again.safetensors", "--to", "native")
    assert result.returncode == 0, result.stderr
    assert read_weights(tmp_path / "again.safetensors").calibration == calibration
    other = "mindspore" if weights.info.variant == "model_zoo" else "mindcv"
    result = run_command("convert", source, tmp_path / "x.ckpt", "--to", other)
    assert result.returncode == 0, result.stderr
    assert "the calibration was dropped" in result.stdout
