"""Associative memories beside NumPy written well and the package hopfieldnetwork: storing, and recall from noise.

The peers keep float weights (n, n). NumPy stores by one product X^T X, and visits unit after unit with one dot product
for all probes at once.
"""

from __future__ import annotations

import importlib.util

import numpy as np

import pyrnn

from .harness import Case, Op, Run, Settings, Shape

RECALLS: list[Shape] = [(1000, 50, 1), (1000, 50, 64), (3000, 150, 1), (3000, 150, 64), (100_000, 1000, 1)]
STORES: list[Shape] = [(1000, 100), (3000, 150), (5000, 500)]
NOISE = 0.1  # of the units of a probe are flipped
MOST_WEIGHTS = 10**9  # that a peer is asked to keep
MOST_PRODUCTS = 2 * 10**10  # that hopfieldnetwork is asked to add up, in three seconds or so
PEERS = ("numpy", *(["hopfieldnetwork"] if importlib.util.find_spec("hopfieldnetwork") else []))


def random_patterns(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    return np.where(rng.random((count, n), dtype=np.float32) < 0.5, np.int8(-1), np.int8(1))


def numpy_recall(weights: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """One dot product per unit; states of all probes lie side by side."""
    rng = np.random.default_rng(0)
    state = np.ascontiguousarray(probes.T)
    if state.shape[1] == 1:
        state = state[:, 0]
    while True:
        before = state.copy()
        for i in rng.permutation(len(state)):
            field = weights[i] @ state
            if state.ndim == 1:
                if field != 0:
                    state[i] = 1 if field > 0 else -1
            else:
                state[i] = np.where(field == 0, state[i], np.sign(field))
        if np.array_equal(state, before):
            return state.T.reshape(probes.shape)


def recall(shape: Shape, direction: str, settings: Settings) -> Case:
    n, count, rows = shape
    rng = np.random.default_rng(0)
    patterns = random_patterns(rng, count, n)
    probes = patterns[np.arange(rows) % count].copy()
    probes[rng.random(probes.shape, dtype=np.float32) < NOISE] *= -1
    net = pyrnn.Hopfield(n, dtype=settings.dtype)
    net.store(patterns)
    made: dict[str, Run] = {}
    if n * n <= MOST_WEIGHTS:
        weights, states = net.weights, probes.astype(settings.dtype)
        made["numpy"] = lambda: numpy_recall(weights, states)
        if "hopfieldnetwork" in PEERS:
            made["hopfieldnetwork"] = package_recall(weights / n, probes)
    sweeps = int(np.max(net.recall(probes).sweeps))
    bits = n * -(-count // 32) * 4
    return Case(
        ours=lambda: net.recall(probes).state,
        peers=made,
        flops=2 * n * count * rows * (sweeps + 1),  # the overlaps, and a field of every unit in every sweep
        bytes=bits * (sweeps + 1) + probes.nbytes,
        footprint=bits + probes.nbytes,
    )


def package_recall(weights: np.ndarray, probes: np.ndarray) -> Run:
    from hopfieldnetwork import HopfieldNetwork

    other = HopfieldNetwork(len(weights))
    other.w = weights.astype(np.float64)

    def run() -> object:
        found = probes.copy()
        for row in found:
            other.set_initial_neurons_state(row)  # is changed in place
            other.update_neurons(1, "async", run_max=True)
        return found

    return run


def store(shape: Shape, direction: str, settings: Settings) -> Case:
    n, count = shape
    patterns = random_patterns(np.random.default_rng(0), count, n)
    numbers = patterns.astype(settings.dtype)

    def ours() -> np.ndarray:
        net = pyrnn.Hopfield(n, dtype=settings.dtype)
        net.store(patterns)
        return net.weights

    def by_numpy() -> np.ndarray:
        weights = numbers.T @ numbers
        np.fill_diagonal(weights, 0)
        return weights

    def package() -> object:
        from hopfieldnetwork import HopfieldNetwork

        other = HopfieldNetwork(n)
        other.train_pattern(numbers.T)
        return other.w * n

    made: dict[str, Run] = {"numpy": by_numpy}
    if "hopfieldnetwork" in PEERS and n * n * count <= MOST_PRODUCTS:
        made["hopfieldnetwork"] = package
    size = n * n * settings.itemsize
    return Case(ours, made, flops=0, bytes=size + patterns.nbytes, footprint=size)


OPS = (
    Op("hopfield", "n,P,N", {"forward": RECALLS}, recall, own_peers=PEERS),
    Op("hopfield-store", "n,P", {"forward": STORES}, store, own_peers=PEERS),
)
