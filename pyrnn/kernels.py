"""The compiled kernels: one submodule per op, with the functions and arguments of `pyrnn.reference`.

The kernels take arrays as they are: one dtype (float32 or float64) in one call, nothing is converted. What does not
fit is a TypeError or a ValueError. Layers, losses and optimisers convert, and call these.
"""

from ._core import (
    adam,
    cross_entropy,
    embedding,
    get_num_threads,
    gru,
    isa,
    linear,
    lstm,
    norm,
    rnn,
    set_num_threads,
    sgd,
)

__all__ = [
    "adam",
    "cross_entropy",
    "embedding",
    "get_num_threads",
    "gru",
    "isa",
    "linear",
    "lstm",
    "norm",
    "rnn",
    "set_num_threads",
    "sgd",
]
