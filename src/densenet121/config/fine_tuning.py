"""Which weights learn, and how fast; averaged weights."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import Settings
from densenet121.config.values import above, at_least, between
from densenet121.utils.errors import UsageError

Freeze = Literal["none", "stem", "block1", "block2", "block3", "block4", "all_but_head"]


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings(Settings):
    """Which weights of a pretrained network learn, and how fast.

    Attributes:
        freeze: stages that do not learn, from the stem to the one named; all_but_head trains only
            the classifier. Frozen weights and their batch norms do not change at all.
        freeze_epochs: number of first epochs for which freeze holds; then everything learns
            (0: the whole run). auto takes as many as have 32 steps, 1 at least and a third of
            max_epoch at most; none of a run of one epoch.
        freeze_bn: batch norms whose running statistics are fixed and used, as in evaluation: auto
            fixes those of frozen stages, 1 all of them, 0 none, not even in frozen stages.
        head_lr_mult: factor of the classifier's learning rate.
        layer_lr_decay: factor of the learning rate from each stage to the one before it: stem,
            block1 with its transition and so on to the last block, classifier (1: all alike).
        ema_decay: also keeps an exponential moving average of the weights with this decay, such as
            0.999, validated and saved beside the plain ones; the first steps have a smaller decay
            (default: none).
    """

    section: ClassVar[str] = "fine-tuning"
    freeze: Freeze = "none"
    freeze_epochs: Annotated[int | str, "N|auto"] = 0
    freeze_bn: Literal["auto", "0", "1"] = "auto"
    head_lr_mult: float = 1.0
    layer_lr_decay: float = 1.0
    ema_decay: float | None = None

    def check(self) -> None:
        """Refuse values out of range, and settings that contradict each other."""
        if isinstance(self.freeze_epochs, int):
            at_least("freeze_epochs", self.freeze_epochs, 0, "(0: the whole run)")
        elif self.freeze_epochs != "auto":
            raise UsageError(
                "--freeze_epochs must be a whole number of epochs, 0 for the whole run, or auto, "
                f"got {self.freeze_epochs!r}"
            )
        above("head_lr_mult", self.head_lr_mult, 0)
        above("layer_lr_decay", self.layer_lr_decay, 0)
        between("layer_lr_decay", self.layer_lr_decay, 0, 1)
        above("ema_decay", self.ema_decay, 0)
        between("ema_decay", self.ema_decay, 0, 1, upper_open=True)
        # A recipe's auto has nothing to say where nothing is frozen.
        if self.freeze_epochs not in (0, "auto") and self.freeze == "none":
            raise UsageError(
                f"--freeze_epochs {self.freeze_epochs} needs --freeze, such as all_but_head"
            )
        whole = self.freeze in ("all_but_head", "block4") and not self.freeze_epochs
        if whole and self.layer_lr_decay != 1:
            raise UsageError(
                f"--layer_lr_decay has no effect with --freeze {self.freeze}, which trains only "
                "the classifier; omit one of them"
            )
