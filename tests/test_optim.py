"""Gradient clipping and the optimisers."""

import copy
import functools
import math

import numpy as np
import plain
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


MANY_STEPS = {
    "Adam": (plain.adam, {"betas": (0.9, 0.999), "eps": 1e-8}),
    "AdamW": (functools.partial(plain.adam, decoupled=True), {"betas": (0.9, 0.999), "eps": 1e-8}),
    "RMSprop": (plain.rmsprop, {"alpha": 0.99, "eps": 1e-4, "momentum": 0.5}),
    "Adagrad": (plain.adagrad, {"eps": 1e-10}),
    "SGD": (plain.sgd, {"momentum": 0.9, "nesterov": True}),
}


@pytest.mark.parametrize("name", MANY_STEPS)
def test_many_steps_are_the_formulas(rng, name):
    """What depends on the number of the step goes on to do so, and running means are those of all steps."""
    formula, options = MANY_STEPS[name]
    options = {"lr": 0.01, "weight_decay": 0.01, **options}
    model = a_model(rng)
    optimizer = getattr(pyrnn, name)(model, **options)
    start, history = model.state_dict(), []
    for step in range(1, 301):
        new_gradients(model, rng)
        history.append({key: grad.copy() for key, grad in model.grads.items()})
        optimizer.step()
        if step in (1, 2, 12, 13, 20, 99, 101, 300):
            for key, param in model.params.items():
                expected = formula(start[key].astype("f8"), [grads[key].astype("f8") for grads in history], **options)
                rtol, atol = (1e-4, 1e-5) if param.dtype == np.float32 else (1e-10, 1e-12)
                np.testing.assert_allclose(param, expected, rtol=rtol, atol=atol, err_msg=f"step {step}, {key}")


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


# Groups -----------------------------------------------------------------------------------------------------------


def three_layers(rng, dtype="float64"):
    layers = [pyrnn.Linear(3, 7, dtype=dtype, rng=0), pyrnn.GRU(3, 5, dtype=dtype, rng=1)]
    model = pyrnn.Model(a=layers[0], rnn=layers[1], b=pyrnn.Linear(9, 2, dtype="float32", rng=2))
    new_gradients(model, rng)
    return model


@pytest.mark.parametrize("make", [pyrnn.SGD, pyrnn.Adam, pyrnn.AdamW, pyrnn.RMSprop, pyrnn.Adagrad])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_groups_are_optimisers_of_their_own(rng, make, dtype):
    """The same bits as if every group had its model and its optimiser."""
    groups = {"*bias*": {"weight_decay": 0, "lr": 0.5}, "rnn.weight_hh*": {"lr": 0.25}}
    model = three_layers(rng, dtype)
    optimizer = make(model, lr=0.125, weight_decay=0.1, groups=groups)
    apart = [copy.deepcopy(model) for _ in range(3)]
    settings = [{"lr": 0.5, "weight_decay": 0}, {"lr": 0.25, "weight_decay": 0.1}, {"lr": 0.125, "weight_decay": 0.1}]
    others = [make(twin, **options) for twin, options in zip(apart, settings, strict=True)]
    for step in range(4):
        new_gradients(model, rng)
        for twin, other in zip(apart, others, strict=True):
            twin.grads.update(model.grads)
            other.step()
        optimizer.step()
        if step == 1:  # as a schedule does
            for each in (optimizer, *others):
                each.lr *= 0.5
    for name, param in model.params.items():
        which = 0 if "bias" in name else 1 if "weight_hh" in name else 2
        np.testing.assert_array_equal(param, apart[which].params[name])


def test_groups_of_betas_and_changes(rng):
    model = three_layers(rng)
    twin = copy.deepcopy(model)
    grouped = pyrnn.Adam(model, groups={"a.*": {"betas": (0.5, 0.6), "eps": 1e-2}})
    other = pyrnn.Adam(twin, betas=(0.5, 0.6), eps=1e-2)
    grouped.step()
    other.step()
    np.testing.assert_array_equal(model.params["a.weight"], twin.params["a.weight"])
    assert np.any(model.params["b.weight"] != twin.params["b.weight"])
    before = model.state_dict()
    grouped.groups["a.*"]["lr"] = 0.0
    grouped.step()
    np.testing.assert_array_equal(model.params["a.weight"], before["a.weight"])
    assert np.any(model.params["b.weight"] != before["b.weight"])


@pytest.mark.parametrize(
    ("groups", "error", "match"),
    [
        ({"bias": {"lr": 1}}, ValueError, "Adam: 'bias' of groups fits none of a.weight, a.bias"),
        ({"*bias": {"momentum": 1}}, ValueError, "Adam: groups sets 'momentum', expected some of lr, betas, eps"),
        ({"*bias": {"lr": -1}}, ValueError, r"Adam: lr of '\*bias' is -1, expected at least 0"),
        ({"*bias": {"betas": 1}}, TypeError, r"Adam: betas of '\*bias' is 1, expected two numbers"),
        ({5: {"lr": 1}}, TypeError, "Adam: groups has the key 5, expected a pattern of names"),
        ({None: {"lr": 1}}, TypeError, "Adam: groups has the key None"),
        (
            {"*": {}, "*bias": {}},
            ValueError,
            r"'\*bias' of groups fits only a.bias, .*, which belong to patterns before it",
        ),
        ({"*bias": 0.1}, TypeError, "Adam: groups is .*, expected a dict of dicts"),
        ([{"params": []}], TypeError, "Adam: groups is .*, expected a dict of dicts"),
    ],
)
def test_groups_that_are_none(rng, groups, error, match):
    with pytest.raises(error, match=match):
        pyrnn.Adam(three_layers(rng), groups=groups)
    with pytest.raises(ValueError, match="groups sets lr, of which lr 0 is no multiple"):
        pyrnn.Adam(three_layers(rng), lr=0, groups={"*": {"lr": 1}})


def test_what_is_set_between_steps_is_checked(rng):
    def refuse(optimizer, error, match):
        new_gradients(optimizer.model, rng)
        before, kept = optimizer.model.state_dict(), optimizer.state_dict()
        with pytest.raises(error, match=match):
            optimizer.step()
        for now, then in ((optimizer.model.state_dict(), before), (optimizer.state_dict(), kept)):
            for name, array in then.items():
                np.testing.assert_array_equal(now[name], array)

    for name, value, error, match in [
        ("lr", "0.1", TypeError, "Adam: lr of 'c.*' is '0.1', expected a number"),
        ("lr", np.nan, ValueError, "Adam: lr of 'c.*' is nan"),
        ("betas", 0.9, TypeError, "Adam: betas of 'c.*' is 0.9"),
        ("momentum", 0.9, ValueError, "Adam: groups sets 'momentum'"),
    ]:
        optimizer = pyrnn.Adam(three_layers(rng), groups={"a.*": {"lr": 0.1}, "b.*": {"lr": 0.1}})
        optimizer.groups["b.*"][name] = value
        refuse(optimizer, error, match.replace("c.*", r"b\.\*"))
    for make, name, value, error in [
        (pyrnn.SGD, "lr", "0.1", TypeError),
        (pyrnn.SGD, "weight_decay", np.nan, ValueError),
        (pyrnn.SGD, "momentum", None, TypeError),
        (pyrnn.SGD, "nesterov", "no", TypeError),
        (pyrnn.RMSprop, "momentum", -1, ValueError),
        (pyrnn.RMSprop, "alpha", 2, ValueError),
        (pyrnn.Adam, "betas", 0.9, TypeError),
        (pyrnn.AdamW, "lr", -1, ValueError),
        (pyrnn.Adagrad, "eps", "a", TypeError),
    ]:
        optimizer = make(three_layers(rng))
        setattr(optimizer, name, value)
        refuse(optimizer, error, f"{make.__name__}: {name} is ")
    optimizer = pyrnn.SGD(three_layers(rng), groups={"a.*": {"lr": 0.1}})
    optimizer.groups["nothing"] = {"lr": 0.1}
    refuse(optimizer, ValueError, "'nothing' of groups fits none of a.weight")
    refuse(optimizer, ValueError, "'nothing' of groups fits none of a.weight")
    optimizer.groups = 3
    refuse(optimizer, TypeError, "SGD: groups is 3")


def test_groups_may_come_and_go(rng):
    model, own = three_layers(rng), {"lr": 0.0}
    optimizer = pyrnn.SGD(model, lr=1.0, groups={"a.*": own})
    for groups, still in (
        ({"a.*": own}, "a."),
        ({"b.*": own}, "b."),
        ({}, "none"),
        ({"*bias*": own, "a.*": {}}, "bias"),
    ):
        optimizer.groups = groups
        new_gradients(model, rng)
        before = model.state_dict()
        optimizer.step()
        for name, param in model.params.items():
            assert np.array_equal(param, before[name]) == (still in name), name
    optimizer = pyrnn.SGD(model, lr=1.0, groups={"a.*": {"lr": 0.5}})
    optimizer.lr = 0.0  # the end of a schedule
    before = model.state_dict()
    optimizer.step()
    np.testing.assert_array_equal(model.params["a.weight"], before["a.weight"])


def test_a_tied_linear_is_not_trained_without_its_table():
    embed = pyrnn.Embedding(5, 3, rng=0)
    for bias in (True, False):
        head = pyrnn.Linear(3, 5, bias, weight=embed, rng=0)
        head.vjp(np.ones((2, 3)))[1](np.ones((2, 5)))
        match = "the weight of this Linear is the table of an Embedding, .* expected a model that holds both"
        for call in (
            pyrnn.SGD,
            pyrnn.Adam,
            lambda layer: pyrnn.clip_grad_value(layer, 1),
            lambda layer: pyrnn.clip_grad_norm(layer, 1),
        ):
            with pytest.raises(ValueError, match=match):
                call(head)
        model = pyrnn.Model(head=head)
        norm = np.sqrt(sum(np.sum(grad.astype(float) ** 2) for grad in model.grads.values()))
        assert norm > 0
        np.testing.assert_allclose(pyrnn.clip_grad_norm(model, 1e9), norm, rtol=1e-6)


def test_clip_grad_value_beyond_float32():
    """Whatever NumPy makes of a Python float that no float32 holds."""
    layer = pyrnn.Linear(2, 2)
    layer.grads["weight"] = grads = np.array([[1, -3e38], [np.inf, 0]], np.float32)
    pyrnn.clip_grad_value(layer, 1e300)
    np.testing.assert_array_equal(layer.grads["weight"], grads)
