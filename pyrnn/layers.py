"""What a model needs before, between and after its recurrent layers: tables, linear maps, normalisation, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import kernels
from ._arrays import (
    MOST,
    Array,
    Rng,
    boolean,
    float_dtype,
    integer,
    integer_array,
    lengths_array,
    real,
    real_array,
    shape_error,
    shape_text,
    shaped_array,
    within,
)
from ._pullback import AllOrNone, Once
from .parameters import Home, Layer, ParameterDict, Search, Shapes, unrecorded, without_recording

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


ndarray, INT64 = np.ndarray, np.dtype(np.int64)  # a global is found faster than an attribute


class Linear(Layer):
    """y = x W^T + b over the last axis.

    Parameters as in torch.nn.Linear: weight (O, I), bias (O,), both uniform in ±1/sqrt(I), drawn in this order. With
    `weight`, an Embedding of O ids and I features, W is its table: tied weights (Press & Wolf 2017, arXiv:1608.05859).
    The table stays the Embedding's: it is drawn, counted and saved there once, and both add to its gradient. The layer
    itself has the bias alone. rng: None, an int seed or a numpy.random.Generator. TypeError and ValueError for
    arguments that make no layer.

        layer = pyrnn.Linear(16, 4, rng=0)
        y = layer(np.ones((5, 3, 16)))  # (..., I) -> (..., O)
    """

    _op: ClassVar[Any] = kernels.linear
    _derived = (*Layer._derived, "_weights")
    _unwritten = ("rng", "weight")
    _sought = ("_table",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight: Embedding | None = None,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:
        call = type(self).__name__
        self.in_features = integer(call, "in_features", in_features, 1, MOST)
        self.out_features = integer(call, "out_features", out_features, 1, MOST)
        self.bias = boolean(call, "bias", bias)
        shapes: Shapes = {} if weight is not None else {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        super().__init__(float_dtype(call, dtype), shapes)
        if weight is not None:
            if not isinstance(weight, Embedding):
                raise TypeError(f"{call}: weight is {type(weight).__name__}, expected an Embedding")
            table = weight._params["weight"]
            if table.shape != (self.out_features, self.in_features) or table.dtype != self.dtype:
                raise ValueError(f"{call}: weight has shape {table.shape} and dtype {table.dtype}, "
                                 f"expected {(self.out_features, self.in_features)} and {self.dtype}")  # fmt: skip
        self._table = weight
        self._begin(rng)

    def config(self) -> dict[str, Any]:
        """The arguments of its class, see Layer.config; TypeError where it shares an Embedding's table.

        pyrnn.Linear(**layer.config())
        """
        if self._table is not None:
            raise TypeError("Linear.config: its weight is the table of an Embedding, which JSON cannot hold")
        return super().config()

    def _draw(self, rng: np.random.Generator) -> None:
        bound = self.in_features**-0.5
        self._flat[0][:] = rng.uniform(-bound, bound, self._size)

    def _find(self, prefix: str, found: Search, path: tuple[Any, ...]) -> None:
        if self._table is not None:
            self._table._find(prefix, found, path)
        super()._find(prefix, found, path)

    def __call__(self, x: ArrayLike) -> Array:
        """x (..., I) -> y (..., O), in the layer's dtype. TypeError for what is not real numbers, ValueError for a
        wrong shape.

        y = layer(x)
        """
        forward = self._op.forward
        weight, bias = self._weights if self._table is None else self._arrays("_params")
        y: Array
        # Checked there, and not twice: a call of one row takes less time than the checks here.
        if type(x) is ndarray and x.dtype is self.dtype:
            try:
                y = forward(x, weight, bias)
                return y
            except (TypeError, ValueError):  # the error, if there is one, is the layer's
                pass
        y = forward(self._input("", x), weight, bias)
        return y

    def _bind(self, home: Home) -> None:
        super()._bind(home)
        self._weights = self._params.get("weight"), self._params.get("bias")

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(y - target)
        """
        x = self._input(".vjp", x)
        weight, bias = self._arrays("_params")
        own = kernels.copied(x), kernels.copied(weight)
        y: Array = self._op.forward(*own, bias)
        shape, y_shape = x.shape, y.shape
        kept = Once(f"{type(self).__name__} pullback", own)

        def pullback(dy: ArrayLike) -> Array:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, y_shape).reshape(-1, self.out_features)
            x, weight = kept.take()
            x = x.reshape(-1, self.in_features)
            dx: Array = self._op.backward(dy, x, weight, *self._arrays("_grads"))
            return dx.reshape(shape)

        return y, pullback

    def _arrays(self, kind: str) -> tuple[Array, Array | None]:
        """Weight and bias, of "_params" or "_grads"."""
        own: ParameterDict = getattr(self, kind)
        return (own if self._table is None else getattr(self._table, kind))["weight"], own.get("bias")

    def _input(self, suffix: str, x: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.shape[-1:] != (self.in_features,):
            raise shape_error(call, "x", array.shape, f"(..., {self.in_features})")
        return array


class Embedding(Layer):
    """A table of vectors, one for each id.

    Parameter as in torch.nn.Embedding: weight (V, E), standard normal. The row `padding_idx`, where given (from the end
    if negative), starts as zeros and has no gradient from the pullback. rng and errors as in Linear.

        layer = pyrnn.Embedding(100, 16, rng=0)
        y = layer([[3, 1], [4, 1]])  # integers in 0..V-1, (...) -> (..., E)
    """

    _op: ClassVar[Any] = kernels.embedding

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:
        call = type(self).__name__
        self.num_embeddings = v = integer(call, "num_embeddings", num_embeddings, 1, MOST)
        self.embedding_dim = integer(call, "embedding_dim", embedding_dim, 1, MOST)
        self.padding_idx = None if padding_idx is None else integer(call, "padding_idx", padding_idx, -v, v - 1) % v
        super().__init__(float_dtype(call, dtype), {"weight": (self.num_embeddings, self.embedding_dim)})
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        self._flat[0][:] = rng.standard_normal(self._size)
        if self.padding_idx is not None:
            self._params["weight"][self.padding_idx] = 0

    def __call__(self, ids: ArrayLike) -> Array:
        """ids (...) -> y (..., E). TypeError for what is not integers, ValueError for an id outside 0..V-1.

        y = layer(ids)
        """
        if type(ids) is ndarray and ids.dtype is INT64:  # as in Linear
            try:
                y: Array = self._op.forward(ids, self._params["weight"])
                return y
            except (TypeError, ValueError):
                pass
        return self._look_up("", ids)[1]

    def vjp(self, ids: ArrayLike) -> tuple[Array, Callable[[ArrayLike], None]]:
        """y, pullback. pullback(dy) adds to `grads` and returns nothing; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(ids)
        pullback(dy)
        """
        flat, y = self._look_up(".vjp", ids)
        y_shape = y.shape
        kept = Once(f"{type(self).__name__} pullback", flat.copy())

        def pullback(dy: ArrayLike) -> None:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, y_shape).reshape(-1, self.embedding_dim)
            grad = self._grads["weight"]
            of_padding = None if self.padding_idx is None else grad[self.padding_idx].copy()
            self._op.backward(dy, kept.take(), grad)
            if of_padding is not None:
                grad[self.padding_idx] = of_padding

        return y, pullback

    def _look_up(self, suffix: str, ids: Any) -> tuple[Array, Array]:
        """ids (M,), y (..., E)."""
        call = type(self).__name__ + suffix
        ids = integer_array(call, "ids", ids)
        try:
            y: Array = self._op.forward(ids, self._params["weight"])
        except ValueError:
            within(call, "ids", ids, self.num_embeddings - 1)
            raise
        return ids.reshape(-1), y


class LayerNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, over the last axis: Ba, Kiros & Hinton 2016,
    arXiv:1607.06450.

    Parameters as in torch.nn.LayerNorm: weight (E,), ones, and bias (E,), zeros. The variance is that of the E numbers,
    not an estimate. TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.LayerNorm(16)
        y = layer(np.ones((5, 3, 16)))  # (..., E) -> (..., E)
    """

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True, *, dtype: DTypeLike = "float32") -> None:
        call = type(self).__name__
        self.size = integer(call, "size", size, 1, MOST)
        self.eps = real(call, "eps", eps, 0)
        self.bias = boolean(call, "bias", bias)
        shapes: Shapes = {"weight": (self.size,)}
        if self.bias:
            shapes["bias"] = (self.size,)
        super().__init__(float_dtype(call, dtype), shapes)
        self.params["weight"] = np.ones(self.size)

    def __call__(self, x: ArrayLike) -> Array:
        """x (..., E) -> y (..., E), in the layer's dtype. TypeError for what is not real numbers, ValueError for a
        wrong shape.

        y = layer(x)
        """
        return self._forward("", x)[2]

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(y - target)
        """
        normal, inverse, y = self._forward(".vjp", x)
        shape = y.shape
        kept = Once(f"{type(self).__name__} pullback", (normal, inverse, self.params["weight"].copy()))

        def pullback(dy: ArrayLike) -> Array:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, shape)
            normal, inverse, weight = kept.take()
            rows = tuple(range(dy.ndim - 1))
            with np.errstate(all="ignore"), AllOrNone(self._flat[1], dy.size // self.size):
                self.grads["weight"] += np.sum(dy * normal, axis=rows, dtype=np.float64).astype(self.dtype)
                if self.bias:
                    self.grads["bias"] += np.sum(dy, axis=rows, dtype=np.float64).astype(self.dtype)
                dnormal = dy * weight
                centre = dnormal.mean(axis=-1, keepdims=True)
                along = (dnormal * normal).mean(axis=-1, keepdims=True)
                dx: Array = (dnormal - centre - normal * along) * inverse
            return dx

        return y, pullback

    def _forward(self, suffix: str, x: Any) -> tuple[Array, Array, Array]:
        """(x - mean) / deviation (..., E), 1 / deviation (..., 1), y (..., E)."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.shape[-1:] != (self.size,):
            raise shape_error(call, "x", array.shape, f"(..., {self.size})")
        array = np.ascontiguousarray(array)
        with np.errstate(all="ignore"):
            centred = array - array.mean(axis=-1, keepdims=True)
            inverse = 1 / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + self.dtype.type(self.eps))
            normal = centred * inverse
            y = normal * self.params["weight"]
            if self.bias:
                y += self.params["bias"]
        return normal, inverse, y


class Dropout(Layer):
    """Sets numbers to 0 with probability p and multiplies the others by 1/(1-p), in `vjp` only: a call changes nothing.

    Fresh masks come from `rng` at each `vjp`, none where p is 0. With `per_sequence` all steps of a row share one mask
    (Gal & Ghahramani 2016, arXiv:1512.05287): x is then (T, N, F), (N, T, F) with batch_first, or (T, F). rng: None, an
    int seed or a numpy.random.Generator. No parameters. TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.Dropout(0.5, rng=0)
        y, pullback = layer.vjp(np.ones((5, 3, 16)))  # (...) -> (...)
    """

    def __init__(
        self,
        p: float,
        *,
        per_sequence: bool = False,
        batch_first: bool = False,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:
        call = type(self).__name__
        self.p = real(call, "p", p, 0, 1)
        self.per_sequence = boolean(call, "per_sequence", per_sequence)
        self.batch_first = boolean(call, "batch_first", batch_first)
        super().__init__(float_dtype(call, dtype), {})
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, x: ArrayLike) -> Array:
        """x as it is, a copy in the layer's dtype. TypeError for what is not real numbers, ValueError for a wrong
        shape.

        y = layer(x)
        """
        y: Array = self._input("", x)[0].copy(order="C")
        return y

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback: x and, in dx = pullback(dy), dy under the same mask. The pullback can be called once.

        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        """
        array, mask_shape = self._input(".vjp", x)
        if without_recording.get():
            return array.copy(order="C"), unrecorded
        shape = array.shape
        mask = dropout_mask(self.rng, self.p, mask_shape, self.dtype) if self.p else np.ones((), self.dtype)
        with np.errstate(all="ignore"):
            y: Array = np.multiply(array, mask, order="C")
        kept = Once(f"{type(self).__name__} pullback", mask)

        def pullback(dy: ArrayLike) -> Array:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, shape)
            with np.errstate(all="ignore"):
                dx: Array = np.multiply(dy, kept.take(), order="C")
            return dx

        return y, pullback

    def _input(self, suffix: str, x: Any) -> tuple[Array, tuple[int, ...]]:
        """x, and the shape of its mask."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if not self.per_sequence:
            return array, array.shape
        if array.ndim not in (2, 3):
            axes = ("N", "T", "F") if self.batch_first else ("T", "N", "F")
            raise shape_error(call, "x", array.shape, f"{shape_text(*axes)} or (T, F)")
        steps = 1 if self.batch_first and array.ndim == 3 else 0
        return array, (*array.shape[:steps], 1, *array.shape[steps + 1 :])


def dropout_mask(rng: np.random.Generator, p: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """1/(1-p) with probability 1-p, else 0."""
    kept: Array = rng.random(shape, dtype=dtype) >= p
    return np.multiply(kept, 1 / (1 - p) if p < 1 else 0, dtype=dtype)


class LogSoftmax(Layer):
    """y = x - log sum exp x over the last axis: the logarithms of the probabilities of V classes.

    For `negative_log_likelihood` and for adding up scores in a search. No parameters. ValueError for a wrong dtype.

        y = pyrnn.LogSoftmax()(logits)  # (..., V) -> (..., V)
    """

    def __init__(self, *, dtype: DTypeLike = "float32") -> None:
        super().__init__(float_dtype(type(self).__name__, dtype), {})

    def __call__(self, x: ArrayLike) -> Array:
        """x (..., V) -> y (..., V), in the layer's dtype. TypeError for what is not real numbers, ValueError for a
        wrong shape.

        y = layer(x)
        """
        return self._forward("", x)

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        """
        y = self._forward(".vjp", x)
        kept, shape = Once(f"{type(self).__name__} pullback", y.copy()), y.shape

        def pullback(dy: ArrayLike) -> Array:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, shape)
            with np.errstate(all="ignore"):
                dx: Array = dy - np.exp(kept.take()) * dy.sum(axis=-1, keepdims=True)
            return dx

        return y, pullback

    def _forward(self, suffix: str, x: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.ndim == 0 or array.shape[-1] == 0:
            raise shape_error(call, "x", array.shape, "(..., V)")
        with np.errstate(all="ignore"):
            y: Array = np.subtract(array, array.max(axis=-1, keepdims=True), order="C")
            y -= np.log(np.exp(y).sum(axis=-1, keepdims=True))
        return y


class OneStep(Layer):
    """What MaxOverTime and LastStep share: of each feature of a row, the number at one of its valid steps."""

    def __init__(self, *, batch_first: bool = False, dtype: DTypeLike = "float32") -> None:
        self.batch_first = boolean(type(self).__name__, "batch_first", batch_first)
        super().__init__(float_dtype(type(self).__name__, dtype), {})

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """x (T, N, F) -> y (N, F), in the layer's dtype. lengths (N,) integers in 0..T, one integer for x (T, F).
        TypeError for what is not real numbers, ValueError for wrong shapes and lengths.

        y = layer(x, lengths=[5, 2])
        """
        return self._forward("", x, lengths)[0]

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(dy)
        """
        y, places, axis = self._forward(".vjp", x, lengths)
        kept, shape = Once(f"{type(self).__name__} pullback", places), y.shape

        def pullback(dy: ArrayLike) -> Array:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, shape)
            dx = np.where(kept.take(), dy, self.dtype.type(0))
            return np.ascontiguousarray(np.moveaxis(dx, 0, axis))

        return y, pullback

    def _forward(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array, int]:
        """y, booleans (T, ...) where its numbers are from, and the axis of x that is T."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.ndim not in (2, 3):
            axes = ("N", "T", "F") if self.batch_first else ("T", "N", "F")
            raise shape_error(call, "x", array.shape, f"{shape_text(*axes)} or (T, F)")
        axis = 1 if self.batch_first and array.ndim == 3 else 0
        array = np.moveaxis(array, axis, 0)  # (T, N, F) or (T, F)
        steps = np.arange(len(array)).reshape(-1, *[1] * (array.ndim - 1))
        valid = steps < len(array)
        if lengths is not None:
            ends = lengths_array(call, lengths, len(array), array.shape[1] if array.ndim == 3 else None)
            valid = steps < (ends[:, None] if array.ndim == 3 else ends)
        if len(array) == 0:
            return np.zeros(array.shape[1:], self.dtype), np.zeros(array.shape, np.bool_), axis
        chosen = self._step(array, valid)[None]
        y = np.where(valid.any(axis=0), np.take_along_axis(array, chosen, axis=0)[0], self.dtype.type(0))
        return y, (steps == chosen) & valid, axis

    def _step(self, x: Array, valid: Array) -> Array:
        """x (T, ..., F), which steps are valid -> the step for each feature, (..., F)."""
        raise NotImplementedError


class MaxOverTime(OneStep):
    """The largest number of each feature over the valid steps of a row: a summary of one size for any length.

    The pooling of Collobert et al. 2011 (arXiv:1103.0398). The gradient goes to the step of the maximum, the first of
    equal ones. A row without steps gives 0. No parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.MaxOverTime()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def _step(self, x: Array, valid: Array) -> Array:
        first: Array = np.where(valid, x, -np.inf).argmax(axis=0)
        return first


class LastStep(OneStep):
    """The last valid step of each row: a summary of one size for any length.

    Behind a recurrent layer of one direction it is the final output. (Of two directions the backward one has read
    nothing but this step by then; final states of both are in the `state` of the layer.) A row without steps gives 0.
    No parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.LastStep()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def _step(self, x: Array, valid: Array) -> Array:
        last = np.maximum(valid.sum(axis=0) - 1, 0)
        return np.broadcast_to(last, x.shape[1:])
