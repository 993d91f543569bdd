"""Normalisation of each row over its numbers, in the arrays' own dtype."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def forward(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """x (..., E), weight (E,), bias (E,) or None -> y (..., E).

        y = (x - mean) / sqrt(variance + eps) * weight + bias

    over the last axis; Ba, Kiros and Hinton 2016, arXiv:1607.06450.
    """
    return record(x, weight, bias, eps)[0]


def record(x: Array, weight: Array, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """The same -> y, and what the way back needs of M rows: (x - mean) / deviation (..., E), 1 / deviation (M,)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + x.dtype.type(eps))
    normal = centred * inverse
    y = normal * weight
    return y if bias is None else y + bias, normal, inverse.reshape(-1)


def backward(dy: Array, normal: Array, inverse: Array, weight: Array) -> tuple[Array, Array, Array]:
    """dy (..., E), what record gave, weight (E,) -> dx (..., E), dweight (E,), dbias (E,), which are added up in
    float64."""
    rows = tuple(range(dy.ndim - 1))
    dweight, dbias = (np.sum(d, axis=rows, dtype=np.float64).astype(dy.dtype) for d in (dy * normal, dy))
    dnormal = dy * weight
    centre, along = (d.mean(axis=-1, keepdims=True) for d in (dnormal, dnormal * normal))
    return (dnormal - centre - normal * along) * inverse.reshape(*dy.shape[:-1], 1), dweight, dbias
