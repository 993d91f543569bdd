"""Additive attention: a small network compares each query with each key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import kernels
from ...core import checks
from ...core.checks import Array, Rng
from ...core.layer import Layer
from ...core.parameters import Shapes
from ...core.pullback import AllOrNone, Pullback
from .projection import Projection

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

    _op: ClassVar[Any] = kernels.linear
    _kernel: ClassVar[Any] = kernels.additive_attention

    def __init__(
        self, query_dim: int, key_dim: int, hidden_size: int, *, dtype: DTypeLike = "float32", rng: Rng = None
    ) -> None:
        call = type(self).__name__
        self.query_dim = checks.integer(call, "query_dim", query_dim, 1, checks.MOST)
        self.key_dim = checks.integer(call, "key_dim", key_dim, 1, checks.MOST)
        self.hidden_size = checks.integer(call, "hidden_size", hidden_size, 1, checks.MOST)
        hidden = self.hidden_size
        shapes: Shapes = {
            "query.weight": (hidden, self.query_dim), "key.weight": (hidden, self.key_dim), "bias": (hidden,),
            "score.weight": (hidden,),
        }  # fmt: skip
        super().__init__(checks.float_dtype(call, dtype), shapes)
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
        q, k, v, lengths = self._inputs(call, query, key, value, kv_lengths)
        by_query, by_key = self._projections(self._params)
        out: Array
        out, weights = self._kernel.forward(
            by_query.forward(q), by_key.forward(k), v, self._params["score.weight"], lengths
        )
        return (out, weights) if checks.boolean(call, "need_weights", need_weights) else out

    def vjp(
        self, query: ArrayLike, key: ArrayLike, value: ArrayLike | None = None, *, kv_lengths: ArrayLike | None = None
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array, Array | None]]]:
        """out, pullback. pullback(dout) -> (dquery, dkey, dvalue), dvalue None (and part of dkey) where no value was
        given; it adds to `grads`, can be called once, and owns what it needs.

        out, pullback = layer.vjp(query, key)
        dquery, dkey, _ = pullback(out - target)
        """
        q, k, v, lengths = self._inputs(f"{type(self).__name__}.vjp", query, key, value, kv_lengths)
        q, own = np.array(q, order="C"), _valid(k, lengths)  # weights' gradients read the padding of k
        v = own if v is k else np.array(v, order="C")
        params = {name: array.copy() for name, array in self._params.items()}
        by_query, by_key = self._projections(params)
        sums = by_query.forward(q), by_key.forward(own)
        out, weights = self._kernel.forward(*sums, v, params["score.weight"], lengths)
        kept = q, own, v, lengths, params, sums, weights

        @checks.quietly
        def back(dout: Array, kept: Any) -> tuple[Array, Array, Array | None]:
            q, k, v, lengths, params, sums, weights = kept
            by_query, by_key = self._projections(params)
            with AllOrNone(self._flat[1], len(q) * (q.shape[1] + k.shape[1])):
                dquery_sums, dkey_sums, dvalue = self._kernel.backward(
                    dout, *sums, v, params["score.weight"], weights, self.grads["score.weight"], lengths
                )
                query_grads, key_grads = self._projections(self.grads)
                dquery = by_query.backward(dquery_sums, q, query_grads)
                dkey = by_key.backward(dkey_sums, k, key_grads)
            return (dquery, dkey, dvalue) if value is not None else (dquery, dkey + dvalue, None)

        return out, Pullback(f"{type(self).__name__} pullback", out, kept, back, "dout")

    def _projections(self, arrays: Mapping[str, Array]) -> tuple[Projection, Projection]:
        """The linear maps of query and key: their parameters, or copies or gradients of them."""
        return (
            Projection(self._op, arrays["query.weight"], None),
            Projection(self._op, arrays["key.weight"], arrays["bias"]),
        )

    def _inputs(
        self, call: str, query: Any, key: Any, value: Any, kv_lengths: Any
    ) -> tuple[Array, Array, Array, Array | None]:
        q = checks.real_array(call, "query", query, self.dtype)
        k = checks.real_array(call, "key", key, self.dtype)
        v = k if value is None else checks.real_array(call, "value", value, self.dtype)
        if q.ndim != 3 or q.shape[-1] != self.query_dim:
            raise checks.shape_error(call, "query", q.shape, checks.shape_text("N", "S", self.query_dim))
        if k.ndim != 3 or k.shape[-1] != self.key_dim or len(k) != len(q):
            raise checks.shape_error(call, "key", k.shape, checks.shape_text(len(q), "K", self.key_dim))
        if v.ndim != 3 or v.shape[:2] != k.shape[:2]:
            raise checks.shape_error(call, "value", v.shape, checks.shape_text(*k.shape[:2], "Ev"))
        if kv_lengths is None:
            return q, k, v, None
        lengths = checks.within(call, "kv_lengths", checks.integer_array(call, "kv_lengths", kv_lengths), k.shape[1])
        if lengths.shape != (len(q),):
            raise checks.shape_error(call, "kv_lengths", lengths.shape, checks.shape_text(len(q)))
        return q, k, v, lengths.astype(np.int64)


def _valid(key: Array, lengths: Array | None) -> Array:
    """A copy with zeros for the padding."""
    own = np.array(key, order="C")
    if lengths is not None:
        own[np.arange(key.shape[1]) >= lengths[:, None]] = 0
    return own
