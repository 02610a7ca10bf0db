"""Who sees which image when: for every rank, batch size and number of images."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.datasets.sampler import (
    epoch_order,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)

COUNTS = st.integers(1, 200)
BATCHES = st.integers(1, 40)
WORLDS = st.integers(1, 9)
SEEDS = st.integers(0, 2**63 - 1)


@settings(deadline=None)
@given(count=COUNTS, seed=SEEDS, epoch=st.integers(0, 10**6))
def test_an_epoch_has_every_image_once(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))
    assert order.tolist() == epoch_order(count, seed, epoch).tolist()


def philox4x64(key: tuple[int, int], count: int) -> list[int]:
    """Philox4x64-10 (Salmon et al. 2011, figure 2), counting from 1 as numpy does."""
    mask = 2**64 - 1
    words: list[int] = []
    for counter in range(1, count // 4 + 2):
        a, b, c, d = counter, 0, 0, 0
        k0, k1 = key
        for _ in range(10):
            left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            a, b, c, d = (right >> 64) ^ b ^ k0, right & mask, (left >> 64) ^ d ^ k1, left & mask
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += [a, b, c, d]
    return words[:count]


def test_the_order_is_the_same_on_every_machine_and_version() -> None:
    for seed, epoch in ((1, 0), (1, 1), (2**63 - 1, 119)):
        words = philox4x64((seed, 2**63 + epoch), 103)
        expected = sorted(range(103), key=lambda index: words[index])
        assert epoch_order(103, seed, epoch).tolist() == expected
    assert epoch_order(8, seed=1, epoch=0).tolist() == [2, 1, 6, 7, 0, 4, 5, 3]
    assert epoch_order(8, seed=1, epoch=1).tolist() == [5, 3, 6, 1, 0, 4, 2, 7]


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    orders = {tuple(epoch_order(20, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_every_place_is_equally_likely() -> None:
    places = np.zeros((5, 5), dtype=np.int64)
    for epoch in range(2000):
        places[np.arange(5), epoch_order(5, 1, epoch)] += 1
    # 400 expected, standard deviation 18: five of them to either side.
    assert places.min() > 310
    assert places.max() < 490


def test_incomplete_batches_wait_for_another_epoch() -> None:
    assert steps_per_epoch(1_281_167, 32, 8) == 5004  # the original's ImageNet on 8 devices
    assert steps_per_epoch(10, 5) == 2
    assert steps_per_epoch(14, 5) == 2
    assert steps_per_epoch(3, 5) == 1  # the one that cannot wait


@settings(deadline=None)
@given(count=COUNTS, batch_size=BATCHES, world_size=WORLDS, seed=SEEDS)
def test_no_rank_trains_on_the_image_of_another(
    count: int, batch_size: int, world_size: int, seed: int
) -> None:
    order = epoch_order(count, seed, 0)
    steps = steps_per_epoch(count, batch_size, world_size)
    seen: list[int] = []
    for rank in range(world_size):
        batches = training_batches(order, batch_size, rank=rank, world_size=world_size)
        assert len(batches) == steps  # a rank without a step would make the others wait for ever
        assert all(len(batch) <= batch_size for batch in batches)
        seen += [int(index) for batch in batches for index in batch]
    assert len(set(seen)) == len(seen)
    # Full batches, or all there is.
    assert len(seen) == min(steps * batch_size * world_size, count)


@settings(deadline=None)
@given(count=COUNTS, batch_size=BATCHES, world_size=WORLDS)
def test_ranks_together_take_the_steps_of_one_process(
    count: int, batch_size: int, world_size: int
) -> None:
    order = epoch_order(count, 1, 0)
    alone = training_batches(order, batch_size * world_size)
    ranks = [
        training_batches(order, batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for step, batch in enumerate(alone):
        together = np.concatenate([batches[step] for batches in ranks])
        assert sorted(together.tolist()) == sorted(batch.tolist())


@settings(deadline=None)
@given(count=COUNTS, batch_size=BATCHES, world_size=WORLDS, data=st.data())
def test_a_resumed_epoch_is_the_tail_of_the_whole_one(
    count: int, batch_size: int, world_size: int, data: st.DataObject
) -> None:
    steps = steps_per_epoch(count, batch_size, world_size)
    first = data.draw(st.integers(0, steps), label="first_step")
    rank = data.draw(st.integers(0, world_size - 1), label="rank")
    order = epoch_order(count, 1, 0)
    whole = training_batches(order, batch_size, rank=rank, world_size=world_size)
    tail = training_batches(order, batch_size, rank=rank, world_size=world_size, first_step=first)
    assert [b.tolist() for b in tail] == [b.tolist() for b in whole[first:]]


@settings(deadline=None)
@given(count=st.integers(0, 200), batch_size=BATCHES, world_size=WORLDS)
def test_evaluation_takes_every_image_exactly_once(
    count: int, batch_size: int, world_size: int
) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        batches = evaluation_batches(count, batch_size, rank=rank, world_size=world_size)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        seen += [int(index) for batch in batches for index in batch]
    assert sorted(seen) == list(range(count))


def test_one_process_evaluates_in_the_order_of_the_folder() -> None:
    batches = evaluation_batches(7, 3)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [b.tolist() for b in evaluation_batches(7, 3, rank=1, world_size=2)] == [[1, 3, 5]]
