"""The whole network, in evaluation without gradients, as one call of the kernels.

The result of ``network_plan`` is cached until the network changes.
"""

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from densenet121.native.network import Kernels
from densenet121.native.network.structures import NetworkArguments
from densenet121.network.fused.classifier import prepare_classifier
from densenet121.network.fused.conditions import real, usable_kernels
from densenet121.network.fused.network_plan import Kinds, Known, StemPool, prepare
from densenet121.network.fused.watch import Watch, same_state

# By norm5, so that the memory is freed with the network.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, Known] = weakref.WeakKeyDictionary()
# By norm5, too: networks that nobody changes for the moment, and what their first check has found.
_UNCHANGED: weakref.WeakKeyDictionary[nn.Module, list[Known]] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def unchanged(ends: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which nobody changes the networks with these norm5: they are checked once."""
    new = [end for end in ends if end not in _UNCHANGED]
    for end in new:
        _UNCHANGED[end] = []
    try:
        yield
    finally:
        for end in new:
            _UNCHANGED.pop(end, None)


class NetworkCall(NamedTuple):
    """A call of the kernels for some images, which lacks the memory for its result.

    Each method runs it; it can run once.
    """

    kernels: Kernels
    dtype: torch.dtype
    arguments: NetworkArguments
    num_features: int
    size: tuple[int, int]  # of the last maps

    def maps(self) -> Tensor:
        """The output of norm5, ``(N, num_features, H', W')``, channels_last."""
        shape = (self.arguments.images, self.num_features, *self.size)
        y = torch.empty(shape, dtype=self.dtype, device="cpu", memory_format=torch.channels_last)
        self.arguments.y = y.data_ptr()
        self._run()
        return y

    def means(self) -> Tensor:
        """The means of relu of it over the pixels, ``(N, num_features)``."""
        means = self._memory_for_means()
        self._run()
        return means.to(self.dtype)

    def logits(self, classifier: nn.Module) -> Tensor | None:
        """The logits ``(N, K)`` of those means, with the bits of ``classify``.

        None, and nothing is run, if ``classifier`` is not an unmodified linear layer for them.
        """
        means = self._memory_for_means()
        prepared = prepare_classifier(classifier, means)
        if prepared is None:
            return None
        self.arguments.classifier = prepared.arguments
        self._run()
        return prepared.logits

    def _memory_for_means(self) -> Tensor:
        shape = (self.arguments.images, self.num_features)
        means = torch.empty(shape, dtype=real(self.dtype), device="cpu")
        self.arguments.means = means.data_ptr()
        return means

    def _run(self) -> None:
        self.kernels.call("network_run", self.dtype, self.arguments)


def prepare_network(
    parts: Sequence[nn.Module], kinds: Kinds, pool: StemPool | None, x: Tensor
) -> NetworkCall | None:
    """The call that computes a network for x, or None if its parts must do so one by one.

    Args:
        parts: conv0; norm0, relu0 and pool0 if the stem has them; dense blocks with transitions
            between them; norm5.
        kinds: the classes of an unmodified dense block, its layers and a transition.
        pool: an unmodified pool0; None if the stem has none.
        x: the images, ``(N, C, H, W)``; in float32 where bf16 is computed (autocast).
    """
    if torch.is_grad_enabled():
        return None
    found = usable_kernels((), x)
    if found is None or not found[0].has("network_run", found[1]) or x.dtype != real(found[1]):
        return None
    kernels, dtype = found
    known = _known(kernels, dtype, parts, kinds, pool)
    if known is None or known.arguments is None:
        return None
    arguments = NetworkArguments.from_buffer_copy(known.arguments)
    first, stem = arguments.first, arguments.stem
    first.images, channels, first.height, first.width = x.shape
    height, width = (
        (size + 2 * first.padding - first.kernel) // first.stride + 1 for size in x.shape[2:]
    )
    if channels != first.channels or min(height, width) < 1:
        return None  # the plain implementation raises the error
    if pool is not None:
        stem.height, stem.width = height, width
        stem.pad_top, stem.pad_left = pool.padding(height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
        stem.out_height, stem.out_width = height, width
    transitions = arguments.blocks - 1
    height, width = height >> transitions, width >> transitions
    if min(height, width) < 1:
        return None  # the plain implementation raises the error
    arguments.images, arguments.threads = x.shape[0], torch.get_num_threads()
    first.x, first.x_strides[:] = x.data_ptr(), x.stride()
    return NetworkCall(kernels, dtype, arguments, known.num_features, (height, width))


def _known(
    kernels: Kernels,
    dtype: torch.dtype,
    parts: Sequence[nn.Module],
    kinds: Kinds,
    pool: StemPool | None,
) -> Known | None:
    """The prepared network; that of the last call is reused if nothing has changed since."""
    # Without the last part, which is the weak key: a reference would keep it alive.
    setting = (dtype, kernels, kinds, pool, *map(type, parts), *parts[:-1])
    checked = _UNCHANGED.get(parts[-1])
    if checked and checked[0].state[0] == setting:
        return checked[0]
    known = _KNOWN.get(parts[-1])
    watch = Watch(parts) if known is None else known.watch
    state = watch.state(setting)
    if state is None:
        return None
    if known is None or not same_state(known.state, state) or not _same_numbers(kernels, known):
        watch = Watch(parts)
        state = watch.state(setting)
        if state is None:
            return None
        known = prepare(kernels, dtype, parts, kinds, pool, Known(watch, state, dtype))
        _KNOWN[parts[-1]] = known
    if checked is not None:
        checked[:] = [known]
    return known


def _same_numbers(kernels: Kernels, known: Known) -> bool:
    if known.arguments is None:
        return True
    arguments = NetworkArguments.from_buffer_copy(known.arguments)
    kernels.call("network_fingerprint", known.dtype, arguments)
    return bool(arguments.fingerprint == known.arguments.fingerprint)
