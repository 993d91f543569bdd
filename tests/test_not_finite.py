"""Infinity, NaN and numbers near the largest pass through everything public as in NumPy, without a warning."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest

import pyrnn
from pyrnn import baselines, metrics

LAYERS = {
    "RNN": lambda: pyrnn.RNN(4, 4, 2, "relu", bidirectional=True, dropout=0.5, rng=0),
    "LSTM": lambda: pyrnn.LSTM(4, 4, 2, dropout=0.5, batch_first=True, rng=0),
    "GRU": lambda: pyrnn.GRU(4, 4, bidirectional=True, rng=0),
    "Linear": lambda: pyrnn.Linear(4, 3, rng=0),
    "LayerNorm": lambda: pyrnn.LayerNorm(4),
    "Dropout": lambda: pyrnn.Dropout(0.5, rng=0),
    "LogSoftmax": lambda: pyrnn.LogSoftmax(),
    "MaxOverTime": lambda: pyrnn.MaxOverTime(),
    "LastStep": lambda: pyrnn.LastStep(),
    "Jordan": lambda: pyrnn.Jordan(4, 4, 2, "relu", rng=0),
    "MultiheadAttention": lambda: pyrnn.MultiheadAttention(4, 2, rng=0),
    "PositionalEncoding": lambda: pyrnn.PositionalEncoding(4),
    "Sequential": lambda: pyrnn.Sequential(pyrnn.Linear(4, 4), pyrnn.GRU(4, 4), rng=0),
}


def like(value, kind, rng):
    """An array like this one of numbers of one kind, and others that are ordinary."""
    array = rng.standard_normal(value.shape).astype(value.dtype)
    array.flat[::2] = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan, "huge": np.finfo(value.dtype).max}[kind]
    return array


@pytest.fixture(params=["inf", "-inf", "nan", "huge"])
def kind(request):
    """What NumPy would warn of is an error."""
    with np.errstate(divide="raise", over="raise", invalid="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield request.param


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", LAYERS)
def test_layers(rng, kind, name):
    layer = LAYERS[name]()
    x = like(np.ones((5, 3, 4), layer.dtype if hasattr(layer, "dtype") else "f4"), kind, rng)
    y = first(layer(x))
    out, pullback = layer.vjp(x)
    if "Dropout" not in name and not getattr(layer, "dropout", 0):
        np.testing.assert_array_equal(first(out), y)
    pullback(like(first(out), kind, rng))
    for _, grads in layer.buffers.values():
        grads[:] = like(grads, kind, rng)


def test_layers_of_several_arrays(rng, kind):
    query, key = (like(np.ones((2, 3, 4), "f4"), kind, rng) for _ in range(2))
    layer = pyrnn.AdditiveAttention(4, 4, 5, rng=0)
    out, pullback = layer.vjp(query, key, kv_lengths=[3, 1])
    np.testing.assert_array_equal(layer(query, key, kv_lengths=[3, 1]), out)
    pullback(like(out, kind, rng))
    for activation in ("relu", "gelu"):
        encoder = pyrnn.TransformerEncoderLayer(4, 2, 5, 0.0, activation, rng=0)
        out, pullback = encoder.vjp(query, lengths=[2, 1, 0], is_causal=True)
        np.testing.assert_array_equal(encoder(query, lengths=[2, 1, 0], is_causal=True), out)
        pullback(like(out, kind, rng))
    out, pullback = pyrnn.scaled_dot_product_attention_vjp(query, key, key)
    pullback(like(out, kind, rng))
    pyrnn.attention_weights(query, key)
    ode = pyrnn.ODERNN(4, 4, rng=0)
    (y, _), pullback = ode.vjp(query, [0.0, 1.0], lengths=[2, 1, 0])
    pullback(like(y, kind, rng))
    ode(query, [0.0, 1e308])
    decoder = pyrnn.Decoder(6, 4, 4, vector_size=4, memory_size=4, rng=0)
    logits, pullback = decoder.vjp([[1, 2, 3]], query[0], key)
    decoder([[1, 2, 3]], query[0], key)
    decoder.attention_weights([[1, 2, 3]], query[0], key)
    pullback(like(logits, kind, rng))
    model = pyrnn.EncoderDecoder(6, 6, 4, 4, rng=0)
    for params, _ in model.buffers.values():
        params[:] = like(params, kind, rng)
    logits, pullback = model.vjp([[1, 2, 3]], [[1, 2, 3]])
    pullback(like(logits, kind, rng))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(rng, kind, reduction):
    x, targets = like(np.ones((3, 4), "f4"), kind, rng), [0, 1, 3]
    for loss in (pyrnn.cross_entropy, pyrnn.negative_log_likelihood, pyrnn.hinge):
        loss(x, targets, reduction=reduction, weight=[1, 2, 3, 0])
        loss(x.astype("f8"), targets, reduction=reduction)
    pyrnn.cross_entropy(x, targets, label_smoothing=0.1, reduction=reduction)
    pyrnn.mean_squared_error(x, -x, reduction=reduction)
    pyrnn.pinball(x, -x, 0.3, reduction=reduction)
    pyrnn.binary_cross_entropy(x, np.ones((3, 4)), pos_weight=1e300, reduction=reduction)


def test_sequences_that_are_aligned_and_tagged(rng, kind):
    x = like(np.ones((5, 2, 4), "f4"), kind, rng)
    pyrnn.ctc(x, [[1, 2], [3]])
    crf = pyrnn.CRF(4, rng=0)
    _, pullback = crf.vjp(x, np.zeros((5, 2), int))
    pullback(like(np.ones(1), kind, rng)[0])
    crf.marginals(x)
    for decode in (
        lambda: pyrnn.decoding.ctc_greedy(x),
        lambda: pyrnn.decoding.ctc_beam_search(x),
        lambda: pyrnn.decoding.ctc_align(x, [[1, 2], [3]]),
        lambda: crf.decode(x),
    ):
        with pytest.raises(ValueError, match=r"row 0 .* NaN or inf") if kind in ("nan", "inf") else nullcontext():
            decode()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training(rng, kind, dtype):
    layer = pyrnn.GRU(4, 4, dtype=dtype, rng=0)
    for optimizer in (pyrnn.SGD, pyrnn.Adam, pyrnn.RMSprop, pyrnn.Adagrad):
        grads = layer.buffers[layer.dtype][1]
        grads[:] = like(grads, kind, rng)
        norm = pyrnn.clip_grad_norm(layer, 1.0)
        assert np.isfinite(norm) == (kind == "huge" and dtype == "float32")
        pyrnn.clip_grad_value(layer, 1.0)
        optimizer(layer, lr=1e38).step()
    x = like(np.ones((5, 3, 4), dtype), kind, rng)
    pyrnn.gradient_flow(layer, x, dy=like(np.ones((5, 3, 4), dtype), kind, rng))
    for steps, y, pullback in pyrnn.truncated_bptt(layer, x, 2, 3):
        assert len(y) == len(range(5)[steps])
        pullback(like(y, kind, rng))


def test_associative_memory(rng, kind):
    patterns = np.where(rng.random((2, 20)) < 0.5, 1, -1)
    huge = np.full(20, 1e37)
    for dtype in ("float32", "float64"):
        state = like(np.ones(20, dtype), kind, rng)
        net = pyrnn.ModernHopfield(like(np.ones((3, 20), dtype), kind, rng), dtype=dtype)
        net.retrieve(state, max_steps=3)
        net.energy(state)
        _, pullback = net.vjp(state, max_steps=2)
        pullback(state)
    hopfield = pyrnn.Hopfield(20)
    hopfield.store(patterns)
    hopfield.recall(patterns[0], external_input=huge, record=True)
    hopfield.energy(patterns[0], external_input=huge)
    hopfield.is_stable(patterns[0], external_input=huge)
    dense = pyrnn.DenseHopfield(patterns, degree=60)
    dense.recall(patterns[0], external_input=huge, record=True)
    dense.energy(patterns[0])


def test_figures(rng, kind):
    series = like(np.ones(40), kind, rng)
    for forecast in (baselines.ahead, baselines.persistence):
        forecast(series, 3)
    baselines.seasonal(series, 3, 5)
    baselines.linear(series, 3, 30, series[:, None])
    metrics.best_f1(series[np.isfinite(series)], np.isfinite(series)[np.isfinite(series)])
    layer = pyrnn.LSTM(4, 4, rng=0)
    pyrnn.init.identity(layer, float(series[0]) if kind == "huge" else 1e308)
    pyrnn.init.orthogonal(layer, 1e308, rng=0)
    pyrnn.init.forget_gate_bias(layer, 1e308)
