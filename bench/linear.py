"""The linear layer's kernel, and a call of the layer on a row or a few, as behind a stream."""

from __future__ import annotations

import numpy as np

import pyrnn
from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [(1, 64, 64), (32, 256, 65), (2048, 64, 256), (2048, 256, 65), (4096, 512, 512)]
FEW: list[Shape] = [(1, 64, 10), (1, 64, 64), (3, 64, 64)]  # a head behind a stream


def case(shape: Shape, direction: str, settings: Settings, of_layer: bool = False) -> Case:
    rows, features, outputs = shape
    rng = np.random.default_rng(0)
    x, weight, bias, dy = (
        rng.standard_normal(size).astype(settings.dtype)
        for size in ((rows, features), (outputs, features), outputs, (rows, outputs))
    )
    dweight, dbias = np.zeros_like(weight), np.zeros_like(bias)
    layer = pyrnn.Linear(features, outputs, dtype=settings.dtype)
    layer.params.update({"weight": weight, "bias": bias})
    forward = (lambda: layer(x)) if of_layer else (lambda: kernels.linear.forward(x, weight, bias))
    both = direction == "both"

    def ours() -> object:
        dweight.fill(0)
        dbias.fill(0)
        return forward(), kernels.linear.backward(dy, x, weight, dweight, dbias), dweight, dbias

    def torch() -> Run:
        import torch

        inputs = [torch.from_numpy(array).requires_grad_(both) for array in (x, weight, bias)]
        forward = lambda: torch.nn.functional.linear(*inputs)  # noqa: E731
        return peers.torch_both(forward, inputs, torch.from_numpy(dy)) if both else peers.torch_forward(forward)

    def onnxruntime() -> Run | None:
        if both:
            return None  # inference only
        run = peers.onnx_run("Gemm", {"transB": 1}, {"X": x, "W": weight, "B": bias}, ["Y"], ["X"], settings)
        return lambda: run({"X": x})

    def jax() -> Run:
        forward = lambda x, weight, bias: x @ weight.T + bias  # noqa: E731
        inputs = (x, weight, bias)
        return peers.jax_both(forward, dy, *inputs) if both else peers.jax_forward(forward, *inputs)

    rivals = {"torch": torch, "onnxruntime": onnxruntime, "jax": jax, "numpy": lambda: lambda: x @ weight.T + bias}
    made = {name: rivals[name]() for name in settings.peers}
    return Case(
        ours=ours if both else forward,
        peers={name: run for name, run in made.items() if run},
        flops=(3 if both else 1) * 2 * rows * features * outputs,
        bytes=(3 if both else 1) * (x.nbytes + weight.nbytes + dy.nbytes),
        footprint=x.nbytes + weight.nbytes + dy.nbytes,
    )


def few_rows(shape: Shape, direction: str, settings: Settings) -> Case:
    """The layer's own call, whose Python counts here."""
    return case(shape, direction, settings, of_layer=True)


OPS = (
    Op("linear", "M,I,O", {"forward": SHAPES, "both": SHAPES}, case),
    Op("linear-few", "M,I,O", {"forward": FEW}, few_rows, own_peers=("numpy",)),
)
