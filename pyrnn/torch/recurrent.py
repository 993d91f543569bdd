"""Stacks of recurrent layers as one operation of torch's: on its tape, and as a custom operator for its compilers.

Tensors and arrays share memory. Letters: T steps, N rows, I features, H hidden units, P outputs of a direction, D
directions, L layers, S steps of all rows of packed sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import _VF, Tensor

from .. import kernels
from ..cells import CELLS, Cell
from ..core.checks import Array
from ..layers.stack import combine
from .tensors import DifferentiableOnce, applied, tensor, transformed
from .threads import make_way


class Mode(NamedTuple):
    """What torch calls the mode of a module."""

    op: Any
    options: dict[str, Any]
    cell: Cell


MODES = {
    "LSTM": Mode(kernels.lstm, {}, CELLS["lstm"]),
    "GRU": Mode(kernels.gru, {}, CELLS["gru"]),
    "RNN_TANH": Mode(kernels.rnn, {}, CELLS["rnn"]),
    "RNN_RELU": Mode(kernels.rnn, {"nonlinearity": "relu"}, CELLS["rnn"]),
}


class Stack(NamedTuple):
    """What a call does, but for its tensors."""

    mode: str
    bias: bool
    num_layers: int
    bidirectional: bool
    batch_first: bool  # of x (N, T, I); packed sequences are (S, I)
    fallback: bool = False  # torch's own operations where ours have no derivative

    def entries(self, flat: list[Any]) -> list[list[Any]]:
        """Weights in torch's order -> those of each layer and direction in the op's order, None where absent."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        total, own = len(MODES[self.mode].cell.weights), len(flat) // count
        found = []
        for start in range(0, len(flat), own):
            entry = flat[start : start + own]
            if not self.bias:
                entry[2:2] = None, None
            found.append(entry + [None] * (total - len(entry)))
        return found


class Packing:
    """Where the steps of packed sequences lie among those of padded ones."""

    def __init__(self, batch_sizes: Tensor) -> None:
        counts = batch_sizes.numpy()
        valid = np.arange(counts[0]) < counts[:, None]
        self.shape = valid.shape  # (T, N)
        self.lengths = valid.sum(axis=0)
        self._places = np.flatnonzero(valid)
        self._sources = valid.cumsum().reshape(self.shape) - 1

    def padded(self, data: Tensor) -> Array:
        """(S, features) -> (T, N, features); what lies in the padding is nobody's business."""
        if len(data) != len(self._places):
            raise RuntimeError(f"PackedSequence: data has {len(data)} rows, batch_sizes are of {len(self._places)}")
        rows: Array = kernels.embedding.forward(self._sources, data.numpy(force=True))
        return rows

    def packed(self, padded: Array) -> Tensor:
        """(T, N, features) -> (S, features)."""
        steps, rows, features = padded.shape
        return tensor(kernels.embedding.forward(self._places, padded.reshape(steps * rows, features)))


class Recording(NamedTuple):
    """What the way back needs, once."""

    pulls: list[Any]
    packing: Packing | None
    weights: list[Array]  # as they came
    work: int  # multiply-adds of the way forward


def run(
    stack: Stack, x: Tensor, batch_sizes: Tensor | None, state: Sequence[Tensor], weights: Sequence[Tensor], keep: bool
) -> tuple[list[Tensor], Recording]:
    """[y, final states...] and, where `keep`, a recording. No state is zeros."""
    op, options, _ = MODES[stack.mode]
    arrays = [w.numpy(force=True) for w in weights]
    entries = stack.entries(arrays)
    packing, more = None, options
    if batch_sizes is None:
        walked = x.numpy(force=True)
        walked = walked.swapaxes(0, 1) if stack.batch_first else walked
    else:
        packing = Packing(batch_sizes)
        walked, more = packing.padded(x), {**options, "lengths": packing.lengths}
    states: Any = [None] * len(entries)
    if state:
        states = list(zip(*(part.numpy(force=True) for part in state), strict=True))
    work = walked.shape[0] * walked.shape[1] * sum([w.size for w in arrays])
    make_way(work)
    function = op.vjp if keep else op.forward
    directions = 2 if stack.bidirectional else 1
    width = arrays[1].shape[1]
    finals, pulls = [], []
    for first in range(0, len(entries), directions):
        y = None
        turned = stack.batch_first and packing is None and first + directions == len(entries)
        if turned or directions == 2:
            y = _new_output(walked, directions * width, turned)
        for k in range(directions):
            own = more if y is None else {**more, "reverse": k == 1, "out": y[:, :, k * width : (k + 1) * width]}
            result = function(walked, states[first + k], entries[first + k], **own)
            if keep:
                result, pull = result
                pulls.append(pull)
            finals.append(result[1])
        walked = result[0] if y is None else y
    walked = walked.swapaxes(0, 1) if packing is None and stack.batch_first else walked
    output = packing.packed(walked) if packing else tensor(walked)
    return [output, *_joined(finals)], Recording(pulls, packing, arrays, work)


def _new_output(x: Array, width: int, turned: bool) -> Array:
    """(T, N, width) for x (T, N, ...), in memory (N, T, width) if turned."""
    steps, rows = x.shape[:2]
    if turned:
        return kernels.empty((rows, steps, width), x.dtype).swapaxes(0, 1)
    return kernels.empty((steps, rows, width), x.dtype)


def _joined(states: Sequence[tuple[Array, ...]]) -> list[Tensor]:
    """Of each layer and direction -> (L*D, N, width) each."""
    if len(states) == 1:
        return [tensor(part[None]) for part in states[0]]
    return [tensor(np.stack(part)) for part in zip(*states, strict=True)]


def pull(
    stack: Stack, recording: Recording, gradients: Sequence[Tensor | None], state: bool, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of [x, weights...], or with `state` of [x, initial states..., weights...], from those of y and the
    final states. `needed`: of which of them; None for x and weights that do not need one."""
    pulls, packing, weights, work = recording
    dy, *dfinals = gradients
    dh: Any = None
    if dy is not None and packing is not None:
        dh = packing.padded(dy)
    elif dy is not None:
        dh = dy.numpy(force=True)
        dh = dh.swapaxes(0, 1) if stack.batch_first else dh
    count = len(pulls)
    dstates: Any = [None] * count
    if dfinals[0] is not None or dfinals[-1] is not None:
        parts = [dstates if part is None else part.numpy(force=True) for part in dfinals]
        dstates = list(zip(*parts, strict=True))
    need_dx, own_needed = needed[0], needed[-len(weights) :]
    dweights = [np.zeros(w.shape, w.dtype) if need else None for w, need in zip(weights, own_needed, strict=True)]
    entries = stack.entries(dweights)
    make_way(2 * work)
    directions = 2 if stack.bidirectional else 1
    width = weights[1].shape[1]
    dinitials: list[Any] = [None] * count
    for first in range(count - directions, -1, -directions):
        dx: Any = None
        for k in range(directions):
            own = dh if dh is None or directions == 1 else dh[:, :, k * width : (k + 1) * width]
            other = dx
            dx, dinitials[first + k] = pulls[first + k](
                own, dstates[first + k], entries[first + k], need_dx or first > 0
            )
            if other is not None:
                combine(np.add, dx, other)
        del pulls[first:]
        dh = dx
    found: list[Tensor | None] = [None]
    if need_dx:
        dh = dh.swapaxes(0, 1) if packing is None and stack.batch_first else dh
        found = [packing.packed(dh) if packing else tensor(dh)]
    if state:
        found += _joined(dinitials)
    return found + [None if g is None else tensor(g) for g in dweights]


# ---------------------------------------------------------------------------------------------------- on the tape


class OnTape(torch.autograd.Function):
    """apply(stack, batch_sizes, number of states, x, states..., weights...) -> y, final states..."""

    @staticmethod
    def forward(ctx: Any, stack: Stack, batch_sizes: Tensor | None, states: int, x: Tensor, *rest: Tensor) -> Any:
        results, recording = run(stack, x, batch_sizes, rest[:states], rest[states:], True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *rest)
        ctx.call = stack, batch_sizes, states
        ctx.recording = recording
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        stack, batch_sizes, states = ctx.call
        inputs = ctx.saved_tensors  # which finds out that one has been changed, or that the graph has been freed
        twice, transform = torch.is_grad_enabled(), transformed(gradients)
        if stack.fallback and (twice or transform):
            return None, None, None, *by_torch(stack, batch_sizes, states, inputs, gradients, ctx.needs_input_grad[3:])
        if transform:
            raise RuntimeError(f"pyrnn.torch: the backward of {stack.mode} under {transform} is torch's alone")
        recording, ctx.recording = ctx.recording, None
        if recording is None:  # a retained graph: the way forward once more
            x, *rest = inputs
            recording = run(stack, x, batch_sizes, rest[:states], rest[states:], True)[1]
        found = pull(stack, recording, gradients, states > 0, ctx.needs_input_grad[3:])
        if twice:
            message = f"pyrnn.torch: {stack.mode} has no second derivative; with fallback=True it is torch's own"
            found = applied(DifferentiableOnce, message, len(found), *found, *inputs, *gradients)
        return None, None, None, *found


def by_torch(
    stack: Stack, batch_sizes: Tensor | None, states: int, inputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None], needed: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """The gradients of inputs (x, states, weights) by torch's own implementation, which can be differentiated again."""
    with torch.enable_grad():
        inputs = [t.view_as(t) for t in inputs]  # one for each place: what one depends on is not the other's business
        x, *rest = inputs
        state, weights = rest[:states], rest[states:]
        if not state:
            rows = int(batch_sizes[0]) if batch_sizes is not None else x.shape[0 if stack.batch_first else 1]
            state = new_states(stack, weights, x, rows)
        hx: Any = tuple(state) if stack.mode == "LSTM" else state[0]
        more = (weights, stack.bias, stack.num_layers, 0.0, False, stack.bidirectional)
        function = getattr(_VF, stack.mode.lower())
        results = (
            function(x, hx, *more, stack.batch_first) if batch_sizes is None else function(x, batch_sizes, hx, *more)
        )
        pairs = [(y, dy) for y, dy in zip(results, gradients, strict=True) if dy is not None]
        wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
        ys, dys = zip(*pairs, strict=True)
        gradient = torch.autograd.grad(ys, wanted, dys, create_graph=torch.is_grad_enabled(), allow_unused=True)
        found = iter(gradient)
        return [next(found) if need else None for need in needed]


def new_states(stack: Stack, weights: Sequence[Tensor], x: Tensor, rows: Any) -> list[Tensor]:
    """Zeros, as torch makes them where there is no state."""
    count = stack.num_layers * (2 if stack.bidirectional else 1)
    return [x.new_zeros(count, rows, width) for width in _widths(stack, weights)]


def _widths(stack: Stack, weights: Sequence[Tensor]) -> tuple[int, ...]:
    cell = MODES[stack.mode].cell
    return cell.widths(weights[1].shape[0] // len(cell.gates), weights[1].shape[1])


# -------------------------------------------------------------------------------------- as an operator of its own


@torch.library.custom_op("pyrnn::recurrent", mutates_args=())
def recurrent(
    x: Tensor, batch_sizes: Tensor | None, state: Sequence[Tensor], weights: Sequence[Tensor], mode: str, bias: bool,
    num_layers: int, bidirectional: bool, batch_first: bool,
) -> list[Tensor]:  # fmt: skip
    """[y, final states...]: what a compiler meets in the place of a stack."""
    return run(Stack(mode, bias, num_layers, bidirectional, batch_first), x, batch_sizes, state, weights, False)[0]


@recurrent.register_fake
def _(x, batch_sizes, state, weights, mode, bias, num_layers, bidirectional, batch_first):  # type: ignore[no-untyped-def]
    stack = Stack(mode, bias, num_layers, bidirectional, batch_first)
    directions = 2 if bidirectional else 1
    y = x.new_empty(*x.shape[:-1], directions * weights[1].shape[1])
    rows = state[0].shape[1] if batch_sizes is not None else x.shape[0 if batch_first else 1]
    return [y, *(torch.empty_like(part) for part in new_states(stack, weights, x, rows))]


@torch.library.custom_op("pyrnn::recurrent_backward", mutates_args=())
def recurrent_backward(
    gradients: Sequence[Tensor | None], x: Tensor, batch_sizes: Tensor | None, state: Sequence[Tensor],
    weights: Sequence[Tensor], mode: str, bias: bool, num_layers: int, bidirectional: bool, batch_first: bool,
) -> list[Tensor]:  # fmt: skip
    """The gradients of [x, states..., weights...]; nothing but tensors goes from an operator to the one that is its way
    back, so that walks forward once more."""
    stack = Stack(mode, bias, num_layers, bidirectional, batch_first)
    recording = run(stack, x, batch_sizes, state, weights, True)[1]
    found = pull(stack, recording, gradients, len(state) > 0, [True] * (1 + len(weights)))
    return [g for g in found if g is not None]


@recurrent_backward.register_fake
def _(gradients, x, batch_sizes, state, weights, *call):  # type: ignore[no-untyped-def]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, *state, *weights)]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, batch_sizes, state, weights, *ctx.call = inputs
    ctx.states = len(state)
    ctx.packed = batch_sizes is not None
    ctx.save_for_backward(x, *([batch_sizes] if ctx.packed else []), *state, *weights)


def _back(ctx: Any, gradients: Sequence[Tensor | None]) -> Any:
    x, *rest = ctx.saved_tensors
    batch_sizes = rest.pop(0) if ctx.packed else None
    state, weights = rest[: ctx.states], rest[ctx.states :]
    dx, *found = recurrent_backward(list(gradients), x, batch_sizes, state, weights, *ctx.call)
    return dx, None, found[: ctx.states], found[ctx.states :], None, None, None, None, None


recurrent.register_autograd(_back, setup_context=_keep)
