"""Convolution over time and its gradients, one position of the kernel at a time; and the same step by step.

Letters: T steps, N batch rows, C channels of x, O of y, G groups, K positions of the kernel, U steps of y.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.windows import WindowStream

Array = np.ndarray


def forward(
    x: Array, weight: Array, bias: Array | None,
    *, stride: int = 1, dilation: int = 1, groups: int = 1, before: int = 0, after: int = 0,
    lengths: Array | None = None,
) -> Array:  # fmt: skip
    """x (T, N, C), weight (O, C/G, K), bias (O,) or None -> y (U, N, O).

        y[u] = bias + sum_k weight[:, :, k] x[u stride + k dilation - before]

    where steps before the first and behind the last are zeros, `after` of them: U = (before + T + after - dilation
    (K - 1) - 1) // stride + 1, none where T is 0 or there are too few. Each of the G groups of channels of y reads a
    group of those of x.

    lengths: (N,) valid steps of each row, or None for T. What is behind them is never read, and a row's result is that
    of the row alone, with zeros behind it.
    """
    padded, _ = _padded(x, before, after, lengths)
    steps = int(_count(len(x), weight, stride, dilation, before + after))
    y = np.zeros((steps, x.shape[1], len(weight)), x.dtype)
    if bias is not None:
        y += bias
    for k, read in _reads(weight, stride, dilation, steps):
        for outputs, inputs in _groups(weight, groups):
            y[..., outputs] += padded[read][..., inputs] @ weight[outputs, :, k].T
    if lengths is not None:
        y[np.arange(steps)[:, None] >= _count(lengths, weight, stride, dilation, before + after)] = 0
    return y


def backward(
    dy: Array, x: Array, weight: Array, dweight: Array, dbias: Array | None,
    *, stride: int = 1, dilation: int = 1, groups: int = 1, before: int = 0, after: int = 0,
    lengths: Array | None = None,
) -> Array:  # fmt: skip
    """dx (T, N, C) for dy (U, N, O); those of weight and bias are added to dweight and dbias (or None). No gradient
    comes from the padding of y or reaches that of x."""
    padded, valid = _padded(x, before, after, lengths)
    if lengths is not None:
        counts = _count(lengths, weight, stride, dilation, before + after)
        dy = np.where((np.arange(len(dy))[:, None] < counts)[..., None], dy, dy.dtype.type(0))
    dpadded = np.zeros_like(padded)
    for k, read in _reads(weight, stride, dilation, len(dy)):
        for outputs, inputs in _groups(weight, groups):
            dpadded[read][..., inputs] += dy[..., outputs] @ weight[outputs, :, k]
            dweight[outputs, :, k] += np.einsum("tno,tnc->oc", dy[..., outputs], padded[read][..., inputs])
    if dbias is not None:
        dbias += dy.sum(axis=(0, 1))
    dx = dpadded[before : before + len(x)]
    dx[~valid] = 0
    return dx


def stream(
    weight: Array, bias: Array | None, batch: int,
    *, stride: int = 1, dilation: int = 1, groups: int = 1, before: int = 0,
) -> WindowStream:  # fmt: skip
    """A convolution of `batch` rows that is given x in pieces, at its first step. `before` is at most dilation (K - 1);
    weight and bias are copied."""
    reach = dilation * (weight.shape[2] - 1)
    weight, bias = weight.copy(), None if bias is None else bias.copy()

    def function(x: Array) -> Array:
        return forward(x, weight, bias, stride=stride, dilation=dilation, groups=groups)

    past = np.zeros((reach, batch, weight.shape[1] * groups), weight.dtype)
    return WindowStream(function, past, reach - before + 1, stride)


def _padded(x: Array, before: int, after: int, lengths: Array | None) -> tuple[Array, Array]:
    """x between zeros, which its padding is too, (before + T + after, N, C); and which of its steps are valid."""
    steps, rows, channels = x.shape
    valid = np.broadcast_to(np.arange(steps)[:, None] < (steps if lengths is None else lengths), (steps, rows))
    padded = np.zeros((before + steps + after, rows, channels), x.dtype)
    padded[before : before + steps][valid] = x[valid]
    return padded, valid


def _count(steps: Any, weight: Array, stride: int, dilation: int, zeros: int) -> Any:
    """How many steps of y there are for so many of x (an integer or an array), with so many zeros around them."""
    counts = (steps + zeros - dilation * (weight.shape[2] - 1) - 1) // stride + 1
    return np.where(steps == 0, 0, np.maximum(counts, 0))


def _reads(weight: Array, stride: int, dilation: int, steps: int) -> list[tuple[int, slice]]:
    """Each position of the kernel, and the steps of the padded x that it meets."""
    span = max(steps - 1, 0) * stride + min(steps, 1)
    return [(k, slice(k * dilation, k * dilation + span, stride)) for k in range(weight.shape[2])]


def _groups(weight: Array, groups: int) -> list[tuple[slice, slice]]:
    """The channels of y and those of x of each group."""
    outputs, inputs = len(weight) // groups, weight.shape[1]
    return [(slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)) for g in range(groups)]
