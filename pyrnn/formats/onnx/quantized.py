"""ONNX' operators on integers that stand for numbers: by their scale and zero point, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.checks import Array
from . import recurrent, reference
from .graph import Node
from .program import Made

LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}


def along(array: Array, ndim: int, axis: int) -> Array:
    """A scale or zero point, one number or one for each place along an axis, as it meets an array."""
    return array if array.ndim == 0 or array.size == 1 else array.reshape(-1, *[1] * (ndim - 1 - axis % ndim))


def dequantize(node: Node) -> Made:
    """DequantizeLinear."""
    axis = node.attributes.get("axis", 1)
    if node.attributes.get("block_size", 0) or node.attributes.get("output_dtype", 0):
        raise NotImplementedError

    def run(x: Array, scale: Array, zero: Array | None = None) -> Array:
        work = np.int32 if x.dtype.kind in "iu" else np.float32  # floats of 8 bits, integers of 4
        whole = x.astype(work) if zero is None else x.astype(work) - along(zero.astype(work), x.ndim, axis)
        return whole.astype(scale.dtype) * along(scale, x.ndim, axis)

    return run


def quantize(node: Node) -> Made:
    """QuantizeLinear to integers of 8 or 16 bits; others are left to the reference."""
    zeros = node.known(2)
    usual = not node.has(2) or (zeros is not None and zeros.dtype.name in LIMITS)
    other: Any = None if usual else reference.make(node)[0]  # type: ignore[index]
    axis = node.attributes.get("axis", 1)
    if any(node.attributes.get(name, 0) for name in ("block_size", "output_dtype", "precision")):
        raise NotImplementedError

    def run(x: Array, scale: Array, zero: Array | None = None) -> Any:
        kind = np.dtype(np.uint8) if zero is None else zero.dtype
        if kind.name not in LIMITS:
            return other(x, scale, zero)
        y = np.rint(x / along(scale, x.ndim, axis))
        y = y if zero is None else y + along(zero.astype(y.dtype), x.ndim, axis)
        return np.clip(y, *LIMITS[kind.name]).astype(kind)

    return run


def dynamic_quantize(node: Node) -> Made:
    """DynamicQuantizeLinear."""

    def run(x: Array) -> tuple[Array, Array, Array]:
        low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
        scale = np.float32((high - low) / np.float32(255))
        scale = scale if scale else np.float32(1)
        zero = np.clip(np.rint(-low / scale), 0, 255)
        return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8), np.asarray(scale), zero.astype(np.uint8)

    return run


def matmul_integer(node: Node) -> Made:
    """MatMulInteger: exact, in int32."""

    def run(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Any:
        wide = a.astype(np.int32)
        if a_zero is not None:
            wide = wide - (a_zero.astype(np.int32)[:, None] if a_zero.ndim == 1 else a_zero.astype(np.int32))
        other = b.astype(np.int32)
        other = other if b_zero is None else other - b_zero.astype(np.int32)
        most = 2**24  # float64 holds sums of products of 9 bits exactly, and has a fast product
        if wide.shape[-1] < most:
            return np.matmul(wide.astype(np.float64), other.astype(np.float64)).astype(np.int32)
        return np.matmul(wide, other)

    return run


def dynamic_quantize_lstm(node: Node) -> Made:
    """onnxruntime's DynamicQuantizeLSTM on its own integers, where these are int8 without zero points, else with the
    weights that they stand for, in float32: near its results, not equal, since that one rounds the activations of a
    whole call with one scale."""
    for name, place in (("W", 1), ("R", 2), *((part, k) for k, part in enumerate(PARAMETERS, 8))):
        if node.known(place) is None:
            raise ValueError(f"{name} is not a constant")
    w, r = (np.swapaxes(restored(node, matrix, scale, zero), 1, 2) for matrix, scale, zero in ((1, 8, 9), (2, 10, 11)))
    values = node.values
    inputs = [node.inputs[0], values.constant(w), values.constant(r), *node.inputs[3:8]]
    attributes = dict(node.attributes)
    if all(fits_int8(node, matrix, zero) for matrix, zero in ((1, 9), (2, 11))):
        attributes[recurrent.SCALES] = {name: scales(node, place) for name, place in (("W", 8), ("R", 10))}
    return recurrent.make(Node("LSTM", node.title, node.opset, values, inputs, node.outputs, attributes))


PARAMETERS = ("W_scale", "W_zero_point", "R_scale", "R_zero_point")


def fits_int8(node: Node, *places: int) -> bool:
    """Whether integers and zero points are those of our int8."""
    matrix, zero = (node.known(place) for place in places)
    assert matrix is not None
    assert zero is not None
    return matrix.dtype == np.int8 and not zero.any()


def scales(node: Node, place: int) -> Array:
    """(D, 4*H), of (D,) or that."""
    matrix, scale = node.known(1), node.known(place)
    assert matrix is not None
    assert scale is not None
    return np.broadcast_to(scale.reshape(len(matrix), -1), (len(matrix), matrix.shape[2])).astype(np.float32)


def restored(node: Node, *places: int) -> Array:
    """(D, I, 4*H) integers as numbers; scale and zero point are (D,) or (D, 4*H)."""
    matrix, scale, zero = (node.known(place) for place in places)
    assert matrix is not None
    assert scale is not None
    assert zero is not None
    scale, zero = (a.reshape(len(matrix), 1, -1) for a in (scale, zero))
    return (matrix.astype(np.float32) - zero.astype(np.float32)) * scale


MAKERS: dict[str, Callable[[Node], Any]] = {
    "DequantizeLinear": dequantize,
    "QuantizeLinear": quantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "MatMulInteger": matmul_integer,
    "com.microsoft.DynamicQuantizeLSTM": dynamic_quantize_lstm,
}
