"""Additive attention and its gradients, the sums of all pairs of queries and keys at a time."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def forward(query: Array, key: Array, value: Array, score: Array, lengths: Array | None = None) -> tuple[Array, Array]:
    """query (N, S, H), key (N, K, H), value (N, K, Ev), score (H,) -> out (N, S, Ev), weights (N, S, K).

        s_ij = score . tanh(query_i + key_j),  weights = softmax(s),  out = weights value

    Keys and values from lengths (N,) on are never read. A row without keys gives 0.
    """
    seen, key, value = _seen(key, value, lengths)
    with np.errstate(invalid="ignore"):
        scores = np.where(seen, _bent(query, key) @ score, -np.inf)
        most = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        exps = np.exp(scores - np.where(np.isneginf(most), 0, most))
        total = exps.sum(axis=-1, keepdims=True)
        weights = (exps / np.where(total == 0, 1, total)).astype(query.dtype)
        return weights @ value, weights


def backward(
    dout: Array, query: Array, key: Array, value: Array, score: Array, weights: Array, dscore: Array,
    lengths: Array | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """dquery, dkey, dvalue, shaped as query, key and value; weights are what forward returned. The gradient of score is
    added to dscore.

        dw = dout value^T,  ds = w (dw - sum_j w dw),  of the sums ds score (1 - tanh^2)
    """
    _, key, value = _seen(key, value, lengths)
    with np.errstate(invalid="ignore"):
        dweights = dout @ value.swapaxes(1, 2)
        ds = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
        bent = _bent(query, key)
        dsums = ds[..., None] * score * (1 - bent**2)
        dscore += np.einsum("nsk,nskh->h", ds, bent)
        return dsums.sum(axis=2), dsums.sum(axis=1), weights.swapaxes(1, 2) @ dout


def _bent(query: Array, key: Array) -> Array:
    """tanh of the sums, (N, S, K, H)."""
    bent: Array = np.tanh(query[:, :, None] + key[:, None])
    return bent


def _seen(key: Array, value: Array, lengths: Array | None) -> tuple[Array, Array, Array]:
    """Which keys are seen, (N, 1, K), and keys and values with zeros for the others."""
    ends = np.full(len(key), key.shape[1]) if lengths is None else lengths
    seen = np.arange(key.shape[1]) < ends[:, None]
    return seen[:, None], np.where(seen[..., None], key, 0), np.where(seen[..., None], value, 0)
