"""Populations: every model of one has the bits that it has alone. Gradients of each row."""

import copy
import pickle

import numpy as np
import pytest
from cells import FEW, VARIANTS, Problem, assert_same_bits, enlargement, flat, laid_out, make_layer

import pyrnn

P, T, N, I, H = 3, 6, 4, 5, 7  # noqa: E741


def draw(rng, like):
    """Numbers like an array, or a tuple of them."""
    if isinstance(like, tuple):
        return tuple(draw(rng, entry) for entry in like)
    return rng.standard_normal(like.shape).astype(like.dtype)


def part(value, k):
    """One model's part of a result."""
    return tuple(part(entry, k) for entry in value) if isinstance(value, tuple) else value[k]


def assert_as_alone(many, x, **given):
    """Results and gradients of each model are those of its copy that runs alone. What is given is cut."""
    rng = np.random.default_rng(1)
    alone = copy.deepcopy(many)
    called = many(x, **given)
    result, pullback = many.vjp(x, **given)
    sent = draw(rng, result)
    sent = sent if isinstance(sent, tuple) else (sent,)
    back = pullback(*sent)
    for k in range(P):
        own = {name: part(value, k) for name, value in given.items()}
        assert_same_bits(alone[k](x[k], **own), part(called, k))
        found, pull = alone[k].vjp(x[k], **own)
        assert_same_bits(found, part(result, k))
        expected = pull(*(part(entry, k) for entry in sent))
        if back is not None:
            assert_same_bits(expected, part(back, k))
    for name, grad in many.grads.items():
        assert_same_bits(grad, alone.grads[name])
        assert np.any(grad) or "bias_c" in name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cell_of_each_model(variant):
    rng = np.random.default_rng(0)
    many = pyrnn.Population(make_layer(variant, I, H, proj_size=3), size=P, rng=0)
    assert_as_alone(many, rng.standard_normal((P, T, N, I)).astype("f"))


@pytest.mark.parametrize("variant", FEW)
def test_layers_directions_states_lengths_and_marks(variant):
    rng = np.random.default_rng(0)
    layer = make_layer(variant, I, H, 2, bidirectional=True, batch_first=True, dropout=0.4, dtype="float64")
    many = pyrnn.Population(layer, size=P, rng=0)
    x = rng.standard_normal((P, N, T, I))
    state = many(x)[1]
    lengths, reset = rng.integers(0, T + 1, (P, N)), rng.random((P, N, T)) < 0.2
    assert_as_alone(many, x, state=state, lengths=lengths, reset=reset)


def test_lengths_and_marks_of_all_models():
    rng = np.random.default_rng(0)
    many = pyrnn.Population(pyrnn.LSTM(I, H), size=P, rng=0)
    x, lengths, reset = rng.standard_normal((P, T, N, I)), np.array([6, 0, 3, 1]), rng.random((T, N)) < 0.3
    y, state = many(x, lengths=lengths, reset=reset)
    own = many(x, lengths=np.stack([lengths] * P), reset=np.stack([reset] * P))
    assert_same_bits((y, state), own)
    assert_same_bits(many[1](x[1], lengths=lengths, reset=reset), (y[1], part(state, 1)))
    lengths = np.array([[T] * N, [1] * N, [0] * N])  # no padding in the first one
    (y, _), pullback = many.vjp(x, lengths=lengths)
    dx, _ = pullback(np.ones_like(y))
    assert all(np.any(a[0, -1]) and not np.any(a[1:, -1]) for a in (y, dx))


def test_ids_and_masks():
    """One model after the other, without a kernel of their own."""
    rng = np.random.default_rng(0)
    many = pyrnn.Population(pyrnn.GRU(I, H), size=P, rng=0)
    x, mask = rng.standard_normal((P, T, N, I)), rng.random((T, N)) < 0.6
    y, h = many(x, mask=mask)
    assert_same_bits(many[2](x[2], mask=mask), (y[2], h[2]))
    (_, _), pullback = many.vjp(x, mask=mask, checkpoint_every=2)
    assert pullback(y)[0].shape == x.shape


@pytest.mark.parametrize("layer", [pyrnn.LSTM(I, H), pyrnn.Linear(I, H), pyrnn.Sequential(pyrnn.GRU(I, H))])
def test_an_x_for_all_models(layer):
    rng = np.random.default_rng(0)
    many = pyrnn.Population(layer, size=P, rng=0)
    x = rng.standard_normal((T, N, I)).astype("f")
    each = copy.deepcopy(many)
    (result, pullback), (expected, pull) = many.vjp(x), each.vjp(np.stack([x] * P))
    assert_same_bits(result, expected)
    dy = draw(rng, result[0] if isinstance(result, tuple) else result)
    dx, expected_dx = pullback(dy), pull(dy)
    dx, expected_dx = (back[0] if isinstance(back, tuple) else back for back in (dx, expected_dx))
    assert_same_bits(dx, (expected_dx[0] + expected_dx[1]) + expected_dx[2])
    for name, grad in many.grads.items():
        assert_same_bits(grad, each.grads[name])


def test_a_sequential_of_ids():
    rng = np.random.default_rng(0)
    layers = (pyrnn.Embedding(9, I), pyrnn.LSTM(I, H, 2), pyrnn.LayerNorm(H), pyrnn.Dropout(0.3), pyrnn.Tanh())
    many = pyrnn.Population(pyrnn.Sequential(*layers, pyrnn.Linear(H, 4)), size=P, rng=0)
    assert_as_alone(many, rng.integers(0, 9, (P, T, N)), lengths=rng.integers(0, T + 1, (P, N)))


def test_lengths_reach_the_layers_of_a_sequential():
    rng = np.random.default_rng(0)
    layers = pyrnn.Conv1d(I, 6, 2), pyrnn.GRU(6, H, bidirectional=True), pyrnn.LastStep()
    many = pyrnn.Population(pyrnn.Sequential(*layers, head=pyrnn.Linear(2 * H, 2)), size=P, rng=0)
    x, lengths = rng.standard_normal((P, T, N, I)), np.array([6, 2, 3, 4])
    y = many(x, lengths=lengths)
    assert y.shape == (P, N, 2)
    assert_same_bits(many[1](x[1], lengths=lengths), y[1])
    result, pullback = many.vjp(x, lengths=lengths)
    assert pullback(result).shape == x.shape


class Classifier(pyrnn.Model):
    """A class of a user's own, with a call of its own."""

    def __init__(self, hidden):
        super().__init__()
        self.rnn = pyrnn.GRU(I, hidden, dtype="float64")
        self.heads = [pyrnn.Linear(hidden, 3, dtype="float64"), pyrnn.Linear(hidden, 2, dtype="float64")]

    def vjp(self, x):
        (_, h), pull_rnn = self.rnn.vjp(x)
        (one, pull_one), (two, pull_two) = (head.vjp(h[0]) for head in self.heads)
        return (one, two), lambda done, dtwo: pull_rnn(None, (pull_one(done) + pull_two(dtwo))[None])[0]


def test_a_model_of_a_users_own():
    many = pyrnn.Population(Classifier(H), size=P, rng=0)
    assert list(many.params)[-1] == "heads.1.bias"
    assert_as_alone(many, np.random.default_rng(0).standard_normal((P, T, N, I)))
    assert isinstance(many[0], Classifier)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", [pyrnn.MaxOverTime, pyrnn.MeanOverTime, pyrnn.LastStep])
def test_summaries_of_rows(layer, batch_first):
    rng = np.random.default_rng(0)
    many = pyrnn.Population(layer(batch_first=batch_first), size=P)
    x, lengths = rng.standard_normal((P, N, T, I) if batch_first else (P, T, N, I)), np.array([6, 0, 3, 1])
    assert_as_alone(many, x)
    assert_as_alone(many, x, lengths=rng.integers(0, T + 1, (P, N)))
    assert_same_bits(many(x, lengths=lengths)[1], many[1](x[1], lengths=lengths))
    for wrong in ([1, 2], [[1, 2, 3, 4]] * (P + 1), 3):
        with pytest.raises(ValueError, match=r"Population: lengths has shape .*, expected \(4,\) or \(3, 4\)"):
            many(x, lengths=wrong)
    with pytest.raises(ValueError, match="Population: x has shape"):
        many(np.ones((T, I)))


def test_a_model_whose_class_takes_axes_in_front():
    """It runs once; what it is made of knows the axis of the models."""

    class Judge(pyrnn.Model):
        _takes_axes_in_front = True

        def __init__(self):
            super().__init__()
            self.rnn, self.drop = pyrnn.LSTM(I, H, bidirectional=True), pyrnn.Dropout(0.3)
            self.head, self.most = pyrnn.Sequential(pyrnn.Linear(2 * H, 3), pyrnn.Tanh()), pyrnn.MaxOverTime()
            self.calls = 0

        def scaled(self, y):
            return y * np.float32(self.rnn.hidden_size)

        def vjp(self, x, lengths):
            self.calls += 1
            (y, _), pull_rnn = self.rnn.vjp(x, lengths=lengths)
            y, pull_drop = self.drop.vjp(y)
            y, pull_head = self.head.vjp(self.scaled(y))
            y, pull_most = self.most.vjp(y, lengths=lengths)
            return y, lambda dy: pull_rnn(pull_drop(self.scaled(pull_head(pull_most(dy)))))[0]

    rng = np.random.default_rng(0)
    many = pyrnn.Population(Judge(), size=P, rng=0)
    assert_as_alone(many, rng.standard_normal((P, T, N, I)), lengths=rng.integers(0, T + 1, (P, N)))
    again = copy.deepcopy(many)
    x, lengths = rng.standard_normal((T, N, I)), np.array([6, 0, 3, 1])
    y = again(x, lengths=lengths)
    assert_same_bits(y[2], again[2](x, lengths=lengths))
    assert [model.calls for model in again] == [0, 0, 1]


def test_a_pullback_that_fails_on_the_way_adds_nothing():
    class Failing(Classifier):
        def vjp(self, x):
            result, pull = super().vjp(x)

            def pullback(*gradients):
                pull(*gradients)
                if x[0, 0, 0] == 1:
                    raise KeyboardInterrupt

            return result, pullback

    many = pyrnn.Population(Failing(H), size=P, rng=0)
    x = np.zeros((P, T, N, I))
    x[1] = 1
    many.grads["rnn.bias_ih_l0"][...] = 3
    before = copy.deepcopy(dict(many.grads))
    result, pullback = many.vjp(x)
    with pytest.raises(KeyboardInterrupt):
        pullback(*result)
    for name, grad in many.grads.items():
        assert_same_bits(grad, before[name])


def test_no_bit_depends_on_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 30, 16, 8)).astype("f")
    found = []
    for threads in (1, 2, 3, 8):
        many = pyrnn.Population(pyrnn.LSTM(8, 32), size=5, rng=0)
        with pyrnn.threads(threads):
            (y, state), pullback = many.vjp(x, checkpoint_every=10 if threads == 2 else None)
            found.append((y, state, pullback(y, state), tuple(many.grads.values())))
    for other in found[1:]:
        assert_same_bits(found[0], other)


@pytest.mark.parametrize("variant", FEW)
def test_kernel_and_reference(variant):
    """Of models with lengths and marks of their own, and of rows."""
    rng = np.random.default_rng(2)
    problems = [Problem(variant, T, N, I, H, rng=rng, outputs=3) for _ in range(P)]
    stack = [
        np.stack(parts) if parts[0] is not None else None for parts in zip(*(p.weights for p in problems), strict=True)
    ]
    x, state, dy, dstate = (
        tuple(map(np.stack, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else np.stack(parts)
        for parts in ([getattr(p, name) for p in problems] for name in ("x", "state", "dy", "dstate"))
    )
    walk = {"lengths": rng.integers(0, T + 1, (P, N)), "reset": rng.random((P, T, N)) < 0.2, **problems[0].option}
    found = []
    for backend in (pyrnn.kernels, pyrnn.reference):
        op = problems[0].op(backend)
        grads = [None if w is None else np.zeros_like(w) for w in stack]
        result, pullback = op.vjp(x, state, stack, **walk)
        models = [*flat(result, pullback(dy, dstate, grads)), *(g for g in grads if g is not None)]
        turned = (laid_out("fortran", value) for value in (x, state, tuple(stack)))
        assert_same_bits(op.forward(*turned, **walk), result)
        one = problems[0]
        grads = [None if w is None else np.zeros((N, *w.shape)) for w in one.weights]
        result, pullback = op.vjp(one.x, one.state, one.weights, per_row=True, lengths=walk["lengths"][0], **one.option)
        rows = [*flat(result, pullback(one.dy, one.dstate, grads)), *(g for g in grads if g is not None)]
        found.append([*models, *rows])
    for ours, theirs in zip(*found, strict=True):
        tolerance = 1e-11 * enlargement(problems[0].option) ** 2 * max(1, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_kernel_and_reference_of_linear_maps():
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(shape) for shape in ((P, T, N, I), (P, H, I), (P, H), (P, T, N, H))]
    for dtype, precision, tolerance in (("f8", "float32", 1e-12), ("f4", "bfloat16", 1e-5)):
        found = []
        for backend, order in ((pyrnn.kernels, "F"), (pyrnn.reference, "C")):
            x, weight, bias, dy = (array.astype(dtype, order=order) for array in arrays)
            y = backend.linear.forward(x, weight, bias, precision=precision)
            grads = np.zeros(weight.shape, dtype), np.zeros(bias.shape, dtype)
            found.append([y, backend.linear.backward(dy, x, weight, *grads, precision=precision), *grads])
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# ---- values


def test_initial_values():
    many, again = (pyrnn.Population({"type": "LSTM", "input_size": I, "hidden_size": H}, size=P, rng=5) for _ in "ab")
    weights = many.params["weight_hh_l0"]
    assert weights.shape == (P, 4 * H, H)
    assert_same_bits(weights, again.params["weight_hh_l0"])
    assert np.abs(weights).max() <= H**-0.5
    assert len(np.unique(weights)) == weights.size
    larger = pyrnn.Population(pyrnn.LSTM(I, H), size=P + 2, rng=np.random.default_rng(5))
    assert_same_bits(larger.params["weight_hh_l0"][:P], weights)
    norms = pyrnn.Population(pyrnn.LayerNormLSTM(I, H), size=P, rng=0).params
    assert np.all(norms["norm_c_l0"] == 1)


def test_memory_is_one_row_for_each_model():
    many = pyrnn.Population(pyrnn.Sequential(pyrnn.LSTM(I, H), pyrnn.Linear(H, 2)), size=P, rng=0)
    ((params, grads),) = many.buffers.values()
    assert params.shape == grads.shape == (P, many[0].num_parameters)
    assert many.num_parameters == params.size
    many.params["1.bias"][1] = [3, 4]
    np.testing.assert_array_equal(many[1].params["1.bias"], [3, 4])
    many[2].load_state_dict(many[1].state_dict())
    assert_same_bits(params[1], params[2])
    many.zero_grad()
    many[0].grads["1.bias"][...] = 1
    assert grads.sum() == 2
    assert len(many) == P
    assert all(model is many[k] for k, model in enumerate(many))
    assert many[-1] is many[P - 1]


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(how):
    many = pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(I, H), pyrnn.BatchNorm1d(H)), size=P, rng=0)
    many.vjp(np.random.default_rng(0).standard_normal((P, T, N, I)))
    other = how(many)
    assert other.state_dict()["1.running_mean"].shape == (P, H)
    for name, value in many.state_dict().items():
        assert_same_bits(value, other.state_dict()[name])
    other[1].params["1.bias"][...] = 5
    assert np.all(other.params["1.bias"][1] == 5)
    assert not np.any(many.params["1.bias"])
    other.vjp(np.ones((P, T, N, I)))
    assert_same_bits(other.state_dict()["1.running_mean"][2], other[2].state_dict()["1.running_mean"])


def test_inside_a_model():
    many = pyrnn.Population(pyrnn.GRU(I, H), size=P)
    model = pyrnn.Model(first=pyrnn.Linear(2, 2), many=many, rng=0)
    model.params["many.bias_ih_l0"][1] = 7
    assert np.all(many[1].params["bias_ih_l0"] == 7)
    assert model.num_parameters == many.num_parameters + 6


def test_models_stay_in_their_population():
    many = pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(I, H), pyrnn.Linear(H, 2)), size=P, rng=0)
    with pytest.raises(ValueError, match="part of a Population"):
        pyrnn.Model(one=many[0], other=pyrnn.Linear(2, 2))
    with pytest.raises(ValueError, match="part of a Population"):
        many[1].more = pyrnn.Linear(2, 2)
    assert_as_alone(many, np.ones((P, T, N, I)))


# ---- training


OPTIMISERS = [
    lambda model: pyrnn.SGD(model, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda model: pyrnn.AdamW(model, 0.1, groups={"*bias*": {"weight_decay": 0.0}, "*hh*": {"lr": 0.01}}),
    lambda model: pyrnn.Adam(model, 0.1),
    lambda model: pyrnn.RMSprop(model, 0.1, momentum=0.5),
    lambda model: pyrnn.Adagrad(model, 0.1),
]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_steps_of_each_model(optimiser):
    rng = np.random.default_rng(0)
    many = pyrnn.Population(pyrnn.LSTM(I, H), size=P, rng=0)
    alone = copy.deepcopy(many)
    steps = [optimiser(many), *map(optimiser, alone)]
    for _ in range(2):
        for name, grad in many.grads.items():
            grad[...] = rng.standard_normal(grad.shape)
            grad[1] *= 100
            alone.grads[name][...] = grad
        norms = pyrnn.clip_grad_norm(many, 30.0)
        assert_same_bits(norms, np.array([pyrnn.clip_grad_norm(model, 30.0) for model in alone]))
        assert norms[0] < 30 < norms[1]
        for step in steps:
            step.step()
    for name, value in many.params.items():
        assert_same_bits(value, alone.params[name])
    like = optimiser(copy.deepcopy(many))
    like.load_state_dict(steps[0].state_dict())


def test_a_loss_of_each_model():
    rng = np.random.default_rng(0)
    many = pyrnn.Population(pyrnn.Linear(I, 4), size=P, rng=0)
    logits, targets = rng.standard_normal((P, T, N, 4)), rng.integers(0, 4, (P, T, N))
    lengths = np.array([6, 3, 0, 2])
    losses, dlogits = many.loss(pyrnn.cross_entropy, logits, targets, lengths=lengths, label_smoothing=0.1)
    assert losses.shape == (P,)
    for k in range(P):
        alone = pyrnn.cross_entropy(logits[k], targets[k], lengths=lengths, label_smoothing=0.1)
        assert_same_bits((np.float64(alone[0]), alone[1]), (losses[k], dlogits[k]))
    with pytest.raises(ValueError, match=r"Population.loss: targets has shape \(6, 4\), expected \(3, ...\)"):
        many.loss(pyrnn.cross_entropy, logits, targets[0])


def test_a_population_learns():
    rng = np.random.default_rng(0)
    many = pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(1, 8), pyrnn.Linear(8, 1)), size=P, rng=0)
    optimiser = pyrnn.Adam(many, lr=2e-2)
    x = rng.standard_normal((P, 12, 8, 1))
    target = np.cumsum(x, axis=1) * np.array([0.1, 0.2, 0.3])[:, None, None, None]  # another one for each model
    first = None
    for _ in range(60):
        many.zero_grad()
        y, pullback = many.vjp(x)
        losses, dy = many.loss(pyrnn.mean_squared_error, y, target)
        first = losses if first is None else first
        pullback(dy)
        pyrnn.clip_grad_norm(many, 1.0)
        optimiser.step()
    assert np.all(losses < first / 3)


# ---- streams


@pytest.mark.parametrize("variant", FEW)
def test_a_stream_of_each_model(variant):
    rng = np.random.default_rng(0)
    many = pyrnn.Population(make_layer(variant, I, H, 2), size=P, rng=0)
    x = rng.standard_normal((P, T, N, I)).astype("f")
    y, state = many(x)
    stream = many.stream(batch=N)
    assert_same_bits(np.stack([stream.step(x[:, t]) for t in range(2)], axis=1), y[:, :2])
    assert_same_bits(stream(x[:, 2:]), y[:, 2:])
    assert_same_bits(stream.state, state)
    other = copy.copy(stream)
    stream.reset([0, 2])
    stream.state = state
    assert_same_bits(stream.step(x[0, 0]), np.stack([many[k](x[0, :1], part(state, k))[0][0] for k in range(P)]))
    other.take([3, 3, 0, 1, 2])
    taken = tuple(s[:, :, [3, 3, 0, 1, 2]] for s in (state if isinstance(state, tuple) else (state,)))
    assert_same_bits(other.state if isinstance(other.state, tuple) else (other.state,), taken)


def test_a_stream_of_one_row():
    many = pyrnn.Population(pyrnn.Sequential(pyrnn.LSTM(I, H), pyrnn.Linear(H, 2), pyrnn.Tanh()), size=P, rng=0)
    x = np.random.default_rng(0).standard_normal((P, T, 1, I)).astype("f")
    stream = many.stream()
    y = many(x)
    assert_same_bits(np.stack([stream.step(x[:, t, 0]) for t in range(T)], axis=1), y[:, :, 0])
    (state,) = stream.state
    assert state[0].shape == (P, 1, 1, H)
    with pytest.raises(ValueError, match=r"stream: x has shape \(2, 5\), expected \(3, 1, ...\) or \(1, ...\)"):
        stream.step(x[:2, 0, 0])
    assert_same_bits(stream.state[0], state)


def test_a_stream_of_ids_and_of_windows():
    rng = np.random.default_rng(0)
    layers = pyrnn.Embedding(9, I), pyrnn.Conv1d(I, 4, 3), pyrnn.GRU(4, H)
    many = pyrnn.Population(pyrnn.Sequential(*layers), size=P, rng=0)
    ids = rng.integers(0, 9, (P, T, N))
    stream, y = many.stream(N), many(ids)
    steps = [stream.step(ids[:, t]) for t in range(T)]
    assert steps[0] is steps[1] is None
    assert_same_bits(np.stack(steps[2:], axis=1), y)


# ---- what is refused


def population(**options):
    return pyrnn.Population(pyrnn.LSTM(I, H, **options), size=P, rng=0)


X = np.zeros((P, T, N, I))

BAD = {
    "x of other models": (lambda: population()(X[:2]), r"x has shape \(2, 6, 4, 5\), expected \(3, T, N, I\)"),
    "x too wide": (lambda: population()(np.zeros((P, T, N, 6))), r"Population: x has .*, expected \(3, T, N, 5\)"),
    "x of one row": (lambda: population().vjp(np.zeros((T, I))), r"Population.vjp: x has shape \(6, 5\), expected"),
    "state": (lambda: population()(X, X), r"Population: state is not a pair \(h, c\)"),
    "h": (lambda: population()(X, (X, X)), r"h of state has shape \(3, 6, 4, 5\), expected \(3, 1, 4, 7\)"),
    "lengths": (lambda: population()(X, lengths=[1, 2]), r"lengths has shape \(2,\), expected \(4,\) or \(3, 4\)"),
    "long": (lambda: population()(X, lengths=[7] * N), "lengths holds 7, expected 0 to 6"),
    "reset": (lambda: population()(X, reset=np.zeros((T, 1), bool)), r"reset has shape \(6, 1\), expected"),
    "dy": (lambda: population().vjp(X)[1](X), r"Population.vjp pullback: dy has shape"),
    "size": (lambda: pyrnn.Population(pyrnn.LSTM(I, H), size=0), "size is 0, expected at least 1"),
    "layer": (lambda: pyrnn.Population("LSTM", size=2), "layer_or_config is 'LSTM', expected a layer"),
    "config": (lambda: pyrnn.Population({"input_size": 2}, size=2), "expected a dict with a type"),
    "type": (lambda: pyrnn.Population({"type": "Lstm"}, size=2), "the type of layer_or_config is 'Lstm'"),
    "quantized": (lambda: pyrnn.Population(pyrnn.LSTM(I, H).quantize("int8"), size=2), "quantized to int8"),
    "stream": (lambda: population(bidirectional=True).stream(), "needs the whole sequence"),
    "rows": (lambda: population().stream(2).take([2]), "rows holds 2, expected 0 to 1"),
    "model": (lambda: population()[3], "k is 3, expected -3 to 2"),
    "ids": (lambda: pyrnn.LSTM(I, H).vjp(np.zeros((9, I)), ids=[[1]], per_row=True), "per_row is for x alone"),
    "flag": (lambda: pyrnn.LSTM(I, H).vjp(X[0], per_row=1), "per_row is 1, expected True or False"),
    "no rows": (lambda: pyrnn.Linear(2, 2).vjp([1, 2], per_row=True), r"expected \(..., N, 2\)"),
    "no gradients of rows": (
        lambda: pyrnn.Sequential(pyrnn.LayerNorm(I)).vjp(X[0], per_row=True), r"per_row, but 0 \(LayerNorm\) has none"
    ),
    "dtypes": (
        lambda: pyrnn.Population(pyrnn.Sequential(pyrnn.Linear(2, 2), pyrnn.Linear(2, 2, dtype="float64")), 2),
        "several dtypes, float32 and float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_pullback_is_called_once():
    many = population()
    (y, _), pullback = many.vjp(X)
    with pytest.raises(ValueError, match="dy"):
        pullback(y[:2])
    pullback(y)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(y)


# ---- gradients of each row


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_each_row(variant):
    """Each as of a run of this row alone, up to the order of sums; everything else has the bits of an ordinary vjp."""
    rng = np.random.default_rng(0)
    steps = 70  # more than one block
    layer = make_layer(variant, I, H, 2, bidirectional=True, dtype="float64")
    x, lengths, reset = rng.standard_normal((steps, N, I)), np.array([70, 3, 65, 0]), rng.random((steps, N)) < 0.1
    (y, state), pullback = layer.vjp(x, lengths=lengths, reset=reset, per_row=True)
    dy, dstate = draw(rng, y), draw(rng, state)
    dx, dinitial, rows = pullback(dy, dstate)
    assert not any(np.any(grad) for grad in layer.grads.values())
    usual, pull = layer.vjp(x, lengths=lengths, reset=reset)
    assert_same_bits((y, state), usual)
    assert_same_bits((dx, dinitial), pull(dy, dstate))
    for name, grad in layer.grads.items():
        assert rows[name].shape == (N, *grad.shape)
        np.testing.assert_allclose(rows[name].sum(axis=0), grad, rtol=1e-9, atol=1e-9 * np.abs(grad).max())
    for n in (0, 1):
        layer.zero_grad()
        _, pull = layer.vjp(x[:, [n]], lengths=lengths[[n]], reset=reset[:, [n]])
        sent = tuple(s[:, [n]] for s in dstate) if isinstance(dstate, tuple) else dstate[:, [n]]
        pull(dy[:, [n]], sent)
        for name, grad in layer.grads.items():
            np.testing.assert_allclose(rows[name][n], grad, rtol=1e-9, atol=1e-9 * (np.abs(grad).max() + 1e-300))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_gradients_of_rows_have_the_same_bits(threads):
    rng = np.random.default_rng(0)
    layer = pyrnn.LSTM(8, 33, peephole=True, rng=0)
    x = rng.standard_normal((130, 24, 8)).astype("f")
    lengths = rng.integers(0, 131, 24)
    (y, _), pullback = layer.vjp(x, lengths=lengths, per_row=True)
    expected = pullback(y)
    with pyrnn.threads(threads):
        (y, _), pullback = layer.vjp(x, lengths=lengths, per_row=True, checkpoint_every=7)
        found = pullback(y)
    assert_same_bits(expected[:2], found[:2])
    assert_same_bits(tuple(expected[2].values()), tuple(found[2].values()))


def models_of_rows():
    yield "ids", pyrnn.Sequential(pyrnn.Embedding(9, I, 2), pyrnn.GRU(I, H), pyrnn.ReLU(), pyrnn.Linear(H, 3), rng=0), 1
    layers = pyrnn.LSTM(I, H, batch_first=True), pyrnn.Linear(H, I), pyrnn.GRU(I, 3, batch_first=True)
    yield "x", pyrnn.Sequential(*layers, pyrnn.LastStep(batch_first=True), pyrnn.Linear(3, 2), rng=0), 0
    yield "x", pyrnn.Linear(I, 3, rng=0), 1
    yield "ids", pyrnn.Embedding(9, I, rng=0), 1


@pytest.mark.parametrize(("kind", "model", "axis"), list(models_of_rows()))
def test_gradients_of_rows_of_a_model(kind, model, axis):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (T, N)) if kind == "ids" else rng.standard_normal((T, N, I)).astype("f")
    x = x if axis else x.swapaxes(0, 1)
    y, pullback = model.vjp(x, per_row=True)
    dy = draw(rng, y)
    dx, rows = pullback(dy)
    assert not any(np.any(grad) for grad in model.grads.values())
    assert set(rows) == set(model.grads)
    usual, pull = model.vjp(x)
    assert_same_bits(y, usual)
    if kind == "x":
        assert_same_bits(dx, pull(dy))
    for n in range(N):
        model.zero_grad()
        _, pull = model.vjp(x[:, [n]] if axis else x[[n]])
        pull(dy[:, [n]] if dy.ndim == 3 and axis else dy[[n]])
        for name, grad in model.grads.items():
            np.testing.assert_allclose(rows[name][n], grad, rtol=1e-4, atol=1e-5)


def test_gradients_of_rows_of_a_population():
    rng = np.random.default_rng(0)
    many = pyrnn.Population(pyrnn.GRU(I, H), size=P, rng=0)
    x = rng.standard_normal((P, T, N, I)).astype("f")
    (y, _), pullback = many.vjp(x, per_row=True)
    _, _, rows = pullback(y)
    assert rows["weight_ih_l0"].shape == (P, N, 3 * H, I)
    (y, _), pullback = many[1].vjp(x[1], per_row=True)
    assert_same_bits(pullback(y)[2]["bias_hh_l0"], rows["bias_hh_l0"][1])


def test_no_rows():
    layer = pyrnn.LSTM(I, H, rng=0)
    (y, _), pullback = layer.vjp(np.zeros((T, 0, I)), per_row=True)
    assert pullback(y)[2]["weight_ih_l0"].shape == (0, 4 * H, I)
    (y, _), pullback = layer.vjp(np.ones((T, I)), per_row=True)
    assert pullback(y)[2]["weight_ih_l0"].shape == (1, 4 * H, I)
