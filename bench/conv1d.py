"""Convolution over time: the layer, and its stream step by step beside a loop that keeps the last steps itself."""

from __future__ import annotations

import numpy as np

import pyrnn

from . import peers
from .harness import Case, Op, Run, Settings, Shape

# A spectrum, alone and of a batch; a filter; a raw sound; small and large layers, alone and of a batch.
SHAPES: list[Shape] = [
    (16000, 1, 1, 258, 256, 128),
    (16000, 32, 1, 64, 256, 128),
    (16000, 1, 1, 16, 64, 1),
    (4000, 32, 4, 32, 8, 4),
    (1000, 1, 64, 64, 3, 1),
    (1000, 32, 64, 64, 3, 1),
    (500, 1, 512, 512, 3, 1),
    (100, 32, 512, 512, 3, 1),
]
STREAM_SHAPES: list[Shape] = [(1, 1, 16, 64), (1, 16, 16, 3), (1, 64, 64, 3), (1, 256, 256, 3), (16, 64, 64, 3)]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    """Without padding."""
    steps, rows, inputs, outputs, kernel, stride = shape
    rng = np.random.default_rng(0)
    layer = pyrnn.Conv1d(inputs, outputs, kernel, stride, dtype=settings.dtype, rng=0)
    x = rng.standard_normal((steps, rows, inputs)).astype(settings.dtype)
    dy = rng.standard_normal((layer.output_lengths(steps), rows, outputs)).astype(settings.dtype)
    both = direction == "both"

    def ours() -> object:
        layer.zero_grad()
        y, pullback = layer.vjp(x)
        return y, pullback(dy), list(layer.grads.values())

    def torch() -> Run:
        """Which has time last."""
        import torch

        def turned(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array.transpose(1, 2, 0))

        inputs = [torch.from_numpy(a).requires_grad_(both) for a in (turned(x), *layer.state_dict().values())]
        forward = lambda: torch.nn.functional.conv1d(*inputs, stride=stride)  # noqa: E731
        if not both:
            run = peers.torch_forward(forward)
            return lambda: run().permute(2, 0, 1)
        back = peers.torch_both(forward, inputs, torch.from_numpy(turned(dy)))

        def both_ways() -> object:
            y, (dx, *grads) = back()
            return y.permute(2, 0, 1), dx.permute(2, 0, 1), grads

        return both_ways

    def onnxruntime() -> Run | None:
        if both or settings.dtype == "float64":
            return None
        fed = np.ascontiguousarray(x.transpose(1, 2, 0))
        attributes = {"kernel_shape": [kernel], "strides": [stride]}
        given = {"X": fed, "W": layer.params["weight"], "B": layer.params["bias"]}
        run = peers.onnx_run("Conv", attributes, given, ["Y"], ["X"], settings)
        return lambda: run({"X": fed})[0].transpose(2, 0, 1)

    rivals = {"torch": torch, "onnxruntime": onnxruntime}
    made = {name: rivals[name]() for name in settings.peers if name in rivals}
    return Case(
        ours=ours if both else lambda: layer(x),
        peers={name: run for name, run in made.items() if run},
        flops=(3 if both else 1) * 2 * len(dy) * rows * inputs * outputs * kernel,
        bytes=(3 if both else 1) * (x.nbytes + dy.nbytes + layer.params["weight"].nbytes),
        footprint=x.nbytes + dy.nbytes,
    )


def stream(shape: Shape, direction: str, settings: Settings) -> Case:
    """One step at a time, each of which completes one."""
    rows, inputs, outputs, kernel = shape
    layer = pyrnn.Conv1d(inputs, outputs, kernel, padding="causal", dtype=settings.dtype, rng=0)
    x = np.random.default_rng(0).standard_normal((rows, inputs)).astype(settings.dtype)
    step = layer.stream(rows).step

    def torch() -> Run:
        import torch

        weight, bias = (torch.from_numpy(array) for array in layer.state_dict().values())
        ready, past = torch.from_numpy(x)[:, :, None], torch.zeros(rows, inputs, kernel, dtype=weight.dtype)

        def run() -> object:
            nonlocal past
            past = torch.cat((past[:, :, 1:], ready), dim=2)
            return torch.nn.functional.conv1d(past, weight, bias)[:, :, 0]

        return peers.torch_forward(run)

    weights = inputs * outputs * kernel
    return Case(
        ours=lambda: step(x),
        peers={"torch": torch()} if "torch" in settings.peers else {},
        flops=2 * rows * weights,
        bytes=settings.itemsize * (weights + rows * (kernel * inputs + outputs)),
        footprint=settings.itemsize * weights,
    )


OPS = (
    Op("conv1d", "T,N,C,O,K,S", {"forward": SHAPES, "both": SHAPES}, case),
    Op("conv1d-stream", "N,C,O,K", {"forward": STREAM_SHAPES}, stream),
)
