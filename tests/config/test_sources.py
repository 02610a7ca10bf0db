"""An error about settings names the recipe or the file that sets those which no flag gave."""

from pathlib import Path

import pytest

from densenet121.config import EvalConfig, TrainConfig
from densenet121.config.arguments import parse_settings
from densenet121.utils.errors import UsageError

_RECIPE = "--recipe scratch_small sets --warmup_epochs"


def error_of(*flags: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_settings("train", TrainConfig, ["--data_dir", "data", *flags])
    return str(caught.value)


def test_a_value_of_a_recipe_that_does_not_suit_a_flag_is_named_as_the_recipes() -> None:
    error = error_of("--recipe", "scratch_small", "--max_epoch", "1")
    assert error == f"--warmup_epochs 2 is more than --max_epoch 1; pass fewer, or 0; {_RECIPE}"
    error = error_of("--recipe", "finetune")
    assert error.endswith("; --recipe finetune sets --freeze")


def test_a_value_of_a_file_is_named_as_the_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("max_epoch: 3\nlr: 0.1\n")
    second.write_text("warmup_epochs: 4\nmax_epoch: 2\nT_max:\n")
    error = error_of("--config", str(first), "--config", str(second))
    assert error.endswith(f"; --config {second} sets --warmup_epochs and --max_epoch")
    error = error_of("--recipe", "scratch_small", "--config", str(first), "--max_epoch", "1")
    assert error.endswith(f"; {_RECIPE}")
    second.write_text("max_epoch: 1\n")
    error = error_of("--recipe", "scratch_small", "--config", str(second))
    assert error.endswith(f"; {_RECIPE}; --config {second} sets --max_epoch")
    second.write_text("amp: null\nnum_classes: 0\n")
    with pytest.raises(UsageError, match=r"; --config .*second.yaml sets --num_classes$"):
        parse_settings(
            "eval", EvalConfig, ["--config", str(second), "--data_dir", "data", "--pretrained", "w"]
        )


def test_a_value_that_a_flag_gave_is_nobody_elses(tmp_path: Path) -> None:
    flags = ["--recipe", "scratch_small", "--warmup_epochs", "5", "--max_epoch", "4"]
    assert error_of(*flags).endswith("; pass fewer, or 0")
    file = tmp_path / "lr.yaml"
    file.write_text("lr: 0.5\nlr_epochs: 5\n")
    assert "sets" not in error_of("--config", str(file), "--lr", "-1")


def test_a_recipes_values_are_named_in_python_too() -> None:
    with pytest.raises(UsageError, match=f"; {_RECIPE}$"):
        TrainConfig.from_recipe("scratch_small", data_dir="data", max_epoch=1)
    with pytest.raises(UsageError, match=r"; pass fewer, or 0$"):
        TrainConfig.from_recipe("scratch_small", data_dir="data", max_epoch=1, warmup_epochs=2)
