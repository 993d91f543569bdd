"""The loss, gradient clipping and the optimisers."""

import math

import numpy as np
import pytest

import pyrnn


def a_model(rng, dtype="float64"):
    """Two dtypes and gradients of standard normal numbers."""
    model = pyrnn.Model(a=pyrnn.Linear(3, 4, dtype=dtype, rng=0), b=pyrnn.Linear(4, 2, dtype="float32", rng=1))
    new_gradients(model, rng)
    return model


def new_gradients(model, rng):
    for _, grads in model.buffers.values():
        grads[:] = rng.standard_normal(grads.size)


# Cross-entropy ----------------------------------------------------------------------------------------------------


def by_hand(logits, targets, counts):
    counted = np.asarray(counts, bool)
    losses = [np.log(np.exp(z).sum()) - z[t] for z, t in zip(logits[counted], targets[counted], strict=True)]
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (2, 4, 3), (0,), (4, 0)])
def test_cross_entropy_is_its_definition(rng, shape):
    logits, targets = rng.standard_normal((*shape, 5)), np.asarray(rng.integers(0, 5, shape))
    loss, dlogits = pyrnn.cross_entropy(logits, targets)
    assert isinstance(loss, float)
    assert loss == pytest.approx(by_hand(logits, targets, np.ones(shape)), rel=1e-12)
    assert dlogits.shape == logits.shape
    assert dlogits.dtype == np.float64
    u, eps = rng.standard_normal(logits.shape), 1e-6
    ends = [pyrnn.cross_entropy(logits + sign * eps * u, targets)[0] for sign in (1, -1)]
    assert np.sum(dlogits * u) == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_does_not_count_is_never_read(rng, batch_first):
    steps, rows = 4, 3
    logits, targets = rng.standard_normal((steps, rows, 5)), rng.integers(0, 5, (steps, rows))
    lengths, mask = np.array([4, 0, 2]), rng.random((steps, rows)) < 0.7
    valid = np.arange(steps)[:, None] < lengths
    for options, counts in [
        ({"lengths": lengths}, valid),
        ({"mask": mask}, mask),
        ({"lengths": lengths, "mask": mask}, valid & mask),
    ]:
        dirty, wrong = np.where(counts[..., None], logits, np.nan), np.where(counts, targets, -100)
        if batch_first:
            turned = {name: value.T if value.ndim == 2 else value for name, value in options.items()}
            loss, dlogits = pyrnn.cross_entropy(dirty.swapaxes(0, 1), wrong.T, batch_first=True, **turned)
            dlogits = dlogits.swapaxes(0, 1)
        else:
            loss, dlogits = pyrnn.cross_entropy(dirty, wrong, **options)
        assert loss == pytest.approx(by_hand(logits, targets, counts), rel=1e-12)
        expected, dexpected = pyrnn.cross_entropy(logits[counts], targets[counts])
        assert loss == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(dlogits[counts], dexpected, rtol=1e-12)
        assert not dlogits[~counts].any()


def test_cross_entropy_of_one_sequence(rng):
    logits, targets = rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    assert pyrnn.cross_entropy(logits, targets, lengths=2)[0] == pytest.approx(
        pyrnn.cross_entropy(logits[:2], targets[:2])[0], rel=1e-12
    )


def test_cross_entropy_where_nothing_counts(rng):
    loss, dlogits = pyrnn.cross_entropy(np.full((4, 2, 5), np.nan), np.full((4, 2), -1), lengths=[0, 0])
    assert loss == 0
    assert not dlogits.any()


def test_cross_entropy_of_extreme_logits():
    loss, dlogits = pyrnn.cross_entropy(np.array([[1e4, -1e4], [-1e4, 1e4]], "f4"), [0, 0])
    assert loss == pytest.approx(1e4)
    np.testing.assert_allclose(dlogits, [[0, 0], [-0.5, 0.5]])
    assert dlogits.dtype == np.float32
    assert math.isnan(pyrnn.cross_entropy([[np.nan, 0.0]], [0])[0])


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("g", "f8"), ("i1", "f4"), ("i8", "f8"), (">f4", "f4")],
)
def test_cross_entropy_dtypes(dtype, result):
    logits = np.arange(10).reshape(2, 5).astype(dtype)
    loss, dlogits = pyrnn.cross_entropy(logits, np.array([1, 2], "u1"))
    assert dlogits.dtype == result
    assert loss == pytest.approx(pyrnn.cross_entropy(logits.astype("f8"), [1, 2])[0], rel=1e-6)


# Clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_grad_norm(rng, dtype):
    model = a_model(rng, dtype)
    before = {name: grad.copy() for name, grad in model.grads.items()}
    expected = math.sqrt(sum(np.sum(grad.astype("f8") ** 2) for grad in before.values()))
    assert pyrnn.clip_grad_norm(model, math.inf) == pytest.approx(expected, rel=1e-6)
    assert pyrnn.clip_grad_norm(model, 1e3) == pytest.approx(expected, rel=1e-6)
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, before[name])
    assert pyrnn.clip_grad_norm(model, 0.5) == pytest.approx(expected, rel=1e-6)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad, before[name] * (0.5 / (expected + 1e-6)), rtol=1e-6)
    assert pyrnn.clip_grad_norm(model, 0) == pytest.approx(0.5, rel=1e-5)
    assert not any(grad.any() for grad in model.grads.values())
    assert pyrnn.clip_grad_norm(model, 1) == 0


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_clip_grad_norm_of_what_is_not_finite(rng):
    model = a_model(rng)
    model.grads["a.bias"][0] = np.inf
    assert pyrnn.clip_grad_norm(model, 1) == math.inf
    assert np.isnan(model.grads["a.bias"][0])
    assert not model.grads["b.weight"].any()
    new_gradients(model, rng)
    model.grads["a.bias"][0] = np.nan
    assert math.isnan(pyrnn.clip_grad_norm(model, 1))
    assert all(np.isnan(grad).all() for grad in model.grads.values())


def test_clip_grad_value(rng):
    model = a_model(rng)
    model.grads["a.bias"][0] = np.nan
    before = {name: grad.copy() for name, grad in model.grads.items()}
    pyrnn.clip_grad_value(model, 0.5)
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, np.clip(before[name], -0.5, 0.5))
    assert np.isnan(model.grads["a.bias"][0])


# Optimisers -------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": lambda model: pyrnn.Adam(model, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.01),
    "sgd": lambda model: pyrnn.SGD(model, lr=0.1, weight_decay=0.01),
    "momentum": lambda model: pyrnn.SGD(model, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda model: pyrnn.SGD(model, lr=0.1, momentum=0.9, nesterov=True),
}


def torch_adam(param, grads, lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.01):
    """torch.optim.Adam on one number, written out."""
    m = v = 0.0
    for step, grad in enumerate(grads, 1):
        g = grad + weight_decay * param
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        param -= lr / (1 - beta1**step) * m / (math.sqrt(v) / math.sqrt(1 - beta2**step) + eps)
    return param


def torch_sgd(param, grads, lr=0.1, momentum=0.0, weight_decay=0.01, nesterov=False):
    """torch.optim.SGD on one number: the momentum buffer starts as the first gradient."""
    buffer = None
    for grad in grads:
        g = grad + weight_decay * param
        buffer = g if buffer is None else momentum * buffer + g
        param -= lr * (g + momentum * buffer if nesterov else buffer)
    return param


BY_HAND = {
    "adam": torch_adam,
    "sgd": torch_sgd,
    "momentum": lambda param, grads: torch_sgd(param, grads, momentum=0.9),
    "nesterov": lambda param, grads: torch_sgd(param, grads, momentum=0.9, weight_decay=0.0, nesterov=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_are_the_formulas(rng, name, dtype):
    model = a_model(rng, dtype)
    optimizer = OPTIMIZERS[name](model)
    start, history = model.state_dict(), []
    for _ in range(4):
        new_gradients(model, rng)
        history.append({key: grad.copy() for key, grad in model.grads.items()})
        optimizer.step()
    for key, param in model.params.items():
        expected = [
            BY_HAND[name](float(start[key].flat[k]), [float(grads[key].flat[k]) for grads in history])
            for k in range(param.size)
        ]
        rtol, atol = (2e-5, 2e-6) if param.dtype == np.float32 else (1e-12, 1e-14)
        np.testing.assert_allclose(param.ravel(), expected, rtol=rtol, atol=atol)
    for key, grad in model.grads.items():
        np.testing.assert_array_equal(grad, history[-1][key])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_from_its_state_dict(rng, name):
    model, twin = a_model(rng), a_model(rng)
    optimizer = OPTIMIZERS[name](model)
    for _ in range(3):
        new_gradients(model, rng)
        optimizer.step()
    state = optimizer.state_dict()
    assert int(state["steps"]) == 3
    assert all(isinstance(array, np.ndarray) for array in state.values())
    twin.load_state_dict(model.state_dict())
    resumed = OPTIMIZERS[name](twin)
    resumed.load_state_dict(state)
    kept = {key: array.copy() for key, array in state.items()}
    for _ in range(2):
        new_gradients(model, rng)
        for dtype, (_, grads) in twin.buffers.items():
            grads[:] = model.buffers[dtype][1]
        optimizer.step()
        resumed.step()
    for key, param in model.params.items():
        np.testing.assert_array_equal(param, twin.params[key])
    for key, array in state.items():
        np.testing.assert_array_equal(array, kept[key])


def test_optimizer_load_state_dict_is_strict(rng):
    model = a_model(rng)
    optimizer = OPTIMIZERS["adam"](model)
    optimizer.step()
    before = optimizer.state_dict()
    good = {key: np.zeros_like(array) for key, array in before.items()}
    for state, error, match in [
        ({**good, "m.float64": np.zeros(3)}, ValueError, r"Adam.load_state_dict: m.float64 has shape \(3,\), expected"),
        ({**good, "velocity.float64": 0}, ValueError, "unknown.*velocity.float64"),
        ({key: good[key] for key in good if key != "v.float32"}, ValueError, "missing.*v.float32"),
        ({**good, "steps": 1.5}, TypeError, "steps has dtype float64, expected integers"),
        ({**good, "steps": -1}, ValueError, "steps holds -1"),
        ({**good, "steps": [1, 2]}, ValueError, r"steps has shape \(2,\)"),
        (3, TypeError, "expected a dict"),
    ]:
        with pytest.raises(error, match=match):
            optimizer.load_state_dict(state)
        for key, array in optimizer.state_dict().items():
            np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_of_a_layer_that_becomes_part_of_a_model(rng, name):
    layer, twin = (pyrnn.GRU(3, 4, rng=0) for _ in range(2))
    optimizer, other = OPTIMIZERS[name](layer), OPTIMIZERS[name](twin)
    for k in range(3):
        if k == 1:
            pyrnn.Model(first=pyrnn.Linear(2, 3), rnn=layer)
        new_gradients(layer, rng)
        twin.buffers[twin.dtype][1][:] = layer.buffers[layer.dtype][1]
        optimizer.step()
        other.step()
    for key, param in layer.params.items():
        np.testing.assert_array_equal(param, twin.params[key])


def test_learning_rate_may_change(rng):
    model = a_model(rng)
    before = model.state_dict()
    optimizer = pyrnn.SGD(model, lr=1.0)
    optimizer.lr = 0.0
    optimizer.step()
    for key, param in model.params.items():
        np.testing.assert_array_equal(param, before[key])


def test_training_learns(rng):
    """The sum of the inputs so far, modulo 2."""
    rng = np.random.default_rng(3)
    model = pyrnn.Model(rnn=pyrnn.GRU(1, 16, rng=rng), head=pyrnn.Linear(16, 2, rng=rng))
    optimizer = pyrnn.Adam(model, lr=0.02)
    bits = rng.integers(0, 2, (8, 64, 1))
    targets = bits[..., 0].cumsum(axis=0) % 2
    losses = []
    for _ in range(150):
        model.zero_grad()
        (y, _), pull_rnn = model.rnn.vjp(bits)
        logits, pull_head = model.head.vjp(y)
        loss, dlogits = pyrnn.cross_entropy(logits, targets)
        pull_rnn(pull_head(dlogits))
        pyrnn.clip_grad_norm(model, 1.0)
        optimizer.step()
        losses.append(loss)
    assert losses[0] > 0.6
    assert losses[-1] < 0.1
