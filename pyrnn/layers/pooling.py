"""What remains of many steps: one of them, the largest numbers, the mean, the largest of each few."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import (
    MOST,
    Array,
    boolean,
    float_dtype,
    integer,
    quietly,
    real_array,
    shape_error,
    shape_text,
)
from ..core.layer import Layer
from ..core.layout import Layout, output_steps, valid_steps
from ..core.pullback import Pullback
from ..core.windows import WindowStream
from .stream import ConvStream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class Summary(Layer):
    """What MaxOverTime, LastStep and MeanOverTime share: of each feature of a row one number, of its valid steps."""

    _ends_steps = True
    _features = ("", "")

    def __init__(self, *, batch_first: bool = False, dtype: DTypeLike = "float32") -> None:
        self.batch_first = boolean(type(self).__name__, "batch_first", batch_first)
        super().__init__(float_dtype(type(self).__name__, dtype), {})

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """x (T, N, F) -> y (N, F), in the layer's dtype. lengths (N,) integers in 0..T, one integer for x (T, F).
        TypeError for what is not real numbers, ValueError for wrong shapes and lengths.

        y = layer(x, lengths=[5, 2])
        """
        y, _, layout = self._forward("", x, lengths)
        return y if layout.batched else y[0]

    def output_lengths(self, lengths: ArrayLike) -> None:
        """None: behind it there are no steps.

        layer.output_lengths([5, 2])
        """

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(dy)
        """
        y, kept, layout = self._forward(".vjp", x, lengths)
        y = y if layout.batched else y[0]

        @quietly
        def back(dy: Array, kept: Array) -> Array:
            dx = self._back(dy if layout.batched else dy[None], kept)
            return np.ascontiguousarray(layout.back(dx))

        return y, Pullback(f"{type(self).__name__} pullback", y, kept, back)

    @quietly
    def _forward(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array, Layout]:
        """y (N, F), what the way back needs, and how x lies."""
        array, valid, layout = steps_of(type(self).__name__ + suffix, x, lengths, self.batch_first, self.dtype)
        return *self._summary(array, valid), layout

    def _summary(self, x: Array, valid: Array) -> tuple[Array, Array]:
        """x (T, N, F), which steps are valid (T, N, 1) -> y (N, F), what the way back needs."""
        raise NotImplementedError

    def _back(self, dy: Array, kept: Array) -> Array:
        """dy (N, F) -> dx (T, N, F)."""
        raise NotImplementedError


class OneStep(Summary):
    """What MaxOverTime and LastStep share: the number at one of the valid steps, which `_step` chooses."""

    def _summary(self, x: Array, valid: Array) -> tuple[Array, Array]:
        steps = len(x)
        if steps == 0:
            return np.zeros(x.shape[1:], self.dtype), np.zeros(x.shape, np.bool_)
        chosen = self._step(x, valid)[None]
        y = np.where(valid.any(axis=0), np.take_along_axis(x, chosen, axis=0)[0], self.dtype.type(0))
        return y, (np.arange(steps)[:, None, None] == chosen) & valid

    def _back(self, dy: Array, places: Array) -> Array:
        return np.where(places, dy, self.dtype.type(0))

    def _step(self, x: Array, valid: Array) -> Array:
        """x (T, N, F), which steps are valid (T, N, 1) -> the step for each feature, (N, F)."""
        raise NotImplementedError


class MaxOverTime(OneStep):
    """The largest number of each feature over the valid steps of a row: a summary of one size for any length.

    The pooling of Collobert et al. 2011 (arXiv:1103.0398). The gradient goes to the step of the maximum, the first of
    equal ones. A row without steps gives 0. No parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.MaxOverTime()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def _step(self, x: Array, valid: Array) -> Array:
        first: Array = np.where(valid, x, -np.inf).argmax(axis=0)
        return first


class LastStep(OneStep):
    """The last valid step of each row: a summary of one size for any length.

    Behind a recurrent layer of one direction it is the final output. Of two directions the backward one ends at the
    first step: with `bidirectional` the second half of the features is that step's. A row without steps gives 0. No
    parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.LastStep()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def __init__(self, *, bidirectional: bool = False, batch_first: bool = False, dtype: DTypeLike = "float32") -> None:
        self.bidirectional = boolean(type(self).__name__, "bidirectional", bidirectional)
        super().__init__(batch_first=batch_first, dtype=dtype)

    def _step(self, x: Array, valid: Array) -> Array:
        last = np.broadcast_to(np.maximum(valid.sum(axis=0) - 1, 0), x.shape[1:])
        if not self.bidirectional:
            return last
        forth, rest = divmod(x.shape[-1], 2)
        if rest:
            raise ValueError(f"{type(self).__name__}: x has {x.shape[-1]} features, expected an even number of them")
        return np.where(np.arange(x.shape[-1]) < forth, last, 0)


class MeanOverTime(Summary):
    """The mean of each feature over the valid steps of a row: a summary of one size for any length.

    A row without steps gives 0. No parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.MeanOverTime()(x, lengths=[5, 2])  # (T, N, F) -> (N, F); or (N, T, F) with batch_first, or (T, F)
    """

    def _summary(self, x: Array, valid: Array) -> tuple[Array, Array]:
        total = added_up(np.where(valid, x.astype(np.float64), 0)) + 0.0  # not -0, whatever comes behind the row
        mean: Array = (total / np.maximum(valid.sum(axis=0), 1)).astype(self.dtype)
        return mean, valid

    def _back(self, dy: Array, valid: Array) -> Array:
        share: Array = dy / np.maximum(valid.sum(axis=0), 1).astype(self.dtype)
        return np.where(valid, share, self.dtype.type(0))


def added_up(x: Array) -> Array:
    """x (T, ...) one after the other along the first axis: the same bits for a part of the rest alone."""
    x = np.ascontiguousarray(x)
    if x.size > len(x) or len(x) == 0:
        total: Array = np.add.reduce(x, axis=0)
    else:  # NumPy's sum of a single column adds in pairs
        total = np.add.accumulate(x, axis=0)[-1]
    return total


class MaxPool1d(Layer):
    """The largest number of each feature among `kernel_size` steps, every `stride` steps (kernel_size by default).

    As torch.nn.MaxPool1d without padding. With ceil_mode the steps that are left at the end, too few for the kernel,
    give one more. The gradient goes to the step of the maximum, the first of equal ones, the last of NaN. No
    parameters. TypeError and ValueError for arguments that make no layer.

        y = pyrnn.MaxPool1d(2)(x, lengths=[5, 2])  # (T, N, F) -> (T // 2, N, F); or (N, T, F) with batch_first, (T, F)
    """

    _has_stream = True
    _features = ("", "")

    def __init__(
        self, kernel_size: int, stride: int | None = None, batch_first: bool = False,
        *, ceil_mode: bool = False, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.kernel_size = integer(call, "kernel_size", kernel_size, 1, MOST)
        self.stride = self.kernel_size if stride is None else integer(call, "stride", stride, 1, MOST)
        self.batch_first = boolean(call, "batch_first", batch_first)
        self.ceil_mode = boolean(call, "ceil_mode", ceil_mode)
        super().__init__(float_dtype(call, dtype), {})

    def output_lengths(self, lengths: ArrayLike) -> Any:
        """How many steps y has for so many of x: an integer for an integer, else an array.

        layer.output_lengths([5, 2])
        """
        call, reach = f"{type(self).__name__}.output_lengths", self.kernel_size - 1
        if not self.ceil_mode:
            return output_steps(call, lengths, reach, self.stride)
        counts = output_steps(call, lengths, reach, self.stride, self.stride - 1)
        counts = np.minimum(counts, output_steps(call, lengths, 0, self.stride))  # those that begin before the end
        return counts if counts.ndim else int(counts)

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """x (T, N, F) -> y (U, N, F), in the layer's dtype. lengths (N,) integers in 0..T, one integer for x (T, F); y
        is 0 where `output_lengths` say that it ends. TypeError for what is not real numbers, ValueError for wrong
        shapes and lengths.

        y = layer(x, lengths=[5, 2])
        """
        return self._forward("", x, lengths)[0]

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) can be called once, and owns what it needs.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(dy)
        """
        y, places, steps, layout = self._forward(".vjp", x, lengths)

        @quietly
        def back(dy: Array, places: Array) -> Array:
            dy = layout.steps_first(dy)
            dx = np.zeros((max(steps, self._span(len(dy))), *dy.shape[1:]), self.dtype)
            for k, read in self._reads(len(dy)):
                dx[read] += np.where(places == k, dy, self.dtype.type(0))
            return np.ascontiguousarray(layout.back(dx[:steps]))

        return y, Pullback(f"{type(self).__name__} pullback", y, places, back)

    def stream(self, batch: int = 1) -> PoolStream:
        """A `PoolStream` of `batch` rows: step by step. ValueError with `ceil_mode`, which must know the end.

        stream = layer.stream()
        y_t = stream.step(x_t)
        """
        call = f"{type(self).__name__}.stream"
        batch = integer(call, "batch", batch, 1, MOST)
        if self.ceil_mode:
            raise ValueError(
                f"{call}: with ceil_mode the last window ends where the sequence does, which no step tells"
            )
        past = np.zeros((self.kernel_size - 1, batch, 0), self.dtype)
        return PoolStream(self, WindowStream(self._over_windows, past, self.kernel_size, self.stride), batch)

    @quietly
    def _forward(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array, int, Layout]:
        """y, at which position of the kernel its numbers are from (U, N, F), T, and how x lies."""
        array, valid, layout = steps_of(type(self).__name__ + suffix, x, lengths, self.batch_first, self.dtype)
        given, steps = len(array), self.output_lengths(len(array))
        if self.ceil_mode:
            beyond = np.full((max(self._span(steps) - given, 0), *array.shape[1:]), -np.inf, self.dtype)
            array = np.concatenate([np.where(valid, array, self.dtype.type(-np.inf)), beyond])
        y, places = self._largest(array, steps)
        ends = np.arange(steps)[:, None, None] >= self.output_lengths(valid.sum(axis=(0, 2)))[:, None]
        np.copyto(y, 0, where=ends)
        np.copyto(places, -1, where=ends)
        return np.ascontiguousarray(layout.back(y)), places, given, layout

    def _span(self, steps: int) -> int:
        """How many steps of x so many of y read."""
        return (steps - 1) * self.stride + self.kernel_size if steps else 0

    def _largest(self, x: Array, steps: int) -> tuple[Array, Array]:
        """x (T, N, F) -> y of so many steps, and at which position of the kernel its numbers are from."""
        y = np.full((steps, *x.shape[1:]), -np.inf, self.dtype)
        places = np.zeros(y.shape, np.int64)
        for k, read in self._reads(len(y)):
            better = (x[read] > y) | np.isnan(x[read])
            np.copyto(y, x[read], where=better)
            places[better] = k
        return y, places

    @quietly
    def _over_windows(self, x: Array) -> Array:
        return self._largest(x, self.output_lengths(len(x)))[0]

    def _reads(self, steps: int) -> list[tuple[int, slice]]:
        """Each position of the kernel, and the steps of x that it meets."""
        span = self._span(steps) - self.kernel_size + 1
        return [(k, slice(k, k + span, self.stride)) for k in range(self.kernel_size if steps else 0)]


class PoolStream(ConvStream):
    """A `MaxPool1d` and the last steps that N rows have been given; made by `layer.stream(batch=N)`.

    As a `ConvStream`; all steps have as many features as the first.

        stream = layer.stream(batch=3)
        y_t = stream.step(x_t)  # (3, F) -> (3, F), or None
    """

    __slots__ = ()

    @property
    def _inputs(self) -> int | None:
        return self._compiled.get_state()[0].shape[2] or None

    def _checked(self, compiled: Callable[[Array], Any], rows: int, inputs: int | None) -> Callable[[ArrayLike], Any]:
        call, dtype = self._call, self._layer.dtype

        def step(x: Any) -> Any:
            x = real_array(call, "x", x, dtype)
            known, single = self._inputs, rows == 1 and x.ndim == 1
            if x.ndim == 0 or x.shape[:-1] != (() if single else (rows,)) or known not in (None, x.shape[-1]):
                raise shape_error(call, "x", x.shape, shape_text(rows, known or "F"))
            return compiled(x)

        return step


def steps_of(call: str, x: Any, lengths: Any, batch_first: bool, dtype: np.dtype[Any]) -> tuple[Array, Array, Layout]:
    """x (T, N, F) of a pooling layer, which steps are valid (T, N, 1), and how x lay."""
    array = real_array(call, "x", x, dtype)
    layout = Layout.of(call, "x", array.shape, batch_first, ("F",))
    array = layout.steps_first(array)
    steps, rows = array.shape[:2]
    if lengths is not None:
        lengths = layout.lengths(call, lengths, steps, rows)
    return array, valid_steps(steps, rows, lengths)[:, :, None], layout
