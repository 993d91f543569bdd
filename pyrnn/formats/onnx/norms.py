"""ONNX' operators that bring numbers to one scale: softmax and normalisation, by NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import kernels
from ...core.checks import FLOAT_DTYPES, Array
from .graph import Node
from .program import Function, Made


def flattened(function: Function) -> Callable[[Node], Made]:
    """Of softmax and its like: before opset 13 over all axes from one on, since then over one."""

    def make(node: Node) -> Made:
        if node.opset >= 13:
            axis = node.attributes.get("axis", -1)
            return lambda x: function(x, axis)
        axis = node.attributes.get("axis", 1)
        return lambda x: function(x.reshape(math.prod(x.shape[: axis % (x.ndim or 1)]), -1), 1).reshape(x.shape)

    return make


def on_kernel(name: str, other: Function) -> Function:
    """Over the last axis on the kernel."""
    activated = kernels.linear.activated

    def run(x: Array, axis: int) -> Array:
        last = axis in (-1, x.ndim - 1) and x.dtype in FLOAT_DTYPES and x.shape[-1]
        return activated(x, name) if last else other(x, axis)

    return run


def _softmax(x: Array, axis: int) -> Array:
    y = np.subtract(x, np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf))
    np.exp(y, out=y)
    y /= np.add.reduce(y, axis=axis, keepdims=True)
    return y


def _log_softmax(x: Array, axis: int) -> Array:
    y = np.subtract(x, np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf))
    y -= np.log(np.add.reduce(np.exp(y), axis=axis, keepdims=True))
    return y


def _hardmax(x: Array, axis: int) -> Array:
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(x.argmax(axis), axis), 1, axis)
    return y


def by_channel(array: Array, ndim: int) -> Array:
    """(C,) as it meets (N, C, ...)."""
    return array.reshape(-1, *[1] * (ndim - 2))


def _batch_normalization(node: Node) -> Made:
    eps = node.attributes.get("epsilon", 1e-5)
    training = node.attributes.get("training_mode", 0) if node.opset >= 14 else not node.attributes.get("is_test", 1)
    if training or len(node.outputs) > 1 or not node.attributes.get("spatial", 1):
        raise NotImplementedError

    def run(x: Array, scale: Array, bias: Array, average: Array, variance: Array) -> Array:
        factor = scale / np.sqrt(variance + variance.dtype.type(eps))
        y = x * by_channel(factor, x.ndim) + by_channel(bias - average * factor, x.ndim)
        return y.astype(x.dtype, copy=False)

    return run


def _instance_normalization(node: Node) -> Made:
    eps = node.attributes.get("epsilon", 1e-5)

    def run(x: Array, scale: Array, bias: Array) -> Array:
        y, _, _ = normal(x, tuple(range(2, x.ndim)), eps)
        return y * by_channel(scale, x.ndim) + by_channel(bias, x.ndim)

    return run


def normal(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    """x with mean 0 and variance 1 along some axes, the mean, and 1 / deviation."""
    average = x.mean(axes, keepdims=True)
    centred = x - average
    inverse = 1 / np.sqrt(np.mean(centred * centred, axes, keepdims=True) + x.dtype.type(eps))
    return centred * inverse, average, inverse


def widened(x: Array) -> Array:
    """Half precisions as float32."""
    return x if x.dtype.itemsize > 2 else x.astype(np.float32)


def _layer_normalization(node: Node) -> Made:
    first, eps, several = node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5), len(node.outputs) > 1

    def run(x: Array, scale: Array | None, bias: Array | None = None) -> Any:
        y, average, inverse = normal(widened(x), tuple(range(first % x.ndim, x.ndim)), eps)
        y = y if scale is None else y * scale
        y = y if bias is None else y + bias
        y = y.astype(x.dtype, copy=False)
        return (y, average, inverse) if several else y

    return run


def _group_normalization(node: Node) -> Made:
    groups, eps = node.attributes["num_groups"], node.attributes.get("epsilon", 1e-5)

    def run(x: Array, scale: Array, bias: Array) -> Array:
        y, _, _ = normal(widened(x).reshape(len(x), groups, -1), (2,), eps)
        if node.opset < 21:  # numbers of groups, not of channels
            y = (y * scale[:, None] + bias[:, None]).reshape(x.shape)
        else:
            y = y.reshape(x.shape) * by_channel(scale, x.ndim) + by_channel(bias, x.ndim)
        return y.astype(x.dtype, copy=False)

    return run


def _rms_normalization(node: Node) -> Made:
    first, eps = node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5)

    def run(x: Array, scale: Array) -> Any:
        wide = widened(x)
        axes = tuple(range(first % x.ndim, x.ndim))
        y = wide / np.sqrt(np.mean(wide * wide, axes, keepdims=True) + wide.dtype.type(eps)) * scale
        return y.astype(x.dtype, copy=False)

    return run


MAKERS: dict[str, Callable[[Node], Made]] = {
    "Softmax": flattened(on_kernel("softmax", _softmax)),
    "LogSoftmax": flattened(on_kernel("log_softmax", _log_softmax)),
    "Hardmax": flattened(_hardmax),
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization,
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
}
