"""Attention of several heads, between linear maps of query, key and value, and one of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import kernels
from ...core.checks import (
    MOST,
    Array,
    Rng,
    boolean,
    float_dtype,
    integer,
    real_array,
    shape_error,
    shape_text,
)
from ...core.encoded import rows
from ...core.layer import Layer
from ...core.parameters import Shapes, unrecorded
from ...core.pullback import AllOrNone, Pullback
from .functional import Call, Options, checked, copied
from .projection import Projection
from .stream import AttentionStream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from .functional import Window


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
    _has_products = True
    _features = ("embed_dim", "embed_dim")
    _derived = (*Layer._derived, "_compiled")
    _compiled: Mapping[str, Any] = {}  # of a quantized layer: its linear maps

    def __init__(
        self, embed_dim: int, num_heads: int, bias: bool = True,
        *, kdim: int | None = None, vdim: int | None = None, num_kv_heads: int | None = None, batch_first: bool = False,
        dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.embed_dim = integer(call, "embed_dim", embed_dim, 1, MOST)
        self.num_heads = integer(call, "num_heads", num_heads, 1, MOST)
        self.bias = boolean(call, "bias", bias)
        self.kdim = self.embed_dim if kdim is None else integer(call, "kdim", kdim, 1, MOST)
        self.vdim = self.embed_dim if vdim is None else integer(call, "vdim", vdim, 1, MOST)
        self.num_kv_heads = self.num_heads if num_kv_heads is None else integer(call, "num_kv_heads", num_kv_heads, 1)
        self.batch_first = boolean(call, "batch_first", batch_first)
        check_heads(call, self.embed_dim, self.num_heads, self.num_kv_heads)
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
        return self._attended(type(self).__name__, query, key, value, arguments)

    def _attended(self, call: str, query: Any, key: Any, value: Any, arguments: dict[str, Any]) -> Array:
        """A call, in whose name errors are."""
        inputs, batched = self._inputs(call, query, key, value)
        heads = self._attention(call, self._projected(inputs, self._params), arguments).forward()[0]
        out = self._output(self._params).forward(self._mixed(heads))
        return out if batched else self._without_batch(out)

    def attention_weights(self, query: ArrayLike, key: ArrayLike | None = None, **arguments: Any) -> Array:
        """The weights of every head, (N, H, S, K), unbatched (H, S, K), for the arguments of a call.

        weights = layer.attention_weights(x, is_causal=True)
        """
        call = f"{type(self).__name__}.attention_weights"
        inputs, batched = self._inputs(call, query, key, None)
        attention = self._attention(call, self._projected(inputs, self._params), arguments)
        eye = np.eye(attention.key.shape[-2], dtype=self.dtype)
        value = np.broadcast_to(eye, attention.key.shape[:-1] + eye.shape[-1:])
        out = attention._replace(value=value).forward()[0]
        return out if batched else out[0]

    def vjp(
        self, query: ArrayLike, key: ArrayLike | None = None, value: ArrayLike | None = None, **arguments: Any
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array | None, Array | None]]]:
        """out, pullback. pullback(dout) -> (dquery, dkey, dvalue), with None for what was not given and its gradient
        added to what it defaulted to; it adds to `grads`, can be called once, and owns what it needs.

        out, pullback = layer.vjp(x, is_causal=True)
        dx, _, _ = pullback(out - target)
        """
        return self._recorded(f"{type(self).__name__}.vjp", query, key, value, arguments)

    def _recorded(
        self, call: str, query: Any, key: Any, value: Any, arguments: dict[str, Any]
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array | None, Array | None]]]:
        """The vjp, in whose name errors are."""
        if self.quantized:
            self._refuse_recording()
            return self._attended(call, query, key, value, arguments), unrecorded
        inputs, batched = self._inputs(call, query, key, value)
        inputs = _each(lambda x: np.array(x, order="C"), inputs)
        weights = {name: array.copy() for name, array in self._params.items()}
        attention = self._attention(call, self._projected(inputs, weights), arguments)
        if attention.mask is not None:
            attention = attention._replace(mask=copied(attention.mask))
        heads, stats = attention.forward()
        mixed = self._mixed(heads)
        out = self._output(weights).forward(mixed)
        given = (key is not None, value is not None)
        kept = inputs, weights, attention, heads, stats, mixed

        def back(dout: Array, kept: Any) -> tuple[Array, Array | None, Array | None]:
            inputs, weights, attention, heads, stats, mixed = kept
            dout = dout if batched else self._with_batch(dout)
            with AllOrNone(self._flat[1], dout.size // self.embed_dim):
                dmixed = self._output(weights).backward(dout, mixed, self._output(self.grads))
                dheads = attention.backward(self._split(dmixed, self.num_heads), heads, stats)
                maps, grads = self._projections(weights), self._projections(self.grads)
                dinputs = [
                    map_.backward(self._mixed(dhead), x, grad)
                    for map_, dhead, x, grad in zip(maps, dheads, inputs, grads, strict=True)
                ]
            dquery, dkey, dvalue = (d if batched else self._without_batch(d) for d in dinputs)
            if not given[1]:
                dkey = dkey + dvalue
            if not given[0]:
                dquery = dquery + dkey
            return dquery, dkey if given[0] else None, dvalue if given[1] else None

        out = out if batched else self._without_batch(out)
        return out, Pullback(f"{type(self).__name__} pullback", out, kept, back, "dout")

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
        call = f"{type(self).__name__}.stream"
        batch = integer(call, "batch", batch, 1, MOST)
        if not self._packed:
            raise ValueError(f"{call}: kdim and vdim differ from embed_dim, and a stream is its own key")
        options = Options(is_causal=True, scale=scale, enable_gqa=True, window=window, softcap=softcap)
        return AttentionStream(call, self, batch, options)

    # ---- parts of a call; arrays below have the batch axis

    def _pack(self) -> None:
        self._compiled = {}
        maps = dict(zip("qkv", self._projections(self._params), strict=True))
        if self._packed:
            maps["qkv"] = self._joint(self._params)
        maps["output"] = self._output(self._params)
        self._compiled = {name: map_.packed() for name, map_ in maps.items()}

    def _projections(self, arrays: Mapping[str, Array]) -> list[Any]:
        """The linear maps of query, key and value: their parameters, or copies or gradients of them."""
        if self._compiled:
            return [self._compiled[name] for name in "qkv"]
        bias = arrays.get("in_proj_bias")
        maps = []
        for k, (begin, end) in enumerate(pairwise(self._cuts)):
            weight = rows(arrays["in_proj_weight"], begin, end) if self._packed else arrays[f"{'qkv'[k]}_proj_weight"]
            maps.append(Projection(self._op, weight, None if bias is None else bias[begin:end]))
        return maps

    def _joint(self, arrays: Mapping[str, Array]) -> Any:
        """The three in one."""
        if self._compiled:
            return self._compiled["qkv"]
        return Projection(self._op, arrays["in_proj_weight"], arrays.get("in_proj_bias"))

    def _output(self, arrays: Mapping[str, Array]) -> Any:
        if self._compiled:
            return self._compiled["output"]
        return Projection(self._op, arrays["out_proj.weight"], arrays.get("out_proj.bias"))

    def _projected(self, inputs: Sequence[Array], arrays: Mapping[str, Array]) -> list[Array]:
        """Query, key and value of every head, (N, heads, rows, d). Self-attention makes them in one product, which has
        the bits of three."""
        query, key, value = inputs
        if self._packed and query is key is value:
            return self._cut(self._joint(arrays).forward(query))
        parts = [map_.forward(x) for map_, x in zip(self._projections(arrays), inputs, strict=True)]
        counts = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        return [self._split(y, count) for y, count in zip(parts, counts, strict=True)]

    def _cut(self, y: Array) -> list[Array]:
        """The same of the one product."""
        first, second = self.num_heads, self.num_heads + self.num_kv_heads
        heads = self._split(y, second + self.num_kv_heads)
        return [heads[:, :first], heads[:, first:second], heads[:, second:]]

    def _attention(self, call: str, heads: Sequence[Array], arguments: dict[str, Any]) -> Call:
        options = Options.named(call, arguments)._replace(enable_gqa=True)  # the layer knows its heads
        return checked(call, options, *heads)

    def _with_batch(self, x: Array) -> Array:
        return x[None] if self.batch_first else x[:, None]

    def _without_batch(self, x: Array) -> Array:
        return x[0] if self.batch_first else x[:, 0]

    def _inputs(self, call: str, query: Any, key: Any, value: Any) -> tuple[list[Array], bool]:
        """query, key and value with a batch axis, and whether they came with one. What is left out, or the same object
        as the one before it, is the same array."""
        arrays: list[Array] = []
        last = None
        for name, given, width in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            same = bool(arrays) and (given is None or given is last)
            x = arrays[-1] if same else real_array(call, name, given, self.dtype)
            last = last if same else given
            if x.ndim not in (2, 3) or x.shape[-1] != width or (arrays and x.ndim != arrays[0].ndim):
                letter = "S" if name == "query" else "K"
                axes = ("N", letter) if self.batch_first else (letter, "N")
                expected = f"{shape_text(*axes, width)} or {shape_text(letter, width)}, all batched or none"
                raise shape_error(call, name, x.shape, expected)
            arrays.append(x)
        batched = arrays[0].ndim == 3
        if not batched:
            arrays = _each(self._with_batch, arrays)
        rows = 0 if self.batch_first else 1
        for name, x in zip(("key", "value"), arrays[1:], strict=True):
            if x.shape[rows] != arrays[0].shape[rows]:
                raise shape_error(call, name, x.shape, f"{arrays[0].shape[rows]} rows in the batch, as query has")
        return arrays, batched

    def _split(self, x: Array, heads: int) -> Array:
        """(S, N, heads * d), or with N first -> (N, heads, S, d), without a copy."""
        x = x.reshape(*x.shape[:2], heads, self.head_dim)
        return x.transpose(0, 2, 1, 3) if self.batch_first else x.transpose(1, 2, 0, 3)

    def _mixed(self, x: Array) -> Array:
        """The way back, with a copy."""
        x = x.transpose(0, 2, 1, 3) if self.batch_first else x.transpose(2, 0, 1, 3)
        return np.ascontiguousarray(x).reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def check_heads(call: str, embed_dim: int, num_heads: int, num_kv_heads: int) -> None:
    """ValueError for heads that do not divide what they should."""
    if embed_dim % num_heads:
        raise ValueError(f"{call}: embed_dim is {embed_dim}, expected a multiple of num_heads {num_heads}")
    if num_heads % num_kv_heads:
        raise ValueError(f"{call}: num_kv_heads is {num_kv_heads}, expected a divisor of {num_heads}")


def _each(function: Callable[[Array], Array], arrays: Sequence[Array]) -> list[Array]:
    """function(array) of each, made once of an array that comes several times."""
    made = {id(array): function(array) for array in {id(array): array for array in arrays}.values()}
    return [made[id(array)] for array in arrays]
