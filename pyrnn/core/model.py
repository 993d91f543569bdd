"""Models: layers composed into one, whose parameters lie side by side."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import config as config_of
from .checks import Array, Rng, generator, shown
from .layer import HOLDERS, OWN, Layer, Search, _asked_for
from .parameters import Buffers, Home, ParameterDict, _span, without_recording

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
    # Its vjp is written for arrays with any axes in front of those it names, and its layers are attributes: a
    # Population runs it once, with an axis of the models.
    _takes_axes_in_front: ClassVar[bool] = False
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
            layer = config_of.made(call, name, value)
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
            now = self._leaves()
            self._check_names(now)
            self._refuse_lent(now)
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
            self._refuse_lent(leaves)
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

    def _refuse_lent(self, leaves: Sequence[tuple[str, Layer]]) -> None:
        """ValueError where they do not lie side by side and one is of a population, which stays where it is."""
        for name, layer in leaves if _span(leaves) is None else ():
            if layer._home.lent:
                raise ValueError(
                    f"{type(self).__name__}: {name}{type(layer).__name__} is part of a Population, whose models keep "
                    "their layers and are part of no other model"
                )

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
                {prefix + name: getattr(layer, kind)[name] for prefix, layer in leaves for name in layer._shapes}
            )
        for stale in (part for parts in self._whole.values() for part in parts):
            stale.flags.writeable = False
        layers = [layer for _, layer in leaves]
        self._found = [name for name, _ in leaves], layers, [layer._home for layer in layers]
        self._whole = _span(leaves) or {}

    @property
    def params(self) -> ParameterDict:
        """The parameters by name: live arrays."""
        leaves = self._look_up()
        _asked_for(leaves)
        return self._frozen_params(leaves) if self.quantized else self._params

    @property
    def grads(self) -> ParameterDict:
        """The gradients by name: live arrays that every pullback adds to."""
        self._look_up()
        return self._grads

    def _values(self) -> Mapping[str, Array]:
        self._look_up()
        return super()._values()

    def _together(self) -> tuple[Sequence[tuple[str, Layer]], Buffers]:
        self._refuse_training("buffers")
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
TAKEN = OWN | {*vars(Model), *Model.__annotations__}
