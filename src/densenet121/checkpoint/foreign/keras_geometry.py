"""What the layers of a Keras model that resize and crop its images are in our preprocessing.

Source: ``keras/src/layers/preprocessing/image_preprocessing/resizing.py`` and ``center_crop.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from densenet121.datasets.preprocessing import Preprocessing

GEOMETRY = ("Resizing", "CenterCrop", "RandomCrop")
# Keras's bilinear has no antialiasing and the same centres of pixels as OpenCV's.
_SAME = {"bilinear": "opencv_bilinear", "nearest": "pillow_nearest"}
_NEAR = {"bicubic": "pillow_bicubic"}  # ours has antialiasing
_Layer = tuple[str, dict[str, Any]]
_Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """How images become those of the first convolution.

    Attributes:
        size: height and width there; None if any size is taken.
        eval_resize: size before the central crop, in the form of the setting ``eval_resize``.
        interpolation: how a Resizing layer resizes; None without one.
        fill: what it puts around an image; None if it pads none.
        fill_is_scaled: whether ``fill`` is a level after the normalisation.
        notes: what is left out, in sentences.
    """

    size: _Size | None = None
    eval_resize: str = ""
    interpolation: str | None = None
    fill: float | None = None
    fill_is_scaled: bool = False
    notes: tuple[str, ...] = ()

    def applied(self, p: Preprocessing) -> Preprocessing:
        """The preprocessing with this size, resizing and filling."""
        if self.size is None:
            return p
        p = p.changed(self.size, self.eval_resize, self.interpolation)
        if self.fill is None:
            return p
        levels = [
            self.fill * std + mean if self.fill_is_scaled else self.fill
            for mean, std in zip(p.mean, p.std, strict=True)
        ]
        red, green, blue = (min(255, max(0, round(level))) for level in levels)
        return replace(p, fill=(red, green, blue))


def geometry_of(before: Sequence[_Layer], changes_levels: Callable[[str], bool]) -> Geometry:
    """Of the layers before the first convolution; ``changes_levels`` tells them by their class.

    Raises:
        KeyError, TypeError, ValueError: it is no configuration of Keras.
    """
    steps = [(kind, config) for kind, config in before if kind in GEOMETRY]
    given = _of_input(before)
    if not steps:
        return Geometry(given, "{},{}".format(*given) if given else "")
    kinds = [kind for kind, _ in steps]
    outer = _sides(steps[0][1]) if kinds[0] == "Resizing" else given
    size = _sides(steps[-1][1])
    exact = kinds in (["Resizing"], ["Resizing", "CenterCrop"], ["CenterCrop"])
    if outer is None or not exact or size[0] > outer[0] or size[1] > outer[1]:
        outer, exact = size, False
    found = Geometry(size, "{},{}".format(*outer))
    if kinds[0] == "Resizing":
        found, same = _resized(found, steps[0][1], outer)
        exact &= same
        scales = [changes_levels(kind) for kind, _ in before]
        at = [kind for kind, _ in before].index("Resizing")
        earlier, later = any(scales[:at]), any(scales[at:])
        found = replace(found, fill_is_scaled=earlier or not later)
        exact &= found.fill is None or not (earlier and later)  # the fill is scaled by halves
    return replace(found, notes=(_note(found, kinds, exact),))


def _note(found: Geometry, kinds: Sequence[str], exact: bool) -> str:
    if kinds == ["Resizing"] and exact:
        return "its Resizing layer is left out: images are resized to its size before"
    words = " and ".join(kinds)
    if exact:
        return f"left out: its {words}; images are resized and cropped to its size before"
    height, width = found.size or (0, 0)
    return (
        f"not followed exactly: its {words}; images are resized to {found.eval_resize} "
        f"({found.interpolation or 'as Keras loads images'}), and their central {height} x {width} "
        "is used"
    )


def _resized(found: Geometry, config: dict[str, Any], outer: _Size) -> tuple[Geometry, bool]:
    """With what a Resizing layer to ``outer`` does, and whether that is exact."""
    kind = config.get("interpolation", "bilinear")
    found = replace(found, interpolation=_SAME.get(kind) or _NEAR.get(kind, "opencv_bilinear"))
    exact = kind in _SAME
    if config.get("pad_to_aspect_ratio"):
        fill = float(config.get("fill_value", 0))
        return replace(found, eval_resize="pad:{},{}".format(*outer), fill=fill), exact
    if not config.get("crop_to_aspect_ratio"):
        return found, exact
    if outer[0] == outer[1]:
        return replace(found, eval_resize=f"short:{outer[0]}"), exact
    return found, False  # `eval_resize` has no such crop


def _of_input(before: Sequence[_Layer]) -> _Size | None:
    for kind, config in before:
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        if kind == "InputLayer" and shape:
            _, height, width, _ = shape
            return (int(height), int(width)) if height and width else None
    return None


def _sides(config: dict[str, Any]) -> _Size:
    return int(config["height"]), int(config["width"])
