"""ONNX graphs being written: nodes, constants and names, and shapes in numbers and letters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .reading import package

OPSET, IR_VERSION = 17, 8  # of 2022: the first with LayerNormalization

Axes = tuple[int | str, ...]


class Value(NamedTuple):
    """A value of a graph: its name and its shape, letters where a length is free."""

    name: str
    shape: Axes


class Writer:
    """Nodes and constants of one graph.

    writer = Writer()
    y = writer.add("MatMul", x, writer.constant(weight))
    """

    def __init__(self, prefix: str = "") -> None:
        self._onnx = package("to_onnx")
        self._prefix = prefix
        self._count = 0
        self._kept: dict[tuple[Any, ...], str] = {}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def name(self, hint: str) -> str:
        """A name that nothing else has."""
        self._count += 1
        return f"{self._prefix}{hint}_{self._count}"

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; the name of its output, or a list of several."""
        names = [self.name(op) for _ in range(outputs)]
        self.nodes.append(self._onnx.helper.make_node(op, list(inputs), names, **attributes))
        return names if outputs > 1 else names[0]

    def constant(self, value: Any, dtype: Any = None, name: str = "constant") -> str:
        """A constant: an array of its own name, or numbers, of which equal ones are one."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size < 16 else (len(self.constants),)
        if key not in self._kept:
            self._kept[key] = self.name(name)
            proto = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), self._kept[key])
            self.constants.append(proto)
        return self._kept[key]

    def integers(self, *numbers: int) -> str:
        """A constant list of int64."""
        return self.constant(numbers, np.int64)

    def length(self, name: str, axis: int) -> str:
        """How long an axis is, (1,) int64."""
        return str(self.add("Shape", name, start=axis, end=axis + 1))

    def transposed(self, value: Value, *axes: int) -> Value:
        """The value with its axes in another order."""
        return Value(self.add("Transpose", value.name, perm=axes), tuple(value.shape[axis] for axis in axes))

    def graph(self, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
        """What has been written, as a GraphProto."""
        return self._onnx.helper.make_graph(self.nodes, name, inputs, outputs, self.constants)

    def value(self, name: str, shape: tuple[int | str | None, ...], dtype: Any) -> Any:
        """An input or output of a graph, as a ValueInfoProto. None: a length that the graph tells."""
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, kind, shape)

    def named(self, value: Value, name: str) -> None:
        """A value under a name that is promised."""
        self.nodes.append(self._onnx.helper.make_node("Identity", [value.name], [name]))


def steps_first(writer: Writer, x: Value, batch_first: bool) -> Value:
    """(T, N, ...) of a caller's array."""
    return writer.transposed(x, 1, 0, *range(2, len(x.shape))) if batch_first else x


def numbers(writer: Writer, name: str, axis: int) -> str:
    """0, 1, 2 and so on along an axis of a value: (T,) int64."""
    count = writer.add("Squeeze", writer.length(name, axis), writer.integers(0))
    return str(writer.add("Range", writer.constant(0, np.int64), count, writer.constant(1, np.int64)))


def valid(writer: Writer, x: Value, lengths: str) -> str:
    """Which steps of x (T, N, ...) are valid: (T, N, 1) booleans."""
    column = writer.add("Unsqueeze", numbers(writer, x.name, 0), writer.integers(1, 2))
    return str(writer.add("Less", column, writer.add("Unsqueeze", lengths, writer.integers(1))))


def zero(writer: Writer, dtype: Any) -> str:
    """The number 0."""
    return writer.constant(0, dtype)
