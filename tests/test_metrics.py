"""Confusions and F1 against their definitions."""

import numpy as np
import pytest

import pyrnn
from pyrnn.metrics import best_f1, confusions, f1


def test_confusions_have_rows_of_the_true_classes():
    said, true = ["a", "b", "a", "c", "a"], ["a", "a", "b", "c", "b"]
    assert confusions(said, true, ["c", "a", "b"]).tolist() == [[1, 0, 0], [0, 1, 1], [0, 2, 0]]
    assert confusions(np.array(said), np.array(true), "cab").tolist() == confusions(said, true, "cab").tolist()
    assert confusions([], [], [0, 1]).tolist() == [[0, 0], [0, 0]]


def test_f1_is_the_harmonic_mean_of_precision_and_recall(rng):
    said, true = rng.random((2, 4, 50)) < 0.3
    precision, recall = np.mean(true[said]), np.mean(said[true])
    assert pyrnn.metrics.f1(said, true) == pytest.approx(2 / (1 / precision + 1 / recall))
    assert f1([True, False], [True, False]) == 1
    assert f1([False, False], [False, False]) == 0


def test_the_best_threshold_parts_what_scores_part(rng):
    true = np.arange(200) % 5 == 0
    assert best_f1(true + rng.random(200) / 2, true) == 1
    scores = rng.random(200)
    found = best_f1(scores, true)
    assert found == max(f1(scores > np.quantile(scores, q), true) for q in np.linspace(0.5, 0.95, 19)) < 1
    with pytest.raises(ValueError, match="best_f1: scores is empty"):
        best_f1([], [])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="said has 1 classes, true has 2"):
        confusions([0], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="'d' is not among classes"):
        confusions(["d"], ["a"], ["a"])
    with pytest.raises(ValueError, match="'d' is not among classes"):
        confusions(["a"], ["d"], ["a"])
    with pytest.raises(TypeError, match="f1: true has dtype int64, expected booleans"):
        f1([True], [1])
    with pytest.raises(ValueError, match=r"f1: true has shape \(2,\), expected \(1,\)"):
        f1([True], [True, False])


def test_confusions_of_a_class_that_comes_twice():
    with pytest.raises(ValueError, match="confusions: 'a' comes twice among classes"):
        confusions(["a"], ["a"], ["a", "b", "a"])
