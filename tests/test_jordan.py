"""Jordan's network: its equations, gradients, lengths, pieces, and that it learns."""

import numpy as np
import pytest

import pyrnn

T, N, I, H, O = 6, 3, 2, 5, 4  # noqa: E741  the letters of the docstrings
ACTS = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}
LENGTHS = np.array([6, 0, 3])


def a_layer(rng, nonlinearity="tanh", **options):
    layer = pyrnn.Jordan(I, H, O, nonlinearity, dtype="float64", rng=1, **options)
    layer.buffers[layer.dtype][0][:] += 0.2 * rng.standard_normal(layer.num_parameters)
    return layer


def arrays(rng):
    return rng.standard_normal((T, N, I)), rng.standard_normal((N, O)), rng.standard_normal((T, N, O))


def by_hand(layer, x, y0, targets=None):
    p, sent, out = layer.params, y0, []
    for t in range(len(x)):
        h = ACTS[layer.nonlinearity](x[t] @ p["weight_ih"].T + sent @ p["weight_yh"].T + p["bias_h"])
        out.append(h @ p["weight_hy"].T + p["bias_y"])
        sent = out[-1] if targets is None else targets[t]
    return np.array(out), sent


@pytest.mark.parametrize("nonlinearity", ACTS)
@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_is_its_equations(rng, nonlinearity, forced, batch_first):
    layer = a_layer(rng, nonlinearity, batch_first=batch_first)
    x, y0, targets = arrays(rng)
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    y, last = layer(turn(x), y0, targets=turn(targets) if forced else None)
    expected, expected_last = by_hand(layer, x, y0, targets if forced else None)
    np.testing.assert_allclose(turn(y), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(last, expected_last, rtol=1e-10, atol=1e-12)
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(layer.vjp(turn(x), y0, targets=turn(targets) if forced else None)[0][0], y)


@pytest.mark.parametrize("nonlinearity", ACTS)
@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_are_finite_differences(rng, nonlinearity, forced, lengths):
    layer = a_layer(rng, nonlinearity)
    x, y0, targets = arrays(rng)
    options = {"targets": targets if forced else None, "lengths": lengths}
    (y, last), pullback = layer.vjp(x, y0, **options)
    dy, dlast = rng.standard_normal(y.shape), rng.standard_normal(last.shape)
    dx, dy0 = pullback(dy, dlast)
    params, grads = layer.buffers[layer.dtype]
    start, eps = params.copy(), 1e-6

    def loss(*moves):
        a, b, params[:] = x + moves[0], y0 + moves[1], start + moves[2]
        y, last = layer(a, b, **options)
        return np.sum(y * dy) + np.sum(last * dlast)

    for _ in range(3):
        moves = [rng.standard_normal(a.shape) for a in (x, y0, start)]
        expected = (loss(*(eps * m for m in moves)) - loss(*(-eps * m for m in moves))) / (2 * eps)
        found = sum(np.sum(g * m) for g, m in zip((dx, dy0, grads), moves, strict=True))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("forced", [True, False])
def test_padding_is_never_read(rng, forced):
    layer = a_layer(rng)
    x, y0, targets = arrays(rng)
    gone = np.arange(T)[:, None] >= LENGTHS
    dirty_x, dirty_targets = x.copy(), targets.copy()
    dirty_x[gone] = dirty_targets[gone] = np.nan
    (y, last), pullback = layer.vjp(dirty_x, y0, targets=dirty_targets if forced else None, lengths=LENGTHS)
    assert not y[gone].any()
    np.testing.assert_array_equal(last[1], y0[1])
    for n in (0, 2):
        rows = slice(n, n + 1)
        alone = layer(x[: LENGTHS[n], rows], y0[rows], targets=targets[: LENGTHS[n], rows] if forced else None)
        np.testing.assert_array_equal(alone[0][:, 0], y[: LENGTHS[n], n])
        np.testing.assert_array_equal(alone[1][0], last[n])
    dx, dy0 = pullback(np.where(gone[:, :, None], np.nan, np.ones(y.shape)))
    assert np.isfinite(dx).all()
    assert np.isfinite(dy0).all()
    assert not dx[gone].any()
    assert all(np.isfinite(g).all() for g in layer.grads.values())


@pytest.mark.parametrize("forced", [True, False])
def test_a_pullback_owns_what_it_needs(rng, forced):
    layer = a_layer(rng)
    x, y0, targets = arrays(rng)
    given = {"targets": targets if forced else None, "lengths": LENGTHS.copy()}
    dy, dlast = rng.standard_normal((T, N, O)), rng.standard_normal((N, O))
    expected = layer.vjp(x, y0, **given)[1](dy, dlast)
    grads = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()
    (y, last), pullback = layer.vjp(x, y0, **given)
    for array in (x, y0, targets, y, last, *layer.params.values()):
        array[...] = np.nan
    given["lengths"][:] = 1
    for ours, theirs in zip(pullback(dy, dlast), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, grads[name])


def test_pieces_are_the_whole(rng):
    layer = a_layer(rng)
    x, y0, _ = arrays(rng)
    whole, last = layer(x, y0)
    first, middle = layer(x[:2], y0)
    second, end = layer(x[2:], middle)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-12)
    np.testing.assert_allclose(end, last, rtol=1e-12)
    np.testing.assert_array_equal(layer(x)[0], layer(x, np.zeros((N, O)))[0])


def test_without_steps_or_rows(rng):
    layer = a_layer(rng)
    _, y0, _ = arrays(rng)
    (y, last), pullback = layer.vjp(np.ones((0, N, I)), y0)
    dx, dy0 = pullback(y, last)
    assert (y.shape, dx.shape) == ((0, N, O), (0, N, I))
    np.testing.assert_array_equal(last, y0)
    np.testing.assert_array_equal(dy0, y0)
    assert not any(g.any() for g in layer.grads.values())
    assert layer(np.ones((T, 0, I)))[0].shape == (T, 0, O)


def test_it_learns_an_oscillation_by_teacher_forcing_and_goes_on_alone():
    """The output, a point on a circle, is all the state there needs to be."""
    angles = 0.3 * np.arange(60)[:, None]
    targets = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    layer = pyrnn.Jordan(1, 16, 2, rng=0)
    adam = pyrnn.Adam(layer, lr=1e-2)
    x = np.zeros((60, 1, 1))
    for _ in range(300):
        layer.zero_grad()
        (y, _), pullback = layer.vjp(x[1:], targets[0], targets=targets[1:])
        _, dy = pyrnn.mean_squared_error(y, targets[1:])
        pullback(dy)
        adam.step()
    y, _ = layer(x[1:20], targets[0])
    assert np.abs(y - targets[1:20]).max() < 0.1


def test_refusals(rng):
    layer = a_layer(rng)
    x, y0, targets = arrays(rng)
    with pytest.raises(ValueError, match=r"Jordan: x has shape \(6, 2\), expected \(T, N, 2\)"):
        layer(x[:, 0])
    with pytest.raises(ValueError, match=r"Jordan\.vjp: y0 has shape \(2, 4\), expected \(3, 4\)"):
        layer.vjp(x, y0[:2])
    with pytest.raises(ValueError, match=r"Jordan: targets has shape \(6, 3, 2\), expected \(6, 3, 4\)"):
        layer(x, targets=targets[..., :2])
    with pytest.raises(TypeError, match="Jordan: lengths has dtype float64"):
        layer(x, lengths=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="Jordan: nonlinearity is 'softmax'"):
        pyrnn.Jordan(1, 2, 3, "softmax")
    (y, last), pullback = layer.vjp(x)
    for wrong in ((y[:1],), (y, last[:1])):
        with pytest.raises(ValueError, match="Jordan pullback: d"):
            pullback(*wrong)
    assert not any(g.any() for g in layer.grads.values())
    pullback(y)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(y)
