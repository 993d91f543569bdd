"""Optimisers and gradient clipping: each is one pass over the flat buffers of a model (or of a single layer)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import kernels
from ._arrays import Array, boolean, integer_array, real, within
from .parameters import Layer, load


def clip_grad_norm(model: Layer, max_norm: float) -> float:
    """Scale all gradients so that their norm is at most max_norm; returns the norm before (Pascanu et al. 2013).

    The factor is torch's, max_norm / (norm + 1e-6) where that is below 1. As in torch, a norm that is not finite is not
    an error: an infinite one makes finite gradients 0 and infinite ones NaN, a NaN makes all gradients NaN. The norm
    that is returned tells. ValueError for a negative max_norm.

        norm = pyrnn.clip_grad_norm(model, 1.0)
    """
    max_norm = real("clip_grad_norm", "max_norm", max_norm, 0)
    norm = math.hypot(*(kernels.norm.l2(grads) for _, grads in _model("clip_grad_norm", model).buffers.values()))
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:
        for _, grads in model.buffers.values():
            np.multiply(grads, factor, out=grads)
    return norm


def clip_grad_value(model: Layer, value: float) -> None:
    """Clip every gradient to -value..value; NaN stays. ValueError for a negative value.

    pyrnn.clip_grad_value(model, 0.5)
    """
    value = real("clip_grad_value", "value", value, 0)
    for _, grads in _model("clip_grad_value", model).buffers.values():
        np.clip(grads, -value, value, out=grads)


class Optimizer:
    """What SGD and Adam share: flat arrays beside the parameters, looked up in `model.buffers` at each step.

    `state_dict()` holds these arrays, not the arguments of the constructor.
    """

    _slots: tuple[str, ...]  # names of the arrays kept for each dtype

    def __init__(self, model: Layer) -> None:
        self.model = _model(type(self).__name__, model)
        self.steps = 0
        self._kept = {
            dtype: tuple(np.zeros_like(params) for _ in self._slots) for dtype, (params, _) in model.buffers.items()
        }

    def step(self) -> None:
        """Update the parameters of the model from its gradients.

        optimizer.step()
        """
        for dtype, (params, grads) in self.model.buffers.items():
            self._update(params, grads, *self._kept[dtype])
        self.steps += 1

    def _update(self, params: Array, grads: Array, *kept: Array) -> None:
        raise NotImplementedError

    def _named(self) -> dict[str, Array]:
        return {
            f"{slot}.{dtype.name}": array
            for dtype, arrays in self._kept.items()
            for slot, array in zip(self._slots, arrays, strict=True)
        }

    def state_dict(self) -> dict[str, Array]:
        """Copies: "steps" (), and flat arrays in the order of `model.buffers` such as "m.float32"."""
        return {"steps": np.array(self.steps), **{name: array.copy() for name, array in self._named().items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`. A missing, unknown or misshapen entry is a ValueError that names it; nothing is
        changed then.

        optimizer.load_state_dict(saved)
        """
        call = f"{type(self).__name__}.load_state_dict"
        steps = np.array(self.steps)
        if isinstance(state_dict, Mapping) and "steps" in state_dict:
            within(call, "steps", integer_array(call, "steps", state_dict["steps"]), np.iinfo(steps.dtype).max)
        load(call, {"steps": steps, **self._named()}, state_dict)
        self.steps = int(steps)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013) as in torch.optim.SGD.

        g = grad + weight_decay * param
        v = momentum * v + g
        param = param - lr * v          nesterov: param - lr * (g + momentum * v)

    lr, weight_decay and a momentum that is not 0 may be changed between steps. ValueError for a negative argument.

        optimizer = pyrnn.SGD(model, lr=0.1, momentum=0.9)
        optimizer.step()
    """

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.lr = real("SGD", "lr", lr, 0)
        self.momentum = real("SGD", "momentum", momentum, 0)
        self.weight_decay = real("SGD", "weight_decay", weight_decay, 0)
        self.nesterov = boolean("SGD", "nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self._slots = ("velocity",) if self.momentum else ()
        super().__init__(model)

    def _update(self, params: Array, grads: Array, *kept: Array) -> None:
        kernels.sgd.step(
            params,
            grads,
            kept[0] if kept else None,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) as in torch.optim.Adam; weight_decay is added to the gradient.

        g = grad + weight_decay * param
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        param = param - lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    lr, betas, eps and weight_decay may be changed between steps. ValueError for a negative argument or a beta that is
    not below 1.

        optimizer = pyrnn.Adam(model, lr=2e-3)
        optimizer.step()
    """

    _slots = ("m", "v")

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr = real("Adam", "lr", lr, 0)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"Adam: betas is {betas!r}, expected two numbers")
        below_1 = math.nextafter(1, 0)
        self.betas = real("Adam", "betas[0]", betas[0], 0, below_1), real("Adam", "betas[1]", betas[1], 0, below_1)
        self.eps = real("Adam", "eps", eps, 0)
        self.weight_decay = real("Adam", "weight_decay", weight_decay, 0)
        super().__init__(model)

    def _update(self, params: Array, grads: Array, *kept: Array) -> None:
        m, v = kept
        kernels.adam.step(
            params,
            grads,
            m,
            v,
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
            step=self.steps + 1,
        )


def _model(call: str, model: Layer) -> Layer:
    if not isinstance(model, Layer):
        raise TypeError(f"{call}: model is {type(model).__name__}, expected a layer or a model")
    return model
