"""Normalisation over the last axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import MOST, Array, boolean, float_dtype, integer, quietly, real, real_array, shape_error
from ..core.layer import Layer
from ..core.parameters import Shapes
from ..core.pullback import AllOrNone, Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class LayerNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, over the last axis: Ba, Kiros & Hinton 2016,
    arXiv:1607.06450.

    Parameters as in torch.nn.LayerNorm: weight (E,), ones, and bias (E,), zeros. The variance is that of the E numbers,
    not an estimate. TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.LayerNorm(16)
        y = layer(np.ones((5, 3, 16)))  # (..., E) -> (..., E)
    """

    _by_step = True

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
        own = normal, inverse, self.params["weight"].copy()

        def back(dy: Array, own: tuple[Array, Array, Array]) -> Array:
            normal, inverse, weight = own
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

        return y, Pullback(f"{type(self).__name__} pullback", y, own, back)

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


class LogSoftmax(Layer):
    """y = x - log sum exp x over the last axis: the logarithms of the probabilities of V classes.

    For `negative_log_likelihood` and for adding up scores in a search. No parameters. ValueError for a wrong dtype.

        y = pyrnn.LogSoftmax()(logits)  # (..., V) -> (..., V)
    """

    _by_step = True

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

        @quietly
        def back(dy: Array, own: Array) -> Array:
            dx: Array = dy - np.exp(own) * dy.sum(axis=-1, keepdims=True)
            return dx

        return y, Pullback(f"{type(self).__name__} pullback", y, y.copy(), back)

    def _forward(self, suffix: str, x: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.ndim == 0 or array.shape[-1] == 0:
            raise shape_error(call, "x", array.shape, "(..., V)")
        with np.errstate(all="ignore"):
            y: Array = np.subtract(array, array.max(axis=-1, keepdims=True), order="C")
            y -= np.log(np.exp(y).sum(axis=-1, keepdims=True))
        return y
