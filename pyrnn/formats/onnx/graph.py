"""A model's graph as numbered values and nodes: names resolved, constants computed, what nobody reads left out."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ...core.checks import Array, cut, shown
from .reading import package, tensor

SUBGRAPHS = ("If", "Loop", "Scan")  # the operators whose graphs see the values around them


Lengths = tuple[int | None, ...]  # of a shape; None where it depends on the run


class Values:
    """The values of a model, by number, and what is known of them before any run."""

    def __init__(self, folders: tuple[str, ...], allowance: int) -> None:
        self.folders = folders
        self.allowance = allowance  # bytes that constants may still grow by
        self._count = 0
        self.constants: dict[int, Array] = {}
        self.shapes: dict[int, Lengths] = {}  # what holds at every run
        self.contents: dict[int, Lengths] = {}  # of results of Shape, where they are not constants

    def new(self) -> int:
        """A value that a run gives."""
        self._count += 1
        return self._count

    def constant(self, array: Array) -> int:
        """A value that is known."""
        value = self.new()
        array.flags.writeable = False
        self.constants[value] = array
        return value


class Scope:
    """Names of a graph and of those around it."""

    def __init__(self, around: Scope | None = None) -> None:
        self._around = around
        self._values: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __setitem__(self, name: str, value: int) -> None:
        self._values[name] = value

    def find(self, name: str) -> int | None:
        """The value of a name; None where there is none."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._values:
                return scope._values[name]
            scope = scope._around
        return None


class Node:
    """An operator with what it reads and gives: numbers of values, None where an input or output is absent."""

    def __init__(
        self, op: str, title: str, opset: int, values: Values, inputs: list[int | None], outputs: list[int | None],
        attributes: dict[str, Any],
    ) -> None:  # fmt: skip
        self.op = op  # with its domain, unless that is ONNX' own
        self.title = title
        self.opset = opset
        self.values = values
        self.inputs = inputs
        self.outputs = outputs
        self.attributes = attributes
        self.graphs: dict[str, Graph] = {}
        self.proto: Any = None
        self.quiet = False  # what it runs has no word to say about infinity and NaN

    def known(self, place: int) -> Array | None:
        """The input there, if it is a constant."""
        value = self.inputs[place] if place < len(self.inputs) else None
        return None if value is None else self.values.constants.get(value)

    def has(self, place: int) -> bool:
        """Whether there is an input."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def forget(self) -> None:
        """Let the file's messages go, which would keep all of it in memory."""
        self.proto = None
        self.attributes = {name: value for name, value in self.attributes.items() if not hasattr(value, "node")}

    def reads(self) -> Iterator[int]:
        """The values it needs."""
        yield from (value for value in self.inputs if value is not None)
        for graph in self.graphs.values():
            yield from graph.captured


class Graph:
    """A graph, or one inside a node. `nodes` are in an order in which they can run."""

    def __init__(self, inputs: list[int], outputs: list[int], nodes: list[Node], captured: list[int]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.nodes = nodes
        self.captured = captured  # values of the graphs around it


class Reader:
    """Makes the graphs of one model."""

    def __init__(self, opsets: dict[str, int], values: Values, fold: Any) -> None:
        self.opsets = opsets
        self.values = values
        self.fold = fold  # fold(node) -> its results if they can be known now, else None

    def graph(self, proto: Any, scope: Scope, shapes: dict[str, Lengths] | None = None) -> Graph:
        """The graph of a GraphProto; names that are not its own are those of `scope`, which it adds its own to.
        shapes: what is known of those of its values."""
        values, own = self.values, scope
        known = shapes or {}
        if len(proto.sparse_initializer):
            raise ValueError("it has sparse initializers, which are not read")
        for initializer in proto.initializer:
            own[initializer.name] = values.constant(tensor(initializer, values.folders))
        inputs = []
        for value in proto.input:
            if value.name not in own:
                inputs.append(values.new())
                own[value.name] = inputs[-1]
                if value.name in known:
                    values.shapes[inputs[-1]] = known[value.name]
        nodes: list[Node] = []
        self._add(proto, own, nodes, known)
        outputs = [self._found(own, value.name, "the output") for value in proto.output]
        nodes = alive(nodes, outputs)
        made = {value for node in nodes for value in node.outputs if value is not None}
        made.update(inputs)
        read = dict.fromkeys([*(value for node in nodes for value in node.reads()), *outputs])
        captured = [value for value in read if value not in made and value not in values.constants]
        return Graph(inputs, outputs, nodes, captured)

    def _add(self, proto: Any, scope: Scope, nodes: list[Node], shapes: dict[str, Lengths]) -> None:
        """The nodes of a GraphProto at the end of `nodes`."""
        for node_proto in ordered(proto.node, scope):
            node = self._node(node_proto, scope)
            results = self._resolved(node, node_proto, scope, nodes)
            if results is None:
                nodes.append(node)
                results = node.outputs
            for name, value in zip(node_proto.output, results, strict=False):
                if name and value is not None:
                    scope[name] = value
                    if name in shapes:
                        self.values.shapes[value] = shapes[name]

    def _node(self, proto: Any, scope: Scope) -> Node:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        op = f"{domain}.{proto.op_type}" if domain else proto.op_type
        title = f"node {shown(proto.name)} ({op})" if proto.name else f"node {op} that gives {shown(_first(proto))}"
        if domain not in self.opsets:
            raise ValueError(f"{title}: the model names no opset of the domain {shown(domain)}")
        inputs = [self._found(scope, name, title) if name else None for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        outputs = [self.values.new() if name else None for name in proto.output]
        try:
            attributes = {attribute.name: self._attribute(attribute) for attribute in proto.attribute}
        except Exception as error:
            raise ValueError(f"{title}: {cut(error) or type(error).__name__}") from error
        node = Node(op, title, self.opsets[domain], self.values, inputs, outputs, attributes)
        node.proto = proto
        return node

    def _attribute(self, proto: Any) -> Any:
        onnx = package("from_onnx")
        if proto.ref_attr_name:
            raise ValueError(f"attribute {shown(proto.name)} is that of a function, and there is none around it")
        value = onnx.helper.get_attribute_value(proto)
        if proto.type == onnx.AttributeProto.TENSOR:
            return tensor(value, self.values.folders)
        if proto.type == onnx.AttributeProto.STRING:
            return value.decode()
        if proto.type == onnx.AttributeProto.STRINGS:
            return [entry.decode() for entry in value]
        return list(value) if proto.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value

    def _found(self, scope: Scope, name: str, who: str) -> int:
        value = scope.find(name)
        if value is None:
            raise ValueError(f"{who} reads {shown(name)}, which nothing gives")
        return value

    def _resolved(self, node: Node, proto: Any, scope: Scope, nodes: list[Node]) -> list[int | None] | None:
        """The values that its outputs are, where the node itself need not be; graphs inside it are read."""
        values = self.values
        if node.op == "If" and len(node.inputs) == 1 and node.known(0) is not None:
            condition = node.known(0)
            if condition is None or condition.size != 1:
                raise ValueError(f"{node.title}: its condition is not one value")
            branch = node.attributes["then_branch" if condition.item() else "else_branch"]
            inner = Scope(scope)
            for initializer in branch.initializer:
                inner[initializer.name] = values.constant(tensor(initializer, values.folders))
            self._add(branch, inner, nodes, {})
            return [self._found(inner, value.name, node.title) for value in branch.output]
        if node.op in SUBGRAPHS:
            for name, attribute in node.attributes.items():
                if hasattr(attribute, "node"):
                    node.graphs[name] = self.graph(attribute, Scope(scope))
            return None
        if node.op == "Identity" and node.has(0):
            return node.inputs[:1]
        if node.op == "Dropout" and is_idle(node) and len(node.outputs) == 1:
            return node.inputs[:1]
        if node.op == "Constant":
            return [values.constant(constant(node))]
        lengths = self._lengths(node)
        if lengths is not None and None not in lengths:
            array = np.array(lengths, np.int64)
            scalar = node.op == "Gather" and node.known(1).ndim == 0  # type: ignore[union-attr]
            return [values.constant(array.reshape(()) if scalar else array)]
        if lengths is not None and node.outputs[0] is not None:
            values.contents[node.outputs[0]] = lengths
        results = self.fold(node)
        if results is None:
            return None
        return [values.constant(np.asarray(result)) for result in results]

    def _lengths(self, node: Node) -> Lengths | None:
        """What is known of a Shape, or of lengths taken from one."""
        first = node.inputs[0] if node.inputs else None
        if first is None:
            return None
        if node.op == "Shape" and first in self.values.shapes:
            return self.values.shapes[first][slice(node.attributes.get("start", 0), node.attributes.get("end"))]
        content, places = self.values.contents.get(first), node.known(1)
        if node.op != "Gather" or content is None or places is None or places.ndim > 1:
            return None
        chosen = [int(place) for place in places.reshape(-1)]
        if any(not -len(content) <= place < len(content) for place in chosen):
            return None
        return tuple(content[place] for place in chosen)


def constant(node: Node) -> Array:
    """What a Constant holds. ValueError for what is no tensor of numbers or strings."""
    kinds: dict[str, Any] = {
        "value": None, "value_float": np.float32, "value_int": np.int64, "value_floats": np.float32,
        "value_ints": np.int64, "value_string": object, "value_strings": object,
    }  # fmt: skip
    for name, dtype in kinds.items():
        if name in node.attributes:
            return np.array(node.attributes[name], dtype)
    raise ValueError(f"{node.title}: it has {cut(', '.join(node.attributes)) or 'no value'}, which is not read")


def is_idle(node: Node) -> bool:
    """Whether a Dropout does nothing, as in every inference."""
    if node.opset < 7:
        return bool(node.attributes.get("is_test", 0))
    training = node.known(2)
    return not node.has(2) or (training is not None and not training.any())


def _first(proto: Any) -> str:
    return next((name for name in proto.output if name), "nothing")


def ordered(protos: Iterable[Any], scope: Scope) -> list[Any]:
    """The nodes in an order in which each comes after those it reads: theirs, where it is one. ValueError for names
    given twice and for nodes that wait for each other."""
    nodes = list(protos)
    giver: dict[str, int] = {}
    for k, node in enumerate(nodes):
        for name in node.output:
            if name and (name in giver or name in scope):
                raise ValueError(f"{shown(name)} is given twice")
            if name:
                giver[name] = k
    needs = [{giver[name] for name in names_read(node) if name in giver} for node in nodes]
    if all(max(need, default=-1) < k for k, need in enumerate(needs)):
        return nodes
    waiting: list[list[int]] = [[] for _ in nodes]
    for k, need in enumerate(needs):
        for other in need:
            waiting[other].append(k)
    missing = [len(need) for need in needs]
    ready = [k for k, count in enumerate(missing) if not count]
    order = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for other in waiting[k]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, other)
    if len(order) < len(nodes):
        done = set(order)
        left = [shown(node.name or _first(node)) for k, node in enumerate(nodes) if k not in done]
        raise ValueError(f"its nodes wait for each other: {cut(', '.join(left))}")
    return [nodes[k] for k in order]


def names_read(proto: Any) -> set[str]:
    """The names a node needs, those of the graphs around it that its own graphs read among them."""
    names = {name for name in proto.input if name}
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            names |= names_around(graph)
    return names


def names_around(graph: Any) -> set[str]:
    """The names a graph reads that are not its own."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own.update(name for node in graph.node for name in node.output)
    read = {value.name for value in graph.output}
    for node in graph.node:
        read |= names_read(node)
    return read - own


def alive(nodes: list[Node], outputs: Iterable[int]) -> list[Node]:
    """The nodes without those whose results nobody needs; outputs nobody needs become None."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.isdisjoint(value for value in node.outputs if value is not None):
            continue
        if node.op not in SUBGRAPHS:
            node.outputs = [value if value in needed else None for value in node.outputs]
        needed.update(node.reads())
        kept.append(node)
    return kept[::-1]
