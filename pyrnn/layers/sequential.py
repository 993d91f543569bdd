"""A model whose layers run one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..core.checks import MOST, Array, Rng, boolean, integer
from ..core.layer import Layer
from ..core.model import Model
from ..core.pullback import Pullback
from .chain import ChainStream
from .embedding import Embedding
from .linear import Linear

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Sequential(Model):
    """Layers in their order: what comes out of one goes into the next.

    They are given by position, with the names "0", "1", ..., or by name, or some so and the others so; model[k] is the
    k-th. Where a layer returns several things, as a recurrent one its outputs y and its final state, the first goes on;
    `LastStep` makes the final output of y. `lengths` go to all layers that take them: to those whose `vjp` has an
    argument of that name, a user's own `Model` too, and to MultiheadAttention as `kv_lengths`; behind layers that have
    `output_lengths`, as a `Conv1d` does, they are those. rng as in `Model`.
    Lengths are a TypeError where a layer's call takes them and its `vjp` does not, or the other way round, or only a
    layer inside it does. ValueError for no layers, for a name given twice, and for layers that do not fit: one takes
    other numbers of features than the one before gives, or is batch_first where another is not. Others as in `Model`.

        tagger = pyrnn.Sequential(pyrnn.Embedding(10, 8), pyrnn.GRU(8, 16), pyrnn.Linear(16, 3), rng=0)
        logits = tagger(ids, lengths=[5, 2])  # (T, N) -> (T, N, 3)
        judge = pyrnn.Sequential(rnn=pyrnn.GRU(8, 16), last=pyrnn.LastStep(), head=pyrnn.Linear(16, 3))
    """

    _has_stream = True

    def __init__(self, *layers: Layer, rng: Rng = None, **named: Layer) -> None:
        call = type(self).__name__
        if not layers and not named:
            raise ValueError(f"{call}: it has no layers")
        placed = {str(k): layer for k, layer in enumerate(layers)}
        twice = placed.keys() & named.keys()
        if twice:
            raise ValueError(f"{call}: {min(twice)!r} is the name of two layers, the one at this position and another")
        super().__init__(rng=rng)
        self._add({**placed, **named})
        if type(self).__call__ is Sequential.__call__:
            refuse_contradictions(call, in_line(self))

    def __len__(self) -> int:
        return sum(1 for _ in self._chain())

    def __getitem__(self, k: int) -> Any:
        layers = list(self._chain())
        return layers[integer(type(self).__name__, "k", k, -len(layers), len(layers) - 1)]

    def __iter__(self) -> Iterator[Any]:
        return self._chain()

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """What comes out of the last layer. lengths (N,) integers in 0..T; errors as in the layers.

        y = model(x, lengths=[5, 2])
        """
        out: Any = x
        for layer in self._chain():
            out = self._method(layer, "__call__")(out, **self._lengths(layer, "__call__", lengths))
            out = out[0] if isinstance(out, tuple) else out
            lengths = behind(layer, lengths)
        y: Array = out
        return y

    def vjp(
        self, x: ArrayLike, *, lengths: ArrayLike | None = None, per_row: bool = False
    ) -> tuple[Array, Callable[[ArrayLike], Any]]:
        """y, pullback. dx = pullback(dy) adds to `grads` and can be called once; dx is None where x are ids.

        With per_row the pullback gives dx and the gradients of each row, {name: (N, ...)}, instead of adding their sum.
        Rows are what recurrent layers take for them. TypeError for a layer with parameters that has no per_row.

            y, pullback = model.vjp(x, lengths=[5, 2])
            pullback(y - target)
        """
        boolean(f"{type(self).__name__}.vjp", "per_row", per_row)
        out: Any = x
        pulls: list[Callable[[Any], Any]] = []
        of_rows: list[str] = []  # of each layer where its pullback gives gradients of rows, its name; else nothing
        for layer in self._chain():
            given = self._lengths(layer, "vjp", lengths)
            vjp = self._method(layer, "vjp")
            of_rows.append(self._title(layer).split()[0] if per_row and layer.num_parameters else "")
            if of_rows[-1]:
                vjp = self._vjp_of_rows(layer)
            out, pull = vjp(out, **given)
            out = out[0] if isinstance(out, tuple) else out
            pulls.append(pull)
            lengths = behind(layer, lengths)

        def back(dy: Array, pulls: list[Any]) -> Any:
            gradient: Any = dy
            grads: dict[str, Array] = {}
            for pull, name in zip(reversed(pulls), reversed(of_rows), strict=True):
                gradient = pull(gradient)
                if name:
                    for own, array in gradient[-1].items():
                        own = f"{name}.{own}"
                        grads[own] = grads[own] + array if own in grads else array
                gradient = gradient[0] if isinstance(gradient, tuple) else gradient
            return (gradient, grads) if per_row else gradient

        return out, Pullback(f"{type(self).__name__} pullback", out, pulls, back)

    def output_lengths(self, lengths: ArrayLike) -> Any:
        """The lengths of what comes out: those that go in, but where layers say otherwise; None behind a `LastStep` and
        its like.

        model.output_lengths([5, 2])
        """
        out: Any = lengths
        for layer in self._chain():
            out = behind(layer, out)
        return out

    def stream(self, batch: int = 1) -> ChainStream:
        """The model one step at a time, on N = `batch` rows. TypeError for a layer that needs more than a step, such as
        `LastStep`, and ValueError for one that sees later steps: a recurrent one of both directions, a
        `TransformerEncoderLayer` that was not made with is_causal=True.

            stream = model.stream()
            y_t = stream.step(x_t)  # (I,) -> (O,)
        """
        call = f"{type(self).__name__}.stream"
        batch = integer(call, "batch", batch, 1, MOST)
        return ChainStream(call, self._streamed(call, batch), batch)

    def _streamed(self, call: str, batch: int) -> list[Any]:
        """Streams of the layers, and those that see one step at a time anyhow."""
        parts: list[Any] = []
        for layer in self._chain():
            if not getattr(layer, "is_causal", True):
                raise ValueError(f"{call}: {self._title(layer)} sees later steps, expected is_causal=True")
            if layer._has_stream:
                parts.append(layer.stream(batch))
            elif layer._by_step:
                parts.append(layer)
            else:
                raise TypeError(f"{call}: {self._title(layer)} cannot run step by step")
        return parts

    def _chain(self) -> Iterator[Any]:
        """The layers, in their order."""
        return (value for value in self._attributes().values() if isinstance(value, Layer))

    def _method(self, layer: Any, method: str) -> Any:
        """That one of a layer, its call or its vjp."""
        if getattr(type(layer), method, None) is None:
            raise TypeError(f"{type(self).__name__}: {self._title(layer)} has no {method}")
        return layer if method == "__call__" else layer.vjp

    def _vjp_of_rows(self, layer: Any) -> Any:
        """Its vjp with per_row; one that does not know which axis is that of the rows is told."""
        if isinstance(layer, (Linear, Embedding)) and any(getattr(own, "batch_first", False) for own in self._chain()):
            return functools.partial(layer._vjp_of_rows, axis=0)
        kind: Any = type(layer)
        if not _argument(kind, "vjp", "per_row"):
            raise TypeError(f"{type(self).__name__}.vjp: per_row, but {self._title(layer)} has none")
        return functools.partial(layer.vjp, per_row=True)

    def _title(self, layer: Any) -> str:
        """A layer in an error."""
        return next(f"{name} ({type(layer).__name__})" for name, own in self._attributes().items() if own is layer)

    def _lengths(self, layer: Any, method: str, lengths: Any) -> dict[str, Any]:
        """The argument with which this method of a layer takes lengths, if it does and there are any."""
        if lengths is None:
            return {}
        kind: Any = type(layer)
        name = _argument(kind, method)
        if name is None:
            other = "vjp" if method == "__call__" else "__call__"
            parts: Any = (type(part) for _, part in layer._leaves())
            if _argument(kind, other) or any(_argument(part, method) for part in parts):  # it would read the padding
                raise TypeError(
                    f"{type(self).__name__}: lengths are given, but the {method} of {self._title(layer)} takes none, "
                    f"as {'its ' + other if _argument(kind, other) else 'a layer in it'} does"
                )
        return {} if name is None else {name: lengths}


def in_line(model: Sequential, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The layers in their order, those of a Sequential in it too, under what an error calls them."""
    for name, layer in model._attributes().items():
        if type(layer) is Sequential:
            yield from in_line(layer, f"{prefix}{name}.")
        elif isinstance(layer, Layer):
            yield f"{prefix}{name} ({type(layer).__name__})", layer


def refuse_contradictions(call: str, layers: Iterable[tuple[str, Any]]) -> None:
    """ValueError for layers that cannot be meant to follow each other. Of a user's own class nothing is known."""
    told = rows_first = giver = width = None
    for title, layer in layers:
        known = type(layer).__module__.startswith("pyrnn.")
        own = layer._rows_first() if known else None
        if own is not None and told is not None and own != rows_first:
            raise ValueError(
                f"{call}: {told} has batch_first={rows_first} and {title} batch_first={own}, expected the same of all"
            )
        if own is not None:
            told, rows_first = title, own
        if layer._ends_steps:
            told = None
        takes, gives = (layer._features if known else None) or ("", None)
        taken = attrgetter(takes)(layer) if takes else width
        if width is not None and taken != width:
            raise ValueError(f"{call}: {giver} gives {width} features, and {title} takes {taken}")
        if gives is None:
            width = None
        elif gives:
            giver, width = title, attrgetter(gives)(layer)


def behind(layer: Any, lengths: Any) -> Any:
    """The lengths of what comes out of a layer."""
    return layer.output_lengths(lengths) if lengths is not None and hasattr(layer, "output_lengths") else lengths


@functools.lru_cache
def _argument(kind: Any, method: str, name: str = "lengths") -> str | None:
    """The name of the argument."""
    import inspect

    from .attention import MultiheadAttention

    if issubclass(kind, MultiheadAttention) and name == "lengths":
        return "kv_lengths"
    function = getattr(kind, method, None)
    if function is Model.__call__:
        function = getattr(kind, "vjp", None)
    parameters = inspect.signature(function).parameters.values() if callable(function) else ()
    if any(parameter.name == name or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return name
    return None
