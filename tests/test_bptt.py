"""Truncated backpropagation through time against gradients taken step by step."""

import numpy as np
import pytest
from cells import LAYERS

import pyrnn

T, N, I, H = 11, 3, 2, 4  # noqa: E741  the letters of the docstrings
LENGTHS = np.array([11, 0, 6])


def a_layer(cell="gru", **options):
    return LAYERS[cell](I, H, dtype="float64", rng=1, **options)


def by_hand(layer, x, dy, k1, k2, lengths=None):
    """Each window's gradient from all of it, the state before it from the start of the sequence."""
    layer.zero_grad()
    for new in range(0, T, k1):
        end = min(new + k1, T)
        start = max(0, new + k1 - k2)
        cut = lambda a, b: {} if lengths is None else {"lengths": np.clip(lengths - a, 0, b - a)}  # noqa: E731
        _, state = layer(x[:start], **cut(0, start))
        (y, _), pullback = layer.vjp(x[start:end], state, **cut(start, end))
        only_new = np.zeros_like(y)
        only_new[new - start :] = dy[new:end]
        pullback(only_new)
    grads = {name: g.copy() for name, g in layer.grads.items()}
    layer.zero_grad()
    return grads


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 4), (3, 3), (3, 5), (3, 6), (4, 11), (11, 11), (20, 30)])
def test_gradients_are_those_of_each_window(rng, cell, lengths, k1, k2):
    layer = a_layer(cell)
    x, dy = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, H))
    expected, whole = by_hand(layer, x, dy, k1, k2, lengths), layer(x, lengths=lengths)[0]
    seen = []
    for steps, y, pullback in pyrnn.truncated_bptt(layer, x, k1, k2, lengths=lengths):
        np.testing.assert_allclose(y, whole[steps], rtol=1e-12, atol=1e-15)
        pullback(dy[steps])
        seen += range(T)[steps]
    assert seen == list(range(T))
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-10, atol=1e-12)


def test_errors_go_no_further_back_than_k2(rng):
    """The exact gradient where the window reaches the start, and not a trace of what lies before where it does not."""
    layer = a_layer("rnn")
    x, dy = rng.standard_normal((T, N, I)), np.zeros((T, N, H))
    dy[-1] = 1
    found = {}
    for k2 in (3, 11):
        for steps, _, pullback in pyrnn.truncated_bptt(layer, x, 1, k2):
            pullback(dy[steps])
        found[k2] = layer.grads["weight_ih_l0"].copy()
        layer.zero_grad()
    layer.vjp(x)[1](dy)
    np.testing.assert_allclose(found[11], layer.grads["weight_ih_l0"], rtol=1e-10)
    layer.zero_grad()
    layer.vjp(x[-3:], layer(x[:-3])[1])[1](dy[-3:])
    np.testing.assert_allclose(found[3], layer.grads["weight_ih_l0"], rtol=1e-10)
    assert not np.allclose(found[3], found[11])


def test_batch_first_and_an_initial_state(rng):
    layer, turned = a_layer(), a_layer(batch_first=True)
    x, dy, h = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, H)), rng.standard_normal((1, N, H))
    for steps, _, pullback in pyrnn.truncated_bptt(layer, x, 3, 5, h):
        pullback(dy[steps])
    for steps, y, pullback in pyrnn.truncated_bptt(turned, x.swapaxes(0, 1), 3, 5, h):
        np.testing.assert_array_equal(y, layer(x, h)[0].swapaxes(0, 1)[:, steps])
        pullback(dy.swapaxes(0, 1)[:, steps])
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(turned.grads[name], grad, rtol=1e-12)


def test_a_model_learns_while_it_reads(rng):
    """Weights change between the windows; a character model has the same vjp, without a gradient of its state."""
    from pyrnn.app.charmodel import CharModel
    from pyrnn.text.corpus import Vocabulary

    vocabulary = Vocabulary.of("abc")
    model = CharModel(vocabulary, embed=4, hidden=8, rng=0)
    tokens = vocabulary.encode("abcb" * 75)[:, None]
    adam, losses = pyrnn.Adam(model, lr=0.03), []
    for steps, logits, pullback in pyrnn.truncated_bptt(model, tokens[:-1], 6, 6):
        model.zero_grad()
        loss, dlogits = pyrnn.cross_entropy(logits, tokens[1:][steps])
        pullback(dlogits)
        adam.step()
        losses.append(loss)
    assert losses[-1] < 0.3 * losses[0]


def test_refusals(rng):
    layer, x = a_layer(), rng.standard_normal((T, N, I))
    with pytest.raises(ValueError, match="truncated_bptt: k2 is 2, expected at least k1 3"):
        pyrnn.truncated_bptt(layer, x, 3, 2)
    with pytest.raises(ValueError, match="truncated_bptt: k1 is 0"):
        pyrnn.truncated_bptt(layer, x, 0, 2)
    with pytest.raises(ValueError, match="truncated_bptt: lengths holds 12, expected 0 to 11"):
        pyrnn.truncated_bptt(layer, x, 3, 3, lengths=[12, 0, 0])
    with pytest.raises(ValueError, match=r"truncated_bptt: x has shape \(11,\), expected steps and rows"):
        pyrnn.truncated_bptt(layer, x[:, 0, 0], 3, 3)
    with pytest.raises(ValueError, match="truncated_bptt: a bidirectional layer's state flows both ways"):
        pyrnn.truncated_bptt(pyrnn.GRU(I, 4, bidirectional=True), x, 3, 3)
    _, y, pullback = next(pyrnn.truncated_bptt(layer, x, 3, 5))
    with pytest.raises(ValueError, match=r"truncated_bptt pullback: dy has shape \(2, 3, 4\), expected \(3, 3, 4\)"):
        pullback(y[:2])
    assert not any(g.any() for g in layer.grads.values())
    pullback(y)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(y)
    assert not list(pyrnn.truncated_bptt(layer, x[:0], 3, 5))
