"""One training step: forward and backward passes, one update of the weights."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densenet121.device import arithmetic
from densenet121.distributed.ranks import keep_gradients_local
from densenet121.losses.mixing import Mix
from densenet121.utils.errors import InputError


class TrainingBatch(NamedTuple):
    """Inputs of one forward pass.

    Attributes:
        images: ``(N, 3, H, W)`` float32, normalised.
        targets: ``(N, ...)``, targets of the loss.
        share: share of this batch in the step's weight on this rank.
        teacher: ``(N, K)`` logits of another network, if the loss function takes them.
        mix: how the images were mixed; the targets are those of the images before.
    """

    images: Tensor
    targets: Tensor
    share: float
    teacher: Tensor | None = None
    mix: Mix | None = None


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[TrainingBatch],
    loss_function: Callable[..., Tensor],
    *,
    micro_batches: int = 1,
    lr: float,
    precision: torch.dtype,
    weight: float = 1.0,
    clip_grad: float | None = None,
) -> Tensor:
    """Update the weights once. The loss stays on the device: nothing here waits for it.

    Args:
        model: images to logits, in training mode.
        optimizer: the optimiser of the model's parameters.
        scaler: loss scale; disabled unless ``precision`` is float16.
        batches: one for each forward pass, read one at a time.
        loss_function: logits and targets, and the teacher's logits of batches that have them, to
            the weighted mean of the losses.
        micro_batches: number of batches; the ranks exchange gradients only in the last one.
        lr: learning rate of this step, before the factor of each group of parameters.
        precision: dtype of the network's arithmetic; weights and optimiser state stay float32.
        weight: weight of this rank's loss in the mean over the ranks.
        clip_grad: largest length of the gradient of all weights together; None: any.

    Returns:
        The mean loss before the update times ``weight``, a scalar without gradient: its mean over
        the ranks is the mean over all their images.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for number, (images, targets, share, teacher, mix) in enumerate(batches, start=1):
        with keep_gradients_local(model, number < micro_batches):
            with arithmetic(images.device, precision):
                logits = model(images)
            learnt_from = (targets,) if teacher is None else (targets, teacher)
            if mix:
                loss = mix.loss(loss_function, logits, *learnt_from)
            else:
                loss = loss_function(logits, *learnt_from)
            _check_loss(loss)
            factor = weight * share
            torch.autograd.backward(scaler.scale(loss if factor == 1 else loss * factor))
        losses.append(loss.detach() if factor == 1 else loss.detach() * factor)
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, clip_grad)
    # Skips the update where a scaled gradient overflowed.
    scaler.step(optimizer)
    scaler.update()
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _check_loss(loss: object) -> None:
    """Refuse what a task of a caller's own gave as its loss and backward cannot begin at.

    Raises:
        InputError: it is no scalar tensor, or does not depend on the logits.
    """
    if not isinstance(loss, Tensor):
        found = type(loss).__name__
    elif loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}"
    elif not loss.requires_grad:
        found = "a tensor without gradient"
    else:
        return
    raise InputError(
        f"the `loss` of the task gave {found}; it must give a scalar tensor, the mean over the "
        "batch, computed from the logits by torch"
    )
