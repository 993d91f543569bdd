"""torch.nn.functional's scaled_dot_product_attention on our kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.checks import Array
from ..layers.attention.functional import Call, Options, checked, summed
from .tensors import DifferentiableOnce, applied, obstacle, taped, tensor, traced, transformed

_NAME = "pyrnn.torch.scaled_dot_product_attention"


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """torch.nn.functional's function on the kernel of pyrnn.scaled_dot_product_attention: tensors on the CPU, float32
    or float64, are read where they lie, and the scores are never all in memory.

    query (..., Hq, S, E), key (..., Hk, K, E), value (..., Hk, K, Ev) -> (..., Hq, S, Ev). attn_mask: booleans, True =
    attend, or floats added to the scores. RuntimeError for what only torch's does: dropout_p, a gradient for attn_mask,
    other devices and dtypes, torch.autocast, torch.func transforms, forward-mode and second derivatives. ValueError for
    shapes that do not fit.

        out = pyrnn.torch.scaled_dot_product_attention(q, k, v, is_causal=True)
    """
    tensors = (query, key, value)
    why = obstacle(tensors)
    if dropout_p:
        why = f"dropout_p is {dropout_p}, and the kernel has no dropout"
    elif is_causal and attn_mask is not None:
        why = "attn_mask and is_causal are given, and only one may be"
    elif attn_mask is not None and attn_mask.requires_grad and torch.is_grad_enabled():
        why = "attn_mask requires a gradient, and the kernel has none for it"
    elif not query.dtype == key.dtype == value.dtype:
        why = f"query, key and value are of {query.dtype}, {key.dtype} and {value.dtype}, expected one dtype"
    if why:
        raise RuntimeError(f"{_NAME}: {why}")
    if traced(tensors):
        out: Tensor = attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)[0]
    elif taped(tensors):
        out = applied(OnTape, query, key, value, attn_mask, is_causal, scale, enable_gqa)
    else:
        out = tensor(_forward(query, key, value, attn_mask, is_causal, scale, enable_gqa)[1])
    return out


def _checked(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, *options: Any) -> Call:
    mask = None if attn_mask is None else attn_mask.numpy(force=True)
    arrays = [t.numpy(force=True) for t in (query, key, value)]
    return checked(_NAME, Options(mask, *options), *arrays)


def _forward(*arguments: Any) -> tuple[Call, Array, Array]:
    """The call, its result as the caller wants it, and what the way back needs beside that."""
    call = _checked(*arguments)
    out, stats = call.forward()
    return call, out[0] if call.flat else out, stats


def _backward(call: Call, dout: Tensor, out: Any, stats: Any, tensors: Any) -> list[Tensor]:
    own = out[None] if call.flat else out
    gradients = call.backward(dout.numpy(force=True).reshape(own.shape), own, stats)
    return [tensor(summed(g, tuple(t.shape))) for g, t in zip(gradients, tensors, strict=True)]


class OnTape(torch.autograd.Function):
    """apply(query, key, value, attn_mask, is_causal, scale, enable_gqa) -> out."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        ctx.call, out, ctx.stats = _forward(*arguments)
        result = tensor(out)
        ctx.save_for_backward(*arguments[:4], result)  # no array is copied: these tell of a change
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        *tensors, _, out = ctx.saved_tensors
        if transform := transformed(gradients):
            raise RuntimeError(f"{_NAME}: the way back under {transform} is torch's alone")
        with torch.no_grad():
            found: Any = _backward(ctx.call, gradients[0], out.numpy(force=True), ctx.stats, tensors)
        if torch.is_grad_enabled():
            message = f"{_NAME} has no second derivative; torch's own has"
            found = applied(DifferentiableOnce, message, 3, *found, *tensors, *gradients)
        return *found, None, None, None, None


@torch.library.custom_op("pyrnn::attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float | None,
    enable_gqa: bool,
) -> list[Tensor]:  # fmt: skip
    """[out, stats]: what a compiler meets in the place of a call."""
    _, out, stats = _forward(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return [tensor(out), tensor(stats)]


@torch.library.custom_op("pyrnn::attention_backward", mutates_args=())
def attention_backward(
    dout: Tensor, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, out: Tensor, stats: Tensor,
    is_causal: bool, scale: float | None, enable_gqa: bool,
) -> list[Tensor]:  # fmt: skip
    """[dquery, dkey, dvalue]."""
    call = _checked(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return _backward(call, dout, out.numpy(force=True), stats.numpy(force=True), (query, key, value))


@attention.register_fake
def _(query, key, value, attn_mask, *options):  # type: ignore[no-untyped-def]
    batch = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])  # type: ignore[no-untyped-call]
    shape = (*batch, *query.shape[-3:-1])
    heads = shape if query.dim() > 2 else (1, *shape)
    return [query.new_empty(*shape, value.shape[-1]), query.new_empty(*heads, 2)]


@attention_backward.register_fake
def _(dout, query, key, value, *rest):  # type: ignore[no-untyped-def]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value)]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.masked = inputs[3] is not None
    ctx.options = inputs[4:]
    ctx.save_for_backward(*inputs[: 4 if ctx.masked else 3], *output)


def _back(ctx: Any, gradients: Any) -> Any:
    query, key, value, *rest = ctx.saved_tensors
    mask = rest.pop(0) if ctx.masked else None
    return *attention_backward(gradients[0], query, key, value, mask, *rest, *ctx.options), None, None, None, None


attention.register_autograd(_back, setup_context=_keep)
