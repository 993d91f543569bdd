"""Recurrent layers as ONNX: RNN, LSTM and GRU by their operators, other cells by a Scan of their equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.checks import Array
from .recurrent import PEEPHOLES
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

# The equations of a step: (body, weights, a = W x + b of the step, states) -> the next states. `weights` are the
# layer's, by our names, as constants in the graph of the step.
Step = Callable[["Body", dict[str, Array], str, list[str]], list[str]]


class Body(Writer):
    """The graph of one step, in words of the field."""

    def __init__(self, layer: Any, prefix: str) -> None:
        super().__init__(prefix)
        self.layer = layer
        self.dtype = layer.dtype

    def number(self, value: float) -> str:
        """A constant of the layer's dtype."""
        return self.constant(value, self.dtype)

    def sum(self, *names: str) -> str:
        """The sum of two or more."""
        total, *others = names
        for name in others:
            total = self.add("Add", total, name)
        return total

    def product(self, a: str, b: str) -> str:
        """Number by number."""
        return str(self.add("Mul", a, b))

    def times(self, x: str, weight: Array) -> str:
        """x W^T."""
        return str(self.add("MatMul", x, self.constant(weight.T)))

    def split(self, a: str, count: int) -> list[str]:
        """The gates of (N, G*H)."""
        return list(self.add("Split", a, self.integers(*[self.layer.hidden_size] * count), axis=1, outputs=count))

    def log_sigmoid(self, a: str) -> str:
        """min(a, 0) - log(1 + exp(-|a|)), finite for finite a."""
        small = self.add("Exp", self.add("Neg", self.add("Abs", a)))
        log = self.add("Log", self.add("Add", small, self.number(1)))
        return str(self.add("Sub", self.add("Min", a, self.number(0)), log))

    def norm(self, a: str, scale: Array, bias: Array | None = None) -> str:
        """A layer norm over the last axis."""
        return layer_norm(self, a, self.layer, scale, bias)

    def activation(self, name: str, a: str) -> str:
        """One of those of the cells, by operators that runtimes have of every dtype."""
        op, numbers = ACTIVATIONS[name]
        if op == "HardSigmoid":
            alpha, beta = (self.number(number) for number in numbers)
            return str(self.add("Clip", self.sum(self.product(a, alpha), beta), self.number(0), self.number(1)))
        if op == "Softsign":
            return str(self.add("Div", a, self.sum(self.add("Abs", a), self.number(1))))
        return a if op == "Affine" else str(self.add(op, a))


def layer_norm(writer: Writer, a: str, layer: Any, scale: Array, bias: Array | None) -> str:
    """As the cell has it: mean and variance in two passes, an eps of the layer's dtype."""
    centred = writer.add("Sub", a, writer.add("ReduceMean", a, axes=[-1]))
    variance = writer.add("ReduceMean", writer.add("Mul", centred, centred), axes=[-1])
    deviation = writer.add("Sqrt", writer.add("Add", variance, writer.constant(layer.eps, layer.dtype)))
    y = writer.add("Mul", writer.add("Div", centred, deviation), writer.constant(scale))
    return str(y if bias is None else writer.add("Add", y, writer.constant(bias)))


def _lstm(body: Body, w: dict[str, Array], a: str, states: list[str]) -> list[str]:
    h, c = states
    i, f, g, o = body.split(body.sum(a, body.times(h, w["weight_hh"])), 4)
    p_i, p_f, p_o = np.split(w["weight_ch"], 3) if "weight_ch" in w else (None, None, None)

    def peeping(gate: str, weight: Array | None, cell: str) -> str:
        return gate if weight is None else body.sum(gate, body.product(cell, body.constant(weight)))

    layer = body.layer
    i, f = (body.activation(layer.gate_activation, peeping(k, p, c)) for k, p in ((i, p_i), (f, p_f)))
    new = body.sum(body.product(f, c), body.product(i, body.activation(layer.activation, g)))
    o = body.activation(layer.gate_activation, peeping(o, p_o, new))
    h = body.product(o, body.activation(layer.activation, new))
    return [body.times(h, w["weight_hr"]) if "weight_hr" in w else h, new]


def _indrnn(body: Body, w: dict[str, Array], a: str, states: list[str]) -> list[str]:
    a = body.sum(a, body.product(states[0], body.constant(w["weight_hh"])))
    return [body.activation(body.layer.nonlinearity, a)]


def _mixed(body: Body, share: str, h: str, new: str) -> str:
    """share * h + (1 - share) * new."""
    return body.sum(body.product(share, h), body.product(body.add("Sub", body.number(1), share), new))


def _mingru(body: Body, w: dict[str, Array], a: str, states: list[str]) -> list[str]:
    z, n = body.split(a, 2)
    return [_mixed(body, body.add("Sub", body.number(1), body.add("Sigmoid", z)), states[0], n)]


def _minlstm(body: Body, w: dict[str, Array], a: str, states: list[str]) -> list[str]:
    i, f, n = body.split(a, 3)
    share = body.add("Sigmoid", body.add("Sub", body.log_sigmoid(f), body.log_sigmoid(i)))
    return [_mixed(body, share, states[0], n)]


def _layernormlstm(body: Body, w: dict[str, Array], a: str, states: list[str]) -> list[str]:
    h, c = states
    hidden = body.norm(body.times(h, w["weight_hh"]), w["norm_hh"])
    i, f, g, o = body.split(body.sum(a, hidden), 4)
    i, f, o = (body.add("Sigmoid", gate) for gate in (i, f, o))
    new = body.sum(body.product(f, c), body.product(i, body.add("Tanh", g)))
    return [body.product(o, body.add("Tanh", body.norm(new, w["norm_c"], w["bias_c"]))), new]


def _slstm(body: Body, w: dict[str, Array], a: str, states: list[str]) -> list[str]:
    h, c, n, m = states
    i, f, g, o = body.split(body.sum(a, body.times(h, w["weight_hh"])), 4)
    past = body.add("Not", body.add("Equal", n, body.number(0)))  # where n is 0 there is none
    lasting = body.sum(body.log_sigmoid(f), body.add("Where", past, m, body.number(0)))
    top = body.add("Where", past, body.add("Max", lasting, i), i)
    i = body.add("Exp", body.add("Sub", i, top))
    f = body.add("Where", past, body.add("Exp", body.add("Sub", lasting, top)), body.number(0))
    c = body.sum(body.product(f, body.add("Where", past, c, body.number(0))), body.product(i, body.add("Tanh", g)))
    n = body.sum(body.product(f, n), i)
    return [body.product(body.add("Sigmoid", o), body.add("Div", c, n)), c, n, top]


STEPS: dict[str, Step] = {
    "lstm": _lstm, "indrnn": _indrnn, "mingru": _mingru, "minlstm": _minlstm, "layernormlstm": _layernormlstm,
    "slstm": _slstm,
}  # fmt: skip


def _scan(
    writer: Writer, layer: Any, k: int, x: Value, lengths: str, before: list[str], prefix: str
) -> tuple[str, list[str]]:
    """Layer k by a Scan for each direction: y (T, N, D*P), final states (D, N, width)."""
    mask = valid(writer, x, lengths)
    rows = writer.length(x.name, 1)
    outputs, finals = [], []
    for d in range(layer._directions):
        weights = dict(zip(layer._cell.weights, layer._weights[k * layer._directions + d], strict=True))
        present = {name: array for name, array in weights.items() if array is not None}
        if before:
            place = writer.integers(d)
            states = [writer.add("Squeeze", writer.add("Gather", s, place, axis=0), writer.integers(0)) for s in before]
        else:
            states = [
                writer.add("Expand", zero(writer, layer.dtype), writer.add("Concat", rows, writer.integers(n), axis=0))
                for n in layer._widths
            ]
        a = _input_product(writer, layer, present, x.name)
        back = [d, d]
        y, *last = _reordered(
            writer.add(
                "Scan", *states, mask, a, outputs=len(states) + 1, body=_body(layer, present, f"{prefix}l{k}_{d}_"),
                num_scan_inputs=2, scan_input_directions=back, scan_output_directions=[d],
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


def _input_product(writer: Writer, layer: Any, w: dict[str, Array], x: str) -> str:
    """W x and the biases, of all steps at once."""
    a: str = writer.add("MatMul", x, writer.constant(w["weight_ih"].T))
    biases = [w[name] for name in ("bias_ih", "bias_hh") if name in w]
    if "norm_ih" in w:
        return layer_norm(writer, a, layer, w["norm_ih"], w.get("bias_ih"))
    for bias in biases:
        a = writer.add("Add", a, writer.constant(bias))
    return a


def _body(layer: Any, weights: dict[str, Array], prefix: str) -> Any:
    """One step: states, whether it is valid, and its input product -> states, y."""
    body = Body(layer, prefix)
    states = [f"{prefix}{name}_in" for name in layer._cell.states]
    mask, a = f"{prefix}valid", f"{prefix}a"
    step = STEPS.get(layer._cell_name)
    if step is None:
        raise ValueError(f"to_onnx: {type(layer).__name__} has no form in ONNX here")
    new = step(body, weights, a, states)
    kept = [body.add("Where", mask, after, old) for after, old in zip(new, states, strict=True)]
    y = body.add("Where", mask, new[0], body.number(0))
    gates = len(layer._cell.gates) * layer.hidden_size
    inputs = [body.value(name, ("N", n), layer.dtype) for name, n in zip(states, layer._widths, strict=True)]
    inputs += [body.value(mask, ("N", 1), np.bool_), body.value(a, ("N", gates), layer.dtype)]
    outputs = [body.value(name, ("N", n), layer.dtype) for name, n in zip(kept, layer._widths, strict=True)]
    return body.graph("step", inputs, [*outputs, body.value(y, ("N", layer._output), layer.dtype)])
