"""One step of gradient descent with momentum, in place on flat arrays."""

from __future__ import annotations

import numpy as np


def step(
    params: np.ndarray, grads: np.ndarray, velocity: np.ndarray | None,
    *, lr: float, momentum: float, weight_decay: float, nesterov: bool,
) -> None:  # fmt: skip
    """torch.optim.SGD without dampening (Sutskever et al. 2013); all arrays (K,).

        g = grads + weight_decay * params
        velocity = momentum * velocity + g
        params = params - lr * velocity                      nesterov: - lr * (g + momentum * velocity)

    velocity starts as zeros; None is plain descent, params - lr * g. params and velocity are overwritten.
    """
    g = grads + weight_decay * params
    if velocity is None:
        if momentum != 0:
            raise ValueError(f"momentum is {momentum}, but there is no velocity")
        params -= lr * g
        return
    velocity[:] = momentum * velocity + g
    params -= lr * (g + momentum * velocity if nesterov else velocity)
