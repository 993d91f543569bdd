"""ONNX' own test cases, and models of one node."""

import importlib
import os
import pkgutil
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test


def node_cases():
    """The cases of onnx.backend.test that are made by its modules, by name: importing these makes them."""
    package = importlib.import_module("onnx.backend.test.case.node")
    with np.errstate(all="ignore"):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return {case.name: case for case in package._NodeTestCases}


def data_sets(case):
    """(arrays given, arrays expected) of a case, tensors of protobuf as arrays."""
    for given, expected in case.data_sets:
        yield [array(x) for x in given], [array(x) for x in expected]


def array(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def folders():
    """The cases that come as files: {name: folder}."""
    data = Path(os.path.dirname(onnx.backend.test.__file__)) / "data"
    kinds = ("simple", "pytorch-converted", "pytorch-operator")
    return {folder.name: folder for kind in kinds for folder in sorted((data / kind).glob("*"))}


def file_sets(folder):
    """As `data_sets`, of a folder."""
    graph = onnx.load(folder / "model.onnx").graph
    for place in sorted(folder.glob("test_data_set_*")):
        yield (
            {value.name: read(place / f"input_{k}.pb", value) for k, value in enumerate(graph.input)},
            {value.name: read(place / f"output_{k}.pb", value) for k, value in enumerate(graph.output)},
        )


def read(path, value):
    if not path.exists():
        return None  # it has an initial value
    proto = onnx.SequenceProto() if value.type.HasField("sequence_type") else onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return onnx.numpy_helper.to_list(proto) if isinstance(proto, onnx.SequenceProto) else array(proto)


def close(actual, expected, rtol, atol):
    """Arrays, and lists of them, with as much room as half precisions need."""
    if isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            close(one, other, rtol, atol)
        return
    if expected is None:
        assert actual is None
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    if expected.dtype.kind in "OUS":
        assert actual.tolist() == expected.tolist()
        return
    assert actual.dtype == expected.dtype
    rough = {"bfloat16": 2e-2, "float16": 2e-3}.get(expected.dtype.name, 1e-5)
    wide = (np.array(a, "f8") if a.dtype.kind == "V" else a for a in (actual, expected))
    np.testing.assert_allclose(*wide, rtol=max(rtol, rough), atol=max(atol, rough / 10))


def model_of(op, attributes, inputs, outputs, constants=(), opset=17, domain=""):
    """A model of one node. inputs: {name: array, or None where absent}; `constants` are those that are not fed."""
    given = {name: np.asarray(a) for name, a in inputs.items() if a is not None}
    node = onnx.helper.make_node(
        op, [name if name in given else "" for name in inputs], outputs, domain=domain, **attributes
    )
    feeds = [value(name, a.dtype, a.shape) for name, a in given.items() if name not in constants]
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name]
    return model([node], feeds, made, {name: given[name] for name in constants if name in given}, opset, domain)


def value(name, dtype, shape):
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def model(nodes, inputs, outputs, constants=None, opset=17, domain=""):
    """A ModelProto."""
    initializers = [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opsets = [onnx.helper.make_opsetid("", opset)] + ([onnx.helper.make_opsetid(domain, 1)] if domain else [])
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
