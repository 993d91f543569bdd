"""Which way does it move? Short noisy videos in, one motion out: it is not in the frames but in their order.

    python -m pyrnn.examples.moving_shapes --plot motions.png

    in       x (12, N, 16, 16)     twelve frames of a disc, a square, a diamond or a ring, and noise
    conv     of each frame alone   (16, F, 16, 1) -> (8, F, 8, 16) -> (4, F, 4, 32) -> (2, F, 2, 32), of F = 12 N frames
    rnn      64 units of a GRU     y (12, N, 64): where it was, and where that leads
    out      eight motions         logits (12, N, 8): an opinion after every frame; the last one is the answer

The motions are four pairs: right and left, down and up, a turn to the right and one to the left, growing and
shrinking. Each is the other one run backwards, so that frames without their order say which pair it is, and never which
of the two: whoever sees them shuffled is right half of the time at best, whether it has learned from videos as they are
or from shuffled ones. A first frame hints at what comes, as what is at the left has more room to the right.

A convolution in the plane is a `Conv1d` over the rows of an image, whose channels are those of three neighbouring
columns; the columns lie side by side as rows of a batch, so that all have the same weights.

98.0% of 2000 new videos are right, after the first frame 36% and after four 78%; with their frames shuffled 31.1%, and
50.0% by the network that has learned from shuffled ones. Half a minute for both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import pyrnn
from pyrnn import plots

from . import count_option, lesson

FRAMES, SIDE, NOISE = 12, 16, 0.3
Shape = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # places from the middle -> pixels from the edge
SHAPES: tuple[Shape, ...] = (
    lambda across, down, size: size - np.hypot(across, down),
    lambda across, down, size: size - np.maximum(abs(across), abs(down)),
    lambda across, down, size: size - (abs(across) + abs(down)) / 1.3,
    lambda across, down, size: 0.7 - abs(np.hypot(across, down) - size),
)
MOTIONS = ("right", "left", "down", "up", "turns right", "turns left", "grows", "shrinks")


def film(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """So many videos (N, FRAMES, SIDE, SIDE) and their motions (N,)."""
    motions = rng.integers(len(MOTIONS), size=count)
    middle, angle = rng.uniform(3, 12, (2, count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    speed, radius, size = rng.uniform([[0.3, 2, 1.5]], [[0.7, 4, 3.5]], (count, 3)).T[..., None]  # a frame; pixels
    way = speed * (np.arange(FRAMES) - (FRAMES - 1) / 2) * np.where(motions % 2, -1, 1)[:, None]  # (N, FRAMES), pixels
    pair = motions[:, None] // 2
    x = middle[0] + np.choose(pair, [way, 0, radius * np.cos(angle + way), 0])
    y = middle[1] + np.choose(pair, [0, way, radius * np.sin(angle + way), 0])
    x, y, size = (some.astype("f4")[..., None, None] for some in (x, y, size + np.where(pair == 3, 0.3 * way, 0)))
    pixels, kind = np.arange(SIDE, dtype="f4"), rng.integers(len(SHAPES), size=count)
    videos = NOISE * rng.standard_normal((count, FRAMES, SIDE, SIDE), "f4")
    for k, inside in enumerate(SHAPES):
        rows = kind == k
        videos[rows] += np.clip(0.5 + inside(pixels - x[rows], pixels[:, None] - y[rows], size[rows]), 0, 1)
    return videos, motions


def shuffled(videos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same frames, each video's in an order of its own."""
    order = rng.random(videos.shape[:2]).argsort(axis=1)
    return np.take_along_axis(videos, order[:, :, None, None], axis=1)


class Plane(pyrnn.Model):
    """Images (H, F, W, C) -> (H / 2, F, W / 2, O): a convolution of 3 x 3 pixels around every second one."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(rows=pyrnn.Conv1d(3 * channels, out, 3, stride=2, padding=1))

    def vjp(self, x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        height, frames, width, channels = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
        columns = [slice(k, k + width, 2) for k in range(3)]
        beside = np.concatenate([padded[:, :, some] for some in columns], axis=-1)  # (H, F, W / 2, 3 C)
        y, pull_rows = self.rows.vjp(beside.reshape(height, -1, 3 * channels))

        def pullback(dy: np.ndarray) -> np.ndarray:
            dpadded = np.zeros_like(padded)
            dbeside = pull_rows(dy.reshape(y.shape)).reshape(beside.shape)
            for some, part in zip(columns, np.split(dbeside, 3, axis=-1), strict=True):
                dpadded[:, :, some] += part
            return dpadded[:, :, 1:-1]

        return y.reshape(height // 2, frames, width // 2, -1), pullback


class Eye(pyrnn.Model):
    """Videos (T, N, SIDE, SIDE) -> what there is in each frame, (T, N, 4 C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        planes = Plane(1, channels // 2), Plane(channels // 2, channels), Plane(channels, channels)
        self.planes = pyrnn.Sequential(*(layer for plane in planes for layer in (plane, pyrnn.ReLU())))

    def vjp(self, x: np.ndarray, lengths: object) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        """All videos are of one length."""
        images = x.reshape(-1, *x.shape[2:]).swapaxes(0, 1)[..., None]
        y, pull = self.planes.vjp(images)  # (2, T N, 2, C)

        def pullback(dseen: np.ndarray) -> None:
            pull(dseen.reshape(y.shape[1], 2, 2, -1).swapaxes(0, 1))

        return y.swapaxes(0, 1).reshape(*x.shape[:2], -1), pullback


def every_opinion(logits: np.ndarray, motions: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss of logits (T, N, 8): after each frame the motion of the whole video (N,) shall be said."""
    return pyrnn.cross_entropy(logits, np.broadcast_to(motions, logits.shape[:2]))


def train(videos: np.ndarray, motions: np.ndarray, hidden: int, epochs: int, seed: int) -> pyrnn.Sequential:
    """A network that has learned from these videos."""
    network = pyrnn.Sequential(Eye(32), pyrnn.GRU(4 * 32, hidden), pyrnn.Linear(hidden, len(MOTIONS)), rng=seed)
    pyrnn.fit(
        network, list(videos), motions, every_opinion, epochs=epochs, optimizer=pyrnn.Adam(network, lr=3e-3), rng=seed
    )
    return network


def opinions(network: pyrnn.Sequential, videos: np.ndarray) -> np.ndarray:
    """How likely each motion is after each frame, (N, T, 8)."""
    x, lengths = pyrnn.data.pad(list(videos))
    chances: np.ndarray = pyrnn.Softmax()(network(x, lengths=lengths)).swapaxes(0, 1)
    return chances


def panel(network: pyrnn.Sequential, video: np.ndarray, motion: int) -> plots.Film:
    """A video, and what the network thinks of it."""
    chances = opinions(network, video[None])[0]
    said = int(chances[-1].argmax())
    return plots.Film(video, chances, f"{MOTIONS[motion]}, said: {MOTIONS[said]}", said == motion)


@lesson(__doc__)
@count_option("--hidden", 64, "Units of the GRU.")
@count_option("--videos", 4000, "Videos to learn from; half as many judge.", least=100)
@count_option("--epochs", 8)
def main(hidden: int, videos: int, epochs: int, plot: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (x, motions), (new, true) = film(videos, rng), film(videos // 2, rng)
    mixed = shuffled(new, rng)
    network = train(x, motions, hidden, epochs, seed)
    other = train(shuffled(x, rng), motions, hidden, epochs, seed)
    for name, judge, some in [
        ("as they are", network, new),
        ("their frames shuffled", network, mixed),
        ("their frames shuffled, as those it learned from", other, mixed),
    ]:
        said = opinions(judge, some)[:, -1].argmax(axis=1)
        print(f"{np.mean(said == true):6.1%} right, of the pairs {np.mean(said // 2 == true // 2):.1%}: {name}")
    by_frame = np.mean(opinions(network, new).argmax(axis=2) == true[:, None], axis=0)
    print("after 1, 2, ... frames:", " ".join(f"{right:.0%}" for right in by_frame))
    if plot:
        first = [int(np.flatnonzero(true == motion)[0]) for motion in range(0, len(MOTIONS), 2)]
        films = [panel(network, some[n], int(true[n])) for n in first for some in (new, mixed)]
        plots.films(
            plot,
            films,
            MOTIONS,
            "Left as they were, right the same frames shuffled: what the network thinks after each",
        )


if __name__ == "__main__":
    main()
