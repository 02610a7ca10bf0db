"""What the log says of the images of a run."""

from pathlib import Path

import numpy as np
import pytest

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.messages import images_in_both, log_data


def listed(folder: str, paths: tuple[str, ...], *, in_list: bool = True) -> ImageDataset:
    """Images of one class, of a list in this folder or of the folder itself."""
    zeros, sizes = np.zeros(len(paths), np.int64), np.ones(len(paths), np.int64)
    file = Path(folder, "list.csv") if in_list else None
    return ImageDataset(Path(folder), ("ant",), paths, zeros, sizes, listed_in=file)


def test_validation_images_that_are_training_images_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lists in one folder, or in two that name the same files."""
    train = listed("/x/train", ("a.png", "../all/b.png"))
    val = listed("/x/val", ("c.png", "../all/b.png", "../train/a.png", "b.png"))
    assert images_in_both(train, val) == ["../all/b.png", "../train/a.png"]
    log_data(train, val, batch_size=2, epoch_steps=1)
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert warning == (
        "2 of 4 validation images are training images, too, first ../all/b.png: the validation is "
        "too good; densenet121 audit names all of them, and copies"
    )
    assert not images_in_both(train, listed("/x/val", ("a.png", "b.png")))
    folders = [listed(f"/x/{side}", ("ant/a.png",), in_list=False) for side in ("train", "val")]
    assert not images_in_both(*folders)


def test_a_run_without_validation_images_says_which_weights_it_will_have(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="densenet121")
    log_data(listed("/x/train", ("a.png", "b.png")), None, batch_size=2, epoch_steps=1)
    (line,) = [one.message for one in caplog.records if "no validation images" in one.message]
    assert "last.safetensors and no best.safetensors" in line
