"""ONNX' own test cases for RNN, LSTM and GRU, through onnx_adapter.py; random nodes where onnxruntime is installed."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx_adapter import INPUTS, ORDER, data_sets, node_cases, run  # noqa: E402  it needs onnx

CASES = node_cases(INPUTS)


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    for node, given, expected in data_sets(case):
        names = [INPUTS[node.op_type][k] for k, used in enumerate(node.input) if used]
        every = run(node, dict(zip(names, given, strict=True)))
        results = [a for a, wanted in zip(every, node.output, strict=False) if wanted]  # the last may be left out
        for actual, e in zip(results, expected, strict=True):
            assert actual.shape == e.shape
            assert actual.dtype == e.dtype
            np.testing.assert_allclose(actual, e, rtol=case.rtol, atol=case.atol)


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


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"clip": 1.0}, "clip"),
        ({"input_forget": 1}, "input_forget"),
        ({"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations"),
    ],
)
def test_what_no_layer_does_is_refused(attributes, match):
    node = onnx.helper.make_node("LSTM", list(INPUTS["LSTM"]), ["Y"], hidden_size=2, **attributes)
    inputs = {"X": np.zeros((1, 1, 3), "f4"), "W": np.zeros((1, 8, 3), "f4"), "R": np.zeros((1, 8, 2), "f4")}
    with pytest.raises(ValueError, match=match):
        run(node, inputs)


# ---- onnxruntime, where it is installed: every attribute in combination


def graph(op, attributes, inputs, outputs):
    names = [name if name in inputs else "" for name in INPUTS[op]]
    node = onnx.helper.make_node(op, names, outputs, **attributes)
    kinds = {"f4": onnx.TensorProto.FLOAT, "i4": onnx.TensorProto.INT32}
    values = [onnx.helper.make_tensor_value_info(n, kinds[a.dtype.str[1:]], a.shape) for n, a in inputs.items()]
    results = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs]
    opsets = [onnx.helper.make_opsetid("", 14)]
    return node, onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", values, results), opset_imports=opsets, ir_version=8
    )


def random_node(op, rng):
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions = 1 + (direction == "bidirectional")
    steps, rows, width, hidden = int(rng.integers(1, 7)), int(rng.integers(1, 6)), *map(int, rng.integers(1, 20, 2))
    gates = len(ORDER[op]) * hidden

    def draw(*shape):
        return rng.uniform(-1, 1, shape).astype("f4")

    inputs = {"X": draw(steps, rows, width), "W": draw(directions, gates, width), "R": draw(directions, gates, hidden)}
    if rng.random() < 0.7:
        inputs["B"] = draw(directions, 2 * gates)
    if rng.random() < 0.6:
        inputs["sequence_lens"] = rng.integers(1, steps + 1, rows).astype("i4")
    if rng.random() < 0.6:
        inputs["initial_h"] = draw(directions, rows, hidden)
    attributes = {"hidden_size": hidden, "direction": direction}
    if op == "LSTM":
        if rng.random() < 0.6:
            inputs["initial_c"] = draw(directions, rows, hidden)
        if rng.random() < 0.5:
            inputs["P"] = draw(directions, 3 * hidden)
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    if op == "RNN" and rng.random() < 0.7:
        attributes["activations"] = [str(rng.choice(["Tanh", "Relu", "Sigmoid"]))] * directions
    return attributes, inputs


@pytest.mark.parametrize("op", INPUTS)
def test_onnxruntime(op):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (op == "LSTM")]
    for seed in range(40):
        attributes, inputs = random_node(op, np.random.default_rng(seed))
        node, model = graph(op, attributes, inputs, outputs)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for name, a, e in zip(outputs, run(node, inputs), session.run(outputs, inputs), strict=True):
            np.testing.assert_allclose(a, e, rtol=0, atol=2e-5, err_msg=f"seed {seed}: {name}, {attributes}")
