"""Recurrent layers as ONNX: RNN, LSTM and GRU by their operators, other cells by a Scan of their equations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import reference
from ...core.checks import Array
from .recurrent import PEEPHOLES
from .tracing import Given, Step
from .writing import Value, Writer, steps_first, valid, zero

# Our activations by the names of ONNX, with activation_alpha and activation_beta.
ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "tanh": ("Tanh", ()), "relu": ("Relu", ()), "sigmoid": ("Sigmoid", ()), "softsign": ("Softsign", ()),
    "identity": ("Affine", (1.0, 0.0)), "hard_sigmoid": ("HardSigmoid", (0.2, 0.5)),
    "hard_sigmoid_6": ("HardSigmoid", (1 / 6, 0.5)),
}  # fmt: skip
OPERATORS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def write(
    writer: Writer, layer: Any, x: Value, lengths: str, states: list[str] | None, prefix: str
) -> tuple[Value, list[str]]:
    """y of a layer's x in the layer's layout, and its final states. states: the initial ones, (L*D, N, width) each."""
    directions, output = layer._directions, layer._output
    steps, rows = (1, 0) if layer.batch_first else (0, 1)
    shape = (x.shape[steps], x.shape[rows])
    x = steps_first(writer, x, layer.batch_first)
    native = layer._cell_name in OPERATORS and not layer.proj_size
    run = _operator if native else _scan
    initial = [_parts(writer, state, layer.num_layers, directions) for state in states or ()]
    finals: list[list[str]] = [[] for _ in layer._cell.states]
    y = x.name
    for k in range(layer.num_layers):
        before = [parts[k] for parts in initial]
        y, last = run(writer, layer, k, Value(y, (*shape, 0)), lengths, before, prefix)
        for state, name in zip(finals, last, strict=True):
            state.append(name)
    whole = Value(y, (*shape, directions * output))
    whole = writer.transposed(whole, 1, 0, 2) if layer.batch_first else whole
    joined = [names[0] if len(names) == 1 else writer.add("Concat", *names, axis=0) for names in finals]
    return whole, joined


def _parts(writer: Writer, state: str, layers: int, directions: int) -> list[str]:
    """(L*D, N, width) -> (D, N, width) of each layer."""
    if layers == 1:
        return [state]
    return list(writer.add("Split", state, writer.integers(*[directions] * layers), axis=0, outputs=layers))


def _stacked(layer: Any, name: str, k: int, order: list[int] | None) -> Array | None:
    """A weight of all directions of layer k, (D, ...), its gates in another order."""
    suffixes = layer._suffixes[k * layer._directions : (k + 1) * layer._directions]
    arrays = [layer._params.get(name + suffix) for suffix in suffixes]
    if any(array is None for array in arrays):
        return None
    if order is None:
        return np.stack(arrays)
    return np.stack([np.concatenate([np.split(array, len(order))[gate] for gate in order]) for array in arrays])


def _operator(
    writer: Writer, layer: Any, k: int, x: Value, lengths: str, before: list[str], prefix: str
) -> tuple[str, list[str]]:
    """Layer k by the operator of its name: y (T, N, D*H), final states (D, N, H)."""
    op, record, directions = OPERATORS[layer._cell_name], layer._cell, layer._directions
    order = [record.gates.index(gate) for gate in record.orders["onnx"]]
    w, r = (_stacked(layer, name, k, order) for name in ("weight_ih", "weight_hh"))
    inputs = [x.name, writer.constant(w, name=f"{prefix}W_l{k}"), writer.constant(r, name=f"{prefix}R_l{k}")]
    biases: Any = [_stacked(layer, name, k, order) for name in ("bias_ih", "bias_hh")]
    inputs.append(writer.constant(np.concatenate(biases, 1), name=f"{prefix}B_l{k}") if layer.bias else "")
    inputs.append(writer.add("Cast", lengths, to=6))  # int32
    inputs += before
    if layer.peephole:
        peepholes = _stacked(layer, "weight_ch", k, [PEEPHOLES["here"].index(gate) for gate in PEEPHOLES["onnx"]])
        inputs += [""] * (7 - len(inputs)) + [writer.constant(peepholes, name=f"{prefix}P_l{k}")]
    names = _activations(layer)
    numbers = [number for name in names * directions if (number := ACTIVATIONS[name][1])]
    attributes: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if directions == 2 else "forward",
        "activations": [ACTIVATIONS[name][0] for name in names] * directions,
    }
    if numbers:
        attributes |= {
            "activation_alpha": [alpha for alpha, _ in numbers],
            "activation_beta": [beta for _, beta in numbers],
        }
    if op == "GRU":
        attributes["linear_before_reset"] = int(layer.reset_after)
    y, *finals = writer.add(op, *inputs, outputs=1 + len(record.states), **attributes)
    if before:  # a row without steps keeps its state, of which runtimes make zeros
        none = writer.add("Equal", lengths, writer.constant(0, np.int64))
        column = writer.add("Unsqueeze", none, writer.integers(0, 2))
        finals = [writer.add("Where", column, old, new) for old, new in zip(before, finals, strict=True)]
    if directions == 1:
        return writer.add("Squeeze", y, writer.integers(1)), finals
    turned = writer.add("Transpose", y, perm=(0, 2, 1, 3))
    return writer.add("Reshape", turned, writer.integers(0, 0, directions * layer._output)), finals


def _activations(layer: Any) -> list[str]:
    """In ONNX' order: of the gates, of the candidate, of the cell's output."""
    if layer._cell_name == "rnn":
        return [layer.nonlinearity]
    return [layer.gate_activation, layer.activation, *[layer.activation] * (layer._cell_name == "lstm")]


# ---- cells that are no operator


def _scan(
    writer: Writer, layer: Any, k: int, x: Value, lengths: str, before: list[str], prefix: str
) -> tuple[str, list[str]]:
    """Layer k by a Scan for each direction: y (T, N, D*P), final states (D, N, width)."""
    mask = valid(writer, x, lengths)
    rows = writer.length(x.name, 1)
    outputs, finals = [], []
    for d in range(layer._directions):
        if before:
            place = writer.integers(d)
            states = [writer.add("Squeeze", writer.add("Gather", s, place, axis=0), writer.integers(0)) for s in before]
        else:
            states = [
                writer.add("Expand", zero(writer, layer.dtype), writer.add("Concat", rows, writer.integers(n), axis=0))
                for n in layer._widths
            ]
        body, scanned = _body(writer, layer, k * layer._directions + d, x.name, f"{prefix}l{k}_{d}_")
        inputs = [mask, *scanned]
        y, *last = _reordered(
            writer.add(
                "Scan", *states, *inputs, outputs=len(states) + 1, body=body, num_scan_inputs=len(inputs),
                scan_input_directions=[d] * len(inputs), scan_output_directions=[d],
            )
        )  # fmt: skip
        outputs.append(y)
        finals.append([writer.add("Unsqueeze", s, writer.integers(0)) for s in last])
    if layer._directions == 1:
        return outputs[0], finals[0]
    pairs = zip(*finals, strict=True)
    return writer.add("Concat", *outputs, axis=2), [writer.add("Concat", *pair, axis=0) for pair in pairs]


def _reordered(names: list[str]) -> list[str]:
    """A Scan gives its states first."""
    return [names[-1], *names[:-1]]


def _body(writer: Writer, layer: Any, k: int, x: str, prefix: str) -> tuple[Any, list[str]]:
    """One step of layer and direction k, as the reference has it: states, whether it is valid, and what is scanned ->
    states, y; and what that is, by name."""
    body = Writer(prefix)
    step = Step(writer, body, layer.dtype)
    states, mask = [f"{prefix}{name}_in" for name in layer._cell.states], f"{prefix}valid"
    cell = getattr(reference, layer._cell_name).Cell(**layer._options)
    before = tuple(Given(name, layer.dtype, True) for name in states)
    try:
        after, _ = cell.forward(cell.weights(*layer._weights[k]), Given(x, layer.dtype, False), before)
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"to_onnx: {type(layer).__name__} has no form in ONNX here, for its step in pyrnn/reference: {error}"
        ) from error
    new = [step.name(value) for value in after]
    kept = [body.add("Where", mask, now, old) for now, old in zip(new, states, strict=True)]
    y = body.add("Where", mask, new[0], zero(body, layer.dtype))
    inputs = [body.value(name, ("N", n), layer.dtype) for name, n in zip(states, layer._widths, strict=True)]
    inputs += [body.value(mask, ("N", 1), np.bool_), *step.inputs]
    outputs = [body.value(name, ("N", n), layer.dtype) for name, n in zip(kept, layer._widths, strict=True)]
    outputs.append(body.value(y, ("N", layer._output), layer.dtype))
    return body.graph("step", inputs, outputs), list(step.scanned)
