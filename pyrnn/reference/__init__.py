"""The same functions as `pyrnn.kernels` in plain NumPy: one short file per op, to be read against the equations.

Nothing here is fast. The compiled kernels are judged by this package, and this package by finite differences and by
values of another library (tests/test_reference.py, tests/test_golden.py).
"""

from . import adam, attention, cross_entropy, embedding, gru, hopfield, linear, lstm, norm, rmsprop, rnn, sgd

__all__ = [
    "adam",
    "attention",
    "cross_entropy",
    "embedding",
    "gru",
    "hopfield",
    "linear",
    "lstm",
    "norm",
    "rmsprop",
    "rnn",
    "sgd",
]
