"""The network compiled by PyTorch, in place of its operations one by one."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from densenet121.utils.errors import InputError, UsageError

Compile = Literal["off", "default", "graphs"]

# Who compiles what was traced: a name of PyTorch's, or a function.
BACKEND: str | Callable[..., Any] = "inductor"
# Each size of a batch and of its images is compiled by itself, with and without frozen stages.
_MOST_SIZES = 64


def compiled(model: nn.Module, mode: Compile, *, exact: bool) -> nn.Module:
    """A network with the same weights that runs compiled; ``model`` itself stays as it is.

    The compilation takes place in the first step. Each size of a batch and its images has code of
    its own, so that the code does not depend on the sizes before it: a resumed run then has that of
    an uninterrupted one.

    Args:
        model: the network, on its device.
        mode: "default", or "graphs" for CUDA graphs, which start a whole pass at once.
        exact: choose kernels without measuring them, so that every run has the same ones.

    Raises:
        UsageError: the device has no CUDA graphs.
    """
    device = next(model.parameters()).device
    if mode == "graphs" and device.type != "cuda":
        raise UsageError(
            f"`compile` graphs needs an NVIDIA or AMD GPU, and this is {device.type}; pass "
            "`compile` default"
        )
    from torch._dynamo import config  # takes seconds to import

    config.recompile_limit = max(config.recompile_limit, _MOST_SIZES)
    options = _options(mode, exact=exact) if BACKEND == "inductor" else None
    found: Any = torch.compile(
        model, backend=BACKEND, fullgraph=True, dynamic=False, options=options
    )
    return found  # type: ignore[no-any-return]


def _options(mode: Compile, *, exact: bool) -> dict[str, Any]:
    from torch._inductor import config

    options: dict[str, Any] = {"triton.cudagraphs": mode == "graphs"}
    if hasattr(config, "deterministic"):
        options["deterministic"] = exact
    return options


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """A context in which compiled networks run their operations one by one."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextlib.contextmanager
def named_compile_errors() -> Iterator[None]:
    """A context in which a failed compilation is one line that says what to do.

    Raises:
        InputError: PyTorch cannot compile the network on this machine.
    """
    try:
        yield
    except Exception as error:
        exceptions = sys.modules.get("torch._dynamo.exc")
        if exceptions is not None and isinstance(error, exceptions.TorchDynamoException):
            inner = getattr(error, "inner_exception", error)
            raise InputError(
                f"PyTorch cannot compile the network here ({_first_line(inner)}); it needs a C++ "
                "compiler, and Triton on a GPU; pass `compile` off"
            ) from None
        if type(error).__module__.partition(".")[0] == "triton":
            raise InputError(
                f"Triton cannot compile its kernels here ({_first_line(error)}); pass `triton` 0"
            ) from None
        raise


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or ["no message"])[0][:200]
    return f"{type(error).__name__}: {text}"
