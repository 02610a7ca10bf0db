"""The comparison of two evaluations of several labels."""

from densenet121.tasks import MultiLabel


def rows(shares: list[float]) -> dict[str, dict[str, str]]:
    """Five images of one label, the first two positive."""
    return {
        f"{i}.png": {"path": f"{i}.png", "mass": str(int(i < 2)), "probability_mass": str(share)}
        for i, share in enumerate(shares)
    }


def test_a_label_whose_difference_has_no_variance_is_shown_with_dashes() -> None:
    found = MultiLabel().compare(
        rows([0.9, 0.8, 0.3, 0.2, 0.1]), rows([0.5] * 5), resamples=50, seed=1
    )
    assert "mass  A 1.0000  B 0.5000  -0.5000 (-), p = -" in found.text(5)
    (label,) = found.to_json()["labels"]
    assert label["difference"] == -0.5
    assert label["low"] is label["high"] is label["p_value"] is None
