"""Layers: what is called with arrays, has parameters, and gives gradients back."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The layers, which were all in a module of this name once."""
    import pyrnn

    from . import dropout

    if name == "dropout_mask":
        return dropout.dropout_mask
    found = getattr(pyrnn, name) if name in pyrnn.__all__ else None
    if getattr(found, "__module__", "").startswith(f"{__name__}."):
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
