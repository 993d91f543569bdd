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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import plots

from . import data_option, plot_option, seed_option

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


KINDS = {
    "sunspots": Kind("monthly-sunspots.csv", 132, np.inf, 0, np.sqrt, lambda z: np.square(np.maximum(z, 0))),
    "temperatures": Kind("daily-min-temperatures.csv", 365, 365.25, 0, np.array, np.array),
    "passengers": Kind("airline-passengers.csv", 12, 12, 12, np.log, np.exp),
}


def read(folder: str | Path, kind: Kind) -> np.ndarray:
    with open(Path(folder) / kind.file, encoding="utf-8", newline="") as file:
        return np.array([float(row[1]) for row in list(csv.reader(file))[1:] if row])


def ahead(values: np.ndarray) -> np.ndarray:
    """(T,) -> (T - 12, 12): row t is what comes after t."""
    return np.lib.stride_tricks.sliding_window_view(values[1:], AHEAD)


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
        self.targets = (ahead(self.level) - self.level[:-AHEAD, None]).astype("f4")

    def window(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of up to 96 steps; the last target is before the held-out steps."""
        length = min(WINDOW, self.first - AHEAD)
        start = int(rng.integers(0, self.first - AHEAD - length + 1))
        return self.inputs[start : start + length], self.targets[start : start + length]

    def forecasts(self, y: np.ndarray) -> np.ndarray:
        """Outputs (T, 12) -> values (T - 12, 12) in the units of the series."""
        level = self.mean + self.scale * (self.level[:, None] + y)[:-AHEAD]
        return self.kind.back(level + ahead(self.before))

    def baselines(self) -> dict[str, np.ndarray]:
        """The same of persistence, seasonal persistence (as far as a season ago is known) and linear regression."""
        last = np.repeat(self.values[:-AHEAD, None], AHEAD, axis=1)
        ago = np.arange(len(last))[:, None] + np.arange(1, AHEAD + 1) - self.kind.season
        seasonal = np.where(ago >= 0, self.values[ago], np.nan)
        return {"persistence": last, "seasonal": seasonal, "linear": self.forecasts(self.linear())}

    def linear(self) -> np.ndarray:
        """(T, 12) like the network's outputs: ridge regressions on the last twelve values and the season."""
        past = np.lib.stride_tricks.sliding_window_view(np.pad(self.level, (AHEAD - 1, 0)), AHEAD)  # (T, 12)
        known = np.column_stack([past, self.inputs[:, 1:3], np.ones(len(past))])
        x, y = (part[AHEAD : self.first - AHEAD] for part in (known, self.targets))
        predicted: np.ndarray = known @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
        return predicted

    def errors(self, forecasts: np.ndarray) -> np.ndarray:
        """Root mean square error of each step ahead (12,), over the origins whose twelve steps are held out."""
        wrong: np.ndarray = (forecasts - ahead(self.values))[self.first - 1 :]
        error: np.ndarray = np.sqrt(np.mean(wrong**2, axis=0))
        return error


class Forecaster(pyrnn.Model):
    """x (T, N, 6) -> y (T, N, 12)."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        inputs = 3 + len(KINDS)
        super().__init__(rnn=pyrnn.GRU(inputs, hidden, rng=rng), head=pyrnn.Linear(hidden, AHEAD, rng=rng))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = self.head(self.rnn(x)[0])
        return y

    def learn(self, series: Sequence[Series], steps: int, rng: np.random.Generator, name: str) -> None:
        """So many steps of Adam, each on 32 windows of series drawn at random."""
        adam = pyrnn.Adam(self, lr=5e-3)
        schedule = pyrnn.schedules.Cosine(adam, total=steps)
        for _ in tqdm(range(steps), desc=name, leave=False):
            windows = [series[k].window(rng) for k in rng.integers(0, len(series), ROWS)]
            x, lengths = pyrnn.data.pad([inputs for inputs, _ in windows])  # (T, N, 6), (N,)
            target, _ = pyrnn.data.pad([targets for _, targets in windows])  # (T, N, 12)
            self.zero_grad()
            (h, _), pull_rnn = self.rnn.vjp(x, lengths=lengths)
            y, pull_head = self.head.vjp(h)
            _, dy = pyrnn.mean_squared_error(y, target, lengths=lengths)
            pull_rnn(pull_head(dy))
            pyrnn.clip_grad_norm(self, 1.0)
            adam.step()
            schedule.step()


def compare(values: dict[str, np.ndarray], hidden: int, steps: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """For each series the forecasts (T - 12, 12) of the baselines, of a network of its own and of one for all."""
    series = {name: Series(name, array) for name, array in values.items()}
    ways = {name: one.baselines() for name, one in series.items()}
    for way, group in [*(("its own network", [name]) for name in series), ("one network", list(series))]:
        rng = np.random.default_rng(seed)
        model = Forecaster(hidden, rng)
        model.learn([series[name] for name in group], steps * len(group), rng, ", ".join(group))
        for name in group:
            ways[name][way] = series[name].forecasts(model(series[name].inputs))
    return ways


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@data_option(
    f"a folder with {', '.join(kind.file for kind in KINDS.values())}", "https://github.com/jbrownlee/Datasets"
)
@click.option("--hidden", type=click.IntRange(min=1), default=32, show_default=True, help="Hidden units.")
@click.option("--steps", type=click.IntRange(min=1), default=150, show_default=True, help="Steps of Adam per series.")
@plot_option
@seed_option
def main(data: str, hidden: int, steps: int, plot: str | None, seed: int) -> None:
    values = {name: read(data, kind) for name, kind in KINDS.items()}
    ways = compare(values, hidden, steps, seed)
    panels = []
    print(f"Root mean square error over {AHEAD} steps, held-out last fifth")
    print(f"{'':<14}" + "".join(f"{way:>18}" for way in next(iter(ways.values()))))
    for name, found in ways.items():
        one = Series(name, values[name])
        errors = {way: one.errors(forecasts) for way, forecasts in found.items()}
        print(f"{name:<14}" + "".join(f"{np.sqrt(np.mean(error**2)):>18.2f}" for error in errors.values()))
        origins = range(one.first - 1, len(one.values) - AHEAD, AHEAD)
        panels.append(plots.Forecast(name, one.values, {t: found["one network"][t] for t in origins}, errors))
    if plot:
        plots.forecasts(plot, panels)


if __name__ == "__main__":
    main()
