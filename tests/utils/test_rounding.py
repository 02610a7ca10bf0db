"""Text of a share that is never above it."""

import pytest

from densenet121.utils.rounding import rounded_down


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.045977, "0.045"),
        (0.5, "0.500"),
        (0.857, "0.857"),
        (0.8999999, "0.899"),
        (0.00048, "0.0004"),
        (1e-7, "0.0000001"),
        (0.0, "0.000"),
        (1.0, "1.000"),
    ],
)
def test_it_is_cut_and_not_rounded_up(value: float, text: str) -> None:
    assert rounded_down(value) == text


def test_per_cent_have_no_error_of_the_multiplication() -> None:
    assert rounded_down(0.29, 2, times=100) == "29.00"
    assert rounded_down(0.999999, 2, times=100) == "99.99"
