"""Optimisers and gradient clipping: each is one pass over the flat buffers of a model (or of a single layer)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from . import kernels
from ._arrays import Array, boolean, integer_array, real, within
from .parameters import Layer, load

BELOW_1 = math.nextafter(1, 0)


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
    """What the optimisers share: flat arrays beside the parameters, looked up in `model.buffers` at each step.

    `state_dict()` holds these arrays, not the arguments of the constructor.
    """

    lr: float
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
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        call = type(self).__name__
        self.lr = real(call, "lr", lr, 0)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{call}: betas is {betas!r}, expected two numbers")
        self.betas = real(call, "betas[0]", betas[0], 0, BELOW_1), real(call, "betas[1]", betas[1], 0, BELOW_1)
        self.eps = real(call, "eps", eps, 0)
        self.weight_decay = real(call, "weight_decay", weight_decay, 0)
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
            decoupled=self._decoupled,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101) as in torch.optim.AdamW.

    As `Adam` with g = grad, and each step starts from (1 - lr * weight_decay) * param: all parameters shrink at one
    rate, however large their gradients are. Arguments and errors as in Adam.

        optimizer = pyrnn.AdamW(model, lr=2e-3, weight_decay=0.1)
        optimizer.step()
    """

    _decoupled = True

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5 of their course) as in torch.optim.RMSprop, not centred.

        g = grad + weight_decay * param
        square = alpha * square + (1 - alpha) * g^2
        v = momentum * v + g / (sqrt(square) + eps)
        param = param - lr * v

    lr, alpha, eps, weight_decay and a momentum that is not 0 may be changed between steps. ValueError for a negative
    argument or an alpha above 1.

        optimizer = pyrnn.RMSprop(model, lr=1e-3)
        optimizer.step()
    """

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        self.lr = real("RMSprop", "lr", lr, 0)
        self.alpha = real("RMSprop", "alpha", alpha, 0, 1)
        self.eps = real("RMSprop", "eps", eps, 0)
        self.weight_decay = real("RMSprop", "weight_decay", weight_decay, 0)
        self.momentum = real("RMSprop", "momentum", momentum, 0)
        self._slots = ("square", "velocity") if self.momentum else ("square",)
        super().__init__(model)

    def _update(self, params: Array, grads: Array, *kept: Array) -> None:
        kernels.rmsprop.step(
            params,
            grads,
            kept[0],
            kept[1] if len(kept) > 1 else None,
            lr=self.lr,
            keep=self.alpha,
            add=1 - self.alpha,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011) as in torch.optim.Adagrad.

        g = grad + weight_decay * param
        square = square + g^2
        param = param - lr * g / (sqrt(square) + eps)

    Steps only become smaller: parameters that seldom have a gradient, rows of an `Embedding`, keep large ones. lr, eps
    and weight_decay may be changed between steps. ValueError for a negative argument.

        optimizer = pyrnn.Adagrad(model, lr=0.1)
        optimizer.step()
    """

    _slots = ("square",)

    def __init__(self, model: Layer, lr: float = 1e-2, eps: float = 1e-10, weight_decay: float = 0.0) -> None:
        self.lr = real("Adagrad", "lr", lr, 0)
        self.eps = real("Adagrad", "eps", eps, 0)
        self.weight_decay = real("Adagrad", "weight_decay", weight_decay, 0)
        super().__init__(model)

    def _update(self, params: Array, grads: Array, *kept: Array) -> None:
        kernels.rmsprop.step(
            params,
            grads,
            kept[0],
            None,
            lr=self.lr,
            keep=1.0,
            add=1.0,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=0.0,
        )


def _model(call: str, model: Layer) -> Layer:
    if not isinstance(model, Layer):
        raise TypeError(f"{call}: model is {type(model).__name__}, expected a layer or a model")
    return model
