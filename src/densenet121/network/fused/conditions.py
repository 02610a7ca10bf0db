"""When the fused kernels can be used, and helpers that they share.

They compute the same as the plain implementation, which is used whenever a difference would be
visible: hooks inside a block, replaced modules, tracing, other devices and dtypes.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from densenet121.native.network import Kernels, kernels
from densenet121.network.sync_batch_norm import SyncBatchNorm2d
from densenet121.utils.logging import log

# One entry for each `plain_network` that is open: those of threads may end in any order.
_PLAIN: list[object] = []


@contextlib.contextmanager
def plain_network() -> Iterator[None]:
    """A context in which every network of this process uses the plain implementation."""
    _PLAIN.append(None)
    try:
        yield
    finally:
        _PLAIN.pop()


@functools.cache
def _log_once(reason: str) -> None:
    log.info("dense blocks use the plain implementation (slower, more memory): %s", reason)


@functools.cache
def _log_device(kind: str) -> None:
    log.info("the network runs by PyTorch's own operations on %s", kind)


def is_on_cpu(x: Tensor) -> bool:
    """Whether the kernels can read ``x``. Ask it first: everything else walks over the layers."""
    if not isinstance(x, Tensor):
        return False  # a symbol of torch.fx
    if x.device.type == "cpu":
        return True
    if not torch.compiler.is_compiling():
        _log_device(x.device.type)
    return False


def real(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the parameters and statistics when the kernels compute in ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def usable_kernels(
    parameters: Sequence[Tensor], x: Tensor, dim: int = 4
) -> tuple[Kernels, torch.dtype] | None:
    """The kernels for a forward pass of ``x`` with ``dim`` dimensions and their dtype, or None."""
    if runs_plain(x, dim) or not is_on_cpu(x):
        return None
    found = kernels()
    if isinstance(found, str):
        _log_once(found)
        return None
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    if not found.supports(dtype):
        _log_once(f"the kernels for {found.instruction_set} do not support {dtype}")
        return None
    if not all(p.dtype == real(dtype) and p.device.type == "cpu" for p in parameters):
        return None
    return found, dtype


def runs_plain(x: Tensor, dim: int = 4) -> bool:
    """Whether no kernel of ours may compute this pass, on any device."""
    # A tracer would record what is asked of x.
    watched = bool(_PLAIN) or _is_watched()
    # A negated view lies in memory with the other sign.
    return watched or type(x) is not Tensor or x.dim() != dim or x.numel() == 0 or x.is_neg()


def _is_watched() -> bool:
    """Whether something observes single operations: a tracer, a compiler, a counter."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or _has_function_modes()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or bool(nn.modules.module._global_forward_hooks)
        or bool(nn.modules.module._global_forward_pre_hooks)
        or bool(nn.modules.module._global_backward_hooks)
        or bool(nn.modules.module._global_backward_pre_hooks)
    )


def _has_function_modes() -> bool:
    """Whether calls of torch go through a mode, other than that of ``torch.set_default_device``."""
    modes = map(torch._C._get_function_stack_at, range(torch._C._len_torch_function_stack()))
    return any(type(mode) is not DeviceContext for mode in modes)


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is unmodified: exactly this class, no hooks, no patched ``forward``."""
    return (
        type(module) is kind
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
    )


def is_plain_convolution(module: nn.Module, size: int) -> bool:
    """Whether it is a ``size`` x ``size`` convolution with stride 1 that keeps height and width."""
    return (
        isinstance(module, nn.Conv2d)
        and is_untouched(module, nn.Conv2d)
        and module.kernel_size == (size, size)
        and module.stride == (1, 1)
        and module.padding == (size // 2, size // 2)
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and _is_readable(module.weight)
    )


def holds_its_numbers(tensor: Tensor) -> bool:
    """Whether its numbers lie in memory: other classes, as of quantised weights, compute them."""
    return type(tensor) in (Tensor, nn.Parameter)


def _is_readable(tensor: Tensor) -> bool:
    """Whether its numbers are a tensor on its own, no part of a larger one such as a column.

    The kernels read and write vectors one number after the other, and write the gradient of a
    weight in the weight's own layout.
    """
    if not isinstance(tensor, Tensor):
        return True  # a symbol of torch.fx
    if not holds_its_numbers(tensor):
        return False
    return tensor.is_contiguous() or (
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def is_pooling(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is an unmodified pooling of a transition: 2 x 2 at stride 2, without padding."""
    return is_untouched(module, kind) and _pooling_settings(module) == ((2, 2), (2, 2), (0, 0))


def is_stem_pooling(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is an unmodified pool0: a maximum of 3 x 3 at stride 2."""
    if not is_untouched(module, kind):
        return False
    # Another class than torch's has no settings.
    settings = kind is nn.MaxPool2d and _pooling_settings(module)
    return settings in (False, ((3, 3), (2, 2), (1, 1)))


def _pooling_settings(pool: Any) -> tuple[object, ...] | None:
    """Kernel, stride and padding of torch's average or maximum; None if it has other settings."""
    if pool.ceil_mode or getattr(pool, "divisor_override", None) is not None:
        return None
    if getattr(pool, "return_indices", False) or getattr(pool, "dilation", 1) not in (1, (1, 1)):
        return None
    sizes = (pool.kernel_size, pool.stride, pool.padding)
    return tuple((size, size) if isinstance(size, int) else tuple(size) for size in sizes)


def is_plain_layer(layer: Any, kind: type[nn.Module]) -> bool:
    """Whether a layer of a dense block is unmodified, but for its norms and relus."""
    return (
        is_untouched(layer, kind)
        and is_plain_convolution(layer.conv1, 1)
        and is_plain_convolution(layer.conv2, 3)
    )


def uses_batch_statistics(norms: Sequence[nn.Module]) -> bool | None:
    """Whether these batch norms use the batch's statistics or the running ones; None: mixed."""
    kinds = set()
    for norm in norms:
        # In evaluation both kinds of batch norm do the same.
        kind = SyncBatchNorm2d if isinstance(norm, SyncBatchNorm2d) else nn.BatchNorm2d
        if kind is SyncBatchNorm2d and norm.training:
            _log_once("the kernels do not support synchronised batch norm")
            return None
        if not (isinstance(norm, nn.BatchNorm2d) and is_untouched(norm, kind)):
            return None
        if not norm.affine or not _has_vectors_alike(norm):
            return None
        kinds.add(norm.training or norm.running_mean is None)
    return kinds.pop() if len(kinds) == 1 else None


def _has_vectors_alike(norm: nn.BatchNorm2d) -> bool:
    """Whether its weights and its statistics are of one kind, in memory that kernels can read."""
    kind = norm.weight.dtype, norm.weight.device
    vectors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return all(v is None or ((v.dtype, v.device) == kind and _is_readable(v)) for v in vectors)


def copies(statistics: Sequence[Tensor]) -> list[Tensor]:
    """Running statistics as they are now, for a backward pass that may come after they change.

    As where a pass in evaluation and one in training are differentiated together.
    """
    sizes = [tensor.numel() for tensor in statistics]
    return list(torch.split(torch.cat([tensor.detach() for tensor in statistics]), sizes))


def remember_statistics(y: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Store the batch statistics of a block's output as its attribute, for the next norm."""
    y._channel_statistics = (y._version, mean, variance)  # type: ignore[attr-defined]


def known_statistics(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The result of ``remember_statistics``, unless the tensor was changed since."""
    stored: tuple[int, Tensor, Tensor] | None = getattr(x, "_channel_statistics", None)
    return stored[1:] if stored is not None and stored[0] == x._version else None


@torch.no_grad()
def update_running_statistics(
    norms: Sequence[nn.BatchNorm2d],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    count: int,
) -> None:
    """Update the running statistics once, as ``nn.BatchNorm2d`` does.

    Args:
        norms: batch norms in training mode.
        means: means of the batch, per channel.
        variances: variances of the batch, per channel, with divisor ``count``.
        count: number of pixels per channel.
    """
    tracking = [i for i, norm in enumerate(norms) if norm.training and norm.track_running_stats]
    counters = [norms[i].num_batches_tracked for i in tracking if norms[i].momentum is not None]
    if counters := [counter for counter in counters if counter is not None]:
        torch._foreach_add_(counters, 1)
    by_momentum: dict[float, list[int]] = {}
    for i in tracking:
        momentum, counter = norms[i].momentum, norms[i].num_batches_tracked
        if momentum is None:
            # Counted one by one: two layers may share a norm. Without a counter it is as in torch.
            momentum = 0.0 if counter is None else 1.0 / float(counter.add_(1))
        if norms[i].running_mean is not None:
            by_momentum.setdefault(momentum, []).append(i)
    for momentum, chosen in by_momentum.items():
        buffers = [b for i in chosen if (b := norms[i].running_mean) is not None]
        torch._foreach_lerp_(buffers, [means[i] for i in chosen], momentum)
        buffers = [b for i in chosen if (b := norms[i].running_var) is not None]
        unbiased = torch._foreach_mul([variances[i] for i in chosen], count / (count - 1))
        torch._foreach_lerp_(buffers, unbiased, momentum)
