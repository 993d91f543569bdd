"""Attention: the scaled dot product with its gradients, and the layers made of it.

A query's result depends on nothing but the query and the keys and values it sees. These are equal bit for bit: a query
alone or among others; all queries at once, or step by step with keys and values that grow; hidden keys or no such keys;
any memory layout and any number of threads; with `vjp` or without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from . import kernels
from .core import config as config_of
from .core.checks import (
    FLOAT_DTYPES,
    MOST,
    Array,
    Rng,
    any_array,
    boolean,
    dtype_error,
    float_dtype,
    integer,
    integer_array,
    quietly,
    real,
    real_array,
    shape_error,
    shape_text,
    shaped_array,
    shown,
    within,
)
from .core.layer import Layer
from .core.parameters import Shapes
from .core.pullback import AllOrNone, Once

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    Window = tuple[int, int] | Sequence[int] | None

_LARGEST = float(np.finfo(np.float32).max)
_RUN = 1024  # keys are summed in runs of so many (key_run in csrc/attention/contract.hpp)


class _Call(NamedTuple):
    """A call's arrays as the kernel takes them, and how its results get their shapes."""

    query: Array  # (..., Hq, S, E), all with the same axes before the heads
    key: Array  # (..., Hk, K, E)
    value: Array  # (..., Hk, K, Ev)
    mask: Array | None
    options: dict[str, Any]
    flat: bool  # neither query, key nor value has heads

    def owned(self) -> _Call:
        """The same with copies of everything, the repeated axes of a broadcast kept short."""
        mask = None if self.mask is None else _copied(self.mask)
        return _Call(_copied(self.query), _copied(self.key), _copied(self.value), mask, self.options, self.flat)

    def forward(self) -> tuple[Array, Array]:
        out, stats = kernels.attention.forward(self.query, self.key, self.value, self.mask, **self.options)
        return out, stats


def _copied(array: Array) -> Array:
    """A copy; axes of stride 0 stay so."""
    short = array[
        tuple(slice(1) if s == 0 and n > 1 else slice(None) for s, n in zip(array.strides, array.shape, strict=True))
    ]
    copy = short.copy() if short.dtype == np.bool_ else kernels.copied(short)
    return np.broadcast_to(copy, array.shape)


def scaled_dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    attn_mask: ArrayLike | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    q_offset: ArrayLike = 0,
    window: Window = None,
    softcap: float = 0.0,
    kv_lengths: ArrayLike | None = None,
) -> Array:
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
    call = _prepare(
        "scaled_dot_product_attention", query, key, value, attn_mask, is_causal, scale, enable_gqa, q_offset, window,
        softcap, kv_lengths,
    )  # fmt: skip
    out = call.forward()[0]
    return out[0] if call.flat else out


def scaled_dot_product_attention_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    attn_mask: ArrayLike | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    q_offset: ArrayLike = 0,
    window: Window = None,
    softcap: float = 0.0,
    kv_lengths: ArrayLike | None = None,
) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array, Array]]]:
    """As `scaled_dot_product_attention`, and a pullback(dout) -> (dquery, dkey, dvalue), shaped as the three arguments.

    The pullback owns what it needs and can be called once. The gradient of a query that sees no key is 0.

        out, pullback = pyrnn.scaled_dot_product_attention_vjp(q, k, v, is_causal=True)
        dq, dk, dv = pullback(out - target)
    """
    name = "scaled_dot_product_attention_vjp"
    call = _prepare(
        name, query, key, value, attn_mask, is_causal, scale, enable_gqa, q_offset, window, softcap, kv_lengths
    )
    shapes = [np.shape(array) for array in (query, key, value)]
    out, back = _vjp(f"{name} pullback", call.owned())

    def pullback(dout: ArrayLike) -> tuple[Array, Array, Array]:
        grads = back(dout)
        dquery, dkey, dvalue = (_summed(g, s) for g, s in zip(grads, shapes, strict=True))
        return dquery, dkey, dvalue

    return out, pullback


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


def _vjp(name: str, call: _Call) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array, Array]]]:
    """out and back(dout) of a call that owns its arrays; name: of the pullback."""
    own, stats = call.forward()
    out = kernels.copied(own[0] if call.flat else own)
    kept, shape, dtype = Once(name, (call, own, stats)), out.shape, out.dtype

    def back(dout: ArrayLike) -> tuple[Array, Array, Array]:
        dout = shaped_array(name, "dout", dout, dtype, shape)
        call, own, stats = kept.take()
        dquery, dkey, dvalue = kernels.attention.backward(
            dout.reshape(own.shape), call.query, call.key, call.value, own, stats, call.mask, **call.options
        )
        return dquery, dkey, dvalue

    return out, back


def _summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of a broadcast from `shape`."""
    before = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(axis for axis, (n, m) in enumerate(zip(gradient.shape, before, strict=True)) if n != m)
    total: Array = gradient.sum(axis=axes) if axes else gradient  # a sum of one number would lose the sign of its zero
    return total.reshape(shape)


def _prepare(
    call: str,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    is_causal: Any,
    scale: Any,
    enable_gqa: Any,
    q_offset: Any,
    window: Any,
    softcap: Any,
    kv_lengths: Any,
) -> _Call:
    """Checks and converts the arguments of one call. Written out, for it is a good part of the smallest calls."""
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
    if enable_gqa is not False:
        enable_gqa = boolean(call, "enable_gqa", enable_gqa)
    if heads not in (1, query_heads) and not (enable_gqa and heads and query_heads % heads == 0):
        expected = f"(..., {query_heads}, K, {features}) or one head, as query has"
        if enable_gqa:
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
    if attn_mask is not None:
        mask = any_array(call, "attn_mask", attn_mask)
        if mask.dtype.kind not in "bf":
            raise dtype_error(call, "attn_mask", mask, "booleans or floats")
        full = (*batch, query_heads, queries, keys)
        try:
            mask = np.broadcast_to(mask if mask.dtype == np.bool_ else mask.astype(dtype, copy=False), full)
        except ValueError:
            raise shape_error(call, "attn_mask", mask.shape, f"a shape that broadcasts to {full}") from None

    options: dict[str, Any] = {
        "scale": (features or 1) ** -0.5 if scale is None else real(call, "scale", scale, -_LARGEST, _LARGEST)
    }
    if window is not None:
        try:
            left, right = window
        except (TypeError, ValueError):
            raise ValueError(f"{call}: window is {shown(window)}, expected (left, right)") from None
        options["left"] = integer(call, "window[0]", left, -1)
        options["right"] = integer(call, "window[1]", right, -1)
    if is_causal is not False and boolean(call, "is_causal", is_causal):
        options["right"] = 0
    if softcap != 0.0:
        options["softcap"] = real(call, "softcap", softcap, 0, _LARGEST)
    if not (type(q_offset) is int and q_offset == 0):
        offsets = integer_array(call, "q_offset", q_offset)
        options["offsets"] = _over_batch(call, "q_offset", offsets, batch)
    if kv_lengths is not None:
        lengths = within(call, "kv_lengths", integer_array(call, "kv_lengths", kv_lengths), keys)
        options["lengths"] = _over_batch(call, "kv_lengths", lengths, batch)
    return _Call(query, key, value, mask, options, flat)


def _over_batch(call: str, name: str, numbers: Array, batch: tuple[int, ...]) -> Array:
    try:
        return np.broadcast_to(numbers, batch).copy()
    except ValueError:
        raise shape_error(
            call, name, numbers.shape, f"a shape that broadcasts to {batch}, the axes before the heads"
        ) from None


class MultiheadAttention(Layer):
    """Attention of several heads between linear maps of query, key and value, and one of the result.

    Parameters and initialisation as in torch.nn.MultiheadAttention: `in_proj_weight` (E + 2*Hk*d, E), query, key and
    value one below the other, with d = E / num_heads and Hk = `num_kv_heads` (num_heads by default); `q_proj_weight`,
    `k_proj_weight`, `v_proj_weight` instead where `kdim` or `vdim` differs from E; `in_proj_bias`, `out_proj.weight`,
    `out_proj.bias`. rng: None, an int seed or a numpy.random.Generator. TypeError and ValueError for arguments that
    make no layer.

    Masks are those of `scaled_dot_product_attention`: True = attend. torch's module means the opposite.

        layer = pyrnn.MultiheadAttention(64, 8, num_kv_heads=2, rng=0)
        out = layer(np.ones((5, 3, 64)), is_causal=True)  # (S, N, E) -> (S, N, E)
    """

    _op: ClassVar[Any] = kernels.linear

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        num_kv_heads: int | None = None,
        batch_first: bool = False,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:
        call = type(self).__name__
        self.embed_dim = integer(call, "embed_dim", embed_dim, 1, MOST)
        self.num_heads = integer(call, "num_heads", num_heads, 1, MOST)
        self.bias = boolean(call, "bias", bias)
        self.kdim = self.embed_dim if kdim is None else integer(call, "kdim", kdim, 1, MOST)
        self.vdim = self.embed_dim if vdim is None else integer(call, "vdim", vdim, 1, MOST)
        self.num_kv_heads = self.num_heads if num_kv_heads is None else integer(call, "num_kv_heads", num_kv_heads, 1)
        self.batch_first = boolean(call, "batch_first", batch_first)
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"{call}: embed_dim is {self.embed_dim}, expected a multiple of num_heads {self.num_heads}"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{call}: num_kv_heads is {self.num_kv_heads}, expected a divisor of {self.num_heads}")
        self.head_dim = self.embed_dim // self.num_heads
        width = self.num_kv_heads * self.head_dim
        self._cuts = np.cumsum([0, self.embed_dim, width, width]).tolist()  # rows of query, key and value
        self._packed = self.kdim == self.vdim == self.embed_dim
        shapes: Shapes = {"in_proj_weight": (self._cuts[3], self.embed_dim)}
        if not self._packed:
            sizes = {"q": (self.embed_dim, self.embed_dim), "k": (width, self.kdim), "v": (width, self.vdim)}
            shapes = {f"{name}_proj_weight": size for name, size in sizes.items()}
        if self.bias:
            shapes["in_proj_bias"] = (self._cuts[3],)
        shapes["out_proj.weight"] = (self.embed_dim, self.embed_dim)
        if self.bias:
            shapes["out_proj.bias"] = (self.embed_dim,)
        super().__init__(float_dtype(call, dtype), shapes)
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        for name, shape in self._shapes.items():
            if name.endswith("weight"):  # Glorot and Bengio 2010, and as a Linear
                bound = self.embed_dim**-0.5 if name == "out_proj.weight" else math.sqrt(6 / sum(shape))
                self._params[name] = rng.uniform(-bound, bound, shape)

    def __call__(
        self, query: ArrayLike, key: ArrayLike | None = None, value: ArrayLike | None = None, **arguments: Any
    ) -> Array:
        """query (S, N, E), key (K, N, kdim), value (K, N, vdim) -> (S, N, E); with `batch_first` N comes first,
        unbatched it is left out. key defaults to the query, value to the key. `arguments` are those of
        `scaled_dot_product_attention`; attn_mask broadcasts to (N, H, S, K). TypeError and ValueError for what does not
        fit.

        out = layer(x, is_causal=True)
        """
        call = type(self).__name__
        inputs, batched = self._inputs(call, query, key, value)
        return self._joined(call, self._heads(call, inputs, self._weights(), arguments).forward()[0], batched)

    def attention_weights(self, query: ArrayLike, key: ArrayLike | None = None, **arguments: Any) -> Array:
        """The weights of every head, (N, H, S, K), unbatched (H, S, K), for the arguments of a call.

        weights = layer.attention_weights(x, is_causal=True)
        """
        call = f"{type(self).__name__}.attention_weights"
        inputs, batched = self._inputs(call, query, key, None)
        heads = self._heads(call, inputs, self._weights(), arguments)
        eye = np.eye(heads.key.shape[-2], dtype=self.dtype)
        value = np.broadcast_to(eye, heads.key.shape[:-1] + eye.shape[-1:])
        out = heads._replace(value=value).forward()[0]
        return out if batched else out[0]

    def vjp(
        self, query: ArrayLike, key: ArrayLike | None = None, value: ArrayLike | None = None, **arguments: Any
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array | None, Array | None]]]:
        """out, pullback. pullback(dout) -> (dquery, dkey, dvalue), with None for what was not given and its gradient
        added to what it defaulted to; it adds to `grads`, can be called once, and owns what it needs.

        out, pullback = layer.vjp(x, is_causal=True)
        dx, _, _ = pullback(out - target)
        """
        call = f"{type(self).__name__}.vjp"
        inputs, batched = self._inputs(call, query, key, value)
        inputs = [np.array(x, order="C") for x in inputs]
        weights = {name: array.copy() for name, array in self._weights().items()}
        name = f"{type(self).__name__} pullback"
        heads, back = _vjp(name, self._heads(call, inputs, weights, arguments).owned())
        mixed = self._mixed(heads)
        out = self._linear(mixed, weights["out_proj.weight"], weights.get("out_proj.bias"))
        given = (key is not None, value is not None)
        kept = Once(name, (inputs, weights, mixed))

        def pullback(dout: ArrayLike) -> tuple[Array, Array | None, Array | None]:
            dout = shaped_array(name, "dout", dout, self.dtype, out_shape)
            inputs, weights, mixed = kept.take()
            dout = dout if batched else self._with_batch(dout)
            with AllOrNone(self._flat[1], dout.size // self.embed_dim):
                dmixed = self._linear_back(dout, mixed, weights, "out_proj.weight", slice(None), "out_proj.bias")
                dheads = back(self._split(dmixed, self.num_heads))
                dinputs = [
                    self._linear_back(self._mixed(dhead), x, weights, *self._projection(k), "in_proj_bias")
                    for k, (dhead, x) in enumerate(zip(dheads, inputs, strict=True))
                ]
            dquery, dkey, dvalue = (d if batched else self._without_batch(d) for d in dinputs)
            if not given[1]:
                dkey = dkey + dvalue
            if not given[0]:
                dquery = dquery + dkey
            return dquery, dkey if given[0] else None, dvalue if given[1] else None

        out = out if batched else self._without_batch(out)
        out_shape = out.shape
        return out, pullback

    def stream(
        self, batch: int = 1, *, window: Window = None, softcap: float = 0.0, scale: float | None = None
    ) -> AttentionStream:
        """Causal self-attention one step at a time, with a growing cache of keys and values: the same bits as a call
        with is_causal=True on the whole sequence. It works on the weights as they are now. With a window the cache does
        not grow beyond it and some thousand steps: keys that no later step can see are dropped. TypeError and
        ValueError for arguments that are wrong in a call too.

        stream = layer.stream(batch=3)
        out_t = stream.step(x[t])  # (N, E) -> (N, E)
        """
        batch = integer(f"{type(self).__name__}.stream", "batch", batch, 1, MOST)
        if not self._packed:
            raise ValueError(
                f"{type(self).__name__}.stream: kdim and vdim differ from embed_dim, and a stream is its own key"
            )
        return AttentionStream(self, batch, {"window": window, "softcap": softcap, "scale": scale})

    # ---- parts of a call; arrays below have the batch axis

    def _weights(self) -> dict[str, Array]:
        return dict(self._params)

    def _projection(self, k: int) -> tuple[str, slice]:
        """Name of the weight of query (0), key (1) or value (2), and the rows that are its own."""
        if self._packed:
            return "in_proj_weight", slice(self._cuts[k], self._cuts[k + 1])
        return f"{'qkv'[k]}_proj_weight", slice(None)

    def _with_batch(self, x: Array) -> Array:
        return x[None] if self.batch_first else x[:, None]

    def _without_batch(self, x: Array) -> Array:
        return x[0] if self.batch_first else x[:, 0]

    def _inputs(self, call: str, query: Any, key: Any, value: Any) -> tuple[list[Array], bool]:
        """query, key and value with a batch axis, and whether they came with one."""
        key = query if key is None else key
        value = key if value is None else value
        arrays = []
        batched = None
        for name, given, width in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            x = real_array(call, name, given, self.dtype)
            letter = "S" if name == "query" else "K"
            axes = ("N", letter) if self.batch_first else (letter, "N")
            if x.ndim not in (2, 3) or x.shape[-1] != width or batched not in (None, x.ndim == 3):
                raise shape_error(
                    call,
                    name,
                    x.shape,
                    f"{shape_text(*axes, width)} or {shape_text(letter, width)}, all batched or none",
                )
            batched = x.ndim == 3
            arrays.append(x if batched else self._with_batch(x))
        rows = 0 if self.batch_first else 1
        for name, x in zip(("key", "value"), arrays[1:], strict=True):
            if x.shape[rows] != arrays[0].shape[rows]:
                raise shape_error(call, name, x.shape, f"{arrays[0].shape[rows]} rows in the batch, as query has")
        return arrays, bool(batched)

    def _heads(self, call: str, inputs: list[Array], weights: dict[str, Array], arguments: dict[str, Any]) -> _Call:
        """The projections of the inputs, (N, heads, rows, d), ready to attend."""
        bias = weights.get("in_proj_bias")
        heads: list[Array] = []
        for k, x in enumerate(inputs):
            name, rows = self._projection(k)
            part = None if bias is None else bias[self._cuts[k] : self._cuts[k + 1]]
            y = self._linear(x, weights[name][rows], part)
            heads.append(self._split(y, self.num_heads if k == 0 else self.num_kv_heads))
        return _prepare_by_name(call, heads, arguments)

    def _linear(self, x: Array, weight: Array, bias: Array | None) -> Array:
        y: Array = self._op.forward(x, weight, bias)
        return y

    def _linear_back(self, dy: Array, x: Array, weights: dict[str, Array], name: str, rows: slice, bias: str) -> Array:
        dweight = self.grads[name][rows]
        dbias = self.grads.get(bias)
        if dbias is not None and bias == "in_proj_bias":
            k = self._part_of(name, rows)
            dbias = dbias[self._cuts[k] : self._cuts[k + 1]]
        dx: Array = self._op.backward(
            dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]), weights[name][rows], dweight, dbias
        )
        return dx.reshape(x.shape)

    def _part_of(self, name: str, rows: slice) -> int:
        return self._cuts.index(rows.start) if self._packed else "qkv".index(name[0])

    def _split(self, x: Array, heads: int) -> Array:
        """(S, N, heads * d), or with N first -> (N, heads, S, d), without a copy."""
        x = x.reshape(*x.shape[:2], heads, -1) if x.size else x.reshape(*x.shape[:2], heads, self.head_dim)
        return x.transpose(0, 2, 1, 3) if self.batch_first else x.transpose(1, 2, 0, 3)

    def _mixed(self, x: Array) -> Array:
        """The way back, with a copy."""
        x = x.transpose(0, 2, 1, 3) if self.batch_first else x.transpose(2, 0, 1, 3)
        return np.ascontiguousarray(x).reshape(*x.shape[:2], x.shape[2] * x.shape[3])

    def _joined(self, call: str, heads: Array, batched: bool) -> Array:
        out = self._linear(self._mixed(heads), self.params["out_proj.weight"], self.params.get("out_proj.bias"))
        return out if batched else self._without_batch(out)


def _prepare_by_name(call: str, heads: Sequence[Array], arguments: dict[str, Any]) -> _Call:
    """`_prepare` of query, key and value for arguments passed on: those of scaled_dot_product_attention, by name."""
    query, key, value = heads
    defaults = {
        "attn_mask": None, "is_causal": False, "scale": None, "enable_gqa": True, "q_offset": 0, "window": None,
        "softcap": 0.0, "kv_lengths": None,
    }  # fmt: skip
    for name in arguments:
        if name not in defaults:
            raise TypeError(f"{call}: there is no argument {shown(name)}, only {', '.join(defaults)}")
    chosen = {**defaults, **arguments}
    chosen["enable_gqa"] = True  # the layer knows its heads
    return _prepare(call, query, key, value, *chosen.values())


class AttentionStream:
    """Causal self-attention of a `MultiheadAttention`, step by step: see its `stream`."""

    def __init__(self, layer: MultiheadAttention, batch: int, options: dict[str, Any]) -> None:
        self._layer = layer
        self._weights = {name: array.copy() for name, array in layer.params.items()}
        self._batch = batch
        self._options = options
        self._cache = np.empty((2, batch, layer.num_kv_heads, 0, layer.head_dim), layer.dtype)
        query = np.empty((batch, layer.num_heads, 0, layer.head_dim), layer.dtype)
        _prepare_by_name(f"{type(layer).__name__}.stream", (query, *self._cache), options)  # what is wrong with them
        self._length = 0
        self._first = 0  # the step of the cache's first key

    def __repr__(self) -> str:
        return f"{config_of.line(self._layer)}.stream(batch={self._batch})"

    @property
    def length(self) -> int:
        """How many steps it has seen."""
        return self._length

    def step(self, x: ArrayLike) -> Array:
        """x (N, E) -> (N, E), or (E,) -> (E,) where N is 1. ValueError for another shape.

        out_t = stream.step(x_t)
        """
        layer = self._layer
        call = "AttentionStream.step"
        array = real_array(call, "x", x, layer.dtype)
        single = array.ndim == 1 and self._batch == 1
        if array.shape != ((layer.embed_dim,) if single else (self._batch, layer.embed_dim)):
            raise shape_error(call, "x", array.shape, shape_text(self._batch, layer.embed_dim))
        array = array.reshape(self._batch, layer.embed_dim)
        out = self._attend(call, array[:, None] if layer.batch_first else array[None])
        return out.reshape(layer.embed_dim) if single else out.reshape(self._batch, layer.embed_dim)

    def __call__(self, x: ArrayLike) -> Array:
        """A chunk of steps in the layer's layout: (S, N, E) -> (S, N, E), (N, S, E) with `batch_first`, or (S, E) where
        N is 1. ValueError for another shape.

        out = stream(x)
        """
        layer = self._layer
        call = "AttentionStream"
        array = real_array(call, "x", x, layer.dtype)
        single = array.ndim == 2 and self._batch == 1
        rows = 0 if layer.batch_first else 1
        if array.shape[-1:] != (layer.embed_dim,) or not (
            single or (array.ndim == 3 and array.shape[rows] == self._batch)
        ):
            axes = (self._batch, "S") if layer.batch_first else ("S", self._batch)
            raise shape_error(call, "x", array.shape, shape_text(*axes, layer.embed_dim))
        out = self._attend(call, layer._with_batch(array) if single else array)
        return layer._without_batch(out) if single else out

    def reset(self) -> None:
        """Forget all steps."""
        self._length = self._first = 0

    def _attend(self, call: str, x: Array) -> Array:
        layer, weights = self._layer, self._weights
        bias = weights.get("in_proj_bias")
        y = layer._linear(x, weights["in_proj_weight"], bias)
        query, key, value = (
            layer._split(y[..., begin:end], heads)
            for begin, end, heads in zip(
                layer._cuts, layer._cuts[1:], (layer.num_heads, layer.num_kv_heads, layer.num_kv_heads), strict=False
            )
        )
        before = self._length - self._first
        after = before + query.shape[2]
        cache = self._cache
        if after > cache.shape[3]:
            shape = (*cache.shape[:3], max(2 * cache.shape[3], after, 64), cache.shape[4])
            cache = np.zeros(shape, cache.dtype)
            cache[:, :, :, :before] = self._cache[:, :, :, :before]
        cache[0, :, :, before:after] = key
        cache[1, :, :, before:after] = value
        arguments = {"is_causal": True, "q_offset": before, **self._options}
        prepared = _prepare_by_name(call, (query, cache[0, :, :, :after], cache[1, :, :, :after]), arguments)
        heads = prepared.forward()[0]
        out = layer._linear(layer._mixed(heads), weights["out_proj.weight"], weights.get("out_proj.bias"))
        left = prepared.options.get("left", -1)
        # What no later step sees goes, in whole runs: what stays keeps its place within a run, and results their bits.
        gone = max(0, after - left) // _RUN * _RUN if left >= 0 else 0
        if gone:
            stays = cache[:, :, :, gone:after]
            cache = np.zeros((*cache.shape[:3], after - gone + _RUN, cache.shape[4]), cache.dtype)
            cache[:, :, :, : after - gone] = stays
        self._cache, self._first, self._length = cache, self._first + gone, self._first + after
        return out


class PositionalEncoding(Layer):
    """Sines and cosines of the position, added to x: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.

    Feature 2k of position p is sin(p / 10000^(2k / E)), feature 2k + 1 its cosine. There are no parameters. TypeError
    and ValueError for arguments that make no encoding.

        encode = pyrnn.PositionalEncoding(64)
        y = encode(x)  # (S, N, 64), (S, 64), or (N, S, 64) with batch_first
    """

    def __init__(self, embed_dim: int, *, batch_first: bool = False, dtype: DTypeLike = "float32") -> None:
        call = type(self).__name__
        self.embed_dim = integer(call, "embed_dim", embed_dim, 1, MOST)
        self.batch_first = boolean(call, "batch_first", batch_first)
        super().__init__(float_dtype(call, dtype), {})

    def table(self, positions: ArrayLike) -> Array:
        """positions (...), integers -> (..., E).

        first = encode.table(range(10))
        """
        at = integer_array(f"{type(self).__name__}.table", "positions", positions).astype(np.float64)
        even = np.arange(0, self.embed_dim, 2)
        angles = at[..., None] * np.exp(even * (-math.log(10000.0) / self.embed_dim))
        both = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*at.shape, 2 * len(even))
        return both[..., : self.embed_dim].astype(self.dtype)

    def __call__(self, x: ArrayLike, offset: int = 0) -> Array:
        """x plus the encoding of positions offset, offset + 1, ... TypeError and ValueError for what does not fit.

        y_t = encode(x[t : t + 1], offset=t)
        """
        return self._encoded("", x, offset)

    def vjp(self, x: ArrayLike, offset: int = 0) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) is dy; it can be called once.

        y, pullback = encode.vjp(x)
        dx = pullback(dy)
        """
        y = self._encoded(".vjp", x, offset)
        kept, shape = Once(f"{type(self).__name__} pullback", None), y.shape

        def pullback(dy: ArrayLike) -> Array:
            dx = shaped_array(kept.call, "dy", dy, self.dtype, shape).copy()
            kept.take()
            return dx

        return y, pullback

    def _encoded(self, suffix: str, x: Any, offset: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        offset = integer(call, "offset", offset, -MOST, MOST)
        if array.ndim not in (2, 3) or array.shape[-1] != self.embed_dim:
            axes = ("N", "S") if self.batch_first else ("S", "N")
            raise shape_error(
                call, "x", array.shape, f"{shape_text(*axes, self.embed_dim)} or {shape_text('S', self.embed_dim)}"
            )
        axis = 1 if self.batch_first and array.ndim == 3 else 0
        table = self.table(np.arange(offset, offset + array.shape[axis]))
        y: Array = np.add(array, table if axis == 1 or array.ndim == 2 else table[:, None], order="C")
        return y


class AdditiveAttention(Layer):
    """A small network compares each query with each key: Bahdanau et al. 2015, arXiv:1409.0473, for encoder-decoder
    models.

        score(q, k) = score.weight . tanh(query.weight q + key.weight k + bias),  out = softmax(score) value

    Parameters: `query.weight` (H, Q), `key.weight` (H, D), `bias` (H,), `score.weight` (H,), uniform in ±1/sqrt of the
    number of inputs (H for `score.weight` and `bias`). rng: None, an int seed or a numpy.random.Generator. TypeError
    and ValueError for arguments that make no layer.

        layer = pyrnn.AdditiveAttention(32, 64, 16, rng=0)
        context, weights = layer(decoder_state, encoder_outputs, need_weights=True)
    """

    def __init__(
        self, query_dim: int, key_dim: int, hidden_size: int, *, dtype: DTypeLike = "float32", rng: Rng = None
    ) -> None:
        call = type(self).__name__
        self.query_dim = integer(call, "query_dim", query_dim, 1, MOST)
        self.key_dim = integer(call, "key_dim", key_dim, 1, MOST)
        self.hidden_size = integer(call, "hidden_size", hidden_size, 1, MOST)
        hidden = self.hidden_size
        shapes: Shapes = {
            "query.weight": (hidden, self.query_dim), "key.weight": (hidden, self.key_dim), "bias": (hidden,),
            "score.weight": (hidden,),
        }  # fmt: skip
        super().__init__(float_dtype(call, dtype), shapes)
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        for name, shape in self._shapes.items():
            bound = shape[-1] ** -0.5
            self._params[name] = rng.uniform(-bound, bound, shape)

    def __call__(
        self, query: ArrayLike, key: ArrayLike, value: ArrayLike | None = None, *, kv_lengths: ArrayLike | None = None,
        need_weights: bool = False,
    ) -> Any:  # fmt: skip
        """query (N, S, Q), key (N, K, D), value (N, K, Ev) (the key by default) -> (N, S, Ev), and with `need_weights`
        the weights (N, S, K) too. `kv_lengths` (N,): keys from there on are padding and never read; a row without keys
        gives 0. TypeError and ValueError for what does not fit.

        context = layer(state[:, None], outputs, kv_lengths=lengths)
        """
        call = type(self).__name__
        arrays = self._inputs(call, query, key, value, kv_lengths)
        _, weights, out = self._forward(*arrays)
        return (out, weights) if boolean(call, "need_weights", need_weights) else out

    def vjp(
        self, query: ArrayLike, key: ArrayLike, value: ArrayLike | None = None, *, kv_lengths: ArrayLike | None = None
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array, Array | None]]]:
        """out, pullback. pullback(dout) -> (dquery, dkey, dvalue), dvalue None (and part of dkey) where no value was
        given; it adds to `grads`, can be called once, and owns what it needs.

        out, pullback = layer.vjp(query, key)
        dquery, dkey, _ = pullback(out - target)
        """
        arrays = self._inputs(f"{type(self).__name__}.vjp", query, key, value, kv_lengths)
        q, k, v, seen = (array.copy() for array in arrays)
        bent, weights, out = self._forward(q, k, v, seen)
        out_shape = out.shape
        kept = Once(
            f"{type(self).__name__} pullback",
            (q, k, v, bent, weights, {n: param.copy() for n, param in self.params.items()}),
        )

        @quietly
        def pullback(dout: ArrayLike) -> tuple[Array, Array, Array | None]:
            dout = shaped_array(kept.call, "dout", dout, self.dtype, out_shape)
            q, k, v, bent, weights, params = kept.take()
            dweights = dout @ v.swapaxes(1, 2)
            dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
            dvalue = weights.swapaxes(1, 2) @ dout
            dsums = dscores[..., None] * params["score.weight"] * (1 - bent**2)  # (N, S, K, H)
            by_query, by_key = dsums.sum(axis=2), dsums.sum(axis=1)
            with AllOrNone(self._flat[1], dscores.size):
                self.grads["score.weight"] += np.einsum("nsk,nskh->h", dscores, bent)
                self.grads["bias"] += dsums.sum(axis=(0, 1, 2))
                self.grads["query.weight"] += np.einsum("nsh,nsi->hi", by_query, q)
                self.grads["key.weight"] += np.einsum("nkh,nki->hi", by_key, k)
            dquery, dkey = by_query @ params["query.weight"], by_key @ params["key.weight"]
            return (dquery, dkey, dvalue) if value is not None else (dquery, dkey + dvalue, None)

        return out, pullback

    def _inputs(
        self, call: str, query: Any, key: Any, value: Any, kv_lengths: Any
    ) -> tuple[Array, Array, Array, Array]:
        """query, key and value with zeros for padding, and which keys are seen, (N, K)."""
        q = real_array(call, "query", query, self.dtype)
        k = real_array(call, "key", key, self.dtype)
        v = k if value is None else real_array(call, "value", value, self.dtype)
        if q.ndim != 3 or q.shape[-1] != self.query_dim:
            raise shape_error(call, "query", q.shape, shape_text("N", "S", self.query_dim))
        if k.ndim != 3 or k.shape[-1] != self.key_dim or len(k) != len(q):
            raise shape_error(call, "key", k.shape, shape_text(len(q), "K", self.key_dim))
        if v.ndim != 3 or v.shape[:2] != k.shape[:2]:
            raise shape_error(call, "value", v.shape, shape_text(*k.shape[:2], "Ev"))
        seen = np.ones(k.shape[:2], bool)
        if kv_lengths is not None:
            lengths = within(call, "kv_lengths", integer_array(call, "kv_lengths", kv_lengths), k.shape[1])
            if lengths.shape != (len(q),):
                raise shape_error(call, "kv_lengths", lengths.shape, shape_text(len(q)))
            seen = np.arange(k.shape[1]) < lengths[:, None]
            k, v = np.where(seen[..., None], k, 0), np.where(seen[..., None], v, 0)
        return q, k, v, seen

    @quietly
    def _forward(self, q: Array, k: Array, v: Array, seen: Array) -> tuple[Array, Array, Array]:
        """tanh of the sums (N, S, K, H), weights (N, S, K), result."""
        params = self._params
        by_query, by_key = q @ params["query.weight"].T, k @ params["key.weight"].T + params["bias"]
        bent = np.tanh(by_query[:, :, None] + by_key[:, None])
        scores = np.where(seen[:, None], bent @ params["score.weight"], -np.inf)
        most = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        exps = np.exp(scores - np.where(np.isneginf(most), 0, most))
        total = exps.sum(axis=-1, keepdims=True)
        weights: Array = exps / np.where(total == 0, 1, total)
        return bent, weights, weights @ v
