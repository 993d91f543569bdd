"""Softmax cross-entropy: mean loss and its gradient in one call."""

from __future__ import annotations

import numpy as np

from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [(32, 65), (2048, 65), (2048, 1000), (256, 50000)]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    rows, classes = shape
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, classes)).astype(settings.dtype)
    targets = rng.integers(0, classes, rows)

    def torch() -> Run:
        import torch

        ready, labels = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(targets)
        one = torch.ones((), dtype=ready.dtype)
        return peers.torch_both(lambda: torch.nn.functional.cross_entropy(ready, labels), [ready], one)

    def jax() -> Run:
        import jax
        import jax.numpy as jnp

        def loss(logits: object) -> object:
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)
            return -jnp.mean(chosen)

        return peers.jax_both(loss, np.ones((), logits.dtype), logits)

    rivals = {"torch": torch, "jax": jax}
    return Case(
        ours=lambda: kernels.cross_entropy.forward(logits, targets, None),
        peers={name: rivals[name]() for name in settings.peers if name in rivals},
        flops=0,
        bytes=2 * logits.nbytes,
        footprint=2 * logits.nbytes,
    )


OPS = (Op("cross_entropy", "M,V", {"both": SHAPES}, case),)
