"""What the pictures of `pyrnn hopfield` show: images as patterns, the way of a recall, recall rate against load."""

from __future__ import annotations

import importlib
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..associative.hopfield import RULES, Hopfield
from ..associative.net import CapacityWarning
from ..core.checks import Array, file_name, generator, instance, integer, shaped_array

STOPS = 4  # states that are shown of one sweep
RIGHT = 0.95  # of the units: then a pattern counts as recalled
LOADS = (0.02, 0.05, 0.08, 0.11, 0.138, 0.17, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Way:
    """One recall: states (steps, n) from the probe to the end, their times in sweeps and their energies."""

    stored: Array
    states: Array
    times: Array
    energies: Array

    @property
    def wrong(self) -> int:
        """Units of the last state that are not the stored pattern's."""
        return int(np.count_nonzero(self.states[-1] != self.stored))


def digits() -> tuple[Array, tuple[int, int]]:
    """The first ten images of scikit-learn's digits, one of each, as patterns (10, 64), and their shape."""
    try:
        load_digits = importlib.import_module("sklearn.datasets").load_digits
    except ImportError:
        raise ValueError("the digits come with scikit-learn: pip install scikit-learn, or name images") from None
    images = load_digits().images[:10]
    return np.where(images.reshape(10, -1) >= 8, 1.0, -1.0), (8, 8)


def images(paths: Sequence[str | os.PathLike[str]], size: int) -> tuple[Array, tuple[int, int]]:
    """Image files as patterns (P, size * size), and their shape: in grey, 1 where brighter than their median."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ValueError("images are read by Pillow: pip install pillow") from None
    patterns = []
    for path in paths:
        try:
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L").resize((size, size)), dtype=float)
        except UnidentifiedImageError:
            raise ValueError(f"{file_name(path)} is not an image that Pillow can read") from None
        patterns.append(np.where(grey.ravel() > np.median(grey), 1.0, -1.0))
    return np.array(patterns), (size, size)


def corrupted(pattern: Array, noise: float, rng: np.random.Generator) -> Array:
    """The pattern with so large a share of its units flipped."""
    flipped = rng.permutation(len(pattern))[: round(noise * len(pattern))]
    probe = pattern.copy()
    probe[flipped] *= -1
    return probe


def way(net: Hopfield, stored: Array, probe: Array, rng: np.random.Generator, max_sweeps: int = 20) -> Way:
    """Recall a probe, and stop a few times in every sweep: for `pyrnn.plots.recalls`. Units whose turn has not come are
    held by a large input.

    stored, probe: (N,), of the net's N units. TypeError and ValueError for what is not.

        from pyrnn.app import gallery

        way = gallery.way(net, patterns[0], probe, rng)
        way.states, way.times, way.energies  # (T, N), (T,), (T,)
    """
    instance("way", "net", net, Hopfield, "a pyrnn.Hopfield")
    stored = shaped_array("way", "stored", stored, np.dtype(float), (net.n_units,))
    probe = shaped_array("way", "probe", probe, np.dtype(float), (net.n_units,))
    rng, max_sweeps = generator("way", rng), integer("way", "max_sweeps", max_sweeps, 0)
    order = rng.permutation(net.n_units)
    hold = 4.0 * (np.abs(net.weights).sum(axis=1).max() + np.abs(net.threshold).max() + 1)
    states, times = [probe], [0.0]
    for sweep in range(max_sweeps):
        start = states[-1]
        for stop in range(1, STOPS + 1):
            waiting = order[net.n_units * stop // STOPS :]
            external = np.zeros(net.n_units)
            external[waiting] = hold * start[waiting]
            states.append(net.recall(start, order=order, external_input=external, max_sweeps=1).state)
            times.append(sweep + stop / STOPS)
        if np.array_equal(start, states[-1]):
            break
    return Way(stored, np.array(states), np.array(times), net.energy(np.array(states)))


def recall_rates(n: int, trials: int, seed: int) -> dict[str, tuple[Array, Array]]:
    """For each rule loads P / n and the share of random patterns that a recall from the pattern itself keeps.

    A pattern counts where at least 95% of the units are right at the end. That there are too many is what it shows.
    """
    rng = np.random.default_rng(seed)
    counts = sorted({max(1, round(load * n)) for load in LOADS})
    rates: dict[str, list[float]] = {rule: [] for rule in RULES}
    for count in counts:
        for rule, found in rates.items():
            kept = []
            for _ in range(trials):
                patterns = np.where(rng.random((count, n)) < 0.5, 1.0, -1.0)
                net = Hopfield(n)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CapacityWarning)
                    net.store(patterns, rule)
                kept.append((np.mean(net.recall(patterns).state == patterns, axis=1) >= RIGHT).mean())
            found.append(float(np.mean(kept)))
    return {rule: (np.array(counts) / n, np.array(found)) for rule, found in rates.items()}


def estimates(n: int) -> dict[str, float]:
    """Loads up to which Hebbian weights work: the rule of thumb, the exact limit, and (almost) without errors."""
    return {"0.15 n": 0.15, "0.138 n": 0.138, "n / (2 log2 n)": 1 / (2 * math.log2(n))}
