"""A recurrent layer that begins with a state which is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import Array, Rng, real_array, shown
from ..core.config import made
from ..core.layer import Layer
from ..core.layout import Layout
from ..core.model import Model
from ..core.parameters import unrecorded, without_recording
from .stack import Recurrent
from .stream import Stream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class LearnedState(Model):
    """A recurrent layer, and the state with which it begins where none is given: parameters instead of zeros.

    Parameters: those of the layer, "layer.weight_ih_l0" and so on, and "start.h" (L*D, H), for the LSTM "start.c" too,
    zeros at first. They are the first state of every row. rng is for the layer where it was made without one. TypeError
    for what is no recurrent layer.

        layer = pyrnn.LearnedState(pyrnn.LSTM(1, 8, rng=0))
        y, (h, c) = layer(np.ones((5, 3, 1)))  # (T, N, I) -> (T, N, H), ((1, N, H), (1, N, H))
    """

    _has_stream = True
    _features = ("layer.input_size", "layer._outputs")

    def __init__(self, layer: Any, *, rng: Rng = None) -> None:
        super().__init__(rng=rng)
        layer = made(type(self).__name__, "layer", layer)
        if not isinstance(layer, Recurrent):
            raise TypeError(f"{type(self).__name__}: layer is {shown(layer)}, expected a recurrent layer")
        self.layer = layer
        self.start = Start(layer)

    def __call__(self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None) -> tuple[Array, Any]:
        """y, state, as the layer gives them; without `state` from the learned one.

        y, state = layer(x)
        """
        x, first = self._first("", x, state)
        result: tuple[Array, Any] = self.layer(x, first, lengths=lengths)
        return result

    def vjp(
        self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Array, Any], Callable[..., tuple[Array, Any]]]:
        """(y, state), pullback, as of the layer. dx, dstate = pullback(dy, dstate) adds to `grads`, where `state` was
        not given to those of the learned one, the sum over the rows; dstate is then None.

        (y, state), pullback = layer.vjp(x)
        dx, _ = pullback(y - target)
        """
        x, first = self._first(".vjp", x, state)
        result, pull = self.layer.vjp(x, first, lengths=lengths)
        if without_recording.get():
            return result, unrecorded

        def pullback(dy: ArrayLike | None, dstate: Any = None) -> tuple[Array, Any]:
            dx, dfirst = pull(dy, dstate)
            if state is not None:
                return dx, dfirst
            for name, part in zip(self.start._shapes, dfirst if isinstance(dfirst, tuple) else (dfirst,), strict=True):
                rows = part if part.ndim == 2 else np.sum(part, axis=1, dtype=np.float64)
                self.start.grads[name] += rows.astype(part.dtype)
            return dx, None

        return result, pullback

    def _rows_first(self) -> bool | None:
        return self.layer._rows_first()

    def stream(self, batch: int = 1, state: Any = None) -> Stream[Any]:
        """A `Stream` of `batch` rows that begins with the learned state, and goes back to it where it is reset.

        stream = layer.stream()
        y_t = stream.step(x_t)
        """
        stream = self.layer.stream(batch, state)
        begun: Stream[Any] = StartedStream(self.layer, stream._compiled, stream._rows, self.start.parts())
        if state is None:
            begun.reset()
        return begun

    def _first(self, suffix: str, x: Any, state: Any) -> tuple[Array, Any]:
        """x as an array, and the state with which its rows begin."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.layer.dtype)
        if state is not None:
            return array, state
        layout = Layout.of(call, "x", array.shape, self.layer.batch_first, (self.layer.input_size,))
        rows = layout.steps_first(array).shape[1]
        parts = [np.repeat(part[:, None], rows, axis=1) if layout.batched else part for part in self.start.parts()]
        return array, tuple(parts) if len(parts) > 1 else parts[0]


class Start(Layer):
    """The first state of a layer: its parameters."""

    def __init__(self, layer: Recurrent[Any]) -> None:
        names = layer._cell.states
        super().__init__(layer.dtype, {name: (layer._count, n) for name, n in zip(names, layer._widths, strict=True)})

    def parts(self) -> list[Array]:
        """Copies, each (L*D, H)."""
        return [part.copy() for part in self._params.values()]


class StartedStream(Stream[Any]):
    """A `Stream` that goes back to the learned state of its layer, as that was when it was made."""

    __slots__ = ("_start",)

    def __init__(self, layer: Recurrent[Any], compiled: Any, rows: int, start: Sequence[Array]) -> None:
        self._start = start
        super().__init__(layer, compiled, rows)

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the state of some rows to the learned one, as in `Stream.reset`.

        stream.reset(rows=[0, 2])
        """
        chosen = slice(None) if rows is None else self._chosen(rows)
        parts = self._compiled.get_state()
        for part, start in zip(parts, self._start, strict=True):
            part[:, chosen] = start[:, None]
        self._compiled.set_state(tuple(parts))

    def __copy__(self) -> StartedStream:
        """One that goes on from the same state, on the same packed weights."""
        return StartedStream(self._layer, self._compiled.take(np.arange(self._rows)), self._rows, self._start)
