"""Embedding and Linear: what a model needs before and after its recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import kernels
from ._arrays import (
    MOST,
    Array,
    boolean,
    float_dtype,
    generator,
    integer,
    integer_array,
    real_array,
    shape_error,
    shaped_array,
    used_pullback,
    within,
)
from .parameters import Layer, Shapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    Rng = int | np.random.Generator | None


class Linear(Layer):
    """y = x W^T + b over the last axis.

    Parameters as in torch.nn.Linear: weight (O, I), bias (O,), both uniform in ±1/sqrt(I), drawn in this order. rng:
    None, an int seed or a numpy.random.Generator. TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.Linear(16, 4, rng=0)
        y = layer(np.ones((5, 3, 16)))  # (..., I) -> (..., O)
    """

    _op: ClassVar[Any] = kernels.linear

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: DTypeLike = "float32", rng: Rng = None
    ) -> None:
        call = type(self).__name__
        self.in_features = integer(call, "in_features", in_features, 1, MOST)
        self.out_features = integer(call, "out_features", out_features, 1, MOST)
        self.bias = boolean(call, "bias", bias)
        shapes: Shapes = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        rng = generator(call, rng)
        super().__init__(float_dtype(call, dtype), shapes)
        params, _ = self.buffers[self.dtype]
        bound = self.in_features**-0.5
        params[:] = rng.uniform(-bound, bound, params.size)

    def __call__(self, x: ArrayLike) -> Array:
        """x (..., I) -> y (..., O), in the layer's dtype. TypeError for what is not real numbers, ValueError for a
        wrong shape.

        y = layer(x)
        """
        x = self._input("", x)
        y: Array = self._op.forward(x.reshape(-1, self.in_features), self.params["weight"], self.params.get("bias"))
        return y.reshape(*x.shape[:-1], self.out_features)

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(y - target)
        """
        x = self._input(".vjp", x)
        shape = x.shape
        saved: list[Array] = [np.array(x, order="C").reshape(-1, self.in_features), self.params["weight"].copy()]
        y: Array = self._op.forward(*saved, self.params.get("bias"))
        y = y.reshape(*shape[:-1], self.out_features)
        y_shape = y.shape

        def pullback(dy: ArrayLike) -> Array:
            call = f"{type(self).__name__} pullback"
            if not saved:
                raise used_pullback(call)
            dy = shaped_array(call, "dy", dy, self.dtype, y_shape).reshape(-1, self.out_features)
            x, weight = saved
            saved.clear()
            dx: Array = self._op.backward(dy, x, weight, self.grads["weight"], self.grads.get("bias"))
            return dx.reshape(shape)

        return y, pullback

    def _input(self, suffix: str, x: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.shape[-1:] != (self.in_features,):
            raise shape_error(call, "x", array.shape, f"(..., {self.in_features})")
        return array


class Embedding(Layer):
    """A table of vectors, one for each id.

    Parameter as in torch.nn.Embedding: weight (V, E), standard normal. rng and errors as in Linear.

        layer = pyrnn.Embedding(100, 16, rng=0)
        y = layer([[3, 1], [4, 1]])  # integers in 0..V-1, (...) -> (..., E)
    """

    _op: ClassVar[Any] = kernels.embedding

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, dtype: DTypeLike = "float32", rng: Rng = None
    ) -> None:
        call = type(self).__name__
        self.num_embeddings = integer(call, "num_embeddings", num_embeddings, 1, MOST)
        self.embedding_dim = integer(call, "embedding_dim", embedding_dim, 1, MOST)
        rng = generator(call, rng)
        super().__init__(float_dtype(call, dtype), {"weight": (self.num_embeddings, self.embedding_dim)})
        params, _ = self.buffers[self.dtype]
        params[:] = rng.standard_normal(params.size)

    def __call__(self, ids: ArrayLike) -> Array:
        """ids (...) -> y (..., E). TypeError for what is not integers, ValueError for an id outside 0..V-1.

        y = layer(ids)
        """
        return self._look_up("", ids)[1]

    def vjp(self, ids: ArrayLike) -> tuple[Array, Callable[[ArrayLike], None]]:
        """y, pullback. pullback(dy) adds to `grads` and returns nothing; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(ids)
        pullback(dy)
        """
        flat, y = self._look_up(".vjp", ids)
        y_shape = y.shape
        saved: list[Array] = [flat.copy()]

        def pullback(dy: ArrayLike) -> None:
            call = f"{type(self).__name__} pullback"
            if not saved:
                raise used_pullback(call)
            dy = shaped_array(call, "dy", dy, self.dtype, y_shape).reshape(-1, self.embedding_dim)
            self._op.backward(dy, saved.pop(), self.grads["weight"])

        return y, pullback

    def _look_up(self, suffix: str, ids: Any) -> tuple[Array, Array]:
        """ids (M,), y (..., E)."""
        call = type(self).__name__ + suffix
        ids = integer_array(call, "ids", ids)
        flat = ids.reshape(-1)
        try:
            y = self._op.forward(flat, self._params["weight"])
        except ValueError:
            within(call, "ids", flat, self.num_embeddings - 1)
            raise
        return flat, y.reshape(*ids.shape, self.embedding_dim)
