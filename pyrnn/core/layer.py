"""A layer: parameters with names, attributes that hold no other layer unseen, and the search for layers."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MemberDescriptorType
from typing import Any, ClassVar

import numpy as np

from . import config as config_of
from . import encoded
from .checks import MOST_NUMBERS, Array, Rng, choice, generator, shown
from .parameters import Buffers, FrozenParameters, Home, ParameterDict, Shapes, load, without_recording


class Layer:
    """Base of everything that has parameters: `params`, `grads`, state dicts. A layer can be copied and pickled.

    Its parameters are its own: a layer in an attribute is a TypeError, only a `Model` is made of layers.

        layer = pyrnn.Linear(16, 4, rng=0)
        layer.params["weight"], layer.grads["bias"]  # live arrays, (4, 16) and (4,)
        again = type(layer)(**layer.config())
        again.load_state_dict(layer.state_dict())
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
    _derived: ClassVar[tuple[str, ...]] = ("_params", "_grads", "_home")  # not copied: made by _bind or _pack
    _sought: ClassVar[tuple[str, ...]] = ()  # attributes with layers, where `_find` looks
    _by_step: ClassVar[bool] = False  # a call is the same for every step by itself
    _has_stream: ClassVar[bool] = False  # stream(batch) gives the steps of a call
    # The attributes with the numbers of features that it takes and gives; ("", "") as many as come, None: not known.
    _features: ClassVar[tuple[str, str] | None] = None
    _ends_steps: ClassVar[bool] = False  # behind it there is no axis of steps
    _slots: ClassVar[tuple[str, ...]] = ()  # attributes that a user's class has in __slots__
    # What the state dict has beside the parameters, such as running statistics; of a quantized layer all that it has.
    _unlearned: Mapping[str, Array] = {}
    _has_products: ClassVar[bool] = False  # its matrices are multiplied by kernels that take them in fewer bits, too
    _frozen_numbers: int = 0  # of a quantized layer: how many its parameters were
    precision: str = "float32"  # of the factors of its products
    quantized: str | None = None  # the form of its matrices where it is one of `quantize`

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
        allowance = _allowance.get()
        if allowance is not None:
            allowance[0] -= self._size
            if allowance[0] < 0:
                raise ValueError(f"{type(self).__name__}: there are {-allowance[0]} numbers too few for its parameters")
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
        frozen = encoded.matrices(self._unlearned) if self.quantized else {}
        self._params.rebind(self._views(self._flat[0]) | frozen)
        self._grads.rebind(self._views(self._flat[1]))

    def _move(self, home: Home) -> None:
        """Take the values along to there."""
        for new, old in zip((home.params, home.grads), self._flat, strict=True):
            new[home.start : home.start + self._size] = old
        for stale in (*self._flat, *(own[name] for own in (self._params, self._grads) for name in self._shapes)):
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
        if isinstance(value, HOLDERS) and name not in OWN and name not in self._derived + self._sought:
            found = Search()
            found.look(value, f"{name}.", (self,))
            if found.met:
                call, what = type(self).__name__, "is" if isinstance(value, Layer) else "holds"
                raise TypeError(f"{call}: {shown(name)} {what} a layer, which would be neither trained nor saved: "
                                "a class that is made of layers is a pyrnn.Model")  # fmt: skip

    def _rows_first(self) -> bool | None:
        """Whether it takes (N, T, ...) and not (T, N, ...); None where that is the same."""
        return getattr(self, "batch_first", None)

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
        leaves = self._leaves() if self.quantized else [("", self)]
        _asked_for(leaves)
        return self._frozen_params(leaves) if self.quantized else self._params

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
        self._refuse_training("buffers")
        leaves = (("", self),)
        _asked_for(leaves)
        return leaves, {self.dtype: self._flat}

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters are; shared ones count once."""
        return sum(layer._size + layer._frozen_numbers for _, layer in self._leaves())

    @property
    def nbytes(self) -> int:
        """How many bytes the numbers of its state dict take."""
        return sum(array.nbytes for array in self._values().values())

    def config(self) -> dict[str, Any]:
        """The arguments of its class, of which JSON can hold all: `type(layer)(**layer.config())` makes its like, with
        other initial values. Those of a model made by keywords, and of a Sequential, are the types and configs of its
        layers. TypeError where that cannot be said: for a layer that shares another one's table, for a class of your
        own whose arguments are not its attributes.

            pyrnn.GRU(8, 16).config()  # {"input_size": 8, "hidden_size": 16, "num_layers": 1, ...}
        """
        return config_of.config(self)

    def __repr__(self) -> str:
        return config_of.described(self)

    def zero_grad(self) -> None:
        """Set every gradient to zero.

        layer.zero_grad()
        """
        for _, layer in self._leaves():
            layer._flat[1].fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name, and of what else is learned: a BatchNorm1d's running statistics.

        arrays = layer.state_dict()
        """
        self._inspect()
        return {name: value.copy() for name, value in self._values().items()}

    def _values(self) -> Mapping[str, Array]:
        """The live arrays of the state dict."""
        leaves = self._leaves()
        _asked_for(leaves)
        return {
            prefix + name: value
            for prefix, layer in leaves
            for name, value in (*((name, layer._params[name]) for name in layer._shapes), *layer._unlearned.items())
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], prefix: str = "") -> None:
        """Copy parameters in: with a prefix, of the entries whose names begin with it, under the rest of their names.
        A missing, unknown or misshapen entry is a ValueError that names it; then nothing has changed.

        layer.load_state_dict(other.state_dict())
        layer.load_state_dict(pyrnn.read_weights("model.pt"), prefix="encoder.rnn.")
        """
        self._inspect()
        for _, layer in self._leaves():
            layer._refuse_training("load_state_dict")
        self._refuse_training("load_state_dict")
        load(f"{type(self).__name__}.load_state_dict", self._values(), state_dict, prefix)

    def _take(self, state_dict: Mapping[str, Any]) -> None:
        """Of a layer that nobody has seen yet: `load_state_dict`, though it may be quantized."""
        load(type(self).__name__, self._values(), state_dict)
        for _, layer in self._leaves():
            if layer.quantized:
                layer._pack()

    def quantize(self, form: str) -> Any:
        """Its like with the matrices in fewer bits, for calls and streams: half or a quarter of the memory, and up to
        as much faster where it is far; "int8" is faster with a batch, too.

        "bfloat16"  the matrices are rounded to bfloat16: the same bits as the float32 layer whose matrices are rounded
        "int8"      row r of a matrix is whole numbers times a scale, max|w_r| / 127, and so is each vector it meets: x
                    or h of one row and step, r * h of the GRU with the reset before, the LSTM's output before its
                    projection. Sums of products of whole numbers are exact, everything else is float32

        Of a model these are the matrices of its recurrent layers, Linear, Embedding and MultiheadAttention; other
        layers in it stay what they are. What comes is a copy that cannot be trained: `vjp`, `load_state_dict` and
        assigning to `params` are a TypeError, `params` holds the numbers that it computes with. It can be saved.
        ValueError for another form and for float64, TypeError for a layer or a model without such matrices.

            small = layer.quantize("int8")
            y, state = small(x)
        """
        call = f"{type(self).__name__}.quantize"
        form = choice(call, "form", form, encoded.FORMS)
        self._refuse_training("quantize")
        frozen = copy.deepcopy(self)
        chosen = [layer for _, layer in frozen._leaves() if layer._has_products]
        if not chosen:
            raise TypeError(f"{call}: it has no matrices of recurrent layers, Linear, Embedding or MultiheadAttention")
        for layer in chosen:
            if layer.quantized not in (None, form):
                layer._refuse_training("quantize")
            if layer.dtype != np.float32:
                raise ValueError(f"{call}: {type(layer).__name__} is of {layer.dtype}, expected float32")
            refuse_precision(call, layer)
        for layer in chosen:
            if not layer.quantized:
                layer._freeze(form)
        frozen.quantized = form
        return frozen

    def _freeze(self, form: str) -> None:
        """Keep the matrices in this form alone, and no parameters."""
        kept: dict[str, Array] = dict(self._unlearned)
        for name, array in self._params.items():
            kept |= encoded.arrays(name, encoded.encode(array, form) if array.ndim == 2 else array.copy())
        self._unlearned, self.quantized, self._frozen_numbers = kept, form, self._size
        self._shapes, self._size = {}, 0
        self._settle(np.zeros(0, self.dtype), np.zeros(0, self.dtype))
        self._pack()

    def _pack(self) -> None:
        """Of a quantized layer: pack the matrices for its calls."""

    def _frozen_params(self, leaves: Iterable[tuple[str, Layer]]) -> ParameterDict:
        values = {prefix + name: value for prefix, layer in leaves for name, value in layer._params.items()}
        arrays = {
            name: encoded.decode(value) if isinstance(value, tuple) or value.dtype == np.uint16 else value.view()
            for name, value in values.items()
        }
        return FrozenParameters(f"{type(self).__name__}.params", str(self.quantized), arrays)

    def _refuse_training(self, method: str) -> None:
        """TypeError for a quantized layer."""
        if self.quantized:
            message = f"the layer is quantized to {self.quantized}, and cannot be trained or changed"
            raise TypeError(f"{type(self).__name__}.{method}: {message}")

    def _refuse_recording(self) -> None:
        """The same, but in a call that a model makes of its vjp."""
        if not without_recording.get():
            self._refuse_training("vjp")

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self._attributes().items() if name not in self._derived}
        own: dict[str, Any] = {"_flat": tuple(part.copy() for part in self._flat)}
        if self._unlearned:
            own["_unlearned"] = {name: value.copy() for name, value in self._unlearned.items()}
        return state | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._restore(state)
        self.dtype = np.dtype(self.dtype.str)  # NumPy's own object again: see the fast path of every call
        self._settle(*state["_flat"])
        if self.quantized:
            self._pack()

    def _restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


def refuse_precision(call: str, layer: Layer) -> None:
    """ValueError for a layer whose products are not float32."""
    if layer.precision != "float32":
        message = f"{type(layer).__name__} has the precision {layer.precision}, expected its like of float32"
        raise ValueError(f"{call}: {message}")


def refuse_fewer_bits(call: str, model: Layer) -> None:
    """ValueError for a model in which a layer is quantized, or has products of another precision than float32."""
    for _, layer in model._leaves():
        if layer.quantized:
            message = f"{type(layer).__name__} is quantized to {layer.quantized}, expected what it was made of"
            raise ValueError(f"{call}: {message}")
        refuse_precision(call, layer)


_allowance: ContextVar[list[int] | None] = ContextVar("_allowance", default=None)


@contextlib.contextmanager
def at_most(numbers: int) -> Iterator[None]:
    """Inside, layers with more parameters than so many numbers in all are a ValueError, before memory is taken."""
    token = _allowance.set([numbers])
    try:
        yield
    finally:
        _allowance.reset(token)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Inside, layers may have as many numbers as are left there, and afterwards as many are left as before."""
    allowance = _allowance.get()
    with contextlib.nullcontext() if allowance is None else at_most(allowance[0]):
        yield


OWN = {*vars(Layer), *Layer.__annotations__}
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


def _asked_for(leaves: Iterable[tuple[str, Layer]]) -> None:
    """Somebody has their values now."""
    for _, layer in leaves:
        if layer._unseeded:
            layer._unseeded = False
