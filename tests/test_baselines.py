"""Baselines of forecasts: their definitions, and that they see nothing after their origin."""

import numpy as np
import pytest

from pyrnn import baselines


def test_what_they_say():
    values = [1, 2, 3, 4, 5]
    assert baselines.ahead(values, 2).tolist() == [[2, 3], [3, 4], [4, 5]]
    assert baselines.persistence(values, 2).tolist() == [[1, 1], [2, 2], [3, 3]]
    np.testing.assert_array_equal(baselines.seasonal(values, 2, 3), [[np.nan, np.nan], [np.nan, 1], [1, 2]])


def test_a_linear_series_is_forecast_by_a_regression(rng):
    values = 100 * np.sin(np.arange(300) / 7)  # a sine is a regression on two values
    off = baselines.linear(values, 5, train=200) - baselines.ahead(values, 5)
    assert np.abs(off[200:]).max() < 1
    later = np.concatenate([values[:200], rng.normal(size=100)])
    np.testing.assert_array_equal(baselines.linear(later, 5, 200)[:195], baselines.linear(values, 5, 200)[:195])
    told = rng.normal(size=(300, 1))  # known a step before
    noise = np.concatenate([[0], 10 * np.cumsum(told)[:-1]])
    plain, knowing = (baselines.linear(noise, 1, 200, known) for known in (None, told))
    assert np.std((knowing - baselines.ahead(noise, 1))[200:]) < 0.1 * np.std((plain - baselines.ahead(noise, 1))[200:])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"ahead: values has shape \(2,\), expected \(T,\) of more than 2 steps"):
        baselines.ahead([1, 2], 2)
    with pytest.raises(ValueError, match="persistence: horizon is 0"):
        baselines.persistence([1, 2], 0)
    with pytest.raises(ValueError, match="seasonal: season is 1, expected at least 2"):
        baselines.seasonal([1, 2, 3], 2, 1)
    with pytest.raises(ValueError, match="linear: train is 2, expected at least 3"):
        baselines.linear([1, 2, 3, 4], 1, 2)
    with pytest.raises(ValueError, match=r"linear: known has shape \(3,\), expected \(4, F\)"):
        baselines.linear([1, 2, 3, 4], 1, 3, [1, 2, 3])
