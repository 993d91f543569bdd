"""Initial values: identity, orthogonal, the biases of gates."""

import numpy as np
import pytest
from cells import CELLS, FEW, VARIANTS, make_layer

import pyrnn
from pyrnn.layers.stack import LAYERS


@pytest.fixture(params=[name for name in FEW if CELLS[VARIANTS[name][0]].weights.get("weight_hh") == "GP"])
def layer(request):
    return make_layer(request.param, 3, 5, 2, proj_size=2, bidirectional=True, dtype="float64")


def blocks(layer):
    """The recurrent weights of each gate, (H, H) or (H, P)."""
    for name, param in layer.params.items():
        if name.startswith("weight_hh"):
            yield from param.reshape(-1, layer.hidden_size, param.shape[1])


def others(values, *changed):
    return {name: value for name, value in values.items() if not name.startswith(changed)}


def test_identity(layer):
    before = layer.state_dict()
    pyrnn.init.identity(layer, 0.5)
    for block in blocks(layer):
        np.testing.assert_array_equal(block, 0.5 * np.eye(*block.shape))
    assert not any(param.any() for name, param in layer.params.items() if name.startswith("bias"))
    for name, value in others(before, "weight_hh", "bias").items():
        np.testing.assert_array_equal(layer.params[name], value)


def test_a_relu_network_of_the_identity_sums_its_inputs(rng):
    layer = pyrnn.RNN(1, 4, nonlinearity="relu", dtype="float64", rng=0)
    pyrnn.init.identity(layer)
    layer.params["weight_ih_l0"] = np.ones((4, 1))
    x = rng.random((300, 2, 1))
    np.testing.assert_allclose(layer(x)[0][..., :1], x.cumsum(axis=0))


def test_orthogonal(layer):
    before = layer.state_dict()
    pyrnn.init.orthogonal(layer, 2.0, rng=1)
    found = list(blocks(layer))
    for block in found:
        np.testing.assert_allclose(block.T @ block, 4 * np.eye(block.shape[1]), atol=1e-12)
    assert len({block.tobytes() for block in found}) == len(found)
    for name, value in others(before, "weight_hh").items():
        np.testing.assert_array_equal(layer.params[name], value)
    again = layer.state_dict()
    pyrnn.init.orthogonal(layer, 2.0, rng=1)
    for name, value in again.items():
        np.testing.assert_array_equal(layer.params[name], value)


def test_orthogonal_matrices_have_either_sign():
    """Without the signs of R the diagonal of Q would nearly always be negative."""
    layer = pyrnn.GRU(1, 3, num_layers=40, rng=0)
    pyrnn.init.orthogonal(layer, rng=0)
    first = np.array([block[0, 0] for block in blocks(layer)])
    assert 0.3 < (first > 0).mean() < 0.7
    assert 0.3 < np.mean([np.linalg.det(block) > 0 for block in blocks(layer)]) < 0.7


def test_forget_gate_bias(rng):
    layer = pyrnn.LSTM(3, 5, num_layers=2, bidirectional=True, rng=0)
    before = layer.state_dict()
    pyrnn.init.forget_gate_bias(layer, 1.5)
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        both = layer.params["bias_ih" + suffix] + layer.params["bias_hh" + suffix]
        np.testing.assert_array_equal(both[5:10], np.full(5, 1.5, "f4"))
        for kind in ("bias_ih", "bias_hh"):
            for kept in (slice(5), slice(10, 20)):
                np.testing.assert_array_equal(layer.params[kind + suffix][kept], before[kind + suffix][kept])
    for name, value in others(before, "bias").items():
        np.testing.assert_array_equal(layer.params[name], value)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_chrono(name):
    layer = getattr(pyrnn, name)(3, 50, num_layers=2, bidirectional=True, dtype="float64", rng=0)
    before = layer.state_dict()
    pyrnn.init.chrono(layer, 101, rng=1)
    seen = set()
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        both = layer.params["bias_ih" + suffix] + layer.params["bias_hh" + suffix]
        steps = np.exp(both[50:100])  # the gate after the first is what keeps the state in both
        assert 1 <= steps.min() < 20
        assert 80 < steps.max() <= 100
        seen.add(steps.tobytes())
        if name == "LSTM":
            np.testing.assert_array_equal(both[:50], -both[50:100])
        kept = slice(100, None) if name == "LSTM" else np.r_[:50, 100:150]
        for kind in ("bias_ih", "bias_hh"):
            np.testing.assert_array_equal(layer.params[kind + suffix][kept], before[kind + suffix][kept])
    assert len(seen) == 4
    for key, value in others(before, "bias").items():
        np.testing.assert_array_equal(layer.params[key], value)


@pytest.mark.parametrize("cell", [name for name, record in CELLS.items() if record.keeps])
def test_the_gate_that_keeps_the_state(cell):
    """Without the product of the output: closed, no gradient goes from the state after a step to the one before."""
    layer = LAYERS[cell](2, 4, dtype="float64", rng=0)
    for name in CELLS[cell].recurrent():
        layer.params[name + "_l0"][:] = 0
    ones = (np.ones((1, 3, 4)),) * len(CELLS[cell].states)
    x, given, reached = np.random.default_rng(0).standard_normal((1, 3, 2)), ones if ones[1:] else ones[0], {}
    for bias in (-40, 40):
        gate = CELLS[cell].gates.index(CELLS[cell].keeps)
        layer.params["bias_ih_l0"][4 * gate : 4 * gate + 4] = bias
        dstate = layer.vjp(x, given)[1](None, given)[1]
        reached[bias] = max(np.abs(d).max() for d in (dstate if ones[1:] else (dstate,)))
    assert reached[-40] < 1e-12
    assert reached[40] > 1e-2


def test_chrono_remembers_about_so_many_steps():
    """Without inputs and recurrent weights the state of a GRU shrinks by the update gate at each step."""
    layer = pyrnn.GRU(1, 8, dtype="float64", rng=0)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        layer.params[name] = np.zeros_like(layer.params[name])
    pyrnn.init.chrono(layer, 50, rng=0)
    u = np.exp(layer.params["bias_ih_l0"][8:16])
    y, _ = layer(np.zeros((20, 1, 1)), np.ones((1, 1, 8)))
    np.testing.assert_allclose(y[-1, 0], (u / (1 + u)) ** 20)


def test_norms_start_at_1_and_what_is_added_behind_them_at_0():
    """Those of a layer-normalised LSTM (Ba et al. 2016), in every layer and direction; all else is drawn."""
    params = pyrnn.LayerNormLSTM(3, 5, 2, bidirectional=True, rng=0).params
    fixed = {"norm_ih": 1, "norm_hh": 1, "norm_c": 1, "bias_c": 0}
    for name, param in params.items():
        value = fixed.get(name.partition("_l")[0])
        assert (param == value).all() if value is not None else 0 < np.abs(param).max() <= 5**-0.5
