"""Swing it up: 256 recurrent controllers evolve, stepped all at once, until one keeps a pendulum upright.

    python -m pyrnn.examples.swing_up --plot swing_up.png

    in       x (P, 2N, 3)   cosine and sine of the angle, and the speed, of N pendulums and of their mirror images
    hidden   16, 16 units   of a tanh layer and of a GRU
    out      y (P, 2N, 1)   the torque is 2 tanh 4 (y - y of the mirror image): what knows no left and no right learns
                            both at once, and cannot lean to one side for ever

The pendulum is that of OpenAI Gym's Pendulum-v1 (Brockman et al. 2016, arXiv:1606.01540; today in Gymnasium, file
classic_control/pendulum.py), a rod of m = 1 kg and l = 1 m on a pivot, with g = 10 m/s^2. Its angle is 0 when upright;
torques u of at most 2 N m are too weak to lift it at once:

    speed += (3 g / (2 l) sin angle + 3 u / (m l^2)) dt       within -8 .. 8 rad/s; dt = 0.05 s
    angle += speed dt
    return -= angle^2 + 0.1 speed^2 + 0.001 u^2               before the step, with the angle within -pi .. pi

for 200 steps, from any angle and a speed of -1 .. 1 rad/s. A mean return above -200 counts as solved here.

No gradient comes through the pendulum. An evolution strategy (Salimans et al. 2017, arXiv:1703.03864) tries P weights
around the present ones, half of them mirrored noise of the others, all from the same starts. How they rank at each of
these says where Adam goes next. A `Population` is those P controllers, its stream steps all in one call. It takes a
minute.
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
NOISE, RATE = 0.1, 0.03  # standard deviation of the weights that are tried; of Adam at the start
MIRROR = np.array([1, -1, -1], "f4")


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


def play(model: Any, angle: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An episode of a population's pendulums (P, N), or of one controller's (N,): the returns, likewise, and angles
    (200, ...)."""
    stream = model.stream(2 * angle.shape[-1])
    total, angles = np.zeros_like(angle), []
    for _ in range(STEPS):
        angles.append(angle)
        x = np.stack([np.cos(angle), np.sin(angle), speed], axis=-1)
        y = stream.step(np.concatenate([x, MIRROR * x], axis=-2))[..., 0]
        here, there = np.split(y, 2, axis=-1)
        angle, speed, reward = turn(angle, speed, np.float32(STRONGEST) * np.tanh(4 * (here - there)))
        total += reward
    return total, np.array(angles)


def ranks(returns: np.ndarray) -> np.ndarray:
    """Returns (P, N) -> (P,): how each of P ranks at a start, from -0.5 for the worst to 0.5, the mean over N starts.
    However much there is to gain or to lose at a start, none outweighs the others."""
    places = returns.argsort(axis=0).argsort(axis=0) / (len(returns) - 1) - 0.5
    mean: np.ndarray = places.mean(axis=1).astype("f4")
    return mean


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
        returns, _ = play(many, angle, speed)
        history.append(returns.mean(axis=1))
        gradient[:] = -ranks(returns) @ noise / np.float32(NOISE * models)
        adam.step()
        schedule.step()
        bar.set_description(f"return {history[-1].mean():.0f}")
    return history


@lesson(__doc__)
@count_option("--hidden", 16, "Units of both layers.")
@count_option("--models", 256, "Controllers in a generation; an even number.", least=2)
@count_option("--generations", 250)
@count_option("--starts", 8, "From so many starts every controller is tried.")
def main(hidden: int, models: int, generations: int, starts: int, plot: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = pyrnn.Linear(3, hidden), pyrnn.Tanh(), pyrnn.GRU(hidden, hidden), pyrnn.Linear(hidden, 1)
    model = pyrnn.Sequential(*layers, rng=rng)
    fresh = start(100, np.random.default_rng([seed, 1]))
    before, _ = play(model, *fresh)
    begun = time.perf_counter()
    history = evolve(model, models // 2 * 2, generations, starts, rng)
    seconds = time.perf_counter() - begun
    returns, angles = play(model, *fresh)
    upright = np.abs((angles[-40:] + np.pi) % (2 * np.pi) - np.pi).max(axis=0) < 0.2
    print(f"{model.num_parameters} parameters, {generations * models * starts} episodes in {seconds:.0f} s")
    print(f"Mean return of 100 fresh starts: {before.mean():.1f} before, {returns.mean():.1f} after")
    print(f"The least {returns.min():.1f}; {upright.sum()} stay upright in the last two seconds.")
    if plot:
        means = np.array(history)
        curves = {"best": means.max(axis=1), "mean": means.mean(axis=1)}
        plots.swings(plot, curves, SOLVED, np.cos(angles[:, :40]), STEP, "A pendulum that learned to swing itself up")


if __name__ == "__main__":
    main()
