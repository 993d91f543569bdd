"""The same layer of several models in one call: each model's result has the bits that it has alone.

Letters: P models, T steps, N batch rows, I input features, L layers, D directions. Arrays have the axis of the models
in front; where all models are given the same, it is an axis of stride 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..core.checks import (
    MOST_NUMBERS,
    Array,
    any_array,
    boolean_array,
    integer,
    integer_array,
    is_array_like,
    real_array,
    shape_error,
    shape_text,
    shaped_array,
    within,
)
from ..core.layer import Layer
from ..core.model import Model
from ..core.parameters import unrecorded, without_recording
from ..core.pullback import Once, Pullback
from .axis_of_models import check_cut, cut, owned, spread, stacked, views_of
from .dropout import Dropout, dropout_mask
from .linear import Linear
from .pooling import Summary
from .population_stream import ByStep, RecurrentStream, StreamsOneByOne
from .sequential import Sequential, behind
from .stack import Recurrent, as_many, walked, walked_back

Part = Callable[[Layer], "tuple[Array, Array]"]  # of the first model's layer: all models' parameters (P, n), gradients


def together(models: Sequence[Any], part: Part) -> Together:
    """How these models, of one shape, run."""
    first = models[0]
    if isinstance(first, Recurrent):
        return RecurrentTogether(models, part)
    if isinstance(first, Linear) and first._table is None:
        return LinearTogether(models, part)
    if type(first) is Sequential:
        return SequentialTogether(models, part)
    if isinstance(first, Model) and first._takes_axes_in_front:
        return ModelTogether(models, part)
    if isinstance(first, Summary):
        return RowsTogether(models)
    if first._by_step and not first._shapes and not first._leaves()[1:] and not isinstance(first, Dropout):
        return Whole(models)
    return OneByOne(models)


class Together:
    """Several models as one. `call` names it in errors. A pullback that raises on the way may have added to some of the
    gradients."""

    def __init__(self, models: Sequence[Any]) -> None:
        self.models = models

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """As the call of a layer."""
        raise NotImplementedError

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """As the vjp of a layer."""
        raise NotImplementedError

    def streamed(self, call: str, rows: int) -> list[Any]:
        """What a `PopulationStream` runs."""
        raise NotImplementedError


class OneByOne(Together):
    """One model after the other: what layers do for which nothing better is written, and classes of the user's own."""

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """Of each model; arrays among what is given are cut, everything else goes to all."""
        return stacked([model(own, **rest) for model, own, rest in self._cut(call, x, given)])

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """Of each model, and the pullbacks of all as one."""
        results, pulls = [], []
        for model, own, rest in self._cut(call, x, given):
            result, pull = model.vjp(own, **rest)
            results.append(result)
            pulls.append(pull)
        if without_recording.get():
            return stacked(results), unrecorded
        once = Once(f"{call} pullback", pulls)

        def pullback(*gradients: Any, **named: Any) -> Any:
            count = len(self.models)
            for gradient in (*gradients, *named.values()):
                check_cut(once.call, "a gradient", gradient, count)
            pulls = once.take()
            return stacked([
                pull(*(cut(gradient, k) for gradient in gradients), **{name: cut(g, k) for name, g in named.items()})
                for k, pull in enumerate(pulls)
            ])  # fmt: skip

        return stacked(results), pullback

    def streamed(self, call: str, rows: int) -> list[Any]:
        """Streams, or a layer that sees one step at a time anyhow; TypeError for what cannot run so."""
        first = self.models[0]
        if first._has_stream or callable(getattr(type(first), "stream", None)):
            return [StreamsOneByOne([model.stream(rows) for model in self.models])]
        if not first._by_step:
            raise TypeError(f"{call}: {type(first).__name__} cannot run step by step")
        return [ByStep(self)]

    def _cut(self, call: str, x: Any, given: dict[str, Any]) -> Any:
        count = len(self.models)
        given = {name: any_array(call, name, value) if is_array_like(value) else value for name, value in given.items()}
        for name, value in {"x": x, **given}.items():
            check_cut(call, name, value, count)
        return ((model, cut(x, k), {name: cut(value, k) for name, value in given.items()})
                for k, model in enumerate(self.models))  # fmt: skip


class Whole(Together):
    """A layer without parameters that works number by number, or over the last axis: all models' arrays as one."""

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """Of the first model's layer."""
        return self.models[0](x, **given)

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """Of the first model's layer."""
        result: tuple[Any, Callable[..., Any]] = self.models[0].vjp(x, **given)
        return result

    def streamed(self, call: str, rows: int) -> list[Any]:
        """It keeps nothing."""
        return [ByStep(self)]


class LinearTogether(Together):
    """A linear map: the models are shared out among the threads."""

    def __init__(self, models: Sequence[Any], part: Part) -> None:
        super().__init__(models)
        self.layer = models[0]
        views = (views_of(flat, self.layer._shapes) for flat in part(self.layer))
        self.arrays, self.grads = ((arrays["weight"], arrays.get("bias")) for arrays in views)

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """x (P, ..., I) -> y (P, ..., O)."""
        return self.layer._op.forward(self._input(call, x, **given), *self.arrays, **self.layer._options)

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """y, pullback."""
        if given.pop("per_row", False):
            return OneByOne(self.models).vjp(call, x, per_row=True)
        x = self._input(call, x, **given)
        op, (weight, bias), options = self.layer._op, self.arrays, self.layer._options
        own = owned(x), kernels.copied(weight)
        y: Array = op.forward(*own, bias, **options)

        def back(dy: Array, own: tuple[Array, Array]) -> Array:
            dx: Array = op.backward(dy, *own, *self.grads, **options)
            return dx

        return y, Pullback(f"{call} pullback", y, own, back)

    def streamed(self, call: str, rows: int) -> list[Any]:
        """It keeps nothing."""
        return [ByStep(self)]

    def _input(self, call: str, x: Any) -> Array:
        layer = self.layer
        array = real_array(call, "x", x, layer.dtype)
        if array.ndim < 2 or array.shape[-1] != layer.in_features:
            raise shape_error(call, "x", array.shape, f"({len(self.models)}, ..., {layer.in_features})")
        return array


class SequentialTogether(Together):
    """The layers of a `Sequential` one after the other, each of all models."""

    def __init__(self, models: Sequence[Any], part: Part) -> None:
        super().__init__(models)
        self.chain = [together(layers, part) for layers in zip(*(model._chain() for model in models), strict=True)]

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """What comes out of the last layer."""
        for layers, own, _ in self._with_lengths(call, "__call__", **given):
            x = layers.forward(call, x, **own)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """y, pullback."""
        pulls = []
        for layers, own, last in self._with_lengths(call, "vjp", **given):
            x, pull = layers.vjp(call, x, **own)
            x = x[0] if isinstance(x, tuple) and not last else x
            pulls.append(pull)
        y = x[0] if isinstance(x, tuple) else x
        once = Once(f"{call} pullback", pulls)

        def pullback(dy: Any) -> Any:
            gradient: Any = shaped_array(once.call, "dy", dy, y.dtype, y.shape)
            for pull in reversed(once.take()):
                gradient = pull(gradient)
                gradient = gradient[0] if isinstance(gradient, tuple) else gradient
            return gradient

        return y, pullback

    def streamed(self, call: str, rows: int) -> list[Any]:
        """Of all layers."""
        return [part for layers in self.chain for part in layers.streamed(call, rows)]

    def _with_lengths(self, call: str, method: str, lengths: Any = None) -> Any:
        """Each layer, what it is given beside x, and whether it is the last."""
        count, model = len(self.models), self.models[0]
        for k, layers in enumerate(self.chain):
            layer = layers.models[0]
            given = model._lengths(layer, method, lengths)
            if isinstance(layers, OneByOne):
                given = {name: spread(call, name, value, count, 1) for name, value in given.items()}
            yield layers, given, k + 1 == len(self.chain)
            lengths = behind(layer, lengths)


class ModelTogether(Together):
    """A model whose class says that its `vjp` takes axes in front of those it names: it runs once, on the layers of all
    models. Those are attributes of it themselves."""

    def __init__(self, models: Sequence[Model], part: Part) -> None:
        super().__init__(models)
        self.view = object.__new__(type(models[0]))
        for name, value in models[0]._attributes().items():
            if isinstance(value, Layer):
                value = AsLayer([getattr(model, name) for model in models], part)
            object.__setattr__(self.view, name, value)

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """The first result of `vjp`."""
        before = without_recording.set(True)
        try:
            return self.view.vjp(x, **given)[0]
        finally:
            without_recording.reset(before)

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """Of the class."""
        result: tuple[Any, Callable[..., Any]] = self.view.vjp(x, **given)
        return result

    def streamed(self, call: str, rows: int) -> list[Any]:
        """One model after the other."""
        return OneByOne(self.models).streamed(call, rows)


class AsLayer:
    """The same layer of all models, with the calls of a layer. What else is asked for is that of the first model."""

    def __init__(self, layers: Sequence[Layer], part: Part) -> None:
        self.layers, self.all = layers, together(layers, part)

    def __call__(self, x: Any, **given: Any) -> Any:
        return self.all.forward(type(self.layers[0]).__name__, x, **given)

    def vjp(self, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """As the vjp of the layer."""
        return self.all.vjp(f"{type(self.layers[0]).__name__}.vjp", x, **given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layers[0], name)


class RowsTogether(Together):
    """A summary of each row, without parameters: the rows of all models are rows of one."""

    def forward(self, call: str, x: Any, **given: Any) -> Any:
        """x (P, T, N, F) -> y (P, N, F)."""
        rows, lengths = self._rows(call, x, **given)
        return self._apart(self.models[0](rows, lengths=lengths))

    def vjp(self, call: str, x: Any, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """y, pullback."""
        rows, lengths = self._rows(call, x, **given)
        y, pull = self.models[0].vjp(rows, lengths=lengths)
        axis = self._axis

        def back(dy: Array, pull: Callable[[Array], Array]) -> Array:
            dx = pull(dy.reshape(y.shape))
            dx = dx.reshape(*dx.shape[:axis], len(self.models), -1, *dx.shape[axis + 1 :])
            return np.ascontiguousarray(np.moveaxis(dx, axis, 0))

        result = self._apart(y)
        return result, Pullback(f"{call} pullback", result, pull, back)

    def streamed(self, call: str, rows: int) -> list[Any]:
        """TypeError: it needs all steps."""
        return OneByOne(self.models).streamed(call, rows)

    @property
    def _axis(self) -> int:
        """Of the rows, in what one model is given."""
        return 0 if self.models[0].batch_first else 1

    def _apart(self, y: Array) -> Array:
        return y.reshape(len(self.models), -1, y.shape[1])

    def _rows(self, call: str, x: Array, lengths: Any = None) -> tuple[Array, Array | None]:
        """(P, T, N, F) -> (T, P * N, F), and their lengths."""
        count, axis = len(self.models), self._axis
        if x.ndim != 4 or len(x) != count:
            axes = ("N", "T", "F") if axis == 0 else ("T", "N", "F")
            raise shape_error(call, "x", x.shape, shape_text(count, *axes))
        rows = x.shape[1 + axis]
        if lengths is not None:
            lengths = integer_array(call, "lengths", lengths)
            if lengths.shape not in ((rows,), (count, rows)):
                raise shape_error(call, "lengths", lengths.shape, f"{(rows,)} or {(count, rows)}")
            lengths = np.broadcast_to(lengths, (count, rows)).reshape(-1)
        x = np.moveaxis(x, 0, axis)
        return x.reshape(*x.shape[:axis], count * rows, *x.shape[axis + 2 :]), lengths


class RecurrentTogether(Together):
    """A recurrent layer: the models are shared out among the threads, each of which takes whole ones."""

    def __init__(self, models: Sequence[Recurrent[Any]], part: Part) -> None:
        super().__init__(models)
        self.layer = layer = models[0]
        views = (views_of(flat, layer._shapes) for flat in part(layer))
        self.weights, self.grad_weights = (
            [tuple(arrays.get(name + suffix) for name in layer._cell.weights) for suffix in layer._suffixes]
            for arrays in views
        )

    def forward(self, call: str, x: Any, state: Any = None, **given: Any) -> Any:
        """y, state."""
        if self._needs_more(given):
            return OneByOne(self.models).forward(call, x, state=state, **self._spread(call, given))
        x, states, walk = self._inputs(call, x, state, **given)
        layer = self.layer

        def run(k: int, x: Array, reverse: bool, out: Array | None) -> Any:
            return layer._op.forward(
                x, states[k], self.weights[k], **walk, reverse=reverse, out=out, **layer._options
            )  # fmt: skip

        return self._walk(run, x, None)

    def vjp(self, call: str, x: Any, state: Any = None, **given: Any) -> tuple[Any, Callable[..., Any]]:
        """(y, state), pullback."""
        if without_recording.get():
            given = {name: value for name, value in given.items() if name not in ("checkpoint_every", "per_row")}
            return self.forward(call, x, state, **given), unrecorded
        if self._needs_more(given):
            return OneByOne(self.models).vjp(call, x, state=state, **self._spread(call, given))
        given.pop("per_row", None)
        every = given.pop("checkpoint_every", None)
        every = None if every is None else integer(call, "checkpoint_every", every, 1, MOST_NUMBERS)
        x, states, walk = self._inputs(call, x, state, **given)
        layer = self.layer
        pulls: list[Any] = []
        masks: list[Array] = []

        def run(k: int, x: Array, reverse: bool, out: Array | None) -> Any:
            result, pull = layer._op.vjp(
                x, states[k], self.weights[k], **walk, reverse=reverse, checkpoint_every=every, out=out,
                **layer._options,
            )  # fmt: skip
            pulls.append(pull)
            return result

        result = self._walk(run, owned(x), masks if layer.dropout else None)
        rows = x.shape[2]
        once = Once(f"{call} pullback", (pulls, masks))
        y_shape = result[0].shape

        def pullback(dy: Any, dstate: Any = None) -> Any:
            dh = None
            if dy is not None:
                dh = self._steps_first(shaped_array(once.call, "dy", dy, layer.dtype, y_shape))
            dstates = self._states(once.call, "dstate", dstate, rows)
            pulls, masks = once.take()
            dinitials: list[Any] = [None] * layer._count
            dx = walked_back(self.layer, dh, dstates, self.grad_weights, dinitials, pulls, masks)
            return np.ascontiguousarray(self._steps_first(dx)), self._join(dinitials)

        return result, pullback

    def streamed(self, call: str, rows: int) -> list[Any]:
        """ValueError for a bidirectional layer."""
        layer = self.layer
        if layer.bidirectional:
            raise ValueError(f"{call}: a bidirectional layer needs the whole sequence, it cannot run step by step")
        return [RecurrentStream(self, layer._op.stream(self.weights, rows, **layer._options))]

    def _needs_more(self, given: dict[str, Any]) -> bool:
        return bool(given.get("per_row")) or any(given.get(name) is not None for name in ("ids", "mask"))

    def _spread(self, call: str, given: dict[str, Any]) -> dict[str, Any]:
        axes = {"lengths": 1, "reset": 2, "ids": 2, "mask": 2}
        count = len(self.models)
        return {
            name: spread(call, name, value, count, axes[name]) if name in axes else value
            for name, value in given.items()
        }

    def _steps_first(self, x: Array) -> Array:
        """(P, N, T, ...) of batch_first as (P, T, N, ...), or the other way round."""
        return x.swapaxes(1, 2) if self.layer.batch_first else x

    def _inputs(
        self, call: str, x: Any, state: Any, lengths: Any = None, reset: Any = None, ids: None = None, mask: None = None
    ) -> tuple[Array, Sequence[Any], dict[str, Any]]:
        layer, count = self.layer, len(self.models)
        axes = ("N", "T") if layer.batch_first else ("T", "N")
        x = x if x.dtype == layer.dtype else real_array(call, "x", x, layer.dtype)
        if x.ndim != 4 or x.shape[3] != layer.input_size:
            of_all = x.strides[0] == 0
            expected = shape_text(*axes, layer.input_size) if of_all else shape_text(count, *axes, layer.input_size)
            raise shape_error(call, "x", x.shape[of_all:], expected)
        x = self._steps_first(x)
        steps, rows = x.shape[1:3]
        if count * (steps or 1) * (rows or 1) * layer._count * layer.hidden_size > MOST_NUMBERS:
            raise ValueError(f"{call}: x has shape {x.shape}, its results are more than memory can hold")
        walk: dict[str, Any] = {"lengths": None, "reset": None}
        if lengths is not None:
            array = integer_array(call, "lengths", lengths)
            if array.shape not in ((rows,), (count, rows)):
                raise shape_error(call, "lengths", array.shape, f"{(rows,)} or {(count, rows)}")
            walk["lengths"] = within(call, "lengths", array, steps)
        if reset is not None:
            shape = (rows, steps) if layer.batch_first else (steps, rows)
            own = np.ndim(reset) == 3
            expected = f"{shape} or {(count, *shape)}"
            array = boolean_array(call, "reset", reset, (count, *shape) if own else shape, expected)
            walk["reset"] = array.swapaxes(-1, -2) if layer.batch_first else array
        return x, self._states(call, "state", state, rows), walk

    def _states(self, call: str, name: str, state: Any, rows: int) -> Sequence[Any]:
        """(P, L*D, N, ...) -> one tuple, or None, of each layer and direction."""
        layer = self.layer
        if state is None:
            return (None,) * layer._count
        names = tuple(layer._cell.states)
        state, parts = as_many(call, name, state, names), []
        for value, part, width in zip(state, names, layer._widths, strict=True):
            label = name if len(names) == 1 else f"{part} of {name}"
            shape = (len(self.models), layer._count, rows, width)
            parts.append(shaped_array(call, label, value, layer.dtype, shape))
        return [tuple(part[:, k] for part in parts) for k in range(layer._count)]

    def _join(self, finals: Sequence[tuple[Array, ...]]) -> Any:
        parts = tuple(np.stack(part, axis=1) for part in zip(*finals, strict=True))
        return parts if len(parts) > 1 else parts[0]

    def _walk(self, run: Callable[..., Any], x: Array, masks: list[Array] | None) -> Any:
        """As `Recurrent._walk`."""
        layer, count = self.layer, len(self.models)
        steps, rows = x.shape[1:3]

        def new_y(turn: bool) -> Array:
            lead = (rows, steps) if turn else (steps, rows)
            y = kernels.empty((count, *lead, layer._directions * layer._output), layer.dtype)
            return y.swapaxes(1, 2) if turn else y

        x, finals = walked(layer, run, x, new_y, layer.batch_first, self._new_mask, masks)
        return self._steps_first(x), self._join(finals)

    def _new_mask(self, y: Array) -> Array:
        """Of each model by its own generator."""
        layer = self.layer
        return np.stack([dropout_mask(model.rng, layer.dropout, y.shape[1:], layer.dtype) for model in self.models])
