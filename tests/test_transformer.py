"""TransformerEncoderLayer: torch's values and gradients, padding, streams."""

import copy

import numpy as np
import pytest
from cells import DTYPES, assert_same_bits, python

import pyrnn

KINDS = [(activation, norm_first) for activation in ("relu", "gelu") for norm_first in (False, True)]


def make(activation="relu", norm_first=False, dropout=0.0, dtype="float64", **options):
    layer = pyrnn.TransformerEncoderLayer(12, 3, 20, dropout, activation, norm_first, dtype=dtype, rng=0, **options)
    rng = np.random.default_rng(1)
    for array in layer.params.values():  # biases and norms are not what they begin as
        if array.ndim == 1:
            array += rng.uniform(-0.3, 0.3, array.shape).astype(dtype)
    return layer


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("activation", "norm_first"), KINDS)
def test_values_of_torch(activation, norm_first, batch_first, rng):
    torch = pytest.importorskip("torch")
    layer = make(activation, norm_first, batch_first=batch_first)
    theirs = torch.nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, activation, batch_first=batch_first, norm_first=norm_first, dtype=torch.float64
    )
    assert list(theirs.state_dict()) == list(layer.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    lengths, steps = np.array([7, 3, 5]), np.arange(7)
    valid = steps[:, None] < lengths
    valid = (valid.T if batch_first else valid)[:, :, None]
    x, dy = rng.standard_normal((2, 3, 7, 12) if batch_first else (2, 7, 3, 12))
    given = torch.from_numpy(x).requires_grad_()
    hidden = torch.from_numpy(steps[:, None] < steps)  # True: not to be seen
    y = theirs(given, src_mask=hidden, src_key_padding_mask=torch.from_numpy(steps >= lengths[:, None]))
    (y * torch.from_numpy(dy * valid)).sum().backward()
    for arguments in ({"is_causal": True}, {"attn_mask": ~hidden.numpy()}):
        layer.zero_grad()
        found, pullback = layer.vjp(np.where(valid, x, np.nan), lengths, **arguments)
        np.testing.assert_allclose(found, np.where(valid, y.detach(), 0), atol=1e-13)
        np.testing.assert_allclose(pullback(np.where(valid, dy, np.nan)), given.grad, atol=1e-13)
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(layer.grads[name], parameter.grad, atol=1e-12, err_msg=name)


def test_defaults_of_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = pyrnn.TransformerEncoderLayer(8, 2, rng=0), torch.nn.TransformerEncoderLayer(8, 2)
    state = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == state
    assert (ours.dim_feedforward, ours.dropout, ours.norm_first) == (2048, theirs.dropout.p, theirs.norm_first)
    for name, value in theirs.state_dict().items():
        size, own = np.abs(value.numpy()).max(), np.abs(ours.params[name]).max()
        assert own == pytest.approx(size, rel=0.3), name
        assert (own == 0) == (size == 0)


@pytest.mark.parametrize(("activation", "norm_first"), KINDS)
def test_gradients_by_finite_differences(activation, norm_first, rng):
    """With heads that share keys."""
    layer = pyrnn.TransformerEncoderLayer(8, 4, 6, 0.0, activation, norm_first, num_kv_heads=2, dtype="float64", rng=0)
    x, dy, lengths = rng.standard_normal((5, 2, 8)), rng.standard_normal((5, 2, 8)), [5, 3]
    _, pullback = layer.vjp(x, lengths, is_causal=True)
    found = {"x": pullback(dy), **layer.grads}

    def loss():
        return (layer(x, lengths, is_causal=True) * dy).sum()

    for name, array in {"x": x, **layer.params}.items():
        along = rng.standard_normal(array.shape)
        ends = []
        for step in (1e-6, -1e-6):
            kept = array.copy()
            array += step * along
            ends.append(loss())
            array[:] = kept
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx((found[name] * along).sum(), rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("activation", "norm_first"), KINDS)
def test_the_same_bits(activation, norm_first, dtype, rng):
    """A call and vjp; a row alone and among others; whole, streamed and in chunks; on any number of threads."""
    layer = make(activation, norm_first, dtype=dtype)
    x, dy = rng.standard_normal((2, 11, 5, 12)).astype(dtype)
    lengths = np.array([11, 4, 0, 7, 1])
    y, pullback = layer.vjp(x, lengths, is_causal=True)
    dx = pullback(dy)
    assert_same_bits([layer(x, lengths, is_causal=True)], [y])
    for n, end in enumerate(lengths):
        assert not y[end:, n].any()
        assert not dx[end:, n].any()
        alone, pullback = layer.vjp(x[:end, n : n + 1], is_causal=True)
        assert_same_bits([alone[:, 0], pullback(dy[:end, n : n + 1])[:, 0]], [y[:end, n], dx[:end, n]])
        if end:
            assert_same_bits([layer(x[:end, n], is_causal=True)], [y[:end, n]])
    with pyrnn.threads(1):
        again, pullback = layer.vjp(x, lengths, is_causal=True)
        assert_same_bits([again, pullback(dy)], [y, dx])
    whole = layer(x, is_causal=True)
    stream = layer.stream(5)
    for array in layer.params.values():
        array[:] = 0  # the stream has its own
    assert_same_bits([np.stack([stream.step(x_t) for x_t in x])], [whole])
    assert stream.length == 11
    stream.reset()
    stream(x[:4])
    other = copy.copy(stream)
    other(-x[4:6])
    assert (other.length, stream.length) == (6, 4)
    assert_same_bits([stream(x[4:])], [whole[4:]])
    stream.reset()
    stream(np.concatenate([x[:4], -x[4:6]]))
    assert_same_bits([other(x[:3])], [stream(x[:3])])
    stream.reset()
    assert_same_bits([stream(x[:4]), stream(x[4:5]), stream(x[5:])], [whole[:4], whole[4:5], whole[5:]])


def test_streams_of_one_row_and_by_rows(rng):
    x = rng.standard_normal((6, 12))
    layer = make(batch_first=True)
    whole = layer(x, is_causal=True)
    stream = layer.stream()
    assert_same_bits([np.stack([stream.step(x_t) for x_t in x])], [whole])
    stream.reset()
    assert_same_bits([stream(x)], [whole])
    rows = layer.stream(2)
    assert_same_bits([rows(np.stack([x, x]))[1]], [whole])
    assert repr(rows) == "TransformerEncoderLayer(12, 3).stream(batch=2)"
    with pytest.raises(ValueError, match=r"x has shape \(3, 12\), expected \(2, 12\)"):
        rows.step(x[:3])
    with pytest.raises(ValueError, match="x has shape"):
        rows.step(x[:2, :5])
    with pytest.raises(ValueError, match=r"^TransformerEncoderLayer\.stream: batch is 0"):
        layer.stream(0)


def test_dropout():
    """In vjp alone: of the attention's result, of the activations, of the network's result."""
    layer = make(dropout=0.4)
    x = np.random.default_rng(0).standard_normal((40, 3, 12))
    assert_same_bits([layer(x)], [make()(x)])
    first, pullback = layer.vjp(x)
    assert not np.array_equal(first, layer.vjp(x)[0])
    dx = pullback(np.ones_like(first))
    assert np.isfinite(dx).all()
    again = copy.deepcopy(layer)
    assert_same_bits([layer.vjp(x)[0]], [again.vjp(x)[0]])
    gone = pyrnn.TransformerEncoderLayer(12, 3, 20, 1.0, norm_first=True, dtype="float64", rng=0)
    y, pullback = gone.vjp(x)
    assert_same_bits([y, pullback(x)], [x, x])


def test_edges():
    layer = make()
    for shape in ((0, 3, 12), (4, 0, 12), (0, 12)):
        y, pullback = layer.vjp(np.zeros(shape))
        assert y.shape == pullback(y).shape == shape
    y = layer(np.full((4, 2, 12), np.nan), [0, 0])
    assert not y.any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"embed_dim": 0}, ValueError, "embed_dim is 0, expected at least 1"),
        ({"num_heads": 3}, ValueError, "embed_dim is 8, expected a multiple of num_heads 3"),
        ({"dim_feedforward": 0}, ValueError, "dim_feedforward is 0"),
        ({"dropout": 2}, ValueError, "dropout is 2, expected 0 to 1"),
        ({"activation": "tanh"}, ValueError, "activation is 'tanh', expected one of relu, gelu"),
        ({"norm_first": 1}, TypeError, "norm_first is 1, expected True or False"),
        ({"num_kv_heads": 3}, ValueError, "num_kv_heads is 3, expected a divisor of 2"),
    ],
)
def test_arguments_that_make_no_layer(arguments, error, message):
    with pytest.raises(error, match=message):
        pyrnn.TransformerEncoderLayer(**{"embed_dim": 8, "num_heads": 2, **arguments})


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": np.zeros((4, 2, 11))}, ValueError, r"TransformerEncoderLayer: x has shape \(4, 2, 11\), expected"),
        ({"x": np.zeros((4, 2, 12), complex)}, TypeError, "TransformerEncoderLayer: x has dtype complex128"),
        ({"lengths": [5, 1]}, ValueError, "TransformerEncoderLayer: lengths holds 5, expected 0 to 4"),
        ({"lengths": [1.0, 2.0]}, TypeError, "TransformerEncoderLayer: lengths has dtype float64"),
        ({"attn_mask": np.ones((4, 4), int)}, TypeError, "attn_mask has dtype int64"),
        ({"attn_mask": np.ones((3, 4), bool)}, ValueError, r"attn_mask has shape \(3, 4\)"),
        ({"is_causal": 1}, TypeError, "is_causal is 1, expected True or False"),
    ],
)
def test_wrong_arguments(changed, error, message):
    layer = make()
    with pytest.raises(error, match=message):
        layer(**{"x": np.zeros((4, 2, 12)), **changed})
    with pytest.raises(error):
        layer.vjp(**{"x": np.zeros((4, 2, 12)), **changed})


def test_it_comes_at_first_use():
    assert python("import sys, pyrnn; print('pyrnn.layers.transformer' in sys.modules)").strip() == "False"
