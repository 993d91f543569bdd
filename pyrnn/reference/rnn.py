"""The simple recurrent network of Elman 1990 ("Finding structure in time").

h' = act(x W^T + b + h R^T + d)          act: tanh, relu or sigmoid

x (R, I), h (R, H), W = weight_ih (H, I), R = weight_hh (H, H), b = bias_ih (H,), d = bias_hh (H,)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import linear, recurrence


class Weights(NamedTuple):
    """In this order everywhere; None where absent."""

    weight_ih: np.ndarray  # (H, I)
    weight_hh: np.ndarray  # (H, H)
    bias_ih: np.ndarray | None  # (H,)
    bias_hh: np.ndarray | None  # (H,)


WEIGHTS = Weights._fields


def sigmoid(a: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # far below zero exp is infinite, and the quotient rightly 0
        s: np.ndarray = 1 / (1 + np.exp(-a))
    return s


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": sigmoid,
}

# from h = act(a) and dh to da; relu passes nothing at 0
ACTIVATIONS_BACKWARD: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "tanh": lambda h, dh: dh * (1 - h * h),
    "relu": lambda h, dh: np.where(h <= 0, 0, dh),
    "sigmoid": lambda h, dh: dh * h * (1 - h),
}


class Cell:
    """The equations above, as recurrence.py asks for them."""

    weights = Weights

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in ACTIVATIONS:
            raise ValueError(f"nonlinearity is {nonlinearity!r}, expected one of {', '.join(ACTIVATIONS)}")
        self.act = ACTIVATIONS[nonlinearity]
        self.act_backward = ACTIVATIONS_BACKWARD[nonlinearity]

    def shapes(self, w: Weights) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        hidden, inputs = w.weight_ih.shape
        return (hidden,), ((hidden, inputs), (hidden, hidden), (hidden,), (hidden,))

    def forward(self, w: Weights, x: np.ndarray, before: recurrence.State) -> tuple[recurrence.State, Any]:
        (h,) = before
        a = linear.forward(x, w.weight_ih, w.bias_ih) + linear.forward(h, w.weight_hh, w.bias_hh)
        h_new = self.act(a)
        return (h_new,), None

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
        (h,), (h_new,), (dh_new,) = before, after, dafter
        da = self.act_backward(h_new, dh_new)
        dh = linear.backward(da, h, w.weight_hh, dw.weight_hh, dw.bias_hh)
        dx = linear.backward(da, x, w.weight_ih, dw.weight_ih, dw.bias_ih)
        return dx, (dh,)


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
    nonlinearity: str = "tanh",
) -> tuple[np.ndarray, recurrence.State]:
    """x (T, N, I), state (h (N, H),) -> y (T, N, H), state. See recurrence.forward."""
    return recurrence.forward(Cell(nonlinearity), x, state, weights, ids, lengths, reset, reverse, out)


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
    nonlinearity: str = "tanh",
) -> tuple[tuple[np.ndarray, recurrence.State], recurrence.Pullback]:
    """As `forward`, and pullback(dy, dstate, grads) -> dx, dstate. See recurrence.vjp."""
    return recurrence.vjp(Cell(nonlinearity), x, state, weights, ids, lengths, reset, reverse, checkpoint_every, out)


def stream(layers: Sequence[recurrence.Entries], batch: int, *, nonlinearity: str = "tanh") -> recurrence.Stream:
    """Feed a stack of layers step by step. See recurrence.Stream."""
    return recurrence.Stream(Cell(nonlinearity), layers, batch)
