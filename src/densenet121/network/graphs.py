"""Training passes as CUDA graphs: the same operations, started all at once.

A step of densenet121 has some 2,300 small operations. Starting them one by one takes a processor
longer than they take a fast GPU, unless the batch is large. A graph starts them together, with the
same kernels and so the same bits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.utils.errors import UsageError
from densenet121.utils.logging import log

# Sizes of a batch and its images; each keeps the memory of its graphs.
_MOST_SIZES = 4
_STREAM_WARNING = "set_warn_on_accumulate_grad_stream_mismatch"


class GraphedNetwork(nn.Module):
    """A network with the same weights whose training passes are CUDA graphs.

    The first pass of each size of a batch records its graphs. A pass writes its logits, and its
    backward pass the gradients, to the same place as the one before: use them first.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap ``network``, whose weights must stay where they are.

        Raises:
            UsageError: the device has no CUDA graphs.
        """
        super().__init__()
        device = next(network.parameters()).device
        if device.type != "cuda":
            raise UsageError(
                f"`cuda_graphs` 1 needs an NVIDIA or AMD GPU, and this is {device.type}; pass "
                "`cuda_graphs` 0"
            )
        self.network = network
        self._graphs: dict[Any, Callable[[Tensor], Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def forward(self, images: Tensor) -> Tensor:
        """The logits of ``images``, ``(N, C, H, W)``."""
        if not (self.training and torch.is_grad_enabled()):
            found: Tensor = self.network(images)
            return found
        reduced = torch.is_autocast_enabled("cuda")
        dtype = torch.get_autocast_dtype("cuda") if reduced else images.dtype
        size = (images.shape, images.stride(), dtype)
        if size not in self._graphs:
            self._graphs[size] = self._prepared(images, dtype if reduced else None)
        return self._graphs[size](images)

    def _prepared(self, images: Tensor, dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
        if len(self._graphs) >= _MOST_SIZES:
            log.warning(
                "`cuda_graphs` 1: batches of size %s run without, because %d sizes have graphs",
                "x".join(map(str, images.shape)),
                _MOST_SIZES,
            )
            return self.network
        return self._recorded(images, dtype)

    def _recorded(self, images: Tensor, dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
        """Record both passes. Passes to warm up must leave no trace in the running statistics."""
        # A replayed gradient comes from another stream than that of the recording. PyTorch waits
        # for it, and newer versions warn that this could be avoided.
        set_warning = getattr(torch.autograd.graph, _STREAM_WARNING, None)
        if set_warning is not None:
            set_warning(False)
        buffers = list(self.network.buffers())
        before = [buffer.clone() for buffer in buffers]
        with torch.autocast("cuda", enabled=False, cache_enabled=False):
            found: Any = torch.cuda.make_graphed_callables(
                _Pass(self.network, dtype), (images.detach().clone(),), pool=self._pool
            )
        torch._foreach_copy_(buffers, before)
        return found  # type: ignore[no-any-return]


class _Pass(nn.Module):
    """One forward pass in ``dtype`` by autocast; None: without autocast."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        # Weights in autocast's cache would be those of the recording.
        enabled = self._dtype is not None
        with torch.autocast("cuda", dtype=self._dtype, enabled=enabled, cache_enabled=False):
            logits: Tensor = self.network(images)
        return logits
