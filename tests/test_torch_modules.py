"""from_torch and to_torch: the same values, the same results, and what has no counterpart."""

import numpy as np
import pytest
from cells import VARIANTS, make_layer

import pyrnn
from pyrnn.cells import CELLS
from pyrnn.layers.stack import LAYERS

LSTM = {"weight_ih_l0": np.ones((12, 2)), "weight_hh_l0": np.ones((12, 3))}
BIASES = {"bias_ih_l0": np.zeros(12), "bias_hh_l0": np.zeros(12)}


def test_the_accelerated_ones_are_torchs():
    torch = pytest.importorskip("torch")
    import pyrnn.torch as ours

    nn = torch.nn
    x = np.ones((5, 2, 3), "float32")
    for module in (ours.GRU(3, 4), ours.accelerate(nn.LSTM(3, 4)), nn.Sequential(ours.RNN(3, 4))):
        y = module(torch.from_numpy(x))[0].detach().numpy()
        layer = pyrnn.from_torch(module)
        np.testing.assert_allclose((layer(x) if isinstance(layer, pyrnn.Sequential) else layer(x)[0]), y, atol=1e-6)
    with pytest.raises(ValueError, match=r"from_torch: 0\.1 of the Sequential: Hardtanh has no"):
        pyrnn.from_torch(nn.Sequential(nn.Sequential(nn.Tanh(), nn.Hardtanh())))
    with pytest.raises(ValueError, match=r"LSTM: dtype is torch\.float32, .* as in dtype=\"float32\""):
        pyrnn.LSTM(3, 4, dtype=torch.float32)


def test_a_state_dict_of_arrays():
    """Without torch: the kind of a layer and its sizes follow from names and shapes."""
    layers = [
        pyrnn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, rng=0),
        pyrnn.LSTM(3, 4, bias=False, dtype="float64", rng=0),
        pyrnn.GRU(1, 1, 3, rng=0),
        pyrnn.RNN(3, 4, nonlinearity="relu", rng=0),
        pyrnn.Linear(3, 4, rng=0),
    ]
    for layer in layers:
        config = {"nonlinearity": "relu"} if isinstance(layer, pyrnn.RNN) else {}
        read = pyrnn.from_torch(layer.state_dict(), **config)
        assert type(read) is type(layer)
        assert read.config() == layer.config()
        for name, value in layer.params.items():
            np.testing.assert_array_equal(value, read.params[name])
    assert pyrnn.from_torch(LSTM, batch_first=True, dtype="float32").config()["batch_first"] is True
    cell = {name.removesuffix("_l0"): value for name, value in (LSTM | BIASES).items()}
    assert pyrnn.from_torch(cell).config() == pyrnn.from_torch(LSTM | BIASES).config()


@pytest.mark.parametrize(
    ("state_dict", "message"),
    [
        ({}, "a state dict with nothing is not of one"),
        ({"rnn.weight_ih_l0": np.ones((4, 2))}, "a state dict with rnn.weight_ih_l0 is not of one .*prefix="),
        ({"weight": np.ones((4, 2))}, "may be a Linear's or an Embedding's"),
        ({"weight": np.ones(4)}, r"a weight of shape \(4,\) alone may be a LayerNorm's, an RMSNorm's, a .* make the"),
        ({"weight": np.ones(4), "bias": np.ones(4)}, r"and a bias of shape \(4,\) may be a LayerNorm's, .* a PReLU's"),
        ({"weight": np.ones((4, 2)), "bias": np.ones((4, 2))}, r"and a bias of shape \(4, 2\) may be"),
        ({"weight": np.ones((4, 2, 3)), "bias": np.ones(4)}, r"a weight of shape \(4, 2, 3\)"),
        ({"weight_ih_l0": np.ones((4, 2)), "weight_hh_l0": np.ones((4, 4))}, "does not tell its nonlinearity"),
        ({"weight_ih_l0": np.ones((2, 12)), "weight_hh_l0": np.ones((3, 12))}, "has 2 rows for 12 hidden units"),
        ({"weight_ih_l0": np.ones((12, 2)), "weight_hh_l0": np.ones(12)}, "are not both matrices"),
        ({"weight_ih_l0": np.ones((12, 2))}, "are not both matrices"),
        (LSTM | {"bias_ih_l0": np.zeros(12)}, "missing entries.*zeros will do for bias_hh"),
        (LSTM | {"weight_ih_l1": np.ones((12, 3))}, "missing entries: .*weight_hh_l1"),
        (LSTM | {"weight_ch_l0": np.ones(9)}, "unknown entries: .*weight_ch_l0"),
    ],
)
def test_a_state_dict_that_is_of_no_layer(state_dict, message):
    with pytest.raises(ValueError, match=message):
        pyrnn.from_torch(state_dict)


@pytest.mark.parametrize("source", [None, 3, "model.pt", np.ones(3), pyrnn.Linear])
def test_what_is_no_module(source):
    with pytest.raises((TypeError, ValueError), match="from_torch: "):
        pyrnn.from_torch(source)


def test_names_and_shapes_that_are_known_traps():
    layer = pyrnn.LSTM(2, 3)
    named = {f"encoder.{name}": value for name, value in layer.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"The names begin with encoder\.: load_state_dict\(\.\.\., prefix='encoder\.'\)"
    ):
        layer.load_state_dict(named)
    layer.load_state_dict(named | {"head.weight": np.ones(3)}, prefix="encoder.")
    with pytest.raises(ValueError, match=r"has shape \(2, 12\), expected \(12, 2\): this is the transpose"):
        layer.load_state_dict(layer.state_dict() | {"weight_ih_l0": np.ones((2, 12))})
    with pytest.raises(TypeError, match="prefix is 3, expected a string"):
        layer.load_state_dict(named, prefix=3)
    with pytest.raises(ValueError, match=r"prefix is 'rnn\.', and no name begins so: they begin with encoder\.$"):
        layer.load_state_dict(named, prefix="rnn.")
    with pytest.raises(ValueError, match=r"names begin with encoder\.: load_state_dict\(\.\.\., prefix='encoder\.'"):
        layer.load_state_dict(named, prefix="encoder")


def same_as(module, layer, *inputs):
    """The results of a module of torch's."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        expected = module(*(torch.from_numpy(x) for x in inputs))
    found = layer(*inputs)
    expected, found = (list(flat(result)) for result in (expected, found))
    for one, other in zip(expected, found, strict=True):
        one = np.asarray(one)
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 if one.dtype == np.float64 else 1e-6)


def flat(result):
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from flat(part)
    else:
        yield result


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recurrent_modules(dtype):
    torch = pytest.importorskip("torch")
    for kind, option in [
        ("RNN", {"nonlinearity": "relu"}),
        ("RNN", {"bidirectional": True}),
        ("LSTM", {"num_layers": 2, "proj_size": 2, "batch_first": True}),
        ("LSTM", {"bias": False}),
        ("GRU", {"num_layers": 2, "bidirectional": True}),
    ]:
        module = getattr(torch.nn, kind)(3, 5, **option, dtype=getattr(torch, dtype))
        layer = pyrnn.from_torch(module)
        assert layer.dtype == dtype
        same_as(module, layer, np.random.default_rng(0).standard_normal((4, 2, 3)).astype(dtype))
        for name, value in pyrnn.from_torch(pyrnn.to_torch(layer)).state_dict().items():
            np.testing.assert_array_equal(value, layer.params[name])
    for kind in ("RNNCell", "LSTMCell", "GRUCell"):
        module = getattr(torch.nn, kind)(3, 5, dtype=getattr(torch, dtype))
        x = np.random.default_rng(0).standard_normal((2, 3)).astype(dtype)
        with torch.no_grad():
            h = module(torch.from_numpy(x))
        y, _ = pyrnn.from_torch(module)(x[None])
        np.testing.assert_allclose(y[0], np.asarray(h[0] if kind == "LSTMCell" else h), rtol=0, atol=1e-6)


def test_other_modules():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, ids = rng.standard_normal((4, 2, 6)).astype(np.float32), rng.integers(0, 5, (4, 2))
    nn = torch.nn
    chain = nn.Sequential(
        nn.Embedding(5, 6, padding_idx=0), nn.Dropout(0.5), nn.LayerNorm(6), nn.Linear(6, 3, bias=False)
    )
    same_as(chain.eval(), pyrnn.from_torch(chain), ids)
    assert list(pyrnn.from_torch(chain).params) == list(chain.state_dict())
    same_as(chain, pyrnn.from_torch(pyrnn.to_torch(pyrnn.from_torch(chain))), ids)
    for option in ({}, {"bias": False}, {"kdim": 6, "vdim": 6, "batch_first": True}):
        module = nn.MultiheadAttention(6, 2, **option)
        layer = pyrnn.from_torch(module)
        with torch.no_grad():
            expected = module(*(torch.from_numpy(x),) * 3, need_weights=False)[0].numpy()
        np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-6)
        assert pyrnn.from_torch(pyrnn.to_torch(layer)).config() == layer.config()
    for option in ({}, {"activation": "gelu", "norm_first": True, "batch_first": True, "dropout": 0.5}):
        module = nn.TransformerEncoderLayer(6, 2, 5, **option).eval()
        layer = pyrnn.from_torch(nn.Sequential(module))
        same_as(module, layer[0], x)
        same_as(pyrnn.to_torch(layer).eval(), layer, x)
        assert pyrnn.from_torch(pyrnn.to_torch(layer)).config() == layer.config()
    half = pyrnn.from_torch(nn.Linear(3, 2).bfloat16())
    assert half.dtype == np.float32
    named = nn.Sequential()
    named.add_module("body", nn.Linear(3, 2))
    assert list(pyrnn.from_torch(named).params) == ["body.weight", "body.bias"]


def convolutions(torch):
    nn = torch.nn
    inner = nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, dilation=2, padding="same", groups=4), nn.PReLU(8))
    chain = nn.Sequential(
        nn.Conv1d(5, 8, 3, 2, 1), nn.BatchNorm1d(8, 1e-3, 0.2), nn.ReLU(), inner, nn.Dropout(0.5), nn.LeakyReLU(0.2),
        nn.ELU(0.5), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.LogSoftmax(-2), nn.Softmax(1),
    )  # fmt: skip
    chain(torch.randn(4, 5, 20))  # statistics
    return chain.eval()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convolutions_and_what_is_around_them(dtype):
    torch = pytest.importorskip("torch")
    chain = convolutions(torch).to(getattr(torch, dtype))
    model = pyrnn.from_torch(chain, batch_first=True)
    x = np.random.default_rng(0).standard_normal((3, 29, 5)).astype(dtype)
    with torch.no_grad():
        expected = chain(torch.from_numpy(x.transpose(0, 2, 1).copy())).numpy().transpose(0, 2, 1)
    y = model(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13 if dtype == "float64" else 1e-6)
    assert model.config()["0"]["config"]["batch_first"] is True
    names = [name for name in chain.state_dict() if "num_batches" not in name]
    assert list(model.state_dict()) == names
    again = pyrnn.from_torch(pyrnn.to_torch(model), batch_first=True)
    np.testing.assert_array_equal(again(x), y)
    assert again.config() == model.config()
    pool = torch.nn.MaxPool1d(3, 2, ceil_mode=True)
    ours = pyrnn.from_torch(pyrnn.to_torch(pyrnn.from_torch(pool)), dtype=dtype)
    for steps in range(2, 9):
        with torch.no_grad():
            expected = pool(torch.from_numpy(x[0, :steps].T.copy())).numpy().T
        np.testing.assert_array_equal(ours(x[0, :steps]), expected)
    alone = pyrnn.from_torch(torch.nn.Conv1d(2, 3, 4, padding="valid"))
    assert alone.config() | {"padding": 0} == alone.config()


def test_layers_that_would_act_on_another_axis():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    turned = "acts on the last axis, where torch has time behind the layer before it, and not features"
    for module, message in [
        (nn.Sequential(nn.Conv1d(3, 3, 1), nn.ReLU(), nn.Linear(3, 3)), f"2 of the Sequential: .*Linear: it {turned}"),
        (nn.Sequential(nn.Conv1d(3, 3, 1), nn.LSTM(3, 3)), f"1 of the Sequential: .*LSTM: it {turned}"),
        (nn.Sequential(nn.MaxPool1d(2), nn.Sequential(nn.Tanh(), nn.LayerNorm(3))), f"LayerNorm: it {turned}"),
        (nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1)), "Conv1d: it acts on the last axis, where torch has feat"),
        (nn.Sequential(nn.Embedding(3, 3), nn.MaxPool1d(3)), "MaxPool1d: it acts on the last axis"),
        (nn.Sequential(nn.Conv1d(3, 3, 1), nn.Softmax(-1)), "Softmax: it has dim=-1, where time"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), "Softmax: it has dim=1, where features"),
        (nn.LogSoftmax(0), "LogSoftmax: it has dim=0"),
        (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "Conv1d: it has padding_mode='circular'"),
        (nn.BatchNorm1d(3, affine=False), "BatchNorm1d: it has affine=False"),
        (nn.BatchNorm1d(3, momentum=None), "BatchNorm1d: it has momentum=None"),
        (nn.BatchNorm1d(3, track_running_stats=False), "BatchNorm1d: it has track_running_stats=False"),
        (nn.MaxPool1d(3, padding=1), "MaxPool1d: it has padding=1"),
        (nn.MaxPool1d(3, dilation=2), "MaxPool1d: it has dilation=2"),
        (nn.MaxPool1d(3, return_indices=True), "MaxPool1d: it has return_indices=True"),
    ]:
        with pytest.raises(ValueError, match=f"from_torch: .*{message}"):
            pyrnn.from_torch(module)
    for layer, message in [
        (pyrnn.Sequential(pyrnn.Conv1d(3, 3, 1), pyrnn.Linear(3, 3)), f"Linear: it {turned}"),
        (pyrnn.Conv1d(3, 3, 1, padding="causal"), "torch's Conv1d has no padding='causal'"),
        (pyrnn.MeanOverTime(), "torch has no MeanOverTime"),
    ]:
        with pytest.raises(ValueError, match=f"to_torch: {message}"):
            pyrnn.to_torch(layer)
    pyrnn.from_torch(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(-1)))


def test_modules_that_run_twice():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    act, linear, table, tied = nn.ReLU(), nn.Linear(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4)
    tied.weight = table.weight
    inner = nn.Sequential(act, nn.Tanh())
    module = nn.Sequential(nn.Linear(4, 5), act, inner, nn.Linear(5, 3), act, inner)
    layer = pyrnn.from_torch(module)
    assert len(layer) == 6
    same_as(module, layer, np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32))
    for module, message in [
        (nn.Sequential(linear, act, linear), r"2 of the Sequential is 0 again \(Linear\)"),
        (nn.Sequential(linear, nn.Sequential(act, linear)), "1.1 of the Sequential is 0 again"),
        (nn.Sequential(nn.Sequential(linear), nn.Sequential(linear)), "1.0 of the Sequential is 0.0 again"),
        (nn.Sequential(table, nn.Sequential(act, tied)), "1.1.weight of the Sequential is 0.weight again"),
    ]:
        with pytest.raises(ValueError, match=f"from_torch: {message}"):
            pyrnn.from_torch(module)


def test_arguments_that_no_layer_takes():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for module in (nn.Sequential(nn.Conv1d(2, 3, 3)), nn.Sequential(nn.Sequential(nn.Linear(2, 3)), nn.ReLU())):
        with pytest.raises(TypeError, match="from_torch: no layer of the Sequential takes batch_frist=True"):
            pyrnn.from_torch(module, batch_frist=True)
    inner = pyrnn.from_torch(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.GRU(3, 4))), batch_first=True)
    assert inner[1][0].batch_first is True
    pyrnn.from_torch(nn.Sequential(nn.ReLU()), dtype="float64")


def test_modules_without_a_counterpart():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    own = type("Tagger", (nn.Module,), {})()
    own.emb, own.gru = nn.Embedding(2, 3), nn.GRU(3, 4)
    with pytest.raises(ValueError, match=r"Tagger has no .* of its parts, pyrnn\.Sequential\(emb=\.\.\., gru"):
        pyrnn.from_torch(own)
    parts = pyrnn.Sequential(emb=pyrnn.Embedding(2, 3), gru=pyrnn.GRU(3, 4))
    parts.load_state_dict({name: tensor.numpy() for name, tensor in own.state_dict().items()})
    for module, message in [
        (nn.Conv2d(1, 1, 1), "Conv2d has no counterpart here; there is one for RNN, LSTM"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Softshrink()),
            "1 of the Sequential: Softshrink has no counterpart",
        ),
        (nn.LayerNorm((2, 3)), r"LayerNorm: it normalises over the axes \(2, 3\)"),
        (nn.LayerNorm(2, elementwise_affine=False), "elementwise_affine=False"),
        (nn.Embedding(2, 3, max_norm=1.0), "max_norm=1.0"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "dropout=0.1"),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), "add_zero_attn=True"),
        (nn.TransformerEncoderLayer(4, 2, layer_norm_eps=1e-3), "TransformerEncoderLayer: it has eps=0.001"),
        (nn.TransformerEncoderLayer(4, 2, bias=False), "TransformerEncoderLayer: it has bias=False"),
        (nn.TransformerEncoderLayer(4, 2, activation=torch.tanh), "TransformerEncoderLayer: it has activation=tanh"),
        (type("LSTM", (nn.LSTM,), {})(2, 3), "LSTM has no counterpart"),  # a class of a user's own
    ]:
        with pytest.raises(ValueError, match=f"from_torch: .*{message}"):
            pyrnn.from_torch(module)


def test_layers_that_torch_does_not_have():
    torch = pytest.importorskip("torch")
    for name in VARIANTS:
        layer = make_layer(name, 3, 4, 2)
        try:
            module = pyrnn.to_torch(layer)
        except ValueError as error:
            message = str(error)
            assert message.startswith("to_torch: torch")
        else:
            assert isinstance(module, torch.nn.Module)
            same_as(module, layer, np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32))
    for layer, message in [
        (pyrnn.LSTM(2, 3, peephole=True), "torch's LSTM has no peephole=True"),
        (pyrnn.GRU(2, 3, reset_after=False), "torch's GRU has no reset_after=False"),
        (pyrnn.RNN(2, 3, nonlinearity="sigmoid"), "torch's RNN has no nonlinearity='sigmoid'"),
        *((LAYERS[op](2, 3), f"torch has no {LAYERS[op].__name__}") for op in CELLS if "torch" not in CELLS[op].orders),
        (pyrnn.Sequential(pyrnn.GRU(2, 3), pyrnn.LastStep()), "torch has no LastStep"),
        (pyrnn.MultiheadAttention(4, 2, num_kv_heads=1), "torch's MultiheadAttention has no num_kv_heads=1"),
        (
            pyrnn.TransformerEncoderLayer(4, 2, num_kv_heads=1),
            "torch's TransformerEncoderLayer has no num_kv_heads=1",
        ),
        (
            pyrnn.TransformerEncoderLayer(4, 2, is_causal=True),
            "torch's TransformerEncoderLayer has no is_causal=True",
        ),
        (pyrnn.Dropout(0.5, per_sequence=True), "torch's Dropout has no per_sequence=True"),
    ]:
        with pytest.raises(ValueError, match=f"to_torch: {message}"):
            pyrnn.to_torch(layer)
    with pytest.raises(TypeError, match="to_torch: layer is 3, expected a layer"):
        pyrnn.to_torch(3)
