"""Which nodes of constants are computed when a model is read: those whose results are known to be small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.checks import Array
from .graph import Node
from .program import Made

Size = Callable[[Node, list[Any]], int]


def all_inputs(node: Node, arrays: list[Any]) -> int:
    """Of a result that has no more numbers than all inputs together."""
    return sum(array.size for array in arrays if array is not None)


def broadcast(node: Node, arrays: list[Any]) -> int:
    """Of a result of the shape that the inputs broadcast to."""
    shapes = [array.shape for array in arrays if array is not None]
    return math.prod(np.broadcast_shapes(*shapes))


def chosen(node: Node, arrays: list[Any]) -> int:
    """Of whole rows of the first input, as many as the second has numbers."""
    axis = node.attributes.get("axis", 0)
    return int(arrays[1].size * (arrays[0].size // max(arrays[0].shape[axis], 1)))


def shaped(place: int) -> Size:
    """Of a result whose shape is an input, or at least that."""

    def size(node: Node, arrays: list[Any]) -> int:
        target = [max(int(n), 1) for n in arrays[place].reshape(-1)]
        return math.prod(target) * (arrays[0].size if place else 1)

    return size


def counted(node: Node, arrays: list[Any]) -> int:
    """Of a Range."""
    start, limit, delta = (float(array.reshape(())) for array in arrays)
    return max(math.ceil((limit - start) / delta), 0)


SIZES: dict[str, Size] = dict.fromkeys(
    ("Abs", "Neg", "Sqrt", "Exp", "Log", "Floor", "Ceil", "Round", "Reciprocal", "Not", "Cast", "Shape", "Size",
     "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "ReduceSum", "ReduceProd",
     "ReduceMax", "ReduceMin", "ReduceMean", "GatherElements", "GatherND", "ScatterND", "ScatterElements", "CastLike",
     "DequantizeLinear", "NonZero", "Relu", "Sigmoid", "Tanh", "Clip", "CumSum", "Constant"),
    all_inputs,
)  # fmt: skip
SIZES |= dict.fromkeys(
    ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual",
     "GreaterOrEqual", "Where", "Min", "Max", "Sum"),
    broadcast,
)  # fmt: skip
SIZES |= {"ConstantOfShape": shaped(0), "Expand": shaped(1), "Tile": shaped(1), "Gather": chosen, "Range": counted}


def fold(node: Node, make: Callable[[Node], Made]) -> list[Array] | None:
    """What a node gives, if that is known before any run, and if it leaves the memory that constants may take."""
    arrays = [None if value is None else node.values.constants.get(value) for value in node.inputs]
    size = SIZES.get(node.op)
    if size is None or any(array is None and node.has(k) for k, array in enumerate(arrays)):
        return None
    try:
        function = make(node)
        if size(node, arrays) * 8 > node.values.allowance:
            return None
        run, taken = function if isinstance(function, tuple) else (function, range(len(node.inputs)))
        with np.errstate(all="ignore"):
            found = run(*(arrays[k] if k < len(arrays) else None for k in taken))
    except Exception:  # what is wrong with it is said when it runs, if it ever does
        return None
    results = [np.asarray(result) for result in (found if len(node.outputs) > 1 else (found,))]
    node.values.allowance -= sum(result.nbytes for result in results)
    return results
