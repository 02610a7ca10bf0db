"""Text of shares: cut, or rounded but never to all or none."""

import pytest

from densenet121.utils.rounding import percent, rounded_down


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


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.94916, "94.92 %"),
        (1.0, "100.00 %"),
        (0.0, "0.00 %"),
        (49999 / 50000, ">99.99 %"),
        (0.99994, "99.99 %"),
        (1e-12, "<0.01 %"),
        (0.00006, "0.01 %"),
    ],
)
def test_only_all_is_100_per_cent_and_only_none_is_0(share: float, text: str) -> None:
    assert percent(share) == text
    assert percent(0.9996, 1) == ">99.9 %" and percent(0.0004, 1) == "<0.1 %"
