"""One step of a sequence, or the largest numbers of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import Array, boolean, float_dtype, lengths_array, real_array
from ..core.layer import Layer
from ..core.layout import Layout, valid_steps
from ..core.pullback import Pullback

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
        y, _, layout = self._forward("", x, lengths)
        return y if layout.batched else y[0]

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(dy)
        """
        y, places, layout = self._forward(".vjp", x, lengths)
        y = y if layout.batched else y[0]

        def back(dy: Array, places: Array) -> Array:
            dx = np.where(places, dy if layout.batched else dy[None], self.dtype.type(0))
            return np.ascontiguousarray(layout.back(dx))

        return y, Pullback(f"{type(self).__name__} pullback", y, places, back)

    def _forward(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array, Layout]:
        """y (N, F), booleans (T, N, F) where its numbers are from, and how x lies."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        layout = Layout.of(call, "x", array.shape, self.batch_first, ("F",))
        array = layout.steps_first(array)
        steps, rows = array.shape[:2]
        if lengths is not None:
            lengths = lengths_array(call, lengths, steps, rows if layout.batched else None)
        valid = valid_steps(steps, rows, lengths)[:, :, None]
        if steps == 0:
            return np.zeros(array.shape[1:], self.dtype), np.zeros(array.shape, np.bool_), layout
        chosen = self._step(array, valid)[None]
        y = np.where(valid.any(axis=0), np.take_along_axis(array, chosen, axis=0)[0], self.dtype.type(0))
        return y, (np.arange(steps)[:, None, None] == chosen) & valid, layout

    def _step(self, x: Array, valid: Array) -> Array:
        """x (T, N, F), which steps are valid (T, N, 1) -> the step for each feature, (N, F)."""
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
