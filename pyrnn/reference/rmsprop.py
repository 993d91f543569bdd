"""One step of RMSprop or Adagrad, in place on flat arrays."""

from __future__ import annotations

import numpy as np


def step(
    params: np.ndarray, grads: np.ndarray, square: np.ndarray, velocity: np.ndarray | None,
    *, lr: float, keep: float, add: float, eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """torch.optim.RMSprop with add = 1 - keep (Tieleman & Hinton 2012), torch.optim.Adagrad with keep = add = 1 and no
    momentum (Duchi et al. 2011); all arrays (K,).

        g = grads + weight_decay * params
        square = keep * square + add * g^2
        velocity = momentum * velocity + g / (sqrt(square) + eps)
        params = params - lr * velocity

    square and velocity start as zeros; velocity None is no momentum. params, square and velocity are overwritten.
    """
    if velocity is None and momentum != 0:
        raise ValueError(f"momentum is {momentum}, but there is no velocity")
    g = grads + weight_decay * params
    square[:] = keep * square + add * g * g
    move = g / (np.sqrt(square) + eps)
    if velocity is not None:
        move += momentum * velocity
        velocity[:] = move
    params -= lr * move
