"""The affine map y = x W^T + b and its gradients; every product inside the recurrent cells is one of these."""

from __future__ import annotations

import numpy as np


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """y = x W^T + b.   x (..., I), weight (O, I), bias (O,) or None -> y (..., O)."""
    y: np.ndarray = x @ weight.T
    if bias is not None:
        y += bias
    return y


def backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, dweight: np.ndarray, dbias: np.ndarray | None
) -> np.ndarray:
    """dx = dy W.   dy (M, O) -> dx (M, I); dy^T x is added to dweight (O, I), the column sums of dy to dbias (O,)."""
    dweight += dy.T @ x
    if dbias is not None:
        dbias += dy.sum(axis=0)
    dx: np.ndarray = dy @ weight
    return dx
