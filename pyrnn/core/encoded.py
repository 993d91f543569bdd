"""Matrices in fewer bits, as the kernels take them: of bfloat16 an array of their bits, of int8 a pair `Int8`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .checks import Array

FORMS = ("bfloat16", "int8")
SCALE = ".scale"  # behind a name: that of the scales of an int8 matrix


class Int8(NamedTuple):
    """Row r is numbers[r] * scale[r]."""

    numbers: Array  # (R, K), -127 to 127
    scale: Array  # (R,) float32


def encode(matrix: Array, form: str) -> Array | Int8:
    """A float32 matrix (R, K) in this form.

    "bfloat16"  the upper halves of its numbers, rounded to nearest, of two as near to the even one, as uint16
    "int8"      the scale of a row is max|w| / 127, its numbers w / scale, rounded likewise. A row of zeros has the
                scale 0, one that holds NaN or infinity the scale NaN, and both zeros as numbers
    """
    if form == "bfloat16":
        bits = matrix.view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(np.isnan(matrix), bits >> 16 | 0x40, rounded).astype(np.uint16)
    with np.errstate(all="ignore"):
        scale = np.abs(matrix).max(axis=1, initial=0) / np.float32(127)
        scale[~np.isfinite(scale)] = np.nan
        numbers = np.rint(matrix / scale[:, None])
        numbers[~(scale > 0)] = 0
    return Int8(np.clip(numbers, -127, 127).astype(np.int8), scale)


def decode(matrix: Array | Int8) -> Array:
    """The float32 matrix that it is."""
    if isinstance(matrix, Int8):
        return matrix.numbers * matrix.scale[:, None]
    wide: Array = (matrix.astype(np.uint32) << 16).view(np.float32)
    return wide


def rounded(x: Array) -> Array:
    """The factors of products with the precision "bfloat16": float32 numbers that bfloat16 has, too."""
    near = decode(encode(np.ascontiguousarray(x), "bfloat16"))
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), near)


def rows(matrix: Array | Int8, begin: int, end: int) -> Array | Int8:
    """Some of its rows."""
    return Int8(*(part[begin:end] for part in matrix)) if isinstance(matrix, Int8) else matrix[begin:end]


def arrays(name: str, matrix: Array | Int8) -> dict[str, Array]:
    """What a state dict has of it: under its name the numbers, and those of int8 with their scales."""
    return {name: matrix.numbers, name + SCALE: matrix.scale} if isinstance(matrix, Int8) else {name: matrix}


def matrices(state_dict: Mapping[str, Array]) -> dict[str, Any]:
    """The way back, of all that a layer has: other arrays are as they are."""
    return {
        name: Int8(array, state_dict[name + SCALE]) if name + SCALE in state_dict else array
        for name, array in state_dict.items()
        if not name.endswith(SCALE)
    }
