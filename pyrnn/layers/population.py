"""Many models of one shape: run, trained and streamed in one call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import config as config_of
from ..core.checks import MOST, Array, Rng, any_array, integer, integer_array, real_array, shape_error, shown
from ..core.layer import Layer, Search, apart
from ..core.parameters import Buffers, Home
from ..core.pullback import AllOrNone
from .axis_of_models import check_cut, spread, stacked, views_of
from .embedding import Embedding
from .linear import Linear
from .population_stream import PopulationStream
from .sequential import Sequential
from .stack import Recurrent
from .together import Together, together

MOST_MODELS = 2**20


class Population(Layer):
    """P = `size` models of one shape, each with values of its own, that run in one call.

    Threads share out the models: each takes whole ones, whose weights stay in its core's cache. Model k has the bits
    that many[k] has alone, an ordinary layer or model that lives in the same memory. Parameters, gradients, state dicts
    have the names of one model and an axis of the models in front: `params["weight_ih_l0"]` of LSTMs is (P, 4*H, I),
    `buffers` holds (P, n). An optimiser steps each model, `clip_grad_norm` gives (P,) norms and clips each model by its
    own.

    layer_or_config: a layer or a model, whose like the P are, or its config with the name of its class beside, as
    {"type": "LSTM", "input_size": 8, "hidden_size": 32}. Their initial values are drawn anew, model by model, each from
    a seed that `rng` gives: None, an int seed or a numpy.random.Generator. Dropout has a generator for each model.

    What a call takes and gives has the axis of the models in front, too: x is (P, T, N, I), or (T, N, I) for all of
    them; ids are (P, T, N) or (T, N). States are (P, L*D, N, H). lengths (N,) and reset (T, N) hold for all models or
    have a leading P. The other arguments of a model of your own are cut along their first axis where they are arrays,
    and go to all models as they are where not. dx of an x for all is the sum over the models.

    Recurrent layers, `Linear` and activations run together, also in a `Sequential`; other layers and models of your own
    one model after the other. The layers of the models stay the same ones: none is replaced, and many[k] becomes part
    of no other model. ValueError for a size below 1 and for models of several dtypes, TypeError for what is no layer.

        many = pyrnn.Population(pyrnn.LSTM(8, 32), size=64, rng=0)
        y, (h, c) = many(np.ones((64, 50, 16, 8)))  # (P, T, N, I) -> (P, T, N, H), (P, 1, N, H) each
    """

    _has_stream = True
    _sought = ("_models",)
    _derived = (*Layer._derived, "_all")

    def __init__(self, layer_or_config: Layer | Mapping[str, Any], size: int, rng: Rng = None) -> None:
        call = type(self).__name__
        self.size = integer(call, "size", size, 1, MOST_MODELS)
        with apart():  # what it has is none of the population's numbers
            template = _template(call, layer_or_config)
        leaves = template._leaves()
        dtypes = {layer.dtype for _, layer in leaves if layer._size} or {layer.dtype for _, layer in leaves}
        if len(dtypes) > 1:
            raise ValueError(f"{call}: the layers have several dtypes, {' and '.join(sorted(map(str, dtypes)))}")
        for _, layer in leaves:
            layer._refuse_training("Population")
        unlearned = {prefix + name: value for prefix, layer in leaves for name, value in layer._unlearned.items()}
        self._unlearned = {name: np.stack([value] * self.size) for name, value in unlearned.items()}
        start = {prefix + name: layer._params[name] for prefix, layer in leaves for name in layer._shapes}
        shapes = {name: (self.size, *value.shape) for name, value in start.items()}
        self._models: list[Layer] = []
        super().__init__(next(iter(dtypes), np.dtype("float32")), shapes)
        self._models = [copy.deepcopy(template) for _ in range(self.size)]
        self._bind(self._home)
        for name, value in start.items():
            self._params[name][...] = value
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        for model, seed in zip(self._models, rng.integers(2**63, size=self.size), strict=True):
            own = np.random.default_rng(seed)
            for _, layer in model._leaves():
                layer._draw(own)

    @property
    def _length(self) -> int:
        """The numbers of one model."""
        return self._size // self.size

    def _bind(self, home: Home) -> None:
        super()._bind(home)
        for k, model in enumerate(self._models):
            start = home.start + k * self._length
            for prefix, layer in model._leaves():
                if layer._unlearned:
                    layer._unlearned = {name: self._unlearned[prefix + name][k] for name in layer._unlearned}
                layer._bind(Home(home.params, home.grads, start, lent=True))
                start += layer._size
        if self._models:
            self._all: Together = together(self._models, self._part)

    def _part(self, layer: Layer) -> tuple[Array, Array]:
        """All models' parameters and gradients, of what is this layer in the first one."""
        start = layer._home.start - self._home.start
        params, grads = (self._matrix(flat)[:, start : start + layer._size] for flat in self._flat)
        return params, grads

    def _matrix(self, flat: Array) -> Array:
        return flat.reshape(self.size, self._length)

    def _views(self, flat: Array) -> dict[str, Array]:
        return views_of(self._matrix(flat), {name: shape[1:] for name, shape in self._shapes.items()})

    def _find(self, prefix: str, found: Search, path: tuple[Any, ...]) -> None:
        found.layers.setdefault(id(self), (prefix, self))

    def _together(self) -> tuple[Sequence[tuple[str, Layer]], Buffers]:
        """As that of a layer; the arrays are (P, n), a row for each model."""
        leaves, buffers = super()._together()
        return leaves, {
            dtype: (self._matrix(params), self._matrix(grads)) for dtype, (params, grads) in buffers.items()
        }

    def config(self) -> dict[str, Any]:
        """The arguments, see Layer.config; TypeError where the models' cannot be said.

        pyrnn.Population(**many.config())
        """
        model = self._models[0]
        typed = config_of._typed(self, "layer_or_config", model)
        return {"layer_or_config": {"type": typed["type"], **typed["config"]}, "size": self.size}

    def __repr__(self) -> str:
        count = f"  # {self.num_parameters:,} parameters" if self.num_parameters else ""
        model = repr(self._models[0]).split("  # ")[0] if not config_of.children(self._models[0]) else ""
        model = model or type(self._models[0]).__name__
        return f"{type(self).__name__}({model}, size={self.size}){count}"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, k: int) -> Any:
        self._unseeded = False
        return self._models[integer(type(self).__name__, "k", k, -self.size, self.size - 1)]

    def __iter__(self) -> Iterator[Any]:
        self._unseeded = False
        return iter(self._models)

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """What the models give, with an axis of the models in front. Arguments as those of a model's call, see above.

        y, state = many(x)
        """
        call = type(self).__name__
        return self._all.forward(call, self._of_all(call, x)[0], *args, **kwargs)

    def vjp(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Callable[..., Any]]:
        """What the models' vjp gives, and a pullback that takes gradients like it. It adds to the gradients of all
        models or, where it is refused or ended by Ctrl-C, to none, and can be called once.

            (y, state), pullback = many.vjp(x)
            dx, dstate = pullback(y - target)
        """
        call = f"{type(self).__name__}.vjp"
        x, shared = self._of_all(call, x)
        result, pull = self._all.vjp(call, x, *args, **kwargs)

        def pullback(*gradients: Any, **named: Any) -> Any:
            with AllOrNone(self._flat[1], AllOrNone.FEW):
                back = pull(*gradients, **named)
            return _summed(back) if shared else back

        return result, pullback

    def stream(self, batch: int = 1, state: Any = None) -> PopulationStream:
        """A `PopulationStream`: each model on N = `batch` rows of its own. TypeError for a layer that needs more than a
        step, and ValueError for a recurrent one of both directions.

            stream = many.stream()
            y_t = stream.step(x_t)  # (P, I) -> (P, H)
        """
        call = f"{type(self).__name__}.stream"
        batch = integer(call, "batch", batch, 1, MOST)
        stream = PopulationStream(self, self._all.streamed(call, batch), batch)
        if state is not None:
            stream.state = state
        return stream

    def loss(
        self, loss: Callable[..., tuple[float, Array]], predictions: Any, targets: Any,
        *, lengths: Any = None, mask: Any = None, **options: Any,
    ) -> tuple[Array, Array]:  # fmt: skip
        """A loss of each model: losses (P,) and the gradient, like the predictions. predictions and targets have the
        axis of the models in front; lengths (N,) and mask hold for all or have one, too; other options are for all.

            losses, dlogits = many.loss(pyrnn.cross_entropy, logits, targets)
        """
        call = f"{type(self).__name__}.loss"
        values, wanted = any_array(call, "predictions", predictions), any_array(call, "targets", targets)
        given = {"lengths": lengths, "mask": mask}
        given = {name: any_array(call, name, value) for name, value in given.items() if value is not None}
        for name, axes in {"lengths": 1, "mask": wanted.ndim - 1}.items():
            if name in given:
                given[name] = spread(call, name, given[name], self.size, axes)
        for name, array in {"predictions": values, "targets": wanted, **given}.items():
            check_cut(call, name, array, self.size)
        results = [
            loss(values[k], wanted[k], **{name: array[k] for name, array in given.items()}, **options)
            for k in range(self.size)
        ]
        losses, gradient = stacked(results)
        return losses, gradient

    def _of_all(self, call: str, x: Any) -> tuple[Array, bool]:
        """x with the axis of the models in front, and whether it is the same for all."""
        x, axes = self._array(call, x)
        if x.ndim == axes + 1 and len(x) == self.size:
            return x, False
        if x.ndim > axes:
            letters = ("T, N", "T, N, I")[axes - 2]
            raise shape_error(call, "x", x.shape, f"({self.size}, {letters}) or ({letters})")
        return np.broadcast_to(x, (self.size, *x.shape)), True

    def _array(self, call: str, x: Any) -> tuple[Array, int]:
        """x as an array, and how many axes it has where it is the same for all models."""
        first: Any = self._models[0]
        while type(first) is Sequential:
            first = first[0]
        if isinstance(first, Embedding):
            x, axes = integer_array(call, "x", x), 2
        elif isinstance(first, (Recurrent, Linear)):
            x, axes = real_array(call, "x", x, first.dtype), 3
        else:
            x = any_array(call, "x", x)
            axes = 2 if x.dtype.kind in "iu" else 3
        return x, axes


def _summed(back: Any) -> Any:
    """The models' dx, which comes alone or first, added up in their order."""
    if isinstance(back, tuple):
        return (_summed(back[0]), *back[1:])
    return None if back is None else np.add.reduce(back, axis=0)


def _template(call: str, given: Any) -> Layer:
    if isinstance(given, Layer):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"{call}: layer_or_config is {shown(given)}, expected a layer, a model or a dict")
    if "type" not in given:
        raise ValueError(f"{call}: layer_or_config is {shown(given)}, expected a dict with a type")
    config = {name: value for name, value in given.items() if name != "type"}
    made: Layer = config_of.made(call, "layer_or_config", {"type": given["type"], "config": config})
    return made
