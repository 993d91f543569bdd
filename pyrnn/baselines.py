"""What a forecast of a series is compared with: that nothing changes, that the season comes again, a regression.

All take a series (T,) and say at every step t, t + horizon < T, the values at t + 1 ... t + horizon: (T - horizon,
horizon). `ahead` has the true ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .core.checks import Array, integer, quietly, real_array, shape_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def ahead(values: ArrayLike, horizon: int) -> Array:
    """The true values: row t is what comes after t. TypeError and ValueError for what is no series longer than horizon.

    pyrnn.baselines.ahead([1, 2, 3, 4], 2)  # [[2, 3], [3, 4]]
    """
    series, horizon = _series("ahead", values, horizon)
    return np.lib.stride_tricks.sliding_window_view(series[1:], horizon).copy()


def persistence(values: ArrayLike, horizon: int) -> Array:
    """The value at t stays. Errors as in `ahead`.

    pyrnn.baselines.persistence([1, 2, 3, 4], 2)  # [[1, 1], [2, 2]]
    """
    series, horizon = _series("persistence", values, horizon)
    return np.repeat(series[:-horizon, None], horizon, axis=1)


def seasonal(values: ArrayLike, horizon: int, season: int) -> Array:
    """The value is that of `season` steps before, NaN where the series had not begun. season >= horizon: what is known.

    Errors as in `ahead`, and a ValueError for a season shorter than the horizon.

        pyrnn.baselines.seasonal([1, 2, 3, 4, 5], 2, season=3)  # [[nan, nan], [nan, 1], [1, 2]]
    """
    series, horizon = _series("seasonal", values, horizon)
    season = integer("seasonal", "season", season, horizon)
    ago = np.arange(len(series) - horizon)[:, None] + np.arange(1, horizon + 1) - season
    return np.where(ago >= 0, series[ago], np.nan)


@quietly
def linear(values: ArrayLike, horizon: int, train: int, known: ArrayLike | None = None) -> Array:
    """Ridge regressions (penalty 1) of the differences to the value at t, on the last `horizon` values and a constant.

    They are learned from the first `train` values alone; `known` (T, F) are further features, as they are at t. A
    series should be standardised first: the penalty is the same for any scale. Errors as in `ahead`, ValueError for a
    `train` that leaves nothing to learn from and for `known` of another shape.

        pyrnn.baselines.linear(np.sin(np.arange(200) / 5), 4, train=150)  # (196, 4)
    """
    series, horizon = _series("linear", values, horizon)
    train = integer("linear", "train", train, 2 * horizon + 1, len(series))
    features = np.ones((len(series), 0)) if known is None else real_array("linear", "known", known, np.dtype("f8"))
    if features.ndim != 2 or len(features) != len(series):
        raise shape_error("linear", "known", features.shape, f"({len(series)}, F)")
    past = np.lib.stride_tricks.sliding_window_view(np.pad(series, (horizon - 1, 0)), horizon)  # (T, horizon)
    x = np.column_stack([past, features, np.ones(len(series))])[:-horizon]
    change = ahead(series, horizon) - series[:-horizon, None]
    rows = slice(horizon, train - horizon)
    weight = np.linalg.solve(x[rows].T @ x[rows] + np.eye(x.shape[1]), x[rows].T @ change[rows])
    forecast: Array = series[:-horizon, None] + x @ weight
    return forecast


def _series(call: str, values: ArrayLike, horizon: int) -> tuple[Array, int]:
    series, horizon = real_array(call, "values", values, np.dtype("f8")), integer(call, "horizon", horizon, 1)
    if series.ndim != 1 or len(series) <= horizon:
        raise shape_error(call, "values", series.shape, f"(T,) of more than {horizon} steps")
    return series, horizon
