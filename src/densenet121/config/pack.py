"""The settings of ``pack``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.labels import TaskSettings
from densenet121.config.shared import File, Folder
from densenet121.config.values import at_least
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PackConfig(TaskSettings):
    """Write images into tar shards (WebDataset layout) with an index.

    Attributes:
        source: images, in any source that `train` reads; `train/` and `val/` are both packed. With
            several labels per image, the other columns of a table go with them.
        output: new folder for the shards.
        shard_megabytes: size of a shard in megabytes (10^6 bytes).
        exclude: file that names images to leave out, one per line, as `audit` writes it (default:
            none).
    """

    section: ClassVar[str] = "data and output"
    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    output: Folder
    shard_megabytes: int = 512
    exclude: File | None = None

    def check(self) -> None:
        """Refuse empty paths and empty shards."""
        at_least("shard_megabytes", self.shard_megabytes, 1, "megabyte")
        if not self.source or not self.output:
            raise UsageError("pack needs images and --output, a new folder")
