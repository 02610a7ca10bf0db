"""What weights record of their images may lack anything."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.eval_weights import splits_of

ONE = np.zeros(1, np.int64)
IMAGES = ImageDataset(Path("images"), ("ant",), ["a.png"], ONE, ONE)


@pytest.mark.parametrize("lacks", ["pictures", "fingerprint", "folder"])
def test_a_note_that_lacks_something_is_of_other_images(lacks: str) -> None:
    note: dict[str, Any] = {"pictures": 1, "fingerprint": IMAGES.fingerprint, "folder": "x"}
    assert splits_of({"val": note}, IMAGES) == ["val"]
    del note[lacks]
    assert splits_of({"val": note}, IMAGES) == (["val"] if lacks == "folder" else [])
