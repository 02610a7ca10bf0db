"""Averages of weights (Wortsman et al. 2022, "Model soups"), and their batch norm statistics."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densenet121.checkpoint.native import ModelInfo
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import load_batches
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import epoch_order, training_batches
from densenet121.network import DenseNet
from densenet121.runtime import Runtime
from densenet121.utils.errors import InputError
from densenet121.utils.progress import progress_bar

StateDict = Mapping[str, Tensor]


def check_same_kind(infos: Sequence[ModelInfo], names: Sequence[str]) -> None:
    """Refuse weights whose average has no meaning.

    Raises:
        InputError: network, variant, classes, task or preprocessing differ; the text names the
            first difference.
    """
    first = infos[0].to_json() | {"task": infos[0].task}
    for info, name in zip(infos[1:], names[1:], strict=True):
        other = info.to_json() | {"task": info.task}
        for key, value in _flat(first).items():
            found = _flat(other)[key]
            if found != value:
                raise InputError(
                    f"{name}: its {key} is {_short(found)}, but that of {names[0]} is "
                    f"{_short(value)}; only weights of one kind can be averaged"
                )


def _flat(content: Mapping[str, object]) -> dict[str, object]:
    preprocessing = content["preprocessing"]
    assert isinstance(preprocessing, Mapping)
    rest = {key: value for key, value in content.items() if key != "preprocessing"}
    return {**rest, **preprocessing}


def _short(value: object) -> str:
    if value in ((), []):
        return "not recorded"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"{len(value)} names, {', '.join(map(str, value[:8]))}, ..."
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def mean_of(members: Sequence[StateDict]) -> dict[str, Tensor]:
    """The mean of each tensor, computed in float64, in float32, whatever the members have.

    Integers are those of the first member.
    """
    averaged = {}
    for name, first in members[0].items():
        if not first.is_floating_point():
            averaged[name] = first.clone()
            continue
        total = first.double()
        for member in members[1:]:
            total = total + member[name].double()
        averaged[name] = (total / len(members)).float()
    return averaged


@torch.no_grad()
def estimate_statistics(
    model: DenseNet,
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    most: int,
    seed: int,
) -> int:
    """Replace the running statistics of every batch norm, and return the number of images used.

    They become the mean of the statistics of the batches (``torch.optim.swa_utils.update_bn``). The
    images are prepared as for evaluation, because that is how the network will see images, and
    weights do not record an augmentation. They are shuffled: the batches of a sorted folder would
    have one class each. All batches have the same size; the rest is not used.

    Args:
        model: on its device; in evaluation mode afterwards.
        dataset: the training images.
        preprocessing: how each image is prepared.
        runtime: device, arithmetic, batch size and workers.
        most: the largest number of images.
        seed: seed of the order.

    Raises:
        InputError: an image cannot be read.
    """
    preprocessing = preprocessing.changed(tta="none")  # one view
    order = epoch_order(len(dataset), seed, 0)[:most]
    batches = training_batches(order, runtime.batch_size)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    model.train()
    with progress_bar("batch norm", len(batches), unit="batch") as advance:
        for batch in load_batches(
            preprocessing.reader(dataset),
            batches,
            preprocessing.image_size,
            workers=runtime.workers,
            pin_memory=runtime.pins_memory,
        ):
            images = runtime.to_device(batch.images)
            with runtime.arithmetic():
                model.pooled(preprocessing.normalise(images))
            advance()
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return sum(len(batch) for batch in batches)
