"""A network with weights, and everything that its images go through."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from densenet121.checkpoint.load import Weights, load_state, read_weights
from densenet121.datasets.transforms import (
    MEAN,
    STD,
    EvalTransform,
    normalise,
    parse_eval_resize,
)
from densenet121.device import arithmetic
from densenet121.network import Variant, build
from densenet121.tasks.single_label.calibration import Calibration
from densenet121.utils.errors import InputError, UsageError

_ORIGINAL_SIZE, _ORIGINAL_RESIZE = (224, 224), "256,256"


@dataclass(frozen=True)
class Classifier:
    """What is asked about images.

    Attributes:
        model: normalised images ``(N, 3, H, W)`` to logits ``(N, C)``; in evaluation mode.
        class_names: of the logits; their numbers where the weights do not tell names.
        transform: what each image goes through before.
        mean: ``(3,)`` of R, G, B, in grey levels.
        std: likewise.
        net: name of the network.
        variant: paper or model_zoo.
        calibration: what `calibrate` stored with the weights, if it did.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    transform: EvalTransform
    mean: Tensor
    std: Tensor
    net: str
    variant: Variant
    calibration: Calibration | None = None


def load_classifier(
    file: Path,
    *,
    net: str = "densenet121",
    variant: Variant | None = None,
    image_size: tuple[int, int] | None = None,
    eval_resize: str | None = None,
    interpolation: str | None = None,
) -> Classifier:
    """Read a weights file and build what its images go through.

    Raises:
        InputError: the file cannot be used; UsageError where a flag contradicts it.
    """
    return make_classifier(
        read_weights(file),
        file,
        net=net,
        variant=variant,
        image_size=image_size,
        eval_resize=eval_resize,
        interpolation=interpolation,
    )


def make_classifier(
    weights: Weights,
    file: Path,
    *,
    net: str,
    variant: Variant | None,
    image_size: tuple[int, int] | None,
    eval_resize: str | None,
    interpolation: str | None = None,
) -> Classifier:
    """Build from weights that were read; what is given goes before what the file tells.

    Args:
        weights: the file's content.
        file: its path, for errors.
        net: the network, for weights that do not tell it.
        variant: likewise; a contradiction is refused.
        image_size: height and width of the network's input, pixels.
        eval_resize: as --eval_resize has it.
        interpolation: as --interpolation has it.

    Raises:
        InputError: the weights cannot be used; UsageError where a flag contradicts them.
    """
    info = weights.info
    if weights.num_classes is None:
        raise InputError(f'{file}: no "classifier.weight": not the weights of a DenseNet')
    if info and variant and variant != info.variant and weights.variant_is_certain:
        raise UsageError(
            f"--variant is {variant}, but {file} holds weights of {info.variant}, which "
            f"give garbage in the other; pass --variant {info.variant} or leave it out"
        )
    net, variant = info.net if info else net, weights.variant_for(variant)
    model = build(net, num_classes=weights.num_classes, variant=variant)
    load_state(model, weights.state_dict, file)
    size = image_size or (info.preprocessing.image_size if info else _ORIGINAL_SIZE)
    resize = eval_resize or (info.preprocessing.eval_resize if info else _ORIGINAL_RESIZE)
    rule = interpolation or (info.preprocessing.interpolation if info else "opencv_bilinear")
    if min(size) < model.min_image_size:
        raise UsageError(
            f"--image_size must be at least {model.min_image_size} for {net}, got {size}"
        )
    return Classifier(
        model=model.eval(),
        class_names=(info.class_names if info else ())
        or tuple(map(str, range(weights.num_classes))),
        transform=EvalTransform(*size, parse_eval_resize(resize), rule),
        mean=torch.tensor(info.preprocessing.mean) if info else MEAN,
        std=torch.tensor(info.preprocessing.std) if info else STD,
        net=net,
        variant=variant,
        calibration=Calibration.from_json(weights.calibration) if weights.calibration else None,
    )


def logits_of(
    model: nn.Module,
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    device: torch.device,
    precision: torch.dtype,
) -> Tensor:
    """Logits ``(N, C)`` of uint8 images ``(N, H, W, 3)``: float32, on the CPU."""
    images = normalise(images.to(device, non_blocking=True), mean, std)
    with arithmetic(device, precision):
        logits: Tensor = model(images)
    return logits.float().cpu()
