"""Running a chain of layers step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.checks import Array, shown
from ..core.layer import Layer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

R = TypeVar("R")


class ChainStream:
    """The layers of a `Sequential` one step at a time, with the running states of N rows of all that have one; made by
    `model.stream(batch=N)`.

    What comes out are the bits of the model on the whole sequence; None where a `Conv1d` completes no step: the layers
    behind it then see none. Recurrent layers and `Conv1d` work on their weights as they were when the stream was made,
    the others on theirs as they are. Errors as in LayerStream.

        stream = model.stream(batch=3)
        y_t = stream.step(x_t)  # (N, I) -> (N, O)
    """

    __slots__ = ("_call", "_parts", "_rows", "_steps")

    def __init__(self, call: str, parts: Sequence[Any], rows: int) -> None:
        self._call = call
        self._parts = list(parts)  # streams, and layers that see one step at a time anyhow
        self._rows = rows
        self._find_steps()

    def _find_steps(self) -> None:
        self._steps = [part if isinstance(part, Layer) else part.step for part in self._parts]

    def step(self, x: ArrayLike) -> Any:
        """One step, (N, ...) -> (N, ...), as the first layer takes it and the last one gives it; (I,) -> (O,) where N
        is 1. None where it completes none.

            y_t = stream.step(x_t)
        """
        return self._run(self._steps, x)

    def __call__(self, x: ArrayLike) -> Array:
        """A chunk of steps, in the layout of the model -> what the model would give. The states are carried on; of a
        call that fails they are as before.

            y = stream(x)
        """

        result: Array = self._all_or_nothing(lambda: self._run(self._parts, x))
        return result

    def _run(self, parts: Sequence[Any], x: Any) -> Any:
        """x through the parts, one after the other."""
        for part in parts:
            x = part(x)
            if x is None:
                break
        return x

    @property
    def state(self) -> tuple[Any, ...]:
        """Copies of the states, one for each layer that has one, as its own stream gives it. It can be assigned."""
        return tuple(stream.state for stream in self._streams())

    @state.setter
    def state(self, state: Any) -> None:
        streams = self._streams()
        if not isinstance(state, (tuple, list)) or len(state) != len(streams):
            raise TypeError(f"{self._call}: state is {shown(state)}, expected a tuple of {len(streams)}, one for each "
                            "layer that has one")  # fmt: skip

        def assign() -> None:
            for stream, own in zip(streams, state, strict=True):
                stream.state = own

        self._all_or_nothing(assign)

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the states of some rows to what they were at first, as in `Stream.reset`.

        stream.reset(rows=[0, 2])
        """

        def reset() -> None:
            for stream in self._streams():
                stream.reset(rows)

        self._all_or_nothing(reset)

    def take(self, rows: ArrayLike) -> None:
        """Go on with these rows, as in `Stream.take`.

        stream.take([0, 0, 2])
        """
        for stream in self._streams():
            stream.take(rows)
            self._rows = stream._rows
        self._find_steps()

    def __copy__(self) -> ChainStream:
        """One that goes on from the same states."""
        return ChainStream(self._call, self._copied(), self._rows)

    def _copied(self) -> list[Any]:
        return [part if isinstance(part, Layer) else copy.copy(part) for part in self._parts]

    def __repr__(self) -> str:
        return f"{self._call}(batch={self._rows})"

    def _streams(self) -> list[Any]:
        return [part for part in self._parts if not isinstance(part, Layer)]

    def _all_or_nothing(self, act: Callable[[], R]) -> R:
        before = self.state
        try:
            return act()
        except BaseException:
            for stream, own in zip(self._streams(), before, strict=True):
                stream.state = own
            raise
