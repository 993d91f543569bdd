"""A table of vectors, looked up by id: y[m] = weight[ids[m]]."""

from __future__ import annotations

import numpy as np


def forward(ids: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """ids (...) integers in 0..V-1, weight (V, E) -> y (..., E)."""
    _check(ids, weight)
    y: np.ndarray = weight[ids]
    return y


def backward(dy: np.ndarray, ids: np.ndarray, dweight: np.ndarray) -> None:
    """dy (M, E) is added to the rows ids (M,) of dweight (V, E); an id that occurs twice receives both rows."""
    _check(ids, dweight)
    np.add.at(dweight, ids, dy)


def _check(ids: np.ndarray, table: np.ndarray) -> None:
    bad = ids[(ids < 0) | (ids >= len(table))]
    if bad.size:
        raise ValueError(f"ids holds {bad[0]}, expected 0 to {len(table) - 1}")
