"""Models of ONNX files as functions of arrays, and streams of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from ...core.checks import Array, any_array, cut, numbers_array, shape_text, shown
from . import reading
from .fusing import CONTINUED, LINEAR
from .graph import Graph, Values
from .preparing import ROOM, prepared

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Entry(NamedTuple):
    """An input or output: its name, its shape (a name, or None, where a length is free; None where all of it is), its
    dtype (None where it is no array)."""

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: np.dtype[Any] | None

    def __str__(self) -> str:
        shape = "" if self.shape is None else " " + shape_text(*("?" if n is None else n for n in self.shape))
        return f"{self.name}{shape} {self.dtype or 'object'}"


def from_onnx(source: Any) -> OnnxModel:
    """The model of an ONNX file, ready to run: a path, the bytes of a file, or a ModelProto.

    Recurrent nodes, products with constants, convolutions and attention run on the kernels, everything else on NumPy
    or, what is rare, on the reference implementation of the onnx package; any graph, that is, whose operators one of
    these knows. What cannot run is a ValueError that names the node. Arrays outside the file are read from its folder
    alone. OSError and ValueError, with the name of the file, for one that is missing, damaged, or newer than the onnx
    package. ImportError without that.

        model = pyrnn.from_onnx("model.onnx")
        y = model(x)["y"]
    """
    proto, name, folders = reading.read(source)
    with reading.naming(name):
        return OnnxModel(proto, name, folders)


class OnnxModel:
    """A model of an ONNX file; made by `from_onnx`.

    `inputs` and `outputs` are lists of what it takes and gives: name, shape, dtype. Any number of threads can call it
    at once. TypeError and ValueError for what the graph does not take.

        model = pyrnn.from_onnx("model.onnx")
        y = model(x)["y"]  # of a model with one input
        y = model(x=x)["y"]  # by their names
    """

    inputs: list[Entry]
    outputs: list[Entry]

    def __init__(self, proto: Any, name: str, folders: tuple[str, ...]) -> None:
        known = {initializer.name for initializer in proto.graph.initializer}
        self.inputs = [entry(value) for value in proto.graph.input if value.name not in known]
        self.outputs = [entry(value) for value in proto.graph.output]
        for kind, entries in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len({one.name for one in entries}) < len(entries):
                raise ValueError(f"two of its {kind} have the same name")
        values = Values(folders, ROOM + 4 * proto.ByteSize())
        graph, self._program = prepared(proto, values)
        quietly = np.errstate(all="ignore")  # as the kernels are
        self._run = self._program if self._program.quiet else quietly(self._program)
        self._loose = loose([one.name for one in self.outputs], graph, values)
        values.constants.clear()  # functions have what they need of them
        self._file = name

    def __call__(self, /, *given: ArrayLike, **named: ArrayLike) -> dict[str, Array]:
        """The outputs by name, of one input by position or of all by name: names that are no words of Python go as
        model(**{"input.1": x}). Arrays are converted to the dtype that the model declares, but for floats to integers.
        TypeError and ValueError for inputs that are missing, unknown or of a wrong dtype or shape, and ValueError,
        with the name of the node, for what goes wrong inside.

            y = model(x)["y"]
        """
        if given:
            named = self._by_position(given, named, self.inputs)
        results: dict[str, Array] = self._run(self._arrays(named))
        finish(results, self._loose)
        return results

    def stream(self, state: Mapping[str, str], **start: ArrayLike) -> OnnxStream:
        """The model step by step, where its state is an input and an output: state={"h_in": "h_out"} says which output
        is which input of the next step. start: by the names of inputs the first states, and what other inputs are at
        every step. A state that is not given is zeros, which takes a shape that the model declares, letters of which
        others may tell (ValueError).

            stream = model.stream(state={"h": "h_out", "c": "c_out"})
            y_t = stream.step(x=x_t)["y"]
        """
        return OnnxStream(self, state, start)

    def __repr__(self) -> str:
        return f"OnnxModel of {self._file}: {', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"

    def __copy__(self) -> OnnxModel:
        return self  # nothing of it changes

    def __deepcopy__(self, memo: Any) -> OnnxModel:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{CALL}: a model cannot be pickled; from_onnx makes it again")

    def _by_position(self, given: tuple[Any, ...], named: dict[str, Any], entries: list[Entry]) -> dict[str, Any]:
        if len(given) > 1 or len(entries) != 1 or named:
            names = cut(", ".join(one.name for one in entries))
            raise TypeError(f"{CALL}: {len(given)} arrays came by position; it takes {names} by name")
        return {entries[0].name: given[0]}

    def _arrays(self, named: dict[str, Any]) -> list[Any]:
        """The inputs in their order, checked."""
        arrays: list[Any] = [None] * len(self.inputs)
        fill(arrays, enumerate(self.inputs), named)
        if len(named) > len(arrays):
            raise unknown(named, self.inputs)
        return arrays


MISSING = object()
ndarray = np.ndarray


CALL = "OnnxModel"


def fill(arrays: list[Any], places: Iterable[tuple[int, Entry]], named: dict[str, Any]) -> None:
    """Put what came for inputs into their places, checked."""
    for place, one in places:
        value = named.get(one.name, MISSING)
        if type(value) is ndarray and value.dtype is one.dtype and value.shape == one.shape:
            arrays[place] = value
        elif value is MISSING:
            raise TypeError(f"{CALL}: {shown(one.name)} is missing, which is {one}")
        else:
            arrays[place] = taken(one, value)


def unknown(named: dict[str, Any], entries: list[Entry]) -> TypeError:
    """The error where something came that is no input."""
    name = next(name for name in named if all(name != one.name for one in entries))
    return TypeError(f"{CALL}: there is no input {shown(name)}; there are {cut(', '.join(map(str, entries)))}")


def finish(results: dict[str, Any], places: list[tuple[str, bool]]) -> None:
    """Make results the caller's own: arrays that lie plain, copies where their memory may be another's."""
    for name, copied in places:
        x = results[name]
        if copied or type(x) is not ndarray or not x.flags.c_contiguous:
            results[name] = own(x)


def own(x: Any) -> Any:
    """An array in memory of its own, which lies plain."""
    return np.array(x, order="C") if isinstance(x, (ndarray, np.generic)) else x


def nothing(call: str, one: Entry, letters: Mapping[Any, int]) -> Array:
    """The zeros that a state is at first; letters of shapes whose lengths are known."""
    shape = [n if isinstance(n, int) else letters.get(n) for n in ((None,) if one.shape is None else one.shape)]
    if one.dtype is None or None in shape:
        raise ValueError(f"{call}: the shape of {one} is not known: give its first state, {one.name}=...")
    return np.zeros(shape, one.dtype)


def entry(value: Any) -> Entry:
    """A ValueInfoProto."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.elem_type:
        return Entry(value.name, None, None)
    dtype = np.dtype(reading.package("from_onnx").helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if not kind.HasField("shape"):
        return Entry(value.name, None, dtype)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
        for dim in kind.shape.dim
    )
    return Entry(value.name, shape, dtype)


def taken(one: Entry, value: Any) -> Any:
    """What came for an input, as its array; errors name the input."""
    if one.dtype is None:
        return value
    kind = one.dtype.kind
    if kind in "fV":
        array = numbers_array(CALL, one.name, value)
    elif kind == "O":
        array = np.asarray(value, object)
    else:
        array = any_array(CALL, one.name, value)
        if array.dtype.kind != kind and not (kind in "iu" and array.dtype.kind in "iu"):
            raise TypeError(f"{CALL}: {one.name} has dtype {array.dtype}, expected {one.dtype}")
        if kind in "iu" and array.size and array.dtype != one.dtype:
            limits = np.iinfo(one.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"{CALL}: {one.name} holds more than {one.dtype} can")
    array = array.astype(one.dtype, copy=False)
    shape = one.shape
    if shape is not None and (
        array.ndim != len(shape) or any(isinstance(n, int) and n != m for n, m in zip(shape, array.shape, strict=True))
    ):
        expected = shape_text(*("?" if n is None else n for n in shape))
        raise ValueError(f"{CALL}: {one.name} has shape {array.shape}, expected {expected}")
    return array


# ---- whose memory a result is

FRESH = {
    "Add", "Sub", "Mul", "Div", "Pow", "Tanh", "Sigmoid", "Relu", "Exp", "Log", "Where", "Softmax", "LogSoftmax",
    "MatMul", "Gemm", LINEAR, "Conv", CONTINUED, "RNN", "LSTM", "GRU", "com.microsoft.DynamicQuantizeLSTM", "Concat",
    "LayerNormalization",
}  # fmt: skip
PLAIN = {LINEAR, "RNN", "LSTM", "GRU"}  # and these lie plain


def loose(names: list[str], graph: Graph, values: Values) -> list[tuple[str, bool]]:
    """The outputs that may lie otherwise than plain, and whether they may be views of inputs or of other outputs, or
    are constants."""
    roots = {value: {value} for value in graph.inputs}
    plain = set()
    for node in graph.nodes:
        own = set[int]() if node.op in FRESH else set[int]().union(*(roots.get(value, ()) for value in node.reads()))
        for value in node.outputs:
            if value is not None:
                roots[value] = own or {value}
                if node.op in PLAIN and not node.attributes.get("layout"):
                    plain.add(value)
    result, seen = [], set(graph.inputs)
    for name, value in zip(names, graph.outputs, strict=True):
        copied = value in values.constants or not seen.isdisjoint(roots[value])
        seen |= roots.get(value, set())
        if copied or value not in plain:
            result.append((name, copied))
    return result


class OnnxStream:
    """A model and a running state; made by `model.stream(state={"h_in": "h_out"})`. A refused call leaves the state as
    it was, errors as in OnnxModel; copy.copy makes a second stream that goes on from the same state.

        stream = model.stream(state={"h": "h_out"})
        y_t = stream.step(x=x_t)["y"]
    """

    __slots__ = ("_arrays", "_feeds", "_first", "_loose", "_model", "_others")

    def __init__(self, model: OnnxModel, state: Mapping[str, str], start: Mapping[str, Any]) -> None:
        call = f"{CALL}.stream"
        if not isinstance(state, Mapping) or not state:
            raise TypeError(f'{call}: state is {shown(state)}, expected {{"input": "output"}}')
        inputs, outputs = ({one.name: one for one in entries} for entries in (model.inputs, model.outputs))
        for name, given in state.items():
            for kind, word, entries in (("input", name, inputs), ("output", given, outputs)):
                if word not in entries:
                    raise ValueError(f"{call}: there is no {kind} {shown(word)}; there are {cut(', '.join(entries))}")
            if inputs[name].dtype != outputs[given].dtype:
                raise ValueError(f"{call}: {name} is {inputs[name].dtype}, and {given} is {outputs[given].dtype}")
        for name in start:
            if name not in inputs:
                raise ValueError(f"{call}: there is no input {shown(name)}; there are {cut(', '.join(inputs))}")
        self._model = model
        places = {one.name: k for k, one in enumerate(model.inputs)}
        self._feeds = [(places[name], output) for name, output in state.items()]
        self._others = [(k, one) for k, one in enumerate(model.inputs) if one.name not in {*state, *start}]
        kept = set(state.values())  # states may lie as they do
        self._loose = [(name, copied) for name, copied in model._loose if copied or name not in kept]
        self._first: list[Any] = [None] * len(places)
        letters: dict[Any, int] = {}
        for name, value in start.items():
            one = inputs[name]
            array = self._first[places[name]] = own(taken(one, value))
            letters |= dict(zip(one.shape or (), np.shape(array), strict=False))
        for name in state.keys() - start.keys():
            self._first[places[name]] = nothing(call, inputs[name], letters)
        self._arrays = self._first

    def step(self, /, *given: ArrayLike, **named: ArrayLike) -> dict[str, Array]:
        """One call of the model: its other inputs, by name or, where it is one, by position -> all outputs by name.
        Arrays that are states are read-only, for they are fed back. Errors as in a call of the model.

            y_t = stream.step(x=x_t)["y"]
        """
        model = self._model
        if given:
            named = model._by_position(given, named, [one for _, one in self._others])
        arrays = self._arrays.copy()
        fill(arrays, self._others, named)
        if len(named) > len(self._others):
            raise unknown(named, [one for _, one in self._others])
        results: dict[str, Array] = model._run(arrays)
        finish(results, self._loose)
        for place, output in self._feeds:
            arrays[place] = kept = results[output]
            if type(kept) is ndarray:
                kept.setflags(write=False)
        self._arrays = arrays
        return results

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the states now, by the names of the inputs. It can be assigned: those that are named change."""
        return {self._model.inputs[place].name: self._arrays[place].copy() for place, _ in self._feeds}

    @state.setter
    def state(self, state: Mapping[str, ArrayLike]) -> None:
        names = {self._model.inputs[place].name: place for place, _ in self._feeds}
        if not isinstance(state, Mapping) or not state.keys() <= names.keys():
            raise TypeError(f"{CALL}.stream: state is {shown(state)}, expected arrays by the names "
                            f"{cut(', '.join(names))}")  # fmt: skip
        arrays = self._arrays.copy()
        for name, value in state.items():
            arrays[names[name]] = np.array(taken(self._model.inputs[names[name]], value))
        self._arrays = arrays

    def reset(self) -> None:
        """Go back to the first states.

        stream.reset()
        """
        self._arrays = self._first

    def __copy__(self) -> OnnxStream:
        other = object.__new__(OnnxStream)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def __repr__(self) -> str:
        fed = ", ".join(f"{self._model.inputs[place].name} <- {output}" for place, output in self._feeds)
        return f"{self._model!r}, stream of {fed}"
