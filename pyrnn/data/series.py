"""A long series as many short ones, and on the scale that networks learn on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import Array, boolean, float_array, integer, numbers_array, plain, quietly, shape_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def windows(series: ArrayLike, past: int, ahead: int = 1, *, batch_first: bool = False) -> tuple[Array, Array]:
    """Every stretch of a series, and what comes after it, side by side: x, y.

    series  (T,) or (T, F) real numbers, at least past + ahead steps
    x       (past, N, F), (N, past, F) with batch_first: what a network is given. N = T - past - ahead + 1, row n begins
            at step n of the series. F is 1 for a series (T,)
    y       (ahead, N, F), (N, ahead, F) with batch_first: the steps that follow, of the same dtype

    To be judged by what was not seen, cut the series before, not the rows after: neighbours share nearly all their
    steps. TypeError for what is no numbers, ValueError for another shape, too short a series and lengths below 1.

        x, y = pyrnn.data.windows(np.arange(10), past=4, ahead=2)  # (4, 5, 1), (2, 5, 1)
        x[:, 0, 0], y[:, 0, 0]  # [0, 1, 2, 3], [4, 5]
    """
    array = numbers_array("windows", "series", series)
    past, ahead = integer("windows", "past", past, 1), integer("windows", "ahead", ahead, 1)
    boolean("windows", "batch_first", batch_first)
    if array.ndim not in (1, 2) or len(array) < past + ahead:
        raise shape_error("windows", "series", array.shape, f"(T,) or (T, F) of at least {past + ahead} steps")
    rows = array if array.ndim == 2 else array[:, None]
    seen = np.lib.stride_tricks.sliding_window_view(rows, past + ahead, axis=0)  # (N, F, past + ahead)
    seen = seen.transpose((0, 2, 1) if batch_first else (2, 0, 1))
    x, y = np.split(seen, [past], axis=1 if batch_first else 0)
    return plain(x), plain(y)


def moments(rows: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each feature of rows (n, F), float64, without what is NaN. That of a feature which
    is constant but for rounding, or of which nothing is known, is 1."""
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0).sum(axis=0) / count
    deviation = np.sqrt(np.where(known, (rows - mean) ** 2, 0).sum(axis=0) / count)
    largest = np.abs(np.where(known, rows, 0)).max(axis=0, initial=0)
    return mean, np.where(deviation > 1e-12 * largest, deviation, 1.0)


class Scaler:
    """Brings each feature to mean 0 and standard deviation 1, and numbers back to where they were.

    values  (T,) or (..., F) real numbers to take both from: what is learned from, and nothing that judges. NaN counts
            as missing

    `mean` and `scale` are float64, () or (F,). The scale of a feature that is constant, or all NaN, is 1. TypeError for
    what is no numbers, ValueError for no values and for infinity.

        y = pyrnn.data.load_passengers()
        scaler = pyrnn.data.Scaler(y[:100])
        z = scaler(y)  # (T,); scaler.back(z) is y again
    """

    mean: Array
    scale: Array

    @quietly
    def __init__(self, values: ArrayLike) -> None:
        array = numbers_array("Scaler", "values", values).astype(np.float64)
        if array.ndim == 0 or array.size == 0:
            raise shape_error("Scaler", "values", array.shape, "(T,) or (..., F) with at least one number")
        if np.isinf(array).any():
            raise ValueError("Scaler: values holds infinity, expected finite numbers or NaN")
        rows = plain(array.reshape(-1, 1 if array.ndim == 1 else array.shape[-1]))
        mean, scale = moments(rows)
        self.mean, self.scale = (mean[0], scale[0]) if array.ndim == 1 else (mean, scale)

    def __call__(self, values: ArrayLike) -> Array:
        """Like values, (T,) or (..., F), on the scale: float64 stays, other real numbers become floats that hold them.
        Errors as for the class, and a ValueError for other features; NaN stays.

            z = scaler(y)
        """
        array = self._like("Scaler", values)
        return np.asarray((array - self.mean) / self.scale, array.dtype)

    def back(self, values: ArrayLike) -> Array:
        """The numbers that these were before: `scaler.back(scaler(y))` is y but for rounding. Errors as in a call.

        y = scaler.back(z)
        """
        array = self._like("Scaler.back", values)
        return np.asarray(array * self.scale + self.mean, array.dtype)

    def _like(self, call: str, values: ArrayLike) -> Array:
        array = float_array(call, "values", values)
        if np.ndim(self.mean) and array.shape[-1:] != self.mean.shape:
            raise shape_error(call, "values", array.shape, f"(..., {len(self.mean)})")
        return array
