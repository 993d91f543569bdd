"""torch's modules as layers, and layers as torch's modules, with their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..cells import ACTIVATIONS, CELLS
from ..core.checks import Array, cut, shown
from ..core.config import children
from ..core.layer import Layer
from ..layers.attention.multihead import MultiheadAttention
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.linear import Linear
from ..layers.norm import LayerNorm
from ..layers.recurrent import GRU, LSTM, RNN
from ..layers.sequential import Sequential
from ..layers.stack import LAYERS

# What a module of torch's and a layer of ours call the same.
_STACKED = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
_CELL = ("input_size", "hidden_size", "bias")


def _linear(module: Any) -> dict[str, Any]:
    return {"in_features": module.in_features, "out_features": module.out_features, "bias": module.bias is not None}


def _embedding(module: Any) -> dict[str, Any]:
    _refuse(module, max_norm=None, scale_grad_by_freq=False)
    return _named(module, "num_embeddings", "embedding_dim", "padding_idx")


def _layer_norm(module: Any) -> dict[str, Any]:
    _refuse(module, elementwise_affine=True)
    if len(module.normalized_shape) != 1:
        raise ValueError(
            f"it normalises over the axes {tuple(module.normalized_shape)}, a LayerNorm here over the last"
        )
    return {"size": module.normalized_shape[0], "eps": module.eps, "bias": module.bias is not None}


def _attention(module: Any) -> dict[str, Any]:
    _refuse(module, bias_k=None, add_zero_attn=False, dropout=0.0)
    bias = module.in_proj_bias is not None
    return _named(module, "embed_dim", "num_heads", "kdim", "vdim", "batch_first") | {"bias": bias}


def _named(module: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


def _refuse(module: Any, **usual: Any) -> None:
    for name, value in usual.items():
        if getattr(module, name) != value:
            raise ValueError(f"it has {name}={shown(getattr(module, name))}, which no layer here has")


# The class of torch.nn -> our class and, of a module, its arguments.
MODULES: dict[str, tuple[Callable[..., Layer], Callable[[Any], dict[str, Any]]]] = {
    "RNN": (RNN, lambda module: _named(module, *_STACKED, "nonlinearity")),
    "LSTM": (LSTM, lambda module: _named(module, *_STACKED, "proj_size")),
    "GRU": (GRU, lambda module: _named(module, *_STACKED)),
    "RNNCell": (RNN, lambda module: _named(module, *_CELL, "nonlinearity")),
    "LSTMCell": (LSTM, lambda module: _named(module, *_CELL)),
    "GRUCell": (GRU, lambda module: _named(module, *_CELL)),
    "Linear": (Linear, _linear),
    "Embedding": (Embedding, _embedding),
    "LayerNorm": (LayerNorm, _layer_norm),
    "MultiheadAttention": (MultiheadAttention, _attention),
    "Dropout": (Dropout, lambda module: {"p": module.p}),
}


def from_torch(source: Any, **config: Any) -> Any:
    """The layer that a module of torch's, or its state dict, is: the same values, and the same results to rounding.

    source  an nn.RNN, LSTM, GRU, one of their cells, a Linear, Embedding, LayerNorm, MultiheadAttention, Dropout, or a
            Sequential of these; or the state dict of one of the first seven, from a module or from `read_weights`
    config  arguments of the layer that are to be others than the module's, or that a state dict does not tell:
            `batch_first`, `nonlinearity` of an RNN. dtype is the module's, float32 for half precision

    torch is not needed for a state dict of arrays. TypeError for what is neither, ValueError for a module that has no
    counterpart here and for a state dict that can be of several, with what it lacks.

        layer = pyrnn.from_torch(torch.nn.LSTM(8, 16, batch_first=True))
        layer = pyrnn.from_torch(pyrnn.read_weights("lstm.pt"), batch_first=True)
    """
    if isinstance(source, Mapping):
        kind, found, values = _told_by({str(name): _array(value) for name, value in source.items()}, config)
    else:
        name = type(source).__name__
        if not hasattr(source, "state_dict") or not hasattr(source, "named_children"):
            raise TypeError(f"from_torch: source is {shown(source)}, expected a module of torch.nn or a state dict")
        if type(source).__module__.startswith("torch.nn.") and name == "Sequential":
            layers = {}
            for child, module in source.named_children():
                try:
                    layers[child] = from_torch(module)
                except ValueError as error:
                    raise ValueError(f"from_torch: {child} of the Sequential: {error}") from error
            return Sequential(**layers)
        if not type(source).__module__.startswith("torch.nn.") or name not in MODULES:
            raise ValueError(f"from_torch: {name} has no counterpart here; there is one for {', '.join(MODULES)}")
        kind, arguments = MODULES[name]
        try:
            found = arguments(source)
        except ValueError as error:
            raise ValueError(f"from_torch: {name}: {error}") from None
        values = _with_layer({name: _array(value) for name, value in source.state_dict().items()})
    dtypes = {value.dtype for value in values.values()}
    if dtypes and "dtype" not in config:
        found["dtype"] = "float64" if dtypes == {np.dtype("float64")} else "float32"
    layer = kind(**found | config)
    layer.load_state_dict(values)
    return layer


def _array(value: Any) -> Array:
    """Of a tensor or an array; bfloat16, which NumPy has not, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    return np.asarray(value)


def _with_layer(values: dict[str, Array]) -> dict[str, Array]:
    """A cell's names as those of a layer."""
    cell = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
    return {f"{name}_l0" if name in cell else name: value for name, value in values.items()}


def _told_by(
    values: dict[str, Array], config: Mapping[str, Any]
) -> tuple[Callable[..., Layer], dict[str, Any], dict[str, Array]]:
    """The class, the arguments and the values that a state dict is of."""
    values = _with_layer(values)
    shapes = {name: value.shape for name, value in values.items()}
    if "weight_ih_l0" in shapes:
        return *_recurrent(shapes, config), values
    known = {"weight", "bias"}
    if not shapes.keys() <= known or "weight" not in shapes:
        found = cut(", ".join(sorted(shapes)) or "nothing")
        raise ValueError(
            f"from_torch: a state dict with {found} is not of one recurrent layer, Linear or LayerNorm; "
            "make the layer, and layer.load_state_dict(state_dict, prefix=...) takes its part"
        )
    shape = shapes["weight"]
    if len(shape) == 1:
        return LayerNorm, {"size": shape[0], "bias": "bias" in shapes}, values
    if len(shape) != 2 or "bias" not in shapes:
        raise ValueError(
            f"from_torch: a weight of shape {shape} alone may be a Linear's or an Embedding's, among others: make the "
            "layer, and layer.load_state_dict(state_dict)"
        )
    return Linear, {"in_features": shape[1], "out_features": shape[0]}, values


def _recurrent(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> tuple[Callable[..., Layer], dict[str, Any]]:
    if any(len(shapes.get(name, ())) != 2 for name in ("weight_ih_l0", "weight_hh_l0")):
        raise ValueError("from_torch: weight_ih_l0 and weight_hh_l0 are not both matrices, as those of a layer are")
    rows, inputs = shapes["weight_ih_l0"]
    projected = shapes.get("weight_hr_l0")
    hidden = projected[-1] if projected else shapes["weight_hh_l0"][1]
    kinds = {len(CELLS[name].gates): kind for name, kind in LAYERS.items() if "torch" in CELLS[name].orders}
    kind = kinds.get(rows // hidden if hidden and rows % hidden == 0 else 0)
    if kind is None:
        times = ", ".join(f"{count} ({kinds[count].__name__})" for count in sorted(kinds))
        turned = ": it is transposed (Keras?)" if any(inputs == count * hidden for count in kinds if count > 1) else ""
        raise ValueError(
            f"from_torch: weight_ih_l0 has {rows} rows for {hidden} hidden units, not as many times {times}{turned}"
        )
    if kind is RNN and "nonlinearity" not in config:
        raise ValueError(
            "from_torch: an RNN's state dict does not tell its nonlinearity: nonlinearity='tanh' or 'relu'"
        )
    found = {
        "input_size": inputs,
        "hidden_size": hidden,
        "num_layers": sum(name.startswith("weight_ih_l") and not name.endswith("_reverse") for name in shapes),
        "bias": "bias_ih_l0" in shapes,
        "bidirectional": "weight_ih_l0_reverse" in shapes,
    }
    if projected:
        found["proj_size"] = projected[0]
    return kind, found


def to_torch(layer: Any) -> Any:
    """The module of torch's that a layer is, with copies of its values; `from_torch` of it has the same bits.

    ValueError for a layer that torch does not have: its name and what about it. ImportError without torch.

        module = pyrnn.to_torch(pyrnn.GRU(8, 16))
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("to_torch needs torch: pip install torch") from error
    if not isinstance(layer, Layer):
        raise TypeError(f"to_torch: layer is {shown(layer)}, expected a layer")
    name = type(layer).__name__
    if type(layer) is Sequential:
        module: Any = torch.nn.Sequential()
        for child, held in children(layer).items():
            module.add_module(child, to_torch(held))
        return module
    if name not in MODULES or type(layer) is not MODULES[name][0]:
        raise ValueError(f"to_torch: torch has no {name}")
    config = layer.config()
    usual: dict[str, Any] = {
        "peephole": False, "reset_after": True, "num_kv_heads": config.get("num_heads"), "per_sequence": False,
        **{argument: values[0] for argument, values in ACTIVATIONS.items()},
    }  # fmt: skip
    for argument, value in usual.items():
        if argument in config and config[argument] != value:
            raise ValueError(f"to_torch: torch's {name} has no {argument}={shown(config[argument])}")
    config = {argument: value for argument, value in config.items() if argument not in usual}
    if config.get("nonlinearity") == "sigmoid":
        raise ValueError("to_torch: torch's RNN has no nonlinearity='sigmoid'")
    if name == "Dropout":
        return torch.nn.Dropout(config["p"])
    if name == "LayerNorm":
        config["normalized_shape"] = config.pop("size")
    module = getattr(torch.nn, name)(**config | {"dtype": getattr(torch, config["dtype"])})
    module.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in layer.params.items()})
    return module
