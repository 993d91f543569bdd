"""Forecasting: at every step of a series, the next twelve. One network for one series, and one for several at once.

    python -m pyrnn.examples.forecasting --data series/ --plot forecasts.png

    in       x (T, N, 6)    the series so far, standardised; sine and cosine of the season; which of the series it is
    hidden   32 units       of a GRU: all that the network keeps of the past
    out      y (T, N, 12)   at every step t the values at t + 1 ... t + 12, as their differences to that at t

Many-to-many in step: y_t comes from x_1 ... x_t alone, so one run over a series forecasts from all its origins, each
with the true past and nothing later. In training rows are windows of the first four fifths, from which means and scales
come too; windows of several series make one batch, the shorter ones with `lengths`. The last fifth is held out: there
every origin counts whose twelve steps lie in it. Sunspots are forecast as square roots; passengers, which grow by some
percent a year, as differences of logarithms to a year before. Persistence says that the last value stays, seasonal
persistence that it will be as one season ago. On series as short and simple as these a linear regression on the last
twelve values is hard to beat: it is in the table too. It takes two seconds.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import baselines, plots, text

from . import count_option, data_option, enough, lesson, reading

AHEAD = 12  # the horizon
WINDOW, ROWS = 96, 32  # of a batch


class Kind(NamedTuple):
    """What is known of a series before it is seen."""

    file: str
    season: int  # steps, for seasonal persistence
    period: float  # of the calendar, in steps
    lag: int  # forecast differences to so many steps before
    forth: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    step: str
    unit: str
    least: float  # value


def square(z: np.ndarray) -> np.ndarray:
    """The way back from a square root, of what a forecast may take below 0."""
    squares: np.ndarray = np.square(np.maximum(z, 0))
    return squares


KINDS = {
    "sunspots": Kind("monthly-sunspots.csv", 132, np.inf, 0, np.sqrt, square, "month", "sunspots", 0),
    "temperatures": Kind("daily-min-temperatures.csv", 365, 365.25, 0, np.array, np.array, "day", "°C", -np.inf),
    "passengers": Kind("airline-passengers.csv", 12, 12, 12, np.log, np.exp, "month", "thousand passengers", 1e-3),
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


class Series:
    """A series (T,) as the network sees it: inputs (T, 6) and targets (T - 12, 12), in standard deviations."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.kind = kind = KINDS[name]
        z, lag = kind.forth(values), kind.lag
        self.before = z[: len(z) - lag] if lag else np.zeros(len(z))  # is added to a forecast again
        self.values, level = values[lag:], z[lag:] - self.before
        self.first = len(values) - len(values) // 5 - lag  # of the held-out steps
        self.mean, self.scale = level[: self.first].mean(), level[: self.first].std()
        self.level = (level - self.mean) / self.scale
        angle = 2 * np.pi * np.arange(len(level)) / kind.period
        which = np.eye(len(KINDS))[[list(KINDS).index(name)] * len(level)]
        self.inputs = np.column_stack([self.level, np.sin(angle), np.cos(angle), which]).astype("f4")
        self.targets = (baselines.ahead(self.level, AHEAD) - self.level[:-AHEAD, None]).astype("f4")

    def window(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of up to 96 steps; the last target is before the held-out steps."""
        length = min(WINDOW, self.first - AHEAD)
        start = int(rng.integers(0, self.first - AHEAD - length + 1))
        return self.inputs[start : start + length], self.targets[start : start + length]

    def forecasts(self, y: np.ndarray) -> np.ndarray:
        """Outputs (T, 12) -> values (T - 12, 12) in the units of the series."""
        level = self.mean + self.scale * (self.level[:-AHEAD, None] + y[: len(self.targets)])
        return self.kind.back(level + baselines.ahead(self.before, AHEAD))

    def baselines(self) -> dict[str, np.ndarray]:
        """The same of persistence, seasonal persistence (as far as a season ago is known) and linear regression."""
        linear = baselines.linear(self.level, AHEAD, self.first, self.inputs[:, 1:3]) - self.level[:-AHEAD, None]
        seasonal = baselines.seasonal(self.values, AHEAD, self.kind.season)
        return {"persistence": baselines.persistence(self.values, AHEAD), "seasonal": seasonal,
                "linear": self.forecasts(linear)}  # fmt: skip

    def errors(self, forecasts: np.ndarray) -> np.ndarray:
        """Root mean square error of each step ahead (12,), over the origins whose twelve steps are held out."""
        wrong: np.ndarray = (forecasts - baselines.ahead(self.values, AHEAD))[self.first - 1 :]
        error: np.ndarray = np.sqrt(np.mean(wrong**2, axis=0))
        return error


def train(series: Sequence[Series], steps: int, seed: int, hidden: int = 32) -> pyrnn.Sequential:
    """A network x (T, N, 6) -> y (T, N, 12), after so many steps of Adam, each on 32 windows of series at random."""
    rng = np.random.default_rng(seed)
    network = pyrnn.Sequential(pyrnn.GRU(3 + len(KINDS), hidden), pyrnn.Linear(hidden, AHEAD), rng=rng)
    adam = pyrnn.Adam(network, lr=5e-3)
    schedule = pyrnn.schedules.Cosine(adam, total=steps)
    for _ in tqdm(range(steps), leave=False):
        windows = [series[k].window(rng) for k in rng.integers(0, len(series), ROWS)]
        x, lengths = pyrnn.data.pad([inputs for inputs, _ in windows])  # (T, N, 6), (N,)
        target, _ = pyrnn.data.pad([targets for _, targets in windows])  # (T, N, 12)
        network.zero_grad()
        y, pullback = network.vjp(x, lengths=lengths)
        _, dy = pyrnn.mean_squared_error(y, target, lengths=lengths)
        pullback(dy)
        pyrnn.clip_grad_norm(network, 1.0)
        adam.step()
        schedule.step()
    return network


@lesson(__doc__)
@data_option(
    f"a folder with {', '.join(kind.file for kind in KINDS.values())}", "https://github.com/jbrownlee/Datasets"
)
@count_option("--steps", 150, "Steps of Adam per series.")
def main(data: str, steps: int, plot: str | None, seed: int) -> None:
    with reading():
        known = {name: read(Path(data) / kind.file, kind) for name, kind in KINDS.items()}
    series = {name: Series(name, values) for name, (values, _) in known.items()}
    shared, panels = train(list(series.values()), steps * len(series), seed), list[plots.Forecast]()
    print(f"Root mean square error over {AHEAD} steps, held-out last fifth")
    for name, one in series.items():
        networks = {"its own network": train([one], steps, seed), "one network": shared}
        ways = one.baselines() | {way: one.forecasts(network(one.inputs)) for way, network in networks.items()}
        errors = {way: one.errors(forecasts) for way, forecasts in ways.items()}
        if not panels:
            print(f"{'':<14}" + "".join(f"{way:>18}" for way in ways))
        print(f"{name:<14}" + "".join(f"{np.sqrt(np.mean(error**2)):>18.2f}" for error in errors.values()))
        origins = range(one.first - 1, len(one.values) - AHEAD, AHEAD)
        shown = {t: ways["one network"][t] for t in origins}
        dates = known[name][1]
        dates = None if dates is None else dates[one.kind.lag :]
        panels.append(plots.Forecast(name, one.values, shown, errors, one.kind.unit, dates, one.first, one.kind.step))
    if plot:
        plots.forecasts(plot, panels)


if __name__ == "__main__":
    main()
