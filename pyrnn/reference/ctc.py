"""Connectionist temporal classification: loss and gradient by the two recursions over a target with blanks."""

from __future__ import annotations

import numpy as np


def forward(
    logits: np.ndarray, targets: np.ndarray, target_lengths: np.ndarray, lengths: np.ndarray | None = None,
    blank: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """logits (T, N, V), targets (N, S) ids, of which target_lengths (N,) count -> losses (N,), dlogits (T, N, V).

        loss_n  = -log p(target) = -log sum over the alignments of prod_t softmax(l_t)[s_t]
        dlogits = (softmax(l_t) - P(s_t = v | target)) / N

    An alignment has an id or the blank at each step; where repeated ones become one and blanks are left out it is the
    target. Graves et al. 2006, in logarithms. Computed in float64 whatever the dtype of logits, which dlogits shares. A
    row without any alignment has loss infinity and gradient 0. Steps from lengths (N,) on are never read.
    """
    steps, rows, classes = logits.shape
    losses, dlogits = np.zeros(rows), np.zeros_like(logits)
    for n in range(rows):
        ids = targets[n, : target_lengths[n]]
        bad = ids[(ids < 0) | (ids >= classes) | (ids == blank)]
        if bad.size:
            reason = "which is the blank" if bad[0] == blank else f"expected 0 to {classes - 1}"
            raise ValueError(f"row {n} of targets holds {bad[0]}, {reason}")
        end = steps if lengths is None else lengths[n]
        losses[n], dlogits[:end, n] = _row(logits[:end, n].astype(np.float64), ids, blank)
    return losses, dlogits / np.asarray(max(rows, 1), logits.dtype)


def _row(logits: np.ndarray, ids: np.ndarray, blank: int) -> tuple[float, np.ndarray]:
    """The loss of one row, and the gradient (T, V) of it."""
    steps, states = len(logits), 2 * len(ids) + 1
    if len(ids) + np.count_nonzero(ids[1:] == ids[:-1]) > steps:
        return np.inf, np.zeros_like(logits)
    if steps == 0:
        return 0.0, np.zeros_like(logits)
    logs = logits - logits.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    path = np.full(states, blank)
    path[1::2] = ids

    def before(s: int) -> list[int]:
        """From where state s is reached in one step."""
        skips = s % 2 == 1 and s > 1 and path[s] != path[s - 2]
        return [k for k in (s, s - 1, s - 2 if skips else -1) if k >= 0]

    there = np.full((steps, states), -np.inf)  # log p of all ways to state s at step t, with it
    there[0, :2] = logs[0, path[:2]]
    for t in range(1, steps):
        for s in range(states):
            there[t, s] = logs[t, path[s]] + np.logaddexp.reduce(there[t - 1, before(s)])
    on = np.full((steps, states), -np.inf)  # of all ways on from there, without it
    on[-1, -2:] = 0
    for t in range(steps - 2, -1, -1):
        for s in range(states):
            for k in before(s):
                on[t, k] = np.logaddexp(on[t, k], logs[t + 1, path[s]] + on[t + 1, s])
    total = np.logaddexp.reduce(there[-1, -2:])
    gradient = np.exp(logs)
    for t in range(steps):
        for s in range(states):
            gradient[t, path[s]] -= np.exp(there[t, s] + on[t, s] - total)
    return float(-total), gradient
