"""pyrnn.save and pyrnn.load: every layer, model and net, and files that are none."""

import json
import os
import re

import numpy as np
import pytest
from cells import VARIANTS, make_layer, python

import pyrnn
from pyrnn.core import files
from pyrnn.core.layer import Layer


def sequential():
    return pyrnn.Sequential(pyrnn.LSTM(3, 4, bidirectional=True), pyrnn.MaxOverTime(), head=pyrnn.Linear(8, 2))


def test_layers_come_back_in_their_order(tmp_path):
    """Which is not that of the alphabet."""
    model = pyrnn.Sequential(rnn=pyrnn.GRU(3, 4), last=pyrnn.LastStep(), head=pyrnn.Linear(4, 2), rng=0)
    pyrnn.save(tmp_path / "x", model)
    x = np.ones((5, 2, 3))
    np.testing.assert_array_equal(pyrnn.load(tmp_path / "x")(x), model(x))


def encoder_decoder():
    return pyrnn.EncoderDecoder(9, 11, 4, 6, dropout=0.25, rng=0)


def trained_norm():
    layer = pyrnn.BatchNorm1d(3, momentum=0.5)
    layer.vjp(np.arange(12.0).reshape(4, 3))
    return layer


LAYERS = {
    "AdditiveAttention": lambda: pyrnn.AdditiveAttention(3, 4, 5, rng=0),
    "BatchNorm1d": trained_norm,
    "CRF": lambda: pyrnn.CRF(3, forbidden=[(None, 2), (0, 2)], rng=0),
    "Conv1d": lambda: pyrnn.Conv1d(4, 6, 3, 2, "causal", 1, 2, dtype="float64", rng=0),
    "ELU": lambda: pyrnn.ELU(0.5),
    "GELU": lambda: pyrnn.GELU("tanh"),
    "LeakyReLU": lambda: pyrnn.LeakyReLU(0.1),
    "MaxPool1d": lambda: pyrnn.MaxPool1d(3, 2, batch_first=True),
    "MeanOverTime": pyrnn.MeanOverTime,
    "PReLU": lambda: pyrnn.PReLU(3, 0.1),
    "ReLU": lambda: pyrnn.ReLU(dtype="float64"),
    "SiLU": pyrnn.SiLU,
    "Sigmoid": pyrnn.Sigmoid,
    "Softmax": pyrnn.Softmax,
    "Tanh": pyrnn.Tanh,
    "Decoder": lambda: pyrnn.Decoder(9, 4, 6, rng=0),
    "Dropout": lambda: pyrnn.Dropout(0.25),
    "Embedding": lambda: pyrnn.Embedding(7, 3, padding_idx=2, rng=0),
    "EncoderDecoder": encoder_decoder,
    "Graph": lambda: pyrnn.Graph(
        {"b": ["x"], "sum": ["b", "x"]}, sum=pyrnn.Merge("add"), b=pyrnn.GRU(3, 3, rng=0), rng=0
    ),
    "Jordan": lambda: pyrnn.Jordan(3, 4, 2, rng=0),
    "LastStep": lambda: pyrnn.LastStep(batch_first=True),
    "LearnedState": lambda: pyrnn.LearnedState(pyrnn.LSTM(3, 4, 2, rng=0)),
    "LayerNorm": lambda: pyrnn.LayerNorm(4, dtype="float64"),
    "Linear": lambda: pyrnn.Linear(3, 4, bias=False, rng=0),
    "LogSoftmax": pyrnn.LogSoftmax,
    "MaxOverTime": pyrnn.MaxOverTime,
    "Merge": lambda: pyrnn.Merge("average"),
    "Model": lambda: pyrnn.Model(one=pyrnn.Linear(2, 3), two=pyrnn.Model(three=pyrnn.GRU(2, 2, dtype="float64"))),
    "MultiheadAttention": lambda: pyrnn.MultiheadAttention(8, 4, num_kv_heads=2, rng=0),
    "ODERNN": lambda: pyrnn.ODERNN(3, 4, rng=0),
    "Population": lambda: pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(3, 4), pyrnn.BatchNorm1d(4)), size=2, rng=0),
    "PositionalEncoding": lambda: pyrnn.PositionalEncoding(8),
    "TransformerEncoderLayer": lambda: pyrnn.TransformerEncoderLayer(8, 4, 6, 0.0, "gelu", num_kv_heads=2, rng=0),
    "Sequential": sequential,
} | {name: lambda name=name: make_layer(name, 3, 5, 2, dtype="float64") for name in VARIANTS}


class Tagger(pyrnn.Model):
    """A class of a user's own."""

    def __init__(self, hidden):
        super().__init__()
        self.rnn = pyrnn.GRU(3, hidden, rng=0)
        self.heads = [pyrnn.Linear(hidden, 2, rng=1)]


def same_values(one, other):
    ones, others = one.state_dict(), other.state_dict()
    assert list(ones) == list(others)
    for name, value in ones.items():
        assert value.dtype == others[name].dtype
        np.testing.assert_array_equal(value, others[name])


def test_every_layer_is_listed():
    kinds = {name for name in pyrnn.__all__ if isinstance(getattr(pyrnn, name), type)}
    layers = {name for name in kinds if issubclass(getattr(pyrnn, name), Layer)}
    assert layers == {type(make()).__name__ for make in LAYERS.values()}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back(name, tmp_path):
    layer = LAYERS[name]()
    pyrnn.save(tmp_path / "x", layer)
    read = pyrnn.load(tmp_path / "x")
    assert type(read) is type(layer)
    assert read.config() == layer.config()
    assert repr(read) == repr(layer)
    same_values(layer, read)


PATTERNS = np.sign(np.random.default_rng(0).normal(size=(2, 40)))


def hopfield():
    net = pyrnn.Hopfield(40)
    net.store(PATTERNS)
    return net


@pytest.mark.parametrize(
    ("make", "recall"),
    [
        (hopfield, lambda net, probe: net.recall(probe).state),
        (lambda: pyrnn.DenseHopfield(PATTERNS), lambda net, probe: net.recall(probe).state),
        (lambda: pyrnn.ModernHopfield(PATTERNS), lambda net, probe: net.retrieve(probe)),
    ],
)
def test_a_net_comes_back(make, recall, tmp_path):
    net = make()
    pyrnn.save(tmp_path / "x", net)
    read = pyrnn.load(tmp_path / "x")
    assert type(read) is type(net)
    assert repr(read) == repr(net)
    probe = PATTERNS[0].copy()
    probe[:9] *= -1
    np.testing.assert_array_equal(recall(net, probe), recall(read, probe))


def test_a_character_model_comes_back(tmp_path):
    from pyrnn.app.charmodel import CharModel, save_model
    from pyrnn.text.corpus import Vocabulary

    model = CharModel(Vocabulary("abc"), cell="gru", embed=4, hidden=8, layers=1, dropout=0.0)
    save_model(tmp_path / "x", model, {})
    same_values(model, pyrnn.load(tmp_path / "x"))
    same_values(model, pyrnn.load(tmp_path / "x", into=CharModel(Vocabulary("abc"), **model.sizes)))


def test_the_values_of_a_class_of_ones_own(tmp_path):
    path = tmp_path / "x"
    model, other = Tagger(4), Tagger(4)
    other.rnn.params["weight_ih_l0"][:] = 7
    pyrnn.save(path, model)
    with pytest.raises(ValueError, match=r"x holds values alone \(Tagger is not pyrnn's\): .*load\(path, into=model\)"):
        pyrnn.load(path)
    assert pyrnn.load(path, into=other) is other
    same_values(model, other)
    wider = Tagger(5)
    before = wider.state_dict()
    with pytest.raises(ValueError, match=r"x: Tagger.load_state_dict: .*weight.* has shape .*, expected"):
        pyrnn.load(path, into=wider)
    for name, value in wider.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    pyrnn.save(path, pyrnn.Sequential(Tagger(4)))
    with pytest.raises(ValueError, match=r"holds values alone .*Tagger, which is not pyrnn's"):
        pyrnn.load(path)


@pytest.mark.parametrize("model", [None, 3, np.ones(3), {"weight": np.ones(3)}, pyrnn.Linear])
def test_what_is_no_model(model, tmp_path):
    with pytest.raises(TypeError, match=r"save: model is .*, expected a layer, a model or an associative net"):
        pyrnn.save(tmp_path / "x", model)
    assert not os.listdir(tmp_path)
    pyrnn.save(tmp_path / "x", pyrnn.Linear(1, 1))
    if model is not None:
        with pytest.raises(TypeError, match=r"load: into is .*, expected a layer or a model"):
            pyrnn.load(tmp_path / "x", into=model)


LINEAR = {"kind": "model", "version": 1, "type": "Linear", "config": {"in_features": 3, "out_features": 2}}
WRONG = {
    "later": ({"version": 2}, "is of version 2, and this pyrnn reads version 1"),
    "no version": ({"version": None}, "is of version None"),
    "another kind": ({"kind": "test"}, "holds no model of pyrnn, but a 'test'"),
    "no kind": ({"kind": 0}, "holds no model of pyrnn$"),
    "unknown type": ({"type": "Transformer"}, "the type of the model is 'Transformer'"),
    "a function": ({"type": "set_num_threads", "config": {"n": 1}}, "the type of the model is 'set_num_threads'"),
    "a module": ({"type": "kernels", "config": {}}, "the type of the model is 'kernels'"),
    "an attribute": ({"type": "__class__"}, "the type of the model is '__class__'"),
    "no config": ({"config": None}, "Linear"),
    "unknown argument": ({"config": {"in_features": 3, "out_features": 2, "width": 1}}, "width"),
    "wrong argument": ({"config": {"in_features": -3, "out_features": 2}}, "in_features is -3"),
    "other sizes": ({"config": {"in_features": 2, "out_features": 2}}, "has shape"),
    "too large": ({"config": {"in_features": 10**6, "out_features": 10**6}}, "numbers too few for its parameters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_says_something_wrong(case, tmp_path):
    changed, message = WRONG[case]
    arrays = {"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}
    files.save(tmp_path / "x", arrays, LINEAR | changed)
    with pytest.raises(ValueError, match=message) as caught:
        pyrnn.load(tmp_path / "x")
    assert "x" in str(caught.value)


def test_no_file_of_pyrnn(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="x: no such file"):
        pyrnn.load(path)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        pyrnn.load(tmp_path)
    path.write_bytes(b"PK not at all")
    with pytest.raises(ValueError, match="x is no safetensors file"):
        pyrnn.load(path)
    safetensors.save_file({"weight": np.ones((2, 3), np.float32)}, path)
    with pytest.raises(ValueError, match=r"x is a safetensors file, but not one of pyrnn's: pyrnn\.read_weights"):
        pyrnn.load(path)


def test_damaged_files(tmp_path):
    """Bytes changed, cut and added: an error that names the file, or, where it makes no difference, the same model."""
    path = tmp_path / "model"
    layer = pyrnn.GRU(3, 5, rng=0)
    pyrnn.save(path, layer)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(content)))
            what = rng.integers(3)
            if what == 0:
                content[place] ^= 1 << int(rng.integers(8))
            elif what == 1:
                del content[place : place + int(rng.integers(1, 9))]
            else:
                content[place:place] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        path.write_bytes(content)
        message = ""
        try:
            same_values(layer, pyrnn.load(path))
        except (OSError, ValueError) as error:
            message = str(error)
        assert not message or "model" in message


def test_a_file_does_not_ask_for_memory(tmp_path):
    """Neither one layer that is too large nor many that are not."""
    layer = {"type": "Linear", "config": {"in_features": 1000, "out_features": 1000}}
    config = {f"part{k}": layer for k in range(1000)}
    files.save(tmp_path / "x", {"a": np.zeros(2 * 10**6, np.float32)}, LINEAR | {"type": "Model", "config": config})
    told = python(
        f"""
        import resource, pyrnn, pyrnn.formats.native
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            pyrnn.load({os.fspath(tmp_path / "x")!r})
        except ValueError as error:
            print(error)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    message, kilobytes = told.strip().splitlines()
    assert "numbers too few for its parameters" in message
    assert int(kilobytes) < 80_000  # ten times the file


def test_the_same_bytes_for_the_same_model(tmp_path):
    for name in "ab":
        pyrnn.save(tmp_path / name, pyrnn.Sequential(pyrnn.RNN(2, 3), pyrnn.LastStep(), pyrnn.Linear(3, 1), rng=5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_a_file_holds_can_be_read_by_others(tmp_path):
    """torch's names in any reader of safetensors, type and arguments as JSON."""
    safetensors = pytest.importorskip("safetensors")
    layer = pyrnn.LSTM(3, 4, rng=0)
    pyrnn.save(tmp_path / "x", layer)
    with safetensors.safe_open(tmp_path / "x", framework="numpy") as file:
        assert set(file.keys()) == set(layer.params)
        described = json.loads(file.metadata()["pyrnn"])
    assert (described["type"], described["config"]) == ("LSTM", layer.config())


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        ((2, -1), "f4", ValueError, "empty: shape[1] is -1, expected 0 to "),
        ((1.5,), "f4", TypeError, "empty: shape[0] has type float, expected an integer"),
        ((1,) * 65, "f4", ValueError, "empty: shape has 65 axes, expected at most 64"),
        ((2,), "i4", TypeError, "empty: dtype is int32, expected float32 or float64"),
        ((2**40, 2**40), "f8", ValueError, "array is too big"),
        ((2**44,), "f4", MemoryError, "Unable to allocate 64"),
    ],
)
def test_arrays_of_any_numbers(shape, dtype, error, message):
    for right in ((), (0, 3), (2, 3), (300, 400)):
        array = pyrnn.kernels.empty(right, np.dtype("f8"))
        assert array.shape == right
        assert array.dtype == np.float64
        assert array.flags.carray
    with pytest.raises(error, match=re.escape(message)):
        pyrnn.kernels.empty(shape, np.dtype(dtype))
