"""The settings of ``card``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import Folder, Settings


@dataclass(frozen=True, kw_only=True)
class CardConfig(Settings):
    """Write the model card of a run: Markdown, with the metadata of the Hugging Face hub.

    Attributes:
        run: run folder that train or eval wrote.
        evaluation: folder that eval wrote for the best weights of the run; its metrics are shown
            (default: what the run itself measured).
        output: file to write (default: README.md in the run folder).
    """

    positional: ClassVar[tuple[str, ...]] = ("run",)
    run: str
    evaluation: Folder | None = None
    output: str | None = None
