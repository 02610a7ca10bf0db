"""The size that images are resized to before the central crop."""


def default_eval_resize(size: tuple[int, int]) -> str:
    """256 for 224 as in the original, and the same ratio 8/7 for other sizes, as "H,W"."""
    return ",".join(str(round(side * 256 / 224)) for side in size)
