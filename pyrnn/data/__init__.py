"""Sequences into arrays, series into windows, and data to begin with. All is imported at the first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.later import later

if TYPE_CHECKING:
    from .fetched import SETS, fetch
    from .sequences import families, held_out, minibatches, pad
    from .series import Scaler, windows
    from .toys import load_names, load_passengers, make_adding, make_copying

_HOMES = {
    "fetched": ("SETS", "fetch"),
    "sequences": ("families", "held_out", "minibatches", "pad"),
    "series": ("Scaler", "windows"),
    "toys": ("load_names", "load_passengers", "make_adding", "make_copying"),
}
__getattr__ = later(__name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names})

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


def __dir__() -> list[str]:
    return __all__
