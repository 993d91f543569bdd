"""Layers whose products are bfloat16, forward and with the way back, beside float32 and torch's autocast to bfloat16.

All arrays are float32, whatever the command line says. Results are compared to a tenth of the largest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pyrnn

from . import cells, peers
from .harness import Case, Op, Run, Settings, Shape
from .quantized import FLOAT32, NEAR, called
from .recurrent import LETTERS, Cell

SHAPES: dict[str, list[Shape]] = {
    direction: [(100, 64, 256, 256), (100, 128, 512, 512)] for direction in ("forward", "both")
}


def case(cell: Cell, shape: Shape, direction: str, settings: Settings) -> Case:
    steps, batch, inputs, hidden = shape
    rng = np.random.default_rng(0)
    make = getattr(pyrnn, cell.name)
    layer, plain = (make(inputs, hidden, precision=precision, rng=0) for precision in ("bfloat16", FLOAT32))
    x = rng.standard_normal((steps, batch, inputs)).astype(np.float32)
    dy = rng.standard_normal((steps, batch, hidden)).astype(np.float32) if direction == "both" else None

    def run(layer: Any) -> Run:
        return called(layer, x) if dy is None else cell.pyrnn(layer, x, dy, None)

    rivals = {FLOAT32: run(plain)}
    if "torch" in settings.peers:
        rivals["torch"] = torch(cell, plain, x, dy)
    weights, passes = len(cell.gates) * hidden * inputs + cell.recurrent(layer), 1 if dy is None else 2
    return Case(
        ours=run(layer),
        peers=rivals,
        flops=(1 if dy is None else 3) * 2 * steps * batch * weights,
        bytes=passes * (2 * (weights + (steps - 1) * cell.recurrent(layer)) + 4 * steps * batch * (inputs + hidden)),
        footprint=2 * weights,
        tolerance=NEAR,
    )


def torch(cell: Cell, layer: Any, x: np.ndarray, dy: np.ndarray | None) -> Run:
    import torch

    module, ready = cell.torch_module(layer), torch.from_numpy(x).requires_grad_(dy is not None)

    def forward() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return module(ready)[0].float()

    if dy is None:
        return peers.torch_forward(forward)
    return peers.torch_both(forward, [ready, *module.parameters()], torch.from_numpy(dy))


def op(cell: Cell) -> Op:
    def of_shape(shape: Shape, direction: str, settings: Settings) -> Case:
        return case(cell, shape, direction, settings)

    return Op(f"{cell.op}-products", LETTERS, SHAPES, of_shape, own_peers=(FLOAT32, "torch"))


OPS = tuple(op(cells.CELL[name]) for name in ("lstm", "gru"))
