"""Softmax cross-entropy, loss and gradient in one call."""

from __future__ import annotations

import numpy as np


def forward(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """logits (M, V), targets (M,) integers in 0..V-1, weights (M,) or None (all 1) -> loss, dlogits (M, V).

        loss    = sum_m w_m (log sum_v exp(l_mv) - l_m,target_m) / sum_m w_m
        dlogits = w_m (softmax(l_m) - onehot(target_m)) / sum_m w_m

    Computed in float64 whatever the dtype of logits, which dlogits shares. A row (and its target) of weight 0 is never
    read and has gradient 0; where all weights are 0 the loss is 0.
    """
    weights = np.ones(len(logits)) if weights is None else weights.astype(np.float64)
    dlogits = np.zeros_like(logits)
    rows = np.flatnonzero(weights)
    if rows.size == 0:
        return 0.0, dlogits

    scores, target, weight = logits[rows].astype(np.float64), targets[rows], weights[rows]
    bad = target[(target < 0) | (target >= logits.shape[1])]
    if bad.size:
        raise ValueError(f"targets holds {bad[0]}, expected 0 to {logits.shape[1] - 1}")
    at_target = (np.arange(len(rows)), target)

    scores -= scores.max(axis=1, keepdims=True)  # changes nothing below, and exp cannot overflow
    exp = np.exp(scores)
    total = exp.sum(axis=1, keepdims=True)
    loss = weight @ (np.log(total[:, 0]) - scores[at_target]) / weight.sum()

    dscores = exp / total
    dscores[at_target] -= 1
    dlogits[rows] = dscores * (weight / weight.sum())[:, None]
    return float(loss), dlogits
