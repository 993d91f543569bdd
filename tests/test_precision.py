"""Products of bfloat16, forward and backward: the rounding, bits of every instruction set, the reference, bad input."""

import copy
import pickle

import numpy as np
import pytest
from cells import VARIANTS, Problem, assert_same_bits, enlargement, python

import pyrnn
from pyrnn import kernels, reference
from pyrnn.core.encoded import rounded

EPS = float(np.finfo(np.float32).eps)
STEP = 2.0**-8  # of a rounded number, the largest error: half the distance of two neighbours of 1
BF16 = {"precision": "bfloat16"}
SETS = kernels.isas()[kernels.isas().index(kernels.isa()) + 1 :]
LAYERS = {
    "RNN": lambda **options: pyrnn.RNN(9, 17, 2, bidirectional=True, **options),
    "LSTM": lambda **options: pyrnn.LSTM(9, 33, **options),
    "LSTM projected": lambda **options: pyrnn.LSTM(9, 33, 2, proj_size=18, peephole=True, batch_first=True, **options),
    "GRU": lambda **options: pyrnn.GRU(9, 16, 2, **options),
    "GRU reset before": lambda **options: pyrnn.GRU(9, 35, reset_after=False, activation="softsign", **options),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def draw(rng, *shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def states(state):
    return state if isinstance(state, tuple) else (state,)


# ---- one product


def test_rounding():
    """To nearest, of two as near to the even one; small numbers to 0; of NaN and infinity as NumPy has it."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, 5000, dtype=np.uint32)
    special = [1 + STEP, 1 + 3 * STEP, 2.0**-126, 2.0**-127, -(2.0**-130), 3.4e38, np.inf, np.nan, 0]
    x = np.concatenate([numbers.view(np.float32), np.array(special, np.float32)])[:, None]
    one = np.ones((1, 1), np.float32)
    with np.errstate(all="ignore"):
        expected = rounded(x)
        np.testing.assert_array_equal(expected[-9:, 0], [1, 1 + 4 * STEP, 2.0**-126, 0, 0, np.inf, np.inf, np.nan, 0])
        np.testing.assert_array_equal(kernels.linear.forward(x, one, None, **BF16), expected)
        np.testing.assert_array_equal(kernels.linear.forward(one, x, None, **BF16), expected.T)


@pytest.mark.parametrize("inputs", [0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 200])
def test_a_product_is_that_of_rounded_numbers(inputs):
    """The same chain of multiply-adds, bit by bit."""
    rng = np.random.default_rng(inputs)
    for outputs, rows in ((1, 1), (5, 3), (33, 9), (70, 60)):
        x, weight, bias = draw(rng, rows, inputs), draw(rng, outputs, inputs), draw(rng, outputs)
        y = kernels.linear.forward(x, weight, bias, **BF16)
        assert_same_bits(y, kernels.linear.forward(rounded(x), rounded(weight), bias))
        assert_same_bits(y[:1], kernels.linear.forward(x[:1], weight, bias, **BF16))
        exact = rounded(x).astype("f8") @ rounded(weight).astype("f8").T + bias
        np.testing.assert_allclose(y, exact, atol=EPS * (2 + inputs))
        np.testing.assert_allclose(reference.linear.forward(x, weight, bias, **BF16), y, atol=EPS * (2 + inputs))


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (2, 5, 3), (17, 33, 70), (300, 70, 130)])
def test_linear_backward(rows, inputs, outputs):
    rng = np.random.default_rng(0)
    x, dy, weight = draw(rng, rows, inputs), draw(rng, rows, outputs), draw(rng, outputs, inputs)
    results = []
    for threads in (1, 2, 3):
        grads = np.zeros_like(weight), np.zeros(outputs, np.float32)
        with pyrnn.threads(threads):
            results.append((kernels.linear.backward(dy, x, weight, *grads, **BF16), *grads))
        assert_same_bits(results[-1], results[0])
    a, b, w = (rounded(array).astype("f8") for array in (dy, x, weight))
    for found, exact, terms in zip(results[0], (a @ w, a.T @ b, dy.sum(0, "f8")), (outputs, rows, rows), strict=True):
        np.testing.assert_allclose(found, exact, atol=EPS * (2 + terms))
    grads = np.zeros_like(weight), np.zeros(outputs, np.float32)
    twin = reference.linear.backward(dy, x, weight, *grads, **BF16), *grads
    for found, expected in zip(results[0], twin, strict=True):
        np.testing.assert_allclose(found, expected, atol=EPS * (2 + max(rows, outputs)))


# ---- cells


def run(backend, problem, **options):
    """y, the state, dx, the gradient of the state, those of the weights."""
    op = getattr(backend, problem.name)
    (y, state), pull = op.vjp(problem.x, problem.state, problem.weights, **problem.option, **options)
    grads = tuple(None if w is None else np.zeros_like(w) for w in problem.weights)
    dx, dstate = pull(problem.dy, problem.dstate, grads)
    return [y, *state, dx, *dstate, *(g for g in grads if g is not None)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kernels_are_the_reference(variant):
    """Nearly everywhere within float32 rounding. Where that moves a number over the middle between two neighbours, it
    is rounded to the other one, and what it meets is off by as much."""
    for seed, (rows, inputs, hidden) in enumerate([(1, 3, 2), (7, 18, 17), (3, 5, 40), (300, 3, 2)]):
        rng, outputs = np.random.default_rng(seed), max(1, hidden - 1)
        problem = Problem(variant, 3, rows, inputs, hidden, rng=rng, dtype="float32", outputs=outputs)
        large = enlargement(problem.option)
        for found, expected in zip(run(kernels, problem, **BF16), run(reference, problem, **BF16), strict=True):
            error = np.abs(found - expected) / max(1.0, np.abs(expected).max())
            assert error.max() < 4 * STEP * large
            assert np.median(error) < 1000 * EPS * large


@pytest.mark.parametrize("variant", VARIANTS)
def test_close_to_float32(variant):
    """Within what six steps make of the rounding; most where a function has kinks."""
    problem = Problem(variant, 6, 5, 20, 33, rng=np.random.default_rng(1), dtype="float32", outputs=18)
    large = enlargement(problem.option)
    for found, expected in zip(run(kernels, problem, **BF16), run(kernels, problem), strict=True):
        error = np.sqrt(np.mean((found - expected) ** 2))
        assert error < 0.2 * large * np.sqrt(np.mean(expected**2)) + EPS


def test_gradients_are_those_of_the_rounded_function():
    """Where nothing is rounded, small whole numbers through an RNN of relu, they are the exact ones."""
    rng = np.random.default_rng(0)
    x, dy = (rng.integers(-3, 4, (3, 4, 5)).astype(np.float32) for _ in range(2))
    weights = [rng.integers(-1, 2, shape).astype(np.float32) for shape in ((5, 5), (5, 5), (5,), (5,))]
    both = []
    for options in ({}, BF16):
        (y, (h,)), pull = kernels.rnn.vjp(x, None, weights, nonlinearity="relu", **options)
        grads = [np.zeros_like(w) for w in weights]
        dx, (dh,) = pull(dy, None, grads)
        both.append((y, h, dx, dh, *grads))
    assert np.abs(both[0][0]).max() < 256  # such numbers bfloat16 has
    assert np.abs(both[0][2]).max() < 256
    assert_same_bits(both[0], both[1])


# ---- layers


def trained(layer, x, dy, **given):
    layer.zero_grad()
    (y, state), pull = layer.vjp(x, **given)
    dx, dstate = pull(dy)
    return (y, *states(state), dx, *states(dstate), *(g.copy() for g in layer.grads.values()))


@every_layer
def test_same_bits_alone_in_pieces_and_on_any_threads(name):
    layer = LAYERS[name](rng=0, **BF16)
    turn = (lambda a: a.swapaxes(0, 1)) if layer.batch_first else (lambda a: a)
    rng = np.random.default_rng(0)
    x, lengths, dy = draw(rng, 11, 14, 9), rng.integers(0, 12, 14), None
    y = layer(turn(x))[0]
    dy = draw(rng, *y.shape)
    results = []
    for threads, every in ((1, None), (2, None), (3, 4), (1, 4)):
        with pyrnn.threads(threads):
            results.append((layer(turn(x))[0], *trained(layer, turn(x), dy, lengths=lengths, checkpoint_every=every)))
    for result in results:
        assert_same_bits(result, results[0])
    whole = results[0]
    assert_same_bits(whole[0], y)
    for n in (0, 13):
        alone = trained(layer, turn(x[:, n : n + 1]), turn(turn(dy)[:, n : n + 1]), lengths=lengths[n : n + 1])
        assert_same_bits(turn(alone[0]), turn(whole[1])[:, n : n + 1])
    if not layer.bidirectional:
        stream = layer.stream(14)
        steps = np.stack([*map(stream.step, x[:5])])
        assert_same_bits(turn(np.concatenate([steps, turn(stream(turn(x[5:])))])), y)


def test_large_layers_on_teams_of_threads():
    rng = np.random.default_rng(0)
    for steps, rows, hidden in [(5, 1, 400), (200, 1, 70), (3, 70, 64), (4, 9, 300)]:
        layer = pyrnn.GRU(hidden, hidden, reset_after=False, rng=0, **BF16)
        x, dy = draw(rng, steps, rows, hidden), draw(rng, steps, rows, hidden)
        results = []
        for threads in (1, 2, 3):
            with pyrnn.threads(threads):
                results.append((layer(x)[0], layer.stream(rows)(x), *trained(layer, x, dy)))
        for result in results:
            assert_same_bits(result, results[0])
        assert_same_bits(results[0][0], results[0][1])


def test_looked_up_inputs():
    layer = pyrnn.LSTM(9, 17, 2, bidirectional=True, rng=0, **BF16)
    rng = np.random.default_rng(0)
    table, ids = draw(rng, 30, 9), rng.integers(0, 30, (6, 5))
    assert_same_bits(layer(table, ids=ids), layer(table[ids]))
    dy = draw(rng, 6, 5, 34)
    (
        y,
        *_,
    ) = looked_up = trained(layer, table, dy, ids=ids)
    direct = trained(layer, table[ids], dy)
    assert_same_bits(y, direct[0])
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, direct[3])
    np.testing.assert_allclose(looked_up[3], dtable, atol=8 * STEP * np.abs(dtable).max())
    for found, expected in zip(looked_up[6:], direct[6:], strict=True):
        np.testing.assert_allclose(found, expected, atol=8 * STEP * np.abs(expected).max())


def test_linear_layers():
    rng = np.random.default_rng(0)
    layer, x, dy = pyrnn.Linear(9, 5, rng=0, **BF16), draw(rng, 4, 3, 9), draw(rng, 4, 3, 5)
    y, pull = layer.vjp(x)
    assert_same_bits(y, layer(x))
    assert_same_bits(y[1, 2], layer(x[1, 2]))
    dx = pull(dy)
    assert_same_bits(layer.grads["bias"], dy.reshape(-1, 5).sum(0))
    np.testing.assert_allclose(dx, rounded(dy) @ rounded(layer.params["weight"]), atol=9 * EPS)
    y, pull = layer.vjp(x, per_row=True)
    assert_same_bits(y, layer(x))
    found, rows = pull(dy)
    assert_same_bits(found, dx)
    np.testing.assert_allclose(rows["weight"].sum(0), layer.grads["weight"], atol=12 * EPS)
    np.testing.assert_allclose(rows["weight"], np.einsum("tno,tni->noi", rounded(dy), rounded(x)), atol=4 * EPS)
    assert_same_bits(rows["bias"], dy.sum(0))
    table = pyrnn.Embedding(5, 9, rng=0)
    tied = pyrnn.Linear(9, 5, weight=table, bias=False, **BF16)
    assert_same_bits(tied(x), kernels.linear.forward(x, table.params["weight"], None, **BF16))


@every_layer
def test_many_models_at_once(name):
    """Each has the bits that it has alone."""
    rng = np.random.default_rng(0)
    layer = LAYERS[name](**BF16)
    many = pyrnn.Population(pyrnn.Sequential(layer, pyrnn.Linear(layer._directions * layer._output, 2, **BF16)), size=3)
    x = draw(rng, 3, 6, 4, 9)
    y, pull = many.vjp(x)
    assert_same_bits(y, many(x))
    dy = draw(rng, *y.shape)
    dx, found = pull(dy), {name: grad.copy() for name, grad in many.grads.items()}
    for k, model in enumerate(many):
        model.zero_grad()
        own, pull = model.vjp(x[k])
        assert_same_bits((y[k], dx[k]), (own, pull(dy[k])))
        assert_same_bits([grad[k] for grad in found.values()], [*model.grads.values()])
    if not layer.bidirectional and not layer.batch_first:
        assert_same_bits(many.stream(4)(x), y)


@every_layer
def test_gradients_of_each_row(name):
    """Those of a run of this row alone, up to the order of sums; everything else has the bits of an ordinary vjp."""
    rng = np.random.default_rng(0)
    layer, steps = LAYERS[name](rng=0, **BF16), 70  # more than one block
    axis = 0 if layer.batch_first else 1
    x = np.moveaxis(draw(rng, steps, 3, 9), 1, axis)
    (y, _), pull = layer.vjp(x, per_row=True)
    dy = draw(rng, *y.shape)
    dx, dstate, rows = pull(dy)
    assert_same_bits((y, dx, *states(dstate)), [trained(layer, x, dy)[k] for k in usual_places(layer)])
    for n in range(3):
        trained(layer, x.take([n], axis), dy.take([n], axis))
        for name_, grad in layer.grads.items():
            np.testing.assert_allclose(rows[name_][n], grad, atol=steps * EPS * np.abs(grad).max())


def usual_places(layer):
    """Of y, dx and the gradients of the state in what `trained` gives."""
    count = len(layer._cell.states)
    return 0, *range(1 + count, 2 + 2 * count)


@every_layer
def test_copies_and_files(name, tmp_path):
    layer = LAYERS[name](rng=0, **BF16)
    x = draw(np.random.default_rng(0), 4, 3, 9)
    assert "precision='bfloat16'" in repr(layer)
    assert layer.config()["precision"] == "bfloat16"
    pyrnn.save(tmp_path / "x", pyrnn.Sequential(layer, pyrnn.Linear(layer(x)[0].shape[-1], 2, rng=0, **BF16)))
    model = pyrnn.load(tmp_path / "x")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), model[0]):
        assert_same_bits(twin(x), layer(x))
        assert repr(twin) == repr(layer)
    assert model[1].precision == "bfloat16"
    plain = LAYERS[name](rng=0)
    assert "precision" not in repr(plain)
    for name_, array in plain.state_dict().items():
        assert_same_bits(array, layer.state_dict()[name_])


# ---- wrong calls


def test_wrong_precisions():
    for make in (
        lambda **o: pyrnn.RNN(3, 4, **o),
        lambda **o: pyrnn.GRU(3, 4, **o),
        lambda **o: pyrnn.Linear(3, 4, **o),
    ):
        with pytest.raises(ValueError, match="precision is 'float16', expected one of float32, bfloat16"):
            make(precision="float16")
        with pytest.raises(ValueError, match="precision is 'bfloat16' and dtype float64, expected dtype float32"):
            make(precision="bfloat16", dtype="float64")
        for form in ("bfloat16", "int8"):
            with pytest.raises(ValueError, match="has the precision bfloat16, expected its like of float32"):
                make(precision="bfloat16").quantize(form)


@pytest.mark.parametrize("package", ["onnx", "torch"])
def test_other_systems_have_no_such_layers(package):
    pytest.importorskip(package)
    export = {"onnx": pyrnn.to_onnx, "torch": pyrnn.to_torch}[package]
    for model in (pyrnn.GRU(3, 4, **BF16), pyrnn.Sequential(pyrnn.Linear(3, 4, **BF16))):
        with pytest.raises(ValueError, match=f"to_{package}: .* has the precision bfloat16"):
            export(model)


@pytest.mark.parametrize("backend", [kernels, reference])
def test_wrong_calls_of_kernels(backend):
    x, bits = np.ones((2, 1, 3), np.float32), np.ones((3, 3), np.uint16)
    weights = [np.zeros((3, 3), np.float32)] * 2 + [np.zeros(3, np.float32)] * 2
    doubles = [w.astype(np.float64) for w in weights]
    for call in (
        lambda precision: backend.rnn.forward(x, None, weights, precision=precision),
        lambda precision: backend.rnn.vjp(x, None, weights, precision=precision),
        lambda precision: backend.rnn.stream([weights], 1, precision=precision),
        lambda precision: backend.linear.forward(x, weights[0], None, precision=precision),
        lambda precision: backend.linear.backward(
            x[0], x[0], weights[0], *[w.copy() for w in weights[1:3]], precision=precision
        ),
    ):
        with pytest.raises(ValueError, match="precision is 'int8', expected 'float32' or 'bfloat16'"):
            call("int8")
    for refused in (
        lambda: backend.rnn.forward(x.astype("f8"), None, doubles, **BF16),
        lambda: backend.rnn.stream([doubles], 1, **BF16),
        lambda: backend.rnn.forward(x, None, [bits, *weights[1:]], **BF16),
        lambda: backend.linear.forward(x, bits, None, **BF16),
        lambda: backend.linear.forward(x.astype("f8"), doubles[0], None, **BF16),
    ):
        with pytest.raises(ValueError, match="precision is 'bfloat16', expected 'float32'"):
            refused()


# ---- instruction sets

DIGESTS = """
    import hashlib
    import numpy as np
    import pyrnn
    from pyrnn import kernels
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for outputs, inputs, rows in [(5, 7, 1), (64, 130, 9), (200, 333, 40)]:
        x, weight = (rng.standard_normal(shape).astype("f") for shape in ((rows, inputs), (outputs, inputs)))
        digest.update(kernels.linear.forward(x, weight, None, precision="bfloat16").tobytes())
    x = np.arange(0, 2**32, 99_991, dtype=np.uint32).view("f")  # of all sizes, and halves
    x = np.concatenate([x[np.isfinite(x)], (np.arange(1024, dtype=np.uint32) << 15 | 0x3F800000).view("f")])
    one = np.ones((1, 1), "f")
    for rounded in (kernels.linear.forward(x[:, None], one, None, precision="bfloat16"),
                    kernels.linear.forward(one, x[:, None], None, precision="bfloat16")):
        digest.update(rounded.tobytes())
    print(digest.hexdigest())
    for layer in (pyrnn.GRU(33, 35, rng=0, precision="bfloat16"), pyrnn.LSTM(33, 70, rng=0, precision="bfloat16")):
        (y, state), pull = layer.vjp(rng.standard_normal((9, 20, 33)).astype("f"))
        dx, _ = pull(rng.standard_normal(y.shape).astype("f"))
        for array in (y, dx, *layer.grads.values()):
            digest.update(array.tobytes())
    print(digest.hexdigest())
"""


@pytest.mark.parametrize("isa", SETS)
def test_products_are_the_same_on_every_set(isa):
    """Products of two rounded numbers are exact, so that multiply-adds are rounded once with every set. Layers are,
    where registers are as wide."""
    product, layers = python(DIGESTS, PYRNN_ISA=isa).split()
    expected = python(DIGESTS).split()
    assert product == expected[0]
    if isa.startswith("x86-64-v4") and kernels.isa().startswith("x86-64-v4"):
        assert layers == expected[1]
