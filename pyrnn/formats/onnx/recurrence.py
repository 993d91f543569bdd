"""ONNX' recurrent operators step by step in NumPy: for activations, clips and gates that no layer here has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import Array, shown
from .elementwise import relu, sigmoid
from .graph import Node


class Activation(NamedTuple):
    """A function of pre-activations, its name in small letters, and its alpha and beta where it has them."""

    name: str
    numbers: tuple[float, ...]
    function: Callable[[Array], Array]


# By name in small letters: the function of (x, alpha, beta), and the defaults of these where it has them. None: it must
# be given.
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sigmoid": (sigmoid, ()),
    "tanh": (np.tanh, ()),
    "relu": (relu, ()),
    "softsign": (lambda x: x / (1 + np.abs(x)), ()),
    "softplus": (lambda x: np.logaddexp(x, x.dtype.type(0)), ()),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), (0.2, 0.5)),
    "affine": (lambda x, a, b: a * x + b, (1.0, 0.0)),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), (None, None)),
    "leakyrelu": (lambda x, a: np.where(x < 0, a * x, x), (0.01,)),
    "thresholdedrelu": (lambda x, a: np.where(x > a, x, x.dtype.type(0)), (1.0,)),
    "elu": (lambda x, a: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x), (1.0,)),
}


def activations(node: Node, usual: tuple[str, ...], directions: int) -> list[list[Activation]]:
    """The functions of each direction, with the numbers that go with them."""
    names = node.attributes.get("activations") or list(usual) * directions
    if len(names) != len(usual) * directions:
        raise ValueError(f"it has {len(names)} activations, expected {len(usual)} for each direction")
    alphas, betas = (iter(node.attributes.get(f"activation_{kind}", ())) for kind in ("alpha", "beta"))
    found = []
    for name in names:
        if name.lower() not in FUNCTIONS:
            raise ValueError(f"activation {shown(name)} is not known here")
        function, defaults = FUNCTIONS[name.lower()]
        numbers = [next(given, default) for given, default in zip((alphas, betas), defaults, strict=False)]
        if None in numbers:
            raise ValueError(f"activation {name} needs activation_alpha and activation_beta")
        found.append(Activation(name.lower(), tuple(numbers), bound(function, numbers)))
    return [found[d * len(usual) : (d + 1) * len(usual)] for d in range(directions)]


def bound(function: Callable[..., Any], numbers: list[float]) -> Callable[[Array], Array]:
    """With its numbers, in the dtype of what comes."""
    if not numbers:
        return function
    return lambda x: function(x, *(x.dtype.type(number) for number in numbers))


def walk(node: Node, weights: dict[str, Array], functions: list[Activation]) -> Any:
    """One direction: run(x (T, N, I), states, lengths, reverse) -> y (T, N, H), final states (N, H)."""
    gates = [np.split(weights[name], COUNTS[node.op]) for name in ("W", "R")]
    w, r = ([gate.T for gate in own] for own in gates)
    bias = weights.get("B")
    b = [0] * 2 * len(w) if bias is None else np.split(bias, 2 * len(w))
    clip = node.attributes.get("clip", 0.0)
    f, *others = [function.function for function in functions]

    def bounded(a: Array) -> Array:
        return np.clip(a, -a.dtype.type(clip), a.dtype.type(clip)) if clip else a

    def gate(k: int, x: Array, h: Array) -> Any:
        return x @ w[k] + b[k] + (h @ r[k] + b[len(w) + k])

    def rnn(x: Array, h: Array) -> tuple[Array, ...]:
        return (f(bounded(gate(0, x, h))),)

    def gru(x: Array, h: Array) -> tuple[Array, ...]:
        z, reset = (f(bounded(gate(k, x, h))) for k in (0, 1))
        if node.attributes.get("linear_before_reset", 0):
            a = x @ w[2] + b[2] + reset * (h @ r[2] + b[5])
        else:
            a = gate(2, x, reset * h)
        return ((1 - z) * others[0](bounded(a)) + z * h,)

    p = np.split(weights["P"], 3) if "P" in weights else [0, 0, 0]  # of i, o, f
    coupled = node.attributes.get("input_forget", 0)

    def lstm(x: Array, h: Array, c: Array) -> tuple[Array, ...]:
        i = f(bounded(gate(0, x, h) + p[0] * c))
        forget = 1 - i if coupled else f(bounded(gate(2, x, h) + p[2] * c))
        new = forget * c + i * others[0](bounded(gate(3, x, h)))
        o = f(bounded(gate(1, x, h) + p[1] * new))
        return o * others[1](new), new

    steps: dict[str, Callable[..., tuple[Array, ...]]] = {"RNN": rnn, "GRU": gru, "LSTM": lstm}
    step = steps[node.op]
    count = 2 if node.op == "LSTM" else 1

    def run(x: Array, given: Any, lengths: Any, reverse: bool) -> tuple[Array, tuple[Array, ...]]:
        shape = (x.shape[1], r[0].shape[0])
        states = (
            tuple(np.zeros(shape, x.dtype) for _ in range(count))
            if given is None
            else tuple(np.array(s) for s in given)
        )
        y = np.zeros((len(x), *shape), x.dtype)
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            valid = np.True_ if lengths is None else (t < lengths)[:, None]
            new = step(x[t], *states)
            y[t] = np.where(valid, new[0], 0)
            states = tuple(np.where(valid, a, s).astype(x.dtype, copy=False) for a, s in zip(new, states, strict=True))
        return y, states

    return run


COUNTS = {"RNN": 1, "GRU": 3, "LSTM": 4}
