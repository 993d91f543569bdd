"""Scaled dot-product attention and its gradients, the whole matrix of scores at a time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


class Options(NamedTuple):
    """What a call says beside its arrays, by name.

    Query i sees keys i + offset - left .. i + offset + right (-1: no bound) below length; offsets and lengths have the
    axes before the heads.
    """

    scale: float
    left: int = -1
    right: int = -1
    softcap: float = 0.0
    offsets: Array | None = None
    lengths: Array | None = None


def forward(query: Array, key: Array, value: Array, mask: Array | None = None, **options: Any) -> tuple[Array, Array]:
    """query (..., Hq, S, E), key (..., Hk, K, E), value (..., Hk, K, Ev) -> out (..., Hq, S, Ev), stats (..., Hq, S,
    2).

        s = scale q k^T,  s <- softcap tanh(s / softcap),  s <- s + mask or -inf where hidden
        out = softmax(s) v,  stats = log2(e) largest s, sum of exp(s - largest);  both 0 where a query sees nothing

    Query head h looks at key head h // (Hq / Hk). mask (..., Hq, S, K), bool (True: seen) or added, where -inf hides.
    options: see Options. A score of -inf is hidden too. What is hidden is never read.
    """
    _, scores, _ = _scores(query, key, mask, Options(**options))
    exps, most = _exponentials(scores)
    total = exps.sum(axis=-1)
    share = exps / np.where(total == 0, 1, total)[..., None]
    out = _visible_product(share, scores > -np.inf, _grouped(value, query))
    return out.astype(query.dtype), np.stack([most / math.log(2), total], axis=-1).astype(query.dtype)


def backward(
    dout: Array, query: Array, key: Array, value: Array, out: Array, stats: Array, mask: Array | None = None,
    **options: Any
) -> tuple[Array, Array, Array]:  # fmt: skip
    """dquery, dkey, dvalue, shaped as query, key and value; out and stats are what forward returned.

    p = exp(s - largest s) / total,  ds = p (dout v^T - dout . out),  through the cap ds <- ds (1 - tanh^2)
    """
    keys, scores, slope = _scores(query, key, mask, Options(**options))
    seen = ~np.isneginf(scores)
    most, total = stats[..., :1] * math.log(2), stats[..., 1:]
    with np.errstate(invalid="ignore"):
        p = np.where(seen, np.exp(scores - most) / np.where(total == 0, 1, total), 0)
        dp = dout @ np.swapaxes(_grouped(value, query), -1, -2)
        delta = (dout * out).sum(axis=-1, keepdims=True)
        ds = np.where(seen, p * (dp - delta) * slope, 0)
    across = np.swapaxes(seen, -1, -2)
    dquery = options["scale"] * _visible_product(ds, seen, keys)
    dkey = options["scale"] * _visible_product(np.swapaxes(ds, -1, -2), across, query)
    dvalue = _visible_product(np.swapaxes(p, -1, -2), across, dout)
    return dquery.astype(query.dtype), _summed(dkey, key), _summed(dvalue, value)


def _scores(query: Array, key: Array, mask: Array | None, options: Options) -> tuple[Array, Array, Array | float]:
    """The keys repeated for every query head, the scores, and the slope of the cap."""
    scale, left, right, softcap, offsets, lengths = options
    keys = _grouped(key, query)
    with np.errstate(invalid="ignore", over="ignore"):
        scores = (query * query.dtype.type(scale)) @ np.swapaxes(keys, -1, -2)
        slope: Array | float = 1.0
        if softcap > 0:
            bent = np.tanh(scores / softcap)
            scores, slope = softcap * bent, 1 - bent**2
    rows, columns = scores.shape[-2:]
    j = np.arange(columns)
    at = np.arange(rows).astype(object)[:, None]  # Python's integers, which do not overflow
    at = at + (0 if offsets is None else offsets[..., None, None, None].astype(object))
    seen = np.ones(scores.shape, bool)
    if left >= 0:
        seen &= j >= np.clip(at - left, 0, columns).astype(np.int64)
    if right >= 0:
        seen &= j <= np.clip(at + right, -1, columns).astype(np.int64)
    if lengths is not None:
        seen &= j < lengths[..., None, None, None]
    if mask is not None and mask.dtype == bool:
        seen &= mask
    elif mask is not None:
        seen &= mask > -np.inf
        with np.errstate(invalid="ignore"):
            scores = scores + mask
    return keys, np.where(seen, scores, -np.inf), slope


def _exponentials(scores: Array) -> tuple[Array, Array]:
    """exp(scores - most) and most, the largest score of each row; 0 where nothing is seen."""
    most = scores.max(axis=-1, initial=-np.inf)
    most = np.where(np.isneginf(most), 0, most)
    with np.errstate(invalid="ignore"):
        return np.exp(scores - most[..., None]), most


def _visible_product(weights: Array, seen: Array, rows: Array) -> Array:
    """weights @ rows, where rows that are not finite count only for those that see them."""
    bad = ~np.isfinite(rows)
    product: Array = weights @ np.where(bad, 0, rows)
    for *place, j, e in np.argwhere(bad):
        at = tuple(place)
        with np.errstate(invalid="ignore"):
            product[at][:, e] += np.where(seen[at][:, j], weights[at][:, j] * rows[at][j, e], 0)
    return product


def _grouped(array: Array, query: Array) -> Array:
    """Each key head repeated for the query heads that look at it."""
    heads = array.shape[-3]
    return np.repeat(array, query.shape[-3] // heads, axis=-3) if heads else array


def _summed(gradient: Array, array: Array) -> Array:
    """The gradient of `_grouped`."""
    *batch, heads, rows, features = array.shape
    each = gradient.shape[-3] // heads if heads else 1
    total: Array = gradient.reshape(*batch, heads, each, rows, features).sum(axis=-3)
    return total.astype(array.dtype)
