"""tanh and sigmoid of the kernels, seen through an RNN of one unit: error in units in the last place, order, ends."""

import numpy as np
import pytest

from pyrnn import kernels

MOST_ULP = {"float32": 2.0, "float64": 4.0}
EXACT = {"tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


def activation(name, x):
    """act(x): the weight is 1, and there is nothing else."""
    weights = (np.ones((1, 1), x.dtype), np.zeros((1, 1), x.dtype), None, None)
    y, _ = kernels.rnn.forward(x[None, :, None], None, weights, nonlinearity=name)
    return y[0, :, 0]


def numbers(dtype, count=400_000):
    """Finite numbers from the lowest to the highest, evenly spread over the bit patterns, and all near 0.5625 and 0."""
    integer, top = (np.int32, np.float32(np.inf)) if dtype == "float32" else (np.int64, np.float64(np.inf))
    bits = np.linspace(0, int(top.view(integer)) - 1, count).astype(integer)
    near = np.array(0.5625, dtype).view(integer) + np.arange(-2000, 2000, dtype=integer)
    positive = np.unique(np.concatenate([bits, near, np.arange(2000, dtype=integer)])).view(dtype)
    return np.concatenate([-positive[::-1], positive])


@pytest.mark.parametrize("dtype", MOST_ULP)
@pytest.mark.parametrize("name", EXACT)
def test_error_and_order(name, dtype):
    x = numbers(dtype)
    y = activation(name, x)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64 if dtype == "float32" else np.longdouble))
        ulp = np.spacing(np.maximum(np.abs(exact).astype(dtype), np.finfo(dtype).smallest_subnormal))
        error = np.abs(y - exact) / ulp
    assert error.max() <= MOST_ULP[dtype], f"{error.max():.3f} ULP at {x[error.argmax()]!r}"
    assert np.all(np.diff(y) >= 0)


@pytest.mark.parametrize("dtype", MOST_ULP)
def test_ends(dtype):
    x = np.array([-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf, np.nan], dtype)
    tanh, sigmoid = activation("tanh", x), activation("sigmoid", x)
    np.testing.assert_array_equal(tanh, np.array([-1, -1, 0, 0, 1, 1, np.nan], dtype))
    np.testing.assert_array_equal(sigmoid, np.array([0, 0, 0.5, 0.5, 1, 1, np.nan], dtype))


@pytest.mark.parametrize("dtype", MOST_ULP)
def test_exponentials_down_to_the_smallest(dtype):
    """Through a softmax of 0 and x, down to where e^x is no normal number."""
    x = np.linspace(np.log(float(np.finfo(dtype).smallest_subnormal)), 0, 3000).astype(dtype)
    y = kernels.linear.activated(np.stack([np.zeros_like(x), x], axis=1), "softmax")
    exact = np.exp(x.astype(np.longdouble))
    exact = np.stack([1 / (1 + exact), exact / (1 + exact)], axis=1)
    assert np.all(np.abs(y - exact) <= 4 * np.spacing(exact.astype(dtype)))
