"""Pickles of NumPy arrays in dicts and lists, read without running what they hold: they may name arrays alone."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ..core.checks import Array, shown
from . import torch

START = pickle.PROTO


class Kind:
    """A dtype of numbers, whose byte order the pickle sets."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or np.dtype(code).kind not in "biufc":
            raise ValueError(f"it holds an array of {shown(code)}, expected numbers")
        self.dtype = np.dtype(code)


class Numbers:
    """An array, whose numbers the pickle sets."""

    def __init__(self, *_: Any) -> None:
        self.array: Array | None = None


class Unpickler(torch.Unpickler):
    """Reads a pickle of arrays."""

    names: ClassVar[Mapping[str, Any]] = {
        "collections.OrderedDict": torch.entries,
        "_codecs.encode": lambda text, encoding: text.encode("latin1") if encoding == "latin1" else None,
        "__builtin__.bytes": lambda *_: b"",  # in protocol 2, of no numbers
        "numpy.ndarray": None,
        "numpy.dtype": Kind,
        "numpy.core.multiarray._reconstruct": Numbers,
        "numpy._core.multiarray._reconstruct": Numbers,
        "numpy.core.multiarray.scalar": lambda *_: None,
        "numpy._core.multiarray.scalar": lambda *_: None,
    }
    instead: ClassVar[str] = (
        "just arrays in pickles of protocol 2 to 4. numpy.savez(path, **arrays) makes one that does"
    )

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lies outside of it."""
        raise ValueError("its pickle refers to what is not in it")

    def build(self, value: Any, state: Any) -> None:
        """A dtype's (version, byte order, ...), an array's (version, shape, dtype, is Fortran's, bytes)."""
        if isinstance(value, Kind):
            value.dtype = value.dtype.newbyteorder(state[1])
        elif isinstance(value, Numbers):
            _, shape, kind, fortran, content = state
            if not isinstance(kind, Kind) or not isinstance(content, bytes):
                raise ValueError("an array is not described as NumPy does it")
            if any(type(n) is not int or n < 0 for n in shape):
                raise ValueError(f"an array of shape {shown(shape)} cannot be")
            if math.prod(shape) * kind.dtype.itemsize != len(content):
                raise ValueError(f"an array of shape {shape} and dtype {kind.dtype} has {len(content)} bytes")
            numbers = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")
            value.array = numbers.astype(kind.dtype.newbyteorder("="), order="C")


def read_arrays(file: BinaryIO, size: int) -> dict[str, Array]:
    """The arrays in an open file of so many bytes, by their keys joined by dots."""
    found = torch.held(Unpickler(file).load(), Numbers, size)
    if not found:
        raise ValueError("its pickle holds no arrays")
    empty = [name for name, numbers in found.items() if numbers.array is None]
    if empty:
        raise ValueError(f"the numbers of {empty[0]} are missing")
    return {name: numbers.array for name, numbers in found.items() if numbers.array is not None}
