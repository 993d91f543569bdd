"""The minimal long short-term memory of Feng et al. 2024 ("Were RNNs all we needed?", section 3.2), step by step.

i, f = sigmoid(x W_i^T + b_i), sigmoid(x W_f^T + b_f)
h'   = (f * h + i * (x W_n^T + b_n)) / (f + i)

x (R, I), h (R, H); the gates are stacked in the order i, f, n: W = weight_ih (3H, I), b = bias_ih (3H,). The share
f / (f + i) is the sigmoid of log f - log i, which is finite where f and i are both 0.
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
        (h,) = before
        a_i, a_f, n = np.split(self.product(x, w.weight_ih, w.bias_ih), 3, axis=1)
        share = sigmoid(log_sigmoid(a_f) - log_sigmoid(a_i))
        return (share * h + (1 - share) * n,), (a_i, a_f, n, share)

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h,), (a_i, a_f, n, share), (dh_new,) = before, saved, dafter
        dlog = dh_new * (h - n) * share * (1 - share)  # of log f - log i
        da_i, da_f = -dlog * (1 - sigmoid(a_i)), dlog * (1 - sigmoid(a_f))
        da = np.concatenate([da_i, da_f, dh_new * (1 - share)], axis=1)
        dx = self.product_backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh_new * share,)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
