"""Sequences of unequal length into arrays, and rows into minibatches, families and held-out parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import MOST, Array, Rng, boolean, generator, integer, numbers_array, real, shape_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def pad(sequences: Sequence[ArrayLike], *, batch_first: bool = False) -> tuple[Array, Array]:
    """Sequences side by side in one array, with zeros after their ends: array, lengths.

    sequences  N array-likes (T_n, ...) of real numbers, all with the same axes after the first
    array      (T, N, ...), (N, T, ...) with batch_first; T is the longest T_n, the dtype the widest of the sequences
    lengths    (N,) int64: what every layer and loss takes as `lengths`, so that the zeros are never read

    TypeError for what is not real numbers, ValueError for no sequences and for axes that differ.

        ids, lengths = pyrnn.data.pad([[3, 1, 4], [1, 5]])  # ids (3, 2)
        y, state = layer(embedding(ids), lengths=lengths)
    """
    boolean("pad", "batch_first", batch_first)
    arrays = [numbers_array("pad", f"sequences[{n}]", sequence) for n, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("pad: sequences is empty")
    for n, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            raise shape_error("pad", f"sequences[{n}]", array.shape, f"(T, ...) like {arrays[0].shape} of the first")
    filled = [array for array in arrays if array.size] or arrays  # an empty list says nothing of the dtype
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    padded = np.zeros((len(arrays), lengths.max(), *arrays[0].shape[1:]), np.result_type(*filled))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return (padded if batch_first else np.ascontiguousarray(padded.swapaxes(0, 1))), lengths


def minibatches(n: int, size: int, rng: Rng = None) -> Iterator[Array]:
    """One epoch over n rows: index arrays of `size` rows, each row once, in random order; the last may be smaller.

    rng: None, an int seed or a numpy.random.Generator (a Generator goes on, so every epoch has another order).
    TypeError and ValueError for what is not integers, a negative n and a size below 1.

        for rows in pyrnn.data.minibatches(len(x), 32, rng):
            x[rows], targets[rows]
    """
    n, size = integer("minibatches", "n", n, 0, MOST), integer("minibatches", "size", size, 1)
    order = generator("minibatches", rng).permutation(n)
    return (order[start : start + size] for start in range(0, n, size))


def held_out(n: int, part: float = 0.1, rng: Rng = None) -> tuple[Array, Array]:
    """Split n rows at random into indices to train on and `part` of them to judge by: train, valid, both sorted.

    valid has round(part * n) rows. rng as in `minibatches`. TypeError and ValueError for a wrong n or a part outside
    0..1.

        train, valid = pyrnn.data.held_out(len(x), 0.1, rng=0)
    """
    n, part = integer("held_out", "n", n, 0, MOST), real("held_out", "part", part, 0, 1)
    order = generator("held_out", rng).permutation(n)
    count = round(part * n)
    return np.sort(order[count:]), np.sort(order[:count])


def families(sequences: Sequence[str], word: int, common: int) -> list[list[int]]:
    """Group strings that are near copies of each other: two with `common` words in common are in one group.

    A word is any `word` characters in a row; each counts once in a string. Two that are not alike are in one group too
    where others join them. The result is the indices of each group, all together 0..N-1. Held out by whole groups,
    nothing is judged by what was nearly seen in training. TypeError and ValueError for a word or a count that is not an
    integer or below 1.

        pyrnn.data.families(["to be or not", "Hamlet", "or not to be"], word=5, common=3)  # [[0, 2], [1]]
    """
    word, common = integer("families", "word", word, 1), integer("families", "common", common, 1)
    words = [{sequence[k : k + word] for k in range(len(sequence) - word + 1)} for sequence in sequences]
    group = list(range(len(words)))
    for a in range(len(words)):
        for b in range(a):
            if group[a] != group[b] and len(words[a] & words[b]) >= common:
                group = [group[b] if g == group[a] else g for g in group]
    return [[n for n, g in enumerate(group) if g == k] for k in sorted(set(group))]
