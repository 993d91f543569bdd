"""Linear-chain conditional random fields: loss and gradients, marginals, and the best sequence of tags."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def forward(
    scores: Array, tags: Array, transitions: Array, start: Array, end: Array, lengths: Array | None = None
) -> tuple[Array, Array, Array, Array, Array]:
    """scores (T, N, V), tags (T, N), transitions (V, V) from, to, start and end (V,) -> losses (N,), and the gradients
    of their mean: dscores (T, N, V), dtransitions, dstart, dend.

        loss_n = log sum over all sequences of e^score(sequence) - score(tags)
        score  = start[y_0] + sum_t scores[t, y_t] + sum_t transitions[y_t-1, y_t] + end[y_last]

    Lafferty, McCallum and Pereira 2001. Computed in float64 whatever the dtype of the scores, which the gradients
    share. Steps from lengths (N,) on are never read; a row of length 0 has loss 0.
    """
    _, rows, classes = scores.shape
    losses = np.zeros(rows)
    grads = tuple(np.zeros(a.shape) for a in (scores, transitions, start, end))
    dscores, dtransitions, dstart, dend = grads
    for n, row in _rows(scores, lengths):
        chosen = tags[: len(row), n]
        bad = chosen[(chosen < 0) | (chosen >= classes)]
        if bad.size:
            raise ValueError(f"row {n} of tags holds {bad[0]}, expected 0 to {classes - 1}")
        total, each, pairs = _sums(row, *_wide(transitions, start, end))
        losses[n] = total - _score(row, chosen, *_wide(transitions, start, end))
        each[np.arange(len(row)), chosen] -= 1
        np.subtract.at(pairs, (chosen[:-1], chosen[1:]), 1)
        dscores[: len(row), n] = each
        dtransitions += pairs
        dstart += each[0]
        dend += each[-1]
    of_scores, *of_weights = grads
    count = max(rows, 1)
    small = of_scores.astype(scores.dtype) / np.asarray(count, scores.dtype)
    first, second, third = ((g / count).astype(scores.dtype) for g in of_weights)
    return losses, small, first, second, third


def marginals(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array | None = None
) -> tuple[Array, Array]:
    """P(y_t = v) of each step, like the scores, 0 in the padding; and log sum of e^score of each row, (N,)."""
    each, totals = np.zeros_like(scores), np.zeros(scores.shape[1])
    for n, row in _rows(scores, lengths):
        totals[n], each[: len(row), n], _ = _sums(row, *_wide(transitions, start, end))
    return each, totals


def decode(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array | None = None
) -> tuple[Array, Array]:
    """The tags (T, N) of the largest score, 0 in the padding, and these scores (N,). Viterbi 1967; of equal ones the
    first from the end on."""
    tags, best = np.zeros(scores.shape[:2], np.int64), np.zeros(scores.shape[1])
    transitions, start, end = _wide(transitions, start, end)
    for n, row in _rows(scores, lengths):
        largest = start + row[0]
        origins = []
        for step in row[1:]:
            ways = largest[:, None] + transitions
            origins.append(ways.argmax(axis=0))
            largest = ways.max(axis=0) + step
        tag = (largest + end).argmax()
        best[n] = (largest + end)[tag]
        tags[len(row) - 1, n] = tag
        for t in range(len(row) - 2, -1, -1):
            tags[t, n] = tag = origins[t][tag]
    return tags, best


def _rows(scores: Array, lengths: Array | None) -> list[tuple[int, Array]]:
    """Number and scores, in float64, of the rows that have steps."""
    steps, rows, _ = scores.shape
    ends = [steps if lengths is None else int(lengths[n]) for n in range(rows)]
    return [(n, scores[:end, n].astype(np.float64)) for n, end in enumerate(ends) if end]


def _wide(*weights: Array) -> list[Array]:
    return [w.astype(np.float64) for w in weights]


def _score(row: Array, tags: Array, transitions: Array, start: Array, end: Array) -> float:
    among = row[np.arange(len(row)), tags].sum() + transitions[tags[:-1], tags[1:]].sum()
    return float(start[tags[0]] + among + end[tags[-1]])


def _sums(row: Array, transitions: Array, start: Array, end: Array) -> tuple[float, Array, Array]:
    """log sum of e^score; P(y_t = v), (T, V); sum_t P(y_t-1 = u, y_t = v), (V, V)."""
    there, on = np.empty_like(row), np.empty_like(row)  # log sums of all ways to a tag, with its score; on, without
    there[0] = start + row[0]
    for t in range(1, len(row)):
        there[t] = row[t] + np.logaddexp.reduce(there[t - 1][:, None] + transitions, axis=0)
    on[-1] = end
    for t in range(len(row) - 2, -1, -1):
        on[t] = np.logaddexp.reduce(transitions + row[t + 1] + on[t + 1], axis=1)
    total = np.logaddexp.reduce(there[-1] + end)
    pairs = np.zeros_like(transitions)
    for t in range(1, len(row)):
        pairs += np.exp(there[t - 1][:, None] + transitions + row[t] + on[t] - total)
    return float(total), np.exp(there + on - total), pairs
