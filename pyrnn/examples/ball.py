"""Where does the ball go? Twenty positions are seen, then a curtain falls: the next twenty are in the network's head.

    python -m pyrnn.examples.ball --plot tracks.png

    in       x (40, N, 3)   the position, seen with noise, and a 1; behind the curtain three zeros
    hidden   128 units      of a GRU: where the ball is and how it moves, after the curtain nothing else tells
    out      y (40, N, 2)   where the ball truly is, at every step

The balls are made anew for every batch: thrown into a box 1 wide and 1 high, they fall, bounce off floor, walls and
ceiling and lose a tenth of their speed at each bounce. Nobody tells the network of gravity or walls. Many-to-many in
step; the loss counts all steps, so that the network also learns to see through the noise. The straight line beside it
goes on from the last five positions seen, by least squares; a second one is reflected by the sides of the box. It takes
a quarter of a minute.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import plots

from . import count_option, lesson

SEEN, AHEAD = 20, 20
STEP, GRAVITY, KEPT, NOISE = 0.04, 2.0, 0.9, 0.005  # seconds, box heights / s^2, of the speed, box heights


def throw(count: int, rng: np.random.Generator) -> np.ndarray:
    """True positions (40, N, 2) of so many balls."""
    place = rng.uniform(0.1, 0.9, (count, 2))
    speed = rng.uniform(-1, 1, (count, 2)) * (1.0, 1.2)
    track = np.empty((SEEN + AHEAD, count, 2))
    for t in range(len(track)):
        track[t] = place
        speed[:, 1] -= STEP * GRAVITY
        place = place + STEP * speed
        outside = (place < 0) | (place > 1)
        place = np.where(place < 0, -place, np.where(place > 1, 2 - place, place))
        speed = np.where(outside, -KEPT * speed, speed)
    return track


def look(track: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is seen of tracks (40, N, 2): inputs (40, N, 3)."""
    x = np.zeros((*track.shape[:2], 3), "f4")
    x[:SEEN, :, :2] = track[:SEEN] + rng.normal(0, NOISE, track[:SEEN].shape)
    x[:SEEN, :, 2] = 1
    return x


def straight(x: np.ndarray) -> np.ndarray:
    """Positions (20, N, 2) behind the curtain on the line through the last five that were seen."""
    times = np.arange(5) - 2.0  # in steps, from the middle of the five
    last = x[SEEN - 5 : SEEN, :, :2].astype("f8")
    slope = np.tensordot(times, last, axes=1) / np.sum(times**2)
    line: np.ndarray = last.mean(axis=0) + slope * (np.arange(AHEAD) + 3.0)[:, None, None]
    return line


class Eye(pyrnn.Model):
    """x (T, N, 3) -> y (T, N, 2)."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        super().__init__(rnn=pyrnn.GRU(3, hidden), head=pyrnn.Linear(hidden, 2), rng=rng)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = self.head(self.rnn(x)[0])
        return y

    def learn(self, steps: int, batch: int, rng: np.random.Generator) -> None:
        """So many steps of Adam, each on new balls."""
        adam = pyrnn.Adam(self, lr=4e-3)
        schedule = pyrnn.schedules.Cosine(adam, total=steps)
        bar = tqdm(range(steps))
        for step in bar:
            track = throw(batch, rng)
            self.zero_grad()
            (h, _), pull_rnn = self.rnn.vjp(look(track, rng))
            y, pull_head = self.head.vjp(h)
            loss, dy = pyrnn.mean_squared_error(y, track)
            pull_rnn(pull_head(dy))
            pyrnn.clip_grad_norm(self, 0.1)
            adam.step()
            schedule.step()
            if step % 50 == 0:
                bar.set_description(f"{loss**0.5:.4f} box heights off")


@lesson(__doc__)
@count_option("--hidden", 128, "Hidden units.")
@count_option("--steps", 2000, "Steps of Adam.")
@count_option("--batch", 128, "Balls in a step.")
def main(hidden: int, steps: int, batch: int, plot: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = Eye(hidden, rng)
    model.learn(steps, batch, rng)
    track = throw(2000, rng)  # new balls
    x, truth = look(track, rng), track[SEEN:]
    ways = {"straight line": straight(x), "network": model(x)[SEEN:]}
    reflected = 1 - np.abs(1 - ways["straight line"] % 2)
    off = {}  # mean distance (20,) at each step behind the curtain
    for way, places in {**ways, "reflected line": reflected}.items():
        off[way] = by_step = np.linalg.norm(places - truth, axis=-1).mean(axis=1)
        print(f"{way:<15} {by_step.mean():.4f} box heights off over {AHEAD} steps, {by_step[-1]:.4f} at the last")
    print(f"The network's error is {off['network'].mean() / off['straight line'].mean():.3f} of the straight line's.")
    if plot:
        tracks = [plots.Track(x[:SEEN, n, :2], truth[:, n], {k: v[:, n] for k, v in ways.items()}) for n in range(8)]
        plots.tracks(plot, tracks, (0, 1, 0, 1), f"{SEEN} noisy positions seen, {AHEAD} imagined")


if __name__ == "__main__":
    main()
