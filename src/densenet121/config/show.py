"""The settings of ``show``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.augmentation import AugmentationSettings
from densenet121.config.flags import flags_of
from densenet121.config.labels import TaskSettings
from densenet121.config.shared import (
    AnyPath,
    File,
    Normalisation,
    Resize,
    SampleSettings,
    Size,
    settings_of,
)
from densenet121.config.train import TrainConfig
from densenet121.config.values import at_least, ends_in
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ShowConfig(SampleSettings, TaskSettings, AugmentationSettings):
    """Show what training will make of some images: a page with each before and after augmentation.

    The YAML file of a training run can be given as --config; settings that do not matter here are
    passed over.

    Attributes:
        data_dir: training images, in any source that `train` reads.
        exclude: file that names images to leave out, as in `train` (default: none).
        output: the page, one HTML file.
        images: number of images to show, spread over the data.
        versions: number of versions of each, those of the first epochs.
        channels: channels of the images, as in `train`: 3 for RGB, 1 shows them as grey (default:
            as the weights of pretrained record, else 3).
        pretrained: weights that training will start from; their image size and mean are used as in
            `train` (default: none).
        normalisation: weights takes the mean from the weights of pretrained, original that of
            ImageNet, data that of the training images, M,S are numbers; as in `train`.
        image_size: height and width of the network's input in pixels, "H,W" or one number
            (default: as the weights of pretrained record, else 224,224).
        small_size: height and width in pixels of the training images in the first small_epochs, as
            in `train` (default: image_size).
        small_epochs: number of first epochs that train on images of small_size.
        eval_resize: size to which an image is resized before the central crop when it is evaluated,
            as in `train` (default: 256 at image_size 224 and in proportion at others).
        seed: seed of the augmentation, as in `train`.
    """

    section: ClassVar[str] = "data and output"
    also_reads: ClassVar[type | None] = TrainConfig
    recipes: ClassVar[tuple[str, ...]] = TrainConfig.recipes
    data_dir: AnyPath
    exclude: File | None = None
    output: File = "sheet.html"
    images: int = 6
    versions: int = 6
    channels: Literal[1, 3] | None = None
    pretrained: AnyPath | None = None
    normalisation: Normalisation = "weights"
    image_size: Size | None = None
    small_size: Size | None = None
    small_epochs: int = 0
    eval_resize: Resize | None = None
    seed: int = 1

    def check(self) -> None:
        """Refuse empty paths and values out of range."""
        if not self.data_dir or not self.output:
            raise UsageError("--data_dir and --output must not be empty")
        ends_in("output", self.output, ".html", ".htm")
        at_least("images", self.images, 1, "image")
        at_least("versions", self.versions, 1, "version")
        _ = self.training

    @property
    def training(self) -> TrainConfig:
        """Settings of a training run that has those of this command."""
        names = {flag.name for flag in flags_of(TrainConfig)} & set(settings_of(self))
        return TrainConfig(**{name: getattr(self, name) for name in names})
