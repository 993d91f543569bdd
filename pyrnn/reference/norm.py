"""The length of a flat array."""

from __future__ import annotations

import numpy as np


def l2(flat: np.ndarray) -> float:
    """sqrt(sum flat^2), summed in float64.   flat (K,)."""
    return float(np.sqrt(np.sum(np.square(flat, dtype=np.float64))))
