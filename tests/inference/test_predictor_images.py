"""Predictor takes images in the forms that notebooks have them in, each in its place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError

from helpers.images import draw
from helpers.weights import write_weights

IMAGES = [draw(label, 0) for label in (0, 1, 2)]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    file = write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")
    return Predictor(file, workers=0, amp="fp32")


class Column:
    """A column of pandas: ``[i]`` is the row with the label i, and iteration is in order."""

    ndim = 1
    iloc = None

    def __init__(self, rows: dict[int, Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, label: int) -> Any:
        return self._rows[label]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows.values())


def logits(predictor: Predictor, images: Any) -> list[list[float]]:
    return [row for _, found in predictor.batches(images) for row in found.tolist()]


def test_a_column_is_answered_in_the_order_of_its_rows(predictor: Predictor) -> None:
    expected = logits(predictor, IMAGES)
    assert expected[0] != expected[1] != expected[2]
    shuffled = Column({2: IMAGES[2], 0: IMAGES[0], 1: IMAGES[1]})
    assert logits(predictor, shuffled) == [expected[2], expected[0], expected[1]]
    assert logits(predictor, Column({7: IMAGES[1]})) == [expected[1]]


def test_a_sequence_is_read_image_by_image(predictor: Predictor) -> None:
    asked: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return len(IMAGES)

        def __getitem__(self, index: int) -> Any:
            asked.append(index)
            return IMAGES[index]

    assert logits(predictor, Lazy()) == logits(predictor, np.stack(IMAGES))
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(
    "view",
    [
        lambda pixels: pixels[..., ::-1],  # BGR as RGB
        lambda pixels: pixels[::-1, ::-1],
        lambda pixels: pixels.transpose(1, 0, 2),
        lambda pixels: pixels[::2, ::2],
    ],
)
def test_a_view_of_an_array_is_its_copy(predictor: Predictor, view: Any) -> None:
    pixels = view(IMAGES[0])
    copy = np.array(pixels, order="C")
    assert logits(predictor, [pixels]) == logits(predictor, [copy])
    assert np.array_equal(predictor.prepare(pixels), predictor.prepare(copy))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ("scan.png", "got one str; pass [image]"),
        (Path("scan.png"), "got one PosixPath; pass [image]"),
        (b"\x89PNG", "got one bytes; pass [image]"),
        (Image.new("RGB", (8, 8)), "got one Image; pass [image]"),
        (IMAGES[0], "got one array (40, 48, 3); pass [image]"),
        (iter(["scan.png"]), "got list_iterator; pass a list"),
        ({"scan.png"}, "got set; pass a list"),
        ({0: "scan.png"}, "got dict; pass a list"),
    ],
)
def test_what_is_no_sequence_is_refused(predictor: Predictor, images: Any, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        predictor.predict(images)
    assert str(caught.value) == f"`images` must be a sequence of images, {reason}"


def test_an_image_in_memory_that_cannot_be_used_is_named(predictor: Predictor) -> None:
    with pytest.raises(InputError) as caught:
        predictor.predict([IMAGES[0], IMAGES[0].astype(np.float32)])
    message = "images[1]: an array must be (H, W, 3) uint8 RGB, got (40, 48, 3) float32"
    assert str(caught.value) == message
