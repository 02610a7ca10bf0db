"""Everything between an encoded image and the network's input, as one object."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.decoding import MAX_PIXELS
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.grey import NOTE, SHARES, mean_of
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preparation import evaluation_images, prepare_evaluation
from densenet121.datasets.reading import AS_BYTES, Reading, make_reading
from densenet121.datasets.transforms import MEAN, STD, EvalTransform, normalise
from densenet121.datasets.views import CROPS, VIEWS, central, views_of
from densenet121.utils.errors import InputError

# The value in old files, written when there was only one interpolation.
_SENTENCE = "bilinear without antialiasing (OpenCV INTER_LINEAR)"
# Fields that older files lack, which are written only where they differ from these defaults.
_LATER: dict[str, Any] = {"tta": "none", "depth": 8, "window": None, "fill": None}


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized, cropped and normalised; its JSON is stored with the weights.

    Attributes:
        image_size: height and width of the network's input, in pixels.
        eval_resize: size before the central crop, in the form of the setting ``eval_resize``.
        mean: mean of R, G and B, or of the one channel of a grey network, in grey levels 0 to 255.
        std: standard deviation of the same channels, in grey levels.
        interpolation: how images are resized and cropped, a name of ``EvalTransform``.
        tta: views of an image whose probabilities are averaged, a name of ``VIEWS``.
        depth: bits that are used of 16-bit grey samples, 8 or 16.
        window: values that become black and white, in the form of the setting ``window``.
        fill: R, G, B around an image that is padded; None for the rounded mean.
    """

    image_size: tuple[int, int]
    eval_resize: str
    mean: tuple[float, ...] = tuple(MEAN.tolist())
    std: tuple[float, ...] = tuple(STD.tolist())
    interpolation: str = "opencv_bilinear"
    tta: str = "none"
    depth: int = 8
    window: str | None = None
    fill: tuple[int, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; without what older files lack if it has its default."""
        content = asdict(self)
        for name, default in _LATER.items():
            if content[name] == default:
                del content[name]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """Read the result of ``to_json``.

        Raises:
            ValueError: something is missing, or not of its type.
        """
        try:
            found = cls._read(content)
            size, fill = found.image_size, found.fill
            sound = all(type(side) is int and 0 < side < 2**16 for side in size)
            sound &= len(found.mean) in (1, 3) and len(found.std) == len(found.mean)
            sound &= fill is None or len(fill) == 3
            sound &= all(map(math.isfinite, (*found.mean, *found.std, *(fill or ()))))
            sound &= min(found.std) > 0
            texts = (found.eval_resize, found.interpolation, found.tta, found.window or "")
            sound &= all(isinstance(text, str) for text in texts) and type(found.depth) is int
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(repr(error)) from None
        if not sound:
            raise ValueError("the preprocessing is not one")
        return found

    @classmethod
    def _read(cls, content: Mapping[str, Any]) -> "Preprocessing":
        height, width = content["image_size"]
        return cls(
            image_size=(height, width),
            eval_resize=content["eval_resize"],
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            interpolation=content["interpolation"].replace(_SENTENCE, "opencv_bilinear"),
            **{name: content.get(name, default) for name, default in _LATER.items()},
        )

    def changed(
        self,
        image_size: tuple[int, int] | None = None,
        eval_resize: str | None = None,
        interpolation: str | None = None,
        tta: str | None = None,
        depth: int | None = None,
        window: str | None = None,
    ) -> "Preprocessing":
        """A copy with the given values; ``depth`` 8 alone drops the window."""
        return replace(
            self,
            image_size=image_size or self.image_size,
            eval_resize=eval_resize or self.eval_resize,
            interpolation=interpolation or self.interpolation,
            tta=tta or self.tta,
            depth=depth or self.depth,
            window=window or (None if depth == 8 else self.window),
        )

    @property
    def channels(self) -> int:
        """Channels of the network's input: 3 for RGB, 1 for grey."""
        return len(self.mean)

    def with_channels(self, channels: int) -> "Preprocessing":
        """A copy for another number of channels.

        One channel has the means of the three's mean and std, three have those of the one.
        """
        if channels == self.channels:
            return self
        if channels == 1:
            return replace(self, mean=mean_of(self.mean), std=mean_of(self.std))
        return replace(self, mean=self.mean * channels, std=self.std * channels)

    @cached_property
    def reading(self) -> Reading:
        """How the file of an image is decoded.

        Raises:
            UsageError: ``depth`` or ``window`` is not allowed.
        """
        return make_reading(self.depth, self.window)

    @property
    def reading_note(self) -> str:
        """``reading`` in words."""
        return f"depth {self.depth}" + (f", window {self.window}" if self.window else "")

    @property
    def decoding_note(self) -> str:
        """How files become pixels, for the log; empty if as bytes of R, G and B."""
        notes = [self.reading_note] if self.reading != AS_BYTES else []
        return "; ".join([*notes, NOTE] if self.channels == 1 else notes)

    @cached_property
    def transform(self) -> EvalTransform:
        """Resize and central crop of an image to classify.

        Raises:
            InputError: the crop cannot fit into the resized image, or a name is unknown; the views
                need a square image.
        """
        height, width = self.image_size
        if self.tta not in VIEWS:
            raise InputError(f'`tta` must be one of {", ".join(VIEWS)}, got "{self.tta}"')
        if self.tta == "dihedral" and height != width:
            raise InputError(
                f"`tta` dihedral needs square images, but `image_size` is {height},{width}"
            )
        resize = parse_eval_resize(self.eval_resize)
        fill = self.fill or self.mean_pixel
        grey = self.channels == 1
        return EvalTransform(*self.image_size, resize, self.interpolation, self.reading, fill, grey)

    @property
    def mean_pixel(self) -> tuple[int, int, int]:
        """The mean, rounded, as R, G and B."""
        red, green, blue = (round(level) for level in self.mean * (3 // self.channels))
        return red, green, blue

    def prepare(
        self,
        image: bytes | NDArray[np.uint8],
        out: NDArray[np.uint8],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Write the pixels of one image for the network.

        Args:
            image: encoded, or ``(h, w, 3)`` uint8 RGB.
            out: ``(*pixels_size, 3)`` uint8 RGB.
            max_pixels: maximum pixels of an encoded image; checked in the header first.

        Raises:
            InputError: it cannot be decoded, or is too large; the reason only.
        """
        prepare_evaluation(image, self.transform, out, max_pixels, five_crops=self._five_crops)

    def reader(self, dataset: ImageDataset) -> Callable[[int, NDArray[np.uint8]], None]:
        """The function that ``load_batches`` calls for each image of a dataset."""
        return evaluation_images(dataset, self.transform, self._five_crops)

    @property
    def pixels_size(self) -> tuple[int, int]:
        """Rows and columns of prepared pixels: the network's input, or five of them as rows."""
        height, width = self.image_size
        return (CROPS * height if self._five_crops else height), width

    @property
    def _five_crops(self) -> bool:
        return self.tta == "ten_crop"

    def views(self, images: Tensor) -> list[Tensor]:
        """The views ``(N, H, W, 3)`` of prepared pixels; the first is the central crop."""
        return views_of(images, self.tta)

    def central(self, images: Tensor) -> Tensor:
        """The central crop ``(N, H, W, 3)`` of prepared pixels."""
        return central(images, self.tta)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels ``(N, H, W, 3)`` uint8 to ``(N, C, H, W)`` float32 for the network.

        The three channels of a prepared grey image are equal; a grey network gets the first.
        """
        mean, std = _constants(self.mean, self.std, images.device)
        return normalise(images[..., : self.channels], mean, std)

    def renormalise(self, images: Tensor, before: "Preprocessing") -> Tensor:
        """Images that ``before`` has normalised, with this mean, std and channels instead.

        One channel becomes three equal ones. Three become Pillow's L without its rounding, because
        mixed images are no whole grey levels.
        """
        if (self.channels, before.channels) == (1, 3):
            mean, std = _constants(before.mean, before.std, images.device)
            shares = _constants(SHARES, SHARES, images.device)[0].view(3, 1, 1)
            levels = images * std.view(3, 1, 1) + mean.view(3, 1, 1)
            images, before = (levels * shares).sum(1, keepdim=True), _LEVELS
        mean, std = _constants(self.mean, self.std, images.device)
        mean_before, std_before = _constants(before.mean, before.std, images.device)
        scale, shift = std_before / std, (mean_before - mean) / std
        return images * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


# Of images that are not normalised, with one channel.
_LEVELS = Preprocessing((1, 1), "1,1", (0.0,), (1.0,))


@lru_cache(maxsize=16)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Both on the device, cached: a copy for every batch would make the host wait."""
    # Autograd could not use tensors created in inference mode later.
    with torch.inference_mode(False):
        # The caller's default type may be another, and these stay.
        return (
            torch.tensor(mean, dtype=torch.float32, device=device),
            torch.tensor(std, dtype=torch.float32, device=device),
        )
