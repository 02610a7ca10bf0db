"""Detect whether modules have changed since the last check."""

from collections.abc import Sequence
from operator import itemgetter

from torch import Tensor, nn


class Watch:
    """Modules and everything they contain; a check takes a fraction of a millisecond."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        """Find the modules, their settings and their tensors."""
        modules = [module for part in parts for module in part.modules()]
        # Names of settings do not begin with an underscore. The dictionaries of the modules are
        # stored, not the modules: this object must not keep the network alive.
        self._modules = [
            (own, itemgetter("training", *(name for name in own if name[0] != "_")))
            for own in (module.__dict__ for module in modules)
        ]
        self._tensors: list[Tensor] = [
            tensor
            for own, _ in self._modules
            for name, tensor in (*own["_parameters"].items(), *own["_buffers"].items())
            if tensor is not None and name != "num_batches_tracked"
        ]

    def state(self, *others: object) -> list[object] | None:
        """Everything that could change the computed function, except the numbers in tensors.

        For tensors it is their address and torch's count of writes to them.

        Args:
            others: further parts of the state.

        Returns:
            The state; None if it is unknown, because modules have hooks or a patched ``forward``,
            or tensors were created in inference mode and have no version counter.
        """
        state: list[object] = [*others]
        for own, settings in self._modules:
            if (
                "forward" in own
                or own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own["_backward_hooks"]
                or own["_backward_pre_hooks"]
            ):
                return None
            state.append((len(own), settings(own)))
            for inside in ("_modules", "_parameters", "_buffers"):
                state += map(id, own[inside].values())
            state += map(type, own["_modules"].values())
        try:
            for tensor in self._tensors:
                state += (tensor.data_ptr(), tensor._version, tensor.stride())
        except RuntimeError:
            return None
        return state


def same_state(before: list[object], now: list[object]) -> bool:
    """Whether two states are equal."""
    try:
        return before == now
    except (RuntimeError, ValueError):
        return False  # modules may have tensors or arrays as attributes
