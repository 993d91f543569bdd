"""Where parameters live: one flat buffer per dtype for a whole model, with named views into it.

A layer has its own flat buffers until a `Model` is made of it; from then on its arrays are views into the model's, and
arrays taken out of `params` before are stale. Parameters lie densely, in the order of `state_dict()`, so an optimiser
step, a norm or a checkpoint is one pass over `buffers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from ._arrays import MOST_NUMBERS, Array, shaped_array

Buffers = dict["np.dtype[Any]", "tuple[Array, Array]"]  # dtype -> flat parameters, flat gradients
Shapes = dict[str, "tuple[int, ...]"]


class ParameterDict(dict[str, Array]):
    """Live arrays by name. Assigning to an entry copies into its array; entries neither come nor go.

    A wrong shape is a ValueError and an unknown name a KeyError, and then nothing has changed. Copies and pickles are
    ordinary dicts.
    """

    def __init__(self, call: str, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self._call = call

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copy several entries; all are checked before the first is written."""
        values = dict(*args, **kwargs)
        for name in values:
            if name not in self:
                raise KeyError(f"{self._call} has no {name!r}, only {', '.join(self)}")
        write(self._call, self, values)

    def __ior__(self, other: Any) -> ParameterDict:  # type: ignore[override, misc]
        self.update(other)
        return self

    def setdefault(self, name: str, default: Any = None) -> Array:
        """The entry, which must exist."""
        return self[name]

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(f"{self._call}: an entry cannot be removed")

    __delitem__ = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def write(call: str, targets: Mapping[str, Array], values: Mapping[str, Any]) -> None:
    """Copy each value into the target of its name, after all were checked: dtypes (TypeError), shapes (ValueError)."""
    checked = {
        name: shaped_array(call, name, value, targets[name].dtype, targets[name].shape).copy()
        for name, value in values.items()
    }
    for name, value in checked.items():
        targets[name][...] = value


def load(call: str, targets: Mapping[str, Array], values: Mapping[str, Any]) -> None:
    """As `write`, but every target must have its value: missing and unknown names are a ValueError."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{call}: expected a dict of arrays, not {type(values).__name__}")
    missing = [str(name) for name in targets if name not in values]
    unknown = [str(name) for name in values if name not in targets]
    if missing or unknown:
        raise ValueError(f"{call}: missing entries: {missing}, unknown entries: {unknown}")
    write(call, targets, values)


class Layer:
    """Base of everything that has parameters: `params`, `grads`, state dicts. A layer can be copied and pickled."""

    dtype: np.dtype[Any]
    _shapes: Shapes
    _buffers: Buffers
    _params: ParameterDict
    _grads: ParameterDict
    _composed: bool = False  # part of a Model, which owns the memory
    _derived: ClassVar[tuple[str, ...]] = ("_params", "_grads", "_composed")  # not copied: made by _bind

    def __init__(self, dtype: np.dtype[Any], shapes: Shapes) -> None:
        self.dtype = dtype
        self._shapes = shapes
        size = sum(math.prod(shape) for shape in shapes.values())
        if size > MOST_NUMBERS:
            name, shape = max(shapes.items(), key=lambda item: math.prod(item[1]))
            raise ValueError(f"{type(self).__name__}: {size} parameters are too many, {name} alone has shape {shape}")
        self._bind({dtype: (np.zeros(size, dtype), np.zeros(size, dtype))})

    def _bind(self, buffers: Buffers) -> None:
        """Live in these buffers from now on; what they hold are the values."""
        self._buffers = buffers
        params, grads = buffers[self.dtype]
        call = type(self).__name__
        self._params = ParameterDict(f"{call}.params", self._views(params))
        self._grads = ParameterDict(f"{call}.grads", self._views(grads))

    def _views(self, flat: Array) -> dict[str, Array]:
        views, start = {}, 0
        for name, shape in self._shapes.items():
            end = start + math.prod(shape)
            views[name] = flat[start:end].reshape(shape)
            start = end
        return views

    @property
    def params(self) -> ParameterDict:
        """The parameters by name: live arrays."""
        return self._params

    @property
    def grads(self) -> ParameterDict:
        """The gradients by name: live arrays that every pullback adds to."""
        return self._grads

    @property
    def buffers(self) -> Buffers:
        """dtype -> (flat parameters, flat gradients): the memory behind `params` and `grads`, in their order."""
        return self._buffers

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters are."""
        return sum(params.size for params, _ in self._buffers.values())

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for _, grads in self._buffers.values():
            grads.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name."""
        return {name: param.copy() for name, param in self._params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy parameters in. A missing, unknown or misshapen entry is a ValueError that names it; then nothing has
        changed.

        layer.load_state_dict(other.state_dict())
        """
        load(f"{type(self).__name__}.load_state_dict", self._params, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.dtype = np.dtype(self.dtype.str)  # NumPy's own object again: see the fast path of every call
        self._bind({self.dtype: self._buffers[self.dtype]})


class Model(Layer):
    """Layers by name, with all their parameters in one flat buffer per dtype. Models nest.

        class Classifier(pyrnn.Model):
            def __init__(self, inputs, hidden, classes, rng=None):
                rng = np.random.default_rng(rng)
                super().__init__(rnn=pyrnn.GRU(inputs, hidden, rng=rng), head=pyrnn.Linear(hidden, classes, rng=rng))

            def vjp(self, x):
                (_, h), pull_rnn = self.rnn.vjp(x)
                logits, pull_head = self.head.vjp(h[0])
                return logits, lambda dlogits: pull_rnn(None, pull_head(dlogits)[None])[0]

    Each layer becomes an attribute, its parameters "rnn.weight_ih_l0" and so on. A layer belongs to one model at most:
    a second one is a ValueError (copy.deepcopy gives a free layer).
    """

    _layers: dict[str, Layer]

    def __init__(self, **layers: Layer) -> None:
        call = type(self).__name__
        for name, layer in layers.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"{call}: {name} is {type(layer).__name__}, expected a layer or a model")
            if not name.isidentifier() or hasattr(type(self), name) or name in Layer.__annotations__:
                raise ValueError(f"{call}: {name!r} cannot be the name of a layer")
            if layer._composed or sum(other is layer for other in layers.values()) > 1:
                raise ValueError(f"{call}: {name} is part of a model already; use a copy.deepcopy of it")
        self._layers = dict(layers)
        for name, layer in layers.items():
            object.__setattr__(self, name, layer)
        self._compose()

    def _compose(self) -> None:
        """Move the values of all layers into new buffers."""
        parts: dict[np.dtype[Any], tuple[list[Array], list[Array]]] = {}
        for layer in self._layers.values():
            for dtype, (params, grads) in layer.buffers.items():
                all_params, all_grads = parts.setdefault(dtype, ([], []))
                all_params.append(params)
                all_grads.append(grads)
            layer._composed = True
        self._bind({dtype: (np.concatenate(p), np.concatenate(g)) for dtype, (p, g) in parts.items()})

    def _bind(self, buffers: Buffers) -> None:
        self._buffers = buffers
        start = dict.fromkeys(buffers, 0)
        for layer in self._layers.values():
            slices: Buffers = {}
            for dtype, (own, _) in layer.buffers.items():
                end = start[dtype] + own.size
                params, grads = buffers[dtype]
                slices[dtype] = params[start[dtype] : end], grads[start[dtype] : end]
                start[dtype] = end
            layer._bind(slices)
        call = type(self).__name__
        self._params = ParameterDict(f"{call}.params", self._named("params"))
        self._grads = ParameterDict(f"{call}.grads", self._named("grads"))

    def _named(self, kind: str) -> dict[str, Array]:
        return {
            f"{prefix}.{name}": array
            for prefix, layer in self._layers.items()
            for name, array in getattr(layer, kind).items()
        }

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_layers", ()):
            raise AttributeError(f"{type(self).__name__}: the layer {name} cannot be replaced, only its values")
        super().__setattr__(name, value)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the layers

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_buffers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compose()
