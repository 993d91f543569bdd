"""Batch normalisation as a part of the layer before or behind it, for inference."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.checks import Array, quietly, shown
from ..core.layer import Layer
from .conv import Conv1d
from .graph import INPUT, Graph
from .linear import Linear
from .norm import BatchNorm1d
from .sequential import Sequential

Wires = Mapping[str, Sequence[str]]  # of each layer whose results it takes, as in a Graph


def fold_batch_norms(model: Any) -> Any:
    """A copy of a Sequential or Graph for inference, with as few BatchNorm1d as can be: calls and streams give the same
    to rounding, in fewer steps.

    Each goes into the Conv1d, Linear or norm before it, or else into the one behind it; it stays where there is none,
    where others take that result too, and before a Conv1d whose zeros around x it does not see. Steps behind `lengths`
    are what the layer that is left makes of them. Models inside of it are folded too. TypeError for what is neither of
    them. `from_keras`, `from_json` and `from_onnx` give models that are folded.

        model = pyrnn.fold_batch_norms(pyrnn.from_torch(module))
    """
    if type(model) not in (Sequential, Graph):
        raise TypeError(f"fold_batch_norms: model is {shown(model)}, expected a Sequential or a Graph")
    return _folded(copy.deepcopy(model))


def in_line(names: Sequence[str]) -> dict[str, list[str]]:
    """The wires of layers one after the other."""
    return {name: [before] for before, name in zip([INPUT, *names], names, strict=False)}


@quietly
def folded(layers: Mapping[str, Any], wires: Wires) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Layers and their wires without the norms that can be parts of others. Layers that change are new."""
    readers = Counter(source for sources in wires.values() for source in sources)
    gone: dict[str, str] = {}  # norms, and the layers that give their results now
    kept: dict[str, Any] = {}
    left: dict[str, list[str]] = {}
    for name, sources in wires.items():
        layer, own = layers[name], [gone.get(source, source) for source in sources]
        layer = _folded(layer) if type(layer) in (Sequential, Graph) else layer
        before = kept.get(own[0]) if len(own) == 1 and readers[sources[0]] == 1 else None
        if type(layer) is BatchNorm1d and _takes(before, layer.num_features, behind=True):
            kept[own[0]] = _like(before, *behind(*_values(before), *_line(layer)))
            gone[name] = own[0]
        elif type(before) is BatchNorm1d and _takes(layer, before.num_features, behind=False):
            kept[name] = _like(layer, *ahead(*_values(layer), *_line(before), getattr(layer, "groups", 1)))
            del kept[own[0]]
            left[name] = left.pop(own[0])
        else:
            kept[name], left[name] = layer, own
    return kept, left


def _folded(model: Any) -> Any:
    layers = {name: value for name, value in model._attributes().items() if isinstance(value, Layer)}
    kept, wires = folded(layers, model.inputs if type(model) is Graph else in_line(list(layers)))
    return Sequential(**kept) if type(model) is Sequential else Graph(wires, **kept)


def line(mean: Array, variance: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array]:
    """What a norm multiplies by and adds, in float64."""
    scale = weight.astype(np.float64) / np.sqrt(variance.astype(np.float64) + eps)
    return scale, bias - mean * scale


def behind(weight: Array, bias: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """weight (O, ...) and bias (O,) of a product or convolution, with the line of each of its outputs behind it."""
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale + shift


def ahead(weight: Array, bias: Array, scale: Array, shift: Array, groups: int = 1) -> tuple[Array, Array]:
    """weight (O, I / groups, ...) and bias (O,), with the line of each of its inputs before it; a convolution's that
    sees no padding."""
    # Each output meets the features of its group.
    scale, shift = (np.repeat(part.reshape(groups, -1), len(weight) // groups, axis=0) for part in (scale, shift))
    kernel = weight.reshape(*weight.shape[:2], -1)
    moved = bias + np.einsum("oik,oi->o", kernel, shift)
    return (kernel * scale[:, :, None]).reshape(weight.shape), moved


def _takes(layer: Any, features: int, behind: bool) -> bool:
    """Whether a norm of so many features that stands behind it, or before it, can be a part of it."""
    if type(layer) is BatchNorm1d:
        return behind and features == layer.num_features
    if type(layer) is Linear:
        return layer._table is None and features == (layer.out_features if behind else layer.in_features)
    if type(layer) is Conv1d:
        return features == (layer.out_channels if behind else layer.in_channels) and (behind or layer.padding == 0)
    return False


def _line(norm: BatchNorm1d) -> tuple[Array, Array]:
    return line(norm.running_mean, norm.running_var, norm.params["weight"], norm.params["bias"], norm.eps)


def _values(layer: Any) -> tuple[Array, Array]:
    weight = layer.params["weight"].astype(np.float64)
    bias = layer.params.get("bias")
    return weight, np.zeros(len(weight)) if bias is None else bias.astype(np.float64)


def _like(layer: Any, weight: Array, bias: Array) -> Layer:
    """A layer of the same arguments with these values."""
    config = layer.config()
    like: Layer = type(layer)(**config | {"bias": True} if "bias" in config else config)
    like.load_state_dict(layer.state_dict() | {"weight": weight, "bias": bias})
    return like
