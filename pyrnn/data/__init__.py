"""Sequences into arrays, series into windows, and data to begin with. All is imported at the first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fetched import SETS, fetch
    from .sequences import families, held_out, minibatches, pad
    from .series import Scaler, windows
    from .toys import load_names, load_passengers, make_adding, make_copying

__all__ = [
    "SETS",
    "Scaler",
    "families",
    "fetch",
    "held_out",
    "load_names",
    "load_passengers",
    "make_adding",
    "make_copying",
    "minibatches",
    "pad",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pyrnn.data' has no attribute {name!r}")
    from . import fetched, sequences, series, toys

    for module in (sequences, series, toys, fetched):
        if hasattr(module, name):
            return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
