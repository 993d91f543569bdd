"""The simple recurrent layer (tanh)."""

from __future__ import annotations

from typing import Any

from .recurrent import Cell


def jax_step(state: Any, a: Any, weight_hh: Any, bias_hh: Any) -> Any:
    import jax.numpy as jnp

    (h,) = state
    return (jnp.tanh(a + h @ weight_hh.T + bias_hh),)


CELL = Cell("RNN", gates=1, onnx_order=[0], jax_step=jax_step)
OPS = CELL.ops()[:1]
