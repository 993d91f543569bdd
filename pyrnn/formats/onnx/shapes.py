"""ONNX' operators that make, move, choose and add up numbers, by NumPy."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.checks import Array
from .elementwise import divide
from .graph import Node
from .program import Function, Made

MAKERS: dict[str, Callable[[Node], Made]] = {}


def _maker(*ops: str) -> Callable[[Callable[[Node], Made]], Callable[[Node], Made]]:
    def keep(make: Callable[[Node], Made]) -> Callable[[Node], Made]:
        MAKERS.update(dict.fromkeys(ops, make))
        return make

    return keep


def integers(node: Node, name: str, place: int) -> tuple[list[int] | None, bool]:
    """A list of integers that is an attribute or an input: its value if it is known now, and whether it is not given
    at all."""
    if name in node.attributes:
        value = node.attributes[name]
        return (value if isinstance(value, list) else [value]), False
    known = node.known(place)
    return (None if known is None else [int(n) for n in known.reshape(-1)]), not node.has(place)


# ---- shapes


@_maker("Shape")
def _shape(node: Node) -> Made:
    part = slice(node.attributes.get("start", 0), node.attributes.get("end"))
    return lambda x: np.array(np.shape(x)[part], np.int64)


@_maker("Size")
def _size(node: Node) -> Made:
    return lambda x: np.array(np.size(x), np.int64)


@_maker("Reshape")
def _reshape(node: Node) -> Made:
    keep_zero = bool(node.attributes.get("allowzero", 0))

    def run(x: Array, target: Any) -> Array:
        lengths = [int(n) for n in target]
        if not keep_zero and 0 in lengths:
            lengths = [x.shape[k] if n == 0 else n for k, n in enumerate(lengths)]
        return np.reshape(x, lengths)

    known, _ = integers(node, "shape", 1)
    if known is None:
        return run
    if 0 in known:
        return lambda x: run(x, known), (0,)
    return operator.methodcaller("reshape", tuple(known)), (0,)


@_maker("Flatten")
def _flatten(node: Node) -> Made:
    axis = node.attributes.get("axis", 1)

    def run(x: Array) -> Array:
        lead = x.shape[: axis if axis >= 0 else x.ndim + axis]
        return x.reshape(math.prod(lead), math.prod(x.shape[len(lead) :]))

    return run


@_maker("Transpose")
def _transpose(node: Node) -> Made:
    axes = node.attributes.get("perm")
    return operator.methodcaller("transpose", axes)


@_maker("Squeeze")
def _squeeze(node: Node) -> Made:
    known, missing = integers(node, "axes", 1)
    if missing:
        return np.squeeze
    if known is None:
        return lambda x, axes: np.squeeze(x, tuple(int(axis) for axis in axes) or None)
    return operator.methodcaller("squeeze", tuple(known) or None), (0,)


@_maker("Unsqueeze")
def _unsqueeze(node: Node) -> Made:
    known, _ = integers(node, "axes", 1)
    if known is None:
        return lambda x, axes: np.expand_dims(x, tuple(int(axis) for axis in axes))
    axes = tuple(known)
    if axes and all(axis >= 0 for axis in axes) and len(set(axes)) == len(axes) and max(axes) < 32:
        index = tuple(None if k in axes else slice(None) for k in range(max(axes) + 1))
        return lambda x: x[index] if x.ndim > max(axes) - len(axes) else np.expand_dims(x, axes), (0,)
    return lambda x: np.expand_dims(x, axes), (0,)


@_maker("Expand")
def _expand(node: Node) -> Made:
    return lambda x, target: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in target)))


@_maker("Tile")
def _tile(node: Node) -> Made:
    if node.opset < 6:
        return lambda x, times, axis: np.concatenate([x] * int(times), int(axis))
    return lambda x, repeats: np.tile(x, repeats)


@_maker("ConstantOfShape")
def _constant_of_shape(node: Node) -> Made:
    value = node.attributes.get("value")
    fill = np.float32(0) if value is None else value.reshape(-1)[0]
    return lambda target: np.full(tuple(int(n) for n in target), fill, fill.dtype)


@_maker("Range")
def _arange(node: Node) -> Made:
    def run(start: Array, limit: Array, delta: Array) -> Any:
        start, limit, delta = (np.asarray(x).reshape(()) for x in (start, limit, delta))
        count = max(math.ceil((limit - start) / delta), 0)
        return (start + np.arange(count) * delta).astype(start.dtype)

    return run


@_maker("EyeLike")
def _eye_like(node: Node) -> Made:
    if "dtype" in node.attributes:
        raise NotImplementedError
    return lambda x: np.eye(x.shape[0], x.shape[1], node.attributes.get("k", 0), x.dtype)


@_maker("Trilu")
def _trilu(node: Node) -> Made:
    cut = np.triu if node.attributes.get("upper", 1) else np.tril
    return lambda x, k=None: cut(x, 0 if k is None else int(k))


@_maker("Pad")
def _pad(node: Node) -> Made:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    mode = modes.get(node.attributes.get("mode", "constant"))
    if mode is None:
        raise NotImplementedError
    padder: Any = np.pad
    told, _ = integers(node, "pads" if node.opset > 1 else "paddings", 1)

    def run(x: Array, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
        widths = [int(n) for n in (pads if told is None else told)]
        chosen = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
        around = [(0, 0)] * x.ndim
        for k, axis in enumerate(chosen):
            around[axis] = widths[k], widths[k + len(widths) // 2]
        parts = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(around, x.shape, strict=True))
        more = [(max(a, 0), max(b, 0)) for a, b in around]
        if mode != "constant":
            return padder(x[parts], more, mode=mode)
        fill = node.attributes.get("value", 0) if value is None else np.asarray(value).reshape(())
        padded = np.full([n + a + b for n, (a, b) in zip(x[parts].shape, more, strict=True)], fill, x.dtype)
        padded[tuple(slice(a, n - b) for n, (a, b) in zip(padded.shape, more, strict=True))] = x[parts]
        return padded

    return run


# ---- parts


@_maker("Concat")
def _concat(node: Node) -> Made:
    axis = node.attributes.get("axis", 1)
    if len(node.inputs) == 2:
        return lambda a, b: np.concatenate((a, b), axis)
    return lambda *arrays: np.concatenate(arrays, axis)


@_maker("Split")
def _split(node: Node) -> Made:
    axis, count = node.attributes.get("axis", 0), len(node.outputs)
    told, missing = integers(node, "split", 1)

    def cuts(lengths: Any, whole: int, lead: int) -> list[tuple[slice, ...]]:
        ends = [int(end) for end in np.cumsum(lengths)]
        if len(ends) != count or ends[-1] != whole:
            raise ValueError(f"it splits {whole} into {count} parts of {[int(n) for n in lengths]}")
        return [(slice(None),) * lead + (slice(end - int(n), end),) for n, end in zip(lengths, ends, strict=True)]

    def parts(x: Array, lengths: Any = None) -> Any:
        whole = x.shape[axis]
        if lengths is None:
            each = -(-whole // count)
            if told is None and (whole % count if node.opset < 18 else each * (count - 1) > whole):
                raise ValueError(f"it splits {whole} into {count} equal parts")
            lengths = told or [each] * (count - 1) + [whole - each * (count - 1)]
        results = tuple([x[index] for index in cuts(lengths, whole, axis % x.ndim)])
        return results if count > 1 else results[0]

    if told is None and not missing:
        return parts
    if told is None or axis < 0 or count == 1:
        return parts, (0,)
    whole = sum(told)
    fixed = cuts(told, whole, axis)

    def run(x: Array) -> Any:
        return tuple([x[index] for index in fixed]) if x.shape[axis] == whole else parts(x)

    return run, (0,)


@_maker("Slice")
def _cut(node: Node) -> Made:
    def index(x: Array, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[slice, ...]:
        parts = [slice(None)] * x.ndim
        for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
            step, axis = 1 if steps is None else int(steps[k]), k if axes is None else int(axes[k])
            before = step < 0 and start < -x.shape[axis]  # for Python there is nothing from there backwards
            parts[axis] = slice(0 if before else int(start), int(end), step)
        return tuple(parts)

    told = [integers(node, name, place) for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)]
    if any(known is None and not missing for known, missing in told):
        return lambda x, *parts: x[index(x, *parts)]
    known = [value for value, _ in told]
    axes = known[2] if known[2] is not None else list(range(len(known[0] or ())))
    if (axes and not 0 <= min(axes) <= max(axes) < 32) or min(known[3] or [1]) < 0:
        return lambda x: x[index(x, *known)], (0,)
    return operator.itemgetter(index(np.empty((0,) * (max(axes, default=-1) + 1)), *known)), (0,)


@_maker("Gather")
def _gather(node: Node) -> Made:
    axis = node.attributes.get("axis", 0)
    known = node.known(1)
    if known is not None and known.ndim == 0 and axis >= 0:
        return operator.itemgetter((slice(None),) * axis + (int(known),)), (0,)
    return lambda x, ids: x.take(ids, axis)


@_maker("GatherElements")
def _gather_elements(node: Node) -> Made:
    axis = node.attributes.get("axis", 0)
    return lambda x, ids: x[elements(ids, axis, x.shape)]


def elements(ids: Array, axis: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Where ids stand for places along an axis, the others being as in `ids`."""
    index = list(np.ogrid[tuple(slice(n) for n in ids.shape)])
    index[axis] = ids
    return tuple(index)


@_maker("GatherND")
def _gather_nd(node: Node) -> Made:
    batch = node.attributes.get("batch_dims", 0)

    def run(x: Array, ids: Array) -> Any:
        lead = np.ogrid[tuple(slice(n) for n in ids.shape[:-1])][:batch] if batch else []
        return x[(*lead, *np.moveaxis(ids, -1, 0))]

    return run


COMBINE: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scattered(node: Node, x: Array, index: tuple[Any, ...], updates: Array) -> Array:
    y = x.copy()
    kind = node.attributes.get("reduction", "none")
    if kind == "none":
        y[index] = updates
    else:
        COMBINE[kind].at(y, index, updates)
    return y


@_maker("ScatterElements", "Scatter")
def _scatter_elements(node: Node) -> Made:
    axis = node.attributes.get("axis", 0)
    return lambda x, ids, updates: _scattered(node, x, elements(ids, axis, x.shape), updates)


@_maker("ScatterND")
def _scatter_nd(node: Node) -> Made:
    return lambda x, ids, updates: _scattered(node, x, tuple(np.moveaxis(ids, -1, 0)), updates)


@_maker("OneHot")
def _one_hot(node: Node) -> Made:
    axis = node.attributes.get("axis", -1)

    def run(ids: Array, depth: Array, values: Array) -> Any:
        count = int(np.asarray(depth).reshape(()))
        places = np.arange(count).reshape(-1, *[1] * (ids.ndim - axis % (ids.ndim + 1)))
        whole = np.where(ids < 0, ids + count, ids)
        return np.where(np.expand_dims(whole, axis) == places, values[1], values[0])

    return run


@_maker("NonZero")
def _non_zero(node: Node) -> Made:
    return lambda x: np.array(np.nonzero(x), np.int64)


@_maker("Compress")
def _compress(node: Node) -> Made:
    axis = node.attributes.get("axis")

    def run(x: Array, condition: Array) -> Array:
        x = x.reshape(-1) if axis is None else x
        return np.compress(condition, x, axis or 0)

    return run


@_maker("ReverseSequence")
def _reverse_sequence(node: Node) -> Made:
    time, batch = node.attributes.get("time_axis", 0), node.attributes.get("batch_axis", 1)

    def run(x: Array, lengths: Array) -> Array:
        if (time, batch) == (1, 0):
            return run_steps_first(x.swapaxes(0, 1), lengths).swapaxes(0, 1)
        return run_steps_first(x, lengths)

    def run_steps_first(x: Array, lengths: Array) -> Array:
        steps = np.arange(len(x))[:, None]
        order = np.where(steps < lengths, lengths - 1 - steps, steps)
        return np.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), 0)

    return run


# ---- sums and orders


def reduction(reduce: Function) -> Callable[[Node], Made]:
    """Of an operator that makes one number of those along some axes: reduce(x, axes, keep)."""

    def make(node: Node) -> Made:
        keep = bool(node.attributes.get("keepdims", 1))
        idle = bool(node.attributes.get("noop_with_empty_axes", 0))
        known, missing = integers(node, "axes", 1)
        if not missing and known is None:

            def run(x: Array, given: Any) -> Any:
                axes = tuple(int(axis) for axis in given)
                return x if idle and not axes else reduce(x, axes or None, keep)

            return run
        axes = tuple(known or ()) or None
        if idle and axes is None:
            return np.positive, (0,)
        return lambda x: reduce(x, axes, keep), (0,)

    return make


def _total(x: Any, axes: Any, keep: bool) -> Any:
    return np.sum(x, axis=axes, keepdims=keep, dtype=x.dtype)


def _mean(x: Array, axes: Any, keep: bool) -> Any:
    y = _total(x, axes, keep)
    count = x.size // y.size if y.size else 1
    return divide(y, y.dtype.type(count))


def _largest(x: Any, axes: Any, keep: bool) -> Any:
    low = False if x.dtype == np.bool_ else -np.inf if x.dtype.kind in "fV" else np.iinfo(x.dtype).min
    return np.max(x, axis=axes, keepdims=keep, initial=low)


def _smallest(x: Any, axes: Any, keep: bool) -> Any:
    high = True if x.dtype == np.bool_ else np.inf if x.dtype.kind in "fV" else np.iinfo(x.dtype).max
    return np.min(x, axis=axes, keepdims=keep, initial=high)


def _log_sum_exp(x: Array, axes: Any, keep: bool) -> Any:
    top = _largest(x, axes, True)
    top = np.where(np.isfinite(top), top, top.dtype.type(0))
    y = (np.log(_total(np.exp(x - top), axes, True)) + top).astype(x.dtype, copy=False)
    return y if keep else y.squeeze(axes)


MAKERS |= {
    "ReduceSum": reduction(_total),
    "ReduceMean": reduction(_mean),
    "ReduceMax": reduction(_largest),
    "ReduceMin": reduction(_smallest),
    "ReduceProd": reduction(lambda x, axes, keep: np.multiply.reduce(x, axis=axes, keepdims=keep, dtype=x.dtype)),
    "ReduceL1": reduction(lambda x, axes, keep: _total(np.abs(x), axes, keep)),
    "ReduceL2": reduction(lambda x, axes, keep: np.sqrt(_total(np.square(x), axes, keep)).astype(x.dtype, copy=False)),
    "ReduceSumSquare": reduction(lambda x, axes, keep: _total(np.square(x), axes, keep)),
    "ReduceLogSum": reduction(lambda x, axes, keep: np.log(_total(x, axes, keep)).astype(x.dtype, copy=False)),
    "ReduceLogSumExp": reduction(_log_sum_exp),
}


def _extreme(place: Function) -> Callable[[Node], Made]:
    def make(node: Node) -> Made:
        axis, keep = node.attributes.get("axis", 0), bool(node.attributes.get("keepdims", 1))
        last = bool(node.attributes.get("select_last_index", 0))

        def run(x: Array) -> Any:
            if last:
                return x.shape[axis] - 1 - place(np.flip(x, axis), axis=axis, keepdims=keep)
            return place(x, axis=axis, keepdims=keep)

        return run

    return make


MAKERS |= {"ArgMax": _extreme(np.argmax), "ArgMin": _extreme(np.argmin)}


@_maker("TopK")
def _top_k(node: Node) -> Made:
    axis, largest = node.attributes.get("axis", -1), bool(node.attributes.get("largest", 1))

    def run(x: Array, k: Any = None) -> tuple[Array, Array]:
        count = node.attributes["k"] if k is None else int(np.asarray(k).reshape(()))
        if not 0 <= count <= x.shape[axis]:
            raise ValueError(f"it asks for {count} of {x.shape[axis]}")
        if largest:  # of equal ones the first comes first
            order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
        else:
            order = np.argsort(x, axis, kind="stable")
        chosen = order.take(np.arange(count), axis)
        return np.take_along_axis(x, chosen, axis), chosen.astype(np.int64, copy=False)

    return run if len(node.outputs) > 1 else lambda *given: run(*given)[0]


@_maker("CumSum")
def _cumulative_sum(node: Node) -> Made:
    exclusive, reverse = bool(node.attributes.get("exclusive", 0)), bool(node.attributes.get("reverse", 0))

    def run(x: Array, given: Array) -> Array:
        axis = int(np.asarray(given).reshape(()))
        x = np.flip(x, axis) if reverse else x
        y = np.cumsum(x, axis, dtype=x.dtype)
        if exclusive:
            y = np.roll(y, 1, axis)
            y[(slice(None),) * (axis % x.ndim) + (slice(1),)] = 0
        return np.flip(y, axis) if reverse else y

    return run


@_maker("Einsum")
def _einsum(node: Node) -> Made:
    equation = node.attributes["equation"]
    return lambda *arrays: np.einsum(equation, *arrays)
