"""The images of a training run."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.shared import AnyPath, File, Resize, Settings, Size
from densenet121.config.values import at_least, parse_image_size
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """The images of a training run.

    Attributes:
        data_dir: training images: a folder of class folders, or one that holds `train/` and
            `val/`; a list of paths and labels (.txt, .csv); a folder of tar shards, of Parquet,
            TFRecord, MindRecord or HDF5 files; one that `save_to_disk` of Hugging Face datasets
            wrote; CIFAR's own files; a folder of IDX files (MNIST); a NumPy archive (MedMNIST).
        val_dir: images to validate on after every epoch (default: those of `val`, `valid` or
            `validation` beside `train`, or of files and rows named so; else none).
        exclude: file that names images to leave out, one per line, as `audit` writes it
            (default: none).
        num_classes: number of classes; if given, it must fit the data (default: the number of
            class folders).
        image_size: height and width of the network's input in pixels, "H,W" or one number
            (default: as the weights of pretrained record, else 224,224).
        small_size: height and width in pixels of the training images in the first small_epochs,
            "H,W" or one number; small images train faster (default: image_size).
        small_epochs: number of first epochs that train on images of small_size.
        eval_resize: size to which a validation image is resized before the central crop: 256
            stretches it to 256 x 256, H,W to H x W, short:256 makes its shorter side 256 and keeps
            the aspect ratio, pad:256 makes its longer side 256 and fills the rest of 256 x 256 with
            the mean (default: 256 at image_size 224 and in proportion at others).
        last_batch: drop leaves out the images that do not fill the last batch of an epoch, as the
            original; keep trains on them in a smaller batch, if it has two images for each device
            (and each batch of gradient_accumulation).
    """

    section: ClassVar[str] = "data"
    data_dir: AnyPath
    val_dir: AnyPath | None = None
    exclude: File | None = None
    num_classes: int | None = None
    image_size: Size | None = None
    small_size: Size | None = None
    small_epochs: int = 0
    eval_resize: Resize | None = None
    last_batch: Literal["drop", "keep"] = "drop"

    def check(self) -> None:
        """Refuse sizes and counts that cannot be used."""
        if not self.data_dir:
            raise UsageError("--data_dir must name images, got an empty path")
        at_least("num_classes", self.num_classes, 2, "classes")
        at_least("small_epochs", self.small_epochs, 0, "epochs")
        if (self.small_size is None) != (self.small_epochs == 0):
            raise UsageError("--small_size and --small_epochs need each other")
        _ = self.size, self.small

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the network's input, pixels; None: as the weights record."""
        return None if self.image_size is None else parse_image_size(self.image_size)

    @property
    def small(self) -> tuple[int, int] | None:
        """Height and width of the training images in the first epochs, pixels; None: as later."""
        return None if self.small_size is None else parse_image_size(self.small_size, "small_size")
