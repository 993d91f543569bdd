"""Layers between others: values, gradients by finite differences, masks, pooling, the same bits."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
from cells import assert_same_bits

import pyrnn

T, N, F = 6, 4, 7

LAYERS = {
    "norm": lambda **k: pyrnn.LayerNorm(F, **k),
    "norm_without_bias": lambda **k: pyrnn.LayerNorm(F, bias=False, eps=0.1, **k),
    "dropout": lambda **k: pyrnn.Dropout(0.4, rng=3, **k),
    "dropout_per_sequence": lambda **k: pyrnn.Dropout(0.4, per_sequence=True, rng=3, **k),
    "log_softmax": lambda **k: pyrnn.LogSoftmax(**k),
    "softmax": lambda **k: pyrnn.Softmax(**k),
    "relu": lambda **k: pyrnn.ReLU(**k),
    "leaky_relu": lambda **k: pyrnn.LeakyReLU(0.3, **k),
    "prelu": lambda **k: pyrnn.PReLU(**k),
    "prelu_of_each": lambda **k: pyrnn.PReLU(F, **k),
    "elu": lambda **k: pyrnn.ELU(0.7, **k),
    "gelu": lambda **k: pyrnn.GELU(**k),
    "gelu_tanh": lambda **k: pyrnn.GELU("tanh", **k),
    "silu": lambda **k: pyrnn.SiLU(**k),
    "tanh": lambda **k: pyrnn.Tanh(**k),
    "sigmoid": lambda **k: pyrnn.Sigmoid(**k),
}


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


def randomise(layer, rng):
    for params, _ in layer.buffers.values():
        params[:] = rng.standard_normal(params.size)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm_is_its_definition(rng, dtype):
    layer = pyrnn.LayerNorm(F, eps=0.01, dtype=dtype)
    assert list(layer.params) == ["weight", "bias"]
    x = rng.normal(3, 2, (T, N, F))
    y = layer(x)
    assert y.dtype == dtype
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.01)
    np.testing.assert_allclose(y, expected, atol=1e-5 if dtype == "float32" else 1e-13)
    randomise(layer, rng)
    np.testing.assert_allclose(layer(x), expected * layer.params["weight"] + layer.params["bias"], atol=1e-5)


def test_log_softmax_is_its_definition(rng):
    x = rng.standard_normal((T, N, F))
    y = pyrnn.LogSoftmax(dtype="float64")(x)
    np.testing.assert_allclose(y, x - np.log(np.exp(x).sum(-1, keepdims=True)), rtol=1e-13)
    assert pyrnn.LogSoftmax()(x).dtype == np.float32
    np.testing.assert_array_equal(pyrnn.LogSoftmax()([1e4, 0, -np.inf]), np.array([0, -1e4, -np.inf], "f4"))


def test_gradients_are_finite_differences_with_lengths(make, rng):
    """Between a recurrent layer and a head, through a loss of rows of different lengths."""
    lengths, targets = [T, 2, 0, 3], rng.integers(0, F, (T, N))
    x = rng.standard_normal((T, N, 3))
    model = pyrnn.Model(
        rnn=pyrnn.GRU(3, F, dtype="float64", rng=0),
        middle=make(dtype="float64"),
        head=pyrnn.Linear(F, F, dtype="float64", rng=0),
    )
    randomise(model, rng)
    drawn = copy.deepcopy(getattr(model.middle, "rng", None))

    def vjp(x):
        if drawn is not None:
            model.middle.rng = copy.deepcopy(drawn)  # the same masks each time
        (h, _), pull_rnn = model.rnn.vjp(x, lengths=lengths)
        y, pull_middle = model.middle.vjp(h)
        logits, pull_head = model.head.vjp(y)
        loss, dlogits = pyrnn.cross_entropy(logits, targets, lengths=lengths)
        return loss, lambda: pull_rnn(pull_middle(pull_head(dlogits)))[0]

    _, pullback = vjp(x)
    dx = pullback()
    params, grads = model.buffers[np.dtype("float64")]
    start, eps = params.copy(), 1e-6
    for _ in range(3):
        u, w = rng.standard_normal(x.shape), rng.standard_normal(params.size)
        ends = []
        for sign in (1, -1):
            params[:] = start + sign * eps * w
            ends.append(vjp(x + sign * eps * u)[0])
        params[:] = start
        assert np.sum(dx * u) + grads @ w == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-6, abs=1e-9)


def test_call_is_vjp(make, rng):
    layer = make(dtype="float64")
    randomise(layer, rng)
    x = rng.standard_normal((T, N, F))
    if hasattr(layer, "p"):
        layer.p = 0.0
    y, _ = layer.vjp(x)
    np.testing.assert_array_equal(layer(x), y)
    assert not np.shares_memory(layer(x), x)


def test_pullback_owns_what_it_needs_and_serves_once(make, rng):
    layer = make(dtype="float64")
    x, dy = rng.standard_normal((2, T, N, F))
    twin = copy.deepcopy(layer)
    expected = twin.vjp(x)[1](dy)
    given = x.copy()
    y, pullback = layer.vjp(given)
    given[:] = y[:] = np.nan
    for params, _ in layer.buffers.values():
        params[:] = np.nan
    with pytest.raises(ValueError, match="pullback: dy has shape"):
        pullback(dy[0])
    np.testing.assert_array_equal(pullback(dy), expected)
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, twin.grads[name])
    with pytest.raises(RuntimeError, match="has been called before"):
        pullback(dy)


def test_gradients_add_up(rng):
    layer = pyrnn.LayerNorm(F, dtype="float64")
    x, dy = rng.standard_normal((2, T, N, F))
    layer.vjp(x)[1](dy)
    once = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.vjp(x)[1](dy)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, 2 * once[name], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["norm", "log_softmax"])
def test_same_bits_by_rows_and_layouts(rng, name, dtype):
    size = 100 if name == "norm" else 33
    layer = pyrnn.LayerNorm(size, dtype=dtype) if name == "norm" else pyrnn.LogSoftmax(dtype=dtype)
    randomise(layer, rng)
    x, dy = rng.standard_normal((2, 300, 3, size)).astype(dtype)
    y, pullback = layer.vjp(x)
    dx = pullback(dy)
    for t in (0, 1, 299):
        one, pull = layer.vjp(x[t, 1])
        np.testing.assert_array_equal(one, y[t, 1])
        np.testing.assert_array_equal(pull(dy[t, 1]), dx[t, 1])
    for relayout in (np.asfortranarray, lambda a: np.repeat(a, 2, -1)[..., ::2], lambda a: a[::-1].copy()[::-1]):
        other, pull = layer.vjp(relayout(x))
        np.testing.assert_array_equal(other, y)
        dother = pull(relayout(dy))
        np.testing.assert_array_equal(dother, dx)
        assert other.flags.c_contiguous
        assert dother.flags.c_contiguous


@pytest.mark.parametrize("shape", [(0, N, F), (T, 0, F), (0, F)])
def test_nothing_to_do(make, shape):
    layer = make()
    y, pullback = layer.vjp(np.zeros(shape))
    assert y.shape == layer(np.zeros(shape)).shape == pullback(y).shape == shape
    assert not any(grad.any() for grad in layer.grads.values())


# Dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_scales_what_it_keeps():
    layer = pyrnn.Dropout(0.25, rng=0)
    y, pullback = layer.vjp(np.full((50, 40, 10), 3.0))
    assert set(np.unique(y)) == {np.float32(0), np.float32(4)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(pullback(np.full(y.shape, 3.0)), y)  # the same mask
    assert not np.array_equal(layer.vjp(np.full((50, 40, 10), 3.0))[0], y)  # a fresh one
    assert not pyrnn.Dropout(1.0).vjp(np.ones(5))[0].any()
    np.testing.assert_array_equal(pyrnn.Dropout(0.0).vjp(np.ones(5))[0], np.ones(5))


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_mask_per_sequence(batch_first):
    layer = pyrnn.Dropout(0.5, per_sequence=True, batch_first=batch_first, rng=0)
    y, pullback = layer.vjp(np.ones((20, 30, 8)))
    dx = pullback(np.ones((20, 30, 8)))
    steps = 1 if batch_first else 0
    first = y.take([0], axis=steps)
    for array in (y, dx):
        np.testing.assert_array_equal(array, np.broadcast_to(first, y.shape))
    rows = first.reshape(-1, 8)
    assert len(np.unique(rows, axis=0)) > 10
    y, _ = layer.vjp(np.ones((20, 8)))  # one sequence
    np.testing.assert_array_equal(y, np.broadcast_to(y[:1], y.shape))
    assert 0 < np.count_nonzero(y[0]) < 8


def test_masks_come_from_the_rng():
    first, second, other = (pyrnn.Dropout(0.5, rng=seed).vjp(np.ones(100))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_layers_without_parameters_live_in_models(rng):
    model = pyrnn.Model(
        drop=pyrnn.Dropout(0.5, rng=0),
        head=pyrnn.Linear(F, 3, dtype="float64", rng=0),
        log=pyrnn.LogSoftmax(dtype="float64"),
    )
    assert list(model.params) == ["head.weight", "head.bias"]
    model.grads["head.bias"][:] = 1
    assert pyrnn.clip_grad_norm(model, 1.0) == pytest.approx(3**0.5)
    for optimizer in (pyrnn.Adam(model), pyrnn.SGD(model, momentum=0.9)):
        optimizer.step()
    twin = pickle.loads(pickle.dumps(model))
    x = rng.standard_normal((T, F))
    np.testing.assert_array_equal(twin.drop.vjp(x)[0], model.drop.vjp(x)[0])
    np.testing.assert_array_equal(twin.log(twin.head(x)), model.log(model.head(x)))


@pytest.mark.parametrize("shape", [(100, 3), (3, 200)])
def test_gradients_are_the_same_bits_for_any_layout(rng, shape):
    layer = pyrnn.LayerNorm(33, dtype="float64")
    x, dy = rng.standard_normal((2, *shape, 33))
    turned = np.ascontiguousarray(dy.swapaxes(0, 1)).swapaxes(0, 1)
    results = []
    for given in (dy, np.asfortranarray(dy), turned):
        layer.zero_grad()
        results.append([layer.vjp(x)[1](given), *(g.copy() for g in layer.grads.values())])
    for others in results[1:]:
        for ours, first in zip(others, results[0], strict=True):
            np.testing.assert_array_equal(ours, first)


# MaxOverTime ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_pooling_reads_no_padding_and_gradients_go_to_the_maximum(rng, batch_first):
    layer, lengths = pyrnn.MaxOverTime(batch_first=batch_first, dtype="float64"), np.array([T, 2, 0, 1])
    x, dy = rng.standard_normal((T, N, F)), rng.standard_normal((N, F))
    x[2:, 1], x[:, 2], x[1:, 3] = np.inf, 9, np.nan
    x[1, 0] = x[4, 0] = 5  # the first of equal ones
    y, pullback = layer.vjp(x.swapaxes(0, 1) if batch_first else x, lengths=lengths)
    dx = pullback(dy)
    dx = dx.swapaxes(0, 1) if batch_first else dx
    for n, length in enumerate(lengths):
        expected = np.zeros((T, F))
        if length:
            np.testing.assert_array_equal(y[n], x[:length, n].max(axis=0))
            expected[x[:length, n].argmax(axis=0), np.arange(F)] = dy[n]
        np.testing.assert_array_equal(dx[:, n], expected)
        np.testing.assert_array_equal(layer(x[:, n], lengths=length), y[n])  # one sequence
    assert not y[2].any()
    with pytest.raises(RuntimeError, match="has been called before"):
        pullback(dy)


def test_pooling_over_all_steps_and_over_none(rng):
    layer, x = pyrnn.MaxOverTime(), rng.standard_normal((T, N, F)).astype("float32")
    assert layer(x).dtype == np.float32
    np.testing.assert_array_equal(layer(x), x.max(axis=0))
    for shape, pooled in [((0, N, F), (N, F)), ((T, 0, F), (0, F)), ((0, F), (F,))]:
        y, pullback = layer.vjp(np.zeros(shape))
        assert y.shape == pooled
        assert pullback(y).shape == shape
        assert not y.any()


def test_gradients_of_pooling_are_finite_differences_with_lengths(rng):
    layer, lengths = pyrnn.MaxOverTime(dtype="float64"), [T, 2, 0, 3]
    x, dy, direction = rng.standard_normal((T, N, F)), rng.standard_normal((N, F)), rng.standard_normal((T, N, F))
    dx = layer.vjp(x, lengths=lengths)[1](dy)
    step = 1e-6 * direction  # small beside the distance between numbers: no other one becomes the largest
    change = (layer(x + step, lengths=lengths) - layer(x - step, lengths=lengths)) / 2e-6
    assert np.sum(change * dy) == pytest.approx(np.sum(dx * direction), rel=1e-8)


# MeanOverTime -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_mean_over_valid_steps(rng, batch_first):
    layer, lengths = pyrnn.MeanOverTime(batch_first=batch_first, dtype="float64"), np.array([T, 2, 0, 1])
    x, dy = rng.standard_normal((T, N, F)), rng.standard_normal((N, F))
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan
    x[0, 3] = -0.0
    y, pullback = layer.vjp(x.swapaxes(0, 1) if batch_first else x, lengths=lengths)
    dx = pullback(dy)
    dx = dx.swapaxes(0, 1) if batch_first else dx
    for n, length in enumerate(lengths):
        mean = x[:length, n].mean(axis=0) if length else np.zeros(F)
        np.testing.assert_allclose(y[n], mean, atol=1e-15)
        expected = np.zeros((T, F))
        expected[:length] = dy[n] / max(length, 1)
        np.testing.assert_array_equal(dx[:, n], expected)
        for part in (layer(x[:, n], lengths=length), layer(x[:length, n])):
            assert_same_bits([part], [y[n]])
    assert layer.output_lengths(lengths) is None
    with pytest.raises(RuntimeError, match="has been called before"):
        pullback(dy)


def test_a_mean_has_the_same_bits_alone(rng):
    """Where NumPy would add in pairs: one row of one feature."""
    x = rng.standard_normal((1000, 3, 1)).astype("f4")
    y = pyrnn.MeanOverTime()(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, x.mean(axis=0, dtype="f8"), rtol=1e-6)
    for n in range(3):
        assert_same_bits([pyrnn.MeanOverTime()(x[:, n : n + 1])], [y[n : n + 1]])
    for shape, pooled in [((0, N, F), (N, F)), ((T, 0, F), (0, F)), ((0, F), (F,))]:
        y, pullback = pyrnn.MeanOverTime().vjp(np.zeros(shape))
        assert y.shape == pooled
        assert pullback(y).shape == shape
        assert not y.any()


# MaxPool1d --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(2, None), (3, 2), (2, 3), (1, 1), (4, 1)])
def test_max_pool_is_that_of_torch(kernel, stride, batch_first, rng):
    torch = pytest.importorskip("torch")
    layer = pyrnn.MaxPool1d(kernel, stride, batch_first, dtype="float64")
    x = rng.integers(0, 4, (13, N, F)).astype("f8")  # with equal ones
    x[3, 1, 2], x[5, 0], x[:4, 1, 0] = np.nan, -np.inf, np.nan
    theirs = torch.from_numpy(x.transpose(1, 2, 0).copy()).requires_grad_()
    expected = torch.nn.functional.max_pool1d(theirs, kernel, stride)
    y, pullback = layer.vjp(x.swapaxes(0, 1) if batch_first else x)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy((dy.swapaxes(0, 1) if batch_first else dy).transpose(1, 2, 0).copy()))
    dx = pullback(dy)
    for ours, other in ((y, expected.detach()), (dx, theirs.grad)):
        ours = ours.swapaxes(0, 1) if batch_first else ours
        np.testing.assert_allclose(ours, other.numpy().transpose(2, 0, 1), rtol=0, atol=1e-14)
        assert ours.shape == other.numpy().transpose(2, 0, 1).shape
    lengths = np.array([13, 0, 5, 1])
    counts = layer.output_lengths(lengths)
    assert counts.tolist() == [len(layer(np.zeros((length, 1)))) for length in lengths]
    y, pullback = layer.vjp(x.swapaxes(0, 1) if batch_first else x, lengths=lengths)
    dx = pullback(np.ones(y.shape))
    y, dx = (y.swapaxes(0, 1), dx.swapaxes(0, 1)) if batch_first else (y, dx)
    for n, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        one, pull = layer.vjp(x[:length, n])
        assert_same_bits([one, pull(np.ones(one.shape))], [y[:count, n], dx[:length, n]])
        assert not y[count:, n].any()
        assert not dx[length:, n].any()


@pytest.mark.parametrize(("kernel", "stride"), [(2, None), (3, 2), (2, 3), (4, 1)])
def test_a_stream_of_max_pool(kernel, stride, rng):
    layer = pyrnn.MaxPool1d(kernel, stride, dtype="float64")
    x = rng.standard_normal((29, N, F))
    y, stream, parts, t = layer(x), layer.stream(N), [], 0
    for count in (1, 1, 3, 0, 1, 7, 1, 15):
        if count == 1:
            done = stream.step(x[t])
            parts += [] if done is None else [done]
        else:
            parts += list(stream(x[t : t + count]))
        t += count
        stream = copy.copy(stream)
        stream.state = stream.state
    np.testing.assert_array_equal(parts, y)
    stream = layer.stream(N)
    stream(x[: kernel + 1])  # the next is due at another step than at first
    other = layer.stream(N)
    other.state = stream.state
    np.testing.assert_array_equal(other(x[kernel + 1 :]), y[1 + (layer.stride == 1) :])
    if stream.state[1] != kernel:
        with pytest.raises(ValueError, match="rows that begin anew have their next step of y after"):
            stream.reset([0])
    stream.reset()
    np.testing.assert_array_equal(stream(x), y)
    alone = layer.stream()
    np.testing.assert_array_equal([done for done in map(alone.step, x[:, 1]) if done is not None], y[:, 1])
    for call, match in (
        (lambda: stream.step(x[0, 0]), r"MaxPool1d.stream: x has shape \(7,\), expected \(4, 7\)"),
        (lambda: stream.step(x[0, :, :2]), r"x has shape \(4, 2\), expected \(4, 7\)"),
        (lambda: stream(x[:, :2]), r"x has shape \(29, 2, 7\), expected \(T, 4, 7\)"),
        (lambda: layer.stream(2).step(x[0]), r"x has shape \(4, 7\), expected \(2, F\)"),
        (lambda: layer.stream(2).take([]), r"MaxPool1d.stream: rows is empty"),
        (lambda: pyrnn.MaxPool1d(0), "MaxPool1d: kernel_size is 0"),
        (lambda: pyrnn.MaxPool1d(2, 0), "MaxPool1d: stride is 0"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("padding_idx", [0, 3, -1])
def test_padding_idx(rng, padding_idx):
    torch = pytest.importorskip("torch")
    layer = pyrnn.Embedding(6, 4, padding_idx, dtype="float64", rng=0)
    theirs = torch.nn.Embedding(6, 4, padding_idx, dtype=torch.float64)
    assert not layer.params["weight"][padding_idx].any()
    assert np.count_nonzero(layer.params["weight"]) == 20
    layer.params["weight"][padding_idx] = 5  # a row like others, but for its gradient
    theirs.load_state_dict({"weight": torch.tensor(layer.params["weight"])})
    ids, dy = rng.integers(0, 6, (7, 3)), rng.standard_normal((7, 3, 4))
    y, pullback = layer.vjp(ids)
    expected = theirs(torch.tensor(ids))
    np.testing.assert_array_equal(y, expected.detach().numpy())
    expected.backward(torch.tensor(dy))
    layer.grads["weight"][padding_idx] = 2  # what is there stays
    pullback(dy)
    wanted = theirs.weight.grad.numpy()
    wanted[padding_idx] = 2
    np.testing.assert_allclose(layer.grads["weight"], wanted, rtol=1e-12)
    for wrong in (6, -7):
        with pytest.raises(ValueError, match=f"Embedding: padding_idx is {wrong}, expected "):
            pyrnn.Embedding(6, 4, wrong)


# ---- small calls, which have a way of their own


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
def test_few_rows_of_a_linear_layer_are_those_of_many(dtype, bias, rng):
    for inputs, outputs in itertools.product((1, 3, 8, 16, 17, 64, 65), (1, 2, 15, 16, 33, 64, 300)):
        layer = pyrnn.Linear(inputs, outputs, bias, dtype=dtype, rng=0)
        x = rng.standard_normal((40, inputs)).astype(dtype)
        x[0, 0], x[1, 0] = 0.0, -0.0
        whole = layer(x)
        product = x.astype("f8") @ layer.params["weight"].T.astype("f8") + (layer.params["bias"] if bias else 0)
        np.testing.assert_allclose(whole, product, atol=(inputs + 1) * 8 * np.finfo(dtype).eps)
        assert_same_bits([layer(x[0]), layer(x[1])], [whole[0], whole[1]])
        for lead in ((0,), (1,), (2,), (3,), (4,), (1, 1), (3, 1), (1, 2), (2, 2), (1, 1, 3), (0, 5), (1,) * 9):
            count = math.prod(lead)
            some = layer(x[5 : 5 + count].reshape(*lead, inputs))
            assert_same_bits([some], [whole[5 : 5 + count].reshape(*lead, outputs)])
            if some.size:
                some[...] = 0  # its own memory


def test_few_ids_of_an_embedding(rng):
    for dtype in ("float32", "float64"):
        layer = pyrnn.Embedding(50, 7, dtype=dtype, rng=0)
        weight = layer.params["weight"]
        for lead in ((), (1,), (0,), (3, 0), (64,), (65,), (2, 3), (1,) * 9):
            ids = rng.integers(0, 50, lead)
            assert_same_bits([layer(ids), layer(ids.astype("u1")), layer(ids.tolist())], [weight[ids]] * 3)
        for bad in (-1, 50, 2**62, -(2**63)):
            with pytest.raises(ValueError, match=f"Embedding: ids holds {bad}, expected 0 to 49"):
                layer(np.array([3, bad]))


def test_small_calls_refuse_in_the_layers_words(rng):
    layer = pyrnn.Linear(4, 3, rng=0)
    for x in (np.zeros((1, 5), "f4"), np.zeros(5, "f4"), np.zeros((), "f4"), [[1, 2, 3]]):
        with pytest.raises(ValueError, match=r"^Linear: x has shape .*expected \(\.\.\., 4\)"):
            layer(x)
    with pytest.raises(TypeError, match=r"^Linear: x has dtype complex64, expected real numbers"):
        layer(np.zeros((1, 4), "c8"))
    x = rng.standard_normal((2, 4)).astype("f4")
    expected = layer(x)
    assert_same_bits([layer(x.astype(">f4")), layer(x.tolist()), layer(np.asfortranarray(x))], [expected] * 3)
    pyrnn.Sequential(layer=layer)  # moves its parameters
    layer.params["weight"] *= 2
    layer.params["bias"] *= 2
    assert_same_bits([layer(x)], [2 * expected])


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 2), (2, 3), (3, 1), (1, 3)])
def test_windows_that_the_end_cuts(kernel, stride):
    """MaxPool1d's ceil_mode: every window that begins within the row, its last one cut; a row as if it ended there."""
    layer, x = (
        pyrnn.MaxPool1d(kernel, stride, ceil_mode=True, dtype="float64"),
        np.random.default_rng(0).random((11, 2, 3)),
    )
    for length in range(kernel, 12):
        starts = range(0, max(length - kernel, 0) + stride, stride)
        expected = np.stack([x[s : min(s + kernel, length), 0].max(axis=0) for s in starts if s < length])
        y, pullback = layer.vjp(x, lengths=[length, 11])
        np.testing.assert_array_equal(y[: len(expected), 0], expected)
        assert not y[len(expected) :, 0].any()
        assert layer.output_lengths(length) == len(expected)
        dx = pullback(np.ones_like(y))
        assert dx[:length, 0].sum() == expected.size
        assert not dx[length:, 0].any()


def test_the_last_step_of_two_directions():
    """What the final states of a recurrent layer of two directions are."""
    layer, x = pyrnn.GRU(3, 4, bidirectional=True, rng=0), np.random.default_rng(0).random((7, 2, 3))
    y, h = layer(x, lengths=[3, 7])
    np.testing.assert_array_equal(
        pyrnn.LastStep(bidirectional=True)(y, lengths=[3, 7]), np.concatenate([h[0], h[1]], axis=-1)
    )
    with pytest.raises(ValueError, match="LastStep: x has 3 features, expected an even number of them"):
        pyrnn.LastStep(bidirectional=True)(x)
