"""The independently recurrent network of Li et al. 2018 (CVPR), in which no unit sees another.

h' = act(x W^T + b + u * h)          act: relu, tanh or sigmoid

x (R, I), h (R, H), W = weight_ih (H, I), u = weight_hh (H,), b = bias_ih (H,)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import cells
from . import recurrence
from .recurrence import Back, State
from .rnn import forth_and_back


class Cell(recurrence.Cell):
    """The equation above, as recurrence.py asks for it."""

    def __init__(self, nonlinearity: str = "relu") -> None:
        self.act, self.act_backward = forth_and_back("nonlinearity", nonlinearity, cells.NONLINEARITIES)

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        (h,) = before
        return (self.act(self.product(x, w.weight_ih, w.bias_ih) + w.weight_hh * h),), None

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h,), (h_new,), (dh_new,) = before, after, dafter
        da = self.act_backward(h_new, dh_new)
        dw.weight_hh[...] += (da * h).sum(axis=0)
        dx = self.product_backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (da * w.weight_hh,)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
