"""Time series and what was forecast of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import cut, integer, mapping, shape_error, string
from ...plots import style

# ------------------------------------------------------------------------------------------------ sequences


class Forecast(NamedTuple):
    """A series and what was forecast of it: a row of `forecasts`.

    name       of the series
    values     (T,)
    forecasts  origin t -> the values (K,) forecast for t + 1, t + 2, ...
    errors     way of forecasting -> its error 1, 2, ... steps ahead, (K,)
    unit       of the values
    dates      (T,) datetime64, of the values
    held_out   the first step that nothing was learned from
    step       what a step is: "month"
    intervals  origin -> (2, K), what its forecast may lie between

        pyrnn.plots.Forecast("tides", values, {80: y[80], 92: y[92]}, {"GRU": errors}, "cm", step="hour")
    """

    name: str
    values: np.ndarray
    forecasts: Mapping[int, np.ndarray]
    errors: Mapping[str, np.ndarray]
    unit: str = ""
    dates: np.ndarray | None = None
    held_out: int = 0
    step: str = "step"
    intervals: Mapping[int, np.ndarray] = MappingProxyType({})


@style.picture
def forecasts(path: style.Path, rows: Sequence[Forecast], shown: int = 150, *, ax: Any = None) -> Any:
    """Draw a row for each series: left the end of it, with forecasts from their origins; right errors by the horizon.

    `shown` steps of the series end the picture. A ring marks an origin, the last value that a forecast has seen, a
    dotted line where the held-out part begins; intervals are shaded. TypeError and ValueError for what does not fit.
    Returns the axes (2R,).

        pyrnn.plots.forecasts("f.png", [pyrnn.plots.Forecast("tides", values, {80: y[80], 92: y[92]}, {"GRU": errors})])
    """
    from matplotlib import dates

    shown = integer("forecasts", "shown", shown, 1)
    given = style.records("forecasts", "rows", rows, Forecast, "pyrnn.plots.Forecast(...)")
    rows = [_forecast(row) for row in given]
    figure, panels = style.new_axes(
        "forecasts", ax, 2 * len(rows), 2, (13, 0.6 + 2.9 * max(len(rows), 1)), gridspec_kw={"width_ratios": [2.6, 1]}
    )
    grid = np.asarray(panels).reshape(-1, 2)
    ways = dict.fromkeys(way for row in rows for way in row.errors)
    colours = dict(
        zip(
            ways,
            itertools.cycle((style.GREY, style.INK, style.LINES[5], style.TRAIN, style.VALID, *style.LINES[1:5])),
            strict=False,
        )
    )
    curves: dict[str, Any] = {}
    for (left, right), row in zip(grid, rows, strict=True):
        begin = max(0, len(row.values) - shown)
        steps = np.arange(len(row.values)) if row.dates is None else np.asarray(row.dates)
        places = begin + style.thinned(row.values[begin:])
        left.margins(x=0)
        lines = {"true": left.plot(steps[places], row.values[places], color=style.GREY, linewidth=1.6, label="true")[0]}
        for origin, ahead in ((t, v) for t, v in sorted(row.forecasts.items()) if t >= begin):
            (line,) = left.plot(
                steps[origin : origin + len(ahead) + 1], [row.values[origin], *ahead], color=style.VALID, linewidth=1.5
            )
            left.plot(steps[origin], row.values[origin], "o", markersize=5, markerfacecolor="white", color=style.VALID)
            lines[f"forecast, {len(ahead)} {row.step}s from each ring"] = line
            if origin in row.intervals:
                after = steps[origin + 1 : origin + 1 + len(ahead)]
                left.fill_between(after, *row.intervals[origin], color=style.VALID, alpha=0.2, linewidth=0)
        style.titled(left, row.name + " (all of it held out)" * (0 < row.held_out <= begin), fontsize=11)
        if begin < row.held_out < len(steps):
            left.axvline(steps[row.held_out], color=style.INK, linewidth=0.8, linestyle=(0, (2, 3)))
            left.annotate(
                "held out from here",
                (steps[row.held_out], 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, -4),
                textcoords="offset points",
                fontsize=8,
                va="top",
                color=style.INK,
            )
        if row.dates is not None:
            locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
            left.xaxis.set_major_locator(locator)
            left.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        curves |= {
            way: right.plot(
                np.arange(1, len(errors) + 1), errors, "o-", color=colours[way], linewidth=1.6, markersize=3, label=way
            )[0]
            for way, errors in row.errors.items()
        }
        right.set_ylim(0, None)
        style.titled(right, f"error by {row.step}s ahead", fontsize=10)
        left.set_xlabel(style.plain_text(row.step) if row.dates is None else "", **style.PLAIN)
        right.set_xlabel(style.plain_text(row.step + "s ahead"), **style.PLAIN)
        for axes in (left, right):
            axes.set_ylabel(style.plain_text(row.unit), **style.PLAIN)
            style.open_axes(axes)
        if left is panels[0]:
            style.draw_legend(left, lines, fontsize=8, loc="upper left", frameon=True, edgecolor="none", framealpha=0.8)
    if curves:
        style.draw_legend(grid[0][1], curves, fontsize=8)
    return style.finished(figure, path, panels)


def _forecast(row: Forecast) -> Forecast:
    """With arrays, all of which fit the values."""
    call, name = "forecasts", cut(string("forecasts", "name", row.name), style.NAME)
    string(call, f"step of {name}", row.step)
    values = style.as_array(call, f"values of {name}", row.values, "T")
    total = len(values)
    integer(call, f"held_out of {name}", row.held_out, 0, total)
    if row.dates is not None and np.shape(row.dates) != (total,):
        raise shape_error(call, f"dates of {name}", np.shape(row.dates), f"({total},)")
    ahead = {}
    for origin, came in mapping(call, f"forecasts of {name}", row.forecasts, "values ahead by origin").items():
        integer(call, f"an origin of {name}", origin, 0, total - 1)
        ahead[origin] = style.as_array(call, f"forecast {origin} of {name}", came, "K")
        if origin + len(ahead[origin]) >= total:
            raise ValueError(
                f"{call}: forecast {origin} of {name} has {len(ahead[origin])} steps, expected at most "
                f"{total - 1 - origin}, which its {total} values show; lengthen values by NaN for those to come"
            )
    errors = {
        way: style.as_array(call, f"errors of {cut(way)} for {name}", error, "K")
        for way, error in mapping(call, f"errors of {name}", row.errors, "errors by way").items()
    }
    intervals = {}
    for origin, ends in mapping(call, f"intervals of {name}", row.intervals, "ends by origin").items():
        intervals[origin] = style.as_array(call, f"interval {origin} of {name}", ends, 2, "K")
        if origin not in ahead or intervals[origin].shape != (2, len(ahead[origin])):
            expected = f"(2, {len(ahead[origin])}) like its forecast" if origin in ahead else "none without a forecast"
            raise shape_error(call, f"interval {origin} of {name}", intervals[origin].shape, expected)
    return row._replace(values=values, forecasts=ahead, errors=errors, intervals=intervals)
