"""Two hundred rooms, a thermometer in each, and a forecaster for each: all of them trained at once.

    python -m pyrnn.examples.sensors --plot sensors.png

    in       x (P, T, N, 2)   what a thermometer says, and how that differs from the time before, T times in N windows
    hidden   16 units         of a GRU, whose weights know one room alone
    out      y (P, T, N, 8)   how much warmer it will be than now, one to eight times later (a quarter of an hour each)

Rooms are made up: each loses warmth to the weather, which is the same for all, in its own time; each has a heater of
its own strength, which goes on below one temperature and off above another. Which of both it is just now no thermometer
tells, so it must be remembered. Forecasters learn from two weeks and are judged by a third one. Beside them: that
nothing changes, that all is as a day ago, and a regression of each room on its last eight values.

A `Population` trains all in one loop. Then the same is done model by model, in a loop over ordinary ones: the same bits
come out of it, later. It takes half a minute.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import baselines, plots

from . import count_option, lesson

DAY, AHEAD = 96, 8  # quarters of an hour
DAYS, LEARNED = 21, 14
WINDOW = 64


def rooms(count: int, rng: np.random.Generator) -> np.ndarray:
    """Degrees (P, T) that thermometers say, every quarter of an hour for three weeks."""
    tau = rng.uniform(12, 60, count)  # until a difference to the weather is down to 1/e
    strength = rng.uniform(0.4, 1.2, count)  # degrees that the heater adds in a quarter
    low = rng.uniform(17, 21, count)
    high = low + rng.uniform(0.5, 2, count)
    inside, on = (low + high) / 2, rng.random(count) < 0.5
    weather, seen = 0.0, []
    for t in range(DAYS * DAY):
        weather += -0.02 * weather + 0.25 * rng.standard_normal()
        outside = 6 - 4 * np.cos(2 * np.pi * t / DAY) + weather
        on = np.where(inside < low, True, np.where(inside > high, False, on))
        inside = inside + (outside - inside) / tau + on * strength
        seen.append(inside + rng.normal(0, 0.03, count))
    return np.array(seen).T


def examples(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of standardised series (P, T) x (P, T - 9, 2) and targets (P, T - 9, 8), of every moment from the second on that
    has eight behind it."""
    z = z.astype("f4")
    now = z[:, 1:-AHEAD]
    later = np.lib.stride_tricks.sliding_window_view(z[:, 2:], AHEAD, axis=1)
    return np.stack([now, now - z[:, : -AHEAD - 1]], axis=-1), later - now[:, :, None]


def learn(model: Any, x: np.ndarray, targets: np.ndarray, updates: int, batch: int, bar: bool) -> None:
    """So many steps of Adam on windows: x (P, T, 2) of a population, (T, 2) of one model."""
    rng = np.random.default_rng(0)
    adam = pyrnn.Adam(model, lr=1e-2)
    schedule = pyrnn.schedules.Cosine(adam, total=updates)
    for _ in tqdm(range(updates), disable=not bar, unit="update"):
        windows = np.arange(WINDOW)[:, None] + rng.integers(0, x.shape[-2] - WINDOW, batch)  # (T, N)
        model.zero_grad()
        y, pullback = model.vjp(x[..., windows, :])
        pullback((y - targets[..., windows, :]) * np.float32(2 / (windows.size * AHEAD)))  # of the mean squared error
        pyrnn.clip_grad_norm(model, 1.0)
        adam.step()
        schedule.step()


def errors(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Root mean square errors (P, 8) of forecasts (P, T, 8)."""
    found: np.ndarray = np.sqrt(np.mean(np.square(said - true), axis=1))
    return found


@lesson(__doc__)
@count_option("--count", 200, "Rooms, and forecasters.", least=2)
@count_option("--hidden", 16, "Hidden units.")
@count_option("--updates", 200, "Steps of Adam.")
@count_option("--batch", 16, "Windows in a step.")
def main(count: int, hidden: int, updates: int, batch: int, plot: str | None, seed: int) -> None:
    degrees = rooms(count, np.random.default_rng(seed))
    first = LEARNED * DAY  # that nothing is learned from
    mean, scale = (of(degrees[:, :first], axis=1, keepdims=True) for of in (np.mean, np.std))
    z = (degrees - mean) / scale
    model = pyrnn.Sequential(pyrnn.GRU(2, hidden), pyrnn.Linear(hidden, AHEAD))
    many = pyrnn.Population(model, size=count, rng=seed)
    alone = [copy.deepcopy(one) for one in many]

    x, targets = examples(z[:, :first])
    begun = time.perf_counter()
    learn(many, x, targets, updates, batch, bar=True)
    at_once = time.perf_counter()
    for one, own, wanted in zip(tqdm(alone, unit="room"), x, targets, strict=True):
        learn(one, own, wanted, updates, batch, bar=False)
    looped = time.perf_counter() - at_once
    same = all(np.array_equal(many.params[name], [one.params[name] for one in alone]) for name in many.params)
    print(f"{count} forecasters of {model.num_parameters} numbers each, all at once in {at_once - begun:.1f} s")
    print(f"One after the other in {looped:.1f} s, {'the same' if same else 'not the same'} to the bit")

    x, changes = examples(z)  # these begin a step later than the others
    ways = {
        "as a day ago": np.stack([baselines.seasonal(series, AHEAD, DAY) for series in z])[:, first:],
        "as it is": np.stack([baselines.persistence(series, AHEAD) for series in z])[:, first:],
        "regression": np.stack([baselines.linear(series, AHEAD, first) for series in z])[:, first:],
        "own GRU": (x[..., :1] + many(x[:, :, None])[:, :, 0])[:, first - 1 :],
    }
    true = (x[..., :1] + changes)[:, first - 1 :]
    off = {way: scale * errors(said, true) for way, said in ways.items()}
    for way, found in off.items():
        print(f"{way:<14} {np.sqrt(np.mean(found**2)):.3f} degrees off over two hours")
    better = np.mean(off["own GRU"].mean(axis=1) < np.min([off[way].mean(axis=1) for way in list(ways)[:3]], axis=0))
    print(f"In {better:.0%} of the rooms the GRU is the best of them.")
    if plot:
        said = mean[..., None] + scale[..., None] * ways["own GRU"]
        origins = range(first, DAYS * DAY - AHEAD, AHEAD)
        plots.forecasts(plot, [
            plots.Forecast(f"room {k}", degrees[k], {t: said[k, t - first] for t in origins},
                           {way: found[k] for way, found in off.items()}, "degrees", None, first, "quarter")
            for k in range(min(count, 4))
        ])  # fmt: skip


if __name__ == "__main__":
    main()
