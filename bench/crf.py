"""Conditional random fields: the best sequences (forward), and the mean loss with all its gradients (both).

The peers are the way it is written in torch, a step at a time over (N, V, V), and pytorch-crf where it is installed.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [(50, 32, 9), (50, 32, 40), (50, 1, 40), (20, 256, 20)]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    steps, rows, classes = shape
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((steps, rows, classes)).astype(settings.dtype)
    weights = [rng.uniform(-1, 1, shape).astype(settings.dtype) for shape in ((classes, classes), classes, classes)]
    tags = rng.integers(0, classes, (steps, rows))

    def loss_and_gradients() -> object:
        losses, *gradients = kernels.crf.forward(scores, tags, *weights)
        return losses.mean(), gradients

    def torch() -> Run:
        import torch

        x, *given = (torch.from_numpy(a).requires_grad_() for a in (scores, *weights))
        chosen = torch.from_numpy(tags)
        if direction == "forward":
            return torch.inference_mode()(lambda: torch_decode(x, *given))
        one = torch.ones((), dtype=x.dtype)
        return peers.torch_both(lambda: torch_loss(x, chosen, *given), [x, *given], one)

    def pytorch_crf() -> Run:
        import torch
        from torchcrf import CRF

        crf = CRF(classes).to(getattr(torch, settings.dtype))
        for name, weight in zip(("transitions", "start_transitions", "end_transitions"), weights, strict=True):
            getattr(crf, name).data.copy_(torch.from_numpy(weight))
        x, chosen = torch.from_numpy(scores).requires_grad_(direction == "both"), torch.from_numpy(tags)
        if direction == "forward":
            return torch.inference_mode()(lambda: torch.tensor(crf.decode(x)).T)
        given = [x, crf.transitions, crf.start_transitions, crf.end_transitions]
        one = torch.ones((), dtype=x.dtype)
        return peers.torch_both(lambda: -crf(x, chosen, reduction="mean"), given, one)

    rivals = {"torch": torch()} if "torch" in settings.peers else {}
    if "torch" in settings.peers and importlib.util.find_spec("torchcrf"):
        rivals["pytorch-crf"] = pytorch_crf()
    return Case(
        ours=loss_and_gradients if direction == "both" else lambda: kernels.crf.decode(scores, *weights)[0],
        peers=rivals,
        flops=2.0 * (3 if direction == "both" else 1) * steps * rows * classes**2,
        bytes=2 * scores.nbytes,
        footprint=2 * scores.nbytes,
    )


def torch_loss(scores: Any, tags: Any, transitions: Any, start: Any, end: Any) -> Any:
    sums = start + scores[0]
    own = start[tags[0]] + scores[0].gather(1, tags[0][:, None])[:, 0]
    for t in range(1, len(scores)):
        sums = (sums[:, :, None] + transitions + scores[t][:, None]).logsumexp(1)
        own = own + transitions[tags[t - 1], tags[t]] + scores[t].gather(1, tags[t][:, None])[:, 0]
    return ((sums + end).logsumexp(1) - own - end[tags[-1]]).mean()


def torch_decode(scores: Any, transitions: Any, start: Any, end: Any) -> Any:
    import torch

    largest, origins = start + scores[0], []
    for t in range(1, len(scores)):
        largest, origin = (largest[:, :, None] + transitions + scores[t][:, None]).max(1)
        origins.append(origin)
    tags = [(largest + end).argmax(1)]
    for origin in reversed(origins):
        tags.append(origin.gather(1, tags[-1][:, None])[:, 0])
    return torch.stack(tags[::-1])


OPS = (Op("crf", "T,N,V", {"forward": SHAPES, "both": SHAPES}, case, own_peers=("torch", "pytorch-crf")),)
