"""The recurrent layers, every cell of pyrnn.cells: the layer over a sequence, and its stream step by step."""

from __future__ import annotations

from typing import Any

from pyrnn.cells import CELLS

from .recurrent import Cell


def rnn_step(state: Any, a: Any, weight_hh: Any, bias_hh: Any) -> Any:
    import jax.numpy as jnp

    (h,) = state
    return (jnp.tanh(a + h @ weight_hh.T + bias_hh),)


def lstm_step(state: Any, a: Any, weight_hh: Any, bias_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    h, c = state
    i, f, g, o = jnp.split(a + h @ weight_hh.T + bias_hh, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru_step(state: Any, a: Any, weight_hh: Any, bias_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (h,) = state
    a_r, a_z, a_n = jnp.split(a, 3, axis=-1)
    b_r, b_z, b_n = jnp.split(h @ weight_hh.T + bias_hh, 3, axis=-1)
    z = jax.nn.sigmoid(a_z + b_z)
    n = jnp.tanh(a_n + jax.nn.sigmoid(a_r + b_r) * b_n)
    return ((1 - z) * n + z * h,)


JAX_STEPS = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}
ATTRIBUTES = {"gru": {"linear_before_reset": 1}}
CELL = {op: Cell(op, JAX_STEPS.get(op), ATTRIBUTES.get(op, {})) for op in CELLS}
LAYERS_AND_STREAMS = [cell.ops() for cell in CELL.values()]
OPS = tuple(layer for layer, _ in LAYERS_AND_STREAMS) + tuple(stream for _, stream in LAYERS_AND_STREAMS)
