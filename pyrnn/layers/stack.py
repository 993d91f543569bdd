"""What the recurrent layers share: stacking, directions, states and layouts around the ops of one layer.

Letters: T steps, N batch rows, I input features, H hidden units, P projected size, L layers, D directions, G gates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeGuard, TypeVar

import numpy as np

from .. import kernels
from ..cells import CELLS, Cell
from ..core.checks import (
    MOST,
    MOST_NUMBERS,
    Array,
    Rng,
    boolean,
    boolean_array,
    float_dtype,
    integer,
    integer_array,
    precision_of,
    real,
    real_array,
    shape_error,
    shaped_array,
    shown,
    within,
)
from ..core.layer import Layer
from ..core.layout import Layout, valid_steps
from ..core.parameters import Home, Shapes, unrecorded, without_recording
from ..core.pullback import AllOrNone, Once
from .dropout import dropout_mask
from .stream import Stream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


StateT = TypeVar("StateT", Array, "tuple[Array, Array]", "tuple[Array, ...]")

MOST_LAYERS = 2**16
PLAIN = Layout(batch_first=False, batched=True)

LAYERS: dict[str, type[Any]] = {}  # the layers of the cells in CELLS, under the same names

ndarray = np.ndarray  # a global is found faster than an attribute, in every call


class Recurrent(Layer, Generic[StateT]):
    """What the recurrent layers share. Parameters start uniform in ±1/sqrt(H), drawn in the order of `state_dict()`.

    TypeError and ValueError for arguments that make no layer.

        y, state = layer(x)  # (T, N, I) -> (T, N, H), (L, N, H)
        (y, state), pullback = layer.vjp(x)
        dx, dstate = pullback(np.ones_like(y))
    """

    _op: ClassVar[Any]  # the backend: a module like pyrnn.kernels.lstm or pyrnn.reference.lstm
    _cell: ClassVar[Cell]  # its record
    _cell_name: ClassVar[str]
    _has_stream = _has_products = True
    _features = ("input_size", "_outputs")
    _derived = (*Layer._derived, "_weights", "_grad_weights", "_compiled")
    _compiled: Sequence[Any] = ()  # of a quantized layer, for each layer and direction

    def __init_subclass__(cls, cell: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cell is not None:
            cls._cell, cls._op, cls._cell_name = CELLS[cell], getattr(kernels, cell), cell
            LAYERS[cell] = cls

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool, dropout: float,
        bidirectional: bool, dtype: DTypeLike, rng: Rng, proj_size: int = 0, peephole: bool = False,
        precision: str = "float32",
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.input_size = integer(call, "input_size", input_size, 1, MOST)
        self.hidden_size = integer(call, "hidden_size", hidden_size, 1, MOST)
        self.num_layers = integer(call, "num_layers", num_layers, 1, MOST_LAYERS)
        self.bias = boolean(call, "bias", bias)
        self.batch_first = boolean(call, "batch_first", batch_first)
        self.dropout = real(call, "dropout", dropout, 0, 1)
        self.bidirectional = boolean(call, "bidirectional", bidirectional)
        self.proj_size = integer(call, "proj_size", proj_size, 0, MOST)
        self.peephole = boolean(call, "peephole", peephole)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"{call}: proj_size is {proj_size}, expected less than hidden_size {hidden_size}")
        if self.dropout and self.num_layers == 1:
            warnings.warn(f"{call}: dropout acts between layers, and num_layers is 1", stacklevel=3)

        usual = {name: values[0] for name, values in self._cell.options.items()}
        self._options = {name: getattr(self, name) for name in usual if getattr(self, name) != usual[name]}
        self._directions = 2 if self.bidirectional else 1
        self._output = self.proj_size or self.hidden_size  # features of one direction
        self._widths = self._cell.widths(self.hidden_size, self._output)
        self._count = self.num_layers * self._directions
        directions = ("", "_reverse")[: self._directions]
        self._suffixes = [f"_l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]
        own_dtype = float_dtype(call, dtype)
        self.precision = precision_of(call, precision, own_dtype)
        if self.precision != "float32":
            self._options["precision"] = self.precision
        super().__init__(own_dtype, self._make_shapes())
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        self.rng = rng
        bound = self.hidden_size**-0.5
        self._flat[0][:] = rng.uniform(-bound, bound, self._size)
        for name, value in self._cell.starts.items():
            for suffix in self._suffixes:
                self._params[name + suffix][:] = value

    @property
    def _outputs(self) -> int:
        """Features of y."""
        return self._directions * self._output

    def _make_shapes(self) -> Shapes:
        shapes: Shapes = {}
        present = self._cell.present(lambda argument: getattr(self, argument))
        for k, suffix in enumerate(self._suffixes):
            inputs = self.input_size if k < self._directions else self._directions * self._output
            own = self._cell.shapes(inputs, self.hidden_size, self._output)
            shapes |= {name + suffix: own[name] for name in present}
        return shapes

    def _bind(self, home: Home) -> None:
        super()._bind(home)
        self._weights = self._by_layer(self._params)
        self._grad_weights = self._by_layer(self._grads)

    def _pack(self) -> None:
        self._compiled = [self._op.stream([weights], 1, **self._options) for weights in self._weights]

    def _forward(self, k: int, x: Array, state: Any, **given: Any) -> tuple[Array, tuple[Array, ...]]:
        """Of one layer and direction: y, state."""
        result: tuple[Array, tuple[Array, ...]]
        if self._compiled:
            result = self._compiled[k].forward(x, state, **given)
        else:
            result = self._op.forward(x, state, self._weights[k], **given, **self._options)
        return result

    def _by_layer(self, arrays: Mapping[str, Array]) -> list[tuple[Array | None, ...]]:
        """One tuple in the op's order for each layer and direction, index layer*D + direction."""
        return [tuple(arrays.get(name + suffix) for name in self._cell.weights) for suffix in self._suffixes]

    def __call__(
        self, x: ArrayLike, state: Any = None,
        *, lengths: ArrayLike | None = None, reset: ArrayLike | None = None, ids: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, StateT]:  # fmt: skip
        """Run over whole sequences: y, state.

        x        (T, N, I), (N, T, I) with batch_first, or unbatched (T, I)
        state    h (L*D, N, H), for the LSTM (h, c); without N when unbatched; None is zeros. h has P features with a
                 projection. Index layer*D + direction
        lengths  (N,) integers in 0..T: the valid steps of each row. y is 0 beyond them
        reset    (T, N) booleans, (N, T) with batch_first, (T,) when unbatched: True at the first step of a new sequence
        ids      (T, N), (N, T) or (T,) integers: x is a table (V, I), such as the weight of an Embedding, and step t of
                 row n reads x[ids[t, n]]. The same bits as with those rows as x, but each row's input product is made
                 once, however often it is read
        mask     (T, N) booleans, (N, T) with batch_first, (T,) when unbatched. A step where it is False is as if it
                 were not there, before, between or behind the others: the state is held, y is 0, and nothing there is
                 read, a mark of `reset` neither. With lengths, steps count where both say so
        y        like x, with D*H (or D*P) features; state: after the last valid step, to be fed back

        TypeError for what is not real numbers, ValueError for a wrong shape. Arrays are converted to the layer's dtype.

            y, state = layer(x)
            y2, state = layer(x2, state)
        """
        if state is lengths is reset is ids is mask is None and self._takes_as_it_is(x):
            try:
                y, final = self._forward(0, x, None)
                return y, self._join((final,), True)
            except (TypeError, ValueError):  # the error, if there is one, is the layer's
                pass
        x, states, lengths, reset, ids, layout, order = self._inputs("", x, state, lengths, reset, ids, mask)

        def run(k: int, x: Array, reverse: bool, out: Array | None) -> tuple[Array, tuple[Array, ...]]:
            own = ids if k < self._directions else None
            return self._forward(k, x, states[k], ids=own, lengths=lengths, reset=reset, reverse=reverse, out=out)

        return self._walk(run, x, x.shape if ids is None else ids.shape, layout, None, order)

    def vjp(
        self, x: ArrayLike, state: Any = None,
        *, lengths: ArrayLike | None = None, reset: ArrayLike | None = None, checkpoint_every: int | None = None,
        ids: ArrayLike | None = None, mask: ArrayLike | None = None, per_row: bool = False,
    ) -> tuple[tuple[Array, StateT], Callable[..., Any]]:  # fmt: skip
        """As a call of the layer, for training: (y, state), pullback, and then dx, dstate = pullback(dy, dstate).

        Between layers `dropout` acts, with fresh masks from `rng`, each (T, N, features) whatever the layout. With
        checkpoint_every=k only every k-th state is kept and the pullback computes the others again: the same bits.
        dx is like x: with `ids` the gradient of the table.

        With per_row the pullback gives the weight gradients of each row instead of adding their sum to `layer.grads`,
        which stay as they are: dx, dstate, {name: (N, ...)}, N 1 when unbatched. ValueError with `ids`.

            (y, state), pullback = layer.vjp(x)
            dx, dstate = pullback(y - target)
        """
        if without_recording.get():
            return self(x, state, lengths=lengths, reset=reset, ids=ids, mask=mask), unrecorded
        self._refuse_training("vjp")
        call = f"{type(self).__name__}.vjp"
        if per_row is not False and boolean(call, "per_row", per_row) and ids is not None:
            raise ValueError(f"{call}: per_row is for x alone, but ids are given")
        if checkpoint_every is not None:
            checkpoint_every = integer(call, "checkpoint_every", checkpoint_every, 1, MOST_NUMBERS)
        if state is lengths is reset is ids is mask is None and self._takes_as_it_is(x):
            try:
                (y, final), pull = self._op.vjp(
                    kernels.copied(x), None, self._weights[0], checkpoint_every=checkpoint_every, per_row=per_row,
                    **self._options,
                )  # fmt: skip
                pullback = Pullback(self, [pull], [], y.shape[:2], PLAIN, False, None, per_row)
                return (y, self._join((final,), True)), pullback
            except (TypeError, ValueError):
                pass
        x, states, lengths, reset, ids, layout, order = self._inputs(".vjp", x, state, lengths, reset, ids, mask)
        pulls: list[Any] = []
        masks: list[Array] = []

        def run(k: int, x: Array, reverse: bool, out: Array | None) -> tuple[Array, tuple[Array, ...]]:
            result: tuple[Array, tuple[Array, ...]]
            result, pull = self._op.vjp(
                x,
                states[k],
                self._weights[k],
                ids=ids if k < self._directions else None,
                lengths=lengths,
                reset=reset,
                reverse=reverse,
                checkpoint_every=checkpoint_every,
                per_row=per_row,
                out=out,
                **self._options,
            )
            pulls.append(pull)
            return result

        shape = x.shape if ids is None else ids.shape
        own = kernels.copied(x) if ids is None else x  # the op copies what it reads of a table
        result = self._walk(run, own, shape, layout, masks if self.dropout else None, order)
        return result, Pullback(self, pulls, masks, shape[:2], layout, ids is not None, order, per_row)

    def stream(self, batch: int = 1, state: Any = None) -> Stream[StateT]:
        """A `Stream` of `batch` rows on the weights as they are now: step by step at the speed of the kernels.

        state as in a call of the layer, (L, H) too where batch is 1. ValueError for a bidirectional layer.

            stream = layer.stream()
            y_t = stream.step(x_t)
        """
        call = f"{type(self).__name__}.stream"
        if self.bidirectional:
            raise ValueError(f"{call}: a bidirectional layer needs the whole sequence, it cannot run step by step")
        batch = integer(call, "batch", batch, 1, MOST)
        stream: Stream[StateT] = Stream(self, self._op.stream(self._weights, batch, **self._options), batch)
        if state is not None:
            stream.state = state
        return stream

    def _takes_as_it_is(self, x: Any) -> TypeGuard[Array]:
        """Whether x is what the op takes, but for what that checks itself: a small call takes less time than the checks
        of `_inputs`."""
        plain = self._count == 1 and not self.batch_first
        return plain and type(x) is ndarray and x.ndim == 3 and x.size > 0 and x.flags.c_contiguous

    def _inputs(
        self, suffix: str, x: Any, state: Any, lengths: Any, reset: Any, ids: Any = None, mask: Any = None
    ) -> tuple[Array, Sequence[Any], Array | None, Array | None, Array | None, Layout, Array | None]:
        """Check and bring to the op's form: x (T, N, I) or a table (V, I), one state tuple (or None) per layer and
        direction, lengths (N,), reset (T, N), ids (T, N) or None, and how the caller's sequences lie. With a mask, the
        steps that count are moved to the front of their rows, and the last is their `order`, see `moved`."""
        call = type(self).__name__ + suffix
        x = real_array(call, "x", x, self.dtype)
        name, walked = "x", x  # what has axes for steps and rows
        width: tuple[int, ...] = (self.input_size,)  # and the axis behind them
        if ids is not None:
            if x.ndim != 2 or x.shape[1:] != width:
                raise shape_error(call, "x", x.shape, f"(V, {self.input_size}), as there are ids")
            name, walked, width = "ids", integer_array(call, "ids", ids), ()
        shape = walked.shape
        layout = Layout.of(call, name, shape, self.batch_first, width)
        walked = layout.steps_first(walked)
        steps, rows = walked.shape[:2]
        batch = rows if layout.batched else None
        if (steps or 1) * (rows or 1) * self._count * self.hidden_size > MOST_NUMBERS:  # NumPy too takes 0 for 1 here
            raise ValueError(f"{call}: {name} has shape {shape}, its results are more than memory can hold")
        states: Sequence[Any] = (None,) * self._count
        if state is not None:
            states = list(zip(*self._parts(call, "state", state, batch), strict=True))
        if lengths is not None:
            lengths = layout.lengths(call, lengths, steps, rows)
        marks: dict[str, Array] = {}
        for kind, value in (("reset", reset), ("mask", mask)):
            if value is not None:
                lead = layout.shape(steps, rows)
                array = boolean_array(call, kind, value, lead, f"{layout.text()} = {lead}")
                marks[kind] = layout.steps_first(array)
        reset, order = marks.get("reset"), None
        if "mask" in marks:
            counts = marks["mask"]
            if lengths is not None:
                counts = counts & valid_steps(steps, rows, lengths)
            order = np.argsort(~counts, axis=0, kind="stable")
            lengths = counts.sum(axis=0)
            walked = moved(walked, order)
            reset = None if reset is None else moved(reset, order)
        if ids is None:
            return walked, states, lengths, reset, None, layout, order
        if walked.size and not 0 <= walked.min() <= walked.max() < len(x):  # the padding may hold anything
            within(call, "ids", walked[valid_steps(steps, rows, lengths)], len(x) - 1)
        return x, states, lengths, reset, walked, layout, order

    def _parts(self, call: str, name: str, state: Any, rows: int | None) -> list[Array]:
        """A state as the user holds it -> its arrays, each (L*D, N, width); rows None: they come without N."""
        names = tuple(self._cell.states)
        state, parts = as_many(call, name, state, names), []
        for value, part_name, width in zip(state, names, self._widths, strict=True):
            shape = (self._count, width) if rows is None else (self._count, rows, width)
            part = value
            if type(value) is not ndarray or value.dtype is not self.dtype or value.shape != shape:
                refuse_lengths(call, name, state)
                label = name if len(names) == 1 else f"{part_name} of {name}"
                part = shaped_array(call, label, value, self.dtype, shape)
            parts.append(part[:, None] if rows is None else part)
        return parts

    def _join(self, finals: Sequence[tuple[Array, ...]], batched: bool) -> StateT:
        """State tuples of every layer and direction -> a state as the user holds it."""
        parts: Sequence[Array]
        if self._count > 1:
            rows = finals[0][0].shape[:1] if batched else ()
            parts = [
                np.concatenate(part).reshape(self._count, *rows, width)
                for part, width in zip(zip(*finals, strict=True), self._widths, strict=True)
            ]
        elif batched:
            parts = [part[None] for part in finals[0]]
        else:
            parts = finals[0]
        state: Any = tuple(parts) if len(parts) > 1 else parts[0]
        result: StateT = state
        return result

    def _walk(
        self, run: Callable[[int, Array, bool, Array | None], tuple[Array, tuple[Array, ...]]], x: Array,
        shape: tuple[int, ...], layout: Layout, masks: list[Array] | None, order: Array | None,
    ) -> tuple[Array, StateT]:  # fmt: skip
        """Call run(layer*D + direction, x, reverse, out) -> y, state for each; out None is a new array. Dropout between
        layers fills `masks`. shape: (T, N) or more. order: of steps that were moved to the front."""
        steps, rows = shape[:2]
        turned = layout.batch_first and layout.batched

        def new_y(turn: bool) -> Array:
            lead: tuple[int, int] = (rows, steps) if turn else (steps, rows)
            y = kernels.empty((*lead, self._directions * self._output), self.dtype)
            return y.swapaxes(0, 1) if turn else y

        def new_mask(y: Array) -> Array:
            return dropout_mask(self.rng, self.dropout, y.shape, self.dtype)

        x, finals = walked(self, run, x, new_y, turned, new_mask, masks)
        if order is not None:
            x = moved_back(x, order, new_y(turned))
        return layout.back(x), self._join(finals, layout.batched)


def as_many(call: str, name: str, state: Any, names: tuple[str, ...]) -> Any:
    """A state as the user holds it -> its arrays, one for each name."""
    if len(names) == 1:
        return (state,)
    if not isinstance(state, (tuple, list)) or len(state) != len(names):
        refuse_lengths(call, name, state)
        what = "a pair" if len(names) == 2 else f"{len(names)} arrays"
        raise TypeError(f"{call}: {name} is not {what} ({', '.join(names)})")
    return state


def refuse_lengths(call: str, name: str, state: Any) -> None:
    """TypeError for integers in the place of a state."""
    if isinstance(state, (list, tuple)) and state and all(type(n) is int for n in state):
        raise TypeError(f"{call}: {name} is {shown(state)}, expected arrays; lengths are given by name, lengths=...")


def walked(
    layer: Any, run: Callable[[int, Array, bool, Array | None], tuple[Array, Any]], x: Array,
    new_y: Callable[[bool], Array], turned: bool, new_mask: Callable[[Array], Array], masks: list[Array] | None,
) -> tuple[Array, list[Any]]:  # fmt: skip
    """Through all layers and directions of a recurrent layer: y, final states.

    Calls run(layer*D + direction, x, reverse, out) -> y, state for each; out None is a new array. new_y(turn): memory
    for both directions, or for the last layer in the caller's order, if that is `turned`. masks: filled by new_mask(y)
    between layers, or None.
    """
    output, finals = layer._output, []
    for depth in range(layer.num_layers):
        last = depth == layer.num_layers - 1
        if layer.bidirectional:
            y = new_y(last and turned)
            finals.append(run(2 * depth, x, False, y[..., :output])[1])
            finals.append(run(2 * depth + 1, x, True, y[..., output:])[1])
            x = y
        else:
            x, final = run(depth, x, False, new_y(True) if last and turned else None)
            finals.append(final)
        if masks is not None and not last:
            masks.append(new_mask(x))
            combine(np.multiply, x, masks[-1])
    return x, finals


def walked_back(
    layer: Any, dh: Any, dstates: Sequence[Any], grads: Any, dinitials: list[Any], pulls: list[Any], masks: list[Array]
) -> Array:
    """The way back of `walked`: dx; fills `dinitials`."""
    output, directions = layer._output, layer._directions
    for k in range(layer._count - directions, -1, -directions):
        if layer.bidirectional:
            forth, back = (None, None) if dh is None else (dh[..., :output], dh[..., output:])
            dx, dinitials[k] = pulls[k](forth, dstates[k], grads[k])
            other, dinitials[k + 1] = pulls[k + 1](back, dstates[k + 1], grads[k + 1])
            combine(np.add, dx, other)
        else:
            dx, dinitials[k] = pulls[k](dh, dstates[k], grads[k])
        if k and masks:
            combine(np.multiply, dx, masks.pop())
        del pulls[k:]
        dh = dx
    result: Array = dh
    return result


def moved(x: Array, order: Array) -> Array:
    """x (T, N, ...) with its steps in another order, (T, N) integers: step order[k, n] of row n becomes step k."""
    return np.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=0)


def moved_back(x: Array, order: Array, out: Array) -> Array:
    """The way back, into `out`."""
    np.put_along_axis(out, order.reshape(*order.shape, *[1] * (x.ndim - 2)), x, axis=0)
    return out


def combine(operation: np.ufunc, target: Array, other: Array) -> None:
    """target = operation(target, other); like the kernels, without a word on overflow or NaN."""
    with np.errstate(all="ignore"):
        operation(target, other, out=target)


class Pullback(Generic[StateT]):
    """dx, dstate = pullback(dy, dstate=None): the gradients of one `vjp`.

    dy is like y, or None where only the final state matters; dstate is like state, or None for zeros. Adds to the
    gradients in `layer.grads`; dx is like x, the returned dstate like state. It can be called once (RuntimeError); a
    call refused for a wrong dy or dstate has added nothing and does not count. One that Ctrl-C ends has added nothing.
    After vjp(..., per_row=True) it gives dx, dstate, {name: (N, ...)} and adds nothing.

        (y, state), pullback = layer.vjp(x)
        dx, dstate = pullback(np.ones_like(y))  # (T, N, I), (L, N, H)
    """

    __slots__ = ("_kept", "_layer", "_layout", "_looked_up", "_order", "_per_row", "_shape")

    _layer: Recurrent[StateT]

    def __init__(
        self, layer: Recurrent[StateT], pulls: list[Any], masks: list[Array], shape: tuple[int, ...], layout: Layout,
        looked_up: bool, order: Array | None, per_row: bool,
    ) -> None:  # fmt: skip
        self._layer = layer
        self._kept = Once(f"{type(layer).__name__} pullback", (pulls, masks))
        self._shape = shape  # (T, N)
        self._layout = layout
        self._looked_up = looked_up  # x was a table
        self._order = order  # of steps that were moved to the front
        self._per_row = per_row

    def __call__(self, dy: ArrayLike | None, dstate: Any = None) -> Any:
        """dy like y, or None; dstate like state, or None -> dx, dstate. RuntimeError for a second call, TypeError and
        ValueError for what does not fit.

            dx, dstate = pullback(dy)
        """
        layer, layout, call = self._layer, self._layout, self._kept.call
        steps, rows = self._shape
        dh: Array | None = None
        if dy is not None:
            shape = layout.shape(steps, rows, layer._directions * layer._output)
            dh = layout.steps_first(shaped_array(call, "dy", dy, layer.dtype, shape))
            dh = dh if self._order is None else moved(dh, self._order)
        dstates: Sequence[Any] = (None,) * layer._count
        if dstate is not None:
            batch = rows if layout.batched else None
            dstates = list(zip(*layer._parts(call, "dstate", dstate, batch), strict=True))
        pulls, masks = self._kept.take()

        grads: Any = layer._grad_weights
        of_rows: dict[str, Array] = {}
        if self._per_row:
            of_rows = {name: np.repeat(np.zeros_like(grad)[None], rows, axis=0) for name, grad in layer._grads.items()}
            grads = layer._by_layer(of_rows)
        dinitials: list[Any] = [None] * layer._count
        if layer._count == 1:
            dx, dinitials[0] = pulls.pop()(dh, dstates[0], grads[0])
        elif self._per_row:
            dx = walked_back(layer, dh, dstates, grads, dinitials, pulls, masks)
        else:
            with AllOrNone(layer._flat[1], steps * rows):
                dx = walked_back(layer, dh, dstates, grads, dinitials, pulls, masks)
        if self._order is not None and not self._looked_up:
            dx = moved_back(dx, self._order, np.empty_like(dx))
        if not self._looked_up:
            dx = np.ascontiguousarray(layout.back(dx))
        dinitial = layer._join(dinitials, layout.batched)
        return (dx, dinitial, of_rows) if self._per_row else (dx, dinitial)
