"""The long short-term memory of Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i  = sigmoid(x W_i^T + b_i + h R_i^T + d_i [+ p_i * c])          input gate
    f  = sigmoid(x W_f^T + b_f + h R_f^T + d_f [+ p_f * c])          forget gate
    g  =    tanh(x W_g^T + b_g + h R_g^T + d_g)                      candidate
    c' = f * c + i * g
    o  = sigmoid(x W_o^T + b_o + h R_o^T + d_o [+ p_o * c'])         output gate
    h' = o * tanh(c')                                                [h' = (o * tanh(c')) V^T]

    x (R, I), h and c (R, H); the gates are stacked in the order i, f, g, o:
    W = weight_ih (4H, I), R = weight_hh (4H, H), b = bias_ih (4H,), d = bias_hh (4H,)

Two extensions, in brackets, are there when their weight is: the peephole p = weight_ch (3H,), order i, f, o (Gers,
Schraudolph & Schmidhuber 2002), and the projection V = weight_hr (P, H), with which h is (R, P) and weight_hh (4H, P)
(Sak et al. 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import linear, recurrence
from .rnn import sigmoid


class Weights(NamedTuple):
    """In this order everywhere; None where absent."""

    weight_ih: np.ndarray  # (4H, I)
    weight_hh: np.ndarray  # (4H, H), (4H, P) with a projection
    bias_ih: np.ndarray | None  # (4H,)
    bias_hh: np.ndarray | None  # (4H,)
    weight_hr: np.ndarray | None  # (P, H), projection
    weight_ch: np.ndarray | None  # (3H,), peephole


WEIGHTS = Weights._fields


class Cell:
    """The equations above, as recurrence.py asks for them."""

    weights = Weights

    def shapes(self, w: Weights) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        hidden, inputs = w.weight_ih.shape[0] // 4, w.weight_ih.shape[1]
        outputs = hidden if w.weight_hr is None else w.weight_hr.shape[0]
        gates = 4 * hidden
        shapes = (gates, inputs), (gates, outputs), (gates,), (gates,), (outputs, hidden), (3 * hidden,)
        return (outputs, hidden), shapes

    def forward(self, w: Weights, x: np.ndarray, before: recurrence.State) -> tuple[recurrence.State, Any]:
        h, c = before
        a = linear.forward(x, w.weight_ih, w.bias_ih) + linear.forward(h, w.weight_hh, w.bias_hh)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        if w.weight_ch is not None:
            p_i, p_f, p_o = np.split(w.weight_ch, 3)
            a_i, a_f = a_i + p_i * c, a_f + p_f * c
        i, f, g = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g)
        c_new = f * c + i * g
        if w.weight_ch is not None:
            a_o = a_o + p_o * c_new
        o = sigmoid(a_o)
        h_new = o * np.tanh(c_new)
        if w.weight_hr is not None:
            h_new = linear.forward(h_new, w.weight_hr, None)
        return (h_new, c_new), (i, f, g, o)

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
        (h, c), (_, c_new), (i, f, g, o), (dh_new, dc_new) = before, after, saved, dafter
        tanh_c = np.tanh(c_new)
        if w.weight_hr is not None:
            dh_new = linear.backward(dh_new, o * tanh_c, w.weight_hr, dw.weight_hr, None)
        da_o = dh_new * tanh_c * o * (1 - o)
        dc_new = dc_new + dh_new * o * (1 - tanh_c * tanh_c)
        if w.weight_ch is not None:
            p_i, p_f, p_o = np.split(w.weight_ch, 3)
            dc_new = dc_new + da_o * p_o
        da_i = dc_new * g * i * (1 - i)
        da_f = dc_new * c * f * (1 - f)
        da_g = dc_new * i * (1 - g * g)
        dc = dc_new * f
        if w.weight_ch is not None:
            dc = dc + da_i * p_i + da_f * p_f
            dp = np.concatenate([da_i * c, da_f * c, da_o * c_new], axis=1)
            dw.weight_ch[...] += dp.sum(axis=0)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dh = linear.backward(da, h, w.weight_hh, dw.weight_hh, dw.bias_hh)
        dx = linear.backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh, dc)


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
) -> tuple[np.ndarray, recurrence.State]:
    """x (T, N, I), state (h (N, H or P), c (N, H)) -> y (T, N, H or P), state. See recurrence.forward."""
    return recurrence.forward(Cell(), x, state, weights, ids, lengths, reset, reverse, out)


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
) -> tuple[tuple[np.ndarray, recurrence.State], recurrence.Pullback]:
    """As `forward`, and pullback(dy, dstate, grads) -> dx, dstate. See recurrence.vjp."""
    return recurrence.vjp(Cell(), x, state, weights, ids, lengths, reset, reverse, checkpoint_every, out)


def stream(layers: Sequence[recurrence.Entries], batch: int) -> recurrence.Stream:
    """Feed a stack of layers step by step. See recurrence.Stream."""
    return recurrence.Stream(Cell(), layers, batch)
