"""What the kernels do for several models, or with gradients of each row, at once: here one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Cut = Callable[[Any, int], Any]


def several_models(weights: Sequence[Any]) -> bool:
    """Whether they have an axis of models in front."""
    return isinstance(weights[0], np.ndarray) and weights[0].ndim == 3


def of_models(run: Callable[..., Any], count: int, x: Any, state: Any, weights: Any, given: dict[str, Any]) -> Any:
    """run(x, state, weights, **given) for each of so many models -> their results, and pullbacks if there are some, as
    one: with an axis of models in front."""
    axes = {"lengths": 1, "reset": 2}  # where they hold for all
    results = []
    for k in range(count):
        own = {name: value[k] if np.ndim(value) > axes.get(name, 9) else value for name, value in given.items()}
        out = given.get("out")
        results.append(run(x[k], _cut(state, k), _cut(weights, k), **{**own, "out": None if out is None else out[k]}))
    return _joined(results, lambda parts: np.stack(parts), _cut)


def of_rows(run: Callable[..., Any], x: Any, state: Any, weights: Any, given: dict[str, Any]) -> Any:
    """run(x, state, weights, **given) for each row (T, 1, I) -> results and pullback of all, gradients (N, ...)."""
    results = []
    for n in range(x.shape[1]):
        row = slice(n, n + 1)
        own = {
            "lengths": None if given["lengths"] is None else given["lengths"][row],
            **{name: None if given[name] is None else given[name][:, row] for name in ("reset", "out")},
        }
        start = None if state is None else tuple(None if part is None else part[row] for part in state)
        results.append(run(x[:, row], start, weights, **{**given, **own}))
    (ys, states), pulls = zip(*(result for result, _ in results), strict=True), [pull for _, pull in results]

    def pullback(dy: Any, dstate: Any, grads: Any, need_dx: bool = True) -> Any:
        backs = []
        for n, pull in enumerate(pulls):
            row = slice(n, n + 1)
            after = None if dstate is None else tuple(None if part is None else part[row] for part in dstate)
            backs.append(pull(None if dy is None else dy[:, row], after, _cut(grads, n), need_dx))
        dxs, dstates = zip(*backs, strict=True)
        return np.concatenate(dxs, axis=1) if need_dx else None, _concatenated(dstates)

    y = np.concatenate(ys, axis=1) if given["out"] is None else given["out"]
    return (y, _concatenated(states)), pullback


def _concatenated(states: Any) -> Any:
    return tuple(np.concatenate(parts) for parts in zip(*states, strict=True))


def _cut(value: Any, k: int) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_cut(entry, k) for entry in value)
    return None if value is None else value[k]


def _joined(results: Sequence[Any], join: Callable[..., Any], cut: Cut) -> Any:
    first = results[0]
    if isinstance(first, tuple):
        return tuple(_joined(parts, join, cut) for parts in zip(*results, strict=True))
    if not callable(first):
        return None if first is None else join(results)

    def pullback(dy: Any, dstate: Any, grads: Any, need_dx: bool = True) -> Any:
        backs = [pull(cut(dy, k), cut(dstate, k), cut(grads, k), need_dx) for k, pull in enumerate(results)]
        return _joined(backs, join, cut)

    return pullback
