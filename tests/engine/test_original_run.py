"""The original's run on ImageNet: the numbers of its log, without its images."""

from pathlib import Path

import pytest

from densenet121.cli import parse
from densenet121.datasets.sampler import steps_per_epoch
from densenet121.engine.plan import make_schedule

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "imagenet.yaml"
IMAGES = 1_281_167  # of ImageNet's training set


def test_an_epoch_has_the_steps_of_its_log() -> None:
    """`epoch[0], iter[5003]`, from 0, on eight devices."""
    _, config = parse(["train", "--config", str(RECIPE), "--data_dir", "imagenet"])
    assert steps_per_epoch(IMAGES, config.per_batch_size, 8) == 5004
    assert (config.max_epoch, config.variant, config.smooth_factor) == (120, "model_zoo", 0)


def test_the_learning_rate_is_that_of_its_formula() -> None:
    """0.1 * (1 + cos(pi * e / 120)) / 2, constant in an epoch: 1.7134e-5 in the last one."""
    _, config = parse(["train", "--config", str(RECIPE), "--data_dir", "imagenet"])
    rate = make_schedule(config, 5004)
    assert rate(0) == rate(5003) == pytest.approx(0.1)
    assert rate(60 * 5004) == pytest.approx(0.05)
    assert rate(120 * 5004 - 1) == pytest.approx(1.7134e-5, rel=1e-4)
