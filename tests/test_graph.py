"""Graph, Merge and LearnedState: plain NumPy, gradients, streams, and what is refused."""

import copy

import numpy as np
import pytest

import pyrnn
from pyrnn.layers.stack import LAYERS


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def branches(**options):
    """Two branches that meet, and what they read once more."""
    return pyrnn.Graph(
        {"rnn": ["x"], "again": ["rnn"], "beside": ["x", "rnn", "again"], "head": ["beside"], "sum": ["head", "again"]},
        rnn=pyrnn.GRU(3, 4, dtype="float64", **options),
        again=pyrnn.LSTM(4, 4, dtype="float64", **options),
        beside=pyrnn.Merge("concatenate", dtype="float64"),
        head=pyrnn.Linear(11, 4, dtype="float64"),
        sum=pyrnn.Merge("add", dtype="float64"),
        rng=0,
    )


def test_a_graph_is_what_its_layers_are():
    model, x = branches(), draw(5, 2, 3)
    rnn = model.rnn(x)[0]
    again = model.again(rnn)[0]
    expected = model.head(np.concatenate([x, rnn, again], axis=-1)) + again
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_array_equal(model.vjp(x)[0], expected)
    assert len(model) == 5
    assert model[3] is model.head
    assert next(iter(model.state_dict())) == "rnn.weight_ih_l0"
    again = pyrnn.Graph(**model.config())
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again(x), expected)


def test_gradients_of_a_graph():
    """By central differences, in all directions at once."""
    model, x, dy, rng = branches(), draw(5, 2, 3), draw(5, 2, 4), np.random.default_rng(1)
    _, pullback = model.vjp(x)
    dx = pullback(dy)
    values = {name: rng.normal(size=value.shape) for name, value in model.params.items()}
    way = rng.normal(size=x.shape)
    expected = np.sum(dx * way) + sum(np.sum(model.grads[name] * own) for name, own in values.items())

    def moved(step):
        other = branches()
        other.load_state_dict({name: value + step * values[name] for name, value in model.params.items()})
        return np.sum(other(x + step * way) * dy)

    found = (moved(1e-6) - moved(-1e-6)) / 2e-6
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(RuntimeError, match="this pullback has been called before"):
        pullback(dy)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_graph_step_by_step(batch_first):
    model, x = branches(batch_first=batch_first), draw(*((2, 6, 3) if batch_first else (6, 2, 3)))
    whole = model(x)
    steps = x.swapaxes(0, 1) if batch_first else x
    stream = model.stream(2)
    found = np.stack([stream.step(x_t) for x_t in steps])
    np.testing.assert_array_equal(found.swapaxes(0, 1) if batch_first else found, whole)
    stream.reset()
    first, rest = (x[:, :2], x[:, 2:]) if batch_first else (x[:2], x[2:])
    pieces = [stream(first)]
    other = copy.copy(stream)
    pieces.append(stream(rest))
    np.testing.assert_array_equal(np.concatenate(pieces, axis=int(batch_first)), whole)
    np.testing.assert_array_equal(other(rest), pieces[1])
    other.take([1, 1, 0])
    assert other.step(draw(3, 3)).shape == (3, 4)
    before = stream.state
    with pytest.raises(ValueError, match=r"Merge|GRU"):
        stream(draw(6, 2, 5))
    for one, own in zip(before, stream.state, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(own))


def test_lengths_in_a_graph():
    model, x = branches(), draw(6, 2, 3)
    y = model(x, lengths=[6, 2])
    np.testing.assert_array_equal(y[:2, 1], model(x[:2])[:, 1])
    np.testing.assert_array_equal(model.output_lengths([6, 2]), [6, 2])
    last = pyrnn.Graph({"rnn": ["x"], "last": ["rnn"]}, rnn=pyrnn.GRU(3, 4, rng=0), last=pyrnn.LastStep())
    np.testing.assert_array_equal(last(x, lengths=[6, 2])[1], last(x[:2])[1])
    assert last.output_lengths([6, 2]) is None


def test_a_stream_waits_where_one_branch_does():
    """None where anything a layer takes is not there yet; the states of what did run have gone on."""
    conv = pyrnn.Conv1d(1, 1, 2, rng=0)
    model = pyrnn.Graph({"conv": ["x"], "sum": ["conv", "x"], "twice": ["sum"]}, conv=conv, sum=pyrnn.Merge("add"),
                        twice=pyrnn.Merge("add"))  # fmt: skip
    x = draw(3, 1).astype("f4")
    stream = model.stream()
    assert stream.step(x[0]) is None
    np.testing.assert_array_equal([stream.step(x_t) for x_t in x[1:]], conv(x) + x[1:])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, TypeError, r"inputs is \{\}, expected a dict of lists of names"),
        ([("a", ["x"])], TypeError, "expected a dict of lists of names"),
        ({"a": "x", "b": ["a"]}, TypeError, "the inputs of 'a' are 'x', expected a list of names"),
        ({"a": [], "b": ["a"]}, TypeError, r"the inputs of 'a' are \[\]"),
        ({"a": ["b"], "b": ["a"]}, ValueError, "'a' takes 'b', which is not before it"),
        ({"a": ["x"], "b": [3]}, ValueError, "'b' takes 3, which is not before it"),
        ({"a": ["x"]}, ValueError, r"inputs names \['a'\], the layers are \['a', 'b'\]"),
        ({"a": ["x"], "b": ["x"]}, ValueError, "nobody takes the result of 'a'"),
        ({"x": ["x"], "b": ["x"]}, ValueError, "a layer has the name 'x', which is that of what the model is given"),
    ],
)
def test_a_graph_that_is_none(inputs, error, message):
    with pytest.raises(error, match=rf"Graph: .*{message}"):
        pyrnn.Graph(inputs, a=pyrnn.Linear(2, 2), b=pyrnn.Linear(2, 2))


MERGED = {
    "concatenate": lambda a, b: np.concatenate([a, b], axis=-1),
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "average": lambda a, b: (a + b) / 2,
    "maximum": np.maximum,
}


@pytest.mark.parametrize("how", MERGED)
def test_merge(how):
    layer, a, b = pyrnn.Merge(how, dtype="float64"), draw(3, 2, 4), draw(3, 2, 5)[:, :, 1:]
    np.testing.assert_allclose(layer(a, b), MERGED[how](a, b), rtol=1e-15)
    y, pullback = layer.vjp(a, b)
    dy = draw(*y.shape)
    da, db = pullback(dy)
    for k, gradient in enumerate((da, db)):
        moved = [np.array((a, b)), np.array((a, b))]
        moved[0][k] += 1e-6
        moved[1][k] -= 1e-6
        slope = (layer(*moved[0]) - layer(*moved[1])) / 2e-6
        expected = dy * slope
        if how == "concatenate":
            expected = expected.reshape(3, 2, 2, 4)[:, :, k]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8)
    single, pullback = layer.vjp(a) if how != "subtract" else (a, None)
    np.testing.assert_array_equal(single, a)
    if pullback is not None:
        np.testing.assert_array_equal(pullback(a)[0], a)
        three = layer(a, b, a)
        np.testing.assert_allclose(three, MERGED[how](MERGED[how](a, b), a) if how != "average" else (2 * a + b) / 3)


def test_what_cannot_be_merged():
    with pytest.raises(ValueError, match="Merge: how is 'beside', expected one of concatenate, add"):
        pyrnn.Merge("beside")
    with pytest.raises(TypeError, match="Merge: 0 inputs are given, expected 1 or more"):
        pyrnn.Merge("add")()
    with pytest.raises(TypeError, match="Merge: 3 inputs are given, expected 2"):
        pyrnn.Merge("subtract")(1, 2, 3)
    with pytest.raises(ValueError, match=r"Merge: input 1 has shape \(3, 2\), expected \(2, 3\)"):
        pyrnn.Merge("add")(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"Merge.vjp: input 1 has shape \(3, 2\), expected \(2, F\)"):
        pyrnn.Merge("concatenate").vjp(np.ones((2, 3)), np.ones((3, 2)))


# ---- a state that is learned


def learned(make=pyrnn.LSTM, layers=2, **options):
    layer = pyrnn.LearnedState(make(3, 4, layers, dtype="float64", rng=0, **options))
    for name, value in layer.start.params.items():
        value[:] = draw(*value.shape) + (name == "c")
    return layer


@pytest.mark.parametrize("make", LAYERS.values())
@pytest.mark.parametrize("batch_first", [False, True])
def test_it_begins_with_its_state(make, batch_first):
    layer, x = learned(make, batch_first=batch_first), draw(*((2, 6, 3) if batch_first else (6, 2, 3)))
    parts = [np.repeat(part[:, None], 2, axis=1) for part in layer.start.params.values()]
    first = tuple(parts) if len(parts) > 1 else parts[0]
    y, state = layer(x)
    expected, states = layer.layer(x, first)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.asarray(state), np.asarray(states))
    np.testing.assert_array_equal(layer(x, first)[0], expected)
    alone = x[0] if batch_first else x[:, 0]
    np.testing.assert_array_equal(layer(alone)[0], expected[0] if batch_first else expected[:, 0])
    steps = x.swapaxes(0, 1) if batch_first else x
    stream = layer.stream(2)
    other = copy.copy(stream)
    for walked in (stream, other):
        found = np.stack([walked.step(x_t) for x_t in steps])
        np.testing.assert_array_equal(found.swapaxes(0, 1) if batch_first else found, expected)
    stream.reset(rows=[1])
    np.testing.assert_array_equal(stream.step(steps[0])[1], expected[1, 0] if batch_first else expected[0, 1])
    stream.take([1, 0, 0])
    stream.reset()
    assert np.array_equal(stream.step(steps[0][[0, 0, 0]])[2], expected[0, 0])
    np.testing.assert_array_equal(np.asarray(layer.stream(2, first).state), np.asarray(first))


def test_its_state_is_trained():
    """Gradients as those of a state that is given, summed over the rows; none where one is given."""
    layer, x, dy = learned(), draw(6, 2, 3), draw(6, 2, 4)
    first = tuple(np.repeat(part[:, None], 2, axis=1) for part in layer.start.params.values())
    (_, _), pullback = layer.layer.vjp(x, first)
    dx, dfirst = pullback(dy)
    weights = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.zero_grad()
    (_, _), pullback = layer.vjp(x)
    found, nothing = pullback(dy)
    assert nothing is None
    np.testing.assert_array_equal(found, dx)
    for name, part in zip("hc", dfirst, strict=True):
        np.testing.assert_allclose(layer.grads[f"start.{name}"], part.sum(axis=1), rtol=1e-14)
        weights[f"start.{name}"] = layer.grads[f"start.{name}"].copy()
    for name, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, weights[name])
    (_, _), pullback = layer.vjp(x, first)
    np.testing.assert_array_equal(np.asarray(pullback(dy)[1]), np.asarray(dfirst))
    np.testing.assert_array_equal(layer.grads["start.h"], weights["start.h"])


def test_it_stands_in_a_model():
    model = pyrnn.Sequential(rnn=learned(), head=pyrnn.Linear(4, 2, dtype="float64"), rng=0)
    x = draw(6, 2, 3)
    y = model(x, lengths=[6, 2])
    np.testing.assert_array_equal(y[:2, 1], model(x[:2])[:, 1])
    np.testing.assert_array_equal(model.stream(2)(x), model(x))
    _, pullback = model.vjp(x)
    assert pullback(draw(6, 2, 2)).shape == x.shape
    assert model.grads["rnn.start.c"].any()
    again = pyrnn.Sequential(**model.config())
    assert again.config() == model.config()
    assert list(again.params) == list(model.params)
    with pytest.raises(TypeError, match="LearnedState: layer is Linear object, expected a recurrent layer"):
        pyrnn.LearnedState(pyrnn.Linear(2, 3))
    with pytest.raises(ValueError, match="LearnedState: x has shape"):
        learned()(draw(6, 2, 4))


def test_a_stream_waits_where_a_convolution_completes_no_step(rng):
    graph = pyrnn.Graph(
        {"a": ["x"], "b": ["x"], "sum": ["a", "b"], "head": ["sum"]},
        a=pyrnn.Conv1d(3, 4, 2, 2, rng=0), b=pyrnn.Conv1d(3, 4, 2, 2, rng=1), sum=pyrnn.Merge("add"),
        head=pyrnn.Linear(4, 2, rng=2),
    )  # fmt: skip
    x = rng.standard_normal((6, 1, 3)).astype("float32")
    stream = graph.stream()
    steps = [stream.step(x[t]) for t in range(6)]
    assert [step is None for step in steps] == [True, False] * 3
    np.testing.assert_array_equal(np.stack(steps[1::2]), graph(x))
