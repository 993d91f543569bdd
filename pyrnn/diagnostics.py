"""How gradients flow through the steps of a recurrent layer: where they vanish, where they explode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._arrays import Array, integer_array, shaped_array, within
from .recurrent import Recurrent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Pull = Callable[[Any, Any], tuple[Array, Any]]


class GradientFlow(NamedTuple):
    """What `gradient_flow` saw. Step 0 is the initial state, step T the last; without N where x came unbatched.

    norms            (T + 1, L, N)  Euclidean norm of dL/dh_t, of each layer and row
    cell_norms       (T + 1, L, N)  the same of dL/dc_t for an LSTM, else None
    steps            (K,)           the steps t whose Jacobians were asked for
    singular_values  (K, N, L*H)    of dh_T/dh_t, falling (L*P with a projection); NaN where it is not finite
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
    L*H copies of each row, in the layer's dtype. Singular values below 1 are directions that vanish on the way from T
    back to t, above 1 they explode (Pascanu, Mikolov & Bengio 2013). ValueError for a bidirectional layer, whose state
    flows both ways: make each direction a layer. Other errors as in a call of the layer.

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
    x, states, rows_lengths, marks, _, batched = layer._inputs(f" in {call}", x, state, lengths, reset)
    total, rows = x.shape[:2]
    if like_y is not None:
        like_y = like_y[:, None] if not batched else like_y.swapaxes(0, 1) if layer.batch_first else like_y
    if like_y is not None and rows_lengths is not None:
        like_y = np.where((np.arange(total)[:, None] < rows_lengths)[:, :, None], like_y, layer.dtype.type(0))
    at = within(call, "steps", integer_array(call, "steps", steps).reshape(-1), total)
    before = None if state is None else layer._join(states, True)

    own = copy.deepcopy(layer)  # free of any model: gradients are added to the copy's
    own.batch_first, own.dropout = False, 0.0
    if dstate is not None:
        parts = layer._parts(call, "dstate", dstate, rows if batched else None)
    else:
        parts = [np.zeros((layer.num_layers, rows, width), layer.dtype) for width in layer._widths]
        if dy is None:
            parts[0][-1] = layer._output**-0.5
    flow = _states_gradients(own, _pulls(own, x, before, rows_lengths, marks), like_y, parts)
    norms = [_norms(np.stack([step[k] for step in flow])) for k in range(len(parts))]
    values = _singular_values(own, x, before, rows_lengths, marks, at)
    if not batched:
        norms, values = [part[:, :, 0] for part in norms], values[:, 0]
    return GradientFlow(norms[0], norms[1] if len(norms) == 2 else None, at, values)


def _pulls(layer: Recurrent[Any], x: Array, state: Any, lengths: Array | None, reset: Array | None) -> list[Pull]:
    """One pullback for each step."""
    pulls: list[Pull] = []
    for t in range(len(x)):
        valid = None if lengths is None else (t < lengths).astype(np.int64)
        marks = None if reset is None else reset[t : t + 1]
        (_, state), pull = layer.vjp(x[t : t + 1], state, lengths=valid, reset=marks)
        pulls.append(pull)
    return pulls


def _states_gradients(
    layer: Recurrent[Any], pulls: Sequence[Pull], dy: Array | None, parts: Sequence[Array]
) -> list[list[Array]]:
    """dL/d(state after step t) for t = 0..T, each the parts (L, N, width) of a state; `parts` is that of L in step T
    but for y."""
    carried = [part.copy() for part in parts]
    gradients: list[list[Array]] = []
    for t in range(len(pulls), -1, -1):
        total = [part.copy() for part in carried]
        if dy is not None and t > 0:
            total[0][-1] += dy[t - 1]  # y_t is the last layer's h_t
        gradients.append(total)
        if t > 0:
            dstate: Any = tuple(carried) if len(carried) == 2 else carried[0]
            _, before = pulls[t - 1](None if dy is None else dy[t - 1 : t], dstate)
            carried = list(before) if isinstance(before, tuple) else [before]
    return gradients[::-1]


def _norms(vectors: Array) -> Array:
    """Euclidean norms over the last axis, in float64: squares of what has nearly vanished or exploded still fit."""
    with np.errstate(over="ignore"):
        norms: Array = np.linalg.norm(vectors.astype(np.float64), axis=-1).astype(vectors.dtype)
    return norms


def _singular_values(
    layer: Recurrent[Any], x: Array, state: Any, lengths: Array | None, reset: Array | None, at: Array
) -> Array:
    """(K, N, L*H): every row is copied for each unit of h_T, and each copy asks for that unit's gradient."""
    rows, units = x.shape[1], layer.num_layers * layer._output

    def copies(array: Any, axis: int) -> Any:
        return None if array is None else np.repeat(array, units, axis)

    if len(at) == 0 or rows == 0:
        return np.zeros((len(at), rows, units), layer.dtype)
    if state is not None:
        state = tuple(copies(part, 1) for part in state) if isinstance(state, tuple) else copies(state, 1)
    pulls = _pulls(layer, copies(x, 1), state, copies(lengths, 0), copies(reset, 1))
    parts = [np.zeros((layer.num_layers, rows * units, width), layer.dtype) for width in layer._widths]
    each = np.eye(units, dtype=layer.dtype).reshape(units, layer.num_layers, layer._output).swapaxes(0, 1)
    parts[0][:] = np.tile(each, (1, rows, 1))
    flow = _states_gradients(layer, pulls, None, parts)
    jacobians = np.stack([flow[t][0] for t in at])  # (K, L, N*L*H, H)
    jacobians = jacobians.reshape(len(at), layer.num_layers, rows, units, layer._output)
    matrices = jacobians.transpose(0, 2, 3, 1, 4).reshape(len(at), rows, units, units)
    values = np.full(matrices.shape[:-1], np.nan, layer.dtype)
    finite = np.isfinite(matrices).all(axis=(2, 3))
    values[finite] = np.linalg.svd(matrices[finite], compute_uv=False)
    return values
