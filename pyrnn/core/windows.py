"""A function of windows of sequences that come in pieces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .checks import Array


class WindowStream:
    """Keeps of N sequences what later windows need; every `stride` steps of x one is whole, the first after `first`.

    function  x (T, N, C) -> y (U, N, O), from the windows that are whole in x, of which the first begins with x
    past      the steps before x (reach, N, C): one less than a window has. With C = 0 it is told by x

        stream = WindowStream(lambda x: x[2:] - x[:-2], np.zeros((2, 1, 4)), 3, 1)
        y = stream.run(x)
    """

    def __init__(self, function: Callable[[Array], Array], past: Array, first: int, stride: int) -> None:
        self._function, self._past, self._stride = function, past, stride
        self._due = self._first = first

    def step(self, x: Array) -> Array | None:
        """x (N, C) -> (N, O), or (C,) -> (O,) where N is 1; None where it completes no window."""
        y = self.run(x[None, None] if x.ndim == 1 else x[None])
        if not len(y):
            return None
        result: Array = y[0, 0] if x.ndim == 1 else y[0]
        return result

    def run(self, x: Array) -> Array:
        """x (T, N, C) -> the steps of y that it completes (U, N, O)."""
        past = self._past
        if past.shape[2] == 0:
            past = np.zeros((*past.shape[:2], x.shape[2]), past.dtype)
        seen = np.concatenate([past, x])
        y = self._function(seen[self._due - 1 :])
        self._past = seen[len(x) :].copy()
        self._due += len(y) * self._stride - len(x)
        return y

    def get_state(self) -> tuple[Array, int]:
        """A copy of the last steps of x (reach, N, C), and after how many more the next of y is due."""
        return self._past.copy(), self._due

    def set_state(self, state: tuple[Array, int]) -> None:
        """Go on from a state in the form of `get_state`."""
        past, self._due = state
        self._past = past.copy()

    def reset(self, rows: Array | None = None) -> None:
        """Begin rows (all by default) anew. ValueError for some rows alone where the others have a step due before."""
        if rows is None:
            self._due = self._first
        elif self._due != self._first:
            raise ValueError(
                f"rows that begin anew have their next step of y after {self._first} of x, the others after "
                f"{self._due}: reset all of them"
            )
        self._past[:, slice(None) if rows is None else rows] = 0

    def take(self, rows: Array) -> WindowStream:
        """One that goes on with these rows."""
        other = WindowStream(self._function, self._past[:, rows], self._first, self._stride)
        other._due = self._due
        return other
