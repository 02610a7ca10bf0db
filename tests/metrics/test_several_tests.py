"""P-values of several tests at once."""

import pytest

from densenet121.metrics.several_tests import holm


def test_adjusted_p_values_are_those_of_a_hand_calculation() -> None:
    """The smallest of four times 4, the next times 3 and so on, never below a smaller one's."""
    assert holm([0.04, 0.01, None, 0.03, 0.5]) == pytest.approx([0.09, 0.04, None, 0.09, 0.5])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
