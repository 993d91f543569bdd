"""Batch normalisation as a part of the layer before or behind it, for inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.checks import Array, quietly
from ..core.layer import Layer
from .conv import Conv1d
from .linear import Linear
from .norm import BatchNorm1d


@quietly
def fold_batch_norms(layers: Sequence[Layer]) -> list[Layer]:
    """Layers that one after the other compute what these do when they are called, with as few BatchNorm1d as can be:
    each goes into the Conv1d or Linear before it, or else into the one behind it. Those are new; the others are the
    same objects, also a BatchNorm1d between others, or before a Conv1d whose zeros around x it does not see.

        model = pyrnn.Sequential(*fold_batch_norms([conv, norm, pyrnn.ReLU(), head]))
    """
    out: list[Layer] = []
    for layer in layers:
        before = out[-1] if out else None
        if isinstance(layer, BatchNorm1d) and _takes(before, layer.num_features, behind=True):
            out[-1] = _with_norm_behind(before, layer)
        elif isinstance(before, BatchNorm1d) and _takes(layer, before.num_features, behind=False):
            out[-1] = _with_norm_before(before, layer)
        else:
            out.append(layer)
    return out


def _takes(layer: Any, features: int, behind: bool) -> bool:
    """Whether a norm of so many features that stands behind it, or before it, can be a part of it."""
    if type(layer) is Linear:
        return layer._table is None and features == (layer.out_features if behind else layer.in_features)
    if type(layer) is Conv1d:
        return features == (layer.out_channels if behind else layer.in_channels) and (behind or layer.padding == 0)
    return False


def _with_norm_behind(layer: Any, norm: BatchNorm1d) -> Layer:
    scale, shift = _line(norm)
    weight, bias = _values(layer)
    return _like(layer, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale + shift)


def _with_norm_before(norm: BatchNorm1d, layer: Any) -> Layer:
    scale, shift = _line(norm)
    weight, bias = _values(layer)
    groups = getattr(layer, "groups", 1)
    # Each output meets the features of its group.
    scale, shift = (np.repeat(part.reshape(groups, -1), len(weight) // groups, axis=0) for part in (scale, shift))
    kernel = weight.reshape(*weight.shape[:2], -1)
    bias = bias + np.einsum("oik,oi->o", kernel, shift)
    return _like(layer, (kernel * scale[:, :, None]).reshape(weight.shape), bias)


def _line(norm: BatchNorm1d) -> tuple[Array, Array]:
    """What a call of the norm multiplies by and adds."""
    mean, variance, weight, bias = (
        array.astype(np.float64)
        for array in (norm.running_mean, norm.running_var, norm.params["weight"], norm.params["bias"])
    )
    scale = weight / np.sqrt(variance + norm.eps)
    return scale, bias - mean * scale


def _values(layer: Any) -> tuple[Array, Array]:
    weight = layer.params["weight"].astype(np.float64)
    return weight, layer.params["bias"].astype(np.float64) if layer.bias else np.zeros(len(weight))


def _like(layer: Any, weight: Array, bias: Array) -> Layer:
    """A layer of the same arguments with these values."""
    like: Layer = type(layer)(**layer.config() | {"bias": True})
    like.params.update({"weight": weight, "bias": bias})
    return like
