"""Nodes that become one: products with constants, what follows them, and normalisation by constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.checks import FLOAT_DTYPES, Array, quietly
from ...layers import fold
from .elementwise import MAKERS as FUNCTIONS
from .graph import Graph, Node, Values, alive

LINEAR = "pyrnn.Linear"  # x, weight (O, I), bias (O,)
SQUEEZED = "pyrnn.squeezed"  # an attribute of recurrent operators: their Y has no axis of directions
CONTINUED = "pyrnn.ContinuedConv"  # past, x, weight, bias -> y; past and x end to end
KERNEL_ACTIVATIONS = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softmax": "softmax", "LogSoftmax": "log_softmax",
}  # fmt: skip
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Softsign", "Gelu")


def fuse(graph: Graph, values: Values) -> None:
    """Changes the nodes of a graph, not what it computes but for rounding."""
    graph.nodes = [as_linear(node, values) for node in graph.nodes]
    for rule in (add_bias, norm_behind, norm_ahead, activate, squeeze):
        _follow(graph, values, rule)
    graph.nodes = continue_convolutions(graph.nodes)


def _follow(graph: Graph, values: Values, rule: Callable[[Node, Node, Values], bool]) -> None:
    """Put each node that can be into the one before it whose first output it alone reads, beside constants:
    rule(first, second, values)."""
    readers: dict[int, int] = dict.fromkeys(graph.outputs, 2)
    for node in graph.nodes:
        for value in node.reads():
            readers[value] = readers.get(value, 0) + 1
    makers: dict[int, Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        first = next((makers[value] for value in node.inputs if value in makers and readers[value] == 1), None)
        if first is not None and rule(first, node, values):
            first.outputs = [*node.outputs, *first.outputs[1:]]
            made = first
        else:
            kept.append(node)
            made = node
        if made.outputs[0] is not None:
            makers[made.outputs[0]] = made
    graph.nodes = alive(kept, graph.outputs)


def as_linear(node: Node, values: Values) -> Node:
    """A MatMul or Gemm whose right side is a constant as LINEAR, with the weights that the kernel takes."""
    weight = node.known(1) if node.op in ("MatMul", "Gemm") else None
    if weight is None or weight.ndim != 2 or weight.dtype not in FLOAT_DTYPES or node.known(0) is not None:
        return node
    given = node.attributes
    if given.get("transA", 0):
        return node
    if node.op == "MatMul" or not given.get("transB", 0):
        weight = weight.T
    bias = node.known(2)
    if node.has(2):
        bias = as_bias(bias, len(weight))
        if bias is None:
            return node
        bias = bias * bias.dtype.type(given.get("beta", 1.0))
    weight = np.array(weight * weight.dtype.type(given.get("alpha", 1.0)), order="C")
    parts = [weight] if bias is None else [weight, bias]
    inputs = [node.inputs[0], *(values.constant(part) for part in parts)]
    return Node(LINEAR, node.title, node.opset, values, inputs, node.outputs, {"rows": node.op == "Gemm"})


def as_bias(array: Array | None, outputs: int) -> Array | None:
    """A constant that is added to (..., O) as (O,), or None where it is no such one."""
    if array is None or array.size not in (1, outputs) or array.shape[-1:] not in ((array.size,), ()):
        return None
    return np.array(np.broadcast_to(array.reshape(-1), (outputs,)))


def add_bias(first: Node, second: Node, values: Values) -> bool:
    """LINEAR and a constant added to each row."""
    if first.op != LINEAR or second.op != "Add" or first.has(2) or "axis" in second.attributes:
        return False
    weight = first.known(1)
    given = second.known(0) if second.known(1) is None else second.known(1)
    if weight is None or given is None or given.ndim > 1 or given.dtype != weight.dtype:
        return False
    bias = as_bias(given, len(weight))
    if bias is not None:
        first.inputs.append(values.constant(bias))
    return bias is not None


def norm_behind(first: Node, second: Node, values: Values) -> bool:
    """A convolution or LINEAR and what a BatchNormalization does to its channels."""
    line, parts = _line(second), _weights(first)
    if line is None or parts is None or line[0].shape != parts[0].shape[:1]:
        return False
    _set(first, fold.behind(*parts, *line), values)
    return True


def norm_ahead(first: Node, second: Node, values: Values) -> bool:
    """A BatchNormalization, and a convolution without padding or LINEAR of what it makes."""
    line, parts = _line(first), _weights(second)
    groups, padding = second.attributes.get("group", 1), second.attributes.get("auto_pad", "NOTSET")
    if line is None or parts is None or not isinstance(groups, int) or groups < 1 or len(parts[0]) % groups:
        return False
    if padding not in ("NOTSET", "", "VALID") or any(second.attributes.get("pads", ())):
        return False
    if line[0].shape != (parts[0].shape[1] * groups,):
        return False
    second.inputs[0] = first.inputs[0]
    _set(second, fold.ahead(*parts, *line, groups), values)
    first.op, first.title, first.opset, first.attributes = second.op, second.title, second.opset, second.attributes
    first.inputs, first.proto = second.inputs, second.proto
    return True


@quietly
def _line(norm: Node) -> tuple[Array, Array] | None:
    """What a BatchNormalization multiplies by and adds, where that is known."""
    parts = [norm.known(k) for k in range(1, 5)]
    if norm.op != "BatchNormalization" or len(norm.outputs) > 1 or any(part is None for part in parts):
        return None
    given = norm.attributes
    if given.get("training_mode", 0) if norm.opset >= 14 else not given.get("is_test", 1):
        return None
    weight, bias, mean, variance = (np.asarray(part, np.float64) for part in parts)
    if len({part.shape for part in (weight, bias, mean, variance)}) > 1 or weight.ndim != 1:
        return None
    return fold.line(mean, variance, weight, bias, given.get("epsilon", 1e-5))


def _weights(node: Node) -> tuple[Array, Array] | None:
    """Weight and bias of a convolution, or of a LINEAR of rows, where they are known."""
    if node.op != "Conv" and not (node.op == LINEAR and node.attributes["rows"]):
        return None
    weight, bias = node.known(1), node.known(2)
    if weight is None or weight.ndim < 2 or weight.dtype not in FLOAT_DTYPES or (node.has(2) and bias is None):
        return None
    return weight, np.zeros(len(weight), weight.dtype) if bias is None else bias


@quietly
def _set(node: Node, parts: tuple[Array, Array], values: Values) -> None:
    dtype = node.known(1).dtype  # type: ignore[union-attr]
    node.inputs = [node.inputs[0], *(values.constant(part.astype(dtype)) for part in parts)]


def activate(first: Node, second: Node, values: Values) -> bool:
    """A convolution or LINEAR and a function of its results."""
    if first.op not in ("Conv", LINEAR) or "then" in first.attributes:
        return False
    if second.op in ("Softmax", "LogSoftmax") and first.op == LINEAR:  # over the last axis
        axis = second.attributes.get("axis", -1 if second.opset >= 13 else 1)
        if axis == -1 or (axis == 1 and first.attributes["rows"]):
            first.attributes = {**first.attributes, "then": second.op}
            return True
    if second.op not in ACTIVATIONS:
        return False
    first.attributes = {**first.attributes, "then": second.op, "function": FUNCTIONS[second.op](second)}
    return True


def squeeze(first: Node, second: Node, values: Values) -> bool:
    """A recurrent operator of one direction and what takes the axis of that away, as exporters do."""
    if first.op not in ("RNN", "LSTM", "GRU") or second.op != "Squeeze":
        return False
    told = second.known(1)
    axes = second.attributes.get("axes") if told is None else told.tolist()
    place = 2 if first.attributes.get("layout") else 1
    if axes != [place] or first.attributes.get("direction") == "bidirectional" or SQUEEZED in first.attributes:
        return False
    first.attributes = {**first.attributes, SQUEEZED: 1}
    return True


def is_kernel_convolution(node: Node) -> bool:
    """Whether a Conv is one over one axis that the kernel does."""
    weight = node.known(1)
    return (
        node.op == "Conv" and weight is not None and weight.ndim == 3 and weight.dtype in FLOAT_DTYPES
        and (node.known(2) is not None or not node.has(2)) and all(weight.shape)
    )  # fmt: skip


def continue_convolutions(nodes: list[Node]) -> list[Node]:
    """A convolution of what a streaming model kept of the past and of what comes, put end to end for it."""
    joins = {node.outputs[0]: node for node in nodes if node.op == "Concat" and len(node.inputs) == 2}
    result = list(nodes)
    for node in nodes:
        join = joins.get(node.inputs[0]) if node.inputs else None
        if join is None or not is_kernel_convolution(node) or join.attributes.get("axis") not in (2, -1):
            continue
        given = node.attributes
        if given.get("then", "Relu") not in KERNEL_ACTIVATIONS or "auto_pad" in given or given.get("group", 1) != 1:
            continue
        del joins[join.outputs[0]]  # once
        inputs, outputs = [*join.inputs, *node.inputs[1:]], [*node.outputs, *join.outputs]
        both = Node(CONTINUED, node.title, node.opset, node.values, inputs, outputs, node.attributes)
        result[result.index(join)] = both
        result.remove(node)
    return result
