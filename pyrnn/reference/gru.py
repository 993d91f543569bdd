"""The gated recurrent unit of Cho et al. 2014, and the variant of it that cuDNN, torch and Keras compute.

r  = sigmoid(x W_r^T + b_r + h R_r^T + d_r)              reset gate
z  = sigmoid(x W_z^T + b_z + h R_z^T + d_z)              update gate
n  = tanh(x W_n^T + b_n + r * (h R_n^T + d_n))           candidate, reset_after=True: torch
n  = tanh(x W_n^T + b_n + (r * h) R_n^T + d_n)           candidate, reset_after=False: Cho et al.
h' = (1 - z) * n + z * h

`activation` names another function than tanh, `gate_activation` another one than the sigmoid.
x (R, I), h (R, H); the gates are stacked in the order r, z, n:
W = weight_ih (3H, I), R = weight_hh (3H, H), b = bias_ih (3H,), d = bias_hh (3H,)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cells import ACTIVATIONS
from . import linear, recurrence
from .recurrence import Back, State
from .rnn import forth_and_back


def _gates(w: Any) -> list[Any]:
    """(W, b) and (R, d) of r, z and n, out of the weights or their gradients; views."""
    ih, hh = linear.parts(w.weight_ih, 3), linear.parts(w.weight_hh, 3)
    bias_ih = [None] * 3 if w.bias_ih is None else np.split(w.bias_ih, 3)
    bias_hh = [None] * 3 if w.bias_hh is None else np.split(w.bias_hh, 3)
    return [[(ih[k], bias_ih[k]), (hh[k], bias_hh[k])] for k in range(3)]


class Cell(recurrence.Cell):
    """The equations above, as recurrence.py asks for them."""

    def __init__(self, reset_after: bool = True, activation: str = "tanh", gate_activation: str = "sigmoid") -> None:
        self.reset_after = reset_after
        self.act, self.act_backward = forth_and_back("activation", activation, ACTIVATIONS["activation"])
        self.gate, self.gate_backward = forth_and_back(
            "gate_activation", gate_activation, ACTIVATIONS["gate_activation"]
        )

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        (h,) = before
        (ih_r, hh_r), (ih_z, hh_z), (ih_n, hh_n) = _gates(w)
        r = self.gate(self.product(x, *ih_r) + self.product(h, *hh_r))
        z = self.gate(self.product(x, *ih_z) + self.product(h, *hh_z))
        if self.reset_after:
            q = self.product(h, *hh_n)
            n = self.act(self.product(x, *ih_n) + r * q)
        else:
            q = None
            n = self.act(self.product(x, *ih_n) + self.product(r * h, *hh_n))
        h_new = (1 - z) * n + z * h
        return (h_new,), (r, z, n, q)

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h,), (r, z, n, q), (dh_new,) = before, saved, dafter
        (ih_r, hh_r), (ih_z, hh_z), (ih_n, hh_n) = _gates(w)
        (dih_r, dhh_r), (dih_z, dhh_z), (dih_n, dhh_n) = _gates(dw)
        da_n = self.act_backward(n, dh_new * (1 - z))
        da_z = self.gate_backward(z, dh_new * (h - n))
        dh = dh_new * z
        if self.reset_after:
            dr = da_n * q
            dh = dh + self.product_backward(da_n * r, h, hh_n[0], *dhh_n)
        else:
            drh = self.product_backward(da_n, r * h, hh_n[0], *dhh_n)
            dr = drh * h
            dh = dh + drh * r
        da_r = self.gate_backward(r, dr)
        dh = dh + self.product_backward(da_r, h, hh_r[0], *dhh_r) + self.product_backward(da_z, h, hh_z[0], *dhh_z)
        dx = self.product_backward(da_r, x, ih_r[0], *dih_r) + self.product_backward(da_z, x, ih_z[0], *dih_z)
        dx = dx + self.product_backward(da_n, x, ih_n[0], *dih_n)
        return dx, (dh,)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
