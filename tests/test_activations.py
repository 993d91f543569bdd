"""Activations: torch's values and slopes, the ends of their ranges, bad input. (Gradients: test_layers_between.py.)"""

import math

import numpy as np
import pytest
from cells import DTYPES

import pyrnn
from pyrnn.layers.activations import normal_probability

# Ours, and the arguments of torch's of the same name.
KINDS = {
    "ReLU": (pyrnn.ReLU, {}),
    "LeakyReLU": (lambda **o: pyrnn.LeakyReLU(0.2, **o), {"negative_slope": 0.2}),
    "ELU": (lambda **o: pyrnn.ELU(0.7, **o), {"alpha": 0.7}),
    "GELU": (pyrnn.GELU, {}),
    "GELU, tanh": (lambda **o: pyrnn.GELU("tanh", **o), {"approximate": "tanh"}),
    "SiLU": (pyrnn.SiLU, {}),
    "Tanh": (pyrnn.Tanh, {}),
    "Sigmoid": (pyrnn.Sigmoid, {}),
    "Softmax": (pyrnn.Softmax, {"dim": -1}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_slopes_are_those_of_torch(kind, dtype, rng):
    torch = pytest.importorskip("torch")
    make, arguments = KINDS[kind]
    x, dy = (rng.normal(0, 4, (40, 3, 5)).astype(dtype) for _ in range(2))
    x[0, 0] = 0
    theirs = torch.from_numpy(x).requires_grad_()
    expected = getattr(torch.nn, kind.split(",")[0])(**arguments)(theirs)
    expected.backward(torch.from_numpy(dy))
    layer = make(dtype=dtype)
    y, pullback = layer.vjp(x)
    for ours, other in ((y, expected.detach()), (pullback(dy), theirs.grad)):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, other.numpy(), rtol=0, atol=64 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(layer(x), y)
    assert layer(x.tolist()).dtype == dtype
    assert layer(x[0, 0, 0]).shape == () if kind != "Softmax" else True


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_of_the_range(kind, dtype):
    """No number overflows on the way, and NaN stays; where the slope is 0 it is 0, not NaN."""
    make, _ = KINDS[kind]
    layer = make(dtype=dtype)
    big = float(np.finfo(dtype).max) ** 0.5
    x = np.array([-big, -800, 800, big], dtype)
    if kind == "Softmax":
        np.testing.assert_array_equal(layer(x), [0, 0, 0, 1])
        np.testing.assert_array_equal(layer.vjp(x)[1](np.ones(4)), np.zeros(4))
        assert np.isnan(layer([1, np.nan])).all()
        return
    y, pullback = layer.vjp(x)
    below, above = {
        "LeakyReLU": (0.2 * x, x), "ELU": (np.full(4, -0.7), x), "Tanh": (np.full(4, -1), np.ones(4)),
        "Sigmoid": (np.zeros(4), np.ones(4)),
    }.get(kind, (np.zeros(4), x))  # fmt: skip
    np.testing.assert_allclose(y, [*below[:2], *above[2:]], rtol=1e-6)
    slopes = [0.2, 0.2, 1, 1] if kind == "LeakyReLU" else [0, 0, 0, 0] if kind in ("Tanh", "Sigmoid") else [0, 0, 1, 1]
    if kind != "GELU, tanh":  # whose cube is infinite
        np.testing.assert_allclose(pullback(np.ones(4)), slopes, rtol=1e-6)
    assert np.isnan(layer([np.nan, 1])).tolist() == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_slopes_are_exact(dtype):
    """Where 1 - y * y would have lost them."""
    far = 20.0 if dtype == "float64" else 9.0
    for layer, slope in (
        (pyrnn.Tanh(dtype=dtype), 1 / math.cosh(far) ** 2),
        (pyrnn.Sigmoid(dtype=dtype), math.exp(-far) / (1 + math.exp(-far)) ** 2),
    ):
        for x in (far, -far):
            assert layer.vjp([x])[1]([1.0])[0] == pytest.approx(slope, rel=8 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize(("dtype", "ulps"), [("float32", 6), ("float64", 6)])
def test_the_normal_distribution(dtype, ulps):
    """Against math.erfc; beyond, the square of x is rounded, and its exponential is off by that."""
    x = np.linspace(-12, 12, 2001).astype(dtype)
    expected = np.array([math.erfc(-float(v) / math.sqrt(2)) / 2 for v in x])
    error = np.abs(normal_probability(x) - expected) / expected
    assert np.all(error <= (ulps + x * x) * np.finfo(dtype).eps)
    ends = normal_probability(np.array([-np.inf, np.inf, np.nan, 0], dtype))
    np.testing.assert_array_equal(ends, [0, 1, np.nan, 0.5])


def test_relu_at_zero_and_prelu_at_its_kink():
    assert pyrnn.ReLU().vjp([0.0])[1]([1.0])[0] == 0
    layer = pyrnn.PReLU()
    y, pullback = layer.vjp([0.0, -2.0, 3.0])
    np.testing.assert_array_equal(y, [0, -0.5, 3])
    np.testing.assert_array_equal(pullback([1.0, 1.0, 1.0]), np.array([0.25, 0.25, 1], "f4"))
    np.testing.assert_array_equal(layer.grads["weight"], [-2])


def test_prelu_is_that_of_torch(rng):
    torch = pytest.importorskip("torch")
    for n in (1, 5):
        layer = pyrnn.PReLU(n, 0.3, dtype="float64")
        module = torch.nn.PReLU(n, 0.3, dtype=torch.float64)
        x, dy = rng.standard_normal((2, 40, 5))
        theirs = torch.from_numpy(x).requires_grad_()
        expected = module(theirs)
        expected.backward(torch.from_numpy(dy))
        y, pullback = layer.vjp(x)
        np.testing.assert_array_equal(y, expected.detach().numpy())
        np.testing.assert_array_equal(pullback(dy), theirs.grad.numpy())
        np.testing.assert_allclose(layer.grads["weight"], module.weight.grad.numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match=r"PReLU\.vjp: x has shape \(3, 4\), expected \(\.\.\., 5\)"):
        pyrnn.PReLU(5).vjp(np.ones((3, 4)))


def test_wrong_arguments():
    for call, error, message in [
        (lambda: pyrnn.LeakyReLU("0.1"), TypeError, "LeakyReLU: slope is '0.1', expected a number"),
        (lambda: pyrnn.LeakyReLU(math.nan), ValueError, "LeakyReLU: slope is nan"),
        (lambda: pyrnn.PReLU(0), ValueError, "PReLU: n is 0, expected at least 1"),
        (lambda: pyrnn.ELU(None), TypeError, "ELU: alpha is None, expected a number"),
        (lambda: pyrnn.GELU("erf"), ValueError, "GELU: approximate is 'erf', expected one of none, tanh"),
        (lambda: pyrnn.ReLU(dtype="float16"), ValueError, "ReLU: dtype is 'float16'"),
        (lambda: pyrnn.Softmax()(1.0), ValueError, r"Softmax: x has shape \(\), expected \(\.\.\., V\)"),
        (lambda: pyrnn.Softmax()(np.ones((3, 0))), ValueError, r"Softmax: x has shape \(3, 0\)"),
        (lambda: pyrnn.Tanh()(["a"]), TypeError, "Tanh: x has dtype"),
        (lambda: pyrnn.SiLU().vjp(np.ones(3, complex)), TypeError, r"SiLU\.vjp: x has dtype complex128"),
    ]:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_alone_and_among_others(kind, dtype, rng):
    layer = KINDS[kind][0](dtype=dtype)
    x, dy = (rng.normal(0, 3, (61, 5, 37)).astype(dtype) for _ in range(2))
    y, pullback = layer.vjp(x)
    dx = pullback(dy)
    for part in (np.s_[7], np.s_[3, 2], np.s_[5:9, 1:2]):
        one, pull = layer.vjp(x[part])
        np.testing.assert_array_equal(one, y[part])
        np.testing.assert_array_equal(pull(dy[part]), dx[part])
