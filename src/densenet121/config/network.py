"""The network of a training run and its initial weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.shared import AnyPath, Net, Normalisation, Settings, Switch, Variant
from densenet121.config.values import Triple, parse_mean_std


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The network and its initial weights.

    Attributes:
        net: the network; densenet100 and densenet40 are those for images of 32 x 32 pixels.
        variant: paper (average pooling, as torchvision) or model_zoo (max pooling, as the
            original); if given, it must fit the weights (default: as the weights record, else
            paper).
        channels: input channels of the network: 3 for RGB, 1 for grey images, to which colours are
            converted. Weights of the other number are converted: for 1 the first convolution is
            summed, for 3 each channel gets a third of it (default: as the weights of pretrained,
            else 3).
        pretrained: weights to start from; another number of classes gives a new head (default:
            none).
        normalisation: mean and std of the images: weights takes those that pretrained records,
            else the original's; original takes the original's, those of ImageNet; data measures
            those of the training images, after the resizing of the evaluation; M,S are numbers in
            grey levels 0 to 255, for all of R, G, B or three each, as in 128,60. For one channel,
            those of three are averaged.
        sync_batch_norm: 1 takes the statistics of batch norm over the images of all ranks, 0 over
            each rank's own.
    """

    section: ClassVar[str] = "network"
    net: Net = "densenet121"
    variant: Variant | None = None
    channels: Literal[1, 3] | None = None
    pretrained: AnyPath | None = None
    normalisation: Normalisation = "weights"
    sync_batch_norm: Switch = 0

    def check(self) -> None:
        """Refuse a normalisation that is neither a word nor numbers."""
        _ = self.mean_std

    @property
    def mean_std(self) -> tuple[Triple, Triple] | None:
        """Mean and std of R, G, B in grey levels, if `normalisation` gives numbers."""
        return parse_mean_std(self.normalisation)
