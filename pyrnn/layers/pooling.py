"""One step of a sequence, or the largest numbers of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import (
    Array,
    boolean,
    float_dtype,
    lengths_array,
    real_array,
    shape_error,
    shape_text,
    shaped_array,
)
from ..core.layer import Layer
from ..core.pullback import Once

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class OneStep(Layer):
    """What MaxOverTime and LastStep share: of each feature of a row, the number at one of its valid steps."""

    def __init__(self, *, batch_first: bool = False, dtype: DTypeLike = "float32") -> None:
        self.batch_first = boolean(type(self).__name__, "batch_first", batch_first)
        super().__init__(float_dtype(type(self).__name__, dtype), {})

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """x (T, N, F) -> y (N, F), in the layer's dtype. lengths (N,) integers in 0..T, one integer for x (T, F).
        TypeError for what is not real numbers, ValueError for wrong shapes and lengths.

        y = layer(x, lengths=[5, 2])
        """
        return self._forward("", x, lengths)[0]

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(dy)
        """
        y, places, axis = self._forward(".vjp", x, lengths)
        kept, shape = Once(f"{type(self).__name__} pullback", places), y.shape

        def pullback(dy: ArrayLike) -> Array:
            dy = shaped_array(kept.call, "dy", dy, self.dtype, shape)
            dx = np.where(kept.take(), dy, self.dtype.type(0))
            return np.ascontiguousarray(np.moveaxis(dx, 0, axis))

        return y, pullback

    def _forward(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array, int]:
        """y, booleans (T, ...) where its numbers are from, and the axis of x that is T."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.ndim not in (2, 3):
            axes = ("N", "T", "F") if self.batch_first else ("T", "N", "F")
            raise shape_error(call, "x", array.shape, f"{shape_text(*axes)} or (T, F)")
        axis = 1 if self.batch_first and array.ndim == 3 else 0
        array = np.moveaxis(array, axis, 0)  # (T, N, F) or (T, F)
        steps = np.arange(len(array)).reshape(-1, *[1] * (array.ndim - 1))
        valid = steps < len(array)
        if lengths is not None:
            ends = lengths_array(call, lengths, len(array), array.shape[1] if array.ndim == 3 else None)
            valid = steps < (ends[:, None] if array.ndim == 3 else ends)
        if len(array) == 0:
            return np.zeros(array.shape[1:], self.dtype), np.zeros(array.shape, np.bool_), axis
        chosen = self._step(array, valid)[None]
        y = np.where(valid.any(axis=0), np.take_along_axis(array, chosen, axis=0)[0], self.dtype.type(0))
        return y, (steps == chosen) & valid, axis

    def _step(self, x: Array, valid: Array) -> Array:
        """x (T, ..., F), which steps are valid -> the step for each feature, (..., F)."""
        raise NotImplementedError


class MaxOverTime(OneStep):
    """The largest number of each feature over the valid steps of a row: a summary of one size for any length.

    The pooling of Collobert et al. 2011 (arXiv:1103.0398). The gradient goes to the step of the maximum, the first of
    equal ones. A row without steps gives 0. No parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.MaxOverTime()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def _step(self, x: Array, valid: Array) -> Array:
        first: Array = np.where(valid, x, -np.inf).argmax(axis=0)
        return first


class LastStep(OneStep):
    """The last valid step of each row: a summary of one size for any length.

    Behind a recurrent layer of one direction it is the final output. (Of two directions the backward one has read
    nothing but this step by then; final states of both are in the `state` of the layer.) A row without steps gives 0.
    No parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.LastStep()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def _step(self, x: Array, valid: Array) -> Array:
        last = np.maximum(valid.sum(axis=0) - 1, 0)
        return np.broadcast_to(last, x.shape[1:])
