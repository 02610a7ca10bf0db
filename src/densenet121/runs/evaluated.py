"""What an evaluation was of, seen from the run: its images may be others than the run's."""

from collections.abc import Mapping
from typing import Any

from densenet121.datasets.views import VIEWS
from densenet121.pages.markup import mapping
from densenet121.utils.plural import plural

SAME_IMAGES = "same_images_as"  # in eval.json: the splits of the weights that were these images
TRAINED_ON, VALIDATED_ON = "train", "val"
VALIDATION, TRAINING, OTHER = "validation", "training", "evaluated"


def kind_of_images(found: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Whether the evaluated images are the validation or the training images of a run, or others.

    Args:
        found: content of eval.json. An older one does not record its images, which then pass for
            the validation images.
        data: `train` and `val` of the run, each with a fingerprint.
    """
    if TRAINED_ON in _same(found):
        return TRAINING
    if VALIDATED_ON in _same(found):
        return VALIDATION
    evaluated = found.get("data_fingerprint")
    own = {
        kind: mapping(data.get(split)).get("fingerprint")
        for kind, split in ((VALIDATION, "val"), (TRAINING, "train"))
    }
    if not evaluated or not any(own.values()):
        return VALIDATION
    return next((kind for kind, fingerprint in own.items() if fingerprint == evaluated), OTHER)


def number_of_images(found: Mapping[str, Any]) -> int | None:
    """The number of images of an evaluation with those that it could not read; None: unknown."""
    total = found.get("total")
    return total + _unread(found) if isinstance(total, int) else None


def image_notes(found: Mapping[str, Any], kind: str) -> list[str]:
    """Sentences on the images of an evaluation and their views, as far as they are not as usual.

    Args:
        found: content of eval.json.
        kind: result of ``kind_of_images``.
    """
    notes = {
        TRAINING: ["These are the images that the weights were trained on."],
        OTHER: [
            "By their fingerprint, these are not the images and labels that the run was "
            "validated on."
        ],
    }.get(kind, [])
    views = VIEWS.get(str(found.get("tta")))
    if views:
        notes.append(f"Probabilities are the mean of {views} views of each image ({found['tta']}).")
    if unread := _unread(found):
        verb = "is" if unread == 1 else "are"
        notes.append(f"{plural(unread, 'image')} could not be read and {verb} not counted.")
    bad = found.get("bad_training_images")
    if isinstance(bad, int) and bad > 0:
        notes.append(f"The training left out {plural(bad, 'image')} that could not be read.")
    return notes


def validated_on(found: Mapping[str, Any]) -> str:
    """That the images of `eval` may have chosen the weights; else empty."""
    if VALIDATED_ON not in _same(found):
        return ""
    return (
        "The training run validated on these same images; if it chose the weights by them, they "
        "may do worse on new ones."
    )


def fitted_on(content: Mapping[str, Any] | None, evaluation: Mapping[str, Any]) -> str:
    """That the evaluated images chose temperatures and thresholds, if they did; else empty."""
    fingerprint = mapping((content or {}).get("note")).get("fingerprint")
    if not fingerprint or fingerprint != evaluation.get("data_fingerprint"):
        return ""
    return (
        "The weights were calibrated on these same images, so on new images their probabilities "
        "and thresholds may do worse."
    )


def _unread(found: Mapping[str, Any]) -> int:
    bad = found.get("bad_images")
    return len(bad) if isinstance(bad, list) else 0


def _same(found: Mapping[str, Any]) -> list[Any]:
    same = found.get(SAME_IMAGES)
    return same if isinstance(same, list) else []
