"""ONNX' RNN, LSTM and GRU: on the kernels, and by NumPy (recurrence.py) where an attribute is beyond these."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import kernels
from ...cells import CELLS
from ...core.checks import FLOAT_DTYPES, Array, shown
from ...core.encoded import Int8
from . import recurrence
from .fusing import SQUEEZED
from .graph import Node
from .program import Function, Made

INPUTS = {  # behind X
    "RNN": ("W", "R", "B", "sequence_lens", "initial_h"),
    "GRU": ("W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
}
WEIGHTS = ("W", "R", "B", "P")
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
PEEPHOLES = {"onnx": "iof", "here": "ifo"}
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


class Direction(NamedTuple):
    """One direction of a node, ready to run."""

    run: Function  # (x (T, N, I), states or None, lengths or None, reverse) -> y (T, N, H), states (N, H)
    step: Function | None = None  # (x (1, I), states (1, 1, H)) -> y (1, H), states (1, 1, H)


def make(node: Node) -> Made:
    """The node as a function of X and of those of its inputs that are not constants."""
    op, attributes = node.op, node.attributes
    reversals = DIRECTIONS.get(attributes.get("direction", "forward"))
    if reversals is None:
        raise ValueError(f"direction is {shown(attributes['direction'])}")
    for name in attributes:
        if name not in KNOWN:
            raise ValueError(f"attribute {name} is not known here")
    functions = recurrence.activations(node, DEFAULTS[op], len(reversals))
    options = [kernel_options(node, own) for own in functions]
    names = INPUTS[op]
    places = {name: k for k, name in enumerate(names, 1) if node.has(k)}
    known = {name: node.known(place) for name, place in places.items() if name in WEIGHTS}
    constant = all(array is not None for array in known.values())
    layout = attributes.get("layout", 0)
    count = len(CELLS[op.lower()].states)

    def runs(weights: dict[str, Array]) -> list[Direction]:
        check(node, weights, len(reversals))
        made = []
        for d, (own, option) in enumerate(zip(functions, options, strict=True)):
            parts: dict[str, Any] = {name: array[d] for name, array in weights.items()}
            if option is not None and parts["W"].dtype in FLOAT_DTYPES:
                for name, scale in attributes.get(SCALES, {}).items():
                    parts[name] = of_whole_numbers(parts[name], scale[d])
                made.append(on_kernel(op, parts, option))
            else:
                made.append(Direction(recurrence.walk(node, parts, own)))
        return made

    ready = runs({name: array for name, array in known.items() if array is not None}) if constant else None
    node.quiet = ready is not None and all(direction.step for direction in ready)
    fed = [(name, place) for name, place in places.items() if ready is None or name not in WEIGHTS]
    wanted, squeezed = len(node.outputs), attributes.get(SQUEEZED)

    def run(x: Array, *given: Any) -> Any:
        more = dict(zip((name for name, _ in fed), given, strict=True))
        directions = ready or runs({name: more[name] for name in more if name in WEIGHTS})
        states = [more.get(name) for name in ("initial_h", "initial_c")[:count]]
        if layout:
            x, states = x.swapaxes(0, 1), [None if s is None else s.swapaxes(0, 1) for s in states]
        lengths = more.get("sequence_lens")
        none = None
        if lengths is not None:
            lengths = lengths.astype(np.int64)
            none = lengths == 0
        if len(directions) == 1:
            y, finals = directions[0].run(x, of_direction(states, 0, x), lengths, reversals[0])
            y, last = y if squeezed else y[:, None], [final[None] for final in finals]
        else:
            parts = []
            for d, (direction, reverse) in enumerate(zip(directions, reversals, strict=True)):
                parts.append(direction.run(x, of_direction(states, d, x), lengths, reverse))
            y = np.stack([part for part, _ in parts], 1)
            last = [np.stack(pair) for pair in zip(*(finals for _, finals in parts), strict=True)]
        if none is not None and none.any():  # as onnxruntime has it: no step, no state
            for final in last:
                final[:, none] = 0
        if layout:
            y, last = y.transpose((1, 0, 2) if squeezed else (2, 0, 1, 3)), [final.swapaxes(0, 1) for final in last]
        return (y, *last)[:wanted] if wanted > 1 else y

    one = ready is not None and not layout and reversals == (False,) and [name for name, _ in fed] == STATES[:count]
    if ready is not None and one and ready[0].step is not None:
        run = stepping(node, ready[0].step, run)
    return run, (0, *(place for _, place in fed))


STATES = ["initial_h", "initial_c"]


def stepping(node: Node, step_from: Function, general: Function) -> Function:
    """The node of a model that runs step by step, of one direction with its states as inputs: a step of one row takes
    the shortest way."""
    wanted, squeezed = len(node.outputs), node.attributes.get(SQUEEZED)
    whole = wanted == 1 + len(CELLS[node.op.lower()].states)
    weight = node.known(1)
    assert weight is not None
    inputs = weight.shape[2]

    def run(x: Array, *states: Array) -> Any:
        if x.size != inputs:
            return general(x, *states)
        y, finals = step_from(x[0], states)
        results = (y[None] if squeezed else y[None, None], *finals)
        return results if whole else results[:wanted] if wanted > 1 else results[0]

    return run


SCALES = "_scales"  # of a node whose weights W and R are whole numbers times these, (D, 4*H) each
KNOWN = {
    SCALES, SQUEEZED, "activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size",
    "input_forget", "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip


def of_direction(states: list[Any], d: int, x: Array) -> list[Array] | None:
    """The states (D, N, H) of one direction; those that are not given are zero."""
    if all(state is None for state in states):
        return None
    like = next(state for state in states if state is not None)
    return [np.zeros(like.shape[1:], x.dtype) if state is None else state[d] for state in states]


def check(node: Node, weights: dict[str, Array], directions: int) -> None:
    """ValueError for weights that do not fit each other."""
    gates = len(CELLS[node.op.lower()].gates)
    if weights["R"].ndim != 3:
        raise ValueError(f"R has shape {weights['R'].shape}, expected (D, {gates}*H, H)")
    hidden = weights["R"].shape[2]
    if node.attributes.get("hidden_size", hidden) != hidden:
        raise ValueError(f"hidden_size is {node.attributes['hidden_size']}, but R has shape "
                         f"{weights['R'].shape}")  # fmt: skip
    inputs = weights["W"].shape[-1] if weights["W"].ndim == 3 else 0
    shapes = {
        "W": (gates * hidden, inputs),
        "R": (gates * hidden, hidden),
        "B": (2 * gates * hidden,),
        "P": (3 * hidden,),
    }
    for name, array in weights.items():
        if array.shape != (directions, *shapes[name]):
            raise ValueError(f"{name} has shape {array.shape}, expected {(directions, *shapes[name])}")


# Our names of activations with their alpha and beta.
NAMES: dict[tuple[str, tuple[float, ...]], str] = {
    **{(name, ()): name for name in ("tanh", "relu", "sigmoid", "softsign")},
    ("affine", (1.0, 0.0)): "identity",
    ("hardsigmoid", (0.2, 0.5)): "hard_sigmoid",
    ("hardsigmoid", (1 / 6, 0.5)): "hard_sigmoid_6",
}


def kernel_options(node: Node, functions: list[recurrence.Activation]) -> dict[str, Any] | None:
    """The options of the cell with which our kernels do what this direction asks for; None where they cannot."""
    if node.attributes.get("clip") or node.attributes.get("input_forget"):
        return None
    names = [our_name(function) for function in functions]
    if node.op == "RNN":
        found = {"nonlinearity": names[0]}
    else:
        found = {"gate_activation": names[0], "activation": names[1]}
        if names[1] != names[-1]:  # of the candidate and of the cell's output
            return None
    known = CELLS[node.op.lower()].options
    if any(name not in known[option] for option, name in found.items()):
        return None
    usual = {name: value for name, value in found.items() if value != known[name][0]}
    return usual | ({"reset_after": bool(node.attributes.get("linear_before_reset", 0))} if node.op == "GRU" else {})


def our_name(function: recurrence.Activation) -> str | None:
    """What the cells here call an activation; a file has its numbers in float32."""
    for (name, numbers), ours in NAMES.items():
        if name == function.name and np.array_equal(np.array(numbers, "f4"), np.array(function.numbers, "f4")):
            return ours
    return None


def of_whole_numbers(matrix: Array, scale: Array) -> Int8:
    """The whole numbers of which the rows are, times their scales."""
    return Int8(np.rint(matrix / np.where(scale == 0, 1, scale)[:, None]).astype(np.int8), scale)


def on_kernel(op: str, weights: dict[str, Any], options: dict[str, Any]) -> Direction:
    """One direction, its weights packed once."""
    record = CELLS[op.lower()]
    order = [record.orders["onnx"].index(gate) for gate in record.gates]
    biases = np.split(weights["B"], 2) if "B" in weights else (None, None)
    given = {
        "weight_ih": reordered(weights["W"], order),
        "weight_hh": reordered(weights["R"], order),
        "bias_ih": reordered(biases[0], order),
        "bias_hh": reordered(biases[1], order),
        "weight_ch": reordered(weights.get("P"), [PEEPHOLES["onnx"].index(gate) for gate in PEEPHOLES["here"]]),
    }
    packed = getattr(kernels, op.lower()).stream([tuple(given.get(name) for name in record.weights)], 1, **options)
    forward = packed.forward
    return Direction(
        lambda x, states, lengths, reverse: forward(x, states, lengths=lengths, reverse=reverse), packed.step_from
    )


def reordered(array: Any, order: list[int]) -> Any:
    """The gates along the first axis in another order."""
    if array is None:
        return None
    if isinstance(array, Int8):
        return Int8(*(reordered(part, order) for part in array))
    gates = np.split(array, len(order))
    return np.concatenate([gates[k] for k in order])


MAKERS = {"RNN": make, "LSTM": make, "GRU": make}
