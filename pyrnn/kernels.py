"""The compiled kernels: one submodule per op, with the functions and arguments of `pyrnn.reference`.

The kernels take arrays as they are: one dtype (float32 or float64) in one call, nothing is converted. What does not
fit is a TypeError or a ValueError. Layers, losses and optimisers convert, and call these.
"""

try:
    from ._core import (
        adam,
        attention,
        copied,
        cross_entropy,
        embedding,
        get_num_threads,
        gru,
        hopfield,
        isa,
        linear,
        lstm,
        norm,
        rmsprop,
        rnn,
        set_num_threads,
        sgd,
    )
except ModuleNotFoundError as error:
    if error.name != f"{__package__}._core":
        raise
    raise ImportError(
        f"the compiled part of pyrnn is not beside {__file__}: this is the source folder. Run 'pip install .' there, "
        "and Python in another folder"
    ) from None

__all__ = [
    "adam",
    "attention",
    "copied",
    "cross_entropy",
    "embedding",
    "get_num_threads",
    "gru",
    "hopfield",
    "isa",
    "linear",
    "lstm",
    "norm",
    "rmsprop",
    "rnn",
    "set_num_threads",
    "sgd",
]
