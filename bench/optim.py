"""Passes over all parameters: a step of Adam, of SGD with momentum and of RMSprop, and the norm of the gradient."""

from __future__ import annotations

import numpy as np

from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [(10_000,), (300_000,), (3_000_000,), (30_000_000,)]
ADAM = {"lr": 1e-3, "weight_decay": 0.0, "eps": 1e-8}
SGD = {"lr": 1e-3, "weight_decay": 0.0, "momentum": 0.9, "nesterov": False}


def arrays(shape: Shape, settings: Settings, zeros: int) -> list[np.ndarray]:
    """Parameters and gradients, and so many arrays of zeros."""
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(shape, dtype=settings.dtype) for _ in range(2)]
    return drawn + [np.zeros(shape, settings.dtype) for _ in range(zeros)]


def torch_step(make: str, shape: Shape, settings: Settings, options: dict[str, object]) -> dict[str, Run]:
    """A step of torch.optim's fastest optimiser, fused where there is one, if torch is asked for."""
    if "torch" not in settings.peers:
        return {}
    import torch

    params, grads = map(torch.from_numpy, arrays(shape, settings, 0))
    params.requires_grad_().grad = grads
    fastest = {} if make == "RMSprop" else {"fused": True}
    optimiser = getattr(torch.optim, make)([params], **fastest, **options)

    def run() -> object:
        optimiser.step()
        return params.detach()

    return {"torch": run}


def case(ours: Run, rivals: dict[str, Run], passes: int, shape: Shape, held: int, settings: Settings) -> Case:
    """`passes` arrays are read or written, `held` of them are different ones."""
    size = shape[0] * settings.itemsize
    return Case(ours, rivals, flops=0, bytes=passes * size, footprint=held * size)


def adam(shape: Shape, direction: str, settings: Settings) -> Case:
    params, grads, m, v = arrays(shape, settings, 2)
    step = 0

    def ours() -> object:
        nonlocal step
        step += 1
        kernels.adam.step(params, grads, m, v, beta1=0.9, beta2=0.999, step=step, **ADAM)
        return params

    return case(ours, torch_step("Adam", shape, settings, {**ADAM, "betas": (0.9, 0.999)}), 7, shape, 4, settings)


def sgd(shape: Shape, direction: str, settings: Settings) -> Case:
    params, grads, velocity = arrays(shape, settings, 1)

    def ours() -> object:
        kernels.sgd.step(params, grads, velocity, **SGD)
        return params

    return case(ours, torch_step("SGD", shape, settings, SGD), 5, shape, 3, settings)


def rmsprop(shape: Shape, direction: str, settings: Settings) -> Case:
    params, grads, square = arrays(shape, settings, 1)

    def ours() -> object:
        kernels.rmsprop.step(params, grads, square, None, keep=0.99, add=0.01, momentum=0.0, **ADAM)
        return params

    return case(ours, torch_step("RMSprop", shape, settings, {**ADAM, "alpha": 0.99}), 5, shape, 3, settings)


def norm(shape: Shape, direction: str, settings: Settings) -> Case:
    flat = arrays(shape, settings, 0)[0]

    def torch() -> Run:
        import torch

        ready = torch.from_numpy(flat)
        return peers.torch_forward(lambda: torch.linalg.vector_norm(ready))

    def jax() -> Run:
        import jax.numpy as jnp

        return peers.jax_forward(jnp.linalg.norm, flat)

    rivals = {"torch": torch, "jax": jax}
    made = {name: rivals[name]() for name in settings.peers if name in rivals}
    return case(lambda: kernels.norm.l2(flat), made, 1, shape, 1, settings)


OPS = (
    Op("adam", "K", {"forward": SHAPES}, adam),
    Op("sgd", "K", {"forward": SHAPES}, sgd),
    Op("rmsprop", "K", {"forward": SHAPES}, rmsprop),
    Op("norm", "K", {"forward": SHAPES[:3]}, norm),  # of more numbers torch's norm is wrong in the third digit
)
