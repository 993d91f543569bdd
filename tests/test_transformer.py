"""TransformerEncoderLayer: torch's values and gradients, padding, streams."""

import copy
import pickle

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
    ours, theirs = pyrnn.TransformerEncoderLayer(64, 2, rng=0), torch.nn.TransformerEncoderLayer(64, 2)
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
    assert repr(rows).startswith("TransformerEncoderLayer(12, 3, dim_feedforward=20, ")
    assert repr(rows).endswith(").stream(batch=2)")
    with pytest.raises(ValueError, match=r"x has shape \(3, 12\), expected \(2, 12\)"):
        rows.step(x[:3])
    with pytest.raises(ValueError, match="x has shape"):
        rows.step(x[:2, :5])
    with pytest.raises(ValueError, match=r"^TransformerEncoderLayer\.stream: batch is 0"):
        layer.stream(0)


def language_model(batch_first=False, **options):
    of = {"batch_first": batch_first}
    return pyrnn.Sequential(
        pyrnn.Embedding(7, 8), pyrnn.PositionalEncoding(8, **of),
        pyrnn.TransformerEncoderLayer(8, 2, 12, is_causal=True, norm_first=True, **of, **options),
        pyrnn.TransformerEncoderLayer(8, 4, 9, activation="gelu", num_kv_heads=2, is_causal=True, **of),
        pyrnn.Linear(8, 7), rng=0,
    )  # fmt: skip


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stream_of_a_model(batch_first, rng):
    """The bits of the whole sequence; rows can be taken, states kept, all copied."""
    model = language_model(batch_first)
    ids = rng.integers(0, 7, (3, 9) if batch_first else (9, 3))
    y = model(ids)
    y, by_steps = (y.swapaxes(0, 1), ids.T) if batch_first else (y, ids)
    stream = model.stream(3)
    assert_same_bits([np.stack([stream.step(now) for now in by_steps[:4]])], [y[:4]])
    other, before = copy.copy(stream), stream.state
    rest = stream(ids[:, 4:] if batch_first else ids[4:])
    assert_same_bits([rest.swapaxes(0, 1) if batch_first else rest], [y[4:]])
    other.take([2, 0, 2, 1])
    assert_same_bits([other.step(by_steps[4, [2, 0, 2, 1]])], [y[4, [2, 0, 2, 1]]])
    stream.state = before
    assert_same_bits([stream.step(by_steps[4])], [y[4]])
    again = model.stream(3)
    again.state = before
    assert_same_bits([again.step(by_steps[4])], [y[4]])
    stream.reset([0, 1, 2])
    assert_same_bits([stream.step(by_steps[0])], [y[0]])
    kept = stream.state
    for call in (
        lambda: stream.reset([0, 2]),
        lambda: stream.take([3]),
        lambda: stream(by_steps[:, :2]),
        lambda: setattr(stream, "state", (3, before[1], kept[2][:2])),
        lambda: setattr(stream, "state", (3, before[1], (*before[2][:2], 3))),
        lambda: setattr(stream, "state", (-1, *before[1:])),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert_same_bits([stream.step(by_steps[1])], [y[1]])


def test_searching_with_a_model(rng):
    """A beam over the stream of a model finds what one over the whole sequences does."""
    model = language_model()

    def step(ids, now):
        ids = now[None] if ids is None else np.concatenate([ids, now[None]])
        return model(ids)[-1], ids

    expected = pyrnn.decoding.beam_search(step, None, [1, 2], None, 5, width=3)
    found = pyrnn.decoding.beam_search(model.stream(2), None, [1, 2], None, 5, width=3)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_causal_layer(rng):
    """Made so, every call is causal; else a Sequential, whose calls are not, has no stream."""
    x = rng.standard_normal((6, 2, 12))
    causal, free = make(is_causal=True), make()
    y, pullback = causal.vjp(x, [6, 4])
    expected, other = free.vjp(x, [6, 4], is_causal=True)
    assert_same_bits([y, pullback(x), causal(x, [6, 4])], [expected, other(x), expected])
    assert_same_bits([pyrnn.Sequential(causal)(x)], [pyrnn.Sequential(causal).stream(2)(x)])
    with pytest.raises(ValueError, match=r"^Sequential\.stream: 0 \(TransformerEncoderLayer\) sees later steps"):
        pyrnn.Sequential(free).stream()


def test_rows_and_states_of_a_stream(rng):
    x = rng.standard_normal((6, 3, 12))
    for layer in (make(num_kv_heads=1), pyrnn.MultiheadAttention(12, 3, dtype="float64", rng=0)):
        name = type(layer).__name__
        whole = layer(x, is_causal=True)
        stream = layer.stream(3)
        stream(x[:4])
        keys, values, length = stream.state
        assert (keys.shape, values.shape, length) == ((3, layer.num_kv_heads, 4, 4),) * 2 + (4,)
        keys[:] = np.nan  # a copy
        other = pickle.loads(pickle.dumps(stream))
        assert_same_bits([other(x[4:])], [whole[4:]])
        stream.take(np.array([True, False, True]))
        assert_same_bits([stream(x[4:, [0, 2]])], [whole[4:, [0, 2]]])
        stream.take(1)
        assert repr(stream).endswith(".stream(batch=1)")
        stream.reset(0)
        assert_same_bits([stream.step(x[0, 2])], [whole[0, 2]])
        for call, error, message in [
            (lambda s: s.take([]), ValueError, "rows is empty, expected at least one"),
            (lambda s: s.take([1]), ValueError, "rows holds 1, expected 0 to 0"),
            (lambda s: s.step(np.zeros(5)), ValueError, r"x has shape \(5,\), expected \(1, 12\)"),
            (lambda s: s(np.zeros((2, 3, 12))), ValueError, r"x has shape \(2, 3, 12\), expected \(S, 1, 12\)"),
            (lambda s: setattr(s, "state", None), TypeError, "state is None, expected keys, values and their number"),
            (
                lambda s: setattr(s, "state", (np.zeros((3, 1, 4, 4)),) * 2 + (4,)),
                ValueError,
                r"keys of state has shape \(3, ",
            ),
        ]:
            with pytest.raises(error, match=rf"^{name}\.stream: {message}"):
                call(stream)
        with pytest.raises(ValueError, match="rows are some of the 3, expected all: they share their steps"):
            other.reset([0, 2, 2])


def test_a_state_within_a_window(rng):
    """Without the keys that no later step sees."""
    layer = pyrnn.MultiheadAttention(2, 1, rng=0)
    x = rng.standard_normal((2100, 1, 2)).astype("f4")
    stream = layer.stream(window=(3, 0))
    y = stream(x)
    assert stream.state[0].shape == (1, 1, 2100 - 2048, 2)
    stream.reset()
    stream(x[:2080])
    other = layer.stream(window=(3, 0))
    other.state = stream.state
    assert_same_bits([other(x[2080:])], [y[2080:]])
    with pytest.raises(ValueError, match="keys of state has shape"):
        other.state = (*stream.state[:2], 2000)


def test_nan_behind_the_activation_passes_as_in_torch():
    torch = pytest.importorskip("torch")
    layer = make(norm_first=True)
    layer.params["linear1.bias"][3] = np.nan
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 20, 0.0, norm_first=True, dtype=torch.float64)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((4, 2, 12))
    layer.vjp(x)[1](np.ones_like(x))
    theirs(torch.from_numpy(x)).backward(torch.ones(x.shape, dtype=torch.float64))
    assert layer.grads["linear1.bias"][3] != 0
    for name in ("linear1.bias", "linear1.weight"):
        np.testing.assert_allclose(layer.grads[name], theirs.get_parameter(name).grad, atol=1e-12)


@pytest.mark.parametrize("form", ["int8", "bfloat16"])
def test_fewer_bits(form, rng):
    layer = make(dtype="float32", is_causal=True).quantize(form)
    x = rng.standard_normal((5, 2, 12)).astype("f4")
    assert_same_bits([layer.stream(2)(x)], [layer(x)])
    with pytest.raises(TypeError, match="is quantized to"):
        layer.vjp(x)


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
    with pytest.raises(error, match=f"^TransformerEncoderLayer: {message}"):
        pyrnn.TransformerEncoderLayer(**{"embed_dim": 8, "num_heads": 2, **arguments})


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": np.zeros((4, 2, 11))}, ValueError, r"x has shape \(4, 2, 11\), expected"),
        ({"x": np.zeros((4, 2, 12), complex)}, TypeError, "x has dtype complex128"),
        ({"lengths": [5, 1]}, ValueError, "lengths holds 5, expected 0 to 4"),
        ({"lengths": [1.0, 2.0]}, TypeError, "lengths has dtype float64"),
        ({"attn_mask": np.ones((4, 4), int)}, TypeError, "attn_mask has dtype int64"),
        ({"attn_mask": np.ones((3, 4), bool)}, ValueError, r"attn_mask has shape \(3, 4\)"),
        ({"is_causal": 1}, TypeError, "is_causal is 1, expected True or False"),
    ],
)
def test_wrong_arguments(changed, error, message):
    layer = make()
    for suffix, function in (("", layer), (r"\.vjp", layer.vjp)):
        with pytest.raises(error, match=f"^TransformerEncoderLayer{suffix}: {message}"):
            function(**{"x": np.zeros((4, 2, 12)), **changed})


def test_it_comes_at_first_use():
    assert python("import sys, pyrnn; print('pyrnn.layers.transformer' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_it_computes_with_its_weights_of_now(activation, rng):
    """In a model, which moves them; of a quantized one with those that it has become."""
    layer = make(activation, dtype="float32")
    model = pyrnn.Model(layer=layer, head=pyrnn.Linear(12, 2, rng=0))
    x = rng.standard_normal((5, 3, 12)).astype("float32")
    for array in model.params.values():
        array *= 1.5
    assert_same_bits([layer(x)], [layer.vjp(x)[0]])
    assert_same_bits([layer.stream(3)(x)], [layer(x, is_causal=True)])
    small = layer.quantize("bfloat16")
    layer.load_state_dict(dict(small.params))
    np.testing.assert_allclose(small(x), layer(x), atol=1e-5)
