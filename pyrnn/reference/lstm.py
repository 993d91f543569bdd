"""The long short-term memory of Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i  = sigmoid(x W_i^T + b_i + h R_i^T + d_i [+ p_i * c])          input gate
    f  = sigmoid(x W_f^T + b_f + h R_f^T + d_f [+ p_f * c])          forget gate
    g  =    tanh(x W_g^T + b_g + h R_g^T + d_g)                      candidate
    c' = f * c + i * g
    o  = sigmoid(x W_o^T + b_o + h R_o^T + d_o [+ p_o * c'])         output gate
    h' = o * tanh(c')                                                [h' = (o * tanh(c')) V^T]

    x (R, I), h and c (R, H); the gates are stacked in the order i, f, g, o:
    W = weight_ih (4H, I), R = weight_hh (4H, H), b = bias_ih (4H,), d = bias_hh (4H,)

`activation` names another function than tanh, of the candidate and of c', `gate_activation` another than the sigmoid.

Two extensions, in brackets, are there when their weight is: the peephole p = weight_ch (3H,), order i, f, o (Gers,
Schraudolph & Schmidhuber 2002), and the projection V = weight_hr (P, H), with which h is (R, P) and weight_hh (4H, P)
(Sak et al. 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cells import ACTIVATIONS
from . import recurrence
from .recurrence import Back, State
from .rnn import forth_and_back


class Cell(recurrence.Cell):
    """The equations above, as recurrence.py asks for them."""

    def __init__(self, activation: str = "tanh", gate_activation: str = "sigmoid") -> None:
        self.act, self.act_backward = forth_and_back("activation", activation, ACTIVATIONS["activation"])
        self.gate, self.gate_backward = forth_and_back(
            "gate_activation", gate_activation, ACTIVATIONS["gate_activation"]
        )

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        h, c = before
        a = self.product(x, w.weight_ih, w.bias_ih) + self.product(h, w.weight_hh, w.bias_hh)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        if w.weight_ch is not None:
            p_i, p_f, p_o = np.split(w.weight_ch, 3)
            a_i, a_f = a_i + p_i * c, a_f + p_f * c
        i, f, g = self.gate(a_i), self.gate(a_f), self.act(a_g)
        c_new = f * c + i * g
        if w.weight_ch is not None:
            a_o = a_o + p_o * c_new
        o = self.gate(a_o)
        h_new = o * self.act(c_new)
        if w.weight_hr is not None:
            h_new = self.product(h_new, w.weight_hr, None)
        return (h_new, c_new), (i, f, g, o)

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h, c), (_, c_new), (i, f, g, o), (dh_new, dc_new) = before, after, saved, dafter
        bent = self.act(c_new)
        if w.weight_hr is not None:
            dh_new = self.product_backward(dh_new, o * bent, w.weight_hr, dw.weight_hr, None)
        da_o = self.gate_backward(o, dh_new * bent)
        dc_new = dc_new + self.act_backward(bent, dh_new * o)
        if w.weight_ch is not None:
            p_i, p_f, p_o = np.split(w.weight_ch, 3)
            dc_new = dc_new + da_o * p_o
        da_i = self.gate_backward(i, dc_new * g)
        da_f = self.gate_backward(f, dc_new * c)
        da_g = self.act_backward(g, dc_new * i)
        dc = dc_new * f
        if w.weight_ch is not None:
            dc = dc + da_i * p_i + da_f * p_f
            dp = np.concatenate([da_i * c, da_f * c, da_o * c_new], axis=1)
            dw.weight_ch[...] += dp.sum(axis=0)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dh = self.product_backward(da, h, w.weight_hh, dw.weight_hh, dw.bias_hh)
        dx = self.product_backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh, dc)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
