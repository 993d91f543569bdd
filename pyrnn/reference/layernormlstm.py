"""The LSTM with layer normalisation of Ba, Kiros & Hinton 2016 (arXiv:1607.06450, equations 20 to 22).

    a  = s * N(x W^T) + t * N(h R^T) + b          of all gates
    i, f, g, o = blocks of a
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h' = sigmoid(o) * tanh(u * N(c') + v)

N(z) = (z - mean z) / sqrt(mean (z - mean z)^2 + eps) over all of a row: the 4H numbers of the gates, the H of c'.

    x (R, I), h and c (R, H); the gates are stacked in the order i, f, g, o:
    W = weight_ih (4H, I), R = weight_hh (4H, H), s = norm_ih, t = norm_hh and b = bias_ih (4H,),
    u = norm_c and v = bias_c (H,)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import recurrence
from .recurrence import Back, State
from .rnn import sigmoid

Array = np.ndarray


def normalise(z: Array, eps: float) -> tuple[Array, Array]:
    """N(z) row by row, and what each row has been multiplied by."""
    centred = z - z.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt(np.mean(centred * centred, axis=1, keepdims=True) + eps)
    return centred * scale, scale


def normalise_backward(dn: Array, n: Array, scale: Array) -> Array:
    """The gradient of z."""
    dz: Array = scale * (dn - dn.mean(axis=1, keepdims=True) - n * np.mean(dn * n, axis=1, keepdims=True))
    return dz


class Cell(recurrence.Cell):
    """The equations above, as recurrence.py asks for them."""

    def __init__(self, eps: float = 1e-5) -> None:
        self.eps = eps

    def forward(self, w: Any, x: Array, before: State) -> tuple[State, Any]:
        h, c = before
        of_x, of_h = (
            normalise(self.product(z, weight, None), self.eps) for z, weight in ((x, w.weight_ih), (h, w.weight_hh))
        )
        a = w.norm_ih * of_x[0] + w.norm_hh * of_h[0]
        if w.bias_ih is not None:
            a = a + w.bias_ih
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c_new = f * c + i * g
        of_c = normalise(c_new, self.eps)
        bent = np.tanh(w.norm_c * of_c[0] + w.bias_c)
        return (o * bent, c_new), (of_x, of_h, of_c, (i, f, g, o), bent)

    def backward(self, w: Any, x: Array, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h, c), (of_x, of_h, of_c, (i, f, g, o), bent), (dh_new, dc_new) = before, saved, dafter
        da_o = dh_new * bent * o * (1 - o)
        dbent = dh_new * o * (1 - bent * bent)
        dw.norm_c[...] += (dbent * of_c[0]).sum(axis=0)
        dw.bias_c[...] += dbent.sum(axis=0)
        dc_new = dc_new + normalise_backward(w.norm_c * dbent, *of_c)
        da_i = dc_new * g * i * (1 - i)
        da_f = dc_new * c * f * (1 - f)
        da_g = dc_new * i * (1 - g * g)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dw.norm_ih[...] += (da * of_x[0]).sum(axis=0)
        dw.norm_hh[...] += (da * of_h[0]).sum(axis=0)
        if w.bias_ih is not None:
            dw.bias_ih[...] += da.sum(axis=0)
        dh = self.product_backward(normalise_backward(w.norm_hh * da, *of_h), h, w.weight_hh, dw.weight_hh, None)
        dx = self.product_backward(normalise_backward(w.norm_ih * da, *of_x), x, w.weight_ih, dw.weight_ih, None)
        return dx, (dh, dc_new * f)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
