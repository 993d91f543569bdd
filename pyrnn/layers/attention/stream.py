"""Causal self-attention step by step, over a growing cache of keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core import config as config_of
from ...core.checks import Array, real_array, shape_error, shape_text
from .functional import Options, checked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .multihead import MultiheadAttention


_RUN = 1024  # keys are summed in runs of so many (key_run in csrc/attention/contract.hpp)


class AttentionStream:
    """Causal self-attention of a `MultiheadAttention`, step by step: see its `stream`."""

    def __init__(self, layer: MultiheadAttention, batch: int, options: Options) -> None:
        self._layer = layer
        self._weights = {} if layer.quantized else {name: array.copy() for name, array in layer.params.items()}
        self._batch = batch
        self._options = options
        self._cache = np.empty((2, batch, layer.num_kv_heads, 0, layer.head_dim), layer.dtype)
        query = np.empty((batch, layer.num_heads, 0, layer.head_dim), layer.dtype)
        checked(f"{type(layer).__name__}.stream", options, query, *self._cache)  # what is wrong with them
        self._length = 0
        self._first = 0  # the step of the cache's first key

    def __copy__(self) -> AttentionStream:
        """A stream that goes on by itself from the same steps."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), _cache=self._cache.copy())
        return other

    def __repr__(self) -> str:
        return f"{config_of.line(self._layer)}.stream(batch={self._batch})"

    @property
    def length(self) -> int:
        """How many steps it has seen."""
        return self._length

    def step(self, x: ArrayLike) -> Array:
        """x (N, E) -> (N, E), or (E,) -> (E,) where N is 1. ValueError for another shape.

        out_t = stream.step(x_t)
        """
        layer = self._layer
        call = "AttentionStream.step"
        array = real_array(call, "x", x, layer.dtype)
        single = array.ndim == 1 and self._batch == 1
        if array.shape != ((layer.embed_dim,) if single else (self._batch, layer.embed_dim)):
            raise shape_error(call, "x", array.shape, shape_text(self._batch, layer.embed_dim))
        array = array.reshape(self._batch, layer.embed_dim)
        out = self._attend(call, array[:, None] if layer.batch_first else array[None])
        return out.reshape(layer.embed_dim) if single else out.reshape(self._batch, layer.embed_dim)

    def __call__(self, x: ArrayLike) -> Array:
        """A chunk of steps in the layer's layout: (S, N, E) -> (S, N, E), (N, S, E) with `batch_first`, or (S, E) where
        N is 1. ValueError for another shape.

        out = stream(x)
        """
        layer = self._layer
        call = "AttentionStream"
        array = real_array(call, "x", x, layer.dtype)
        single = array.ndim == 2 and self._batch == 1
        rows = 0 if layer.batch_first else 1
        if array.shape[-1:] != (layer.embed_dim,) or not (
            single or (array.ndim == 3 and array.shape[rows] == self._batch)
        ):
            axes = (self._batch, "S") if layer.batch_first else ("S", self._batch)
            raise shape_error(call, "x", array.shape, shape_text(*axes, layer.embed_dim))
        out = self._attend(call, layer._with_batch(array) if single else array)
        return layer._without_batch(out) if single else out

    def reset(self) -> None:
        """Forget all steps."""
        self._length = self._first = 0

    def _attend(self, call: str, x: Array) -> Array:
        layer, weights = self._layer, self._weights
        query, key, value = layer._projected((x, x, x), weights)
        before = self._length - self._first
        after = before + query.shape[2]
        cache = self._cache
        if after > cache.shape[3]:
            shape = (*cache.shape[:3], max(2 * cache.shape[3], after, 64), cache.shape[4])
            cache = np.zeros(shape, cache.dtype)
            cache[:, :, :, :before] = self._cache[:, :, :, :before]
        cache[0, :, :, before:after] = key
        cache[1, :, :, before:after] = value
        now = self._options._replace(q_offset=before)
        attend = checked(call, now, query, cache[0, :, :, :after], cache[1, :, :, :after])
        heads = attend.forward()[0]
        out: Array = layer._output(weights).forward(layer._mixed(heads))
        left = attend.bounds.get("left", -1)
        # What no later step sees goes, in whole runs: what stays keeps its place within a run, and results their bits.
        gone = max(0, after - left) // _RUN * _RUN if left >= 0 else 0
        if gone:
            stays = cache[:, :, :, gone:after]
            cache = np.zeros((*cache.shape[:3], after - gone + _RUN, cache.shape[4]), cache.dtype)
            cache[:, :, :, : after - gone] = stays
        self._cache, self._first, self._length = cache, self._first + gone, self._first + after
        return out
