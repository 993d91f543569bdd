"""pyrnn.from_json: RTNeural, GuitarML and NAM beside plain NumPy, and files that are damaged or not known."""

import json
import tracemalloc

import numpy as np
import pytest
from mutations import mutated, told
from test_keras import gru, lstm, sigmoid

import pyrnn


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) / 2


def written(path, value):
    path.write_text(json.dumps(value, default=lambda array: array.tolist()))
    return path


def rtneural(*layers, steps=None, inputs=1, **others):
    """A file of RTNeural's, of (type, features, weights, options)."""
    entries = [
        {"type": kind, "activation": "", "shape": [None, steps, features], "weights": weights, **options}
        for kind, features, weights, options in layers
    ]
    return {"in_shape": [None, steps, inputs], "layers": entries, **others}


X = draw(20, 1)
LSTM = [draw(4, 12), draw(3, 12), draw(12)]
GRU = [draw(3, 6), draw(2, 6), draw(2, 6)]
RECURRENT = rtneural(
    ("time-distributed-dense", 4, [draw(1, 4), draw(4)], {"activation": "tanh"}),
    ("lstm", 3, LSTM, {"activation": "tanh"}),
    ("gru", 2, GRU, {}),
    ("dense", 1, [draw(2, 1), draw(1)], {"activation": "sigmoid"}),
    samplerate="48000", esr=0.01,
)  # fmt: skip


def test_rtneural(tmp_path):
    model = pyrnn.from_json(written(tmp_path / "x.json", RECURRENT))
    y = lstm(np.tanh(X @ draw(1, 4) + draw(4))[None], *LSTM, sigmoid, np.tanh)
    expected = sigmoid(gru(y, *GRU, sigmoid, np.tanh)[0] @ draw(2, 1) + draw(1))
    np.testing.assert_allclose(model(X), expected, rtol=1e-5)
    stream = model.stream()
    np.testing.assert_array_equal([stream.step(x) for x in X], model(X))
    arrays = pyrnn.read_weights(tmp_path / "x.json")
    np.testing.assert_array_equal(arrays["layers.1.recurrent_kernel"], LSTM[1])
    assert len(arrays) == 10


@pytest.mark.parametrize(("steps", "left"), [(None, None), (20, 20), (20, 16)])
def test_rtneural_between(steps, left, tmp_path):
    """Convolutions: causal where the number of steps stays, else without zeros in front."""
    kernel, bias, alpha = draw(3, 2, 4), draw(4), draw(1, 1, 4)
    norm = [draw(4), draw(4), draw(4), draw(4) ** 2 + 1]
    described = rtneural(
        ("conv1d", 4, [kernel, bias], {"kernel_size": [3], "dilation": [2], "groups": 1, "activation": "relu"}),
        ("batchnorm", 4, norm, {"epsilon": 0.01}),
        ("prelu", 4, [alpha], {}),
        ("batchnorm", 4, norm[2:], {"epsilon": 0.01}),
        ("activation", 4, [], {"activation": "elu"}),
        steps=left, inputs=2,
    )  # fmt: skip
    described["in_shape"][1] = steps
    x = draw(20, 2)
    padded = np.concatenate([np.zeros((4, 2)), x])
    y = np.maximum(sum(padded[2 * k : 2 * k + 20] @ kernel[k] for k in range(3)) + bias, 0)
    y = (y - norm[2]) / np.sqrt(norm[3] + 0.01) * norm[0] + norm[1]
    y = np.where(y > 0, y, y * alpha[0, 0])
    y = (y - norm[2]) / np.sqrt(norm[3] + 0.01)
    expected = np.where(y > 0, y, np.expm1(y))[0 if left == steps else 4 :]
    model = pyrnn.from_json(written(tmp_path / "x.json", described))
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=2e-6)
    assert "BatchNorm1d" in repr(model)  # behind a function, with none behind it


def test_rtneural_norm_becomes_a_part(tmp_path):
    kernel, norm = draw(2, 4), [draw(4), draw(4), draw(4), draw(4) ** 2 + 1]
    described = rtneural(("dense", 4, [kernel], {}), ("batchnorm", 4, norm, {"epsilon": 0.01}), inputs=2)
    x = draw(20, 2)
    model = pyrnn.from_json(written(tmp_path / "x.json", described))
    assert [type(layer).__name__ for layer in model] == ["Linear"]
    expected = (x @ kernel - norm[2]) / np.sqrt(norm[3] + 0.01) * norm[0] + norm[1]
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=2e-6)


def changed(layer, **changes):
    entries = [dict(entry) for entry in RECURRENT["layers"]]
    entries[layer] |= changes
    return RECURRENT | {"layers": entries}


UNKNOWN = {
    "another layer": (changed(1, type="conv2d"), "a layer of it is 'conv2d', expected one of dense"),
    "another activation": (changed(1, activation="relu"), r"layer 1 \(lstm\): it has another activation than tanh"),
    "unknown activation": (changed(0, activation="mish"), r"layer 0 \(time-distributed-dense\): .*='mish'"),
    "one bias": (changed(2, weights=[*GRU[:2], draw(6)]), r"it says reset_after=True, and its bias has"),
    "units": (changed(1, shape=[None, None, 5]), "it says units=5, and its arrays are of 3"),
    "inputs": (changed(1, weights=[draw(5, 12), *LSTM[1:]]), "it reads 5 features, and 4 come"),
    "ragged": (changed(1, weights=[[[1.0], [1.0, 2.0]], *LSTM[1:]]), "kernel of a lstm is a list of lists of"),
    "texts": (changed(1, weights=[[["1.0"] * 12] * 4, *LSTM[1:]]), r"kernel of a lstm is .* a list of numbers"),
    "too many": (changed(1, weights=[*LSTM, draw(3)]), "the weights of a lstm are"),
    "too few": (changed(1, weights=LSTM[:1]), "its recurrent_kernel is missing"),
    "option": (changed(0, gain=3), "it has gain=3, which is not known here"),
    "gain": (RECURRENT | {"in_gain": 6.0}, "it has in_gain=6.0, which is not known here"),
    "skip": (RECURRENT | {"in_skip": 3}, "it adds 3 of 1 inputs to 1 outputs"),
    "steps": (
        rtneural(("conv1d", 4, [draw(3, 2, 4), draw(4)], {"kernel_size": [3], "dilation": [1]}), steps=9)
        | {"in_shape": [None, 20, 2]}, "it makes 9 steps of 20",
    ),
    "a state dict": ({"lstm.weight_ih_l0": draw(4, 1)}, "make the model, and model.load_state_dict"),
    "none of all": ({"a": [1.0]}, "it is JSON of neither RTNeural nor GuitarML nor NAM"),
    "a list": ([1, 2], "."),
}  # fmt: skip


def test_what_is_no_file_name():
    with pytest.raises(TypeError, match=r"^from_json: path is 3\.5, expected a file name"):
        pyrnn.from_json(3.5)


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known(case, tmp_path):
    described, message = UNKNOWN[case]
    with pytest.raises(ValueError, match=rf"x\.json: .*{message}"):
        pyrnn.from_json(written(tmp_path / "x.json", described))


def guitarml(unit, inputs, outputs, skip, layers=1):
    torch_names = pyrnn.Sequential(
        rec=getattr(pyrnn, unit)(inputs, 3, layers, rng=0), lin=pyrnn.Linear(3, outputs, rng=1)
    )
    data = {"model": "SimpleRNN", "input_size": inputs, "skip": skip, "output_size": outputs, "unit_type": unit,
            "num_layers": layers, "hidden_size": 3, "bias_fl": True}  # fmt: skip
    return torch_names, {"model_data": data, "state_dict": dict(torch_names.state_dict())}


@pytest.mark.parametrize(
    ("unit", "inputs", "outputs", "skip"),
    [("LSTM", 1, 1, 1), ("GRU", 1, 1, 0), ("LSTM", 3, 1, 1), ("GRU", 2, 2, 2), ("RNN", 3, 2, 1)],
)
def test_guitarml(unit, inputs, outputs, skip, tmp_path):
    """Its layers, and the first inputs added to what comes out."""
    plain, described = guitarml(unit, inputs, outputs, skip, 2)
    path = written(tmp_path / "x.json", described)
    model = pyrnn.from_json(path)
    x = draw(20, inputs)
    np.testing.assert_allclose(model(x), plain(x) + (x[:, :skip] if skip else 0), rtol=0, atol=1e-6)
    stream = model.stream()
    np.testing.assert_array_equal([stream.step(x_t) for x_t in x], model(x))
    plain.load_state_dict(pyrnn.read_weights(path))
    pyrnn.save(tmp_path / "y", model)
    np.testing.assert_array_equal(pyrnn.load(tmp_path / "y")(x), model(x))


def test_guitarml_that_is_not_known(tmp_path):
    described = guitarml("LSTM", 1, 1, 1)[1]
    for part, change, message in [
        ("model_data", {"unit_type": "QRNN"}, "its model is 'SimpleRNN' of 'QRNN' units"),
        ("model_data", {"skip": 2}, "it adds 2 of 1 inputs"),
        ("model_data", {"hidden_size": 4}, r"has shape \(12, 1\), expected \(16, 1\)"),
        ("model_data", {"hidden_size": 10**6}, "numbers too few for its parameters"),
        ("state_dict", {"extra": [1.0]}, "unknown entries: .*extra"),
    ]:
        wrong = described | {part: described[part] | change}
        with pytest.raises(ValueError, match=rf"x\.json: .*{message}"):
            pyrnn.from_json(written(tmp_path / "x.json", wrong))


def nam(inputs=1, hidden=3, layers=2, outputs=1):
    """A file of NAM's, and its model: each x of the row -> what comes out, by the formula."""
    parts, cells = [], []
    for k in range(layers):
        own = [draw(4 * hidden, (hidden if k else inputs) + hidden), draw(4 * hidden) / 2, draw(hidden + k)[:hidden],
               draw(hidden + 7 + k)[:hidden]]  # fmt: skip
        parts += own
        cells.append(own)
    head, bias = draw(outputs, hidden), draw(outputs)

    def run(x):
        states = [(h.astype(np.float64), c.astype(np.float64)) for _, _, h, c in cells]
        outputs = []
        for value in x:
            for k, (weight, offset, _, _) in enumerate(cells):
                h, c = states[k]
                i, f, g, o = np.split(weight @ np.concatenate([value, h]) + offset, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                value = sigmoid(o) * np.tanh(c)
                states[k] = value, c
            outputs.append(head @ value + bias)
        return np.stack(outputs)

    config = {"input_size": inputs, "hidden_size": hidden, "num_layers": layers}
    config |= {"in_channels": inputs, "out_channels": outputs} if (inputs, outputs) != (1, 1) else {}
    flat = np.concatenate([part.ravel() for part in (*parts, head, bias)])
    return run, {"version": "0.5.4", "architecture": "LSTM", "config": config, "weights": flat, "metadata": {"gain": 1}}


@pytest.mark.parametrize("sizes", [(1, 3, 1), (1, 3, 2), (2, 4, 2, 3)])
def test_nam(sizes, tmp_path):
    """Begins with the state of the file, whole, as a stream, and after a reset."""
    run, described = nam(*sizes)
    path = written(tmp_path / "x.nam", described)
    model = pyrnn.from_json(path)
    x = draw(20, sizes[0])
    np.testing.assert_allclose(model(x), run(x), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model(np.stack([x, x], axis=1))[:, 1], model(x))
    stream = model.stream()
    for _ in range(2):
        np.testing.assert_array_equal([stream.step(x_t) for x_t in x], model(x))
        stream.reset()
    model.load_state_dict(pyrnn.read_weights(path))
    pyrnn.save(tmp_path / "y", model)
    np.testing.assert_array_equal(pyrnn.load(tmp_path / "y")(x), model(x))


def test_nam_that_is_not_known(tmp_path):
    _, described = nam()
    config = described["config"]
    for change, message in [
        ({"architecture": "WaveNet"}, "its architecture is 'WaveNet', of NAM's the LSTM alone is read here"),
        ({"weights": described["weights"][:-1]}, "its weights are of shape .*, expected"),
        ({"weights": [None]}, "weights is .*, expected a list of numbers"),
        ({"config": config | {"hidden_size": 0}}, "its hidden_size is 0, expected a number from 1 on"),
        ({"config": config | {"num_layers": 10**9}}, "its weights are of shape"),
        ({"config": config | {"in_channels": 2}}, "its LSTM takes 1 inputs, and it says 2 channels"),
    ]:
        with pytest.raises(ValueError, match=rf"x\.nam: .*{message}"):
            pyrnn.from_json(written(tmp_path / "x.nam", described | change))
    arrays = pyrnn.read_weights(written(tmp_path / "x.nam", described | {"architecture": "WaveNet"}))
    np.testing.assert_array_equal(arrays["weights"], described["weights"])


@pytest.mark.parametrize("form", ["rtneural", "guitarml", "nam"])
def test_damaged_files(form, tmp_path):
    """Bytes changed, cut and added: a model, or an error that names the file."""
    described = {"rtneural": RECURRENT, "guitarml": guitarml("LSTM", 1, 1, 1)[1], "nam": nam()[1]}[form]
    whole = written(tmp_path / "whole", described).read_bytes()
    messages = {
        told(tmp_path / "damaged", content, [pyrnn.read_weights, pyrnn.from_json][k % 2])
        for k, content in enumerate(mutated(whole, 400))
    }
    assert "" in messages
    assert len(messages) > 20


@pytest.mark.parametrize(
    "content", [b"[" * 10**6, b'{"a":' * 10**5, b'{"weights": [' + b"[]," * 10**6, b"{" + b" " * 10**6]
)
def test_json_that_means_harm(content, tmp_path):
    assert told(tmp_path / "damaged", content, pyrnn.from_json)


def test_json_takes_the_memory_of_its_numbers(tmp_path):
    """NumPy would make 4000 texts of 50,000 letters of the first; 300,000 lists are 38 MB."""
    lists = {"a": [[] for _ in range(300_000)]}
    for value, message in [({"a": ["x" * 50_000] + [0] * 4000}, "a is .*, expected a list of numbers"),
                           (lists, "what it holds takes more memory than 8 times the file")]:  # fmt: skip
        path = written(tmp_path / "x.json", {"state_dict": value})
        tracemalloc.start()
        with pytest.raises(ValueError, match=message):
            pyrnn.read_weights(path)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 8 * 1_000_000 + path.stat().st_size
    for value in ([True], [1.0, None], [2**70], [[1.0], 2.0], [{}]):
        with pytest.raises(ValueError, match="a is "):
            pyrnn.read_weights(written(tmp_path / "x.json", {"state_dict": {"a": value}}))
    assert pyrnn.read_weights(written(tmp_path / "x.json", {"state_dict": {"a": [], "b": [[1, 2.5]]}}))["a"].size == 0
