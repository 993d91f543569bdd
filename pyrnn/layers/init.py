"""Initial values of recurrent layers other than their own, uniform in ±1/sqrt(H)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.checks import MOST, Rng, generator, integer, quietly, real
from .stack import LAYERS, Recurrent


@quietly
def identity(layer: Recurrent[Any], scale: float = 1.0) -> None:
    """Recurrent weights `scale` times the identity, for each gate, and biases 0.

    With relu it keeps what it has seen as a first guess: Le, Jaitly & Hinton 2015, arXiv:1504.00941, where it lets a
    plain RNN learn from afar. TypeError for what is no recurrent layer.

        layer = pyrnn.RNN(2, 100, nonlinearity="relu")
        pyrnn.init.identity(layer)
    """
    scale = real("identity", "scale", scale, -np.inf)
    for name, param in _recurrent("identity", layer).params.items():
        if name.startswith("weight_hh") and param.ndim == 1:
            param[:] = scale
        elif name.startswith("weight_hh"):
            param[:] = np.tile(scale * np.eye(layer.hidden_size, param.shape[1]), (len(layer._cell.gates), 1))
        elif name.startswith("bias"):
            param[:] = 0


@quietly
def orthogonal(layer: Recurrent[Any], gain: float = 1.0, rng: Rng = None) -> None:
    """Recurrent weights `gain` times a random orthogonal matrix, another one for each gate.

    Gradients neither grow nor shrink in the linear part of the first steps: Saxe, McClelland & Ganguli 2014,
    arXiv:1312.6120. With a projection the P columns are orthonormal. Biases stay. rng: None, an int seed or a
    numpy.random.Generator. TypeError for what is no recurrent layer.

        pyrnn.init.orthogonal(layer, rng=0)
    """
    gain = real("orthogonal", "gain", gain, -np.inf)
    rng = generator("orthogonal", rng)
    for name, param in _recurrent("orthogonal", layer).params.items():
        if name.startswith("weight_hh") and param.ndim == 1:
            param[:] = gain * rng.choice([-1, 1], param.size)  # of one number each
        elif name.startswith("weight_hh"):
            normal = rng.standard_normal((len(layer._cell.gates), layer.hidden_size, param.shape[1]))
            q, r = np.linalg.qr(normal)
            signs = np.sign(np.diagonal(r, axis1=1, axis2=2))  # without them q is not uniform: Mezzadri 2007
            param[:] = gain * (q * signs[:, None]).reshape(param.shape)


@quietly
def forget_gate_bias(layer: Recurrent[Any], value: float = 1.0) -> None:
    """The bias of the forget gate, bias_ih + bias_hh, is `value` everywhere: bias_ih has it and bias_hh 0.

    With 1 a cell keeps most of its state before it has learnt what to forget: Gers et al. 2000; Jozefowicz et al. 2015.
    TypeError for a layer whose cell has no forget gate, ValueError for one without biases.

        pyrnn.init.forget_gate_bias(layer)
    """
    value = real("forget_gate_bias", "value", value, -np.inf)
    _set_gate_biases("forget_gate_bias", layer, {"f": lambda: value})


def chrono(layer: Recurrent[Any], steps: int, rng: Rng = None) -> None:
    """Biases of the gates with which a unit remembers for about u steps, u uniform in 1..steps-1, one for each unit.

    The forget gate of an LSTM and the update gate of a GRU have log u, the input gate of an LSTM -log u: Tallec &
    Ollivier 2018, arXiv:1804.11188. Each is bias_ih + bias_hh, of which bias_hh is 0; other biases stay. rng: None, an
    int seed or a numpy.random.Generator. TypeError for a layer whose cell has no gate that keeps the state, ValueError
    for one without biases and for less than 2 steps.

        pyrnn.init.chrono(layer, 400, rng=0)
    """
    steps = integer("chrono", "steps", steps, 2, MOST)
    rng = generator("chrono", rng)
    memory = np.empty(0)

    def keep() -> Any:
        nonlocal memory
        memory = np.log(rng.uniform(1, steps - 1, layer.hidden_size))
        return memory

    kept = {"f": keep, "i": lambda: -memory} if "f" in _recurrent("chrono", layer)._cell.gates else {"z": keep}
    _set_gate_biases("chrono", layer, kept)


def _set_gate_biases(call: str, layer: Any, values: dict[str, Callable[[], Any]]) -> None:
    """bias_ih of some gates, the first of which is that which keeps the state, and 0 for their bias_hh."""
    record = _recurrent(call, layer)._cell
    if record.keeps != next(iter(values)):
        have = ", ".join(
            name for name, kind in LAYERS.items() if kind._cell.keeps in (*values, *"fz"[: call == "chrono"])
        )
        raise TypeError(f"{call}: layer is {type(layer).__name__}, expected one of {have}")
    if not layer.bias:
        raise ValueError(f"{call}: the layer has no biases")
    for name, param in layer.params.items():
        if name.startswith(("bias_ih", "bias_hh")):
            gates = dict(zip(record.gates, np.split(param, len(record.gates)), strict=True))
            for gate, value in values.items():
                gates[gate][:] = value() if name.startswith("bias_ih") else 0


def _recurrent(call: str, layer: Any) -> Recurrent[Any]:
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{call}: layer is {type(layer).__name__}, expected a recurrent layer")
    return layer
