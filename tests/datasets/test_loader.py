"""Batches: the same bytes in the same order from any number of threads, which all end."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densenet121.datasets.loader import Batch, load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import epoch_order, evaluation_batches, training_batches
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.transforms import TrainTransform
from densenet121.utils.errors import InputError

from helpers.loading import decoding_threads

WORKERS = [0, 1, 2, 5]
SIZE = (3, 4)


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    yield
    assert decoding_threads() == []


def image(index: int, out: NDArray[np.uint8]) -> None:
    out[...] = index


def late(index: int, out: NDArray[np.uint8]) -> None:
    """The earlier asked for, the later done."""
    time.sleep(0.003 if index % 10 == 0 else 0)
    image(index, out)


def broken(index: int, out: NDArray[np.uint8]) -> None:
    if index in (2, 5, 6):
        raise InputError(f"{index}.jpg: not a readable image")
    image(index, out)


def content(batch: Batch) -> tuple[list[int], list[int]]:
    """Which images a batch says it has, and which it has."""
    return batch.indices.tolist(), batch.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_and_images_come_in_the_order_asked_for(workers: int) -> None:
    order = np.random.default_rng(1).permutation(100)
    batches = [order[:17], order[17:18], order[18:60], order[60:]]
    loaded = list(load_batches(late, batches, SIZE, workers=workers))
    assert [content(batch) for batch in loaded] == [(b.tolist(), b.tolist()) for b in batches]
    assert [batch.bad for batch in loaded] == [()] * 4
    for batch in loaded:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.indices), *SIZE, 3)
        assert torch.equal(batch.images, batch.images[:, :1, :1, :1].expand_as(batch.images))


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_an_epoch_has_the_same_bytes_from_any_number_of_threads(
    workers: int, image_folder: Path
) -> None:
    folder = scan(image_folder / "train")
    augment = TrainTransform(
        height=16,
        width=16,
        crop_scale=(0.08, 1.0),
        crop_ratio=(0.75, 1.333),
        flip_prob=0.5,
        color_jitter=(0.4, 0.4, 0.4),
    )

    prepare = training_images(folder, augment, seed=1, epoch=0)
    batches = training_batches(epoch_order(len(folder), 1, 0), 11)
    expected = list(load_batches(prepare, batches, (16, 16), workers=0))
    loaded = list(load_batches(prepare, batches, (16, 16), workers=workers))
    assert len(loaded) == len(expected) == 4
    for one, other in zip(loaded, expected, strict=True):
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_batch_that_was_handed_over_is_never_written_again(workers: int) -> None:
    loaded = []
    for batch in load_batches(image, evaluation_batches(60, 10), SIZE, workers=workers):
        batch.images.add_(100)
        loaded.append(batch)
    values = [value for batch in loaded for value in batch.images[:, 0, 0, 0].tolist()]
    assert values == list(range(100, 160))


@pytest.mark.parametrize("workers", WORKERS)
def test_no_batches_are_no_error(workers: int) -> None:
    assert list(load_batches(image, [], SIZE, workers=workers)) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_a_bad_image_is_an_error_that_names_it(workers: int) -> None:
    loaded = load_batches(broken, evaluation_batches(40, 4), SIZE, workers=workers)
    with pytest.raises(InputError, match=r"^2\.jpg: not a readable image"):
        next(loaded)
    assert decoding_threads() == []
    assert list(loaded) == []  # it is at its end, and does not go on behind the bad image


@pytest.mark.parametrize("workers", WORKERS)
def test_bad_images_are_left_out_and_named_if_asked(workers: int) -> None:
    batches = evaluation_batches(9, 5)
    loaded = list(load_batches(broken, batches, SIZE, workers=workers, skip_bad=True))
    assert [content(b) for b in loaded] == [([0, 1, 3, 4],) * 2, ([7, 8],) * 2]
    assert [batch.bad for batch in loaded] == [
        ((2, "2.jpg: not a readable image"),),
        ((5, "5.jpg: not a readable image"), (6, "6.jpg: not a readable image")),
    ]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_batch_of_bad_images_alone_is_empty(workers: int) -> None:
    (batch,) = load_batches(broken, [np.array([5, 6])], SIZE, workers=workers, skip_bad=True)
    assert content(batch) == ([], [])
    assert batch.images.shape == (0, *SIZE, 3)
    assert len(batch.bad) == 2


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_any_other_exception_is_passed_on(workers: int, skip_bad: bool) -> None:
    def fail(index: int, out: NDArray[np.uint8]) -> None:
        raise ZeroDivisionError(index)

    batches = evaluation_batches(40, 4)
    with pytest.raises(ZeroDivisionError):
        list(load_batches(fail, batches, SIZE, workers=workers, skip_bad=skip_bad))
    assert decoding_threads() == []


@pytest.mark.parametrize("workers", WORKERS)
def test_a_loader_that_is_left_early_leaves_no_thread_and_no_work(workers: int) -> None:
    done: list[int] = []

    def count(index: int, out: NDArray[np.uint8]) -> None:
        done.append(index)
        image(index, out)

    loaded = load_batches(count, evaluation_batches(1000, 10), SIZE, workers=workers)
    next(loaded)
    loaded.close()
    assert decoding_threads() == []
    before = len(done)
    assert before <= 30  # the batch asked for, and two ahead
    time.sleep(0.02)
    assert len(done) == before


@pytest.mark.parametrize("workers", WORKERS)
def test_an_exception_of_the_user_leaves_no_thread(workers: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        leave_at_the_first_batch(workers)
    assert decoding_threads() == []


def leave_at_the_first_batch(workers: int) -> None:
    for _ in load_batches(image, evaluation_batches(1000, 10), SIZE, workers=workers):
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_images_are_prepared_ahead_but_not_without_end(workers: int) -> None:
    done: list[int] = []

    def count(index: int, out: NDArray[np.uint8]) -> None:
        done.append(index)
        image(index, out)

    loaded = load_batches(count, evaluation_batches(1000, 10), SIZE, workers=workers)
    assert done == []  # nothing before it is asked for
    next(loaded)
    deadline = time.monotonic() + 10
    while len(done) < 30 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert sorted(done) == list(range(30))
    loaded.close()
