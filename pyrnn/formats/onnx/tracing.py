"""Equations in NumPy as graphs of ONNX: arrays without numbers, which remember what is made of them.

What the reference's step of a cell (pyrnn/reference/) makes of such arrays says which nodes its graph has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .writing import Writer

OPERATORS: dict[Any, str] = {
    np.add: "Add", np.subtract: "Sub", np.multiply: "Mul", np.divide: "Div", np.power: "Pow", np.matmul: "MatMul",
    np.maximum: "Max", np.minimum: "Min", np.negative: "Neg", np.absolute: "Abs", np.sign: "Sign", np.sqrt: "Sqrt",
    np.exp: "Exp", np.log: "Log", np.tanh: "Tanh", np.sin: "Sin", np.cos: "Cos",
}  # fmt: skip
TRUTHS: dict[Any, str] = {
    np.equal: "Equal", np.less: "Less", np.less_equal: "LessOrEqual", np.greater: "Greater",
    np.greater_equal: "GreaterOrEqual", np.bitwise_and: "And", np.bitwise_or: "Or", np.invert: "Not",
    np.isinf: "IsInf", np.isnan: "IsNaN",
}  # fmt: skip


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """An array (N, width) that an operator makes of `inputs`, which are such or numbers. What has no form here is a
    TypeError or AttributeError where it is done."""

    __hash__ = object.__hash__
    __match_args__ = ("op", "inputs")

    def __init__(self, op: str, *inputs: Any, truths: bool = False, **attributes: Any) -> None:
        made = [value for value in inputs if isinstance(value, Traced)]
        self.op, self.inputs, self.attributes = op, inputs, attributes
        self.real: Any = made[0].real  # the dtype of numbers
        self.dtype = np.dtype(bool) if truths else self.real
        self.in_loop: bool = any(value.in_loop for value in made)
        self.written: Any = ""  # what `Writer.add` gave

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        match ufunc, *inputs:
            case np.not_equal, a, b:
                return ~(a == b)
            case np.log1p, a:
                return np.log(1 + a)
            case np.divide, int(1), Traced("Add", (int(1), Traced("Exp", (Traced("Neg", (a,)),)))):
                return Traced("Sigmoid", a)
        if method != "__call__" or options or ufunc not in OPERATORS | TRUTHS:
            raise TypeError(f"numpy.{ufunc.__name__}{' in place' if options else ''} is not known")
        return Traced((OPERATORS | TRUTHS)[ufunc], *inputs, truths=ufunc in TRUTHS)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function not in FUNCTIONS:
            raise TypeError(f"numpy.{function.__name__} is not known")
        return FUNCTIONS[function](*arguments, **options)

    def __bool__(self) -> bool:
        raise TypeError("a branch that depends on numbers")

    def mean(self, **options: Any) -> Traced:
        """As an array's."""
        return _mean(self, **options)


class Given(Traced):
    """An array that the graph has already: a state, in the loop, or x."""

    def __init__(self, name: str, dtype: Any, in_loop: bool) -> None:
        self.written, self.real, self.dtype, self.in_loop = name, dtype, dtype, in_loop


def _over_units(name: str, axis: int) -> None:
    if axis not in (1, -1):
        raise TypeError(f"numpy.{name} along axis {axis} is not known")


def _split(a: Traced, sections: int, axis: int = 0) -> list[Traced]:
    _over_units("split", axis)
    whole = Traced("Split", a, axis=-1, outputs=sections)
    return [Traced("", whole, place=k) for k in range(sections)]


def _mean(a: Traced, axis: int = 0, keepdims: bool = False) -> Traced:
    _over_units("mean", axis)
    return Traced("ReduceMean", a, axes=[-1], keepdims=int(keepdims))


FUNCTIONS: dict[Any, Any] = {
    np.split: _split, np.mean: _mean,
    np.where: lambda condition, a, b: Traced("Where", condition, a, b),
    np.clip: lambda a, low, high: Traced("Clip", a, low, high),
}  # fmt: skip


class Step:
    """The graph of a step inside a loop: what the states have part in. All else is made outside, of all steps at once,
    and scanned."""

    def __init__(self, outside: Writer, inside: Writer, dtype: Any) -> None:
        self._outside, self._inside, self._dtype = outside, inside, dtype
        self.scanned: dict[str, str] = {}  # what is scanned: its name inside
        self.inputs: list[Any] = []  # the declarations of these

    def name(self, value: Any) -> str:
        """Of a value, written where it is not yet, inside."""
        if not isinstance(value, Traced):
            return self._inside.constant(value, self._dtype)
        name: str = self._written(value)
        if value.in_loop:
            return name
        if name not in self.scanned:
            self.scanned[name] = self._inside.name("scanned")
            self.inputs.append(self._inside.value(self.scanned[name], ("N", None), value.dtype))
        return self.scanned[name]

    def _written(self, value: Any) -> Any:
        if not isinstance(value, Traced):
            return self._outside.constant(value, self._dtype)
        if not value.written:
            if value.op:
                writer, name = (self._inside, self.name) if value.in_loop else (self._outside, self._written)
                value.written = writer.add(value.op, *map(name, value.inputs), **value.attributes)
            else:
                value.written = self._written(value.inputs[0])[value.attributes["place"]]
        return value.written
