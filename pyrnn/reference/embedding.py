"""A table of vectors, looked up by id: y[m] = weight[ids[m]]. It may be in fewer bits, as in linear.py."""

from __future__ import annotations

from typing import Any

import numpy as np


def forward(ids: np.ndarray, weight: Any) -> np.ndarray:
    """ids (...) integers in 0..V-1, weight (V, E) -> y (..., E)."""
    y: np.ndarray
    if isinstance(weight, tuple):
        _check(ids, weight[0])
        y = weight[0][ids] * weight[1][ids][..., None]
        return y
    _check(ids, weight)
    y = weight[ids]
    return (y.astype(np.uint32) << 16).view(np.float32) if weight.dtype == np.uint16 else y


def backward(dy: np.ndarray, ids: np.ndarray, dweight: np.ndarray) -> None:
    """dy (M, E) is added to the rows ids (M,) of dweight (V, E); an id that occurs twice receives both rows."""
    _check(ids, dweight)
    np.add.at(dweight, ids, dy)


def _check(ids: np.ndarray, table: np.ndarray) -> None:
    bad = ids[(ids < 0) | (ids >= len(table))]
    if bad.size:
        raise ValueError(f"ids holds {bad[0]}, expected 0 to {len(table) - 1}")
