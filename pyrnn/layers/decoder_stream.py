"""Running a decoder token by token."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import Array, integer_array, shape_error, shape_text
from .stream import Stream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .decoder import Decoder


class DecoderStream:
    """A `Decoder` and a running state of N rows; made by `decoder.stream(vector, memory)`.

    What comes out are the bits of the decoder on the whole sequence. The recurrent layer works on its weights as they
    were when the stream was made, the other layers on theirs as they are. pyrnn.decoding takes it in the place of a
    step function. copy.copy makes a second stream that goes on from the same state.

        stream = decoder.stream(vector)
        logits = stream.step(ids_t)  # (N,) -> (N, V)
    """

    __slots__ = ("_decoder", "_first", "_lengths", "_memory", "_origin", "_rnn", "_vector")

    def __init__(
        self, decoder: Decoder, rnn: Stream[Any], vector: Array | None, memory: Array | None, lengths: Array | None
    ) -> None:
        self._decoder = decoder
        self._rnn = rnn
        self._first = rnn.state
        self._vector = vector  # (1, N, C)
        self._memory, self._lengths = memory, lengths  # (K, N, M), (N,)
        self._origin = np.arange(rnn._rows)  # the rows of the vector and the memory that it was made with

    def step(self, ids: ArrayLike) -> Array:
        """One step: ids (N,) integers -> logits (N, V).

        logits = stream.step(ids_t)
        """
        decoder = self._decoder
        x = decoder._read(self._ids("step", ids, 1)[None], self._vector, self._memory)
        logits: Array = decoder._logits(self._rnn.step(x[0])[None], self._memory, self._lengths)[0]
        return logits

    def __call__(self, ids: ArrayLike) -> Array:
        """A chunk of steps: ids (T, N) integers -> logits (T, N, V).

        logits = stream(ids)
        """
        decoder = self._decoder
        x = decoder._read(self._ids("", ids, 2), self._vector, self._memory)
        return decoder._logits(self._rnn(x), self._memory, self._lengths)

    @property
    def state(self) -> Any:
        """The recurrent layer's state now: a copy. It can be assigned."""
        return self._rnn.state

    @state.setter
    def state(self, state: Any) -> None:
        self._rnn.state = state

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Begin some rows again, all by default, with what they were made of.

        stream.reset(rows=[0, 2])
        """
        chosen = slice(None) if rows is None else self._rnn._chosen(rows)

        def begun(now: Any, first: Any) -> Any:
            if isinstance(now, tuple):
                return tuple(map(begun, now, first))
            now[:, chosen] = first[:, chosen]
            return now

        self._rnn.state = begun(self._rnn.state, self._first)

    def take(self, rows: ArrayLike) -> None:
        """Go on with these rows, in this order, repeats allowed, as in `Stream.take`.

        stream.take([0, 0, 2])
        """
        chosen = self._rnn._chosen(rows)
        self._rnn.take(chosen)
        origin = self._origin[chosen]
        if not np.array_equal(origin, self._origin):  # a search moves hypotheses about, and they share their row
            self._origin = origin
            first = self._first
            self._first = tuple(part[:, chosen] for part in first) if isinstance(first, tuple) else first[:, chosen]
            self._vector = None if self._vector is None else self._vector[:, chosen]
            self._memory = None if self._memory is None else self._memory[:, chosen]
            self._lengths = None if self._lengths is None else self._lengths[chosen]

    def __copy__(self) -> DecoderStream:
        """One that goes on from the same state."""
        new = object.__new__(DecoderStream)
        for name in self.__slots__:
            setattr(new, name, getattr(self, name))
        new._rnn = copy.copy(self._rnn)
        return new

    def __repr__(self) -> str:
        return f"{type(self._decoder).__name__}.stream(batch={self._rnn._rows})"

    def _ids(self, method: str, ids: Any, axes: int) -> Array:
        call = f"{type(self._decoder).__name__}.stream" + (f".{method}" if method else "")
        array = integer_array(call, "ids", ids)
        if array.ndim != axes or array.shape[-1] != self._rnn._rows:
            rows = self._rnn._rows
            raise shape_error(call, "ids", array.shape, shape_text(rows) if axes == 1 else shape_text("T", rows))
        return array
