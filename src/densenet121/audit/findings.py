"""What an audit finds: the kinds of findings, and all of one audit."""

from dataclasses import dataclass

from densenet121.datasets.image_dataset import ImageDataset

# Kinds of findings in the order of the table, and their descriptions. Faults make training or its
# evaluation wrong; remarks may be harmless.
FAULTS = {
    "empty": "empty files (0 bytes)",
    "not_a_picture": "files that are not images",
    "truncated": "truncated images",
    "damaged": "images that cannot be decoded",
    "train_and_val": "validation images that are also in train",
    "two_classes": "equal images with different classes or labels",
    "group_in_both": "groups with images in both train and val",
    "class_sets": "classes that only one split has",
    "one_kind": "labels without a positive or without a negative image",
}
REMARKS = {
    "exact_duplicate": "exact copies of an image of the same split",
    "near_duplicate": "near copies of an image of the same split",
    "wrong_extension": "images with the extension of another format",
    "cmyk": "CMYK images",
    "alpha": "images with transparency",
    "rotated": "images with an EXIF orientation",
    "several": "images of several pages or frames",
    "low_range": "16-bit images that use few of the 16 bits",
    "tiny": "tiny images",
    "huge": "huge images",
    "imbalance": "splits with imbalanced classes",
    "ignored": "files without an image extension",
}
KINDS = FAULTS | REMARKS


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: a key of KINDS.
        split: ``train`` or ``val``.
        path: path of the image, or the name of a class.
        detail: description of the problem.
        other: split and path of the image that this one is a copy of.
    """

    kind: str
    split: str
    path: str
    detail: str
    other: tuple[str, str] | None = None


@dataclass(frozen=True)
class Audit:
    """Result of ``audit``.

    Attributes:
        dataset: split to its images.
        findings: all findings, in the order of KINDS, then of splits and images.
        excluded: images that should be excluded, as lines of AuditConfig.exclude_list.
    """

    dataset: dict[str, ImageDataset]
    findings: tuple[Finding, ...]
    excluded: tuple[str, ...]

    @property
    def has_faults(self) -> bool:
        """Whether there are findings that make training or its evaluation wrong."""
        return any(finding.kind in FAULTS for finding in self.findings)
