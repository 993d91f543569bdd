"""The gated recurrent unit of Cho et al. 2014, and the variant of it that cuDNN, torch and Keras compute.

r  = sigmoid(x W_r^T + b_r + h R_r^T + d_r)              reset gate
z  = sigmoid(x W_z^T + b_z + h R_z^T + d_z)              update gate
n  = tanh(x W_n^T + b_n + r * (h R_n^T + d_n))           candidate, reset_after=True: torch
n  = tanh(x W_n^T + b_n + (r * h) R_n^T + d_n)           candidate, reset_after=False: Cho et al.
h' = (1 - z) * n + z * h

x (R, I), h (R, H); the gates are stacked in the order r, z, n:
W = weight_ih (3H, I), R = weight_hh (3H, H), b = bias_ih (3H,), d = bias_hh (3H,)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import linear, recurrence
from .rnn import sigmoid


class Weights(NamedTuple):
    """In this order everywhere; None where absent."""

    weight_ih: np.ndarray  # (3H, I)
    weight_hh: np.ndarray  # (3H, H)
    bias_ih: np.ndarray | None  # (3H,)
    bias_hh: np.ndarray | None  # (3H,)


WEIGHTS = Weights._fields


def _gates(w: Weights) -> list[Any]:
    """(W, b) and (R, d) of r, z and n, out of the weights or their gradients; views."""
    ih, hh = np.split(w.weight_ih, 3), np.split(w.weight_hh, 3)
    bias_ih = [None] * 3 if w.bias_ih is None else np.split(w.bias_ih, 3)
    bias_hh = [None] * 3 if w.bias_hh is None else np.split(w.bias_hh, 3)
    return [[(ih[k], bias_ih[k]), (hh[k], bias_hh[k])] for k in range(3)]


class Cell:
    """The equations above, as recurrence.py asks for them."""

    weights = Weights

    def __init__(self, reset_after: bool) -> None:
        self.reset_after = reset_after

    def shapes(self, w: Weights) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        hidden, inputs = w.weight_ih.shape[0] // 3, w.weight_ih.shape[1]
        gates = 3 * hidden
        return (hidden,), ((gates, inputs), (gates, hidden), (gates,), (gates,))

    def forward(self, w: Weights, x: np.ndarray, before: recurrence.State) -> tuple[recurrence.State, Any]:
        (h,) = before
        (ih_r, hh_r), (ih_z, hh_z), (ih_n, hh_n) = _gates(w)
        r = sigmoid(linear.forward(x, *ih_r) + linear.forward(h, *hh_r))
        z = sigmoid(linear.forward(x, *ih_z) + linear.forward(h, *hh_z))
        if self.reset_after:
            q = linear.forward(h, *hh_n)
            n = np.tanh(linear.forward(x, *ih_n) + r * q)
        else:
            q = None
            n = np.tanh(linear.forward(x, *ih_n) + linear.forward(r * h, *hh_n))
        h_new = (1 - z) * n + z * h
        return (h_new,), (r, z, n, q)

    def backward(
        self,
        w: Weights,
        x: np.ndarray,
        before: recurrence.State,
        after: recurrence.State,
        saved: Any,
        dafter: recurrence.State,
        dw: Any,  # Weights, None where w is
    ) -> tuple[np.ndarray, recurrence.State]:
        (h,), (r, z, n, q), (dh_new,) = before, saved, dafter
        (ih_r, hh_r), (ih_z, hh_z), (ih_n, hh_n) = _gates(w)
        (dih_r, dhh_r), (dih_z, dhh_z), (dih_n, dhh_n) = _gates(dw)
        da_n = dh_new * (1 - z) * (1 - n * n)
        da_z = dh_new * (h - n) * z * (1 - z)
        dh = dh_new * z
        if self.reset_after:
            dr = da_n * q
            dh = dh + linear.backward(da_n * r, h, hh_n[0], *dhh_n)
        else:
            drh = linear.backward(da_n, r * h, hh_n[0], *dhh_n)
            dr = drh * h
            dh = dh + drh * r
        da_r = dr * r * (1 - r)
        dh = dh + linear.backward(da_r, h, hh_r[0], *dhh_r) + linear.backward(da_z, h, hh_z[0], *dhh_z)
        dx = linear.backward(da_r, x, ih_r[0], *dih_r) + linear.backward(da_z, x, ih_z[0], *dih_z)
        dx = dx + linear.backward(da_n, x, ih_n[0], *dih_n)
        return dx, (dh,)


def forward(
    x: np.ndarray,
    state: Sequence[np.ndarray] | None,
    weights: recurrence.Entries,
    *,
    ids: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reverse: bool = False,
    out: np.ndarray | None = None,
    reset_after: bool = True,
) -> tuple[np.ndarray, recurrence.State]:
    """x (T, N, I), state (h (N, H),) -> y (T, N, H), state. See recurrence.forward."""
    return recurrence.forward(Cell(reset_after), x, state, weights, ids, lengths, reset, reverse, out)


def vjp(
    x: np.ndarray,
    state: Sequence[np.ndarray] | None,
    weights: recurrence.Entries,
    *,
    ids: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    out: np.ndarray | None = None,
    reset_after: bool = True,
) -> tuple[tuple[np.ndarray, recurrence.State], recurrence.Pullback]:
    """As `forward`, and pullback(dy, dstate, grads) -> dx, dstate. See recurrence.vjp."""
    return recurrence.vjp(Cell(reset_after), x, state, weights, ids, lengths, reset, reverse, checkpoint_every, out)


def stream(layers: Sequence[recurrence.Entries], batch: int, *, reset_after: bool = True) -> recurrence.Stream:
    """Feed a stack of layers step by step. See recurrence.Stream."""
    return recurrence.Stream(Cell(reset_after), layers, batch)
