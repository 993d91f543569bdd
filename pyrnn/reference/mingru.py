"""The minimal gated recurrent unit of Feng et al. 2024 ("Were RNNs all we needed?", section 3.1), step by step.

z  = sigmoid(x W_z^T + b_z)
h' = (1 - z) * h + z * (x W_n^T + b_n)

x (R, I), h (R, H); the gates are stacked in the order z, n: W = weight_ih (2H, I), b = bias_ih (2H,)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import recurrence
from .recurrence import Back, State
from .rnn import sigmoid


class Cell(recurrence.Cell):
    """The equations above, as recurrence.py asks for them."""

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        (h,) = before
        a_z, n = np.split(self.product(x, w.weight_ih, w.bias_ih), 2, axis=1)
        z = sigmoid(a_z)
        return ((1 - z) * h + z * n,), (z, n)

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h,), (z, n), (dh_new,) = before, saved, dafter
        da = np.concatenate([dh_new * (n - h) * z * (1 - z), dh_new * z], axis=1)
        dx = self.product_backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh_new * (1 - z),)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
