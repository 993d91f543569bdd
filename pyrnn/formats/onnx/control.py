"""ONNX' operators with graphs inside: If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import Node
from .program import Made, Program
from .reading import package

Prepare = Callable[[Any], Program]  # a graph of a node -> its program


def branch(node: Node, prepare: Prepare) -> Made:
    """If: the one or the other graph, neither of which has inputs."""
    programs = {name: prepare(graph) for name, graph in node.graphs.items()}
    captured = 0
    parts = {}
    for name, graph in node.graphs.items():  # in the order in which a program is given what they capture
        parts[name] = slice(captured, captured + len(graph.captured))
        captured += len(graph.captured)
    then, other = (programs[name] for name in ("then_branch", "else_branch"))
    of_then, of_other = (parts[name] for name in ("then_branch", "else_branch"))
    several = len(node.outputs) > 1

    def run(condition: Any, *around: Any) -> Any:
        results = then(around[of_then]) if condition else other(around[of_other])
        return results if several else results[0]

    return run


def _loop(node: Node, prepare: Prepare) -> Made:
    body, graph = prepare(node.graphs["body"]), node.graphs["body"]
    carried = len(graph.inputs) - 2
    if len(graph.outputs) < 1 + carried or len(node.inputs) > 2 + carried:
        raise ValueError(f"its body has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    several = len(node.outputs) > 1
    of_no_steps = [empty(value) for value in node.attributes["body"].output[1 + carried :]]

    def run(most: Any, condition: Any, *given: Any) -> Any:
        states, around = list(given[:carried]), given[carried:]
        limit = None if most is None else int(np.asarray(most).reshape(()))
        go_on = condition is None or bool(condition)
        rows: list[list[Any]] = [[] for _ in graph.outputs[1 + carried :]]
        k = 0
        while go_on and (limit is None or k < limit):
            again, *results = body((np.array(k, np.int64), np.array(True), *states, *around))
            states = results[:carried]
            for row, value in zip(rows, results[carried:], strict=True):
                row.append(value)
            go_on, k = bool(again), k + 1
        whole = (np.stack(row) if row else nothing for row, nothing in zip(rows, of_no_steps, strict=True))
        outputs = (*states, *whole)
        return outputs if several else outputs[0]

    places = (0, 1, *range(2, 2 + carried))
    return run, places


def _scan(node: Node, prepare: Prepare) -> Made:
    if node.opset < 9:
        raise ValueError(f"there is no Scan of opset {node.opset} here")
    body, graph = prepare(node.graphs["body"]), node.graphs["body"]
    scanned = node.attributes["num_scan_inputs"]
    carried = len(graph.inputs) - scanned
    made = len(graph.outputs) - carried
    if carried < 0 or made < 0 or len(node.inputs) != len(graph.inputs):
        raise ValueError(f"its body has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    backward = node.attributes.get("scan_input_directions") or [0] * scanned
    axes = node.attributes.get("scan_input_axes") or [0] * scanned
    turned = node.attributes.get("scan_output_directions") or [0] * made
    out_axes = node.attributes.get("scan_output_axes") or [0] * made
    several = len(node.outputs) > 1

    def run(*given: Any) -> Any:
        states, around = given[:carried], given[carried + scanned :]
        sequences = [np.moveaxis(x, axis, 0) for x, axis in zip(given[carried:], axes, strict=False)]
        sequences = [x[::-1] if back else x for x, back in zip(sequences, backward, strict=True)]
        if len({len(x) for x in sequences}) != 1:
            raise ValueError(f"its sequences have lengths {[len(x) for x in sequences]}")
        rows: list[list[Any]] = [[] for _ in range(made)]
        for step in zip(*sequences, strict=True):
            results = body((*states, *step, *around))
            states = results[:carried]
            for row, value in zip(rows, results[carried:], strict=True):
                row.append(value)
        if not rows or rows[0]:
            whole = [np.stack(r[::-1] if back else r, a) for r, back, a in zip(rows, turned, out_axes, strict=True)]
        else:  # a step on zeros tells the shapes
            results = body((*states, *(np.zeros(x.shape[1:], x.dtype) for x in sequences), *around))
            whole = [np.stack([r], a).take([], a) for r, a in zip(results[carried:], out_axes, strict=True)]
        outputs = (*states, *whole)
        return outputs if several else outputs[0]

    return run


def empty(value: Any) -> Any:
    """What a loop without a step gives of an output: nothing, of the dtype that is declared."""
    onnx = package("from_onnx")
    kind = value.type.tensor_type
    shape = [dim.dim_value for dim in kind.shape.dim]
    return np.zeros((0, *shape), onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else np.float32)


MAKERS: dict[str, Callable[[Node, Prepare], Made]] = {"If": branch, "Loop": _loop, "Scan": _scan}
