"""The classes of a caller's y, and their names in weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from densenet121.utils.errors import InputError


def classes_of(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes, sorted, and the index of that of each image.

    Raises:
        ValueError: y has other than one class per image, only one class, an image without one, or
            classes that cannot be written with the weights, as dates.
    """
    if y is None:
        raise InputError("requires y to be passed, but the target y is None")
    _refuse_missing(y, "y")
    y = column_or_1d(y, warn=True)
    if y.dtype.kind in "MmT":
        raise InputError(
            f"y has classes of the type {y.dtype}, but they must be text, numbers or True and "
            "False; pass y.astype(object) of text, y.astype(str) of dates"
        )
    check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y has {len(classes)} class; a classifier needs at least 2 classes")
    return classes, np.asarray(labels, dtype=np.int64)


def names_of(classes: NDArray[Any]) -> tuple[str, ...]:
    """The names of the classes in the weights.

    Raises:
        InputError: two are written alike, as 1 and "1".
    """
    names = tuple(str(name) for name in classes.tolist())
    if len(set(names)) < len(names):
        raise InputError(f"y has different classes that are written alike: {', '.join(names)}")
    return names


def typed(names: tuple[str, ...], kind: str) -> NDArray[Any]:
    """The classes from their names, in the same order, of a type of numpy's ``dtype.kind``."""
    if kind == "b":
        return np.array([name == "True" for name in names])
    if kind in "iu":
        return np.array([int(name) for name in names], dtype=f"{kind}8")
    if kind == "f":
        return np.array([float(name) for name in names])
    return np.array(names, dtype=object if kind == "O" else None)


def labels_in(classes: NDArray[Any], y: Any) -> NDArray[np.int64]:
    """The index of the class of each image of a validation.

    Raises:
        InputError: a class is not among those of training, or an image has none.
    """
    _refuse_missing(y, "y of `validation`")
    number = {known: index for index, known in enumerate(classes.tolist())}
    labels = []
    for value in column_or_1d(y, warn=True).tolist():
        if value not in number:
            raise InputError(f"`validation` has the class {value!r}, which y does not have")
        labels.append(number[value])
    return np.array(labels, dtype=np.int64)


def _refuse_missing(y: Any, name: str) -> None:
    """Refuse None, nan, and NA and NaT of pandas, whose comparisons fail with other words."""
    for number, value in enumerate(np.asarray(y).ravel().tolist()):
        is_nan = isinstance(value, float) and value != value
        if value is None or is_nan or type(value).__name__ in ("NAType", "NaTType"):
            raise InputError(
                f"{name}[{number}] is missing ({value}); leave images without a class out"
            )
