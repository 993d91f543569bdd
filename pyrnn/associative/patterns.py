"""Patterns of two values, as users hold them and as bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels
from ..core.checks import Array, numbers_array, shape_error

MOST_UNITS = 2**25
CHUNK = 2**24  # entries that are looked at together, so that checks need little memory
OFF = {"bipolar": -1, "binary": 0}


# ---- patterns of two values


def _on(call: str, name: str, value: Any, n: int | None, off: int, letter: str) -> tuple[Array, bool]:
    """Where states (rows, n) or (n,) are on, (rows, n), and whether it was one; ValueError for another value.

    Booleans are on and off in every net.
    """
    array = numbers_array(call, name, value)
    wanted = "n" if n is None else n
    if array.ndim not in (1, 2) or (array.shape[-1] != n if n is not None else 0 in array.shape[-1:]):
        expected = f"({wanted},) or ({letter}, {wanted})" + _as_rows(array.shape, n)
        raise shape_error(call, name, array.shape, expected)
    if array.dtype == np.bool_:
        off = 0
    if array.shape[-1] > MOST_UNITS:
        raise shape_error(call, name, array.shape, f"at most {MOST_UNITS} units")
    rows = array.reshape(-1, array.shape[-1])
    on = np.empty(rows.shape, np.bool_)
    step = max(1, CHUNK // rows.shape[1])
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        np.equal(part, 1, out=on[first : first + step])
        good = on[first : first + step] | (part == off)
        if not good.all():
            wrong = part[~good][0]
            others = (f"; a net made with states={kind!r} takes such" for kind, low in OFF.items() if low == wrong)
            raise ValueError(f"{call}: {name} holds {wrong}, expected {off} or 1{next(others, '')}")
    return on, array.ndim == 1


def _as_rows(shape: tuple[int, ...], n: int | None) -> str:
    """What to do with images, where these are some, of n pixels or any number."""
    pixels = math.prod(shape[-2:])
    if len(shape) not in (2, 3) or pixels == 0 or pixels != (n or pixels):
        return ""
    return f"; images are rows of pixels, .reshape(-1, {pixels})"


def _finite(call: str, name: str, array: Array) -> Array:
    if not np.isfinite(array).all():
        raise ValueError(f"{call}: {name} holds {array[~np.isfinite(array)][0]}, expected finite numbers")
    return array


def _different(on: Array) -> int:
    """How many of these patterns (P, n) are different ones."""
    return len({np.packbits(row).tobytes() for row in on})


def _check_bits(bits: Array, n: int, count: int) -> None:
    """ValueError where these are not the bits of `count` patterns of n units."""
    if bits.dtype != np.uint32 or bits.shape != (n, -(-count // 32)):
        raise ValueError(f"bits is {bits.dtype} {bits.shape}, expected uint32 ({n}, {-(-count // 32)})")
    if count % 32 and (bits[:, -1] >> np.uint32(count % 32)).any():
        raise ValueError(f"bits holds more than the {count} patterns")


def _unpacked(bits: Array, count: int) -> Array:
    """bits (n, words) -> (count, n) booleans."""
    octets = np.ascontiguousarray(bits, "<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little", count=count).view(np.bool_).T


def _appended(bits: Array, signs: Array, on: Array, negative: bool) -> tuple[Array, Array]:
    """Bits and signs with more patterns; the first new ones fill up the last word."""
    spare = len(signs) % 32
    if spare:
        new = kernels.hopfield.pack(np.concatenate([np.zeros((spare, len(bits)), np.bool_), on]))
        new[:, 0] |= bits[:, -1]
    else:
        new = kernels.hopfield.pack(on)
    joined = np.concatenate([bits[:, : len(signs) // 32], new], axis=1) if bits.size else new
    return joined, np.concatenate([signs, np.full(len(on), negative)])


def _cancelled(stored: Array, opposite: Array, on: Array) -> tuple[Array, Array]:
    """Which stored patterns stay (P,), and the new ones that are left; a pattern and its inverse have equal weights."""

    def key(row: Array) -> bytes:
        return np.packbits(row ^ row[0]).tobytes()

    places: dict[bytes, list[int]] = {}
    for place in np.flatnonzero(opposite).tolist():
        places.setdefault(key(stored[place]), []).append(place)
    kept, left = np.ones(len(stored), np.bool_), np.ones(len(on), np.bool_)
    for k, row in enumerate(on):
        found = places.get(key(row))
        if found:
            kept[found.pop()], left[k] = False, False
    return kept, on[left]
