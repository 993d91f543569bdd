"""Arrays of several models: with an axis of the models in front, cut into those of each, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..core.checks import Array, any_array, shape_error, shown


def views_of(flat: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Arrays (P, ...) in (P, n), one behind the other."""
    views, start = {}, 0
    for name, shape in shapes.items():
        end = start + int(np.prod(shape, dtype=np.int64))
        views[name] = flat[:, start:end].reshape(len(flat), *shape)
        start = end
    return views


def spread(call: str, name: str, value: Any, count: int, axes: int) -> Any:
    """An array-like of so many axes as that of all models; one with an axis more as it is."""
    if value is None:
        return None
    array = any_array(call, name, value)
    return np.broadcast_to(array, (count, *array.shape)) if array.ndim == axes else array


def owned(x: Array) -> Array:
    """A copy; what is the same for all models is copied once."""
    if len(x) > 1 and x.strides[0] == 0:
        return np.broadcast_to(kernels.copied(x[0]), x.shape)
    return kernels.copied(x)


def check_cut(call: str, name: str, value: Any, count: int) -> None:
    """ValueError for arrays without an axis of so many models in front, also in tuples."""
    if isinstance(value, (tuple, list)):
        for entry in value:
            check_cut(call, name, entry, count)
    elif isinstance(value, np.ndarray) and (value.ndim == 0 or len(value) != count):
        raise shape_error(call, name, value.shape, f"({count}, ...), one for each model")


def cut(value: Any, model: int) -> Any:
    """One model's part of what `check_cut` has seen."""
    if isinstance(value, np.ndarray):
        return value[model]
    if isinstance(value, (tuple, list)):
        return tuple(cut(entry, model) for entry in value)
    return value


def stacked(results: Sequence[Any]) -> Any:
    """The models' results as one of the same form: arrays and numbers with an axis of models in front."""
    first = results[0]
    if first is None:
        return None
    if isinstance(first, (tuple, list)):
        return tuple(stacked(entries) for entries in zip(*results, strict=True))
    if isinstance(first, dict):
        return {name: stacked([result[name] for result in results]) for name in first}
    if isinstance(first, (np.ndarray, np.generic, bool, int, float)):
        return np.stack([np.asarray(result) for result in results])
    raise TypeError(f"Population: a model gives {shown(first)}, expected arrays, numbers, None or tuples of them")
