"""Normalisation over the last axis, and of each feature over steps and rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import kernels
from ..core.checks import (
    MOST,
    Array,
    boolean,
    float_dtype,
    integer,
    quietly,
    real,
    real_array,
    shape_error,
)
from ..core.layer import Layer
from ..core.layout import Layout, valid_steps
from ..core.parameters import Shapes, unrecorded, without_recording
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
    _features = ("size", "size")
    _op: ClassVar[Any] = kernels.layer_norm

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
        return self._map()(self._input("", x))

    def _map(self) -> Callable[[Array], Array]:
        """A call without its checks."""
        forward, weight, bias, eps = self._op.forward, self._params["weight"], self._params.get("bias"), self.eps
        return lambda x: forward(x, weight, bias, eps)

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(y - target)
        """
        weight = self._params["weight"].copy()
        y, normal, inverse = self._op.record(self._input(".vjp", x), weight, self._params.get("bias"), self.eps)

        @quietly
        def back(dy: Array, own: tuple[Array, Array, Array]) -> Array:
            dx: Array
            dx, *grads = self._op.backward(dy, *own)
            with AllOrNone(self._flat[1], dy.size // self.size):
                for name, grad in zip(self._shapes, grads, strict=False):
                    self.grads[name] += grad
            return dx

        return y, Pullback(f"{type(self).__name__} pullback", y, (normal, inverse, weight), back)

    def _input(self, suffix: str, x: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.shape[-1:] != (self.size,):
            raise shape_error(call, "x", array.shape, f"(..., {self.size})")
        return array


class LogSoftmax(Layer):
    """y = x - log sum exp x over the last axis: the logarithms of the probabilities of V classes.

    For `negative_log_likelihood` and for adding up scores in a search. No parameters. ValueError for a wrong dtype.

        y = pyrnn.LogSoftmax()(logits)  # (..., V) -> (..., V)
    """

    _by_step = True
    _features = ("", "")

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


class BatchNorm1d(Layer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, each feature by itself: Ioffe & Szegedy 2015,
    arXiv:1502.03167.

    `vjp` trains: mean and variance are those of the feature over all valid steps of all rows, and `running_mean` and
    `running_var` move towards them by `momentum`, the variance as n / (n - 1) of what is divided by. A call evaluates,
    with the running ones. Parameters as in torch.nn.BatchNorm1d: weight (F,), ones, and bias (F,), zeros; the running
    ones are in the state dict but not in `params`, and a state dict of torch's may hold num_batches_tracked.
    TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.BatchNorm1d(16)
        y, pullback = layer.vjp(np.random.rand(5, 3, 16))  # (T, N, F) -> (T, N, F)
    """

    _by_step = True
    _features = ("num_features", "num_features")

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, batch_first: bool = False,
        *, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.num_features = integer(call, "num_features", num_features, 1, MOST)
        self.eps = real(call, "eps", eps, 0)
        self.momentum = real(call, "momentum", momentum, 0, 1)
        self.batch_first = boolean(call, "batch_first", batch_first)
        shape = (self.num_features,)
        super().__init__(float_dtype(call, dtype), {"weight": shape, "bias": shape})
        self.params["weight"] = np.ones(shape)
        self._unlearned = {"running_mean": np.zeros(shape, self.dtype), "running_var": np.ones(shape, self.dtype)}

    def _rows_first(self) -> None:
        """It matters with lengths alone."""

    @property
    def running_mean(self) -> Array:
        """The mean that a call subtracts (F,): a live array."""
        return self._unlearned["running_mean"]

    @property
    def running_var(self) -> Array:
        """The variance by which a call divides (F,): a live array."""
        return self._unlearned["running_var"]

    @quietly
    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """x (T, N, F) -> y, in the layer's dtype; (N, T, F) with batch_first, or (T, F); without lengths any
        (..., F). lengths (N,) integers in 0..T, one integer for x (T, F): y is 0 behind them. TypeError for what is not
        real numbers, ValueError for wrong shapes and lengths.

        y = layer(x, lengths=[5, 2])
        """
        array, valid = self._input("", x, lengths)
        y: Array = np.subtract(array, self.running_mean, order="C")
        y *= self.params["weight"] / np.sqrt(self.running_var + self.dtype.type(self.eps))
        y += self.params["bias"]
        if valid is not None:
            y[~valid] = 0
        return y

    @quietly
    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback, for training. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.
        ValueError for one step alone, which has no variance.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(y - target)
        """
        if without_recording.get():
            return self(x, lengths=lengths), unrecorded
        array, valid = self._input(".vjp", x, lengths)
        valid = np.ones(array.shape[:-1], np.bool_) if valid is None else valid
        rows = array[valid].astype(np.float64)  # (M, F)
        if len(rows) == 1:
            raise ValueError(f"{type(self).__name__}.vjp: x has one valid step, a variance needs two")
        y = np.zeros(array.shape, self.dtype)
        normal, inverse, weight = rows.astype(self.dtype), np.ones(0), self.params["weight"].copy()
        if len(rows):
            mean = rows.mean(axis=0)
            rows -= mean
            variance = (rows * rows).mean(axis=0)
            inverse = 1 / np.sqrt(variance + self.eps)
            normal = (rows * inverse).astype(self.dtype)
            y[valid] = normal * weight + self.params["bias"]
            of_sample = variance * (len(rows) / (len(rows) - 1))
            for running, now in ((self.running_mean, mean), (self.running_var, of_sample)):
                running[...] = (1 - self.momentum) * running + self.momentum * now
        own = valid, normal, inverse.astype(self.dtype), weight

        @quietly
        def back(dy: Array, own: tuple[Array, ...]) -> Array:
            valid, normal, inverse, weight = own
            dx = np.zeros(dy.shape, self.dtype)
            dy = dy[valid]
            if not len(dy):
                return dx
            along = np.sum(dy * normal, axis=0, dtype=np.float64).astype(self.dtype)
            total = np.sum(dy, axis=0, dtype=np.float64).astype(self.dtype)
            with AllOrNone(self._flat[1], len(dy)):
                self.grads["weight"] += along
                self.grads["bias"] += total
            dx[valid] = (dy - (normal * along + total) / len(dy)) * (weight * inverse)
            return dx

        return y, Pullback(f"{type(self).__name__} pullback", y, own, back)

    def _input(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array | None]:
        """x, and which of its steps are valid, None for all."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if lengths is None and array.shape[-1:] == (self.num_features,):
            return array, None
        layout = Layout.of(call, "x", array.shape, self.batch_first, (self.num_features,))
        steps, rows = layout.steps_first(array).shape[:2]
        own = layout.lengths(call, lengths, steps, rows)
        return array, layout.back(valid_steps(steps, rows, own))
