"""The LR-range test (Smith 2015, "Cyclical Learning Rates for Training Neural Networks", 3.3)."""

import itertools
import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from densenet121.config import LrFindConfig
from densenet121.datasets.loader import Batch
from densenet121.device import set_exact
from densenet121.engine.build import build_training
from densenet121.engine.epoch import can_train_on, load_epoch, run_step
from densenet121.engine.images import find_datasets
from densenet121.engine.loading import LoadingClock
from densenet121.engine.plan import EpochPlan
from densenet121.engine.setup import pick_task
from densenet121.engine.start import first_weights
from densenet121.engine.state import Training
from densenet121.runs.checkpoints import Start
from densenet121.runtime import Runtime, joined
from densenet121.tasks import Task
from densenet121.utils.errors import InputError
from densenet121.utils.progress import progress_bar

_SMOOTHING = 0.95  # share of the past in the smoothed loss
_DIVERGED = 4  # times the lowest smoothed loss, as in fastai
_LEAD = 10  # the smoothed loss has settled after a tenth of the steps
_LEAST_STEPS = 5  # of a fall
_MOST_EMPTY_EPOCHS = 3  # without a known label; one may leave out the few images that have any

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LrRange:
    """Learning rates that were tried, and the loss at each.

    Attributes:
        rates: ``(num_steps,)``, rising.
        losses: training loss of each step, before its update.
        smoothed: their exponential mean, see ``smooth``.
        diverged: whether the test ended because the loss diverged.
        bad_images: path to reason of each image that was skipped.
    """

    rates: Values
    losses: Values
    smoothed: Values
    diverged: bool
    bad_images: dict[str, str] = field(default_factory=dict)

    @property
    def fell(self) -> bool:
        """Whether the smoothed loss fell at all, for five steps or more."""
        first, last = self._falling
        return last - first >= _LEAST_STEPS

    @property
    def is_clear(self) -> bool:
        """Whether it fell by more than its noise explains.

        The smoothed loss must fall, from where it has settled to its lowest value, by more than
        three times the standard error of the difference of the two, which comes from the scatter of
        the losses: they are means of ``first`` and of about 39 losses.
        """
        first, last = self._falling
        if not self.fell:
            return False
        scatter = np.std(self.losses[first:last] - self.smoothed[first:last])
        error = scatter * math.sqrt(1 / first + (1 - _SMOOTHING) / (1 + _SMOOTHING))
        return bool(self.smoothed[first] - self.smoothed[last] > 3 * error)

    @property
    def tenth_of_lowest(self) -> float:
        """A tenth of the rate with the lowest smoothed loss."""
        return float(self.rates[self._falling[1]]) / 10

    @property
    def steepest(self) -> float:
        """Rate, up to that of the lowest smoothed loss, at which the loss falls fastest.

        That is where the least-squares line of loss over log rate is steepest; it goes through the
        losses at rates up to ``sqrt(10)`` times larger or smaller.
        """
        first, last = self._falling
        x = np.log10(self.rates)
        slopes = []
        for at in range(first, last + 1):
            near = (np.abs(x - x[at]) <= 0.5 + 1e-9) & (np.arange(len(x)) <= last)
            dx = x[near] - x[near].mean()
            slopes.append(float((dx * self.losses[near]).sum() / max((dx**2).sum(), 1e-12)))
        return float(self.rates[first + int(np.argmin(slopes))])

    @property
    def _falling(self) -> tuple[int, int]:
        """Steps at which the smoothed loss has settled, and at which it is lowest after that."""
        first = min(-(-len(self.rates) // _LEAD), len(self.rates) - 1)
        return first, first + int(np.argmin(self.smoothed[first:]))


def rates_between(low: float, high: float, count: int) -> Values:
    """``count`` rates from ``low`` to ``high``, each the same factor above the one before."""
    return low * (high / low) ** (np.arange(count) / (count - 1))


def smooth(losses: Sequence[float]) -> Values:
    """The exponential mean of the losses up to each, without the bias of its start.

    ``m_t = 0.95 m_(t-1) + 0.05 l_t`` from ``m = 0``, divided by ``1 - 0.95^t`` (t from 1).
    """
    mean, found = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        found.append(mean / (1 - _SMOOTHING**step))
    return np.array(found)


def find_lr(config: LrFindConfig, task: Task | None = None) -> LrRange:
    """Train a network for some steps while the learning rate rises. Nothing is saved.

    Images, augmentation and their order are those of the first epochs of ``train``. A freeze that
    ends after some epochs is taken as ended; small images and mixing do not end, since the loss
    would change there at any rate.

    Args:
        config: the settings.
        task: what the labels mean (default: one class per image).

    Raises:
        UsageError: a setting cannot be used.
        InputError: data or weights cannot be used, no label of the images that can be read is
            known, or the loss is infinite from the start.
    """
    refusal = (
        "lr-find runs in one process; for the batch of several, pass `gradient_accumulation` of "
        "their number"
    )
    with joined(config, refusal=refusal) as runtime:
        set_exact(runtime.device, bool(config.exact))
        training, plan = _begin(config, task, runtime)
        rates = rates_between(config.lr_min, config.lr_max, config.steps)
        losses: list[float] = []
        diverged = False
        parts = _parts(training, plan)
        with progress_bar("learning rates", len(rates)) as advance:
            for rate in rates:
                loss = _next_loss(training, plan, parts, float(rate))
                diverged = not math.isfinite(loss)
                if diverged:
                    break
                losses.append(loss)
                smoothed = smooth(losses)
                diverged = bool(smoothed[-1] > _DIVERGED * smoothed.min())
                advance(note=f"loss {smoothed[-1]:.3f}")
                if diverged:
                    break
        parts.close()
    if not losses:
        raise InputError("the loss of the first step is nan or infinite; pass a smaller `lr_min`")
    bad = training.state.bad_images
    return LrRange(rates[: len(losses)], np.array(losses), smooth(losses), diverged, bad)


def _begin(config: LrFindConfig, task: Task | None, runtime: Runtime) -> tuple[Training, EpochPlan]:
    """The state before the first step, and the plan, as ``train`` makes them but for their ends."""
    dataset, _ = find_datasets(config)
    task = pick_task(config, task, dataset)
    weights = first_weights(config, Start(None, None))
    _, training, plan, _ = build_training(config, task, dataset, runtime, weights)
    training.freeze(plan.frozen_in(plan.max_epoch - 1), plan.freeze_bn)
    small, mixed = (sys.maxsize if n else 0 for n in (plan.small_epochs, plan.mixed_epochs))
    return training, replace(plan, small_epochs=small, mixed_epochs=mixed)


def _next_loss(
    training: Training, plan: EpochPlan, parts: Iterator[list[Batch]], rate: float
) -> float:
    """The loss of the next step that has a known label; those without one are run, too.

    Raises:
        InputError: there is none in whole epochs.
    """
    for _ in range(_MOST_EMPTY_EPOCHS * plan.steps):
        loss, weight = run_step(training, plan, next(parts), rate)
        training.state.step += 1
        if weight:
            return float(loss)
    bad = training.state.bad_images
    fault = f"; {len(bad)} cannot be read, the first: {next(iter(bad.values()))}" if bad else ""
    raise InputError(
        f"no label is known of the images of {_MOST_EMPTY_EPOCHS} epochs, so there is no loss"
        f"{fault}"
    )


def _parts(training: Training, plan: EpochPlan) -> Generator[list[Batch]]:
    """The batches of each step, epoch after epoch, without those of too few readable images.

    Raises:
        InputError: an image cannot be read; or, with `on_bad_image` skip, no step has enough.
    """
    for epoch in itertools.count():
        steps = 0
        with closing(load_epoch(plan, epoch, 0, LoadingClock())) as batches:
            for _ in range(plan.steps):
                parts = [next(batches) for _ in range(plan.micro_batches)]
                parts = [part.of_images(len(plan.dataset)) for part in parts]
                for index, reason in (fault for part in parts for fault in part.bad):
                    training.state.bad_images[plan.dataset.paths[index]] = reason
                readable = [part for part in parts if can_train_on(training.model, part)]
                if readable:
                    steps += 1
                    yield readable
        if not steps:
            reason = parts[0].bad[0][1]
            raise InputError(f"too few images can be read for one step; the first fault: {reason}")
