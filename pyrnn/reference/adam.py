"""One step of Adam, in place on flat arrays."""

from __future__ import annotations

import numpy as np


def step(
    params: np.ndarray, grads: np.ndarray, m: np.ndarray, v: np.ndarray,
    *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int, decoupled: bool = False,
) -> None:  # fmt: skip
    """Kingma & Ba 2015 with the weight decay of torch.optim.Adam; all arrays (K,), `step` counts from 1.

        g = grads + weight_decay * params
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        params = params - lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    decoupled: the weight decay of AdamW (Loshchilov & Hutter 2019), which the moments m and v know nothing of.

        g = grads, and at the end params - lr * weight_decay * params instead of params

    params, m and v are overwritten; grads is only read.
    """
    g = grads if decoupled else grads + weight_decay * params
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
    mean = m / (1 - beta1**step)
    root = np.sqrt(v / (1 - beta2**step))
    if decoupled:
        params *= 1 - lr * weight_decay
    params -= lr * mean / (root + eps)
