"""What a file of another program cannot tell its reader of the weights in it."""

import numpy as np

from densenet121.checkpoint.native import DEFAULT_TASK, ModelInfo
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.utils.errors import some

_NOTHING = Preprocessing((0, 0), "")  # differs in all that images must have
_MEANINGS = {DEFAULT_TASK: "one class per image, by a softmax", "multilabel": "labels, by sigmoids"}


def not_recorded(info: ModelInfo, back: ModelInfo | None) -> list[str]:
    """One sentence for each thing in which the new file would mislead its reader.

    Args:
        info: what is known of the weights.
        back: what was read back from the new file; None if nothing.
    """
    found = _images(info.preprocessing, back.preprocessing if back else _NOTHING)
    if info.class_names and (back is None or back.class_names != info.class_names):
        found.insert(min(1, len(found)), f"the classes: {some(info.class_names, 20)}")
    if info.task != (back.task if back else DEFAULT_TASK):
        meaning = _MEANINGS.get(info.task, "its own")
        found.append(f"that its outputs are those of the task {info.task}: {meaning}")
    return [f"the new file does not record {what}" for what in found]


def _images(own: Preprocessing, back: Preprocessing) -> list[str]:
    """How images must be prepared, as far as the reader would do it in another way."""
    found = []
    # Images are normalised in float32; files of others have more digits of the same numbers.
    if not all(map(_same_float32, (back.mean, back.std), (own.mean, own.std))):
        mean, std = (
            ", ".join(f"{value:.7g}" for value in dict.fromkeys(values))
            for values in (own.mean, own.std)
        )
        found.append(
            f"that grey levels of 0 to 255 must be normalised by mean {mean} and std {std}"
        )
    if back.image_size != own.image_size:
        height, width = own.image_size
        found.append(f"that images are of {height} x {width} pixels (`image_size`)")
    if back.eval_resize != own.eval_resize:
        found.append(f"that images are resized to {own.eval_resize} (`eval_resize`)")
    if back.interpolation != own.interpolation:
        found.append(f"that images are resized by {own.interpolation} (`interpolation`)")
    if (fill := _fill(own)) not in (None, back.fill or back.mean_pixel):
        found.append(f"that images are filled up with {fill}")
    if (back.depth, back.window) != (own.depth, own.window):
        found.append(f"that images are read with {own.reading_note}")
    if back.tta != own.tta:
        found.append(f"that the mean over the views of `tta` {own.tta} is taken")
    return found


def _same_float32(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return np.array_equal(np.array(one, np.float32), np.array(other, np.float32))


def _fill(preprocessing: Preprocessing) -> tuple[int, int, int] | None:
    """What surrounds images that are padded, where it is not the mean."""
    return preprocessing.fill if parse_eval_resize(preprocessing.eval_resize).pad else None
