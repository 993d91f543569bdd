"""The layers around the recurrent ones as ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.checks import Array
from ...layers.activations import ELU, GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from ...layers.attention import MultiheadAttention, PositionalEncoding
from ...layers.conv import Conv1d
from ...layers.dropout import Dropout
from ...layers.embedding import Embedding
from ...layers.linear import Linear
from ...layers.norm import BatchNorm1d, LayerNorm, LogSoftmax
from ...layers.pooling import LastStep, MaxOverTime, MaxPool1d, MeanOverTime
from .writing import Value, Writer, numbers, steps_first, valid, zero

DOUBLE = 11  # float64 in a TensorProto


def behind(writer: Writer, layer: Any, lengths: str) -> str:
    """The lengths of what comes out of a layer."""
    if isinstance(layer, Conv1d):
        reach, stride, around = layer._reach, layer.stride, layer._before + layer._after
    elif isinstance(layer, MaxPool1d):
        reach, stride, around = layer.kernel_size - 1, layer.stride, 0
    else:
        return lengths
    upward = isinstance(layer, MaxPool1d) and layer.ceil_mode
    around += stride - 1 if upward else 0
    free = writer.add("Add", lengths, writer.integers(around - reach - 1))  # beside a first window
    count = writer.add("Add", writer.add("Div", free, writer.integers(stride)), writer.integers(1))
    if upward:  # a last window begins before the end
        begun = writer.add("Div", writer.add("Sub", lengths, writer.integers(1)), writer.integers(stride))
        count = writer.add("Min", count, writer.add("Add", begun, writer.integers(1)))
    some = writer.add("And", writer.add("Greater", lengths, writer.integers(0)),
                      writer.add("GreaterOrEqual", free, writer.integers(0)))  # fmt: skip
    return str(writer.add("Where", some, count, writer.integers(0)))


def _linear(writer: Writer, layer: Linear, x: Value, name: str, lengths: str) -> Value:
    weight, bias = layer._arrays("_params")
    return _affine(writer, x, weight, bias, name)


def _affine(writer: Writer, x: Value, weight: Array, bias: Array | None, name: str) -> Value:
    """x W^T + b over the last axis."""
    y = writer.add("MatMul", x.name, writer.constant(weight.T, name=f"{name}weight"))
    y = y if bias is None else writer.add("Add", y, writer.constant(bias, name=f"{name}bias"))
    return Value(y, (*x.shape[:-1], len(weight)))


def _embedding(writer: Writer, layer: Embedding, x: Value, name: str, lengths: str) -> Value:
    table = writer.constant(layer._params["weight"], name=f"{name}weight")
    return Value(writer.add("Gather", table, x.name, axis=0), (*x.shape, layer.embedding_dim))


def _layer_norm(writer: Writer, layer: LayerNorm, x: Value, name: str, lengths: str) -> Value:
    parts = [writer.constant(array, name=name + kind) for kind, array in layer._params.items()]
    return Value(writer.add("LayerNormalization", x.name, *parts, axis=-1, epsilon=layer.eps), x.shape)


def _same(writer: Writer, layer: Dropout, x: Value, name: str, lengths: str) -> Value:
    return x


def _positions(writer: Writer, layer: PositionalEncoding, x: Value, name: str, lengths: str) -> Value:
    x = steps_first(writer, x, layer.batch_first)
    k = np.arange(layer.embed_dim)
    rates = writer.constant(np.exp((k - k % 2) * (-np.log(10000.0) / layer.embed_dim)))
    steps = writer.add("Cast", numbers(writer, x.name, 0), to=DOUBLE)
    angles = writer.add("Mul", writer.add("Unsqueeze", steps, writer.integers(1, 2)), rates)
    even = writer.constant(k % 2 == 0)
    both = writer.add("Where", even, writer.add("Sin", angles), writer.add("Cos", angles))
    y = writer.add("Add", x.name, writer.add("CastLike", both, x.name))
    return steps_first(writer, Value(y, x.shape), layer.batch_first)


def _last_step(writer: Writer, layer: LastStep, x: Value, name: str, lengths: str) -> Value:
    if layer.bidirectional and isinstance(x.shape[-1], int) and x.shape[-1] % 2:
        raise ValueError(f"to_onnx: LastStep is given {x.shape[-1]} features, expected an even number of them")
    x = steps_first(writer, x, layer.batch_first)
    last = writer.add("Max", writer.add("Sub", lengths, writer.integers(1)), writer.integers(0))
    place = writer.add("Unsqueeze", last, writer.integers(0, 2))
    forth, back = writer.add("Split", x.name, outputs=2, axis=2) if layer.bidirectional else (x.name, "")
    shape = writer.add("Concat", writer.integers(1), writer.length(forth, 1), writer.length(forth, 2), axis=0)
    y = writer.add("GatherElements", forth, writer.add("Expand", place, shape), axis=0)
    if layer.bidirectional:
        y = writer.add("Concat", y, writer.add("Gather", back, writer.integers(0), axis=0), axis=2)
    return _of_rows(writer, layer, lengths, writer.add("Squeeze", y, writer.integers(0)), x.shape[1:])


def _max_over_time(writer: Writer, layer: MaxOverTime, x: Value, name: str, lengths: str) -> Value:
    x = steps_first(writer, x, layer.batch_first)
    low = writer.constant(-np.inf, layer.dtype)
    held = writer.add("Where", valid(writer, x, lengths), x.name, low)
    return _of_rows(writer, layer, lengths, writer.add("ReduceMax", held, axes=[0], keepdims=0), x.shape[1:])


def _mean_over_time(writer: Writer, layer: MeanOverTime, x: Value, name: str, lengths: str) -> Value:
    x = steps_first(writer, x, layer.batch_first)
    held = writer.add("Where", valid(writer, x, lengths), x.name, zero(writer, layer.dtype))
    total = writer.add("ReduceSum", held, writer.integers(0), keepdims=0)
    count = writer.add("Unsqueeze", writer.add("Max", lengths, writer.integers(1)), writer.integers(1))
    return Value(writer.add("Div", total, writer.add("CastLike", count, x.name)), x.shape[1:])


def _of_rows(writer: Writer, layer: Any, lengths: str, y: str, shape: Any) -> Value:
    """(N, F), 0 where a row has no steps."""
    some = writer.add("Greater", writer.add("Unsqueeze", lengths, writer.integers(1)), writer.integers(0))
    return Value(writer.add("Where", some, y, zero(writer, layer.dtype)), shape)


def _held(writer: Writer, layer: Any, x: Value, lengths: str, fill: float = 0) -> Value:
    """x in the layer's layout, `fill` behind its rows' ends."""
    first = steps_first(writer, x, layer.batch_first)
    held = writer.add("Where", valid(writer, first, lengths), first.name, writer.constant(fill, layer.dtype))
    return steps_first(writer, Value(held, first.shape), layer.batch_first)


def _over_windows(
    writer: Writer, layer: Any, x: Value, lengths: str, channels: Any, op: str, *more: str, **how: Any
) -> Value:
    """An operator of ONNX that takes (N, C, T), of x as it is, and 0 behind the ends of its results' rows."""
    there, back = ((0, 2, 1), (0, 2, 1)) if layer.batch_first else ((1, 2, 0), (2, 0, 1))
    turned = writer.transposed(x, *there)
    steps = turned.shape[2] if how.pop("keeps_steps") else writer.name("U")
    y = Value(writer.add(op, turned.name, *more, **how), (turned.shape[0], channels, steps))
    return _held(writer, layer, writer.transposed(y, *back), behind(writer, layer, lengths))


def _conv1d(writer: Writer, layer: Conv1d, x: Value, name: str, lengths: str) -> Value:
    parts = [writer.constant(array, name=name + kind) for kind, array in layer._params.items()]
    pads = [layer._before, layer._after]
    return _over_windows(
        writer, layer, _held(writer, layer, x, lengths), lengths, layer.out_channels, "Conv", *parts,
        kernel_shape=[layer.kernel_size], strides=[layer.stride], dilations=[layer.dilation], group=layer.groups,
        pads=pads, keeps_steps=layer.stride == 1 and sum(pads) == layer._reach,
    )  # fmt: skip


def _max_pool1d(writer: Writer, layer: MaxPool1d, x: Value, name: str, lengths: str) -> Value:
    x = _held(writer, layer, x, lengths, -np.inf) if layer.ceil_mode else x
    return _over_windows(
        writer, layer, x, lengths, x.shape[-1], "MaxPool", kernel_shape=[layer.kernel_size], strides=[layer.stride],
        ceil_mode=int(layer.ceil_mode), keeps_steps=False,
    )  # fmt: skip


def _batch_norm1d(writer: Writer, layer: BatchNorm1d, x: Value, name: str, lengths: str) -> Value:
    factor = layer.params["weight"] / np.sqrt(layer.running_var + layer.dtype.type(layer.eps))
    centred = writer.add("Sub", x.name, writer.constant(layer.running_mean, name=f"{name}running_mean"))
    y = writer.add("Mul", centred, writer.constant(factor, name=f"{name}factor"))
    y = writer.add("Add", y, writer.constant(layer.params["bias"], name=f"{name}bias"))
    return _held(writer, layer, Value(y, x.shape), lengths)


# ---- activations

Words = Callable[[Writer, Any, str], str]  # of a layer with its input: the name of what comes out


def _function(write: Words) -> Callable[[Writer, Any, Value, str, str], Value]:
    return lambda writer, layer, x, name, lengths: Value(write(writer, layer, x.name), x.shape)


def _scaled(writer: Writer, x: str, factor: float, layer: Any) -> str:
    return str(writer.add("Mul", x, writer.constant(factor, layer.dtype)))


def _gelu(writer: Writer, layer: GELU, x: str) -> str:
    one = writer.constant(1, layer.dtype)
    if layer.approximate == "tanh":
        cube = writer.add("Mul", writer.add("Mul", x, x), x)
        bent = _scaled(
            writer, writer.add("Add", x, _scaled(writer, cube, 0.044715, layer)), math.sqrt(2 / math.pi), layer
        )
        share = writer.add("Add", writer.add("Tanh", bent), one)
    else:
        share = writer.add("Add", writer.add("Erf", _scaled(writer, x, math.sqrt(0.5), layer)), one)
    return str(writer.add("Mul", _scaled(writer, x, 0.5, layer), share))


def _prelu(writer: Writer, layer: PReLU, x: str) -> str:
    return str(writer.add("PRelu", x, writer.constant(layer.params["weight"])))


ACTIVATIONS: dict[type, Words] = {
    ReLU: lambda writer, layer, x: writer.add("Relu", x),
    LeakyReLU: lambda writer, layer, x: writer.add("LeakyRelu", x, alpha=layer.slope),
    PReLU: _prelu,
    ELU: lambda writer, layer, x: writer.add("Elu", x, alpha=layer.alpha),
    GELU: _gelu,
    SiLU: lambda writer, layer, x: writer.add("Mul", x, writer.add("Sigmoid", x)),
    Tanh: lambda writer, layer, x: writer.add("Tanh", x),
    Sigmoid: lambda writer, layer, x: writer.add("Sigmoid", x),
    Softmax: lambda writer, layer, x: writer.add("Softmax", x, axis=-1),
    LogSoftmax: lambda writer, layer, x: writer.add("LogSoftmax", x, axis=-1),
}


def _attention(writer: Writer, layer: MultiheadAttention, x: Value, name: str, lengths: str) -> Value:
    if not layer._packed:
        raise ValueError("to_onnx: MultiheadAttention has kdim or vdim: its keys and values are not its x")
    params, cuts = layer._params, layer._cuts
    x = x if layer.batch_first else writer.transposed(x, 1, 0, 2)
    heads, kinds = [], (layer.num_heads, layer.num_kv_heads, layer.num_kv_heads)
    for k, (kind, count) in enumerate(zip("qkv", kinds, strict=True)):
        part = slice(cuts[k], cuts[k + 1])
        bias = params["in_proj_bias"][part] if layer.bias else None
        flat = _affine(writer, x, params["in_proj_weight"][part], bias, f"{name}{kind}_")
        apart = writer.add("Reshape", flat.name, writer.integers(0, 0, count, layer.head_dim))
        heads.append(writer.add("Transpose", apart, perm=(0, 2, 3, 1) if kind == "k" else (0, 2, 1, 3)))
    query, key, value = heads
    if layer.num_kv_heads < layer.num_heads:
        chosen = writer.constant(np.arange(layer.num_heads) // (layer.num_heads // layer.num_kv_heads), np.int64)
        key, value = (writer.add("Gather", part, chosen, axis=1) for part in (key, value))
    counts = writer.add("Unsqueeze", lengths, writer.integers(1, 2, 3))
    steps = numbers(writer, x.name, 1)
    places = (0, 1, 2), (0, 1, 3)
    of_keys, of_values = (
        writer.add("Less", writer.add("Unsqueeze", steps, writer.integers(*axes)), counts) for axes in places
    )
    nothing = zero(writer, layer.dtype)
    query = writer.add("Mul", query, writer.constant(layer.head_dim**-0.5, layer.dtype))
    value = writer.add("Where", of_values, value, nothing)  # what nobody sees is not read
    scores = writer.add("Where", of_keys, writer.add("MatMul", query, key), writer.constant(-np.inf, layer.dtype))
    mixed = writer.add("MatMul", writer.add("Softmax", scores, axis=-1), value)
    some = writer.add("Greater", counts, writer.constant(0, np.int64))
    mixed = writer.add("Transpose", writer.add("Where", some, mixed, nothing), perm=(0, 2, 1, 3))
    y = Value(writer.add("Reshape", mixed, writer.integers(0, 0, layer.num_heads * layer.head_dim)), x.shape)
    y = _affine(writer, y, params["out_proj.weight"], params.get("out_proj.bias"), f"{name}out_proj.")
    return y if layer.batch_first else writer.transposed(y, 1, 0, 2)


WRITERS: dict[type, Callable[[Writer, Any, Value, str, str], Value]] = {
    Linear: _linear,
    Embedding: _embedding,
    LayerNorm: _layer_norm,
    PositionalEncoding: _positions,
    Dropout: _same,
    LastStep: _last_step,
    MaxOverTime: _max_over_time,
    MeanOverTime: _mean_over_time,
    MultiheadAttention: _attention,
    Conv1d: _conv1d,
    MaxPool1d: _max_pool1d,
    BatchNorm1d: _batch_norm1d,
    **{kind: _function(write) for kind, write in ACTIVATIONS.items()},
}
