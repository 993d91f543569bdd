"""Arguments in, checked values out: array-likes, shapes, sizes, options. The one place that words such errors."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import numbers
import operator
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
Kind = TypeVar("Kind")

Array = np.ndarray[Any, np.dtype[Any]]
Rng = int | np.random.Generator | None  # what `generator` takes

INT64 = np.dtype("int64")
FLOAT_DTYPES = (np.dtype("float32"), np.dtype("float64"))

# Sizes that no machine has memory for, but arithmetic does not overflow at.
MOST = 2**31 - 1  # of one axis: features, units, classes, rows of a stream
MOST_NUMBERS = 2**59  # in one array; NumPy's own limit is 2**63 - 1 bytes


BRACKETS: dict[type, str] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}

# Entries of a list that are what they seem, so that nothing in them need be looked at.
PLAIN = {bool, int, float, complex, str, bytes, type(None), np.ndarray, *(np.dtype(c).type for c in "?bhilqBHILQefd")}
DLPACK_CPU = 1  # its number for this device
DEEPEST = 64  # lists in lists: NumPy itself refuses more


# ---- words


def cut(text: object, most: int = 400) -> str:
    """A text in an error, without its middle where it is long."""
    words = str(text)
    return words if len(words) <= most else f"{words[: most * 2 // 3]}...{words[-(most // 3) :]}"


def shown(value: Any, most: int = 80) -> str:
    """A value in an error, in about `most` characters.

    Plain values look as in Python; of an array there are shape and dtype, of any other object only its type: the repr
    of a stranger may be long, slow, or an error itself.
    """
    kind = type(value)
    if isinstance(value, str):
        text, size = repr(str.__getitem__(value, slice(most))), str.__len__(value)
        return text if size <= most else f"{text}... ({size} characters)"
    if isinstance(value, bytes):
        text, size = repr(bytes.__getitem__(value, slice(most))), bytes.__len__(value)
        return text if size <= most else f"{text}... ({size} bytes)"
    if kind in BRACKETS:
        return _entries_shown(value, most)
    if kind is int:  # Python refuses to write very long ones
        return str(value) if value.bit_length() <= 128 else f"{'-' * (value < 0)}2**{value.bit_length() - 1} or more"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {cut(value.dtype, most)}"
    if isinstance(value, type):
        return cut(type.__repr__(value), most)
    if value is None or value is ... or isinstance(value, (numbers.Number, np.generic, np.dtype, slice, range)):
        try:
            return cut(repr(value), most)
        except Exception:  # whatever it is, it must not hide the error that is being told
            pass
    return f"{kind.__name__} object"


def _entries_shown(value: Any, most: int) -> str:
    brackets = BRACKETS[type(value)]
    parts: list[str] = []
    left = most
    for entry in value.items() if type(value) is dict else value:
        if left <= 0:
            parts.append(f"... ({len(value)} in all)")
            break
        if type(value) is dict:
            parts.append(f"{shown(entry[0], left // 2)}: {shown(entry[1], left // 2)}")
        else:
            parts.append(shown(entry, left // 2))
        left -= len(parts[-1]) + 2
    return brackets[0] + ", ".join(parts) + "," * (type(value) is tuple and len(parts) == 1) + brackets[1]


def file_name(path: str | os.PathLike[str]) -> str:
    """A path in an error; what is no name but a text, which somebody took for one, is quoted and cut."""
    name = os.fspath(path)
    return name if isinstance(name, str) and len(name) <= 400 and "\n" not in name else shown(name)


def shape_text(*axes: str | int) -> str:
    """("T", "N", 8) -> "(T, N, 8)", and with a comma where there is one axis, as Python writes shapes."""
    return f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"


def shape_error(call: str, name: str, shape: tuple[int, ...], expected: str) -> ValueError:
    """`LSTM: x has shape (5, 3, 7), expected (T, N, 8)`."""
    return ValueError(f"{call}: {name} has shape {shape}, expected {expected}")


# ---- array-likes


def any_array(call: str, name: str, value: Any) -> Array:
    """An array-like as an array, whatever its dtype, with the numbers it holds and no others.

    An array-like is what NumPy reads, nested lists of it, and what speaks DLPack, on the CPU. A masked array that hides
    something, missing values and ragged nesting are a ValueError, what does not become an array a TypeError, or a
    RuntimeError where that is its own error and there is nothing to call first. Small floats of other packages, such as
    bfloat16, become float32, which holds them exactly.
    """
    if type(value) is np.ndarray and value.dtype.kind != "V":  # as good as all, and a part of the smallest calls
        return value
    return _widened(_given(call, name, value))


def _given(call: str, name: str, value: Any) -> Array:
    """`any_array` without the last sentence."""
    if type(value) is np.ndarray:
        return value
    array = None
    if type(value) in (list, tuple):
        with contextlib.suppress(Exception):  # `_converted` says why
            array = np.asarray(value)
    if array is None or not _is_plain(value, array):
        value = opened(call, name, value)
    if array is None or array.dtype.kind == "O":
        array = _columns(call, name, value) if _is_frame(value) else _converted(call, name, value)
    return array


def _widened(array: Array) -> Array:
    """Small numbers of other packages as the smallest of NumPy's that hold them."""
    if array.dtype.kind == "V" and array.dtype.type is not np.void:
        for dtype in ("int8", "uint8", "float32"):
            if np.can_cast(array.dtype, dtype):
                return array.astype(dtype)
    return array


def is_array_like(value: Any) -> bool:
    """Whether it is a list or an array of any package, and no single number."""
    arrays = hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    return isinstance(value, list) or (arrays and not isinstance(value, np.generic))


def _speaks_dlpack_alone(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not hasattr(value, "__array__")


def _is_plain(value: Any, array: Array) -> bool:
    """Whether nested lists are the numbers that NumPy made of them, and nothing in them can hide some.

    The single numbers, which are most of the work, need not be looked at where they are integers or many floats: of one
    that is hidden NumPy makes an error or NaN.
    """
    kind = array.dtype.kind
    if kind not in "biuf":
        return False
    level = value
    for _ in range(array.ndim - 1):
        kinds = set(map(type, level))
        if not kinds <= {list, tuple}:
            return kinds == {np.ndarray}
        level = list(itertools.chain.from_iterable(level))
    few = array.size < 100
    return kind in "iu" or (kind == "f" and not few and not np.isnan(array).any()) or PLAIN.issuperset(map(type, level))


def _parts(value: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What nested lists hold beside plain numbers and arrays, each with its place: ("[2][0]", value[2][0])."""
    if type(value) not in (list, tuple):
        yield where, value
    elif depth < DEEPEST and not PLAIN.issuperset(map(type, value)):
        for k, entry in enumerate(value):
            if type(entry) not in PLAIN:
                yield from _parts(entry, f"{where}[{k}]", depth + 1)


def opened(call: str, name: str, value: Any, depth: int = 0) -> Any:
    """Nested lists whose parts hide nothing (`refuse_hidden`), with arrays in the place of what speaks DLPack alone, so
    that any package can read them."""
    if type(value) in (list, tuple):
        if depth >= DEEPEST or PLAIN.issuperset(map(type, value)):
            return value
        return [
            entry if type(entry) in PLAIN else opened(call, f"{name}[{k}]", entry, depth + 1)
            for k, entry in enumerate(value)
        ]
    refuse_hidden(call, name, value)
    return _converted(call, name, value) if _speaks_dlpack_alone(value) else value


def refuse_hidden(call: str, name: str, value: Any) -> None:
    """Refuse what says of some of its numbers that they are none, which `np.asarray` would not heed: ValueError."""
    if isinstance(value, np.ndarray) and value.dtype.names is None:
        hidden = np.count_nonzero(getattr(value, "mask", False))
        if hidden:
            raise ValueError(
                f"{call}: {name} is a masked array that hides {hidden} of its {value.size} entries, expected plain "
                "numbers: give its data, and say what counts with mask= (True where it does) or lengths="
            )
    elif not isinstance(value, (np.ndarray, np.generic)):
        missing = _missing(value)
        if missing:
            raise ValueError(f"{call}: {name} has {missing} missing values among {len(value)}, fill or drop them")


def _missing(value: Any) -> int:
    """How many values a column of pandas, polars or pyarrow says to lack; a frame of polars those of its columns."""
    if _is_nullable(value):
        return int(np.count_nonzero(value.isna()))
    if not hasattr(value, "null_count") or not hasattr(value, "__array__"):  # a lazy frame of polars has none to count
        return 0
    return int(np.asarray(value.null_count() if callable(value.null_count) else value.null_count).sum())


def _is_nullable(value: Any) -> bool:
    """A pandas column whose numbers lie beside marks of those that are missing: Int64, boolean, int64[pyarrow]."""
    return isinstance(getattr(getattr(value, "dtype", None), "numpy_dtype", None), np.dtype) and hasattr(value, "isna")


def _is_frame(value: Any) -> bool:
    """A pandas data frame."""
    return all(hasattr(value, name) for name in ("__array__", "columns", "dtypes", "items"))


def _columns(call: str, name: str, frame: Any) -> Array:
    """A data frame as an array of the widest dtype of its columns, which must be numbers."""
    if all(isinstance(dtype, np.dtype) and dtype.kind in "fiub" for dtype in frame.dtypes):
        array = _converted(call, name, frame)
        if array.dtype.kind in "fiub":
            return array
    columns = []
    for label, column in frame.items():
        where = f"column {shown(label)} of {name}"
        columns.append(numbers_array(call, where, column))
    return np.stack(columns, axis=1) if columns else _converted(call, name, frame)


def _converted(call: str, name: str, value: Any) -> Array:
    try:
        if _speaks_dlpack_alone(value):
            return np.from_dlpack(value)
        return np.asarray(value, value.dtype.numpy_dtype if _is_nullable(value) else None)
    except ValueError as error:
        hint = " (pyrnn.data.pad makes one of sequences of unequal length)" * ("inhomogeneous" in str(error))
        raise ValueError(f"{call}: {name} is not an array: {cut(error)}{hint}") from None
    except MemoryError:
        raise
    except Exception as error:
        first = _to_call_first(value)
        kind = RuntimeError if isinstance(error, RuntimeError) and not first else TypeError
        reason = f"{type(error).__name__}: {cut(error)}"
        raise kind(f"{call}: {name} does not become an array{first} ({reason})") from error


def _to_call_first(value: Any) -> str:
    """What to do first, where it is a tensor of torch that NumPy cannot read, or lists of them, or not on the CPU."""
    if hasattr(value, "__dlpack_device__") and not hasattr(value, "__array__"):
        return ", copy it to the CPU first" * (int(value.__dlpack_device__()[0]) != DLPACK_CPU)
    for where, tensor in _parts(value):
        if hasattr(tensor, "requires_grad") and hasattr(tensor, "device"):
            calls = ".detach()" * bool(tensor.requires_grad)
            calls += ".cpu()" * (getattr(tensor.device, "type", "cpu") != "cpu")
            calls += ".float()" * str(tensor.dtype).startswith(("torch.bfloat", "torch.float8"))
            if calls:
                return f", call {calls} of the tensor{where and f' at {where}'} first"
    return ""


def numbers_array(call: str, name: str, value: Any) -> Array:
    """An array-like of real numbers in its own dtype; complex, object and string arrays are a TypeError."""
    array = any_array(call, name, value)
    if array.dtype.kind not in "fiub":
        raise dtype_error(call, name, array, "real numbers")
    return array


def dtype_error(call: str, name: str, array: Array, expected: str) -> TypeError:
    """`LSTM: x has dtype complex128, expected real numbers`; of an object array also what makes it one."""
    hint = ""
    if array.dtype.kind == "O":
        stranger = next((entry for entry in array.flat if not isinstance(entry, numbers.Real)), array)
        hint = ": it holds numbers, .astype(float)" if stranger is array else f": it holds {shown(stranger)}"
    return TypeError(f"{call}: {name} has dtype {cut(array.dtype)}, expected {expected}{hint}")


def plain(array: Array) -> Array:
    """C-ordered and aligned, a copy where it was not: how NumPy walks through memory decides the last bits of sums."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")


def real_array(call: str, name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """An array-like of real numbers as a plain array of `dtype`."""
    if type(value) is np.ndarray and value.dtype is dtype and value.flags.carray:  # the usual case, fast
        return value
    return plain(numbers_array(call, name, value).astype(dtype, copy=False))


def float_array(call: str, name: str, value: Any) -> Array:
    """The same as plain floats: float64 stays, what is narrower becomes float32, other real numbers what NumPy says."""
    array = numbers_array(call, name, value)
    if array.dtype not in FLOAT_DTYPES:
        array = array.astype(FLOAT_DTYPES[np.result_type(array.dtype, np.float32) != np.float32])
    return plain(array)


def shaped_array(call: str, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """As `real_array`, of exactly this shape."""
    array = real_array(call, name, value, dtype)
    if array.shape != shape:
        raise shape_error(call, name, array.shape, str(shape))
    return array


def integer_array(call: str, name: str, value: Any) -> Array:
    """An array-like of integers as a plain int64 array; floats and booleans are a TypeError (an empty list is not)."""
    if type(value) is np.ndarray and value.dtype is INT64 and value.flags.carray:  # the usual case, fast
        return value
    given = _given(call, name, value)
    array = _widened(given)
    if array.size == 0 and not isinstance(value, np.ndarray):
        return array.astype(np.int64)
    if array.dtype.kind == "O":  # NumPy's way with Python integers that are too large
        for number in array.flat:
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError(f"{call}: {name} holds {shown(number)}, which is more than an int64 can hold")
    if array.dtype.kind not in "iu":
        raise dtype_error(call, name, given, "integers")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{call}: {name} holds {array.max()}, which is more than an int64 can hold")
    return plain(array.astype(np.int64, copy=False))


def boolean_array(call: str, name: str, value: Any, shape: tuple[int, ...], expected: str) -> Array:
    """An array-like of booleans of exactly this shape; any other dtype is a TypeError (an empty list is not)."""
    array = _given(call, name, value)
    if array.dtype != np.bool_:
        if array.size or isinstance(value, np.ndarray):
            raise dtype_error(call, name, array, "booleans")
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
        if type(value) is not int:
            refuse_hidden(call, name, value)
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{call}: {name} is {shown(value)}, expected an integer") from None
    if number < low:
        raise ValueError(f"{call}: {name} is {shown(number)}, expected at least {low}")
    if high is not None and number > high:
        raise ValueError(f"{call}: {name} is {shown(number)}, expected {low} to {high}")
    return number


def real(call: str, name: str, value: Any, low: float, high: float = math.inf) -> float:
    """A real number within low..high; NaN is out of every range."""
    if type(value) is float and low <= value <= high:  # the usual case, fast
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{call}: {name} is {shown(value)}, expected a number")
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
        raise TypeError(f"{call}: {name} is {shown(value)}, expected True or False")
    return bool(value)


def instance(call: str, name: str, value: Any, kind: type[Kind], expected: str) -> Kind:
    """An object of this class."""
    if not isinstance(value, kind):
        raise TypeError(f"{call}: {name} is {shown(value)}, expected {expected}")
    return value


def mapping(call: str, name: str, value: Any, expected: str) -> Mapping[Any, Any]:
    """A dict, or what is like one."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{call}: {name} is {shown(value)}, expected a dict: {expected}")
    return value


def listed(call: str, name: str, value: Any, expected: str) -> list[Any]:
    """What several things in a row hold, as a list; `expected` says what things."""
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"{call}: {name} is {shown(value)}, expected a list of {expected}") from None


def parted(call: str, name: str, value: Any, *parts: str) -> list[Any]:
    """As many things as are named."""
    things = listed(call, name, value, ", ".join(parts))
    if len(things) != len(parts):
        raise ValueError(f"{call}: {name} holds {len(things)} things, expected {len(parts)}: {', '.join(parts)}")
    return things


def string(call: str, name: str, value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        hint = ", .decode() makes one of bytes" if isinstance(value, bytes) else ""
        raise TypeError(f"{call}: {name} is {shown(value)}, expected a string{hint}")
    return value


def strings(call: str, name: str, value: Iterable[str]) -> list[str]:
    """The words in an iterable, all strings."""
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{call}: {name} is {shown(value)}, expected strings")
    words = list(value)
    for k, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"{call}: {name}[{k}] is {shown(word)}, expected a string")
    return words


def choice(call: str, name: str, value: Any, choices: Collection[str]) -> str:
    """One of a few names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{call}: {name} is {shown(value)}, expected one of {', '.join(choices)}")
    return value


def precision_of(call: str, value: Any, dtype: np.dtype[Any]) -> str:
    """float32 or bfloat16, of the factors of products of float32 arrays."""
    precision = choice(call, "precision", value, ("float32", "bfloat16"))
    if precision != "float32" and dtype != np.float32:
        raise ValueError(f"{call}: precision is {shown(value)} and dtype {dtype}, expected dtype float32")
    return precision


def float_dtype(call: str, value: Any) -> np.dtype[Any]:
    """float32 or float64, by any name NumPy knows them by."""
    if isinstance(value, (str, type, np.dtype)):  # of other objects NumPy's error would tell the repr
        try:
            return FLOAT_DTYPES[FLOAT_DTYPES.index(np.dtype(value))]
        except (TypeError, ValueError):
            pass
    text, hint = shown(value), ""
    if type(value).__module__ == "torch":  # whose names of these are the same
        text, hint = cut(value), ', as in dtype="float32"'
    raise ValueError(f"{call}: dtype is {text}, expected float32 or float64{hint}")


def generator(call: str, rng: Any) -> np.random.Generator:
    """None (a fresh seed), an integer seed or a Generator, which is used as it is."""
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    try:
        return np.random.default_rng(integer(call, "rng", rng, 0))
    except TypeError:
        raise TypeError(f"{call}: rng is {shown(rng)}, expected None, an integer or a numpy.random.Generator") from None


def quietly(function: Function) -> Function:
    """The function as the kernels are: infinity and NaN pass through, and NumPy has no word to say about it."""

    @functools.wraps(function)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return quiet  # type: ignore[return-value]
