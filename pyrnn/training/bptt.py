"""Truncated backpropagation through time: gradients of long sequences, a window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import MOST, any_array, integer, lengths_array
from ..core.pullback import Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..core.checks import Array


def truncated_bptt(
    layer: Any, x: ArrayLike, k1: int, k2: int, state: Any = None, *, lengths: ArrayLike | None = None
) -> Iterator[tuple[slice, Array, Callable[[ArrayLike], None]]]:
    """Every `k1` steps the error of these steps, sent back through the last `k2`: Williams and Peng 1990, BPTT(k2; k1).

    layer    a recurrent layer, or a model with such a vjp: (y, state), pullback = layer.vjp(x, state). Where k2 > k1
             the pullback takes a gradient of the state too and returns that of the first one, as recurrent layers do
    x        (T, N, ...), or (N, T, ...) with the layer's batch_first
    k1, k2   steps between two updates, and steps that an error goes back at most; k1 <= k2
    lengths  (N,) integers in 0..T, passed on to the layer for what of each row is in the window

    Yields steps, y and pullback: the next k1 steps as a slice, the outputs there, and pullback(dy), which adds to the
    layer's gradients and can be called once. Weights may change in between; the state is carried on, and no gradient
    crosses the start of a window. k1 = k2 is the usual cut into pieces; k1 = k2 = T is exact. A step is computed, and
    sent back through, about k2 / k1 times. TypeError and ValueError for what does not fit.

        for steps, y, pullback in pyrnn.truncated_bptt(layer, x, k1=10, k2=30):
            layer.zero_grad()
            loss, dy = pyrnn.mean_squared_error(y, targets[steps])
            pullback(dy)
            adam.step()
    """
    call = "truncated_bptt"
    k1, k2 = integer(call, "k1", k1, 1, MOST), integer(call, "k2", k2, 1, MOST)
    if k2 < k1:
        raise ValueError(f"{call}: k2 is {k2}, expected at least k1 {k1}: errors of {k1} steps go back {k2}")
    if getattr(layer, "bidirectional", False):
        raise ValueError(f"{call}: a bidirectional layer's state flows both ways, a window cannot hand it to the next")
    axis = 1 if getattr(layer, "batch_first", False) else 0
    array = any_array(call, "x", x)
    if array.ndim < 2:
        raise ValueError(f"{call}: x has shape {array.shape}, expected steps and rows")
    if lengths is not None:
        lengths = lengths_array(call, lengths, array.shape[axis], array.shape[1 - axis])
    return _windows(layer, array, k1, k2, state, lengths, axis)


def _windows(
    layer: Any, x: Array, k1: int, k2: int, state: Any, lengths: Array | None, axis: int
) -> Iterator[tuple[slice, Array, Callable[[ArrayLike], None]]]:
    total, start = x.shape[axis], 0

    def run(first: int, stop: int, state: Any) -> tuple[list[Array], Any, list[Any]]:
        """Outputs, state and pullback of these steps; nothing where there are none."""
        if first == stop:
            return [], state, []
        own = {} if lengths is None else {"lengths": np.clip(lengths - first, 0, stop - first)}
        (y, state), pull = layer.vjp(x[first:stop] if axis == 0 else x[:, first:stop], state, **own)
        return [y], state, [pull]

    for new in range(0, total, k1):
        end = min(new + k1, total)
        following = min(max(0, new + 2 * k1 - k2), end)  # the start of the next window, where its state is needed
        before, state, pulls = run(start, following, state)
        after, _, later = run(following, end, state)
        y = np.concatenate([*before, *after], axis=axis)
        yield (
            slice(new, end),
            np.split(y, [new - start], axis)[1],
            _back([*pulls, *later], y, new - start, following - start, axis),
        )
        start = following


def _back(pulls: list[Any], y: Array, new: int, cut: int, axis: int) -> Pullback[list[Any], None]:
    """The pullback of a window of one or two pieces, the second from `cut` on, for the outputs from `new` on."""
    shape, dtype = y.shape, y.dtype

    def back(dy: Array, pulls: list[Any]) -> None:
        padded = np.zeros(shape, dtype)
        np.split(padded, [new], axis)[1][...] = dy
        if len(pulls) == 1:
            pulls.pop()(padded)
        else:
            first, second = np.split(padded, [cut], axis)
            _, dstate = pulls.pop()(second)
            pulls.pop()(first, dstate)

    return Pullback("truncated_bptt pullback", np.split(y, [new], axis)[1], pulls, back)
