"""from_onnx of whole models: graphs that torch exports, graphs in graphs, streams, and files that are damaged."""

import concurrent.futures
import copy
import io
import pickle
import sys
import time
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from mutations import mutated, told  # noqa: E402  onnx is needed by these
from onnx import helper  # noqa: E402
from onnx_cases import model, model_of, value  # noqa: E402

import pyrnn  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def floats(name, *shape):
    return helper.make_tensor_value_info(name, FLOAT, shape)


def opened(proto):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


# ---- what torch exports


def torch_modules():
    """{name: (module, its inputs, the axis of its rows)}."""
    import torch
    from torch import nn

    class Cell(nn.Module):
        """An unrolled step of a stack of two, with a head."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.LSTMCell(4, 5), nn.GRUCell(5, 6), nn.Linear(6, 3)

        def forward(self, x, h, c, g):
            h, c = self.a(x, (h, c))
            g = self.b(h, g)
            return torch.log_softmax(self.head(g), -1), h, c, g

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.rnn = nn.Embedding(10, 4), nn.GRU(4, 5, 2, bidirectional=True, batch_first=True)
            self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(10, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 3))

        def forward(self, ids):
            return torch.softmax(self.head(self.rnn(self.table(ids))[0]), -1)

    class Listener(nn.Module):
        """Convolutions, batch norms, an LSTM and attention over its steps."""

        def __init__(self):
            super().__init__()
            self.convs = nn.Sequential(
                nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3, stride=2, groups=3),
                nn.BatchNorm1d(6), nn.GELU(), nn.Conv1d(6, 8, 2, dilation=2), nn.Tanh(), nn.MaxPool1d(2), nn.ELU(),
                nn.Conv1d(8, 4, 1), nn.LeakyReLU(0.2), nn.Softplus(),
            )  # fmt: skip
            self.rnn, self.score = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, x):
            y, (h, _) = self.rnn(self.convs(x).transpose(1, 2))
            return (torch.softmax(self.score(y), 1) * y).sum(1) + h[-1]

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

        def forward(self, x):
            return self.norm(x + self.mha(x, x, x, need_weights=False)[0])

    torch.manual_seed(0)
    draw = torch.randn
    return {
        "lstm": (nn.LSTM(4, 5, 2, bidirectional=True), (draw(6, 3, 4), (draw(4, 3, 5), draw(4, 3, 5))), 1),
        "gru": (nn.GRU(4, 5, bias=False, batch_first=True), (draw(3, 6, 4),), 0),
        "rnn": (nn.RNN(4, 5, 2, nonlinearity="relu"), (draw(6, 3, 4),), 1),
        "cell": (Cell(), (draw(3, 4), draw(3, 5), draw(3, 5), draw(3, 6)), 0),
        "tagger": (Tagger(), (torch.randint(0, 10, (3, 6)),), 0),
        "listener": (Listener(), (draw(3, 4, 40),), 0),
        "attention": (Attention(), (draw(3, 5, 8),), 0),
        "picture": (
            nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(1)),
            (draw(3, 1, 8, 8),), 0,
        ),
    }  # fmt: skip


def flat(result):
    if isinstance(result, (tuple, list)):
        return [part for entry in result for part in flat(entry)]
    return [result.detach().numpy()]


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "cell", "tagger", "listener", "attention", "picture"])
def test_torch(name, free):
    torch = pytest.importorskip("torch")
    module, given, axis = torch_modules()[name]
    module.eval()
    arrays = flat(given)
    names = [f"i{k}" for k in range(len(arrays))]
    content = io.BytesIO()
    axes = {one: {axis if len(names) < 4 else 0: "N"} for one in names} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, given, content, dynamo=False, input_names=names, dynamic_axes=axes, opset_version=17)
    with torch.no_grad():
        expected = flat(module(*given))
    found = pyrnn.from_onnx(content.getvalue())(**dict(zip(names, arrays, strict=True)))
    for y, e in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(y, e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru", "cell", "tagger", "listener", "attention"])
def test_torch_dynamo(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    module, given, _ = torch_modules()[name]
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = torch.onnx.export(module, given, dynamo=True, verbose=False).model_proto
    with torch.no_grad():
        expected = flat(module(*given))
    found = pyrnn.from_onnx(proto)
    results = found(**dict(zip([one.name for one in found.inputs], flat(given), strict=True)))
    for y, e in zip(results.values(), expected, strict=True):
        np.testing.assert_allclose(y, e, rtol=1e-5, atol=1e-5)


# ---- calls


def two_inputs():
    """y = (x + 1) * z, with a free first axis of x."""
    nodes = [node("Add", "x one", "sum"), node("Mul", "sum z", "y")]
    return model(nodes, [floats("x", "N", 3), floats("z", 3)], [floats("y", "N", 3)], {"one": np.float32(1)})


def test_calls():
    net = pyrnn.from_onnx(two_inputs())
    assert [(one.name, one.shape, one.dtype) for one in net.inputs] == [
        ("x", ("N", 3), np.dtype("f4")), ("z", (3,), np.dtype("f4")),
    ]  # fmt: skip
    assert [one.name for one in net.outputs] == ["y"]
    assert repr(net) == "OnnxModel of the ModelProto: x (N, 3) float32, z (3,) float32 -> y (N, 3) float32"
    y = net(x=[[1, 2, 3], [4, 5, 6]], z=np.array([1, 0, 2]))["y"]
    np.testing.assert_array_equal(y, [[2, 0, 8], [5, 0, 14]])
    assert y.dtype == "f4"
    single = pyrnn.from_onnx(model([node("Relu", "a.1", "b.1")], [floats("a.1", 2)], [floats("b.1", 2)]))
    np.testing.assert_array_equal(single([-1, 1])["b.1"], [0, 1])
    np.testing.assert_array_equal(single(**{"a.1": [-1, 1]})["b.1"], [0, 1])
    with pytest.raises(TypeError, match="OnnxModel: a model cannot be pickled; from_onnx"):
        pickle.dumps(net)
    assert copy.deepcopy(net) is net


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"x": np.zeros((2, 3))}, TypeError, r"^OnnxModel: 'z' is missing, which is z \(3,\) float32"),
        ({"x": np.zeros((2, 3)), "z": [1, 2, 3], "w": 1}, TypeError, "there is no input 'w'; there are x"),
        ({"x": np.zeros((2, 4)), "z": [1, 2, 3]}, ValueError, r"x has shape \(2, 4\), expected \(N, 3\)"),
        ({"x": np.zeros(3), "z": [1, 2, 3]}, ValueError, r"x has shape \(3,\), expected \(N, 3\)"),
        ({"x": np.zeros((2, 3), complex), "z": [1, 2, 3]}, TypeError, "x has dtype complex128"),
        ({"x": np.zeros((2, 3)), "z": ["a", "b", "c"]}, TypeError, "z has dtype"),
        ({"x": np.zeros((2, 3)), "z": None}, TypeError, "z has dtype object"),
    ],
)
def test_inputs_that_do_not_fit(given, error, match):
    with pytest.raises(error, match=match):
        pyrnn.from_onnx(two_inputs())(**given)


def test_inputs_by_position():
    with pytest.raises(TypeError, match="1 arrays came by position; it takes x, z by name"):
        pyrnn.from_onnx(two_inputs())(np.zeros((2, 3)))


def test_integers_and_booleans():
    kinds = {"i": np.int64, "s": np.int8, "b": np.bool_}
    nodes = [node("Identity", name, f"{name}_out") for name in kinds]
    values = [value(name, dtype, (2,)) for name, dtype in kinds.items()]
    net = pyrnn.from_onnx(model(nodes, values, [value(f"{n}_out", d, (2,)) for n, d in kinds.items()]))
    right = {"i": [1, 2], "s": np.array([1, 2]), "b": [True, False]}
    for name, a in net(**right).items():
        np.testing.assert_array_equal(a, right[name.removesuffix("_out")])
        assert a.dtype == kinds[name.removesuffix("_out")]
    for name, wrong, error in [("i", [1.0, 2.0], TypeError), ("s", [1, 200], ValueError), ("b", [1, 0], TypeError)]:
        with pytest.raises(error, match=rf"^OnnxModel: {name} "):
            net(**{**right, name: wrong})


def test_results_are_the_callers():
    """Neither inputs nor constants nor other results change with them."""
    nodes = [
        node("Identity", "x", "same"), node("Reshape", "x shape", "flat"), node("Identity", "table", "constant"),
        node("Add", "x x", "y"), node("Transpose", "y", "turned"), node("Expand", "x wide", "many"),
        node("Slice", "y start end axis", "part"),
    ]  # fmt: skip
    names = ["same", "flat", "constant", "y", "turned", "many", "part"]
    constants = {
        "shape": [6], "table": np.ones(2, "f4"), "wide": [2, 2, 3], "start": [0], "end": [2], "axis": [1],
    }  # fmt: skip
    net = pyrnn.from_onnx(model(nodes, [floats("x", 2, 3)], [floats(n, None) for n in names], constants))
    x = np.arange(6, dtype="f4").reshape(2, 3)
    kept = x.copy()
    first, second = net(x), net(x)
    for k, name in enumerate(names):
        first[name][...] = -1
        np.testing.assert_array_equal(x, kept)
        for other in names[k + 1 :]:
            np.testing.assert_array_equal(first[other], second[other])
        assert first[name].flags.c_contiguous
    np.testing.assert_array_equal(net(x)["constant"], [1, 1])


# ---- graphs inside nodes


def graph(nodes, inputs, outputs, name="inner"):
    return helper.make_graph([node(*n) for n in nodes], name, inputs, outputs)


@pytest.mark.parametrize("fixed", [None, True, False])
def test_if(fixed):
    """A branch that is known before any run becomes a part of the graph around it; names may repeat."""
    then = graph([("Mul", "x two", "t"), ("Add", "t x", "r")], [], [floats("r", None)])
    other = graph([("Neg", "x", "t"), ("Neg", "t", "u"), ("Sub", "u two", "r")], [], [floats("r", None)])
    nodes = [helper.make_node("If", ["c"], [f"y{k}"], then_branch=then, else_branch=other) for k in range(2)]
    nodes.append(node("Add", "y0 y1", "y"))
    inputs = [floats("x", 2)] + [value("c", np.bool_, ())] * (fixed is None)
    constants = {"two": np.float32(2)} | ({} if fixed is None else {"c": np.array(fixed)})
    net = pyrnn.from_onnx(model(nodes, inputs, [floats("y", 2)], constants))
    for condition in (True, False) if fixed is None else (fixed,):
        given = {"x": [1, -3]} | ({"c": condition} if fixed is None else {})
        np.testing.assert_array_equal(net(**given)["y"], [6, -18] if condition else [-2, -10])


def test_loop_and_scan():
    """A Scan in a Loop, which read values of all graphs around them; against onnxruntime."""
    step = graph([("Mul", "s a", "m"), ("Add", "m x", "n"), ("Identity", "n", "o")],
                 [floats("s", 2), floats("x", 2)], [floats("n", 2), floats("o", 2)])  # fmt: skip
    body = [
        helper.make_node("Scan", ["state", "xs"], ["after", "rows"], body=step, num_scan_inputs=1,
                         scan_input_directions=[1], scan_output_axes=[1]),
        node("ReduceSum", "rows", "total", keepdims=0), node("Less", "total limit", "more"),
        node("Identity", "rows", "kept"),
    ]  # fmt: skip
    loop = helper.make_graph(
        body, "loop", [value("k", np.int64, ()), value("go", np.bool_, ()), floats("state", 2)],
        [value("more", np.bool_, ()), floats("after", 2), floats("kept", 2, 3)],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["count", ""], ["last", "all"], body=loop), node("Add", "last last", "y")]
    inputs = [floats("xs", 3, 2), floats("first", 2), value("count", np.int64, ())]
    nodes[0].input.append("first")
    proto = model(nodes, inputs, [floats("y", 2), floats("all", None, 2, 3)],
                  {"a": np.float32(0.5), "limit": np.float32(30)})  # fmt: skip
    rng = np.random.default_rng(0)
    net, runtime = pyrnn.from_onnx(proto), opened(proto)
    for count in (0, 1, 20):
        given = {"xs": rng.random((3, 2), "f4"), "first": rng.random(2, "f4"), "count": np.array(count)}
        for found, e in zip(net(**given).values(), runtime.run(None, given), strict=True):
            np.testing.assert_allclose(found, e, rtol=1e-6)
            assert found.shape == e.shape


# ---- streams


def streaming():
    """A convolution that is continued, an LSTM and a head: frame by frame with their states outside."""
    layer, rng = pyrnn.LSTM(6, 8, rng=0), np.random.default_rng(0)
    w = pyrnn.to_onnx(layer).graph.initializer
    arrays = {name: onnx.numpy_helper.to_array(p) for p in w for name in ("W", "R", "B") if p.name.startswith(name)}
    constants = {
        **arrays, "w": rng.normal(size=(6, 4, 3)).astype("f4"), "b": rng.normal(size=6).astype("f4"),
        "head": rng.normal(size=(8, 3)).astype("f4"), "start": [-2], "end": [2**31], "time": [2], "one": [1],
    }  # fmt: skip
    nodes = [
        node("Concat", "past x", "joined", axis=2), node("Slice", "joined start end time", "past_out"),
        node("Conv", "joined w b", "features"), node("Relu", "features", "active"),
        node("Transpose", "active", "steps", perm=[2, 0, 1]),
        helper.make_node("LSTM", ["steps", "W", "R", "B", "", "h", "c"], ["y", "h_out", "c_out"], hidden_size=8),
        node("Squeeze", "y one", "rows"), node("MatMul", "rows head", "logits"), node("Softmax", "logits", "p"),
    ]  # fmt: skip
    inputs = [floats("x", 1, 4, "T"), floats("past", 1, 4, 2), floats("h", 1, 1, 8), floats("c", 1, 1, 8)]
    outputs = [floats("p", "T", 1, 3), floats("past_out", 1, 4, 2), floats("h_out", 1, 1, 8), floats("c_out", 1, 1, 8)]
    return model(nodes, inputs, outputs, constants)


STATE = {"past": "past_out", "h": "h_out", "c": "c_out"}


def test_stream():
    """The same bits frame by frame, in pieces and whole; onnxruntime's numbers."""
    proto = streaming()
    net = pyrnn.from_onnx(proto)
    x = np.random.default_rng(1).normal(size=(1, 4, 20)).astype("f4")
    zeros = {one.name: np.zeros(one.shape, "f4") for one in net.inputs[1:]}
    whole = net(x=x, **zeros)
    stream = net.stream(state=STATE)
    frames = [stream.step(x[:, :, t : t + 1])["p"] for t in range(20)]
    np.testing.assert_array_equal(np.concatenate(frames), whole["p"])
    for name, output in STATE.items():
        np.testing.assert_array_equal(stream.state[name], whole[output])
    stream.reset()
    pieces = [stream.step(x=x[:, :, a:b])["p"] for a, b in ((0, 7), (7, 8), (8, 20))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole["p"])
    for found, e in zip(whole.values(), opened(proto).run(None, {"x": x, **zeros}), strict=True):
        np.testing.assert_allclose(found, e, rtol=1e-5, atol=1e-5)


def test_many_threads():
    """One model, called by all at once: the bits of one after the other."""
    net = pyrnn.from_onnx(streaming())
    zeros = {one.name: np.zeros(one.shape, "f4") for one in net.inputs[1:]}
    frames = np.random.default_rng(0).normal(size=(40, 1, 4, 1)).astype("f4")

    def run(x):
        stream = net.stream(state=STATE)
        return [stream.step(frame)["p"] for frame in frames] + [net(x=x, **zeros)["p"]]

    expected = [run(frame) for frame in frames]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found, e in zip(pool.map(run, frames), expected, strict=True):
            np.testing.assert_array_equal(found, e)


def test_a_streams_state():
    net = pyrnn.from_onnx(streaming())
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(6, 1, 4, 1)).astype("f4"), rng.normal(size=(1, 1, 8))
    stream = net.stream(state=STATE, h=h)
    np.testing.assert_array_equal(stream.state["h"], h.astype("f4"))
    first = stream.step(x[0])
    assert not first["h_out"].flags.writeable
    assert first["p"].flags.writeable
    other, kept = copy.copy(stream), stream.state
    kept["h"][...] = 0  # a copy
    expected = [stream.step(frame)["p"] for frame in x[1:]]
    np.testing.assert_array_equal([other.step(frame)["p"] for frame in x[1:]], expected)
    with pytest.raises(ValueError, match="x has shape"):
        stream.step(np.zeros((1, 5, 1)))
    with pytest.raises(TypeError, match="there is no input 'h'"):
        stream.step(x=x[0], h=h)
    with pytest.raises(TypeError, match="'x' is missing"):
        stream.step()
    np.testing.assert_array_equal(stream.state["c"], other.state["c"])  # refused calls changed nothing
    stream.state = {"h": np.zeros((1, 1, 8))}
    assert not stream.state["h"].any()
    assert stream.state["c"].any()
    with pytest.raises(TypeError, match=r"state is .*, expected arrays by the names past, h, c"):
        stream.state = {"x": 0}
    with pytest.raises(ValueError, match=r"h has shape \(2,\)"):
        stream.state = {"h": [1, 2]}
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0])["p"], first["p"])
    assert repr(stream).endswith("stream of past <- past_out, h <- h_out, c <- c_out")


def test_streams_that_cannot_be():
    net = pyrnn.from_onnx(two_inputs())
    for state, start, error, match in [
        ({"a": "y"}, {}, ValueError, "there is no input 'a'; there are x, z"),
        ({"x": "b"}, {}, ValueError, "there is no output 'b'; there are y"),
        ({"x": "y"}, {}, ValueError, r"the shape of x \(N, 3\) float32 is not known: give its first state, x=\.\.\."),
        ({"x": "y"}, {"w": [1, 2, 3]}, ValueError, "there is no input 'w'; there are x, z"),
        ({}, {}, TypeError, "state is {}"),
        ("x", {}, TypeError, "state is 'x'"),
    ]:
        with pytest.raises(error, match=match):
            net.stream(state, **start)
    stream = net.stream({"x": "y"}, x=np.ones((2, 3)))
    stream.step(z=[1, 2, 3])
    np.testing.assert_array_equal(stream.step(z=[1, 1, 1])["y"], [[3, 5, 7]] * 2)


# ---- files


def test_paths_and_arrays_in_other_files(tmp_path):
    big = pyrnn.to_onnx(pyrnn.GRU(3, 40, rng=0))
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f4")
    given = {"x": x, "lengths": [5, 3], "h": np.zeros((1, 2, 40))}
    expected = pyrnn.from_onnx(big)(**given)["y"]
    folder = tmp_path / "a"
    folder.mkdir()
    onnx.save(big, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert (folder / "m.data").exists()
    np.testing.assert_array_equal(pyrnn.from_onnx(folder / "m.onnx")(**given)["y"], expected)
    names = {p.name for p in big.graph.initializer}
    weights = pyrnn.read_weights(folder / "m.onnx")
    assert set(weights) == names
    assert all(a.flags.writeable for a in weights.values())
    with pytest.raises(ValueError, match=r"the bytes: tensor .* lies in 'm\.data', which is found beside a file alone"):
        pyrnn.from_onnx((folder / "m.onnx").read_bytes())
    linked = tmp_path / "b"
    linked.mkdir()
    (linked / "m.onnx").symlink_to(folder / "m.onnx")
    np.testing.assert_array_equal(pyrnn.from_onnx(linked / "m.onnx")(**given)["y"], expected)
    (tmp_path / "secret").write_bytes(b"x" * 10**6)
    for location in ("../secret", str(tmp_path / "secret"), "x/../../secret", "link", "..\\secret", ""):
        proto = onnx.load(folder / "m.onnx", load_external_data=False)
        for initializer in proto.graph.initializer:
            for entry in initializer.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "n.onnx").write_bytes(proto.SerializeToString())
        if location == "link":
            (folder / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(ValueError, match=r"n\.onnx: tensor .* lies in "):
            pyrnn.from_onnx(folder / "n.onnx")
        with pytest.raises(ValueError, match=r"n\.onnx: tensor .* lies in "):
            pyrnn.read_weights(folder / "n.onnx")
    (folder / "m.data").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"m\.onnx: tensor .* needs \d+ bytes from \d+ of m\.data, which is shorter"):
        pyrnn.from_onnx(folder / "m.onnx")


def test_read_weights(tmp_path):
    from ml_dtypes import bfloat16

    arrays = {
        "a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.array(3), "c": np.array([1.5, -2], bfloat16),
        "d": np.zeros((0, 2)),
    }  # fmt: skip
    proto = model([node("Identity", "a", "y")], [], [floats("y", None)], arrays)
    for name in ("x.onnx", "x"):
        (tmp_path / name).write_bytes(proto.SerializeToString())
        found = pyrnn.read_weights(tmp_path / name)
        assert list(found) == list(arrays)
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[key], array.astype("f4") if key == "c" else array)
        assert found["c"].dtype == "f4"
    (tmp_path / "x.onnx").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"x\.onnx: it is no ONNX file, or a damaged one"):
        pyrnn.read_weights(tmp_path / "x.onnx")


def test_what_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.onnx: no such file"):
        pyrnn.from_onnx(tmp_path / "x.onnx")
    with pytest.raises(IsADirectoryError, match="is a directory, expected an ONNX file"):
        pyrnn.from_onnx(tmp_path)
    with pytest.raises(TypeError, match=r"^from_onnx: source is 3\.5, expected a path, the bytes of a file or"):
        pyrnn.from_onnx(3.5)
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(ValueError, match=r"^the bytes: it is no ONNX file, or a damaged one"):
            pyrnn.from_onnx(content)
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.onnx: it is no ONNX file"):
            pyrnn.from_onnx(tmp_path / "x.onnx")


def changed(change):
    proto = two_inputs()
    change(proto, proto.graph)
    return proto


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m, g: g.node[0].input.__setitem__(1, "w"), r"node Add that gives 'sum' reads 'w', which nothing gives"),
        (lambda m, g: g.node[0].input.__setitem__(1, "y"), "its nodes wait for each other: 'sum', 'y'"),
        (lambda m, g: g.node[0].output.__setitem__(0, "y"), "'y' is given twice"),
        (lambda m, g: setattr(g.output[0], "name", "w"), "the output reads 'w', which nothing gives"),
        (lambda m, g: setattr(g.node[0], "op_type", "Fancy"), "node Fancy that gives 'sum': there is no Fancy of"),
        (lambda m, g: setattr(g.node[0], "domain", "mine"), "node mine.Add .*: the model names no opset of the domain"),
        (lambda m, g: setattr(m.opset_import[0], "version", 999), "its operators are of opset 999, and the onnx"),
        (lambda m, g: setattr(m, "ir_version", 999), "its format is version 999, and the onnx package"),
        (lambda m, g: g.initializer[0].dims.append(-1), r"tensor 'one' has shape \(-1,\)"),
        (lambda m, g: g.initializer[0].dims.append(2**40), r"tensor 'one' has shape .*, which is more than it holds"),
        (lambda m, g: g.initializer[0].dims.append(2), r"tensor 'one' of shape \(2,\)"),
        (lambda m, g: setattr(g.initializer[0], "data_type", 99), "tensor 'one'"),
        (lambda m, g: g.input.append(g.input[0]), "two of its inputs have the same name"),
        (lambda m, g: g.sparse_initializer.add(), "it has sparse initializers"),
    ],
)  # fmt: skip
def test_graphs_that_are_wrong(change, match):
    with pytest.raises(ValueError, match=f"^the ModelProto: {match}"):
        pyrnn.from_onnx(changed(change))


def test_nodes_in_any_order():
    proto = two_inputs()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    np.testing.assert_array_equal(pyrnn.from_onnx(proto)(x=[[1, 1, 1]], z=[1, 2, 3])["y"], [[2, 4, 6]])


def test_what_goes_wrong_in_a_run():
    proto = model([node("Add", "x z", "y", name="sum")], [floats("x", "A"), floats("z", "B")], [floats("y", "A")])
    with pytest.raises(ValueError, match=r"^node 'sum' \(Add\): operands could not be broadcast"):
        pyrnn.from_onnx(proto)(x=[1, 2], z=[1, 2, 3])
    proto = model_of("Gather", {}, {"x": np.zeros((2, 3), "f4"), "ids": np.array([5])}, ["y"])
    with pytest.raises(ValueError, match=r"^node Gather that gives 'y': index 5 is out of bounds"):
        pyrnn.from_onnx(proto)(x=np.zeros((2, 3)), ids=[5])


def test_constants_do_not_grow_without_end():
    """A few numbers that a graph would make many of are left to the run."""
    nodes = [node("ConstantOfShape", "large", "a"), node("Tile", "row times", "b"), node("Range", "zero many one", "c")]
    doubled = ["row"]
    for k in range(60):
        nodes.append(node("Concat", f"{doubled[-1]} {doubled[-1]}", f"d{k}", axis=0))
        doubled.append(f"d{k}")
    constants = {"large": [2**20, 2**20], "row": np.ones(8, "f4"), "times": [2**40], "zero": 0, "many": 2**50, "one": 1}
    names = ["a", "b", "c", doubled[-1]]
    proto = model(nodes, [floats("x", 1)], [floats(name, None) for name in names], constants)
    start = time.process_time()
    pyrnn.from_onnx(proto)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("op", "arrays", "length"),
    [
        ("Add", (np.ones((2**10, 1), "f4"), np.ones((1, 2**10), "f4")), 2**20),
        ("Gather", (np.ones((1, 2**16), "f4"), np.zeros(2**8, "i8")), 2**24),
        ("Expand", (np.ones((1, 2**10), "f4"), np.array([2**16, 1])), 2**26),
        ("Tile", (np.ones(2**10, "f4"), np.array([2**10])), 2**20),
        ("Range", (np.array(0), np.array(2**20), np.array(1)), 2**20),
        ("ConstantOfShape", (np.array([2**20]),), 2**20),
    ],
)
def test_what_is_much_is_not_a_constant(op, arrays, length):
    """Of constants, it is made when the model runs."""
    proto, _ = single(op, *arrays, known=range(len(arrays)))
    ours = pyrnn.from_onnx(proto)
    assert len(ours._program._titles) == 1
    assert ours()["o0"].size == length


def test_many_that_are_not_much_are_much():
    """What constants take of the memory that a model may ask for adds up."""
    nodes = [node("ConstantOfShape", "shape", f"y{k}") for k in range(16)]
    proto = model(nodes, [], [floats(f"y{k}", None) for k in range(16)], {"shape": [2**16]})
    ours = pyrnn.from_onnx(proto)
    assert 8 < len(ours._program._titles) < 16
    assert all(not y.any() and y.size == 2**16 for y in ours().values())


@pytest.mark.parametrize(
    ("op", "attributes", "constant", "match"),
    [
        ("Gather", {"axis": 2**40}, np.array(0), "axis is 1099511627776"),
        ("Split", {"axis": -(2**40)}, np.array([1, 1]), "axis is -1099511627776"),
        ("Scan", {"num_scan_inputs": 2**40}, np.zeros(2, "f4"), "its body has 1 inputs and 1 outputs"),
    ],
)
def test_numbers_beyond_any_array(op, attributes, constant, match):
    if op == "Scan":
        attributes["body"] = graph([("Identity", "a", "b")], [floats("a")], [floats("b")])
    proto = model_of(op, attributes, {"x": np.zeros(2, "f4"), "c": constant}, ["y"], ["c"])
    with pytest.raises(ValueError, match=f"^the ModelProto: node {op} that gives 'y': {match}"):
        pyrnn.from_onnx(proto)


@pytest.mark.parametrize("name", ["gru", "scan", "stream"])
def test_damaged_files(name, tmp_path):
    whole = {
        "gru": lambda: pyrnn.to_onnx(pyrnn.GRU(3, 4, rng=0)),
        "scan": lambda: pyrnn.to_onnx(pyrnn.LSTM(3, 4, proj_size=2, rng=0)),
        "stream": streaming,
    }[name]().SerializeToString()
    errors = [told(tmp_path / "x.onnx", content, pyrnn.from_onnx) for content in mutated(whole, 340, len(name))]
    assert 0 < errors.count("") < 340


def single(op, *arrays, known=(), opset=17, results=1, kinds=None, **attributes):
    """A model of one node with free lengths: the inputs at the places `known` are constants."""
    arrays = [None if x is None else np.asarray(x) for x in arrays]
    names = ["" if x is None else f"i{k}" for k, x in enumerate(arrays)]
    dtype = helper.np_dtype_to_tensor_dtype
    given = [
        helper.make_tensor_value_info(names[k], dtype(x.dtype), [None] * x.ndim)
        for k, x in enumerate(arrays) if x is not None and k not in known
    ]  # fmt: skip
    kinds = kinds or [dtype(arrays[0].dtype)] * results
    made = [helper.make_tensor_value_info(f"o{k}", kind, None) for k, kind in enumerate(kinds)]
    one = helper.make_node(op, names, [value.name for value in made], **attributes)
    proto = model([one], given, made, {names[k]: arrays[k] for k in known}, opset)
    return proto, {f"i{k}": x for k, x in enumerate(arrays) if x is not None and k not in known}


def as_onnxruntime(op, *arrays, rtol=1e-5, **how):
    """The node gives the shapes, dtypes and numbers of onnxruntime."""
    proto, feeds = single(op, *arrays, **how)
    expected = opened(proto).run(None, feeds)
    found = list(pyrnn.from_onnx(proto)(**feeds).values())
    for a, e in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol)


def refused_by_both(match, op, *arrays, **how):
    proto, feeds = single(op, *arrays, **how)
    with pytest.raises(Exception, match=r"ONNXRuntimeError"):
        opened(proto).run(None, feeds)
    with pytest.raises(ValueError, match=match):
        pyrnn.from_onnx(proto)(**feeds)


def normals(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("f4")


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1), (1,), (), (1, 1), (4, 4)])
def test_what_gemm_adds(shape):
    """With as many rows as columns, whatever is constant."""
    for known in ((1,), (1, 2)):
        as_onnxruntime("Gemm", normals(4, 3), normals(3, 4), normals(*shape), known=known, alpha=0.5, beta=0.25)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0]])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3], [3, 2]])
def test_pooling(strides, pads, ceil_mode):
    how = {"strides": strides, "pads": pads, "ceil_mode": ceil_mode, "kernel_shape": [2, 3]}
    x = normals(2, 3, 7, 8)
    for counted in (0, 1):
        as_onnxruntime("AveragePool", x, count_include_pad=counted, **how)
    for order in (0, 1):
        as_onnxruntime("MaxPool", x, kinds=[FLOAT, onnx.TensorProto.INT64], storage_order=order, **how)
    as_onnxruntime("MaxPool", x, **how)


def test_pooling_with_words():
    for word in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for counted in (0, 1):
            as_onnxruntime(
                "AveragePool", normals(1, 2, 7), auto_pad=word, kernel_shape=[4], strides=[2], count_include_pad=counted
            )
    how = {"kernel_shape": [2, 2, 2], "storage_order": 1, "dilations": [1, 2, 1]}
    as_onnxruntime("MaxPool", normals(1, 2, 4, 5, 3), kinds=[FLOAT, onnx.TensorProto.INT64], **how)


def test_windows_that_do_not_fit():
    """They give no steps, as our own layers have it; onnxruntime has an error for some."""
    for steps in range(4):
        for op, more in (("MaxPool", ()), ("AveragePool", ()), ("Conv", (normals(5, 3, 4),))):
            how = {} if more else {"kernel_shape": [4]}
            proto, feeds = single(op, normals(2, 3, steps), *more, **how)
            assert pyrnn.from_onnx(proto)(**feeds)["o0"].shape == (2, 5 if more else 3, 0)
    x = np.ones((3, 2, 5), "f4")
    layer = pyrnn.MaxPool1d(4)
    np.testing.assert_array_equal(pyrnn.from_onnx(pyrnn.to_onnx(layer))(x=x, lengths=np.full(2, 3))["y"], layer(x))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_all_places(p):
    as_onnxruntime("GlobalLpPool", normals(2, 3, 5, 4), p=p)


@pytest.mark.parametrize(
    "how",
    [
        {}, {"pads": [1, 2], "output_padding": [1]}, {"dilations": [2]}, {"output_shape": [13]},
        {"output_shape": [12], "auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(("group", "stride"), [(1, 2), (2, 2), (4, 2)])
def test_transposed_convolutions(how, group, stride):
    weight, bias = normals(4, 3, 3), normals(3 * group)
    as_onnxruntime("ConvTranspose", normals(2, 4, 7), weight, bias, known=(1, 2), group=group, strides=[stride], **how)
    if not how:
        picture = normals(2, 4, 7, 5), normals(4, 3, 3, 2)
        as_onnxruntime("ConvTranspose", *picture, group=group, strides=[stride, 3], opset=11)
        refused_by_both("with 3 groups", "ConvTranspose", normals(2, 4, 7), weight, group=3)


def test_norms_become_a_part():
    """Of the product or convolution before them, or else of the one behind; one stays, before a padded convolution."""

    def norm(k, channels):
        rng = np.random.default_rng(k)
        values = {f"{name}{k}": rng.normal(size=channels).astype("f4") for name in "sbm"}
        values[f"v{k}"] = rng.uniform(0.5, 2, channels).astype("f4")
        return node("BatchNormalization", f"a{k} s{k} b{k} m{k} v{k}", f"a{k + 1}", epsilon=0.01), values

    nodes, constants = [], {"w1": normals(6, 2, 3), "w4": normals(4, 6, 2), "w6": normals(3, 4, 1), "w9": normals(5, 3)}
    for k, channels in ((0, 4), (2, 6), (5, 4), (8, 3), (10, 5)):
        one, values = norm(k, channels)
        nodes.append(one)
        constants |= values
    nodes += [
        node("Conv", "a1 w1", "a2", group=2), node("Relu", "a3", "a4"), node("Conv", "a4 w4", "a5"),
        node("Conv", "a6 w6", "a7", pads=[1, 1]), node("ReduceMean", "a7", "a8", axes=[2], keepdims=0),
        node("Gemm", "a9 w9", "a10", transB=1),
    ]  # fmt: skip
    nodes.sort(key=lambda one: int(one.output[0][1:]))
    proto = model(nodes, [floats("a0", None, 4, None)], [floats("a11", None, 5)], constants)
    ours, x = pyrnn.from_onnx(proto), normals(2, 4, 9)
    np.testing.assert_allclose(ours(x)["a11"], opened(proto).run(None, {"a0": x})[0], rtol=0, atol=1e-5)
    assert not [title for title in ours._program._titles if "BatchNormalization" in title]
    one, values = norm(0, 4)
    nodes = [one, node("Conv", "a1 w", "a2", pads=[1, 1])]
    padded = model(
        nodes, [floats("a0", None, 4, None)], [floats("a2", None, 6, None)], values | {"w": normals(6, 4, 3)}
    )
    ours = pyrnn.from_onnx(padded)
    np.testing.assert_allclose(ours(x)["a2"], opened(padded).run(None, {"a0": x})[0], rtol=0, atol=1e-5)
    assert len(ours._program._titles) == 2


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_lrn(size):
    as_onnxruntime("LRN", normals(2, 4, 3, 2), size=size, alpha=0.5, beta=0.6, bias=2.0)


def test_lrn_of_more_channels_than_there_are():
    x = normals(2, 4, 3)
    proto, feeds = single("LRN", x, size=2**40 + 1, alpha=2.0**40)
    expected = x / (1 + np.square(x).sum(1, keepdims=True)) ** 0.75
    np.testing.assert_allclose(pyrnn.from_onnx(proto)(**feeds)["o0"], expected, rtol=1e-5)


@pytest.mark.parametrize("known", [(), (1,)], ids=["fed", "constant"])
def test_axes_that_are_none(known):
    as_onnxruntime("Squeeze", normals(1, 3, 1), np.zeros(0, "i8"), known=known)
    as_onnxruntime("Unsqueeze", normals(1, 3), np.zeros(0, "i8"), known=known)


@pytest.mark.parametrize("step", [-3, -1, 1, 2])
@pytest.mark.parametrize("known", [(), (1, 2, 3, 4)], ids=["fed", "constant"])
def test_slices_beyond_the_ends(known, step):
    x, borders = normals(2, 5), (-20, -6, -5, -1, 0, 2, 4, 5, 20)
    for axis in (1, -1):
        for start in borders:
            for end in borders:
                as_onnxruntime("Slice", x, *np.array([[start], [end], [axis], [step]]), known=known)


def test_what_is_left_of_no_numbers():
    for known in ((), (1,)):
        as_onnxruntime("Reshape", normals(0, 3), np.array([-1, 3]), known=known)
        as_onnxruntime("Reshape", normals(0, 3), np.array([0, 3, 1]), known=known)
        refused_by_both("reshape", "Reshape", normals(0, 3), np.array([0, -1]), known=known)


def test_equal_parts():
    as_onnxruntime("Split", normals(5, 2), opset=18, results=3, num_outputs=3)
    as_onnxruntime("Split", normals(6, 2), results=3)
    refused_by_both("it splits 5 into 4 equal parts", "Split", normals(5, 2), opset=18, results=4, num_outputs=4)
    refused_by_both("it splits 5 into 3 equal parts", "Split", normals(5, 2), results=3)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceLogSumExp", "ReduceLogSum", "ReduceL2", "ReduceProd"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_sums_of_integers(op, keepdims):
    x = np.array([[-7, 2, 3], [3, -1, -3], [5, 5, 5]], "i4")
    x = np.abs(x) if op == "ReduceLogSum" else x
    as_onnxruntime(op, x, axes=[1], keepdims=keepdims)


@pytest.mark.parametrize("kind", ["i4", "i8"])
def test_powers_of_integers(kind):
    x = np.array([-3, -2, -1, 1, 2, 3], kind)
    for exponent in ([-3], -1, [-1], [0], 2, [-1, 2, -3, 3, 0, -2]):
        for known in ((), (1,)):
            as_onnxruntime("Pow", x, np.array(exponent, kind), known=known)


def calling(depth):
    """A chain of functions each of which calls the one before twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "f0", ["x"], ["y"], [node("Relu", "x", "y")], opsets)]
    for k in range(1, depth + 1):
        twice = [node(f"f{k - 1}", a, b, domain="own") for a, b in ("xt", "ty")]
        functions.append(helper.make_function("own", f"f{k}", ["x"], ["y"], twice, opsets))
    inner = helper.make_graph([node(f"f{depth}", "x", "y", domain="own")], "g", [floats("x", 2)], [floats("y", 2)])
    return helper.make_model(inner, functions=functions, opset_imports=opsets, ir_version=8)


def test_functions_that_call_functions():
    np.testing.assert_array_equal(pyrnn.from_onnx(calling(5))(x=np.array([-1, 2], "f4"))["y"], [0, 2])
    for depth in (20, 200):
        with pytest.raises(ValueError, match="functions call each other so often that"):
            pyrnn.from_onnx(calling(depth))
    endless = calling(1)
    endless.functions[0].node[0].CopyFrom(node("f1", "x", "y", domain="own"))
    with pytest.raises(ValueError, match="recursive"):
        pyrnn.from_onnx(endless)


def test_without_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="from_onnx needs onnx: pip install onnx"):
        pyrnn.from_onnx("x.onnx")
    with pytest.raises(ImportError, match="to_onnx needs onnx: pip install onnx"):
        pyrnn.to_onnx(pyrnn.Linear(2, 3))
    (tmp_path / "x.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(ImportError, match="read_weights needs onnx: pip install onnx"):
        pyrnn.read_weights(tmp_path / "x.onnx")
