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
from typing import NamedTuple

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


def _gates(w):
    """The parts of the weights, or of their gradients, that are of r, z and n: for each (W, b) and (R, d), views."""
    W, R = np.split(w.weight_ih, 3), np.split(w.weight_hh, 3)
    b = [None] * 3 if w.bias_ih is None else np.split(w.bias_ih, 3)
    d = [None] * 3 if w.bias_hh is None else np.split(w.bias_hh, 3)
    return list(zip(zip(W, b), zip(R, d)))


class Cell:
    """The equations above, as recurrence.py asks for them."""

    Weights = Weights

    def __init__(self, reset_after):
        self.reset_after = reset_after

    def shapes(self, w):
        H, inputs = w.weight_ih.shape[0] // 3, w.weight_ih.shape[1]
        return (H,), ((3 * H, inputs), (3 * H, H), (3 * H,), (3 * H,))

    def forward(self, w, x, before):
        (h,) = before
        (W_r, R_r), (W_z, R_z), (W_n, R_n) = _gates(w)
        r = sigmoid(linear.forward(x, *W_r) + linear.forward(h, *R_r))
        z = sigmoid(linear.forward(x, *W_z) + linear.forward(h, *R_z))
        if self.reset_after:
            q = linear.forward(h, *R_n)
            n = np.tanh(linear.forward(x, *W_n) + r * q)
        else:
            q = None
            n = np.tanh(linear.forward(x, *W_n) + linear.forward(r * h, *R_n))
        h_new = (1 - z) * n + z * h
        return (h_new,), (r, z, n, q)

    def backward(self, w, x, before, after, saved, dafter, dw):
        (h,), (r, z, n, q), (dh_new,) = before, saved, dafter
        ((W_r, _), (R_r, _)), ((W_z, _), (R_z, _)), ((W_n, _), (R_n, _)) = _gates(w)
        (dW_r, dR_r), (dW_z, dR_z), (dW_n, dR_n) = _gates(dw)
        da_n = dh_new * (1 - z) * (1 - n * n)
        da_z = dh_new * (h - n) * z * (1 - z)
        dh = dh_new * z
        if self.reset_after:
            dr = da_n * q
            dh = dh + linear.backward(da_n * r, h, R_n, *dR_n)
        else:
            drh = linear.backward(da_n, r * h, R_n, *dR_n)
            dr = drh * h
            dh = dh + drh * r
        da_r = dr * r * (1 - r)
        dh = dh + linear.backward(da_r, h, R_r, *dR_r) + linear.backward(da_z, h, R_z, *dR_z)
        dx = linear.backward(da_r, x, W_r, *dW_r) + linear.backward(da_z, x, W_z, *dW_z)
        dx = dx + linear.backward(da_n, x, W_n, *dW_n)
        return dx, (dh,)


def forward(
    x: np.ndarray,
    state: Sequence[np.ndarray] | None,
    weights: recurrence.Entries,
    *,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reverse: bool = False,
    out: np.ndarray | None = None,
    reset_after: bool = True,
) -> tuple[np.ndarray, recurrence.State]:
    """x (T, N, I), state (h (N, H),) -> y (T, N, H), state. See recurrence.forward."""
    return recurrence.forward(Cell(reset_after), x, state, weights, lengths, reset, reverse, out)


def vjp(
    x: np.ndarray,
    state: Sequence[np.ndarray] | None,
    weights: recurrence.Entries,
    *,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    out: np.ndarray | None = None,
    reset_after: bool = True,
) -> tuple[tuple[np.ndarray, recurrence.State], recurrence.Pullback]:
    """As `forward`, and pullback(dy, dstate, grads) -> dx, dstate. See recurrence.vjp."""
    return recurrence.vjp(Cell(reset_after), x, state, weights, lengths, reset, reverse, checkpoint_every, out)


def stream(layers: Sequence[recurrence.Entries], batch: int, reset_after: bool = True) -> recurrence.Stream:
    """Feed a stack of layers step by step. See recurrence.Stream."""
    return recurrence.Stream(Cell(reset_after), layers, batch)
