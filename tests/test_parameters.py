"""Parameter dicts, state dicts, flat buffers and models."""

import copy
import pickle

import numpy as np
import pytest

import pyrnn


class Tagger(pyrnn.Model):
    """Tokens to logits; the last layer in another dtype if asked."""

    def __init__(self, rng=0, head_dtype="float32"):
        rng = np.random.default_rng(rng)
        super().__init__(
            embed=pyrnn.Embedding(7, 4, rng=rng),
            rnn=pyrnn.LSTM(4, 5, 2, bidirectional=True, rng=rng),
            head=pyrnn.Linear(10, 3, dtype=head_dtype, rng=rng),
        )

    def __call__(self, tokens, **options):
        return self.head(self.rnn(self.embed(tokens), **options)[0])

    def vjp(self, tokens, **options):
        x, pull_embed = self.embed.vjp(tokens)
        (y, _), pull_rnn = self.rnn.vjp(x, **options)
        logits, pull_head = self.head.vjp(y)

        def pullback(dlogits):
            dx, _ = pull_rnn(pull_head(dlogits))
            pull_embed(dx)

        return logits, pullback


def values(layer):
    return {name: param.copy() for name, param in layer.params.items()}


def assert_values(layer, expected):
    assert list(layer.params) == list(expected)
    for name, param in layer.params.items():
        np.testing.assert_array_equal(param, expected[name])


def assert_one_buffer(layer):
    """Every parameter and gradient lies in the flat buffers, in order and without gaps."""
    position = dict.fromkeys(layer.buffers, 0)
    for name, param in layer.params.items():
        flat = layer.buffers[param.dtype]
        start = position[param.dtype]
        for array, buffer in zip((param, layer.grads[name]), flat, strict=True):
            part = buffer[start : start + param.size]
            assert array.flags.c_contiguous
            assert array.ctypes.data == part.ctypes.data
        position[param.dtype] = start + param.size
    for dtype, (params, grads) in layer.buffers.items():
        assert position[dtype] == params.size == grads.size
        assert params.flags.c_contiguous
        assert grads.flags.c_contiguous
    assert sum(position.values()) == layer.num_parameters


# Parameter dicts --------------------------------------------------------------------------------------------------


def test_assignment_copies_into_the_live_array():
    layer = pyrnn.RNN(2, 3, rng=0)
    weight = layer.params["weight_ih_l0"]
    layer.params["weight_ih_l0"] = [[1, 2], [3, 4], [5, 6]]
    assert layer.params["weight_ih_l0"] is weight
    np.testing.assert_array_equal(weight, [[1, 2], [3, 4], [5, 6]])
    layer.params["weight_ih_l0"] *= 2
    layer.grads.update(bias_ih_l0=np.ones(3), bias_hh_l0=np.ones(3))
    params = layer.params
    params |= {"bias_ih_l0": [1, 1, 1]}
    np.testing.assert_array_equal(layer.params["bias_ih_l0"], [1, 1, 1])
    np.testing.assert_array_equal(weight, [[2, 4], [6, 8], [10, 12]])
    assert layer.grads["bias_hh_l0"].sum() == 3
    assert_one_buffer(layer)


def test_entries_neither_come_nor_go():
    layer = pyrnn.RNN(2, 3, rng=0)
    before = values(layer)
    with pytest.raises(KeyError, match=r"RNN\.params has no 'weight_l0', only weight_ih_l0, "):
        layer.params["weight_l0"] = 1
    with pytest.raises(ValueError, match=r"RNN\.params: weight_ih_l0 has shape \(2, 3\), expected \(3, 2\)"):
        layer.params["weight_ih_l0"] = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"RNN\.grads: bias_ih_l0 has shape \(\), expected \(3,\)"):
        layer.grads["bias_ih_l0"] = 0.0
    with pytest.raises(TypeError, match=r"RNN\.params: bias_ih_l0 has dtype complex128"):
        layer.params.update({"weight_ih_l0": np.zeros((3, 2)), "bias_ih_l0": np.zeros(3, complex)})
    with pytest.raises(KeyError, match="other"):
        layer.params.setdefault("other", 1)
    for remove in (
        lambda p: p.pop("bias_ih_l0"),
        lambda p: p.popitem(),
        lambda p: p.clear(),
        lambda p: p.__delitem__("bias_ih_l0"),
    ):
        with pytest.raises(TypeError, match="cannot be removed"):
            remove(layer.params)
    with pytest.raises(AttributeError):
        layer.params = {}
    assert_values(layer, before)


def test_a_copy_of_a_parameter_dict_is_a_plain_dict():
    layer = pyrnn.RNN(2, 3, rng=0)
    for copied in (copy.deepcopy(layer.params), pickle.loads(pickle.dumps(layer.params)), layer.params.copy()):
        assert type(copied) is dict
    best = copy.deepcopy(layer.params)
    layer.params["weight_ih_l0"][:] = 0
    assert best["weight_ih_l0"].any()
    layer.load_state_dict(best)
    assert layer.params["weight_ih_l0"].any()


# State dicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [lambda rng: pyrnn.LSTM(3, 4, 2, proj_size=2, peephole=True, rng=rng), Tagger])
def test_state_dict_round_trip(build):
    layer, other = build(0), build(1)
    state = layer.state_dict()
    assert_values(layer, state)
    for name, array in state.items():
        assert not np.shares_memory(array, layer.params[name])
        assert array.flags.owndata
    other.load_state_dict(state)
    assert_values(other, state)
    assert_one_buffer(other)
    other.load_state_dict({name: array.tolist() for name, array in reversed(state.items())})
    assert_values(other, state)


def test_load_state_dict_is_strict():
    layer = pyrnn.LSTM(3, 4, proj_size=2, rng=0)
    before, good = values(layer), pyrnn.LSTM(3, 4, proj_size=2, rng=1).state_dict()
    missing = {name: array for name, array in good.items() if name != "weight_hr_l0"}
    for state, error, match in [
        (missing, ValueError, r"LSTM.load_state_dict: .*missing.*weight_hr_l0"),
        ({**good, "weight_ch_l0": 1}, ValueError, "unknown.*weight_ch_l0"),
        ({**good, "bias_hh_l0": np.zeros(15)}, ValueError, r"bias_hh_l0 has shape \(15,\), expected \(16,\)"),
        ({**good, "weight_hr_l0": np.zeros((4, 2))}, ValueError, r"weight_hr_l0 has shape \(4, 2\), expected \(2, 4\)"),
        ({**good, "weight_hr_l0": np.zeros((2, 4), complex)}, TypeError, "weight_hr_l0 has dtype complex128"),
        ({**good, "weight_hr_l0": None}, TypeError, "weight_hr_l0 has dtype object"),
        ({**good, "weight_hr_l0": [[1], [1, 2]]}, ValueError, "weight_hr_l0 is not an array"),
        ({}, ValueError, "missing"),
        (None, TypeError, "expected a dict of arrays, not NoneType"),
        (list(good), TypeError, "not list"),
    ]:
        with pytest.raises(error, match=match):
            layer.load_state_dict(state)
        assert_values(layer, before)


def test_load_state_dict_of_its_own_arrays():
    layer = pyrnn.RNN(3, 3, rng=0)
    before = values(layer)
    swapped = {
        **layer.params,
        "weight_ih_l0": layer.params["weight_hh_l0"],
        "weight_hh_l0": layer.params["weight_ih_l0"],
    }
    layer.load_state_dict(swapped)
    np.testing.assert_array_equal(layer.params["weight_ih_l0"], before["weight_hh_l0"])
    np.testing.assert_array_equal(layer.params["weight_hh_l0"], before["weight_ih_l0"])


# Models -----------------------------------------------------------------------------------------------------------


def test_model_has_one_buffer_with_named_views():
    model = Tagger()
    assert list(model.params)[:3] == ["embed.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert list(model.params)[-2:] == ["head.weight", "head.bias"]
    assert list(model.buffers) == [np.dtype("float32")]
    assert_one_buffer(model)
    for layer in (model.embed, model.rnn, model.head):
        assert_one_buffer(layer)
    assert model.num_parameters == sum(layer.num_parameters for layer in (model.embed, model.rnn, model.head))
    for name, array in model.rnn.params.items():
        assert np.shares_memory(array, model.params[f"rnn.{name}"])
    model.params["head.bias"] = [1, 2, 3]
    np.testing.assert_array_equal(model.head.params["bias"], [1, 2, 3])
    np.testing.assert_array_equal(model.buffers[np.dtype("float32")][0][-3:], [1, 2, 3])


def test_a_layer_keeps_its_values_in_a_model(rng):
    layer, x = pyrnn.GRU(4, 5, rng=0), rng.standard_normal((3, 2, 4)).astype("f4")
    before = values(layer)
    (y, _), pullback = layer.vjp(x)
    layer.grads["bias_ih_l0"][:] = 7
    model = pyrnn.Model(rnn=layer)
    assert model.rnn is layer
    assert_values(layer, before)
    np.testing.assert_array_equal(model.grads["rnn.bias_ih_l0"], 7)
    np.testing.assert_array_equal(layer(x)[0], y)
    pullback(y)  # from before: adds into the gradients as they are now
    assert model.grads["rnn.weight_ih_l0"].any()
    model.buffers[layer.dtype][0][:] = 0
    assert not layer(x)[0].any()


def test_two_dtypes():
    model = Tagger(head_dtype="float64")
    sizes = {dtype.name: params.size for dtype, (params, _) in model.buffers.items()}
    assert sizes == {"float32": model.embed.num_parameters + model.rnn.num_parameters, "float64": 33}
    assert_one_buffer(model)
    model.head.grads["bias"][:] = 1
    model.embed.grads["weight"][:] = 1
    model.zero_grad()
    assert not any(grad.any() for grad in model.grads.values())


def test_models_nest():
    inner = pyrnn.Model(a=pyrnn.Linear(2, 3, rng=0), b=pyrnn.Linear(3, 2, dtype="float64", rng=0))
    outer = pyrnn.Model(first=pyrnn.Linear(1, 2, rng=0), inner=inner, last=pyrnn.Linear(2, 1, rng=0))
    assert [name for name in outer.params if name.endswith("weight")] == [
        "first.weight",
        "inner.a.weight",
        "inner.b.weight",
        "last.weight",
    ]
    for model in (inner, outer):
        assert_one_buffer(model)
    outer.params["inner.a.bias"] = [1, 2, 3]
    np.testing.assert_array_equal(inner.a.params["bias"], [1, 2, 3])
    np.testing.assert_array_equal(inner.params["a.bias"], [1, 2, 3])


def test_a_model_of_nothing():
    model = pyrnn.Model()
    assert model.num_parameters == 0
    assert model.state_dict() == model.buffers == {}
    model.zero_grad()
    model.load_state_dict({})


def test_model_refuses():
    layer = pyrnn.Linear(2, 3)
    for layers, error, match in [
        ({"a": layer, "b": layer}, ValueError, "is part of a model already"),
        ({"a": 3}, TypeError, "Model: a is int, expected a layer or a model"),
        ({"params": layer}, ValueError, "'params' cannot be the name of a layer"),
        ({"dtype": layer}, ValueError, "'dtype' cannot be"),
        ({"a.b": layer}, ValueError, "'a.b' cannot be"),
    ]:
        with pytest.raises(error, match=match):
            pyrnn.Model(**layers)
    model = pyrnn.Model(a=layer)
    with pytest.raises(ValueError, match="b is part of a model already"):
        pyrnn.Model(b=layer)
    with pytest.raises(ValueError, match="b is part of a model already"):
        pyrnn.Model(model=model, b=layer)
    with pytest.raises(AttributeError, match="the layer a cannot be replaced"):
        model.a = pyrnn.Linear(2, 3)
    model.note = "other attributes are free"
    assert_one_buffer(pyrnn.Model(b=copy.deepcopy(layer)))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_stand_on_their_own(rng, clone):
    tokens = rng.integers(0, 7, (4, 2))
    model = Tagger(head_dtype="float64")
    logits, pullback = model.vjp(tokens)
    pullback(np.ones_like(logits))
    before, grads = values(model), {name: grad.copy() for name, grad in model.grads.items()}
    other = clone(model)
    assert_values(other, before)
    for name, grad in other.grads.items():
        np.testing.assert_array_equal(grad, grads[name])
    for each in (other, other.embed, other.rnn, other.head):
        assert_one_buffer(each)
    for params, _ in other.buffers.values():
        params[:] = 0
    assert not other(tokens).any()
    assert_values(model, before)
    np.testing.assert_array_equal(model(tokens), logits)

    layer = clone(model.rnn)
    assert_one_buffer(layer)
    assert layer.dtype is model.rnn.dtype
    assert_one_buffer(pyrnn.Model(rnn=layer))
    for optimizer in (pyrnn.Adam(other), clone(pyrnn.Adam(model))):
        optimizer.step()


def test_gradient_of_a_model_is_finite_differences(rng):
    model = pyrnn.Model(
        embed=pyrnn.Embedding(7, 4, dtype="float64", rng=0),
        rnn=pyrnn.GRU(4, 5, dtype="float64", rng=0),
        head=pyrnn.Linear(5, 6, dtype="float64", rng=0),
    )
    tokens, targets, lengths = rng.integers(0, 7, (4, 3)), rng.integers(0, 6, (4, 3)), [4, 2, 0]

    def logits():
        return model.head(model.rnn(model.embed(tokens), lengths=lengths)[0])

    x, pull_embed = model.embed.vjp(tokens)
    (y, _), pull_rnn = model.rnn.vjp(x, lengths=lengths)
    z, pull_head = model.head.vjp(y)
    loss, dz = pyrnn.cross_entropy(z, targets, lengths=lengths)
    pull_embed(pull_rnn(pull_head(dz))[0])
    params, grads = model.buffers[np.dtype("float64")]
    start = params.copy()
    for _ in range(3):
        u = rng.standard_normal(params.size)
        ends = []
        for sign in (1, -1):
            params[:] = start + sign * 1e-6 * u
            ends.append(pyrnn.cross_entropy(logits(), targets, lengths=lengths)[0])
        assert grads @ u == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)
    assert loss > 0
