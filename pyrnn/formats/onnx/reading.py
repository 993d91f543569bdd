"""ONNX files: bytes to a model of the onnx package that says what this library can rely on, and tensors to arrays."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ...core.checks import Array, any_array, cut, file_name, shown
from ...core.files import existing
from ..weights import elsewhere

FILE = "an ONNX file"


def package(call: str) -> Any:
    """The onnx package. ImportError with what to do about it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"{call} needs onnx: pip install onnx") from error
    return onnx


def read(source: Any) -> tuple[Any, str, tuple[str, ...]]:
    """A path, the bytes of a file or a ModelProto -> the ModelProto, its name in errors, and the folders its arrays
    may lie in, which are none but of a path."""
    onnx = package("from_onnx")
    path = ""
    folders: tuple[str, ...] = ()
    if isinstance(source, onnx.ModelProto):
        name = "the ModelProto"
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = "the bytes"
    elif not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"from_onnx: source is {shown(source)}, expected a path, the bytes of a file or a ModelProto")
    else:
        path, name = existing(source, FILE)
        if not os.path.isfile(path):
            raise OSError(f"{name} is no regular file, expected {FILE}")
        folders = folders_of(path)
        with open(path, "rb") as file:
            source = file.read()
    with naming(name):
        try:
            model = source if isinstance(source, onnx.ModelProto) else parsed("from_onnx", bytes(source))
        except ValueError as error:
            raise ValueError(f"{error}{elsewhere('from_onnx', path)}") from error
        _check_versions(onnx, model)
        if model.functions:
            _check_calls(model)
            model = importlib.import_module("onnx.inliner").inline_local_functions(model)
    return model, name, folders


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Inside, whatever a damaged model makes of its reader is a ValueError that names it."""
    try:
        yield
    except MemoryError:
        raise ValueError(f"{name}: there is no memory for what it says it holds") from None
    except Exception as error:
        raise ValueError(f"{name}: {cut(error) or type(error).__name__}") from error


def folders_of(path: str) -> tuple[str, ...]:
    """Where arrays of the model in this file may lie: beside it, and beside the file that a link stands for."""
    return tuple({os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))})


def parsed(call: str, content: bytes) -> Any:
    """The ModelProto of a file's bytes. ValueError where they are none."""
    onnx = package(call)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has several
        raise ValueError(f"it is no ONNX file, or a damaged one ({cut(error) or type(error).__name__})") from error
    if not model.graph.node and not model.graph.output and not model.graph.initializer:
        raise ValueError("it is no ONNX file, or a damaged one: there is no graph")
    return model


def _check_versions(onnx: Any, model: Any) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise ValueError(f"its format is version {model.ir_version}, and the onnx package that is installed "
                         f"({onnx.__version__}) knows version {onnx.IR_VERSION}")  # fmt: skip
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx": onnx.defs.onnx_opset_version()}
    for opset in model.opset_import:
        if opset.version > newest.get(opset.domain, math.inf) or opset.version < 1:
            raise ValueError(f"its operators are of opset {opset.version}, and the onnx package that is installed "
                             f"({onnx.__version__}) knows opset {newest.get(opset.domain)}")  # fmt: skip


def _check_calls(model: Any) -> None:
    """That functions which call functions do not make a huge graph of a small file."""
    functions = {_called(function, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def of(node: Any) -> int:
        key = _called(node, node.op_type)
        inner = sum(of(one) for graph in _graphs(node) for one in graph.node)
        if key not in functions:
            return 64 + int(node.ByteSize()) + inner
        if key not in sizes:
            sizes[key] = 0  # one that calls itself is refused by who takes it apart
            sizes[key] = sum(map(of, functions[key]))
        return sizes[key] + inner

    own = sum(64 + int(node.ByteSize()) for nodes in (model.graph.node, *functions.values()) for node in nodes)
    size, most = sum(map(of, model.graph.node)), (1 << 20) + 64 * own
    if size > most:
        raise ValueError(f"its functions call each other so often that {size} bytes of nodes come of {own}, "
                         f"expected at most {most}")  # fmt: skip


def _called(proto: Any, name: str) -> tuple[str, str, str]:
    return "" if proto.domain == "ai.onnx" else proto.domain, name, getattr(proto, "overload", "")


def _graphs(node: Any) -> Iterator[Any]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else attribute.graphs)


def tensor(proto: Any, folders: tuple[str, ...] = ()) -> Array:
    """A TensorProto as an array, which is read-only. ValueError for one that does not hold what it says."""
    onnx = package("from_onnx")
    name, shape = shown(proto.name), tuple(proto.dims)
    if any(n < 0 for n in shape):
        raise ValueError(f"tensor {name} has shape {shape}")
    if proto.HasField("segment"):
        raise ValueError(f"tensor {name} is a segment of one, which is not read")
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        array = _external(onnx, proto, folders)
    else:
        held = max(len(proto.raw_data), *(len(getattr(proto, f"{kind}_data")) for kind in _FIELDS))
        if math.prod(shape) > 8 * held:  # some dtypes have several numbers in a byte
            raise ValueError(f"tensor {name} has shape {shape}, which is more than it holds")
        try:
            array = np.asarray(onnx.numpy_helper.to_array(proto))
        except Exception as error:  # ValueError, KeyError, TypeError and others
            raise ValueError(f"tensor {name} of shape {shape}: {cut(error) or type(error).__name__}") from error
    if array.shape != shape:
        raise ValueError(f"tensor {name} has shape {shape}, but holds numbers of shape {array.shape}")
    array.flags.writeable = False
    return array


_FIELDS = ("float", "double", "int32", "int64", "uint64", "string")


def _external(onnx: Any, proto: Any, folders: tuple[str, ...]) -> Array:
    """Numbers in a file beside the model's, and in no other folder."""
    name = shown(proto.name)
    given = {entry.key: entry.value for entry in proto.external_data}
    location = given.get("location", "")
    parts = location.replace("\\", "/").split("/")
    if not location or os.path.isabs(location) or ".." in parts or ":" in location or "\0" in location:
        raise ValueError(f"tensor {name} lies in {shown(location)}, which is no file in the folder of the model")
    if not folders:
        raise ValueError(f"tensor {name} lies in {shown(location)}, which is found beside a file alone: give the path")
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(proto.data_type))
        offset, length = int(given.get("offset", 0)), int(given.get("length", -1))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"tensor {name}: {cut(error)}") from error
    size = math.prod(proto.dims) * dtype.itemsize
    if dtype.hasobject or dtype.kind == "V" or offset < 0 or length not in (-1, size):
        raise ValueError(f"tensor {name} has {length} bytes at {offset} of {shown(location)}, "
                         f"expected {size} of {dtype}")  # fmt: skip
    for folder in folders:
        path = os.path.realpath(os.path.join(folder, location))
        if os.path.isfile(path):
            break
    else:
        raise ValueError(f"tensor {name} lies in {file_name(location)}, which is not in the folder of the model")
    if not any(os.path.commonpath([path, folder]) == folder for folder in folders):
        raise ValueError(f"tensor {name} lies in {shown(location)}, a link that leaves the folder of the model")
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read(size) if os.fstat(file.fileno()).st_size >= offset + size else b""
    if len(content) != size:
        raise ValueError(f"tensor {name} needs {size} bytes from {offset} of {file_name(location)}, which is shorter")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(tuple(proto.dims))


def read_tensors(file: BinaryIO, size: int) -> dict[str, Array]:
    """The initializers of an ONNX file by name, for `read_weights`: those of the graph itself, not of subgraphs."""
    folders = folders_of(file.name)
    protos = parsed("read_weights", file.read()).graph.initializer
    return {proto.name: np.array(any_array("read_weights", proto.name, tensor(proto, folders))) for proto in protos}
