"""Forecasting: the next twelve values of a series, and what they lie between four times of five.

    python -m pyrnn.examples.forecasting --data series/ --plot forecasts.png

    in       y (T,)         the series so far
    model    RNNForecaster  regressions on the last values, and on those of a season ago, and what a GRU adds to them
    out      (12,)          the next twelve values, and of each the 10% and the 90% quantile

A forecaster is fitted on the first four fifths of a series. The last fifth is held out: there it forecasts from every
step whose twelve next lie in it, goes one on with `update`, which fits nothing, and forecasts again. Persistence says
that the last value stays, seasonal persistence that it will be as one season ago; on series as short and simple as
these a linear regression on the last twelve values is hard to beat: it is in the table too. It takes seconds, and
scikit-learn.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from pyrnn import baselines, plots, text

from . import count_option, data_option, enough, lesson, reading

AHEAD = 12  # the horizon
INTERVAL = (0.1, 0.9)


class Kind(NamedTuple):
    """What is known of a series before it is seen."""

    file: str
    season: int  # steps
    step: str
    unit: str
    least: float  # value


KINDS = {
    "sunspots": Kind("monthly-sunspots.csv", 132, "month", "sunspots", 0),
    "temperatures": Kind("daily-min-temperatures.csv", 365, "day", "°C", -np.inf),
    "passengers": Kind("airline-passengers.csv", 12, "month", "thousand passengers", 1e-3),
}


def read(path: Path, kind: Kind) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (T,) of a file of lines date,value under a heading, and where all of them have one, their dates (T,)."""
    dates, values = [], []
    for place, line in list(text.lines(path))[1:]:
        try:
            date, number = next(csv.reader(io.StringIO(line)))
            value = float(number)
        except (ValueError, csv.Error):
            value = np.nan
        if not kind.least <= value < np.inf:
            raise ValueError(f"{place}: {line[:40]!r}, expected a date and a number" + " from 0 on" * (kind.least >= 0))
        dates.append(date)
        values.append(value)
    enough(path, "values", len(values), 100)
    dated = all(re.fullmatch(r"\d{4}-\d\d(-\d\d)?", date) for date in dates)
    return np.array(values), np.array(dates, "M8") if dated else None


def follow(values: np.ndarray, first: int, epochs: int, seed: int) -> dict[int, np.ndarray]:
    """Learned from the values before `first`, forecasts from every step after: origin -> (3, 12), with both ends."""
    from pyrnn.sklearn import RNNForecaster

    model = RNNForecaster(horizon=AHEAD, quantiles=INTERVAL, epochs=epochs, random_state=seed).fit(values[:first])
    found = {}
    for origin in range(first - 1, len(values) - AHEAD):
        found[origin] = np.stack([model.predict(), *model.predict_quantiles().values()])
        model.update(values[origin + 1 : origin + 2])
    return found


def simpler(values: np.ndarray, season: int, first: int) -> dict[str, np.ndarray]:
    """Forecasts (T - 12, 12) of persistence, seasonal persistence (as far as a season ago is known), regression."""
    mean, scale = values[:first].mean(), values[:first].std()
    linear = mean + scale * baselines.linear((values - mean) / scale, AHEAD, first)
    seasonal = baselines.seasonal(values, AHEAD, season)
    return {"persistence": baselines.persistence(values, AHEAD), "seasonal": seasonal, "linear": linear}


@lesson(__doc__)
@data_option("series", f"a folder with {', '.join(kind.file for kind in KINDS.values())}")
@count_option("--epochs", 50, "At most so many passes over a series.")
def main(data: str, epochs: int, plot: str | None, seed: int) -> None:
    with reading():
        known = {name: read(Path(data) / kind.file, kind) for name, kind in KINDS.items()}
    panels = list[plots.Forecast]()
    print(f"Root mean square error over {AHEAD} steps, held-out last fifth")
    for (name, (values, dates)), kind in zip(known.items(), KINDS.values(), strict=True):
        first = len(values) - len(values) // 5
        try:
            found = follow(values, first, epochs, seed)
        except ImportError as error:
            raise click.ClickException(str(error)) from None
        true = baselines.ahead(values, AHEAD)[first - 1 :]
        ahead, low, high = np.stack(list(found.values()), axis=1)
        ways = {way: said[first - 1 :] for way, said in simpler(values, kind.season, first).items()} | {
            "RNNForecaster": ahead
        }
        errors = {way: np.sqrt(np.mean((said - true) ** 2, axis=0)) for way, said in ways.items()}
        if not panels:
            print(f"{'':<14}" + "".join(f"{way:>15}" for way in ways) + f"{'in 80% interval':>18}")
        inside = np.mean((low <= true) & (true <= high))
        print(f"{name:<14}" + "".join(f"{np.sqrt(np.mean(e**2)):>15.2f}" for e in errors.values()) + f"{inside:>18.0%}")
        shown = {origin: found[origin] for origin in range(first - 1, len(values) - AHEAD, AHEAD)}
        panels.append(plots.Forecast(
            name, values, {t: said[0] for t, said in shown.items()}, errors, kind.unit, dates, first, kind.step,
            {t: said[1:] for t, said in shown.items()},
        ))  # fmt: skip
    if plot:
        plots.forecasts(plot, panels)


if __name__ == "__main__":
    main()
