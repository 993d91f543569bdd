"""Layers one after the other against the same written out."""

import copy
import pickle

import numpy as np
import pytest

import pyrnn


def make():
    return pyrnn.Sequential(
        embed=pyrnn.Embedding(9, 4, rng=0),
        drop=pyrnn.Dropout(0.4, rng=1),
        below=pyrnn.LSTM(4, 5, bidirectional=True, rng=2),
        between=pyrnn.Sequential(norm=pyrnn.LayerNorm(10), rnn=pyrnn.GRU(10, 6, rng=3)),
        pool=pyrnn.MaxOverTime(),
        head=pyrnn.Linear(6, 3, rng=4),
    )


def test_it_is_the_same_written_out(rng):
    model, twin = make(), make()
    ids, lengths, dy = rng.integers(0, 9, (7, 3)), np.array([7, 2, 4]), rng.standard_normal((3, 3)).astype("f4")
    y, pullback = model.vjp(ids, lengths=lengths)
    assert pullback(dy) is None
    x, pull_embed = twin.embed.vjp(ids)
    x, pull_drop = twin.drop.vjp(x)
    (x, _), pull_below = twin.below.vjp(x, lengths=lengths)
    x, pull_norm = twin.between.norm.vjp(x)
    (x, _), pull_rnn = twin.between.rnn.vjp(x, lengths=lengths)
    x, pull_pool = twin.pool.vjp(x, lengths=lengths)
    x, pull_head = twin.head.vjp(x)
    pull_embed(pull_drop(pull_below(pull_norm(pull_rnn(pull_pool(pull_head(dy)))[0]))[0]))
    np.testing.assert_array_equal(y, x)
    assert np.any(model.grads["embed.weight"])
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, twin.grads[name])


def test_a_call_reads_no_padding_and_drops_nothing(rng):
    model = make()
    ids = rng.integers(0, 9, (7, 3))
    y = model(ids, lengths=[7, 2, 4])
    np.testing.assert_array_equal(y[1], model(ids[:2, 1:2])[0])
    np.testing.assert_array_equal(y, pickle.loads(pickle.dumps(model))(ids, lengths=[7, 2, 4]))


def test_the_gradient_of_what_goes_in():
    layer = pyrnn.RNN(2, 3, rng=0)
    model = pyrnn.Sequential(rnn=pyrnn.RNN(2, 3, rng=0))
    x = np.ones((4, 2), "f4")
    (y, _), pull = layer.vjp(x)
    out, pullback = model.vjp(x)
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(pullback(y), pull(y)[0])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="Sequential: it has no layers"):
        pyrnn.Sequential()
    with pytest.raises(TypeError, match="Sequential: rnn is int"):
        pyrnn.Sequential(rnn=3)
    with pytest.raises(ValueError, match="GRU: lengths holds 9, expected 0 to 2"):
        pyrnn.Sequential(rnn=pyrnn.GRU(1, 1))(np.zeros((2, 1, 1)), lengths=[9])


def test_two_layers_of_one_name_are_refused():
    layers = [pyrnn.Linear(1, 1) for _ in range(3)]
    with pytest.raises(ValueError, match="Sequential: '1' is the name of two layers"):
        pyrnn.Sequential(*layers[:2], **{"1": layers[2]})
    assert len(pyrnn.Sequential(*layers[:2], **{"2": layers[2]})) == 3


class Part(pyrnn.Linear):
    """A user's layer, without parts of what a Sequential uses."""

    __call__ = vjp = None  # type: ignore[assignment]


class CallOnly(Part):
    def __call__(self, x):
        return x


class VjpOnly(Part):
    def vjp(self, x):
        return x, lambda dy: dy


class LengthsInCall(VjpOnly):
    def __call__(self, x, lengths=None):
        return x


class LengthsInVjp(CallOnly):
    def vjp(self, x, lengths=None):
        return x, lambda dy: dy


def test_what_a_layer_lacks_is_named():
    x = np.ones((4, 2, 3), "f4")
    for kind, lengths, call, vjp in [
        (CallOnly, None, None, r"Sequential: odd \(CallOnly\) has no vjp"),
        (VjpOnly, None, r"Sequential: odd \(VjpOnly\) has no __call__", None),
        (LengthsInCall, [4, 2], None, r"the vjp of odd \(LengthsInCall\) takes none, as its __call__ does"),
        (LengthsInVjp, [4, 2], r"the __call__ of odd \(LengthsInVjp\) takes none, as its vjp does", None),
        (LengthsInVjp, None, None, None),
    ]:
        model = pyrnn.Sequential(pyrnn.Linear(3, 3, rng=0), odd=kind(3, 3))
        for method, match in ((model, call), (model.vjp, vjp)):
            if match is None:
                method(x, lengths=lengths)
                continue
            with pytest.raises(TypeError, match=match):
                method(x, lengths=lengths)
    with pytest.raises(TypeError, match=r"Sequential: 0 \(Model\) has no vjp"):
        pyrnn.Sequential(pyrnn.Model()).vjp(x)


def test_by_position():
    model = pyrnn.Sequential(pyrnn.Embedding(9, 4), pyrnn.GRU(4, 5), head=pyrnn.Linear(5, 2), rng=0)
    assert [name for name in model.params if "weight" in name] == [
        "0.weight", "1.weight_ih_l0", "1.weight_hh_l0", "head.weight",
    ]  # fmt: skip
    assert len(model) == 3
    assert model[0].embedding_dim == 4
    assert model[-1] is model.head
    assert list(model) == [model[0], model[1], model[2]]
    with pytest.raises(ValueError, match="Sequential: k is 3, expected -3 to 2"):
        model[3]
    with pytest.raises(TypeError, match="Sequential: 0 is list, expected a layer or a model"):
        pyrnn.Sequential([pyrnn.Linear(1, 1)])
    twin = pickle.loads(pickle.dumps(model))
    ids = np.array([[1, 2], [3, 4]])
    np.testing.assert_array_equal(twin(ids), model(ids))
    layer = pyrnn.Linear(3, 3, rng=0)
    twice = pyrnn.Sequential(layer, layer)  # the same weights, two uses
    x = np.ones((1, 3), "f4")
    np.testing.assert_array_equal(twice(x), layer(layer(x)))
    twice.third = layer
    np.testing.assert_array_equal(twice(x), layer(layer(layer(x))))


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_step(rng, batch_first):
    rnn = pyrnn.LSTM(3, 4, batch_first=batch_first, dtype="float64", rng=0)
    last = pyrnn.LastStep(batch_first=batch_first, dtype="float64")
    model = pyrnn.Sequential(rnn, last)
    x, lengths = rng.standard_normal((3, 5, 3) if batch_first else (5, 3, 3)), np.array([5, 0, 2])
    y, pullback = model.vjp(x, lengths=lengths)
    (_, (h, c)), pull = rnn.vjp(x, lengths=lengths)
    np.testing.assert_array_equal(y, h[0])
    np.testing.assert_array_equal(model(x, lengths=lengths), y)
    dy = rng.standard_normal(y.shape)
    np.testing.assert_array_equal(pullback(dy), pull(None, (dy[None], np.zeros_like(c)))[0])
    np.testing.assert_array_equal(last(x), x[:, -1] if batch_first else x[-1])
    np.testing.assert_array_equal(last(x[0], lengths=2), x[0, 1])
    assert not last(np.zeros((3, 0, 3) if batch_first else (0, 3, 3))).any()


class Own(pyrnn.Model):
    """A user's layer between others."""

    def __init__(self, takes):
        super().__init__(rnn=pyrnn.GRU(3, 3, rng=0))
        self.takes = takes

    def vjp(self, x, lengths=None):
        self.takes.append(lengths)
        (y, h), pull = self.rnn.vjp(x, lengths=lengths)
        return (y, h), pull


def test_lengths_reach_all_that_take_them(rng):
    x, lengths, takes = rng.standard_normal((5, 3, 3)), [5, 1, 3], []
    model = pyrnn.Sequential(
        pyrnn.Linear(3, 3), Own(takes), pyrnn.MultiheadAttention(3, 1), pyrnn.Jordan(3, 4, 3), pyrnn.LastStep(), rng=0
    )
    y, pullback = model.vjp(x, lengths=lengths)
    np.testing.assert_array_equal(model(x, lengths=lengths), y)
    assert takes == [lengths, lengths]
    for n, length in enumerate(lengths):
        np.testing.assert_allclose(model(x[:length, n : n + 1])[0], y[n], rtol=1e-5, atol=1e-6)
    dx = pullback(y)
    for n, length in enumerate(lengths):
        assert not dx[length:, n].any()
        assert dx[:length, n].any()

    class Deaf(pyrnn.Model):
        def vjp(self, x):
            raise AssertionError("not reached")

    deaf = pyrnn.Sequential(pyrnn.Linear(3, 3), Deaf(rnn=pyrnn.GRU(3, 3)))
    for call in (deaf, deaf.vjp):
        with pytest.raises(
            TypeError,
            match=r"Sequential: lengths are given, but the \w+ of 1 \(Deaf\) takes none, as a layer in it does",
        ):
            call(x, lengths=lengths)


# ---- one step at a time


def streamed(**options):
    """A model of every kind of layer that can be streamed, and ids (T, N) for it."""
    rng = np.random.default_rng(0)
    model = pyrnn.Sequential(
        pyrnn.Embedding(7, 5),
        pyrnn.LSTM(5, 6, 2, **options),
        pyrnn.Dropout(0.5),
        pyrnn.Sequential(pyrnn.LayerNorm(6), pyrnn.GRU(6, 4, **options)),
        pyrnn.Linear(4, 3),
        pyrnn.LogSoftmax(),
        rng=0,
    )
    return model, rng.integers(0, 7, (9, 3))


def test_a_stream_has_the_bits_of_the_whole():
    model, ids = streamed()
    y, stream = model(ids), model.stream(3)
    np.testing.assert_array_equal(stream(ids[:4]), y[:4])
    for t in (4, 5):
        np.testing.assert_array_equal(stream.step(ids[t]), y[t])
    twin = copy.copy(stream)
    np.testing.assert_array_equal(stream(ids[6:]), y[6:])
    np.testing.assert_array_equal(twin(ids[6:]), y[6:])
    turned, _ = streamed(batch_first=True)
    np.testing.assert_array_equal(turned.stream(3)(ids.T), y.swapaxes(0, 1))
    alone = model.stream()
    np.testing.assert_array_equal([alone.step(k) for k in ids[:, 1]], y[:, 1])
    assert repr(stream) == "Sequential.stream(batch=3)"


def convolved(batch_first=False):
    """A model whose layers complete steps now and then, and x (T, N, C) for it."""
    o = {"batch_first": batch_first}
    model = pyrnn.Sequential(
        conv=pyrnn.Conv1d(5, 8, 3, padding="causal", **o),
        norm=pyrnn.BatchNorm1d(8, **o),
        act=pyrnn.ReLU(),
        inner=pyrnn.Sequential(pyrnn.MaxPool1d(2, **o), pyrnn.Conv1d(8, 6, 3, 2, **o), pyrnn.GELU()),
        rnn=pyrnn.GRU(6, 4, **o),
        head=pyrnn.Linear(4, 3),
        out=pyrnn.Softmax(),
        rng=0,
    )
    rng = np.random.default_rng(0)
    model.norm.vjp(rng.standard_normal((9, 1, 8)))
    return model, rng.standard_normal((29, 3, 5)).astype("f4")


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stream_of_convolutions(batch_first):
    model, x = convolved(batch_first)

    def run(function, x):
        y = function(x.swapaxes(0, 1) if batch_first else x)
        return y.swapaxes(0, 1) if batch_first else y

    y, stream, parts, t = run(model, x), model.stream(3), [], 0
    for count in (1, 1, 4, 1, 0, 1, 1, 13, 1, 1, 5):
        if count == 1:
            done = stream.step(x[t])
            parts += [] if done is None else [done]
        else:
            parts += list(run(stream, x[t : t + count]))
        t += count
        stream = copy.copy(stream)
        stream.state = stream.state
    np.testing.assert_array_equal(parts, y)
    assert (len(x), len(y)) == (29, 6)
    alone = model.stream()
    assert [alone.step(step) is None for step in x[:8, 0]] == [True, True, True, True, True, False, True, True]
    with pytest.raises(ValueError, match="reset all of them"):  # the GRU's rows could
        stream.reset([1])
    before = run(copy.copy(stream), x)
    np.testing.assert_array_equal(run(stream, x), before)
    stream.reset()
    np.testing.assert_array_equal(run(stream, x), y)
    with pytest.raises(ValueError, match=r"Conv1d\.stream: padding is 1"):
        pyrnn.Sequential(pyrnn.Conv1d(1, 1, 3, padding=1)).stream()


@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_follow_the_layers(batch_first):
    model, x = convolved(batch_first)
    lengths = np.array([29, 13, 1])
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan
    counts = model.output_lengths(lengths)
    assert counts.tolist() == [6, 2, 0]
    y = model(x.swapaxes(0, 1) if batch_first else x, lengths=lengths)
    y = y.swapaxes(0, 1) if batch_first else y
    for n, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        np.testing.assert_array_equal(model(x[:length, n]), y[:count, n])
    classify = pyrnn.Sequential(
        model, pyrnn.MeanOverTime(batch_first=batch_first), pyrnn.BatchNorm1d(3), pyrnn.Linear(3, 2, rng=0)
    )
    y, pullback = classify.vjp(x.swapaxes(0, 1) if batch_first else x, lengths=lengths)
    dx = pullback(y)
    dx = dx.swapaxes(0, 1) if batch_first else dx
    assert y.shape == (3, 2)
    assert classify.output_lengths(lengths) is None
    for n, length in enumerate(lengths):
        assert not dx[length:, n].any()
    assert np.isfinite(dx).all()


def test_the_states_of_a_stream():
    model, ids = streamed()
    y, stream = model(ids), model.stream(3)
    stream(ids[:4])
    state = stream.state
    assert [len(state), len(state[0]), state[0][0].shape] == [2, 2, (2, 3, 6)]
    stream(ids[4:])
    stream.state = state
    np.testing.assert_array_equal(stream(ids[4:]), y[4:])
    stream.state = state
    stream.take([2, 0, 2, 1])
    assert repr(stream) == "Sequential.stream(batch=4)"
    np.testing.assert_array_equal(stream.step(ids[4, [2, 0, 2, 1]]), y[4, [2, 0, 2, 1]])
    np.testing.assert_array_equal(stream(ids[5:, [2, 0, 2, 1]]), y[5:, [2, 0, 2, 1]])
    stream.reset([0, 3])
    again = stream(ids[:2, [2, 0, 2, 1]])
    np.testing.assert_array_equal(again[:, [0, 3]], y[:2, [2, 1]])
    stream.reset()
    np.testing.assert_array_equal(stream(ids[:, [2, 0, 2, 1]]), y[:, [2, 0, 2, 1]])


def test_layers_that_contradict_each_other_are_refused():
    gru, last = pyrnn.GRU(3, 4, batch_first=True), pyrnn.LastStep(batch_first=True)
    for layers, message in (
        ((gru, pyrnn.LastStep()), r"0 \(GRU\) has batch_first=True and 1 \(LastStep\) batch_first=False, expected"),
        ((gru, pyrnn.Dropout(0.1, per_sequence=True), last), "Dropout"),
        ((pyrnn.Sequential(rnn=gru), pyrnn.LastStep()), r"0\.rnn \(GRU\)"),
        ((pyrnn.LearnedState(gru), pyrnn.LastStep()), "LearnedState"),
        ((pyrnn.LSTM(3, 8), pyrnn.Linear(9, 2)), r"0 \(LSTM\) gives 8 features, and 1 \(Linear\) takes 9"),
        ((pyrnn.LSTM(3, 8, proj_size=2, bidirectional=True), pyrnn.Tanh(), pyrnn.Dropout(0.1), pyrnn.Linear(8, 2)),
         r"0 \(LSTM\) gives 4 features, and 3"),
        ((pyrnn.Sequential(pyrnn.Embedding(9, 5)), pyrnn.Conv1d(4, 2, 3)), r"0\.0 \(Embedding\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            pyrnn.Sequential(*layers)

    class Twice(pyrnn.Linear):  # may give what it likes
        def __call__(self, x):
            return np.concatenate([super().__call__(x)] * 2, axis=-1)

    class Beside(pyrnn.Sequential):
        def __call__(self, x):
            return np.concatenate([layer(x) for layer in self], axis=-1)

    pyrnn.Sequential(pyrnn.Linear(3, 2), Twice(2, 2), pyrnn.Linear(4, 1))
    assert Beside(pyrnn.Linear(3, 2), pyrnn.Linear(3, 1))(np.ones((4, 3))).shape == (4, 3)
    for norm in (pyrnn.Dropout(0.1), pyrnn.BatchNorm1d(4)):  # to which it is the same
        pyrnn.Sequential(gru, norm, last, pyrnn.Sequential(pyrnn.BatchNorm1d(4), pyrnn.Linear(4, 1)))


def test_what_fails_leaves_a_stream_as_it_was():
    model, ids = streamed()
    stream = model.stream(3)
    stream(ids[:4])
    before = stream.state
    wrong = (tuple(part + 1 for part in before[0]), np.zeros((1, 3, 5)))
    for call in (
        lambda: stream(ids[:, :2]),
        lambda: stream(ids + 100),
        lambda: stream.step(ids[0, :2]),
        lambda: stream.take([3]),
        lambda: stream.reset([3]),
        lambda: setattr(stream, "state", wrong),
        lambda: setattr(stream, "state", before[0]),
        lambda: setattr(stream, "state", None),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
        for one, other in zip((*before[0], before[1]), (*stream.state[0], stream.state[1]), strict=True):
            np.testing.assert_array_equal(one, other)
    assert repr(stream) == "Sequential.stream(batch=3)"
    unfit = pyrnn.Sequential(pyrnn.GRU(2, 3, rng=0), pyrnn.Linear(3, 1))
    setattr(unfit, "1", pyrnn.Linear(4, 1))
    unfit = unfit.stream()
    with pytest.raises(ValueError, match="Linear"):  # after the GRU has made its steps
        unfit(np.ones((5, 2)))
    assert not unfit.state[0].any()


def test_models_that_cannot_run_step_by_step():
    for model, message in [
        (
            pyrnn.Sequential(pyrnn.GRU(2, 3), pyrnn.LastStep()),
            r"Sequential.stream: 1 \(LastStep\) cannot run step by step",
        ),
        (pyrnn.Sequential(pyrnn.MultiheadAttention(4, 2)), r"0 \(MultiheadAttention\) cannot run step by step"),
        (pyrnn.Sequential(pyrnn.Model(a=pyrnn.Linear(2, 2))), r"0 \(Model\) cannot run step by step"),
    ]:
        with pytest.raises(TypeError, match=message):
            model.stream()
    with pytest.raises(ValueError, match="a bidirectional layer needs the whole sequence"):
        pyrnn.Sequential(pyrnn.GRU(2, 3, bidirectional=True)).stream()
    with pytest.raises(ValueError, match="batch is 0"):
        pyrnn.Sequential(pyrnn.GRU(2, 3)).stream(0)
