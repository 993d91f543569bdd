"""Parameter dicts, state dicts, flat buffers and models."""

import collections
import copy
import pickle
import sys
import threading

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


def test_what_names_of_others_mean_is_told():
    one, both = pyrnn.LSTM(3, 4), pyrnn.LSTM(3, 4, bidirectional=True)
    layers = {"emb": pyrnn.Embedding(9, 3), "drop": pyrnn.Dropout(0.1), "lstm": one, "head": pyrnn.Linear(4, 2)}
    named, by_place = pyrnn.Sequential(**layers), pyrnn.Sequential(*map(copy.deepcopy, layers.values()))
    for layer, other, message in (
        (one, both, "the arrays two: bidirectional=True$"),
        (both, one, "The layer is bidirectional, the arrays are of one direction$"),
        (by_place, named, r"Sequential\(emb=\.\.\., lstm=\.\.\., head=\.\.\.\)$"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(other.state_dict())


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
        ({"a": 3}, TypeError, "Model: a is int, expected a layer or a model"),
        ({"params": layer}, ValueError, "'params' cannot be the name of a layer"),
        ({"dtype": layer}, ValueError, "'dtype' cannot be"),
        ({"a.b": layer}, ValueError, "'a.b' cannot be"),
    ]:
        with pytest.raises(error, match=match):
            pyrnn.Model(**layers)
    model = pyrnn.Model(a=layer)
    model.note = "other attributes are free"
    for name in ("buffers", "zero_grad", "dtype"):
        with pytest.raises(ValueError, match=f"Model: '{name}' cannot be the name of a layer"):
            setattr(model, name, pyrnn.Linear(2, 3))
    assert list(model.params) == ["a.weight", "a.bias"]


# Layers as attributes ---------------------------------------------------------------------------------------------


class Net(pyrnn.Model):
    """Layers in every place where people put them."""

    def __init__(self, rng=0):
        super().__init__(first=pyrnn.Linear(2, 3), rng=rng)
        self.words = ["a", "b"]
        self.rnn = pyrnn.GRU(3, 4)
        self.heads = [pyrnn.Linear(4, 2), (pyrnn.Linear(4, 1), {"x": pyrnn.Linear(4, 5, bias=False)})]
        self.by_language = {"en": pyrnn.Linear(4, 2), 7: pyrnn.Sequential(pyrnn.Linear(4, 4), pyrnn.LayerNorm(4))}
        self.inner = pyrnn.Model(a=pyrnn.Linear(1, 1, dtype="float64"))


NAMES = [
    "first.weight", "first.bias",
    *(f"rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    "heads.0.weight", "heads.0.bias", "heads.1.0.weight", "heads.1.0.bias", "heads.1.1.x.weight",
    "by_language.en.weight", "by_language.en.bias",
    "by_language.7.0.weight", "by_language.7.0.bias", "by_language.7.1.weight", "by_language.7.1.bias",
    "inner.a.weight", "inner.a.bias",
]  # fmt: skip


def test_layers_in_attributes_lists_tuples_and_dicts(rng):
    model = Net()
    assert list(model.params) == list(model.grads) == list(model.state_dict()) == NAMES
    assert model.num_parameters == sum(param.size for param in model.params.values())
    assert_one_buffer(model)
    assert_one_buffer(model.inner)
    before = model.state_dict()
    for _, grads in model.buffers.values():
        grads[:] = 1
    pyrnn.SGD(model, lr=1.0).step()
    for name, param in model.params.items():
        np.testing.assert_allclose(param, before[name] - 1, rtol=1e-5, atol=1e-6)
    model.zero_grad()
    assert not any(grad.any() for grad in model.grads.values())
    model.load_state_dict(before)
    np.testing.assert_array_equal(model.heads[1][1]["x"].params["weight"], before["heads.1.1.x.weight"])
    with pytest.raises(ValueError, match=r"missing entries: \['heads.0.bias'\]"):
        model.load_state_dict({name: array for name, array in before.items() if name != "heads.0.bias"})
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_values(other, before)
        assert_one_buffer(other)
        assert not np.shares_memory(other.rnn.params["bias_ih_l0"], model.rnn.params["bias_ih_l0"])


def test_arrays_of_a_finished_model_stay_live():
    model = Net()
    weight, head = model.rnn.params["weight_ih_l0"], model.heads[0].params["bias"]
    adam = pyrnn.Adam(model)
    weight[:], head[:] = 5, 6
    assert (model.params["rnn.weight_ih_l0"] == 5).all()
    assert (model.params["heads.0.bias"] == 6).all()
    model.grads["heads.0.bias"][:] = 1
    adam.step()
    assert (head < 6).all()


def test_layers_come_change_and_go():
    model = Net()
    start = model.state_dict()
    optimizer = pyrnn.Adam(model)
    params, weight, (flat, _) = model.params, model.rnn.params["weight_ih_l0"], model.buffers[np.dtype("f4")]
    model.heads.append(pyrnn.Linear(4, 9, rng=0))
    assert "heads.2.weight" in model.params
    assert_one_buffer(model)
    assert params is model.params
    for stale in (weight, flat):  # nothing is written in vain
        with pytest.raises(ValueError, match="read-only"):
            stale[:] = 0
    for name, array in start.items():
        np.testing.assert_array_equal(model.params[name], array)
    with pytest.raises(RuntimeError, match="Adam: Net has other layers than when this Adam was made"):
        optimizer.step()
    del model.heads
    model.rnn = pyrnn.RNN(3, 5, rng=1)
    assert [name for name in model.params if name.startswith(("rnn", "heads"))] == [
        f"rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert_one_buffer(model)
    np.testing.assert_array_equal(model.params["rnn.weight_ih_l0"], pyrnn.RNN(3, 5, rng=1).params["weight_ih_l0"])
    model.by_language["en"] = pyrnn.Linear(4, 2, rng=3)  # of the same shape
    optimizer = pyrnn.Adam(model)
    model.by_language["en"] = pyrnn.Linear(4, 2, rng=3)
    with pytest.raises(RuntimeError, match="other layers"):
        optimizer.step()
    pyrnn.Adam(model).step()


def test_models_without_parameters_are_refused():
    class Forgot(pyrnn.Model):
        def __init__(self):
            self.rnn = pyrnn.GRU(2, 3)

    with pytest.raises(TypeError, match=r"Forgot: its __init__ does not call super\(\).__init__\(\)"):
        Forgot()
    for empty in (pyrnn.Model(), pyrnn.Dropout(0.1), pyrnn.Model(drop=pyrnn.Dropout(0.1))):
        for make in (pyrnn.SGD, pyrnn.Adam, pyrnn.AdamW, pyrnn.RMSprop, pyrnn.Adagrad):
            with pytest.raises(ValueError, match=f"{make.__name__}: {type(empty).__name__} has no parameters"):
                make(empty)
        with pytest.raises(ValueError, match=r"clip_grad_norm: \w+ has no parameters"):
            pyrnn.clip_grad_norm(empty, 1.0)
        with pytest.raises(ValueError, match=r"clip_grad_value: \w+ has no parameters"):
            pyrnn.clip_grad_value(empty, 1.0)


def test_places_where_layers_would_be_lost_are_refused():
    layer = pyrnn.Linear(2, 2)
    for value, match in [
        ({layer}, "Model: heads is a set of layers, expected a list or a dict"),
        (frozenset([layer]), "heads is a frozenset of layers"),
        (collections.deque([layer]), "heads is a deque of layers"),
        (np.array([layer, None], object), "heads is a ndarray of layers"),
        ([{layer}], r"heads\.0 is a set of layers"),
        (frozenset([(layer,)]), "heads is a frozenset of layers"),
        (np.array([None, [layer]], object), "heads is a ndarray of layers"),
    ]:
        model = pyrnn.Model(a=layer)
        with pytest.raises(TypeError, match=match):
            model.heads = value
        assert not hasattr(model, "heads")
        model.heads = []
        model.heads.append(value)
        with pytest.raises(TypeError, match=r"heads\.0"):
            _ = model.params
    model = pyrnn.Model(heads=pyrnn.Linear(3, 3), a=layer)
    before = list(model.params)
    with pytest.raises(ValueError, match=r"Model: two parameters have the name heads.0.weight"):
        model.heads = {"0": pyrnn.Linear(1, 1), 0: pyrnn.Linear(1, 1)}
    with pytest.raises(ValueError, match=r"Model: heads\.up holds itself"):
        model.heads = pyrnn.Model(up=model)
    assert list(model.params) == before
    model.heads = []
    model.heads.append([model.heads, layer])  # a list that holds itself holds its layers once
    assert list(model.params) == ["heads.0.1.weight", "heads.0.1.bias"] or layer is model.a
    with pytest.raises(ValueError, match="'_home' cannot be the name of a layer"):
        pyrnn.Model(_home=layer)


def test_a_layer_under_several_names_is_one(rng):
    layer = pyrnn.Linear(3, 3, dtype="float64", rng=0)
    inner = pyrnn.Sequential(layer, pyrnn.LogSoftmax(dtype="float64"))
    model = pyrnn.Model(a=layer, b=layer, inner=inner)
    assert list(model.params) == ["a.weight", "a.bias"]
    assert model.num_parameters == inner.num_parameters == 12
    x, dy = rng.standard_normal((2, 5, 3))
    y, pull_a = model.a.vjp(x)
    _, pull_b = model.b.vjp(y)
    pull_a(pull_b(dy))
    w, dw = layer.params["weight"], np.outer
    expected = sum(dw(d, row) for d, row in zip(dy, y, strict=True))
    expected += sum(dw(d @ w, row) for d, row in zip(dy, x, strict=True))
    np.testing.assert_allclose(model.grads["a.weight"], expected, rtol=1e-12)
    assert_one_buffer(model)
    other = copy.deepcopy(model)
    assert other.a is other.b is other.inner[0]


def test_a_layer_in_several_models_is_one():
    shared = pyrnn.Linear(2, 2, rng=0)
    one, two = pyrnn.Model(a=pyrnn.Linear(3, 2), s=shared), pyrnn.Model(s=shared, b=pyrnn.Linear(2, 1))
    first, second = pyrnn.SGD(one, lr=1.0), pyrnn.SGD(two, lr=1.0)
    start = shared.state_dict()["weight"]
    for _ in range(2):
        for model, optimizer in ((one, first), (two, second)):
            model.zero_grad()
            model.grads["s.weight"] = np.ones((2, 2))
            optimizer.step()
            assert_one_buffer(model)
    for params in (one.params, two.params):
        np.testing.assert_allclose(params["s.weight"], start - 4, rtol=1e-6)


def test_tied_weights(rng):
    """The head's matrix is the embedding's table: one set of numbers, whose gradient is the sum of both uses."""

    def make(tied):
        embed = pyrnn.Embedding(7, 4, dtype="float64", rng=0)
        return pyrnn.Sequential(
            embed=embed,
            rnn=pyrnn.GRU(4, 4, dtype="float64", rng=1),
            head=pyrnn.Linear(4, 7, weight=embed if tied else None, dtype="float64", rng=2),
        )

    model, apart = make(True), make(False)
    assert [name for name in model.params if "rnn" not in name] == ["embed.weight", "head.bias"]
    assert model.num_parameters == apart.num_parameters - 28
    apart.params["head.weight"], apart.params["head.bias"] = apart.params["embed.weight"], model.params["head.bias"]
    ids = rng.integers(0, 7, (5, 3))
    (y, pull), (z, pull_apart) = model.vjp(ids), apart.vjp(ids)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(model(ids), z)
    pull(y)
    pull_apart(z)
    both = apart.grads["embed.weight"] + apart.grads["head.weight"]
    np.testing.assert_allclose(model.grads["embed.weight"], both, rtol=1e-12)
    adam = pyrnn.Adam(model)
    adam.step()
    np.testing.assert_allclose(model(ids), copy.deepcopy(model)(ids), rtol=0)
    assert not np.array_equal(model(ids), z)
    assert_one_buffer(model)
    head = pyrnn.Model(head=model.head, embed=model.embed)  # the head first: the table has its name there
    assert list(head.params) == ["head.weight", "head.bias"]
    for arguments, error, match in [
        ((4, 8), ValueError, r"Linear: weight has shape \(7, 4\) and dtype float64, expected \(8, 4\) and float64"),
        ((4, 7, True), TypeError, "Linear: weight is ndarray, expected an Embedding"),
    ]:
        weight = model.embed if error is ValueError else np.zeros((7, 4))
        with pytest.raises(error, match=match):
            pyrnn.Linear(*arguments, weight=weight, dtype="float64")


def test_a_layer_that_is_no_model_holds_no_layers():
    class Own(pyrnn.GRU):
        def __init__(self, value):
            super().__init__(3, 4)
            self.words = ["a", ("b", {"c": np.zeros(3)})]
            self.extra = value

    head = pyrnn.Linear(4, 2)
    for value, match in [
        (head, "Own: 'extra' is a layer, which would be neither trained nor saved: .* a pyrnn.Model"),
        ([head], "Own: 'extra' holds a layer"),
        ({"a": (1, [head])}, "Own: 'extra' holds a layer"),
        ({head}, "Own: extra is a set of layers"),
        (pyrnn.Model(), "Own: 'extra' is a layer"),
    ]:
        with pytest.raises(TypeError, match=match):
            Own(value)
    layer = Own([])
    assert len(copy.deepcopy(layer).params) == 4
    with pytest.raises(TypeError, match="'head' is a layer"):
        layer.head = head
    assert not hasattr(layer, "head")
    layer.extra.append(head)
    for use in (layer.state_dict, lambda: pyrnn.SGD(layer), lambda: pyrnn.Model(rnn=layer)):
        with pytest.raises(TypeError, match="Own: 'extra' holds a layer"):
            use()


class Slots(pyrnn.Model):
    """What plain Python allows of attributes."""

    __slots__ = ("__body", "empty")
    size = 3
    head = pyrnn.Linear(1, 1)

    def __init__(self, rng=0):
        super().__init__(rng=rng)
        self.__body = [pyrnn.Linear(2, 3)]
        self.tail = pyrnn.Linear(3, 1)
        self.size = self.head = pyrnn.Linear(3, 4)

    @property
    def tail(self):
        return self._tail

    @tail.setter
    def tail(self, layer):
        self._tail = layer


def test_slots_properties_and_defaults_of_a_class():
    model, twin = Slots(0), Slots(0)
    assert sorted(name for name in model.params if "weight" in name) == [
        "_Slots__body.0.weight", "_tail.weight", "size.weight",
    ]  # fmt: skip
    assert_values(model, values(twin))  # all were drawn from its rng
    assert_one_buffer(model)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_values(clone, values(model))
        assert clone.head is clone.size
        assert not hasattr(clone, "empty")
    model.tail = pyrnn.Linear(3, 9, rng=0)
    assert model.params["_tail.weight"].shape == (9, 3)
    before = values(model)
    for name, value, error in [
        ("tail", {pyrnn.Linear(1, 1)}, TypeError),
        ("empty", [model], ValueError),
        ("_tail", {0: pyrnn.Linear(1, 1), "0": pyrnn.Linear(1, 1)}, ValueError),
        ("num_parameters", pyrnn.Linear(1, 1), ValueError),
        ("_find", [pyrnn.Linear(1, 1)], ValueError),
    ]:
        with pytest.raises(error):
            setattr(model, name, value)
        assert not hasattr(model, "empty")
        assert_values(model, before)


class Counted(list):
    """How often it is read."""

    reads = 0

    def __iter__(self):
        self.reads += 1
        return super().__iter__()


def test_data_is_not_read_at_every_use():
    words = Counted(str(k) for k in range(100_000))
    table = Counted([k, float(k)] for k in range(10_000))
    rows = {"deep": [Counted([{"k": k}] for k in range(1000))], "words": words}
    model = pyrnn.Model(a=pyrnn.Linear(2, 2))
    model.words, model.table, model.rows = words, table, rows
    optimizer = pyrnn.Adam(model)
    lists = (words, table, rows["deep"][0])
    before = [each.reads for each in lists]
    for _ in range(50):
        model.zero_grad()
        model.grads["a.weight"][:] = 1
        pyrnn.clip_grad_norm(model, 1.0)
        optimizer.step()
    assert [each.reads for each in lists] == before
    for k, place in enumerate((words, table, table)):  # but what comes into them is found
        place.insert(k, pyrnn.Linear(2, k + 1))
        assert len(model.params) == 4 + 2 * k
    words[5] = pyrnn.Linear(2, 7)
    assert "words.5.weight" in model.state_dict()
    model.words = model.rows = model.table = None
    assert list(model.params) == ["a.weight", "a.bias"]
    assert not model._barren  # kept alive by nobody


def test_layers_beside_large_data_are_found():
    model = pyrnn.Model(a=pyrnn.Linear(2, 2))
    model.cfg, model.both = {"words": list(range(1000)), "heads": [], "extra": None}, [list(range(300)), []]
    optimizer = pyrnn.SGD(model, lr=1.0)
    model.cfg["extra"] = pyrnn.Linear(1, 1)
    model.cfg["heads"].append(pyrnn.Linear(1, 2))
    model.both[1].append(pyrnn.Linear(1, 3))
    assert model.num_parameters == 6 + 2 + 4 + 6
    with pytest.raises(RuntimeError, match="other layers than when"):
        optimizer.step()


def test_data_may_refer_to_itself_and_be_shared():
    node = {"words": ["a"]}
    node["parent"] = node
    shared = []
    for _ in range(60):
        shared = [shared, shared]
    model = pyrnn.Model(a=pyrnn.Linear(2, 2))
    model.node, model.shared = node, shared
    model.odd = np.empty(1, object)
    model.odd[0] = model.odd
    assert len(model.params) == 2


class Mixin:
    def __init__(self, rng=None):
        super().__init__(rng=rng)
        self.heads = []
        self.heads.append(pyrnn.Linear(2, 2))


def test_an_init_of_another_class_is_one_of_the_model():
    class Mixed(Mixin, pyrnn.Model):
        pass

    one, other = Mixed(rng=0), Mixed(rng=0)
    np.testing.assert_array_equal(one.params["heads.0.weight"], other.params["heads.0.weight"])


@pytest.mark.parametrize("kind", [list, dict])
def test_layers_in_large_data_are_found(kind):
    model = pyrnn.Model(a=pyrnn.Linear(2, 2))
    model.data = list(range(1000)) if kind is list else dict.fromkeys(range(1000), 0)
    _ = model.params
    model.data[3] = pyrnn.Linear(1, 1)
    pyrnn.SGD(model)
    assert "data.3.weight" in model.params
    model.data[3] = 0
    assert "data.3.weight" not in model.params


def test_layers_assigned_later_are_at_home_at_once():
    """What is taken out of the model, or of its layers, is not stale when an optimiser or `buffers` is made."""
    model = pyrnn.Model()
    model.rnn, model.heads = pyrnn.GRU(2, 3, rng=0), [pyrnn.Linear(3, 1, rng=0)]
    model.inner = pyrnn.Model()
    model.inner.a = pyrnn.Linear(1, 1)
    params, grads = dict(model.params), dict(model.grads)
    weight = model.rnn.params["weight_ih_l0"][0]  # a view of a view
    optimizer = pyrnn.SGD(model, lr=1.0)
    before = weight.copy()
    for name, array in model.params.items():
        assert array is params[name]
        assert model.grads[name] is grads[name]
        grads[name][:] = 1
    optimizer.step()
    np.testing.assert_allclose(weight, before - 1, rtol=1e-6)
    model.heads.append(pyrnn.Linear(3, 2, rng=0))
    _ = model.grads  # the first use
    late = model.heads[1].params["weight"]
    _ = model.buffers
    assert late.flags.writeable


def test_no_name_is_missing_while_a_layer_moves():
    params, missing = pyrnn.GRU(2, 3, rng=0).params, []
    names = list(params)

    class Looking(collections.UserDict):
        def __getitem__(self, name):
            missing.extend(set(names) - set(params))  # what another thread would see
            return super().__getitem__(name)

    params.rebind(Looking({name: array.copy() for name, array in params.items()}))
    assert list(params) == names
    assert not missing


def test_models_that_share_a_layer_are_used_in_two_threads():
    embed, ids = pyrnn.Embedding(5, 3, rng=0), np.arange(5)
    expected, errors = embed(ids), []
    models = [pyrnn.Model(embed=embed, own=pyrnn.Linear(3, k + 1)) for k in range(2)]
    together = threading.Barrier(2)

    def use(model):
        try:
            together.wait()
            for _ in range(700):
                assert sum(params.size for params, _ in model.buffers.values()) == model.num_parameters
                assert len(model.state_dict()) == 3
                np.testing.assert_array_equal(embed(ids), expected)
                np.testing.assert_array_equal(model.params["embed.weight"], expected)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=use, args=(model,)) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


# Initial values ---------------------------------------------------------------------------------------------------


def test_a_model_draws_for_its_layers():
    rng = np.random.default_rng(5)
    first, second = pyrnn.Linear(3, 3, rng=rng), pyrnn.Linear(3, 3, rng=rng)
    for model in (
        pyrnn.Sequential(pyrnn.Linear(3, 3), pyrnn.Linear(3, 3), rng=5),
        pyrnn.Model(a=pyrnn.Linear(3, 3), b=pyrnn.Sequential(pyrnn.Linear(3, 3)), rng=np.random.default_rng(5)),
    ):
        drawn = list(model.params.values())
        np.testing.assert_array_equal(drawn[0], first.params["weight"])
        np.testing.assert_array_equal(drawn[2], second.params["weight"])
    one, two, three = Net(3), Net(3), Net(4)
    assert_values(one, values(two))
    assert any(np.any(param != three.params[name]) for name, param in one.params.items())


def test_a_model_leaves_values_that_are_somebodys():
    seeded, loaded, written = (pyrnn.Linear(3, 3, rng=rng) for rng in (1, None, None))
    loaded.load_state_dict(seeded.state_dict())
    written.params["weight"][:] = 7
    before = [values(layer) for layer in (seeded, loaded, written)]
    model = pyrnn.Model(a=seeded, c=written, rng=0)
    model.b = [loaded]
    for layer, expected in zip((seeded, loaded, written), before, strict=True):
        assert_values(layer, expected)

    class Chrono(pyrnn.Model):
        def __init__(self, rng):
            super().__init__(rng=rng)
            self.rnn = pyrnn.LSTM(2, 3)
            pyrnn.init.forget_gate_bias(self.rnn, 9.0)
            self.more = []
            self.more.append(pyrnn.Linear(2, 3))

    model, twin = Chrono(0), Chrono(0)
    assert (model.rnn.params["bias_ih_l0"][3:6] == 9).all()
    assert_values(model, values(twin))
    mask = [pyrnn.Model(drop=pyrnn.Dropout(0.5), rng=3).drop.vjp(np.ones(99))[0] for _ in range(2)]
    np.testing.assert_array_equal(*mask)


# Calls ------------------------------------------------------------------------------------------------------------


class Judge(pyrnn.Model):
    """Defines vjp alone."""

    def __init__(self, rng=0):
        super().__init__(rng=rng)
        self.rnn = pyrnn.LSTM(3, 5, 2, dropout=0.5)
        self.drop = pyrnn.Dropout(0.5)
        self.heads = {"en": pyrnn.Linear(5, 2)}

    def vjp(self, x, lengths=None):
        (_, (h, c)), pull_rnn = self.rnn.vjp(x, lengths=lengths)
        top, pull_drop = self.drop.vjp(h[-1])
        z, pull_head = self.heads["en"].vjp(np.tanh(top))

        def pullback(dz):
            dtop = pull_drop(pull_head(dz) * (1 - np.tanh(top) ** 2))
            dh = np.stack([np.zeros_like(dtop), dtop])
            return pull_rnn(None, (dh, np.zeros_like(c)))[0]

        return z, pullback


def test_a_call_is_the_vjp_without_dropout(rng):
    model, x = Judge(), rng.standard_normal((6, 4, 3)).astype("f4")
    states = model.rnn.rng.bit_generator.state
    z = model(x, lengths=[6, 1, 3, 0])
    assert model.rnn.rng.bit_generator.state == states  # nothing was drawn
    _, (h, _) = model.rnn(x, lengths=[6, 1, 3, 0])
    np.testing.assert_array_equal(z, model.heads["en"](np.tanh(h[-1])))
    dropped, pullback = model.vjp(x, lengths=[6, 1, 3, 0])
    assert np.any(dropped != z)
    assert pullback(dropped).shape == x.shape
    with pytest.raises(TypeError, match="Model: it defines neither vjp nor __call__"):
        pyrnn.Model(a=pyrnn.Linear(1, 1))(x)

    class Strange(Judge):
        def vjp(self, x):
            z, pullback = super().vjp(x)
            pullback(z)
            return z, None

    with pytest.raises(RuntimeError, match="this vjp was run by a call of the model"):
        Strange()(x)
    assert np.any(Judge().vjp(x)[0] != Judge()(x))  # after an error too


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


def test_layers_that_come_later_keep_their_values(rng):
    """They may have been used already; what is appended while the model is made is drawn from its rng."""

    class Net(pyrnn.Model):
        def __init__(self, rng=None):
            super().__init__(rng=rng)
            self.layers = [pyrnn.Linear(3, 3)]
            self.layers.append(pyrnn.Linear(3, 3))

    model, twin = Net(0), Net(0)
    np.testing.assert_array_equal(model.params["layers.1.weight"], twin.params["layers.1.weight"])
    model.layers.append(pyrnn.Linear(3, 3))
    x = rng.standard_normal((2, 3)).astype("float32")
    before = model.layers[2](x)
    assert "layers.2.weight" in model.params
    np.testing.assert_array_equal(model.layers[2](x), before)
