"""The ODE-RNN: an equation with a known solution, order of convergence, finite differences, rows and pieces."""

import numpy as np
import pytest

import pyrnn

T, N, I, H, F = 5, 3, 2, 4, 6  # noqa: E741  the letters of the docstrings; F features of the tanh


def make(rng=1, scale=0.5, **options):
    """A layer away from its small initial values."""
    layer = pyrnn.ODERNN(I, H, F, **{"dtype": "float64", "rng": rng, **options})
    params, _ = layer.buffers[layer.dtype]
    params += (scale * np.random.default_rng(2).standard_normal(params.size)).astype(layer.dtype)
    return layer


def moments(rng, *shape):
    return np.cumsum(rng.exponential(0.7, shape), axis=0)


# What it computes -------------------------------------------------------------------------------------------------


def a_known_equation(steps):
    """dh/dt = -tanh(h), whose solution is sinh(h) = sinh(h_0) exp(-t)."""
    layer = pyrnn.ODERNN(1, 2, ode_steps=steps, dtype="float64", rng=0)
    layer.params.update({"inner.weight": np.eye(2), "outer.weight": -np.eye(2)})
    layer.params.update({"inner.bias": np.zeros(2), "outer.bias": np.zeros(2)})
    return layer


def test_between_observations_it_solves_the_equation():
    h0, times = np.array([[2.0, -0.5]]), np.array([0.0, 0.4, 1.0, 3.0])
    y, h = a_known_equation(50)(np.full((4, 1), np.nan), times, h0, observed=np.zeros(4, bool))
    np.testing.assert_allclose(y, np.arcsinh(np.sinh(h0) * np.exp(-times[:, None])), rtol=1e-7)
    np.testing.assert_array_equal(h, y[-1:])


def test_the_error_falls_with_the_fourth_power_of_the_step():
    errors = []
    for steps in (8, 16, 32, 64):
        y, _ = a_known_equation(steps)([[0.0]], [3.0], [[2.0, -1.5]], start=0.0, observed=[False])
        errors.append(np.max(np.abs(y - np.arcsinh(np.sinh([2.0, -1.5]) * np.exp(-3.0)))))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 4, atol=0.25)


def test_at_an_observation_it_is_a_gru(rng):
    """At times that do not pass, step by step; and after an evolution by hand."""
    layer, x = make(), rng.standard_normal((T, N, I))
    y, h = layer(x, np.full(T, 7.0))
    expected, final = layer.update(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(h, final)

    _, evolved = layer(np.zeros((1, N, I)), [1.5], h, start=0.0, observed=np.zeros((1, N), bool))
    y, _ = layer(x[:1], [1.5], h, start=0.0)
    np.testing.assert_array_equal(y, layer.update(x[:1], evolved)[0])
    assert np.max(np.abs(evolved - h)) > 0.1


# Gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_are_finite_differences(rng, batch_first):
    layer = make(ode_steps=2, batch_first=batch_first)
    params, grads = layer.buffers[layer.dtype]
    first = params.copy()
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    x, times, state = turn(rng.standard_normal((T, N, I))), turn(moments(rng, T, N)), rng.standard_normal((1, N, H))
    options = {"lengths": [T, 2, 0], "observed": turn(rng.random((T, N)) < 0.7), "start": [-0.5, 0.0, 0.1]}
    (y, h), pullback = layer.vjp(x, times, state, **options)
    dy, dh = rng.standard_normal(y.shape), rng.standard_normal(h.shape)
    dx, dstate = pullback(dy, dh)
    assert dx.shape == x.shape
    assert dx.flags.c_contiguous

    def loss(x, state, values):
        params[:] = values
        y, h = layer(x, times, state, **options)
        return np.sum(y * dy) + np.sum(h * dh)

    eps = 1e-6
    for k in range(4):
        u, v, w = rng.standard_normal(x.shape), rng.standard_normal(state.shape), rng.standard_normal(params.size)
        if k == 0:  # f alone
            w[: layer.update.num_parameters] = 0
            u[:], v[:] = 0, 0
        ends = [loss(x + s * eps * u, state + s * eps * v, first + s * eps * w) for s in (1, -1)]
        found = np.sum(dx * u) + np.sum(dstate * v) + np.sum(grads * w)
        assert abs(found) > 0.1
        assert found == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-6, abs=1e-7)


def test_gradients_add_up_and_a_pullback_owns_what_it_needs(rng):
    layer, x, times = make(), rng.standard_normal((T, N, I)), moments(rng, T)
    (y, h), pullback = layer.vjp(x, times)
    dx, dh = pullback(y, h)
    once = {name: grad.copy() for name, grad in layer.grads.items()}
    (y, h), pullback = layer.vjp(x, times)
    dy, dfinal = y.copy(), h.copy()
    x[:], times[:], y[:], h[:] = np.nan, np.nan, np.nan, np.nan
    params, _ = layer.buffers[layer.dtype]
    params[:] = np.nan
    with pytest.raises(ValueError, match=r"ODERNN pullback: dy has shape \(1,\), expected \(5, 3, 4\)"):
        pullback([1.0])
    for again, before in zip(pullback(dy, dfinal), (dx, dh), strict=True):
        np.testing.assert_array_equal(again, before)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, 2 * once[name], rtol=1e-12)
    with pytest.raises(RuntimeError, match="ODERNN pullback: this pullback has been called before"):
        pullback(dy)


# The same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_by_rows_and_pieces(rng, dtype):
    layer = make(dtype=dtype)
    x, times = rng.standard_normal((T, N, I)).astype(dtype), moments(rng, T, N)
    state, lengths = rng.standard_normal((1, N, H)).astype(dtype), np.array([T, 3, 0])
    valid = np.arange(T)[:, None] < lengths
    dirty, wrong = np.where(valid[..., None], x, np.nan), np.where(valid, times, np.nan)
    (y, h), pullback = layer.vjp(dirty, wrong, state, lengths=lengths, start=0.0)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, dstate = pullback(dy, h)
    for part, expected in zip(layer(dirty, wrong, state, lengths=lengths, start=0.0), (y, h), strict=True):
        np.testing.assert_array_equal(part, expected)
    observed = layer(dirty, wrong, state, lengths=lengths, start=0.0, observed=np.ones((T, N), bool))
    for part, expected in zip(observed, (y, h), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert not y[~valid].any()
    assert not dx[~valid].any()
    np.testing.assert_array_equal(h[:, 2], state[:, 2])
    np.testing.assert_array_equal(dstate[:, 2], h[:, 2])
    for n, length in enumerate(lengths):
        (y1, h1), pull1 = layer.vjp(x[:length, n], times[:length, n], state[:, n], start=0.0)
        dx1, dstate1 = pull1(dy[:length, n], h1)
        for part, expected in [(y1, y[:length, n]), (h1, h[:, n]), (dx1, dx[:length, n]), (dstate1, dstate[:, n])]:
            np.testing.assert_array_equal(part, expected)

    (ya, middle), pull_a = layer.vjp(x[:2], times[:2], state, start=0.0)
    (yb, final), pull_b = layer.vjp(x[2:], times[2:], middle, start=times[1])
    whole, last = layer(x, times, state, start=0.0)
    for part, expected in [(ya, whole[:2]), (yb, whole[2:]), (final, last)]:
        np.testing.assert_array_equal(part, expected)
    (_, _), pull = layer.vjp(x, times, state, start=0.0)
    dx, dstate = pull(dy, last)
    dxb, dmiddle = pull_b(dy[2:], last)
    dxa, dfirst = pull_a(dy[:2], dmiddle)
    for part, expected in [(dxa, dx[:2]), (dxb, dx[2:]), (dfirst, dstate)]:
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("shape", [(0, N, I), (T, 0, I), (0, I)])
def test_empty(shape):
    layer = make()
    (y, h), pullback = layer.vjp(np.zeros(shape), np.zeros(shape[0]), start=-1.0)
    assert y.shape == (*shape[:-1], H)
    assert h.shape == (1, *shape[1:-1], H)
    dx, dh = pullback(y, np.ones(h.shape))
    assert dx.shape == shape
    assert np.all(dh == 1)


def test_bad_arguments():
    layer, x = pyrnn.ODERNN(I, H, rng=0), np.zeros((T, N, I))
    for options, error in [
        ({"times": np.zeros(4)}, r"ODERNN: times has shape \(4,\), expected \(5,\) or \(5, 3\)"),
        ({"times": [0, 1, 2, 1.5, 3]}, "ODERNN: times fall by 0.5 before step 3 of row 0"),
        ({"times": np.zeros(T), "start": 1}, "ODERNN: times fall by 1 before step 0 of row 0"),
        ({"times": np.zeros(T), "start": [0, 0]}, r"ODERNN: start has shape \(2,\), expected \(\) or \(3,\)"),
        ({"times": np.zeros(T), "state": np.zeros((N, H))}, r"ODERNN: state has shape \(3, 4\), expected \(1, 3, 4\)"),
        ({"times": np.zeros(T), "lengths": [6, 1, 1]}, "ODERNN: lengths holds 6, expected 0 to 5"),
        ({"times": np.zeros(T), "observed": np.ones(T, bool)}, r"ODERNN: observed has shape \(5,\), expected \(5, 3\)"),
    ]:
        with pytest.raises(ValueError, match=error):
            layer(x, **options)
    with pytest.raises(ValueError, match=r"ODERNN.vjp: x has shape \(5, 3, 9\), expected \(T, N, 2\)"):
        layer.vjp(np.zeros((T, N, 9)), np.zeros(T))
    with pytest.raises(ValueError, match="ODERNN: ode_steps is 0, expected"):
        pyrnn.ODERNN(I, H, ode_steps=0)
