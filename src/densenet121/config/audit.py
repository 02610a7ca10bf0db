"""The settings of ``audit`` and ``pack``; without torch, so that ``--help`` answers at once."""

from dataclasses import dataclass

from densenet121.utils.errors import UsageError
from densenet121.utils.values import at_least, between, known_choices


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Write images into tar shards (WebDataset layout) with an index.

    Attributes:
        source: images, as train takes them; `train/` and `val/` are both packed.
        output: new folder for the shards.
        shard_megabytes: size of a shard, 10^6 bytes.
        exclude: file with the paths of images to leave out, one a line (default: none).
    """

    source: str
    output: str
    shard_megabytes: int = 512
    exclude: str | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            UsageError: naming the flag.
        """
        at_least("shard_megabytes", self.shard_megabytes, 1, "megabyte")
        if not self.source or not self.output:
            raise UsageError("pack needs images and --output, a new folder")


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Look at every image and say what is wrong with the collection; nothing is changed.

    Attributes:
        source: images, as train takes them; `train/` and `val/` are compared.
        val_dir: validation images (default: the `val` beside `train`, else none).
        json: print JSON in place of the table.
        page: file for a page with the images found, to be looked at (default: none).
        exclude_list: file for the paths of the images that cannot be used, of the second and
            further copies, and of training images that are in val as well; for --exclude of
            train and eval (default: none).
        near: largest number of bits, of 64, in which the fingerprints of near duplicates differ; -1
            looks for exact duplicates only.
        least_side: an image is tiny if a side has fewer pixels.
        most_pixels: an image is huge if it has more pixels than so many million.
        imbalance: classes are out of balance if the largest has so many times the images of the
            smallest.
        workers: threads (default: number of cores).
    """

    source: str
    val_dir: str | None = None
    json: bool = False
    page: str | None = None
    exclude_list: str | None = None
    near: int = 4
    least_side: int = 32
    most_pixels: float = 40.0
    imbalance: float = 10.0
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            UsageError: naming the flag.
        """
        known_choices(self)
        between("near", self.near, -1, 16)
        at_least("least_side", self.least_side, 1, "pixel")
        at_least("most_pixels", self.most_pixels, 0)
        at_least("imbalance", self.imbalance, 1)
        at_least("workers", self.workers, 1, "thread")
        if not self.source:
            raise UsageError("audit needs images")
