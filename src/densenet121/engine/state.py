"""Where a training run stands, and how it is written down and taken up again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densenet121.checkpoint.native import ModelInfo, checkpoints_in, read, save
from densenet121.distributed.ranks import gather, sum_over_ranks, synchronised, world_size
from densenet121.network import DenseNet
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.utils.errors import InputError


@dataclass
class RunState:
    """Counters of a run.

    Attributes:
        step: optimiser updates done.
        evaluated_epochs: epochs that are done, their validation included.
        best_epoch: epoch (from 0) of the best top-1, None before the first validation.
        best_correct: images it got right.
        bad_images: path to reason of each image left out so far.
    """

    step: int
    evaluated_epochs: int
    best_epoch: int | None
    best_correct: int
    bad_images: dict[str, str]

    @classmethod
    def fresh(cls) -> "RunState":
        """Before the first step."""
        return cls(0, 0, None, -1, {})


class LossMeter:
    """Losses since the last log line, summed where they are computed: adding one never waits.

    Attributes:
        loss_sum: scalar float32 on the device, of the finite losses.
        bad_run: scalar int64 on the device, steps in a row whose loss was nan or infinite.
        steps: losses since the last log line.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), device=device)
        self.bad_run = torch.zeros((), dtype=torch.int64, device=device)
        self.steps = 0

    def add(self, loss: Tensor) -> None:
        """Count the loss of one step."""
        finite = loss.isfinite()
        self.loss_sum = self.loss_sum + torch.where(finite, loss, torch.zeros_like(loss))
        self.bad_run = (self.bad_run + 1) * ~finite
        self.steps += 1

    def mean(self) -> float:
        """Mean loss in nats per image, over all ranks; this waits for the device."""
        return float(sum_over_ranks(self.loss_sum)) / max(self.steps * world_size(), 1)

    def worst_bad_run(self) -> int:
        """Steps in a row, on the rank that has most of them; this waits for the device."""
        return max(gather(int(self.bad_run)))

    def of_all_ranks(self, alone: bool = False) -> Tensor:
        """``(world_size, 2)``: loss_sum and bad_run of each rank; ``alone``: of this one."""
        own = [float(self.loss_sum), float(self.bad_run)]
        return torch.tensor([own] if alone else gather(own), dtype=torch.float64)

    def take(self, of_all_ranks: Tensor, steps: int, rank: int) -> None:
        """Go on from what ``of_all_ranks`` gave, on another number of ranks from their mean."""
        same = len(of_all_ranks) == world_size()
        own = of_all_ranks[rank] if same else of_all_ranks.mean(dim=0)
        self.loss_sum = own[0].to(self.loss_sum)
        self.bad_run = own[1].to(self.bad_run)
        self.steps = steps

    def reset(self) -> None:
        """Start again after a log line. The run of bad losses goes on."""
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.steps = 0


@dataclass
class Training:
    """Everything that changes during a run: with the settings, all that it needs to go on."""

    model: DenseNet
    synchronised: nn.Module  # the same, its gradients averaged over the ranks
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    state: RunState
    losses: LossMeter

    @classmethod
    def begin(
        cls,
        model: DenseNet,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        scale_loss: bool,
        compress: bool = False,
    ) -> "Training":
        """Before the first step; the model is on its device and in its memory format."""
        first = next(model.parameters())
        device, side = first.device, model.min_image_size
        example = torch.zeros(1, 3, side, side, dtype=first.dtype, device=device)
        return cls(
            model=model,
            synchronised=synchronised(model, device, compress=compress, example=example),
            optimizer=momentum_sgd(get_param_groups(model, weight_decay), lr=lr, momentum=momentum),
            scaler=torch.amp.GradScaler(device.type, enabled=scale_loss),
            state=RunState.fresh(),
            losses=LossMeter(device),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found intact.

    Attributes:
        path: where it was read.
        tensors: weights, running statistics, momentum, losses not yet logged.
        content: counters, loss scale, and under ``run`` the settings and the data's fingerprint.
    """

    path: Path
    tensors: dict[str, Tensor]
    content: dict[str, Any]

    @property
    def info(self) -> ModelInfo:
        """What its weights are weights of."""
        return ModelInfo.from_json(self.content["model"])


def save_training(
    path: Path, training: Training, losses: Tensor, info: ModelInfo, run: Mapping[str, Any]
) -> None:
    """Write everything that is needed to go on.

    Args:
        path: of the checkpoint.
        training: what is saved.
        losses: not yet logged, as ``LossMeter.of_all_ranks`` gives them.
        info: what the weights are weights of.
        run: settings and data fingerprints, compared when the run is resumed.

    Raises:
        OSError: the file cannot be written; earlier checkpoints are untouched.
    """
    model, optimizer, state = training.model, training.optimizer, training.state
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    tensors["losses"] = losses
    content = {
        "model": info.to_json(),
        "origin": {"epochs": state.evaluated_epochs, "step": state.step},
        "state": asdict(state),
        "loss_steps": training.losses.steps,
        "scaler": training.scaler.state_dict(),
        "run": dict(run),
    }
    save(path, "checkpoint", tensors, content)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        InputError: it is missing, damaged, or not a checkpoint of this program.
    """
    _, tensors, content = read(path, "checkpoint")
    return Checkpoint(path, tensors, content)


def newest_checkpoint(folder: Path, rank: int) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint of a run folder, and a warning for each damaged newer one."""
    warnings: list[str] = []
    for path in checkpoints_in(folder, rank):
        try:
            return open_checkpoint(path), warnings
        except InputError as error:
            warnings.append(f"{error}; falling back to the checkpoint before it")
    return None, warnings


def restore(training: Training, checkpoint: Checkpoint, rank: int = 0) -> None:
    """Put a run back where the checkpoint left it, bit for bit."""
    tensors, content = checkpoint.tensors, checkpoint.content
    model, optimizer = training.model, training.optimizer
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights)
    for name, parameter in model.named_parameters():
        momentum = tensors.get(f"momentum.{name}")
        if momentum is not None:
            # In the parameter's own strides: a kernel that walks memory in another order may round
            # in another order, and the run would no longer be the same to the bit.
            buffer = torch.empty_like(parameter).copy_(momentum)
            optimizer.state[parameter]["momentum_buffer"] = buffer.detach()
    if content["scaler"]:
        training.scaler.load_state_dict(content["scaler"])
    training.state = RunState(**content["state"])
    if "losses" in tensors:
        training.losses.take(tensors["losses"], content["loss_steps"], rank)
    else:  # written before several ranks could train together
        alone = torch.stack([tensors["loss_sum"].double(), tensors["bad_run"].double()])
        training.losses.take(alone.view(1, 2), content["loss_steps"], rank)
