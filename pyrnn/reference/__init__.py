"""The same functions as `pyrnn.kernels` in plain NumPy: one short file per op, to be read against the equations.

Nothing here is fast. The compiled kernels are judged by this package, and this package by finite differences and by
values of another library (tests/test_reference.py, tests/test_golden.py).

As the kernels they refuse masked arrays that hide something: NumPy would go on with some of the numbers here, and with
the masks there.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..cells import CELLS
from ..core.checks import opened
from . import (
    adam,
    additive_attention,
    attention,
    conv1d,
    crf,
    cross_entropy,
    ctc,
    embedding,
    hopfield,
    layer_norm,
    linear,
    norm,
    rmsprop,
    sgd,
)

__all__ = [
    *CELLS,
    "adam",
    "additive_attention",
    "attention",
    "conv1d",
    "crf",
    "cross_entropy",
    "ctc",
    "embedding",
    "hopfield",
    "layer_norm",
    "linear",
    "norm",
    "rmsprop",
    "sgd",
]

for _cell in CELLS:
    globals()[_cell] = importlib.import_module(f".{_cell}", __name__)


def _refusing_masks(call: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for arguments that hide nothing; ValueError for others."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            opened(call, name, value)
        return function(*map(_unmasked, args), **{name: _unmasked(value) for name, value in kwargs.items()})

    return checked


def _unmasked(value: Any) -> Any:
    """The numbers of a masked array that hides none, themselves."""
    return np.asarray(value) if isinstance(value, np.ndarray) else value


def _refuse_masks(op: str, module: ModuleType) -> None:
    for name, function in vars(module).copy().items():
        own = getattr(function, "__module__", None) == module.__name__ and hasattr(function, "__code__")
        if own and not name.startswith("_"):
            setattr(module, name, _refusing_masks(f"{op}.{name}", function))


for _op in __all__:
    _refuse_masks(_op, globals()[_op])
