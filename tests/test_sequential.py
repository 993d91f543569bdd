"""Layers one after the other against the same written out."""

import pickle

import numpy as np
import pytest

import pyrnn


def make():
    return pyrnn.Sequential(
        embed=pyrnn.Embedding(9, 4, rng=0),
        drop=pyrnn.Dropout(0.4, rng=1),
        below=pyrnn.LSTM(4, 5, bidirectional=True, rng=2),
        between=pyrnn.Sequential(norm=pyrnn.LayerNorm(10), rnn=pyrnn.GRU(10, 6, rng=3)),
        pool=pyrnn.MaxOverTime(),
        head=pyrnn.Linear(6, 3, rng=4),
    )


def test_it_is_the_same_written_out(rng):
    model, twin = make(), make()
    ids, lengths, dy = rng.integers(0, 9, (7, 3)), np.array([7, 2, 4]), rng.standard_normal((3, 3)).astype("f4")
    y, pullback = model.vjp(ids, lengths=lengths)
    assert pullback(dy) is None
    x, pull_embed = twin.embed.vjp(ids)
    x, pull_drop = twin.drop.vjp(x)
    (x, _), pull_below = twin.below.vjp(x, lengths=lengths)
    x, pull_norm = twin.between.norm.vjp(x)
    (x, _), pull_rnn = twin.between.rnn.vjp(x, lengths=lengths)
    x, pull_pool = twin.pool.vjp(x, lengths=lengths)
    x, pull_head = twin.head.vjp(x)
    pull_embed(pull_drop(pull_below(pull_norm(pull_rnn(pull_pool(pull_head(dy)))[0]))[0]))
    np.testing.assert_array_equal(y, x)
    assert np.any(model.grads["embed.weight"])
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, twin.grads[name])


def test_a_call_reads_no_padding_and_drops_nothing(rng):
    model = make()
    ids = rng.integers(0, 9, (7, 3))
    y = model(ids, lengths=[7, 2, 4])
    np.testing.assert_array_equal(y[1], model(ids[:2, 1:2])[0])
    np.testing.assert_array_equal(y, pickle.loads(pickle.dumps(model))(ids, lengths=[7, 2, 4]))


def test_the_gradient_of_what_goes_in():
    layer = pyrnn.RNN(2, 3, rng=0)
    model = pyrnn.Sequential(rnn=pyrnn.RNN(2, 3, rng=0))
    x = np.ones((4, 2), "f4")
    (y, _), pull = layer.vjp(x)
    out, pullback = model.vjp(x)
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(pullback(y), pull(y)[0])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="Sequential: it has no layers"):
        pyrnn.Sequential()
    with pytest.raises(TypeError, match="Sequential: rnn is int"):
        pyrnn.Sequential(rnn=3)
    with pytest.raises(ValueError, match="GRU: lengths holds 9, expected 0 to 2"):
        pyrnn.Sequential(rnn=pyrnn.GRU(1, 1))(np.zeros((2, 1, 1)), lengths=[9])
