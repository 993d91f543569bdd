"""Initial values of recurrent layers other than their own, uniform in ±1/sqrt(H)."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
    record = _recurrent("identity", layer)._cell
    for param in _named(layer, record.recurrent()):
        if param.ndim == 1:
            param[:] = scale
        else:
            param[:] = np.tile(scale * np.eye(layer.hidden_size, param.shape[1]), (len(record.gates), 1))
    for param in _named(layer, [*_biases(layer), *(name for name, value in record.starts.items() if value == 0)]):
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
    record = _recurrent("orthogonal", layer)._cell
    for param in _named(layer, record.recurrent()):
        if param.ndim == 1:
            param[:] = gain * rng.choice([-1, 1], param.size)  # of one number each
        else:
            normal = rng.standard_normal((len(record.gates), layer.hidden_size, param.shape[1]))
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
    _set_gate_biases("forget_gate_bias", layer, {"f": lambda: value}, {"f"})


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

    record = _recurrent("chrono", layer)._cell
    values: dict[str, Callable[[], Any]] = {record.keeps: keep}
    if "i" in record.gates:
        values["i"] = lambda: -memory
    _set_gate_biases("chrono", layer, values, {kind._cell.keeps for kind in LAYERS.values()} - {""})


def _set_gate_biases(call: str, layer: Any, values: dict[str, Callable[[], Any]], keeping: set[str]) -> None:
    """The sum of the biases of some gates: the first bias has it, the second 0. TypeError where none of the gates
    `keeping` keeps the cell's state."""
    record = _recurrent(call, layer)._cell
    if record.keeps not in keeping:
        have = ", ".join(name for name, kind in LAYERS.items() if kind._cell.keeps in keeping)
        raise TypeError(f"{call}: layer is {type(layer).__name__}, expected one of {have}")
    if not layer.bias:
        raise ValueError(f"{call}: the layer has no biases")
    first, *others = _biases(layer)
    for names, given in (([first], values), (others, dict.fromkeys(values, lambda: 0))):
        for param in _named(layer, names):
            gates = dict(zip(record.gates, np.split(param, len(record.gates)), strict=True))
            for gate, value in given.items():
                gates[gate][:] = value()


def _biases(layer: Recurrent[Any]) -> list[str]:
    """Those of the gates, which the argument `bias` brings."""
    return [name for name, argument in layer._cell.optional.items() if argument == "bias"]


def _named(layer: Recurrent[Any], names: Collection[str]) -> list[Any]:
    """The weights of these names of every layer and direction, as far as they are there."""
    params = layer.params
    return [params[name + suffix] for suffix in layer._suffixes for name in names if name + suffix in params]


def _recurrent(call: str, layer: Any) -> Recurrent[Any]:
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{call}: layer is {type(layer).__name__}, expected a recurrent layer")
    return layer
