"""Associative memories: Hebbian weights of bipolar patterns, local fields, and asynchronous sweeps.

P patterns x (P, n) of -1 and +1 are kept as bits (n, ceil(P / 32)) uint32: bit p % 32 of word p / 32 in row i is 1
where x_pi is +1. `negative` (P,) bool says which patterns have the sign -1. States are int8: 1 is on, `off` is off.
"""

from __future__ import annotations

import numpy as np

WORD = 32


def pack(on: np.ndarray) -> np.ndarray:
    """on (P, n) bool -> bits (n, ceil(P / 32)) uint32; bits beyond P are 0."""
    count, n = on.shape
    padded = np.zeros((-(-count // WORD) * WORD, n), bool)
    padded[:count] = on
    words = padded.reshape(-1, WORD, n).astype(np.uint32) << np.arange(WORD, dtype=np.uint32)[:, None]
    bits: np.ndarray = words.sum(axis=1, dtype=np.uint32).T.copy()
    return bits


def _patterns(bits: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x (P, n) of -1 and +1, and the signs (P,)."""
    on = bits[:, :, None] >> np.arange(WORD, dtype=np.uint32) & 1
    x = 2 * on.reshape(len(bits), bits.shape[1] * WORD)[:, : len(negative)].T.astype(np.int64) - 1
    return x, np.where(negative, -1, 1)


def hebbian(bits: np.ndarray, negative: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """w_ij = sum_p sign_p x_pi x_pj, w_ii = 0 (Hopfield 1982, without a factor)."""
    x, sign = _patterns(bits, negative)
    weights = (x.T * sign) @ x
    np.fill_diagonal(weights, 0)
    result: np.ndarray = weights.astype(dtype)
    return result


def overlaps(bits: np.ndarray, negative: np.ndarray, state: np.ndarray) -> np.ndarray:
    """m_p = sign_p sum_i x_pi s_i of states (N, n), as (N, 32 words) int32 with zeros beyond P."""
    x, sign = _patterns(bits, negative)
    result = np.zeros((len(state), bits.shape[1] * WORD), np.int32)
    result[:, : len(sign)] = state.astype(np.int64) @ x.T * sign
    return result


def pattern_fields(bits: np.ndarray, negative: np.ndarray, overlaps: np.ndarray, state: np.ndarray) -> np.ndarray:
    """sum_j w_ij s_j = sum_p x_pi m_p - sum_p sign_p s_i, (N, n) float64."""
    x, sign = _patterns(bits, negative)
    fields: np.ndarray = overlaps[:, : len(sign)].astype(np.int64) @ x - sign.sum() * state.astype(np.int64)
    return fields.astype(np.float64)


def pattern_sweep(
    bits: np.ndarray, negative: np.ndarray, overlaps: np.ndarray, state: np.ndarray, order: np.ndarray,
    threshold: np.ndarray, external: np.ndarray | None = None, off: int = -1,
) -> np.ndarray:  # fmt: skip
    """`sweep` under the Hebbian weights; the overlaps are kept up to date in place of the fields."""
    x, sign = _patterns(bits, negative)
    flips = np.zeros(len(state), np.int64)
    for row, s in enumerate(state):
        m = overlaps[row, : len(sign)]
        for i in order:
            field = int(m.astype(np.int64) @ x[:, i]) - int(sign.sum()) * int(s[i])
            new = _decide(field + _external(external, row, i), threshold[i], off, s[i])
            m += (new - s[i]) * sign * x[:, i]
            flips[row] += new != s[i]
            s[i] = new
    return flips


def dense_sweep(
    bits: np.ndarray, negative: np.ndarray, overlaps: np.ndarray, state: np.ndarray, order: np.ndarray, gap: np.ndarray,
    external: np.ndarray | None = None, relative: bool = False,
) -> np.ndarray:  # fmt: skip
    """One sweep under E = -sum_p F(m_p) - sum_i external_i s_i (Krotov & Hopfield 2016); as `sweep`, bipolar.

    With r_p = m_p - x_pi s_i, unit i turns to the sign of sum_p x_pi (F(r_p + 1) - F(r_p - 1)) + 2 external_i. gap
    (2 n + 1,) has these differences for r = -n..n. With `relative` it has them for r - max r = -2 n..0, of an F that is
    an exponential, and external is divided by exp(max r).
    """
    x, sign = _patterns(bits, negative)
    n = len(bits)
    flips = np.zeros(len(state), np.int64)
    for row, s in enumerate(state):
        m = overlaps[row, : len(sign)]
        for i in order:
            rest = m - sign * x[:, i] * s[i]
            most = rest.max(initial=-2 * n)
            field = 0.0
            for r, up in zip(rest, sign * x[:, i], strict=True):
                field += up * gap[r - most + 2 * n if relative else r + n]
            input_ = field + 2 * _external(external, row, i) * (np.exp(-float(most)) if relative else 1.0)
            new = _decide(input_, 0.0, -1, s[i])
            m += (new - s[i]) * sign * x[:, i]
            flips[row] += new != s[i]
            s[i] = new
    return flips


def fields(weights: np.ndarray, state: np.ndarray) -> np.ndarray:
    """u = W s of states (N, n), in float64."""
    return state.astype(np.float64) @ weights.astype(np.float64)


def sweep(
    weights: np.ndarray, fields: np.ndarray, state: np.ndarray, order: np.ndarray, threshold: np.ndarray,
    external: np.ndarray | None = None, off: int = -1,
) -> np.ndarray:  # fmt: skip
    """Visit every unit once, in `order`: on where external_i + u_i > threshold_i, off where below, else as it was.

    state and fields u (N, n) are changed in place: where unit i changes by d, u_j += d w_ij. Weights are symmetric with
    a zero diagonal. external: (n,), (N, n) or None. Returns the number of flips of each row.
    """
    flips = np.zeros(len(state), np.int64)
    for row, (s, u) in enumerate(zip(state, fields, strict=True)):
        for i in order:
            new = _decide(u[i] + _external(external, row, i), threshold[i], off, s[i])
            u += float(new - s[i]) * weights[i].astype(np.float64)
            flips[row] += new != s[i]
            s[i] = new
    return flips


def _decide(value: float, threshold: float, off: int, now: np.int8) -> np.int8:
    return np.int8(1 if value > threshold else off if value < threshold else now)


def _external(external: np.ndarray | None, row: int, i: int) -> float:
    if external is None:
        return 0.0
    return float(external[i] if external.ndim == 1 else external[row, i])
