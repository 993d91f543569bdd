"""Losses of sequences: each returns the mean over the valid steps and its gradient, ready for a pullback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import kernels
from ._arrays import (
    Array,
    boolean_array,
    float_array,
    integer_array,
    lengths_array,
    shape_error,
    shaped_array,
    within,
)

if TYPE_CHECKING:
    from types import EllipsisType

    from numpy.typing import ArrayLike

    Index = EllipsisType | Array  # of the steps that count: all, or True where one does


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
    scores, classes, counts = _classes("cross_entropy", "logits", logits, targets, lengths, batch_first, mask)
    weights = None if counts is ... else counts.reshape(-1).astype(scores.dtype)
    loss, dlogits = kernels.cross_entropy.forward(scores.reshape(-1, scores.shape[-1]), classes.reshape(-1), weights)
    return loss, dlogits.reshape(scores.shape)


def negative_log_likelihood(
    log_probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[float, Array]:
    """Mean over the valid steps of -log_probabilities[target], and its gradient: loss, dlog_probabilities.

    Arguments, dtypes and errors as in `cross_entropy`. After a `LogSoftmax` it is the cross-entropy, which takes the
    logits themselves and is faster.

        loss, dy = pyrnn.negative_log_likelihood(pyrnn.LogSoftmax()(logits), targets)
    """
    call = "negative_log_likelihood"
    values, classes, counts = _classes(
        call, "log_probabilities", log_probabilities, targets, lengths, batch_first, mask
    )
    at_target = classes[counts][..., None]
    rows = values[counts]
    picked = np.take_along_axis(rows, at_target, -1)
    dpicked = np.zeros_like(rows)
    np.put_along_axis(dpicked, at_target, -1 / max(picked.size, 1), -1)
    return _mean(-picked), _spread(dpicked, values, counts)


def hinge(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[float, Array]:
    """Mean over the valid steps of sum_v max(0, 1 - scores[target] + scores[v]) / V, v not the target: loss, dscores.

    The multi-class hinge of Weston & Watkins (1999) as in torch.nn.MultiMarginLoss: no loss once the target's score is
    above every other by 1. At the kink the gradient is 0. Arguments, dtypes and errors as in `cross_entropy`.

        loss, dscores = pyrnn.hinge(scores, targets)
    """
    values, classes, counts = _classes("hinge", "scores", scores, targets, lengths, batch_first, mask)
    at_target = classes[counts][..., None]
    rows = values[counts].astype(np.float64)
    with np.errstate(all="ignore"):
        margins = np.maximum(1 - np.take_along_axis(rows, at_target, -1) + rows, 0)
    np.put_along_axis(margins, at_target, 0, -1)
    drows = (margins > 0) / max(margins.size, 1)
    np.put_along_axis(drows, at_target, -drows.sum(axis=-1, keepdims=True), -1)
    return _mean(margins), _spread(drows, values, counts)


def mean_squared_error(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[float, Array]:
    """Mean over the valid steps and the features of (predictions - targets)^2, and its gradient: loss, dpredictions.

    predictions  (..., F), float64 or converted to float32; dpredictions is like it
    targets      (..., F)
    lengths      (N,) integers in 0..T for predictions (T, N, F), (N, T, F) with batch_first, or one integer for (T, F)
    mask         (...) booleans, True where a step counts; with lengths, steps count where both say so

    Steps that do not count are never read and have gradient 0. Where none counts the loss is 0. TypeError for wrong
    dtypes, ValueError for wrong shapes and lengths.

        loss, dy = pyrnn.mean_squared_error(y, targets, lengths=[5, 3, 2])
    """
    values, wanted, counts = _features(
        "mean_squared_error", "predictions", predictions, targets, lengths, batch_first, mask
    )
    with np.errstate(all="ignore"):
        errors = np.subtract(values[counts], wanted[counts], order="C", dtype=np.float64)
        return _mean(errors * errors), _spread(errors * (2 / max(errors.size, 1)), values, counts)


def binary_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    mask: ArrayLike | None = None,
) -> tuple[float, Array]:
    """Mean over the valid steps and the features of the binary cross-entropy in nats, and its gradient: loss, dlogits.

        -t log sigmoid(logit) - (1 - t) log(1 - sigmoid(logit)),  t the target, a number within 0..1 or a boolean

    As torch.nn.BCEWithLogitsLoss; exact for large logits too. Arguments, dtypes and errors as in `mean_squared_error`,
    and a ValueError for a target outside 0..1.

        loss, dlogits = pyrnn.binary_cross_entropy(logits, [[0, 1], [1, 1]])  # logits (2, 2)
    """
    call = "binary_cross_entropy"
    values, wanted, counts = _features(call, "logits", logits, targets, lengths, batch_first, mask)
    z, t = values[counts].astype(np.float64, order="C"), within(call, "targets", wanted[counts], 1)
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(z))
        losses = np.maximum(z, 0) - z * t + np.log1p(small)
        probability = np.where(z < 0, small, 1) / (1 + small)
        return _mean(losses), _spread((probability - t) / max(z.size, 1), values, counts)


def _classes(
    call: str, name: str, scores: Any, targets: Any, lengths: Any, batch_first: bool, mask: Any
) -> tuple[Array, Array, Index]:
    """scores (..., V), targets (...), checked where they count, and the index of what counts."""
    values = float_array(call, name, scores)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise shape_error(call, name, values.shape, "(..., V)")
    shape = values.shape[:-1]
    classes = integer_array(call, "targets", targets)
    if classes.shape != shape:
        raise shape_error(call, "targets", classes.shape, str(shape))
    counts = _counts(call, shape, lengths, batch_first, mask)
    within(call, "targets", classes[counts], values.shape[-1] - 1)
    return values, classes, counts


def _features(
    call: str, name: str, values: Any, targets: Any, lengths: Any, batch_first: bool, mask: Any
) -> tuple[Array, Array, Index]:
    """values and targets (..., F), and the index of what counts."""
    values = float_array(call, name, values)
    if values.ndim == 0:
        raise shape_error(call, name, values.shape, "(..., F)")
    targets = shaped_array(call, "targets", targets, values.dtype, values.shape)
    return values, targets, _counts(call, values.shape[:-1], lengths, batch_first, mask)


def _counts(call: str, shape: tuple[int, ...], lengths: Any, batch_first: bool, mask: Any) -> Index:
    """The index of the steps that count, among those of this shape."""
    marked = None if mask is None else boolean_array(call, "mask", mask, shape, str(shape))
    if lengths is None:
        return ... if marked is None else marked
    valid = _valid(call, lengths, shape, batch_first)
    return valid if marked is None else valid & marked


def _valid(call: str, lengths: Any, shape: tuple[int, ...], batch_first: bool) -> Array:
    """True at the valid steps, of shape (T, N), (N, T) or (T,)."""
    if len(shape) not in (1, 2):
        raise ValueError(f"{call}: lengths needs targets of one or two axes, they have shape {shape}")
    if len(shape) == 1:
        return np.arange(shape[0]) < lengths_array(call, lengths, shape[0], None)
    rows, steps = shape if batch_first else shape[::-1]
    valid: Array = np.arange(steps) < lengths_array(call, lengths, steps, rows)[:, None]
    return valid if batch_first else valid.T


def _mean(losses: Array) -> float:
    """In float64; of nothing 0."""
    return float(np.sum(losses, dtype=np.float64)) / max(losses.size, 1)


def _spread(gradient: Array, values: Array, counts: Index) -> Array:
    """The gradient of what counts, among zeros for the rest."""
    spread = np.zeros(values.shape, values.dtype)
    with np.errstate(all="ignore"):
        spread[counts] = gradient
    return spread
