"""Make an optimiser of torch by its name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw", "rmsprop")

# Devices on which torch's fused optimisers are tested here; others use torch's default.
_FUSED_DEVICES = frozenset({"cpu", "cuda"})


def make_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    *,
    lr: float,
    momentum: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
) -> Optimizer:
    """An optimiser of ``torch.optim`` for ``groups``.

    Build it after the model is on its device and in its memory format, which its state copies.

    Args:
        name: one of OPTIMIZERS. adam adds the decay to the gradient (L2), adamw shrinks the weights
            by ``lr * weight_decay`` (Loshchilov and Hutter 2019); sgd, nesterov and rmsprop add it
            to the gradient.
        groups: the result of ``get_param_groups``.
        lr: learning rate of the first step; set later ones in ``optimizer.param_groups``.
        momentum: of sgd, nesterov and rmsprop.
        betas: of adam and adamw.
        eps: of adam, adamw and rmsprop.
        amsgrad: for adam and adamw, divide by the largest second moment so far (Reddi et al. 2018).
    """
    if name in ("sgd", "nesterov"):
        return momentum_sgd(groups, lr=lr, momentum=momentum, nesterov=name == "nesterov")
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum, eps=eps)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    fused = True if _can_fuse(groups) else None
    return kind(groups, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, fused=fused)


def momentum_sgd(
    groups: list[dict[str, Any]], *, lr: float, momentum: float, nesterov: bool = False
) -> torch.optim.SGD:
    """SGD of the original: ``g += weight_decay * p; v = momentum * v + g; p -= lr * v``, v0 = 0.

    Nesterov's variant subtracts ``lr * (g + momentum * v)`` instead. The arguments are those of
    ``make_optimizer``.
    """
    params = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.SGD(
        groups,
        lr=lr,
        momentum=momentum,
        dampening=0,
        nesterov=nesterov,
        # The fused kernel reads the loss scaler's found_inf on the device: no host sync.
        fused=True if _can_fuse(groups) else None,
    )
    if momentum != 0:
        # torch 2.13 gives the fused kernel uninitialised memory for v on the first step. If the
        # loss scaler skips that step, the next step would use the garbage.
        for p in params:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def _can_fuse(groups: Iterable[dict[str, Any]]) -> bool:
    """Whether torch's fused kernel supports all of these; it would raise only at the first step."""
    params: list[Tensor] = [p for group in groups for p in group["params"]]
    return all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in params)
