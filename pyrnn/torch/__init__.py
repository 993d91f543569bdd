"""The kernels inside torch: drop-in RNN, LSTM, GRU and attention for tensors on the CPU.

    import pyrnn.torch

    layer = pyrnn.torch.LSTM(8, 16)         # a torch.nn.LSTM that trains faster
    pyrnn.torch.accelerate(model)           # the same for all that a model has, in place

What is computed here, how and within which limits is in `modules` and `attention`.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("pyrnn.torch needs torch: pip install torch (the extra [torch])") from error

from .attention import scaled_dot_product_attention
from .modules import GRU, LSTM, RNN, accelerate

__all__ = ["GRU", "LSTM", "RNN", "accelerate", "scaled_dot_product_attention"]
