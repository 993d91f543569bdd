"""BatchNorm1d: torch's values, statistics over valid steps, what is saved; and folded into its neighbours."""

import copy
import pickle

import numpy as np
import pytest
from cells import DTYPES, assert_same_bits

import pyrnn

T, N, F = 9, 4, 5


def make(rng, features=F, **options):
    """One that has seen something."""
    layer = pyrnn.BatchNorm1d(features, **{"dtype": "float64", **options})
    layer.load_state_dict(
        {
            "weight": rng.normal(size=features),
            "bias": rng.normal(size=features),
            "running_mean": rng.normal(size=features),
            "running_var": 0.1 + rng.random(features),
        }
    )
    return layer


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_that_of_torch(dtype, rng):
    torch = pytest.importorskip("torch")
    layer = make(rng, eps=0.01, momentum=0.3, dtype=dtype)
    module = torch.nn.BatchNorm1d(F, eps=0.01, momentum=0.3, dtype=getattr(torch, dtype))
    module.load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    x, dy = (rng.normal(2, 3, (T, N, F)).astype(dtype) for _ in range(2))

    def turned(array):
        return torch.from_numpy(array.transpose(1, 2, 0).copy())

    bound = 200 * np.finfo(dtype).eps
    with torch.no_grad():
        expected = module.eval()(turned(x)).numpy().transpose(2, 0, 1)
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=bound)
    theirs = turned(x).requires_grad_()
    expected = module.train()(theirs)
    expected.backward(turned(dy))
    y, pullback = layer.vjp(x)
    np.testing.assert_allclose(y, expected.detach().numpy().transpose(2, 0, 1), rtol=0, atol=bound)
    np.testing.assert_allclose(pullback(dy), theirs.grad.numpy().transpose(2, 0, 1), rtol=0, atol=bound)
    for name in ("weight", "bias"):
        np.testing.assert_allclose(layer.grads[name], getattr(module, name).grad.numpy(), rtol=0, atol=10 * bound)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(getattr(layer, name), getattr(module, name).numpy(), rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("batch_first", [False, True])
def test_only_valid_steps_count(batch_first, rng):
    lengths = np.array([T, 0, 3, 1])
    layer = make(rng, batch_first=batch_first)
    twin = copy.deepcopy(layer)
    x, dy = rng.normal(2, 3, (2, T, N, F))
    valid = np.arange(T)[:, None] < lengths
    x[~valid], dy[~valid] = np.nan, np.nan

    def turned(a):
        return a.swapaxes(0, 1) if batch_first else a

    evaluated = turned(layer(turned(x), lengths=lengths))
    np.testing.assert_array_equal(layer(x[:, 2], lengths=3), evaluated[:, 2])
    y, pullback = layer.vjp(turned(x), lengths=lengths)
    dx = turned(pullback(turned(dy)))
    y = turned(y)
    rows, pull = twin.vjp(x[valid])  # the same numbers as rows of their own
    for whole, part in ((y, rows), (dx, pull(dy[valid])), (evaluated, make(np.random.default_rng(0))(x[valid]))):
        np.testing.assert_array_equal(whole[~valid], 0)
        np.testing.assert_allclose(whole[valid], part, rtol=1e-12)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(getattr(layer, name), getattr(twin, name), rtol=1e-14)
    np.testing.assert_allclose(layer.grads["weight"], twin.grads["weight"], rtol=1e-11)


def test_gradients_are_finite_differences(rng):
    layer, lengths = make(rng), np.array([T, 2, 0, 5])
    x, dy = rng.standard_normal((2, T, N, F))
    _, pullback = layer.vjp(x, lengths=lengths)
    dx = pullback(dy)
    for array, gradient in (
        (x, dx),
        (layer.params["weight"], layer.grads["weight"]),
        (layer.params["bias"], layer.grads["bias"]),
    ):
        direction, ends = rng.standard_normal(array.shape), []
        kept = array.copy()
        for sign in (1, -1):
            array[...] = kept + sign * 1e-6 * direction
            ends.append(np.sum(layer.vjp(x, lengths=lengths)[0] * dy))
        array[...] = kept
        assert np.sum(gradient * direction) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)


def test_a_call_evaluates_and_the_same_bits(rng):
    layer = make(rng, dtype="float32")
    x = rng.standard_normal((T, N, F)).astype("f4")
    before = layer.state_dict()
    y = layer(x)
    assert_same_bits([layer(x[:, 1]), layer(x[3]), layer(x[3, 2]), layer(x.tolist())], [y[:, 1], y[3], y[3, 2], y])
    model = pyrnn.Model(norm=layer)
    model.vjp = layer.vjp
    assert_same_bits([pyrnn.Sequential(layer)(x)], [y])

    class Norm(pyrnn.Model):
        def vjp(self, x):
            return self.norm.vjp(x)

    assert_same_bits([Norm(norm=layer)(x)], [y])  # whose call is its vjp, without training
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_edges(rng):
    layer = make(rng)
    before = layer.state_dict()
    for shape in ((0, N, F), (T, 0, F), (0, F)):
        y, pullback = layer.vjp(np.ones(shape))
        assert y.shape == layer(np.ones(shape)).shape == pullback(y).shape == shape
    y, pullback = layer.vjp(np.full((T, 2, F), np.nan), lengths=[0, 0])
    assert not y.any()
    assert not pullback(y).any()
    assert not any(grad.any() for grad in layer.grads.values())
    with pytest.raises(ValueError, match=r"BatchNorm1d\.vjp: x has one valid step, a variance needs two"):
        layer.vjp(np.ones((T, 2, F)), lengths=[0, 1])
    for call, message in (
        (lambda: layer(np.ones((2, 3))), r"BatchNorm1d: x has shape \(2, 3\), expected \(T, 5\)"),
        (lambda: layer(np.ones((2, 3, F)), lengths=[3, 1, 1]), "BatchNorm1d: lengths holds 3, expected 0 to 2"),
        (lambda: pyrnn.BatchNorm1d(0), "BatchNorm1d: num_features is 0"),
        (lambda: pyrnn.BatchNorm1d(1, momentum=2.0), "BatchNorm1d: momentum is 2, expected 0 to 1"),
        (lambda: pyrnn.BatchNorm1d(1, eps=-1.0), "BatchNorm1d: eps is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


# ---- what is saved


def test_running_statistics_are_in_the_state_dict_but_are_no_parameters(rng, tmp_path):
    layer = make(rng)
    names = ["weight", "bias", "running_mean", "running_var"]
    assert list(layer.state_dict()) == names
    assert list(layer.params) == names[:2]
    assert layer.num_parameters == 2 * F
    model = pyrnn.Sequential(pyrnn.Linear(F, F, dtype="float64", rng=0), layer, head=pyrnn.Sequential(make(rng)))
    assert list(model.state_dict())[2:] == [f"{part}.{name}" for part in ("1", "head.0") for name in names]
    assert not any("running" in name for name in model.params)
    other = pyrnn.Sequential(
        pyrnn.Linear(F, F, dtype="float64", rng=1), pyrnn.BatchNorm1d(F, dtype="float64"),
        head=pyrnn.Sequential(pyrnn.BatchNorm1d(F, dtype="float64")),
    )  # fmt: skip
    x = rng.standard_normal((T, F))
    other.load_state_dict(model.state_dict())
    pyrnn.save(tmp_path / "x", model)
    for twin in (other, pyrnn.load(tmp_path / "x"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin(x), model(x))
    apart = copy.copy(layer)
    apart.vjp(x)
    assert not np.array_equal(apart.running_mean, layer.running_mean)
    layer.state_dict()["running_mean"][:] = 7  # a copy
    assert not np.any(layer.running_mean == 7)


def test_loading_is_strict_and_takes_the_count_of_torch(rng):
    layer = make(rng)
    state = layer.state_dict()
    layer.load_state_dict(state | {"num_batches_tracked": np.array(3)})
    prefixed = {f"norm.{name}": value for name, value in state.items()}
    pyrnn.Model(norm=layer).load_state_dict(prefixed | {"norm.num_batches_tracked": np.array(3)})
    for wrong in (
        {name: value for name, value in state.items() if name != "running_var"},
        state | {"running_var": np.ones(F + 1)},
        state | {"other.num_batches_tracked": np.array(3)},
    ):
        with pytest.raises(ValueError, match=r"BatchNorm1d\.load_state_dict: "):
            layer.load_state_dict(wrong)
    with pytest.raises(ValueError, match="unknown entries"):
        pyrnn.Linear(2, 3).load_state_dict(pyrnn.Linear(2, 3).state_dict() | {"num_batches_tracked": np.array(3)})
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_a_pullback_owns_what_it_needs(rng):
    layer = make(rng)
    twin = copy.deepcopy(layer)
    x, dy = rng.standard_normal((2, T, N, F))
    expected = twin.vjp(x)[1](dy)
    given, lengths = x.copy(), np.full(N, T)
    y, pullback = layer.vjp(given, lengths=lengths)
    given[:] = y[:] = layer.params["weight"][:] = layer.running_mean[:] = np.nan
    lengths[:] = 0
    np.testing.assert_array_equal(pullback(dy), expected)
    np.testing.assert_array_equal(layer.grads["weight"], twin.grads["weight"])
    with pytest.raises(RuntimeError, match="has been called before"):
        pullback(dy)


# ---- folded


def test_folded_layers_compute_the_same(rng):
    o = {"dtype": "float64", "rng": 0}
    layers = [
        make(rng, 6), pyrnn.Conv1d(6, 4, 3, 1, 0, 2, 2, bias=False, **o), make(rng, 4), pyrnn.ReLU(dtype="float64"),
        make(rng, 4), pyrnn.Linear(4, 3, **o), make(rng, 3), make(rng, 3), pyrnn.Conv1d(3, 2, 3, padding=1, **o),
        pyrnn.Tanh(dtype="float64"), make(rng, 2), pyrnn.Conv1d(2, 2, 3, padding="same", **o),
        pyrnn.Tanh(dtype="float64"), make(rng, 2),
    ]  # fmt: skip
    values = [layer.state_dict() for layer in layers]
    values = [layer.state_dict() for layer in layers]
    model = pyrnn.Sequential(*layers)
    folded = pyrnn.fold_batch_norms(model)
    assert [(name, type(layer).__name__) for name, layer in folded._attributes().items() if name.isdigit()] == [
        ("1", "Conv1d"), ("3", "ReLU"), ("5", "Linear"), ("8", "Conv1d"), ("9", "Tanh"), ("10", "BatchNorm1d"),
        ("11", "Conv1d"), ("12", "Tanh"), ("13", "BatchNorm1d"),
    ]  # fmt: skip
    x = rng.standard_normal((12, 2, 6))
    for lengths in (None, [12, 7]):
        whole, ours = model(x, lengths=lengths), folded(x, lengths=lengths)
        np.testing.assert_allclose(ours[:3], whole[:3], rtol=0, atol=1e-13)
    folded.load_state_dict({name: value * 0 for name, value in folded.state_dict().items()})  # its own arrays
    for layer, before in zip(model, values, strict=True):
        for name, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, before[name])


def test_folded_branches(rng):
    """A norm behind what others take too stays; models inside of it, and shared tables."""
    o = {"dtype": "float64", "rng": 0}
    inner = pyrnn.Sequential(head=pyrnn.Linear(F, F, **o), norm=make(rng))
    table = pyrnn.Embedding(F, F, **o)
    inputs = {
        "conv": ["x"], "norm": ["conv"], "skip": ["x"], "after": ["skip"], "sum": ["norm", "after", "skip"],
        "first": ["sum"], "head": ["first"], "inner": ["head"], "logits": ["inner"], "last": ["logits"],
    }  # fmt: skip
    model = pyrnn.Graph(
        inputs, conv=pyrnn.Conv1d(F, F, 3, padding="causal", **o), norm=make(rng), skip=pyrnn.Linear(F, F, **o),
        after=make(rng), sum=pyrnn.Merge("add", dtype="float64"), first=make(rng), head=pyrnn.Linear(F, F, **o),
        inner=inner, logits=pyrnn.Linear(F, F, weight=table, dtype="float64"), last=make(rng),
    )  # fmt: skip
    folded = pyrnn.fold_batch_norms(model)
    assert folded.inputs == {
        "conv": ["x"], "skip": ["x"], "after": ["skip"], "sum": ["conv", "after", "skip"], "head": ["sum"],
        "inner": ["head"], "logits": ["inner"], "last": ["logits"],
    }  # fmt: skip
    assert [type(layer).__name__ for layer in folded.inner] == ["Linear"]
    assert folded.logits._table is not table
    x = rng.standard_normal((T, N, F))
    np.testing.assert_allclose(folded(x), model(x), rtol=0, atol=1e-12)
    stream = folded.stream(N)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), folded(x))


@pytest.mark.parametrize("count", [2, 3])
def test_norms_in_a_row(rng, count):
    """All go into the layer before or behind them, or into the first of them where there is none."""
    norms = [make(rng, 4) for _ in range(count)]
    linear, tanh = pyrnn.Linear(4, 4, dtype="float64", rng=0), pyrnn.Tanh(dtype="float64")
    x = rng.standard_normal((T, N, 4))
    for layers, kept in [
        ([*norms, linear], ["Linear"]),
        ([linear, *norms], ["Linear"]),
        ([*norms, tanh], ["BatchNorm1d", "Tanh"]),
        (norms, ["BatchNorm1d"]),
    ]:
        folded = pyrnn.fold_batch_norms(pyrnn.Sequential(*layers))
        assert [type(layer).__name__ for layer in folded] == kept
        np.testing.assert_allclose(folded(x), pyrnn.Sequential(*layers)(x), rtol=0, atol=1e-13)
    graph = pyrnn.Graph(
        {"a": ["x"], "b": ["a"], "sum": ["a", "b"]}, a=norms[0], b=norms[1], sum=pyrnn.Merge("add", dtype="float64")
    )
    assert len(pyrnn.fold_batch_norms(graph)) == 3  # somebody takes the first one's result, too
    np.testing.assert_array_equal(pyrnn.fold_batch_norms(graph)(x), graph(x))


class Scaled(pyrnn.BatchNorm1d):
    """A norm that is another function."""

    def __call__(self, x, *, lengths=None):
        return 100 * super().__call__(x, lengths=lengths)


def test_norms_of_others_are_not_folded(rng):
    model = pyrnn.Sequential(pyrnn.Linear(3, 3, rng=0), Scaled(3))
    x = rng.standard_normal((4, 2, 3)).astype("f4")
    np.testing.assert_array_equal(pyrnn.fold_batch_norms(model)(x), model(x))


@pytest.mark.parametrize("behind", [pyrnn.GRU(F, F), pyrnn.Conv1d(F, F, 3, padding=1), pyrnn.Tanh()])
def test_what_a_norm_is_not_folded_into(behind):
    layers = {"map": pyrnn.Linear(3, F + 1), "norm": pyrnn.BatchNorm1d(F), "behind": behind}
    model = pyrnn.Graph({"map": ["x"], "norm": ["map"], "behind": ["norm"]}, **layers)  # no fit: its error is better
    assert [type(layer).__name__ for layer in pyrnn.fold_batch_norms(model)][:2] == ["Linear", "BatchNorm1d"]


@pytest.mark.parametrize("model", [pyrnn.BatchNorm1d(F), [pyrnn.Linear(2, 2)], None])
def test_what_is_no_model_is_not_folded(model):
    with pytest.raises(TypeError, match=r"fold_batch_norms: model is .*, expected a Sequential or a Graph"):
        pyrnn.fold_batch_norms(model)
