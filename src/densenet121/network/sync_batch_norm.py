"""Batch norm over the images of all ranks, on any device.

torch's own ``nn.SyncBatchNorm`` does not support the CPU, and its ``count_all[mask]`` makes the
host wait for the device in every norm. This one needs only pointwise operations and sums of a
device, and only ``all_reduce`` of a backend, and the host never waits.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network.first_derivative import first_derivative


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with training statistics over the images of all ranks.

    Every rank must call it equally often; the ranks may have different numbers of images. The
    running statistics are the same on all ranks. In a run of one process, and in evaluation, it is
    ``nn.BatchNorm2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not (self.training and together):
            return super().forward(x)
        mean, variance, count = _statistics_of_all_ranks(x.detach())
        statistics = mean, variance, count
        y: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, *statistics, self.eps
        )
        self._update_running(mean, variance, count)
        return y

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics as ``nn.BatchNorm2d`` does."""
        if self.running_mean is None or self.running_var is None or not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        if count.device.type == "cpu":  # some devices have no float64
            count = count.double()
        correction = count / (count - 1).clamp(min=1)
        unbiased = variance * correction.to(variance)
        self.running_var.lerp_(unbiased.to(self.running_var), momentum)


def synchronise_norms(model: nn.Module) -> None:
    """Replace every batch norm by a ``SyncBatchNorm2d``; parameters and names do not change."""
    norms = [(n, m) for n, m in model.named_modules() if type(m) is nn.BatchNorm2d]
    for name, norm in norms:
        new = SyncBatchNorm2d(
            norm.num_features,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        new.weight, new.bias = norm.weight, norm.bias
        new.running_mean, new.running_var = norm.running_mean, norm.running_var
        new.num_batches_tracked = norm.num_batches_tracked
        new.train(norm.training)
        model.set_submodule(name, new)


def _statistics_of_all_ranks(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(C,)``, variance ``(C,)`` and number of values per channel, over all ranks.

    The mean of each rank and the squared differences from it are combined (Chan et al. 1979),
    because sums of squares would lose digits in float32. All ranks compute the same bits from the
    same rows.
    """
    channels = x.shape[1]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count = wide.numel() // channels
    own = wide.new_zeros(2 * channels + 1)
    if count:
        mean = wide.mean(dim=(0, 2, 3))
        own[:channels] = mean
        own[channels:-1] = (wide - mean.view(1, -1, 1, 1)).square_().sum(dim=(0, 2, 3))
        own[-1] = count
    rows = own.new_zeros(dist.get_world_size(), len(own))
    rows[dist.get_rank()] = own
    dist.all_reduce(rows)  # the rows of the other ranks are zero, so this gathers all rows
    means, squares, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
    total = counts.sum()
    mean = (means * counts).sum(dim=0) / total
    variance = (squares + counts * (means - mean).square()).sum(dim=0) / total
    return mean, variance, total


class _Normalise(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, with statistics over all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = saved
        column = (1, -1, 1, 1)
        dy = gradient.to(mean.dtype)
        centred = x.to(mean.dtype) - mean.view(column)
        rstd = (variance + ctx.eps).rsqrt()
        own = torch.stack([dy.sum(dim=(0, 2, 3)), (dy * centred).sum(dim=(0, 2, 3))])
        # For the images of this rank only: DistributedDataParallel averages over the ranks.
        d_weight, d_bias = (own[1] * rstd).to(weight.dtype), own[0].to(weight.dtype)
        # The losses of all ranks depend on x through the shared statistics.
        everywhere = own.clone()
        dist.all_reduce(everywhere)
        mean_dy, mean_dy_centred = everywhere / count
        slope = (mean_dy_centred * rstd * rstd).view(column)
        dx = (dy - mean_dy.view(column) - centred * slope) * (rstd * weight).view(column)
        return dx.to(x.dtype), d_weight, d_bias, None, None, None, None
