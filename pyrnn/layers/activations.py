"""Activations: functions of each number by itself, and the softmax over the last axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import MOST, Array, choice, float_dtype, integer, quietly, real, real_array, shape_error
from ..core.layer import Layer
from ..core.parameters import Shapes
from ..core.pullback import AllOrNone, Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class Activation(Layer):
    """What the activations share. Each is a `_value` and, for the way back, a `_slope`; NaN stays NaN."""

    _by_step = True
    _features = ("", "")

    def __init__(self, *, dtype: DTypeLike = "float32") -> None:
        super().__init__(float_dtype(type(self).__name__, dtype), self._make_shapes())

    def _make_shapes(self) -> Shapes:
        return {}

    @quietly
    def __call__(self, x: ArrayLike) -> Array:
        """x (...) -> y, of the same shape, in the layer's dtype. TypeError for what is not real numbers, ValueError for
        a wrong shape.

        y = layer(x)
        """
        return np.asarray(self._value(self._input("", x)), self.dtype)

    @quietly
    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        """
        array = self._input(".vjp", x)
        y = np.asarray(self._value(array), self.dtype)

        @quietly
        def back(dy: Array, slope: Array) -> Array:
            return np.asarray(dy * slope, self.dtype)

        return y, Pullback(f"{type(self).__name__} pullback", y, self._slope(array), back)

    def _input(self, suffix: str, x: Any) -> Array:
        return real_array(type(self).__name__ + suffix, "x", x, self.dtype)

    def _value(self, x: Array) -> Array:
        raise NotImplementedError

    def _slope(self, x: Array) -> Array:
        """The derivative of `_value`."""
        raise NotImplementedError


class ReLU(Activation):
    """y = max(x, 0): Nair & Hinton 2010. Its slope at 0 is 0. ValueError for a wrong dtype.

    y = pyrnn.ReLU()(x)  # (...) -> (...)
    """

    def __call__(self, x: ArrayLike) -> Array:
        """x (...) -> y, see Activation; NumPy has no word to say here that were to be kept quiet, which takes longer
        than a step's work.

        y = layer(x)
        """
        return np.asarray(self._value(self._input("", x)), self.dtype)

    def _value(self, x: Array) -> Array:
        y: Array = np.maximum(x, x.dtype.type(0))
        return y

    def _slope(self, x: Array) -> Array:
        return np.where(np.isnan(x), x, x > 0)


class LeakyReLU(Activation):
    """y = x where x > 0, else slope x: Maas, Hannun & Ng 2013. TypeError and ValueError for a slope that is no number.

    y = pyrnn.LeakyReLU(0.1)(x)  # (...) -> (...)
    """

    def __init__(self, slope: float = 0.01, *, dtype: DTypeLike = "float32") -> None:
        self.slope = real(type(self).__name__, "slope", slope, -math.inf)
        super().__init__(dtype=dtype)

    def _value(self, x: Array) -> Array:
        return np.where(x > 0, x, x * self.dtype.type(self.slope))

    def _slope(self, x: Array) -> Array:
        slope: Array = np.where(x > 0, self.dtype.type(1), self.dtype.type(self.slope))
        return slope


class PReLU(Activation):
    """y = x where x > 0, else w x, with a learned w: He et al. 2015, arXiv:1502.01852.

    Parameters as in torch.nn.PReLU: weight (n,), all `init`; n is 1, for all features, or their number, a w for each.
    TypeError and ValueError for arguments that make no layer.

        y = pyrnn.PReLU(16)(x)  # (..., 16) -> (..., 16)
    """

    def __init__(self, n: int = 1, init: float = 0.25, *, dtype: DTypeLike = "float32") -> None:
        self.n = integer(type(self).__name__, "n", n, 1, MOST)
        self.init = real(type(self).__name__, "init", init, -math.inf)
        super().__init__(dtype=dtype)
        self.params["weight"] = np.full(self.n, self.init)

    def _make_shapes(self) -> Shapes:
        return {"weight": (self.n,)}

    @quietly
    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        """
        array = self._input(".vjp", x)
        y = self._value(array)
        kept = np.where(array > 0, self.dtype.type(0), array), self._slope(array)

        @quietly
        def back(dy: Array, kept: tuple[Array, Array]) -> Array:
            below, slope = kept
            axes = tuple(range(dy.ndim - (self.n > 1)))
            with AllOrNone(self._flat[1], dy.size // self.n):
                self.grads["weight"] += np.sum(dy * below, axis=axes, dtype=np.float64).astype(self.dtype)
            return np.asarray(dy * slope, self.dtype)

        return y, Pullback(f"{type(self).__name__} pullback", y, kept, back)

    def _input(self, suffix: str, x: Any) -> Array:
        array = super()._input(suffix, x)
        if self.n > 1 and array.shape[-1:] != (self.n,):
            raise shape_error(type(self).__name__ + suffix, "x", array.shape, f"(..., {self.n})")
        return array

    def _value(self, x: Array) -> Array:
        return np.where(x > 0, x, x * self.params["weight"]).reshape(x.shape)

    def _slope(self, x: Array) -> Array:
        return np.where(x > 0, self.dtype.type(1), self.params["weight"]).reshape(x.shape)


class ELU(Activation):
    """y = x where x > 0, else alpha (e^x - 1): Clevert et al. 2016, arXiv:1511.07289. TypeError and ValueError for an
    alpha that is no number.

    y = pyrnn.ELU()(x)  # (...) -> (...)
    """

    def __init__(self, alpha: float = 1.0, *, dtype: DTypeLike = "float32") -> None:
        self.alpha = real(type(self).__name__, "alpha", alpha, -math.inf)
        super().__init__(dtype=dtype)

    def _value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.dtype.type(self.alpha) * np.expm1(np.minimum(x, 0)))

    def _slope(self, x: Array) -> Array:
        slope: Array = np.where(x > 0, self.dtype.type(1), self.dtype.type(self.alpha) * np.exp(np.minimum(x, 0)))
        return slope


class Tanh(Activation):
    """y = tanh x. ValueError for a wrong dtype.

    y = pyrnn.Tanh()(x)  # (...) -> (...)
    """

    def _value(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y

    def _slope(self, x: Array) -> Array:
        return 4 * sigmoid_slope(2 * x)


class Sigmoid(Activation):
    """y = 1 / (1 + e^-x). ValueError for a wrong dtype.

    y = pyrnn.Sigmoid()(x)  # (...) -> (...)
    """

    def _value(self, x: Array) -> Array:
        return sigmoid(x)

    def _slope(self, x: Array) -> Array:
        return sigmoid_slope(x)


class SiLU(Activation):
    """y = x sigmoid(x): Elfwing et al. 2018, arXiv:1702.03118. ValueError for a wrong dtype.

    y = pyrnn.SiLU()(x)  # (...) -> (...)
    """

    def _value(self, x: Array) -> Array:
        return x * sigmoid(x)

    def _slope(self, x: Array) -> Array:
        slope: Array = sigmoid(x) + x * sigmoid_slope(x)
        return slope


class GELU(Activation):
    """y = x P(X < x) for a normal X: Hendrycks & Gimpel 2016, arXiv:1606.08415.

    approximate="tanh" is x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), section 2 of it. ValueError for another
    name.

        y = pyrnn.GELU()(x)  # (...) -> (...)
    """

    def __init__(self, approximate: str = "none", *, dtype: DTypeLike = "float32") -> None:
        self.approximate = choice(type(self).__name__, "approximate", approximate, ("none", "tanh"))
        super().__init__(dtype=dtype)

    def _value(self, x: Array) -> Array:
        y: Array = x * (normal_probability(x) if self.approximate == "none" else (1 + np.tanh(self._bent(x))) / 2)
        return y

    def _slope(self, x: Array) -> Array:
        if self.approximate == "none":
            return normal_probability(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        bent = self._bent(x)
        of_bent = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return (1 + np.tanh(bent)) / 2 + x * 2 * sigmoid_slope(2 * bent) * of_bent

    def _bent(self, x: Array) -> Array:
        return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


class Softmax(Activation):
    """y = exp x / sum exp x over the last axis: probabilities of V classes. ValueError for a wrong dtype.

    Of the losses, `cross_entropy` takes what is before it, `negative_log_likelihood` what `LogSoftmax` gives.

        y = pyrnn.Softmax()(logits)  # (..., V) -> (..., V)
    """

    @quietly
    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        """
        y = self._value(self._input(".vjp", x))

        @quietly
        def back(dy: Array, own: Array) -> Array:
            along: Array = own * dy
            along -= own * along.sum(axis=-1, keepdims=True)
            return along

        return y, Pullback(f"{type(self).__name__} pullback", y, y.copy(), back)

    def _input(self, suffix: str, x: Any) -> Array:
        array = super()._input(suffix, x)
        if array.ndim == 0 or array.shape[-1] == 0:
            raise shape_error(type(self).__name__ + suffix, "x", array.shape, "(..., V)")
        return array

    def _value(self, x: Array) -> Array:
        y: Array = np.exp(x - x.max(axis=-1, keepdims=True))
        y /= y.sum(axis=-1, keepdims=True)
        return y


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), by powers of e that do not overflow."""
    e = np.exp(-np.abs(x))
    y: Array = np.where(x < 0, e, x.dtype.type(1)) / (1 + e)
    return y


def sigmoid_slope(x: Array) -> Array:
    """Its derivative, exact to rounding where it is small, too."""
    e = np.exp(-np.abs(x))
    slope: Array = e / ((1 + e) * (1 + e))
    return slope


def normal_probability(x: Array) -> Array:
    """P(X < x) for a normal X, to a few units in its last place, or x^2 of them far below 0, where it is small.

    Of z = |x| it is exp(-z^2 / 2) r p(1 - r) beyond z, r = 8 / (4 + z), with a polynomial p that was interpolated at
    Chebyshev's points: the way of Shepherd & Laframboise 1981.
    """
    z = np.abs(x)
    r = 8 / (4 + z)
    t = 1 - r
    p = np.full_like(t, BEYOND[x.dtype.name][0])
    for coefficient in BEYOND[x.dtype.name][1:]:
        p *= t
        p += x.dtype.type(coefficient)
    beyond = np.exp(-z * z / 2) * r * p
    y: Array = np.where(x > 0, 1 - beyond, beyond)
    return y


# The coefficients of p, highest power first: off by 4e-9 and by 1e-16 of the value.
BEYOND = {
    "float32": (
        2.74738043e-6, -2.15749037e-7, -2.72213832e-5, 1.67050533e-5, 0.000203030955, -0.000434992878, -0.000942336097,
        0.0075495805, -0.0233152481, 0.0483921743, -0.07598708, 0.0944106413,
    ),
    "float64": (
        -1.8670599387443788e-11, -2.1073102421598596e-10, -5.221854815541784e-11, 2.0064928142853155e-09,
        2.1773906474323642e-09, -9.843368038088548e-09, -1.989554923974363e-08, 3.3085570158087944e-08,
        1.2802961235706752e-07, -7.811427101125824e-08, -7.401611777643785e-07, 8.932253240241377e-08,
        4.39312351645043e-06, -2.384585641650268e-07, -2.8886873343568556e-05, 1.666802594394214e-05,
        0.0002038523078473711, -0.0004349615445563472, -0.0009425236208745779, 0.00754957186129351,
        -0.023315232244956473, 0.048392175092778364, -0.07598708024648651, 0.09441064130196893,
    ),
}  # fmt: skip
