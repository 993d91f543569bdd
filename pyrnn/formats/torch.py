"""Files of torch.save, read without torch and without running what they hold: the zip of torch 1.6 and later, and the
form before it.

Both are a pickle in which a tensor is a call, and stands on a storage that lies outside of the pickle. Here the pickle
can name nothing but what is in NAMES, and build nothing but dicts, lists and tensors that are described.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, NamedTuple, TypeVar

import numpy as np

from ..core.checks import Array, shown

T = TypeVar("T")

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # what the older form begins with
MOST_MEMORY = 8  # bytes of tensors for each byte of the file: more are views, expanded, of few numbers

BFLOAT16 = "bfloat16"  # read as the upper half of a float32
STORAGES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": BFLOAT16, "Long": "i8", "Int": "i4", "Short": "i2",
    "Char": "i1", "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
}  # fmt: skip
DTYPES = {
    "float32": "f4", "float": "f4", "float64": "f8", "double": "f8", "float16": "f2", "half": "f2",
    "bfloat16": BFLOAT16, "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "uint16": "u2",
    "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8", "complex128": "c16",
}  # fmt: skip


class Storage(NamedTuple):
    """Numbers outside of the pickle."""

    dtype: str
    key: str


class Tensor(NamedTuple):
    """A view of a storage, strides in numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str


class Entries(dict[Any, Any]):
    """An OrderedDict of the file; what else is set on it is of no interest."""


def keyed(key: Any) -> Any:
    """A key of a dict, or what is in a set. Tuples in tuples are refused: Python would hash those without an end."""
    for part in key if type(key) is tuple else (key,):
        if not isinstance(part, (str, bytes, int, float, type(None))):
            raise ValueError(f"{shown(key)} is a key of it, expected a text or a number")
    return key


def entries(pairs: Any = ()) -> Entries:
    """An OrderedDict of (key, value), as older pickles make it."""
    return Entries([(keyed(key), value) for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    dtype = rest[2].dtype if len(rest) > 2 and isinstance(rest[2], Storage) else storage.dtype  # of _rebuild_tensor_v3
    if not isinstance(storage, Storage) or len(size) != len(stride):
        raise ValueError("a tensor is not described as torch does it")
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise ValueError(f"a tensor of size {shown(size)}, stride {shown(stride)} and offset {shown(offset)} cannot be")
    return Tensor(storage, offset, tuple(size), tuple(stride), dtype)


NAMES: dict[str, Any] = {
    "collections.OrderedDict": entries,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Size": lambda size=(): tuple(size),
    "torch.device": lambda *_: None,
    "torch.storage.UntypedStorage": Storage("u1", ""),
    **{f"torch.{kind}Storage": Storage(dtype, "") for kind, dtype in STORAGES.items()},
    **{f"torch.{name}": Storage(dtype, "") for name, dtype in DTYPES.items()},
}

# What torch's pickles are made of. Others take memory that the file only names, or reach into what is there already.
OPCODES = (
    "PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK", "POP", "POP_MARK", "STOP",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID", "BUILD",
)  # fmt: skip
InPython: Any = pickle._Unpickler  # the memory it takes follows the file; type checkers take it for the one in C


class Unpickler(InPython):  # type: ignore[misc]
    """Reads a pickle of names and shapes."""

    names: ClassVar[Mapping[str, Any]] = NAMES
    instead: ClassVar[str] = "just tensors. torch.save(module.state_dict(), path) makes one that does"

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, str] = {}  # of the storages it names

    def find_class(self, module: str, name: str) -> Any:
        """Of `names` alone."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError(f"its pickle asks for {shown(name)} of {shown(module)}, which is no name")
        full = f"{module}.{name}"
        if full not in self.names:
            what = "a whole module" if module.startswith(("torch.nn", "__torch__", "__main__")) else "other objects"
            raise pickle.UnpicklingError(
                f"its pickle asks for {full}, which is not run: the file holds {what}, not {self.instead}"
            )
        return self.names[full]

    def persistent_load(self, pid: Any) -> Storage:
        """("storage", its kind, its key, where it was, how many numbers)."""
        kind, key = pid[1:3]
        described = pid[0] == "storage" and isinstance(kind, Storage) and isinstance(key, (str, int))
        if not described or (len(pid) > 5 and pid[5] is not None):
            raise ValueError("a storage is not described as torch does it")
        self.dtypes[str(key)] = kind.dtype
        return Storage(kind.dtype, str(key))

    def _setitem(self) -> None:
        keyed(self.stack[-2])
        self.load_setitem()

    def _setitems(self) -> None:
        for key in self.stack[::2]:  # those since the mark
            keyed(key)
        self.load_setitems()

    def _additems(self) -> None:
        for value in self.stack:
            keyed(value)
        self.load_additems()

    def _build(self) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def build(self, value: Any, state: Any) -> None:
        """What the pickle sets on a value: attributes of an OrderedDict or a parameter are of no interest."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: InPython.dispatch[code] for code in (getattr(pickle, name)[0] for name in OPCODES)
    } | {
        pickle.BUILD[0]: _build, pickle.SETITEM[0]: _setitem, pickle.SETITEMS[0]: _setitems,
        pickle.ADDITEMS[0]: _additems,
    }  # fmt: skip


def read(file: BinaryIO, size: int) -> tuple[Any, dict[str, Array]]:
    """What is in an open file of `size` bytes: dicts and lists with Tensors in them, and the bytes of the storages."""
    if file.read(len(MAGIC)) == MAGIC:
        return _read_legacy(file)
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are larger than the file: torch does not compress them")
        pickled = [entry.filename for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickled) != 1:
            raise ValueError("it is a zip without the data.pkl of torch")
        root = pickled[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise ValueError("it is a TorchScript program, which only torch can run; save its state_dict()")
        value = Unpickler(io.BytesIO(archive.read(pickled[0]))).load()
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b"little"
        if order != b"little":
            raise ValueError(f"its numbers are of byte order {order!r}, expected b'little'")
        found = {entry.filename.removeprefix(f"{root}data/"): entry for entry in entries
                 if entry.filename.startswith(f"{root}data/")}  # fmt: skip
        return value, {key: np.frombuffer(archive.read(entry), np.uint8) for key, entry in found.items()}


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, Array]]:
    file.seek(0)
    _, version, system = (Unpickler(file).load() for _ in range(3))
    if version != 1001 or not system.get("little_endian"):
        raise ValueError(f"it is of version {shown(version)}, expected 1001 and little-endian numbers")
    unpickler = Unpickler(file)
    value, keys = unpickler.load(), Unpickler(file).load()
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        length = count * number_of(unpickler.dtypes[str(key)]).itemsize
        content = file.read(length) if length >= 0 else b""
        if len(content) != length:
            raise ValueError("it ends before its numbers do")
        storages[str(key)] = np.frombuffer(content, np.uint8)
    return value, storages


def number_of(dtype: str) -> np.dtype[Any]:
    """How a number lies in a storage."""
    return np.dtype("u2" if dtype == BFLOAT16 else dtype).newbyteorder("<")


def widened(bfloat16: Array) -> Array:
    """The float32 of which these are the upper halves."""
    wide: Array = (bfloat16.astype(np.uint32) << 16).view(np.float32)
    return wide


def held(value: Any, kind: type[T], most: int) -> dict[str, T]:
    """What is of this kind in dicts and lists, by their keys joined by dots. ValueError for more than so many entries,
    and for names much longer than that together, as those of a dict that holds itself are.

    held({"a": [1, "x", 2]}, int, 10)  # {"a.0": 1, "a.2": 2}
    """
    found: dict[str, T] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    entries, letters = most, MOST_MEMORY * most  # that are left
    while waiting:
        name, entry = waiting.pop()
        if isinstance(entry, kind):
            if name.removesuffix(".") in found:
                raise ValueError(f"two tensors are called {name[:-1]!r}")
            found[name.removesuffix(".")] = entry
        elif isinstance(entry, (dict, list, tuple)):
            entries -= len(entry)
            if entries < 0:
                raise ValueError("it has more entries than bytes")
            inner = entry.items() if isinstance(entry, dict) else enumerate(entry)
            for key, inside in reversed(list(inner)):
                if isinstance(inside, (kind, dict, list, tuple)):
                    waiting.append((f"{name}{key}.", inside))
                    letters -= len(waiting[-1][0])
                    if letters < 0:
                        raise ValueError(f"its names are longer than {MOST_MEMORY} times the file: something in it "
                                         "holds itself")  # fmt: skip
    return found


def read_tensors(file: BinaryIO, size: int) -> dict[str, Array]:
    """The tensors of an open file of `size` bytes; bfloat16 as float32."""
    value, storages = read(file, size)
    found = held(value, Tensor, size)
    left = MOST_MEMORY * size
    arrays = {}
    for name, tensor in found.items():
        kind = number_of(tensor.dtype)
        if tensor.storage.key not in storages:
            raise ValueError(f"the numbers of {name} are missing")
        content = storages[tensor.storage.key]
        numbers = content[: len(content) // kind.itemsize * kind.itemsize].view(kind)
        count = math.prod(tensor.size)
        left -= count * kind.itemsize
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
        if count and last >= len(numbers):
            raise ValueError(f"{name} reaches beyond its {len(numbers)} numbers")
        if left < 0:
            raise ValueError(f"{name} takes more memory than {MOST_MEMORY} times the file")
        if count == 0:
            array = np.empty(tensor.size, kind)
        else:
            strides = [step * kind.itemsize for step in tensor.stride]
            array = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides).copy()
        arrays[name] = widened(array) if tensor.dtype == BFLOAT16 else array
    return arrays
