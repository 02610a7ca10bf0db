"""What runs in reduced precision is told, from what ran."""

from pathlib import Path

import pytest
import torch

from densenet121.engine.train import train

from helpers.training import train_config


def lines(folder: Path) -> list[str]:
    (file,) = folder.glob("*_rank_0.log")
    return [line.split(":INFO:")[-1] for line in file.read_text().splitlines()]


def operators(found: list[str], start: str) -> set[str]:
    (line,) = [line for line in found if line.startswith(start)]
    return set(line.split(" in ")[1].removesuffix(", and").split(", "))


def test_operators_in_reduced_precision_are_listed(image_folder: Path, tmp_path: Path) -> None:
    """Products in bfloat16; the loss in float32."""
    train(train_config(image_folder, tmp_path, amp="bf16", max_epoch=1))
    found = lines(tmp_path)
    reduced = operators(found, "reduce precision: bfloat16")
    wide = operators(found, "full precision: float32")
    assert {"convolution", "convolution_backward", "addmm"} <= reduced
    assert "_log_softmax" in wide
    assert not {"convolution", "addmm"} & wide


def test_float32_reduces_nothing(image_folder: Path, tmp_path: Path) -> None:
    train(train_config(image_folder, tmp_path, amp="fp32", max_epoch=1))
    assert not [line for line in lines(tmp_path) if "reduce precision" in line]


@pytest.mark.slow
def test_the_trace_leaves_the_network_and_the_random_state_as_they_are(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits with the trace and without."""
    ends = []
    torch.manual_seed(3)
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr("densenet121.engine.train.log_precision", lambda model, plan: None)
        train(train_config(image_folder, tmp_path / name, amp="bf16", max_epoch=1))
        ends.append((tmp_path / name / "last.safetensors").read_bytes())
    assert ends[0] == ends[1]
