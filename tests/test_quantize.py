"""Matrices of bfloat16 and int8: the arithmetic by hand and against the reference, the same bits, files, bad input."""

import copy
import pickle

import numpy as np
import pytest
from cells import FEW, LAYOUTS, VARIANTS, assert_same_bits, laid_out, make_layer, python

import pyrnn
from pyrnn import cython_stream, kernels, reference
from pyrnn.core import encoded

EPS = float(np.finfo(np.float32).eps)
# inputs, hidden units, projected size: below, at and above the widths of registers and of words of two and four
WIDTHS = [(1, 1, 0), (3, 2, 1), (5, 17, 7), (16, 16, 8), (34, 33, 18), (67, 66, 35)]
every_form = pytest.mark.parametrize("form", encoded.FORMS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def layer_of(variant, widths, num_layers=1, **options):
    inputs, hidden, outputs = widths
    outputs = outputs or max(1, hidden - 1)
    if hidden == 1 and "projection" in variant:
        hidden = 2
    return make_layer(variant, inputs, hidden, num_layers, proj_size=outputs, rng=1, **options)


def draw(rng, *shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def states(state):
    return state if isinstance(state, tuple) else (state,)


def rounded_like(layer, frozen):
    """The float layer with the numbers that a frozen one computes with."""
    twin = copy.deepcopy(layer)
    twin.load_state_dict(dict(frozen.params))
    return twin


# ---- the forms


def test_bfloat16_by_hand():
    """1 + 2^-7 is the next one after 1: halves go to the even one of two neighbours."""
    step = 2.0**-7
    cases = {
        1.0: 1.0, 1 + step / 2: 1.0, 1 + 3 * step / 2: 1 + 2 * step, 1 + step * 0.51: 1 + step, -1 - step: -1 - step,
        3.4e38: np.inf, -np.inf: -np.inf, -0.0: -0.0, 1e-45: 0.0, np.nan: np.nan,
    }  # fmt: skip
    matrix = np.array([list(cases)], np.float32)
    matrix = np.concatenate([matrix, np.array([[0x7FFFFFFF]], np.uint32).view(np.float32)], axis=1)
    found = encoded.decode(encoded.encode(matrix, "bfloat16"))[0]
    np.testing.assert_array_equal(found, [*cases.values(), np.nan])
    np.testing.assert_array_equal(np.signbit(found[:-2]), np.signbit(matrix[0, :-2]))


def test_bfloat16_is_that_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(0).integers(0, 2**32, (100, 100), dtype=np.uint32)
    matrix = bits.view(np.float32)
    with np.errstate(all="ignore"):
        expected = matrix.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(encoded.decode(encoded.encode(matrix, "bfloat16")), expected)


def test_int8_by_hand():
    rows = [[127, -63.5, 0.5, 1.5], [0, 0, 0, 0], [-2, 1, 0, 0], [1, np.nan, 0, 0], [np.inf, 1, 0, 0]]
    numbers, scale = encoded.encode(np.array(rows, np.float32), "int8")
    np.testing.assert_array_equal(numbers, [[127, -64, 0, 2], [0] * 4, [-127, 64, 0, 0], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(scale, np.array([1, 0, 2 / 127, np.nan, np.nan], np.float32))


def test_a_scale_that_is_no_normal_number():
    """Of the smallest rows numbers would lie beyond 127."""
    rows = np.array([[190 * 2.0**-149], [2.0**-149], [127 * 2.0**-149]], np.float32)
    numbers, scale = encoded.encode(rows, "int8")
    np.testing.assert_array_equal(numbers, [[127], [0], [127]])
    np.testing.assert_array_equal(scale, np.array([2.0**-149, 0, 2.0**-149], np.float32))


# RMS of the error over that of the numbers: of uniform ones there and back, and of products of 512 of them.
ROUND_TRIP = {"bfloat16": 0.002, "int8": 0.005}
PRODUCTS = {"bfloat16": 0.002, "int8": 0.01}


@every_form
def test_errors_stay_in_their_budget(form):
    rng = np.random.default_rng(0)
    matrix, x = draw(rng, 200, 512), rng.standard_normal((200, 512)).astype(np.float32)
    weight = encoded.encode(matrix, form)
    exact = x.astype(np.float64) @ matrix.T.astype(np.float64)
    for found, expected, budget in (
        (encoded.decode(weight), matrix, ROUND_TRIP),
        (kernels.linear.forward(x, weight, None), exact, PRODUCTS),
    ):
        assert np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)) < budget[form]


# ---- products


@pytest.mark.parametrize("columns", [0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 200])
def test_sums_of_whole_numbers_are_exact(columns):
    """With scales of 1, results are these sums, or all bits of them that a float32 has."""
    rng = np.random.default_rng(columns)
    numbers = rng.integers(-127, 128, (70, columns)).astype(np.int8)
    for rows in (1, 2, 5, 6, 7, 50):
        x = rng.integers(-127, 128, (rows, columns)).astype(np.float32)
        x[:, :1] = 127
        y = kernels.linear.forward(x, (numbers, np.ones(70, np.float32)), None)
        np.testing.assert_array_equal(y, x.astype(np.int64) @ numbers.T.astype(np.int64))


def test_the_largest_sums():
    """Far beyond 16 bits on the way, and with halves of words at their largest."""
    for columns in (3000, 132_104):  # the most that are taken
        for number in (127, -127, -128):
            numbers, x = np.full((5, columns), number, np.int8), np.full((2, columns), 127.0, np.float32)
            y = kernels.linear.forward(x, (numbers, np.ones(5, np.float32)), None)
            np.testing.assert_array_equal(y, np.full((2, 5), number * 127.0 * columns, np.float32))


def test_vectors_whose_scale_is_no_normal_number():
    """Of the smallest ones numbers would lie beyond 127, or come of nothing."""
    x = np.array([[190 * 2.0**-149, -190 * 2.0**-149], [2.0**-149, 0]], np.float32)
    weight = np.array([[100, 1]], np.int8), np.array([2.0**100], np.float32)
    y = kernels.linear.forward(x, weight, None)
    np.testing.assert_array_equal(y, np.array([[99 * 127 * 2.0**-49], [0]], np.float32))
    assert_same_bits(y, reference.linear.forward(x, weight, None))


@every_form
@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear(form, layout):
    """Rows in any number, from any layout."""
    rng = np.random.default_rng(3)
    for outputs, inputs, rows in [(1, 1, 1), (5, 7, 3), (33, 34, 9), (65, 130, 60), (64, 64, 1)]:
        x, bias = draw(rng, rows, inputs), draw(rng, outputs)
        weight = encoded.encode(draw(rng, outputs, inputs), form)
        expected = reference.linear.forward(x, weight, bias)
        y = kernels.linear.forward(laid_out(layout, x), weight, bias)
        np.testing.assert_allclose(y, expected, atol=EPS * (8 + inputs), rtol=0)
        assert_same_bits(kernels.linear.packed(weight, bias).forward(x), y)
        if form == "bfloat16":
            assert_same_bits(y, kernels.linear.forward(x, encoded.decode(weight), bias))
        for row in range(min(rows, 3)):
            assert_same_bits(kernels.linear.forward(x[row], weight, bias), y[row])


@every_form
def test_embedding(form):
    table, ids = encoded.encode(draw(np.random.default_rng(0), 9, 5), form), np.array([[3, 0], [8, 3]])
    y = kernels.embedding.forward(ids, table)
    assert_same_bits(y, reference.embedding.forward(ids, table))
    assert_same_bits(y, encoded.decode(table)[ids])


# ---- recurrent layers


@every_variant
@pytest.mark.parametrize("widths", WIDTHS)
def test_bfloat16_has_the_bits_of_the_rounded_layer(variant, widths):
    rng = np.random.default_rng(0)
    for layers, both in ((1, True), (2, False)):
        layer = layer_of(variant, widths, layers, bidirectional=both)
        frozen = layer.quantize("bfloat16")
        twin = rounded_like(layer, frozen)
        x, lengths, reset = draw(rng, 6, 8, widths[0]), rng.integers(0, 7, 8), rng.random((6, 8)) < 0.2
        assert_same_bits(frozen(x, lengths=lengths, reset=reset), twin(x, lengths=lengths, reset=reset))
        if not both:
            assert_same_bits(frozen.stream(8)(x), twin(x)[0])


@every_variant
@pytest.mark.parametrize("widths", WIDTHS)
def test_int8_is_that_of_the_reference(variant, widths):
    """Step by step from the same states: all vectors but the inner ones are then the same bits, and so their numbers.
    Of an inner vector a number may be rounded to another one."""
    op, option, _ = VARIANTS[variant]
    layer = layer_of(variant, widths, bias=widths[0] > 1)
    frozen = layer.quantize("int8")
    inner = max((float(s.max()) for n, s in frozen.state_dict().items() if "hr" in n or "hh_l0.scale" in n), default=0)
    flips = 2 * inner if "projection" in variant or "reset_before" in variant else 0
    rng = np.random.default_rng(5)
    rows = 7
    state = [s[0] for s in states(layer(draw(rng, 1, rows, widths[0]))[1])]
    for _ in range(4):
        x = draw(rng, 1, rows, widths[0])
        y, after = frozen(x, tuple(s[None] for s in state) if len(state) > 1 else state[0][None])
        expected, after_expected = getattr(reference, op).forward(x, state, frozen._weights[0], **option)
        atol = (64 + widths[1]) * EPS * option.get("eps", 1) ** -0.5 + flips
        np.testing.assert_allclose(y, expected, atol=atol, rtol=64 * EPS)
        for a, e in zip(states(after), after_expected, strict=True):
            np.testing.assert_allclose(a[0], e, atol=atol, rtol=64 * EPS)
        state = [s[0] for s in states(after)]


@every_variant
def test_int8_is_close_to_the_layer(variant):
    """A number is off by half a scale at most: sums of 33 products with weights up to 1/sqrt(33)."""
    layer = layer_of(variant, (33, 33, 9))
    x = draw(np.random.default_rng(0), 3, 5, 33)
    bound = 0.1 * layer._options.get("eps", 1) ** -0.25
    np.testing.assert_allclose(layer.quantize("int8")(x)[0], layer(x)[0], atol=bound)


@every_form
@every_variant
def test_same_bits_alone_in_pieces_and_on_any_threads(variant, form):
    frozen = layer_of(variant, (34, 33, 18), 2).quantize(form)
    rng = np.random.default_rng(0)
    x, lengths = draw(rng, 11, 14, 34), rng.integers(0, 12, 14)
    whole = frozen(x, lengths=lengths)
    y, state = whole
    for threads in (1, 2, 3):
        with pyrnn.threads(threads):
            assert_same_bits(frozen(x, lengths=lengths), whole)
    for n in (0, 3, 13):
        alone, own = frozen(x[:, n : n + 1], lengths=lengths[n : n + 1])
        assert_same_bits(alone, y[:, n : n + 1])
        assert_same_bits(states(own), tuple(s[:, n : n + 1] for s in states(state)))
    full, state = frozen(x)
    first, carried = frozen(x[:4])
    second, last = frozen(x[4:], carried)
    assert_same_bits(np.concatenate([first, second]), full)
    assert_same_bits(states(last), states(state))
    stream = frozen.stream(14)
    assert_same_bits(np.stack([*map(stream.step, x[:5])]), full[:5])
    assert_same_bits(stream(x[5:]), full[5:])
    assert_same_bits(states(stream.state), states(state))


@every_form
def test_large_layers_on_teams_of_threads(form):
    """Units are shared, and threads meet at every step; input products are made ahead; many rows are shared."""
    rng = np.random.default_rng(0)
    for steps, rows, hidden in [(5, 1, 400), (200, 1, 70), (3, 70, 64), (4, 9, 300)]:
        layer = pyrnn.GRU(hidden, hidden, reset_after=False, rng=0)
        frozen, x = layer.quantize(form), draw(rng, steps, rows, hidden)
        results = []
        for threads in (1, 2, 3):
            with pyrnn.threads(threads):
                results.append((frozen(x), frozen.stream(rows)(x)))
        for result in results[1:]:
            assert_same_bits(result, results[0])
        if form == "bfloat16":
            assert_same_bits(results[0][0], rounded_like(layer, frozen)(x))


def test_wider_than_a_cache():
    """Panels of so many columns are used one after the other."""
    layer = pyrnn.LSTM(4600, 40, rng=0)
    frozen, x = layer.quantize("bfloat16"), draw(np.random.default_rng(0), 2, 9, 4600)
    assert_same_bits(frozen(x), rounded_like(layer, frozen)(x))


@every_form
def test_looked_up_inputs(form):
    frozen = pyrnn.LSTM(9, 17, 2, bidirectional=True, rng=0).quantize(form)
    rng = np.random.default_rng(0)
    table, ids = draw(rng, 30, 9), rng.integers(0, 30, (6, 5))
    assert_same_bits(frozen(table, ids=ids), frozen(table[ids]))


@pytest.mark.parametrize("variant", FEW)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_all_that_reads_it(variant, value):
    layer = layer_of(variant, (5, 17, 7))
    x = np.zeros((3, 2, 5), np.float32)
    x[1, 0, 2] = value
    y, state = layer.quantize("int8")(x)
    assert np.isnan(y[1:, 0]).all()
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[:, 1]).all()
    assert all(np.isnan(s[:, 0]).all() for s in states(state))


def test_a_row_of_weights_that_is_not_finite():
    layer = pyrnn.Linear(4, 3, rng=0)
    layer.params["weight"][1, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(layer.quantize("int8")(np.ones((2, 4)))), [[False, True, False]] * 2)


# ---- layers and models around them


def tied():
    table = pyrnn.Embedding(9, 6, rng=0)
    head = pyrnn.Linear(6, 9, weight=table, rng=1)
    return pyrnn.Sequential(table, pyrnn.GRU(6, 6, rng=2), head)


MODELS = {
    "Linear": (lambda: pyrnn.Linear(6, 5, rng=0), None),
    "Embedding": (lambda: pyrnn.Embedding(9, 6, padding_idx=2, rng=0), 9),
    "MultiheadAttention": (lambda: pyrnn.MultiheadAttention(6, 3, num_kv_heads=1, rng=0), None),
    "MultiheadAttention of three widths": (lambda: pyrnn.MultiheadAttention(6, 3, kdim=6, vdim=5, rng=0), None),
    "GRU": (lambda: pyrnn.GRU(6, 5, 2, batch_first=True, bidirectional=True, rng=0), None),
    "Sequential": (
        lambda: pyrnn.Sequential(
            pyrnn.Embedding(9, 6, rng=0), pyrnn.Conv1d(6, 4, 2, padding="causal", rng=0),
            pyrnn.LSTM(4, 8, proj_size=6, peephole=True, rng=1), pyrnn.LayerNorm(6), pyrnn.Linear(6, 3, rng=2),
        ), 9,
    ),
    "LearnedState": (lambda: pyrnn.LearnedState(pyrnn.LSTM(6, 5, rng=0)), None),
    "tied": (tied, 9),
}  # fmt: skip
every_model = pytest.mark.parametrize("name", MODELS)


def made(name):
    make, ids = MODELS[name]
    rng = np.random.default_rng(0)
    x = draw(rng, 4, 3, 6) if ids is None else rng.integers(0, ids, (4, 3))
    return make(), (x, x, x[..., :5]) if name.endswith("widths") else (x,)


@every_form
@every_model
def test_models(name, form, tmp_path):
    """In bfloat16 the bits of the rounded model; in int8 close to it. Copies, pickles and files are the same."""
    model, x = made(name)
    before = model.state_dict()
    frozen = model.quantize(form)
    assert type(frozen) is type(model)
    assert (frozen.quantized, model.quantized) == (form, None)
    result = frozen(*x)
    if form == "bfloat16":
        assert_same_bits(result, rounded_like(model, frozen)(*x))
    else:
        np.testing.assert_allclose(next(_flat(result)), next(_flat(model(*x))), atol=0.2)
    assert f"quantize({form!r})" in repr(frozen)
    assert frozen.num_parameters == model.num_parameters
    twins = [copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))]
    if name != "tied":
        assert frozen.config()["quantized"] == form
        pyrnn.save(tmp_path / "x", frozen)
        twins.append(pyrnn.load(tmp_path / "x"))
    for twin in twins:
        assert_same_bits(twin(*x), result)
        assert repr(twin) == repr(frozen)
        for name_, array in frozen.state_dict().items():
            assert_same_bits(twin.state_dict()[name_], array)
    for name_, array in model.state_dict().items():
        assert_same_bits(array, before[name_])


def _flat(result):
    if isinstance(result, tuple):
        for part in result:
            yield from _flat(part)
    else:
        yield result


@every_form
@every_model
def test_a_frozen_model_cannot_be_trained(name, form):
    model, x = made(name)
    frozen = model.quantize(form)
    state = frozen.state_dict()
    first = next(iter(frozen.params))
    for refused in (
        lambda: frozen.vjp(*x),
        lambda: frozen.load_state_dict(model.state_dict()),
        lambda: frozen.load_state_dict(state),
        lambda: frozen.params.update({first: 0}),
        lambda: frozen.params.__setitem__(first, 0),
        lambda: pyrnn.Adam(frozen),
        lambda: pyrnn.clip_grad_norm(frozen, 1.0),
        lambda: frozen.quantize({"int8": "bfloat16", "bfloat16": "int8"}[form]),
    ):
        with pytest.raises(TypeError, match=f"quantized to {form}"):
            refused()
    with pytest.raises(ValueError, match="read-only"):
        frozen.params[first][...] = 0
    for name_, array in frozen.state_dict().items():
        assert_same_bits(array, state[name_])


@every_form
def test_a_frozen_layer_in_a_model_that_is_trained(form, tmp_path):
    """The layers around it are; it gives no gradient back."""
    frozen = pyrnn.GRU(3, 4, rng=0).quantize(form)
    model = pyrnn.Sequential(frozen, pyrnn.Linear(4, 2, rng=1))
    assert list(model.params) == ["1.weight", "1.bias"]
    with pytest.raises(TypeError, match=f"GRU.vjp: the layer is quantized to {form}"):
        model.vjp(np.ones((2, 1, 3)))
    pyrnn.Adam(model).step()
    pyrnn.save(tmp_path / "x", model)
    assert_same_bits(pyrnn.load(tmp_path / "x")(np.ones((2, 1, 3))), model(np.ones((2, 1, 3))))


@every_form
def test_models_of_sequences(form):
    """Models that call the vjp of their layers, and walk streams from state to state."""
    model = pyrnn.EncoderDecoder(9, 11, 6, 8, rng=0)
    frozen = model.quantize(form)
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 9, (5, 3)), rng.integers(0, 11, (4, 3))
    twin = rounded_like(model, frozen)
    if form == "bfloat16":
        assert_same_bits(frozen(source, target), twin(source, target))
    np.testing.assert_allclose(frozen(source, target), model(source, target), atol=0.2)
    with pytest.raises(TypeError, match="quantized"):
        frozen.vjp(source, target)


@every_form
def test_streams_of_models(form):
    model = pyrnn.Sequential(pyrnn.Embedding(9, 6, rng=0), pyrnn.GRU(6, 8, 2, rng=1), pyrnn.Linear(8, 3, rng=2))
    frozen, ids = model.quantize(form), np.random.default_rng(0).integers(0, 9, (7, 3))
    stream = frozen.stream(3)
    assert_same_bits(np.stack([*map(stream.step, ids)]), frozen(ids))
    lstm = pyrnn.LSTM(6, 8, rng=0).quantize(form)
    x, y = draw(np.random.default_rng(0), 3, 6), np.empty((3, 8), np.float32)
    cython_stream.repeat(lstm.stream(3), x, y, 4)
    assert_same_bits(y, lstm(np.stack([x] * 4))[0][3])
    attention = pyrnn.MultiheadAttention(6, 3, rng=0).quantize(form)
    x = draw(np.random.default_rng(0), 5, 2, 6)
    assert_same_bits(np.stack([*map(attention.stream(2).step, x)]), attention(x, is_causal=True))


def test_bytes():
    layer = pyrnn.LSTM(100, 200, rng=0)
    matrices = 4 * 200 * 300
    assert layer.nbytes == 4 * (matrices + 1600)
    assert layer.quantize("bfloat16").nbytes == 2 * matrices + 4 * 1600
    assert layer.quantize("int8").nbytes == matrices + 4 * 1600 + 4 * 1600


def test_the_state_dict_has_what_is_kept():
    state = pyrnn.Linear(3, 2, rng=0).quantize("int8").state_dict()
    assert {name: (a.dtype.name, a.shape) for name, a in state.items()} == {
        "weight": ("int8", (2, 3)), "weight.scale": ("float32", (2,)), "bias": ("float32", (2,)),
    }  # fmt: skip
    state = pyrnn.Linear(3, 2, bias=False, rng=0).quantize("bfloat16").state_dict()
    assert {name: (a.dtype.name, a.shape) for name, a in state.items()} == {"weight": ("uint16", (2, 3))}


@pytest.mark.parametrize("package", ["onnx", "torch"])
def test_other_systems_get_the_layers_as_they_were(package):
    pytest.importorskip(package)
    export = {"onnx": pyrnn.to_onnx, "torch": pyrnn.to_torch}[package]
    for model in (pyrnn.GRU(3, 4).quantize("int8"), pyrnn.Sequential(pyrnn.GRU(3, 4).quantize("int8"))):
        with pytest.raises(ValueError, match="GRU is quantized to int8, expected what it was made of"):
            export(model)


# ---- wrong calls


def test_wrong_layers_and_forms():
    with pytest.raises(ValueError, match=r"GRU.quantize: form is 'int4', expected one of bfloat16, int8"):
        pyrnn.GRU(3, 4).quantize("int4")
    with pytest.raises(ValueError, match=r"GRU.quantize: GRU is of float64, expected float32"):
        pyrnn.GRU(3, 4, dtype="float64").quantize("int8")
    with pytest.raises(ValueError, match=r"Sequential.quantize: Linear is of float64, expected float32"):
        pyrnn.Sequential(pyrnn.GRU(3, 4), pyrnn.Linear(4, 2, dtype="float64")).quantize("int8")
    for layer in (pyrnn.LayerNorm(3), pyrnn.Conv1d(3, 4, 2), pyrnn.Sequential(pyrnn.ReLU())):
        with pytest.raises(TypeError, match=r"quantize: it has no matrices of recurrent layers, Linear, Embedding or"):
            layer.quantize("int8")


GOOD = (np.ones((8, 3), np.int8), np.ones(8, np.float32))
WRONG = {
    "scale has another length": ((GOOD[0], np.ones(7, np.float32)), ValueError),
    "scale is of float64": ((GOOD[0], np.ones(8)), TypeError),
    "numbers are of int16": ((GOOD[0].astype(np.int16), GOOD[1]), TypeError),
    "one axis": ((np.ones(8, np.int8), GOOD[1]), ValueError),
    "no axis": ((np.ones((), np.int8), GOOD[1]), ValueError),
    "three": ((*GOOD, GOOD[1]), TypeError),
    "int8 without a scale": (GOOD[0], TypeError),
    "too many columns": ((np.zeros((8, 132_105), np.int8), GOOD[1]), ValueError),
    "three axes of bfloat16": (np.ones((8, 3, 1), np.uint16), ValueError),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_matrices(wrong):
    matrix, error = WRONG[wrong]
    x = np.ones((2, 1, 3), np.float32)
    bias = np.zeros(8, np.float32)
    hidden = encoded.encode(np.zeros((8, 2), np.float32), "int8")
    for refused in (
        lambda: kernels.linear.forward(x, matrix, None),
        lambda: kernels.linear.packed(matrix, None),
        lambda: kernels.embedding.forward(np.zeros(2, np.int64), matrix),
        lambda: kernels.lstm.forward(x, None, (matrix, hidden, bias, bias, None, None)),
        lambda: kernels.lstm.stream([(matrix, hidden, bias, bias, None, None)], 1),
    ):
        with pytest.raises(error):
            refused()


@every_form
def test_kernels_have_no_way_back_and_no_doubles(form):
    weights = [encoded.encode(np.zeros((3, 3), np.float32), form)] * 2 + [np.zeros(3, np.float32)] * 2
    x = np.ones((2, 1, 3), np.float32)
    for backend in (kernels, reference):
        with pytest.raises(TypeError, match="have no way back"):
            backend.rnn.vjp(x, None, weights)
    with pytest.raises(TypeError):
        kernels.rnn.forward(x.astype(np.float64), None, weights)
    with pytest.raises(TypeError):
        kernels.linear.forward(x.astype(np.float64), weights[0], None)


# ---- instruction sets


@pytest.mark.parametrize("isa", kernels.isas()[kernels.isas().index(kernels.isa()) + 1 :])
def test_whole_numbers_are_the_same_on_every_set(isa):
    """Where scales are powers of two results are exact, and so the same bits."""
    code = """
        import hashlib
        import numpy as np
        from pyrnn import kernels
        rng = np.random.default_rng(0)
        digest = hashlib.sha256()
        for outputs, inputs, rows in [(5, 7, 1), (64, 130, 9), (200, 333, 40)]:
            numbers = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
            scale = 2.0 ** rng.integers(-9, 9, outputs)
            x = rng.uniform(-127, 127, (rows, inputs))
            x[:, 0] = 127
            x *= 2.0 ** rng.integers(-9, 9, (rows, 1))
            y = kernels.linear.forward(x.astype(np.float32), (numbers, scale.astype(np.float32)), None)
            digest.update(y.tobytes())
        print(digest.hexdigest())
    """
    assert python(code, PYRNN_ISA=isa) == python(code)
