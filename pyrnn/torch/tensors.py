"""Which tensors the kernels can read, and the way from arrays back to tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

_DTYPES = (torch.float32, torch.float64)
_PLAIN = (Tensor, torch.nn.Parameter)

tensor = torch.from_numpy


def plain(tensors: Iterable[Tensor], dtype: torch.dtype) -> bool:
    """Whether these are what the kernels read, of one dtype, and nobody records or transforms what is done to them."""
    for t in tensors:
        if type(t) not in _PLAIN or t.dtype is not dtype or not t.is_cpu:
            return False
    return dtype in _DTYPES and not (traced(()) or transformed() or torch.is_autocast_enabled("cpu"))


def traced(tensors: Iterable[Tensor]) -> bool:
    """Whether a call is to be recorded, not run, or is given tensors that only look like ones."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or any(type(t) not in _PLAIN for t in tensors)


def transformed() -> str:
    """Which transform that sees into operations is under way, where only torch's own can be seen into; "" if none."""
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
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
    return RuntimeError(f"pyrnn.torch.{call}: {why}; torch's own implementation can do it (accelerate's fallback=True)")


def differentiable_once(gradients: Iterable[Tensor | None], message: str) -> tuple[Tensor | None, ...]:
    """Gradients that are a RuntimeError, this message, where somebody differentiates them."""
    marked = [None if g is None else g.detach().requires_grad_() for g in gradients]
    results: Any = torch._C._functions.DelayedError(message.encode(), len(marked))(*marked)
    return cast("tuple[Tensor | None, ...]", results)
