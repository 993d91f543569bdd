"""From a ModelProto to a program: the graph is read, its constants computed, its nodes fused and made functions."""

from __future__ import annotations

import contextlib
import importlib
import math
from typing import Any

from ...core.checks import cut, shown
from . import attention, control, elementwise, norms, products, quantized, recurrent, reference, shapes
from .folding import fold
from .fusing import fuse
from .graph import Graph, Lengths, Node, Reader, Scope, Values
from .program import Made, Program
from .reading import package

MAKERS = {
    **elementwise.MAKERS, **shapes.MAKERS, **norms.MAKERS, **products.MAKERS, **recurrent.MAKERS, **attention.MAKERS,
    **quantized.MAKERS,
}  # fmt: skip
ROOM = 1 << 20  # bytes that constants of any model may take beside those of its file


def prepared(proto: Any, values: Values) -> tuple[Graph, Program]:
    """The graph of a model and its program. ValueError that names the node for what cannot run."""
    opsets = {("" if opset.domain == "ai.onnx" else opset.domain): opset.version for opset in proto.opset_import}
    graph = Reader(opsets, values, lambda node: fold(node, make)).graph(proto.graph, Scope(), shapes_of(proto))
    return graph, program(graph, values, [value.name for value in proto.graph.output])


FEW = 64  # numbers of a constant that may be a shape


def shapes_of(proto: Any) -> dict[str, Lengths]:
    """What the onnx package infers of the shapes of a model's values, from those of its inputs, which every call is
    held to; nothing that the file claims of other values."""
    onnx = package("from_onnx")
    bare = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    graph = bare.graph
    graph.name = "shapes"
    named = {initializer.name for initializer in proto.graph.initializer}
    graph.input.extend(value for value in proto.graph.input if value.name not in named)
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:  # as some write what is free
                dim.ClearField("dim_value")

    def declare(name: str, tensor: Any) -> None:
        graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))

    for node in proto.graph.node:
        if node.op_type == "Constant" and node.ByteSize() > 16 * FEW and node.attribute[0].HasField("t"):
            declare(node.output[0], node.attribute[0].t)
        else:
            graph.node.append(node)
    for initializer in proto.graph.initializer:
        if math.prod(initializer.dims) <= FEW:
            graph.initializer.append(initializer)
        else:
            declare(initializer.name, initializer)
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in proto.graph.output)
    try:
        inferred = importlib.import_module("onnx.shape_inference").infer_shapes(bare).graph
    except Exception:  # then nothing is known
        return {}
    found: dict[str, Lengths] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and kind.HasField("shape"):
            lengths = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
            found[value.name] = tuple(lengths)
    return found


def program(graph: Graph, values: Values, names: list[str] | None = None) -> Program:
    """A graph, of a model, whose outputs have names, or inside a node, as a program."""
    fuse(graph, values)
    return Program(graph, values, make, names)


MOST_AXES = 64  # of an array of NumPy's
QUIET = {
    "Concat", "Split", "Slice", "Gather", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape", "Expand",
    "Tile", "Pad", "ConstantOfShape", "Relu", "Sigmoid",
}  # fmt: skip


def make(node: Node) -> Made:
    """The function of a node. ValueError that names it."""
    node.quiet = node.op in QUIET
    try:
        axis = node.attributes.get("axis", 0)
        if not isinstance(axis, int) or abs(axis) > MOST_AXES:  # of which indices would be made
            raise ValueError(f"axis is {shown(axis)}")
        if node.op in control.MAKERS:
            return control.MAKERS[node.op](node, lambda graph: program(graph, node.values))
        if node.op in MAKERS:
            with contextlib.suppress(NotImplementedError):
                made: Made = MAKERS[node.op](node)
                return made
        return reference.make(node)
    except Exception as error:
        raise ValueError(f"{node.title}: {cut(error) or type(error).__name__}") from error
