"""Additive attention: a small network compares each query with each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays import (
    MOST,
    Array,
    Rng,
    boolean,
    float_dtype,
    integer,
    integer_array,
    quietly,
    real_array,
    shape_error,
    shape_text,
    shaped_array,
    within,
)
from .._pullback import AllOrNone, Once
from ..parameters import Layer, Shapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


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
