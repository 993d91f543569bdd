"""ONNX' operators on single numbers and on their broadcast, by NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import kernels
from ...core.checks import FLOAT_DTYPES, Array
from .graph import Node
from .program import Function, Made
from .reading import package

MAKERS: dict[str, Callable[[Node], Made]] = {}


def plain(function: Function) -> Callable[[Node], Made]:
    """Of an operator without attributes."""
    return lambda node: function


def two_sided(function: Function) -> Callable[[Node], Made]:
    """Of an operator that broadcasts; before opset 7 only its second input, along an axis that is told."""

    def make(node: Node) -> Made:
        axis = node.attributes.get("axis")
        if node.opset >= 7 or axis is None:
            return function
        return lambda a, b: function(a, b.reshape(*b.shape, *[1] * (a.ndim - axis % a.ndim - b.ndim)))

    return make


def folded(function: Function) -> Callable[[Node], Made]:
    """Of an operator with any number of inputs."""
    return lambda node: lambda *arrays: functools.reduce(function, arrays)


def divide(a: Array, b: Array) -> Any:
    """Of integers the quotient without its fraction, as in C."""
    if a.dtype.kind in "fV":
        return a / b
    if not a.ndim and not b.ndim and b:  # a shape's, most often
        quotient = abs(int(a)) // abs(int(b))
        return np.array(quotient if (a < 0) == (b < 0) else -quotient, a.dtype)
    whole = a // b
    return (whole + ((a % b != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


def _power_of(x: Array, y: Array) -> Array:
    """In the dtype of x; of an integer and a negative one what C makes of the fraction."""
    fraction = x.dtype.kind in "iu" and y.dtype.kind == "i" and (y < 0).any()
    return np.asarray(np.power(x.astype(np.float64) if fraction else x, y)).astype(x.dtype, copy=False)


def _power(node: Node) -> Made:
    exponent = node.known(1)
    if exponent is not None and exponent.size == 1:
        simple = {2: np.square, 1: np.positive, 0.5: np.sqrt, -1: np.reciprocal}
        function = simple.get(exponent.item())
        if function is not None and exponent.ndim == 0:
            return lambda x: function(x) if x.dtype.kind == "f" else _power_of(x, exponent), (0,)
    return _power_of


def on_kernel(name: str, other: Function) -> Function:
    """One by one on the kernel, or by `other` where an array is of half precision, or none."""
    activated = kernels.linear.activated

    def run(x: Array) -> Array:
        """The function of an array."""
        return activated(x, name) if x.dtype in FLOAT_DTYPES and x.ndim else other(x)

    return run


def _plain_sigmoid(x: Array) -> Any:
    y = np.exp(-x)
    return np.reciprocal(y + y.dtype.type(1))


sigmoid = on_kernel("sigmoid", _plain_sigmoid)


def _softplus(x: Array) -> Any:
    return np.logaddexp(x, x.dtype.type(0))


relu = on_kernel("relu", lambda x: np.maximum(x, x.dtype.type(0)))


def _leaky_relu(node: Node) -> Made:
    alpha = node.attributes.get("alpha", 0.01)
    return lambda x: np.where(x < 0, x * x.dtype.type(alpha), x)


def _prelu(node: Node) -> Made:
    def run(x: Array, slope: Array) -> Array:
        if node.opset < 7 and slope.ndim == 1 and slope.size > 1:  # one for each channel
            slope = slope.reshape(-1, *[1] * (x.ndim - 2))
        return np.where(x < 0, x * slope, x).astype(x.dtype, copy=False)

    return run


def _elu(node: Node) -> Made:
    alpha = node.attributes.get("alpha", 1.0)
    return lambda x: np.where(x < 0, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)), x)


def _celu(node: Node) -> Made:
    alpha = node.attributes.get("alpha", 1.0)
    return lambda x: np.maximum(x, 0) + np.minimum(0, x.dtype.type(alpha) * np.expm1(x / x.dtype.type(alpha)))


def _selu(node: Node) -> Made:
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    return lambda x: x.dtype.type(gamma) * np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))


def _gelu(node: Node) -> Made:
    if node.attributes.get("approximate", "none") == "tanh":

        def approximate(x: Array) -> Any:
            kind = x.dtype.type
            return kind(0.5) * x * (1 + np.tanh(kind(math.sqrt(2 / math.pi)) * (x + kind(0.044715) * x * x * x)))

        return approximate
    return lambda x: x.dtype.type(0.5) * x * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))


def _hard_sigmoid(node: Node) -> Made:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return lambda x: np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), x.dtype.type(0), x.dtype.type(1))


def _hard_swish(x: Array) -> Any:
    kind = x.dtype.type
    return x * np.clip(x * kind(1 / 6) + kind(0.5), kind(0), kind(1))


def _swish(node: Node) -> Made:
    alpha = node.attributes.get("alpha", 1.702 if node.op.startswith("com.microsoft.") else 1.0)
    return lambda x: x * sigmoid(x * x.dtype.type(alpha))


def _thresholded_relu(node: Node) -> Made:
    alpha = node.attributes.get("alpha", 1.0)
    return lambda x: np.where(x > alpha, x, x.dtype.type(0))


def _clip(node: Node) -> Made:
    if node.opset < 11:
        low, high = node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)
        return lambda x: np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high))

    def run(x: Array, low: Any = None, high: Any = None) -> Array:
        if low is not None:
            x = np.maximum(x, low)
        return x if high is None else np.minimum(x, high)

    return run


def _mean(*arrays: Array) -> Any:
    total = functools.reduce(np.add, arrays)
    return total / total.dtype.type(len(arrays))


def _modulo(node: Node) -> Made:
    return np.fmod if node.attributes.get("fmod", 0) else np.mod


def _shift(node: Node) -> Made:
    return np.left_shift if node.attributes.get("direction") == "LEFT" else np.right_shift


def _is_infinite(node: Node) -> Made:
    positive, negative = node.attributes.get("detect_positive", 1), node.attributes.get("detect_negative", 1)
    return lambda x: np.isinf(x) & ((x > 0) & bool(positive) | (x < 0) & bool(negative))


def cast(node: Node) -> Made:
    """Between numbers and booleans; other kinds are for the reference."""
    onnx = package("from_onnx")
    kind = node.attributes["to"]
    if not isinstance(kind, int):  # by name, before opset 6
        kind = onnx.TensorProto.DataType.Value(kind)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    if dtype.kind not in "fiub" or kind not in PLAIN_KINDS:
        raise NotImplementedError

    def run(x: Array) -> Array:
        if x.dtype.kind not in "fiubV":
            raise ValueError(f"it casts from {x.dtype}, which is not done here")
        return x.astype(dtype, copy=False)

    return run


PLAIN_KINDS = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13}  # of TensorProto: the dtypes that NumPy has itself


def erf(x: Array) -> Any:
    """The error function, which NumPy does not have: -expm1(-a R(a)) of a = |x| with a polynomial R."""
    wide = x.dtype == np.float64
    end, coefficients = _erf_polynomial(26, 6.0) if wide else _erf_polynomial(10, 4.0)
    work = x if wide else x.astype(np.float32, copy=False)
    kind = work.dtype.type
    a = np.minimum(np.abs(work), kind(end))
    u = a * kind(2 / end) - kind(1)
    r = np.full_like(u, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        r *= u
        r += kind(coefficient)
    return np.copysign(np.expm1(-a * r), work).astype(x.dtype, copy=False)


@functools.cache
def _erf_polynomial(degree: int, end: float) -> tuple[float, list[float]]:
    """R of `erf` over u from -1 to 1, a = (u + 1) * end / 2; the end is where erf is 1 to rounding."""

    def r(u: Any) -> Any:
        a = (u + 1) * end / 2
        return np.array([-math.log(math.erfc(v)) / v for v in a])

    chebyshev = np.polynomial.chebyshev
    return end, [float(c) for c in chebyshev.cheb2poly(chebyshev.chebinterpolate(r, degree))]


MAKERS |= {
    "Abs": plain(np.abs), "Neg": plain(np.negative), "Sqrt": plain(np.sqrt), "Exp": plain(np.exp),
    "Log": plain(np.log), "Erf": plain(erf), "Tanh": plain(np.tanh), "Sigmoid": plain(sigmoid), "Relu": plain(relu),
    "Sin": plain(np.sin), "Cos": plain(np.cos), "Tan": plain(np.tan), "Asin": plain(np.arcsin),
    "Acos": plain(np.arccos), "Atan": plain(np.arctan), "Sinh": plain(np.sinh), "Cosh": plain(np.cosh),
    "Asinh": plain(np.arcsinh), "Acosh": plain(np.arccosh), "Atanh": plain(np.arctanh), "Sign": plain(np.sign),
    "Floor": plain(np.floor), "Ceil": plain(np.ceil), "Round": plain(np.rint), "Reciprocal": plain(np.reciprocal),
    "Not": plain(np.logical_not), "IsNaN": plain(np.isnan), "BitwiseNot": plain(np.invert),
    "Softplus": plain(_softplus), "Softsign": plain(lambda x: x / (1 + np.abs(x))), "HardSwish": plain(_hard_swish),
    "Mish": plain(lambda x: x * np.tanh(_softplus(x))), "LeakyRelu": _leaky_relu, "PRelu": _prelu, "Elu": _elu,
    "Celu": _celu, "Selu": _selu, "Gelu": _gelu, "com.microsoft.Gelu": _gelu, "HardSigmoid": _hard_sigmoid,
    "Swish": _swish, "com.microsoft.QuickGelu": _swish, "ThresholdedRelu": _thresholded_relu, "Clip": _clip,
    "IsInf": _is_infinite, "Cast": cast,
    "Add": two_sided(np.add), "Sub": two_sided(np.subtract), "Mul": two_sided(np.multiply), "Div": two_sided(divide),
    "And": two_sided(np.logical_and), "Or": two_sided(np.logical_or), "Xor": two_sided(np.logical_xor),
    "Equal": two_sided(np.equal), "Less": two_sided(np.less), "Greater": two_sided(np.greater),
    "LessOrEqual": two_sided(np.less_equal), "GreaterOrEqual": two_sided(np.greater_equal),
    "BitwiseAnd": two_sided(np.bitwise_and), "BitwiseOr": two_sided(np.bitwise_or),
    "BitwiseXor": two_sided(np.bitwise_xor), "Pow": _power, "Mod": _modulo, "BitShift": _shift,
    "Where": plain(np.where), "Min": folded(np.minimum), "Max": folded(np.maximum), "Sum": folded(np.add),
    "Mean": plain(_mean),
}  # fmt: skip
