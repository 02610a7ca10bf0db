"""The images of a run as ``torch.utils.data.Dataset``, for training loops of others."""

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from densenet121.checkpoint.load import read_weights
from densenet121.config import EvalConfig, TrainConfig, absolute
from densenet121.datasets.image_dataset import ImageDataset, check_num_classes
from densenet121.datasets.preparation import training_images
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import Indices
from densenet121.datasets.transforms import TrainTransform
from densenet121.engine.augmentation import make_transform
from densenet121.engine.balance import make_order
from densenet121.engine.eval_weights import fit_classes, load_for, task_and_names
from densenet121.engine.images import find_datasets, open_images
from densenet121.engine.plan import train_sizes
from densenet121.engine.setup import check_call, pick_preprocessing, pick_task
from densenet121.tasks import Task
from densenet121.utils.checks import check_type
from densenet121.utils.errors import InputError, UsageError


class Draw(NamedTuple):
    """An image of an epoch, which ``TorchDataset`` takes as an index.

    Attributes:
        epoch: from 0.
        number: index of the image; for another copy of it in this epoch plus a multiple of the
            number of images, as ``class_draws`` gives it.
    """

    epoch: int
    number: int


class _Augmentation(NamedTuple):
    """How training images differ from those of evaluation; an epoch decides the transform."""

    small: TrainTransform
    small_epochs: int
    full: TrainTransform
    seed: int
    order: Callable[[int], Indices]


class TorchDataset(Dataset[tuple[Any, ...]]):
    """The images of a source, prepared as by ``train`` or ``eval``, for ``DataLoader``.

    ``training_datasets`` and ``evaluation_dataset`` make it. An item is ``(image, label)``, or
    ``(image, label, id)``. The image is ``(C, H, W)`` float32, normalised; or ``(H, W, 3)`` uint8
    RGB, of which ``preprocessing.normalise`` makes the other for a whole batch on the device. The
    label is the index of the class, or with several labels a ``(K,)`` float32 tensor of 1, 0 or nan
    for not known. The id is the path of the image in its source, as in predictions.csv.

    Augmentation is a function of the seed, the epoch and the index: ``set_epoch`` before each epoch
    gives the images of that epoch of ``train``, to the bit, in any worker and any order.

    Attributes:
        class_names: names of the classes or labels.
        paths: the id of each image.
        task: what the labels mean; ``task.loss(logits, labels)`` is the loss of ``train``.
        preprocessing: sizes, mean and std.
    """

    def __init__(
        self,
        images: ImageDataset,
        task: Task,
        preprocessing: Preprocessing,
        augmentation: _Augmentation | None,
        reopen: Callable[[], ImageDataset],
        *,
        normalised: bool,
        ids: bool,
    ) -> None:
        """Called by ``training_datasets`` and ``evaluation_dataset``."""
        self.class_names, self.paths = images.class_names, images.paths
        self.task, self.preprocessing = task, preprocessing
        self._images: ImageDataset | None = images
        self._augmentation, self._reopen = augmentation, reopen
        self._normalised, self._ids = normalised, ids
        self._fingerprint = images.fingerprint if images.read_one else None
        # Shared, so that workers that live for several epochs see a change.
        self._epoch = torch.zeros((), dtype=torch.int64, device="cpu")
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        cv2.setNumThreads(1)  # workers use all cores; a forked one inherits this

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def epoch(self) -> int:
        """The epoch whose images an index gives."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Give the images of another epoch, from 0; also in workers that are running.

        Raises:
            InputError: the number is negative.
        """
        self._epoch.fill_(_checked_epoch(epoch))

    def __getitem__(self, index: int | Draw) -> tuple[Any, ...]:
        """An item.

        Args:
            index: of the image; or a ``Draw``, which also says the epoch.

        Raises:
            IndexError: there is no such image.
            InputError: it cannot be read.
        """
        epoch, draw = index if isinstance(index, Draw) else (self.epoch, self._place(index))
        number, images = draw % len(self), self.images
        pixels = self._pixels(images, epoch, draw)
        image = self.preprocessing.normalise(pixels.unsqueeze(0))[0] if self._normalised else pixels
        label: Tensor | int = self.task.targets(images, np.array([number]))[0]
        if isinstance(label, Tensor) and label.ndim == 0 and label.dtype == torch.int64:
            label = int(label)
        return (image, label, self.paths[number]) if self._ids else (image, label)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (self[index] for index in range(len(self)))

    @property
    def images(self) -> ImageDataset:
        """The source. A process that did not inherit it opens it again.

        Raises:
            InputError: it has changed since.
        """
        if self._images is None:
            self._images = self._reopen()
            if self._images.fingerprint != self._fingerprint:
                raise InputError(f"{self._images.source}: has changed since it was opened")
        return self._images

    @property
    def order(self) -> Callable[[int], Indices]:
        """Epoch to the order of its draws in training.

        Raises:
            UsageError: these images are for evaluation.
        """
        if self._augmentation is None:
            raise UsageError(
                "images for evaluation have no order of an epoch; use DataLoader without a sampler"
            )
        return self._augmentation.order

    def _place(self, index: int) -> int:
        return range(len(self))[operator.index(index)]

    def _pixels(self, images: ImageDataset, epoch: int, draw: int) -> Tensor:
        how = self._augmentation
        if how is None:
            out = torch.empty((*self.preprocessing.pixels_size, 3), dtype=torch.uint8, device="cpu")
            self.preprocessing.reader(images)(draw, out.numpy())
            return out
        transform = how.small if epoch < how.small_epochs else how.full
        out = torch.empty((transform.height, transform.width, 3), dtype=torch.uint8, device="cpu")
        training_images(images, transform, how.seed, epoch)(draw, out.numpy())
        return out

    def __getstate__(self) -> dict[str, Any]:
        """Without what reads a packed source: open files and functions stay in their process."""
        packed = self._images is None or self._images.read_one is not None
        return {**self.__dict__, "_images": None if packed else self._images}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        cv2.setNumThreads(1)


class EpochSampler(Sampler[Draw]):
    """The order of ``train``: a function of seed, epoch and the setting `sampler`.

    With ``batch_size`` and ``drop_last=True`` a ``DataLoader`` then gives the batches of ``train``.
    Each draw carries its epoch, so ``set_epoch`` of the dataset is not needed.
    """

    def __init__(self, dataset: TorchDataset, rank: int = 0, world_size: int = 1) -> None:
        """The share of one of several processes, which are of equal size.

        Args:
            dataset: training images.
            rank: number of this process, from 0.
            world_size: number of processes.

        Raises:
            UsageError: the images are for evaluation or of another class, or there is no such rank.
        """
        if not isinstance(dataset, TorchDataset):
            raise UsageError(
                f"`dataset` is a {type(dataset).__name__}, but a dataset of `training_datasets` is "
                "needed; for a part of its images pass it the setting `exclude`"
            )
        check_type("rank", rank, int, np.integer)
        check_type("world_size", world_size, int, np.integer)
        if not 0 <= rank < world_size:
            raise UsageError(f"`rank` must be from 0 to {world_size - 1}, got {rank}")
        self._order, self._count = dataset.order, len(dataset)
        self._rank, self._world_size, self.epoch = rank, world_size, 0

    def __len__(self) -> int:
        return self._count // self._world_size

    def set_epoch(self, epoch: int) -> None:
        """Give the order of another epoch, from 0.

        Raises:
            InputError: the number is negative.
        """
        self.epoch = _checked_epoch(epoch)

    def __iter__(self) -> Iterator[Draw]:
        epoch, shared = self.epoch, len(self) * self._world_size
        for number in self._order(epoch)[:shared][self._rank :: self._world_size].tolist():
            yield Draw(epoch, number)


def training_datasets(
    config: TrainConfig, task: Task | None = None, *, normalised: bool = True, ids: bool = False
) -> tuple[TorchDataset, TorchDataset | None]:
    """The training and the validation images of ``train(config)``; the latter may be None.

    Sources, labels, sizes, mean and std, augmentation, seed and loss are taken from the settings.
    Those of optimiser, schedule, devices and output are for the caller's loop.

    Args:
        config: settings of ``train``.
        task: the caller's own task.
        normalised: float32 tensors for the network; False gives uint8 pixels.
        ids: whether items have a third element, the id of the image.

    Raises:
        UsageError: a setting cannot be used, or needs whole batches.
        InputError: the images or weights cannot be used.
    """
    check_call(config, TrainConfig, task)
    _refuse_what_needs_batches(config)
    images, validation = find_datasets(config)
    check_num_classes(images, config.num_classes)
    task = pick_task(config, task, images)
    weights = read_weights(absolute(config.pretrained)) if config.pretrained else None
    weights = weights.with_channels(config.channels) if weights else None
    preprocessing = pick_preprocessing(config, None, weights, images)
    small, full = (
        make_transform(config, *size, preprocessing) for size in train_sizes(config, preprocessing)
    )
    order = make_order(config, images)
    how = _Augmentation(small, config.small_epochs, full, config.seed, order)

    def view(side: int, found: ImageDataset, how: _Augmentation | None) -> TorchDataset:
        reopen = partial(_training_side, config, side)
        return TorchDataset(found, task, preprocessing, how, reopen, normalised=normalised, ids=ids)

    return view(0, images, how), view(1, validation, None) if validation else None


def evaluation_dataset(
    config: EvalConfig, task: Task | None = None, *, normalised: bool = True, ids: bool = False
) -> TorchDataset:
    """The images of ``evaluate(config)``, prepared as its weights need them.

    Args:
        config: settings of ``eval``; `pretrained` is one file.
        task: the caller's own task.
        normalised: float32 tensors for the network; False gives uint8 pixels.
        ids: whether items have a third element, the id of the image.

    Raises:
        UsageError: a setting cannot be used, or needs whole batches.
        InputError: the images or weights cannot be used.
    """
    check_call(config, EvalConfig, task)
    if config.on_bad_image == "skip":
        raise UsageError(_SKIP)
    if config.tta not in (None, "none"):
        raise UsageError(f"`tta` {config.tta}: an item is one image, not several views; omit it")
    images, classified = _evaluation_side(config, task)
    return TorchDataset(
        images,
        classified[0],
        classified[1],
        None,
        partial(_evaluation_images, config, task),
        normalised=normalised,
        ids=ids,
    )


_SKIP = (
    "`on_bad_image` skip: a dataset has a fixed number of images; leave the bad ones out by "
    "`exclude`, for which densenet121 audit writes the file"
)


def _refuse_what_needs_batches(config: TrainConfig) -> None:
    """Refuse settings that change the images, but not image by image.

    Raises:
        UsageError: the text names the setting.
    """
    if config.on_bad_image == "skip":
        raise UsageError(_SKIP)
    for name in ("mixup", "cutmix"):
        if config.is_on(name):
            raise UsageError(
                f"`{name}` mixes the images of a batch, and an item is one image; pass `{name}` 0 "
                "and mix in your loop"
            )
    if config.resume:
        raise UsageError("`resume` is for train; a loop of your own restores its own state")


def _training_side(config: TrainConfig, side: int) -> ImageDataset:
    found = find_datasets(config)[side]
    if found is None:
        raise InputError(f"{config.data_dir}: has no validation images any more")
    return found


def _evaluation_side(
    config: EvalConfig, task: Task | None
) -> tuple[ImageDataset, tuple[Task, Preprocessing]]:
    """The images with the classes of the weights, and the weights' task and preprocessing."""
    file = absolute(config.pretrained)
    weights = read_weights(file)
    name, class_names = task_and_names(weights, [file], task)
    images = fit_classes(open_images(config, name, class_names), weights, file)
    check_num_classes(images, config.num_classes)
    classifier, images = load_for(weights, file, config, images, task)
    preprocessing = classifier.preprocessing.changed(tta="none")
    return images, (classifier.task, preprocessing)


def _evaluation_images(config: EvalConfig, task: Task | None) -> ImageDataset:
    return _evaluation_side(config, task)[0]


def _checked_epoch(epoch: int) -> int:
    check_type("epoch", epoch, int, np.integer)
    if epoch < 0:
        raise InputError(f"`epoch` counts from 0, got {epoch}")
    return epoch
