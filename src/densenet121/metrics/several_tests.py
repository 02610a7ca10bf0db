"""P-values of several tests at once: of many true null hypotheses some are small by chance."""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (Holm 1979), in the order given; None stays None, and is no test.

    Those of at most 0.05 contain a true null hypothesis with a probability of at most 0.05,
    whatever the tests have to do with each other.
    """
    order = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for before, (p, at) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - before)))
        found[at] = largest
    return found
