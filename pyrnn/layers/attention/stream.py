"""Causal layers step by step: rows that have all seen as many steps, and self-attention over what they have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ... import kernels
from ...core import config as config_of
from ...core.checks import MOST, Array, integer, real_array, shape_error, shape_text, shown
from ...core.layout import Layout
from ..stream import chosen_rows, taken_rows
from .functional import Options, checked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .multihead import MultiheadAttention


_RUN = 1024  # keys are summed in runs of so many (key_run in csrc/attention/contract.hpp)

Self = TypeVar("Self", bound="CausalStream")


class CausalStream:
    """A causal layer and what N rows have shown it so far, all of them as many steps; made by `layer.stream(batch=N)`.

    Works on the weights as they were when it was made. A refused call leaves it as it was. copy.copy makes a second
    stream that goes on from the same steps; it can be pickled.

        stream = layer.stream(batch=3)
        y_t = stream.step(x_t)  # (3, E) -> (3, E)
    """

    def __init__(self, call: str, layer: Any, rows: int) -> None:
        self._call = call
        self._layer = layer
        self._rows = rows

    def step(self, x: ArrayLike) -> Array:
        """x (N, E) -> (N, E), or (E,) -> (E,) where N is 1. ValueError for another shape.

        y_t = stream.step(x_t)
        """
        width, rows = self._layer.embed_dim, self._rows
        array = real_array(self._call, "x", x, self._layer.dtype)
        if array.shape != (rows, width) and (rows != 1 or array.shape != (width,)):
            raise shape_error(self._call, "x", array.shape, shape_text(rows, width))
        chunk = (rows, 1, width) if self._layer.batch_first else (1, rows, width)
        return self._go(array.reshape(chunk)).reshape(array.shape)

    def __call__(self, x: ArrayLike) -> Array:
        """A chunk of steps in the layer's layout: (S, N, E) -> (S, N, E), (N, S, E) with batch_first, or (S, E) where
        N is 1. ValueError for another shape.

        y = stream(x)
        """
        layer, rows = self._layer, self._rows
        array = real_array(self._call, "x", x, layer.dtype)
        layout = Layout(layer.batch_first, batched=array.ndim != 2 or rows > 1)
        chunk = layout.steps_first(array) if array.ndim in (2, 3) else array
        if chunk.ndim != 3 or chunk.shape[1:] != (rows, layer.embed_dim):
            axes = (rows, "S") if layer.batch_first else ("S", rows)
            raise shape_error(self._call, "x", array.shape, shape_text(*axes, layer.embed_dim))
        return self._go(chunk.swapaxes(0, 1) if layer.batch_first else chunk).reshape(array.shape)

    @property
    def length(self) -> int:
        """How many steps it has seen."""
        raise NotImplementedError

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Forget all steps. rows: None, or all of them, as in `Stream.reset`; ValueError for some of them, which would
        then have seen fewer than the others.

        stream.reset()
        """
        if rows is not None and len(np.unique(chosen_rows(self._call, rows, self._rows))) < self._rows:
            raise ValueError(f"{self._call}: rows are some of the {self._rows}, expected all: they share their steps")
        self._forget()

    def take(self, rows: ArrayLike) -> None:
        """Go on with these rows, in this order: one index, several, repeats allowed, or a (N,) array of booleans. N is
        then how many they are.

        stream.take([0, 0, 2])  # a search that splits its first hypothesis and drops the second
        """
        taken = taken_rows(self._call, rows, self._rows)
        self._keep(taken)
        self._rows = len(taken)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_maps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pack()

    def __copy__(self: Self) -> Self:
        """A stream that goes on by itself from the same steps."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._keep(np.arange(self._rows))
        return other

    def __repr__(self) -> str:
        return f"{config_of.line(self._layer)}.stream(batch={self._rows})"

    def _pack(self) -> None:
        """Make of the weights what steps are made with, `_maps`."""

    def _go(self, x: Array) -> Array:
        """Some steps, (S, N, E), or (N, S, E) with batch_first."""
        raise NotImplementedError

    def _keep(self, rows: Array) -> None:
        """These rows, in arrays of its own."""
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError


class AttentionStream(CausalStream):
    """Causal self-attention of a `MultiheadAttention`, with a growing cache of keys and values: see its `stream`.
    Errors as in LayerStream.

        stream = pyrnn.MultiheadAttention(8, 2).stream(batch=3, window=(100, 0))
        y_t = stream.step(x_t)  # (N, E) -> (N, E)
    """

    def __init__(self, call: str, layer: MultiheadAttention, rows: int, options: Options) -> None:
        super().__init__(call, layer, rows)
        self._weights = {} if layer.quantized else {name: array.copy() for name, array in layer.params.items()}
        self._cache = np.empty((rows, 2 * layer.num_kv_heads, 0, layer.head_dim), layer.dtype)  # keys, then values
        query = np.empty((rows, layer.num_heads, 0, layer.head_dim), layer.dtype)
        self._bounds = checked(call, options, query, *self._parts(0)).bounds  # an error for what is wrong with them
        self._left = int(self._bounds.get("left", -1))  # of a window
        self._length = 0
        self._pack()

    def _pack(self) -> None:
        layer, weights = self._layer, self._weights
        self._maps = layer._joint(weights), layer._output(weights)
        if not layer.quantized:
            self._maps = tuple(map_.packed() for map_ in self._maps)

    @property
    def length(self) -> int:
        """How many steps it has seen."""
        return self._length

    @property
    def state(self) -> tuple[Array, Array, int]:
        """Copies of the keys and values of the steps it has seen, (N, Hk, S, d), and how many these are; with a window
        without those that no later step sees. It can be assigned."""
        key, value = self._parts(self._length - self._dropped(self._length))
        return key.copy(), value.copy(), self._length

    @state.setter
    def state(self, state: Any) -> None:
        call, layer = self._call, self._layer
        if not isinstance(state, (tuple, list)) or len(state) != 3:
            raise TypeError(f"{call}: state is {shown(state)}, expected keys, values and their number of steps")
        length = integer(call, "length of state", state[2], 0, MOST)
        expected = (self._rows, layer.num_kv_heads, length - self._dropped(length), layer.head_dim)
        parts = []
        for name, given in zip(("keys", "values"), state, strict=False):
            parts.append(real_array(call, f"{name} of state", given, layer.dtype))
            if parts[-1].shape != expected:
                raise shape_error(call, f"{name} of state", parts[-1].shape, str(expected))
        self._cache, self._length = np.concatenate(parts, axis=1), length

    def _parts(self, steps: int) -> tuple[Array, Array]:
        """So many keys and values of the cache, (N, Hk, S, d) each."""
        heads = self._layer.num_kv_heads
        return self._cache[:, :heads, :steps], self._cache[:, heads:, :steps]

    def _dropped(self, length: int) -> int:
        """Of so many steps, those that no later one sees, in whole runs: what stays keeps its place within a run, and
        results their bits."""
        return max(0, length - self._left) // _RUN * _RUN if self._left >= 0 else 0

    def _keep(self, rows: Array) -> None:
        self._cache = self._cache[rows]

    def _forget(self) -> None:
        self._length = 0

    def _go(self, x: Array) -> Array:
        layer, (joint, output) = self._layer, self._maps
        heads = layer._split(joint.forward(x), layer.num_heads + 2 * layer.num_kv_heads)
        steps = heads.shape[2]
        first = self._dropped(self._length)  # the step of the cache's first key
        before, length = self._length - first, self._length + steps
        after = length - first
        if after > self._cache.shape[2]:
            self._move(slice(before), max(2 * self._cache.shape[2], after, 64))
        self._cache[:, :, before:after] = heads[:, layer.num_heads :]
        offsets = np.empty(self._rows, np.int64)
        offsets.fill(before)
        query = heads[:, : layer.num_heads]
        mixed, _ = kernels.attention.forward(query, *self._parts(after), None, **self._bounds, offsets=offsets)
        out: Array = output.forward(mixed.reshape(x.shape) if steps == 1 else layer._mixed(mixed))
        gone = self._dropped(length) - first
        if gone:
            self._move(slice(gone, after), after - gone + _RUN)
        self._length = length
        return out

    def _move(self, steps: slice, room: int) -> None:
        """These steps of the cache to the beginning of a new one."""
        rows, heads, _, width = self._cache.shape
        stays = self._cache[:, :, steps]
        self._cache = np.zeros((rows, heads, room, width), self._cache.dtype)
        self._cache[:, :, : stays.shape[2]] = stays
