"""Running a recurrent layer step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import numpy as np

from ..core import config as config_of
from ..core.checks import Array, any_array, integer_array, real_array, shape_error, within
from ..core.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .stack import Recurrent

StateT = TypeVar("StateT", Array, "tuple[Array, Array]", "tuple[Array, ...]")


class Stream(Generic[StateT]):
    """A layer and a running state of N rows; made by `layer.stream(batch=N)`.

    Works on the weights as they were when it was made. A refused call leaves the state as it was. copy.copy makes a
    second stream that goes on from the same state.

        stream = layer.stream(batch=3)
        y_t = stream.step(x_t)  # (3, I) -> (3, H)
    """

    __slots__ = {  # with docstrings
        "_compiled": None,
        "_layer": None,
        "_rows": None,
        "step": "step(x_t) -> y_t: one step, (N, I) -> (N, H), or (I,) -> (H,) where N is 1.",
    }

    _layer: Recurrent[StateT]
    step: Callable[[ArrayLike], Array]

    def __init__(self, layer: Recurrent[StateT], compiled: Any, rows: int) -> None:
        self._layer = layer
        self._set(compiled, rows)

    def __call__(self, x: ArrayLike) -> Array:
        """A chunk of steps, (T, N, I), (N, T, I) with batch_first, or (T, I) where N is 1 -> y alone, like x with H
        features. The state is carried on.

            y = stream(x)
        """
        layer, call = self._layer, self._call
        x = real_array(call, "x", x, layer.dtype)
        layout = Layout(layer.batch_first, batched=x.ndim != 2 or self._rows > 1)
        chunk = layout.steps_first(x) if x.ndim in (2, 3) else x
        if chunk.ndim != 3 or chunk.shape[1:] != (self._rows, layer.input_size):
            expected = (self._rows, "T") if layer.batch_first else ("T", self._rows)
            raise shape_error(call, "x", x.shape, f"({expected[0]}, {expected[1]}, {layer.input_size})")
        return np.ascontiguousarray(layout.back(self._compiled.run(chunk)))

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

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the state of some rows to zero: one index, several, or a (N,) array of booleans; None is all of them.

        stream.reset(rows=[0, 2])
        """
        self._compiled.reset(None if rows is None else self._chosen(rows))

    def take(self, rows: ArrayLike) -> None:
        """Go on with these rows, in this order: one index, several, repeats allowed, or a (N,) array of booleans. N is
        then how many they are. What was borrowed in Cython stays the stream of before.

        stream.take([0, 0, 2])  # a search that splits its first hypothesis and drops the second
        """
        chosen = self._chosen(rows)
        self._set(self._compiled.take(chosen), len(chosen))

    def _set(self, compiled: Any, rows: int) -> None:
        self._compiled = compiled
        self._rows = rows
        self.step = _step(compiled.step, self._layer, rows)

    def _chosen(self, rows: Any) -> Array:
        array = any_array(self._call, "rows", rows)
        if array.dtype == np.bool_ and array.shape == (self._rows,):
            array = np.flatnonzero(array)
        else:
            array = integer_array(self._call, "rows", rows)
        if array.ndim > 1:
            raise shape_error(self._call, "rows", array.shape, "one axis")
        return within(self._call, "rows", array.reshape(-1), self._rows - 1)

    def __copy__(self) -> Stream[StateT]:
        """One that goes on from the same state, on the same packed weights."""
        return Stream(self._layer, self._compiled.take(np.arange(self._rows)), self._rows)

    def __deepcopy__(self, memo: Any) -> Stream[StateT]:
        return self.__copy__()

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{self._call}: a stream cannot be pickled; its state can, and layer.stream({self._rows}, "
                        "state=state) goes on from there")  # fmt: skip

    def __repr__(self) -> str:
        return f"{config_of.line(self._layer)}.stream(batch={self._rows})"

    @property
    def _call(self) -> str:
        return f"{type(self._layer).__name__}.stream"


def _step(compiled: Callable[[Array], Array], layer: Recurrent[Any], rows: int) -> Callable[[ArrayLike], Array]:
    """The compiled step, and the slow way for what it refuses: array-likes are converted, errors are the layer's."""
    call, dtype, inputs = f"{type(layer).__name__}.stream", layer.dtype, layer.input_size

    def step(x: Any) -> Array:
        try:
            return compiled(x)
        except (TypeError, ValueError):  # if x was not the reason, the second call raises it again
            pass
        x = real_array(call, "x", x, dtype)
        if x.shape != (rows, inputs) and (rows != 1 or x.shape != (inputs,)):
            raise shape_error(call, "x", x.shape, f"({rows}, {inputs})" + (f" or ({inputs},)" if rows == 1 else ""))
        return compiled(x)

    return step
