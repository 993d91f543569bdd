"""Layers in fewer bits beside the same in float32, and beside torch's and onnxruntime's with int8 weights.

Everything is float32 but for the weights, whatever the command line says. The results of those who round in their own
ways are compared to a tenth of the largest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pyrnn
from pyrnn.core.encoded import FORMS, encode

from . import cells, peers
from .harness import Case, Op, Run, Settings, Shape
from .recurrent import Cell

FLOAT32 = "float32"
SHAPES: dict[str, list[Shape]] = {
    "forward": [(60, 1, 640, 640), (60, 1, 1024, 1024), (100, 64, 256, 256), (100, 128, 512, 512)]
}
STREAM_SHAPES: dict[str, list[Shape]] = {"forward": [(1, 64, 64), (1, 256, 256), (1, 640, 640), (1, 1024, 1024)]}
NEAR = 0.1
BYTES = {"bfloat16": 2, "int8": 1}


def case(cell: Cell, form: str, shape: Shape, settings: Settings) -> Case:
    """A call over T steps, or one step of a stream where there is no T."""
    *steps, batch, inputs, hidden = shape
    rng = np.random.default_rng(0)
    layer = getattr(pyrnn, cell.name)(inputs, hidden, rng=rng)
    frozen = layer.quantize(form)
    x = rng.standard_normal((*steps, batch, inputs)).astype(np.float32)
    weights = len(cell.gates) * hidden * inputs + cell.recurrent(layer)
    run = called if steps else stepped
    rivals = {FLOAT32: run(layer, x)}
    if form == "int8":
        if "torch" in settings.peers:
            rivals["torch"] = torch(cell, layer, x)
        if "onnxruntime" in settings.peers and cell.op == "lstm":  # it has no other
            rivals["onnxruntime"] = onnxruntime(cell, layer, x, settings)
    count = steps[0] if steps else 1
    return Case(
        ours=run(frozen, x),
        peers=rivals,
        flops=2 * count * batch * weights,
        bytes=BYTES[form] * (weights + (count - 1) * cell.recurrent(layer)) + 4 * count * batch * (inputs + hidden),
        footprint=BYTES[form] * weights,
        tolerance=NEAR,
    )


def called(layer: Any, x: np.ndarray) -> Run:
    return lambda: layer(x)[0]


def stepped(layer: Any, x: np.ndarray) -> Run:
    step = layer.stream(batch=len(x)).step
    return lambda: step(x)


def torch(cell: Cell, layer: Any, x: np.ndarray) -> Run:
    """Weights of int8, vectors brought to 7 or 8 bits at run time."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to move to another package
        module = torch.ao.quantization.quantize_dynamic(
            torch.nn.ModuleList([cell.torch_module(layer)]), dtype=torch.qint8
        )[0]
    ready, state = torch.from_numpy(x if x.ndim == 3 else x[None]), None

    def step() -> object:
        nonlocal state
        y, after = module(ready, state)
        state = after if x.ndim == 2 else None
        return y

    return peers.torch_forward(step)


def onnxruntime(cell: Cell, layer: Any, x: np.ndarray, settings: Settings) -> Run:
    """DynamicQuantizeLSTM, with a scale for each gate of each unit."""
    floats = cell.onnx_weights(layer)
    inputs: dict[str, np.ndarray | None] = {"X": x if x.ndim == 3 else x[None]}
    behind: dict[str, np.ndarray | None] = {}
    for name in "WR":
        numbers, scale = encode(floats[name][0], "int8")
        inputs[name] = np.ascontiguousarray(numbers.T)[None]
        behind |= {f"{name}_scale": scale[None], f"{name}_zero_point": np.zeros_like(scale, np.int8)[None]}
    zero = np.zeros((1, x.shape[-2], layer.hidden_size), np.float32)
    feeds = {"X": inputs["X"], "initial_h": zero, "initial_c": zero}
    inputs |= {"B": floats["B"], "sequence_lens": None, "initial_h": zero, "initial_c": zero, "P": None, **behind}
    attributes = {**cell.attributes(layer), "domain": "com.microsoft"}
    run = peers.onnx_run("DynamicQuantizeLSTM", attributes, inputs, ["Y", "Y_h", "Y_c"], list(feeds), settings)

    def step() -> object:
        y, h, c = run(feeds)
        if x.ndim == 2:
            feeds.update(initial_h=h, initial_c=c)
        return y

    return step


def ops(cell: Cell, form: str) -> tuple[Op, Op]:
    def of_shape(shape: Shape, direction: str, settings: Settings) -> Case:
        return case(cell, form, shape, settings)

    names = (FLOAT32, "torch", "onnxruntime") if form == "int8" else (FLOAT32,)
    return (
        Op(f"{cell.op}-{form}", "T,N,I,H", SHAPES, of_shape, own_peers=names),
        Op(f"{cell.op}-stream-{form}", "N,I,H", STREAM_SHAPES, of_shape, own_peers=names),
    )


OPS = tuple(op for cell in (cells.CELL["lstm"], cells.CELL["gru"]) for form in FORMS for op in ops(cell, form))
