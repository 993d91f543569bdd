"""pyrnn.from_keras: what Keras 2 and 3 computed, files made by hand beside plain NumPy, and what is refused."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mutations import mutated, told

import pyrnn

GOLDEN = Path(__file__).parent / "golden"

# File -> what it does not tell. keras2.npz and keras3.npz have what Keras computes with each: golden/make_keras.py.
FILES = {
    "keras2_chain.h5": None,
    "keras2_graph.keras": None,
    "keras2_cudnn.h5": {"a": {"return_sequences": True}, "b": {}},
    "keras3_chain.keras": None,
    "keras3_graph.h5": None,
    "keras3_chain.weights.h5": (GOLDEN / "keras3_chain.json").read_text(),
}


@pytest.mark.parametrize("file", FILES)
def test_what_keras_computes(file, tmp_path):
    version, name = file.split(".")[0].split("_")
    recorded = np.load(GOLDEN / f"{version}.npz")
    x, y = recorded[f"{name}/x"], recorded[f"{name}/y"]
    model = pyrnn.from_keras(GOLDEN / file, FILES[file])
    np.testing.assert_allclose(model(x), y, rtol=0, atol=2e-6)
    pyrnn.save(tmp_path / "x", model)
    np.testing.assert_array_equal(pyrnn.load(tmp_path / "x")(x), model(x))
    count = sum(array.size for key, array in pyrnn.read_weights(GOLDEN / file).items() if "seed_gen" not in key)
    assert count <= sum(value.size for value in model.state_dict().values())


def test_arrays_by_name():
    arrays = pyrnn.read_weights(GOLDEN / "keras2_chain.h5")
    assert arrays["model_weights.gru.gru.gru_cell.kernel:0"].shape == (5, 12)
    arrays = pyrnn.read_weights(GOLDEN / "keras3_chain.keras")
    assert arrays["layers.bidirectional.forward_layer.cell.vars.0"].shape == (4, 12)
    assert all(array.dtype == np.float32 for array in arrays.values() if array.dtype.kind == "f")


# ---- files made by hand


def h5(path, layers, config=None, version="2.2.4", root="model_weights"):
    """A file as Keras 2 writes it: {layer: {name: array}}."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        if version:
            file.attrs["keras_version"] = version.encode()
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group(root) if root else file
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = [f"{name}/{key}".encode() for key in arrays]
            for key, array in arrays.items():
                own[f"{name}/{key}"] = array


def sequential(*layers):
    """Keras' description of a Sequential, of (class, options)."""
    named = [{"class_name": kind, "config": {"name": f"l{k}", **options}} for k, (kind, options) in enumerate(layers)]
    return {"class_name": "Sequential", "config": {"name": "s", "layers": named}}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


GATES = {
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda a: np.clip(0.2 * a + 0.5, 0, 1),
    "hard_sigmoid 3": lambda a: np.clip(a / 6 + 0.5, 0, 1),
}
ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "linear": lambda a: a,
    "softsign": lambda a: a / (1 + abs(a)),
    "sigmoid": sigmoid,
}


def lstm(x, kernel, recurrent, bias, gate, activation):
    """Keras' equations, as plainly as can be: x (N, T, I) -> (N, T, H)."""
    units = len(recurrent)
    h = c = np.zeros((len(x), units))
    outputs = []
    for t in range(x.shape[1]):
        a = x[:, t] @ kernel + h @ recurrent + bias
        i, f, g, o = (a[:, k * units : (k + 1) * units] for k in range(4))
        c = gate(f) * c + gate(i) * activation(g)
        h = gate(o) * activation(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def gru(x, kernel, recurrent, bias, gate, activation):
    """The same; a bias of two rows is that of reset_after."""
    units = len(recurrent)
    h = np.zeros((len(x), units))
    outputs = []
    for t in range(x.shape[1]):
        a = x[:, t] @ kernel + (bias[0] if bias.ndim == 2 else bias)
        u, v = recurrent[:, : 2 * units], recurrent[:, 2 * units :]
        own = bias[1] if bias.ndim == 2 else np.zeros(3 * units)
        z, r = np.split(gate(a[:, : 2 * units] + h @ u + own[: 2 * units]), 2, axis=1)
        inner = r * (h @ v + own[2 * units :]) if bias.ndim == 2 else (r * h) @ v
        h = z * h + (1 - z) * activation(a[:, 2 * units :] + inner)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape) / 2


X = draw(2, 7, 3)
KERNELS = {
    "LSTM": {"kernel:0": draw(3, 16), "recurrent_kernel:0": draw(4, 16), "bias:0": draw(16)},
    "GRU": {"kernel:0": draw(3, 12), "recurrent_kernel:0": draw(4, 12), "bias:0": draw(2, 12)},
    "before": {"kernel:0": draw(3, 12), "recurrent_kernel:0": draw(4, 12), "bias:0": draw(12)},
}
OPTIONS = {"units": 4, "return_sequences": True, "activation": "tanh", "recurrent_activation": "sigmoid"}


@pytest.mark.parametrize("version", ["2.0.6", "2.2.4-tf", "3.5.0"])
@pytest.mark.parametrize("gates", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("cell", KERNELS)
def test_cells(cell, activation, gates, version, tmp_path):
    """Every activation and gate, in float64; hard sigmoid by the version that wrote the file."""
    kind = "GRU" if cell == "before" else cell
    options = OPTIONS | {"activation": activation, "recurrent_activation": gates}
    h5(tmp_path / "x.h5", {"l0": KERNELS[cell]}, sequential((kind, options)), version)
    model = pyrnn.from_keras(tmp_path / "x.h5")
    gate = GATES["hard_sigmoid 3" if gates == "hard_sigmoid" and version[0] == "3" else gates]
    expected = (lstm if cell == "LSTM" else gru)(X, *KERNELS[cell].values(), gate, ACTIVATIONS[activation])
    assert model[0].dtype == np.float64
    np.testing.assert_allclose(model(X), expected, rtol=1e-12, atol=1e-12)


def test_the_last_step_of_both_directions(tmp_path):
    forth, back = KERNELS["LSTM"], {name: array[::-1] for name, array in KERNELS["LSTM"].items()}
    names = {f"forward_l/{name}": a for name, a in forth.items()} | {
        f"backward_l/{name}": a for name, a in back.items()
    }
    for whole in (True, False):
        inner = {"class_name": "LSTM", "config": OPTIONS | {"return_sequences": whole}}
        description = sequential(("Bidirectional", {"layer": inner, "merge_mode": "concat"}))
        h5(tmp_path / "x.h5", {"l0": names}, description)
        one = lstm(X, *forth.values(), sigmoid, np.tanh)
        other = lstm(X[:, ::-1], *back.values(), sigmoid, np.tanh)
        expected = np.concatenate([one, other[:, ::-1]] if whole else [one[:, -1], other[:, -1]], axis=-1)
        np.testing.assert_allclose(pyrnn.from_keras(tmp_path / "x.h5")(X), expected, rtol=1e-12, atol=1e-12)


def test_layers_in_line(tmp_path):
    """A convolution, pooling and a head, with all that may stand between."""
    kernel, bias, head = draw(3, 3, 4), draw(4), draw(4, 2)
    norm = {"gamma:0": draw(4), "beta:0": draw(4), "moving_mean:0": draw(4), "moving_variance:0": draw(4) ** 2 + 1}
    layers = {"l0": {}, "l1": {"kernel:0": kernel, "bias:0": bias}, "l2": norm, "l3": {}, "l4": {}, "l5": {},
              "l6": {"kernel:0": head}}  # fmt: skip
    described = sequential(
        ("InputLayer", {"batch_input_shape": [None, 7, 3], "sparse": False}),
        ("Conv1D", {"filters": 4, "kernel_size": [3], "padding": "same", "activation": "relu", "use_bias": True}),
        ("BatchNormalization", {"axis": [2], "epsilon": 0.01, "momentum": 0.9}),
        ("MaxPooling1D", {"pool_size": [2], "strides": None, "padding": "same"}),
        ("SpatialDropout1D", {"rate": 0.3}),
        ("GlobalAveragePooling1D", {"data_format": "channels_last"}),
        ("Dense", {"units": 2, "activation": "softmax", "use_bias": False, "kernel_regularizer": {"class_name": "L2"}}),
    )
    h5(tmp_path / "x.h5", layers, described)
    padded = np.pad(X, ((0, 0), (1, 1), (0, 0)))
    y = np.maximum(sum(padded[:, k : k + 7] @ kernel[k] for k in range(3)) + bias, 0)
    y = (y - norm["moving_mean:0"]) / np.sqrt(norm["moving_variance:0"] + 0.01) * norm["gamma:0"] + norm["beta:0"]
    y = np.stack([y[:, 2 * k : 2 * k + 2].max(axis=1) for k in range(4)], axis=1).mean(axis=1) @ head
    expected = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
    model = pyrnn.from_keras(tmp_path / "x.h5")
    np.testing.assert_allclose(model(X), expected, rtol=1e-12)
    assert [type(layer).__name__ for layer in model] == [
        *("Conv1d", "ReLU", "BatchNorm1d", "MaxPool1d", "Dropout", "MeanOverTime", "Linear", "Softmax")
    ]


def test_a_norm_becomes_a_part(tmp_path):
    kernel, bias = draw(3, 4), draw(4)
    norm = {"gamma:0": draw(4), "beta:0": draw(4), "moving_mean:0": draw(4), "moving_variance:0": draw(4) ** 2 + 1}
    described = sequential(
        ("Dense", {"units": 4, "activation": "linear", "use_bias": True}), ("BatchNormalization", {"epsilon": 0.01})
    )
    h5(tmp_path / "x.h5", {"l0": {"kernel:0": kernel, "bias:0": bias}, "l1": norm}, described)
    model = pyrnn.from_keras(tmp_path / "x.h5")
    assert [type(layer).__name__ for layer in model] == ["Linear"]
    y = (X @ kernel + bias - norm["moving_mean:0"]) / np.sqrt(norm["moving_variance:0"] + 0.01)
    np.testing.assert_allclose(model(X), y * norm["gamma:0"] + norm["beta:0"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("whole", "axis", "known"), [(True, 2, True), (True, 1, False), (False, 1, True)])
def test_the_last_axis_by_its_number(whole, axis, known, tmp_path):
    """Behind a recurrent layer it is 2, or 1 where the last step alone goes on."""
    described = sequential(
        ("LSTM", OPTIONS | {"return_sequences": whole}), ("LayerNormalization", {"axis": [axis], "epsilon": 0.1})
    )
    h5(tmp_path / "x.h5", {"l0": KERNELS["LSTM"], "l1": {"gamma:0": draw(4), "beta:0": draw(4)}}, described)
    if not known:
        with pytest.raises(ValueError, match=r"l1 \(LayerNormalization\): it has axis=\[1\], expected the last"):
            pyrnn.from_keras(tmp_path / "x.h5")
        return
    y = lstm(X, *KERNELS["LSTM"].values(), sigmoid, np.tanh)
    y = y if whole else y[:, -1]
    y = (y - y.mean(axis=-1, keepdims=True)) / np.sqrt(y.var(axis=-1, keepdims=True) + 0.1) * draw(4) + draw(4)
    np.testing.assert_allclose(pyrnn.from_keras(tmp_path / "x.h5")(X), y, rtol=1e-12)


def test_names_that_layers_cannot_have(tmp_path):
    """Hyphens, names of methods; in old files neither ':0' nor 'model_weights'."""
    names = ["bi-lstm", "stream", "x", "1"]
    layers = {name: {"kernel": draw(3, 3), "bias": draw(3)} for name in names}
    described = sequential(*[("Dense", {"name": name, "activation": None}) for name in names])
    described["config"] = described["config"]["layers"]  # as up to Keras 2.1
    h5(tmp_path / "x.h5", layers, described, root="")
    model = pyrnn.from_keras(tmp_path / "x.h5")
    y = X
    for arrays in layers.values():
        y = y @ arrays["kernel"] + arrays["bias"]
    np.testing.assert_allclose(model(X), y, rtol=1e-12)


def functional(*layers, outputs=1):
    """Keras 2's description of a functional model, of (name, class, options, the names of what it takes)."""
    entries = [
        {"name": name, "class_name": kind, "config": {"name": name, **options},
         "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else []}
        for name, kind, options, sources in layers
    ]  # fmt: skip
    ends = [[entry["name"], 0, 0] for entry in entries[-outputs:]]
    return {"class_name": "Model", "config": {"layers": entries, "input_layers": [["in", 0, 0]], "output_layers": ends}}


def test_layers_that_meet(tmp_path):
    first, second = draw(3, 4), draw(7, 2)
    described = functional(
        ("in", "InputLayer", {}, []),
        ("out", "Dense", {}, ["beside"]),
        ("beside", "Concatenate", {"axis": -1}, ["in", "sum"]),
        ("sum", "Add", {}, ["one", "one_tanh"]),
        ("one", "Dense", {}, ["in"]),
        ("one_tanh", "Activation", {"activation": "tanh"}, ["one"]),
    )
    described["config"]["output_layers"] = [["out", 0, 0]]
    h5(tmp_path / "x.h5", {"one": {"kernel:0": first}, "out": {"kernel:0": second}}, described)
    model = pyrnn.from_keras(tmp_path / "x.h5")
    one = X @ first
    expected = np.concatenate([X, one + np.tanh(one)], axis=-1) @ second
    np.testing.assert_allclose(model(X), expected, rtol=1e-12)
    np.testing.assert_array_equal(model.stream(2)(X), model(X))


def test_weights_alone(tmp_path):
    """What they do not tell is asked for, layer by layer; a layer without counterpart, and a function, are given."""
    path = tmp_path / "x.h5"
    layers = {"in": {}, "rnn": KERNELS["before"], "own": {"W:0": draw(4, 1)}, "out": {"kernel:0": draw(4, 2)}}
    h5(path, layers, version="2.0.6", root="")
    with pytest.raises(ValueError, match=r"x\.h5: it holds weights alone.*'rnn': \{'recurrent_activation'.*lacks in, "):
        pyrnn.from_keras(path)
    own = {
        "in": {"class_name": "InputLayer"},
        "rnn": {"recurrent_activation": "hard_sigmoid"},
        "own": lambda w: lambda y: y * w[:, 0],
        "out": {"activation": np.abs},
    }
    model = pyrnn.from_keras(path, own)
    y = gru(X, *KERNELS["before"].values(), GATES["hard_sigmoid"], np.tanh)[:, -1]
    expected = abs((y * layers["own"]["W:0"][:, 0]) @ layers["out"]["kernel:0"])
    np.testing.assert_allclose(model(X), expected, rtol=1e-12)
    for changed, message in [
        ({"rnn": {}}, r"rnn \(GRU\): recurrent_activation is not told"),
        ({"in": {}}, "what in is cannot be told by its arrays"),
        ({"own": {}}, "what own is cannot be told by its arrays"),
        ({"own": lambda w: 3}, r"own \(a function\): the function in config gives 3, expected a layer"),
        ({"rnn": {"recurrent_activation": "sigmoid", "units": 5}}, "it says units=5, and its arrays are of 4"),
        ({"out": {"inbound": ["nobody"]}}, "it takes 'nobody', which is not before it"),
        ({"out": {"inbound": ["rnn", "own"]}}, "it takes 2 inputs"),
    ]:
        with pytest.raises(ValueError, match=rf"x\.h5: .*{message}"):
            pyrnn.from_keras(path, own | changed)
    shuffled = {name: own[name] for name in reversed(own)}  # the file has the order
    np.testing.assert_array_equal(pyrnn.from_keras(path, shuffled)(X), model(X))
    with pytest.raises(ValueError, match="config tells of 'more', and its layers are in, rnn, own, out"):
        pyrnn.from_keras(path, own | {"more": {}})
    for config, message in [("no json", "config is no JSON"), (3, "config is 3"), ({"a": {}}, "lacks in, rnn")]:
        with pytest.raises(ValueError, match=rf"x\.h5: .*{message}"):
            pyrnn.from_keras(path, config)


def test_a_description_beside_the_weights(tmp_path):
    """The text of model.to_json(), whose keras_version says what a hard sigmoid is where the weights do not."""
    described = sequential(("LSTM", OPTIONS | {"recurrent_activation": "hard_sigmoid"}))
    h5(tmp_path / "x.h5", {"l0": KERNELS["LSTM"]}, version=None, root="")
    with pytest.raises(ValueError, match="its version is not told"):
        pyrnn.from_keras(tmp_path / "x.h5", json.dumps(described))
    for version, gate in (("2.3.1", "hard_sigmoid"), ("3.1.0", "hard_sigmoid_6")):
        model = pyrnn.from_keras(tmp_path / "x.h5", json.dumps(described | {"keras_version": version}))
        assert model[0].gate_activation == gate


def test_what_is_told_otherwise(tmp_path):
    """config of a whole model's file: masks that are left out on purpose."""
    described = sequential(("Embedding", {"input_dim": 5, "output_dim": 3, "mask_zero": True}), ("LSTM", OPTIONS))
    h5(tmp_path / "x.h5", {"l0": {"embeddings:0": draw(5, 3)}, "l1": KERNELS["LSTM"]}, described)
    with pytest.raises(ValueError, match=r"x\.h5: l0 \(Embedding\): it has mask_zero=True"):
        pyrnn.from_keras(tmp_path / "x.h5")
    ids = np.array([[1, 2, 0, 0]])
    model = pyrnn.from_keras(tmp_path / "x.h5", {"l0": {"mask_zero": False}})
    np.testing.assert_allclose(model(ids, lengths=[2])[:, :2], model(ids[:, :2]), rtol=1e-12)
    with pytest.raises(ValueError, match="config tells of 'l7', and its layers are l0, l1"):
        pyrnn.from_keras(tmp_path / "x.h5", {"l7": {}})


DENSE = {"kernel:0": draw(3, 3), "bias:0": draw(3)}
REFUSED = {
    "Lambda": (("Lambda", {"function": ["4wEAAAA=", None, None]}), {}, "it has no counterpart here"),
    "Flatten": (("Flatten", {}), {}, "it has no counterpart here; there is one for LSTM, GRU"),
    "Masking": (("Masking", {"mask_value": 0.0}), {}, "it has no counterpart here"),
    "custom": (("Mine", {}), {"W:0": draw(3)}, r"l0 \(Mine\): it has no counterpart here"),
    "activation": (("Dense", {"activation": "mish"}), DENSE, "it has activation='mish'; there are linear"),
    "unknown option": (("Dense", {"sharpness": 3}), DENSE, "it has sharpness=3, which is not known here"),
    "another array": (("Dense", {}), DENSE | {"scale:0": draw(3)}, "it holds scale, for which no layer here has"),
    "missing array": (("Dense", {}), {"bias:0": draw(3)}, "its kernel is missing"),
    "shape": (("Dense", {}), {"kernel:0": draw(3, 3), "bias:0": draw(4)}, r"its bias has shape \(4,\), expected \(3\)"),
    "bias": (("Dense", {"use_bias": False}), DENSE, "it says use_bias=False, and a bias"),
    "rnn bias": (("LSTM", OPTIONS | {"use_bias": False}), KERNELS["LSTM"], "it says use_bias=False"),
    "reset": (("GRU", OPTIONS | {"reset_after": False}), KERNELS["GRU"], "reset_after=False, and"),
    "no reset": (("GRU", OPTIONS), {k: v for k, v in KERNELS["GRU"].items() if k != "bias:0"}, "reset_after.* told"),
    "backwards": (("LSTM", OPTIONS | {"go_backwards": True}), KERNELS["LSTM"], "it has go_backwards=True"),
    "rnn activation": (("GRU", OPTIONS | {"activation": "elu"}), KERNELS["GRU"], "it has activation='elu'"),
    "gates": (("GRU", OPTIONS | {"recurrent_activation": "tanh"}), KERNELS["GRU"], "recurrent_activation='tanh'"),
    "merge": (("Bidirectional", {"merge_mode": "sum"}), {}, "it has merge_mode='sum'"),
    "two sizes": (("Embedding", {"input_dim": 4}), {"embeddings:0": draw(5, 3)}, "input_dim=4, and its arrays are"),
    "first": (("Conv1D", {"data_format": "channels_first"}), {"kernel:0": draw(3, 3, 3)}, "it has data_format="),
    "same strided": (
        ("Conv1D", {"strides": [2], "padding": "same"}), {"kernel:0": draw(3, 3, 3)}, "'same' and stride 2",
    ),
    "same pooling": (("MaxPooling1D", {"pool_size": [3], "padding": "same"}), {}, "it has padding='same'"),
    "prelu": (("PReLU", {}), {"alpha:0": draw(7, 3)}, "its alpha differs from step to step"),
    "inner model": (("Sequential", {"layers": []}), {}, "l0 is a model inside of it"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart(case, tmp_path):
    layer, arrays, message = REFUSED[case]
    h5(tmp_path / "x.h5", {"l0": arrays}, sequential(layer))
    with pytest.raises(ValueError, match=rf"x\.h5: .*{message}"):
        pyrnn.from_keras(tmp_path / "x.h5")


IN, TWO = ("in", "InputLayer", {}, []), ("b", "Dense", {}, ["in"])
GRAPHS = {
    "several outputs": (functional(IN, TWO, ("c", "Dense", {}, ["in"]), outputs=2), "2 outputs"),
    "nobody takes": (functional(IN, TWO, ("c", "Dense", {}, ["in"])), "nobody takes the result of 'b'"),
    "behind the output": (functional(IN, ("c", "Dense", {}, ["b"]), TWO), "the result of c is taken by none"),
    "a circle": (functional(IN, ("b", "Add", {}, ["c"]), ("c", "Add", {}, ["b"])), "b takes what no layer gives"),
    "twice a name": (functional(IN, TWO, TWO), "a layer of it has the name 'b'"),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAPHS)
def test_graphs_that_are_none(case, tmp_path):
    described, message = GRAPHS[case]
    h5(tmp_path / "x.h5", {"b": {"kernel:0": draw(3, 3)}, "c": {"kernel:0": draw(3, 3)}}, described)
    with pytest.raises(ValueError, match=rf"x\.h5: .*{message}"):
        pyrnn.from_keras(tmp_path / "x.h5")


def test_graphs_that_use_more_than_a_result(tmp_path):
    layers = [("in", "InputLayer", {}, []), ("b", "Dense", {}, ["in"])]
    for change, message in [
        (lambda node: node[0].__setitem__(2, 1), "result 1 of use 0 of in is needed"),
        (lambda node: node[0].__setitem__(3, {"initial_state": ["in", 0, 0]}), "b is given tensors by name"),
        (lambda node: node[0].__setitem__(0, "nobody"), "b takes what no layer gives"),
    ]:
        described = functional(*layers)
        change(described["config"]["layers"][1]["inbound_nodes"][0])
        h5(tmp_path / "x.h5", {"b": {"kernel:0": draw(3, 3)}}, described)
        with pytest.raises(ValueError, match=rf"x\.h5: .*{message}"):
            pyrnn.from_keras(tmp_path / "x.h5")
    described["config"]["layers"][1]["inbound_nodes"] *= 2
    h5(tmp_path / "x.h5", {"b": {"kernel:0": draw(3, 3)}}, described)
    with pytest.raises(ValueError, match="b is used 2 times"):
        pyrnn.from_keras(tmp_path / "x.h5")


def tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"shape": [None, 3], "keras_history": [name, 0, 0]}}


CALLS = {
    "training": ([[["in", 0, 0, {"training": True}]]], "its call is given training=True, which is not read"),
    "training, Keras 3": ([{"args": [tensor("in")], "kwargs": {"training": True}}], "given training=True"),
    "mask": ([{"args": [tensor("in")], "kwargs": {"mask": [[True]]}}], r"given mask=\[\[True\]\]"),
    "state by name": ([{"args": [tensor("in")], "kwargs": {"initial_state": [tensor("in")]}}], "tensors by name"),
    "number": ([[["in", 0, 0, {}], ["_CONSTANT_VALUE", -1, 2.5, {}]]], "its call is given 2.5"),
    "integer": ([[["in", 0, 0, {}], ["_CONSTANT_VALUE", -1, 2, {}]]], "its call is given 2,"),
    "number, Keras 3": ([{"args": [[tensor("in"), 2.0]], "kwargs": {}}], "its call is given 2.0"),
    "none, Keras 3": ([{"args": [[tensor("in"), None]], "kwargs": {}}], "its call is given None"),
    "by place": ([{"args": [tensor("in"), None, True], "kwargs": {}}], "its call is given True"),
    "by name": ([["in", 0, 0, {"y": 2.0, "name": None}]], "its call is given y=2.0"),
    "nought": ([["in", 0, 0, {"y": 0}]], "its call is given y=0"),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_that_are_given_more_than_results(case, tmp_path):
    calls, message = CALLS[case]
    described = functional(("in", "InputLayer", {}, []), ("b", "Add", {}, ["in"]))
    described["config"]["layers"][1]["inbound_nodes"] = calls
    h5(tmp_path / "x.h5", {}, described)
    with pytest.raises(ValueError, match=rf"x\.h5: b .*{message}"):
        pyrnn.from_keras(tmp_path / "x.h5")
    if "tensors" not in message:  # a user's function knows what it is given
        model = pyrnn.from_keras(tmp_path / "x.h5", config={"b": lambda: np.tanh})
        np.testing.assert_allclose(model(X), np.tanh(X), rtol=1e-6)


@pytest.mark.parametrize("options", [{"training": False}, {"training": None, "mask": None}])
def test_calls_that_are_given_what_is_usual(options, tmp_path):
    described = functional(("in", "InputLayer", {}, []), ("b", "Activation", {"activation": "tanh"}, ["in"]))
    for calls in (
        [[["in", 0, 0, options]]],
        [["in", 0, 0, options]],
        [{"args": [tensor("in")], "kwargs": options}],
        [{"args": [tensor("in"), *options.values()], "kwargs": {}}],
    ):
        described["config"]["layers"][1]["inbound_nodes"] = calls
        h5(tmp_path / "x.h5", {}, described)
        np.testing.assert_allclose(pyrnn.from_keras(tmp_path / "x.h5")(X), np.tanh(X), rtol=1e-6)


def test_arrays_that_belong_to_no_layer(tmp_path):
    h5(tmp_path / "x.h5", {"l0": DENSE, "l9": DENSE}, sequential(("Dense", {})))
    with pytest.raises(ValueError, match=r"x\.h5: it holds arrays of l9, which is not among its layers"):
        pyrnn.from_keras(tmp_path / "x.h5")


@pytest.mark.parametrize("source", [None, 3, np.ones(3), pyrnn.Linear, {"a": 1}])
def test_what_is_no_model_of_keras(source):
    with pytest.raises(TypeError, match=r"from_keras: source is .*, expected a file, or a model or a layer of Keras"):
        pyrnn.from_keras(source)


def test_what_is_no_file_of_keras(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="x: no such file"):
        pyrnn.from_keras(path)
    for content in (b"", b"hello", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="x: "):
            pyrnn.from_keras(path)
    h5(path, {"l0": {}}, sequential(("Dense", {})), version="1.2.2")
    with pytest.raises(ValueError, match="x: it is of Keras 1"):
        pyrnn.from_keras(path)


# ---- files that are damaged, or mean harm


@pytest.mark.parametrize("file", FILES)
def test_damaged_files(file, tmp_path):
    """Bytes changed, cut and added: a model, or an error that names the file."""
    path = tmp_path / "damaged"
    messages = {
        told(path, content, read)
        for k, content in enumerate(mutated((GOLDEN / file).read_bytes(), 150))
        for read in ([pyrnn.read_weights, lambda path: pyrnn.from_keras(path, FILES[file])][k % 2],)
    }
    assert "" in messages
    assert len(messages) > 1


def test_swapped_fields(tmp_path):
    """A description whose parts have changed places, or become others: a model, or an error that names the file."""
    path, rng = tmp_path / "damaged", np.random.default_rng(0)
    with zipfile.ZipFile(GOLDEN / "keras3_chain.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    outcomes = set()
    for _ in range(150):
        described = json.loads(parts["config.json"])
        places = list(places_of(described))
        (one, key), (other, key_2) = (places[k] for k in rng.integers(len(places), size=2))
        strange = [None, -1, 2**70, 10**9, "x", [], {}, [[]], True, 1e308, "LSTM", other[key_2]]
        one[key] = strange[rng.integers(len(strange))]
        if not circular(described):
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w") as archive:
                for name, part in parts.items():
                    archive.writestr(name, json.dumps(described) if name == "config.json" else part)
            outcomes.add(told(path, content.getvalue(), pyrnn.from_keras))
    assert "" in outcomes
    assert len(outcomes) > 20


def places_of(value):
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(entry, (dict, list)):
            yield from places_of(entry)


def circular(value):
    try:
        json.dumps(value)
    except ValueError:
        return True
    return False


def test_a_zip_does_not_ask_for_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, bytes(10**7))
    for read in (pyrnn.read_weights, pyrnn.from_keras):
        with pytest.raises(ValueError, match="x: its entries take more memory than 8 times the file"):
            read(tmp_path / "x")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras with a newer NumPy
def test_live_models(monkeypatch, tmp_path):
    """What Keras 3 has in memory, and what it writes now."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    x = draw(2, 9, 3).astype(np.float32)
    inputs = layers.Input((9, 3))
    one = layers.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid")(inputs)
    two = layers.Bidirectional(layers.GRU(4, return_sequences=True, reset_after=False))(one)
    beside = layers.Concatenate()([inputs, two, layers.Conv1D(2, 3, padding="causal", activation="gelu")(one)])
    models = [
        keras.Model(inputs, layers.Dense(2, activation="silu")(layers.GlobalMaxPooling1D()(beside))),
        keras.Sequential([layers.Input((9, 3)), layers.SimpleRNN(4), layers.LayerNormalization(), layers.Dense(3)]),
    ]
    for model in models:
        expected = model.predict(x, verbose=0)
        model.save(tmp_path / "x.keras")
        for source in (model, tmp_path / "x.keras"):
            np.testing.assert_allclose(pyrnn.from_keras(source)(x), expected, rtol=0, atol=2e-6)
    layer = models[1].layers[0]
    np.testing.assert_allclose(pyrnn.from_keras(layer)(x), np.asarray(layer(x).detach()), rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match=r"from_keras: Dense: .*its kernel is missing"):
        pyrnn.from_keras(layers.Dense(2))
