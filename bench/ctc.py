"""Connectionist temporal classification: mean loss and its gradient in one call."""

from __future__ import annotations

import numpy as np

from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [
    (100, 1, 30, 10),
    (100, 64, 30, 10),
    (500, 16, 50, 50),
    (1000, 1, 100, 100),
    (1000, 64, 100, 100),
]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    steps, rows, classes, ids = shape
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((steps, rows, classes)).astype(settings.dtype)
    targets, counts = rng.integers(1, classes, (rows, ids)), np.full(rows, ids)

    def ours() -> object:
        losses, dlogits = kernels.ctc.forward(logits, targets, counts)
        return losses.mean(), dlogits

    def torch() -> Run:
        import torch

        ready, labels = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(targets)
        lengths, ends = torch.full((rows,), steps), torch.from_numpy(counts)

        def loss() -> object:
            losses = torch.nn.functional.ctc_loss(ready.log_softmax(2), labels, lengths, ends, reduction="none")
            return losses.mean()

        return peers.torch_both(loss, [ready], torch.ones((), dtype=ready.dtype))

    return Case(
        ours=ours,
        peers={"torch": torch()} if "torch" in settings.peers else {},
        flops=0,
        bytes=2 * logits.nbytes,
        footprint=2 * logits.nbytes,
    )


OPS = (Op("ctc", "T,N,V,S", {"both": SHAPES}, case),)
