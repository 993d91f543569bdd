"""Layer normalisation of rows, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyrnn import kernels

from . import peers
from .harness import Case, Op, Run, Settings, Shape

SHAPES: list[Shape] = [(1, 256), (64, 256), (4096, 256), (512, 1000)]


def case(shape: Shape, direction: str, settings: Settings) -> Case:
    rows, features = shape
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, rows, features)).astype(settings.dtype)
    weight, bias = rng.standard_normal((2, features)).astype(settings.dtype)
    both = direction == "both"

    def ours() -> object:
        y, *kept = kernels.layer_norm.record(x, weight, bias, 1e-5)
        return y, kernels.layer_norm.backward(dy, *kept, weight)

    def torch() -> Run:
        import torch

        inputs = [torch.from_numpy(array).requires_grad_(both) for array in (x, weight, bias)]

        def forward() -> Any:
            return torch.nn.functional.layer_norm(inputs[0], (features,), *inputs[1:])

        return peers.torch_both(forward, inputs, torch.from_numpy(dy)) if both else peers.torch_forward(forward)

    return Case(
        ours=ours if both else lambda: kernels.layer_norm.forward(x, weight, bias, 1e-5),
        peers={"torch": torch()} if "torch" in settings.peers else {},
        flops=0,
        bytes=(4 if both else 2) * x.nbytes,
        footprint=2 * x.nbytes,
    )


OPS = (Op("layer_norm", "M,E", {"forward": SHAPES, "both": SHAPES}, case),)
