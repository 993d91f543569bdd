"""Dropout, between layers and inside of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import Array, Rng, boolean, float_dtype, quietly, real, real_array
from ..core.layer import Layer
from ..core.layout import Layout
from ..core.parameters import unrecorded, without_recording
from ..core.pullback import Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class Dropout(Layer):
    """Sets numbers to 0 with probability p and multiplies the others by 1/(1-p), in `vjp` only: a call changes nothing.

    Fresh masks come from `rng` at each `vjp`, none where p is 0. With `per_sequence` all steps of a row share one mask
    (Gal & Ghahramani 2016, arXiv:1512.05287): x is then (T, N, F), (N, T, F) with batch_first, or (T, F). rng: None, an
    int seed or a numpy.random.Generator. No parameters. TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.Dropout(0.5, rng=0)
        y, pullback = layer.vjp(np.ones((5, 3, 16)))  # (...) -> (...)
    """

    _by_step = True
    _features = ("", "")

    def __init__(
        self,
        p: float,
        *,
        per_sequence: bool = False,
        batch_first: bool = False,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:
        call = type(self).__name__
        self.p = real(call, "p", p, 0, 1)
        self.per_sequence = boolean(call, "per_sequence", per_sequence)
        self.batch_first = boolean(call, "batch_first", batch_first)
        super().__init__(float_dtype(call, dtype), {})
        self._begin(rng)

    def _rows_first(self) -> bool | None:
        return self.batch_first if self.per_sequence else None

    def _draw(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, x: ArrayLike) -> Array:
        """x as it is, a copy in the layer's dtype. TypeError for what is not real numbers, ValueError for a wrong
        shape.

        y = layer(x)
        """
        y: Array = self._input("", x)[0].copy(order="C")
        return y

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback: x and, in dx = pullback(dy), dy under the same mask. The pullback can be called once.

        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        """
        array, mask_shape = self._input(".vjp", x)
        if without_recording.get():
            return array.copy(order="C"), unrecorded
        mask = dropout_mask(self.rng, self.p, mask_shape, self.dtype) if self.p else np.ones((), self.dtype)
        with np.errstate(all="ignore"):
            y: Array = np.multiply(array, mask, order="C")

        @quietly
        def back(dy: Array, mask: Array) -> Array:
            dx: Array = np.multiply(dy, mask, order="C")
            return dx

        return y, Pullback(f"{type(self).__name__} pullback", y, mask, back)

    def _input(self, suffix: str, x: Any) -> tuple[Array, tuple[int, ...]]:
        """x, and the shape of its mask."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if not self.per_sequence:
            return array, array.shape
        layout = Layout.of(call, "x", array.shape, self.batch_first, ("F",))
        steps = 1 if layout.batch_first and layout.batched else 0
        return array, (*array.shape[:steps], 1, *array.shape[steps + 1 :])


def dropout_mask(rng: np.random.Generator, p: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """1/(1-p) with probability 1-p, else 0."""
    kept: Array = rng.random(shape, dtype=dtype) >= p
    return np.multiply(kept, 1 / (1 - p) if p < 1 else 0, dtype=dtype)
