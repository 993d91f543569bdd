"""Sines and cosines that tell the positions apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import (
    MOST,
    Array,
    boolean,
    float_dtype,
    integer,
    integer_array,
    real_array,
)
from ...core.layer import Layer
from ...core.layout import Layout
from ...core.pullback import Pullback
from .stream import CausalStream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class PositionalEncoding(Layer):
    """Sines and cosines of the position, added to x: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.

    Feature 2k of position p is sin(p / 10000^(2k / E)), feature 2k + 1 its cosine. There are no parameters. TypeError
    and ValueError for arguments that make no encoding.

        encode = pyrnn.PositionalEncoding(64)
        y = encode(x)  # (S, N, 64), (S, 64), or (N, S, 64) with batch_first
    """

    _has_stream = True
    _features = ("embed_dim", "embed_dim")

    def __init__(self, embed_dim: int, *, batch_first: bool = False, dtype: DTypeLike = "float32") -> None:
        call = type(self).__name__
        self.embed_dim = integer(call, "embed_dim", embed_dim, 1, MOST)
        self.batch_first = boolean(call, "batch_first", batch_first)
        super().__init__(float_dtype(call, dtype), {})

    def table(self, positions: ArrayLike) -> Array:
        """positions (...), integers -> (..., E).

        first = encode.table(range(10))
        """
        at = integer_array(f"{type(self).__name__}.table", "positions", positions).astype(np.float64)
        even = np.arange(0, self.embed_dim, 2)
        angles = at[..., None] * np.exp(even * (-math.log(10000.0) / self.embed_dim))
        both = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*at.shape, 2 * len(even))
        return both[..., : self.embed_dim].astype(self.dtype)

    def __call__(self, x: ArrayLike, offset: int = 0) -> Array:
        """x plus the encoding of positions offset, offset + 1, ... TypeError and ValueError for what does not fit.

        y_t = encode(x[t : t + 1], offset=t)
        """
        return self._encoded("", x, offset)

    def vjp(self, x: ArrayLike, offset: int = 0) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) is dy; it can be called once.

        y, pullback = encode.vjp(x)
        dx = pullback(dy)
        """
        y = self._encoded(".vjp", x, offset)
        return y, Pullback(f"{type(self).__name__} pullback", y, None, lambda dy, _: dy.copy())

    def stream(self, batch: int = 1) -> PositionStream:
        """Step by step, from position 0 on: the same bits as a call on the whole sequence.

        stream = encode.stream(batch=3)
        y_t = stream.step(x[t])  # (N, E) -> (N, E)
        """
        call = f"{type(self).__name__}.stream"
        return PositionStream(call, self, integer(call, "batch", batch, 1, MOST))

    def _encoded(self, suffix: str, x: Any, offset: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        offset = integer(call, "offset", offset, -MOST, MOST)
        layout = Layout.of(call, "x", array.shape, self.batch_first, (self.embed_dim,), "S")
        x = layout.steps_first(array)
        y: Array = np.ascontiguousarray(layout.back(x + self.table(np.arange(offset, offset + len(x)))[:, None]))
        return y


class PositionStream(CausalStream):
    """A `PositionalEncoding` of the steps to come: see its `stream`."""

    def __init__(self, call: str, layer: PositionalEncoding, rows: int) -> None:
        super().__init__(call, layer, rows)
        self.state = 0

    @property
    def length(self) -> int:
        """How many steps it has seen."""
        return self._state

    @property
    def state(self) -> int:
        """The position of the next step. It can be assigned."""
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        self._state = integer(self._call, "state", state, 0, MOST)

    def _keep(self, rows: Array) -> None:
        pass

    def _forget(self) -> None:
        self._state = 0

    def _go(self, x: Array) -> Array:
        layer: PositionalEncoding = self._layer
        y = layer(x, self._state)
        self._state += x.shape[1 if layer.batch_first else 0]
        return y
