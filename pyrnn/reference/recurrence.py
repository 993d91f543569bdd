"""The time loop of the recurrent layers: one layer, one direction, once for all cells. It knows no cell.

A cell is its equations for one step of R rows. It knows no time, and it is a `Cell` with

    weights                  named tuple class: the names of the weights, in order
    forward(w, x, before)    -> after, saved (what else the way back needs)
    backward(w, x, before, after, saved, dafter, dw) -> dx, dbefore; weight gradients are added into dw

where w and dw are such named tuples, x and dx are (R, I), and the states `before` and `after` the step are tuples of
(R, width) arrays whose first entry is the output. None of these functions changes its arguments, save dw.

Letters: T steps, N batch rows, I input features, H hidden units, P projected size, G gates, L layers.
"""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import cells
from ..core.checks import refuse_hidden
from ..core.pullback import Once
from . import apart, linear

Entries = Sequence[Any]  # weights or a state: arrays, or None where absent; matrices as in linear.py
State = tuple[np.ndarray, ...]
Back = tuple[np.ndarray, State]  # gradients of x and of the state before a step
Pullback = Callable[..., tuple[Any, State]]  # see `vjp`


class Cell:
    """What every cell has: of its record in pyrnn/cells.py, which has the name of the cell's module, and its equations.
    w and dw are `weights`, dw None where w is."""

    name: ClassVar[str]
    weights: ClassVar[Any]  # None where absent
    precision: str = "float32"  # of its products, see linear.py

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]
        cls.weights = namedtuple("Weights", cells.CELLS[cls.name].weights)  # type: ignore[misc]

    def sizes(self, w: Any) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
        """The widths of the states, and the shape that each weight should have."""
        record = cells.CELLS[self.name]
        gates, inputs = _numbers(w.weight_ih).shape
        hidden = gates // len(record.gates)
        projection = getattr(w, "weight_hr", None)
        outputs = hidden if projection is None else _numbers(projection).shape[0]
        return record.widths(hidden, outputs), record.shapes(inputs, hidden, outputs)

    def product(self, x: np.ndarray, weight: Any, bias: np.ndarray | None) -> np.ndarray:
        """x W^T + b."""
        return linear.forward(x, weight, bias, precision=self.precision)

    def product_backward(self, dy: np.ndarray, x: np.ndarray, weight: Any, dweight: Any, dbias: Any) -> np.ndarray:
        """The way back of a product: dx; adds to the gradients of the weights."""
        return linear.backward(dy, x, weight, dweight, dbias, precision=self.precision)

    def forward(self, w: Any, x: np.ndarray, before: State) -> tuple[State, Any]:
        """One step: the state after it, and what the way back needs."""
        raise NotImplementedError

    def backward(self, w: Any, x: np.ndarray, before: State, after: State, saved: Any, dafter: State, dw: Any) -> Back:
        """One step back: adds to the gradients of the weights; those of x and of the state before."""
        raise NotImplementedError


def op(cell: Callable[..., Cell]) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """forward, vjp and stream of a cell, whose constructor takes the op's options."""
    precision = inspect.Parameter("precision", inspect.Parameter.KEYWORD_ONLY, default="float32")
    options = [
        precision,
        *(
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(cell).parameters.values()
        ),
    ]

    def takes(function: Callable[..., Any], like: Callable[..., Any]) -> Callable[..., Any]:
        """As if it had been written out beside the cell: the arguments of `like` but for the cell, and the options."""
        arguments = list(inspect.signature(like).parameters.values())[1:]
        named = [p.replace(kind=p.KEYWORD_ONLY, default=DEFAULTS[p.name]) for p in arguments if p.name in DEFAULTS]
        positional = [p for p in arguments if p.name not in DEFAULTS]
        function.__signature__ = inspect.Signature([*positional, *named, *options])  # type: ignore[attr-defined]
        function.__module__, function.__doc__ = cell.__module__, like.__doc__
        function.__name__ = function.__name__.removesuffix("_of")
        return function

    def bound(
        function: Callable[..., Any], arguments: tuple[Any, ...], given: dict[str, Any]
    ) -> inspect.BoundArguments:
        call: inspect.BoundArguments = inspect.signature(function).bind(*arguments, **given)
        call.apply_defaults()
        return call

    def own(call: inspect.BoundArguments) -> tuple[Cell, list[Any]]:
        chosen = {p.name: call.arguments.pop(p.name) for p in options}
        given = chosen.pop("precision")
        made = cell(**chosen)
        made.precision = given
        linear.check_precision(given, *(w for w in _matrices(call.arguments) if w is not None))
        return made, list(call.arguments.values())

    def of_models(function: Callable[..., Any], call: inspect.BoundArguments) -> Any:
        given = dict(call.arguments)
        x, state, weights = (given.pop(name) for name in ("x", "state", "weights"))
        if given["ids"] is not None or given.get("per_row"):
            raise ValueError("ids and per_row are for one model")
        return apart.of_models(function, len(weights[0]), x, state, weights, given)

    def forward_of(*arguments: Any, **given: Any) -> Any:
        call = bound(forward_of, arguments, given)
        if apart.several_models(call.arguments["weights"]):
            return of_models(forward_of, call)
        made, rest = own(call)
        return forward(made, *rest)

    def vjp_of(*arguments: Any, **given: Any) -> Any:
        call = bound(vjp_of, arguments, given)
        if any(weight is not None and _numbers(weight).dtype in ENCODED for weight in call.arguments["weights"]):
            raise TypeError("weights of bfloat16 or int8 have no way back")
        if apart.several_models(call.arguments["weights"]):
            return of_models(vjp_of, call)
        if call.arguments["per_row"] and call.arguments["ids"] is not None:
            raise ValueError("per_row is not for x that ids look up")
        if call.arguments["per_row"] and call.arguments["x"].shape[1]:
            given = dict(call.arguments)
            x, state, weights = (given.pop(name) for name in ("x", "state", "weights"))
            return apart.of_rows(vjp_of, x, state, weights, {**given, "per_row": False})
        made, rest = own(call)
        return vjp(made, *rest)

    def stream_of(*arguments: Any, **given: Any) -> Stream:
        made, rest = own(bound(stream_of, arguments, given))
        return Stream(made, *rest)

    return takes(forward_of, forward), takes(vjp_of, vjp), takes(stream_of, Stream)


def _matrices(arguments: Any) -> list[Any]:
    """The weights that a call has been given."""
    layers = arguments["layers"] if "layers" in arguments else [arguments["weights"]]
    return [weight for layer in layers for weight in layer]


DEFAULTS = {
    "ids": None, "lengths": None, "reset": None, "reverse": False, "checkpoint_every": None, "per_row": False,
    "out": None,
}  # fmt: skip


def forward(
    cell: Any, x: np.ndarray, state: Sequence[np.ndarray] | None, weights: Entries, ids: np.ndarray | None,
    lengths: np.ndarray | None, reset: np.ndarray | None, reverse: bool, out: np.ndarray | None,
) -> tuple[np.ndarray, State]:  # fmt: skip
    """x (T, N, I) -> y (T, N, width of the output), final state. The arguments are those of every cell's `forward`:

    state     tuple of (N, width), or None for zeros
    weights   in the order of the cell's WEIGHTS, None where absent
    ids       None; or (T, N) rows of x, which is then a table (V, I): step t of row n reads x[ids[t, n]]
    lengths   (N,) valid steps of each row, or None for T. Beyond them x is never read, y is 0, the state stands still
    reset     (T, N) or None, True at the first step of a new sequence inside a row: the state is zero before that step;
              in reverse it is zero once the mark is passed. A mark beyond a row's length means nothing
    reverse   walk each row from its last valid step to step 0; y[t] belongs to x[t] all the same
    out       the array to write y into, or None for a new one

    Several models of one shape run where the weights, and then x and the state, have an axis of models in front.
    """
    result, _ = vjp(cell, x, state, weights, ids, lengths, reset, reverse, None, False, out)
    return result


def vjp(
    cell: Any, x: np.ndarray, state: Sequence[np.ndarray] | None, weights: Entries, ids: np.ndarray | None,
    lengths: np.ndarray | None, reset: np.ndarray | None, reverse: bool, checkpoint_every: int | None, per_row: bool,
    out: np.ndarray | None,
) -> tuple[tuple[np.ndarray, State], Pullback]:  # fmt: skip
    """As `forward`, and the way back: pullback(dy, dstate, grads, need_dx=True) -> dx, dstate. It may be called once.

    dy (like y), dstate (like state) and each entry of dstate may be None for zeros. The gradients of the weights are
    added into those arrays of `grads` (like weights) that are not None. No gradient crosses a reset; none comes from
    the padding or reaches it. dx is like x, or None with need_dx=False. x must stay as it is until then, if it is no
    table; everything else is copied.

    With per_row the arrays of `grads` are (N, ...), of each row.

    This is backpropagation through time (Werbos 1990). With checkpoint_every = k only every k-th state is kept, and
    the steps in between are computed again on the way back (Gruslys et al. 2016).
    """
    w, widths = _own_weights(cell, weights, x.dtype)
    table = x
    _check("x", x, (*x.shape[: 2 if ids is None else 1], _numbers(w.weight_ih).shape[1]), x.dtype)
    steps, batch = (x if ids is None else ids).shape[:2]
    lengths = _own_lengths(lengths, steps, batch)
    if ids is not None:
        _check("ids", ids, (steps, batch), np.int64)
        valid = np.arange(steps)[:, None] < lengths
        read = ids[valid]
        if np.any((read < 0) | (read >= len(table))):
            raise ValueError(f"ids is {ids}, expected 0 to {len(table) - 1}")
        x = np.zeros((steps, batch, table.shape[1]), table.dtype)
        x[valid] = table[read]
    cut = _cut(reset, lengths, steps, batch, reverse)
    now = _own_state("state", state, widths, batch, x.dtype)
    if checkpoint_every is not None and checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is {checkpoint_every}, expected None or at least 1")
    y = np.empty((steps, batch, widths[0]), x.dtype) if out is None else out
    _check("out", y, (steps, batch, widths[0]), x.dtype)
    y[...] = 0

    def walk(segment: range, start: State) -> tuple[State, list[Any]]:
        """From the state `start` through the steps of `segment`: the state after them, and a tape of each step."""
        state = tuple(s.copy() for s in start)
        tape = []
        for t in segment:
            rows = np.flatnonzero(t < lengths)  # the padding is never read: it is not in here
            before = tuple(np.where(cut[t, rows, None], 0, s[rows]) for s in state)
            after, saved = cell.forward(w, x[t, rows], before)
            for s, a in zip(state, after, strict=True):
                s[rows] = a
            tape.append((t, rows, before, after, saved))
        return state, tape

    order = range(steps)[::-1] if reverse else range(steps)
    every = checkpoint_every or max(steps, 1)
    segments = []
    for first in range(0, steps, every):
        segment, start = order[first : first + every], now
        now, tape = walk(segment, start)
        for t, rows, _, after, _ in tape:
            y[t, rows] = after[0]
        segments.append((segment, start, tape if checkpoint_every is None else None))

    kept = Once("reference pullback", segments)

    def pullback(
        dy: np.ndarray | None, dstate: Entries | None, grads: Entries, need_dx: bool = True
    ) -> tuple[np.ndarray | None, State]:
        dy = np.zeros(y.shape, x.dtype) if dy is None else dy
        _check("dy", dy, y.shape, x.dtype)
        dnow = _own_state("dstate", dstate, widths, batch, x.dtype)
        _check_grads(cell.weights(*grads), w)
        segments = kept.take()

        dx = np.zeros(x.shape, x.dtype)
        dw = cell.weights(*(None if weight is None else np.zeros_like(weight) for weight in w))
        for segment, start, tape in reversed(segments):
            if tape is None:
                _, tape = walk(segment, start)
            for t, rows, before, after, saved in reversed(tape):
                dh, *dothers = (d[rows] for d in dnow)
                dafter = (dh + dy[t, rows], *dothers)
                dx[t, rows], dbefore = cell.backward(w, x[t, rows], before, after, saved, dafter, dw)
                for d, db in zip(dnow, dbefore, strict=True):
                    d[rows] = np.where(cut[t, rows, None], 0, db)

        for grad, d in zip(grads, dw, strict=True):
            if grad is not None:
                grad += d
        if not need_dx:
            return None, dnow
        if ids is None:
            return dx, dnow
        dtable = np.zeros_like(table)
        np.add.at(dtable, read, dx[valid])
        return dtable, dnow

    return (y, tuple(s.copy() for s in now)), pullback


class Stream:
    """Layers on top of each other, walking forward in time, fed in pieces; the state is carried from call to call.

    layers: the weights of each layer, layer 0 first (copied); batch: the number of rows N. It starts at zero.
    """

    def __init__(self, cell: Any, layers: Sequence[Entries], batch: int) -> None:
        first = _numbers(layers[0][0])
        dtype = np.dtype(np.float32) if first.dtype in ENCODED else first.dtype
        owned = [_own_weights(cell, weights, dtype) for weights in layers]
        self._cell = cell
        self._weights = [w for w, _ in owned]
        widths = owned[0][1]
        for w, own_widths in owned[1:]:
            _check_weight("weight_ih", w.weight_ih, (len(_numbers(w.weight_ih)), widths[0]), dtype)
            if own_widths != widths:
                raise ValueError(f"a layer has states of width {own_widths}, the first one of {widths}")
        self._state: State = tuple(np.zeros((len(layers), batch, width), dtype) for width in widths)

    def step(self, x: np.ndarray) -> np.ndarray:
        """x (N, I) -> output of the last layer (N, width); (I,) -> (width,) where N is 1."""
        y: np.ndarray = self.run(x[None, None])[0, 0] if x.ndim == 1 else self.run(x[None])[0]
        return y

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (T, N, I) -> y (T, N, width)."""
        outputs = self._state[0]
        _check("x", x, (len(x), outputs.shape[1], _numbers(self._weights[0].weight_ih).shape[1]), outputs.dtype)
        y = np.empty((len(x), *outputs.shape[1:]), outputs.dtype)
        for t in range(len(x)):
            h = x[t]
            for layer, w in enumerate(self._weights):
                after, _ = self._cell.forward(w, h, tuple(s[layer] for s in self._state))
                for s, a in zip(self._state, after, strict=True):
                    s[layer] = a
                h = after[0]
            y[t] = h
        return y

    def step_from(self, x: np.ndarray, state: Sequence[np.ndarray]) -> tuple[np.ndarray, State]:
        """x (N, I) and a state as of `get_state` -> the output (N, width), the state after it; its own is as before."""
        before = self._state
        try:
            self.set_state(state)
            return self.step(x), self.get_state()
        finally:
            self._state = before

    def forward(
        self, x: np.ndarray, state: Sequence[np.ndarray] | None, *, ids: np.ndarray | None = None,
        lengths: np.ndarray | None = None, reset: np.ndarray | None = None, reverse: bool = False,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:  # fmt: skip
        """As the op's forward, on the stream's weights, of one layer; the state of the stream is not touched."""
        if len(self._weights) > 1:
            raise ValueError("forward is for a stream of one layer")
        return forward(self._cell, x, state, self._weights[0], ids, lengths, reset, reverse, out)

    def get_state(self) -> State:
        """A copy of the state: a tuple of (L, N, width)."""
        return tuple(s.copy() for s in self._state)

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a state in the form of `get_state`."""
        if len(state) != len(self._state):
            raise ValueError(f"state has {len(state)} entries, expected {len(self._state)}")
        for s, own in zip(state, self._state, strict=True):
            _check("state", s, own.shape, own.dtype)
        self._state = tuple(s.copy() for s in state)

    def reset(self, rows: np.ndarray | None = None) -> None:
        """Set the state of some rows (all by default) to zero."""
        for s in self._state:
            s[:, slice(None) if rows is None else rows] = 0


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: Any) -> None:
    refuse_hidden("reference", name, array)
    if array.dtype != dtype:
        raise TypeError(f"{name} is of {array.dtype}, expected {np.dtype(dtype)}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")


ENCODED = (np.dtype(np.uint16), np.dtype(np.int8))  # of matrices in fewer bits


def _numbers(weight: Any) -> np.ndarray:
    """Of a pair the first."""
    numbers: np.ndarray = weight[0] if isinstance(weight, tuple) else weight
    return numbers


def _check_weight(name: str, weight: Any, shape: tuple[int, ...], dtype: Any) -> None:
    numbers = _numbers(weight)
    encoded = len(shape) == 2 and dtype == np.float32 and numbers.dtype in ENCODED
    _check(name, numbers, shape, numbers.dtype if encoded else dtype)
    if isinstance(weight, tuple):
        _check(f"the scale of {name}", weight[1], shape[:1], dtype)


def _copy(weight: Any) -> Any:
    return tuple(map(np.copy, weight)) if isinstance(weight, tuple) else weight.copy()


def _own_weights(cell: Any, weights: Entries, dtype: Any) -> tuple[Any, tuple[int, ...]]:
    """Copies of the weights as cell.weights, and the widths of the state's entries."""
    w = cell.weights(*weights)
    optional = cells.CELLS[cell.name].optional
    if len({weight is None for name, weight in zip(w._fields, w, strict=True) if optional.get(name) == "bias"}) == 2:
        raise ValueError("one bias of two: weights has both bias_ih and bias_hh or neither")
    widths, shapes = cell.sizes(w)
    for name, weight in zip(cell.weights._fields, w, strict=True):
        if weight is not None:
            _check_weight(name, weight, shapes[name], dtype)
    return cell.weights(*(None if weight is None else _copy(weight) for weight in w)), widths


def _check_grads(grads: Any, w: Any) -> None:
    for name, grad, weight in zip(grads._fields, grads, w, strict=True):
        if grad is not None:
            if weight is None:
                raise ValueError(f"grads has {name}, which weights has not")
            _check(f"the gradient of {name}", grad, weight.shape, weight.dtype)


def _own_state(name: str, state: Entries | None, widths: tuple[int, ...], batch: int, dtype: Any) -> State:
    """A copy of the state, zeros for what is None."""
    entries = [None] * len(widths) if state is None else state
    if len(entries) != len(widths):
        raise ValueError(f"{name} has {len(entries)} entries, expected {len(widths)}")
    own = []
    for entry, width in zip(entries, widths, strict=True):
        own.append(np.zeros((batch, width), dtype) if entry is None else entry.copy())
        _check(name, own[-1], (batch, width), dtype)
    return tuple(own)


def _own_lengths(lengths: np.ndarray | None, steps: int, batch: int) -> np.ndarray:
    if lengths is None:
        return np.full(batch, steps)
    _check("lengths", lengths, (batch,), np.int64)
    if np.any((lengths < 0) | (lengths > steps)):
        raise ValueError(f"lengths is {lengths}, expected 0 to {steps}")
    return lengths.copy()


def _cut(reset: np.ndarray | None, lengths: np.ndarray, steps: int, batch: int, reverse: bool) -> np.ndarray:
    """(T, N), True where the state is zero before step t: in reverse that is where step t + 1 is marked and valid."""
    cut = np.zeros((steps, batch), bool)
    if reset is None:
        return cut
    _check("reset", reset, (steps, batch), bool)
    marks = reset & (np.arange(steps)[:, None] < lengths)
    if reverse:
        cut[:-1] = marks[1:]
    else:
        cut[:] = marks
    return cut
