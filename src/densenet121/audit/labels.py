"""Counts of the labels of images that can have several, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from densenet121.datasets.image_dataset import ImageDataset


def label_of(dataset: ImageDataset, index: int) -> str:
    """The class of an image; of several labels, the positive ones and those that are not known."""
    if dataset.labels.ndim == 1:
        return dataset.class_names[int(dataset.labels[index])]
    row = zip(dataset.class_names, dataset.labels[index].tolist(), strict=True)
    texts = [name if value == 1 else f"{name}?" for name, value in row if value != 0]
    return "|".join(texts) or "no label"


def label_counts(dataset: ImageDataset) -> dict[str, Any]:
    """Positive, negative and unknown images of each label, and how many images have both of two."""
    positive = (dataset.labels == 1).astype(np.int64)
    return {
        "labels": {
            name: {
                "positive": int((column == 1).sum()),
                "negative": int((column == 0).sum()),
                "unknown": int(np.isnan(column).sum()),
            }
            for name, column in zip(dataset.class_names, dataset.labels.T, strict=True)
        },
        "both_positive": (positive.T @ positive).tolist(),
    }


def labels_of_one_kind(
    dataset: Mapping[str, ImageDataset],
) -> list[tuple[str, str, str]]:
    """Split, label and reason, for each label that has no positive or no negative image."""
    return [
        (split, name, f"no image is {kind}")
        for split, part in dataset.items()
        for kind in ("positive", "negative")
        for name in part.labels_without(kind)
    ]


def lines_of(dataset: ImageDataset) -> list[str]:
    """A line of counts for each label."""
    counts = label_counts(dataset)["labels"]
    width = max(len(name) for name in counts)
    return [
        f"  {name:<{width}}  {found['positive']} positive, {found['negative']} negative, "
        f"{found['unknown']} unknown"
        for name, found in counts.items()
    ]
