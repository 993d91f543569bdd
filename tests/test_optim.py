"""Gradient clipping and the optimisers."""

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
    "adamw": lambda model: pyrnn.AdamW(model, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1),
    "rmsprop": lambda model: pyrnn.RMSprop(model, lr=0.1, alpha=0.9, eps=1e-3, weight_decay=0.01),
    "rmsprop_momentum": lambda model: pyrnn.RMSprop(model, lr=0.1, alpha=0.9, eps=1e-3, momentum=0.9),
    "adagrad": lambda model: pyrnn.Adagrad(model, lr=0.1, eps=1e-3, weight_decay=0.01),
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


def torch_adamw(param, grads):
    for step in range(len(grads)):
        # m and v know nothing of the decay, so the step without decay is that from any parameter
        moved = torch_adam(0.0, grads[: step + 1], weight_decay=0.0) - torch_adam(0.0, grads[:step], weight_decay=0.0)
        param = param * (1 - 0.1 * 0.1) + moved
    return param


def torch_rmsprop(param, grads, weight_decay=0.01, momentum=0.0):
    """torch.optim.RMSprop on one number, written out."""
    square = buffer = 0.0
    for grad in grads:
        g = grad + weight_decay * param
        square = 0.9 * square + 0.1 * g * g
        buffer = momentum * buffer + g / (math.sqrt(square) + 1e-3)
        param -= 0.1 * buffer
    return param


def torch_adagrad(param, grads):
    """torch.optim.Adagrad on one number, written out."""
    total = 0.0
    for grad in grads:
        g = grad + 0.01 * param
        total += g * g
        param -= 0.1 * g / (math.sqrt(total) + 1e-3)
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
    "adamw": torch_adamw,
    "rmsprop": torch_rmsprop,
    "rmsprop_momentum": lambda param, grads: torch_rmsprop(param, grads, weight_decay=0.0, momentum=0.9),
    "adagrad": torch_adagrad,
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
