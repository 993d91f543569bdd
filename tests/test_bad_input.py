"""Wrong arguments at the layers, losses and optimisers: what the message says, and that nothing has changed."""

import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from cells import CELLS, LAYERS

import pyrnn
from pyrnn.core.checks import numbers_array
from pyrnn.layers.stream import Stream

T, N, I, H = 5, 3, 8, 4  # noqa: E741  the letters of the docstrings


@pytest.fixture(params=["rnn", "lstm", "gru"])  # what their errors say is written out below
def make(request):
    return lambda **options: LAYERS[request.param](**{"input_size": I, "hidden_size": H, "rng": 0, **options})


def refuses(call, error, match):
    with pytest.raises(error, match=match):
        call()


# Layers: x, state, lengths, reset ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["__call__", "vjp"])
def test_shape_of_x(make, method):
    for batch_first, axes in [(False, "T, N"), (True, "N, T")]:
        layer = make(batch_first=batch_first)
        name = type(layer).__name__ + {"vjp": r"\.vjp", "__call__": ""}[method]
        run = getattr(layer, method)
        refuses(
            lambda run=run: run(np.zeros((5, 3, 7))),
            ValueError,
            rf"^{name}: x has shape \(5, 3, 7\), expected \({axes}, 8\)$",
        )
        refuses(lambda run=run: run(np.zeros((5, 7))), ValueError, r"x has shape \(5, 7\), expected \(T, 8\)$")
        for shape in [(8,), (), (2, 5, 3, 8), (0,)]:
            expected = rf"expected \({axes}, 8\) or \(T, 8\)$"
            refuses(lambda run=run, shape=shape: run(np.zeros(shape)), ValueError, expected)


def test_ids(make):
    table, name = np.zeros((6, I)), make().__class__.__name__
    for layer, axes in [(make(), "T, N"), (make(batch_first=True), "N, T")]:
        for run in (layer, layer.vjp):
            for ids, error, match in [
                ([[0.0]], TypeError, "ids has dtype float64, expected integers"),
                ([[True]], TypeError, "ids has dtype bool"),
                (np.zeros((5, 3, 2), int), ValueError, rf"ids has shape \(5, 3, 2\), expected \({axes}\) or \(T,\)$"),
                (3, ValueError, rf"ids has shape \(\), expected \({axes}\) or \(T,\)$"),
                ([[0, 6]], ValueError, "ids holds 6, expected 0 to 5"),
                ([0, -1], ValueError, "ids holds -1, expected 0 to 5"),
                ([10**30], ValueError, "ids holds .*more than an int64"),
                ([[0], [1, 2]], ValueError, "ids is not an array"),
            ]:
                refuses(lambda run=run, ids=ids: run(table, ids=ids), error, match)
            for x in (np.zeros((6, 7)), np.zeros((T, N, I)), np.zeros(I)):
                refuses(lambda run=run, x=x: run(x, ids=[[0]]), ValueError, rf"{name}.*x has shape .*\(V, 8\), as")
            refuses(lambda run=run: run(np.zeros((0, I)), ids=[0]), ValueError, "ids holds 0, expected 0 to -1")
    y, _ = make()(np.zeros((0, I)), ids=np.zeros((0, 3), int))
    assert y.shape == (0, 3, H)
    with pytest.raises(ValueError, match=r"lstm.forward: ids\[1, 0\] is 6, expected 0 to 5"):
        pyrnn.kernels.lstm.forward(
            table, None, (*(np.zeros((16, n)) for n in (I, 4)), *[None] * 4), ids=np.array([[5], [6]])
        )


def test_ids_in_the_padding_and_of_huge_tables():
    layer = pyrnn.GRU(3, 4, rng=0)
    y, h = layer(np.zeros((0, 3)), ids=[[99], [98]], lengths=[0])  # no row is read
    assert not y.any()
    assert not h.any()
    expected = layer(np.ones((3, 1, 3)))[0]
    read = [0, 399_999_999, 7]
    table = np.zeros((400_000_000, 3), "f4")  # beyond 4 GiB; only the rows that are read are looked at, and take memory
    table[read] = 1
    for rows in (table, np.broadcast_to(np.ones((1, 3), "f4"), (1000, 3))):
        ids = np.minimum(read, len(rows) - 1)[:, None]
        np.testing.assert_array_equal(layer(rows, ids=ids)[0], expected)


def test_kernels_of_linear_maps_refuse_what_does_not_fit():
    x, weight = np.ones((2, 3)), np.ones((4, 3))  # so small that hardly anything is looked at
    for name, *arguments in [
        ("bias", x, weight, np.ones(3)),
        ("bias", x, weight, np.ones((4, 1))),
        ("x", x[:, :2], weight, None),
        ("x", np.ones((3, 2, 3)), np.ones((2, 4, 3)), None),  # of other models
        ("bias", np.ones((2, 2, 3)), np.ones((2, 4, 3)), np.ones((1, 4))),
    ]:
        refuses(lambda given=arguments: pyrnn.kernels.linear.forward(*given), ValueError, f"{name} has shape")


def test_kernels_of_streams_refuse_layers_and_pasts_that_do_not_fit():
    def lstm(inputs, hidden, outputs, *models):
        shapes = (4 * hidden, inputs), (4 * hidden, outputs), (4 * hidden,), (4 * hidden,), (outputs, hidden)
        return (*(np.zeros((*models, *shape)) for shape in shapes), None)

    stream = pyrnn.kernels.lstm.stream
    for second in (lstm(3, 4, 2), lstm(2, 4, 3), lstm(2, 5, 2)):
        refuses(lambda second=second: stream([lstm(3, 4, 2), second], 1), ValueError, r"layers\[1\] does not fit the")
    for second in (lstm(2, 4, 2), lstm(2, 4, 2, 3)):
        refuses(lambda second=second: stream([lstm(3, 4, 2, 2), second], 1), ValueError, r"layers\[1\] is of other mod")
    windows, x = pyrnn.kernels.linear.windowed(np.ones((2, 3, 2)), None), np.ones((2, 3, 4))
    refuses(lambda: windows.continued(x[:1], x), ValueError, r"past has shape \(1, 3, 4\), expected \(2, C, T\)")


def test_kernels_refuse_what_does_not_fit():
    """What layers never give them."""
    k, x, none = pyrnn.kernels, np.ones((2, 3, 4)), (None, None)
    w = np.ones((5, 4)), np.ones((5, 5))  # of an RNN
    of_lstm = np.ones((8, 4)), np.ones((8, 2)), *none
    many = tuple(np.ones((2, *a.shape)) for a in w)
    y, normal, inverse = k.layer_norm.record(x, np.ones(4), None, 1e-5)
    windowed, packed = k.linear.windowed, k.linear.packed(np.ones((3, 4)), None)
    stream = k.rnn.stream([(*w, *none)], 3)
    for call, message in {
        lambda: k.lstm.forward(x, None, (np.ones((6, 4)), *[None] * 5)): r"weight_ih has .* expected \(4\*H, I\)",
        lambda: k.rnn.forward(np.ones((3, 2, 3, 4)), None, (*many, *none)): r"x has shape .*, expected \(2, T, N, 4\)",
        lambda: k.rnn.forward(x[None].repeat(2, 0), None, (*many, *none), lengths=np.ones((3, 3), int)): "lengths has",
        lambda: k.lstm.vjp(x, None, (*of_lstm, *none))[1](
            None, None, (*of_lstm, *w)
        ): r"grads\[4\] is given, but there",
        lambda: k.layer_norm.backward(y, normal, inverse[1:], np.ones(4)): r"inverse has shape \(5,\), expected \(6,\)",
        lambda: windowed(x, None, stride=0): "stride, dilation, before and after are 0, 1, 0 and 0",
        lambda: windowed(x, None, before=-1): "stride, dilation, before and after are 1, 1, -1 and 0",
        lambda: windowed(x, np.ones(3)): r"bias has shape \(3,\), expected \(2,\)",
        lambda: packed.forward(x[:, :, :3]): r"x has shape \(2, 3, 3\), expected \(..., 4\)",
        lambda: k.linear.activated(x[:, :, :0], "softmax"): r"x has shape \(2, 3, 0\), expected \(..., O\)",
        lambda: stream.step(x[0, :, :3]): r"x has shape \(3, 3\), expected \(3, 4\)",
        lambda: stream.run(x[:, :2]): r"x has shape \(2, 2, 4\), expected \(T, 3, 4\)",
    }.items():
        refuses(call, ValueError, message)


class Liar(np.ndarray):
    """Copies of it are something else."""

    def copy(self, order="C"):
        return np.zeros((10**6, 1, 0), self.dtype)


def test_arrays_that_copy_themselves_in_their_own_way():
    op, weights = pyrnn.kernels.rnn, (np.ones((H, I)), np.ones((H, H)), None, None)
    ids, table = np.array([[0, 1], [2, 0]]), np.ones((3, I))
    expected, _ = op.forward(table, None, weights, ids=ids)
    for given in ({"x": table, "ids": ids.view(Liar)}, {"x": np.asfortranarray(table).view(Liar), "ids": ids}):
        y, _ = op.forward(given["x"], None, weights, ids=given["ids"])
        np.testing.assert_array_equal(y, expected)
    y, _ = op.forward(np.asfortranarray(table[ids]).view(Liar), None, weights)
    np.testing.assert_array_equal(y, expected)


class Unwilling:
    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array today")


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (np.zeros((T, N, I), complex), TypeError, "x has dtype complex128, expected real numbers"),
        (np.zeros((T, N, I), object), TypeError, "x has dtype object"),
        (np.full((T, N, I), "1"), TypeError, "x has dtype <U1"),
        (np.full((T, N, I), b"1"), TypeError, r"x has dtype \|S1"),
        (np.zeros((T, N, I), "M8[s]"), TypeError, "x has dtype datetime64"),
        (np.zeros((T, N, I), [("a", "f4")]), TypeError, "x has dtype"),
        ([[1.0] * I, [1.0]], ValueError, r"x is not an array: .*inhomogeneous.*data\.pad"),
        ([[10**30] * I] * T, TypeError, "x has dtype object"),
        (None, TypeError, "x has dtype object"),
        ("text", TypeError, "x has dtype"),
        (Unwilling(), RuntimeError, "no array today"),
    ],
)
def test_dtype_of_x(make, x, error, match):
    layer = make()
    refuses(lambda: layer(x), error, match)
    refuses(lambda: layer.vjp(x), error, match)
    refuses(lambda: layer.stream(N)(x), error, match)


@pytest.mark.parametrize("rows", [N, None])
def test_state(rows):
    batch, shape = ((N,), (T, N, I)) if rows else ((), (T, I))
    x = np.zeros(shape)
    good, wrong = np.zeros((2, *batch, H)), np.zeros((2, *batch, H + 1))
    gru, lstm, projected = pyrnn.GRU(I, H, 2), pyrnn.LSTM(I, H, 2), pyrnn.LSTM(I, H, 2, proj_size=2)
    text = str(good.shape).replace("(", r"\(").replace(")", r"\)")
    for layer, state, error, match in [
        (gru, wrong, ValueError, rf"GRU: state has shape .*, expected {text}"),
        (gru, good[:1], ValueError, "state has shape"),
        (gru, good[0], ValueError, "state has shape"),
        (gru, good[None], ValueError, "state has shape"),
        (gru, (good, good), ValueError, "state has shape"),
        (gru, good.astype(complex), TypeError, "GRU: state has dtype complex128"),
        (lstm, [5, 2], TypeError, r"LSTM: state is \[5, 2\], expected arrays; lengths are given by name"),
        (lstm, good, TypeError, r"LSTM: state is not a pair \(h, c\)"),
        (lstm, (good,), TypeError, "not a pair"),
        (lstm, (good, None), TypeError, "c of state has dtype object"),
        (lstm, (good, good, good), TypeError, "not a pair"),
        (lstm, (wrong, good), ValueError, rf"LSTM: h of state has shape .*, expected {text}"),
        (lstm, (good, wrong), ValueError, "LSTM: c of state has shape"),
        (projected, (good, good), ValueError, "LSTM: h of state has shape"),
        (lstm, "hc", TypeError, "not a pair"),
    ]:
        refuses(lambda: layer(x, state), error, match)  # noqa: B023
        refuses(lambda: layer.vjp(x, state), error, match.replace(": ", r"\.vjp: ", 1))  # noqa: B023


@pytest.mark.parametrize(
    ("lengths", "error", "match"),
    [
        ([1.0, 2.0, 3.0], TypeError, "lengths has dtype float64, expected integers"),
        ([True, False, True], TypeError, "lengths has dtype bool"),
        ([[1, 2, 3]], ValueError, r"lengths has shape \(1, 3\), expected \(3,\)"),
        ([1, 2], ValueError, r"lengths has shape \(2,\), expected \(3,\)"),
        (2, ValueError, r"lengths has shape \(\), expected \(3,\)"),
        ([], ValueError, r"lengths has shape \(0,\), expected \(3,\)"),
        (np.zeros(0), TypeError, "lengths has dtype float64"),
        ([1, 2, 6], ValueError, "lengths holds 6, expected 0 to 5"),
        ([1, -1, 2], ValueError, "lengths holds -1, expected 0 to 5"),
        (np.array([1, 2, 2**64 - 1], "u8"), ValueError, "lengths holds 18446744073709551615"),
        ([1, 2, 2**70], ValueError, f"lengths holds {2**70}, which is more than an int64 can hold"),
        (["1", "2", "3"], TypeError, "lengths has dtype <U1"),
        ([None] * 3, TypeError, "lengths has dtype object"),
        ([[1], [2, 3], [4]], ValueError, "lengths is not an array"),
    ],
)
def test_lengths(make, lengths, error, match):
    layer = make()
    refuses(lambda: layer(np.zeros((T, N, I)), lengths=lengths), error, match)
    refuses(lambda: layer.vjp(np.zeros((T, N, I)), lengths=lengths), error, match)


def test_length_of_one_sequence(make):
    layer, x = make(), np.zeros((T, I))
    refuses(lambda: layer(x, lengths=[3]), ValueError, r"lengths has shape \(1,\), expected \(\)")
    refuses(lambda: layer(x, lengths=2.0), TypeError, "lengths has dtype float64")
    refuses(lambda: layer(x, lengths=6), ValueError, "lengths holds 6, expected 0 to 5")


def test_reset(make):
    for batch_first, axes in [(False, "T, N"), (True, "N, T")]:
        layer = make(batch_first=batch_first)
        x = np.zeros((T, N, I))
        for reset, error, match in [
            (np.zeros((N, T), bool), ValueError, rf"reset has shape \(3, 5\), expected \({axes}\) = \(5, 3\)"),
            (np.zeros((T, N)), TypeError, "reset has dtype float64, expected booleans"),
            (np.zeros((T, N), int), TypeError, "reset has dtype int64"),
            (np.zeros(T, bool), ValueError, "reset has shape"),
            (True, ValueError, r"reset has shape \(\)"),
            ([], ValueError, r"reset has shape \(0,\)"),
            (np.zeros((T, N), object), TypeError, "reset has dtype object"),
        ]:
            refuses(lambda: layer(x, reset=reset), error, match)  # noqa: B023
            refuses(lambda: layer.vjp(x, reset=reset), error, match)  # noqa: B023
    refuses(lambda: make()(np.zeros((T, I)), reset=np.zeros((T, 1), bool)), ValueError, r"expected \(T,\) = \(5,\)")


def test_checkpoint_every(make):
    layer, x = make(), np.zeros((T, N, I))
    name = type(layer).__name__
    for every in (0, -1):
        match = rf"{name}\.vjp: checkpoint_every is {every}, expected at least 1"
        refuses(lambda every=every: layer.vjp(x, checkpoint_every=every), ValueError, match)
    for every in (1.5, "2", True, [1]):
        match = "checkpoint_every is .*, expected an integer"
        refuses(lambda every=every: layer.vjp(x, checkpoint_every=every), TypeError, match)


def test_a_refused_vjp_draws_no_mask():
    layer = pyrnn.LSTM(I, H, 2, dropout=0.5, rng=0)
    before = layer.rng.bit_generator.state
    refuses(lambda: layer.vjp(np.zeros((T, N, I)), lengths=[9, 9, 9]), ValueError, "lengths")
    assert layer.rng.bit_generator.state == before


# Constructors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"input_size": 0}, ValueError, "input_size is 0, expected at least 1"),
        ({"hidden_size": -3}, ValueError, "hidden_size is -3, expected at least 1"),
        ({"hidden_size": 4.0}, TypeError, r"hidden_size is 4.0, expected an integer"),
        ({"hidden_size": None}, TypeError, "hidden_size is None"),
        ({"input_size": True}, TypeError, "input_size is True"),
        ({"num_layers": 0}, ValueError, "num_layers is 0"),
        ({"num_layers": "2"}, TypeError, "num_layers is '2'"),
        ({"bias": 0.5}, TypeError, "bias is 0.5, expected True or False"),
        ({"batch_first": 1}, TypeError, "batch_first is 1"),
        ({"bidirectional": None}, TypeError, "bidirectional is None"),
        ({"dropout": -0.1}, ValueError, r"dropout is -0.1, expected 0 to 1"),
        ({"dropout": 1.5}, ValueError, "dropout is 1.5"),
        ({"dropout": math.nan}, ValueError, "dropout is nan"),
        ({"dropout": True}, TypeError, "dropout is True, expected a number"),
        ({"dropout": "0.5"}, TypeError, "dropout is '0.5'"),
        ({"dtype": "float16"}, ValueError, "dtype is 'float16', expected float32 or float64"),
        ({"dtype": int}, ValueError, "dtype is .*, expected float32 or float64"),
        ({"dtype": "nonsense"}, ValueError, "dtype is 'nonsense'"),
        ({"dtype": None}, ValueError, "dtype is None"),
        ({"dtype": ">f8"}, ValueError, "dtype is '>f8'"),
        ({"rng": -1}, ValueError, "rng is -1"),
        ({"rng": 0.5}, TypeError, "rng is 0.5, expected None, an integer or a numpy.random.Generator"),
        ({"rng": True}, TypeError, "rng is True"),
        ({"rng": np.random.RandomState(0)}, TypeError, "rng is RandomState"),
    ],
)
def test_constructor(make, options, error, match):
    name = type(make()).__name__
    refuses(lambda: make(**options), error, f"^{name}: {match}")


def test_constructor_options_of_one_layer():
    for call, error, match in [
        (
            lambda: pyrnn.RNN(I, H, nonlinearity="gelu"),
            ValueError,
            "RNN: nonlinearity is 'gelu', expected one of tanh, ",
        ),
        (lambda: pyrnn.RNN(I, H, 1, True), ValueError, "RNN: nonlinearity is True"),
        (lambda: pyrnn.LSTM(I, H, proj_size=H), ValueError, "LSTM: proj_size is 4, expected less than hidden_size 4"),
        (lambda: pyrnn.LSTM(I, H, proj_size=-1), ValueError, "LSTM: proj_size is -1, expected at least 0"),
        (lambda: pyrnn.LSTM(I, H, peephole=1), TypeError, "LSTM: peephole is 1"),
        (lambda: pyrnn.GRU(I, H, reset_after=None), TypeError, "GRU: reset_after is None"),
        (lambda: pyrnn.GRU(I, H, proj_size=2), TypeError, "proj_size"),
        (lambda: pyrnn.Linear(0, 1), ValueError, "Linear: in_features is 0"),
        (lambda: pyrnn.Linear(1, 1.5), TypeError, "Linear: out_features is 1.5"),
        (lambda: pyrnn.Linear(1, 1, "yes"), TypeError, "Linear: bias is 'yes'"),
        (lambda: pyrnn.Linear(1, 1, dtype="i4"), ValueError, "Linear: dtype is 'i4'"),
        (lambda: pyrnn.Embedding(1, 0), ValueError, "Embedding: embedding_dim is 0"),
        (lambda: pyrnn.Embedding(1, 1, rng="0"), TypeError, "Embedding: rng is '0'"),
    ]:
        refuses(call, error, match)


def test_huge_numbers(make):
    """What no machine can hold is refused by the call it was given to, with the argument that is wrong."""
    layer, linear = make(), pyrnn.Linear(2, 2)
    name = type(layer).__name__
    gates = len(CELLS[name.lower()].gates)
    for call, error, match in [
        (
            lambda: make(hidden_size=10**9),
            ValueError,
            rf"^{name}: \d+ parameters are too many, weight_hh_l0 alone has "
            rf"shape \({gates * 10**9}, 1000000000\)",
        ),
        (lambda: make(hidden_size=10**30), ValueError, f"^{name}: hidden_size is {10**30}, expected 1 to 2147483647"),
        (lambda: make(input_size=10**5000), ValueError, rf"^{name}: input_size is 2\*\*\d+ or more, expected 1 to"),
        (lambda: make(input_size=-(10**5000)), ValueError, rf"^{name}: input_size is -2\*\*\d+ or more, expected at"),
        (lambda: make(num_layers=10**30), ValueError, f"^{name}: num_layers is {10**30}, expected 1 to 65536"),
        (lambda: make(dropout=10**400), ValueError, f"^{name}: dropout is more than a float can hold"),
        (
            lambda: make(input_size=1)(np.empty((0, 2**59, 1), "f4")),
            ValueError,
            rf"^{name}: x has shape \(0, {2**59}, 1\), its",
        ),
        (
            lambda: make(input_size=1).vjp(np.empty((2**59, 0, 1), "f4")),
            ValueError,
            rf"^{name}\.vjp: x has shape .* than memory",
        ),
        (lambda: layer(np.zeros((T, 1, I)), lengths=[10**30]), ValueError, rf"^{name}: lengths holds {10**30}, which"),
        (lambda: layer(np.zeros((T, 1, I)), lengths=[None]), TypeError, "lengths has dtype object, expected integers"),
        (lambda: layer.vjp(np.zeros((T, 1, I)), checkpoint_every=2**70), ValueError, f"checkpoint_every is {2**70}, e"),
        (lambda: layer.stream(10**30), ValueError, rf"^{name}\.stream: batch is {10**30}, expected 1 to"),
        (lambda: pyrnn.LSTM(1, 2, proj_size=2**70), ValueError, f"^LSTM: proj_size is {2**70}, expected 0 to"),
        (lambda: pyrnn.Linear(2**31, 1), ValueError, f"^Linear: in_features is {2**31}, expected 1 to {2**31 - 1}"),
        (lambda: pyrnn.Linear(1, 2**70), ValueError, "^Linear: out_features is"),
        (lambda: pyrnn.Linear(2**30, 2**30), ValueError, r"^Linear: \d+ parameters are too many, weight alone has"),
        (lambda: pyrnn.Embedding(2**70, 1), ValueError, "^Embedding: num_embeddings is"),
        (lambda: pyrnn.Embedding(1, 2**70), ValueError, "^Embedding: embedding_dim is"),
        (lambda: pyrnn.Embedding(2, 2)([2**70]), ValueError, f"^Embedding: ids holds {2**70}, which is more than an"),
        (lambda: pyrnn.Embedding(2, 2)([-(2**70)]), ValueError, f"^Embedding: ids holds -{2**70}, which is more than"),
        (lambda: pyrnn.Adam(linear, lr=10**400), ValueError, "^Adam: lr is more than a float can hold"),
        (lambda: pyrnn.SGD(linear, momentum=10**400), ValueError, "^SGD: momentum is more than a float can hold"),
    ]:
        refuses(call, error, match)


def test_dtypes_by_any_name():
    for name in ("float32", "f4", np.float32, np.dtype("float32"), "<f4"):
        assert pyrnn.Linear(1, 1, dtype=name).dtype is np.dtype("float32")
    assert pyrnn.Linear(np.int64(1), np.uint8(2), np.bool_(True), dtype=float).dtype == np.float64


# Streams ----------------------------------------------------------------------------------------------------------


def test_refused_stream_calls_leave_the_stream_as_it_was(make, rng):
    layer = make(num_layers=2)
    call = rf"{type(layer).__name__}\.stream"
    stream = layer.stream(N)
    stream.step(rng.standard_normal((N, I)))

    def state():
        now = stream.state
        return now if isinstance(now, tuple) else (now,)

    def assign(value):
        stream.state = value

    before = state()
    for action, error, match in [
        (lambda: stream.step(np.zeros((N, 7))), ValueError, rf"{call}: x has shape \(3, 7\), expected \(3, 8\)"),
        (lambda: stream.step(np.zeros((2, I))), ValueError, rf"{call}: x has shape \(2, 8\), expected \(3, 8\)"),
        (lambda: stream.step(np.zeros((2, I), "f4")), ValueError, rf"{call}: x has shape"),
        (lambda: stream.step(np.zeros(I)), ValueError, "x has shape"),
        (lambda: stream.step(np.zeros((1, N, I))), ValueError, "x has shape"),
        (lambda: stream.step(np.zeros((N, I), complex)), TypeError, rf"{call}: x has dtype complex128"),
        (lambda: stream.step(None), TypeError, "x has dtype object"),
        (lambda: stream.step(), TypeError, None),
        (lambda: stream(np.zeros((T, N, 7))), ValueError, rf"{call}: x has shape .*, expected \(T, 3, 8\)"),
        (lambda: stream(np.zeros((T, 2, I))), ValueError, "x has shape"),
        (lambda: stream(np.zeros((T, I))), ValueError, "x has shape"),
        (lambda: stream("x"), TypeError, "x has dtype"),
        (lambda: stream.reset(N), ValueError, rf"{call}: rows holds 3, expected 0 to 2"),
        (lambda: stream.reset([0, -1]), ValueError, "rows holds -1"),
        (lambda: stream.reset([0.0]), TypeError, "rows has dtype float64, expected integers"),
        (lambda: stream.reset([True]), TypeError, "rows has dtype bool"),
        (lambda: stream.reset([[0]]), ValueError, "rows has shape"),
        (lambda: stream.reset("0"), TypeError, "rows has dtype"),
        (lambda: assign(np.zeros((9, N, H))), (TypeError, ValueError), f"{call}: state"),
        (lambda: assign(None), TypeError, f"{call}: state"),
        (lambda: assign((before[0], np.zeros(3))), (TypeError, ValueError), f"{call}: .*state"),
    ]:
        refuses(action, error, match)
        for now, then in zip(state(), before, strict=True):
            np.testing.assert_array_equal(now, then)
    assert stream.step(np.zeros((N, I))).shape == (N, H)


def test_a_step_is_tried_again_only_for_its_argument(make):
    """An array-like is converted and stepped; what fails otherwise fails at once."""
    calls = []

    class Failing:
        def step(self, x):
            calls.append(x)
            raise error

    for error, expected in [(TypeError("x"), 2), (ValueError("x"), 2), (MemoryError("x"), 1), (RuntimeError("x"), 1)]:
        calls.clear()
        refuses(lambda: Stream(make(), Failing(), 1).step(np.zeros(I)), type(error), "x")
        assert len(calls) == expected


def test_making_a_stream(make):
    layer = make()
    call = rf"{type(layer).__name__}\.stream"
    refuses(make(bidirectional=True).stream, ValueError, f"{call}: a bidirectional layer")
    refuses(lambda: layer.stream(0), ValueError, f"{call}: batch is 0, expected at least 1")
    refuses(lambda: layer.stream(2.0), TypeError, "batch is 2.0")
    refuses(lambda: layer.stream(2, "state"), TypeError, f"{call}: state")
    expected = r"expected \(1, 8\) or \(8,\)"
    refuses(lambda: layer.stream().step(np.zeros(7)), ValueError, rf"{call}: x has shape \(7,\), {expected}")
    turned = make(batch_first=True)
    refuses(lambda: turned.stream(N)(np.zeros((T, N, I))), ValueError, r"expected \(3, T, 8\)")


# Linear, Embedding, loss, optimisers, threads -----------------------------------------------------------------------


def test_linear_and_embedding():
    linear, embedding = pyrnn.Linear(I, H), pyrnn.Embedding(10, H)
    for call, error, match in [
        (lambda: linear(np.zeros((3, 7))), ValueError, r"Linear: x has shape \(3, 7\), expected \(\.\.\., 8\)"),
        (lambda: linear(np.float32(1)), ValueError, r"Linear: x has shape \(\)"),
        (lambda: linear.vjp("x"), TypeError, r"Linear\.vjp: x has dtype"),
        (lambda: linear.vjp(np.zeros(I))[1](None), TypeError, "Linear pullback: dy has dtype object"),
        (lambda: embedding([1.0]), TypeError, "Embedding: ids has dtype float64, expected integers"),
        (lambda: embedding([True]), TypeError, "Embedding: ids has dtype bool"),
        (lambda: embedding([3, 10]), ValueError, "Embedding: ids holds 10, expected 0 to 9"),
        (lambda: embedding(-1), ValueError, "Embedding: ids holds -1, expected 0 to 9"),
        (lambda: embedding.vjp(np.array([2**63], "u8")), ValueError, r"Embedding\.vjp: ids holds 9223372036854775808"),
        (lambda: embedding.vjp([[1], [1, 2]]), ValueError, "ids is not an array"),
        (lambda: embedding.vjp([1])[1](np.zeros((1, H, 1))), ValueError, "Embedding pullback: dy has shape"),
    ]:
        refuses(call, error, match)


@pytest.mark.parametrize(
    ("name", "first"),
    [("cross_entropy", "logits"), ("negative_log_likelihood", "log_probabilities"), ("hinge", "scores")],
)
def test_losses_of_classes(name, first):
    scores, targets = np.zeros((T, N, 6)), np.zeros((T, N), int)

    def loss(scores=scores, targets=targets, **options):
        return lambda: getattr(pyrnn, name)(scores, targets, **options)

    for call, error, match in [
        (loss(0.0), ValueError, rf"{name}: {first} has shape \(\), expected \(\.\.\., V\)"),
        (loss(np.zeros((T, N, 0))), ValueError, f"{first} has shape"),
        (loss(scores.astype(complex)), TypeError, f"{first} has dtype complex128"),
        (loss(None), TypeError, f"{first} has dtype object"),
        (loss(targets=targets.T), ValueError, r"targets has shape \(3, 5\), expected \(5, 3\)"),
        (loss(targets=targets.astype(float)), TypeError, "targets has dtype float64, expected integers"),
        (loss(targets=targets > 0), TypeError, "targets has dtype bool"),
        (loss(targets=targets + 6), ValueError, "targets holds 6, expected 0 to 5"),
        (loss(targets=targets - 1), ValueError, "targets holds -1, expected 0 to 5"),
        (loss(lengths=[1, 2]), ValueError, r"lengths has shape \(2,\), expected \(3,\)"),
        (loss(lengths=[1, 2, 3], batch_first=True), ValueError, r"lengths has shape \(3,\), expected \(5,\)"),
        (loss(lengths=[1.0, 2.0, 3.0]), TypeError, "lengths has dtype float64"),
        (loss(lengths=[1, 2, 6]), ValueError, "lengths holds 6, expected 0 to 5"),
        (loss(np.zeros(6), 0, lengths=1), ValueError, "lengths needs targets of one or two axes"),
        (loss(mask=targets), TypeError, "mask has dtype int64, expected booleans"),
        (loss(mask=targets.T > 0), ValueError, "mask has shape"),
        (loss(targets=targets - 1, mask=targets == 0), ValueError, "targets holds -1"),
    ]:
        refuses(call, error, match)


@pytest.mark.parametrize(("name", "first"), [("mean_squared_error", "predictions"), ("binary_cross_entropy", "logits")])
def test_losses_of_features(name, first):
    values, targets = np.zeros((T, N, 2)), np.ones((T, N, 2))
    outside = np.where(np.arange(T)[:, None, None] < 3, targets, 1.5)

    def loss(values=values, targets=targets, **options):
        return lambda: getattr(pyrnn, name)(values, targets, **options)

    refusals = [
        (loss(0.0, 0.0), ValueError, rf"{name}: {first} has shape \(\), expected \(\.\.\., F\)"),
        (loss(values.astype(complex)), TypeError, f"{first} has dtype complex128"),
        (loss(targets=targets[..., :1]), ValueError, r"targets has shape \(5, 3, 1\), expected \(5, 3, 2\)"),
        (loss(targets=targets[..., 0]), ValueError, r"targets has shape \(5, 3\), expected \(5, 3, 2\)"),
        (loss(targets=targets.astype(str)), TypeError, "targets has dtype <U"),
        (loss(lengths=[1, 2]), ValueError, r"lengths has shape \(2,\), expected \(3,\)"),
        (loss(lengths=[1, 2, 6]), ValueError, "lengths holds 6, expected 0 to 5"),
        (loss(np.zeros(6), np.zeros(6), lengths=1), ValueError, "lengths needs targets of one or two axes"),
        (loss(mask=np.ones((T, N))), TypeError, "mask has dtype float64, expected booleans"),
        (loss(mask=np.ones((T, N, 2), bool)), ValueError, r"mask has shape \(5, 3, 2\), expected \(5, 3\)"),
    ]
    if name == "binary_cross_entropy":
        loss(targets=outside, lengths=[3, 3, 3])()
        refusals += [
            (loss(targets=outside), ValueError, "targets holds 1.5, expected 0 to 1"),
            (loss(targets=outside, lengths=[3, 4, 3]), ValueError, "targets holds 1.5, expected 0 to 1"),
            (loss(targets=-targets), ValueError, "targets holds -1.0"),
            (loss(targets=targets * np.nan), ValueError, "targets holds nan"),
        ]
    for call, error, match in refusals:
        refuses(call, error, match)


def test_layers_between():
    norm, drop, log = pyrnn.LayerNorm(4), pyrnn.Dropout(0.5, per_sequence=True, rng=0), pyrnn.LogSoftmax()
    pool, x = pyrnn.MaxOverTime(), np.zeros((T, N, 4))
    for call, error, match in [
        (lambda: pyrnn.LayerNorm(0), ValueError, "LayerNorm: size is 0, expected at least 1"),
        (lambda: pyrnn.LayerNorm(4.0), TypeError, "LayerNorm: size is 4.0, expected an integer"),
        (lambda: pyrnn.LayerNorm(4, eps=-1), ValueError, "LayerNorm: eps is -1"),
        (lambda: pyrnn.LayerNorm(4, bias=1), TypeError, "LayerNorm: bias is 1"),
        (lambda: pyrnn.LayerNorm(4, dtype="int"), ValueError, "LayerNorm: dtype is 'int'"),
        (lambda: norm(x[..., :3]), ValueError, r"LayerNorm: x has shape \(5, 3, 3\), expected \(\.\.\., 4\)"),
        (lambda: norm.vjp(1.0), ValueError, r"LayerNorm\.vjp: x has shape \(\)"),
        (lambda: norm(x.astype(str)), TypeError, "LayerNorm: x has dtype"),
        (lambda: norm.vjp(x)[1](x[0]), ValueError, r"LayerNorm pullback: dy has shape \(3, 4\), expected \(5, 3, 4\)"),
        (lambda: pyrnn.Dropout(1.5), ValueError, "Dropout: p is 1.5, expected 0 to 1"),
        (lambda: pyrnn.Dropout("half"), TypeError, "Dropout: p is 'half'"),
        (lambda: pyrnn.Dropout(0.5, per_sequence=1), TypeError, "Dropout: per_sequence is 1"),
        (lambda: pyrnn.Dropout(0.5, batch_first=None), TypeError, "Dropout: batch_first is None"),
        (lambda: pyrnn.Dropout(0.5, rng="a"), TypeError, "Dropout: rng is 'a'"),
        (lambda: drop(x[0, 0]), ValueError, r"Dropout: x has shape \(4,\), expected \(T, N, F\) or \(T, F\)"),
        (lambda: drop.vjp(x[None]), ValueError, r"Dropout\.vjp: x has shape"),
        (lambda: drop.vjp(None), TypeError, r"Dropout\.vjp: x has dtype object"),
        (lambda: drop.vjp(x)[1](x[:1]), ValueError, "Dropout pullback: dy has shape"),
        (lambda: pyrnn.LogSoftmax(dtype="f2"), ValueError, "LogSoftmax: dtype is 'f2'"),
        (lambda: log(0.0), ValueError, r"LogSoftmax: x has shape \(\), expected \(\.\.\., V\)"),
        (lambda: log.vjp(x[..., :0]), ValueError, r"LogSoftmax\.vjp: x has shape \(5, 3, 0\)"),
        (lambda: log.vjp(x)[1](0), ValueError, r"LogSoftmax pullback: dy has shape \(\)"),
        (lambda: pyrnn.MaxOverTime(batch_first=0), TypeError, "MaxOverTime: batch_first is 0"),
        (lambda: pool(x[0, 0]), ValueError, r"MaxOverTime: x has shape \(4,\), expected \(T, N, F\) or \(T, F\)"),
        (lambda: pool.vjp(x, lengths=[1]), ValueError, r"MaxOverTime\.vjp: lengths has shape \(1,\), expected \(3,\)"),
        (lambda: pool(x, lengths=[1, 6, 1]), ValueError, "MaxOverTime: lengths holds 6, expected 0 to 5"),
        (lambda: pool.vjp(x)[1](x), ValueError, r"MaxOverTime pullback: dy has shape \(5, 3, 4\), expected \(3, 4\)"),
    ]:
        refuses(call, error, match)


def test_initial_values():
    layer, head = pyrnn.LSTM(2, 3, rng=0), pyrnn.Linear(2, 3, rng=0)
    before = layer.state_dict()
    for call, error, match in [
        (lambda: pyrnn.init.identity(head), TypeError, "identity: layer is Linear, expected a recurrent layer"),
        (lambda: pyrnn.init.identity(layer, "1"), TypeError, "identity: scale is '1'"),
        (lambda: pyrnn.init.identity(layer, np.nan), ValueError, "identity: scale is nan"),
        (lambda: pyrnn.init.orthogonal(head), TypeError, "orthogonal: layer is Linear, expected a recurrent layer"),
        (lambda: pyrnn.init.orthogonal(layer, gain=None), TypeError, "orthogonal: gain is None"),
        (lambda: pyrnn.init.orthogonal(layer, rng=-1), ValueError, "orthogonal: rng is -1"),
        (lambda: pyrnn.init.forget_gate_bias(pyrnn.GRU(2, 3)), TypeError, "is GRU, expected one of lstm"),
        (lambda: pyrnn.init.forget_gate_bias(pyrnn.LSTM(2, 3, bias=False)), ValueError, "the layer has no biases"),
        (lambda: pyrnn.init.chrono(pyrnn.RNN(2, 3), 9), TypeError, "is RNN, expected one of lstm, gru"),
        (lambda: pyrnn.init.chrono(pyrnn.GRU(2, 3, bias=False), 9), ValueError, "chrono: the layer has no biases"),
        (lambda: pyrnn.init.chrono(layer, 1), ValueError, "chrono: steps is 1, expected at least 2"),
        (lambda: pyrnn.init.chrono(layer, 2.0), TypeError, "chrono: steps is 2.0, expected an integer"),
        (lambda: pyrnn.init.forget_gate_bias(layer, True), TypeError, "forget_gate_bias: value is True"),
    ]:
        refuses(call, error, match)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_optimizers_and_clipping():
    model = pyrnn.Linear(2, 2)
    for call, error, match in [
        (lambda: pyrnn.Adam({}), TypeError, "Adam: model is dict, expected a layer or a model"),
        (lambda: pyrnn.Adam(model, lr=-1), ValueError, "Adam: lr is -1, expected at least 0"),
        (lambda: pyrnn.Adam(model, lr=None), TypeError, "Adam: lr is None, expected a number"),
        (lambda: pyrnn.Adam(model, betas=0.9), TypeError, "Adam: betas is 0.9"),
        (lambda: pyrnn.Adam(model, betas=(0.9, 1)), ValueError, r"Adam: betas\[1\] is 1"),
        (lambda: pyrnn.Adam(model, eps=-1e-8), ValueError, "Adam: eps is -1e-08"),
        (lambda: pyrnn.Adam(model, weight_decay=math.nan), ValueError, "Adam: weight_decay is nan"),
        (lambda: pyrnn.AdamW({}), TypeError, "AdamW: model is dict, expected a layer or a model"),
        (lambda: pyrnn.AdamW(model, weight_decay=-1), ValueError, "AdamW: weight_decay is -1"),
        (lambda: pyrnn.RMSprop(None), TypeError, "RMSprop: model is NoneType"),
        (lambda: pyrnn.RMSprop(model, alpha=1.5), ValueError, "RMSprop: alpha is 1.5, expected 0 to 1"),
        (lambda: pyrnn.RMSprop(model, lr=-1), ValueError, "RMSprop: lr is -1"),
        (lambda: pyrnn.RMSprop(model, momentum="0"), TypeError, "RMSprop: momentum is '0'"),
        (lambda: pyrnn.Adagrad(model, eps=math.nan), ValueError, "Adagrad: eps is nan"),
        (lambda: pyrnn.Adagrad(model, weight_decay=-0.1), ValueError, "Adagrad: weight_decay is -0.1"),
        (lambda: pyrnn.SGD(3), TypeError, "SGD: model is int"),
        (lambda: pyrnn.SGD(model, momentum=-0.5), ValueError, "SGD: momentum is -0.5"),
        (lambda: pyrnn.SGD(model, nesterov=True), ValueError, "SGD: nesterov needs a momentum"),
        (lambda: pyrnn.SGD(model, momentum=0.5, nesterov="no"), TypeError, "SGD: nesterov is 'no'"),
        (lambda: pyrnn.clip_grad_norm(model, -1), ValueError, "clip_grad_norm: max_norm is -1"),
        (lambda: pyrnn.clip_grad_norm(model, math.nan), ValueError, "clip_grad_norm: max_norm is nan"),
        (lambda: pyrnn.clip_grad_norm(model.grads, 1), TypeError, "clip_grad_norm: model is ParameterDict"),
        (lambda: pyrnn.clip_grad_value(model, "1"), TypeError, "clip_grad_value: value is '1'"),
        (lambda: pyrnn.clip_grad_value(None, 1), TypeError, "clip_grad_value: model is NoneType"),
    ]:
        refuses(call, error, match)


def test_schedules():
    schedules, optimizer = pyrnn.schedules, pyrnn.SGD(pyrnn.Linear(2, 2), lr=0.5)
    plateau = schedules.Plateau(optimizer, patience=0)
    for call, error, match in [
        (lambda: schedules.Step(None, 3), TypeError, "Step: optimizer is NoneType, expected an optimiser"),
        (lambda: schedules.Step(optimizer, 0), ValueError, "Step: every is 0, expected at least 1"),
        (lambda: schedules.Step(optimizer, 2.0), TypeError, "Step: every is 2.0"),
        (lambda: schedules.Step(optimizer, 2, -1), ValueError, "Step: gamma is -1"),
        (lambda: schedules.Exponential(optimizer, math.nan), ValueError, "Exponential: gamma is nan"),
        (lambda: schedules.Linear(optimizer, 0), ValueError, "Linear: total is 0"),
        (lambda: schedules.Linear(3, 1), TypeError, "Linear: optimizer is int"),
        (lambda: schedules.Cosine(optimizer, 10, warmup=11), ValueError, "Cosine: warmup is 11, expected 0 to 10"),
        (lambda: schedules.Cosine(optimizer, 10, end=-0.1), ValueError, "Cosine: end is -0.1"),
        (lambda: schedules.Plateau(0.1), TypeError, "Plateau: optimizer is float"),
        (lambda: schedules.Plateau(optimizer, patience=-1), ValueError, "Plateau: patience is -1"),
        (lambda: schedules.Plateau(optimizer, threshold=1.0), ValueError, "Plateau: threshold is 1"),
        (lambda: plateau.step(math.nan), ValueError, r"Plateau\.step: loss is nan"),
        (lambda: plateau.step("1"), TypeError, r"Plateau\.step: loss is '1'"),
    ]:
        refuses(call, error, match)
    assert optimizer.lr == 0.5
    assert (plateau.best, plateau.waited) == (math.inf, 0)


def test_threads():
    before = pyrnn.get_num_threads()
    assert before >= 1
    with pyrnn.threads(1):
        assert pyrnn.get_num_threads() == 1
        with pyrnn.threads(2):
            assert pyrnn.get_num_threads() == 2
        assert pyrnn.get_num_threads() == 1
    assert pyrnn.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), pyrnn.threads(before + 1):
        1 / 0  # noqa: B018
    for call, error, match in [
        (lambda: pyrnn.set_num_threads(0), ValueError, "set_num_threads: n is 0, expected at least 1"),
        (lambda: pyrnn.set_num_threads(1.0), TypeError, "set_num_threads: n is 1.0, expected an integer"),
        (lambda: pyrnn.set_num_threads(1000), ValueError, "^set_num_threads: n is 1000, expected 1 to 256$"),
        (lambda: pyrnn.threads(None), TypeError, "threads: n is None"),
        (lambda: pyrnn.threads(257), ValueError, "^threads: n is 257, expected 1 to 256$"),
    ]:
        refuses(call, error, match)
    assert pyrnn.get_num_threads() == before


# What other libraries hold ----------------------------------------------------------------------------------------

DOORS = {
    "layer": ("GRU: x", lambda x: pyrnn.GRU(2, 3, rng=0)(x)),
    "vjp": (r"GRU\.vjp: x", lambda x: pyrnn.GRU(2, 3, rng=0).vjp(x)),
    "stream": ("x", lambda x: pyrnn.GRU(2, 3, rng=0).stream(1)(x)),
    "linear": ("Linear: x", lambda x: pyrnn.Linear(2, 3, rng=0)(x)),
    "norm": ("LayerNorm: x", lambda x: pyrnn.LayerNorm(2)(x)),
    "params": ("weight", lambda x: pyrnn.Linear(2, 4, rng=0).params.update(weight=x)),
    "targets": ("mean_squared_error: targets", lambda x: pyrnn.mean_squared_error(np.zeros((4, 2)), x)),
    "logits": ("cross_entropy: logits", lambda x: pyrnn.cross_entropy(x, [0] * 4)),
    "query": ("attention: query", lambda x: pyrnn.scaled_dot_product_attention(x, np.ones((4, 2)), np.ones((4, 2)))),
    "mask": (
        "attn_mask",
        lambda x: pyrnn.scaled_dot_product_attention(np.ones((4, 2)), np.ones((2, 2)), np.ones((2, 2)), attn_mask=x),
    ),
    "attention vjp": ("query", lambda x: pyrnn.scaled_dot_product_attention_vjp(x, x, x)),
    "weights": ("key", lambda x: pyrnn.attention_weights(np.ones((4, 2)), x)),
    "mha": ("MultiheadAttention: query", lambda x: pyrnn.MultiheadAttention(2, 1, rng=0)(x)),
    "hopfield": ("store: patterns", lambda x: pyrnn.Hopfield(2).store(x)),
    "probe": ("recall: probe", lambda x: pyrnn.Hopfield(2).recall(x)),
    "modern": ("ModernHopfield: patterns", lambda x: pyrnn.ModernHopfield(x)),
    "pad": (r"pad: sequences\[1\]", lambda x: pyrnn.data.pad([np.ones((3, 2)), x])),
    "list": (r"GRU: x\[1\]", lambda x: pyrnn.GRU(2, 3, rng=0)([np.ones((4, 2)), x])),
    "f1": ("best_f1: scores", lambda x: pyrnn.metrics.best_f1(x, np.ones((4, 2), bool))),
    "sound": ("log_mel: samples", lambda x: pyrnn.sound.log_mel(x.ravel(), 8000)),
    "logits of tokens": ("choose: logits", lambda x: pyrnn.decoding.choose(x, rng=0)),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_a_masked_array_hides_is_not_taken(door):
    name, call = DOORS[door]
    x = np.ma.masked_array(np.ones((4, 2)), mask=[[False, True]] + [[False, False]] * 3)
    x.data[0, 1] = -999
    refuses(lambda: call(x), ValueError, rf"{name} is a masked array that hides 1 of its 8 entries.*mask=.*lengths=")
    call(np.ma.masked_array(np.ones((4, 2)), mask=False))  # nothing is hidden


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: pyrnn.cross_entropy(np.zeros((3, 4)), x), "cross_entropy: targets"),
        (lambda x: pyrnn.Embedding(5, 2, rng=0)(x), "Embedding: ids"),
        (lambda x: pyrnn.GRU(2, 3, rng=0)(np.zeros((4, 3, 2)), lengths=x), "GRU: lengths"),
        (lambda x: pyrnn.GRU(2, 3, rng=0)(np.zeros((3, 2)), reset=x > 1), "GRU: reset"),
        (lambda x: pyrnn.GRU(2, 3, rng=0)(np.zeros((5, 2)), ids=x), "GRU: ids"),
        (lambda x: pyrnn.hinge(np.zeros((3, 4)), [0] * 3, mask=x > 1), "hinge: mask"),
        (lambda x: pyrnn.metrics.confusions(x, [1, 2, 3], [1, 2, 3]), "confusions: said"),
        (lambda x: pyrnn.metrics.f1(x > 1, [True] * 3), "f1: said"),
        (lambda x: pyrnn.data.minibatches(x[1], 2), "minibatches: n"),
        (lambda x: pyrnn.text.Batches(x, 1, 1), "Batches: ids"),
        (lambda x: pyrnn.ngrams.NGram(x, 5, 2), "NGram"),
        (lambda x: pyrnn.baselines.linear(x, 1, 1), "linear: values"),
        (lambda x: pyrnn.kernels.embedding.forward(x, np.zeros((5, 2))), "embedding.forward: ids"),
        (lambda x: pyrnn.kernels.linear.forward(x[:, None] * np.ones(1), np.ones((1, 1)), None), "linear.forward: x"),
        (lambda x: pyrnn.set_num_threads(x[1]), "set_num_threads: n"),
        (lambda x: pyrnn.kernels.set_num_threads(x[1:2].reshape(())), "set_num_threads: threads"),
    ],
)
def test_masked_integers(call, match):
    x = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    refuses(lambda: call(x), (ValueError, TypeError), match)


def test_what_lists_hide_is_not_taken():
    """Wherever it is in the lists, and however much lies beside it."""
    hidden = np.ma.masked
    many = [[1.0] * 20 for _ in range(20)]
    for value, where in [
        ([[1.0, hidden], [1.0, 1.0]], r"x\[0\]\[1\] is a masked array that hides 1 of its 1"),
        ([*many, [*[1.0] * 19, hidden]], r"x\[20\]\[19\]"),
        ([*many, [*[np.nan] * 19, np.ma.masked_array(5.0, True)]], r"x\[20\]\[19\]"),
        ([*many, np.ma.masked_array([1.0] * 20, [True] * 20)], r"x\[20\] is a masked array that hides 20"),
        ([np.ones(20), np.ma.masked_array([1.0] * 20, [True] * 20)], r"x\[1\]"),
        (([1], (np.ma.masked_array(5, True),)), r"x\[1\]\[0\]"),
        ([[True], [np.ma.masked_array(False, True)]], r"x\[1\]\[0\]"),
        ([[[1, 2]], np.ma.masked_array([[1, 2]], [[False, True]])], r"x\[1\]"),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NumPy's own word on it
            refuses(lambda value=value: numbers_array("call", "x", value), ValueError, where)
        refuses(lambda value=value: numbers_array("call", "x", value), ValueError, where)
    for value in (
        many,
        [many, many],
        [(1, 2), [3, 4]],
        [[True], [False]],
        [[np.nan] * 200],
        [np.ones(2), [1, 2]],
        [[]],
    ):
        np.testing.assert_array_equal(numbers_array("call", "x", value), np.array(value))


class Tensor:
    """As torch's: it does not become an array of itself."""

    def __init__(self, requires_grad=False, device="cpu", dtype="torch.float32"):
        self.requires_grad, self.dtype = requires_grad, dtype
        self.device = type("device", (), {"type": device})

    def __array__(self, *args, **kwargs):
        raise RuntimeError("Can't call numpy()") if self.requires_grad else TypeError("can't convert")


def test_tensors_are_told_what_to_call():
    layer = pyrnn.GRU(2, 3, rng=0)
    for tensor, calls in [
        (Tensor(requires_grad=True), r"call \.detach\(\) of the tensor first \(RuntimeError: Can't call"),
        (Tensor(device="cuda"), r"call \.cpu\(\) of the tensor first"),
        (Tensor(dtype="torch.bfloat16"), r"call \.float\(\) of the tensor"),
        (Tensor(True, "cuda", "torch.bfloat16"), r"call \.detach\(\)\.cpu\(\)\.float\(\) of the tensor"),
        (Tensor(), r" an array \(TypeError: can't convert\)"),
    ]:
        refuses(lambda tensor=tensor: layer(tensor), TypeError, "^GRU: x does not.*" + calls)
        refuses(lambda tensor=tensor: layer.vjp(tensor), TypeError, calls)
        refuses(
            lambda tensor=tensor: pyrnn.scaled_dot_product_attention_vjp(*[tensor] * 3), Exception, "query.*" + calls
        )
    refuses(
        lambda: layer([[Tensor()], [Tensor(True)]]),
        TypeError,
        r"detach\(\) of the tensor at \[1\]\[0\]",
    )


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    layer = pyrnn.GRU(2, 3, rng=0)
    x = torch.ones(4, 2)
    np.testing.assert_array_equal(layer(x)[0], layer(np.ones((4, 2)))[0])
    for tensor, calls in [
        (torch.ones(4, 2, requires_grad=True), r"\.detach\(\)"),
        (x.to(torch.bfloat16), r"\.float\(\)"),
        (x.to("meta"), r"\.cpu\(\)"),
        (x.to_sparse(), "to_dense"),
    ]:
        for given in (tensor, [tensor, tensor]):
            refuses(lambda given=given: layer(given), TypeError, f"GRU: x does not become.*{calls}")


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(ml_dtypes.bfloat16)
    layer = pyrnn.GRU(2, 3, rng=0)
    np.testing.assert_array_equal(layer(x)[0], layer(x.astype("f4"))[0])
    mask = np.zeros((4, 4), ml_dtypes.bfloat16)
    out = pyrnn.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    np.testing.assert_array_equal(out, pyrnn.scaled_dot_product_attention(*[x.astype("f4")] * 3))
    ids = np.array([1, 0], ml_dtypes.int4)
    np.testing.assert_array_equal(pyrnn.Embedding(2, 2, rng=0)(ids), pyrnn.Embedding(2, 2, rng=0)([1, 0]))
    for strange in (x[:, 0], list(x[:, 0]), x[:, 0].astype(ml_dtypes.float8_e4m3fn)):
        dtype = np.asarray(strange).dtype.name
        refuses(lambda ids=strange: pyrnn.Embedding(2, 2)(ids), TypeError, f"ids has dtype {dtype}, expected integers")
        refuses(lambda x=strange: layer(np.zeros((4, 2)), mask=x), TypeError, f"mask has dtype {dtype}, expected boo")
    refuses(lambda: layer(np.zeros((4, 2), "V2")), TypeError, r"x has dtype \|V2")


class Exchanged:
    """What speaks DLPack and nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **kwargs):
        if self.device != (1, 0):
            raise BufferError("it is elsewhere")
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("door", DOORS.keys() - {"list", "sound"})  # where x is a part of the argument
def test_what_speaks_dlpack_is_an_array(door):
    name, call = DOORS[door]
    call(Exchanged(np.ones((4, 2))))
    elsewhere = Exchanged(np.ones((4, 2)), device=(2, 0))
    refuses(
        lambda: call(elsewhere), TypeError, f"{name} does not become an array, copy it to the CPU first .*elsewhere"
    )


def exchanged_booleans(array):
    """Themselves where NumPy is too old to give booleans by DLPack."""
    try:
        array.__dlpack__()
    except BufferError:
        return array
    return Exchanged(array)


def test_several_models_and_sequences_of_dlpack():
    """Where models run together and where one after the other."""
    x, lengths, mask = np.ones((4, 2, 3), "f4"), np.array([3, 2]), np.arange(8).reshape(4, 2) % 3 > 0
    many = pyrnn.Population(pyrnn.GRU(3, 4), size=2, rng=0)
    chain = pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(3, 4), pyrnn.LastStep(), pyrnn.Linear(4, 2)), size=2, rng=0)
    np.testing.assert_array_equal(many(x, lengths=Exchanged(lengths))[0], many(x, lengths=lengths)[0])
    np.testing.assert_array_equal(many(x, mask=exchanged_booleans(mask))[0], many(x, mask=mask)[0])
    np.testing.assert_array_equal(chain(x, lengths=Exchanged(lengths)), chain(x, lengths=lengths))
    rows = many.vjp(x, lengths=Exchanged(lengths), per_row=True)[1](np.ones((2, 4, 2, 4), "f4"))[2]
    assert rows["weight_ih_l0"].shape == (2, 2, 12, 3)
    stream = many.stream(batch=2)
    stream.take(exchanged_booleans(np.array([True, False])))
    assert stream.step(Exchanged(x[0, :1])).shape == (2, 1, 4)
    sequences, targets = [x[:, 0], x[:3, 1]] * 5, np.arange(10) % 2
    fitted = []
    for seen, wanted in ((sequences, targets), (list(map(Exchanged, sequences)), Exchanged(targets))):
        model = pyrnn.Sequential(pyrnn.GRU(3, 4), pyrnn.LastStep(), pyrnn.Linear(4, 2), rng=0)
        pyrnn.fit(model, seen, wanted, pyrnn.cross_entropy, epochs=1, progress=False, rng=0)
        fitted.append(model(x))
    np.testing.assert_array_equal(*fitted)


def test_numbers_of_dlpack():
    x, layer = np.random.default_rng(0).normal(size=(4, 1, 2)), pyrnn.GRU(2, 3, rng=0)
    y, h = layer(x, np.ones((1, 1, 3)), lengths=[3])
    given = layer(Exchanged(x), Exchanged(np.ones((1, 1, 3))), lengths=Exchanged(np.array([3])))
    np.testing.assert_array_equal(given[0], y)
    np.testing.assert_array_equal(given[1], h)
    given = layer([*map(Exchanged, x)], [*map(Exchanged, np.ones((1, 1, 3)))], lengths=[Exchanged(np.array(3))])
    np.testing.assert_array_equal(given[0], y)
    elsewhere = Exchanged(x[0], device=(2, 0))
    refuses(lambda: layer([Exchanged(x[0]), elsewhere]), TypeError, r"x\[1\] does not .* to the CPU first")
    np.testing.assert_array_equal(layer.stream().step(Exchanged(x[0])), layer.stream().step(x[0]))
    np.testing.assert_array_equal(numbers_array("call", "x", Exchanged(x)), x)
    refuses(lambda: layer(Exchanged(x.astype(complex))), TypeError, "^GRU: x has dtype complex128, expected real")
    refuses(lambda: pyrnn.Embedding(3, 2)(Exchanged(x)), TypeError, "^Embedding: ids has dtype float64")


class Column:
    """As a column of pandas: values, and marks of those that are missing."""

    def __init__(self, values, missing=(), nullable=True):
        self.values, self.missing = np.asarray(values), np.isin(np.arange(len(values)), missing)
        self.dtype = type("Int64", (), {"numpy_dtype": self.values.dtype})() if nullable else self.values.dtype

    def __len__(self):
        return len(self.values)

    def isna(self):
        return self.missing

    def __array__(self, dtype=None, copy=None):
        if dtype is None and isinstance(self.dtype, np.dtype):
            return self.values
        return np.where(self.missing, np.nan, self.values).astype(dtype or object)


class Frame:
    def __init__(self, **columns):
        self.columns, self.given = list(columns), columns
        self.dtypes = [column.dtype for column in columns.values()]

    def items(self):
        return self.given.items()

    def __array__(self, dtype=None, copy=None):
        return np.stack([np.asarray(column) for column in self.given.values()], axis=1)


def test_columns_of_data_frames():
    layer, plain = pyrnn.GRU(2, 3, rng=0), np.array([[1, 0.5], [0, 2]])
    for first in (Column([1, 0]), Column([True, False]), Column([1.0, 0.0]), Column([1, 0], nullable=False)):
        for second in (Column([0.5, 2]), Column([0.5, 2], nullable=False)):
            np.testing.assert_array_equal(layer(Frame(a=first, b=second))[0], layer(plain)[0])
    column = Column([0.5, 2], nullable=False)
    for other, error, match in [
        (Column([1, 2], [1]), ValueError, "^GRU: column 'b' of x has 1 missing values among 2, fill or drop them$"),
        (Column(["u", "v"], nullable=False), TypeError, "^GRU: column 'b' of x has dtype <U1, expected real numbers"),
        (
            Column(np.array(["u", 2], object), nullable=False),
            TypeError,
            "column 'b' of x has dtype object.*it holds 'u'$",
        ),
        (Column(np.array([1, 2], object), nullable=False), TypeError, r"column 'b' of x.*numbers, \.astype\(float\)$"),
        (Column(np.zeros(2, "M8[s]"), nullable=False), TypeError, "column 'b' of x has dtype datetime64"),
        (Column(np.zeros(2, complex), nullable=False), TypeError, "column 'b' of x has dtype complex128"),
    ]:
        refuses(lambda other=other: layer(Frame(a=column, b=other)), error, match)
    refuses(lambda: pyrnn.Embedding(3, 2)(Column([1, 2], [0])), ValueError, "Embedding: ids has 1 missing values")
    np.testing.assert_array_equal(pyrnn.Embedding(3, 2, rng=0)(Column([1, 2])), pyrnn.Embedding(3, 2, rng=0)([1, 2]))


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    layer, plain = pyrnn.GRU(2, 3, rng=0), np.array([[1, 0.5], [0, 2]])
    for kind in ("Int64", "Float64", "boolean", "bool", "int8", "float32", "UInt8"):
        for other in ("Float64", "float64"):
            frame = pandas.DataFrame(
                {"a": pandas.Series([1, 0], dtype=kind), "b": pandas.Series([0.5, 2], dtype=other)}
            )
            np.testing.assert_array_equal(layer(frame)[0], layer(plain)[0])
    good = [0.5, 2]
    for values, error, match in [
        (pandas.Series([1, None], dtype="Int64"), ValueError, "^GRU: column 'b' of x has 1 missing values among 2"),
        (pandas.Series([1, None], dtype="Float64"), ValueError, "column 'b' of x has 1 missing values"),
        (["u", "v"], TypeError, "column 'b' of x has dtype object, expected real numbers: it holds 'u'"),
        (pandas.to_datetime(["2020-01-01", "2020-01-02"]), TypeError, "column 'b' of x has dtype datetime64"),
        (pandas.Categorical(["u", "v"]), TypeError, "column 'b' of x has dtype object"),
    ]:
        refuses(lambda values=values: layer(pandas.DataFrame({"a": good, "b": values})), error, match)
    y, _ = layer(pandas.DataFrame({"a": good, "b": [np.nan, 1]}))  # a NaN is a number of floats, as in NumPy
    assert np.isnan(y).any()
    refuses(lambda: pyrnn.Embedding(3, 2)(pandas.Series([1, None], dtype="Int64")), ValueError, "ids has 1 missing")
    assert pyrnn.cross_entropy(np.zeros((2, 3)), pandas.Series([1, 2], dtype="Int64"))[0] == pytest.approx(math.log(3))


class Nullable:
    """As a column of polars or an array of pyarrow, which becomes floats with NaN where something is missing."""

    def __init__(self, *values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype or float)

    def null_count(self):
        return self.values.count(None)


def test_columns_that_count_what_is_missing():
    np.testing.assert_array_equal(numbers_array("call", "x", Nullable(1, 2)), [1, 2])
    refuses(lambda: numbers_array("call", "x", Nullable(1, None)), ValueError, "call: x has 1 missing values among 2")


def test_columns_of_polars():
    polars = pytest.importorskip("polars")
    layer, plain = pyrnn.GRU(2, 3, rng=0), np.array([[1, 0.5], [0, 2]])
    np.testing.assert_array_equal(layer(polars.DataFrame({"a": [1, 0], "b": [0.5, 2.0]}))[0], layer(plain)[0])
    np.testing.assert_array_equal(numbers_array("call", "x", polars.Series([1, 2])), [1, 2])
    lacking = polars.DataFrame({"a": [1, None, 0], "b": [0.5, None, 2.0]})
    refuses(lambda: layer(lacking), ValueError, "^GRU: x has 2 missing values among 3, fill or drop them$")
    refuses(lambda: pyrnn.Embedding(3, 2)(lacking["a"]), ValueError, "Embedding: ids has 1 missing values among 3")
    refuses(lambda: layer(lacking.lazy()), TypeError, "x has dtype object, expected real numbers: it holds LazyFrame")
    refuses(lambda: layer(polars.DataFrame({"a": ["u"], "b": [0.5]})), TypeError, "x has dtype object")


# Values in messages -------------------------------------------------------------------------------------------------


class Loud:
    def __repr__(self):
        raise AssertionError("nobody asks a stranger how it looks")

    __str__ = __repr__


class LoudNumber(float):
    __repr__ = Loud.__repr__


def test_values_in_errors_are_short(tmp_path):
    many, long_text, model = list(range(10**5)), "so long\n" * 10**5, pyrnn.Linear(2, 2, rng=0)
    deep: list = []
    deep.append(deep)
    strange = np.zeros(3, [(f"field {k}", "f4") for k in range(300)])
    net = pyrnn.Hopfield(4)
    values = [
        many, tuple(many), long_text, long_text.encode(), dict.fromkeys(many), deep, 10**5000, -(10**5000), Loud(),
        [Loud()], np.arange(10**6), strange, LoudNumber(-1), [[many] * 50] * 50,
    ]  # fmt: skip
    for call in [
        lambda value: pyrnn.data.minibatches(value, 32),
        lambda value: pyrnn.data.held_out(10, value),
        lambda value: pyrnn.Adam(model, lr=value),
        lambda value: pyrnn.Adam(model, betas=value),
        lambda value: pyrnn.GRU(value, 3),
        lambda value: pyrnn.GRU(3, 3, dtype=value),
        lambda value: pyrnn.GRU(3, 3, batch_first=value),
        lambda value: pyrnn.RNN(3, 3, nonlinearity=value),
        lambda value: pyrnn.Hopfield(4, states=value),
        lambda value: net.recall([1] * 4, update=value),
        lambda value: net.store([1] * 4, rule=value),
        lambda value: pyrnn.scaled_dot_product_attention(*[np.ones((2, 2))] * 3, window=value),
        lambda value: pyrnn.kernels.set_num_threads(value),
        lambda value: pyrnn.metrics.confusions([1], [value], [1]),
    ]:
        for value in values:
            with pytest.raises((TypeError, ValueError)) as caught:
                call(value)
            assert len(str(caught.value)) < 1000
    for call in [
        lambda: pyrnn.GRU(3, 3, rng=many),
        lambda: pyrnn.GRU(3, 3, rng=Loud()),
        lambda: pyrnn.text.read(long_text),
        lambda: pyrnn.text.read_fasta(long_text),
        lambda: pyrnn.text.read(tmp_path / ("x" * 10**5)),
        lambda: pyrnn.text.Corpus("", [long_text]),
        lambda: pyrnn.text.Words([long_text, long_text]),
        lambda: net.load(long_text),
        lambda: pyrnn.Linear(2, 2)(strange),
        lambda: pyrnn.Embedding(2, 2)(strange),
        lambda: pyrnn.kernels.norm.l2(strange),
        lambda: model.load_state_dict(dict.fromkeys(map(str, many))),
        lambda: model.params.update({long_text: 1}),
        lambda: pyrnn.MultiheadAttention(2, 1)(np.ones((2, 2)), **{long_text: 1}),
        lambda: pyrnn.Model(**{long_text: model}),
    ]:
        with pytest.raises((TypeError, ValueError, KeyError, OSError)) as caught:
            call()
        assert len(str(caught.value)) < 2000


def test_values_in_errors():
    for value, text in [
        ([1, "a", None], "[1, 'a', None]"),
        ((1,), "(1,)"),
        ({"a": 1.5}, "{'a': 1.5}"),
        (np.int32, "<class 'numpy.int32'>"),
        (np.zeros((2, 3)), "an array of shape (2, 3) and dtype float64"),
        (Loud(), "Loud object"),
        (2**200, "2**200 or more"),
        ([0] * 100, "[" + "0, " * 27 + "... (100 in all)]"),
        ("a" * 100, "'" + "a" * 80 + "'... (100 characters)"),
    ]:
        refuses(
            lambda value=value: pyrnn.GRU(3, 3, dtype=value), ValueError, "^" + re.escape(f"GRU: dtype is {text}, ")
        )


# The package ------------------------------------------------------------------------------------------------------


def test_public_names():
    assert set(pyrnn.__all__) <= set(dir(pyrnn))
    for name in pyrnn.__all__:
        if name != "__version__":  # known only once installed
            assert getattr(pyrnn, name).__doc__
    for name, meant in (("Dense", "here it is Linear"), ("Lstm", "mean LSTM"), ("MSELoss", "mean_squared_error")):
        with pytest.raises(AttributeError, match=meant):
            getattr(pyrnn, name)
    with pytest.raises(AttributeError, match=r"module 'pyrnn' has no attribute 'nonsense'$"):
        pyrnn.nonsense  # noqa: B018


def test_random_wrong_calls_do_not_crash():
    """In a process of its own, so that a crash is a failed test."""
    script = Path(__file__).with_name("fuzz_calls.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", script, "--only", "call_", "--seed", "0", "--calls", "1500"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
