"""Optimisers and gradient clipping: each is one pass over the flat buffers of a model (or of a single layer)."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import kernels
from ..core.checks import Array, boolean, cut, integer_array, real, shown, within
from ..core.layer import Layer
from ..core.model import Model
from ..core.parameters import Buffers, load

BELOW_1 = math.nextafter(1, 0)

Groups = Mapping[str, Mapping[str, Any]]


def clip_grad_norm(model: Layer, max_norm: float) -> Any:
    """Scale all gradients so that their norm is at most max_norm; returns the norm before (Pascanu et al. 2013).

    The factor is torch's, max_norm / (norm + 1e-6) where that is below 1. As in torch, a norm that is not finite is not
    an error: an infinite one makes finite gradients 0 and infinite ones NaN, a NaN makes all gradients NaN. The norm
    that is returned tells. Of a `Population` each model has a norm of its own, and is scaled by it: (P,) norms come
    back. ValueError for a negative max_norm and for a model without parameters.

        norm = pyrnn.clip_grad_norm(model, 1.0)
    """
    max_norm = real("clip_grad_norm", "max_norm", max_norm, 0)
    buffers = _buffers("clip_grad_norm", model)
    grads = [grads for _, grads in buffers.values()]
    if grads[0].ndim == 1:
        return _clipped(grads, max_norm)
    return np.array([_clipped(of_model, max_norm) for of_model in zip(*grads, strict=True)])


def _clipped(grads: Sequence[Array], max_norm: float) -> float:
    """Their norm before."""
    norm = math.hypot(*map(kernels.norm.l2, grads))
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:
        with np.errstate(all="ignore"):
            for array in grads:
                np.multiply(array, factor, out=array)
    return norm


def clip_grad_value(model: Layer, value: float) -> None:
    """Clip every gradient to -value..value; NaN stays. ValueError for a negative value and a model without parameters.

    pyrnn.clip_grad_value(model, 0.5)
    """
    value = real("clip_grad_value", "value", value, 0)
    for _, grads in _buffers("clip_grad_value", model).values():
        with np.errstate(over="ignore"):  # what is beyond a float32 clips nothing
            np.clip(grads, -value, value, out=grads)


def _betas(call: str, name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{call}: {name} is {shown(value)}, expected two numbers")
    first, second = (real(call, f"{name}[{k}]", beta, 0, BELOW_1) for k, beta in enumerate(value))
    return first, second


CHECKS: dict[str, Callable[[str, str, Any], Any]] = {  # of what may differ between groups
    "lr": lambda call, name, value: real(call, name, value, 0),
    "betas": _betas,
    "alpha": lambda call, name, value: real(call, name, value, 0, 1),
    "eps": lambda call, name, value: real(call, name, value, 0),
    "weight_decay": lambda call, name, value: real(call, name, value, 0),
}


class Optimizer:
    """What the optimisers share: flat arrays beside the parameters, looked up in `model.buffers` at each step. Those of
    a `Population` are (P, n), and each of its models is stepped as if alone.

    `state_dict()` holds these arrays, not the arguments of the constructor. `groups` gives some of the parameters other
    settings (lr, weight_decay, eps, betas, alpha): a dict from patterns of their names, with * and ? as in file names,
    to dicts of settings; a parameter belongs to the first that fits. Where `optimizer.lr` changes, as a schedule
    changes it, the lr of a group changes by the same factor. `optimizer.groups` may be changed between steps.

        optimizer = pyrnn.AdamW(model, lr=2e-3, groups={"*bias*": {"weight_decay": 0}, "embed.*": {"lr": 1e-4}})

    ValueError for a model without parameters, for a Linear whose weight is the table of an Embedding outside of it, for
    a pattern to which no parameter belongs and for a setting that the optimiser does not have. RuntimeError in a step
    after layers of the model were replaced, added or removed. What was set since the last step is checked in the next
    as if the optimiser were made with it; one that is refused has changed nothing.
    """

    lr: float
    groups: dict[str, dict[str, Any]]
    _count: int  # of models in a population
    _slots: tuple[str, ...]  # names of the arrays kept for each dtype
    _settings: ClassVar[tuple[str, ...]]  # what a group may set
    _patterns: list[str]  # of the groups of which `_parts` are made

    def __init__(self, model: Layer, groups: Groups | None) -> None:
        call = type(self).__name__
        if isinstance(model, Layer):
            model._inspect()
        buffers = _buffers(call, model)
        self.model = model
        self.steps = 0
        self._base_lr = self.lr
        self._kept = {
            dtype: tuple(np.zeros_like(params) for _ in self._slots) for dtype, (params, _) in buffers.items()
        }
        self._layers = [layer for _, layer in model._leaves()]
        self._count = max(len(params) if params.ndim > 1 else 1 for params, _ in buffers.values())
        self.groups = self._checked(groups or {})
        self._parts = self._runs()

    def _checked(self, groups: Groups) -> dict[str, dict[str, Any]]:
        call = type(self).__name__
        if not isinstance(groups, Mapping) or not all(isinstance(own, Mapping) for own in groups.values()):
            raise TypeError(f"{call}: groups is {shown(groups)}, expected a dict of dicts")
        checked: dict[str, dict[str, Any]] = {}
        for pattern, own in groups.items():
            if not isinstance(pattern, str):
                raise TypeError(f"{call}: groups has the key {shown(pattern)}, expected a pattern of names")
            for name in own:
                if name not in self._settings:
                    raise ValueError(f"{call}: groups sets {shown(name)}, expected some of {', '.join(self._settings)}")
            checked[pattern] = {name: CHECKS[name](call, f"{name} of {shown(pattern)}", own[name]) for name in own}
            if "lr" in own and self._base_lr == 0:
                raise ValueError(f"{call}: groups sets lr, of which lr 0 is no multiple")
        return checked

    def _runs(self) -> list[tuple[np.dtype[Any], slice, str | None]]:
        """The flat buffers in pieces of one group each: dtype, where, and the pattern, None for no group."""
        runs: list[tuple[np.dtype[Any], slice, str | None]] = []
        ends: dict[np.dtype[Any], int] = {}
        unused = set(self.groups)
        for name, param in self.model.params.items():
            pattern = next((pattern for pattern in self.groups if fnmatch.fnmatchcase(name, pattern)), None)
            if pattern is not None:
                unused.discard(pattern)
            start = ends.get(param.dtype, 0)
            ends[param.dtype] = end = start + param.size // self._count
            if runs and runs[-1][0] == param.dtype and runs[-1][2] == pattern:
                start = runs.pop()[1].start
            runs.append((param.dtype, slice(start, end), pattern))
        if unused:
            pattern = min(unused)
            taken = fnmatch.filter(self.model.params, pattern)
            others = f"only {cut(', '.join(taken))}, which belong to patterns before it" if taken else None
            others = others or f"none of {cut(', '.join(self.model.params))}"
            raise ValueError(f"{type(self).__name__}: {shown(pattern)} of groups fits {others}")
        self._patterns = list(self.groups)
        return runs

    def step(self) -> None:
        """Update the parameters of the model from its gradients.

        optimizer.step()
        """
        leaves, buffers = self.model._together()
        layers = [layer for _, layer in leaves]
        if len(layers) != len(self._layers) or any(a is not b for a, b in zip(layers, self._layers, strict=True)):
            call = type(self).__name__
            raise RuntimeError(f"{call}: {type(self.model).__name__} has other layers than when this {call} was made")
        common = {name: CHECKS[name](type(self).__name__, name, getattr(self, name)) for name in self._settings}
        groups = self._checked(self.groups)
        if list(groups) != self._patterns:
            self._parts = self._runs()
        for dtype, part, pattern in self._parts:
            settings = common
            if pattern is not None:
                own = groups[pattern]
                settings = {**common, **own}
                if "lr" in own and self.lr != self._base_lr:
                    settings["lr"] = own["lr"] * (self.lr / self._base_lr)
            for arrays in _pieces((*buffers[dtype], *self._kept[dtype]), part):
                self._update(*arrays, **settings)
        self.steps += 1

    def _update(self, params: Array, grads: Array, *kept: Array, **settings: Any) -> None:
        raise NotImplementedError

    def _named(self) -> dict[str, Array]:
        return {
            f"{slot}.{dtype.name}": array
            for dtype, arrays in self._kept.items()
            for slot, array in zip(self._slots, arrays, strict=True)
        }

    def state_dict(self) -> dict[str, Array]:
        """Copies: "steps" (), and flat arrays in the order of `model.buffers` such as "m.float32".

        arrays = optimizer.state_dict()
        """
        return {"steps": np.array(self.steps), **{name: array.copy() for name, array in self._named().items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`. A missing, unknown or misshapen entry is a ValueError that names it; nothing is
        changed then.

        optimizer.load_state_dict(saved)
        """
        call = f"{type(self).__name__}.load_state_dict"
        steps = np.array(self.steps)
        if isinstance(state_dict, Mapping) and "steps" in state_dict:
            within(call, "steps", integer_array(call, "steps", state_dict["steps"]), np.iinfo(steps.dtype).max - 1)
        load(call, {"steps": steps, **self._named()}, state_dict)
        self.steps = int(steps)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013) as in torch.optim.SGD.

        g = grad + weight_decay * param
        v = momentum * v + g
        param = param - lr * v          nesterov: param - lr * (g + momentum * v)

    lr, weight_decay and a momentum that is not 0 may be changed between steps. groups: settings of some parameters, as
    {"*bias*": {"weight_decay": 0}}, see `Optimizer`. ValueError for a negative argument.

        optimizer = pyrnn.SGD(model, lr=0.1, momentum=0.9)
        optimizer.step()
    """

    _settings = ("lr", "weight_decay")

    def __init__(
        self, model: Layer, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
        *, groups: Groups | None = None,
    ) -> None:  # fmt: skip
        self.lr = real("SGD", "lr", lr, 0)
        self.momentum = real("SGD", "momentum", momentum, 0)
        self.weight_decay = real("SGD", "weight_decay", weight_decay, 0)
        self.nesterov = boolean("SGD", "nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self._slots = ("velocity",) if self.momentum else ()
        super().__init__(model, groups)

    def _update(self, params: Array, grads: Array, *kept: Array, **settings: Any) -> None:
        velocity = kept[0] if kept else None
        momentum, nesterov = real("SGD", "momentum", self.momentum, 0), boolean("SGD", "nesterov", self.nesterov)
        kernels.sgd.step(params, grads, velocity, momentum=momentum, nesterov=nesterov, **settings)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) as in torch.optim.Adam; weight_decay is added to the gradient.

        g = grad + weight_decay * param
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        param = param - lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    lr, betas, eps and weight_decay may be changed between steps. groups: settings of some parameters, as {"*bias*":
    {"weight_decay": 0}}, see `Optimizer`. ValueError for a negative argument or a beta that is not below 1.

        optimizer = pyrnn.Adam(model, lr=2e-3)
        optimizer.step()
    """

    _slots = ("m", "v")
    _settings = ("lr", "betas", "eps", "weight_decay")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self, model: Layer, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
        *, groups: Groups | None = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.lr = real(call, "lr", lr, 0)
        self.betas = _betas(call, "betas", betas)
        self.eps = real(call, "eps", eps, 0)
        self.weight_decay = real(call, "weight_decay", weight_decay, 0)
        super().__init__(model, groups)

    def _update(self, params: Array, grads: Array, *kept: Array, **settings: Any) -> None:
        beta1, beta2 = settings.pop("betas")
        step, decoupled = self.steps + 1, self._decoupled
        kernels.adam.step(params, grads, *kept, beta1=beta1, beta2=beta2, step=step, decoupled=decoupled, **settings)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101) as in torch.optim.AdamW.

    As `Adam` with g = grad, and each step starts from (1 - lr * weight_decay) * param: all parameters shrink at one
    rate, however large their gradients are. Arguments and errors as in Adam.

        optimizer = pyrnn.AdamW(model, lr=2e-3, weight_decay=0.1)
        optimizer.step()
    """

    _decoupled = True

    def __init__(
        self, model: Layer, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *, groups: Groups | None = None,
    ) -> None:  # fmt: skip
        super().__init__(model, lr, betas, eps, weight_decay, groups=groups)


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5 of their course) as in torch.optim.RMSprop, not centred.

        g = grad + weight_decay * param
        square = alpha * square + (1 - alpha) * g^2
        v = momentum * v + g / (sqrt(square) + eps)
        param = param - lr * v

    lr, alpha, eps, weight_decay and a momentum that is not 0 may be changed between steps. groups: settings of some
    parameters, as {"*bias*": {"weight_decay": 0}}, see `Optimizer`. ValueError for a negative argument or an alpha
    above 1.

        optimizer = pyrnn.RMSprop(model, lr=1e-3)
        optimizer.step()
    """

    _settings = ("lr", "alpha", "eps", "weight_decay")

    def __init__(
        self, model: Layer, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
        momentum: float = 0.0,
        *, groups: Groups | None = None,
    ) -> None:  # fmt: skip
        self.lr = real("RMSprop", "lr", lr, 0)
        self.alpha = real("RMSprop", "alpha", alpha, 0, 1)
        self.eps = real("RMSprop", "eps", eps, 0)
        self.weight_decay = real("RMSprop", "weight_decay", weight_decay, 0)
        self.momentum = real("RMSprop", "momentum", momentum, 0)
        self._slots = ("square", "velocity") if self.momentum else ("square",)
        super().__init__(model, groups)

    def _update(self, params: Array, grads: Array, *kept: Array, **settings: Any) -> None:
        velocity, alpha = kept[1] if len(kept) > 1 else None, settings.pop("alpha")
        momentum = real("RMSprop", "momentum", self.momentum, 0)
        kernels.rmsprop.step(params, grads, kept[0], velocity, keep=alpha, add=1 - alpha, momentum=momentum, **settings)


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011) as in torch.optim.Adagrad.

        g = grad + weight_decay * param
        square = square + g^2
        param = param - lr * g / (sqrt(square) + eps)

    Steps only become smaller: parameters that seldom have a gradient, rows of an `Embedding`, keep large ones. lr, eps
    and weight_decay may be changed between steps. groups: settings of some parameters, as {"*bias*": {"weight_decay":
    0}}, see `Optimizer`. ValueError for a negative argument.

        optimizer = pyrnn.Adagrad(model, lr=0.1)
        optimizer.step()
    """

    _slots = ("square",)
    _settings = ("lr", "eps", "weight_decay")

    def __init__(
        self, model: Layer, lr: float = 1e-2, eps: float = 1e-10, weight_decay: float = 0.0,
        *, groups: Groups | None = None,
    ) -> None:  # fmt: skip
        self.lr = real("Adagrad", "lr", lr, 0)
        self.eps = real("Adagrad", "eps", eps, 0)
        self.weight_decay = real("Adagrad", "weight_decay", weight_decay, 0)
        super().__init__(model, groups)

    def _update(self, params: Array, grads: Array, *kept: Array, **settings: Any) -> None:
        kernels.rmsprop.step(params, grads, kept[0], None, keep=1.0, add=1.0, momentum=0.0, **settings)


def _pieces(arrays: Sequence[Array], part: slice) -> Iterator[tuple[Array, ...]]:
    """A part of flat arrays, flat; of those of a population, (P, n) each, all models' at once where it is all of them,
    else model by model."""
    if arrays[0].ndim == 1:
        yield tuple(array[part] for array in arrays)
    elif part == slice(0, arrays[0].shape[1]):
        yield tuple(array.reshape(-1) for array in arrays)
    else:
        for of_model in zip(*arrays, strict=True):
            yield tuple(array[part] for array in of_model)


def _buffers(call: str, model: Layer) -> Buffers:
    """Those of a layer or a model that has parameters."""
    if not isinstance(model, Layer):
        raise TypeError(f"{call}: model is {type(model).__name__}, expected a layer or a model")
    if not isinstance(model, Model) and any(layer is not model for _, layer in model._leaves()):
        raise ValueError(
            f"{call}: the weight of this {type(model).__name__} is the table of an Embedding, which is not a part of "
            "it: expected a model that holds both"
        )
    buffers = model.buffers
    if not any(params.size for params, _ in buffers.values()):
        raise ValueError(f"{call}: {type(model).__name__} has no parameters")
    return buffers
