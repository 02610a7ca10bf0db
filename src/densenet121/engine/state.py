"""Where a training run stands, and how it is written down and taken up again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from densenet121.checkpoint.native import ModelInfo, checkpoints_in, read, save
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
        best_correct: pictures it got right.
        bad_images: path to reason of each picture left out so far.
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
        """Mean loss in nats per picture; this waits for the device."""
        return float(self.loss_sum) / max(self.steps, 1)

    def reset(self) -> None:
        """Start again after a log line. The run of bad losses goes on."""
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.steps = 0


@dataclass
class Training:
    """Everything that changes during a run: with the settings, all that it needs to go on."""

    model: DenseNet
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    state: RunState
    losses: LossMeter

    @classmethod
    def begin(
        cls, model: DenseNet, *, lr: float, momentum: float, weight_decay: float, scale_loss: bool
    ) -> "Training":
        """Before the first step; the model is on its device and in its memory format."""
        device = next(model.parameters()).device
        return cls(
            model=model,
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


def save_training(path: Path, training: Training, info: ModelInfo, run: Mapping[str, Any]) -> None:
    """Write everything that is needed to go on.

    Args:
        path: of the checkpoint.
        training: what is saved.
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
    tensors["loss_sum"] = training.losses.loss_sum
    tensors["bad_run"] = training.losses.bad_run
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


def restore(training: Training, checkpoint: Checkpoint) -> None:
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
    losses = training.losses
    losses.loss_sum = tensors["loss_sum"].to(losses.loss_sum.device)
    losses.bad_run = tensors["bad_run"].to(losses.bad_run.device)
    losses.steps = content["loss_steps"]
