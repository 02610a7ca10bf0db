import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.tasks import SingleLabel
from densenet121.tasks.single_label.metrics import Counts, label_ranks, topk_correct
from densenet121.utils.errors import InputError


def test_ranks_by_hand() -> None:
    logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    labels = torch.tensor([1, 2, 1])
    assert label_ranks(logits, labels).tolist() == [1, 3, 2]


def test_of_equal_logits_the_lower_class_comes_first() -> None:
    logits = torch.tensor([[2.0, 5.0, 5.0, 5.0, 1.0]]).repeat(5, 1)
    assert label_ranks(logits, torch.arange(5)).tolist() == [4, 1, 2, 3, 5]


@settings(deadline=None)  # a busy machine is not a failure
@given(
    num_classes=st.integers(1, 12),
    num_values=st.integers(1, 12),
    n=st.integers(1, 20),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 2**32),
)
def test_ranks_agree_with_a_stable_sort_and_with_argmax(
    num_classes: int, num_values: int, n: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # few distinct values: many ties
    logits = torch.randint(num_values, (n, num_classes), generator=generator).to(dtype)
    labels = torch.randint(num_classes, (n,), generator=generator)
    ranks = label_ranks(logits, labels)
    for row, label, rank in zip(logits.tolist(), labels.tolist(), ranks.tolist(), strict=True):
        in_order = sorted(range(num_classes), key=lambda c: (-row[c], c))
        assert rank == 1 + in_order.index(label)
    assert torch.equal(ranks == 1, logits.argmax(1) == labels)
    assert topk_correct(ranks, num_classes) == n


def test_topk_correct_counts_ranks_up_to_k() -> None:
    ranks = torch.tensor([1, 1, 2, 5, 6, 1000])
    assert [topk_correct(ranks, k) for k in (1, 2, 5, 1000)] == [2, 3, 4, 6]


def test_with_fewer_than_five_classes_top5_is_always_right() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    ranks = label_ranks(logits, torch.tensor([2, 1]))
    assert (topk_correct(ranks, 1), topk_correct(ranks, 5)) == (0, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_or_infinite_logits_are_an_error_not_a_hit(bad: float) -> None:
    logits = torch.zeros(3, 4)
    logits[1, 2] = bad
    logits[2] = bad
    with pytest.raises(InputError, match="the weights give nan or infinite logits for 2 of 3"):
        label_ranks(logits, torch.tensor([0, 0, 0]))


def test_counts_add_up_to_the_whole() -> None:
    first = Counts(top1_correct=3, top5_correct=5, total=6, loss_sum=9.0)
    last = Counts(top1_correct=1, top5_correct=1, total=1, loss_sum=0.5)
    both = sum([first, last], Counts())
    assert both == Counts(4, 6, 7, 9.5)
    assert (both.top1, both.top5, both.loss) == (4 / 7, 6 / 7, 9.5 / 7)


def test_no_images_have_no_accuracy() -> None:
    with pytest.raises(InputError, match="no image was evaluated"):
        _ = Counts().top1


def test_sure_answers_have_the_probabilities_of_an_evaluation_and_are_told_apart() -> None:
    """In float32 both probabilities were 1."""
    logits = torch.tensor([[18.0, 0.0], [24.0, 0.0]])
    found = [one.probabilities[0] for one in SingleLabel().answers(logits.numpy(), ["a", "b"])]
    columns = SingleLabel().score(logits, torch.tensor([0, 0])).columns
    assert found == columns["probability"].tolist()
    assert found[0] < found[1] < 1


def test_the_answer_is_the_class_of_rank_1_where_rounding_makes_probabilities_equal() -> None:
    """Both probabilities are 0.4878, and the first class was the answer."""
    logits = torch.tensor([[1e-20, 2e-20, -3.0]])
    assert logits[0, 1] > logits[0, 0]
    columns = SingleLabel().score(logits, torch.tensor([1])).columns
    assert (columns["predicted"].tolist(), columns["rank"].tolist()) == ([1], [1])
    (answer,) = SingleLabel().answers(logits.numpy(), ["ant", "bee", "cat"])
    assert answer.classes == ("bee", "ant", "cat")
    assert answer.probabilities[0] == answer.probabilities[1]
