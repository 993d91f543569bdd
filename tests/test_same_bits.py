"""The promise of equal bits: whatever the batch, the pieces, the padding, the layout, the threads and the checkpoints.

Every comparison is exact, down to the sign of zeros.
"""

import copy
import os
from itertools import pairwise

import numpy as np
import pytest
from cells import DTYPES, LAYOUTS, VARIANTS, assert_same_bits, cases, flat, laid_out, make_layer

import pyrnn

# layers and directions
SHAPES = {
    "one": {},
    "stacked": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "stacked_bidirectional": {"num_layers": 2, "bidirectional": True},
}
# inputs, hidden units, projected size: below, at and above the widths of registers
WIDTHS = [(1, 2, 1), (5, 17, 7), (16, 16, 8), (33, 31, 16), (3, 65, 33)]

every_cell = pytest.mark.parametrize("variant", VARIANTS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_shape = pytest.mark.parametrize("shape", SHAPES)
one_direction = pytest.mark.parametrize("shape", ["one", "stacked"])


def every_cell_one_way(test):
    return every_cell(both_dtypes(one_direction(test)))


def every_cell_every_way(test):
    return every_cell(both_dtypes(every_shape(test)))


class Case:
    """A layer, inputs and gradients for it, with ragged lengths and marks."""

    def __init__(self, variant, shape, dtype, widths, steps=7, rows=5, seed=0, walk=True):
        inputs, hidden, outputs = widths
        self.rng = np.random.default_rng(seed)
        self.layer = make_layer(variant, inputs, hidden, proj_size=outputs, dtype=dtype, rng=seed, **SHAPES[shape])
        # Off the small initial values; still far from saturated.
        self.layer.buffers[self.layer.dtype][0][:] *= 1.5
        self.x = self.draw(steps, rows, inputs)
        y, final = self.layer(self.x)
        self.dy = self.draw(*y.shape)
        self.state, self.dstate = self.draw_state(final), self.draw_state(final)
        self.lengths, self.reset = None, None
        if walk:
            self.lengths = self.rng.integers(0, steps + 1, rows)
            self.lengths[self.rng.integers(rows)] = steps
            self.reset = self.rng.random((steps, rows)) < 0.2

    def draw(self, *shape):
        return self.rng.uniform(-1, 1, shape).astype(self.layer.dtype)

    def draw_state(self, like):
        return tuple(self.draw(*s.shape) for s in like) if isinstance(like, tuple) else self.draw(*like.shape)

    def rows(self, chosen):
        """The same case with some of its rows only: an index array, or an integer for one row without a batch axis."""
        part = copy.copy(self)
        part.x, part.dy = self.x[:, chosen], self.dy[:, chosen]
        part.state, part.dstate = pick(self.state, chosen), pick(self.dstate, chosen)
        part.lengths = None if self.lengths is None else self.lengths[chosen]
        part.reset = None if self.reset is None else self.reset[:, chosen]
        return part

    def walk(self):
        return {"lengths": self.lengths, "reset": self.reset}

    def run(self, **more):
        """y, state, dx, dstate and the parameter gradients: five entries."""
        self.layer.zero_grad()
        (y, final), pullback = self.layer.vjp(self.x, self.state, **self.walk(), **more)
        dx, dinitial = pullback(self.dy, self.dstate)
        return y, final, dx, dinitial, [g.copy() for g in self.layer.grads.values()]

    def in_pieces(self, spans, walks):
        """y, state, dx, dstate of calls that hand on the state, and hand back its gradient; a walk for each span."""
        state, gradient, ys, dxs, pullbacks = self.state, self.dstate, [], [], []
        for span, walk in zip(spans, walks, strict=True):
            reset = None if self.reset is None else self.reset[span]
            (y, state), pullback = self.layer.vjp(self.x[span], state, reset=reset, **walk)
            ys.append(y)
            pullbacks.append(pullback)
        for span, pullback in zip(reversed(spans), reversed(pullbacks), strict=True):
            dx, gradient = pullback(self.dy[span], gradient)
            dxs.insert(0, dx)
        return np.concatenate(ys), state, np.concatenate(dxs), gradient


def pick(state, chosen):
    return tuple(s[:, chosen] for s in state) if isinstance(state, tuple) else state[:, chosen]


def random_case(variant, shape, dtype, seed, **more):
    widths = WIDTHS[seed % len(WIDTHS)]
    return Case(variant, shape, dtype, widths, seed=seed, **more)


def seeds(count):
    return range(cases(count))


# ---- rows


@every_cell_every_way
def test_a_row_alone_unbatched_or_in_any_batch(variant, dtype, shape):
    for seed in seeds(5):
        case = random_case(variant, shape, dtype, seed, rows=(5, 13, 6, 7, 26)[seed])
        whole = case.run()[:4]
        count = case.x.shape[1]
        for n in case.rng.permutation(count)[:6]:
            y, final, dx, dstate, _ = case.rows(n).run()
            mine = (whole[0][:, n], pick(whole[1], n), whole[2][:, n], pick(whole[3], n))
            assert_same_bits((y, final, dx, dstate), mine)
        some = case.rng.permutation(count)[: case.rng.integers(1, count + 1)]
        several = np.concatenate([some, case.rng.integers(0, count, 9)])  # in another order, some of them twice
        for chosen in ([count - 1], some, several):
            part = case.rows(np.array(chosen)).run()[:4]
            mine = (whole[0][:, chosen], pick(whole[1], chosen), whole[2][:, chosen], pick(whole[3], chosen))
            assert_same_bits(part, mine)


@every_cell
@every_shape
def test_other_rows_do_not_matter(variant, shape):
    """Not even if they are full of NaN and infinities, run longer, or are cut elsewhere."""
    case = random_case(variant, shape, "float32", 1)
    chosen = np.array([0, 2, 3])
    expected = case.rows(chosen).run()[:4]
    others = [n for n in range(case.x.shape[1]) if n not in chosen]
    for value in (np.nan, np.inf, -np.inf, 3e38, 0):
        case.x[:, others], case.dy[:, others] = value, value
        for s in flat(case.state, case.dstate):
            s[:, others] = value
        case.lengths[others] = case.rng.integers(0, len(case.x) + 1, len(others))
        case.reset[:, others] ^= True
        with np.errstate(over="ignore", invalid="ignore"):
            y, final, dx, dstate, _ = case.run()
        assert_same_bits((y[:, chosen], pick(final, chosen), dx[:, chosen], pick(dstate, chosen)), expected)


@every_cell_every_way
def test_call_and_vjp(variant, dtype, shape):
    for seed in seeds(5):
        case = random_case(variant, shape, dtype, seed, walk=seed % 2 == 0)
        whole = case.run()
        assert_same_bits(case.layer(case.x, case.state, **case.walk()), whole[:2])


# ---- pieces


@every_cell_one_way
def test_in_pieces_forward_and_back(variant, dtype, shape):
    for seed in seeds(6):
        case = random_case(variant, shape, dtype, seed, steps=9)
        case.lengths = None
        if seed % 2:
            case.reset = None
        y, final, dx, dstate, _ = case.run()
        for cuts in ([4], [1, 2, 5], list(range(1, 9)), [0, 3, 3, 9]):
            ends = [0, *cuts, 9]
            spans = [slice(a, b) for a, b in pairwise(ends)]
            every = [{"checkpoint_every": (None, 1, 2)[(seed + k) % 3]} for k in range(len(spans))]
            assert_same_bits(case.in_pieces(spans, every), (y, final, dx, dstate))


@every_cell_one_way
def test_pieces_of_ragged_rows(variant, dtype, shape):
    """Each piece with the lengths that are left in it."""
    case = random_case(variant, shape, dtype, 1, steps=9)
    y, final, dx, dstate, _ = case.run()
    spans = [slice(0, 2), slice(2, 3), slice(3, 7), slice(7, 9)]
    left = [{"lengths": np.clip(case.lengths - span.start, 0, span.stop - span.start)} for span in spans]
    assert_same_bits(case.in_pieces(spans, left), (y, final, dx, dstate))


@every_cell_every_way
def test_sequences_packed_in_one_row(variant, dtype, shape):
    """Marks cut a row into sequences that are, bit for bit, those sequences on their own (both directions)."""
    case = random_case(variant, shape, dtype, 3, steps=11, rows=3)
    case.lengths, case.reset = None, np.zeros((11, 3), bool)
    case.reset[[0, 4, 5]] = True
    case.state, case.dstate = None, None
    y, _, dx, _, _ = case.run()
    for span in (slice(0, 4), slice(4, 5), slice(5, 11)):
        part = copy.copy(case)
        part.x, part.dy, part.reset = case.x[span], case.dy[span], None
        alone = part.run()
        assert_same_bits((alone[0], alone[2]), (y[span], dx[span]))


@every_cell_one_way
def test_streamed(variant, dtype, shape):
    for seed in seeds(5):
        case = random_case(variant, shape, dtype, seed, steps=9)
        case.lengths = None
        y, final = case.layer(case.x, case.state)
        count = case.x.shape[1]
        stream = case.layer.stream(count, case.state)
        assert_same_bits(np.stack([stream.step(x) for x in case.x]), y)
        assert_same_bits(stream.state, final)
        stream = case.layer.stream(batch=count, state=case.state)
        assert_same_bits(np.concatenate([stream(case.x[:4]), stream.step(case.x[4])[None], stream(case.x[5:])]), y)
        assert_same_bits(stream.state, final)
        # resetting rows of a stream is marking them
        y, final = case.layer(case.x, case.state, reset=case.reset)
        stream = case.layer.stream(count, case.state)
        parts = []
        for x, marks in zip(case.x, case.reset, strict=True):
            stream.reset(np.flatnonzero(marks))
            parts.append(stream.step(x))
        assert_same_bits((np.stack(parts), stream.state), (y, final))
        # one row of it, as (1, I) and as (I,)
        row = case.rows(np.array([count - 1]))
        y, final = row.layer(row.x, row.state)
        stream = row.layer.stream(1, row.state)
        assert_same_bits(np.stack([stream.step(x) for x in row.x]), y)
        stream = row.layer.stream(1, row.state)
        assert_same_bits(np.stack([stream.step(x[0]) for x in row.x]), y[:, 0])
        assert_same_bits(stream.state, final)


# ---- padding


@every_cell_every_way
def test_padded_with_lengths_or_not(variant, dtype, shape):
    """All rows padded to one longer T, filled with what must not be read, against each row at its own length."""
    for seed in seeds(5):
        case = random_case(variant, shape, dtype, seed)
        steps, count, _ = case.x.shape
        fill = (np.nan, np.inf, -np.inf, 3e38, np.nan)[seed]
        longer = copy.copy(case)
        longer.x = np.full((steps + 3, *case.x.shape[1:]), fill, case.x.dtype)
        longer.dy = np.full((steps + 3, *case.dy.shape[1:]), fill, case.dy.dtype)
        longer.reset = np.ones((steps + 3, count), bool)
        for n, length in enumerate(case.lengths):
            longer.x[:length, n], longer.dy[:length, n] = case.x[:length, n], case.dy[:length, n]
            longer.reset[:length, n] = case.reset[:length, n]
        y, final, dx, dstate, grads = longer.run()
        assert all(np.isfinite(g).all() for g in grads)
        for n, length in enumerate(case.lengths):
            row = case.rows(np.array([n]))
            row.x, row.dy, row.reset, row.lengths = row.x[:length], row.dy[:length], row.reset[:length], None
            alone = row.run()
            chosen = [n]
            mine = (y[:length, chosen], pick(final, chosen), dx[:length, chosen], pick(dstate, chosen))
            assert_same_bits(alone[:4], mine)
            assert_same_bits(
                (y[length:, n], dx[length:, n]), (np.zeros_like(y[length:, n]), np.zeros_like(dx[length:, n]))
            )


@every_cell
@every_shape
def test_what_says_nothing_changes_nothing(variant, shape):
    """Full lengths, no marks and a state of zeros, said or left out; parameter gradients too."""
    case = random_case(variant, shape, "float32", 1, walk=False)
    case.state = tuple(map(np.zeros_like, case.state)) if isinstance(case.state, tuple) else np.zeros_like(case.state)
    expected = case.run()
    steps, count, _ = case.x.shape
    case.state, case.lengths, case.reset = None, np.full(count, steps), np.zeros((steps, count), bool)
    assert_same_bits(case.run(), expected)
    case.dstate = None
    expected = case.run()
    case.dstate = (
        tuple(map(np.zeros_like, expected[1])) if isinstance(expected[1], tuple) else np.zeros_like(expected[1])
    )
    assert_same_bits(case.run(), expected)


@every_cell
@both_dtypes
def test_a_state_that_is_shut_out_is_never_read(variant, dtype):
    """A mark at step 0 shuts the forward states out, whatever they hold; those of the reverse direction enter."""
    case = random_case(variant, "stacked_bidirectional", dtype, 1)
    case.lengths, case.reset[0] = np.maximum(case.lengths, 1), True
    forth = [0, 2]
    for s in flat(case.state):
        s[forth] = 0
    expected = case.run()
    for d in flat(expected[3]):
        assert not d[forth].any()
    for value in (np.nan, np.inf, 3e38):
        for s in flat(case.state):
            s[forth] = value
        assert_same_bits(case.run(), expected)


# ---- memory layout


@pytest.mark.parametrize("layout", LAYOUTS)
@every_cell
def test_any_memory_layout(variant, layout):
    for dtype in DTYPES:
        case = random_case(variant, "stacked_bidirectional", dtype, 1)
        expected = case.run()
        for name in ("x", "dy", "state", "dstate", "lengths", "reset"):
            setattr(case, name, laid_out(layout, getattr(case, name)))
        assert_same_bits(case.run(), expected)
        streamed = random_case(variant, "stacked", dtype, 2)
        y, final = streamed.layer(streamed.x, streamed.state)
        x, state = laid_out(layout, streamed.x), laid_out(layout, streamed.state)
        stream = streamed.layer.stream(x.shape[1], state)
        assert_same_bits((stream(x), stream.state), (y, final))
        stream = streamed.layer.stream(x.shape[1], state)
        assert_same_bits((np.stack([stream.step(laid_out(layout, a)) for a in streamed.x]), stream.state), (y, final))


@every_cell_every_way
def test_batch_first(variant, dtype, shape):
    case = random_case(variant, shape, dtype, 1)
    y, final, dx, dstate, grads = case.run()
    turned = copy.copy(case)
    inputs, hidden, outputs = WIDTHS[1]
    turned.layer = make_layer(
        variant, inputs, hidden, proj_size=outputs, dtype=dtype, batch_first=True, **SHAPES[shape]
    )
    turned.layer.load_state_dict(case.layer.state_dict())
    turned.x, turned.dy, turned.reset = case.x.swapaxes(0, 1), case.dy.swapaxes(0, 1), case.reset.T
    for relayout in (lambda a: a, np.ascontiguousarray):
        turned.x, turned.dy = relayout(turned.x), relayout(turned.dy)
        y2, final2, dx2, dstate2, grads2 = turned.run()
        assert y2.flags.c_contiguous
        assert dx2.flags.c_contiguous
        assert_same_bits(
            (y2.swapaxes(0, 1), final2, dx2.swapaxes(0, 1), dstate2, grads2), (y, final, dx, dstate, grads)
        )


@every_cell_every_way
def test_looked_up_inputs(variant, dtype, shape):
    """A table and ids, against the inputs they stand for: y, states, and all gradients but the two that are summed in
    another order, those of the table and of the weights it meets."""
    case = random_case(variant, shape, dtype, 2, rows=13)
    table = case.draw(9, case.x.shape[2])
    ids = case.rng.integers(0, 9, case.x.shape[:2])
    valid = np.arange(len(ids))[:, None] < case.lengths
    looked_up = copy.copy(case)
    case.x, looked_up.x = table[ids], table
    expected = case.run()
    ids[~valid] = 2**62
    whole = looked_up.run(ids=ids)
    assert_same_bits(looked_up.layer(table, case.state, ids=ids, **case.walk()), expected[:2])
    assert_same_bits((whole[:2], whole[3]), (expected[:2], expected[3]))
    dtable = np.zeros(table.shape)
    np.add.at(dtable, ids[valid], expected[2][valid])
    tolerance = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(whole[2], dtable, rtol=0, atol=tolerance * np.abs(dtable).max())
    for name, one, other in zip(case.layer.grads, whole[4], expected[4], strict=True):
        if name.startswith("weight_ih_l0"):
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())
        else:
            assert_same_bits(one, other)
    for threads, every in ((1, None), (2, 3), (5, 1)):
        with pyrnn.threads(threads):
            assert_same_bits(looked_up.run(ids=ids, checkpoint_every=every), whole)
    case.layer.batch_first = True
    looked_up.dy, looked_up.reset = case.dy.swapaxes(0, 1), case.reset.T
    y, *rest = looked_up.run(ids=ids.T)
    assert_same_bits((y.swapaxes(0, 1), *rest), whole)
    for n in range(3):
        row = case.rows(n)
        row.x = table
        y, final, _, dstate, _ = row.run(ids=ids[:, n])
        assert_same_bits((y, final, dstate), (whole[0][:, n], pick(whole[1], n), pick(whole[3], n)))


@every_cell
@pytest.mark.parametrize("sharing", ["rows", "one_row", "large_weights", "assisted", "ragged_assisted"])
def test_looked_up_inputs_on_any_number_of_threads(variant, sharing):
    steps, rows, widths = SHARED[sharing]
    case = Case(variant, "one", "float32", widths, steps=steps, rows=rows, walk=sharing.startswith("ragged"))
    ids = case.rng.integers(0, 30, (steps, rows))
    table = case.draw(30, widths[0])
    case.x = table[ids]
    expected = case.run()
    case.x = table
    results = []
    for n in THREADS:
        with pyrnn.threads(n):
            results.append(case.run(ids=ids))
            assert_same_bits(case.layer(table, case.state, ids=ids, **case.walk()), expected[:2])
    for result in results:
        assert_same_bits(result, results[0])


# ---- threads

THREADS = sorted({1, 2, 3, 5, (os.cpu_count() or 1) + 3})
# steps, rows, widths: many rows are split among the threads, few rows or large weights make them split the units, and
# one or two rows of a small layer are walked by one thread while another makes input products and gradients
SHARED = {
    "rows": (6, 40, (40, 48, 35)),
    "ragged_rows": (6, 41, (40, 48, 35)),
    "one_row": (18, 1, (100, 208, 150)),
    "few_rows": (16, 3, (33, 130, 97)),
    "large_weights": (2, 14, (50, 460, 400)),
    "assisted": (601, 1, (40, 48, 35)),
    "ragged_assisted": (601, 3, (40, 48, 35)),
    "large_inputs": (40, 3, (300, 208, 150)),  # work enough for cells that have no other product
}


@pytest.mark.parametrize("sharing", SHARED)
@every_cell
@both_dtypes
def test_any_number_of_threads(variant, dtype, sharing):
    steps, rows, widths = SHARED[sharing]
    case = Case(variant, "one", dtype, widths, steps=steps, rows=rows, walk=sharing.startswith("ragged"))
    results, forwards = [], []
    for n in (*THREADS, 2) if dtype == "float32" else (1, 2, 3):
        with pyrnn.threads(n):
            results.append(case.run())
            forwards.append(case.layer(case.x, case.state, **case.walk()))
    for result, forward in zip(results, forwards, strict=True):
        assert_same_bits(result, results[0])
        assert_same_bits(forward, results[0][:2])


@every_cell
@pytest.mark.parametrize("shape", ["stacked", "stacked_bidirectional"])
def test_any_number_of_threads_in_a_stack(variant, shape):
    for sharing in ("ragged_rows", "few_rows"):
        steps, rows, widths = SHARED[sharing]
        case = Case(variant, shape, "float32", widths, steps=steps, rows=rows)
        expected = None
        for n, every in ((1, None), (2, None), (3, 2), (5, 1), (2, 4)):
            with pyrnn.threads(n):
                result = case.run(checkpoint_every=every)
            expected = result if expected is None else expected
            assert_same_bits(result, expected)


@every_cell
def test_pieces_rows_and_streams_with_threads(variant):
    """The parts on other numbers of threads than the whole, where both kinds of sharing meet."""
    case = Case(variant, "one", "float32", (64, 160, 130), steps=5, rows=24, walk=False)
    with pyrnn.threads(2):
        y, final, dx, dstate, _ = case.run()
    for n in (1, 3):
        with pyrnn.threads(n):
            few = np.arange(n)
            assert_same_bits(case.rows(few).run()[:4], (y[:, few], pick(final, few), dx[:, few], pick(dstate, few)))
            stream = case.layer.stream(24, case.state)
            assert_same_bits((np.stack([stream.step(x) for x in case.x]), stream.state), (y, final))
            (_, middle), first = case.layer.vjp(case.x[:2], case.state)
            (_, last), second = case.layer.vjp(case.x[2:], middle)
            assert_same_bits(last, final)
            later, gradient = second(case.dy[2:], case.dstate)
            earlier, gradient = first(case.dy[:2], gradient)
            assert_same_bits((np.concatenate([earlier, later]), gradient), (dx, dstate))


@both_dtypes
def test_other_layers_on_any_number_of_threads(dtype):
    rng = np.random.default_rng(0)
    linear = pyrnn.Linear(70, 90, dtype=dtype, rng=0)
    x, dy = rng.standard_normal((300, 70)).astype(dtype), rng.standard_normal((300, 90)).astype(dtype)
    targets, mask = rng.integers(0, 90, 300), rng.random(300) < 0.7
    results = []
    for n in THREADS:
        with pyrnn.threads(n):
            linear.zero_grad()
            y, pullback = linear.vjp(x)
            dx = pullback(dy)
            loss, dlogits = pyrnn.cross_entropy(y * 9, targets, mask=mask)
            big = np.linspace(-1, 1, 400_003).astype(dtype)
            params, m, v = big.copy(), big * 2, big * big
            options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
            pyrnn.kernels.adam.step(params, big, m, v, **options, step=2)
            velocity = big * 3
            pyrnn.kernels.sgd.step(params, big, velocity, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
            other, square, move = big.copy(), big * big, big * 3
            options = {"lr": 0.1, "keep": 0.9, "add": 0.1, "eps": 1e-8, "weight_decay": 0.1, "momentum": 0.9}
            pyrnn.kernels.rmsprop.step(other, big, square, move, **options)
            norm = pyrnn.kernels.norm.l2(big)
            grads = [g.copy() for g in linear.grads.values()]
            results.append(
                [y, dx, *grads, np.array([loss, norm]), dlogits, params, m, v, velocity, other, square, move]
            )
    for result in results[1:]:
        assert_same_bits(result, results[0])


# ---- checkpoints, and run to run


@every_cell_every_way
def test_any_checkpoint_every(variant, dtype, shape):
    """Long enough for several blocks of weight gradients, whose borders the checkpoints may not move."""
    for steps, rows in ((11, 90), (300, 2))[: cases(2)]:
        case = Case(variant, shape, dtype, (3, 9, 5), steps=steps, rows=rows)
        expected = case.run()
        for every in (1, 3, 100, steps, 10**12):
            assert_same_bits(case.run(checkpoint_every=every), expected)


@every_cell
def test_run_to_run(variant):
    """The same again, with other work in between and memory that held other numbers."""
    case = random_case(variant, "stacked_bidirectional", "float32", 1)
    other = random_case(variant, "stacked", "float32", 4)
    other.x[:] = np.nan
    expected = case.run()
    for every in (None, 2, None):
        other.run(checkpoint_every=every)
        junk = [np.full(n, np.nan, np.float32) for n in (10, 1000, 100_000)]
        del junk
        assert_same_bits(case.run(), expected)


@every_cell
@every_shape
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_error_state_of_numpy_does_not_matter(variant, shape):
    """What overflows or is invalid is neither warning nor error, whatever np.errstate says, as in a kernel."""
    case = random_case(variant, shape, "float32", 1)
    case.x[0, 0], case.dy[-1, :2] = np.inf, 3e38
    with np.errstate(all="ignore"):
        expected = case.run()
    with np.errstate(all="raise"):
        found = case.run()
    for a, e in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_array_equal(a, e)


@every_cell
def test_gradients_through_pullbacks_in_any_order(variant):
    """Several pullbacks at once: each owns what it needs."""
    case = random_case(variant, "stacked_bidirectional", "float32", 1)
    expected = case.run()
    kept = []
    for _ in range(3):
        (y, final), pullback = case.layer.vjp(case.x, case.state, **case.walk())
        assert_same_bits((y, final), expected[:2])
        kept.append(pullback)
    for pullback in (kept[1], kept[2], kept[0]):
        case.layer.zero_grad()
        dx, dstate = pullback(case.dy, case.dstate)
        assert_same_bits((dx, dstate, list(case.layer.grads.values())), expected[2:])
