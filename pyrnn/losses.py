"""The softmax cross-entropy of sequences of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import kernels
from ._arrays import (
    FLOAT_DTYPES,
    Array,
    any_array,
    boolean_array,
    integer_array,
    lengths_array,
    real_array,
    shape_error,
    within,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[float, Array]:
    """Mean over the valid steps of -log softmax(logits)[target], in nats, and its gradient: loss, dlogits.

    logits   (..., V), float64 or converted to float32; dlogits is like it
    targets  (...) integers in 0..V-1
    lengths  (N,) integers in 0..T for logits (T, N, V), (N, T, V) with batch_first, or one integer for (T, V)
    mask     (...) booleans, True where a step counts; with lengths, steps count where both say so

    Logits and targets that do not count are never read and have gradient 0. Where none counts the loss is 0. TypeError
    for wrong dtypes, ValueError for wrong shapes, lengths and targets.

        loss, dlogits = pyrnn.cross_entropy(logits, targets)
        dx = pullback(dlogits)
    """
    call = "cross_entropy"
    scores = _float_array(call, "logits", logits)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise shape_error(call, "logits", scores.shape, "(..., V)")
    shape = scores.shape[:-1]
    classes = integer_array(call, "targets", targets)
    if classes.shape != shape:
        raise shape_error(call, "targets", classes.shape, str(shape))
    counts: Array | None = None
    if mask is not None:
        counts = boolean_array(call, "mask", mask, shape, str(shape))
    if lengths is not None:
        valid = _valid(call, lengths, shape, batch_first)
        counts = valid if counts is None else counts & valid
    weights = None if counts is None else counts.reshape(-1).astype(scores.dtype)
    within(call, "targets", classes if counts is None else classes[counts], scores.shape[-1] - 1)
    loss, dlogits = kernels.cross_entropy.forward(scores.reshape(-1, scores.shape[-1]), classes.reshape(-1), weights)
    return loss, dlogits.reshape(scores.shape)


def _float_array(call: str, name: str, value: Any) -> Array:
    """float64 stays, what is narrower becomes float32, other real numbers what NumPy says."""
    array = any_array(call, name, value)
    wide = array.dtype.kind in "fiub" and np.result_type(array.dtype, np.float32) != np.float32
    return real_array(call, name, array, FLOAT_DTYPES[wide])


def _valid(call: str, lengths: Any, shape: tuple[int, ...], batch_first: bool) -> Array:
    """True at the valid steps, of shape (T, N), (N, T) or (T,)."""
    if len(shape) not in (1, 2):
        raise ValueError(f"{call}: lengths needs targets of one or two axes, they have shape {shape}")
    if len(shape) == 1:
        return np.arange(shape[0]) < lengths_array(call, lengths, shape[0], None)
    rows, steps = shape if batch_first else shape[::-1]
    valid: Array = np.arange(steps) < lengths_array(call, lengths, steps, rows)[:, None]
    return valid if batch_first else valid.T
