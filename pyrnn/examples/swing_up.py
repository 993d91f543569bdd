"""Swing it up: 256 recurrent controllers evolve, stepped all at once, until one keeps a pendulum upright.

    python -m pyrnn.examples.swing_up --plot swing_up.png

    in       x (P, N, 2)    cosine and sine of the angle of each of N pendulums; how fast they turn nobody tells
    hidden   16 units       of a GRU: what it remembers of the angles before
    out      y (P, N, 1)    from -1 to 1, the part of the largest torque

The pendulum is that of OpenAI Gym's Pendulum-v1 (Brockman et al. 2016, arXiv:1606.01540), a rod of mass m = 1 kg and
length l = 1 m on a pivot, with g = 10 m/s^2. From the upright angle, theta = 0, and for a torque u of at most 2 N m, which
is too weak to lift the rod at once,

    speed += (3 g / (2 l) sin theta + 3 u / (m l^2)) dt       within -8 .. 8 rad/s, dt = 0.05 s
    theta += speed dt
    return -= theta^2 + 0.1 speed^2 + 0.001 u^2               of the values before the step, theta within -pi .. pi

for 200 steps, from any angle and a speed of -1 .. 1 rad/s. There, the speed is seen; here, a controller has to remember.
Returns are at best about -150: the way up costs that much. Above -200 it counts as solved here.

No gradient comes through the pendulum. An evolution strategy (Salimans et al. 2017, arXiv:1703.03864) tries P weights
around the present ones, half of them the mirror images of the others, all from the same starts; how they rank says where
Adam goes next. A `Population` is those P controllers, and its stream steps them in one call. It takes half a minute.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import plots

from . import count_option, lesson

STEPS, STEP = 200, 0.05  # of an episode; seconds
GRAVITY, LENGTH, MASS, FASTEST, STRONGEST = 10.0, 1.0, 1.0, 8.0, 2.0
SOLVED = -200.0
NOISE, RATE = 0.1, 0.03  # of the weights that are tried, standard deviation; of Adam at the start


def start(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Angles and speeds of so many pendulums."""
    return rng.uniform(-np.pi, np.pi, count).astype("f4"), rng.uniform(-1, 1, count).astype("f4")


def turn(angle: np.ndarray, speed: np.ndarray, torque: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step: angle, speed, and the reward."""
    off = (angle + np.pi) % (2 * np.pi) - np.pi
    reward = -(off**2 + 0.1 * speed**2 + 0.001 * torque**2)
    push = 3 * GRAVITY / (2 * LENGTH) * np.sin(angle) + 3 / (MASS * LENGTH**2) * torque
    speed = np.clip(speed + STEP * push, -FASTEST, FASTEST)
    return angle + STEP * speed, speed, reward


def play(stream: Any, angle: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An episode of pendulums (P, N), or of one controller's (N,): the returns, likewise, and angles (200, ...)."""
    total, angles = np.zeros_like(angle), []
    for _ in range(STEPS):
        angles.append(angle)
        y = stream.step(np.stack([np.cos(angle), np.sin(angle)], axis=-1))
        angle, speed, reward = turn(angle, speed, np.float32(STRONGEST) * y[..., 0])
        total += reward
    return total, np.array(angles)


def ranks(returns: np.ndarray) -> np.ndarray:
    """Of P numbers, from -0.5 for the least to 0.5: whatever their size, none outweighs the others."""
    order: np.ndarray = returns.argsort().argsort()
    return (order / (len(returns) - 1) - 0.5).astype("f4")


def evolve(
    model: pyrnn.Sequential, models: int, generations: int, starts: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Improve the controller; the mean returns of the P that were tried, of every generation."""
    many = pyrnn.Population(model, size=models)
    (center, gradient), (tried, _) = next(iter(model.buffers.values())), next(iter(many.buffers.values()))
    adam = pyrnn.Adam(model, lr=RATE)
    schedule = pyrnn.schedules.Cosine(adam, total=generations)
    history = []
    bar = tqdm(range(generations), unit="generation")
    for _ in bar:
        half = rng.standard_normal((models // 2, len(center)), np.float32)
        noise = np.concatenate([half, -half])
        tried[:] = center + np.float32(NOISE) * noise
        angle, speed = (np.broadcast_to(first, (models, starts)) for first in start(starts, rng))
        returns, _ = play(many.stream(starts), angle, speed)
        history.append(returns.mean(axis=1))
        gradient[:] = -ranks(history[-1]) @ noise / np.float32(NOISE * models)
        adam.step()
        schedule.step()
        bar.set_description(f"return {history[-1].mean():.0f}")
    return history


@lesson(__doc__)
@count_option("--hidden", 16, "Hidden units.")
@count_option("--models", 256, "Controllers in a generation; an even number.", least=2)
@count_option("--generations", 300)
@count_option("--starts", 8, "From so many starts every controller is tried.")
def main(hidden: int, models: int, generations: int, starts: int, plot: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = pyrnn.Sequential(pyrnn.GRU(2, hidden), pyrnn.Linear(hidden, 1), pyrnn.Tanh(), rng=rng)
    fresh = start(100, np.random.default_rng([seed, 1]))
    before, _ = play(model.stream(100), *fresh)
    begun = time.perf_counter()
    history = evolve(model, models // 2 * 2, generations, starts, rng)
    seconds = time.perf_counter() - begun
    returns, angles = play(model.stream(100), *fresh)
    upright = np.abs((angles[-40:] + np.pi) % (2 * np.pi) - np.pi).max(axis=0) < 0.2
    print(f"{model.num_parameters} parameters, {generations * models * starts} episodes in {seconds:.0f} s")
    print(f"Mean return of 100 fresh starts: {before.mean():.1f} before, {returns.mean():.1f} after")
    print(f"The least {returns.min():.1f}; {upright.sum()} stay upright in the last two seconds.")
    if plot:
        means = np.array(history)
        curves = {"best": means.max(axis=1), "mean": means.mean(axis=1)}
        plots.swings(plot, curves, SOLVED, np.cos(angles[:, :40]), STEP, "A pendulum swung up without seeing its speed")


if __name__ == "__main__":
    main()
