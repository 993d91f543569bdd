"""The long short-term memory, without peepholes and projection."""

from __future__ import annotations

from typing import Any

from .recurrent import Cell


def jax_step(state: Any, a: Any, weight_hh: Any, bias_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    h, c = state
    i, f, g, o = jnp.split(a + h @ weight_hh.T + bias_hh, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


CELL = Cell("LSTM", gates=4, onnx_order=[0, 3, 1, 2], jax_step=jax_step)  # i, f, g, o -> i, o, f, g
OPS = CELL.ops()[:1]
