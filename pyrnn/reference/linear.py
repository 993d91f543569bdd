"""The affine map y = x W^T + b and its gradients; every product inside the recurrent cells is one of these.

On the way forward W may be a matrix in fewer bits:

    uint16 (O, I)             bfloat16, the upper halves of the float32 that are multiplied
    a pair, int8 q (O, I)     row o of W is s[o] q[o]. A vector x is brought to the same form, with the scale
    and float32 s (O,)        t = max|x| / 127 and the numbers p = round(x / t), of two as near the even one. x W[o]^T
                              is then (p . q[o]) (s[o] t), and p . q[o] a sum of whole numbers, which is exact. Where x
                              holds NaN or infinity, t is NaN

x is float32 then.

With the precision "bfloat16" both factors of every product, of the way forward and back, are rounded to bfloat16: to
nearest, of two as near to the even one, and what is smaller than 2**-126 to 0. Sums and all else are float32, and so
are the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import encoded


def forward(x: np.ndarray, weight: Any, bias: np.ndarray | None, *, precision: str = "float32") -> np.ndarray:
    """y = x W^T + b.   x (..., I), weight (O, I), bias (O,) or None -> y (..., O).

    Of several models all of these have an axis of models in front.
    """
    check_precision(precision, weight)
    if not isinstance(weight, tuple) and weight.ndim == 3:
        biases = [None] * len(x) if bias is None else bias
        return np.stack([forward(*own, precision=precision) for own in zip(x, weight, biases, strict=True)])
    if precision == "bfloat16":
        x, weight = encoded.rounded(x), encoded.rounded(weight)
    if isinstance(weight, tuple):
        y = _of_whole_numbers(x, *weight)
    else:
        y = x @ (_widened(weight) if weight.dtype == np.uint16 else weight).T
    return y if bias is None else y + bias


def check_precision(precision: str, *weights: Any) -> None:
    """ValueError for another one, and for weights that are not float32."""
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}, expected 'float32' or 'bfloat16'")
    for weight in weights if precision == "bfloat16" else ():
        if isinstance(weight, tuple) or weight.dtype != np.float32:
            raise ValueError("precision is 'bfloat16', expected 'float32': the weights are not float32")


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _of_whole_numbers(x: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        t = np.abs(x).max(axis=-1, keepdims=True, initial=0) / np.float32(127)
        t = np.where(np.isfinite(t), t, np.float32(np.nan))
        p = np.clip(np.where(t > 0, np.rint(x / t), 0), -127, 127)
        sums = p.astype(np.float64) @ q.T.astype(np.float64)  # exact below 2**53
        y: np.ndarray = sums.astype(np.float32) * (s * t)
    return y


def parts(weight: Any, count: int) -> list[Any]:
    """A matrix cut into as many, one below the other: views."""
    if isinstance(weight, tuple):
        return list(zip(*(np.split(array, count) for array in weight), strict=True))
    return list(np.split(weight, count))


def backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, dweight: np.ndarray, dbias: np.ndarray | None,
    *, precision: str = "float32", after_relu: bool = False,
) -> np.ndarray:  # fmt: skip
    """dx = dy W.   dy (M, O) -> dx (M, I); dy^T x is added to dweight (O, I), the column sums of dy to dbias (O,). Of
    several models all of these have an axis of models in front, and any axes of rows.

    With after_relu x came out of a ReLU, and dx is the gradient of what went into that: 0 where x is.
    """
    check_precision(precision, weight)
    if weight.ndim == 3:
        flat = [
            (own.reshape(-1, own.shape[-1]), rows.reshape(-1, rows.shape[-1])) for own, rows in zip(dy, x, strict=True)
        ]
        given = zip(flat, weight, dweight, dbias if dbias is not None else [None] * len(x), strict=True)
        return np.stack(
            [backward(*rows, *own, precision=precision, after_relu=after_relu) for rows, *own in given]
        ).reshape(x.shape)
    if dbias is not None:
        dbias += dy.sum(axis=0)
    if precision == "bfloat16":
        dy, x, weight = encoded.rounded(dy), encoded.rounded(x), encoded.rounded(weight)
    dweight += dy.T @ x
    dx: np.ndarray = dy @ weight
    return np.where(x <= 0, np.zeros_like(dx), dx) if after_relu else dx


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    """x (..., O) -> a function of its numbers, or for softmax and log_softmax of its rows."""
    shifted = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    functions: dict[str, Callable[[], np.ndarray]] = {
        "identity": lambda: x.copy(),
        "relu": lambda: np.maximum(x, 0),
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "tanh": lambda: np.tanh(x),
        "softmax": lambda: np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True),
        "log_softmax": lambda: shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)),
    }
    if activation not in functions:
        raise ValueError(f"activation is {activation!r}, expected one of {', '.join(functions)}")
    return functions[activation]().astype(x.dtype, copy=False)


class PackedLinear:
    """The affine map of `forward`, and what `activated` makes of it, for weights that stay what they are."""

    def __init__(self, weight: Any, bias: np.ndarray | None, activation: str) -> None:
        self._weight = tuple(map(np.copy, weight)) if isinstance(weight, tuple) else weight.copy()
        self._bias, self._activation = None if bias is None else bias.copy(), activation

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x (..., I) -> y (..., O)."""
        return activated(forward(x, self._weight, self._bias), self._activation)


class WindowedLinear:
    """The same of windows over steps: a convolution over time."""

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray | None, activation: str, stride: int, dilation: int, before: int,
        after: int,
    ) -> None:  # fmt: skip
        self._positions = weight.shape[2]
        self._linear = PackedLinear(weight.swapaxes(1, 2).reshape(len(weight), -1), bias, activation)
        self._stride, self._dilation, self._around = stride, dilation, (before, after)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x (N, C, T) -> y (N, O, U)."""
        x = np.pad(x, ((0, 0), (0, 0), self._around))
        reach = self._dilation * (self._positions - 1) + 1
        starts = range(0, x.shape[2] - reach + 1, self._stride)
        rows = np.zeros((len(x), len(starts), self._positions * x.shape[1]), x.dtype)
        for u, start in enumerate(starts):
            window = x[:, :, start : start + reach : self._dilation]
            rows[:, u] = window.swapaxes(1, 2).reshape(len(x), rows.shape[2])
        return self._linear.forward(rows).swapaxes(1, 2)

    def continued(self, past: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`forward` of past (N, C, P) and x (N, C, T) end to end, and these."""
        joined = np.concatenate([past, x], axis=2)
        return self.forward(joined), joined


def packed(weight: Any, bias: np.ndarray | None, activation: str = "identity") -> PackedLinear:
    """weight (O, I), as in `forward`, bias (O,) or None, copied."""
    return PackedLinear(weight, bias, activation)


def windowed(
    weight: np.ndarray, bias: np.ndarray | None, activation: str = "identity", stride: int = 1, dilation: int = 1,
    before: int = 0, after: int = 0,
) -> WindowedLinear:  # fmt: skip
    """weight (O, C, K): the map of windows of K steps, with zeros before and after x."""
    return WindowedLinear(weight, bias, activation, stride, dilation, before, after)
