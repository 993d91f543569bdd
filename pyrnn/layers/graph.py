"""A model whose layers take what others gave, and layers of several inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import MOST, Array, Rng, choice, float_dtype, integer, quietly, real_array, shape_error, shown
from ..core.layer import Layer
from ..core.model import Model
from ..core.pullback import Pullback
from .chain import ChainStream
from .sequential import Sequential, behind

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

INPUT = "x"  # what the model is given, among the names of layers


class Graph(Sequential):
    """Layers of which each takes what some others gave: branches that meet again.

    inputs: of each layer the names of those whose results it takes, "x" for what the model is given; in the order in
    which they run, so that what a layer takes comes before it. The last one's result is the model's. Where a layer
    returns several things the first goes on, `lengths` and rng are as in `Sequential`. ValueError for a name that is no
    layer's, or is not there yet, and for a layer that nothing leads to or whose result nobody takes.

        skip = pyrnn.Graph({"rnn": ["x"], "head": ["rnn"], "sum": ["head", "x"]},
                           rnn=pyrnn.GRU(1, 8), head=pyrnn.Linear(8, 1), sum=pyrnn.Merge("add"))
        y = skip(x)  # (T, N, 1) -> (T, N, 1)
    """

    def __init__(self, inputs: Mapping[str, Sequence[str]], *, rng: Rng = None, **named: Layer) -> None:
        call = type(self).__name__
        if not isinstance(inputs, Mapping) or not inputs:
            raise TypeError(f"{call}: inputs is {shown(inputs)}, expected a dict of lists of names")
        if INPUT in inputs or INPUT in named:
            raise ValueError(f"{call}: a layer has the name {INPUT!r}, which is that of what the model is given")
        known = {INPUT}
        for name, sources in inputs.items():
            if not isinstance(sources, (list, tuple)) or not sources:
                raise TypeError(f"{call}: the inputs of {shown(name)} are {shown(sources)}, expected a list of names")
            for source in sources:
                if not isinstance(source, str) or source not in known:
                    raise ValueError(f"{call}: {shown(name)} takes {shown(source)}, which is not before it")
            known.add(name)
        if known - {INPUT} != set(named):
            raise ValueError(
                f"{call}: inputs names {shown(sorted(known - {INPUT}))}, the layers are {shown(sorted(named))}"
            )
        unused = known - {INPUT, list(inputs)[-1]} - {source for sources in inputs.values() for source in sources}
        if unused:
            raise ValueError(f"{call}: nobody takes the result of {min(unused)!r}")
        Model.__init__(self, rng=rng)
        self.inputs = {name: list(sources) for name, sources in inputs.items()}
        self._add({name: named[name] for name in inputs})

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """What comes out of the last layer. lengths (N,) integers in 0..T; errors as in the layers.

        y = model(x, lengths=[5, 2])
        """
        y: Array = self._through("__call__", x, lengths, lambda name, result: result)
        return y

    def vjp(  # type: ignore[override]  # no per_row
        self, x: ArrayLike, *, lengths: ArrayLike | None = None
    ) -> tuple[Array, Callable[[ArrayLike], Any]]:
        """y, pullback. dx = pullback(dy) adds to `grads` and can be called once; dx is None where x are ids.

        y, pullback = model.vjp(x, lengths=[5, 2])
        pullback(y - target)
        """
        pulls: list[tuple[str, Any]] = []

        def keep(name: str, result: Any) -> Any:
            pulls.append((name, result[1]))
            return result[0]

        y: Array = self._through("vjp", x, lengths, keep)

        @quietly
        def back(dy: Array, pulls: list[tuple[str, Any]]) -> Any:
            gradients: dict[str, Any] = {pulls[-1][0]: dy}
            for name, pull in reversed(pulls):
                sources, given = self.inputs[name], pull(gradients.pop(name))
                given = given if isinstance(given, tuple) else (given,)
                for source, gradient in zip(sources, given, strict=False):  # a recurrent layer has its state's, too
                    others = gradients.get(source)
                    gradients[source] = gradient if others is None else others + gradient
            return gradients.get(INPUT)

        return y, Pullback(f"{type(self).__name__} pullback", y, pulls, back)

    def output_lengths(self, lengths: ArrayLike) -> Any:
        """The lengths of what comes out, as in `Sequential`.

        model.output_lengths([5, 2])
        """
        found: dict[str, Any] = {INPUT: lengths}
        for name, sources in self.inputs.items():
            found[name] = behind(getattr(self, name), found[sources[0]])
        return found[list(self.inputs)[-1]]

    def stream(self, batch: int = 1) -> ChainStream:
        """The model one step at a time, as `Sequential.stream`.

        stream = model.stream()
        y_t = stream.step(x_t)  # (I,) -> (O,)
        """
        call = f"{type(self).__name__}.stream"
        batch = integer(call, "batch", batch, 1, MOST)
        places = {name: k for k, name in enumerate([INPUT, *self.inputs])}
        wires = [tuple(places[source] for source in sources) for sources in self.inputs.values()]
        return GraphStream(call, self._streamed(call, batch), batch, wires)

    def _through(self, method: str, x: Any, lengths: Any, keep: Callable[[str, Any], Any]) -> Any:
        """The result of the last layer; keep(name, what the method of a layer gave) is what goes on."""
        results, ends = {INPUT: x}, {INPUT: lengths}
        for name, sources in self.inputs.items():
            layer = getattr(self, name)
            own = self._lengths(layer, method, ends[sources[0]])
            result = keep(name, self._method(layer, method)(*(results[source] for source in sources), **own))
            results[name] = result[0] if isinstance(result, tuple) else result
            ends[name] = behind(layer, ends[sources[0]])
        return results[name]


class GraphStream(ChainStream):
    """The layers of a `Graph` one step at a time; made by `model.stream(batch=N)`, and like a `Sequential`'s.

    stream = model.stream(batch=3)
    y_t = stream.step(x_t)  # (3, I) -> (3, O)
    """

    __slots__ = ("_wires",)

    def __init__(self, call: str, parts: Sequence[Any], rows: int, wires: Sequence[tuple[int, ...]]) -> None:
        super().__init__(call, parts, rows)
        self._wires = wires  # of each part the places of what it takes, 0 for what comes from outside

    def _run(self, parts: Sequence[Any], x: Any) -> Any:
        results = [x]
        for part, wires in zip(parts, self._wires, strict=True):
            given = [results[k] for k in wires]
            results.append(None if any(own is None for own in given) else part(*given))
        return results[-1]

    def __copy__(self) -> GraphStream:
        """One that goes on from the same states."""
        return GraphStream(self._call, self._copied(), self._rows, self._wires)


class Merge(Layer):
    """Several inputs as one: one beside the other in the last axis, or added and so on, number by number.

    how: "concatenate", "add", "subtract" (of two), "multiply", "average", "maximum". Of equal ones the first is the
    maximum. No parameters. ValueError for another name and a wrong dtype.

        y = pyrnn.Merge("concatenate")(a, b)  # (..., A), (..., B) -> (..., A + B)
    """

    _by_step = True

    def __init__(self, how: str, *, dtype: DTypeLike = "float32") -> None:
        call = type(self).__name__
        self.how = choice(call, "how", how, ("concatenate", "add", "subtract", "multiply", "average", "maximum"))
        super().__init__(float_dtype(call, dtype), {})

    def __call__(self, *inputs: ArrayLike) -> Array:
        """Arrays of one shape, but for the last axis of "concatenate", -> y. TypeError for what is not real numbers,
        ValueError for other shapes.

        y = layer(a, b)
        """
        return self._forward("", inputs)[1]

    def vjp(self, *inputs: ArrayLike) -> tuple[Array, Callable[[ArrayLike], tuple[Array, ...]]]:
        """y, pullback. da, db = pullback(dy), a gradient for each input; it can be called once.

        y, pullback = layer.vjp(a, b)
        da, db = pullback(dy)
        """
        arrays, y = self._forward(".vjp", inputs)

        @quietly
        def back(dy: Array, own: list[Array]) -> tuple[Array, ...]:
            if self.how == "concatenate":
                ends = np.cumsum([array.shape[-1] for array in own])[:-1]
                return tuple(np.ascontiguousarray(part) for part in np.split(dy, ends, axis=-1))
            if self.how == "multiply":
                others = [reduce(np.multiply, own[:k] + own[k + 1 :], np.ones_like(dy)) for k in range(len(own))]
                return tuple(dy * other for other in others)
            if self.how == "maximum":
                first = np.argmax(np.stack(own), axis=0)
                return tuple(np.where(first == k, dy, self.dtype.type(0)) for k in range(len(own)))
            if self.how == "average":
                dy = dy / self.dtype.type(len(own))
            return (dy.copy(), *(-dy if self.how == "subtract" else dy.copy() for _ in own[1:]))

        return y, Pullback(f"{type(self).__name__} pullback", y, [array.copy() for array in arrays], back)

    @quietly
    def _forward(self, suffix: str, inputs: Sequence[Any]) -> tuple[list[Array], Array]:
        """The inputs as arrays, and y."""
        call = type(self).__name__ + suffix
        if not inputs or (self.how == "subtract" and len(inputs) != 2):
            raise TypeError(f"{call}: {len(inputs)} inputs are given, expected {'2' if inputs else '1 or more'}")
        arrays = [real_array(call, f"input {k}", given, self.dtype) for k, given in enumerate(inputs)]
        beside = self.how == "concatenate"
        lead = arrays[0].shape[:-1] if beside else arrays[0].shape
        for k, array in enumerate(arrays):
            if array.ndim == 0 or (array.shape[:-1] if beside else array.shape) != lead:
                expected = f"({', '.join(map(str, lead))}, F)" if beside else str(lead)
                raise shape_error(call, f"input {k}", array.shape, expected)
        if beside:
            return arrays, np.concatenate(arrays, axis=-1)
        operation = {"add": np.add, "average": np.add, "subtract": np.subtract, "multiply": np.multiply}
        y: Array = reduce(operation.get(self.how, np.maximum), arrays)
        y = y / self.dtype.type(len(arrays)) if self.how == "average" else y
        return arrays, y.copy() if len(arrays) == 1 else y


class Function(Layer):
    """A function of a user's own among layers, of what it is given as it is. It is called, and has no `vjp`."""

    _by_step = True

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(np.dtype("float32"), {})
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        """What the function gives.

        y = layer(x)
        """
        return self.function(*inputs)
