"""The losses: each is its definition, its gradient is finite differences, and what does not count is never read."""

import math
from functools import partial

import numpy as np
import pytest

import pyrnn

V = 5  # classes or features
QUANTILES = np.array([0, 0.1, 0.5, 0.75, 1])


def softplus(z):
    return np.logaddexp(0, z)


def margins(scores, target):
    return sum(max(0, 1 - scores[target] + s) for v, s in enumerate(scores) if v != target) / len(scores)


# One step of each loss, written out; the losses are means of it.
ONE_STEP = {
    "cross_entropy": lambda z, t: np.log(np.exp(z).sum()) - z[t],
    "negative_log_likelihood": lambda z, t: -z[t],
    "hinge": margins,
    "mean_squared_error": lambda y, t: np.mean((y - t) ** 2),
    "binary_cross_entropy": lambda z, t: np.mean(t * softplus(-z) + (1 - t) * softplus(z)),
    "pinball": lambda y, t: np.mean(np.where(t > y, QUANTILES * (t - y), (1 - QUANTILES) * (y - t))),
}
OF_FEATURES = ("mean_squared_error", "binary_cross_entropy", "pinball")


@pytest.fixture(params=ONE_STEP)
def name(request):
    return request.param


@pytest.fixture
def loss_of(name):
    if name == "pinball":
        return lambda values, targets, **o: pyrnn.pinball(values, targets, QUANTILES[: np.shape(values)[-1]], **o)
    return getattr(pyrnn, name)


def problem(rng, name, shape):
    values = 2 * rng.standard_normal((*shape, V))
    targets = rng.random((*shape, V)) if name in OF_FEATURES else np.asarray(rng.integers(0, V, shape))
    return values, targets


def by_hand(name, values, targets, counts):
    counted = np.asarray(counts, bool)
    losses = [ONE_STEP[name](z, t) for z, t in zip(values[counted], targets[counted], strict=True)]
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (2, 4, 3), (0,), (4, 0)])
def test_loss_is_its_definition(rng, name, loss_of, shape):
    values, targets = problem(rng, name, shape)
    loss, gradient = loss_of(values, targets)
    assert isinstance(loss, float)
    assert loss == pytest.approx(by_hand(name, values, targets, np.ones(shape)), rel=1e-12)
    assert gradient.shape == values.shape
    assert gradient.dtype == np.float64
    assert gradient.flags.c_contiguous


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("steps", [(), (4,), (4, 3)])
def test_gradient_is_finite_differences(rng, name, loss_of, steps, batch_first):
    shape = steps[::-1] if batch_first else steps
    values, targets = problem(rng, name, shape)
    options = [{}, {"mask": rng.random(shape) < 0.7}]
    if steps:
        lengths = 2 if len(steps) == 1 else [4, 0, 2]
        options += [{"lengths": lengths}, {"lengths": lengths, "mask": rng.random(shape) < 0.7}]
    for option in options:
        loss = partial(loss_of, targets=targets, batch_first=batch_first, **option)
        _, gradient = loss(values)
        u, eps = rng.standard_normal(values.shape), 1e-6
        slope = (loss(values + eps * u)[0] - loss(values - eps * u)[0]) / (2 * eps)
        assert np.sum(gradient * u) == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_does_not_count_is_never_read(rng, name, loss_of, batch_first):
    steps, rows = 4, 3
    values, targets = problem(rng, name, (steps, rows))
    lengths, mask = np.array([4, 0, 2]), rng.random((steps, rows)) < 0.7
    valid = np.arange(steps)[:, None] < lengths
    for options, counts in [
        ({"lengths": lengths}, valid),
        ({"mask": mask}, mask),
        ({"lengths": lengths, "mask": mask}, valid & mask),
    ]:
        dirty = np.where(counts[..., None], values, np.nan)
        wrong = np.where(counts[..., None], targets, np.nan) if name in OF_FEATURES else np.where(counts, targets, -100)
        if batch_first:
            turned = {key: value.T if value.ndim == 2 else value for key, value in options.items()}
            loss, gradient = loss_of(dirty.swapaxes(0, 1), wrong.swapaxes(0, 1), batch_first=True, **turned)
            gradient = gradient.swapaxes(0, 1)
        else:
            loss, gradient = loss_of(dirty, wrong, **options)
        assert loss == pytest.approx(by_hand(name, values, targets, counts), rel=1e-12)
        expected, dexpected = loss_of(values[counts], targets[counts])
        assert loss == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(gradient[counts], dexpected, rtol=1e-12)
        assert not gradient[~counts].any()


def test_loss_of_one_sequence(rng, name, loss_of):
    values, targets = problem(rng, name, (4,))
    assert loss_of(values, targets, lengths=2)[0] == pytest.approx(loss_of(values[:2], targets[:2])[0], rel=1e-12)


def test_loss_where_nothing_counts(rng, name, loss_of):
    _, targets = problem(rng, name, (4, 2))
    loss, gradient = loss_of(np.full((4, 2, V), np.nan), targets, lengths=[0, 0])
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_in_any_memory_layout(rng, name, loss_of, dtype):
    values, targets = problem(rng, name, (40, 30))
    values = values.astype(dtype)
    loss, gradient = loss_of(values, targets, lengths=np.arange(30))
    arguments = [
        (np.asfortranarray(values), targets),
        (values.swapaxes(0, 1).copy().swapaxes(0, 1), np.asfortranarray(targets)),
        (np.repeat(values, 2, axis=-1)[..., ::2], np.repeat(targets, 2, axis=0)[::2]),
        (values.tolist() if dtype == "float64" else values, targets.tolist()),
    ]
    for other in arguments:
        got, dgot = loss_of(*other, lengths=np.arange(30))
        assert got == loss
        np.testing.assert_array_equal(dgot, gradient)
    whole = loss_of(values, targets)
    masked = loss_of(np.asfortranarray(values), targets, mask=np.ones((40, 30), bool))
    assert whole[0] == masked[0]
    np.testing.assert_array_equal(whole[1], masked[1])


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("g", "f8"), ("i1", "f4"), ("i8", "f8"), (">f4", "f4")],
)
def test_dtypes(name, loss_of, dtype, result):
    values = np.arange(10).reshape(2, 5).astype(dtype)
    targets = np.array([[0, 1, 1, 0, 0]] * 2, "u1") if name in OF_FEATURES else np.array([1, 2], "u1")
    loss, gradient = loss_of(values, targets)
    assert gradient.dtype == result
    assert loss == pytest.approx(loss_of(values.astype("f8"), targets.tolist())[0], rel=1e-6)


def test_nan_passes_through(name, loss_of):
    targets = [[0.0, 1.0]] if name in OF_FEATURES else [0]
    assert math.isnan(loss_of([[np.nan, 0.0]], targets)[0])


def test_extreme_logits():
    loss, dlogits = pyrnn.cross_entropy(np.array([[1e4, -1e4], [-1e4, 1e4]], "f4"), [0, 0])
    assert loss == pytest.approx(1e4)
    np.testing.assert_allclose(dlogits, [[0, 0], [-0.5, 0.5]])
    assert dlogits.dtype == np.float32
    loss, dlogits = pyrnn.binary_cross_entropy([[1e4, -1e4, 1e4, 40.0]], [[0.0, 0.0, 1.0, 1.0]])
    assert loss == pytest.approx(2500)
    np.testing.assert_allclose(dlogits, [[0.25, 0, 0, 0]], atol=1e-15)


def test_hinge_is_0_beyond_the_margin():
    loss, dscores = pyrnn.hinge([[3.0, 2.0, 1.9], [3.0, 2.5, 0.0]], [0, 0])
    assert loss == pytest.approx(0.5 / 6)
    np.testing.assert_allclose(dscores, np.array([[0, 0, 0], [-1, 1, 0]]) / 6)


def test_likelihood_of_log_softmax_is_cross_entropy(rng):
    logits, targets = rng.standard_normal((4, 3, V)), rng.integers(0, V, (4, 3))
    expected, dexpected = pyrnn.cross_entropy(logits, targets, lengths=[4, 1, 2])
    y, pullback = pyrnn.LogSoftmax(dtype="float64").vjp(logits)
    loss, dy = pyrnn.negative_log_likelihood(y, targets, lengths=[4, 1, 2])
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(pullback(dy), dexpected, atol=1e-15)


# torch's options --------------------------------------------------------------------------------------------------

CLASS_OPTIONS = [
    {}, {"weight": [0.5, 2, 0, 1, 3]}, {"ignore_index": 2}, {"weight": [0.5, 2, 0, 1, 3], "ignore_index": 4},
]  # fmt: skip
CASES = [
    *[("cross_entropy", "cross_entropy", {**option, "label_smoothing": part}) for option in CLASS_OPTIONS
      for part in (0.0, 0.1, 1.0)],
    *[("negative_log_likelihood", "nll_loss", option) for option in CLASS_OPTIONS],
    ("hinge", "multi_margin_loss", {}),
    ("hinge", "multi_margin_loss", {"weight": [0.5, 2, 0, 1, 3]}),
    ("mean_squared_error", "mse_loss", {}),
    ("binary_cross_entropy", "binary_cross_entropy_with_logits", {}),
    ("binary_cross_entropy", "binary_cross_entropy_with_logits", {"pos_weight": [0.5, 2, 0, 1, 3]}),
    ("binary_cross_entropy", "binary_cross_entropy_with_logits", {"weight": [0.5, 2, 0, 1, 3], "pos_weight": 2.0}),
]  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_options_are_torchs(rng, ours, theirs, options, reduction):
    torch = pytest.importorskip("torch")
    values, targets = problem(rng, ours, (12,))
    values *= 10
    if ours not in OF_FEATURES and "ignore_index" not in options and ours != "hinge":
        targets[3] = -100  # ignored by default
    loss, gradient = getattr(pyrnn, ours)(values, targets, reduction=reduction, **options)
    given = torch.tensor(values, requires_grad=True)
    converted = {
        name: torch.tensor(value, dtype=torch.float64) if "weight" in name else value for name, value in options.items()
    }
    expected = getattr(torch.nn.functional, theirs)(given, torch.tensor(targets), reduction=reduction, **converted)
    expected.sum().backward()
    np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradient, given.grad.numpy(), rtol=1e-12, atol=1e-13)
    small, dsmall = getattr(pyrnn, ours)(values.astype("f4"), targets, reduction=reduction, **options)
    assert dsmall.dtype == np.float32
    np.testing.assert_allclose(small, loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_reductions_of_what_counts(rng, name, loss_of, reduction):
    values, targets = problem(rng, name, (4, 3))
    lengths, mask = [4, 0, 2], rng.random((4, 3)) < 0.7
    counts = mask & (np.arange(4)[:, None] < lengths)
    mean, dmean = loss_of(values, targets, lengths=lengths, mask=mask)
    dirty = np.where(counts[..., None], values, np.nan)
    loss, gradient = loss_of(dirty, targets, lengths=lengths, mask=mask, reduction=reduction)
    total = counts.sum() * (V if name in OF_FEATURES else 1)
    np.testing.assert_allclose(np.sum(loss), mean * total, rtol=1e-12)
    np.testing.assert_allclose(gradient, dmean * total, rtol=1e-12, atol=1e-15)
    if reduction == "none":
        assert loss.shape == (values.shape if name in OF_FEATURES else targets.shape)
        assert not loss[~counts].any()
    assert np.all(loss_of(np.full((4, 2, V), np.nan), targets[:, :2], lengths=[0, 0], reduction=reduction)[0] == 0)


def test_nothing_counts_with_weights_of_0():
    loss, gradient = pyrnn.cross_entropy([[1.0, 2.0]], [1], weight=[1, 0], label_smoothing=0.0)
    assert loss == 0
    assert not gradient.any()
    loss, gradient = pyrnn.cross_entropy([[1.0, 2.0]], [-100], label_smoothing=0.1)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"reduction": "avg"}, ValueError, "cross_entropy: reduction is 'avg', expected one of mean, sum, none"),
        ({"weight": [1, 2]}, ValueError, r"cross_entropy: weight has shape \(2,\), expected \(3,\)"),
        ({"weight": [1, 2, -3]}, ValueError, r"cross_entropy: weight holds -3.0, expected numbers from 0 up"),
        ({"weight": [1, 2, np.nan]}, ValueError, r"cross_entropy: weight holds nan"),
        ({"label_smoothing": 1.5}, ValueError, "cross_entropy: label_smoothing is 1.5, expected 0 to 1"),
        ({"ignore_index": 0.5}, TypeError, "cross_entropy: ignore_index is 0.5, expected an integer"),
        ({"ignore_index": 5}, ValueError, "cross_entropy: targets holds -100, expected 0 to 2"),
    ],
)
def test_wrong_options(options, error, match):
    with pytest.raises(error, match=match):
        pyrnn.cross_entropy(np.zeros((2, 3)), [0, -100], **options)


def test_pinball_is_least_at_the_quantile(rng):
    """Of many numbers, and in scikit-learn's words; at the kink the gradient is 0."""
    targets = rng.standard_normal((1001, 1))
    grid = np.linspace(-2, 2, 401)
    for quantile in (0.1, 0.5, 0.9):
        best = grid[np.argmin([pyrnn.pinball(np.full((1001, 1), y), targets, quantile)[0] for y in grid])]
        assert best == pytest.approx(np.quantile(targets, quantile), abs=0.02)
    loss, gradient = pyrnn.pinball([[1.0, 1.0, 1.0]], [[1.0, 3.0, 0.0]], 0.25)
    assert loss == pytest.approx((0.5 + 0.75) / 3)
    np.testing.assert_allclose(gradient, [[0, -0.25 / 3, 0.75 / 3]], rtol=1e-15)


@pytest.mark.parametrize(
    ("quantile", "error", "match"),
    [
        (1.5, ValueError, "pinball: quantile holds 1.5, expected 0 to 1"),
        ([0.1, np.nan], ValueError, "pinball: quantile holds nan, expected 0 to 1"),
        ([0.1, 0.2, 0.3], ValueError, r"pinball: quantile has shape \(3,\), expected \(4, 2\)"),
        (None, TypeError, "pinball: quantile"),
        ("half", TypeError, "pinball: quantile"),
    ],
)
def test_wrong_quantiles(quantile, error, match):
    with pytest.raises(error, match=match):
        pyrnn.pinball(np.zeros((4, 2)), np.zeros((4, 2)), quantile)
