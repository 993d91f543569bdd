"""The gated recurrent unit whose reset gate acts after the recurrent product, as in torch."""

from __future__ import annotations

from typing import Any

from .recurrent import Cell


def jax_step(state: Any, a: Any, weight_hh: Any, bias_hh: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (h,) = state
    a_r, a_z, a_n = jnp.split(a, 3, axis=-1)
    b_r, b_z, b_n = jnp.split(h @ weight_hh.T + bias_hh, 3, axis=-1)
    z = jax.nn.sigmoid(a_z + b_z)
    n = jnp.tanh(a_n + jax.nn.sigmoid(a_r + b_r) * b_n)
    return ((1 - z) * n + z * h,)


CELL = Cell("GRU", 3, [1, 0, 2], jax_step, {"linear_before_reset": 1})  # r, z, n -> z, r, n
OPS = CELL.ops()[:1]
