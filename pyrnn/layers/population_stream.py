"""Running the models of a population step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import Array, any_array, integer_array, real_array, shape_error, shaped_array, shown, within
from .axis_of_models import stacked
from .sequential import Sequential

if TYPE_CHECKING:
    from .population import Population


class PopulationStream:
    """The models of a `Population` one step at a time, each with running states of N rows; made by
    `many.stream(batch=N)`.

    What comes out of model k are the bits of many[k].stream(N). Recurrent layers work on their weights as they were
    when the stream was made. A refused call leaves the states as they were. copy.copy makes a second stream that goes
    on from the same states.

        stream = many.stream(batch=3)
        y_t = stream.step(x_t)  # (P, 3, I) -> (P, 3, H)
    """

    __slots__ = ("_many", "_parts", "_rows")

    def __init__(self, many: Population, parts: Sequence[Any], rows: int) -> None:
        self._many = many
        self._parts = list(parts)
        self._rows = rows

    def step(self, x: Any) -> Any:
        """One step: x (P, N, I), or (N, I) for all models -> (P, N, O); ids without the last axis. Where N is 1, (P, I)
        -> (P, O), too.

        y_t = stream.step(x_t)
        """
        x, axes = self._many._array(self._call, x)
        count, rows = self._many.size, self._rows
        lead = x.shape[: x.ndim - axes + 2]  # without features
        one = rows == 1 and len(lead) == 1 and len(x) == count
        if one:
            x = x[:, None]
        elif lead == (rows,):
            x = np.broadcast_to(x, (count, *x.shape))
        elif lead != (count, rows):
            features = ", ..." if axes == 3 else ""
            raise shape_error(self._call, "x", x.shape, f"({count}, {rows}{features}) or ({rows}{features or ','})")
        y = self._run("step", x)
        return y[:, 0] if one and y is not None else y

    def __call__(self, x: Any) -> Any:
        """A chunk of steps, in the form of the population's call -> what that would give, without states. The states
        are carried on.

        y = stream(x)
        """
        return self._run("chunk", self._many._of_all(self._call, x)[0])

    def _run(self, method: str, x: Any) -> Any:
        def run() -> Any:
            y = x
            for part in self._parts:
                y = getattr(part, method)(self._call, y)
                if y is None:  # a Conv1d that completes no step
                    break
            return y

        return self._all_or_nothing(run)

    @property
    def state(self) -> Any:
        """Copies of the states: (P, L, N, H), for an LSTM a pair; of a `Sequential` a tuple, one for each layer that
        has one. It can be assigned."""
        states = tuple(part.get_state() for part in self._stateful())
        return states[0] if self._alone() else states

    @state.setter
    def state(self, state: Any) -> None:
        parts = self._stateful()
        states = (state,) if self._alone() else state
        if not isinstance(states, (tuple, list)) or len(states) != len(parts):
            raise TypeError(f"{self._call}: state is {shown(state)}, expected a tuple of {len(parts)}, one for each "
                            "layer that has one")  # fmt: skip

        def assign() -> None:
            for part, own in zip(parts, states, strict=True):
                part.set_state(self._call, own)

        self._all_or_nothing(assign)

    def reset(self, rows: Any = None) -> None:
        """Set the states of some rows of all models to what they were at first, as in `Stream.reset`.

        stream.reset(rows=[0, 2])
        """
        chosen = None if rows is None else self._chosen(rows)

        def reset() -> None:
            for part in self._stateful():
                part.reset(chosen)

        self._all_or_nothing(reset)

    def take(self, rows: Any) -> None:
        """Go on with these rows of each model, as in `Stream.take`.

        stream.take([0, 0, 2])
        """
        chosen = self._chosen(rows)
        if not len(chosen):
            raise ValueError(f"{self._call}: rows is empty, expected at least one")
        self._parts = [part.taken(chosen) for part in self._parts]
        self._rows = len(chosen)

    def __copy__(self) -> PopulationStream:
        """One that goes on from the same states."""
        rows = np.arange(self._rows)
        return PopulationStream(self._many, [part.taken(rows) for part in self._parts], self._rows)

    def __repr__(self) -> str:
        return f"{self._call}(batch={self._rows})"

    def _chosen(self, rows: Any) -> Array:
        array = any_array(self._call, "rows", rows)
        if array.dtype == np.bool_ and array.shape == (self._rows,):
            return np.flatnonzero(array)
        array = integer_array(self._call, "rows", rows)
        if array.ndim > 1:
            raise shape_error(self._call, "rows", array.shape, "one axis")
        return within(self._call, "rows", array.reshape(-1), self._rows - 1)

    @property
    def _call(self) -> str:
        return "Population.stream"

    def _alone(self) -> bool:
        """Whether it is one layer, whose state is not in a tuple of its own."""
        return not isinstance(self._many._models[0], Sequential)

    def _stateful(self) -> list[Any]:
        return [part for part in self._parts if not isinstance(part, ByStep)]

    def _all_or_nothing(self, act: Callable[[], Any]) -> Any:
        parts = self._stateful()
        if len(parts) == 1 and isinstance(parts[0], RecurrentStream):  # that is whole by itself
            return act()
        before = self.__copy__()._parts
        try:
            return act()
        except BaseException:
            self._parts = before
            raise


class ByStep:
    """Layers that see one step at a time anyhow."""

    def __init__(self, models: Any) -> None:
        self.models = models

    def step(self, call: str, x: Array) -> Any:
        """Of all models."""
        return self.models.forward(call, x)

    chunk = step

    def taken(self, rows: Array) -> ByStep:
        """It keeps nothing."""
        return self


class RecurrentStream:
    """A recurrent layer of all models."""

    def __init__(self, models: Any, compiled: Any) -> None:
        self.models, self.compiled = models, compiled

    def step(self, call: str, x: Array) -> Array:
        """(P, N, I) -> (P, N, H)."""
        layer = self.models.layer
        x = real_array(call, "x", x, layer.dtype) if x.dtype != layer.dtype else x
        if x.shape[2] != layer.input_size:
            raise shape_error(call, "x", x.shape, f"(..., {layer.input_size})")
        y: Array = self.compiled.step(x)
        return y

    def chunk(self, call: str, x: Array) -> Array:
        """(P, T, N, I) -> (P, T, N, H)."""
        x, _, _ = self.models._inputs(call, x, None)
        return np.ascontiguousarray(self.models._steps_first(self.compiled.run(x)))

    def get_state(self) -> Any:
        """(P, L, N, H), or a tuple of such."""
        state = self.compiled.get_state()
        return state if len(state) > 1 else state[0]

    def set_state(self, call: str, state: Any) -> None:
        """As it came out; of its rows there are as many as before."""
        layer, now = self.models.layer, self.compiled.get_state()
        given = (state,) if len(now) == 1 else state
        if not isinstance(given, (tuple, list)) or len(given) != len(now):
            raise TypeError(f"{call}: state is {shown(state)}, expected a tuple of {len(now)}")
        named = zip(layer._cell.states, given, now, strict=True)
        self.compiled.set_state(
            tuple(shaped_array(call, f"{name} of state", value, layer.dtype, own.shape) for name, value, own in named)
        )

    def reset(self, rows: Array | None) -> None:
        """To zero."""
        self.compiled.reset(rows)

    def taken(self, rows: Array) -> RecurrentStream:
        """A stream of these rows."""
        return RecurrentStream(self.models, self.compiled.take(rows))


class StreamsOneByOne:
    """A stream of each model."""

    def __init__(self, streams: Sequence[Any]) -> None:
        self.streams = list(streams)

    def step(self, call: str, x: Array) -> Any:
        """Of one model after the other."""
        return stacked([stream.step(own) for stream, own in zip(self.streams, x, strict=True)])

    def chunk(self, call: str, x: Array) -> Any:
        """Of one model after the other."""
        return stacked([stream(own) for stream, own in zip(self.streams, x, strict=True)])

    def get_state(self) -> list[Any]:
        """Of each model as its own stream gives it."""
        return [stream.state for stream in self.streams]

    def set_state(self, call: str, state: Any) -> None:
        """As it came out."""
        if not isinstance(state, (tuple, list)) or len(state) != len(self.streams):
            raise TypeError(f"{call}: state is {shown(state)}, expected a list of {len(self.streams)}")
        for stream, own in zip(self.streams, state, strict=True):
            stream.state = own

    def reset(self, rows: Array | None) -> None:
        """As the models' own."""
        for stream in self.streams:
            stream.reset(rows)

    def taken(self, rows: Array) -> StreamsOneByOne:
        """Streams of these rows."""
        streams = [copy.copy(stream) for stream in self.streams]
        for stream in streams:
            stream.take(rows)
        return StreamsOneByOne(streams)
