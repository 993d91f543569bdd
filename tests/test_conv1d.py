"""Conv1d: torch's values, gradients by finite differences, the same bits, padding that is never read, streams."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from cells import DTYPES, assert_same_bits, laid_out

import pyrnn
from pyrnn import kernels, reference

T, N, C, O = 23, 3, 6, 8  # noqa: E741  the letters of the docstrings

# in_channels, out_channels, kernel_size and so on: one of each kind, and each at sizes that kernels treat differently.
LAYERS = {
    "plain": (C, O, 3),
    "of one step": (C, O, 1),
    "stride": (C, O, 3, 2),
    "stride beyond the kernel": (C, O, 2, 5),
    "stride of half a kernel": (1, O, 8, 4),
    "padding": (C, O, 3, 1, 2),
    "wide padding": (C, O, 2, 2, 7),
    "same": (C, O, 4, 1, "same"),
    "causal": (C, O, 3, 1, "causal"),
    "causal with stride": (C, O, 3, 2, "causal"),
    "dilation": (C, O, 3, 1, 0, 3),
    "wide dilation": (16, O, 2, 1, "causal", 9),
    "stride and dilation": (C, O, 3, 2, 3, 2),
    "groups": (C, O, 3, 2, 1, 1, 2),
    "a group for each": (9, 9, 3, 1, "causal", 2, 9),
    "a group for each, stride": (9, 9, 3, 2, 1, 1, 9),
    "one to one": (1, 1, 5, 1, "same"),
    "to one": (C, 1, 3),
    "from one": (1, O, 5),
    "wide": (70, 90, 3, 1, 1),
}
STREAMED = [name for name, arguments in LAYERS.items() if (*arguments, 1, 0)[4] in (0, "causal")]


def make(name, **options):
    return pyrnn.Conv1d(*LAYERS[name], **{"rng": 0, **options})


def draw(rng, layer, steps=T, rows=N):
    return rng.standard_normal((steps, rows, layer.in_channels)).astype(layer.dtype)


def torch_same(layer, x, dy):
    """y, dx and the gradients of the weights."""
    torch = pytest.importorskip("torch")
    before, after = layer._before, layer._after  # torch takes no causal padding
    weights = [torch.from_numpy(value).requires_grad_() for value in layer.state_dict().values()]
    ours = torch.from_numpy(x.transpose(1, 2, 0).copy()).requires_grad_()
    padded = torch.nn.functional.pad(ours, (before, after))
    y = torch.nn.functional.conv1d(padded, *weights, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)
    y.backward(torch.from_numpy(dy.transpose(1, 2, 0).copy()))
    turned = [a.detach().numpy().transpose(2, 0, 1) for a in (y, ours.grad)]
    return [*turned, *(weight.grad.numpy() for weight in weights)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_torch(name, dtype, rng):
    layer = make(name, dtype=dtype)
    x = draw(rng, layer)
    y, pullback = layer.vjp(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    found = [y, pullback(dy), layer.grads["weight"], layer.grads["bias"]]
    for ours, theirs in zip(found, torch_same(layer, x, dy), strict=True):
        assert ours.shape == theirs.shape
        terms = T * N + layer.kernel_size * layer.in_channels
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=4 * terms * np.finfo(dtype).eps)
    np.testing.assert_array_equal(layer(x), y)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_the_reference_are_finite_differences(name, rng):
    """It is linear in x and in the weights, so a difference of any size will do."""
    layer = make(name, dtype="float64")
    options = layer._options() | {"before": layer._before, "after": layer._after}
    x, lengths = draw(rng, layer), np.array([T, 4, 0])
    weight, bias = layer.params.values()
    y = reference.conv1d.forward(x, weight, bias, lengths=lengths, **options)
    dy, dweight, dbias = rng.standard_normal(y.shape), np.zeros_like(weight), np.zeros_like(bias)
    dx = reference.conv1d.backward(dy, x, weight, dweight, dbias, lengths=lengths, **options)
    for array, gradient in ((x, dx), (weight, dweight), (bias, dbias)):
        direction = rng.standard_normal(array.shape)
        kept = array.copy()
        array += direction
        change = reference.conv1d.forward(x, weight, bias, lengths=lengths, **options) - y
        array[...] = kept
        assert np.sum(change * dy) == pytest.approx(np.sum(direction * gradient), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_same_bits(name, dtype, rng):
    """A row alone, in any batch and layout, padded or not, on one thread or two, cut where it is causal."""
    layer = make(name, dtype=dtype)
    x, lengths = draw(rng, layer), np.array([T, 0, 9])
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan
    y, pullback = layer.vjp(x, lengths=lengths)
    dy = rng.standard_normal(y.shape).astype(dtype)
    counts = layer.output_lengths(lengths)
    for n, count in enumerate(counts):
        dy[count:, n] = np.nan
    dx = pullback(dy)
    grads = [grad.copy() for grad in layer.grads.values()]
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    turned = make(name, dtype=dtype, batch_first=True)
    for n, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        one, pull = layer.vjp(x[:length, n])
        assert_same_bits([one, pull(dy[:count, n])], [y[:count, n], dx[:length, n]])
        assert not y[count:, n].any()
        assert not dx[length:, n].any()
        one, pull = turned.vjp(x[None, :length, n])
        assert_same_bits([one[0], pull(dy[None, :count, n])[0]], [y[:count, n], dx[:length, n]])
    assert_same_bits([layer(x, lengths=lengths)], [y])
    assert_same_bits([turned(x.swapaxes(0, 1), lengths=lengths).swapaxes(0, 1)], [y])
    for threads, layout in itertools.product((1, 2), ("plain", "every_other", "axes_swapped")):
        layer.zero_grad()
        with pyrnn.threads(threads):
            again, pull = layer.vjp(laid_out(layout, x), lengths=lengths)
            assert_same_bits([again, pull(laid_out(layout, dy)), *layer.grads.values()], [y, dx, *grads])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(900, 2, 24, 40, 3, 1), (4000, 1, 1, 24, 64, 16), (700, 3, 40, 2, 5, 1)])
def test_same_bits_where_threads_share_the_work(shape, threads, rng):
    steps, rows, inputs, outputs, kernel, stride = shape
    layer = pyrnn.Conv1d(inputs, outputs, kernel, stride, rng=0)
    x = draw(rng, layer, steps, rows)
    results = []
    for count in (1, threads):
        layer.zero_grad()
        with pyrnn.threads(count):
            y, pullback = layer.vjp(x)
            results.append([y, pullback(y), *(grad.copy() for grad in layer.grads.values())])
    assert_same_bits(*results)
    assert_same_bits([layer(x[:, 1:])], [results[0][0][:, 1:]])
    many = layer(x[: steps // 2])
    assert_same_bits([many], [results[0][0][: len(many)]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", LAYERS)
def test_nan_and_infinity_reach_what_reads_them(name, value, dtype, rng):
    layer = make(name, dtype=dtype)
    options = layer._options() | {"before": layer._before, "after": layer._after}
    x, weight = draw(rng, layer), layer.params["weight"]
    x[7, 1, 0] = value
    y, pullback = layer.vjp(x)
    np.testing.assert_array_equal(
        np.isfinite(y), np.isfinite(reference.conv1d.forward(x, weight, layer.params["bias"], **options))
    )
    dy = rng.standard_normal(y.shape).astype(dtype)
    dy[1, 1, 0] = value
    ignored = np.zeros_like(weight)
    with np.errstate(all="ignore"):
        expected = reference.conv1d.backward(dy, np.nan_to_num(x), weight, ignored, None, **options)
    np.testing.assert_array_equal(np.isfinite(pullback(dy)), np.isfinite(expected))


@pytest.mark.parametrize("name", LAYERS)
def test_edges(name):
    """No steps, no rows, fewer steps than a window has."""
    layer = make(name)
    for steps, rows in itertools.product((0, 1, 2), (0, 2)):
        x = np.ones((steps, rows, layer.in_channels))
        y, pullback = layer.vjp(x)
        assert y.shape == layer(x).shape == (layer.output_lengths(steps), rows, layer.out_channels)
        assert pullback(y).shape == x.shape
    assert layer.output_lengths(0) == 0
    assert layer(np.ones((0, layer.in_channels))).shape == (0, layer.out_channels)


def test_output_lengths():
    layer = pyrnn.Conv1d(1, 1, 3, 2, 1, 2)
    for steps in range(12):
        assert layer.output_lengths(steps) == len(layer(np.zeros((steps, 1))))
    assert layer.output_lengths([5, 0, 9]).tolist() == [2, 0, 4]
    assert type(layer.output_lengths(5)) is int
    assert layer.output_lengths([]).shape == (0,)
    with pytest.raises(ValueError, match=r"Conv1d\.output_lengths: lengths holds -1, expected at least 0"):
        layer.output_lengths([3, -1])
    with pytest.raises(TypeError, match=r"Conv1d\.output_lengths: lengths has dtype float64, expected integers"):
        layer.output_lengths([3.0])


def test_a_pullback_owns_what_it_needs(rng):
    layer, twin = make("padding"), make("padding")
    x = draw(rng, layer)
    expected, _ = twin.vjp(x)[1](np.ones((T + 2, N, O))), None
    given, lengths = x.copy(), np.full(N, T)
    y, pullback = layer.vjp(given, lengths=lengths)
    given[:] = y[:] = layer.params["weight"][:] = np.nan
    lengths[:] = 0
    with pytest.raises(ValueError, match=r"Conv1d pullback: dy has shape \(1,\), expected \(25, 3, 8\)"):
        pullback(np.ones(1))
    assert_same_bits([pullback(np.ones((T + 2, N, O))), layer.grads["weight"]], [expected, twin.grads["weight"]])
    with pytest.raises(RuntimeError, match="has been called before"):
        pullback(np.ones((T + 2, N, O)))
    layer.vjp(x)[1](np.zeros((T + 2, N, O)))  # adds nothing
    assert_same_bits([layer.grads["bias"]], [twin.grads["bias"]])


def test_initial_values():
    layer, bound = pyrnn.Conv1d(8, 64, 5, groups=2, rng=0), (4 * 5) ** -0.5
    values = np.concatenate([value.ravel() for value in layer.params.values()])
    assert bound * 0.99 < np.abs(values).max() <= bound
    assert abs(values.mean()) < 0.05 * bound
    np.testing.assert_array_equal(values, np.random.default_rng(0).uniform(-bound, bound, values.size).astype("f4"))
    assert list(pyrnn.Conv1d(2, 3, 1, bias=False).params) == ["weight"]
    twin = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(twin.params["weight"], layer.params["weight"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, 1), ValueError, "in_channels is 0, expected at least 1"),
        ((1, 1.5, 1), TypeError, "out_channels is 1.5, expected an integer"),
        ((1, 1, (3,)), TypeError, r"kernel_size is \(3,\), expected an integer"),
        ((1, 1, 3, 0), ValueError, "stride is 0, expected at least 1"),
        ((1, 1, 3, 1, -1), ValueError, "padding is -1, expected at least 0"),
        ((1, 1, 3, 1, 0.5), TypeError, "padding is 0.5, expected an integer, 'same' or 'causal'"),
        ((1, 1, 3, 1, True), TypeError, "padding is True, expected an integer, 'same' or 'causal'"),
        ((1, 1, 3, 1, "valid"), ValueError, "padding is 'valid', expected an integer, 'same' or 'causal'"),
        ((1, 1, 3, 2, "same"), ValueError, "padding is 'same' and stride 2, expected a stride of 1 with it"),
        ((1, 1, 3, 1, 0, 0), ValueError, "dilation is 0, expected at least 1"),
        ((4, 6, 3, 1, 0, 1, 4), ValueError, "out_channels is 6, expected a multiple of groups, 4"),
        ((3, 6, 3, 1, 0, 1, 2), ValueError, "in_channels is 3, expected a multiple of groups, 2"),
        ((1, 1, 2**20, 1, 0, 2**20), ValueError, r"dilation \* \(kernel_size - 1\) is \d+, expected at most"),
        ((1, 1, 3, 1, 0, 1, 1, "yes"), TypeError, "bias is 'yes', expected True or False"),
        ((2**20, 2**20, 2**25), ValueError, "parameters are too many"),
    ],
)
def test_arguments_that_make_no_layer(arguments, error, message):
    with pytest.raises(error, match=f"Conv1d: .*{message}"):
        pyrnn.Conv1d(*arguments)


@pytest.mark.parametrize("method", ["", ".vjp"])
def test_wrong_inputs(method):
    for batch_first, axes in ((False, "T, N"), (True, "N, T")):
        layer = make("plain", batch_first=batch_first)
        call = layer.vjp if method else layer
        for shape in ((3,), (2, 3, 5), (1, 2, 3, C)):
            with pytest.raises(ValueError, match=rf"Conv1d{method}: x has shape .*, expected \({axes}, 6\)|\(T, 6\)"):
                call(np.ones(shape))
        with pytest.raises(ValueError, match=f"Conv1d{method}: lengths holds 9, expected 0 to 4"):
            call(np.ones((4, 4, C)), lengths=[1, 9, 2, 3])
        with pytest.raises(TypeError, match=f"Conv1d{method}: x has dtype complex128"):
            call(np.ones((4, 4, C), complex))


# ---- the op


@pytest.mark.parametrize("backend", [kernels, reference])
def test_the_op_adds_to_gradients(backend, rng):
    x, weight, dy = (rng.standard_normal(shape) for shape in ((9, 2, 4), (3, 4, 2), (8, 2, 3)))
    dweight, dbias = np.zeros((3, 4, 2)), np.zeros(3)
    backend.conv1d.backward(dy, x, weight, dweight, dbias)
    twice, once = dweight.copy(), dweight.copy()
    backend.conv1d.backward(dy, x, weight, twice, None)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-12)


def test_what_the_kernel_refuses():
    x, weight, bias = np.ones((5, 2, 4), "f4"), np.ones((6, 4, 3), "f4"), np.ones(6, "f4")
    forward, backward, stream = kernels.conv1d.forward, kernels.conv1d.backward, kernels.conv1d.stream
    dweight = np.zeros_like(weight)
    for call, error, message in [
        (lambda: forward(x.astype("f8"), weight, bias), TypeError, "weight has dtype float32, expected dtype float64"),
        (lambda: forward(x.tolist(), weight, bias), TypeError, "x has type list, expected a NumPy array"),
        (lambda: forward(x[0], weight, bias), ValueError, r"x has shape \(2, 4\), expected \(T, N, 4\)"),
        (lambda: forward(x[..., :3], weight, bias), ValueError, r"x has shape \(5, 2, 3\), expected \(T, N, 4\)"),
        (lambda: forward(x, weight[0], bias), ValueError, r"weight has shape \(4, 3\), expected \(O, C / groups, K\)"),
        (lambda: forward(x, weight[:, :, :0], bias), ValueError, r"weight has shape \(6, 4, 0\)"),
        (lambda: forward(x, weight, bias[:2]), ValueError, r"bias has shape \(2,\), expected \(6,\)"),
        (lambda: forward(x, weight, bias, groups=4), ValueError, "expected a multiple of groups, 4"),
        (lambda: forward(x, weight, bias, stride=0), ValueError, "stride is 0, expected 1 to"),
        (lambda: forward(x, weight, bias, before=-1), ValueError, "before is -1, expected 0 to"),
        (lambda: forward(x, weight, bias, dilation=2**31), ValueError, "dilation is 2147483648, expected 1 to"),
        (lambda: forward(x, weight, bias, dilation=2**31 - 1), ValueError, r"dilation \* \(K - 1\) is"),
        (lambda: forward(x, weight, bias, lengths=np.array([5, 6])), ValueError, r"lengths\[1\] is 6, expected 0 to 5"),
        (lambda: forward(x, weight, bias, lengths=np.array([5])), ValueError, r"lengths has shape \(1,\), expected"),
        (lambda: backward(x, x, weight, dweight, None), ValueError, r"dy has shape \(5, 2, 4\), expected \(3, 2, 6\)"),
        (lambda: backward(x[:3, :, :1].repeat(6, 2), x, weight, None, None), TypeError, "dweight has type NoneType"),
        (lambda: backward(x[:3, :, :1].repeat(6, 2), x, weight, dweight[1:], None), ValueError, "dweight has shape"),
        (lambda: stream(weight, bias, 0), ValueError, "batch is 0, expected 1 to"),
        (lambda: stream(weight, bias, 1, before=3), ValueError, "before is 3, expected 0 to 2"),
        (lambda: stream(weight, bias, 2).step(x[0, :1]), ValueError, r"x has shape \(1, 4\), expected \(2, 4\)"),
        (lambda: stream(weight, bias, 2).step(x[0].astype("f8")), TypeError, "x has dtype float64"),
        (lambda: stream(weight, bias, 2).run(x[0]), ValueError, r"x has shape \(2, 4\), expected \(T, 2, 4\)"),
        (lambda: stream(weight, bias, 2).take(np.array([2])), ValueError, r"rows\[0\] is 2, expected 0 to 1"),
        (lambda: stream(weight, bias, 2).take(np.array([], int)), ValueError, "rows is empty"),
        (lambda: stream(weight, bias, 2).set_state((x[:2],)), ValueError, "state has 1 entries, expected 2"),
        (lambda: stream(weight, bias, 2).set_state((x, 1)), ValueError, r"state\[0\] has shape \(5, 2, 4\)"),
        (lambda: stream(weight, bias, 2).set_state((x[:2], 0)), ValueError, r"state\[1\] is 0, expected 1 to"),
        (lambda: type(stream(weight, bias, 2))(), TypeError, "made by vjp and stream only"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert not dweight.any()
    frozen = dweight.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="dweight is read-only"):
        backward(np.ones((3, 2, 6), "f4"), x, weight, frozen, None)


def test_numbers_that_are_very_large():
    layer = pyrnn.Conv1d(2**8, 1, 1, stride=2**31 - 1, rng=0)
    x = np.ones((3, 2**5, 2**8), "f4")
    y, pullback = layer.vjp(x)
    np.testing.assert_array_equal(y, pyrnn.Conv1d(2**8, 1, 1, rng=0)(x[:1]))
    assert not pullback(y)[1:].any()
    layer = pyrnn.Conv1d(1, 1, 2, dilation=2**31 - 1, padding=2**31 - 1, stride=2**31 - 1, rng=0)
    y, pullback = layer.vjp(np.ones((3, 1)))
    assert y.shape == (2, 1)
    assert pullback(y).shape == (3, 1)


def test_more_than_memory_can_hold():
    weight = np.ones((1, 1, 2), "f4")
    for call in (
        lambda: kernels.conv1d.stream(weight, None, 2**31 - 1, dilation=2**31 - 1),
        lambda: kernels.conv1d.forward(np.ones((1, 2**20, 1), "f4"), weight.repeat(64, 0), None, after=2**31 - 1),
        lambda: pyrnn.Conv1d(1, 64, 1, padding=2**31 - 1)(np.ones((1, 2**20, 1), "f4")),
        lambda: pyrnn.Conv1d(1, 1, 2, dilation=2**31 - 1).stream(2**31 - 1),
    ):
        with pytest.raises(MemoryError, match=r"Unable to allocate .* [GTPE]iB"):
            call()


# ---- streams


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_has_the_bits_of_the_whole(name, dtype, batch_first, rng):
    layer = make(name, dtype=dtype, batch_first=batch_first)
    x = draw(rng, layer, 61)

    def run(function, x):
        y = function(x.swapaxes(0, 1) if batch_first else x)
        return y.swapaxes(0, 1) if batch_first else y

    y, stream, parts, t = run(layer, x), layer.stream(N), [], 0
    layer.params["weight"][:] = np.nan  # the stream has its own
    for count in itertools.cycle((1, 0, 1, 1, 5, 1, 2, 17)):
        if t + count > len(x):
            break
        if count == 1:
            done = stream.step(x[t])
            parts += [] if done is None else [done]
        else:
            parts += list(run(stream, x[t : t + count]))
        t += count
    parts += list(run(stream, x[t:]))
    assert_same_bits([np.array(parts)], [y])
    alone = make(name, dtype=dtype).stream()
    parts = [done for done in (alone.step(step) for step in x[:, 1]) if done is not None]
    assert_same_bits([np.array(parts)], [y[:, 1]])
    if not batch_first:
        alone.reset()
        assert_same_bits([alone(x[:, 1])], [y[:, 1]])


def test_the_state_of_a_stream(rng):
    layer = pyrnn.Conv1d(C, O, 3, 2, "causal", 2, rng=0)
    x = draw(rng, layer, 12)
    stream, other = layer.stream(N), layer.stream(N)
    y = layer(x)
    stream(x[:5])
    past, due = stream.state
    assert (past.shape, due) == ((4, N, C), 2)
    np.testing.assert_array_equal(past, x[1:5])
    other.state = (past, due)
    twin = copy.copy(stream)
    for one in (stream, other, twin, copy.deepcopy(other)):
        assert_same_bits([one(x[5:])], [y[3:]])
    stream.state = [past.tolist(), 2]
    stream.take([2, 0, 2])
    assert_same_bits([stream(x[5:, [2, 0, 2]])], [y[3:, [2, 0, 2]]])
    stream.take(np.array([True, False, False]))
    assert repr(stream) == "Conv1d(6, 8, 3, stride=2, padding='causal', dilation=2).stream(batch=1)"
    stream.state = (past[:, 1], 2)
    assert_same_bits([stream(x[5:, 1])], [y[3:, 1]])
    with pytest.raises(TypeError, match="a stream cannot be pickled"):
        pickle.dumps(stream)


def test_rows_that_begin_anew(rng):
    layer = pyrnn.Conv1d(C, O, 3, padding="causal", rng=0)
    x = draw(rng, layer, 9)
    y, stream = layer(x), layer.stream(N)
    stream(x[:4])
    stream.reset([0, 2])
    fresh = stream(x[:5])
    assert_same_bits([fresh[:, [0, 2]]], [y[:5, [0, 2]]])
    stream.reset()
    assert_same_bits([stream(x)], [y])
    for layer in (pyrnn.Conv1d(C, O, 3, rng=0), pyrnn.Conv1d(C, O, 3, 4, "causal", rng=0)):
        stream = layer.stream(N)
        stream.reset([1])
        stream(x[:2])
        before = stream.state
        with pytest.raises(ValueError, match="rows that begin anew have their next step of y after"):
            stream.reset([1])
        np.testing.assert_array_equal(stream.state[0], before[0])
        stream.reset()
        assert_same_bits([stream(x)], [layer(x)])


def test_what_a_stream_refuses():
    stream, one = pyrnn.Conv1d(C, O, 3, rng=0).stream(2), pyrnn.Conv1d(C, O, 3, rng=0).stream()
    before = stream.state
    for call, error, message in [
        (lambda: stream.step(np.ones(C)), ValueError, r"Conv1d.stream: x has shape \(6,\), expected \(2, 6\)"),
        (lambda: one.step(np.ones(5)), ValueError, r"x has shape \(5,\), expected \(1, 6\) or \(6,\)"),
        (lambda: stream.step("x"), TypeError, "Conv1d.stream: x has dtype"),
        (lambda: stream(np.ones((4, 3, C))), ValueError, r"x has shape \(4, 3, 6\), expected \(T, 2, 6\)"),
        (lambda: stream.take([2]), ValueError, "Conv1d.stream: rows holds 2, expected 0 to 1"),
        (lambda: stream.reset([0.5]), TypeError, "Conv1d.stream: rows has dtype float64, expected integers"),
        (lambda: setattr(stream, "state", np.ones(3)), TypeError, r"expected a pair \(past, due\)"),
        (lambda: setattr(stream, "state", (np.ones((2, 2, 5)), 1)), ValueError, r"expected \(2, 2, 6\)"),
        (lambda: setattr(stream, "state", (before[0], 4)), ValueError, "due of state is 4, expected 1 to 3"),
        (lambda: pyrnn.Conv1d(C, O, 3, padding=1).stream(), ValueError, "padding is 1, with zeros behind the end"),
        (lambda: pyrnn.Conv1d(C, O, 3, padding="same").stream(), ValueError, "padding is 'same'"),
        (lambda: pyrnn.Conv1d(C, O, 3).stream(0), ValueError, "Conv1d.stream: batch is 0"),
    ]:
        with pytest.raises(error, match=message):
            call()
        np.testing.assert_array_equal(stream.state[0], before[0])
        assert stream.state[1] == before[1]
