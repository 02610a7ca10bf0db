"""Metrics as text; shares not rounded to a limit that they do not reach, such as all or none."""

from decimal import ROUND_DOWN, Decimal


def rounded_down(value: float, digits: int = 3, *, times: int = 1) -> str:
    """``times`` a value of 0 or more, cut after so many decimals; more where it would be 0.

    Who is told that 0.0459 is the highest value must not read 0.046, and ask for that.
    """
    exact = Decimal(repr(float(value))) * times
    for places in range(digits, 20):
        cut = exact.quantize(Decimal(1).scaleb(-places), ROUND_DOWN)
        if cut or not exact:
            break
    return f"{cut:f}"


def percent(share: float, digits: int = 2) -> str:
    """A share in 0..1 as "94.92 %"; of nearly all ">99.99 %", and of nearly none "<0.01 %"."""
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        return f">{100 - 10.0**-digits:.{digits}f} %"
    if share > 0 and float(text) == 0:
        return f"<{10.0**-digits:.{digits}f} %"
    return f"{text} %"


def four_digits(value: float | None) -> str:
    """A metric with four digits."""
    return "undefined" if value is None else f"{value:.4f}"
