"""Layers and models as ONNX files: `to_onnx`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...core import config as config_of
from ...core import files
from ...core.checks import shown
from ...core.layer import Layer, refuse_fewer_bits
from ...layers.attention import MultiheadAttention
from ...layers.conv import Conv1d
from ...layers.embedding import Embedding
from ...layers.graph import Graph, Merge
from ...layers.learned_state import LearnedState
from ...layers.norm import BatchNorm1d
from ...layers.pooling import LastStep, MaxOverTime, MaxPool1d, MeanOverTime
from ...layers.sequential import Sequential
from ...layers.stack import Recurrent
from . import export_cells
from .export_layers import WRITERS, behind
from .reading import package
from .writing import IR_VERSION, OPSET, Axes, Value, Writer

MOST_BYTES = 2**31 - 1  # of a protobuf


def to_onnx(model: Any, path: str | os.PathLike[str] | None = None) -> Any:
    """A layer, a Sequential or a Graph as an ONNX model, with its values; written to `path` too where that is given,
    atomically.

    Inputs are `x` in the layer's layout, `lengths` (N,) int64 where a layer in it takes lengths, and of a recurrent
    layer its initial states, `h`, `c` and so on (L*D, N, H); outputs are `y` and the final states, `h_out`, `c_out`. T
    and N are free. RNN, LSTM and GRU become the operators of these names, other cells, and the LSTM with a projection,
    a Scan of their equations; dropout is left out. The arithmetic is the layer's dtype; onnxruntime has no RNN, LSTM
    and GRU of float64.

    ValueError for what ONNX cannot say, with the name of the layer, and for what is quantized or of another precision
    than float32; TypeError for what is no layer; ImportError without the onnx package; OSError where the file cannot be
    written.

        pyrnn.to_onnx(pyrnn.LSTM(8, 16, rng=0), "lstm.onnx")
    """
    onnx = package("to_onnx")
    if not isinstance(model, Layer):
        raise TypeError(f"to_onnx: model is {shown(model)}, expected a layer or a model of layers")
    refuse_fewer_bits("to_onnx", model)
    writer = Writer()
    layers = list(_leaves(model, ""))
    lead = ("N", "T") if next((x.batch_first for x in layers if hasattr(x, "batch_first")), False) else ("T", "N")
    shape: Axes = lead
    kind = np.dtype(np.int64)
    if not isinstance(layers[0], Embedding):
        shape = (*lead, next((getattr(layers[0], name) for name in WIDTHS if hasattr(layers[0], name)), "F"))
        kind = layers[0].dtype
    inputs, outputs = [writer.value("x", shape, kind)], []
    if any(isinstance(layer, TAKE_LENGTHS) for layer in layers):
        inputs.append(writer.value("lengths", ("N",), np.int64))
    x = Value("x", shape)
    if isinstance(model, Recurrent):
        widths = list(zip(model._cell.states, model._widths, strict=True))
        for name, n in widths:
            inputs.append(writer.value(name, (model._count, "N", n), model.dtype))
        states = [name for name, _ in widths]
        y, finals = export_cells.write(writer, model, x, "lengths", states, "")
        for (name, n), final in zip(widths, finals, strict=True):
            axes = model._count, "N", n
            writer.named(Value(final, axes), f"{name}_out")
            outputs.append(writer.value(f"{name}_out", axes, model.dtype))
    else:
        y, _ = _write(writer, model, [x], "", "lengths")
    writer.named(y, "y")
    outputs.insert(0, writer.value("y", y.shape, layers[-1].dtype))
    proto = onnx.helper.make_model(
        writer.graph(type(model).__name__, inputs, outputs), producer_name="pyrnn", ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )  # fmt: skip
    if path is not None:
        if proto.ByteSize() > MOST_BYTES:
            raise ValueError("to_onnx: the model has more than 2 GB, which no ONNX file of one piece holds")
        files.replace(path, proto.SerializeToString())
    return proto


# What layers call the features of x.
WIDTHS = ("input_size", "in_features", "in_channels", "num_features", "size", "embed_dim")
TAKE_LENGTHS = (Recurrent, MultiheadAttention, LastStep, MaxOverTime, MeanOverTime, Conv1d, MaxPool1d, BatchNorm1d)


def _leaves(model: Layer, name: str) -> Iterator[Any]:
    """The layers that a model is made of. ValueError for one that has no form in ONNX."""
    if type(model) in (Sequential, Graph):
        for child, layer in config_of.children(model).items():
            yield from _leaves(layer, f"{name}{child}.")
    elif type(model) is LearnedState:
        yield model.layer
    elif isinstance(model, (Recurrent, Merge)) or type(model) in WRITERS:
        yield model
    else:
        of, known = f" ({name[:-1]})" if name else "", ", ".join(kind.__name__ for kind in WRITERS)
        raise ValueError(f"to_onnx: {type(model).__name__}{of} has no form in ONNX here; there is one for recurrent "
                         f"layers, LearnedState, Sequential, Graph, Merge, {known}")  # fmt: skip


def _write(writer: Writer, model: Any, given: list[Value], name: str, lengths: str) -> tuple[Value, str]:
    """What comes out of a layer or model, and its lengths. name: the beginning of its parameters' names."""
    x = given[0]
    if type(model) is Graph:
        results = {"x": (x, lengths)}
        for child, sources in model.inputs.items():
            own = [results[source][0] for source in sources]
            results[child] = _write(writer, getattr(model, child), own, f"{name}{child}.", results[sources[0]][1])
        return results[child]
    if type(model) is Sequential:
        for child, layer in config_of.children(model).items():
            x, lengths = _write(writer, layer, [x], f"{name}{child}.", lengths)
        return x, lengths
    if isinstance(model, Merge):
        return _merged(writer, model, given), lengths
    if type(model) is LearnedState:
        layer, states = model.layer, _first_states(writer, model, x, name)
        return export_cells.write(writer, layer, x, lengths, states, f"{name}layer.")[0], lengths
    if isinstance(model, Recurrent):
        return export_cells.write(writer, model, x, lengths, None, name)[0], lengths
    return WRITERS[type(model)](writer, model, x, name, lengths), behind(writer, model, lengths)


def _merged(writer: Writer, layer: Merge, given: list[Value]) -> Value:
    names, (*lead, width) = [value.name for value in given], given[0].shape
    if layer.how == "concatenate":
        widths = [value.shape[-1] for value in given]
        width = sum(n for n in widths if isinstance(n, int)) if all(isinstance(n, int) for n in widths) else "F"
        return Value(writer.add("Concat", *names, axis=-1), (*lead, width))
    op = {"add": "Sum", "average": "Mean", "maximum": "Max", "subtract": "Sub", "multiply": "Mul"}[layer.how]
    if op != "Mul":
        return Value(writer.add(op, *names), given[0].shape)
    product, *others = names
    for other in others:
        product = writer.add("Mul", product, other)
    return Value(product, given[0].shape)


def _first_states(writer: Writer, model: LearnedState, x: Value, name: str) -> list[str]:
    """The learned states for as many rows as x has."""
    rows = writer.length(x.name, 0 if model.layer.batch_first else 1)
    shape = writer.add("Concat", writer.integers(1), rows, writer.integers(1), axis=0)
    parts = zip(model.start._shapes, model.start.parts(), strict=True)
    return [writer.add("Expand", writer.constant(p[:, None], name=f"{name}start.{state}"), shape) for state, p in parts]
