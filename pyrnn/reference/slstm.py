"""The sLSTM of Beck et al. 2024 (xLSTM, arXiv:2405.04517, section 2.2): exponential gates, stabilised by a state m.

    a_i, a_f, a_g, a_o = blocks of x W^T + b + h R^T + d
    l  = log sigmoid(a_f) + m
    m' = max(l, a_i);  i = exp(a_i - m');  f = exp(l - m')
    c' = f * c + i * tanh(a_g)
    n' = f * n + i
    h' = sigmoid(a_o) * c' / n'

A unit with n = 0 has no past: m' = a_i, and f is 0. Where l = a_i, m' counts as a_i.

    x (R, I), h, c, n and m (R, H); the gates are stacked in the order i, f, g, o:
    W = weight_ih (4H, I), R = weight_hh (4H, H), b = bias_ih (4H,), d = bias_hh (4H,)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import recurrence
from .recurrence import Back, State
from .rnn import log_sigmoid, sigmoid


class Cell(recurrence.Cell):
    """The equations above, as recurrence.py asks for them."""

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        h, c, n, m = before
        begun = n != 0
        c = np.where(begun, c, 0)
        a = self.product(x, w.weight_ih, w.bias_ih) + self.product(h, w.weight_hh, w.bias_hh)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        lasting = log_sigmoid(a_f) + m
        past = begun & (lasting > a_i)
        m_new = np.where(past, lasting, a_i)
        i = np.exp(a_i - m_new)
        f = np.where(begun, np.exp(np.minimum(lasting - m_new, 0)), 0)
        g, o = np.tanh(a_g), sigmoid(a_o)
        c_new = f * c + i * g
        n_new = f * n + i
        return (o * (c_new / n_new), c_new, n_new, m_new), (i, f, g, o, a_f, past)

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h, c, n, _), (_, c_new, n_new, _), (i, f, g, o, a_f, past) = before, after, saved
        c = np.where(n != 0, c, 0)
        dh_new, dc_new, dn_new, dm_new = dafter
        ratio, dratio = c_new / n_new, dh_new * o / n_new
        dc_new = dc_new + dratio
        dn_new = dn_new - dratio * ratio
        di = (dc_new * g + dn_new) * i  # of the exponents
        df = (dc_new * c + dn_new * n) * f
        dm_new = dm_new - di - df
        dlasting = df + np.where(past, dm_new, 0)
        da_i = di + np.where(past, 0, dm_new)
        da_f = dlasting * (1 - sigmoid(a_f))
        da_g = dc_new * i * (1 - g * g)
        da_o = dh_new * ratio * o * (1 - o)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dh = self.product_backward(da, h, w.weight_hh, dw.weight_hh, dw.bias_hh)
        dx = self.product_backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh, dc_new * f, dn_new * f, dlasting)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
