"""The network of a training run and its initial weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.shared import AnyPath, Net, Settings, Switch, Variant


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The network and its initial weights.

    Attributes:
        net: the network; densenet100 is the one for images of 32 x 32 pixels.
        variant: paper (average pooling, as torchvision) or model_zoo (max pooling, as the
            original); if given, it must fit the weights (default: as the weights record, else
            paper).
        pretrained: weights to start from; another number of classes gives a new head (default:
            none).
        normalisation: mean and std of the images: weights takes those that pretrained records,
            else the original's; original takes the original's, those of ImageNet.
        sync_batch_norm: 1 takes the statistics of batch norm over the images of all ranks, 0 over
            each rank's own.
    """

    section: ClassVar[str] = "network"
    net: Net = "densenet121"
    variant: Variant | None = None
    pretrained: AnyPath | None = None
    normalisation: Literal["weights", "original"] = "weights"
    sync_batch_norm: Switch = 0
