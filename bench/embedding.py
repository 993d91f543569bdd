"""The embedding's kernel: rows of a table, and adding into them."""

from __future__ import annotations

import numpy as np

from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [(32, 65, 64), (2048, 65, 64), (2048, 50000, 256)]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    rows, vocabulary, features = shape
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((vocabulary, features)).astype(settings.dtype)
    ids = rng.integers(0, vocabulary, rows)
    dy = rng.standard_normal((rows, features)).astype(settings.dtype)
    dweight = np.zeros_like(weight)
    both = direction == "both"

    def ours() -> object:
        dweight.fill(0)
        y = kernels.embedding.forward(ids, weight)
        kernels.embedding.backward(dy, ids, dweight)
        return y, dweight

    def torch() -> Run:
        import torch

        table, index = torch.from_numpy(weight).requires_grad_(both), torch.from_numpy(ids)
        forward = lambda: torch.nn.functional.embedding(index, table)  # noqa: E731
        return peers.torch_both(forward, [table], torch.from_numpy(dy)) if both else peers.torch_forward(forward)

    def onnxruntime() -> Run | None:
        if both:
            return None  # inference only
        run = peers.onnx_run("Gather", {"axis": 0}, {"W": weight, "ids": ids}, ["Y"], ["ids"], settings)
        return lambda: run({"ids": ids})

    def jax() -> Run:
        if both:
            return peers.jax_both(lambda weight: weight[ids], dy, weight)
        return peers.jax_forward(lambda ids, weight: weight[ids], ids, weight)

    rivals = {"torch": torch, "onnxruntime": onnxruntime, "jax": jax}
    made = {name: rivals[name]() for name in settings.peers}
    moved = dy.nbytes * 2 + ids.nbytes
    return Case(
        ours=ours if both else lambda: kernels.embedding.forward(ids, weight),
        peers={name: run for name, run in made.items() if run},
        flops=0,
        bytes=moved + (weight.nbytes + 3 * dy.nbytes if both else 0),
        footprint=min(weight.nbytes, dy.nbytes) + dy.nbytes + (weight.nbytes if both else 0),
    )


OPS = (Op("embedding", "M,V,E", {"forward": SHAPES, "both": SHAPES}, case),)
