"""Every other operator: by the implementation that the onnx package has of it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ...core.checks import cut
from .graph import Node, names_around
from .program import Made
from .reading import package


def make(node: Node) -> Made:
    """Runs the node by onnx.reference. ValueError where that does not know it either."""
    onnx = package("from_onnx")
    domain, _, _ = node.op.rpartition(".")
    for attribute in node.proto.attribute:
        if attribute.HasField("g") and names_around(attribute.g):
            raise ValueError("its graph reads values around it, which is done for If, Loop and Scan")
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    inputs = [f"i{k}" if value is not None else "" for k, value in enumerate(node.inputs)]
    outputs = [f"o{k}" if name else "" for k, name in enumerate(node.proto.output)]
    del proto.input[:], proto.output[:]
    proto.input.extend(inputs)
    proto.output.extend(outputs)
    given, wanted = [name for name in inputs if name], [name for name in outputs if name]
    values = [[onnx.ValueInfoProto(name=name) for name in names] for names in (given, wanted)]
    graph = onnx.helper.make_graph([proto], "node", *values)
    try:
        evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(
            graph, opsets={domain: node.opset, "": _default(onnx, node)}
        )
    except Exception as error:
        raise ValueError(
            f"there is no {node.op} of opset {node.opset} here, nor in the reference implementation of "
            f"the onnx package ({cut(error) or type(error).__name__})"
        ) from error
    places = tuple(k for k, name in enumerate(inputs) if name)

    def run(*arrays: Any) -> Any:
        feeds = {name: np.asarray(x) if isinstance(x, np.generic) else x for name, x in zip(given, arrays, strict=True)}
        found = iter(evaluator.run(wanted, feeds))
        results = tuple(next(found) if name else None for name in outputs)
        return results if len(outputs) > 1 else results[0]

    return run, places


def _default(onnx: Any, node: Node) -> int:
    """The opset of ONNX' own operators, into which those of other domains may be taken apart."""
    opset: int = node.opset if "." not in node.op else onnx.defs.onnx_opset_version()
    return opset
