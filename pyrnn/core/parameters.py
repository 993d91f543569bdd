"""Where parameters live: one flat buffer per dtype for a whole model, with named views into it.

A layer has its own flat buffers until a `Model` holds it; from then on its arrays are views into the model's. They lie
densely, in the order of `state_dict()`, so an optimiser step, a norm or a checkpoint is one pass over `buffers`.

What a model holds is what its attributes are at the moment, so it is looked up at every use of `params`, `buffers` and
so on; large data without a layer in it is read once, see `Search`. The layers are brought side by side when the
model's __init__ ends, when a layer is assigned later, and at the first use after they have come or gone in a list.
Where they do not lie so yet, their values move into new buffers. `params` and `grads` follow; arrays taken out of them
before are stale then, and become read-only, so that nothing is written to them in vain (NumPy cannot make a slice of
one read-only that somebody has taken before: take slices anew after layers have changed).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from .checks import Array, cut, shaped_array, shown

if TYPE_CHECKING:
    from .layer import Layer

Buffers = dict["np.dtype[Any]", "tuple[Array, Array]"]  # dtype -> flat parameters, flat gradients
Shapes = dict[str, "tuple[int, ...]"]

without_recording: ContextVar[bool] = ContextVar("without_recording", default=False)  # in a call made of a vjp


def unrecorded(*_: Any, **__: Any) -> NoReturn:
    """The pullback of a vjp that was run by a call of its model."""
    raise RuntimeError("this vjp was run by a call of the model, which records nothing to go back: call model.vjp")


class ParameterDict(dict[str, Array]):
    """Live arrays by name. Assigning to an entry copies into its array; entries neither come nor go.

    A wrong shape is a ValueError and an unknown name a KeyError, and then nothing has changed. Copies and pickles are
    ordinary dicts.
    """

    def __init__(self, call: str, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self._call = call

    def rebind(self, arrays: Mapping[str, Array]) -> None:
        """Hold these arrays instead; where they have the names as before, each is there at any time."""
        if list(self) != list(arrays):
            dict.clear(self)
        dict.update(self, arrays)

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copy several entries; all are checked before the first is written."""
        values = dict(*args, **kwargs)
        for name in values:
            if name not in self:
                raise KeyError(f"{self._call} has no {shown(name)}, only {cut(', '.join(self))}")
        write(self._call, self, values)

    def __ior__(self, other: Any) -> ParameterDict:  # type: ignore[override, misc]
        self.update(other)
        return self

    def setdefault(self, name: str, default: Any = None) -> Array:
        """The entry, which must exist."""
        return self[name]

    def _refuse(self, *_: Any) -> NoReturn:
        """A TypeError: entries neither come nor go."""
        raise TypeError(f"{self._call}: an entry cannot be removed")

    __delitem__ = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class FrozenParameters(ParameterDict):
    """The parameters of a quantized layer: read-only arrays of the numbers it computes with, made when asked for."""

    def __init__(self, call: str, form: str, arrays: Mapping[str, Array]) -> None:
        for array in arrays.values():
            array.flags.writeable = False
        super().__init__(call, arrays)
        self._form = form

    def update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """A TypeError."""
        raise TypeError(f"{self._call}: the layer is quantized to {self._form}, its parameters stay what they are")


def write(call: str, targets: Mapping[str, Array], values: Mapping[str, Any]) -> None:
    """Copy each value into the target of its name, after all were checked: dtypes (TypeError), shapes (ValueError)."""
    checked = {
        name: shaped_array(call, name, value, targets[name].dtype, targets[name].shape).copy()
        for name, value in values.items()
    }
    for name, value in checked.items():
        targets[name][...] = value


def load(call: str, targets: Mapping[str, Array], values: Mapping[str, Any], prefix: str = "") -> None:
    """As `write`, of the values whose names begin with `prefix`, without it; but every target must have its value:
    missing and unknown names are a ValueError."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{call}: expected a dict of arrays, not {type(values).__name__}")
    if not isinstance(prefix, str):
        raise TypeError(f"{call}: prefix is {shown(prefix)}, expected a string")
    if prefix:
        named = [name for name in values if isinstance(name, str) and name.startswith(prefix)]
        if targets and not named:
            heads = dict.fromkeys(str(name).rpartition(".")[0] + "." for name in values if "." in str(name))
            known = f"they begin with {cut(', '.join(heads))}" if heads else "they have none"
            raise ValueError(f"{call}: prefix is {shown(prefix)}, and no name begins so: {known}")
        values = {name[len(prefix) :]: values[name] for name in named}
    missing = [str(name) for name in targets if name not in values]
    unknown = [str(name) for name in values if name not in targets and not _is_count(name, targets)]
    if missing or unknown:
        hint = _hint(missing, unknown, prefix)
        raise ValueError(
            f"{call}: missing entries: {shown(missing, 400)}, unknown entries: {shown(unknown, 400)}{hint}"
        )
    for name, target in targets.items():
        shape = getattr(values[name], "shape", None)
        if shape != target.shape and shape == target.shape[::-1]:
            message = f"{name} has shape {shape}, expected {target.shape}: this is the transpose (of Keras?)"
            raise ValueError(f"{call}: {message}")
    write(call, targets, {name: values[name] for name in targets})


def _is_count(name: Any, targets: Mapping[str, Array]) -> bool:
    """torch's count of batches beside running statistics; no layer here needs one, as `momentum` is never None."""
    return isinstance(name, str) and name.replace("num_batches_tracked", "running_mean") in targets


def _hint(missing: list[str], unknown: list[str], before: str) -> str:
    """What has been seen to lead to these names."""
    if missing + unknown and all(name.endswith("_reverse") for name in missing + unknown):
        if unknown:
            return ". The layer has one direction, the arrays two: bidirectional=True"
        return ". The layer is bidirectional, the arrays are of one direction"
    for name in unknown:
        first = next((target for target in missing if name.endswith(f".{target}")), None)
        if first is not None:
            prefix = before + name.removesuffix(first)
            return f". The names begin with {cut(prefix)}: load_state_dict(..., prefix={shown(prefix)})"
    own, theirs = (list(dict.fromkeys(name.partition(".")[0] for name in names)) for names in (missing, unknown))
    if len(own) == len(theirs) and all(map(str.isdecimal, own)) and all(map(str.isidentifier, theirs)):
        return f". Layers may have those names: Sequential({cut(', '.join(f'{name}=...' for name in theirs))})"
    if missing and not unknown and all(name.startswith("bias_hh") for name in missing):
        return ". Where there is one bias only, zeros will do for bias_hh"
    return ""


class Home(NamedTuple):
    """Where the arrays of a layer are: in which flat buffers, and from where on; `lent`: by a population, for good."""

    params: Array
    grads: Array
    start: int
    lent: bool = False


def _span(leaves: Iterable[tuple[str, Layer]]) -> Buffers | None:
    """The memory of these layers where they lie side by side in this order, else None."""
    spans: dict[np.dtype[Any], tuple[Home, int]] = {}  # the first's home, and where the last ends
    for _, layer in leaves:
        home = layer._home
        first, end = spans.get(layer.dtype, (home, home.start))
        if home.params is not first.params or home.start != end:
            return None
        spans[layer.dtype] = first, end + layer._size
    return {
        dtype: (home.params[home.start : end], home.grads[home.start : end]) for dtype, (home, end) in spans.items()
    }
