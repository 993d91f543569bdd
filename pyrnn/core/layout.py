"""How a caller's sequences lie in memory, and which of their steps are valid."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .checks import Array, integer_array, lengths_array, shape_error, shape_text


class Layout(NamedTuple):
    """(T, N, ...), (N, T, ...) with batch_first, or unbatched (T, ...). What computes sees (T, N, ...).

    layout = Layout.of("LSTM", "x", x.shape, False, (8,))
    y = layout.back(compute(layout.steps_first(x)))
    """

    batch_first: bool
    batched: bool

    @classmethod
    def of(
        cls,
        call: str,
        name: str,
        shape: tuple[int, ...],
        batch_first: bool,
        width: tuple[int | str, ...],
        steps: str = "T",
    ) -> Layout:
        """That of an array with axes `width` behind those of steps and rows, numbers or letters; `steps` is a letter.
        ValueError for another shape, in the name of `call`."""
        axes = len(shape) - len(width)
        if axes in (1, 2) and shape[axes:] == width:  # as most are, told fast
            return cls(batch_first, axes == 2)
        wrong = any(isinstance(n, int) and n != came for n, came in zip(width, shape[axes:], strict=axes >= 0))
        if axes not in (1, 2) or wrong:
            unbatched, batched = (shape_text(*cls(batch_first, n).shape(steps, "N", *width)) for n in (False, True))
            raise shape_error(call, name, shape, {1: unbatched, 2: batched}.get(axes, f"{batched} or {unbatched}"))
        return cls(batch_first, axes == 2)

    def steps_first(self, x: Array) -> Array:
        """The caller's array as (T, N, ...), a view."""
        return x[:, None] if not self.batched else x.swapaxes(0, 1) if self.batch_first else x

    def back(self, x: Array) -> Array:
        """(T, N, ...) as the caller's array, a view."""
        return x[:, 0] if not self.batched else x.swapaxes(0, 1) if self.batch_first else x

    def text(self, *width: int | str) -> str:
        """The shape of the caller's array in letters."""
        return shape_text(*self.shape("T", "N", *width))

    def shape(self, steps: Any, rows: Any, *width: Any) -> tuple[Any, ...]:
        """Of the caller's array, in numbers or letters."""
        return (*((steps,) if not self.batched else (rows, steps) if self.batch_first else (steps, rows)), *width)

    def lengths(self, call: str, lengths: Any, steps: int, rows: int) -> Array:
        """The caller's valid steps of each row, (N,), of one integer where there is one row alone; errors as those of
        `lengths_array`."""
        return lengths_array(call, lengths, steps, rows if self.batched else None)


def valid_steps(steps: int, rows: int, lengths: Array | None) -> Array:
    """Which steps of each row are valid: (T, N) booleans; lengths (N,), one integer, or None for all."""
    return np.broadcast_to(np.arange(steps)[:, None] < (steps if lengths is None else lengths), (steps, rows))


def output_steps(call: str, lengths: Any, reach: int, stride: int, zeros: int = 0) -> Any:
    """How many windows of reach + 1 steps, `stride` apart, there are in so many steps with `zeros` more around them; in
    no steps none. An integer for an integer, else an array."""
    given = integer_array(call, "lengths", lengths)
    if given.size and given.min() < 0:
        raise ValueError(f"{call}: lengths holds {given.min()}, expected at least 0")
    counts = np.where(given == 0, 0, np.maximum((given + (zeros - reach - 1)) // stride + 1, 0))
    return counts if counts.ndim else int(counts)
