"""ONNX' matrix products, convolutions and pooling: on the kernels where one side is constant, else by NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import kernels
from ...core.checks import FLOAT_DTYPES, Array
from .fusing import CONTINUED, KERNEL_ACTIVATIONS, LINEAR, is_kernel_convolution
from .graph import Node
from .program import Function, Made


def _gemm(node: Node) -> Made:
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    turn_a, turn_b = node.attributes.get("transA", 0), node.attributes.get("transB", 0)

    def run(a: Array, b: Array, c: Array | None = None) -> Any:
        y = np.matmul(a.T if turn_a else a, b.T if turn_b else b)
        y = y if alpha == 1 else y * y.dtype.type(alpha)
        return y if c is None else y + (c if beta == 1 else c * c.dtype.type(beta))

    return run


def linear(node: Node) -> Made:
    """Made of MatMul, Gemm and what follows them by `fusing`: weight (O, I) and bias (O,) are constants."""
    node.quiet = True
    weight = node.known(1)
    assert weight is not None
    return activated(node, kernels.linear.packed(weight, node.known(2), kernel_activation(node)).forward), (0,)


def kernel_activation(node: Node) -> str:
    """The activation that `fusing` has put behind the node, by our name where the kernel has it."""
    return KERNEL_ACTIVATIONS.get(node.attributes.get("then", ""), "identity")


def activated(node: Node, function: Function) -> Function:
    """With the activation behind it, where the kernel does not have that."""
    then = node.attributes.get("then", "")
    if not then or then in KERNEL_ACTIVATIONS:
        return function
    after = node.attributes["function"]
    return lambda x: after(function(x))


# ---- windows


def spread(node: Node, spatial: int) -> tuple[list[int], list[int], list[tuple[int, int]] | str]:
    """strides, dilations and padding of a node with windows; the padding is a word where it follows from the input."""
    strides = node.attributes.get("strides") or [1] * spatial
    dilations = node.attributes.get("dilations") or [1] * spatial
    word = node.attributes.get("auto_pad", "NOTSET")
    if word not in ("NOTSET", ""):
        return strides, dilations, word
    pads = node.attributes.get("pads") or [0] * (2 * spatial)
    return strides, dilations, list(zip(pads[:spatial], pads[spatial:], strict=True))


def around(
    shape: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilations: list[int], pads: Any
) -> list[tuple[int, int]]:
    """The padding in numbers."""
    if not isinstance(pads, str):
        return list(pads)
    if pads == "VALID":
        return [(0, 0)] * len(kernel)
    result = []
    for n, k, stride, dilation in zip(shape, kernel, strides, dilations, strict=True):
        missing = max((-(-n // stride) - 1) * stride + dilation * (k - 1) + 1 - n, 0)
        less = missing // 2
        result.append((missing - less, less) if pads == "SAME_LOWER" else (less, missing - less))
    return result


def padded(x: Array, pads: list[tuple[int, int]], fill: Any) -> Array:
    """x (N, C, ...) with more around it."""
    if not any(map(any, pads)):
        return x
    shape = (*x.shape[:2], *(n + a + b for n, (a, b) in zip(x.shape[2:], pads, strict=True)))
    y = np.full(shape, fill, x.dtype)
    middle: Any = (..., *(slice(a, a + n) for n, (a, _) in zip(x.shape[2:], pads, strict=True)))
    y[middle] = x
    return y


def windows(x: Array, kernel: tuple[int, ...], strides: list[int], dilations: list[int]) -> Array:
    """(N, C, ...) -> (N, C, places..., kernel...), a view; no places where a window does not fit."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    if any(n < r for n, r in zip(x.shape[2:], reach, strict=True)):
        places = (max((n - r) // s + 1, 0) for n, r, s in zip(x.shape[2:], reach, strides, strict=True))
        return np.zeros((*x.shape[:2], *places, *kernel), x.dtype)
    view: Array = np.lib.stride_tricks.sliding_window_view(x, reach, tuple(range(2, x.ndim)))
    index: Any = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    chosen: Array = view[index]
    return chosen


# So many multiply-adds, or steps, for which weights that are packed already count more than what the convolution's own
# kernel does better.
LITTLE, FEW = 1 << 18, 32


def convolution(node: Node) -> Made:
    """Conv: over one axis with constant weights on the kernels."""
    weight, bias = node.known(1), node.known(2)
    if weight is None or not is_kernel_convolution(node):
        function, after = any_convolution(node), node.attributes.get("function")
        return function if after is None else lambda *arrays: after(function(*arrays))
    node.quiet = True
    (stride,), (dilation,), pads = spread(node, 1)
    groups, width, act = node.attributes.get("group", 1), weight.shape[2:], kernel_activation(node)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    forward, activate = kernels.conv1d.forward, kernels.linear.activated

    def much(x: Array) -> Array:
        ((before, after),) = around(x.shape[2:], width, [stride], [dilation], pads)
        y = forward(x.transpose(2, 0, 1), weight, bias, before=before, after=after, **options).transpose(1, 2, 0)
        return y if act == "identity" else activate(y, act)

    if groups > 1 or isinstance(pads, str):
        return activated(node, much), (0,)
    little, most = windowed(node, 1).forward, max(LITTLE // weight.size, FEW) * stride
    told = node.values.shapes.get(node.inputs[0]) if node.inputs[0] is not None else None
    if told is not None and len(told) == 3 and told[0] is not None and told[2] is not None:
        return activated(node, little if told[0] * told[2] <= most else much), (0,)
    return activated(node, lambda x: little(x) if x.size <= most * x.shape[1] else much(x)), (0,)


def continued_convolution(node: Node) -> Made:
    """Made by `fusing`: past and x end to end, and the convolution of that."""
    node.quiet = True
    return windowed(node, 2).continued, (0, 1)


def windowed(node: Node, place: int) -> Any:
    """The packed weights, which are the input at `place`."""
    weight = node.known(place)
    assert weight is not None
    (stride,), (dilation,), pads = spread(node, 1)
    act = kernel_activation(node)
    return kernels.linear.windowed(weight, node.known(place + 1), act, stride, dilation, *pads[0])


def any_convolution(node: Node) -> Function:
    """Conv over any number of axes: windows side by side, and one product for each group."""
    groups = node.attributes.get("group", 1)

    def run(x: Array, weight: Array, bias: Array | None = None) -> Array:
        spatial = weight.ndim - 2
        kernel = weight.shape[2:]
        if x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
            raise ValueError(f"x has shape {x.shape}, its weight {weight.shape}, with {groups} groups")
        strides, dilations, pads = spread(node, spatial)
        x = padded(x, around(x.shape[2:], kernel, strides, dilations, pads), 0)
        view = np.moveaxis(windows(x, kernel, strides, dilations), 1, 1 + spatial)  # (N, places..., C, kernel...)
        rows, places = view.shape[0], view.shape[1 : 1 + spatial]
        inputs, outputs = weight.shape[1], weight.shape[0] // groups
        parts = []
        for group in range(groups):
            own = view[(slice(None),) * (1 + spatial) + (slice(group * inputs, (group + 1) * inputs),)]
            flat = own.reshape(rows * math.prod(places), inputs * math.prod(kernel))
            matrix = weight[group * outputs : (group + 1) * outputs].reshape(outputs, flat.shape[1])
            parts.append(product(flat, matrix))
        y = np.concatenate(parts, 1) if groups > 1 else parts[0]
        y = y if bias is None else y + bias
        return np.moveaxis(y.reshape(rows, *places, len(weight)), -1, 1)

    return run


def transposed_convolution(node: Node) -> Function:
    """ConvTranspose: what each position of the kernel makes of x, added where it belongs."""
    groups = node.attributes.get("group", 1)

    def run(x: Array, weight: Array, bias: Array | None = None) -> Array:
        spatial, kernel = weight.ndim - 2, weight.shape[2:]
        if x.ndim != weight.ndim or x.shape[1] != len(weight) or len(weight) % groups:
            raise ValueError(f"x has shape {x.shape}, its weight {weight.shape}, with {groups} groups")
        strides, dilations, pads = spread(node, spatial)
        more = node.attributes.get("output_padding") or [0] * spatial
        parts = zip(x.shape[2:], kernel, strides, dilations, more, strict=True)
        whole = [max((n - 1) * s + d * (k - 1) + 1, 0) + m for n, k, s, d, m in parts]
        told = node.attributes.get("output_shape", [])[-spatial:]
        if pads == "VALID":
            pads = [(0, 0)] * spatial
        if told or isinstance(pads, str):
            shape = told or [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
            missing = [max(w - n, 0) for w, n in zip(whole, shape, strict=True)]
            upper = pads == "SAME_UPPER"
            pads = [(m // 2, m - m // 2) if upper else (m - m // 2, m // 2) for m in missing]
        else:
            shape = [w - before - behind for w, (before, behind) in zip(whole, pads, strict=True)]
        rows, places = len(x), x.shape[2:]
        flat = np.moveaxis(x, 1, -1).reshape(rows * math.prod(places), groups, len(weight) // groups)
        matrices = weight.reshape(groups, len(weight) // groups, -1)
        each = np.concatenate([product(flat[:, k], matrix.T) for k, matrix in enumerate(matrices)], 1)
        each = np.moveaxis(each.reshape(rows, *places, groups * weight.shape[1], *kernel), 1 + spatial, 1)
        ends = [max(w, before + n) for w, n, (before, _) in zip(whole, shape, pads, strict=True)]
        y = np.zeros((*each.shape[:2], *ends), x.dtype)
        for place in np.ndindex(kernel):
            steps = zip(place, places, strides, dilations, strict=True)
            meets: Any = (..., *(slice(k * d, k * d + n * s, s) for k, n, s, d in steps))
            y[meets] += each[(..., *place)]
        left: Any = (..., *(slice(before, before + n) for n, (before, _) in zip(shape, pads, strict=True)))
        result: Array = y[left]
        return result if bias is None else result + bias.reshape(-1, *[1] * spatial)

    return run


def product(rows: Array, matrix: Array) -> Any:
    """rows (M, I), matrix (O, I) -> (M, O)."""
    if rows.dtype in FLOAT_DTYPES:
        return kernels.linear.forward(rows, matrix, None)
    return np.matmul(rows, matrix.T)


def pooling(node: Node) -> Made:
    """MaxPool and AveragePool."""
    kernel = tuple(node.attributes["kernel_shape"])
    spatial = len(kernel)
    strides, dilations, pads = spread(node, spatial)
    upward = node.attributes.get("ceil_mode", 0)
    over = tuple(range(2 + spatial, 2 + 2 * spatial))

    def read(x: Array, sides: Any, fill: Any) -> Array:
        return windows(padded(x, sides, fill), kernel, strides, dilations)

    def sides_of(x: Array) -> tuple[Any, Any]:
        """The padding, and with what a last window lacks that begins within the padded input."""
        if x.ndim != 2 + spatial:
            raise ValueError(f"x has shape {x.shape}, its window {kernel}")
        sides = around(x.shape[2:], kernel, strides, dilations, pads)
        if not upward:
            return sides, sides
        parts = zip(x.shape[2:], sides, kernel, strides, dilations, strict=True)
        return sides, [(a, b + more(n, a, b, k, s, d)) for n, (a, b), k, s, d in parts]

    def mean(x: Array) -> Any:
        sides, whole = sides_of(x)
        total = read(x, whole, 0).sum(over, dtype=x.dtype)
        counted = sides if node.attributes.get("count_include_pad", 0) else [(0, 0)] * spatial
        if whole == counted:
            return total / x.dtype.type(math.prod(kernel))
        rest = [(a - c, b - d) for (a, b), (c, d) in zip(whole, counted, strict=True)]
        ones = np.ones((1, 1, *(n + c + d for n, (c, d) in zip(x.shape[2:], counted, strict=True))), x.dtype)
        return total / read(ones, rest, 0).sum(over)

    def largest(x: Array) -> Any:
        _, whole = sides_of(x)
        low = -np.inf if x.dtype.kind in "fV" else np.iinfo(x.dtype).min
        view = read(x, whole, low)
        if len(node.outputs) == 1 or node.outputs[1] is None:
            y = view.max(over)
            return (y, None) if len(node.outputs) > 1 else y
        flat = view.reshape(*view.shape[: 2 + spatial], math.prod(kernel))
        first = flat.argmax(-1)[..., None]
        ids = np.arange(x.size).reshape(x.shape)
        if node.attributes.get("storage_order", 0):
            ids = ids.reshape(*x.shape[:2], *x.shape[:1:-1]).transpose(0, 1, *range(1 + spatial, 1, -1))
        places = read(ids, whole, -1).reshape(flat.shape)
        return tuple(np.take_along_axis(part, first, -1)[..., 0] for part in (flat, places))

    return mean if node.op == "AveragePool" else largest


def more(n: int, before: int, behind: int, k: int, stride: int, dilation: int) -> int:
    """How much must be added behind for the number of windows that rounding up gives."""
    reach = dilation * (k - 1) + 1
    places = -(-(n + before + behind - reach) // stride) + 1
    if (places - 1) * stride >= n + before:
        places -= 1
    return max((places - 1) * stride + reach - (n + before + behind), 0)


def _over_channels(node: Node) -> Made:
    """LRN: x by a power of the mean square of the channels around it."""
    size = node.attributes["size"]
    alpha, beta, bias = (node.attributes.get(name, default) for name, default in
                         (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))  # fmt: skip

    def run(x: Array) -> Any:
        kind, channels = x.dtype.type, x.shape[1]
        before, after = min((size - 1) // 2, channels), min(size // 2, channels)
        squares = np.zeros((len(x), before + channels + after, *x.shape[2:]), x.dtype)
        squares[:, before : before + channels] = np.square(x)
        total = np.lib.stride_tricks.sliding_window_view(squares, before + after + 1, 1).sum(-1, dtype=x.dtype)
        return x / (kind(bias) + kind(alpha / size) * total) ** kind(beta)

    return run


def _globally(reduce: Function) -> Callable[[Node], Made]:
    return lambda node: lambda x: reduce(x, tuple(range(2, x.ndim)))


def _global_norm(node: Node) -> Made:
    p = node.attributes.get("p", 2)
    return _globally(lambda x, axes: (np.abs(x) ** p).sum(axes, keepdims=True, dtype=x.dtype) ** x.dtype.type(1 / p))(
        node
    )


MAKERS: dict[str, Callable[[Node], Made]] = {
    "MatMul": lambda node: np.matmul,
    "Gemm": _gemm,
    LINEAR: linear,
    CONTINUED: continued_convolution,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "MaxPool": pooling,
    "AveragePool": pooling,
    "LRN": _over_channels,
    "GlobalLpPool": _global_norm,
    "GlobalMaxPool": _globally(lambda x, axes: x.max(axes, keepdims=True)),
    "GlobalAveragePool": _globally(lambda x, axes: x.mean(axes, keepdims=True, dtype=x.dtype)),
}
