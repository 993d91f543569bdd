"""How gradients flow through the steps of a recurrent layer: where they vanish, where they explode."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.checks import Array, integer_array, shaped_array, within
from ..core.layout import valid_steps
from ..layers.stack import Recurrent, combine

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

COPIED = 2**20  # so many numbers of a state at once, of the rows copied for a Jacobian


class GradientFlow(NamedTuple):
    """What `gradient_flow` saw. Step 0 is the initial state, step T the last; without N where x came unbatched.

    norms            (T + 1, L, N)  Euclidean norm of dL/dh_t, of each layer and row
    cell_norms       (T + 1, L, N)  the same of dL/dc_t where a cell has a cell state, else None
    steps            (K,)           the steps t whose Jacobians were asked for
    singular_values  (K, N, L*H)    of dh_T/dh_t, falling (L*P with a projection); NaN where it is not finite

        flow = pyrnn.gradient_flow(layer, x)
        flow.norms[0, 0], flow.singular_values[0, :, 0]
    """

    norms: Array
    cell_norms: Array | None
    steps: Array
    singular_values: Array


def gradient_flow(
    layer: Recurrent[Any],
    x: ArrayLike,
    state: Any = None,
    *,
    dy: ArrayLike | None = None,
    dstate: Any = None,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: ArrayLike = (0,),
) -> GradientFlow:
    """The norms of dL/dh_t at every step t, and the singular values of the Jacobians dh_T/dh_t at some.

    layer                     RNN, LSTM or GRU, stacked or not; one direction. It is not changed, dropout does not act
    x, state, lengths, reset  as in a call of the layer
    dy, dstate                dL/dy and dL/d(final state), as a pullback takes them. Without both, L is the last layer's
                              final h along (1, ..., 1) / sqrt(H), so norms are 1 at step T and ratios before it
    steps                     (K,) integers in 0..T: where to take singular values; () for none

    L is a function of the state after step t, through the outputs from y_t on and the final state; beyond a row's
    length through its final state alone. By exact backpropagation, cut after every step; a Jacobian is one pass over
    L*H copies of each row, in the layer's dtype. The memory is that of the states, and of one step of the copies of
    some rows. Singular values below 1 are directions that vanish on the way from T back to t, above 1 they explode
    (Pascanu, Mikolov & Bengio 2013). ValueError for a bidirectional layer, whose state flows both ways: make each
    direction a layer. Other errors as in a call of the layer.

        flow = pyrnn.gradient_flow(pyrnn.RNN(3, 32, rng=0), x)  # x (T, N, 3)
        flow.norms[0, 0], flow.singular_values[0, :, 0]  # (N,): |dL/dh_0|, the largest stretch from h_0 to h_T
    """
    call = "gradient_flow"
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{call}: layer is {type(layer).__name__}, expected RNN, LSTM or GRU")
    if layer.bidirectional:
        raise ValueError(f"{call}: a bidirectional layer's state flows both ways; make each direction a layer")
    like_y: Array | None = None
    if dy is not None:
        like_y = shaped_array(call, "dy", dy, layer.dtype, (*np.shape(x)[:-1], layer._output))
    x, states, rows_lengths, marks, _, layout, _ = layer._inputs(f" in {call}", x, state, lengths, reset)
    total, rows = x.shape[:2]
    if like_y is not None:
        valid = valid_steps(total, rows, rows_lengths)[:, :, None]
        like_y = np.where(valid, layout.steps_first(like_y), layer.dtype.type(0))
    at = within(call, "steps", integer_array(call, "steps", steps).reshape(-1), total)
    before = None if state is None else layer._join(states, True)

    own = copy.deepcopy(layer)  # free of any model: gradients are added to the copy's
    own.batch_first, own.dropout = False, 0.0
    if dstate is not None:
        parts = layer._parts(call, "dstate", dstate, rows if layout.batched else None)
    else:
        parts = [np.zeros((layer.num_layers, rows, width), layer.dtype) for width in layer._widths]
        if dy is None:
            parts[0][-1] = layer._output**-0.5
    run = _run(own, x, before, rows_lengths, marks)
    norms = [np.zeros((total + 1, layer.num_layers, rows), layer.dtype) for _ in parts]
    for t, gradients in zip(range(total, -1, -1), _backward(own, reversed(run), like_y, parts), strict=True):
        for into, gradient in zip(norms, gradients, strict=True):
            into[t] = _norms(gradient)
    values = _singular_values(own, run, rows, at)
    if not layout.batched:
        norms, values = [part[:, :, 0] for part in norms], values[:, 0]
    by_state = dict(zip(layer._cell.states, norms, strict=True))
    return GradientFlow(norms[0], by_state.get("c"), at, values)


class _Step(NamedTuple):
    """The arguments of one step: x (1, N, I), the state before it, lengths (N,) of 0 or 1, reset (1, N)."""

    x: Array
    state: Any
    lengths: Array | None
    reset: Array | None

    def copies(self, rows: slice, times: int) -> _Step:
        """Of these rows so many each."""

        def of(array: Any, axis: int) -> Any:
            if array is None:
                return None
            return np.repeat(array[rows] if axis == 0 else array[:, rows], times, axis)

        state = tuple(of(part, 1) for part in self.state) if isinstance(self.state, tuple) else of(self.state, 1)
        return _Step(of(self.x, 1), state, of(self.lengths, 0), of(self.reset, 1))


def _run(layer: Recurrent[Any], x: Array, state: Any, lengths: Array | None, reset: Array | None) -> list[_Step]:
    """All steps. Besides the states nothing of them is kept: on the way back each is done again."""
    steps = []
    for t in range(len(x)):
        valid = None if lengths is None else (t < lengths).astype(np.int64)
        steps.append(_Step(x[t : t + 1], state, valid, None if reset is None else reset[t : t + 1]))
        _, state = layer(x[t : t + 1], state, lengths=valid, reset=steps[-1].reset)
    return steps


def _backward(
    layer: Recurrent[Any], back: Iterable[_Step], dy: Array | None, parts: Sequence[Array]
) -> Iterator[list[Array]]:
    """dL/d(state after step t) for t = T, T - 1, ..., 0, each the parts (L, N, width) of a state, from the steps in
    this order. `parts` is that of L in step T but for y. A step is gone back when what is before it is asked for."""
    carried = list(parts)
    for k, step in enumerate(back):
        dy_t = None if dy is None else dy[len(dy) - 1 - k]
        total = [part.copy() for part in carried]
        if dy_t is not None:
            combine(np.add, total[0][-1], dy_t)  # y_t is the last layer's h_t
        yield total
        _, pull = layer.vjp(step.x, step.state, lengths=step.lengths, reset=step.reset)
        dstate: Any = tuple(carried) if len(carried) > 1 else carried[0]
        _, before = pull(None if dy_t is None else dy_t[None], dstate)
        carried = list(before) if isinstance(before, tuple) else [before]
    yield carried


def _norms(vectors: Array) -> Array:
    """Euclidean norms over the last axis, in float64: squares of what has nearly vanished or exploded still fit."""
    with np.errstate(over="ignore"):
        norms: Array = np.linalg.norm(vectors.astype(np.float64), axis=-1).astype(vectors.dtype)
    return norms


def _singular_values(layer: Recurrent[Any], run: Sequence[_Step], rows: int, at: Array) -> Array:
    """(K, N, L*H): a row is copied for each unit of h_T, and each copy asks for that unit's gradient."""
    units = layer.num_layers * layer._output
    values = np.full((len(at), rows, units), np.nan, layer.dtype)
    each = np.eye(units, dtype=layer.dtype).reshape(units, layer.num_layers, layer._output).swapaxes(0, 1)
    together = max(1, COPIED // units**2)
    for first in range(0, rows if len(at) else 0, together):
        count = min(together, rows - first)
        chosen = slice(first, first + count)
        parts = [np.zeros((layer.num_layers, count * units, width), layer.dtype) for width in layer._widths]
        parts[0][:] = np.tile(each, (1, count, 1))
        back = (step.copies(chosen, units) for step in reversed(run))
        wanted = range(len(run), at.min() - 1, -1)
        for t, (jacobians, *_) in zip(wanted, _backward(layer, back, None, parts), strict=False):
            if t in at:
                by_layer = jacobians.reshape(layer.num_layers, count, units, -1)
                matrices = by_layer.transpose(1, 2, 0, 3).reshape(count, units, units)
                finite = np.isfinite(matrices).all(axis=(1, 2))
                found = np.full((count, units), np.nan, layer.dtype)
                found[finite] = np.linalg.svd(matrices[finite], compute_uv=False)
                values[at == t, chosen] = found
    return values
