"""Features of a frozen network: computed once, classified by any linear layer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import load_batches
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import evaluation_batches
from densenet121.network import DenseNet, constant_network
from densenet121.network.fused import classify
from densenet121.runtime import Runtime
from densenet121.utils.errors import InputError
from densenet121.utils.progress import progress_bar


@dataclass(frozen=True)
class Features:
    """Pooled features of the images of a dataset, ``F`` each.

    Attributes:
        batches: ``(N, F)`` for each batch of an evaluation, in the dtype that the network computed.
        indices: ``(num_images,)`` index into the dataset of each image, ascending.
        bad: (path, reason) of each image that could not be read.
    """

    batches: tuple[Tensor, ...]
    indices: NDArray[np.int64]
    bad: tuple[tuple[str, str], ...]

    @property
    def values(self) -> NDArray[np.float32]:
        """All features, ``(num_images, F)``."""
        return np.concatenate([batch.float().numpy() for batch in self.batches])

    @torch.inference_mode()
    def logits(self, head: nn.Linear, runtime: Runtime) -> list[Tensor]:
        """Logits ``(N, C)`` of each batch for a head on the device, to the bit those of ``eval``.

        The head sees the batches, the dtype and the arithmetic of an evaluation with the same
        ``Runtime``.
        """
        with runtime.arithmetic():
            found = [classify(head, batch.to(runtime.device)) for batch in self.batches]
        return [logits.float().cpu() for logits in found]


@torch.inference_mode()
def compute_features(
    model: DenseNet,
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    skip_bad: bool = False,
    name: str = "features",
) -> Features:
    """The features of every image, prepared as in an evaluation.

    Args:
        model: the network, in evaluation mode and on its device.
        dataset: the images.
        preprocessing: how each image is prepared.
        runtime: device, arithmetic, batch size and workers.
        skip_bad: skip images that cannot be read, and list them.
        name: text of the progress bar.

    Raises:
        InputError: an image cannot be read, none can, or a feature is nan or infinite.
    """
    preprocessing = preprocessing.changed(tta="none")  # one view
    batches = evaluation_batches(len(dataset), runtime.batch_size)
    found: list[Tensor] = []
    indices: list[NDArray[np.int64]] = []
    bad: list[tuple[str, str]] = []
    advance: Callable[..., None]
    with constant_network(model), progress_bar(name, len(batches), unit="batch") as advance:
        for batch in load_batches(
            preprocessing.reader(dataset),
            batches,
            preprocessing.image_size,
            workers=runtime.workers,
            skip_bad=skip_bad,
            pin_memory=runtime.pins_memory,
        ):
            bad += [(dataset.paths[index], reason) for index, reason in batch.bad]
            if len(batch.indices):
                images = runtime.to_device(batch.images)
                with runtime.arithmetic():
                    pooled = model.pooled(preprocessing.normalise(images)).cpu()
                if not bool(torch.isfinite(pooled).all()):
                    raise InputError("the weights give nan or infinite features; try `amp` fp32")
                found.append(pooled)
                indices.append(batch.indices)
            advance()
    if not found:
        raise InputError(f"{dataset.root}: none of the {len(dataset)} images can be read")
    return Features(tuple(found), np.concatenate(indices), tuple(bad))
