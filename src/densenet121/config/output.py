"""The run folder of a training run."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, ClassVar

from densenet121.config.shared import Folder, Settings, Switch
from densenet121.config.values import at_least
from densenet121.utils.errors import UsageError

_TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True, kw_only=True)
class OutputSettings(Settings):
    """The run folder: log and checkpoints.

    Attributes:
        ckpt_path: parent of the dated run folder.
        output_dir: the run folder itself, in place of a dated one under ckpt_path (default: none).
        resume: auto continues from the newest intact checkpoint in output_dir (without one: in the
            newest run folder under ckpt_path) and starts afresh where there is none; or a
            checkpoint file, also a training checkpoint of MindSpore, with its momentum and step
            (default: none).
        log_interval: steps between log lines.
        ckpt_interval: steps between checkpoints (default: one epoch).
        keep_checkpoint_max: newest checkpoints to keep, 0 keeps all; best and last weights are
            kept in any case.
        log_to: trackers that mirror the settings, the metrics, images of the first batch and the
            confusion matrix: tensorboard (event files in the run folder), wandb, mlflow; each is an
            extra of the package, and its failure is only a warning (default: none).
        is_save_on_master: 1 saves checkpoints on rank 0 only, 0 on every rank.
    """

    section: ClassVar[str] = "output"
    ckpt_path: Folder = "output"
    output_dir: Folder | None = None
    resume: Annotated[str, "auto|FILE"] | None = None
    log_interval: int = 100
    ckpt_interval: int | None = None
    keep_checkpoint_max: int = 10
    log_to: Annotated[str, "A,B,..."] | None = None
    is_save_on_master: Switch = 1

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``log_to``."""
        return tuple(self.log_to.split(",")) if self.log_to else ()

    def check(self) -> None:
        """Refuse values out of range, and trackers that are unknown or not installed."""
        for name in self.trackers:
            if name not in _TRACKERS:
                raise UsageError(f"--log_to must be of {', '.join(_TRACKERS)}, got {name}")
            if self.trackers.count(name) > 1:
                raise UsageError(f"--log_to names {name} twice")
            if find_spec(name) is None:
                raise UsageError(
                    f"--log_to {name} is not installed; pip install 'densenet121[{name}]'"
                )
        at_least("log_interval", self.log_interval, 1, "step")
        at_least("ckpt_interval", self.ckpt_interval, 1, "step")
        at_least("keep_checkpoint_max", self.keep_checkpoint_max, 0, "(0 keeps all)")
