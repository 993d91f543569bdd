"""How right a classifier is: who is taken for whom, and F1."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._arrays import Array, any_array, boolean_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def confusions(
    said: Sequence[Hashable] | Array, true: Sequence[Hashable] | Array, classes: Sequence[Hashable]
) -> Array:
    """How often each class was taken for each: (C, C) int64, a row for each true class, a column for each said.

    said, true  N classes each, all among `classes`, whose order is that of the rows and columns

    ValueError where said and true are not of one length, or a class is not among `classes`.

        counts = pyrnn.metrics.confusions(["cat", "dog"], ["dog", "dog"], ["cat", "dog"])  # [[0, 0], [1, 1]]
    """
    if len(said) != len(true):
        raise ValueError(f"confusions: said has {len(said)} classes, true has {len(true)}")
    number = {name: k for k, name in enumerate(classes)}
    counts = np.zeros((len(number), len(number)), np.int64)
    for a, b in zip(said, true, strict=True):
        if a not in number or b not in number:
            raise ValueError(f"confusions: {(b if a in number else a)!r} is not among classes")
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
