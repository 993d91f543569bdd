"""Which tensors the kernels can read, and the way from arrays back to tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_DTYPES = (torch.float32, torch.float64)
_PLAIN = frozenset((Tensor, torch.nn.Parameter))

_is_batched = torch._C._functorch.is_legacy_batchedtensor

tensor = torch.from_numpy


def plain(tensors: Iterable[Tensor], dtype: torch.dtype) -> bool:
    """Whether these are what the kernels read, of one dtype, and nobody records or transforms what is done to them."""
    for t in tensors:
        if type(t) not in _PLAIN or t.dtype is not dtype or not t.is_cpu:
            return False
    return dtype in _DTYPES and not (recorded() or transformed() or torch.is_autocast_enabled("cpu"))


def recorded() -> bool:
    """Whether a call is to be recorded, not run."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def traced(tensors: Iterable[Tensor]) -> bool:
    """Whether a call is to be recorded, or is given tensors that only look like ones."""
    return recorded() or any(type(t) not in _PLAIN for t in tensors)


def taped(tensors: Iterable[Tensor]) -> bool:
    """Whether torch's tape is to know of what is done to these."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t.requires_grad:
                return True
    return False


def transformed(gradients: Iterable[Tensor | None] = ()) -> str:
    """Which transform that sees into operations is under way, where only torch's own can be seen into; "" if none. On
    the way back one may be known by its gradients alone."""
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    for t in gradients:
        if t is not None and _is_batched(t):
            return "is_grads_batched=True"
    return ""


def obstacle(tensors: Sequence[Tensor]) -> str:
    """Why these tensors cannot go to the kernels now; "" if they can."""
    for t in tensors:
        if t.dtype not in _DTYPES:
            return f"a tensor of {t.dtype}, and the kernels take torch.float32 and torch.float64"
        if not t.is_cpu:
            return f"a tensor on {t.device}, and the kernels run on the CPU"
    if torch.is_autocast_enabled("cpu"):
        return "a call under torch.autocast"
    return "" if traced(tensors) else transformed()


def refused(call: str, why: str) -> RuntimeError:
    """What a call raises that the kernels cannot do."""
    return RuntimeError(f"pyrnn.torch.{call}: {why}; torch's own implementation can do it (accelerate's fallback=True)")


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """function.apply where no torch.func transform is under way: the look for its wrappers is left out."""
    return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]


class DifferentiableOnce(torch.autograd.Function):
    """apply(message, number, gradients..., all they depend on...) -> the gradients, so many. Where somebody
    differentiates them again that is a RuntimeError, this message."""

    @staticmethod
    def forward(ctx: Any, message: str, number: int, *tensors: Tensor | None) -> Any:
        ctx.message = message
        return tensors[:number]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(ctx.message)
