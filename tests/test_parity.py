"""The compiled kernels against their plain NumPy twins: every op, every option, outputs and all gradients.

The judge is the reference in float64 on the very values the kernel was given. Random configurations with sizes around
the widths of registers; memory layouts are drawn at random too.
"""

import copy

import numpy as np
import pytest
from cells import (
    DTYPES,
    FEW,
    LAYOUTS,
    SIZES,
    VARIANTS,
    Problem,
    assert_same_bits,
    cases,
    enlargement,
    keep_in_range,
    laid_out,
)

from pyrnn import kernels, reference
from pyrnn.cells import CELLS

# What the project promises, of the largest value.
PROMISED = {"float32": 2e-5, "float64": 1e-9}


def tolerance(dtype, terms):
    """Of the largest value: some units in the last place, and a random walk of as many roundings as there are terms."""
    return min(PROMISED[dtype], float(np.finfo(dtype).eps) * (32 + 4 * terms**0.5))


def assert_close(actual, expected, dtype, terms, names, option=None):
    """option: of the cell where it is one, whose norms may enlarge errors, and whose gradients then cancel."""
    enlarged = enlargement(option or {})
    bound = tolerance(dtype, terms) * enlarged
    for name, a, e in zip(names, actual, expected, strict=True):
        assert a.dtype == dtype, name
        assert a.shape == e.shape, name
        error, largest = np.max(np.abs(a - e), initial=0), np.max(np.abs(e), initial=0)
        few = name.endswith("dweight_hh") and e.ndim == 1  # products of IndRNN
        # The derivative y (1 - y) of a unit near 1 is off by as much as y, however small it is.
        near_1 = (option or {}).get("nonlinearity") == "sigmoid" and ", d" in name
        if enlarged > 1 or few or near_1:  # of numbers that cancel
            largest = max(largest, 0.1)
        assert error <= bound * largest, f"{name} is off by {error:.3g}, its largest value is {largest:.3g}"


def in_double(problem):
    """The same problem with the same values in float64."""
    twin = copy.copy(problem)
    twin.dtype = np.dtype("float64")

    def wide(arrays):
        return tuple(None if a is None else a.astype(np.float64) for a in arrays)

    twin.x, twin.dy = wide((problem.x, problem.dy))
    twin.state, twin.dstate, twin.weights = wide(problem.state), wide(problem.dstate), wide(problem.weights)
    return twin


def random_lengths(rng, steps, rows):
    lengths = rng.integers(0, steps + 1, rows)
    if rows and rng.random() < 0.3:
        lengths[:] = rng.choice(lengths)  # no ragged edge, perhaps shorter than T
    return lengths


def look_up(problem, table_rows):
    """The inputs become rows of a table; the ids in the padding are no rows of it."""
    steps, rows, inputs = problem.x.shape
    problem.x = problem.draw(table_rows, inputs)
    lengths = problem.walk.get("lengths", np.full(rows, steps))
    valid = np.arange(steps)[:, None] < lengths
    problem.walk["ids"] = np.where(valid, problem.rng.integers(0, table_rows, (steps, rows)), -(10**15))


def random_problem(variant, seed):
    """A problem with random sizes, walk and memory layouts, and how to call it."""
    rng = np.random.default_rng([seed, list(VARIANTS).index(variant)])
    dtype = str(rng.choice(DTYPES))
    steps, rows = int(rng.choice([1, 2, 3, 5, 8, 13])), int(rng.choice([1, 2, 3, 4, 5, 6, 7, 12, 13, 17]))
    if rng.random() < 0.05:
        steps, rows = int(rng.choice([0, 90])), int(rng.choice([0, 1, 3]))
    inputs, hidden = (int(n) for n in rng.choice(SIZES, 2))
    outputs = int(rng.choice(SIZES)) if rng.random() < 0.5 else hidden
    problem = Problem(
        variant, steps, rows, inputs, hidden, rng=rng, dtype=dtype, outputs=outputs, bias=rng.random() < 0.8
    )
    if rng.random() < 0.5:
        problem.walk["lengths"] = random_lengths(rng, steps, rows)
    if rng.random() < 0.4:
        problem.walk["reset"] = rng.random((steps, rows)) < rng.choice([0.1, 0.5])
    problem.walk["reverse"] = bool(rng.random() < 0.4)
    if rng.random() < 0.3:
        look_up(problem, int(rng.choice([1, 2, 7, 50])))
    call = {name: bool(rng.random() < 0.8) for name in ("state", "dy", "dstate")}
    if rng.random() < 0.4:
        call["checkpoint_every"] = int(rng.choice([1, 2, 3, 7, steps + 1]))
    return problem, call


def relaid(problem):
    """The same problem, each array in a memory layout of its own."""
    twin = copy.copy(problem)

    def lay(value):
        if isinstance(value, tuple):
            return tuple(lay(v) for v in value)
        return laid_out(str(problem.rng.choice(list(LAYOUTS))), value)

    for name in ("x", "state", "weights", "dy", "dstate"):
        setattr(twin, name, lay(getattr(problem, name)))
    twin.walk = {name: lay(v) if isinstance(v, np.ndarray) else v for name, v in problem.walk.items()}
    return twin


def terms_of(problem):
    """How many numbers at most have been added up in one result: units and inputs, steps, rows."""
    steps, rows, outputs = problem.dy.shape
    return steps * (1 + rows) + problem.x.shape[-1] + problem.weights[0].shape[0] + outputs


@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("variant", VARIANTS)
def test_random_configurations(variant, part):
    for seed in range(part * 1000, part * 1000 + cases(20)):
        problem, call = random_problem(variant, seed)
        given = relaid(problem)
        kept = [a.copy() for a in given.arguments()]
        actual = given.results(kernels, **call)
        expected = in_double(problem).results(reference, **call)
        label = f"{variant}, seed {seed}, "
        names = [label + name for name in problem.names()]
        assert_close(actual, expected, problem.dtype.name, terms_of(problem), names, problem.option)
        # forward is the first half of vjp, and no argument was written to
        y, after = given.op(kernels).forward(
            given.x, given.state if call["state"] else None, given.weights, **given.walk, **given.option
        )
        assert_same_bits([y, *after], actual[: 1 + len(after)])
        assert_same_bits(given.arguments(), kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_long_and_wide(variant, dtype):
    """Sizes at which threads share the work, blocks of weight gradients follow each other and chunks of steps fill."""
    for seed, (steps, rows, inputs, hidden, outputs) in enumerate(
        [(300, 2, 3, 5, 4), (3, 270, 33, 40, 17), (12, 1, 48, 129, 130)][: cases(3)]
    ):
        rng = np.random.default_rng(seed)
        problem = Problem(variant, steps, rows, inputs, hidden, rng=rng, dtype=dtype, outputs=outputs)
        problem.walk = {"lengths": random_lengths(rng, steps, rows), "reset": rng.random((steps, rows)) < 0.02}
        problem.walk["lengths"][0] = steps
        expected = in_double(problem).results(reference)
        for every in (None, 5):
            actual = problem.results(kernels, checkpoint_every=every)
            assert_close(actual, expected, dtype, terms_of(problem), problem.names(), problem.option)
        look_up(problem, 23)
        expected = in_double(problem).results(reference)
        for every in (None, 5):
            actual = problem.results(kernels, checkpoint_every=every)
            assert_close(actual, expected, dtype, terms_of(problem), problem.names(), problem.option)


# Wider than a level 2 cache: panels are cut along k, and a product goes on where the piece before it ended.


@pytest.mark.parametrize(
    ("variant", "inputs", "hidden", "outputs"),
    [*((variant, 5800, 40, 33) for variant in FEW), ("lstm_projection", 3, 6000, 33)],
)
def test_wider_than_a_cache(variant, inputs, hidden, outputs):
    rng = np.random.default_rng(0)
    problem = Problem(variant, 2, 9, inputs, hidden, rng=rng, dtype="float32", outputs=outputs)
    actual, expected = problem.results(kernels), in_double(problem).results(reference)
    assert_close(actual, expected, "float32", terms_of(problem), problem.names(), problem.option)


def test_wider_than_a_cache_with_ids():
    """The product with the hidden state, which starts at the table."""
    problem = Problem("rnn_tanh", 1, 9, 3, 5700, rng=np.random.default_rng(0), dtype="float32")
    look_up(problem, 5)
    x, ids = problem.x, problem.walk["ids"]
    looked_up = kernels.rnn.forward(x, problem.state, problem.weights, ids=ids)
    given = kernels.rnn.forward(x[ids], problem.state, problem.weights)
    assert_same_bits([looked_up[0], *looked_up[1]], [given[0], *given[1]])


@pytest.mark.parametrize("variant", FEW)
def test_an_id_that_is_read_very_often(variant):
    """Sums over 60,000 readings of one row, in float32."""
    problem = Problem(variant, 600, 100, 4, 5, rng=np.random.default_rng(0), dtype="float32", outputs=4)
    problem.dy += 1  # gradients of one sign
    look_up(problem, 1)
    expected = in_double(problem).results(reference)
    enlarged = PROMISED["float32"] * enlargement(problem.option)
    for name, a, e in zip(problem.names(), problem.results(kernels), expected, strict=True):
        assert np.max(np.abs(a - e)) <= enlarged * np.max(np.abs(e)), name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("argument", ["x", "state", "weights", "dy", "dstate", "lengths", "reset", "table", "ids"])
def test_layout_of_one_argument(argument, layout):
    """One argument at a time, so that a failure names it; the bits are those of plain arrays."""
    for variant in ("lstm_peephole_projection", "gru_reset_before"):
        rng = np.random.default_rng(5)
        problem = Problem(variant, 4, 5, 6, 17, rng=rng, outputs=9)
        problem.walk = {"lengths": np.array([4, 0, 2, 3, 4]), "reset": rng.random((4, 5)) < 0.3}
        if argument in ("table", "ids"):
            look_up(problem, 3)
        expected = problem.results(kernels)
        if argument in problem.walk:
            problem.walk[argument] = laid_out(layout, problem.walk[argument])
        else:
            name = "x" if argument == "table" else argument
            setattr(problem, name, laid_out(layout, getattr(problem, name)))
        assert_same_bits(problem.results(kernels), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_broadcast_arguments(variant, dtype):
    """Strides of zero along any axis, for all arrays at once."""
    problem = Problem(variant, 4, 5, 7, 16, rng=np.random.default_rng(1), dtype=dtype, outputs=3)

    def spread(a, axis):
        return None if a is None else np.broadcast_to(a.take([0], axis=axis), a.shape)

    for axis in (0, 1, 2, (0, 1, 2)):
        twin = copy.copy(problem)
        for k in (axis,) if isinstance(axis, int) else axis:
            twin.x, twin.dy = spread(twin.x, k), spread(twin.dy, k)
            twin.state, twin.dstate, twin.weights = (
                tuple(a if a is None or k >= a.ndim else spread(a, k) for a in arrays)
                for arrays in (twin.state, twin.dstate, twin.weights)
            )
        twin.walk = {
            "lengths": np.broadcast_to(np.int64(3), 5),
            "reset": np.broadcast_to(np.array([[False], [True], [False], [True]]), (4, 5)),
        }
        # Equal rows of either sign cancel each other: what is left may be much smaller than the terms.
        terms = 100 * terms_of(twin)
        assert_close(twin.results(kernels), in_double(twin).results(reference), dtype, terms, twin.names(), twin.option)


# ---- out


OUT = {
    "c": lambda a: a,
    "half_of_last_axis": lambda a: np.full((*a.shape[:2], 2 * a.shape[2]), 7, a.dtype)[..., a.shape[2] :],
    "fortran": lambda a: np.full(a.shape, 7, a.dtype, order="F"),
    "batch_first": lambda a: np.full((a.shape[1], a.shape[0], a.shape[2]), 7, a.dtype).swapaxes(0, 1),
    "negative": lambda a: np.full(a.shape, 7, a.dtype)[::-1, ::-1],
    "negative_features": lambda a: np.full(a.shape, 7, a.dtype)[..., ::-1],
    "every_other": lambda a: LAYOUTS["every_other"](np.full(a.shape, 7, a.dtype)),
    "misaligned": lambda a: LAYOUTS["misaligned"](np.full(a.shape, 7, a.dtype)),
    "odd_strides": lambda a: LAYOUTS["odd_strides"](np.full(a.shape, 7, a.dtype)),
    "inside": lambda a: LAYOUTS["inside"](np.full(a.shape, 7, a.dtype)),
}


def surroundings(view):
    """The bytes of the array that owns a view's memory, with the view's own elements set to zero."""
    base = view
    while isinstance(base.base, np.ndarray):
        base = base.base
    kept = view.copy()
    view[...] = 0
    rest = base.tobytes()
    view[...] = kept
    return rest


@pytest.mark.parametrize("layout", OUT)
@pytest.mark.parametrize("variant", ["rnn_tanh", "lstm_projection", "gru_reset_before"])
def test_out(variant, layout):
    for walk in ({}, {"lengths": np.array([4, 0, 2])}, {"lengths": np.array([2, 0, 1]), "reverse": True}):
        problem = Problem(variant, 4, 3, 5, 18, rng=np.random.default_rng(2), outputs=5)
        problem.walk = walk
        expected = problem.results(kernels)
        for call in ("forward", "vjp"):
            out = OUT[layout](np.full(problem.dy.shape, 7.0))
            around = surroundings(out)
            if call == "vjp":
                results = problem.results(kernels, out=out)
                assert_same_bits(results, expected)
                y = results[0]
            else:
                y, after = problem.op(kernels).forward(
                    problem.x, problem.state, problem.weights, out=out, **problem.walk, **problem.option
                )
                assert_same_bits([y, *after], expected[: 1 + len(after)])
            assert y is out
            assert surroundings(out) == around


def test_two_directions_share_an_out():
    problem = Problem("gru", 5, 3, 4, 17, rng=np.random.default_rng(3))
    y = np.empty((5, 3, 34))
    forth, back = y[..., :17], y[..., 17:]
    expected = []
    for reverse, half in ((False, forth), (True, back)):
        problem.walk = {"reverse": reverse, "lengths": np.array([5, 0, 3])}
        expected.append(problem.results(kernels)[0])
        problem.results(kernels, out=half)
    assert_same_bits([y], [np.concatenate(expected, axis=2)])


# ---- what is added to, and what is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_added_where_asked_for(variant):
    problem = Problem(variant, 5, 4, 6, 17, rng=np.random.default_rng(4), outputs=7)
    (_, _), pullback = problem.op(kernels).vjp(problem.x, problem.state, problem.weights, **problem.option)
    whole = problem.zero_grads()
    pullback(problem.dy, problem.dstate, whole)
    present = [k for k, w in enumerate(problem.weights) if w is not None]
    for asked in ([], *([k] for k in present), present):
        grads = tuple(np.ones_like(w) if k in asked else None for k, w in enumerate(problem.weights))
        (_, _), pullback = problem.op(kernels).vjp(problem.x, problem.state, problem.weights, **problem.option)
        pullback(problem.dy, problem.dstate, grads)
        for k in asked:
            np.testing.assert_allclose(grads[k], 1 + whole[k], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", [kernels, reference], ids=["kernels", "reference"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_but_the_gradient_of_x(variant, backend):
    """With need_dx=False the other gradients are the same bits; of a table too."""
    for rows, more in (((5, 4), {}), ((9,), {"ids": np.random.default_rng(1).integers(0, 9, (5, 4))})):
        problem = Problem(variant, 5, 4, 6, 17, rng=np.random.default_rng(4), outputs=7)
        x = np.random.default_rng(0).normal(size=(*rows, 6))
        found = []
        for need in (True, False):
            _, pullback = problem.op(backend).vjp(x, problem.state, problem.weights, **problem.option, **more)
            grads = problem.zero_grads()
            dx, dstate = pullback(problem.dy, problem.dstate, grads, need_dx=need)
            assert (dx is not None) is need
            found.append([*dstate, *(g for g in grads if g is not None)])
        assert_same_bits(*found)


@pytest.mark.parametrize("variant", [v for v, (op, _, _) in VARIANTS.items() if len(CELLS[op].states) > 1])
def test_entries_of_a_state_may_be_none(variant):
    """They are zeros."""
    problem = Problem(variant, 3, 4, 5, 9, rng=np.random.default_rng(6), outputs=4)
    whole = problem.state, problem.dstate
    count = len(problem.state)
    for given in (*np.eye(count, dtype=bool), *~np.eye(count, dtype=bool), np.zeros(count, bool)):
        absent = ~given if given.any() else given
        problem.state, problem.dstate = (
            tuple(a if there else None for a, there in zip(arrays, present, strict=True))
            for arrays, present in zip(whole, (given, absent), strict=True)
        )
        actual = problem.results(kernels)
        problem.state, problem.dstate = (
            tuple(a * there for a, there in zip(arrays, present, strict=True))
            for arrays, present in zip(whole, (given, absent), strict=True)
        )
        assert_close(actual, problem.results(reference), "float64", terms_of(problem), problem.names(), problem.option)


@pytest.mark.parametrize("backend", [kernels, reference])
@pytest.mark.parametrize("variant", VARIANTS)
def test_results_are_fresh(variant, backend):
    """Nothing that is returned shares memory with an argument or with another call's results."""
    problem = Problem(variant, 3, 2, 5, 9, rng=np.random.default_rng(7), outputs=4)
    first, second = problem.results(backend), problem.results(backend)
    for k, result in enumerate(first):
        for other in (*problem.arguments(), *second, *first[:k]):
            assert not np.shares_memory(result, other)
    for walk in ({"lengths": np.zeros(2, np.int64)}, {"lengths": np.zeros(2, np.int64), "reverse": True}):
        problem.walk = walk
        for result in problem.results(backend):
            assert not any(np.shares_memory(result, a) for a in problem.arguments())


# ---- values that are not finite


def pattern(a):
    """0 for finite numbers, and marks for NaN and both infinities."""
    return np.isnan(a) + 2 * np.isposinf(a) + 4 * np.isneginf(a)


PLACES = ["x", "h", "c", "dy", "dstate", "weight_ih", "weight_hh", "bias_ih"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("variant", "where"),
    [
        (v, w)
        for v, (op, _, _) in VARIANTS.items()
        for w in PLACES
        if (w != "c" or w in CELLS[op].states) and (w != "weight_hh" or w in CELLS[op].weights)
    ],
)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinities_and_nan_go_where_the_reference_says(variant, value, where, dtype):
    problem = Problem(variant, 5, 3, 6, 17, rng=np.random.default_rng(8), dtype=dtype, outputs=5)
    weights = dict(zip(problem.op(kernels).WEIGHTS, problem.weights, strict=True))
    target = {
        "x": problem.x[2, 1],
        "h": problem.state[0][1],
        "c": dict(zip(CELLS[problem.name].states, problem.state, strict=True)).get("c", problem.state[0])[1],
        "dy": problem.dy[3, 1],
        "dstate": problem.dstate[0][1],
        "weight_ih": weights["weight_ih"][-1],
        "weight_hh": np.atleast_2d(weights.get("weight_hh"))[0],  # of IndRNN a vector
        "bias_ih": weights["bias_ih"],
    }[where]
    target[1] = value
    for walk in ({"reverse": True}, {"reset": np.eye(5, 3, -3, bool), "lengths": np.array([5, 4, 3])}):
        problem.walk = walk
        with np.errstate(invalid="ignore", over="ignore"):
            expected = problem.results(reference)
        for name, a, e in zip(problem.names(), problem.results(kernels), expected, strict=True):
            assert np.array_equal(pattern(a), pattern(e)), name
            finite = np.isfinite(e)
            a, e = a[finite], e[finite]
            assert np.all(np.abs(a - e) <= 2e-5 * (1 + np.abs(e))), name


def largest_input(variant, dtype):
    """Norms square their numbers."""
    return float(np.finfo(dtype).max) ** (0.5 if "eps" in VARIANTS[variant][1] else 1)


@pytest.mark.parametrize(
    ("variant", "dtype", "scale"),
    [
        (v, d, s)
        for v in VARIANTS
        for d in DTYPES
        for s in (1e2, 1e4, 1e30, 1e300)
        if "relu" not in v and s <= largest_input(v, d)
    ],
)
def test_large_inputs_saturate(variant, dtype, scale):
    """Far out on the arms of sigmoid and tanh: no NaN from exp, in outputs and gradients."""
    problem = Problem(variant, 4, 3, 5, 17, rng=np.random.default_rng(9), dtype=dtype, outputs=4)
    problem.x *= problem.dtype.type(scale / 10)
    actual, expected = problem.results(kernels), in_double(problem).results(reference)
    for name, a, e in zip(problem.names(), actual, expected, strict=True):
        assert np.isfinite(a).all(), name
        # Beyond 1e4 everything is saturated; below, pre-activations are wrong by their own rounding, and slopes,
        # found as 1 - h * h, by that of 1.
        rounding = min(scale, 1e4) * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(a, e, rtol=1e-4 + rounding, atol=2e-5 * np.abs(e).max() + rounding, err_msg=name)


@pytest.mark.parametrize("backend", [kernels, reference])
def test_relu_at_nan_and_at_zero(backend):
    one, x = np.ones((1, 1)), np.array([[[np.nan], [0.0], [-0.0], [2.0]]])
    state = (np.zeros((4, 1)),)
    (y, _), pullback = backend.rnn.vjp(x, state, (one, one, None, None), nonlinearity="relu")
    np.testing.assert_array_equal(y[0, :, 0], [np.nan, 0, 0, 2])
    dx, _ = pullback(np.ones((1, 4, 1)), None, (None,) * 4)
    np.testing.assert_array_equal(dx[0, :, 0], [1, 0, 0, 1])  # at NaN as torch has it: only what is <= 0 is shut


# ---- nothing to do


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_leaves_the_state(variant, dtype):
    """No steps, no rows, or no row with a valid step: the states pass through, forward and back, gradients are 0."""
    for steps, rows, hidden, lengths in [
        (0, 3, 17, None),
        (4, 0, 17, None),
        (0, 0, 5, None),
        (4, 3, 17, np.zeros(3, np.int64)),
        (4, 300, 65, np.zeros(300, np.int64)),
    ]:
        problem = Problem(variant, steps, rows, 6, hidden, rng=np.random.default_rng(0), dtype=dtype, outputs=5)
        for reverse in (False, True):
            problem.walk = {"reverse": reverse, "lengths": lengths, "reset": np.ones((steps, rows), bool)}
            for every in (None, 1):
                results = dict(zip(problem.names(), problem.results(kernels, checkpoint_every=every), strict=True))
                assert not results["y"].any()
                assert results["y"].shape == problem.dy.shape
                assert not results["dx"].any()
                entries = CELLS[problem.name].states
                assert_same_bits([results[e] for e in entries], problem.state)
                assert_same_bits([results[f"d{e}"] for e in entries], problem.dstate)
                assert not any(results[name].any() for name in results if name.startswith(("dw", "db")))
            _, after = problem.op(kernels).forward(
                problem.x, problem.state, problem.weights, **problem.walk, **problem.option
            )
            assert_same_bits(after, problem.state)


# ---- streams


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_stream(variant, dtype):
    for seed in range(cases(6)):
        rng = np.random.default_rng(seed)
        rows, inputs, hidden, outputs = (int(n) for n in rng.choice([1, 2, 5, 9, 16, 17, 33], 4))
        first = Problem(variant, 6, rows, inputs, hidden, rng=rng, dtype=dtype, outputs=outputs, bias=seed % 2 == 0)
        second = Problem(variant, 1, rows, first.dy.shape[2], hidden, rng=rng, dtype=dtype, outputs=outputs)
        layers = [first.weights, second.weights]
        wide = [in_double(first).weights, in_double(second).weights]
        ours = first.op(kernels).stream(layers, rows, **first.option)
        theirs = first.op(reference).stream(wide, rows, **first.option)
        state = tuple(first.draw(2, rows, s.shape[1]) for s in first.state)
        keep_in_range(CELLS[first.name], state)
        results = []
        for stream, x in ((ours, first.x), (theirs, first.x.astype(np.float64))):
            stream.set_state(tuple(s.astype(x.dtype) for s in state))
            result = [stream.step(np.asfortranarray(x[0])), stream.run(x[1:4])]
            stream.reset(np.array([rows - 1]))
            result += [stream.run(x[4:5]), *stream.get_state()]
            stream.reset()
            result += [*stream.get_state(), stream.run(x[5:6]), stream.run(x[:0]), *stream.get_state()]
            if rows == 1:
                result.append(stream.step(x[0, 0]))
            results.append(result)
        names = [f"result {k}" for k in range(len(results[0]))]
        assert_close(*results, dtype, 6 * (inputs + hidden + outputs), names, first.option)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_on_the_weights_of_a_stream(variant, dtype):
    """A step and a run from other states give the bits that they have in the stream and in the op, and leave it alone;
    the reference does the same."""
    for seed in range(cases(4)):
        rng = np.random.default_rng(seed)
        rows, inputs, hidden = (int(n) for n in rng.choice([1, 2, 5, 9, 17], 3))
        problem = Problem(variant, 5, rows, inputs, hidden, rng=rng, dtype=dtype, outputs=4, bias=seed % 2 == 0)
        keep_in_range(CELLS[problem.name], problem.state)
        walk = {"lengths": random_lengths(rng, 5, rows), "reverse": bool(seed % 2)}
        results = []
        for backend, p in ((kernels, problem), (reference, in_double(problem))):
            op = p.op(backend)
            stream = op.stream([p.weights], rows, **p.option)
            before = stream.get_state()
            y, after = stream.step_from(p.x[0], tuple(s[None] for s in p.state))
            whole = stream.forward(p.x, p.state, **walk)
            assert_same_bits(stream.get_state(), before)
            stream.set_state(tuple(s[None] for s in p.state))
            assert_same_bits([stream.step(p.x[0]), *stream.get_state()], [y, *after])
            once = op.forward(p.x, p.state, p.weights, **walk, **p.option)
            assert_same_bits([whole[0], *whole[1]], [once[0], *once[1]])
            results.append([y, *after, whole[0], *whole[1]])
        names = [f"seed {seed}: result {k}" for k in range(len(results[0]))]
        assert_close(*results, dtype, 6 * (inputs + hidden), names, problem.option)


# ---- the other ops


def relay(rng, a):
    return laid_out(str(rng.choice(list(LAYOUTS))), a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        rows = int(rng.choice([0, 1, 2, 3, 5, 6, 7, 13, 255, 256, 257, 600]))
        inputs, outputs = (int(n) for n in rng.choice(SIZES, 2))
        x, weight, dy = (
            rng.standard_normal(s).astype(dtype) for s in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        bias = rng.standard_normal(outputs).astype(dtype) if rng.random() < 0.7 else None
        start = rng.standard_normal((outputs, inputs)).astype(dtype)
        after = bool(rng.random() < 0.5)
        if after:
            x = np.maximum(x, 0)
        wide = [None if a is None else a.astype(np.float64) for a in (x, weight, bias, dy)]

        def both(backend, x, weight, bias, dy, start, after=after):
            dweight, dbias = start.copy(), None if bias is None else bias.copy()
            y = backend.linear.forward(x, weight, bias)
            dx = backend.linear.backward(dy, x, weight, dweight, dbias, after_relu=after)
            return [y, dx, dweight] + ([] if dbias is None else [dbias])

        actual = both(kernels, *(None if a is None else relay(rng, a) for a in (x, weight, bias, dy)), start)
        expected = both(reference, *wide, start.astype(np.float64))
        names = [f"seed {seed}, {name}" for name in ("y", "dx", "dweight", "dbias")]
        assert_close(actual, expected, dtype, rows + inputs + outputs, names[: len(actual)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_linear(dtype):
    """Maps of rows, and of windows over steps, with what is made of their results; the same bits as without packing."""
    names = ("identity", "relu", "sigmoid", "tanh", "softmax", "log_softmax")
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        outputs, inputs, positions = int(rng.choice(SIZES)), int(rng.choice(SIZES)), int(rng.integers(1, 5))
        act = str(rng.choice(names))
        weight = rng.standard_normal((outputs, inputs)).astype(dtype)
        kernel = rng.standard_normal((outputs, inputs, positions)).astype(dtype)
        bias = rng.standard_normal(outputs).astype(dtype) if rng.random() < 0.7 else None
        rows, steps, past = (int(n) for n in rng.choice([0, 1, 2, 3, 7, 30], 3))
        x = rng.standard_normal((int(rng.choice([1, 3, 100, 1000])), inputs)).astype(dtype)
        wave, before = (rng.standard_normal((rows, inputs, n)).astype(dtype) for n in (steps, past))
        how = {name: int(rng.integers(1, 4)) for name in ("stride", "dilation")}
        how |= {name: int(rng.integers(0, 3)) for name in ("before", "after")}
        wide = [None if a is None else a.astype(np.float64) for a in (weight, bias, x, kernel, wave, before)]

        def run(backend, weight, bias, x, kernel, wave, before, act=act, how=how):
            packed = backend.linear.packed(weight, bias, act)
            windowed = backend.linear.windowed(kernel, bias, act, **how)
            y, joined = windowed.continued(before, wave)
            return [packed.forward(x), windowed.forward(wave), y, joined, backend.linear.activated(x, act)]

        drawn = [None if a is None else relay(rng, a) for a in (weight, bias, x, kernel, wave, before)]
        actual = run(kernels, *drawn)
        results = [f"seed {seed}, {name}" for name in ("forward", "windows", "continued", "joined", "activated")]
        assert_close(actual, run(reference, *wide), dtype, 8 * inputs * positions, results)
        wide_steps = rng.standard_normal((rows, steps, 2 * inputs)).astype(dtype).swapaxes(1, 2)
        windowed = kernels.linear.windowed(kernel, bias, act)
        for part in (wide_steps[:, :inputs], wide_steps[:, ::2]):  # side by side, as in a whole one, and apart
            assert_same_bits([windowed.forward(part)], [windowed.forward(part.copy())])
        unpacked = kernels.linear.forward(*drawn[2:3], *drawn[:2])
        assert_same_bits([kernels.linear.activated(unpacked, act)], actual[:1])


def convolution_problem(rng, dtype):
    """Arrays and options of one convolution, with sizes around the widths of registers and of tiles."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    inputs, outputs = (int(n) for n in rng.choice([1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 40], 2))
    if rng.random() < 0.2:
        groups, inputs, outputs = int(rng.choice([2, 7, 8, 17, 33])), 1, 1
    kernel, stride, dilation = (int(rng.choice(some)) for some in ([1, 2, 3, 5, 9], [1, 1, 2, 3, 11], [1, 1, 2, 4]))
    steps, rows = int(rng.choice([0, 1, 2, 5, 9, 20, 50, 300])), int(rng.choice([0, 1, 2, 3, 5]))
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    options |= {name: int(rng.integers(0, 12)) for name in ("before", "after")}
    x, weight, bias = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((steps, rows, groups * inputs), (groups * outputs, inputs, kernel), groups * outputs)
    )
    if rng.random() < 0.5:
        options["lengths"] = random_lengths(rng, steps, rows)
        x[np.arange(steps)[:, None] >= options["lengths"]] = np.nan
    return x, weight, bias if rng.random() < 0.7 else None, options


@pytest.mark.parametrize("dtype", DTYPES)
def test_conv1d(dtype):
    for seed in range(cases(250)):
        rng = np.random.default_rng(seed)
        x, weight, bias, options = convolution_problem(rng, dtype)
        start = rng.standard_normal(weight.shape).astype(dtype)

        def both(backend, x, weight, bias, dy, start, options):
            dweight, dbias = start.copy(), None if bias is None else bias.copy()
            y = backend.conv1d.forward(x, weight, bias, **options)
            dx = backend.conv1d.backward(y if dy is None else dy, x, weight, dweight, dbias, **options)
            return [y, dx, dweight] + ([] if dbias is None else [dbias])

        wide = [None if a is None else a.astype(np.float64) for a in (x, weight, bias)]
        shape = reference.conv1d.forward(*wide, **options).shape
        dy = rng.standard_normal(shape).astype(dtype)
        given = [None if a is None else relay(rng, a) for a in (x, weight, bias, dy)]
        actual = both(kernels, *given, start, options)
        expected = both(reference, *wide, dy.astype(np.float64), start.astype(np.float64), options)
        names = [f"seed {seed}, {name}" for name in ("y", "dx", "dweight", "dbias")]
        assert_close(actual, expected, dtype, x.size + weight.size, names[: len(actual)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_stream_of_conv1d(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        x, weight, bias, options = convolution_problem(rng, dtype)
        x, rows = np.nan_to_num(x), x.shape[1]
        options = {name: options[name] for name in ("stride", "dilation", "groups")}
        options["before"] = int(rng.integers(0, options["dilation"] * (weight.shape[2] - 1) + 1))
        if not rows:
            continue
        whole = kernels.conv1d.forward(x, weight, bias, **options)
        ours, plain = (backend.conv1d.stream(weight, bias, rows, **options) for backend in (kernels, reference))
        parts, t = [whole[:0]], 0
        while t < len(x):
            count = min(int(rng.integers(0, 6)), len(x) - t)
            if count == 1:
                y, expected = ours.step(relay(rng, x[t])), plain.step(x[t])
                assert (y is None) == (expected is None)
                parts.append(whole[:0] if y is None else y[None])
            else:
                parts.append(ours.run(relay(rng, x[t : t + count])))
                assert parts[-1].shape == plain.run(x[t : t + count]).shape
            t += count
            (past, due), (plain_past, plain_due) = ours.get_state(), plain.get_state()
            assert due == plain_due
            np.testing.assert_array_equal(past, plain_past)
            if rng.random() < 0.1:
                ours = ours.take(np.arange(rows))
                ours.set_state((past, due))
        assert_same_bits([np.concatenate(parts)], [whole])


def attention_problem(rng, dtype):
    """query, key, value, mask, dout and the options of one call, with sizes around blocks of rows and keys."""
    batch = tuple(int(n) for n in rng.integers(1, 3, rng.integers(0, 3)))
    heads, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    queries = int(rng.choice([0, 1, 2, 5, 7, 17, 48, 49, 100]))
    keys = int(rng.choice([0, 1, 3, 16, 17, 63, 64, 65, 255, 256, 257, 300, 1025, 1500]))
    features, width = (int(n) for n in rng.choice(SIZES, 2))

    def draw(*shape):
        return rng.standard_normal((*batch, *shape)).astype(dtype)

    query, key = draw(heads * groups, queries, features), draw(heads, keys, features)
    value, dout = draw(heads, keys, width), draw(heads * groups, queries, width)
    options = {"scale": features**-0.5}
    if rng.random() < 0.4:
        options["right"] = int(rng.integers(-1, 40))
    if rng.random() < 0.4:
        options["left"] = int(rng.integers(-1, 40))
    if rng.random() < 0.3:
        options["softcap"] = float(rng.uniform(0.5, 5))
    if rng.random() < 0.4:
        options["offsets"] = np.asarray(rng.integers(-20, keys + 1, batch), np.int64)
    if rng.random() < 0.4:
        options["lengths"] = np.asarray(rng.integers(0, keys + 1, batch), np.int64)
    mask, kind = None, rng.random()
    if kind < 0.3:
        mask = rng.random((*batch, heads * groups, queries, keys)) < 0.5
    elif kind < 0.6:
        mask = draw(heads * groups, queries, keys)
        mask[rng.random(mask.shape) < 0.3] = -np.inf
    return query, key, value, mask, dout, options


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        query, key, value, mask, dout, options = attention_problem(rng, dtype)

        def both(backend, query, key, value, mask, dout, options):
            out, stats = backend.attention.forward(query, key, value, mask, **options)
            return [out, *backend.attention.backward(dout, query, key, value, out, stats, mask, **options)]

        given = (query, key, value, mask, dout)
        actual = both(kernels, *(None if a is None else relay(rng, a) for a in given), options)
        wide = (a if a is None or a.dtype == bool else a.astype(np.float64) for a in given)
        expected = both(reference, *wide, options)
        # Where every query sees one key alone the gradients of queries and keys are rounding errors in the reference.
        gradients = [np.max(np.abs(a), initial=0) for a in expected]
        if max(gradients[1:3]) < 1e-12:
            assert max(np.max(np.abs(a), initial=0) for a in actual[1:3]) < 1e-12
            del actual[1:3], expected[1:3]
        names = [f"seed {seed}, {name}" for name in ("out", "dquery", "dkey", "dvalue")]
        for name, a, e in zip(names, actual, expected, strict=False):
            assert a.dtype == dtype
            error, largest = np.max(np.abs(a - e), initial=0), np.max(np.abs(e), initial=0)
            assert error <= PROMISED[dtype] * largest, f"{name} is off by {error:.3g} of {largest:.3g}: {options}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_additive_attention(dtype):
    for seed in range(cases(100)):
        rng = np.random.default_rng(seed)
        rows, queries = int(rng.choice([0, 1, 2, 5])), int(rng.choice([0, 1, 3, 32, 33, 70]))
        keys = int(rng.choice([0, 1, 3, 16, 17, 31, 32, 33, 65, 130]))
        hidden, width = (int(n) for n in rng.choice(SIZES, 2))
        shapes = {
            "query": (rows, queries, hidden), "key": (rows, keys, hidden), "value": (rows, keys, width),
            "dout": (rows, queries, width), "score": (hidden,), "start": (hidden,),
        }  # fmt: skip
        given = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
        given["score"] *= given["score"].dtype.type(hidden**-0.5)  # so that weights are not all 0 but for one,
        given["dout"] *= given["dout"].dtype.type(width**-0.5)  # nor their gradients far above start
        lengths = rng.integers(0, keys + 1, rows) if rng.random() < 0.5 else None

        def both(backend, query, key, value, score, dout, start, lengths=lengths):
            out, weights = backend.additive_attention.forward(query, key, value, score, lengths)
            dscore = start.copy()
            grads = backend.additive_attention.backward(dout, query, key, value, score, weights, dscore, lengths)
            return [out, weights, *grads, dscore]

        laid = {name: relay(rng, a) for name, a in given.items() if name != "start"}
        actual = both(kernels, **laid, start=given["start"])
        expected = both(reference, **{name: a.astype(np.float64) for name, a in given.items()})
        names = [f"seed {seed}, {name}" for name in ("out", "weights", "dquery", "dkey", "dvalue", "dscore")]
        for name, a, e in zip(names, actual, expected, strict=True):
            assert a.dtype == dtype
            assert a.shape == e.shape, name
            error, largest = np.max(np.abs(a - e), initial=0), np.max(np.abs(e), initial=0)
            assert error <= PROMISED[dtype] * max(largest, 1e-3), f"{name} is off by {error:.3g} of {largest:.3g}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding(dtype):
    for seed in range(cases(20)):
        rng = np.random.default_rng(seed)
        rows, classes, width = int(rng.choice([0, 1, 7, 100])), int(rng.choice([1, 2, 50])), int(rng.choice(SIZES))
        weight = rng.standard_normal((classes, width)).astype(dtype)
        dy = rng.standard_normal((rows, width)).astype(dtype)
        ids = rng.integers(0, classes, rows)
        y = kernels.embedding.forward(relay(rng, ids), relay(rng, weight))
        assert_same_bits([y], [reference.embedding.forward(ids, weight)])
        ours, theirs = weight.copy(), weight.astype(np.float64)
        kernels.embedding.backward(relay(rng, dy), relay(rng, ids), ours)
        reference.embedding.backward(dy.astype(np.float64), ids, theirs)
        assert_close([ours], [theirs], dtype, rows, [f"seed {seed}"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        features, shape = int(rng.choice([*SIZES, 257])), tuple(rng.choice([0, 1, 2, 7], int(rng.integers(4))))
        x, dy = (rng.standard_normal((*shape, features)).astype(dtype) for _ in range(2))
        weight, bias = (rng.standard_normal(features).astype(dtype) for _ in range(2))
        given = relay(rng, weight), None if rng.random() < 0.3 else relay(rng, bias), 1e-5
        exact = weight.astype("f8"), None if given[1] is None else bias.astype("f8"), 1e-5
        y, normal, inverse = kernels.layer_norm.record(relay(rng, x), *given)
        assert_same_bits([kernels.layer_norm.forward(relay(rng, x), *given)], [y])
        expected = reference.layer_norm.record(x.astype("f8"), *exact)
        back = kernels.layer_norm.backward(relay(rng, dy), normal, inverse, given[0])
        wide = reference.layer_norm.backward(dy.astype("f8"), *(a.astype("f8") for a in (normal, inverse, weight)))
        for one, other in zip((y, normal, inverse, *back), (*expected, *wide), strict=True):
            assert one.dtype == dtype
            assert one.shape == other.shape
            bound = tolerance(dtype, 10 * features) * np.max(np.abs(other), initial=1)
            assert np.max(np.abs(one - other), initial=0) <= bound, f"seed {seed}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        rows, classes = int(rng.choice([0, 1, 2, 7, 64])), int(rng.choice([*SIZES, 257, 1000]))
        logits = (rng.standard_normal((rows, classes)) * rng.choice([0, 1, 10, 80])).astype(dtype)
        targets = rng.integers(0, classes, rows)
        weights = None
        if rng.random() < 0.5:
            weights = rng.choice([0.0, 0.0, 1.0, 0.25], rows).astype(dtype)
            logits[weights == 0] = np.nan
        loss, dlogits = kernels.cross_entropy.forward(
            relay(rng, logits), relay(rng, targets), None if weights is None else relay(rng, weights)
        )
        wide = None if weights is None else weights.astype(np.float64)
        expected, dexpected = reference.cross_entropy.forward(logits.astype(np.float64), targets, wide)
        assert isinstance(loss, float)
        assert abs(loss - expected) <= tolerance(dtype, classes) * max(abs(expected), 1)
        assert dlogits.dtype == dtype
        assert np.max(np.abs(dlogits - dexpected), initial=0) <= tolerance(dtype, classes) / max(rows, 1) * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_ctc(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        steps, rows = int(rng.choice([0, 1, 2, 9, 40])), int(rng.choice([0, 1, 2, 5, 9]))
        classes, longest = int(rng.choice([*SIZES, 90])), int(rng.choice([0, 1, 3, 8, 17]))
        logits = (rng.standard_normal((steps, rows, classes)) * rng.choice([0, 1, 10, 200])).astype(dtype)
        targets, counts = rng.integers(0, classes, (rows, longest)), rng.integers(0, longest + 1, rows)
        blank = int(rng.integers(classes))
        targets[targets == blank] = (blank + 1) % classes
        counts[:] = 0 if classes == 1 else counts
        lengths = random_lengths(rng, steps, rows) if rng.random() < 0.7 else None
        more = [targets, counts, *([] if lengths is None else [lengths])]
        losses, dlogits = kernels.ctc.forward(relay(rng, logits), *(relay(rng, a) for a in more), blank=blank)
        expected, dexpected = reference.ctc.forward(logits.astype(np.float64), *more, blank=blank)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(losses), finite)
        losses, expected = losses[finite], expected[finite]
        bound = tolerance(dtype, steps + classes)
        assert np.max(np.abs(losses - expected), initial=0) <= bound * np.max(expected, initial=1)
        assert dlogits.dtype == dtype
        bound += 1e-15 * np.max(expected, initial=0)  # of the reference, whose logarithms are as large
        assert np.max(np.abs(dlogits - dexpected), initial=0) <= bound / max(rows, 1) * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_crf(dtype):
    for seed in range(cases(60)):
        rng = np.random.default_rng(seed)
        steps, rows = int(rng.choice([0, 1, 2, 9, 30])), int(rng.choice([0, 1, 2, 5, 20]))
        classes = int(rng.choice([*SIZES, 100]))
        scale = rng.choice([0, 1, 10, 200])
        scores, *weights = ((rng.standard_normal(shape) * scale).astype(dtype) for shape in (
            (steps, rows, classes), (classes, classes), (classes,), (classes,)
        ))  # fmt: skip
        tags = rng.integers(0, classes, (steps, rows))
        lengths = random_lengths(rng, steps, rows) if rng.random() < 0.7 else np.full(rows, steps)
        laid = [relay(rng, a) for a in (*weights, lengths)]
        wide = [*(w.astype(np.float64) for w in weights), lengths]
        given, exact = relay(rng, scores), scores.astype(np.float64)
        losses, *gradients = kernels.crf.forward(given, relay(rng, tags), *laid)
        expected, *dexpected = reference.crf.forward(exact, tags, *wide)
        marginals, totals = kernels.crf.marginals(given, *laid)
        likely, log_sums = reference.crf.marginals(exact, *wide)
        largest = max(np.max(np.abs(log_sums), initial=1), np.max(expected, initial=1))
        np.testing.assert_allclose(totals, log_sums, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-14 * largest)
        bound = tolerance(dtype, steps + classes) + 1e-14 * largest  # as above
        assert np.max(np.abs(marginals - likely), initial=0) <= bound
        for one, other in zip(gradients, dexpected, strict=True):
            assert one.dtype == dtype
            assert np.max(np.abs(one - other), initial=0) <= bound * max(steps, 1)
        best, best_scores = kernels.crf.decode(given, *laid)
        others, other_scores = reference.crf.decode(exact, *wide)
        np.testing.assert_array_equal(best, others)
        np.testing.assert_allclose(best_scores, other_scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", [kernels, reference])
def test_cross_entropy_never_reads_rows_of_weight_zero(backend):
    """Neither their logits nor their targets, which need not be classes."""
    logits = np.array([[0.5, -1.0, 2.0], [np.nan, np.inf, 0.0]])
    loss, dlogits = backend.cross_entropy.forward(logits, np.array([2, -1]), np.array([1.0, 0.0]))
    alone, dalone = backend.cross_entropy.forward(logits[:1], np.array([2]), None)
    assert loss == alone
    np.testing.assert_array_equal(dlogits, [dalone[0], [0, 0, 0]])


def drawn_parameters(dtype, count):
    """A seed, its generator and arrays of one size: parameters, gradients, what an optimiser keeps of them."""
    for seed in range(cases(12)):
        rng = np.random.default_rng(seed)
        size = int(rng.choice([0, 1, 15, 16, 17, 1000, 300_001])) if seed else 300_001
        yield seed, rng, [rng.standard_normal(size).astype(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam(dtype):
    for seed, rng, (params, grads, m, v) in drawn_parameters(dtype, 4):
        v = 0.1 + v * v
        option = {
            "lr": 0.1,
            "beta1": float(rng.choice([0.0, 0.8, 0.9])),
            "beta2": float(rng.choice([0.5, 0.9, 0.999])),
            "eps": float(rng.choice([1e-8, 1e-3])),
            "weight_decay": float(rng.choice([0.0, 0.3])),
            "step": int(rng.choice([1, 2, 1000])),
            "decoupled": bool(rng.random() < 0.5),
        }
        if option["step"] == 1:
            m[:], v[:] = 0, 0
            grads[:1] = 0
        ours = [params.copy(), grads, m.copy(), v.copy()]
        theirs = [a.astype(np.float64) for a in (params, grads, m, v)]
        kernels.adam.step(*ours, **option)
        reference.adam.step(*theirs, **option)
        assert_close(ours, theirs, dtype, 16, [f"seed {seed}, {n}" for n in ("params", "grads", "m", "v")])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd(dtype):
    for seed, rng, (params, grads, velocity) in drawn_parameters(dtype, 3):
        option = {
            "lr": 0.1,
            "momentum": float(rng.choice([0.0, 0.9])),
            "weight_decay": float(rng.choice([0.0, 0.3])),
            "nesterov": bool(rng.random() < 0.5),
        }
        with_velocity = option["momentum"] > 0 or rng.random() < 0.5
        ours = [params.copy(), grads.copy(), velocity.copy() if with_velocity else None]
        theirs = [None if a is None else a.astype(np.float64) for a in ours]
        kernels.sgd.step(*ours, **option)
        reference.sgd.step(*theirs, **option)
        names = [f"seed {seed}, {n}" for n in ("params", "grads", "velocity")][: 2 + with_velocity]
        assert_close(ours[: len(names)], theirs[: len(names)], dtype, 8, names)
    with pytest.raises(ValueError, match="velocity"):
        kernels.sgd.step(params, grads, None, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rmsprop(dtype):
    for seed, rng, (params, grads, square, velocity) in drawn_parameters(dtype, 4):
        square = 0.1 + square * square
        keep, add = [(0.9, 0.1), (0.99, 0.01), (1.0, 1.0)][rng.integers(3)]
        option = {
            "lr": 0.1,
            "keep": keep,
            "add": add,
            "eps": float(rng.choice([1e-10, 1e-3])),
            "weight_decay": float(rng.choice([0.0, 0.3])),
            "momentum": float(rng.choice([0.0, 0.9])),
        }
        with_velocity = option["momentum"] > 0 or rng.random() < 0.5
        ours = [params.copy(), grads.copy(), square.copy(), velocity.copy() if with_velocity else None]
        theirs = [None if a is None else a.astype(np.float64) for a in ours]
        kernels.rmsprop.step(*ours, **option)
        reference.rmsprop.step(*theirs, **option)
        names = [f"seed {seed}, {n}" for n in ("params", "grads", "square", "velocity")][: 3 + with_velocity]
        assert_close(ours[: len(names)], theirs[: len(names)], dtype, 16, names)
    for backend in (kernels, reference):
        with pytest.raises(ValueError, match="velocity"):
            backend.rmsprop.step(params, grads, square, None, **{**option, "momentum": 0.9})


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm(dtype):
    for size in (0, 1, 2, 15, 16, 17, 1000, 16384, 16385, 300_001):
        rng = np.random.default_rng(size)
        x = rng.standard_normal(size).astype(dtype)
        expected = reference.norm.l2(x)
        assert kernels.norm.l2(relay(rng, x)) == pytest.approx(expected, rel=1e-14)
    assert kernels.norm.l2(np.full(4, 1e30, "float32")) == pytest.approx(2e30, rel=1e-7)  # squares in float64


def hopfield_results(backend, lay, rng, dtype):
    """Every function of the op on one random memory; `lay` gives each array its memory layout."""
    op = backend.hopfield
    n, rows = int(rng.choice([1, 2, 5, 17, 64, 130])), int(rng.choice([0, 1, 3, 9]))
    count, off = int(rng.choice([0, 1, 31, 32, 33, 70])), int(rng.choice([-1, 0]))
    negative = lay(rng.random(count) < 0.3)
    states = [np.where(rng.random((rows, n)) < 0.5, 1, o).astype(np.int8) for o in (off, off, -1)]
    order, threshold = lay(rng.permutation(n)), lay(rng.integers(-2, 3, n) / 2)
    external = (None, rng.integers(-3, 4, n) / 1, rng.integers(-3, 4, (rows, n)) / 1)[int(rng.integers(3))]
    options = (order, threshold, external, off)
    gap, relative = lay(np.sort(rng.integers(0, 99, 2 * n + 1)) / 1), bool(rng.random() < 0.5) and external is None

    bits = op.pack(lay(rng.random((count, n)) < 0.5))
    weights = op.hebbian(lay(bits), negative, dtype)
    states[1] = states[0].copy()
    overlaps, fields = op.overlaps(bits, negative, lay(states[0])), op.fields(lay(weights), lay(states[1]))
    results = [bits, weights, overlaps.copy(), fields.copy()]
    results += [op.pattern_fields(bits, negative, lay(overlaps), lay(states[0]))]
    np.testing.assert_array_equal(results[-1], fields)
    results += [op.pattern_sweep(lay(bits), negative, overlaps, states[0], *options), overlaps]
    results += [op.sweep(lay(weights), fields, states[1], *options), fields]
    np.testing.assert_array_equal(states[0], states[1])
    dense = op.overlaps(bits, negative, states[2])
    results += [op.dense_sweep(bits, negative, dense, states[2], order, gap, external, relative), dense]
    return results + states


@pytest.mark.parametrize("dtype", DTYPES)
def test_hopfield(dtype):
    """Equal, not close: integers, and sums of integers."""

    def strided(a):
        return np.repeat(a, 2, axis=-1)[..., ::2]

    for seed in range(cases(60)):
        ours = hopfield_results(kernels, strided, np.random.default_rng(seed), dtype)
        theirs = hopfield_results(reference, lambda a: a, np.random.default_rng(seed), dtype)
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=f"seed {seed}, result {k}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_inputs(variant, dtype):
    """I = 0: the pre-activations are the bias and the recurrent product."""
    problem = Problem(variant, 20, 7, 0, 5, rng=np.random.default_rng(0), dtype=dtype, outputs=4)
    actual, expected = problem.results(kernels), in_double(problem).results(reference)
    # Roundings of the recurrent product are carried on from step to step.
    assert_close(actual, expected, dtype, 20 * terms_of(problem), problem.names(), problem.option)


@pytest.mark.parametrize("backend", [kernels, reference])
@pytest.mark.parametrize("held", [np.nan, np.inf])
@pytest.mark.parametrize("op", [op for op, record in CELLS.items() if "n" in record.states])
def test_without_a_past_a_unit_reads_its_output_alone(rng, backend, held, op):
    """Of the sLSTM, whose state c is divided by n: where n is 0 neither c nor m is read."""
    problem = Problem(op, 3, 4, 5, 9, rng=rng)
    state = dict(zip(CELLS[op].states, problem.state, strict=True))
    without = rng.random((4, 9)) < 0.5
    for name in state.keys() - {"h"}:
        state[name][without] = 0
    expected = problem.results(backend)
    for name in state.keys() - {"h", "n"}:
        state[name][without] = held
    assert_same_bits(problem.results(backend), expected)
