"""What layers say of themselves: the arguments that make their like, and what is printed."""

import inspect
import json

import numpy as np
import pytest

import pyrnn
from pyrnn.core.layer import Layer
from pyrnn.layers.stack import LAYERS as CELL_LAYERS

LAYERS = [
    pyrnn.RNN(3, 4, nonlinearity="relu"),
    pyrnn.LSTM(3, 4, 2, proj_size=2, peephole=True, dropout=0.5, dtype="float64"),
    pyrnn.GRU(3, 4, 2, bias=False, batch_first=True, bidirectional=True, reset_after=False),
    *(kind(3, 4, 2) for kind in CELL_LAYERS.values() if kind not in (pyrnn.RNN, pyrnn.LSTM, pyrnn.GRU)),
    pyrnn.ODERNN(3, 4, ode_size=5),
    pyrnn.Jordan(3, 4, 2),
    pyrnn.Linear(3, 4, bias=False),
    pyrnn.Embedding(9, 3, padding_idx=1),
    pyrnn.LayerNorm(4, eps=0.1),
    pyrnn.Dropout(0.5, per_sequence=True),
    pyrnn.LogSoftmax(),
    pyrnn.MaxOverTime(batch_first=True),
    pyrnn.MeanOverTime(dtype="float64"),
    pyrnn.MaxPool1d(3, 2),
    pyrnn.Conv1d(4, 6, 3, padding="same", groups=2, bias=False),
    pyrnn.BatchNorm1d(4, 1e-3, batch_first=True),
    pyrnn.TransformerEncoderLayer(8, 4, 6, norm_first=True, num_kv_heads=2, dtype="float64"),
    pyrnn.CRF(3, batch_first=True, forbidden=[(None, 2), (0, 2)]),
    *(kind() for kind in (pyrnn.ReLU, pyrnn.SiLU, pyrnn.Tanh, pyrnn.Sigmoid, pyrnn.Softmax)),
    *(pyrnn.LeakyReLU(0.2), pyrnn.PReLU(3), pyrnn.ELU(2.0), pyrnn.GELU("tanh")),
    pyrnn.LastStep(),
    pyrnn.PositionalEncoding(8),
    pyrnn.AdditiveAttention(3, 4, 5),
    pyrnn.MultiheadAttention(8, 4, num_kv_heads=2, kdim=3),
    pyrnn.Decoder(9, 3, 4, cell="lstm", vector_size=2, memory_size=5, dropout=0.1),
    pyrnn.EncoderDecoder(9, 8, 3, 4, cell="rnn", attention=False),
    pyrnn.Graph({"a": ["x"], "b": ["a", "x"]}, b=pyrnn.Merge("add"), a=pyrnn.Linear(2, 2)),
    pyrnn.Merge("concatenate", dtype="float64"),
    pyrnn.LearnedState(pyrnn.GRU(3, 4, 2, bidirectional=True)),
    pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(3, 4, batch_first=True), pyrnn.Linear(4, 2)), 3),
    pyrnn.Sequential(pyrnn.GRU(3, 4), last=pyrnn.LastStep(), head=pyrnn.Linear(4, 2)),
    pyrnn.Model(a=pyrnn.Linear(2, 2), b=pyrnn.Sequential(pyrnn.Linear(2, 2), pyrnn.Dropout(0.1))),
]


def test_every_layer_is_here():
    public = {getattr(pyrnn, name) for name in pyrnn.__all__ if inspect.isclass(getattr(pyrnn, name))}
    assert {kind for kind in public if issubclass(kind, Layer)} == {type(layer) for layer in LAYERS}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_config_makes_the_like(layer):
    config = json.loads(json.dumps(layer.config()))
    like = type(layer)(**config, **({"rng": 1} if "rng" in inspect.signature(type(layer)).parameters else {}))
    assert like.config() == layer.config()
    assert repr(like) == repr(layer)
    assert like.num_parameters == layer.num_parameters
    like.load_state_dict(layer.state_dict())  # names and shapes are the same
    assert {a.dtype for a in like.params.values()} == {a.dtype for a in layer.params.values()}


def test_what_is_printed():
    assert repr(pyrnn.LSTM(3, 4)) == "LSTM(3, 4)  # 144 parameters"
    assert repr(pyrnn.GRU(8, 16, 2, dtype="float64")) == "GRU(8, 16, num_layers=2, dtype='float64')  # 2,880 parameters"
    assert repr(pyrnn.Dropout(0.5)) == "Dropout(0.5)"
    tied = pyrnn.Embedding(5, 4)

    class Net(pyrnn.Model):
        def __init__(self):
            super().__init__()
            self.embed = tied
            self.heads = [pyrnn.Linear(4, 5, weight=tied), pyrnn.Linear(4, 2)]

    assert repr(Net()) == (
        "Net(\n  (embed): Embedding(5, 4)  # 20 parameters\n  (heads.0): Linear(4, 5)  # 25 parameters\n"
        "  (heads.1): Linear(4, 2)  # 10 parameters\n)  # 35 parameters"
    )
    assert repr(pyrnn.GRU(3, 4).stream(2)) == "GRU(3, 4).stream(batch=2)"
    assert repr(pyrnn.MultiheadAttention(8, 2).stream(3)) == (
        "MultiheadAttention(8, 2, kdim=8, vdim=8, num_kv_heads=2).stream(batch=3)"
    )


def test_what_cannot_be_said():
    with pytest.raises(TypeError, match=r"Linear.config: its weight is the table of an Embedding"):
        pyrnn.Linear(4, 5, weight=pyrnn.Embedding(5, 4)).config()

    class Net(pyrnn.Model):
        def __init__(self, width):
            super().__init__()
            self.head = pyrnn.Linear(width, 2)

    with pytest.raises(TypeError, match=r"Net.config: its argument width is not among its attributes"):
        Net(3).config()
    with pytest.raises(TypeError, match=r"Sequential.config: 0 is Net, which is not pyrnn's"):
        pyrnn.Sequential(Net(3)).config()

    class Kept(Net):
        def __init__(self, width):
            super().__init__(width)
            self.width = width

    assert Kept(3).config() == {"width": 3}
    net = Kept(np.ones(2).size)
    net.width = np.ones(2)
    with pytest.raises(TypeError, match=r"Kept.config: width is .*, which JSON cannot hold"):
        net.config()


@pytest.mark.parametrize(
    ("form", "match"),
    [
        ({"type": "Gru", "config": {}}, "the type of a is 'Gru', expected the name of a layer of pyrnn"),
        ({"type": "text", "config": {}}, "the type of a is 'text'"),
        ({"type": "Hopfield", "config": {"n_units": 3}}, "a is Hopfield, expected a layer or a model"),
        ({"type": "Linear"}, "a is dict, expected a layer or a model"),
    ],
)
def test_forms_that_are_none(form, match):
    with pytest.raises((TypeError, ValueError), match=match):
        pyrnn.Sequential(a=form)


def test_an_argument_that_is_not_kept_is_left_out():
    class Square(pyrnn.LSTM):
        def __init__(self, size, **rest):
            super().__init__(size, size, **rest)

    assert repr(Square(2)) == "Square()  # 48 parameters"
