"""Initial values of recurrent layers other than their own, uniform in ±1/sqrt(H)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import MOST, Rng, generator, integer, real
from .recurrent import GRU, LSTM, Recurrent


def identity(layer: Recurrent[Any], scale: float = 1.0) -> None:
    """Recurrent weights `scale` times the identity, for each gate, and biases 0.

    With relu it keeps what it has seen as a first guess: Le, Jaitly & Hinton 2015, arXiv:1504.00941, where it lets a
    plain RNN learn from afar. TypeError for what is no recurrent layer.

        layer = pyrnn.RNN(2, 100, nonlinearity="relu")
        pyrnn.init.identity(layer)
    """
    scale = real("identity", "scale", scale, -np.inf)
    for name, param in _recurrent("identity", layer).params.items():
        if name.startswith("weight_hh"):
            param[:] = np.tile(scale * np.eye(layer.hidden_size, param.shape[1]), (layer._gates, 1))
        elif name.startswith("bias"):
            param[:] = 0


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
        if name.startswith("weight_hh"):
            normal = rng.standard_normal((layer._gates, layer.hidden_size, param.shape[1]))
            q, r = np.linalg.qr(normal)
            signs = np.sign(np.diagonal(r, axis1=1, axis2=2))  # without them q is not uniform: Mezzadri 2007
            param[:] = gain * (q * signs[:, None]).reshape(param.shape)


def forget_gate_bias(layer: LSTM, value: float = 1.0) -> None:
    """The bias of the forget gate, bias_ih + bias_hh, is `value` everywhere: bias_ih has it and bias_hh 0.

    With 1 a cell keeps most of its state before it has learnt what to forget: Gers et al. 2000; Jozefowicz et al. 2015.
    TypeError for what is no LSTM, ValueError for one without biases.

        pyrnn.init.forget_gate_bias(layer)
    """
    value = real("forget_gate_bias", "value", value, -np.inf)
    if not isinstance(layer, LSTM):
        raise TypeError(f"forget_gate_bias: layer is {type(layer).__name__}, expected an LSTM")
    if not layer.bias:
        raise ValueError("forget_gate_bias: the layer has no biases")
    forget = slice(layer.hidden_size, 2 * layer.hidden_size)
    for name, param in layer.params.items():
        if name.startswith("bias"):
            param[forget] = value if name.startswith("bias_ih") else 0


def chrono(layer: LSTM | GRU, steps: int, rng: Rng = None) -> None:
    """Biases of the gates with which a unit remembers for about u steps, u uniform in 1..steps-1, one for each unit.

    The forget gate of an LSTM and the update gate of a GRU have log u, the input gate of an LSTM -log u: Tallec &
    Ollivier 2018, arXiv:1804.11188. Each is bias_ih + bias_hh, of which bias_hh is 0; other biases stay. rng: None, an
    int seed or a numpy.random.Generator. TypeError for what is no LSTM or GRU, ValueError for one without biases and
    for less than 2 steps.

        pyrnn.init.chrono(layer, 400, rng=0)
    """
    steps = integer("chrono", "steps", steps, 2, MOST)
    rng = generator("chrono", rng)
    if not isinstance(layer, (LSTM, GRU)):
        raise TypeError(f"chrono: layer is {type(layer).__name__}, expected an LSTM or a GRU")
    if not layer.bias:
        raise ValueError("chrono: the layer has no biases")
    hidden = layer.hidden_size
    for name, param in layer.params.items():
        if name.startswith("bias_ih"):
            memory = np.log(rng.uniform(1, steps - 1, hidden))
            param[hidden : 2 * hidden] = memory
            if isinstance(layer, LSTM):
                param[:hidden] = -memory
        elif name.startswith("bias_hh"):
            param[0 if isinstance(layer, LSTM) else hidden : 2 * hidden] = 0


def _recurrent(call: str, layer: Any) -> Recurrent[Any]:
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{call}: layer is {type(layer).__name__}, expected a recurrent layer")
    return layer
