"""Arrays by name out of files of many systems: which one a file is of is told by what it begins with."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from ..core.checks import Array
from ..core.files import as_path, existing

T = TypeVar("T")

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}  # of .npy
MOST_MEMORY = 1000  # bytes for each byte of an .npz, which may be compressed


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """{name: array} of a file of weights: safetensors, NumPy's .npz and .npy, torch's .pt and .pth, Keras' .h5 and
    .keras, the JSON of RTNeural, GuitarML and NAM, a pickle of NumPy arrays; and ONNX' (the initializers of its graph),
    for which the onnx package is needed.

    Names of nested dicts and groups are joined by dots, what is no array is skipped, bfloat16 comes as float32. Neither
    other packages nor anything that the file holds is needed or run: of pickles only tensors and arrays are read, and
    anything else that they name is a ValueError that says so. OSError or ValueError, with the name of the file, for one
    that is missing, damaged or of a form that is not known.

        weights = pyrnn.read_weights("model.pt")
        layer.load_state_dict({name.removeprefix("rnn."): array for name, array in weights.items()})
    """
    return within("read_weights", path, "a file of weights", _arrays)


def within(call: str, path: Any, expected: str, read: Callable[[BinaryIO, int], T]) -> T:
    """read(an open file, its size), whose errors become OSError or ValueError and name the file."""
    try:
        path, name = existing(path, expected)
    except TypeError as error:
        raise TypeError(f"{call}: {error}") from None
    if not os.path.isfile(path):
        raise OSError(f"{name} is no regular file, expected {expected}")
    with Whole(io.FileIO(path)) as file:
        try:
            return read(file, file.size)
        except MemoryError:
            raise ValueError(f"{name}: there is no memory for what it says it holds") from None
        except ImportError:
            raise
        except Exception as error:  # whatever a damaged file makes of a reader
            hint = "" if call == "read_weights" else elsewhere(call, path)
            raise ValueError(f"{name}: {str(error) or type(error).__name__}{hint}") from error


class Whole(io.BufferedReader):
    """A file, of which no more is asked than there is: Python takes memory for all that a reader asks for."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = os.fstat(self.fileno()).st_size

    def read(self, count: int | None = -1, /) -> bytes:
        """At most so many bytes, all of the rest where there are fewer."""
        less = count is not None and 0 <= count < self.size - self.tell()
        return super().read(count if less else -1)


FORMS = {  # what a file may be, and what reads such
    "torch": ("a file of torch's", "read_weights"),
    "pickle": ("a pickle", "read_weights"),
    "npz": ("an .npz of NumPy's", "read_weights"),
    "npy": ("an .npy of NumPy's", "read_weights"),
    "keras": ("a .keras file", "from_keras"),
    "hdf5": ("HDF5, as Keras' .h5", "from_keras"),
    "onnx": ("an ONNX file", "from_onnx"),
    "json": ("JSON, as an audio plugin's", "from_json"),
    "safetensors": ("a safetensors file", "load"),
}


@contextlib.contextmanager
def telling_form(call: str, path: Any) -> Iterator[None]:
    """Inside, a ValueError of a file that is of another form ends with what reads such."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}{elsewhere(call, as_path(path))}") from error


def elsewhere(call: str, path: str) -> str:
    """The end of an error of a call that did not read this file: what reads files of its form, if that is another."""
    form = ""
    with contextlib.suppress(Exception), open(path, "rb") as file:
        form = _form(file)
    what, reader = FORMS.get(form, ("", call))
    return "" if reader == call else f". It is {what}: pyrnn.{reader}(path) reads such"


def _form(file: BinaryIO) -> str:
    """One of FORMS, "" for what is none of them."""
    from . import hdf5, keras, numpy_pickle, torch

    start = file.read(16)
    file.seek(0)
    if start.startswith(torch.MAGIC):
        return "torch"
    if start.startswith(numpy_pickle.START):
        return "pickle"
    if start.startswith(b"PK"):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        file.seek(0)
        if keras.WEIGHTS in names:
            return "keras"
        return "npz" if names and all(name.endswith(".npy") for name in names) else "torch"
    if start.startswith(np.lib.format.MAGIC_PREFIX):
        return "npy"
    if file.name.endswith(".onnx") or (start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in ONNX):
        return "onnx"
    if start.startswith(hdf5.SIGNATURE):
        return "hdf5"
    if len(start) >= 9 and int.from_bytes(start[:8], "little") < 10**8 and start[8:9] == b"{":
        return "safetensors"
    return "json" if start.lstrip()[:1] == b"{" else ""


def _arrays(file: BinaryIO, size: int) -> dict[str, Array]:
    """Those of a file of any of FORMS."""
    from . import hdf5, json_models, keras, numpy_pickle, torch

    form = _form(file)
    if form == "":
        raise ValueError(f"it begins with {file.read(8)!r}, which is no form of weights that is known here")
    if form == "onnx":
        from .onnx import reading

        return reading.read_tensors(file, size)
    readers: dict[str, Callable[[BinaryIO, int], dict[str, Array]]] = {
        "torch": torch.read_tensors,
        "pickle": numpy_pickle.read_arrays,
        "npz": _npz,
        "npy": lambda file, size: {"": _npy(file)},
        "keras": lambda file, size: keras.joined(keras.unzipped(file, size)[2]),
        "hdf5": lambda file, size: keras.joined(hdf5.read(file.read())),
        "json": json_models.read_arrays,
        "safetensors": _safetensors,
    }
    return readers[form](file, size)


# How the fields may begin that stand behind the version of the format in a file of ONNX.
ONNX = tuple(bytes([field << 3 | kind]) for field, kind in ((2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2)))


def _safetensors(file: BinaryIO, size: int) -> dict[str, Array]:
    import safetensors

    from . import torch

    arrays, read = {}, cast(Any, safetensors.deserialize)
    for name, entry in read(file.read()):
        kind, data = entry["dtype"], entry["data"]
        if kind == "BF16":
            numbers = torch.widened(np.frombuffer(data, "<u2"))
        elif kind in KINDS:
            numbers = np.frombuffer(data, KINDS[kind])
        else:
            raise ValueError(f"{name} is of dtype {kind}, which NumPy does not have")
        arrays[name] = numbers.reshape(entry["shape"]).copy()
    return dict(sorted(arrays.items()))


KINDS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _npz(file: BinaryIO, size: int) -> dict[str, Array]:
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            size -= entry.file_size // MOST_MEMORY
            if size < 0:
                raise ValueError(f"{entry.filename} takes more memory than {MOST_MEMORY} times the file")
            with archive.open(entry) as member:
                arrays[entry.filename.removesuffix(".npy")] = _npy(member)
    return arrays


def _npy(file: Any) -> Array:
    """One array of NumPy's, whose numbers end where the file does."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"an array of NumPy's version {version}, expected {' or '.join(map(str, HEADERS))}")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds objects, which only their pickle can make: save arrays of numbers")
    content = file.read()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and dtype {dtype} has {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()
