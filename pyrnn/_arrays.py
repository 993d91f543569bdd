"""Arguments in, checked values out: array-likes, shapes, sizes, options. The one place that words such errors."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Rng = int | np.random.Generator | None  # what `generator` takes

INT64 = np.dtype("int64")
FLOAT_DTYPES = (np.dtype("float32"), np.dtype("float64"))

# Sizes that no machine has memory for, but arithmetic does not overflow at.
MOST = 2**31 - 1  # of one axis: features, units, classes, rows of a stream
MOST_NUMBERS = 2**59  # in one array; NumPy's own limit is 2**63 - 1 bytes


def shape_text(*axes: str | int) -> str:
    """("T", "N", 8) -> "(T, N, 8)", and with a comma where there is one axis, as Python writes shapes."""
    return f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"


def shape_error(call: str, name: str, shape: tuple[int, ...], expected: str) -> ValueError:
    """`LSTM: x has shape (5, 3, 7), expected (T, N, 8)`."""
    return ValueError(f"{call}: {name} has shape {shape}, expected {expected}")


def any_array(call: str, name: str, value: Any) -> Array:
    """An array-like as an array, whatever its dtype; ragged nesting is a ValueError."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{call}: {name} is not an array: {error}") from None


def numbers_array(call: str, name: str, value: Any) -> Array:
    """An array-like of real numbers in its own dtype; complex, object and string arrays are a TypeError."""
    array = any_array(call, name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{call}: {name} has dtype {array.dtype}, expected real numbers")
    return array


def real_array(call: str, name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """The same as an array of `dtype`."""
    if type(value) is np.ndarray and value.dtype is dtype:  # the usual case, fast
        return value
    return numbers_array(call, name, value).astype(dtype, copy=False)


def float_array(call: str, name: str, value: Any) -> Array:
    """The same as floats: float64 stays, what is narrower becomes float32, other real numbers what NumPy says."""
    array = numbers_array(call, name, value)
    return array.astype(FLOAT_DTYPES[np.result_type(array.dtype, np.float32) != np.float32], copy=False)


def shaped_array(call: str, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """As `real_array`, of exactly this shape."""
    array = real_array(call, name, value, dtype)
    if array.shape != shape:
        raise shape_error(call, name, array.shape, str(shape))
    return array


def integer_array(call: str, name: str, value: Any) -> Array:
    """An array-like of integers as an int64 array; floats and booleans are a TypeError (an empty list is not)."""
    if type(value) is np.ndarray and value.dtype is INT64:  # the usual case, fast
        return value
    array = any_array(call, name, value)
    if array.size == 0 and not isinstance(value, np.ndarray):
        return array.astype(np.int64)
    if array.dtype.kind == "O":  # NumPy's way with Python integers that are too large
        for number in array.flat:
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError(f"{call}: {name} holds {_shown(number)}, which is more than an int64 can hold")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{call}: {name} has dtype {array.dtype}, expected integers")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{call}: {name} holds {array.max()}, which is more than an int64 can hold")
    return array.astype(np.int64, copy=False)


def boolean_array(call: str, name: str, value: Any, shape: tuple[int, ...], expected: str) -> Array:
    """An array-like of booleans of exactly this shape; any other dtype is a TypeError (an empty list is not)."""
    array = any_array(call, name, value)
    if array.dtype != np.bool_:
        if array.size or isinstance(value, np.ndarray):
            raise TypeError(f"{call}: {name} has dtype {array.dtype}, expected booleans")
        array = array.astype(np.bool_)
    if array.shape != shape:
        raise shape_error(call, name, array.shape, expected)
    return array


def within(call: str, name: str, array: Array, high: int) -> Array:
    """The array, all of whose entries must be within 0..high; NaN is not."""
    if array.size and not 0 <= array.min() <= array.max() <= high:
        bad = array[~((array >= 0) & (array <= high))][0]
        raise ValueError(f"{call}: {name} holds {bad}, expected 0 to {high}")
    return array


def lengths_array(call: str, value: Any, steps: int, rows: int | None) -> Array:
    """Valid steps of each row, (rows,) int64 within 0..steps; rows None: one integer for an unbatched sequence."""
    array = integer_array(call, "lengths", value)
    shape = () if rows is None else (rows,)
    if array.shape != shape:
        raise shape_error(call, "lengths", array.shape, str(shape))
    return within(call, "lengths", array.reshape(-1), steps)


def integer(call: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer within low..high."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{call}: {name} is {value!r}, expected an integer") from None
    if number < low:
        raise ValueError(f"{call}: {name} is {_shown(number)}, expected at least {low}")
    if high is not None and number > high:
        raise ValueError(f"{call}: {name} is {_shown(number)}, expected {low} to {high}")
    return number


def _shown(number: int) -> str:
    """An integer in an error; Python refuses to write very long ones."""
    return str(number) if number.bit_length() <= 128 else f"{'-' * (number < 0)}2**{number.bit_length() - 1} or more"


def real(call: str, name: str, value: Any, low: float, high: float = math.inf) -> float:
    """A real number within low..high; NaN is out of every range."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{call}: {name} is {value!r}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{call}: {name} is more than a float can hold") from None
    if not low <= number <= high:
        expected = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ValueError(f"{call}: {name} is {number:g}, expected {expected}")
    return number


def boolean(call: str, name: str, value: Any) -> bool:
    """True or False and nothing else, so that an argument in the wrong place is noticed."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{call}: {name} is {value!r}, expected True or False")
    return bool(value)


def choice(call: str, name: str, value: Any, choices: Collection[str]) -> str:
    """One of a few names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{call}: {name} is {value!r}, expected one of {', '.join(choices)}")
    return value


def float_dtype(call: str, value: Any) -> np.dtype[Any]:
    """float32 or float64, by any name NumPy knows them by."""
    try:
        dtype = FLOAT_DTYPES[FLOAT_DTYPES.index(np.dtype(value))] if value is not None else None
    except (TypeError, ValueError):
        dtype = None
    if dtype is None:
        raise ValueError(f"{call}: dtype is {value!r}, expected float32 or float64")
    return dtype


def generator(call: str, rng: Any) -> np.random.Generator:
    """None (a fresh seed), an integer seed or a Generator, which is used as it is."""
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    try:
        return np.random.default_rng(integer(call, "rng", rng, 0))
    except TypeError:
        raise TypeError(f"{call}: rng is {rng!r}, expected None, an integer or a numpy.random.Generator") from None


def used_pullback(call: str) -> RuntimeError:
    """The refusal of a second call of one pullback."""
    return RuntimeError(f"{call}: this pullback has been called before; each vjp gives one pullback for one call")
