"""Losses of sequences: each returns the mean over the valid steps and its gradient, ready for a pullback."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core import checks
from ..core.checks import Array
from ..core.layout import Layout, valid_steps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Index = EllipsisType | Array  # of the steps that count: all, or True where one does
REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    logits: ArrayLike, targets: ArrayLike,
    *, lengths: ArrayLike | None = None, batch_first: bool = False, mask: ArrayLike | None = None,
    weight: ArrayLike | None = None, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean",
) -> tuple[Any, Array]:  # fmt: skip
    """Mean over the valid steps of -log softmax(logits)[target], in nats, and its gradient: loss, dlogits.

    logits   (..., V), float64 or converted to float32; dlogits is like it
    targets  (...) integers in 0..V-1
    lengths  (N,) integers in 0..T for logits (T, N, V), (N, T, V) with batch_first, or one integer for (T, V)
    mask     (...) booleans, True where a step counts; with lengths, steps count where both say so

    And as in torch.nn.functional.cross_entropy:

    weight           (V,) from 0 up: what a step with this target counts; the mean is weighted
    ignore_index     a target that does not count
    label_smoothing  0..1: this part of the target is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567)
    reduction        "mean"; "sum"; "none": the loss is an array (...), 0 where a step does not count, and dlogits the
                     gradient of its sum. Steps are independent: the gradient of the sum of c * loss is
                     c[..., None] * dlogits

    Logits and targets that do not count are never read and have gradient 0. Where none counts the loss is 0. TypeError
    for wrong dtypes, ValueError for wrong shapes, lengths, targets and options.

        loss, dlogits = pyrnn.cross_entropy(logits, targets)
        dx = pullback(dlogits)
    """
    call = "cross_entropy"
    scores, classes, counts, each = _classes(
        call, "logits", logits, targets, lengths, batch_first, mask, weight, ignore_index
    )
    smoothing = checks.real(call, "label_smoothing", label_smoothing, 0, 1)
    if checks.choice(call, "reduction", reduction, REDUCTIONS) == "mean" and not smoothing:
        rows = None
        if each is not None or counts is not ...:
            rows = np.zeros(classes.shape, scores.dtype)
            rows[counts] = 1 if each is None else each[classes[counts]]
            rows = rows.reshape(-1)
        loss, dlogits = kernels.cross_entropy.forward(scores.reshape(-1, scores.shape[-1]), classes.reshape(-1), rows)
        return loss, dlogits.reshape(scores.shape)
    at_target = classes[counts][..., None]
    z = scores[counts].astype(np.float64, order="C")
    w = np.ones(z.shape[-1]) if each is None else each
    of_target = w[at_target]
    with np.errstate(all="ignore"):
        z -= z.max(axis=-1, keepdims=True)
        exps = np.exp(z)
        total = exps.sum(axis=-1, keepdims=True)
        z -= np.log(total)  # log probabilities
        spread = smoothing / z.shape[-1] * w
        losses = -(1 - smoothing) * of_target * np.take_along_axis(z, at_target, -1)
        losses -= np.sum(np.where(spread == 0, 0, spread * z), axis=-1, keepdims=True)
        gradient = exps / total * ((1 - smoothing) * of_target + spread.sum()) - spread
        at_own = np.take_along_axis(gradient, at_target, -1) - (1 - smoothing) * of_target
    np.put_along_axis(gradient, at_target, at_own, -1)
    return _reduced(call, losses[..., 0], gradient, scores, counts, reduction, float(of_target.sum()))


def negative_log_likelihood(
    log_probabilities: ArrayLike, targets: ArrayLike,
    *, lengths: ArrayLike | None = None, batch_first: bool = False, mask: ArrayLike | None = None,
    weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
) -> tuple[Any, Array]:  # fmt: skip
    """Mean over the valid steps of -log_probabilities[target], and its gradient: loss, dlog_probabilities.

    Arguments, dtypes and errors as in `cross_entropy`, values as in torch.nn.functional.nll_loss. After a `LogSoftmax`
    it is the cross-entropy, which takes the logits themselves and is faster.

        loss, dy = pyrnn.negative_log_likelihood(pyrnn.LogSoftmax()(logits), targets)
    """
    call = "negative_log_likelihood"
    values, classes, counts, each = _classes(
        call, "log_probabilities", log_probabilities, targets, lengths, batch_first, mask, weight, ignore_index
    )
    at_target = classes[counts][..., None]
    of_target = np.ones(at_target.shape) if each is None else each[at_target]
    rows = values[counts]
    gradient = np.zeros(rows.shape)
    np.put_along_axis(gradient, at_target, -of_target, -1)
    with np.errstate(all="ignore"):
        losses = -of_target * np.take_along_axis(rows, at_target, -1)
    total = float(of_target.sum())
    return _reduced(call, losses[..., 0], gradient, values, counts, reduction, total)


def hinge(
    scores: ArrayLike, targets: ArrayLike,
    *, lengths: ArrayLike | None = None, batch_first: bool = False, mask: ArrayLike | None = None,
    weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
) -> tuple[Any, Array]:  # fmt: skip
    """Mean over the valid steps of sum_v max(0, 1 - scores[target] + scores[v]) / V, v not the target: loss, dscores.

    The multi-class hinge of Weston & Watkins (1999) as in torch.nn.MultiMarginLoss: no loss once the target's score is
    above every other by 1. At the kink the gradient is 0. Arguments, dtypes and errors as in `cross_entropy`; a weight
    multiplies the loss of its target's steps, and as in torch the mean is divided by their number all the same.

        loss, dscores = pyrnn.hinge(scores, targets)
    """
    call = "hinge"
    values, classes, counts, each = _classes(
        call, "scores", scores, targets, lengths, batch_first, mask, weight, ignore_index
    )
    at_target = classes[counts][..., None]
    rows = values[counts].astype(np.float64, order="C")
    share = (np.ones(at_target.shape) if each is None else each[at_target]) / rows.shape[-1]
    with np.errstate(all="ignore"):
        margins = np.maximum(1 - np.take_along_axis(rows, at_target, -1) + rows, 0)
        np.put_along_axis(margins, at_target, 0, -1)
        gradient = (margins > 0) * share
        np.put_along_axis(gradient, at_target, -gradient.sum(axis=-1, keepdims=True), -1)
        losses = (margins * share).sum(axis=-1)
    return _reduced(call, losses, gradient, values, counts, reduction, losses.size)


def mean_squared_error(
    predictions: ArrayLike, targets: ArrayLike,
    *, lengths: ArrayLike | None = None, batch_first: bool = False, mask: ArrayLike | None = None,
    reduction: str = "mean",
) -> tuple[Any, Array]:  # fmt: skip
    """Mean over the valid steps and the features of (predictions - targets)^2, and its gradient: loss, dpredictions.

    predictions  (..., F), float64 or converted to float32; dpredictions is like it
    targets      (..., F)
    lengths      (N,) integers in 0..T for predictions (T, N, F), (N, T, F) with batch_first, or one integer for (T, F)
    mask         (...) booleans, True where a step counts; with lengths, steps count where both say so
    reduction    "mean"; "sum"; "none": the loss is an array (..., F), 0 where a step does not count, and dpredictions
                 the gradient of its sum

    Steps that do not count are never read and have gradient 0. Where none counts the loss is 0. TypeError for wrong
    dtypes, ValueError for wrong shapes, lengths and options.

        loss, dy = pyrnn.mean_squared_error(y, targets, lengths=[5, 3, 2])
    """
    call = "mean_squared_error"
    values, wanted, counts = _features(call, "predictions", predictions, targets, lengths, batch_first, mask)
    with np.errstate(all="ignore"):
        errors = np.subtract(values[counts], wanted[counts], order="C", dtype=np.float64)
        losses, gradient = errors * errors, 2 * errors
    return _reduced(call, losses, gradient, values, counts, reduction, losses.size)


def binary_cross_entropy(
    logits: ArrayLike, targets: ArrayLike,
    *, lengths: ArrayLike | None = None, batch_first: bool = False, mask: ArrayLike | None = None,
    weight: ArrayLike | None = None, pos_weight: ArrayLike | None = None, reduction: str = "mean",
) -> tuple[Any, Array]:  # fmt: skip
    """Mean over the valid steps and the features of the binary cross-entropy in nats, and its gradient: loss, dlogits.

        weight * (-pos_weight t log sigmoid(logit) - (1 - t) log(1 - sigmoid(logit)))

    t is the target, a number within 0..1 or a boolean. weight and pos_weight (what a 1 counts, where a 0 counts 1) are
    1 by default, else numbers from 0 up that broadcast to the logits, (F,) for each feature; the mean is divided by the
    number of logits all the same. As torch.nn.BCEWithLogitsLoss; exact for large logits too. Other arguments, dtypes
    and errors as in `mean_squared_error`, and a ValueError for a target outside 0..1.

        loss, dlogits = pyrnn.binary_cross_entropy(logits, [[0, 1], [1, 1]])  # logits (2, 2)
    """
    call = "binary_cross_entropy"
    values, wanted, counts = _features(call, "logits", logits, targets, lengths, batch_first, mask)
    z, t = values[counts].astype(np.float64, order="C"), checks.within(call, "targets", wanted[counts], 1)
    each = _weights(call, "weight", weight, values.shape)
    positive = _weights(call, "pos_weight", pos_weight, values.shape)
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(z))
        probability = np.where(z < 0, small, 1) / (1 + small)
        if positive is None:
            losses, gradient = np.maximum(z, 0) - z * t + np.log1p(small), probability - t
        else:
            ones = positive[counts] * t
            losses = (1 - t) * z + (1 - t + ones) * (np.log1p(small) + np.maximum(-z, 0))
            gradient = (1 - t + ones) * probability - ones
        if each is not None:
            losses, gradient = losses * each[counts], gradient * each[counts]
    return _reduced(call, losses, gradient, values, counts, reduction, losses.size)


def pinball(
    predictions: ArrayLike, targets: ArrayLike, quantile: ArrayLike,
    *, lengths: ArrayLike | None = None, batch_first: bool = False, mask: ArrayLike | None = None,
    reduction: str = "mean",
) -> tuple[Any, Array]:  # fmt: skip
    """Mean over the valid steps and the features of the pinball loss, and its gradient: loss, dpredictions.

        max(quantile * (target - prediction), (quantile - 1) * (target - prediction))

    What minimises it is the quantile of the targets: the number below which this part of them lies (Koenker & Bassett
    1978); half the absolute error where it is 0.5. quantile is a number within 0..1, or several that broadcast to the
    predictions, (F,) for each feature. At the kink the gradient is 0. Other arguments, dtypes and errors as in
    `mean_squared_error`, and a ValueError for a quantile outside 0..1.

        loss, dy = pyrnn.pinball(y, targets, [0.1, 0.5, 0.9])  # y (T, N, 3)
    """
    call = "pinball"
    values, wanted, counts = _features(call, "predictions", predictions, targets, lengths, batch_first, mask)
    given = checks.within(call, "quantile", checks.real_array(call, "quantile", quantile, np.dtype("float64")), 1)
    part = _broadcast(call, "quantile", given, values.shape)[counts]
    with np.errstate(all="ignore"):
        errors = np.subtract(wanted[counts], values[counts], order="C", dtype=np.float64)
        losses = np.maximum(part * errors, (part - 1) * errors)
        gradient = np.where(errors > 0, -part, np.where(errors < 0, 1 - part, errors))
    return _reduced(call, losses, gradient, values, counts, reduction, losses.size)


def _classes(
    call: str, name: str, scores: Any, targets: Any, lengths: Any, batch_first: bool, mask: Any, weight: Any,
    ignore_index: Any,
) -> tuple[Array, Array, Index, Array | None]:  # fmt: skip
    """scores (..., V), targets (...), checked where they count, the index of what counts, weights (V,) or None."""
    values = checks.float_array(call, name, scores)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise checks.shape_error(call, name, values.shape, "(..., V)")
    shape = values.shape[:-1]
    classes = checks.integer_array(call, "targets", targets)
    if classes.shape != shape:
        raise checks.shape_error(call, "targets", classes.shape, str(shape))
    counts = _counts(call, shape, lengths, batch_first, mask)
    ignored = np.asarray(classes == checks.integer(call, "ignore_index", ignore_index, -(2**63), 2**63 - 1))
    if ignored.any():
        counts = ~ignored if isinstance(counts, EllipsisType) else counts & ~ignored
    checks.within(call, "targets", classes[counts], values.shape[-1] - 1)
    return values, classes, counts, _weights(call, "weight", weight, values.shape[-1:])


def _weights(call: str, name: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    """Numbers from 0 up in float64, broadcast to this shape; None for none."""
    if value is None:
        return None
    array = checks.real_array(call, name, value, np.dtype("float64"))
    if not np.all(array >= 0):
        raise ValueError(f"{call}: {name} holds {array[~(array >= 0)].flat[0]}, expected numbers from 0 up")
    return _broadcast(call, name, array, shape)


def _broadcast(call: str, name: str, array: Array, shape: tuple[int, ...]) -> Array:
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise checks.shape_error(call, name, array.shape, str(shape)) from None


def _features(
    call: str, name: str, values: Any, targets: Any, lengths: Any, batch_first: bool, mask: Any
) -> tuple[Array, Array, Index]:
    """values and targets (..., F), and the index of what counts."""
    values = checks.float_array(call, name, values)
    if values.ndim == 0:
        raise checks.shape_error(call, name, values.shape, "(..., F)")
    targets = checks.shaped_array(call, "targets", targets, values.dtype, values.shape)
    return values, targets, _counts(call, values.shape[:-1], lengths, batch_first, mask)


def _counts(call: str, shape: tuple[int, ...], lengths: Any, batch_first: bool, mask: Any) -> Index:
    """The index of the steps that count, among those of this shape."""
    marked = None if mask is None else checks.boolean_array(call, "mask", mask, shape, str(shape))
    if lengths is None:
        return ... if marked is None else marked
    valid = _valid(call, lengths, shape, batch_first)
    return valid if marked is None else valid & marked


def _valid(call: str, lengths: Any, shape: tuple[int, ...], batch_first: bool) -> Array:
    """True at the valid steps, of shape (T, N), (N, T) or (T,)."""
    if len(shape) not in (1, 2):
        raise ValueError(f"{call}: lengths needs targets of one or two axes, they have shape {shape}")
    layout = Layout(batch_first, batched=len(shape) == 2)
    steps, rows = (*shape, 1) if len(shape) == 1 else shape[::-1] if batch_first else shape
    given = layout.lengths(call, lengths, steps, rows)
    return layout.back(valid_steps(steps, rows, given))


def _reduced(
    call: str, losses: Array, gradient: Array, values: Array, counts: Index, reduction: str, total: float
) -> tuple[Any, Array]:
    """Losses of what counts and their gradients -> one number as `reduction` says (a mean is divided by `total`), or
    all of them among zeros for the rest; the gradient of values."""
    checks.choice(call, "reduction", reduction, REDUCTIONS)
    with np.errstate(all="ignore"):
        dvalues = np.zeros(values.shape, values.dtype)
        dvalues[counts] = gradient / (total or 1) if reduction == "mean" else gradient
        if reduction == "none":
            each = np.zeros(values.shape[: values.ndim - gradient.ndim + losses.ndim], values.dtype)
            each[counts] = losses
            return each, dvalues
        loss = float(np.sum(losses, dtype=np.float64))
    return loss / (total or 1) if reduction == "mean" else loss, dvalues
