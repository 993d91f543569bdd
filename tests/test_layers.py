"""The layers against their contract: stacking, layouts, states, lengths, resets, dropout, pullbacks, streams.

What one op computes is tested elsewhere; here an op is called by hand where a value is needed.
"""

import copy
import pickle

import cells
import numpy as np
import pytest
from cells import flat

import pyrnn

T, N, I, H, L = 5, 3, 4, 6, 2  # noqa: E741  the letters of the docstrings


@pytest.fixture(params=cells.FEW)
def make(request):
    """make(**options) -> a layer with I inputs and H hidden units, float64 unless told otherwise."""

    def make_layer(num_layers=1, **options):
        return cells.make_layer(request.param, I, H, num_layers, **{"dtype": "float64", "rng": 1, **options})

    return make_layer


def parts(state):
    return state if isinstance(state, (tuple, list)) else (state,)


def call(layer, *args, **kwargs):
    """The arrays that come out of a call: y and the parts of the state."""
    y, state = layer(*args, **kwargs)
    return (y, *parts(state))


def like(state, make_array):
    """A state of the same form, each array made from one of this state."""
    return tuple(map(make_array, state)) if isinstance(state, tuple) else make_array(state)


def random_state(layer, rng, rows=N):
    _, zeros = layer(np.zeros((rows, 0, I) if layer.batch_first else (0, rows, I)))
    state = like(zeros, lambda a: rng.standard_normal(a.shape).astype(a.dtype))
    cells.keep_in_range(layer._cell, parts(state))
    return state


def marks(rng, *shape):
    return rng.random(shape) < 0.4


def assert_same(a, b):
    for x, y in zip(parts(a), parts(b), strict=True):
        np.testing.assert_array_equal(x, y)


def dot(a, b):
    return sum(float(np.sum(x * y)) for x, y in zip(parts(a), parts(b), strict=True))


def op_weights(layer, suffix):
    return tuple(layer.params.get(name + suffix) for name in layer._op.WEIGHTS)


# Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_stack_of_two_directions_is_ops_called_by_hand(make, rng, batch_first):
    layer = make(L, bidirectional=True, batch_first=batch_first)
    x, lengths, reset = rng.standard_normal((T, N, I)), np.array([5, 2, 0]), marks(rng, T, N)
    state = random_state(layer, rng)

    y, finals = x, []
    for k in range(L):
        halves = []
        for d, suffix in enumerate(["", "_reverse"]):
            half, final = layer._op.forward(
                y,
                tuple(s[2 * k + d] for s in parts(state)),
                op_weights(layer, f"_l{k}{suffix}"),
                lengths=lengths,
                reset=reset,
                reverse=d == 1,
                **layer._options,
            )
            halves.append(half)
            finals.append(final)
        y = np.concatenate(halves, axis=2)

    if batch_first:
        got, got_state = layer(x.swapaxes(0, 1), state, lengths=lengths, reset=reset.T)
        got = got.swapaxes(0, 1)
    else:
        got, got_state = layer(x, state, lengths=lengths, reset=reset)
    assert_same(got, y)
    for part, expected in zip(parts(got_state), zip(*finals, strict=True), strict=True):
        assert_same(part, np.stack(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(make, rng, dtype):
    layer = make(L, bidirectional=True, dtype=dtype)
    x, reset = rng.standard_normal((T, N, I)), marks(rng, T, N)
    state = random_state(layer, rng)

    def run():
        (y, final), pullback = layer.vjp(x, state, lengths=[5, 2, 0], reset=reset)
        dx, dstate = pullback(np.cos(y), like(final, np.sin))
        grads = {name: grad.copy() for name, grad in layer.grads.items()}
        layer.zero_grad()
        return [y, *parts(final), dx, *parts(dstate), *grads.values()]

    compiled = run()
    layer._op = getattr(pyrnn.reference, layer._op.__name__.rpartition(".")[2])
    for a, b in zip(compiled, run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 if dtype == "float32" else 1e-12)


def test_gradients_are_finite_differences(make, rng):
    """Along random directions, through two layers of two directions with lengths, resets and initial states."""
    layer = make(L, bidirectional=True)
    x, reset, lengths = rng.standard_normal((T, N, I)), marks(rng, T, N), [5, 3, 1]
    state = random_state(layer, rng)
    params, grads = layer.buffers[layer.dtype]
    params += 0.3 * rng.standard_normal(params.size)  # away from the small initial values
    start = params.copy()
    (y, final), pullback = layer.vjp(x, state, lengths=lengths, reset=reset)
    dy, dfinal = rng.standard_normal(y.shape), like(final, lambda a: rng.standard_normal(a.shape))
    dx, dstate = pullback(dy, dfinal)

    def loss(x, state, values):
        params[:] = values
        y, final = layer(x, state, lengths=lengths, reset=reset)
        return dot(y, dy) + dot(final, dfinal)

    eps = 1e-6
    for _ in range(3):
        u, w = rng.standard_normal(x.shape), rng.standard_normal(params.size)
        v = like(state, lambda a: rng.standard_normal(a.shape))

        def shifted(sign, u=u, v=v, w=w):
            moved = tuple(a + sign * eps * b for a, b in zip(parts(state), parts(v), strict=True))
            return loss(x + sign * eps * u, moved if len(moved) > 1 else moved[0], start + sign * eps * w)

        expected = (shifted(1) - shifted(-1)) / (2 * eps)
        assert dot(dx, u) + dot(dstate, v) + dot(grads, w) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_gradients_add_up(make, rng):
    layer = make(L)
    x = rng.standard_normal((T, N, I))
    (y, _), pullback = layer.vjp(x)
    pullback(y)
    once = {name: grad.copy() for name, grad in layer.grads.items()}
    (y, _), pullback = layer.vjp(x)
    pullback(y)
    for name, grad in layer.grads.items():
        np.testing.assert_allclose(grad, 2 * once[name], rtol=1e-12)
    layer.zero_grad()
    assert all(not grad.any() for grad in layer.grads.values())


# The same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_by_rows_pieces_and_padding(make, rng, dtype):
    layer = make(L, dtype=dtype)
    x = rng.standard_normal((T, N, I)).astype(dtype)
    dy = rng.standard_normal(layer(x)[0].shape).astype(dtype)
    state = random_state(layer, rng)
    (y, final), pullback = layer.vjp(x, state)
    dx, dstate = pullback(dy, final)

    assert_same((y, *parts(final)), call(layer, x, state))
    for n in range(N):
        one = like(state, lambda a, n=n: a[:, n])
        (y1, final1), pullback1 = layer.vjp(x[:, n], one)
        dx1, dstate1 = pullback1(dy[:, n], final1)
        assert_same((y1, *parts(final1)), (y[:, n], *(a[:, n] for a in parts(final))))
        assert_same((dx1, *parts(dstate1)), (dx[:, n], *(a[:, n] for a in parts(dstate))))

    (ya, middle), pullback_a = layer.vjp(x[:2], state)
    (yb, last), pullback_b = layer.vjp(x[2:], middle)
    dxb, dmiddle = pullback_b(dy[2:], final)
    dxa, dfirst = pullback_a(dy[:2], dmiddle)
    assert_same((ya, yb, *parts(last)), (y[:2], y[2:], *parts(final)))
    assert_same((dxa, dxb, *parts(dfirst)), (dx[:2], dx[2:], *parts(dstate)))

    padded = np.concatenate([x, np.full((2, N, I), np.nan, dtype)])
    yp, finalp = layer(padded, state, lengths=[T] * N)
    assert_same((yp[:T], *parts(finalp)), (y, *parts(final)))
    assert not yp[T:].any()


@pytest.mark.parametrize("every", [1, 2, 3, T, 100])
def test_same_bits_with_checkpoints(make, rng, every):
    layer = make(L, bidirectional=True)
    x, state, reset = rng.standard_normal((T, N, I)), random_state(layer, rng), marks(rng, T, N)

    def run(checkpoint_every):
        layer.zero_grad()
        (y, final), pullback = layer.vjp(x, state, lengths=[5, 2, 0], reset=reset, checkpoint_every=checkpoint_every)
        dx, dstate = pullback(y, final)
        return (y, *parts(final), dx, *parts(dstate), *(grad.copy() for grad in layer.grads.values()))

    assert_same(run(every), run(None))


@pytest.mark.parametrize(
    "relayout",
    [
        *cells.LAYOUTS.values(),
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: x.tolist(),
        lambda x: np.broadcast_to(x, (2, *x.shape))[1],
    ],
)
def test_same_bits_in_any_memory_layout(make, rng, relayout):
    layer = make(L)
    x, state = rng.standard_normal((T, N, I)), random_state(layer, rng)
    (y, final), pullback = layer.vjp(x, state)
    dx, dstate = pullback(y, final)
    (y2, final2), pullback = layer.vjp(relayout(x), like(state, relayout))
    dx2, dstate2 = pullback(relayout(y), like(final, relayout))
    assert_same((y, *parts(final), dx, *parts(dstate)), (y2, *parts(final2), dx2, *parts(dstate2)))


def test_other_dtypes_are_converted(rng):
    layer = pyrnn.GRU(I, H, rng=0)
    x = rng.standard_normal((T, N, I))
    y, h = layer(x)
    assert y.dtype == h.dtype == np.float32
    assert_same(layer(x.astype(np.float32)), (y, h))
    ones = layer(np.ones((T, N, I), np.float32))
    for dtype in (bool, np.int8, np.uint64, np.float16, np.longdouble):
        assert_same(layer(np.ones((T, N, I), dtype)), ones)


# Layouts and forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, L])
def test_shapes_and_order(make, rng, num_layers, bidirectional):
    directions = 2 if bidirectional else 1
    for batch_first, shape in [(False, (T, N)), (True, (N, T)), (False, (T,)), (True, (T,))]:
        layer = make(num_layers, bidirectional=bidirectional, batch_first=batch_first)
        features = layer.proj_size or H
        (y, state), pullback = layer.vjp(rng.standard_normal((*shape, I)))
        dx, dstate = pullback(y, state)
        rows = (N,) if len(shape) == 2 else ()
        assert y.shape == (*shape, directions * features)
        assert dx.shape == (*shape, I)
        for form in (state, dstate):
            widths = [part.shape for part in parts(form)]
            assert widths == [(num_layers * directions, *rows, width) for width in layer._cell.widths(H, features)]
        for array in (y, dx, *parts(state), *parts(dstate)):
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.dtype == np.float64
        y2, state2 = layer(rng.standard_normal((*shape, I)), state)
        assert y2.flags.c_contiguous
        assert [part.shape for part in parts(state2)] == [part.shape for part in parts(state)]


def test_unbatched_is_a_row(make, rng):
    layer = make(L, bidirectional=True)
    x, state, reset = rng.standard_normal((T, I)), random_state(layer, rng, 1), marks(rng, T)
    one = like(state, lambda a: a[:, 0])
    (y, final), pullback = layer.vjp(x[:, None], state, lengths=[3], reset=reset[:, None])
    (y1, final1), pullback1 = layer.vjp(x, one, lengths=3, reset=reset)
    assert_same((y1, *parts(final1)), (y[:, 0], *(a[:, 0] for a in parts(final))))
    dx, dstate = pullback(y, final)
    dx1, dstate1 = pullback1(y1, final1)
    assert_same((dx1, *parts(dstate1)), (dx[:, 0], *(a[:, 0] for a in parts(dstate))))


def test_batch_first_is_the_transpose(make, rng):
    layer, turned = make(L), make(L, batch_first=True)
    x, reset = rng.standard_normal((T, N, I)), marks(rng, T, N)
    (y, final), pullback = layer.vjp(x, lengths=[1, 5, 2], reset=reset)
    (y2, final2), pullback2 = turned.vjp(x.swapaxes(0, 1).copy(), lengths=[1, 5, 2], reset=reset.T)
    assert_same((y, *parts(final)), (y2.swapaxes(0, 1), *parts(final2)))
    dx, dstate = pullback(y)
    dx2, dstate2 = pullback2(y2)
    assert_same((dx, *parts(dstate)), (dx2.swapaxes(0, 1), *parts(dstate2)))


# Edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("steps", "rows"), [(0, N), (T, 0), (0, 0), (0, None)])
def test_nothing_to_do(make, rng, steps, rows, bidirectional):
    layer = make(L, bidirectional=bidirectional)
    shape = (steps, I) if rows is None else (steps, rows, I)
    state = random_state(layer, rng, 1 if rows is None else rows)
    if rows is None:
        state = like(state, lambda a: a[:, 0])
    lengths = 0 if rows is None else [steps] * rows
    (y, final), pullback = layer.vjp(np.zeros(shape), state, lengths=lengths, reset=np.zeros(shape[:-1], bool))
    assert y.shape[:-1] == shape[:-1]
    assert_same(final, state)
    dx, dstate = pullback(y, final)
    assert dx.shape == shape
    assert_same(dstate, final)
    assert all(not grad.any() for grad in layer.grads.values())
    for final_part, part in zip(parts(final), parts(state), strict=True):
        assert not np.shares_memory(final_part, part)


def test_all_rows_of_length_0(make, rng):
    layer = make(L, bidirectional=True)
    state = random_state(layer, rng)
    (y, final), pullback = layer.vjp(np.full((T, N, I), np.nan), state, lengths=[0] * N)
    assert not y.any()
    assert_same(final, state)
    dx, dstate = pullback(np.full_like(y, np.nan), final)
    assert not dx.any()
    assert_same(dstate, final)
    assert all(not grad.any() for grad in layer.grads.values())


def test_empty_lists_are_arrays_of_no_rows(make):
    y, _ = make()(np.zeros((T, 0, I)), lengths=[], reset=[[]] * T)
    assert y.shape[:2] == (T, 0)


def test_row_of_length_0_keeps_its_state(make, rng):
    layer = make(L, bidirectional=True)
    x, state = rng.standard_normal((T, N, I)), random_state(layer, rng)
    x[:, 1] = np.nan
    (y, final), pullback = layer.vjp(x, state, lengths=[T, 0, T])
    assert not y[:, 1].any()
    assert_same([a[:, 1] for a in parts(final)], [a[:, 1] for a in parts(state)])
    dy = rng.standard_normal(y.shape)
    dy[:, 1] = np.nan
    dx, dstate = pullback(dy, final)
    assert not dx[:, 1].any()
    assert_same([a[:, 1] for a in parts(dstate)], [a[:, 1] for a in parts(final)])
    assert all(np.isfinite(grad).all() for grad in layer.grads.values())


def test_state_shut_out_is_never_read(make, rng):
    layer = make(L)
    x, reset = rng.standard_normal((T, N, I)), np.zeros((T, N), bool)
    reset[0] = True
    nan = like(random_state(layer, rng), lambda a: np.full_like(a, np.nan))
    (y, final), pullback = layer.vjp(x, nan, reset=reset)
    assert_same((y, *parts(final)), call(layer, x))
    dx, dstate = pullback(y)
    assert np.isfinite(dx).all()
    assert all(not a.any() for a in parts(dstate))


def test_marks_separate_sequences(make, rng):
    """A row of two sequences is two rows, in both directions."""
    layer = make(L, bidirectional=True)
    x, reset = rng.standard_normal((T, 1, I)), np.zeros((T, 1), bool)
    reset[2] = True
    y, _ = layer(x, reset=reset)
    np.testing.assert_allclose(y[:2], layer(x[:2])[0], rtol=1e-12)
    np.testing.assert_allclose(y[2:], layer(x[2:])[0], rtol=1e-12)


def test_nan_passes_through(make, rng):
    x = rng.standard_normal((T, N, I))
    x[2, 1, 0] = np.nan
    y, _ = make()(x)
    assert np.isnan(y[2:, 1]).all()
    assert np.isfinite(y[:2]).all()
    assert np.isfinite(y[:, [0, 2]]).all()


# Pullbacks --------------------------------------------------------------------------------------------------------


def test_pullback_owns_what_it_needs(make, rng):
    layer = make(L, bidirectional=True)
    x, state = rng.standard_normal((T, N, I)), random_state(layer, rng)
    lengths, reset = np.array([5, 3, 1]), marks(rng, T, N)
    (y, final), pullback = layer.vjp(x, state, lengths=lengths, reset=reset)
    dy, dfinal = y.copy(), like(final, np.copy)
    expected = pullback(dy, dfinal)
    grads = {name: grad.copy() for name, grad in layer.grads.items()}

    layer.zero_grad()
    (y, final), pullback = layer.vjp(x, state, lengths=lengths, reset=reset)
    layer.vjp(np.ones((2, 1, I)))  # another one in between
    for array in (x, y, *parts(state), *parts(final), layer.buffers[layer.dtype][0]):
        array[...] = np.nan
    lengths[:], reset[:] = 0, True
    dx, dstate = pullback(dy, dfinal)
    assert_same((dx, *parts(dstate)), (expected[0], *parts(expected[1])))
    for name, grad in layer.grads.items():
        assert_same(grad, grads[name])


def test_results_belong_to_the_caller(make, rng):
    """Writing into what a call returned changes no later result, and a pullback leaves its arguments alone."""
    layer = make(L, batch_first=True)
    x, state = rng.standard_normal((N, T, I)), random_state(layer, rng)
    x0, state0 = x.copy(), like(state, np.copy)
    (y, final), pullback = layer.vjp(x, state)
    dy0, dfinal0 = y.copy(), like(final, np.copy)
    dx, dstate = pullback(y, final)
    assert_same((x, *parts(state), y, *parts(final)), (x0, *parts(state0), dy0, *parts(dfinal0)))
    for result in (dx, *parts(dstate)):
        for other in (x, y, *parts(state), *parts(final), *layer.params.values(), *layer.grads.values()):
            assert not np.shares_memory(result, other)


def test_pullback_twice(make, rng):
    layer = make()
    (y, _), pullback = layer.vjp(rng.standard_normal((T, N, I)))
    pullback(y)
    grads = layer.buffers[layer.dtype][1].copy()
    with pytest.raises(RuntimeError, match="called before"):
        pullback(y)
    assert_same(layer.buffers[layer.dtype][1], grads)


def test_refused_pullback_can_be_used(make, rng):
    layer = make(L, bidirectional=True)
    name = type(layer).__name__
    (y, final), pullback = layer.vjp(rng.standard_normal((T, N, I)))
    wrong_state = like(final, lambda a: a[:, :1])
    for dy, dstate, error, match in [
        (y[1:], None, ValueError, rf"{name} pullback: dy has shape \(4, 3, \d+\), expected \(5, 3, \d+\)"),
        (y[:, 0], None, ValueError, "dy has shape"),
        (y.astype(complex), None, TypeError, "dy has dtype complex128"),
        ("y", None, TypeError, "dy has dtype"),
        (y, wrong_state, ValueError, r"dstate has shape \(4, 1, \d+\), expected \(4, 3, \d+\)"),
        (None, wrong_state, ValueError, "dstate has shape"),
    ]:
        with pytest.raises(error, match=match):
            pullback(dy, dstate)
        assert all(not grad.any() for grad in layer.grads.values())
    pullback(y, final)
    assert all(grad.any() for grad in layer.grads.values())


def test_dy_and_dstate_may_be_none(make, rng):
    layer = make(L, bidirectional=True)
    x = rng.standard_normal((T, N, I))

    def gradients(dy, dstate):
        (y, final), pullback = layer.vjp(x)
        zeros = np.zeros_like(y), like(final, np.zeros_like)
        dx, dinitial = pullback(
            y if dy else None if dy is None else zeros[0], final if dstate else None if dstate is None else zeros[1]
        )
        return (dx, *parts(dinitial))

    assert_same(gradients(True, None), gradients(True, False))
    assert_same(gradients(None, True), gradients(False, True))
    assert not any(a.any() for a in gradients(None, None))


# Dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_is_between_layers_and_in_vjp_only(make, rng):
    x = rng.standard_normal((T, N, I))
    plain, layer = make(L), make(L, dropout=0.5)
    y, final = plain(x)
    assert_same((y, *parts(final)), call(layer, x))
    (y1, final1), _ = layer.vjp(x)
    (y2, _), _ = layer.vjp(x)
    assert (y1 != y).any()
    assert (y1 != y2).any()
    assert_same([a[0] for a in parts(final1)], [a[0] for a in parts(final)])  # of layer 0, untouched
    again = make(L, dropout=0.5)
    assert_same(again.vjp(x)[0][0], y1)  # same seed


def test_dropout_masks(make, rng):
    """What layer 1 gets is layer 0's output, dropped and scaled by what the generator said."""
    layer = make(L, dropout=0.25)
    x = rng.standard_normal((T, N, I))
    first, _ = layer._op.forward(x, None, op_weights(layer, "_l0"), **layer._options)
    state = layer.rng.bit_generator.state
    (y, _), pullback = layer.vjp(x)
    layer.rng.bit_generator.state = state
    mask = (layer.rng.random(first.shape, dtype=layer.dtype) >= 0.25) / 0.75
    expected, _ = layer._op.forward(first * mask, None, op_weights(layer, "_l1"), **layer._options)
    np.testing.assert_allclose(y, expected, rtol=1e-12)

    dx, _ = pullback(y)
    _, pull1 = layer._op.vjp(first * mask, None, op_weights(layer, "_l1"), **layer._options)
    _, pull0 = layer._op.vjp(x, None, op_weights(layer, "_l0"), **layer._options)
    none = (None,) * len(layer._op.WEIGHTS)
    expected, _ = pull0(pull1(y, None, none)[0] * mask, None, none)
    np.testing.assert_allclose(dx, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("num_layers", [3, 4])
def test_gradients_go_back_through_the_masks_of_their_layers(make, rng, num_layers):
    layer = make(num_layers, dropout=0.5)
    x, state = rng.standard_normal((T, N, I)), layer.rng.bit_generator.state

    def run():
        layer.rng.bit_generator.state = state  # the same masks each time
        (y, _), pullback = layer.vjp(x)
        return y, pullback

    y, pullback = run()
    dy = rng.standard_normal(y.shape)
    dx, _ = pullback(dy)
    for index in [tuple(rng.integers(n) for n in x.shape) for _ in range(6)]:
        kept, sides = x[index], []
        for step in (1e-6, -1e-6):
            x[index] = kept + step
            sides.append((run()[0] * dy).sum())
        x[index] = kept
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(dx[index], rel=1e-5, abs=1e-9)


def test_dropout_of_everything(make, rng):
    layer = make(L, dropout=1.0)
    (y, _), pullback = layer.vjp(rng.standard_normal((T, N, I)))
    dx, _ = pullback(y)
    assert np.isfinite(y).all()
    assert not dx.any()


def test_dropout_without_layers_to_act_between_warns():
    with pytest.warns(UserWarning, match="LSTM: dropout acts between layers"):
        pyrnn.LSTM(I, H, dropout=0.5)


# Parameters -------------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_torch():
    layer = pyrnn.LSTM(I, H, 2, bidirectional=True, proj_size=3, peephole=True)
    shapes = {name: param.shape for name, param in layer.params.items()}
    first = {
        "weight_ih": (4 * H, I),
        "weight_hh": (4 * H, 3),
        "bias_ih": (4 * H,),
        "bias_hh": (4 * H,),
        "weight_hr": (3, H),
        "weight_ch": (3 * H,),
    }
    second = {**first, "weight_ih": (4 * H, 2 * 3)}
    expected = {}
    for k, entries in enumerate([first, second]):
        for suffix in ("", "_reverse"):
            expected |= {f"{name}_l{k}{suffix}": shape for name, shape in entries.items()}
    assert list(shapes.items()) == list(expected.items())
    assert list(pyrnn.GRU(I, H, bias=False).params) == ["weight_ih_l0", "weight_hh_l0"]
    assert pyrnn.GRU(I, H).params["weight_ih_l0"].shape == (3 * H, I)
    assert pyrnn.RNN(I, H).params["weight_ih_l0"].shape == (H, I)


def test_initial_values(make):
    layer = make(L, bidirectional=True, rng=3)
    flat = layer.buffers[layer.dtype][0]
    bound = H**-0.5
    expected, begin = np.random.default_rng(3).uniform(-bound, bound, flat.size), 0
    for name, param in layer.params.items():
        own = slice(begin, begin := begin + param.size)
        expected[own] = layer._cell.starts.get(name.partition("_l")[0], expected[own])
    assert_same(flat, expected)
    assert_same(make(L, bidirectional=True, rng=np.random.default_rng(3)).buffers[layer.dtype][0], flat)
    single = make(L, bidirectional=True, rng=3, dtype="float32")
    assert_same(single.buffers[single.dtype][0], flat.astype(np.float32))
    assert (make(L, bidirectional=True, rng=None).buffers[layer.dtype][0] != flat).any()


# Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_streamed(make, rng, dtype):
    layer = make(L, dtype=dtype)
    x, state = rng.standard_normal((T, N, I)).astype(dtype), random_state(layer, rng)
    y, final = layer(x, state)
    stream = layer.stream(N, state)
    steps = [stream.step(x_t) for x_t in x]
    assert_same(np.stack(steps), y)
    assert_same(stream.state, final)

    stream = layer.stream(batch=N, state=state)
    assert_same(np.concatenate([stream(x[:2]), stream.step(x[2])[None], stream(x[3:])]), y)
    assert_same(stream.state, final)

    turned = make(L, dtype=dtype, batch_first=True)
    y2 = turned.stream(N, state)(x.swapaxes(0, 1))
    assert_same(y2.swapaxes(0, 1), y)
    assert y2.flags.c_contiguous

    one = like(state, lambda a: a[:, 0])
    stream = layer.stream(state=one)
    assert_same(np.concatenate([stream.step(x[0, 0])[None], stream.step(x[1, :1]), stream(x[2:, 0])]), y[:, 0])
    stream = layer.stream(state=like(state, lambda a: a[:, :1]))
    assert_same(stream(x[:, :1]), y[:, :1])


def test_stream_keeps_the_weights_it_was_made_with(make, rng):
    layer = make(L)
    x = rng.standard_normal((T, N, I))
    stream = layer.stream(N)
    y, _ = layer(x)
    layer.buffers[layer.dtype][0][:] = 0
    assert_same(stream(x), y)


def test_stream_state_is_a_copy(make, rng):
    layer = make(L)
    x, state = rng.standard_normal((T, N, I)), random_state(layer, rng)
    stream = layer.stream(N, state)
    before = stream.state
    assert_same(before, state)
    for array in (*parts(before), *parts(state)):
        array[...] = np.nan
    assert np.isfinite(stream(x)).all()
    saved = stream.state
    y = stream(x)
    stream.state = saved
    assert_same(stream(x), y)


def test_stream_reset(make, rng):
    layer = make(L)
    state = random_state(layer, rng)
    for rows, zeroed in [
        (None, [0, 1, 2]),
        (1, [1]),
        ([], []),
        ([2, 0, 2], [0, 2]),
        (np.int32(2), [2]),
        ([True, False, True], [0, 2]),
        (np.array([False] * 3), []),
    ]:
        stream = layer.stream(N, state)
        stream.reset(rows)
        for now, before in zip(parts(stream.state), parts(state), strict=True):
            kept = [n for n in range(N) if n not in zeroed]
            assert not now[:, zeroed].any()
            assert_same(now[:, kept], before[:, kept])


def test_a_copy_of_a_stream_goes_on_by_itself(make, rng):
    layer = make(L)
    x, stream = rng.standard_normal((T, N, I)), layer.stream(N)
    stream(x[:2])
    for copies in (copy.copy, copy.deepcopy):
        twin = copies(stream)
        layer.params[next(iter(layer.params))][:] += 1  # the packed weights stay
        before = stream.state
        assert_same(twin.state, before)
        y = twin(x[2:])
        assert_same(stream.state, before)
        stream(x[2:3])
        stream.state = before
        assert_same(stream(x[2:]), y)
        stream.state = before
    with pytest.raises(TypeError, match=r"\.stream: a stream cannot be pickled; its state can"):
        pickle.dumps(stream)


def test_stream_take(make, rng):
    """Rows kept, dropped, repeated and moved: as streams of these rows from the start."""
    layer = make(L)
    x = rng.standard_normal((T, 5, I))
    for rows in ([4, 0, 0, 2], [1], np.arange(5), [True, False, False, True, True], 3, [2] * 9):
        stream = layer.stream(5)
        stream(x[:2])
        step, before = stream.step, stream.state
        stream.take(rows)
        chosen = np.arange(5)[rows].reshape(-1)
        assert_same(stream.state, parts_of(before, chosen))
        later = x[2:, chosen]
        alone = layer.stream(len(chosen), parts_of(before, chosen))
        assert_same(stream(later[:1]), alone(later[:1]))
        assert_same(stream.step(later[1]), alone.step(later[1]))
        assert_same(stream.state, alone.state)
        assert repr(stream).endswith(f".stream(batch={len(chosen)})")
        step(x[2])  # of the stream as it was before
    empty = rf"^{type(layer).__name__}.stream: rows is empty, expected at least one"
    for wrong, message in [([], empty), ([5], "0 to 4"), ([-1], "0 to 4"), ([0.5], "integers"), ([[0]], "axis")]:
        stream = layer.stream(5)
        with pytest.raises((TypeError, ValueError), match=message):
            stream.take(wrong)
        assert repr(stream).endswith(".stream(batch=5)")


def parts_of(state, rows):
    """These rows of a state."""
    return tuple(part[:, rows] for part in state) if isinstance(state, tuple) else state[:, rows]


def test_stream_takes_array_likes(make, rng):
    layer = make(L, dtype="float32")
    expected = layer.stream().step(np.ones(I, np.float32))
    for x_t in (
        np.ones(I),
        np.ones(I, int),
        [1] * I,
        [[1.0] * I],
        np.ones(2 * I)[::2],
        cells.misaligned(np.ones(I, "f4")),
    ):
        assert_same(layer.stream().step(x_t).reshape(-1), expected)
        assert_same(layer.stream()(np.reshape(x_t, (1, I))).reshape(-1), expected)


def test_stream_step_results_are_fresh(make, rng):
    stream = make(L).stream(N)
    x = rng.standard_normal((2, N, I))
    first = stream.step(x[0])
    kept = first.copy()
    stream.step(x[1])
    assert_same(first, kept)
    assert first.flags.c_contiguous


# Linear and Embedding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0, 3)])
def test_linear(rng, shape, bias):
    layer = pyrnn.Linear(I, H, bias, dtype="float64", rng=0)
    x, dy = rng.standard_normal((*shape, I)), rng.standard_normal((*shape, H))
    weight = layer.params["weight"].copy()
    y, pullback = layer.vjp(x)
    np.testing.assert_allclose(y, x @ weight.T + (layer.params["bias"] if bias else 0), rtol=1e-12, atol=1e-12)
    assert_same(layer(x), y)
    kept = x.copy()
    x[...] = np.nan
    layer.params["weight"] = np.full((H, I), np.nan)
    with pytest.raises(ValueError, match="Linear pullback: dy has shape"):
        pullback(dy[..., 1:])
    assert not layer.grads["weight"].any()
    dx = pullback(dy)
    assert dx.shape == x.shape
    np.testing.assert_allclose(dx, dy @ weight, rtol=1e-12, atol=1e-12)
    flat = dy.reshape(-1, H), kept.reshape(-1, I)
    np.testing.assert_allclose(layer.grads["weight"], flat[0].T @ flat[1], rtol=1e-12, atol=1e-12)
    if bias:
        np.testing.assert_allclose(layer.grads["bias"], flat[0].sum(axis=0), rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(dy)


def test_linear_initial_values():
    layer = pyrnn.Linear(I, H, rng=5)
    expected = np.random.default_rng(5).uniform(-(I**-0.5), I**-0.5, H * I + H)
    assert_same(np.concatenate([p.ravel() for p in layer.params.values()]), expected.astype(np.float32))
    assert list(pyrnn.Linear(I, H, bias=False).params) == ["weight"]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_embedding(rng, shape):
    layer = pyrnn.Embedding(7, 5, dtype="float64", rng=0)
    ids, dy = rng.integers(0, 7, shape), rng.standard_normal((*shape, 5))
    y, pullback = layer.vjp(ids)
    assert_same(y, layer.params["weight"][ids])
    assert_same(layer(ids.tolist()), y)
    expected = np.zeros((7, 5))
    np.add.at(expected, ids, dy)
    if ids.ndim:
        ids[...] = -1
    with pytest.raises(ValueError, match="Embedding pullback: dy has shape"):
        pullback(dy[..., 1:])
    assert pullback(dy) is None
    np.testing.assert_allclose(layer.grads["weight"], expected, rtol=1e-12)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(dy)


def test_embedding_initial_values():
    layer = pyrnn.Embedding(100, 50, rng=5)
    assert_same(layer.params["weight"].ravel(), np.random.default_rng(5).standard_normal(5000).astype(np.float32))


def test_large_results_take_memory_that_was_given_back_and_none_that_lives():
    layer = pyrnn.Linear(7, 11 << 17, rng=0)  # a size that no other test has
    x = np.ones((3, 7), np.float32)
    kept = [layer(x + k) for k in range(4)]
    addresses = {y.__array_interface__["data"][0] for y in kept}
    assert len(addresses) == 4
    values = [y.copy() for y in kept]
    del kept[1]
    assert layer(x).__array_interface__["data"][0] in addresses  # of the one that is gone
    assert all(np.array_equal(y, v) for y, v in zip(kept, [values[0], *values[2:]], strict=True))
    view = layer(x)[1:]  # keeps what it is a view of
    expected = view.copy()
    for k in range(4):
        layer(x + k)
    assert np.array_equal(view, expected)
    assert view.base is not None
    assert kept[0].flags.writeable


# Masks ------------------------------------------------------------------------------------------------------------


def holed(rng, steps, rows):
    """A row without holes, one padded on the left, one of nothing, and others at random."""
    mask = rng.random((steps, rows)) < 0.6
    mask[:, 0], mask[:, 1], mask[:, 2] = True, np.arange(steps) >= 4, False
    return mask


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}])
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_a_masked_step_is_as_if_it_were_not_there(rng, cell, options):
    """Against rows that have nothing but their valid steps, bit for bit; the state is held, y and gradients are 0."""
    steps, rows, inputs, hidden = 9, 5, 3, 4
    layer = getattr(pyrnn, cell)(inputs, hidden, **options, rng=0)
    turned = options.get("batch_first", False)
    mask, x = holed(rng, steps, rows), rng.standard_normal((steps, rows, inputs)).astype("f4")
    x[~mask] = np.nan  # is not read
    reset = rng.random((steps, rows)) < 0.2
    state = layer(np.zeros((rows, 0, inputs) if turned else (0, rows, inputs)))[1]
    state = tuple(rng.standard_normal(s.shape).astype("f4") for s in (state if isinstance(state, tuple) else (state,)))
    state = state if len(state) == 2 else state[0]

    def turn(array):
        return array.swapaxes(0, 1) if turned else array

    arguments = {"mask": turn(mask), "reset": turn(reset)}
    (y, final), pullback = layer.vjp(turn(x), state, **arguments)
    for other, twin in zip(flat((y, final)), flat(layer(turn(x), state, **arguments)), strict=True):
        np.testing.assert_array_equal(other, twin)
    assert y.flags.c_contiguous
    dy = rng.standard_normal(y.shape).astype("f4")
    turn(dy)[~mask] = np.nan
    dx, dstate = pullback(dy, final)
    assert not turn(y)[~mask].any()
    assert not turn(dx)[~mask].any()
    assert dx.flags.c_contiguous
    for n in range(rows):
        own = mask[:, n]
        first = tuple(s[:, n] for s in state) if isinstance(state, tuple) else state[:, n]
        (y_n, final_n), pull_n = layer.vjp(x[own, n], first, reset=reset[own, n])
        np.testing.assert_array_equal(turn(y)[own, n], y_n)
        dx_n, dstate_n = pull_n(turn(dy)[own, n], final_n)
        np.testing.assert_array_equal(turn(dx)[own, n], dx_n)
        for whole, alone in ((final, final_n), (dstate, dstate_n)):
            for part, part_n in zip(flat(whole), flat(alone), strict=True):
                np.testing.assert_array_equal(part[:, n], part_n)


def test_a_mask_against_a_loop(rng):
    """h is held where the mask is False."""
    layer = pyrnn.RNN(3, 4, dtype="float64", rng=0)
    x, mask = rng.standard_normal((9, 5, 3)), holed(rng, 9, 5)
    w, r, b, c = layer.params.values()
    h = np.zeros((5, 4))
    y, final = layer(x, mask=mask)
    for t in range(9):
        h = np.where(mask[t][:, None], np.tanh(x[t] @ w.T + b + h @ r.T + c), h)
        np.testing.assert_allclose(y[t], np.where(mask[t][:, None], h, 0), rtol=1e-12)
    np.testing.assert_allclose(final[0], h, rtol=1e-12)


def test_masks_lengths_and_ids(rng):
    layer = pyrnn.GRU(3, 4, rng=0)
    table, ids, mask = rng.standard_normal((7, 3)).astype("f4"), rng.integers(0, 7, (9, 5)), holed(rng, 9, 5)
    lengths = np.array([9, 6, 3, 0, 7])
    both = mask & (np.arange(9)[:, None] < lengths)
    (y, h), pullback = layer.vjp(table[ids], mask=mask, lengths=lengths)
    for other in (layer(table[ids], mask=both), layer(table, ids=np.where(both, ids, -1), mask=mask, lengths=lengths)):
        np.testing.assert_array_equal(other[0], y)
        np.testing.assert_array_equal(other[1], h)
    dy, expected = rng.standard_normal(y.shape).astype("f4"), np.zeros((7, 3), "f8")
    np.add.at(expected, ids, pullback(dy)[0].astype("f8"))
    _, pull_table = layer.vjp(table, ids=ids, mask=both)
    np.testing.assert_allclose(pull_table(dy)[0], expected, rtol=1e-5, atol=1e-5)
    prefix = np.arange(9)[:, None] < lengths
    np.testing.assert_array_equal(layer(table[ids], mask=prefix)[0], layer(table[ids], lengths=lengths)[0])
    np.testing.assert_array_equal(layer(table[ids][:, 1], mask=mask[:, 1])[0], layer(table[ids], mask=mask)[0][:, 1])
    for wrong, error, match in [
        (mask[:, :4], ValueError, r"GRU: mask has shape \(9, 4\), expected \(T, N\) = \(9, 5\)"),
        (mask.astype(int), TypeError, "GRU: mask has dtype int64, expected booleans"),
    ]:
        with pytest.raises(error, match=match):
            layer(table[ids], mask=wrong)
    with pytest.raises(ValueError, match="GRU: ids holds -1, expected 0 to 6"):
        layer(table, ids=np.where(mask, -1, ids), mask=mask)


def test_mask_and_checkpoints_and_dropout(rng):
    layer = pyrnn.LSTM(3, 4, 2, dropout=0.5, rng=0)
    x, mask, dy = rng.standard_normal((9, 5, 3)), holed(rng, 9, 5), rng.standard_normal((9, 5, 4)).astype("f4")
    results = []
    for every in (None, 2):
        layer.rng = np.random.default_rng(1)
        layer.zero_grad()
        _, pullback = layer.vjp(x, mask=mask, checkpoint_every=every)
        results.append([pullback(dy)[0], *(grad.copy() for grad in layer.grads.values())])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(dy)


def test_batch_first_can_be_set_later(rng):
    """A call reads it, the straight way to the kernel too."""
    x = rng.standard_normal((4, 3, 5)).astype("float32")
    layer, other = pyrnn.GRU(5, 6, rng=0), pyrnn.GRU(5, 6, batch_first=True, rng=0)
    layer.batch_first = True
    cells.assert_same_bits(layer(x), other(x))
    (y, _), pullback = layer.vjp(x)
    (_, _), expected = other.vjp(x)
    cells.assert_same_bits(pullback(y), expected(y))


def test_a_result_lies_where_the_last_one_lay_that_was_given_back():
    """Caches may still hold that memory, of all that is kept of its size."""
    layer, x = pyrnn.Linear(200, 190, rng=0), np.ones((300, 200), "float32")
    first, second, third = layer(x), layer(x), layer(x)
    place = second.ctypes.data
    del first, third
    del second
    assert layer(x).ctypes.data == place
