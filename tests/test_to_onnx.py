"""to_onnx: every layer and option, by onnxruntime, and read again by from_onnx."""

import operator
import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from cells import VARIANTS, enlargement, keep_in_range, make_layer  # noqa: E402

import pyrnn  # noqa: E402
from pyrnn import reference  # noqa: E402
from pyrnn.layers.stack import Recurrent  # noqa: E402

T, N, I, H, P = 7, 4, 3, 5, 4  # noqa: E741  as everywhere
LENGTHS = np.array([7, 0, 3, 5])
TOLERANCE = 1e-5


def runtime(proto):
    """What onnxruntime makes of feeds, where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


def check(layer, feeds, expected, room=1.0):
    """The model is right, and what it gives onnxruntime and us."""
    proto = pyrnn.to_onnx(layer)
    onnx.checker.check_model(proto, full_check=True)
    again = pyrnn.from_onnx(proto)
    assert [one.name for one in again.inputs] == list(feeds)
    assert [one.name for one in again.outputs] == list(expected)
    results = [again(**feeds)]
    single = all(np.asarray(a).dtype != "f8" for a in feeds.values())
    if single or not uses_operators(proto):
        results += [run(feeds) for run in [runtime(proto)] if run]
    for found in results:
        for name, e in expected.items():
            assert found[name].shape == e.shape, name
            assert found[name].dtype == e.dtype, name
            tolerance = TOLERANCE * room if single else 1e-12 * room
            np.testing.assert_allclose(found[name], e, rtol=tolerance, atol=tolerance, err_msg=name)


def uses_operators(proto):
    """onnxruntime has no recurrent operators of float64."""
    return any(node.op_type in ("RNN", "LSTM", "GRU") for node in proto.graph.node)


def sequences(dtype="f4", width=I):
    """(T, N, I), whose padding is NaN: it is never read."""
    x = np.random.default_rng(0).uniform(-1, 1, (T, N, width)).astype(dtype)
    for row, length in enumerate(LENGTHS):
        x[length:, row] = np.nan
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_recurrent_layers(variant, layers, dtype):
    """All options, both directions, both layouts, with biases and without, rows of length 0 among them."""
    for bidirectional, batch_first, bias in [(False, False, True), (True, True, True), (True, False, False)]:
        layer = make_layer(
            variant, I, H, layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias, dtype=dtype
        )
        x = sequences(dtype)
        x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
        rng = np.random.default_rng(1)
        state = tuple(rng.uniform(-1, 1, (layer._count, N, n)).astype(dtype) for n in layer._widths)
        keep_in_range(layer._cell, state)
        y, final = layer(x, state if len(state) > 1 else state[0], lengths=LENGTHS)
        finals = final if isinstance(final, tuple) else (final,)
        names = layer._cell.states
        feeds = {"x": x, "lengths": LENGTHS} | {n: s for n, s in zip(names, state, strict=True)}
        expected = {"y": y} | {f"{n}_out": s for n, s in zip(names, finals, strict=True)}
        check(layer, feeds, expected, room=enlargement(VARIANTS[variant][1]) / 10 + 1)


def other_step(monkeypatch, equation):
    """An LSTM with a projection V, whose reference makes h' = equation(V x, h)."""

    def forward(self, w, x, before):
        h, c = before
        return (equation(reference.linear.forward(x, w.weight_hr, None), h), c), None

    monkeypatch.setattr(reference.lstm.Cell, "forward", forward)
    return pyrnn.LSTM(H, H, proj_size=P, rng=0)


@pytest.mark.parametrize(
    "equation",
    [
        lambda a, h: np.sin(a) - np.cos(h) ** 2,
        lambda a, h: np.sign(a) * np.sqrt(np.abs(h)) + np.log(1.5 + np.tanh(h)) / 2,
        lambda a, h: np.where((h < a) | (h >= 0.5) & ~(a <= -0.1), -np.maximum(a, h), h),
        lambda a, h: np.where(np.isinf(1 / np.minimum(h, 0)), h + 1, h - 1),
        lambda a, h: np.where((h == 0) | np.isnan(a), np.exp(a), np.log1p(np.clip(h, 0, 2))),
        lambda a, h: np.tanh(a),
        lambda a, h: np.where(h < a, a.dtype.type(1), a.dtype.type(-1)),
        lambda a, h: (h - h.mean(axis=1, keepdims=True)) * np.mean(a, axis=1, keepdims=True),
    ],
)
def test_equations_of_a_step(monkeypatch, equation):
    """What a step may be made of, though no cell is made of it now."""
    layer = other_step(monkeypatch, equation)
    x, c = np.random.default_rng(0).normal(size=(T, N, H)).astype("f4"), np.ones((1, N, H), "f4")
    h = np.zeros((1, N, P), "f4")
    y = [h[0]]
    with np.errstate(divide="ignore"):
        for t in range(T):
            y.append(equation(x[t] @ layer.params["weight_hr_l0"].T, y[-1]))
        feeds = {"x": x, "lengths": np.full(N, T), "h": h, "c": c}
        check(layer, feeds, {"y": np.stack(y[1:]), "h_out": y[-1][None], "c_out": c})


@pytest.mark.parametrize(
    ("equation", "match"),
    [
        (lambda a, h: np.arctan2(a, h), "numpy.arctan2 is not known"),
        (lambda a, h: np.sort(h), "numpy.sort is not"),
        (lambda a, h: operator.iadd(a, h), "numpy.add in place is not known"),
        (lambda a, h: np.add.reduce(h), "numpy.add is not"),
        (lambda a, h: sum(np.split(h, P)), "numpy.split along axis 0"),
        (lambda a, h: h - h.mean(axis=0), "numpy.mean along axis 0"),
        (lambda a, h: a if h > 0 else h, "a branch that depends on numbers"),
        (lambda a, h: h[:, ::-1], "object is not subscriptable"),
        (lambda a, h: h.cumsum(), "no attribute 'cumsum'"),
    ],
)
def test_equations_that_onnx_is_not_told(monkeypatch, equation, match):
    with pytest.raises(ValueError, match=f"to_onnx: LSTM has no form in ONNX here, for its step in .*: .*{match}"):
        pyrnn.to_onnx(other_step(monkeypatch, equation))


def test_what_no_state_has_a_part_in_is_made_of_all_steps_at_once():
    graph = pyrnn.to_onnx(pyrnn.LSTM(I, H, proj_size=P)).graph
    (scan,) = [node for node in graph.node if node.op_type == "Scan"]
    (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    products = [[node.op_type for node in nodes].count("MatMul") for nodes in (graph.node, body.node)]
    assert products == [1, 2]  # of x; of h, and the projection


def test_the_same_bits_again():
    """What the operators say runs on the kernels that the layer runs on."""
    for layer in (pyrnn.LSTM(I, H, rng=0), pyrnn.GRU(I, H, 2, bidirectional=True, rng=0), pyrnn.RNN(I, H, rng=0)):
        h = np.zeros((layer._count, N, H), "f4")
        states = {name: h for name in layer._cell.states}
        found = pyrnn.from_onnx(pyrnn.to_onnx(layer))(x=sequences(), lengths=LENGTHS, **states)
        np.testing.assert_array_equal(found["y"], layer(sequences(), lengths=LENGTHS)[0])


def test_a_row_without_steps_keeps_its_state():
    """Of which onnxruntime's own operators make zeros."""
    layer = pyrnn.GRU(I, H, rng=0)
    h = np.ones((1, N, H), "f4")
    proto = pyrnn.to_onnx(layer)
    for run in filter(None, (lambda feeds: pyrnn.from_onnx(proto)(**feeds), runtime(proto))):
        found = run({"x": sequences(), "lengths": LENGTHS, "h": h})
        np.testing.assert_array_equal(found["h_out"][:, 1], h[:, 1])
        np.testing.assert_array_equal(found["y"][:, 1], 0)


def test_free_lengths():
    proto = pyrnn.to_onnx(pyrnn.LSTM(I, H, rng=0))
    shapes = {one.name: one.shape for one in pyrnn.from_onnx(proto).inputs}
    assert shapes == {"x": ("T", "N", I), "lengths": ("N",), "h": (1, "N", H), "c": (1, "N", H)}
    for steps, rows in ((1, 1), (9, 2)):
        x = np.ones((steps, rows, I), "f4")
        zeros = np.zeros((1, rows, H), "f4")
        feeds = {"x": x, "lengths": np.full(rows, steps), "h": zeros, "c": zeros}
        expected = pyrnn.LSTM(I, H, rng=0)(x)[0]
        np.testing.assert_array_equal(pyrnn.from_onnx(proto)(**feeds)["y"], expected)
    stream = pyrnn.from_onnx(proto).stream({"h": "h_out", "c": "c_out"}, lengths=[1, 1])
    frames = [stream.step(x[t : t + 1])["y"][0] for t in range(9)]
    np.testing.assert_array_equal(frames, expected)


# ---- the layers around them


def models(batch_first):
    """name -> layer, whether it takes lengths, width of x (0: ids)."""
    of = {"batch_first": batch_first}
    inner = pyrnn.Sequential(pyrnn.Linear(6, 4, rng=0), pyrnn.LayerNorm(4, bias=False))
    return {
        "tagger": (
            pyrnn.Sequential(
                pyrnn.Embedding(10, 8, rng=0), pyrnn.GRU(8, 6, 2, bidirectional=True, rng=1, **of), pyrnn.Dropout(0.5),
                pyrnn.LayerNorm(12), head=pyrnn.Linear(12, 3, rng=0), out=pyrnn.LogSoftmax(),
            ), True, 0,
        ),
        "judge": (pyrnn.Sequential(pyrnn.LSTM(I, 6, rng=1, **of), pyrnn.LastStep(**of), inner), True, I),
        "summary": (pyrnn.Sequential(pyrnn.LSTM(I, 6, proj_size=4, rng=1, **of), pyrnn.MaxOverTime(**of)), True, I),
        "attention": (pyrnn.Sequential(pyrnn.MultiheadAttention(8, 4, num_kv_heads=2, rng=0, **of)), True, 8),
        "positions": (
            pyrnn.Sequential(pyrnn.PositionalEncoding(8, **of), pyrnn.MultiheadAttention(8, 2, bias=False, **of)),
            True, 8,
        ),
        "last": (pyrnn.LastStep(**of), True, I),
        "last of both": (
            pyrnn.Sequential(
                pyrnn.GRU(I, 3, bidirectional=True, rng=0, **of), pyrnn.LastStep(bidirectional=True, **of)
            ), True, I,
        ),
        **{
            f"ceil {kernel} {stride}": (pyrnn.MaxPool1d(kernel, stride, ceil_mode=True, **of), True, I)
            for kernel, stride in [(2, 2), (3, 2), (1, 3), (4, 3), (2, 4)]
        },
        "listener": (
            pyrnn.Sequential(
                pyrnn.Conv1d(I, 6, 3, padding="causal", rng=0, **of), normalised(6, of), pyrnn.ReLU(),
                pyrnn.Conv1d(6, 4, 2, 2, 1, groups=2, rng=1, **of), pyrnn.GELU(), pyrnn.MaxPool1d(2, 1, **of),
                pyrnn.LSTM(4, 5, rng=2, **of), pyrnn.MeanOverTime(**of), pyrnn.Linear(5, 2, rng=3), pyrnn.Softmax(),
            ), True, I,
        ),
        "conv": (pyrnn.Conv1d(I, 4, 3, padding="same", dilation=2, bias=False, rng=0, **of), True, I),
        "wide conv": (pyrnn.Conv1d(I, 4, 6, rng=0, **of), True, I),  # wider than a row
        **{how: (meeting(how, of), True, I) for how in ("concatenate", "add", "multiply", "average", "maximum")},
        "norm": (normalised(I, of), True, I),
        "activations": (
            pyrnn.Sequential(
                pyrnn.Linear(I, 5, rng=0), pyrnn.LeakyReLU(0.2), pyrnn.PReLU(5), pyrnn.PReLU(), pyrnn.ELU(0.5),
                pyrnn.Linear(5, 5, rng=1), pyrnn.SiLU(), pyrnn.GELU("tanh"), pyrnn.Sigmoid(), pyrnn.Tanh(),
            ), False, I,
        ),
        "linear": (pyrnn.Linear(I, 4, bias=False, rng=0), False, I),
        "double": (pyrnn.Sequential(pyrnn.Linear(I, 4, dtype="f8", rng=0), pyrnn.LogSoftmax(dtype="f8")), False, I),
        "embedding": (pyrnn.Embedding(10, 3, rng=0), False, 0),
        "tied": (tied(), False, 0),
    }  # fmt: skip


def meeting(how, of):
    """Branches that meet, one of them from a learned state."""
    start = pyrnn.LearnedState(pyrnn.LSTM(6, 6, 2, bidirectional=False, rng=2, **of))
    for part in start.start.params.values():
        part[...] = np.random.default_rng(0).normal(size=part.shape)
    wires = {"a": ["x"], "b": ["a"], "c": ["a"], "all": ["b", "c", "a"], "head": ["all"]}
    layers = {"a": pyrnn.GRU(I, 6, rng=0, **of), "b": start, "c": pyrnn.Conv1d(6, 6, 3, padding="causal", rng=1, **of)}
    head = pyrnn.Linear(18 if how == "concatenate" else 6, 2, rng=3)
    return pyrnn.Graph(wires, **layers, all=pyrnn.Merge(how), head=head)


def normalised(width, of):
    layer, rng = pyrnn.BatchNorm1d(width, **of), np.random.default_rng(0)
    layer.params["weight"], layer.params["bias"] = rng.normal(size=(2, width))
    layer.running_mean[:], layer.running_var[:] = rng.normal(size=width), rng.uniform(0.5, 2, width)
    return layer


def tied():
    table = pyrnn.Embedding(10, 4, rng=0)
    return pyrnn.Sequential(table, pyrnn.Linear(4, 10, weight=table))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", models(False))
def test_other_layers(name, batch_first):
    layer, takes_lengths, width = models(batch_first)[name]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (T, N)) if width == 0 else rng.normal(size=(T, N, width)).astype("f4")
    x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
    x = x.astype("f8") if name == "double" else x
    lengths = {"lengths": LENGTHS} if takes_lengths else {}
    check(layer, {"x": x, **lengths}, {"y": layer(x, **lengths)})


def test_no_steps_and_no_rows():
    layers = pyrnn.GRU(8, 3, bidirectional=True, rng=0), pyrnn.MultiheadAttention(8, 2, rng=0)
    for layer in map(pyrnn.Sequential, layers):
        for steps, rows in ((0, 2), (2, 0)):
            x, lengths = np.zeros((steps, rows, 8), "f4"), np.full(rows, steps)
            expected = layer(x, lengths=lengths)
            found = pyrnn.from_onnx(pyrnn.to_onnx(layer))(x=x, lengths=lengths)["y"]
            assert found.shape == (expected[0] if isinstance(expected, tuple) else expected).shape


def test_a_file(tmp_path):
    layer = pyrnn.GRU(I, H, rng=0)
    proto = pyrnn.to_onnx(layer, tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_bytes() == proto.SerializeToString()
    assert os.listdir(tmp_path) == ["x.onnx"]
    assert pyrnn.to_onnx(layer).SerializeToString() == proto.SerializeToString()
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        pyrnn.to_onnx(layer, tmp_path / "no" / "x.onnx")
    assert proto.producer_name == "pyrnn"
    assert {p.name.split("_")[0] for p in proto.graph.initializer} >= {"W", "R", "B"}


class Own(pyrnn.Model):
    """A class of a user's own."""

    def __init__(self):
        super().__init__()
        self.rnn = pyrnn.GRU(2, 3)


@pytest.mark.parametrize(
    ("layer", "error", "match"),
    [
        (None, TypeError, "to_onnx: model is None, expected a layer or a model of layers"),
        (Own(), ValueError, "to_onnx: Own has no form in ONNX here; there is one for recurrent layers"),
        (pyrnn.Sequential(pyrnn.Linear(2, 2), own=Own()), ValueError, r"to_onnx: Own \(own\) has no form in ONNX"),
        (pyrnn.Decoder(9, 4, 6), ValueError, "to_onnx: Decoder has no form in ONNX"),
        (pyrnn.MultiheadAttention(8, 2, kdim=3), ValueError, "to_onnx: MultiheadAttention has kdim or vdim"),
        (
            pyrnn.Sequential(pyrnn.Linear(2, 3), pyrnn.LastStep(bidirectional=True)),
            ValueError,
            "to_onnx: LastStep is given 3 features",
        ),
    ],
)
def test_what_onnx_cannot_say(layer, error, match):
    with pytest.raises(error, match=match):
        pyrnn.to_onnx(layer)


def test_every_layer_is_written_or_refused():
    """A new layer is to have a place here, or its name in this list."""
    from pyrnn.core.layer import Layer
    from pyrnn.formats.onnx.export_layers import WRITERS

    kinds = [getattr(pyrnn, name) for name in pyrnn.__all__ if isinstance(getattr(pyrnn, name), type)]
    layers = {kind for kind in kinds if issubclass(kind, Layer) and not issubclass(kind, (pyrnn.Model, Recurrent))}
    refused = {"AdditiveAttention", "CRF", "Jordan", "Population", "Merge"}  # a Merge is a part of a Graph
    assert {kind.__name__ for kind in layers - set(WRITERS)} == refused
