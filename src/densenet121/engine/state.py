"""The state of a training run, and how it is saved and restored."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densenet121.distributed.ranks import any_rank, gather, sum_over_ranks, synchronised, world_size
from densenet121.lr_scheduler import Progress
from densenet121.network import DenseNet, set_frozen
from densenet121.network.compiled import Compile, compiled, uncompiled
from densenet121.network.graphs import GraphedNetwork
from densenet121.optimizers import AveragedWeights, optimizer_state, restore_optimizer
from densenet121.runs.checkpoints import Checkpoint
from densenet121.runs.folder import RunFolder
from densenet121.utils.errors import InputError, UsageError


@dataclass
class RunState:
    """Counters of a run.

    Attributes:
        step: optimiser updates done.
        evaluated_epochs: epochs done, including their validation.
        best_epoch: epoch (from 0) of the best validation, None before the first one.
        best: metrics of that validation.
        bad_images: path to reason of each training image skipped so far.
        best_average_epoch: epoch of the best validation of the averaged weights.
        best_average: metrics of that validation.
        progress: whether validations still improve.
        bad_val_images: as ``bad_images``, of the validation; in older checkpoints they are there.
    """

    step: int
    evaluated_epochs: int
    best_epoch: int | None
    best: dict[str, Any] | None
    bad_images: dict[str, str]
    best_average_epoch: int | None = None
    best_average: dict[str, Any] | None = None
    progress: Progress = field(default_factory=Progress)
    bad_val_images: dict[str, str] = field(default_factory=dict)

    def is_done(self, max_epoch: int) -> bool:
        """Whether no epoch is left, or patience has ended the run."""
        return self.progress.ended or self.evaluated_epochs >= max_epoch

    @property
    def unreadable(self) -> tuple[dict[str, str], dict[str, str]]:
        """The training and the validation images that were skipped."""
        return self.bad_images, self.bad_val_images

    def forget(self, fields: Iterable[str]) -> None:
        """Forget these best validations, so that the next one is the best."""
        for name in fields:
            setattr(self, name, None)
            setattr(self, f"{name}_epoch", None)

    @classmethod
    def fresh(cls) -> "RunState":
        """The counters before the first step."""
        return cls(0, 0, None, None, {})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunState":
        """Read from a checkpoint; in older ones the best result is only ``best_correct``."""
        found = dict(content)
        if "best_correct" in found:
            correct = found.pop("best_correct")
            found["best"] = None if found["best_epoch"] is None else {"top1_correct": correct}
        progress = Progress(**found.pop("progress", {}))
        return cls(**found, progress=progress)


class LossMeter:
    """Losses since the last log line, summed on the device so that adding one never waits.

    Attributes:
        loss_sum: scalar float32 on the device, sum of the finite losses times their weights.
        weight: scalar float32 on the device, sum of these weights.
        bad: scalar int64 on the device, number of the others, which are nan or infinite.
        bad_run: scalar int64 on the device, consecutive steps with such a loss.
        steps: number of losses since the last log line.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float32, device=device)
        self.weight = torch.zeros((), dtype=torch.float32, device=device)
        self.bad = torch.zeros((), dtype=torch.int64, device=device)
        self.bad_run = torch.zeros((), dtype=torch.int64, device=device)
        self.steps = 0

    def add(self, loss: Tensor, weight: float = 1.0) -> None:
        """Count the loss of one step.

        Args:
            loss: of this rank, already multiplied by the rank's weight (``train_step``).
            weight: of the step in the mean; all ranks give the same.
        """
        finite = loss.isfinite()
        self.loss_sum = self.loss_sum + torch.where(finite, loss, torch.zeros_like(loss)) * weight
        self.weight = self.weight + finite * weight
        self.bad = self.bad + ~finite
        self.bad_run = (self.bad_run + 1) * ~finite
        self.steps += 1

    def mean(self) -> float:
        """Mean of the finite losses over all ranks, nan without weight. Waits for the device."""
        own = torch.stack([self.loss_sum, self.weight])
        total, weight = sum_over_ranks(own).tolist()
        return float(total / weight) if weight else math.nan

    def longest_bad_run(self) -> int:
        """The largest ``bad_run`` of all ranks. This waits for the device."""
        return max(gather(int(self.bad_run)))

    def of_all_ranks(self, alone: bool = False) -> Tensor:
        """``(world_size, 4)``: loss_sum, bad_run, bad and weight of each rank; ``alone``: of this.

        One rank alone stands for all of them.
        """
        ranks = world_size() if alone else 1
        own = [float(self.loss_sum) * ranks, float(self.bad_run), float(self.bad)]
        own.append(float(self.weight) * ranks)
        return torch.tensor([own] if alone else gather(own), dtype=torch.float64)

    def restore(self, of_all_ranks: Tensor, steps: int, rank: int) -> None:
        """Restore the result of ``of_all_ranks``; with another number of ranks, equal parts of it.

        Older checkpoints have only two columns, or three; there each finite loss weighs 1.
        """
        columns = of_all_ranks.T
        bad = columns[2] if len(columns) > 2 else torch.zeros_like(columns[0])
        weight = columns[3] if len(columns) > 3 else steps - bad
        sums, counts = torch.stack([columns[0], weight]), torch.stack([columns[1], bad])
        same = len(of_all_ranks) == world_size()
        of_sums = sums[:, rank] if same else sums.sum(dim=1) / world_size()
        of_counts = counts[:, rank] if same else counts.mean(dim=1)
        self.loss_sum, self.weight = (own.to(self.loss_sum) for own in of_sums)
        self.bad_run, self.bad = (own.to(self.bad) for own in of_counts)
        self.steps = steps

    def reset(self) -> None:
        """Start again after a log line; ``bad_run`` is kept."""
        self.loss_sum, self.weight = torch.zeros_like(self.loss_sum), torch.zeros_like(self.weight)
        self.bad, self.steps = torch.zeros_like(self.bad), 0


@dataclass
class Training:
    """Everything that changes during a run. Together with the settings it is enough to resume."""

    model: DenseNet
    synchronised: nn.Module  # the same model, with gradients averaged over the ranks
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    state: RunState
    losses: LossMeter
    compress: bool = False
    compile: Compile = "off"
    graphs: bool = False
    exact: bool = True
    average: AveragedWeights | None = None
    frozen: tuple[str, ...] = ()

    @classmethod
    def begin(
        cls,
        model: DenseNet,
        optimizer: Optimizer,
        *,
        scale_loss: bool,
        compress: bool = False,
        compile: Compile = "off",
        graphs: bool = False,
        exact: bool = True,
        ema_decay: float | None = None,
        frozen: tuple[str, ...] = (),
    ) -> "Training":
        """The state before the first step.

        Args:
            model: already on its device and in its memory format.
            optimizer: the optimiser of its parameters.
            scale_loss: whether float16 needs a loss scale.
            compress: exchange gradients as bfloat16.
            compile: how training passes are compiled, see ``compiled``.
            graphs: run training passes as CUDA graphs.
            exact: compile to the same kernels in every run.
            ema_decay: decay of the averaged weights; None: there are none.
            frozen: names of the stages that are frozen.
        """
        device = next(model.parameters()).device
        average = None if ema_decay is None else AveragedWeights(model, ema_decay)
        return cls(
            model=model,
            synchronised=_synchronised(model, compress, compile, graphs, exact),
            optimizer=optimizer,
            scaler=torch.amp.GradScaler(device.type, enabled=scale_loss),
            state=RunState.fresh(),
            losses=LossMeter(device),
            compress=compress,
            compile=compile,
            graphs=graphs,
            exact=exact,
            average=average,
            frozen=frozen,
        )

    def freeze(self, names: tuple[str, ...], norms: str) -> bool:
        """Freeze these stages and thaw all others; whether that changed anything.

        Args:
            names: names of the stages.
            norms: which batch norms have fixed statistics, see ``set_frozen``.
        """
        if names == self.frozen:
            return False
        set_frozen(self.model, names, norms)
        self.frozen = names
        # The exchange of gradients is prepared for the weights that learn. The old one must be gone
        # before: both would hook into the same weights.
        self.synchronised = self.model
        self.synchronised = _synchronised(
            self.model, self.compress, self.compile, self.graphs, self.exact
        )
        return True


def _synchronised(
    model: DenseNet, compress: bool, compile: Compile, graphs: bool, exact: bool
) -> nn.Module:
    if graphs:
        if world_size() > 1:
            raise UsageError(
                "`cuda_graphs` 1 is for one process: the exchange of gradients between "
                f"{world_size()} is not part of a graph; pass `cuda_graphs` 0"
            )
        return GraphedNetwork(model)
    first = next(model.parameters())
    side = model.min_image_size
    shape = (1, model.in_channels, side, side)
    example = torch.zeros(shape, dtype=first.dtype, device=first.device)
    if compile == "off":
        return synchronised(model, first.device, compress=compress, example=example)
    with uncompiled():  # the example has a size that no step has
        network = compiled(model, compile, exact=exact)
        return synchronised(network, first.device, compress=compress, example=example)


def snapshot(training: Training, losses: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that a resume needs: tensors in named sets, and JSON values.

    Args:
        training: the state to save.
        losses: losses not yet logged, from ``LossMeter.of_all_ranks``.
    """
    state = training.state
    optimizer, values = optimizer_state(training.model, training.optimizer)
    sets = {"model": training.model.state_dict(), "optimizer": optimizer}
    if training.average is not None:
        sets["average"] = training.average.model.state_dict()
    tensors = {f"{name}.{key}": t for name, found in sets.items() for key, t in found.items()}
    content = {
        "origin": {"epochs": state.evaluated_epochs, "step": state.step},
        "state": asdict(state),
        "loss_steps": training.losses.steps,
        "scaler": training.scaler.state_dict(),
        "optimizer": values,
    }
    return tensors | {"losses": losses}, content


def share_bad_images(state: RunState) -> None:
    """Tell every rank which images the others have skipped. All ranks call this together."""
    for bad_images in gather(state.bad_images):
        state.bad_images.update(bad_images)


def check_finite(training: Training, folder: RunFolder, *, alone: bool = False) -> None:
    """Refuse weights and running statistics that are nan or infinite, which no command would take.

    All ranks call this together, because their statistics differ, except with ``alone``.

    Raises:
        InputError: one is; the text names the last good checkpoint.
    """
    model = training.model
    for what, tensors in (
        ("weights", list(model.parameters())),
        ("running statistics of batch norm", [b for b in model.buffers() if b.is_floating_point()]),
    ):
        # One wait for the device.
        bad = bool(tensors) and not bool(torch.stack([t.isfinite().all() for t in tensors]).all())
        if bad if alone else any_rank(bad):
            raise InputError(
                f"{what} are nan or infinite after step {training.state.step - 1}; {folder.good}; "
                "a lower `lr` or `warmup_epochs` may help"
            )


def save_checkpoint(training: Training, folder: RunFolder, *, alone: bool = False) -> Path:
    """Write the whole state into the run folder and return the path of the checkpoint.

    All ranks call this together, except with ``alone``, for an error on one rank. A rank that does
    not save returns the path too.

    Raises:
        InputError: the weights or running statistics are nan or infinite, or the file cannot be
            written; the text names the last good checkpoint.
    """
    step = training.state.step
    check_finite(training, folder, alone=alone)
    losses = training.losses.of_all_ranks(alone)
    if not alone:
        share_bad_images(training.state)
    if not folder.saves:
        return folder.checkpoint_path(step)
    return folder.write_checkpoint(step, *snapshot(training, losses))


def restore(training: Training, checkpoint: Checkpoint, rank: int = 0) -> None:
    """Restore the state from the checkpoint, bit for bit."""
    tensors, content = checkpoint.tensors, checkpoint.content
    training.model.load_state_dict(checkpoint.set_of("model"))
    if training.average is not None:
        training.average.model.load_state_dict(checkpoint.set_of("average"))
    # Old checkpoints contain only the momentum of SGD, then the only optimiser.
    momentum = {f"{k}.momentum_buffer": v for k, v in checkpoint.set_of("momentum").items()}
    restore_optimizer(
        training.model,
        training.optimizer,
        checkpoint.set_of("optimizer") or momentum,
        content.get("optimizer", {}),
    )
    if content["scaler"]:
        training.scaler.load_state_dict(content["scaler"])
    training.state = RunState.from_json(content["state"])
    if "losses" in tensors:
        training.losses.restore(tensors["losses"], content["loss_steps"], rank)
    else:  # written before training on several ranks was possible
        alone = torch.stack([tensors["loss_sum"].double(), tensors["bad_run"].double()])
        training.losses.restore(alone.view(1, 2), content["loss_steps"], rank)
