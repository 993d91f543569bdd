"""Gradient flow against explicit products of Jacobians, finite differences, and itself in other layouts."""

import tracemalloc

import numpy as np
import pytest
from cells import FEW, keep_in_range, make_layer
from test_layers import like, parts

import pyrnn
from pyrnn.training import gradient_flow as diagnostics

T, N, I, H = 6, 3, 4, 5  # noqa: E741  the letters of the docstrings

STEPS = np.arange(T + 1)


@pytest.fixture(params=FEW)
def layer(request, rng):
    layer = make_layer(request.param, I, H, 2, dtype="float64", rng=1)
    params, _ = layer.buffers[layer.dtype]
    params += 0.3 * rng.standard_normal(params.size)
    return layer


def a_state(layer, rng, rows=N):
    _, zeros = layer(np.zeros((0, rows, I)))
    state = like(zeros, lambda a: rng.standard_normal(a.shape))
    keep_in_range(layer._cell, parts(state))
    return state


def test_tanh_rnn_is_the_product_of_its_jacobians(rng):
    """dh_T/dh_t = J_T ... J_t+1 with J = diag(1 - h^2) R; dL/dh_t = dL/dh_T dh_T/dh_t."""
    layer = pyrnn.RNN(I, H, dtype="float64", rng=0)
    x, h0, dh = rng.standard_normal((T, I)), rng.standard_normal((1, H)), rng.standard_normal((1, H))
    flow = pyrnn.gradient_flow(layer, x, h0, dstate=dh, steps=STEPS)
    p, h, jacobians = layer.params, h0[0], []
    for t in range(T):
        h = np.tanh(p["weight_ih_l0"] @ x[t] + p["bias_ih_l0"] + p["weight_hh_l0"] @ h + p["bias_hh_l0"])
        jacobians.append((1 - h * h)[:, None] * p["weight_hh_l0"])
    product = np.eye(H)
    for t in range(T, -1, -1):
        np.testing.assert_allclose(flow.singular_values[t], np.linalg.svd(product)[1], rtol=1e-9)
        np.testing.assert_allclose(flow.norms[t], [np.linalg.norm(dh[0] @ product)], rtol=1e-9)
        if t:
            product = product @ jacobians[t - 1]
    assert flow.cell_norms is None
    assert flow.norms.shape == (T + 1, 1)
    assert flow.singular_values.shape == (T + 1, H)


@pytest.mark.parametrize("t", [0, 2, T])
def test_gradients_are_finite_differences(layer, rng, t):
    """L in the outputs and the final state, as a function of the state after step t."""
    x, state, lengths = rng.standard_normal((T, N, I)), a_state(layer, rng), np.array([T, 3, 1])
    reset = rng.random((T, N)) < 0.2
    y, final = layer(x, state, lengths=lengths, reset=reset)
    dy, dfinal = rng.standard_normal(y.shape), like(final, lambda a: rng.standard_normal(a.shape))
    flow = pyrnn.gradient_flow(layer, x, state, dy=dy, dstate=dfinal, lengths=lengths, reset=reset, steps=())
    _, middle = layer(x[:t], state, lengths=np.minimum(lengths, t), reset=reset[:t])

    def loss(middle):
        y, final = layer(x[t:], middle, lengths=np.maximum(lengths - t, 0), reset=reset[t:])
        valid = (t <= lengths) & (t > 0)
        at_t = np.sum((parts(middle)[0][-1] * dy[t - 1])[valid])  # y_t is a part of the state
        return at_t + np.sum(y * dy[t:]) + sum(np.sum(a * b) for a, b in zip(parts(final), parts(dfinal), strict=True))

    eps = 1e-6
    found = (flow.norms, flow.cell_norms)[: len(parts(middle))]
    for k, norms in enumerate(found):
        expected = np.zeros(parts(middle)[k].shape)
        for place in np.ndindex(expected.shape):
            ends = []
            for sign in (1, -1):
                moved = [part.copy() for part in parts(middle)]
                moved[k][place] += sign * eps
                ends.append(loss(tuple(moved) if len(moved) > 1 else moved[0]))
            expected[place] = (ends[0] - ends[1]) / (2 * eps)
        np.testing.assert_allclose(norms[t], np.linalg.norm(expected, axis=-1), rtol=1e-6, atol=1e-8)


def test_singular_values_are_those_of_finite_differences(layer, rng):
    x, state, t = rng.standard_normal((T, I)), a_state(layer, rng, 1), 2
    _, middle = layer(x[:t, None], state)
    flow = pyrnn.gradient_flow(layer, x, like(state, lambda a: a[:, 0]), steps=[t])
    h, eps, columns = parts(middle)[0], 1e-6, []
    for place in np.ndindex(h.shape):
        ends = []
        for sign in (1, -1):
            moved = h.copy()
            moved[place] += sign * eps
            _, final = layer(x[t:, None], (moved, *middle[1:]) if isinstance(middle, tuple) else moved)
            ends.append(parts(final)[0].ravel())
        columns.append((ends[0] - ends[1]) / (2 * eps))
    np.testing.assert_allclose(
        flow.singular_values[0], np.linalg.svd(np.array(columns), compute_uv=False), rtol=1e-5, atol=1e-8
    )


def test_rows_layouts_and_padding_change_nothing(layer, rng):
    x, state, dy = rng.standard_normal((T, N, I)), a_state(layer, rng), rng.standard_normal((T, N, layer._output))
    lengths, marks = np.array([T, 2, 0]), rng.random((T, N)) < 0.3
    flow = pyrnn.gradient_flow(layer, x, state, dy=dy, lengths=lengths, reset=marks, steps=STEPS)
    names = ["norms", "singular_values"] + ["cell_norms"] * isinstance(state, tuple)
    for n, length in enumerate(lengths):
        own = like(state, lambda a, n=n: a[:, n])
        short = slice(0, length)
        one = pyrnn.gradient_flow(
            layer, x[short, n], own, dy=dy[short, n], reset=marks[short, n], steps=np.arange(length + 1)
        )
        for name in names:
            values = getattr(flow, name)[:, ..., n] if "norms" in name else getattr(flow, name)[:, n]
            np.testing.assert_allclose(values[: length + 1], getattr(one, name), rtol=1e-9, atol=1e-12)
            carried = values[length + 1 :]
            np.testing.assert_array_equal(carried, np.full(carried.shape, name == "singular_values"))
    dirty = np.where((np.arange(T)[:, None] < lengths)[..., None], x, np.nan)
    dirty_dy = np.where((np.arange(T)[:, None] < lengths)[..., None], dy, np.nan)
    layer.batch_first = True
    turned = pyrnn.gradient_flow(
        layer, dirty.swapaxes(0, 1), state, dy=dirty_dy.swapaxes(0, 1), lengths=lengths, reset=marks.T, steps=STEPS
    )
    for name in names:
        np.testing.assert_array_equal(getattr(turned, name), getattr(flow, name))


def test_the_layer_stays_as_it_was(rng):
    model = pyrnn.Model(rnn=pyrnn.GRU(I, H, 2, dropout=0.5, rng=0))
    model.grads["rnn.bias_hh_l1"] = np.arange(3 * H)
    before, grads = model.state_dict(), {name: grad.copy() for name, grad in model.grads.items()}
    x = rng.standard_normal((T, N, I))
    first = pyrnn.gradient_flow(model.rnn, x)
    twin = pyrnn.GRU(I, H, 2)
    twin.load_state_dict(model.rnn.state_dict())
    np.testing.assert_array_equal(first.norms, pyrnn.gradient_flow(twin, x).norms)
    assert first.norms.dtype == first.singular_values.dtype == np.float32
    np.testing.assert_allclose(first.norms[T], [[0] * N, [1] * N], rtol=1e-6)
    for name, param in model.params.items():
        np.testing.assert_array_equal(param, before[name])
        np.testing.assert_array_equal(model.grads[name], grads[name])
    assert model.rnn.dropout == 0.5


@pytest.mark.parametrize("shape", [(0, N, I), (T, 0, I), (0, I)])
def test_empty(shape):
    flow = pyrnn.gradient_flow(pyrnn.LSTM(I, H, rng=0), np.zeros(shape), steps=[0])
    assert flow.norms.shape == flow.cell_norms.shape == (shape[0] + 1, 1, *shape[1:-1])
    assert flow.singular_values.shape == (1, *shape[1:-1], H)
    assert np.all(flow.singular_values == 1)  # no step: h_T is h_0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_of_gradients_whose_squares_do_not_fit(rng, size):
    layer, x = pyrnn.RNN(I, H, rng=0), rng.standard_normal((T, N, I))
    norms = [pyrnn.gradient_flow(layer, x, dstate=np.full((1, N, H), s), steps=()).norms for s in (1, size)]
    np.testing.assert_allclose(norms[1], size * norms[0], rtol=1e-5)


def test_a_gradient_that_explodes_beyond_all_numbers(rng):
    """One row's Jacobian is not finite; the other, whose units are shut, has its singular values."""
    layer = pyrnn.RNN(1, H, nonlinearity="relu", rng=0)
    layer.params.update({"weight_hh_l0": 100 * np.eye(H), "weight_ih_l0": np.ones((H, 1))})
    x = np.stack([np.ones((60, 1)), -np.ones((60, 1))], axis=1)
    flow = pyrnn.gradient_flow(layer, x)
    assert not np.isfinite(flow.norms[0, 0, 0])
    assert np.isnan(flow.singular_values[0, 0]).all()
    assert not flow.singular_values[0, 1].any()


def test_bad_arguments(rng):
    x, layer = np.zeros((T, N, I)), pyrnn.GRU(I, H, rng=0)
    with pytest.raises(TypeError, match="gradient_flow: layer is Linear, expected RNN, LSTM or GRU"):
        pyrnn.gradient_flow(pyrnn.Linear(I, H), x)
    with pytest.raises(ValueError, match="gradient_flow: a bidirectional layer's state flows both ways"):
        pyrnn.gradient_flow(pyrnn.GRU(I, H, bidirectional=True), x)
    with pytest.raises(ValueError, match=r"GRU in gradient_flow: x has shape \(6, 3, 7\), expected \(T, N, 4\)"):
        pyrnn.gradient_flow(layer, np.zeros((T, N, 7)))
    with pytest.raises(ValueError, match=r"gradient_flow: dy has shape \(6, 3, 1\), expected \(6, 3, 5\)"):
        pyrnn.gradient_flow(layer, x, dy=np.zeros((T, N, 1)))
    with pytest.raises(ValueError, match=r"gradient_flow: dstate has shape \(1, 3, 1\), expected \(1, 3, 5\)"):
        pyrnn.gradient_flow(layer, x, dstate=np.zeros((1, N, 1)))
    with pytest.raises(ValueError, match="gradient_flow: steps holds 7, expected 0 to 6"):
        pyrnn.gradient_flow(layer, x, steps=[0, T + 1])


def test_memory_does_not_grow_with_the_copies_of_the_steps(rng):
    """Of 8 rows, 24 units and 150 steps; all copies of all steps were 44 MB."""
    layer, x = pyrnn.LSTM(I, 24, rng=0), rng.standard_normal((150, 8, I))
    pyrnn.gradient_flow(layer, x[:2])
    tracemalloc.start()
    try:
        pyrnn.gradient_flow(layer, x, steps=(0, 75))
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_rows_are_copied_a_few_at_a_time(rng, monkeypatch):
    layer, x = pyrnn.GRU(I, H, 2, rng=0), rng.standard_normal((T, N, I))
    whole = pyrnn.gradient_flow(layer, x, steps=[2, 0, T, 2])
    monkeypatch.setattr(diagnostics, "COPIED", 2 * (2 * H) ** 2)
    parts = pyrnn.gradient_flow(layer, x, steps=[2, 0, T, 2])
    np.testing.assert_array_equal(whole.singular_values, parts.singular_values)
