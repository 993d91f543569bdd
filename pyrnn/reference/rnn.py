"""The simple recurrent network of Elman 1990 ("Finding structure in time").

h' = act(x W^T + b + h R^T + d)          act: tanh, relu or sigmoid

x (R, I), h (R, H), W = weight_ih (H, I), R = weight_hh (H, H), b = bias_ih (H,), d = bias_hh (H,)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import cells
from . import recurrence
from .recurrence import Back, State


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a))."""
    with np.errstate(over="ignore"):  # far below zero exp is infinite, and the quotient rightly 0
        s: np.ndarray = 1 / (1 + np.exp(-a))
    return s


def log_sigmoid(a: np.ndarray) -> np.ndarray:
    """log(1 / (1 + exp(-a))), finite for finite a."""
    result: np.ndarray = np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))
    return result


Act = Callable[[np.ndarray], np.ndarray]
ActBackward = Callable[[np.ndarray, np.ndarray], np.ndarray]


def softsign(a: np.ndarray) -> np.ndarray:
    """a / (1 + |a|), of infinity too."""
    limits = np.finfo(a.dtype)
    a = np.clip(a, limits.min, limits.max)
    s: np.ndarray = a / (1 + np.abs(a))
    return s


ACTIVATIONS: dict[str, Act] = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": sigmoid,
    "softsign": softsign,
    "identity": lambda a: a,
    "hard_sigmoid": lambda a: np.clip(a.dtype.type(0.2) * a + a.dtype.type(0.5), 0, 1),
    "hard_sigmoid_6": lambda a: np.clip(a / 6 + a.dtype.type(0.5), 0, 1),
}

# from h = act(a) and dh to da; relu passes nothing at 0, a hard sigmoid nothing where it is cut off and at the cut
ACTIVATIONS_BACKWARD: dict[str, ActBackward] = {
    "tanh": lambda h, dh: dh * (1 - h * h),
    "relu": lambda h, dh: np.where(h <= 0, 0, dh),
    "sigmoid": lambda h, dh: dh * h * (1 - h),
    "softsign": lambda h, dh: dh * (1 - np.abs(h)) ** 2,
    "identity": lambda h, dh: dh,
    "hard_sigmoid": lambda h, dh: np.where((h <= 0) | (h >= 1), 0, dh * h.dtype.type(0.2)),
    "hard_sigmoid_6": lambda h, dh: np.where((h <= 0) | (h >= 1), 0, dh / 6),
}


def forth_and_back(argument: str, name: str, names: Iterable[str]) -> tuple[Act, ActBackward]:
    """An activation and its way back, of one of these names; ValueError for another."""
    if name not in names:
        raise ValueError(f"{argument} is {name!r}, expected one of {', '.join(names)}")
    return ACTIVATIONS[name], ACTIVATIONS_BACKWARD[name]


class Cell(recurrence.Cell):
    """The equations above, as recurrence.py asks for them."""

    def __init__(self, nonlinearity: str = "tanh") -> None:
        self.act, self.act_backward = forth_and_back("nonlinearity", nonlinearity, cells.NONLINEARITIES)

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        (h,) = before
        a = self.product(x, w.weight_ih, w.bias_ih) + self.product(h, w.weight_hh, w.bias_hh)
        h_new = self.act(a)
        return (h_new,), None

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        (h,), (h_new,), (dh_new,) = before, after, dafter
        da = self.act_backward(h_new, dh_new)
        dh = self.product_backward(da, h, w.weight_hh, dw.weight_hh, dw.bias_hh)
        dx = self.product_backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh,)


WEIGHTS = Cell.weights._fields
forward, vjp, stream = recurrence.op(Cell)
