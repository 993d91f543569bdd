"""Connectionist temporal classification: mean loss and its gradient in one call.

The losses are compared. In float32 torch's gradient is a difference of logarithms as large as the loss, and off by some
thousandths of its largest value; tests compare gradients in float64.
"""

from __future__ import annotations

import numpy as np

from pyrnn import kernels

from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [
    (100, 1, 30, 10),
    (100, 64, 30, 10),
    (500, 16, 50, 50),
    (1000, 16, 30, 10),
    (1000, 1, 100, 100),
    (1000, 64, 100, 100),
]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    steps, rows, classes, ids = shape
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((steps, rows, classes)).astype(settings.dtype)
    targets, counts = rng.integers(1, classes, (rows, ids)), np.full(rows, ids)

    def ours() -> object:
        losses, _ = kernels.ctc.forward(logits, targets, counts)
        return losses.mean()

    def torch() -> Run:
        import torch

        ready, labels = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(targets)
        lengths, ends = torch.full((rows,), steps), torch.from_numpy(counts)

        def run() -> object:
            losses = torch.nn.functional.ctc_loss(ready.log_softmax(2), labels, lengths, ends, reduction="none")
            loss = losses.mean()
            torch.autograd.grad(loss, [ready])
            return loss.detach()

        return run

    return Case(
        ours=ours,
        peers={"torch": torch()} if "torch" in settings.peers else {},
        flops=0,
        bytes=2 * logits.nbytes,
        footprint=2 * logits.nbytes,
    )


OPS = (Op("ctc", "T,N,V,S", {"both": SHAPES}, case),)
