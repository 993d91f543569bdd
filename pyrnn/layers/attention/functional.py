"""The scaled dot product attention and its gradients as functions, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import kernels
from ...core.checks import (
    FLOAT_DTYPES,
    Array,
    any_array,
    boolean,
    dtype_error,
    integer,
    integer_array,
    real,
    real_array,
    shape_error,
    shown,
    within,
)
from ...core.pullback import Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Window = tuple[int, int] | Sequence[int] | None

_LARGEST = float(np.finfo(np.float32).max)


class Options(NamedTuple):
    """What a call says beside its query, key and value: see `scaled_dot_product_attention`."""

    attn_mask: Any = None
    is_causal: Any = False
    scale: Any = None
    enable_gqa: Any = False
    q_offset: Any = 0
    window: Any = None
    softcap: Any = 0.0
    kv_lengths: Any = None

    @classmethod
    def named(cls, call: str, arguments: dict[str, Any]) -> Options:
        """From arguments that are passed on. TypeError for a name that is none of them."""
        for name in arguments:
            if name not in cls._fields:
                raise TypeError(f"{call}: there is no argument {shown(name)}, only {', '.join(cls._fields)}")
        return cls(**arguments)


class Call(NamedTuple):
    """One call, checked: its arrays as the kernel takes them, and the kernel's own options."""

    query: Array  # (..., Hq, S, E), all with the same axes before the heads
    key: Array  # (..., Hk, K, E)
    value: Array  # (..., Hk, K, Ev)
    mask: Array | None
    bounds: dict[str, Any]  # OPTIONS of kernels.attention
    flat: bool  # neither query, key nor value came with heads

    def forward(self) -> tuple[Array, Array]:
        """out and what `backward` needs beside it."""
        out, stats = kernels.attention.forward(self.query, self.key, self.value, self.mask, **self.bounds)
        return out, stats

    def backward(self, dout: Array, out: Array, stats: Array) -> tuple[Array, Array, Array]:
        """dquery, dkey, dvalue."""
        dquery, dkey, dvalue = kernels.attention.backward(
            dout, self.query, self.key, self.value, out, stats, self.mask, **self.bounds
        )
        return dquery, dkey, dvalue


def scaled_dot_product_attention(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, attn_mask: ArrayLike | None = None, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
    *, q_offset: ArrayLike = 0, window: Window = None, softcap: float = 0.0, kv_lengths: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """softmax(scale query key^T + mask) value, never with the whole matrix of scores in memory.

    query (..., Hq, S, E), key (..., Hk, K, E), value (..., Hk, K, Ev) -> (..., Hq, S, Ev). Arrays of rank 3 are
    (heads, S, E), of rank 2 one head; the axes before the heads broadcast. Hq = Hk, or Hk = 1, or with `enable_gqa` Hq
    a multiple of Hk. float32 or float64, the widest of the three; other real dtypes are converted.

    `attn_mask` broadcasts to (..., Hq, S, K): booleans, True = attend, or floats added to the scores, where -inf hides.
    `is_causal`: query i sees key j where j <= i + `q_offset`, an int or integers over the axes before the heads.
    `window` (left, right): i + q_offset - left <= j <= i + q_offset + right; -1 leaves a side open. `softcap` > 0:
    scores become softcap * tanh(scores / softcap) before the masks. `kv_lengths` (integers over the axes before the
    heads): keys from there on are padding. `scale` defaults to 1/sqrt(E). A query that sees no key gives 0; what no
    query sees is never read. TypeError and ValueError for what does not fit.

    Vaswani et al. 2017, arXiv:1706.03762; computed in blocks as by Dao et al. 2022, arXiv:2205.14135.

        out = pyrnn.scaled_dot_product_attention(q, k, v, is_causal=True)
        step = pyrnn.scaled_dot_product_attention(q[..., 7:8, :], k, v, is_causal=True, q_offset=7)  # out[..., 7:8, :]
    """
    options = Options(attn_mask, is_causal, scale, enable_gqa, q_offset, window, softcap, kv_lengths)
    call = checked("scaled_dot_product_attention", options, query, key, value)
    out = call.forward()[0]
    return out[0] if call.flat else out


def scaled_dot_product_attention_vjp(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, attn_mask: ArrayLike | None = None, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
    *, q_offset: ArrayLike = 0, window: Window = None, softcap: float = 0.0, kv_lengths: ArrayLike | None = None,
) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array, Array]]]:  # fmt: skip
    """As `scaled_dot_product_attention`, and a pullback(dout) -> (dquery, dkey, dvalue), shaped as the three arguments.

    The pullback owns what it needs and can be called once. The gradient of a query (..., Hq, S, E) that sees no key is
    0. Errors as there, and a ValueError for a dout of another shape than out.

        out, pullback = pyrnn.scaled_dot_product_attention_vjp(q, k, v, is_causal=True)
        dq, dk, dv = pullback(out - target)
    """
    name = "scaled_dot_product_attention_vjp"
    options = Options(attn_mask, is_causal, scale, enable_gqa, q_offset, window, softcap, kv_lengths)
    call = checked(name, options, query, key, value)
    call = call._replace(
        query=copied(call.query), key=copied(call.key), value=copied(call.value),
        mask=None if call.mask is None else copied(call.mask),
    )  # fmt: skip
    shapes = [np.shape(array) for array in (query, key, value)]
    own, stats = call.forward()
    out = kernels.copied(own[0] if call.flat else own)

    def back(dout: Array, kept: tuple[Call, Array, Array]) -> tuple[Array, Array, Array]:
        call, own, stats = kept
        grads = call.backward(dout.reshape(own.shape), own, stats)
        dquery, dkey, dvalue = (summed(g, s) for g, s in zip(grads, shapes, strict=True))
        return dquery, dkey, dvalue

    return out, Pullback(f"{name} pullback", out, (call, own, stats), back, "dout")


def attention_weights(query: ArrayLike, key: ArrayLike, **arguments: Any) -> Array:
    """The weights themselves, (..., Hq, S, K): softmax(scale query key^T + mask), as `scaled_dot_product_attention`
    applies them to the values. It takes the same arguments but `value`, and raises the same errors.

    weights = pyrnn.attention_weights(q, k, is_causal=True)  # each row sums to 1, or is 0
    pyrnn.plots.attention_map("map.png", weights[0], tokens, tokens)
    """
    keys = any_array("attention_weights", "key", key)
    rows = keys.shape[-2] if keys.ndim >= 2 else 0
    value = np.broadcast_to(np.eye(rows, dtype=np.float32), (*keys.shape[-3:-2], rows, rows))
    return scaled_dot_product_attention(query, key, value, **arguments)


def copied(array: Array) -> Array:
    """A copy; axes of stride 0 stay so."""
    if array.flags.c_contiguous and array.dtype != np.bool_:
        return kernels.copied(array)
    short = array[
        tuple(slice(1) if s == 0 and n > 1 else slice(None) for s, n in zip(array.strides, array.shape, strict=True))
    ]
    copy = short.copy() if short.dtype == np.bool_ else kernels.copied(short)
    return np.broadcast_to(copy, array.shape)


def summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of a broadcast from `shape`."""
    if gradient.shape == shape:
        return gradient
    before = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(axis for axis, (n, m) in enumerate(zip(gradient.shape, before, strict=True)) if n != m)
    total: Array = gradient.sum(axis=axes) if axes else gradient  # a sum of one number would lose the sign of its zero
    return total.reshape(shape)


def checked(call: str, options: Options, query: Any, key: Any, value: Any) -> Call:
    """The call that these arguments make. TypeError and ValueError for what does not fit.

    It is a good part of the smallest calls, so much of it is written out.
    """
    query, key, value = any_array(call, "query", query), any_array(call, "key", key), any_array(call, "value", value)
    dtype = query.dtype
    if not (dtype is key.dtype is value.dtype and dtype in FLOAT_DTYPES):
        dtype = FLOAT_DTYPES[any(a.dtype.kind == "f" and a.dtype.itemsize >= 8 for a in (query, key, value))]
        query, key = real_array(call, "query", query, dtype), real_array(call, "key", key, dtype)
        value = real_array(call, "value", value, dtype)
    flat = query.ndim == key.ndim == value.ndim == 2
    if query.ndim < 3 or key.ndim < 3 or value.ndim < 3:
        for name, array in (("query", query), ("key", key), ("value", value)):
            if array.ndim < 2:
                raise shape_error(call, name, array.shape, "(..., heads, rows, features)")
        query, key, value = (array[None] if array.ndim == 2 else array for array in (query, key, value))
    *batch_axes, query_heads, queries, features = query.shape
    *key_batch, heads, keys, key_features = key.shape
    *value_batch, value_heads, values, _ = value.shape
    if key_features != features:
        raise shape_error(call, "key", key.shape, f"(..., Hk, K, {features}), as query has")
    if values != keys or value_heads not in (1, heads):
        raise shape_error(call, "value", value.shape, f"(..., {heads}, {keys}, Ev), as key has")
    gqa = options.enable_gqa is not False and boolean(call, "enable_gqa", options.enable_gqa)
    if heads not in (1, query_heads) and not (gqa and heads and query_heads % heads == 0):
        expected = f"(..., {query_heads}, K, {features}) or one head, as query has"
        if gqa:
            expected = f"a number of heads that divides the {query_heads} of query"
        raise shape_error(call, "key", key.shape, expected)
    batch = tuple(batch_axes)
    if not batch_axes == key_batch == value_batch:
        try:
            batch = np.broadcast_shapes(batch, tuple(key_batch), tuple(value_batch))
        except ValueError:
            raise shape_error(
                call,
                "key",
                key.shape,
                f"axes before the heads that broadcast with query {query.shape} and value {value.shape}",
            ) from None
        query, key, value = (np.broadcast_to(a, batch + a.shape[-3:]) for a in (query, key, value))
    if value_heads != heads:
        value = np.broadcast_to(value, (*batch, heads, *value.shape[-2:]))

    mask = None
    if options.attn_mask is not None:
        mask = _mask(call, options.attn_mask, dtype, (*batch, query_heads, queries, keys))
    return Call(query, key, value, mask, _bounds(call, options, features, keys, batch), flat)


def _mask(call: str, attn_mask: Any, dtype: np.dtype[Any], full: tuple[int, ...]) -> Array:
    mask = any_array(call, "attn_mask", attn_mask)
    if mask.dtype.kind not in "bf":
        raise dtype_error(call, "attn_mask", mask, "booleans or floats")
    try:
        return np.broadcast_to(mask if mask.dtype == np.bool_ else mask.astype(dtype, copy=False), full)
    except ValueError:
        raise shape_error(call, "attn_mask", mask.shape, f"a shape that broadcasts to {full}") from None


def _bounds(call: str, options: Options, features: int, keys: int, batch: tuple[int, ...]) -> dict[str, Any]:
    """What the kernel is told beside the arrays: only what differs from its defaults."""
    _, is_causal, scale, _, q_offset, window, softcap, kv_lengths = options
    bounds: dict[str, Any] = {
        "scale": (features or 1) ** -0.5 if scale is None else real(call, "scale", scale, -_LARGEST, _LARGEST)
    }
    if window is not None:
        try:
            left, right = window
        except (TypeError, ValueError):
            raise ValueError(f"{call}: window is {shown(window)}, expected (left, right)") from None
        bounds["left"] = integer(call, "window[0]", left, -1)
        bounds["right"] = integer(call, "window[1]", right, -1)
    if is_causal is not False and boolean(call, "is_causal", is_causal):
        bounds["right"] = 0
    if softcap != 0.0:
        bounds["softcap"] = real(call, "softcap", softcap, 0, _LARGEST)
    if not (type(q_offset) is int and q_offset == 0):
        offsets = integer_array(call, "q_offset", q_offset)
        bounds["offsets"] = _over_batch(call, "q_offset", offsets, batch)
    if kv_lengths is not None:
        lengths = within(call, "kv_lengths", integer_array(call, "kv_lengths", kv_lengths), keys)
        bounds["lengths"] = _over_batch(call, "kv_lengths", lengths, batch)
    return bounds


def _over_batch(call: str, name: str, numbers: Array, batch: tuple[int, ...]) -> Array:
    try:
        return np.broadcast_to(numbers, batch).copy()
    except ValueError:
        raise shape_error(
            call, name, numbers.shape, f"a shape that broadcasts to {batch}, the axes before the heads"
        ) from None
