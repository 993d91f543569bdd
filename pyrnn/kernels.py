"""The compiled kernels: one submodule per op, with the functions and arguments of `pyrnn.reference`.

The kernels take arrays as they are: one dtype (float32 or float64) in one call, nothing is converted. What does not
fit is a TypeError or a ValueError. Layers, losses and optimisers convert, and call these.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._command import is_command_line
from .cells import CELLS

try:
    from . import _core
    from ._core import (
        adam,
        additive_attention,
        attention,
        conv1d,
        copied,
        crf,
        cross_entropy,
        ctc,
        embedding,
        empty,
        get_num_threads,
        hopfield,
        isa,
        isas,
        layer_norm,
        linear,
        norm,
        rmsprop,
        set_num_threads,
        sgd,
    )
except ImportError as error:
    message = str(error)  # a wrong PYRNN_NUM_THREADS or PYRNN_ISA, as a rule
    if isinstance(error, ModuleNotFoundError) and error.name == f"{__package__}._core":
        message = (
            f"the compiled part of pyrnn is not beside {__file__}: this is the source folder. Run 'pip install .' "
            "there, and Python in another folder"
        )
    if is_command_line():
        sys.exit(f"Error: {message}")
    raise ImportError(message) from None

_unbound = [name for name in CELLS if not hasattr(_core, name)]
if _unbound:
    raise ImportError(f"the compiled part has no {_unbound[0]}: built before pyrnn/cells.py had it, or not bound")
globals().update({name: getattr(_core, name) for name in CELLS})
if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # the cells


__all__ = [
    *CELLS,
    "adam",
    "additive_attention",
    "attention",
    "conv1d",
    "copied",
    "crf",
    "cross_entropy",
    "ctc",
    "embedding",
    "empty",
    "get_num_threads",
    "hopfield",
    "isa",
    "isas",
    "layer_norm",
    "linear",
    "norm",
    "rmsprop",
    "set_num_threads",
    "sgd",
]
