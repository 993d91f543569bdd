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

import functools
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from . import _config
from ._arrays import MOST_NUMBERS, Array, Rng, cut, generator, shaped_array, shown

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
        raise ValueError(f"{call}: missing entries: {shown(missing, 400)}, unknown entries: {shown(unknown, 400)}")
    write(call, targets, values)


class Home(NamedTuple):
    """Where the arrays of a layer are: in which flat buffers, and from where on."""

    params: Array
    grads: Array
    start: int


class Layer:
    """Base of everything that has parameters: `params`, `grads`, state dicts. A layer can be copied and pickled.

    Its parameters are its own: a layer in an attribute is a TypeError, only a `Model` is made of layers.
    """

    dtype: np.dtype[Any]
    _shapes: Shapes
    _size: int
    _home: Home
    _flat: tuple[Array, Array]  # its parts of the buffers
    _params: ParameterDict
    _grads: ParameterDict
    _unwritten: ClassVar[tuple[str, ...]] = ("rng",)  # arguments that `config` leaves out
    _unseeded: bool = False  # its values were drawn without a seed, and nobody has asked for them
    _derived: ClassVar[tuple[str, ...]] = ("_params", "_grads", "_home")  # not copied: made by _bind
    _sought: ClassVar[tuple[str, ...]] = ()  # attributes with layers, where `_find` looks
    _slots: ClassVar[tuple[str, ...]] = ()  # attributes that a user's class has in __slots__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        slots = {name: None for kind in reversed(cls.__mro__) for name, value in vars(kind).items()
                 if isinstance(value, MemberDescriptorType)}  # fmt: skip
        cls._slots = tuple(slots)

    def __init__(self, dtype: np.dtype[Any], shapes: Shapes) -> None:
        self.dtype = dtype
        self._shapes = shapes
        self._size = sum(math.prod(shape) for shape in shapes.values())
        if self._size > MOST_NUMBERS:
            name, shape = max(shapes.items(), key=lambda item: math.prod(item[1]))
            raise ValueError(
                f"{type(self).__name__}: {self._size} parameters are too many, {name} alone has shape {shape}"
            )
        self._settle(np.zeros(self._size, dtype), np.zeros(self._size, dtype))

    def _settle(self, params: Array, grads: Array) -> None:
        """Live in buffers of its own."""
        call = type(self).__name__
        self._params, self._grads = ParameterDict(f"{call}.params", {}), ParameterDict(f"{call}.grads", {})
        self._bind(Home(params, grads, 0))

    def _bind(self, home: Home) -> None:
        """Live there from now on; what is there are the values."""
        self._home = home
        part = slice(home.start, home.start + self._size)
        self._flat = home.params[part], home.grads[part]
        self._params.rebind(self._views(self._flat[0]))
        self._grads.rebind(self._views(self._flat[1]))

    def _move(self, home: Home) -> None:
        """Take the values along to there."""
        for new, old in zip((home.params, home.grads), self._flat, strict=True):
            new[home.start : home.start + self._size] = old
        for stale in (*self._flat, *self._params.values(), *self._grads.values()):
            stale.flags.writeable = False
        self._bind(home)

    def _views(self, flat: Array) -> dict[str, Array]:
        views, start = {}, 0
        for name, shape in self._shapes.items():
            end = start + math.prod(shape)
            views[name] = flat[start:end].reshape(shape)
            start = end
        return views

    def _begin(self, rng: Rng) -> None:
        """Draw the initial values from rng: None, a seed or a Generator."""
        self._draw(generator(type(self).__name__, rng))
        self._unseeded = rng is None

    def _draw(self, rng: np.random.Generator) -> None:
        """Initial values from this generator, which is also that of what is random later."""

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_layers(name, value)
        super().__setattr__(name, value)

    def _refuse_layers(self, name: str, value: Any) -> None:
        if isinstance(value, HOLDERS) and name not in TAKEN and name not in self._derived + self._sought:
            found = Search()
            found.look(value, f"{name}.", (self,))
            if found.met:
                call, what = type(self).__name__, "is" if isinstance(value, Layer) else "holds"
                raise TypeError(f"{call}: {shown(name)} {what} a layer, which would be neither trained nor saved: "
                                "a class that is made of layers is a pyrnn.Model")  # fmt: skip

    def _attributes(self) -> Mapping[str, Any]:
        """Its attributes and their values."""
        if not self._slots:
            return self.__dict__
        return self.__dict__ | {name: getattr(self, name) for name in self._slots if hasattr(self, name)}

    def _inspect(self) -> None:
        """A look at what has changed since it was assigned, before all of it is relied on: TypeError as then."""
        for name, value in self._attributes().items():
            self._refuse_layers(name, value)

    def _find(self, prefix: str, found: Search, path: tuple[Any, ...]) -> None:
        """Enter the layers with arrays of their own, each once, under the name met first."""
        found.layers.setdefault(id(self), (prefix, self))

    def _leaves(self) -> list[tuple[str, Layer]]:
        """What `_find` finds from here."""
        found = Search()
        self._find("", found, ())
        return list(found.layers.values())

    @property
    def params(self) -> ParameterDict:
        """The parameters by name: live arrays."""
        _asked_for((("", self),))
        return self._params

    @property
    def grads(self) -> ParameterDict:
        """The gradients by name: live arrays that every pullback adds to."""
        return self._grads

    @property
    def buffers(self) -> Buffers:
        """dtype -> (flat parameters, flat gradients): the memory behind `params` and `grads`, in their order."""
        return self._together()[1]

    def _together(self) -> tuple[Sequence[tuple[str, Layer]], Buffers]:
        """The layers in `buffers`, as in `_leaves`, and these; of one look."""
        leaves = (("", self),)
        _asked_for(leaves)
        return leaves, {self.dtype: self._flat}

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters are; shared ones count once."""
        return sum(layer._size for _, layer in self._leaves())

    def config(self) -> dict[str, Any]:
        """The arguments of its class, of which JSON can hold all: `type(layer)(**layer.config())` makes its like, with
        other initial values. Those of a model made by keywords, and of a Sequential, are the types and configs of its
        layers. TypeError where that cannot be said: for a layer that shares another one's table, for a class of your
        own whose arguments are not its attributes.

            pyrnn.GRU(8, 16).config()  # {"input_size": 8, "hidden_size": 16, "num_layers": 1, ...}
        """
        return _config.config(self)

    def __repr__(self) -> str:
        return _config.described(self)

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for _, layer in self._leaves():
            layer._flat[1].fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name."""
        self._inspect()
        return {name: param.copy() for name, param in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy parameters in. A missing, unknown or misshapen entry is a ValueError that names it; then nothing has
        changed.

        layer.load_state_dict(other.state_dict())
        """
        self._inspect()
        load(f"{type(self).__name__}.load_state_dict", self.params, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self._attributes().items() if name not in self._derived}
        return state | {"_flat": tuple(part.copy() for part in self._flat)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._restore(state)
        self.dtype = np.dtype(self.dtype.str)  # NumPy's own object again: see the fast path of every call
        self._settle(*state["_flat"])

    def _restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


HOLDERS = (Layer, list, tuple, dict, set, frozenset, deque, np.ndarray)  # kinds of values that may hold layers
LARGE = 200  # entries that take longer to read than to remember


def _kinds(entries: Iterable[Any], of: Any) -> bool:
    """Whether some of the entries are of these kinds; a long list of words is read fast."""
    return any(issubclass(kind, of) for kind in set(map(type, entries)))


class Search:
    """One look through attributes, which finds the layers with arrays of their own, each once.

    layers  id -> prefix of its parameters' names (of the first name met), layer
    met     how many layers and models were met, under all names
    barren  id -> value, entries: of what has more than LARGE entries, without a layer in them

    What was barren in the search `before` is not read again as long as it has as many entries. That a layer has come in
    the place of something else there, or into something that lies there, is noticed by the next search that has no
    `before`.
    """

    def __init__(self, before: Mapping[int, tuple[Any, int]] | None = None) -> None:
        self.layers: dict[int, tuple[str, Layer]] = {}
        self.met = 0
        self.barren: dict[int, tuple[Any, int]] = {}
        self._before = before or {}
        self._seen: dict[int, Any] = {}  # containers, kept so that no other one gets their ids

    def look(self, value: Any, prefix: str, path: tuple[Any, ...]) -> None:
        """`_find` of all layers in a value: a layer, or lists, tuples, dicts of such values. `path`: what it is in."""
        if isinstance(value, Layer):
            self.met += 1
            value._find(prefix, self, path)
            return
        if isinstance(value, np.ndarray):
            if value.dtype != object:
                return
            size = value.size
        else:
            size = len(value)
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        met = self.met
        _, barren_size = self._before.get(id(value), (None, -1))
        if size != barren_size:
            self._look_into(value, prefix, path)
        if self.met == met and size > LARGE:
            self.barren[id(value)] = value, size

    def _look_into(self, value: Any, prefix: str, path: tuple[Any, ...]) -> None:
        entries: Any = value.values() if isinstance(value, dict) else value
        if isinstance(value, np.ndarray):
            entries = value.ravel().tolist()
        if not _kinds(entries, HOLDERS):
            return
        if not isinstance(value, (list, tuple, dict)):  # what has no order, or no names
            met = self.met
            for entry in entries:
                if isinstance(entry, HOLDERS):
                    self.look(entry, prefix, path)
            if self.met > met:
                call, kind = type(path[0]).__name__, type(value).__name__
                raise TypeError(f"{call}: {prefix[:-1]} is a {kind} of layers, expected a list or a dict")
            return
        if set(map(type, entries)) <= {list, tuple} and not _kinds(itertools.chain.from_iterable(entries), HOLDERS):
            return  # a table, say
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, HOLDERS):
                self.look(item, f"{prefix}{key}.", (*path, value))


changing = threading.RLock()  # held while layers move


def _after_fork() -> None:
    """Whoever held it is not there."""
    global changing
    changing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _then_composed(init: Callable[..., None]) -> Callable[..., None]:
    """An __init__ that leaves the layers in one buffer, so that arrays taken out of the finished model stay live."""

    @functools.wraps(init)
    def __init__(self: Model, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        init(self, *args, **kwargs)
        if type(self).__init__ is __init__:  # the outermost
            self._inspect()
            leaves = self._leaves()
            self._seed(leaves)  # those that were appended, too
            self._compose(leaves)
            self._built = True

    __init__.composes = True  # type: ignore[attr-defined]
    return __init__


class Model(Layer):
    """Layers by name, with all their parameters in one flat buffer per dtype. Models nest.

        class Classifier(pyrnn.Model):
            def __init__(self, inputs, hidden, classes, rng=None):
                super().__init__(rng=rng)
                self.rnn = pyrnn.GRU(inputs, hidden)
                self.head = pyrnn.Linear(hidden, classes)

            def vjp(self, x):
                (_, h), pull_rnn = self.rnn.vjp(x)
                logits, pull_head = self.head.vjp(h[0])
                return logits, lambda dlogits: pull_rnn(None, pull_head(dlogits)[None])[0]

        model = Classifier(3, 32, 5, rng=0)
        logits = model(x)  # the first result of vjp

    Its layers are those that its attributes are, also in lists, tuples and dicts, at any time: they may be assigned,
    replaced, appended and deleted. The parameters of self.rnn are "rnn.weight_ih_l0" and so on, those of
    self.heads = [...] "heads.0.weight". `super().__init__(rnn=layer)` does the same as an assignment. A layer under
    several names, or in several models, has one set of parameters, to which all uses add their gradients; it is
    trained, saved and counted once, under the first of its names. Models that share a layer can be used by several
    threads at once, but trained by one at a time.

    Where layers come or go after its __init__, the others move in memory: an array that was taken out of `params`,
    `grads` or `buffers` before becomes read-only, and is to be taken anew. A list or dict of more than 200 entries
    without a layer in them is read anew when it has become longer or shorter; a layer that replaces something in it is
    found when an optimiser or a state dict is made.

    rng: None, an int seed or a numpy.random.Generator. Layers that were made without one, and whose `params` nobody has
    asked for, draw their initial values (and the masks of dropout) from it, one after the other, when they become part
    of the model. TypeError for a layer that is none and for a set of layers, ValueError for a name that cannot be one
    and for a model that holds itself; then the model is as it was.
    """

    _rng: np.random.Generator | None
    _found: tuple[list[str], list[Layer], list[Home]]  # what the two dicts were made of
    _whole: Buffers
    _barren: dict[int, tuple[Any, int]]  # see Search
    _built: bool = False  # the outermost __init__ has ended
    _derived = ("_params", "_grads", "_found", "_whole", "_barren", "_built")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.__init__, "composes"):  # its own, or a mixin's
            cls.__init__ = _then_composed(cls.__init__)  # type: ignore[method-assign]

    @_then_composed
    def __init__(self, *, rng: Rng = None, **layers: Layer) -> None:
        self._rng = None if rng is None else generator(type(self).__name__, rng)
        self._reset()
        self._add(layers)

    def _add(self, layers: Mapping[str, Layer]) -> None:
        call = type(self).__name__
        for name, value in layers.items():
            layer = _config.made(call, name, value)
            if not isinstance(layer, Layer):
                raise TypeError(f"{call}: {name} is {type(layer).__name__}, expected a layer or a model")
            if not (name.isidentifier() or name.isdecimal()) or name in self._derived:
                raise ValueError(f"{call}: {shown(name)} cannot be the name of a layer")
            setattr(self, name, layer)

    def _reset(self) -> None:
        call = type(self).__name__
        self._params, self._grads = ParameterDict(f"{call}.params", {}), ParameterDict(f"{call}.grads", {})
        self._found, self._whole, self._barren = ([], [], []), {}, {}

    def __setattr__(self, name: str, value: Any) -> None:
        found = Search() if isinstance(value, HOLDERS) and name not in self._derived else None
        if found:
            found.look(value, f"{name}.", (self,))
        if not found or not found.met:
            object.__setattr__(self, name, value)
            return
        of_class = next((vars(kind)[name] for kind in type(self).__mro__ if name in vars(kind)), None)
        if name in TAKEN or isinstance(of_class, METHODS) or (isinstance(of_class, property) and not of_class.fset):
            raise ValueError(f"{type(self).__name__}: {shown(name)} cannot be the name of a layer")
        before = self._attributes().get(name, self)
        object.__setattr__(self, name, value)
        if hasattr(type(of_class), "__set__") and name not in self._slots:
            return  # a property, whose setter has assigned what it holds
        leaves = list(found.layers.values())
        if not self._built:
            self._seed(leaves)
            return
        try:
            self._check_names(self._leaves())
        except Exception:
            if before is self:
                object.__delattr__(self, name)
            else:
                object.__setattr__(self, name, before)
            raise
        self._seed(leaves)
        self._look_up()

    def _seed(self, leaves: Iterable[tuple[str, Layer]]) -> None:
        """Draw the initial values of those that were made without a generator."""
        rng = self.__dict__.get("_rng")
        if rng is not None:
            for _, layer in leaves:
                if layer._unseeded:
                    layer._draw(rng)
                    layer._unseeded = False

    def _inspect(self) -> None:
        self._barren = {}
        for _, layer in self._leaves():
            layer._inspect()

    def _find(self, prefix: str, found: Search, path: tuple[Any, ...]) -> None:
        if any(self is outer for outer in path):
            raise ValueError(f"{type(path[0]).__name__}: {prefix[:-1]} holds itself")
        if "_found" not in self.__dict__:
            raise TypeError(f"{type(self).__name__}: its __init__ does not call super().__init__()")
        for name, value in self._attributes().items():
            if isinstance(value, HOLDERS) and name not in self._derived:
                found.look(value, f"{prefix}{name}.", (*path, self))

    def _leaves(self) -> list[tuple[str, Layer]]:
        found = Search(self.__dict__.get("_barren"))
        self._find("", found, ())
        self._barren = found.barren
        return list(found.layers.values())

    def _look_up(self) -> list[tuple[str, Layer]]:
        """The layers as they are now. The dicts hold their arrays; where they are others than before, they are brought
        side by side."""
        leaves = self._leaves()
        names, layers, homes = self._found
        if [layer for _, layer in leaves] != layers:
            if self._built:
                self._compose(leaves)
                return leaves
        elif [name for name, _ in leaves] == names and all(
            layer._home is home for layer, home in zip(layers, homes, strict=True)
        ):
            return leaves
        with changing:
            self._rebind(leaves)
        return leaves

    def _compose(self, leaves: Sequence[tuple[str, Layer]]) -> None:
        """Bring the layers side by side, in new buffers where they are not."""
        with changing:
            self._check_names(leaves)
            if _span(leaves) is None:
                sizes: dict[np.dtype[Any], int] = {}
                for _, layer in leaves:
                    sizes[layer.dtype] = sizes.get(layer.dtype, 0) + layer._size
                new = {dtype: (np.empty(size, dtype), np.empty(size, dtype)) for dtype, size in sizes.items()}
                start = dict.fromkeys(new, 0)
                for _, layer in leaves:
                    layer._move(Home(*new[layer.dtype], start[layer.dtype]))
                    start[layer.dtype] += layer._size
            self._rebind(leaves)

    def _check_names(self, leaves: Iterable[tuple[str, Layer]]) -> None:
        """ValueError for two parameters of one name."""
        names: set[str] = set()
        for name in (prefix + name for prefix, layer in leaves for name in layer._shapes):
            if name in names:
                raise ValueError(f"{type(self).__name__}: two parameters have the name {name}")
            names.add(name)

    def _rebind(self, leaves: Sequence[tuple[str, Layer]]) -> None:
        """Make the dicts and `_whole` of these layers, where they are."""
        self._check_names(leaves)
        for mine, kind in ((self._params, "_params"), (self._grads, "_grads")):
            mine.rebind(
                {prefix + name: array for prefix, layer in leaves for name, array in getattr(layer, kind).items()}
            )
        for stale in (part for parts in self._whole.values() for part in parts):
            stale.flags.writeable = False
        layers = [layer for _, layer in leaves]
        self._found = [name for name, _ in leaves], layers, [layer._home for layer in layers]
        self._whole = _span(leaves) or {}

    @property
    def params(self) -> ParameterDict:
        """The parameters by name: live arrays."""
        _asked_for(self._look_up())
        return self._params

    @property
    def grads(self) -> ParameterDict:
        """The gradients by name: live arrays that every pullback adds to."""
        self._look_up()
        return self._grads

    def _together(self) -> tuple[Sequence[tuple[str, Layer]], Buffers]:
        with changing:
            leaves = self._look_up()
            if leaves and not self._whole:
                self._compose(leaves)
            whole = self._whole
        _asked_for(leaves)
        return leaves, whole

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The first result of `vjp`, but without dropout, and what is recorded is given up at once: recurrent layers
        record nothing. A model that defines a `__call__` of its own has that. TypeError where there is no `vjp`.

        logits = model(x)
        """
        vjp = getattr(self, "vjp", None)
        if vjp is None:
            raise TypeError(f"{type(self).__name__}: it defines neither vjp nor __call__")
        before = without_recording.set(True)
        try:
            return vjp(*args, **kwargs)[0]
        finally:
            without_recording.reset(before)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the layers

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self._attributes().items() if name not in self._derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._restore(state)
        self._reset()
        self._compose(self._leaves())
        self._built = True


METHODS = (FunctionType, classmethod, staticmethod)
TAKEN = {*vars(Layer), *vars(Model), *Layer.__annotations__, *Model.__annotations__}


def _asked_for(leaves: Iterable[tuple[str, Layer]]) -> None:
    """Somebody has their values now."""
    for _, layer in leaves:
        if layer._unseeded:
            layer._unseeded = False


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
