"""The reference judged from outside: by central differences, by the equations in scalars, and by its own promises."""

from __future__ import annotations

import functools
import math

import cells
import numpy as np
import plain
import pytest
from cells import VARIANTS

import pyrnn
from pyrnn import reference
from pyrnn.reference import adam, cross_entropy, embedding, gru, layer_norm, linear, lstm, norm, rmsprop, rnn, sgd

T, N, INPUTS, H, P = 5, 4, 3, 3, 2

LENGTHS = np.array([3, 0, T, 4])
RESET = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], bool)
WALKS = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "reset": {"reset": RESET},
    "lengths reset": {"lengths": LENGTHS, "reset": RESET},
    "reverse": {"reverse": True},
    "reverse lengths": {"reverse": True, "lengths": LENGTHS},
    "reverse lengths reset": {"reverse": True, "lengths": LENGTHS, "reset": RESET},
}


class Problem(cells.Problem):
    """One call of an op of the reference, with gradients to send back."""

    def __init__(self, name, bias=True, inputs=INPUTS, dtype=np.float64, seed=0):
        super().__init__(name, T, N, inputs, H, rng=np.random.default_rng(seed), dtype=dtype, outputs=P, bias=bias)

    def forward(self, **walk):
        return self.op(reference).forward(self.x, self.state, self.weights, **walk, **self.option)

    def vjp(self, **walk):
        return self.op(reference).vjp(self.x, self.state, self.weights, **walk, **self.option)

    def loss(self, **walk):
        """Whose gradient dy and dstate are, of what the op returns."""
        y, state = self.forward(**walk)
        return np.sum(y * self.dy) + sum(np.sum(s * ds) for s, ds in zip(state, self.dstate, strict=True))

    def gradients(self, **walk):
        """y, state, dx, dstate and the gradients of the weights that are there, all in one list."""
        return self.results(reference, **walk)


def close(actual, expected, tolerance):
    """Both of one shape, and apart by no more than tolerance * the largest expected value (at least 1)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected), initial=0) <= tolerance * np.max(np.abs(expected), initial=1)


def same(ones, others):
    """Equal bit for bit, array by array."""
    for one, other in zip(ones, others, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def central_differences(loss, array, step=2e-6, of=None):
    """d loss() / d array, by changing one entry at a time; `of`: of the entries where that is True, others are 0."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        if of is not None and not of[index]:
            continue
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        below = loss()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


# ---- the gradients of the recurrent ops


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("walk", "bias"),
    [
        ("plain", True),
        ("reverse", True),
        ("lengths reset", True),
        ("reverse lengths reset", True),
        ("reverse lengths reset", False),
    ],
)
def test_gradients_are_central_differences(name, walk, bias):
    walk = WALKS[walk]
    problem = Problem(name, bias)
    loss = functools.partial(problem.loss, **walk)
    _, pullback = problem.vjp(**walk)
    grads = problem.zero_grads()
    dx, dstate = pullback(problem.dy, problem.dstate, grads)
    rng, share = np.random.default_rng(len(walk)), 1 if walk is WALKS["reverse lengths reset"] and bias else 0.4
    for array, gradient in zip((problem.x, *problem.state, *problem.weights), (dx, *dstate, *grads), strict=True):
        if array is not None:
            some = rng.random(array.shape) < share
            close(gradient * some, central_differences(loss, array, of=some), 1e-8)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("walk", ["plain", "reverse lengths reset"])
def test_looked_up_inputs(name, walk):
    """A table and the rows of it that are read: as those rows, and the table's gradient by central differences."""
    problem, table, walk = Problem(name), np.random.default_rng(1).standard_normal((6, INPUTS)), WALKS[walk]
    ids = np.random.default_rng(2).integers(0, 5, (T, N))  # row 5 is never read
    problem.x = table[ids]
    plain = problem.gradients(**walk)
    problem.x = table
    if "lengths" in walk:
        ids = np.where(np.arange(T)[:, None] < LENGTHS, ids, -7)
    looked_up = problem.gradients(ids=ids, **walk)
    same(plain[:1], problem.forward(ids=ids, **walk)[:1])
    place = 1 + len(problem.state)
    same(looked_up[:place] + looked_up[place + 1 :], plain[:place] + plain[place + 1 :])
    loss = functools.partial(problem.loss, ids=ids, **walk)
    close(looked_up[place], central_differences(loss, table), 1e-8)
    assert not looked_up[place][5].any()
    with pytest.raises(ValueError, match="expected 0 to 5"):
        problem.forward(ids=np.full((T, N), 6))


@pytest.mark.parametrize("name", VARIANTS)
def test_none_is_zeros(name):
    problem = Problem(name)
    zeros = [np.zeros_like(s) for s in problem.state]

    def run(state, dy, dstate):
        problem.state, problem.dy, problem.dstate = state, dy, dstate
        return problem.gradients()

    dy, dstate = problem.dy, problem.dstate
    same(run(None, dy, None), run(zeros, dy, zeros))
    same(run(None, None, dstate), run(zeros, np.zeros_like(dy), dstate))
    some = (dstate[0], *[None] * (len(zeros) - 1))
    same(run(None, None, some), run(None, None, (dstate[0], *zeros[1:])))


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_added_where_asked_for(name):
    problem = Problem(name)
    whole = problem.zero_grads()
    problem.vjp()[1](problem.dy, None, whole)
    some = (None, *(None if g is None else np.ones_like(g) for g in whole[1:]))
    problem.vjp()[1](problem.dy, None, some)
    for grad, expected in zip(some[1:], whole[1:], strict=True):
        if grad is not None:
            close(grad, 1 + expected, 1e-14)


# ---- the equations, in scalars


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def test_lstm_by_hand():
    """One unit, one input, two steps, forward and back, each number by its own line."""
    w_i, w_f, w_g, w_o = 0.5, -0.4, 0.9, 0.3
    u_i, u_f, u_g, u_o = -0.2, 0.7, 0.6, -0.8
    b_i, b_f, b_g, b_o = 0.1, 1.0, -0.3, 0.2
    x1, x2, h0, c0 = 0.8, -1.5, 0.25, -0.6

    def gates(x, h):
        i = sigmoid(w_i * x + u_i * h + b_i)
        f = sigmoid(w_f * x + u_f * h + b_f)
        g = math.tanh(w_g * x + u_g * h + b_g)
        o = sigmoid(w_o * x + u_o * h + b_o)
        return i, f, g, o

    i1, f1, g1, o1 = gates(x1, h0)
    c1 = f1 * c0 + i1 * g1
    h1 = o1 * math.tanh(c1)

    i2, f2, g2, o2 = gates(x2, h1)
    c2 = f2 * c1 + i2 * g2
    h2 = o2 * math.tanh(c2)

    # the loss is h2: back through step 2 ...
    do2 = math.tanh(c2) * o2 * (1 - o2)
    dc2 = o2 * (1 - math.tanh(c2) ** 2)
    di2 = dc2 * g2 * i2 * (1 - i2)
    df2 = dc2 * c1 * f2 * (1 - f2)
    dg2 = dc2 * i2 * (1 - g2**2)
    dh1 = u_i * di2 + u_f * df2 + u_g * dg2 + u_o * do2
    # ... and step 1
    do1 = dh1 * math.tanh(c1) * o1 * (1 - o1)
    dc1 = dc2 * f2 + dh1 * o1 * (1 - math.tanh(c1) ** 2)
    di1 = dc1 * g1 * i1 * (1 - i1)
    df1 = dc1 * c0 * f1 * (1 - f1)
    dg1 = dc1 * i1 * (1 - g1**2)

    weights = (
        np.array([[w_i], [w_f], [w_g], [w_o]]),
        np.array([[u_i], [u_f], [u_g], [u_o]]),
        np.array([b_i, b_f, b_g, b_o]),
        np.zeros(4),
        None,
        None,
    )
    x, state = np.array([[[x1]], [[x2]]]), (np.array([[h0]]), np.array([[c0]]))
    (y, (h, c)), pullback = lstm.vjp(x, state, weights)
    close(y.ravel(), [h1, h2], 1e-15)
    close([h.item(), c.item()], [h2, c2], 1e-15)

    grads = tuple(None if w is None else np.zeros_like(w) for w in weights)
    dx, (dh, dc) = pullback(np.array([[[0.0]], [[1.0]]]), None, grads)
    da1, da2 = np.array([di1, df1, dg1, do1]), np.array([di2, df2, dg2, do2])
    w, u = np.array([w_i, w_f, w_g, w_o]), np.array([u_i, u_f, u_g, u_o])
    close(dx.ravel(), [w @ da1, w @ da2], 1e-15)
    close([dh.item(), dc.item()], [u @ da1, dc1 * f1], 1e-15)
    close(grads[0].ravel(), da1 * x1 + da2 * x2, 1e-15)
    close(grads[1].ravel(), da1 * h0 + da2 * h1, 1e-15)
    close(grads[2], da1 + da2, 1e-15)
    close(grads[3], da1 + da2, 1e-15)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_is_the_equations(name):
    """As tests/plain.py writes them down once more; the first row begins with zeros."""
    problem, cell = Problem(name), VARIANTS[name][0]
    for s in problem.state:
        s[0] = 0
    weights = {k: w for k, w in zip(problem.op(reference).WEIGHTS, problem.weights, strict=True) if w is not None}
    y, state = problem.forward()
    for n in range(N):
        values = [s[n] for s in problem.state]
        for t in range(T):
            x = problem.x[t, n]
            values = plain.STEPS[cell](weights, x, values, **problem.option)
            values = [np.array(v) for v in values]
            close(y[t, n], values[0], 1e-14)
        for s, value in zip(state, values, strict=True):
            close(s[n], value, 1e-14)


def test_activations_at_the_edges():
    a = np.array([-np.inf, -1000.0, -40.0, -0.0, 0.0, 1000.0, np.inf, np.nan])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(rnn.sigmoid(a), [0, 0, math.exp(-40), 0.5, 0.5, 1, 1, np.nan], rtol=1e-13)
    np.testing.assert_array_equal(rnn.ACTIVATIONS["relu"](a), [0, 0, 0, 0, 0, 1000, np.inf, np.nan])
    back = rnn.ACTIVATIONS_BACKWARD["relu"](np.array([0.0, 2.0]), np.array([5.0, 5.0]))
    np.testing.assert_array_equal(back, [0, 5])


# ---- the walk through time


@pytest.mark.parametrize("name", VARIANTS)
def test_lengths_are_rows_cut_short(name):
    """A padded row gives what the row gives alone and without padding; so does its reverse."""
    for reverse in (False, True):
        problem = Problem(name)
        y, state = problem.forward(lengths=LENGTHS, reverse=reverse)
        for n, length in enumerate(LENGTHS):
            x, before = problem.x[:length, n : n + 1], tuple(s[n : n + 1] for s in problem.state)
            alone, after = problem.op(reference).forward(x, before, problem.weights, reverse=reverse, **problem.option)
            close(y[:length, n], alone[:, 0], 1e-14)
            assert not y[length:, n].any()
            for s, a in zip(state, after, strict=True):
                close(s[n], a[0], 1e-14)


@pytest.mark.parametrize("name", VARIANTS)
def test_reverse_is_forward_on_reversed_steps(name):
    problem = Problem(name)
    y, state = problem.forward(reverse=True)
    problem.x = problem.x[::-1]
    flipped, after = problem.forward()
    same([y, *state], [flipped[::-1], *after])


@pytest.mark.parametrize("name", VARIANTS)
def test_reset_starts_a_new_sequence(name):
    """Row 0 of RESET holds sequences [0, 2), [2, 4), [4, 5): each as if alone, from zero, in both directions."""
    problem = Problem(name)
    pieces = [(0, 2), (2, 4), (4, 5)]
    for reverse in (False, True):
        y, state = problem.forward(reset=RESET, reverse=reverse)
        entry = 4 if reverse else None  # in reverse the state enters row 0 at step 4; forward the mark shuts it out
        for start, end in pieces:
            before = tuple(s[:1] for s in problem.state) if start == entry else None
            x = problem.x[start:end, :1]
            alone, after = problem.op(reference).forward(x, before, problem.weights, reverse=reverse, **problem.option)
            close(y[start:end, :1], alone, 1e-14)
            if (start == 0) if reverse else (end == T):
                for s, a in zip(state, after, strict=True):
                    close(s[:1], a, 1e-14)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_marks_in_the_padding_mean_nothing(name, reverse):
    problem = Problem(name)
    valid = np.arange(T)[:, None] < LENGTHS
    expected = problem.gradients(lengths=LENGTHS, reverse=reverse)
    same(problem.gradients(lengths=LENGTHS, reset=~valid, reverse=reverse), expected)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_what_is_shut_out_is_never_read(name, reverse):
    """NaN in the padding of x and dy, and in states that a mark shuts out, reaches nothing."""
    walk = {"lengths": LENGTHS, "reset": RESET, "reverse": reverse}
    problem = Problem(name)
    expected = problem.gradients(**walk)
    padding = np.arange(T)[:, None] >= LENGTHS
    problem.x[padding] = np.nan
    problem.dy[padding] = np.nan
    if not reverse:
        for s in problem.state:
            s[0] = np.nan  # the mark at step 0 of row 0
    same(problem.gradients(**walk), expected)

    # a NaN inside one sequence of a row stays in this sequence
    problem = Problem(name)
    whole = problem.gradients(**walk)
    problem.x[0, 0] = np.nan  # the sequence [0, 2) of row 0, whose second one is [2, 3)
    partly = problem.gradients(**walk)
    assert np.isnan(partly[0][0, 0]).all()
    for index in (0, 1 + len(problem.state)):  # y and dx
        same([partly[index][2:, 0], partly[index][:, 1:]], [whole[index][2:, 0], whole[index][:, 1:]])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_checkpoints_change_no_bit(name, walk):
    problem = Problem(name)
    expected = problem.gradients(**walk)
    for every in (1, 2, 3, T, T + 7):
        same(problem.gradients(checkpoint_every=every, **walk), expected)


def test_checkpoints_recompute(monkeypatch):
    """With checkpoint_every each step is computed a second time on the way back, without it only once."""
    steps = []
    original = lstm.Cell.forward
    monkeypatch.setattr(lstm.Cell, "forward", lambda *args: steps.append(1) or original(*args))
    problem = Problem("lstm")
    for every, count in ((None, T), (2, 2 * T)):
        steps.clear()
        problem.gradients(checkpoint_every=every)
        assert len(steps) == count


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_pieces_are_the_whole(name, reverse):
    """Cut in two, with the state handed on and its gradient handed back."""
    problem = Problem(name)
    y, *rest = problem.gradients(reverse=reverse)
    first, second = (slice(2, T), slice(0, 2)) if reverse else (slice(0, 2), slice(2, T))
    option = {"reverse": reverse, **problem.option}
    (y1, middle), pull1 = problem.op(reference).vjp(problem.x[first], problem.state, problem.weights, **option)
    (y2, after), pull2 = problem.op(reference).vjp(problem.x[second], middle, problem.weights, **option)
    grads = problem.zero_grads()
    dx2, dmiddle = pull2(problem.dy[second], problem.dstate, grads)
    dx1, dstate = pull1(problem.dy[first], dmiddle, grads)
    pieces = [(y1, dx1), (y2, dx2)][:: -1 if reverse else 1]
    joined = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
    actual = [joined[0], *after, joined[1], *dstate, *(g for g in grads if g is not None)]
    for one, other in zip(actual, [y, *rest], strict=True):
        close(one, other, 1e-14)


@pytest.mark.parametrize("name", VARIANTS)
def test_out_is_written_and_returned(name):
    problem = Problem(name)
    y, _ = problem.forward(lengths=LENGTHS)
    both = np.full((T, N, 2 * y.shape[2]), np.nan)
    half = both[:, :, y.shape[2] :]
    out, _ = problem.forward(lengths=LENGTHS, out=half)
    assert out is half
    same([both[:, :, y.shape[2] :]], [y])
    assert np.isnan(both[:, :, : y.shape[2]]).all()


@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_pullback_owns_what_it_needs(name, every):
    """Everything but x may be overwritten before the pullback is called."""
    walk = {"lengths": LENGTHS.copy(), "reset": RESET.copy(), "checkpoint_every": every}
    problem = Problem(name)
    expected = problem.gradients(**walk)
    (y, state), pullback = problem.vjp(**walk)
    grads = problem.zero_grads()
    for array in (y, *state, *problem.state, *(w for w in problem.weights if w is not None)):
        array[:] = np.nan
    walk["lengths"][:] = 0
    walk["reset"][:] = True
    dx, dstate = pullback(problem.dy, problem.dstate, grads)
    offset = 1 + len(state)
    same([dx, *dstate, *(g for g in grads if g is not None)], expected[offset:])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("shape", [(0, N), (T, 0), (0, 0)], ids=str)
def test_nothing_to_do(name, shape):
    problem = Problem(name)
    steps, rows = shape
    problem.x, problem.dy = problem.x[:steps, :rows], problem.dy[:steps, :rows]
    problem.state = tuple(s[:rows] for s in problem.state)
    problem.dstate = tuple(s[:rows] for s in problem.dstate)
    y, *rest = problem.gradients()
    k = len(problem.state)
    same([y, *rest[:k]], [problem.dy, *problem.state])
    same([*rest[k : 2 * k + 1]], [problem.x, *problem.dstate])
    assert not any(g.any() for g in rest[2 * k + 1 :])


@pytest.mark.parametrize("name", VARIANTS)
def test_float32_stays_float32(name):
    for single, double in zip(
        Problem(name, dtype=np.float32).gradients(lengths=LENGTHS, reset=RESET),
        Problem(name).gradients(lengths=LENGTHS, reset=RESET),
        strict=True,
    ):
        assert single.dtype == np.float32
        close(single, double, 1e-5)


# ---- what is refused


def test_a_pullback_is_used_once():
    problem = Problem("lstm")
    _, pullback = problem.vjp()
    grads = problem.zero_grads()
    pullback(problem.dy, None, grads)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(problem.dy, None, grads)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_refused_pullback_adds_nothing_and_can_be_used(name):
    problem = Problem(name)
    expected = problem.gradients()
    (y, state), pullback = problem.vjp()
    grads = problem.zero_grads()
    good = (problem.dy, problem.dstate, grads)
    for error, bad in [
        (ValueError, (problem.dy[:-1], problem.dstate, grads)),
        (ValueError, (problem.dy[:, :, :1], problem.dstate, grads)),
        (TypeError, (problem.dy.astype(np.float32), problem.dstate, grads)),
        (ValueError, (problem.dy, problem.dstate[:-1], grads)),
        (ValueError, (problem.dy, tuple(d[:1] for d in problem.dstate), grads)),
        (ValueError, (problem.dy, problem.dstate, (grads[0][:1], *grads[1:]))),
        (TypeError, (problem.dy, problem.dstate, grads[:-1])),
    ]:
        with pytest.raises(error):
            pullback(*bad)
        assert not any(g.any() for g in grads if g is not None)
    dx, dstate = pullback(*good)
    same([y, *state, dx, *dstate, *(g for g in grads if g is not None)], expected)


def test_wrong_arguments():
    problem = Problem("rnn_tanh")
    x, state, weights = problem.x, problem.state, problem.weights
    with pytest.raises(ValueError, match=r"x has shape \(5, 4, 2\), expected \(5, 4, 3\)"):
        rnn.forward(x[:, :, :2], state, weights)
    with pytest.raises(ValueError, match="state has 2 entries, expected 1"):
        rnn.forward(x, (*state, *state), weights)
    with pytest.raises(ValueError, match="weight_hh has shape"):
        rnn.forward(x, state, (weights[0], weights[1][:, :2], *weights[2:]))
    with pytest.raises(ValueError, match="one bias"):
        rnn.forward(x, state, (*weights[:3], None))
    with pytest.raises(ValueError, match="lengths"):
        rnn.forward(x, state, weights, lengths=np.array([0, 1, 2, 6]))
    with pytest.raises(TypeError, match="lengths is of float64"):
        rnn.forward(x, state, weights, lengths=np.ones(N))
    with pytest.raises(ValueError, match="reset has shape"):
        rnn.forward(x, state, weights, reset=RESET[1:])
    with pytest.raises(ValueError, match="out has shape"):
        rnn.forward(x, state, weights, out=np.zeros((T, N, H + 1)))
    with pytest.raises(ValueError, match="checkpoint_every is 0"):
        rnn.vjp(x, state, weights, checkpoint_every=0)
    with pytest.raises(ValueError, match="nonlinearity is 'softplus'"):
        rnn.forward(x, state, weights, nonlinearity="softplus")


# ---- streams


@pytest.mark.parametrize("name", VARIANTS)
def test_a_stream_is_the_whole_run(name):
    lower = Problem(name, seed=1)
    outputs = lower.dy.shape[2]
    upper = Problem(name, inputs=outputs, seed=2)
    middle, state1 = lower.op(reference).forward(lower.x, None, lower.weights, **lower.option)
    y, state2 = upper.op(reference).forward(middle, None, upper.weights, **upper.option)
    state = [np.stack(pair) for pair in zip(state1, state2, strict=True)]

    stream = lower.op(reference).stream([lower.weights, upper.weights], N, **lower.option)
    same([np.stack([stream.step(x) for x in lower.x]), *stream.get_state()], [y, *state])

    stream.reset()
    assert stream.run(lower.x[:0]).shape == (0, N, outputs)
    same([np.concatenate([stream.run(lower.x[:2]), stream.run(lower.x[2:])]), *stream.get_state()], [y, *state])

    # back to a state of before; rows set to zero start anew
    stream.reset()
    stream.run(lower.x[:2])
    before = stream.get_state()
    after = stream.run(lower.x[2:])
    stream.set_state(before)
    same([stream.run(lower.x[2:])], [after])
    stream.set_state(before)
    stream.reset(np.array([0, 3]))
    mixed = stream.run(lower.x[2:])
    same([mixed[:, [1, 2]]], [after[:, [1, 2]]])
    stream.reset()
    same([mixed[:, [0, 3]]], [stream.run(lower.x[2:])[:, [0, 3]]])


def test_a_stream_owns_its_weights_and_refuses_wrong_input():
    problem = Problem("gru")
    stream = gru.stream([problem.weights], 1)
    expected, _ = gru.forward(problem.x[:, :1], None, problem.weights)
    for w in problem.weights:
        w[:] = np.nan
    close(stream.step(problem.x[0, 0]), expected[0, 0], 1e-15)
    state = stream.get_state()
    for bad in (problem.x[0], problem.x[0, 0, :2]):
        with pytest.raises(ValueError, match="x has shape"):
            stream.step(bad)
    with pytest.raises(TypeError, match="x is of float32"):
        stream.step(problem.x[0, 0].astype(np.float32))
    with pytest.raises(ValueError, match="state has shape"):
        stream.set_state((state[0][:, :, :1],))
    same(stream.get_state(), state)
    close(stream.run(problem.x[1:, :1]), expected[1:], 1e-15)


# ---- the other ops


def test_linear():
    rng = np.random.default_rng(0)
    x, weight, bias, dy = (rng.standard_normal(s) for s in [(5, 3), (2, 3), (2,), (5, 2)])
    for b in (bias, None):
        y = linear.forward(x, weight, b)
        for m in range(5):
            for o in range(2):
                close(y[m, o], sum(x[m] * weight[o]) + (0 if b is None else b[o]), 1e-15)

        def loss(b=b):
            return np.sum(linear.forward(x, weight, b) * dy)

        dweight, dbias = np.ones_like(weight), None if b is None else np.ones_like(b)
        close(linear.backward(dy, x, weight, dweight, dbias), central_differences(loss, x), 1e-8)
        close(dweight, 1 + central_differences(loss, weight), 1e-8)
        if b is not None:
            close(dbias, 1 + central_differences(loss, b), 1e-8)


def test_embedding():
    rng = np.random.default_rng(0)
    weight, ids, dy = rng.standard_normal((4, 3)), np.array([2, 0, 2, 2, 3]), rng.standard_normal((5, 3))
    same([embedding.forward(ids, weight)], [np.array([weight[i] for i in ids])])
    dweight = np.ones_like(weight)
    embedding.backward(dy, ids, dweight)
    close(dweight, 1 + np.array([dy[1], [0, 0, 0], dy[0] + dy[2] + dy[3], dy[4]]), 1e-15)
    for bad in (4, -1):
        with pytest.raises(ValueError, match=f"ids holds {bad}, expected 0 to 3"):
            embedding.forward(np.array([0, bad]), weight)
        with pytest.raises(ValueError, match=f"ids holds {bad}, expected 0 to 3"):
            embedding.backward(dy[:2], np.array([0, bad]), weight)


def test_layer_norm():
    rng = np.random.default_rng(0)
    x, dy, weight, bias = (rng.standard_normal(shape) for shape in ((2, 3, 5), (2, 3, 5), (5,), (5,)))
    y = layer_norm.forward(x, weight, bias, 0.1)
    for row, out in zip(x.reshape(6, 5), y.reshape(6, 5), strict=True):
        mean = sum(row) / 5
        deviation = math.sqrt(sum((v - mean) ** 2 for v in row) / 5 + 0.1)
        close(out, [(v - mean) / deviation * w + b for v, w, b in zip(row, weight, bias, strict=True)], 1e-14)
    same([layer_norm.forward(x, weight, None, 0.1)], [layer_norm.forward(x, weight, 0 * bias, 0.1)])
    gradients = layer_norm.backward(dy, *layer_norm.record(x, weight, bias, 0.1)[1:], weight)
    for array, gradient in zip((x, weight, bias), gradients, strict=True):
        expected = central_differences(lambda: (layer_norm.forward(x, weight, bias, 0.1) * dy).sum(), array)
        close(gradient, expected, 1e-8)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 0.0, 2.0, 1.0])], ids=["ones", "weights"])
def test_cross_entropy(weights):
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((4, 3)), np.array([2, 0, 1, 1])
    loss, dlogits = cross_entropy.forward(logits, targets, weights)
    w = np.ones(4) if weights is None else weights
    losses = [math.log(sum(math.exp(v) for v in row)) - row[t] for row, t in zip(logits, targets, strict=True)]
    assert isinstance(loss, float)
    close(loss, sum(w * losses) / sum(w), 1e-15)
    expected = central_differences(lambda: cross_entropy.forward(logits, targets, weights)[0], logits)
    close(dlogits, expected, 1e-8)


def test_cross_entropy_at_the_edges():
    logits = np.array([[1e4, -1e4], [np.nan, np.inf], [3.0, 3.0]], np.float32)
    weights = np.array([1, 0, 1], np.float32)
    loss, dlogits = cross_entropy.forward(logits, np.array([1, 99, 0]), weights)
    assert loss == pytest.approx((2e4 + math.log(2)) / 2)
    assert dlogits.dtype == np.float32
    np.testing.assert_array_equal(dlogits, [[0.5, -0.5], [0, 0], [-0.25, 0.25]])
    loss, dlogits = cross_entropy.forward(logits, np.array([1, 99, 0]), np.zeros(3, np.float32))
    assert loss == 0
    assert not dlogits.any()
    for bad in (2, -1):
        with pytest.raises(ValueError, match=f"targets holds {bad}, expected 0 to 1"):
            cross_entropy.forward(logits, np.array([0, 0, bad]), None)


def test_adam():
    """Two steps on one parameter, written out."""
    lr, beta1, beta2, eps, decay = 0.1, 0.9, 0.99, 1e-3, 0.5
    p0, d1, d2 = 1.5, -0.7, 2.0
    g1 = d1 + decay * p0
    m1, v1 = 0.1 * g1, 0.01 * g1**2
    p1 = p0 - lr * g1 / (abs(g1) + eps)  # the corrected m and v of the first step are g1 and g1^2
    g2 = d2 + decay * p1
    m2, v2 = 0.9 * m1 + 0.1 * g2, 0.99 * v1 + 0.01 * g2**2
    p2 = p1 - lr * (m2 / (1 - 0.9**2)) / (math.sqrt(v2 / (1 - 0.99**2)) + eps)

    params, m, v = np.array([p0]), np.zeros(1), np.zeros(1)
    option = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay}
    for count, (d, p) in enumerate([(d1, p1), (d2, p2)], start=1):
        grads = np.array([d])
        adam.step(params, grads, m, v, **option, step=count)
        close(params, [p], 1e-14)
        assert grads == d
    close([m[0], v[0]], [m2, v2], 1e-14)


def test_adam_with_decoupled_decay():
    """The decay is a factor before the step, and the step is that without decay."""
    option = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "step": 3}
    params, m, v, grads = np.array([1.5, -2.0]), np.array([0.3, 0.1]), np.array([0.2, 0.5]), np.array([-0.7, 2.0])
    plain = [params * (1 - 0.1 * 0.5), m.copy(), v.copy()]
    adam.step(plain[0], grads, plain[1], plain[2], **option, weight_decay=0.0)
    adam.step(params, grads, m, v, **option, weight_decay=0.5, decoupled=True)
    for a, b in zip((params, m, v), plain, strict=True):
        close(a, b, 1e-15)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop(momentum):
    """Two steps on one parameter, written out."""
    lr, keep, add, eps, decay = 0.1, 0.9, 0.1, 1e-3, 0.5
    p0, d1, d2 = 1.5, -0.7, 2.0
    g1 = d1 + decay * p0
    s1 = add * g1**2
    v1 = g1 / (math.sqrt(s1) + eps)
    p1 = p0 - lr * v1
    g2 = d2 + decay * p1
    s2 = keep * s1 + add * g2**2
    v2 = momentum * v1 + g2 / (math.sqrt(s2) + eps)
    p2 = p1 - lr * v2

    params, square, velocity = np.array([p0]), np.zeros(1), np.zeros(1) if momentum else None
    option = {"lr": lr, "keep": keep, "add": add, "eps": eps, "weight_decay": decay, "momentum": momentum}
    for d, p in [(d1, p1), (d2, p2)]:
        grads = np.array([d])
        rmsprop.step(params, grads, square, velocity, **option)
        close(params, [p], 1e-14)
        assert grads == d
    close(square, [s2], 1e-14)
    if velocity is not None:
        close(velocity, [v2], 1e-14)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    """Two steps on one parameter, written out."""
    lr, momentum, decay = 0.1, 0.9, 0.5
    p0, d1, d2 = 1.5, -0.7, 2.0
    g1 = d1 + decay * p0
    v1 = g1
    p1 = p0 - lr * (g1 + momentum * v1 if nesterov else v1)
    g2 = d2 + decay * p1
    v2 = momentum * v1 + g2
    p2 = p1 - lr * (g2 + momentum * v2 if nesterov else v2)

    params, velocity = np.array([p0]), np.zeros(1)
    for d, p in [(d1, p1), (d2, p2)]:
        grads = np.array([d])
        sgd.step(params, grads, velocity, lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov)
        close(params, [p], 1e-15)
        assert grads == d
    close(velocity, [v2], 1e-15)


def test_sgd_without_momentum():
    params = np.array([1.5, -2.0])
    sgd.step(params, np.array([1.0, 3.0]), None, lr=0.1, momentum=0.0, weight_decay=0.5, nesterov=False)
    close(params, [1.5 - 0.1 * 1.75, -2.0 - 0.1 * 2.0], 1e-15)
    with pytest.raises(ValueError, match=r"momentum is 0\.9"):
        sgd.step(params, params, None, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=False)


def test_optimisers_keep_the_dtype():
    params, grads, a, b = (np.ones(3, np.float32) for _ in range(4))
    adam.step(params, grads, a, b, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, step=1)
    sgd.step(params, grads, a, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    rmsprop.step(params, grads, a, b, lr=0.1, keep=0.9, add=0.1, eps=1e-8, weight_decay=0.1, momentum=0.9)
    assert {array.dtype for array in (params, grads, a, b)} == {np.dtype(np.float32)}


def test_norm():
    assert norm.l2(np.array([3.0, -4.0])) == 5.0
    assert norm.l2(np.zeros(0)) == 0.0
    assert norm.l2(np.full(4, 1e30, np.float32)) == pytest.approx(2e30, rel=1e-6)


def test_masks_that_hide_something_are_refused():
    """By every function, as by the kernels, and by what functions return."""
    x = np.ones((4, 2, 3))
    weights = tuple(pyrnn.GRU(3, 3, dtype="float64", rng=0).params.values())

    def masked(array):
        return np.ma.masked_array(array, np.arange(array.size).reshape(array.shape) == 1)

    dy, dweights = np.ones((8, 3)), np.zeros((3, 3))
    for call, match in [
        (lambda op: op.gru.forward(masked(x), None, weights), "x is a masked array that hides 1 of its 24"),
        (lambda op: op.gru.forward(x, (masked(x[0]),), weights), "is a masked array"),
        (lambda op: op.gru.vjp(x, None, (masked(weights[0]), *weights[1:])), "is a masked array"),
        (lambda op: op.gru.vjp(x, None, weights)[1](masked(x), None, (None,) * 4), "dy is a masked array"),
        (lambda op: op.gru.stream([weights], 2).step(masked(x[0])), "x is a masked array"),
        (lambda op: op.gru.stream([weights], 2).set_state((masked(x[:1]),)), "is a masked array"),
        (lambda op: op.linear.forward(masked(x), weights[1], None), r"linear\.forward: x is a masked array"),
        (lambda op: op.linear.backward(dy, dy, weights[1][:3], masked(dweights), None), "dweight is a masked array"),
        (lambda op: op.embedding.forward(masked(np.array([0, 1])), dy), r"embedding\.forward: ids is a masked"),
        (lambda op: op.norm.l2(masked(x.ravel())), r"norm\.l2: flat is a masked"),
        (lambda op: op.cross_entropy.forward(masked(dy), np.zeros(8, np.int64)), r"cross_entropy\.forward: logits"),
        (lambda op: op.attention.forward(masked(x), x, x, scale=1.0), r"attention\.forward: query is a masked"),
    ]:
        for backend in (pyrnn.kernels, pyrnn.reference):
            with pytest.raises((ValueError, TypeError), match=match):
                call(backend)
    hides_nothing = np.ma.masked_array(x, mask=False)
    np.testing.assert_array_equal(
        pyrnn.reference.gru.forward(hides_nothing, None, weights)[0], pyrnn.reference.gru.forward(x, None, weights)[0]
    )
