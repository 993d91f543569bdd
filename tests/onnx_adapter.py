"""The RNN, LSTM and GRU operators of ONNX by the layers of pyrnn: gate orders, layouts and directions.

    Y, Y_h[, Y_c] = run(node, inputs)     inputs: name -> array, as in an ONNX graph

X (T, N, I), W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H) = [Wb, Rb], sequence_lens (N,), initial_h and initial_c
(D, N, H), P (D, 3*H); Y (T, D, N, H), Y_h and Y_c (D, N, H). layout=1 puts N first in all but the weights. What the
layers cannot do (clip, input_forget, other activations) is a ValueError.
"""

import importlib

import numpy as np
import onnx

import pyrnn
from pyrnn.cells import CELLS

INPUTS = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
RECORDS = {op: CELLS[op.lower()] for op in INPUTS}
# Our gate k is ONNX' gate ORDER[k]; of the peepholes i,o,f -> i,f,o.
ORDER = {op: [record.orders["onnx"].index(gate) for gate in record.gates] for op, record in RECORDS.items()}
PEEPHOLE_ORDER = [0, 2, 1]
ACTIVATIONS = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def node_cases(ops):
    """The cases of onnx.backend.test of one node that is one of these operators: importing their modules makes them."""
    for op in ops:
        importlib.import_module(f"onnx.backend.test.case.node.{op.lower()}")
    collected = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    nodes = {case.name: (case, case.model.graph.node) for case in collected}
    return {name: case for name, (case, graph) in nodes.items() if len(graph) == 1 and graph[0].op_type in ops}


def data_sets(case):
    """Of a case of one node: the node, arrays given, arrays expected."""
    (node,) = case.model.graph.node
    assert case.data_sets
    return [(node, given, expected) for given, expected in case.data_sets]


def run(node, inputs):
    """All outputs of the node, wanted or not."""
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    inputs = dict(inputs)
    batch_first = options.get("layout", 0) == 1
    for name in ("initial_h", "initial_c"):
        if batch_first and name in inputs:
            inputs[name] = inputs[name].swapaxes(0, 1)
    only_reverse = options.get("direction", b"forward") == b"reverse"
    if only_reverse:  # the second direction of two
        for name in {"W", "R", "B", "P", "initial_h", "initial_c"} & set(inputs):
            inputs[name] = np.repeat(inputs[name], 2, axis=0)

    layer = make_layer(node.op_type, options, inputs)
    rows = inputs["X"].shape[0 if batch_first else 1]
    zeros = np.zeros((len(inputs["W"]), rows, layer.hidden_size))
    h, c = (inputs.get(name, zeros) for name in ("initial_h", "initial_c"))
    state = (h, c) if node.op_type == "LSTM" else h
    y, final = layer(inputs["X"], state, lengths=inputs.get("sequence_lens"))

    y = y.reshape(*y.shape[:2], len(zeros), -1)  # (T, N, D, H), or (N, T, D, H)
    finals = final if isinstance(final, tuple) else (final,)
    if only_reverse:
        y, finals = y[:, :, 1:], [s[1:] for s in finals]
    if batch_first:
        return y, *(s.swapaxes(0, 1) for s in finals)
    return y.swapaxes(1, 2), *finals


def make_layer(op, options, inputs):
    """The layer of a node, holding its weights."""
    directions, rows, width = inputs["W"].shape
    if options.get("clip", 0.0) or options.get("input_forget", 0):
        raise ValueError(f"{op}: clip and input_forget are not supported")
    activations = [a.decode() for a in options.get("activations", [])] or ACTIVATIONS[op] * directions
    more = {}
    if op == "RNN" and len(set(activations)) == 1:
        more["nonlinearity"] = activations[0].lower()
    elif activations != ACTIVATIONS[op] * directions:
        raise ValueError(f"{op}: activations are {activations}, expected {ACTIVATIONS[op]}")
    if op == "GRU":
        more["reset_after"] = options.get("linear_before_reset", 0) == 1
    if op == "LSTM":
        more["peephole"] = "P" in inputs
    layer = getattr(pyrnn, op)(
        width,
        rows // len(ORDER[op]),
        bias="B" in inputs,
        batch_first=options.get("layout", 0) == 1,
        bidirectional=directions == 2,
        dtype=inputs["X"].dtype,
        **more,
    )
    weights = {}
    for d, suffix in enumerate(("_l0", "_l0_reverse")[:directions]):
        weights["weight_ih" + suffix] = reordered(inputs["W"][d], ORDER[op])
        weights["weight_hh" + suffix] = reordered(inputs["R"][d], ORDER[op])
        if "B" in inputs:
            for name, bias in zip(("bias_ih", "bias_hh"), np.split(inputs["B"][d], 2), strict=True):
                weights[name + suffix] = reordered(bias, ORDER[op])
        if "P" in inputs:
            weights["weight_ch" + suffix] = reordered(inputs["P"][d], PEEPHOLE_ORDER)
    layer.load_state_dict(weights)
    return layer


def reordered(array, order):
    """The gates along the first axis in another order."""
    gates = np.split(array, len(order))
    return np.concatenate([gates[k] for k in order])
