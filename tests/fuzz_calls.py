"""Random calls, for as long as one likes: wrong ones return or raise a clear error, right ones give the right values.

    python tests/fuzz_calls.py [--seconds 60] [--seed 0] [--first 0] [--calls N] [--only NAME]

A wrong call, of the layers and past them of the kernels, is a valid one with one to three arguments replaced by
something else (CALLS below). A right one is compared with the plain model (CHECKS of value_checks.py). The call that is
being made is written to standard error before it is made, so the last line tells which one crashed. What fails is
told with the way to make that call alone, and the rest goes on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import collections
import functools
import math
import os
import sys
import time
import traceback
import warnings

import numpy as np
from cells import draw_options, misaligned, read_only
from value_checks import CHECKS

import pyrnn
from pyrnn import kernels
from pyrnn.cells import CELLS

CLEAR = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, MemoryError)

T, N, I, H, V = 4, 3, 5, 6, 7  # noqa: E741  the letters of the docstrings


class Hostile:
    """Its array is not what it says."""

    shape = (T, N, I)
    dtype = np.dtype("f4")
    ndim = 3

    def __array__(self, *_, **__):
        raise ValueError("no array")

    def __len__(self):
        return 2**62

    def __index__(self):
        raise ValueError("no index")


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def junk(rng):
    """Something that is seldom right."""
    choices = [
        lambda: None,
        lambda: True,
        lambda: int(rng.integers(-3, 9)),
        lambda: int(rng.choice([2**62, 2**63 - 1, -(2**63)])),  # no memory can hold as much, so it must be refused
        lambda: 2**80,
        lambda: float(rng.choice([0.0, -1.5, 1e308, math.nan, math.inf])),
        lambda: 1j,
        lambda: "text",
        lambda: b"bytes",
        lambda: [],
        lambda: (),
        lambda: {},
        lambda: [[1], [1, 2]],
        lambda: [None] * int(rng.integers(1, 7)),
        lambda: object(),
        lambda: Hostile(),
        lambda: np.dtype("f4"),
        lambda: lambda *a, **k: None,
        lambda: some_array(rng),
        lambda: some_array(rng),
        lambda: tuple(some_array(rng) for _ in range(rng.integers(1, 7))),
        lambda: [some_array(rng) for _ in range(rng.integers(1, 3))],
    ]
    return choices[rng.integers(len(choices))]()


def some_array(rng):
    shape = tuple(int(n) for n in rng.integers(0, 7, rng.integers(0, 5)))
    dtype = rng.choice(["f4", "f8", "f2", ">f4", "c8", "i8", "i4", "u8", "?", "O", "U3", "S3", "M8[s]", "g"])
    return damaged(rng, np.zeros(shape, dtype))


def damaged(rng, array):
    """An array of the same or nearly the same shape and dtype, odd in some way."""
    choices = [
        lambda: array,
        lambda: array[..., :-1] if array.ndim else array,
        lambda: array[1:] if array.ndim else array,
        lambda: array[None],
        lambda: array[0] if array.ndim and len(array) else array,
        lambda: array[:0] if array.ndim else array,
        lambda: array.T,
        lambda: np.asfortranarray(array),
        lambda: array[::-1] if array.ndim else array,
        lambda: np.broadcast_to(array[:1], array.shape) if array.ndim else array,
        lambda: array.astype("f8" if array.dtype == np.float32 else "f4") if array.dtype.kind in "fiub" else array,
        lambda: array.astype(array.dtype.newbyteorder()),
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array,
        lambda: array if array.dtype.hasobject else misaligned(array),
        lambda: read_only(array),
        lambda: np.ma.masked_array(array),
        lambda: array.tolist(),
        lambda: array + 100 if array.dtype.kind in "iu" else array,
        lambda: -1 - array if array.dtype.kind == "i" else array,
        lambda: array * math.nan if array.dtype.kind == "f" else array,
        lambda: memoryview(array) if array.dtype.isnative and array.dtype.kind in "fiu" else array,
        lambda: np.lib.stride_tricks.as_strided(array, array.shape, (0,) * array.ndim, writeable=False),
    ]
    return choices[rng.integers(len(choices))]()


def spoil(rng, value):
    """Another argument in place of this one: damaged, or junk."""
    if isinstance(value, np.ndarray) and rng.random() < 0.6:
        return damaged(rng, value)
    if isinstance(value, tuple) and value and rng.random() < 0.7:
        k = rng.integers(len(value))
        return (*value[:k], spoil(rng, value[k]), *value[k + 1 :])
    if isinstance(value, list) and value and rng.random() < 0.7:
        return [spoil(rng, value[0]), *value[1:]]
    return junk(rng)


def attempt(rng, function, arguments, keep=0.0):
    """Call with some arguments spoiled; `function` takes them all by name. The result, or None for an error."""
    arguments = dict(arguments)
    if arguments and rng.random() >= keep:
        for name in rng.choice(list(arguments), rng.integers(1, 4)):
            arguments[str(name)] = spoil(rng, arguments[str(name)])
        if rng.random() < 0.05:
            del arguments[next(iter(arguments))]
        if rng.random() < 0.05:
            arguments["nonsense"] = 1
    try:
        return function(**arguments)
    except CLEAR as error:
        if isinstance(error, SystemError) or not str(error):
            raise
        return None


def positional(function, *names):
    """The function with its first arguments by name, whatever it calls them (a missing one is left out)."""

    def call(**arguments):
        return function(*(arguments.pop(name) for name in names if name in arguments), **arguments)

    return call


# Valid calls to start from ----------------------------------------------------------------------------------------


def a_cell(rng):
    name = str(rng.choice(list(CELLS)))
    record = CELLS[name]
    dtype = rng.choice(["f4", "f8"])
    given = {argument: rng.random() < (0.7 if argument == "bias" else 0.4) for argument in record.optional.values()}
    present = record.present(given.get)
    width = 2 if given.get("proj_size") else H
    shapes = record.shapes(I, H, width)
    weights = tuple(normal(rng, dtype, *shapes[w]) if w in present else None for w in record.weights)
    state = tuple(normal(rng, dtype, N, size) for size in record.widths(H, width))
    options = draw_options(rng, record)
    return getattr(kernels, name), dtype, width, weights, state, options


def call_cell(rng):
    op, dtype, width, weights, state, options = a_cell(rng)
    looked_up = rng.random() < 0.4
    arguments = {
        "x": normal(rng, dtype, V, I) if looked_up else normal(rng, dtype, T, N, I),
        "state": state if rng.random() < 0.7 else None,
        "weights": weights,
        "lengths": rng.integers(0, T + 1, N) if rng.random() < 0.5 else None,
        "reset": rng.random((T, N)) < 0.3 if rng.random() < 0.5 else None,
        "ids": rng.integers(-1 if rng.random() < 0.1 else 0, V, (T, N)) if looked_up else None,
        "reverse": bool(rng.random() < 0.5),
        "out": np.empty((T, N, width), dtype) if rng.random() < 0.5 else None,
        **options,
    }
    if rng.random() < 0.4:
        attempt(rng, positional(op.forward, "x", "state", "weights"), arguments)
        return
    arguments["checkpoint_every"] = 2 if rng.random() < 0.5 else None
    result = attempt(rng, positional(op.vjp, "x", "state", "weights"), arguments, keep=0.6)
    if result is None:
        return
    (y, final), pullback = result
    back = {
        "dy": np.array(y),
        "dstate": tuple(np.array(s) for s in final),
        "grads": tuple(None if w is None else np.zeros_like(w) for w in weights),
    }
    for _ in range(3):
        attempt(rng, positional(pullback, "dy", "dstate", "grads"), back, keep=0.2)


def call_cell_stream(rng):
    op, dtype, _, weights, state, options = a_cell(rng)
    arguments = {"layers": [weights], "batch": N, **options}
    stream = attempt(rng, positional(op.stream, "layers", "batch"), arguments, keep=0.7)
    if stream is None:
        return
    calls = [
        (stream.step, {"x": normal(rng, dtype, N, I)}),
        (stream.run, {"x": normal(rng, dtype, T, N, I)}),
        (stream.set_state, {"state": tuple(s[None] for s in state)}),
        (stream.reset, {"rows": np.array([0, 2])}),
        (stream.get_state, {}),
        (stream.step_from, {"x": normal(rng, dtype, N, I), "state": tuple(s[None] for s in state)}),
        (stream.forward, {"x": normal(rng, dtype, T, N, I), "state": state}),
    ]
    for _ in range(4):
        function, arguments = calls[rng.integers(len(calls))]
        attempt(rng, positional(function, *arguments), arguments, keep=0.3)


def call_flat_op(rng):
    dtype = rng.choice(["f4", "f8"])
    x, weight = normal(rng, dtype, N, I), normal(rng, dtype, V, I)
    ids, flat = rng.integers(0, V, N), [normal(rng, dtype, 20) ** 2 for _ in range(4)]
    z, tags = normal(rng, dtype, T, N, V), rng.integers(0, V, (T, N))
    weights = {"a": normal(rng, dtype, V, V), "start": normal(rng, dtype, V), "end": normal(rng, dtype, V)}
    adam = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "step": 1}
    sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": True}
    rms = {"lr": 0.1, "keep": 0.9, "add": 0.1, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.9}
    calls = [
        (kernels.linear.forward, {"x": x, "weight": weight, "bias": normal(rng, dtype, V)}, 3),
        (
            kernels.linear.backward,
            {"dy": normal(rng, dtype, N, V), "x": x, "w": weight, "dw": weight.copy(), "db": normal(rng, dtype, V)},
            5,
        ),
        (kernels.linear.packed, {"weight": weight, "bias": normal(rng, dtype, V), "activation": "tanh"}, 3),
        (kernels.linear.activated, {"x": x, "activation": "softmax"}, 2),
        (kernels.embedding.forward, {"ids": ids, "weight": weight}, 2),
        (kernels.embedding.backward, {"dy": x, "ids": ids, "dweight": weight}, 3),
        (kernels.layer_norm.forward, {"x": x, "weight": x[0].copy(), "bias": None, "eps": 1e-5}, 4),
        (kernels.layer_norm.record, {"x": x, "weight": x[0].copy(), "bias": x[0].copy(), "eps": 1e-5}, 4),
        (kernels.layer_norm.backward, {"dy": x, "normal": x, "inverse": x[:, 0].copy(), "weight": x[0].copy()}, 4),
        (kernels.cross_entropy.forward, {"z": normal(rng, dtype, N, V), "t": ids, "w": np.ones(N, dtype)}, 3),
        (
            kernels.ctc.forward,
            {"z": z, "t": tags.T.copy(), "n": ids % (T + 1), "lengths": ids % (T + 1), "blank": 0},
            4,
        ),
        (kernels.crf.forward, {"z": z, "tags": tags, **weights, "lengths": ids % (T + 1)}, 6),
        (kernels.crf.marginals, {"z": z, **weights, "lengths": ids % (T + 1)}, 5),
        (kernels.crf.decode, {"z": z, **weights, "lengths": ids % (T + 1)}, 5),
        (kernels.adam.step, {"params": flat[0], "grads": flat[1], "m": flat[2], "v": flat[3], **adam}, 4),
        (kernels.sgd.step, {"params": flat[0], "grads": flat[1], "velocity": flat[2], **sgd}, 3),
        (kernels.rmsprop.step, {"params": flat[0], "grads": flat[1], "sq": flat[2], "v": flat[3], **rms}, 4),
        (kernels.norm.l2, {"flat": flat[0]}, 1),
        (kernels.get_num_threads, {}, 0),
        (kernels.isa, {}, 0),
    ]
    function, arguments, count = calls[rng.integers(len(calls))]
    attempt(rng, positional(function, *list(arguments)[:count]), arguments, keep=0.1)


def call_packed_linear(rng):
    dtype = rng.choice(["f4", "f8"])
    packed = kernels.linear.packed(normal(rng, dtype, V, I), normal(rng, dtype, V), "relu")
    kernel, wave = normal(rng, dtype, V, I, 2), {"x": normal(rng, dtype, N, I, T)}
    more = {"stride": 1, "dilation": 1, "before": 1, "after": 0}
    windowed = kernels.linear.windowed(kernel, None, "softmax", **more)
    calls = [
        (packed.forward, {"x": normal(rng, dtype, N, I)}),
        (windowed.forward, wave),
        (windowed.continued, {"past": normal(rng, dtype, N, I, 1), **wave}),
        (kernels.linear.windowed, {"weight": kernel, "bias": None, "activation": "relu", **more}),
    ]
    function, arguments = calls[rng.integers(len(calls))]
    attempt(rng, positional(function, *arguments), arguments, keep=0.1)


def a_memory(rng):
    """Arguments of the kernels of associative memories, by name."""
    count, op = int(rng.choice([0, 1, 5, 40])), kernels.hopfield
    negative, state = rng.random(count) < 0.3, np.where(rng.random((N, V)) < 0.5, np.int8(-1), np.int8(1))
    bits = op.pack(rng.random((count, V)) < 0.5)
    weights = op.hebbian(bits, negative, str(rng.choice(["float32", "float64"])))
    return {
        "on": rng.random((count, V)) < 0.5,
        "bits": bits,
        "negative": negative,
        "dtype": "float64",
        "overlaps": op.overlaps(bits, negative, state),
        "weights": weights,
        "fields": op.fields(weights, state),
        "state": state,
        "order": rng.permutation(V),
        "threshold": np.zeros(V),
        "gap": np.arange(2.0 * V + 1),
        "external": normal(rng, "f8", N, V) if rng.random() < 0.5 else None,
        "relative": bool(rng.random() < 0.5),
        "off": -1,
    }


def call_memory(rng):
    takes = {
        "pack": "on",
        "hebbian": "bits negative dtype",
        "overlaps": "bits negative state",
        "pattern_fields": "bits negative overlaps state",
        "pattern_sweep": "bits negative overlaps state order threshold external off",
        "dense_sweep": "bits negative overlaps state order gap external relative",
        "fields": "weights state",
        "sweep": "weights fields state order threshold external off",
    }
    name = str(rng.choice(list(takes)))
    given = a_memory(rng)
    arguments = {argument: given[argument] for argument in takes[name].split()}
    attempt(rng, getattr(kernels.hopfield, name), arguments, keep=0.1)


def call_net(rng):
    patterns = np.where(rng.random((T, V)) < 0.5, -1, 1)
    probe = {"probe": patterns[:N], "order": rng.permutation(V), "rng": 0, "external_input": normal(rng, "f4", N, V),
             "max_sweeps": 3, "record": True, "update": str(rng.choice(["async", "sync"]))}  # fmt: skip
    kind = rng.integers(3)
    if kind == 0:
        options = {"n_units": V, "states": "bipolar", "threshold": np.zeros(V), "dtype": "float32"}
        net = attempt(rng, pyrnn.Hopfield, options, keep=0.8)
        if net is None or net.n_units > 1000:
            return
        rule = str(rng.choice(["hebbian", "storkey", "pseudo_inverse"]))
        attempt(rng, net.store, {"patterns": patterns, "rule": rule}, keep=0.5)
        attempt(rng, net.forget, {"patterns": patterns[0]}, keep=0.5)
        attempt(rng, net.is_stable, {"state": patterns, "external_input": None}, keep=0.2)
        attempt(rng, net.capacity, {})
    elif kind == 1:
        form = str(rng.choice(["polynomial", "exponential"]))
        net = attempt(rng, pyrnn.DenseHopfield, {"patterns": patterns, "energy": form, "degree": 3}, keep=0.6)
    else:
        net = attempt(rng, pyrnn.ModernHopfield, {"patterns": patterns, "beta": 1.0, "dtype": "float64"}, keep=0.6)
        probe = {"state": patterns[:N], "max_steps": 3, "tol": 0.1}
    if net is None:
        return
    attempt(rng, net.energy, {"state": patterns[:N]}, keep=0.2)
    attempt(rng, net.retrieve if kind == 2 else net.recall, probe, keep=0.2)


def call_attention(rng):
    dtype = rng.choice(["f4", "f8"])
    query, key, value = normal(rng, dtype, N, 4, T, I), normal(rng, dtype, N, 2, 9, I), normal(rng, dtype, N, 2, 9, V)
    arrays = {"query": query, "key": key, "value": value}
    seen = rng.random((N, 4, T, 9)) < 0.5
    bounds = {"scale": 0.5, "left": 3, "right": 2, "softcap": 1.0}
    bounds |= {"offsets": rng.integers(-3, 9, N), "lengths": rng.integers(0, 10, N)}
    options = {"attn_mask": seen, "is_causal": True, "scale": 0.5, "enable_gqa": True, "q_offset": 2}
    options |= {"window": (3, 2), "softcap": 1.0, "kv_lengths": rng.integers(0, 10, N)}
    out, stats = kernels.attention.forward(**arrays, mask=seen, **bounds)
    layer, x = pyrnn.MultiheadAttention(I, 1, rng=0), rng.standard_normal((T, N, I))
    stream, additive = layer.stream(N), pyrnn.AdditiveAttention(I, I, 5, rng=0)
    small = {"query": query[:, 0], "key": key[:, 0], "value": value[:, 0], "score": normal(rng, dtype, I)}
    out_of_sums, weights = kernels.additive_attention.forward(**small, lengths=bounds["lengths"])
    calls = [
        (kernels.attention.forward, {**arrays, "mask": seen, **bounds}),
        (kernels.additive_attention.forward, {**small, "lengths": bounds["lengths"]}),
        (
            kernels.additive_attention.backward,
            {"dout": out_of_sums, **small, "weights": weights, "dscore": np.zeros(I, dtype)},
        ),
        (
            kernels.attention.backward,
            {"dout": normal(rng, dtype, *out.shape), **arrays, "out": out, "stats": stats, "mask": seen, **bounds},
        ),
        (pyrnn.scaled_dot_product_attention, {**arrays, **options}),
        (pyrnn.scaled_dot_product_attention_vjp, {**arrays, **options}),
        (pyrnn.scaled_dot_product_attention_vjp(**arrays, enable_gqa=True)[1], {"dout": out}),
        (layer, {"query": x, "key": x, "value": x, "is_causal": True, "kv_lengths": rng.integers(0, T, N)}),
        (layer.vjp(x)[1], {"dout": x}),
        (stream.step, {"x": x[0]}),
        (stream, {"x": x}),
        (additive, {"query": x, "key": x, "value": x, "kv_lengths": rng.integers(0, N, T)}),
        (pyrnn.PositionalEncoding(I), {"x": x, "offset": 3}),
    ]
    function, arguments = calls[rng.integers(len(calls))]
    result = attempt(rng, function, arguments, keep=0.1)
    if function is pyrnn.scaled_dot_product_attention_vjp and result is not None:
        attempt(rng, result[1], {"dout": out}, keep=0.5)


def call_set_num_threads(rng):
    value = junk(rng)
    if isinstance(value, np.ndarray) or (isinstance(value, int) and value > 2):
        return  # it might do as it is told
    attempt(rng, positional(kernels.set_num_threads, "n"), {"n": value}, keep=1.0)


def call_layer(rng):
    batch_first = bool(rng.random() < 0.5)
    options = {
        "input_size": I,
        "hidden_size": H,
        "bias": bool(rng.random() < 0.7),
        "batch_first": batch_first,
        "dropout": float(rng.random() < 0.3) / 2,
        "bidirectional": bool(rng.random() < 0.5),
        "dtype": str(rng.choice(["float32", "float64"])),
        "rng": 0,
    }
    kind = rng.choice([pyrnn.RNN, pyrnn.LSTM, pyrnn.GRU])
    num_layers = int(rng.integers(1, 3))  # never spoiled: a huge number of layers is a valid wish
    layer = attempt(rng, functools.partial(kind, num_layers=num_layers), options, keep=0.8)
    if layer is None:
        return
    lead = (N, T) if layer.batch_first else (T, N)
    x = rng.standard_normal((*lead, layer.input_size))
    _, state = layer(x)
    arguments = {
        "x": x,
        "state": state,
        "lengths": rng.integers(0, T + 1, N) if rng.random() < 0.5 else None,
        "reset": rng.random(lead) < 0.3 if rng.random() < 0.5 else None,
    }
    if rng.random() < 0.3:
        arguments |= {"x": rng.standard_normal((V, layer.input_size)), "ids": rng.integers(0, V, lead)}
    choice = rng.integers(4)
    if choice == 0:
        attempt(rng, layer, arguments)
    elif choice == 1:
        result = attempt(rng, layer.vjp, {**arguments, "checkpoint_every": 2}, keep=0.6)
        if result is not None:
            (y, final), pullback = result
            for _ in range(3):
                attempt(rng, pullback, {"dy": y, "dstate": final}, keep=0.2)
    elif choice == 2:
        state_dict = layer.state_dict()
        name = str(rng.choice(list(state_dict)))
        attempt(
            rng, layer.load_state_dict, {"state_dict": {**state_dict, name: spoil(rng, state_dict[name])}}, keep=0.8
        )
    else:
        stream = attempt(rng, layer.stream, {"batch": N, "state": None}, keep=0.5)
        if stream is not None:
            for _ in range(3):
                attempt(rng, positional(stream.step, "x"), {"x": rng.standard_normal((N, layer.input_size))}, keep=0.2)
                attempt(rng, stream, {"x": x}, keep=0.2)
                attempt(rng, stream.reset, {"rows": [0, 1]}, keep=0.2)


CLASS_LOSSES = (
    (pyrnn.cross_entropy, "logits"),
    (pyrnn.negative_log_likelihood, "log_probabilities"),
    (pyrnn.hinge, "scores"),
)


def call_the_rest(rng):
    linear, embedding = pyrnn.Linear(I, V, rng=0), pyrnn.Embedding(V, I, rng=0)
    logits, targets = rng.standard_normal((T, N, V)), rng.integers(0, V, (T, N))
    options = {"lengths": [4, 2, 0], "mask": targets > 2, "batch_first": False}
    crf, fit = (
        pyrnn.CRF(V, forbidden=[(None, 1), (2, 2)], rng=0),
        [ids[:k] % (V - 1) + 1 for k, ids in enumerate(targets.T)],
    )
    encoder, wide = pyrnn.TransformerEncoderLayer(8, 2, 5, rng=0), rng.standard_normal((T, N, 8))
    calls = [
        (encoder.vjp, {"x": wide, "lengths": [4, 2, 0], "is_causal": True, "attn_mask": np.ones((T, T), bool)}),
        (encoder.vjp(wide)[1], {"dy": wide}),
        (encoder.stream, {"batch": 2}),
        (encoder.stream(N).step, {"x": wide[0]}),
        (pyrnn.ctc, {"logits": logits, "targets": fit, "lengths": [4, 2, 0], "blank": 0, "infeasible": "zero"}),
        (pyrnn.ctc, {"logits": logits, "targets": targets.T, "target_lengths": [2, 1, 0], "batch_first": False}),
        (pyrnn.decoding.ctc_greedy, {"logits": logits, "lengths": [4, 2, 0], "blank": 0}),
        (pyrnn.decoding.ctc_beam_search, {"logits": logits, "beam_width": 3, "lm": lambda ids: np.zeros(V)}),
        (pyrnn.decoding.ctc_align, {"logits": logits, "targets": fit, "lengths": [4, 4, 4], "blank": 0}),
        (pyrnn.CRF, {"num_tags": V, "forbidden": [(0, 1), (None, 2)], "batch_first": True}),
        (crf.vjp, {"scores": logits, "tags": targets * 0 + 3, "lengths": options["lengths"]}),
        (crf.vjp(logits, targets * 0 + 3)[1], {"dloss": 1.0}),
        (crf.decode, {"scores": logits, "lengths": options["lengths"]}),
        (crf.marginals, {"scores": logits, "lengths": options["lengths"]}),
        (linear, {"x": rng.standard_normal((T, N, I))}),
        (linear.vjp(rng.standard_normal((N, I)))[1], {"dy": rng.standard_normal((N, V))}),
        (embedding, {"ids": targets}),
        (embedding.vjp(targets)[1], {"dy": rng.standard_normal((T, N, I))}),
        *((loss, {first: logits, "targets": targets, **options}) for loss, first in CLASS_LOSSES),
        (pyrnn.mean_squared_error, {"predictions": logits, "targets": logits, **options}),
        (pyrnn.pinball, {"predictions": logits, "targets": logits, "quantile": 0.3, **options}),
        (pyrnn.binary_cross_entropy, {"logits": logits, "targets": logits > 0, **options}),
        (pyrnn.LayerNorm(V).vjp, {"x": logits}),
        (pyrnn.LayerNorm(V).vjp(logits)[1], {"dy": logits}),
        (pyrnn.Dropout(0.5, per_sequence=True, rng=0).vjp, {"x": logits}),
        (pyrnn.LogSoftmax().vjp, {"x": logits}),
        (pyrnn.MaxOverTime().vjp, {"x": logits, "lengths": options["lengths"]}),
        (pyrnn.init.identity, {"layer": pyrnn.GRU(I, H, rng=0), "scale": 1.0}),
        (pyrnn.init.orthogonal, {"layer": pyrnn.LSTM(I, H, rng=0), "gain": 1.0, "rng": 0}),
        (pyrnn.init.chrono, {"layer": pyrnn.LSTM(I, H, rng=0), "steps": 9, "rng": 0}),
        (pyrnn.init.forget_gate_bias, {"layer": pyrnn.LSTM(I, H, rng=0), "value": 1.0}),
        (pyrnn.clip_grad_norm, {"model": linear, "max_norm": 1.0}),
        (pyrnn.clip_grad_value, {"model": linear, "value": 1.0}),
        (pyrnn.Adam, {"model": linear, "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}),
        (pyrnn.SGD, {"model": linear, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
        (pyrnn.RMSprop, {"model": linear, "lr": 0.1, "alpha": 0.9, "eps": 1e-8, "momentum": 0.9}),
        (pyrnn.Adagrad, {"model": linear, "lr": 0.1, "eps": 1e-8, "weight_decay": 0.1}),
        (pyrnn.schedules.Cosine, {"optimizer": pyrnn.SGD(linear), "total": 10, "warmup": 2, "end": 0.1}),
        (pyrnn.schedules.Step, {"optimizer": pyrnn.SGD(linear), "every": 10, "gamma": 0.1}),
        (pyrnn.schedules.Plateau(pyrnn.SGD(linear)).step, {"loss": 1.0}),
        (pyrnn.Model, {"a": linear, "b": embedding}),
    ]
    function, arguments = calls[rng.integers(len(calls))]
    result = attempt(rng, function, arguments, keep=0.1)
    if isinstance(result, pyrnn.optim.Optimizer):
        attempt(rng, result.step, {})


CALLS = [
    call_cell,
    call_cell,
    call_cell_stream,
    call_flat_op,
    call_packed_linear,
    call_memory,
    call_memory,
    call_net,
    call_attention,
    call_set_num_threads,
    call_layer,
    call_layer,
    call_the_rest,
]


def main(seconds: float, seed: int, first: int, calls: float, only: str) -> int:
    warnings.simplefilter("ignore")
    chosen = [call for call in [*CALLS, *CHECKS] if only in call.__name__]
    made: collections.Counter[str] = collections.Counter()
    failed, k, stop = 0, first, time.monotonic() + seconds
    while k - first < calls and time.monotonic() < stop:
        rng = np.random.default_rng([seed, k])
        call = chosen[rng.integers(len(chosen))]
        os.write(2, f"\r{k} {call.__name__:30}".encode())
        try:
            call(rng)
        except Exception:
            failed += 1
            again = f"--seed {seed} --first {k} --calls 1" + (f" --only {only}" if only else "")
            print(f"\n{call.__name__}: python tests/fuzz_calls.py {again}\n{traceback.format_exc()}", flush=True)
        made[call.__name__] += 1
        k += 1
    print("\n" + "\n".join(f"{name} {count}" for name, count in sorted(made.items())))
    print(f"{k - first} calls, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random calls of pyrnn, wrong and right.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--calls", type=float, default=math.inf, help="how many at most")
    parser.add_argument("--only", default="", help="calls and checks whose name contains this")
    sys.exit(main(**vars(parser.parse_args())))
