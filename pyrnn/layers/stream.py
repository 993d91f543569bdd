"""Running a layer step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import numpy as np

from ..core import config as config_of
from ..core.checks import Array, any_array, integer, integer_array, real_array, shape_error, shape_text, shown, within
from ..core.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..core.layer import Layer
    from .stack import Recurrent

StateT = TypeVar("StateT", Array, "tuple[Array, Array]", "tuple[Array, ...]")
Self = TypeVar("Self", bound="LayerStream")


class LayerStream:
    """A layer and what is kept of N rows from step to step; made by `layer.stream(batch=N)`.

    Works on the weights as they were when it was made. A refused call leaves the state as it was: TypeError for what is
    not real numbers, ValueError for a wrong shape. copy.copy makes a second stream that goes on from the same state.

        stream = pyrnn.Sequential(pyrnn.GRU(8, 16), pyrnn.Linear(16, 2)).stream(batch=3)
        y_t = stream.step(np.ones((3, 8)))  # (N, I) -> (N, O)
    """

    __slots__ = {  # with docstrings
        "_compiled": None,
        "_layer": None,
        "_rows": None,
        "step": "step(x_t) -> y_t: one step, (N, I) -> (N, O), or (I,) -> (O,) where N is 1.",
    }

    _layer: Any
    step: Callable[[ArrayLike], Any]

    def __init__(self, layer: Layer, compiled: Any, rows: int) -> None:
        self._layer = layer
        self._set(compiled, rows)

    @property
    def _inputs(self) -> int | None:
        """Features of x, None where they may be any."""
        raise NotImplementedError

    def __call__(self, x: ArrayLike) -> Array:
        """A chunk of steps, (T, N, I), (N, T, I) with batch_first, or (T, I) where N is 1 -> y alone, in the same form.
        The state is carried on.

            y = stream(x)
        """
        layer, call = self._layer, self._call
        x = real_array(call, "x", x, layer.dtype)
        layout = Layout(layer.batch_first, batched=x.ndim != 2 or self._rows > 1)
        chunk = layout.steps_first(x) if x.ndim in (2, 3) else x
        if chunk.ndim != 3 or chunk.shape[1] != self._rows or self._inputs not in (None, chunk.shape[2]):
            expected = (self._rows, "T") if layer.batch_first else ("T", self._rows)
            raise shape_error(call, "x", x.shape, shape_text(*expected, self._inputs or "F"))
        return np.ascontiguousarray(layout.back(self._compiled.run(chunk)))

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the state of some rows to what it was at first: one index, several, or a (N,) array of booleans; None is
        all of them. The rows of a `Conv1d` complete steps of y together: ValueError where these would not.

        stream.reset(rows=[0, 2])
        """
        self._compiled.reset(None if rows is None else self._chosen(rows))

    def take(self, rows: ArrayLike) -> None:
        """Go on with these rows, in this order: one index, several, repeats allowed, or a (N,) array of booleans. N is
        then how many they are. What was borrowed in Cython is to be borrowed anew.

        stream.take([0, 0, 2])  # a search that splits its first hypothesis and drops the second
        """
        taken = taken_rows(self._call, rows, self._rows)
        self._set(self._compiled.take(taken), len(taken))

    def _set(self, compiled: Any, rows: int) -> None:
        self._compiled = compiled
        self._rows = rows
        self.step = self._checked(compiled.step, rows, self._inputs)

    def _checked(self, compiled: Callable[[Array], Any], rows: int, inputs: int | None) -> Callable[[ArrayLike], Any]:
        """The step, and the slow way for what it refuses: array-likes are converted, errors are the layer's."""
        call, dtype = self._call, self._layer.dtype

        def step(x: Any) -> Any:
            try:
                return compiled(x)
            except (TypeError, ValueError):  # if x was not the reason, the second call raises it again
                pass
            x = real_array(call, "x", x, dtype)
            if x.shape != (rows, inputs) and (rows != 1 or x.shape != (inputs,)):
                raise shape_error(call, "x", x.shape, f"({rows}, {inputs})" + (f" or ({inputs},)" if rows == 1 else ""))
            return compiled(x)

        return step

    def _chosen(self, rows: Any) -> Array:
        return chosen_rows(self._call, rows, self._rows)

    def __copy__(self: Self) -> Self:
        """One that goes on from the same state, on the same packed weights."""
        return type(self)(self._layer, self._compiled.take(np.arange(self._rows)), self._rows)

    def __deepcopy__(self: Self, memo: Any) -> Self:
        return self.__copy__()

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{self._call}: a stream cannot be pickled; its state can, and layer.stream({self._rows}, "
                        "state=state) goes on from there")  # fmt: skip

    def __repr__(self) -> str:
        return f"{config_of.line(self._layer)}.stream(batch={self._rows})"

    @property
    def _call(self) -> str:
        return f"{type(self._layer).__name__}.stream"


def chosen_rows(call: str, rows: Any, count: int) -> Array:
    """The indices of some of `count` rows: one index, several, or booleans."""
    array = any_array(call, "rows", rows)
    if array.dtype == np.bool_ and array.shape == (count,):
        array = np.flatnonzero(array)
    else:
        array = integer_array(call, "rows", rows)
    if array.ndim > 1:
        raise shape_error(call, "rows", array.shape, "one axis")
    return within(call, "rows", array.reshape(-1), count - 1)


def taken_rows(call: str, rows: Any, count: int) -> Array:
    """The same of those to go on with, of which there is at least one."""
    taken = chosen_rows(call, rows, count)
    if not len(taken):
        raise ValueError(f"{call}: rows is empty, expected at least one")
    return taken


class Stream(LayerStream, Generic[StateT]):
    """A recurrent layer and a running state of N rows; made by `layer.stream(batch=N)`.

    Works on the weights as they were when it was made. A refused call leaves the state as it was: TypeError for what is
    not real numbers, ValueError for a wrong shape. copy.copy makes a second stream that goes on from the same state.

        stream = layer.stream(batch=3)
        y_t = stream.step(x_t)  # (N, I) -> (N, H)
    """

    __slots__ = ()

    _layer: Recurrent[StateT]
    step: Callable[[ArrayLike], Array]

    @property
    def _inputs(self) -> int:
        return self._layer.input_size

    @property
    def state(self) -> StateT:
        """The state now: a copy, h (L, N, H), for the LSTM (h, c). It can be assigned, (L, H) too where N is 1."""
        state: Any = self._compiled.get_state()
        result: StateT = state if len(state) > 1 else state[0]
        return result

    @state.setter
    def state(self, state: Any) -> None:
        count = len(self._layer._cell.states)
        several = count > 1 and isinstance(state, (tuple, list)) and len(state) == count
        h = any_array(self._call, "state", state[0] if several else state)
        rows = None if self._rows == 1 and h.ndim == 2 else self._rows
        self._compiled.set_state(tuple(self._layer._parts(self._call, "state", state, rows)))


class ConvStream(LayerStream):
    """A `Conv1d` and the last steps that N rows have been given; made by `layer.stream(batch=N)`.

    `step` gives None where it completes no step of y, a chunk the steps that it completes, perhaps none. Works on the
    weights as they were when it was made. A refused call leaves the state as it was, errors as in LayerStream.
    copy.copy makes a second stream that goes on from the same state.

        stream = layer.stream(batch=3)
        y_t = stream.step(x_t)  # (N, C) -> (N, O), or None
    """

    __slots__ = ()

    @property
    def _inputs(self) -> int | None:
        inputs: int = self._layer.in_channels
        return inputs

    @property
    def state(self) -> tuple[Array, int]:
        """Copies of the last steps of x that a later step of y may need, (steps, N, C), and after how many more the
        next of y is due. It can be assigned, (steps, C) too where N is 1."""
        state: tuple[Array, int] = self._compiled.get_state()
        return state

    @state.setter
    def state(self, state: Any) -> None:
        call, layer, before = self._call, self._layer, self._compiled.get_state()[0]
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{call}: state is {shown(state)}, expected a pair (past, due)")
        past = real_array(call, "past of state", state[0], layer.dtype)
        past = past[:, None] if self._rows == 1 and past.ndim == 2 else past
        if past.ndim != 3 or past.shape[:2] != before.shape[:2] or self._inputs not in (None, past.shape[2]):
            raise shape_error(call, "past of state", past.shape, shape_text(*before.shape[:2], self._inputs or "F"))
        due = integer(call, "due of state", state[1], 1, max(len(before) + 1, layer.stride))
        self._compiled.set_state((past, due))
