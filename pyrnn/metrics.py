"""How right a classifier is: who is taken for whom, and F1."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .core.checks import Array, any_array, boolean_array, numbers_array, refuse_hidden, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def confusions(
    said: Sequence[Hashable] | Array, true: Sequence[Hashable] | Array, classes: Sequence[Hashable]
) -> Array:
    """How often each class was taken for each: (C, C) int64, a row for each true class, a column for each said.

    said, true  N classes each, all among `classes`, whose order is that of the rows and columns

    ValueError where said and true are not of one length, a class is not among `classes`, or comes twice there.

        counts = pyrnn.metrics.confusions(["cat", "dog"], ["dog", "dog"], ["cat", "dog"])  # [[0, 0], [1, 1]]
    """
    refuse_hidden("confusions", "said", said)
    refuse_hidden("confusions", "true", true)
    if len(said) != len(true):
        raise ValueError(f"confusions: said has {len(said)} classes, true has {len(true)}")
    number = {name: k for k, name in enumerate(classes)}
    if len(number) < len(classes):
        twice = next(name for k, name in enumerate(classes) if number[name] != k)
        raise ValueError(f"confusions: {twice!r} comes twice among classes")
    counts = np.zeros((len(number), len(number)), np.int64)
    for a, b in zip(said, true, strict=True):
        if a not in number or b not in number:
            raise ValueError(f"confusions: {shown(b if a in number else a)} is not among classes")
        counts[number[b], number[a]] += 1
    return counts


def f1(said: ArrayLike, true: ArrayLike) -> float:
    """The harmonic mean of precision and recall of booleans of one shape: 2 x right / (said + true), 0 where none is.

    TypeError for what is not booleans, ValueError for shapes that differ.

        pyrnn.metrics.f1([True, True, False], [True, False, False])  # 0.667
    """
    shape = any_array("f1", "said", said).shape
    a, b = boolean_array("f1", "said", said, shape, str(shape)), boolean_array("f1", "true", true, shape, str(shape))
    return float(2 * np.sum(a & b) / max(a.sum() + b.sum(), 1))


def best_f1(scores: ArrayLike, true: ArrayLike) -> float:
    """The largest F1 that a threshold reaches: `f1` of scores above their quantiles 0.5, 0.525, ..., 0.95.

    scores, true  (T,) real numbers, (T,) booleans; errors as in `f1`

    Of the data it is judged by, so it flatters: it is for a baseline.

        pyrnn.metrics.best_f1([0.1, 0.9, 0.2, 0.3], [False, True, False, True])  # 1.0
    """
    array = numbers_array("best_f1", "scores", scores)
    if array.size == 0:
        raise ValueError("best_f1: scores is empty")
    return max(f1(array > threshold, true) for threshold in np.quantile(array, np.linspace(0.5, 0.95, 19)))
