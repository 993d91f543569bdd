"""from_onnx operator by operator: ONNX' own test cases, and random nodes where onnxruntime is installed."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx_cases import close, data_sets, file_sets, folders, model_of, node_cases  # noqa: E402  it needs onnx

import pyrnn  # noqa: E402
from pyrnn.cells import CELLS  # noqa: E402

CASES = node_cases()
FOLDERS = folders()
RANDOM = "bernoulli"
# What is not done: the scan of opset 8, sums of bfloat16 products by einsum, an optional list of optional lists; and
# expansions whose own attention is of bfloat16 throughout.
BEYOND = {"test_scan_sum", "test_einsum_sum_bfloat16", "test_einsum_batch_matmul_bfloat16", "test_if_opt"}
ROUGH = {name for name in CASES if name.startswith("test_attention") and name.endswith("bf16_expanded")}
LETTERS = sorted({name.split("_")[1] for name in CASES})


@pytest.mark.parametrize("kind", LETTERS)
def test_cases(kind):
    """All of one operator, as a test of its own."""
    for name, case in CASES.items():
        if name.split("_")[1] != kind or RANDOM in name or name in BEYOND | ROUGH:
            continue
        model = pyrnn.from_onnx(case.model)
        for given, expected in data_sets(case):
            outputs = model(**dict(zip([one.name for one in model.inputs], given, strict=True)))
            try:
                for one, e in zip(model.outputs, expected, strict=True):
                    close(outputs[one.name], e, case.rtol, case.atol)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("name", FOLDERS)
def test_files(name):
    if "gradient" in name:
        with pytest.raises(ValueError, match=r"model\.onnx: node .*Gradient\): there is no"):
            pyrnn.from_onnx(FOLDERS[name] / "model.onnx")
        return
    model = pyrnn.from_onnx(FOLDERS[name] / "model.onnx")
    fed = {one.name for one in model.inputs}
    for given, expected in file_sets(FOLDERS[name]):
        outputs = model(**{key: a for key, a in given.items() if key in fed})
        for key, e in expected.items():
            close(outputs[key], e, 1e-3, 1e-5)


def test_all_cases_are_here():
    """Those of onnx 1.15, and whatever newer versions add."""
    assert set(CASES) >= {
        "test_simple_rnn_defaults",
        "test_simple_rnn_with_initial_bias",
        "test_simple_rnn_batchwise",
        "test_rnn_seq_length",
        "test_lstm_defaults",
        "test_lstm_with_initial_bias",
        "test_lstm_with_peepholes",
        "test_lstm_batchwise",
        "test_gru_defaults",
        "test_gru_with_initial_bias",
        "test_gru_seq_length",
        "test_gru_batchwise",
    }


# ---- onnxruntime, where it is installed: every attribute in combination

INPUTS = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
GATES = {"RNN": [], "LSTM": ["Sigmoid", "HardSigmoid"], "GRU": ["Sigmoid", "HardSigmoid"]}
OTHERS = ["Tanh", "Relu", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu",
          "Softsign", "Softplus"]  # fmt: skip
NUMBERS = {"Affine": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "ScaledTanh": 2, "HardSigmoid": 2, "Elu": 1}


def session(model):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def random_node(op, rng):
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions = 1 + (direction == "bidirectional")
    steps, rows, width, hidden = int(rng.integers(1, 7)), int(rng.integers(1, 6)), *map(int, rng.integers(1, 20, 2))
    gates = len(CELLS[op.lower()].gates) * hidden

    def draw(*shape):
        return rng.uniform(-1, 1, shape).astype("f4")

    inputs = {"X": draw(steps, rows, width), "W": draw(directions, gates, width), "R": draw(directions, gates, hidden)}
    if rng.random() < 0.7:
        inputs["B"] = draw(directions, 2 * gates)
    if rng.random() < 0.6:
        inputs["sequence_lens"] = rng.integers(0, steps + 1, rows).astype("i4")
    if rng.random() < 0.6:
        inputs["initial_h"] = draw(directions, rows, hidden)
    attributes = {"hidden_size": hidden, "direction": direction}
    if op == "LSTM":
        if rng.random() < 0.6:
            inputs["initial_c"] = draw(directions, rows, hidden)
        if rng.random() < 0.5:
            inputs["P"] = draw(directions, 3 * hidden)
        if rng.random() < 0.2:
            attributes["input_forget"] = 1
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    if rng.random() < 0.2:
        attributes["clip"] = 0.7
    if rng.random() < 0.7:
        candidates = 2 if op == "LSTM" else 1
        names = []
        for _ in range(directions):
            names += [str(rng.choice(GATES[op]))] if GATES[op] else []
            names += [str(rng.choice(OTHERS)) for _ in range(candidates)]
        attributes["activations"] = names
        for least, letter in enumerate(("alpha", "beta"), 1):
            numbers = [float(rng.uniform(0.1, 0.9)) for name in names if NUMBERS.get(name, 0) >= least]
            attributes |= {f"activation_{letter}": numbers} if numbers else {}
    return attributes, {name: inputs.get(name) for name in INPUTS[op]}


@pytest.mark.parametrize("op", INPUTS)
def test_recurrent_nodes(op):
    """Weights as constants and as inputs give the same bits where the kernels do both."""
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (op == "LSTM")]
    for seed in range(60):
        attributes, inputs = random_node(op, np.random.default_rng(seed))
        given = {name: a for name, a in inputs.items() if a is not None}
        fed = model_of(op, attributes, inputs, outputs, opset=14)
        expected = session(fed).run(outputs, given)
        found = pyrnn.from_onnx(fed)(**given)
        fixed = [name for name in ("W", "R", "B", "P") if name in given]
        other = pyrnn.from_onnx(model_of(op, attributes, inputs, outputs, fixed, opset=14))
        again = other(**{name: a for name, a in given.items() if name not in fixed})
        for name, e in zip(outputs, expected, strict=True):
            message = f"seed {seed}: {name}, {attributes}"
            np.testing.assert_allclose(found[name], e, rtol=2e-5, atol=2e-5, err_msg=message)
            np.testing.assert_array_equal(found[name], again[name], message)


def turned(op, inputs):
    """The inputs and outputs of layout 1 for those of layout 0."""
    states = {"initial_h", "initial_c", "X"}
    return {name: a.swapaxes(0, 1) if name in states and a is not None else a for name, a in inputs.items()}


@pytest.mark.parametrize("op", INPUTS)
def test_layout(op):
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (op == "LSTM")]
    for seed in range(10):
        attributes, inputs = random_node(op, np.random.default_rng(seed))
        plain = pyrnn.from_onnx(model_of(op, attributes, inputs, outputs))
        first = pyrnn.from_onnx(model_of(op, {**attributes, "layout": 1}, turned(op, inputs), outputs))
        y, *finals = plain(**{name: a for name, a in inputs.items() if a is not None}).values()
        found = first(**{name: a for name, a in turned(op, inputs).items() if a is not None})
        np.testing.assert_array_equal(found["Y"], y.transpose(2, 0, 1, 3))
        for name, final in zip(outputs[1:], finals, strict=True):
            np.testing.assert_array_equal(found[name], final.swapaxes(0, 1))


def test_half_and_double():
    attributes, inputs = random_node("GRU", np.random.default_rng(3))
    results = {}
    for dtype in ("f2", "f4", "f8"):
        given = {n: a.astype(dtype if a.dtype.kind == "f" else a.dtype) for n, a in inputs.items() if a is not None}
        model = pyrnn.from_onnx(model_of("GRU", attributes, {n: given.get(n) for n in inputs}, ["Y"]))
        results[dtype] = model(**given)["Y"]
        assert results[dtype].dtype == dtype
    np.testing.assert_allclose(results["f4"], results["f8"], atol=1e-6)
    np.testing.assert_allclose(results["f2"], results["f8"], atol=1e-2)


@pytest.mark.parametrize(
    ("op", "attributes", "match"),
    [
        ("LSTM", {"activations": ["Sigmoid", "Relu"]}, "it has 2 activations, expected 3"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Sine"]}, "activation 'Sine' is not known"),
        ("RNN", {"activations": ["ScaledTanh"]}, "needs activation_alpha"),
        ("GRU", {"direction": "sideways"}, "direction is 'sideways'"),
        ("GRU", {"hidden_size": 3}, r"hidden_size is 3, but R has shape \(1, 6, 2\)"),
        ("GRU", {"gates": 3}, "attribute gates is not known"),
    ],
)
def test_recurrent_attributes_that_are_wrong(op, attributes, match):
    gates = 2 * len(CELLS[op.lower()].gates)
    inputs = {"X": np.zeros((1, 1, 3), "f4"), "W": np.zeros((1, gates, 3), "f4"), "R": np.zeros((1, gates, 2), "f4")}
    with pytest.raises(ValueError, match=rf"^the ModelProto: node {op} that gives 'Y': .*{match}"):
        pyrnn.from_onnx(model_of(op, attributes, inputs, ["Y"], ["W", "R"]))


@pytest.mark.parametrize(
    ("name", "shape"), [("W", (1, 5, 3)), ("W", (2, 6, 3)), ("R", (1, 6)), ("R", (1, 4, 2)), ("B", (1, 6))]
)
def test_recurrent_weights_that_are_wrong(name, shape):
    inputs = {"X": np.zeros((1, 1, 3), "f4"), "W": np.zeros((1, 6, 3), "f4"), "R": np.zeros((1, 6, 2), "f4")}
    inputs["B"] = np.zeros((1, 12), "f4")
    inputs[name] = np.zeros(shape, "f4")
    with pytest.raises(ValueError, match="node GRU that gives 'Y': "):
        pyrnn.from_onnx(model_of("GRU", {}, inputs, ["Y"], ["W", "R", "B"]))


# ---- random convolutions, products and the like


def test_convolutions():
    """Of one axis on the kernel, of more on NumPy; with what stands behind them."""
    rng = np.random.default_rng(0)
    for seed in range(60):
        axes, groups = int(rng.choice([1, 1, 1, 2])), int(rng.choice([1, 1, 2, 3]))
        kernel = rng.integers(1, 5, axes)
        sizes = rng.integers(9, 14, axes)
        inputs, outputs = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
        attributes = {"group": groups, "strides": rng.integers(1, 4, axes), "dilations": rng.integers(1, 3, axes)}
        if rng.random() < 0.3:
            attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
            attributes["dilations"] = [1] * axes
        else:
            attributes["pads"] = rng.integers(0, 3, 2 * axes)
        x = rng.normal(size=(int(rng.integers(1, 4)), inputs, *sizes)).astype("f4")
        weight = rng.normal(size=(outputs, inputs // groups, *kernel)).astype("f4")
        bias = rng.normal(size=outputs).astype("f4") if rng.random() < 0.6 else None
        model = model_of("Conv", attributes, {"x": x, "w": weight, "b": bias}, ["y"], ["w", "b"])
        found = pyrnn.from_onnx(model)(x)["y"]
        (expected,) = session(model).run(None, {"x": x})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4, err_msg=f"{seed}: {attributes}")
        assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_products(dtype):
    rng = np.random.default_rng(0)
    for attributes, a, b, c in [
        ({}, (3, 4), (4, 5), None),
        ({"transB": 1}, (3, 4), (5, 4), (5,)),
        ({"transA": 1, "alpha": 0.5}, (4, 3), (4, 5), (3, 1)),
        ({"alpha": 2.0, "beta": 0.5, "transB": 1}, (3, 4), (5, 4), (1, 5)),
        ({"beta": 3.0}, (3, 4), (4, 5), ()),
        ({"beta": 3.0}, (3, 4), (4, 5), (3, 5)),
    ]:
        shapes = {"a": a, "b": b, "c": c}
        arrays = {n: None if s is None else rng.normal(size=s).astype(dtype) for n, s in shapes.items()}
        model = model_of("Gemm", attributes, arrays, ["y"], ["b", "c"])
        x = arrays["a"].T if attributes.get("transA") else arrays["a"]
        w = arrays["b"].T if attributes.get("transB") else arrays["b"]
        expected = attributes.get("alpha", 1) * (x.astype("f8") @ w.astype("f8"))
        expected = expected if c is None else expected + attributes.get("beta", 1) * arrays["c"].astype("f8")
        found = pyrnn.from_onnx(model)(arrays["a"])["y"]
        np.testing.assert_allclose(found, expected, atol={"f2": 2e-2, "f4": 1e-5, "f8": 1e-13}[dtype])
        assert found.dtype == dtype
    for shape in [(4,), (3, 4), (2, 3, 4), (0, 4)]:
        x, w = rng.normal(size=shape).astype(dtype), rng.normal(size=(4, 5)).astype(dtype)
        found = pyrnn.from_onnx(model_of("MatMul", {}, {"x": x, "w": w}, ["y"], ["w"]))(x)["y"]
        np.testing.assert_allclose(
            found, x @ w, rtol=1e-2 if dtype == "f2" else 1e-5, atol=1e-2 if dtype == "f2" else 1e-6
        )


def test_quantized_lstm():
    """Near onnxruntime's, which rounds the activations of a whole call with one scale; on a kernel of its integers."""
    rng = np.random.default_rng(0)
    steps, rows, width, hidden = 12, 1, 16, 24
    weights = {"W": rng.normal(size=(1, width, 4 * hidden)), "R": rng.normal(size=(1, hidden, 4 * hidden))}
    x = rng.normal(size=(steps, rows, width)).astype("f4")
    for channel in (False, True):
        inputs = {"X": x}
        more = {}
        for name, matrix in weights.items():
            scale = (np.abs(matrix * 0.3).max(axis=1 if channel else (1, 2)) / 127).astype("f4")
            inputs[name] = np.rint(matrix * 0.3 / scale.reshape(1, 1, -1)).astype("i1")
            more |= {f"{name}_scale": scale, f"{name}_zero_point": np.zeros(scale.shape, "i1")}
        inputs |= {"B": rng.normal(size=(1, 8 * hidden)).astype("f4") * 0.1, "sequence_lens": None}
        inputs |= {"initial_h": None, "initial_c": None, "P": None, **more}
        fixed = [name for name in inputs if name != "X"]
        model = model_of("DynamicQuantizeLSTM", {"hidden_size": hidden}, inputs, ["Y"], fixed, domain="com.microsoft")
        (expected,) = session(model).run(None, {"X": x})
        found = pyrnn.from_onnx(model)(x)["Y"]
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()
        layer = [np.concatenate([np.split(part, 4)[k] for k in (0, 2, 3, 1)]) for part in of_layer(inputs, hidden)]
        own = [(layer[0], layer[1]), (layer[2], layer[3]), layer[4], layer[5], None, None]
        np.testing.assert_array_equal(found[:, 0], pyrnn.kernels.lstm.forward(x, None, own)[0])


def of_layer(inputs, hidden):
    """Integers and scales of W and R, and both biases, (4*H, ...) each."""
    for name in "WR":
        yield np.ascontiguousarray(inputs[name][0].T)
        yield np.broadcast_to(inputs[f"{name}_scale"].reshape(-1), 4 * hidden).copy()
    yield from np.split(inputs["B"][0], 2)
