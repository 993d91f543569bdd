"""torch's modules as layers, and layers as torch's modules, with their values."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ..cells import ACTIVATIONS, CELLS
from ..core.checks import Array, any_array, cut, shown
from ..core.config import children
from ..core.layer import Layer, refuse_fewer_bits
from ..layers.activations import ELU, GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from ..layers.attention.multihead import MultiheadAttention
from ..layers.conv import Conv1d
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.linear import Linear
from ..layers.norm import BatchNorm1d, LayerNorm, LogSoftmax
from ..layers.pooling import MaxPool1d
from ..layers.recurrent import GRU, LSTM, RNN
from ..layers.sequential import Sequential
from ..layers.stack import LAYERS
from ..layers.transformer import TransformerEncoderLayer

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


def _transformer(module: Any) -> dict[str, Any]:
    attention, activation = module.self_attn, getattr(module.activation, "__name__", shown(module.activation))
    if activation not in ("relu", "gelu"):
        raise ValueError(f"it has activation={activation}, expected relu or gelu")
    for norm in (module.norm1, module.norm2):
        _refuse(norm, eps=1e-5)
    if module.linear1.bias is None:
        raise ValueError("it has bias=False, which no layer here has")
    return _named(attention, "embed_dim", "num_heads", "batch_first") | {
        "dim_feedforward": module.linear1.out_features, "dropout": module.dropout.p, "activation": activation,
        "norm_first": module.norm_first,
    }  # fmt: skip


def _conv(module: Any) -> dict[str, Any]:
    _refuse(module, padding_mode="zeros")
    found = {name: _only(module, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    found["padding"] = 0 if found["padding"] == "valid" else found["padding"]
    return _named(module, "in_channels", "out_channels", "groups") | found | {"bias": module.bias is not None}


def _batch_norm(module: Any) -> dict[str, Any]:
    _refuse(module, affine=True, track_running_stats=True)
    for name in ("momentum", "bias"):
        if getattr(module, name) is None:
            raise ValueError(f"it has {name}={'None' if name == 'momentum' else 'False'}, which no layer here has")
    return _named(module, "num_features", "eps", "momentum")


def _max_pool(module: Any) -> dict[str, Any]:
    found = {name: _only(module, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    for name, usual in (("padding", 0), ("dilation", 1)):
        if found.pop(name) != usual:
            _refuse(module, **{name: usual})
    _refuse(module, return_indices=False)
    return found | _named(module, "ceil_mode")


def _only(module: Any, name: str) -> Any:
    """An argument for each of one axes."""
    value = getattr(module, name)
    return value[0] if isinstance(value, tuple) else value


def _nothing(module: Any) -> dict[str, Any]:
    return {}


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
    "TransformerEncoderLayer": (TransformerEncoderLayer, _transformer),
    "Conv1d": (Conv1d, _conv),
    "BatchNorm1d": (BatchNorm1d, _batch_norm),
    "MaxPool1d": (MaxPool1d, _max_pool),
    "Dropout": (Dropout, lambda module: {"p": module.p}),
    "ReLU": (ReLU, _nothing),
    "LeakyReLU": (LeakyReLU, lambda module: {"slope": module.negative_slope}),
    "PReLU": (PReLU, lambda module: {"n": module.num_parameters}),
    "ELU": (ELU, lambda module: {"alpha": module.alpha}),
    "GELU": (GELU, lambda module: {"approximate": module.approximate}),
    "SiLU": (SiLU, _nothing),
    "Tanh": (Tanh, _nothing),
    "Sigmoid": (Sigmoid, _nothing),
    "Softmax": (Softmax, _nothing),
    "LogSoftmax": (LogSoftmax, _nothing),
}

# The axis that is last in torch, where it is not the same for any: here features always are.
TIME, FEATURES = "time", "features"
LAST = {"Conv1d": TIME, "MaxPool1d": TIME} | dict.fromkeys(
    (
        "RNN",
        "LSTM",
        "GRU",
        "RNNCell",
        "LSTMCell",
        "GRUCell",
        "Linear",
        "Embedding",
        "LayerNorm",
        "MultiheadAttention",
        "TransformerEncoderLayer",
    ),
    FEATURES,
)


def _behind(name: str, last: str, dim: int | None = -1) -> str:
    """What is last behind a module, where `last` (or "", unknown) is before it; ValueError where it would act on
    another axis than its layer. dim: of a softmax."""
    own = LAST.get(name, last)
    if name.endswith("Softmax"):
        own = last or FEATURES
        if dim not in ((1, -2) if own == TIME else (-1,)):
            raise ValueError(f"it has dim={dim}, where {own} are last; the softmax here is over the features")
    if last and own != last:
        raise ValueError(
            f"it acts on the last axis, where torch has {last} behind the layer before it, and not {own}: the model "
            "must turn them between the two, which a Sequential does not tell; take its parts one by one"
        )
    return own


def from_torch(source: Any, **config: Any) -> Any:
    """The layer that a module of torch's, or its state dict, is: the same values, and the same results to rounding.

    source  an nn.RNN, LSTM, GRU, those of pyrnn.torch, one of their cells, a Linear, Embedding, LayerNorm,
            MultiheadAttention, TransformerEncoderLayer, Conv1d, BatchNorm1d, MaxPool1d, Dropout, an activation, or a
            Sequential of these; or the state dict of one recurrent layer, cell or Linear, from a module or from
            `read_weights`
    config  arguments of the layer that are to be others than the module's, or that a state dict does not tell:
            `batch_first`, `nonlinearity` of an RNN. dtype is the module's, float32 for half precision. Of a Sequential
            those of all its layers that take them; TypeError for one that none of them takes

    Features are last here, also behind a Conv1d, where torch has time there: its (N, C, T) is (T, N, C), or (N, T, C)
    with batch_first. A layer of a Sequential that would therefore act on another axis, as a Linear behind a Conv1d, is
    refused.

    torch is not needed for a state dict of arrays. TypeError for what is neither, ValueError for a module that has no
    counterpart here and for a state dict that can be of several, with what it lacks.

        layer = pyrnn.from_torch(torch.nn.LSTM(8, 16, batch_first=True))
        layer = pyrnn.from_torch(pyrnn.read_weights("lstm.pt"), batch_first=True)
    """
    if isinstance(source, Mapping):
        kind, found, values = _told_by({str(name): _array(value) for name, value in source.items()}, config)
    else:
        if not hasattr(source, "state_dict") or not hasattr(source, "named_children"):
            hint = ", such as pyrnn.read_weights(path) reads" if isinstance(source, (str, os.PathLike)) else ""
            raise TypeError(
                f"from_torch: source is {shown(source)}, expected a module of torch.nn or a state dict{hint}"
            )
        if _is_sequential(source):
            _refuse_shared(source)
            _refuse_unknown(source, config)
            return _sequential(source, "", {"dtype": _dtype(source.state_dict().values())} | config)[0]
        layer, _ = _of_module(source, "", config)
        return layer
    layer = kind(**found | {"dtype": _dtype(values.values())} | config)
    layer.load_state_dict(values)
    return layer


def _of_module(source: Any, last: str, config: dict[str, Any]) -> tuple[Layer, str]:
    """The layer of a module, and what torch has last behind it; `last` is what it has before it."""
    name = type(source).__name__
    if not type(source).__module__.startswith(("torch.nn.", "pyrnn.torch.")) or name not in MODULES:
        parts = ", ".join(f"{part}=..." for part, _ in source.named_children())
        hint = (
            f". A model of its parts, pyrnn.Sequential({cut(parts)}), takes its state dict by load_state_dict, if they "
            "act one after the other ('Bring your model' in the documentation)"
        ) * bool(parts)
        raise ValueError(f"from_torch: {name} has no counterpart here; there is one for {', '.join(MODULES)}{hint}")
    kind, arguments = MODULES[name]
    try:
        last = _behind(name, last, getattr(source, "dim", -1))
        found = arguments(source)
    except ValueError as error:
        raise ValueError(f"from_torch: {name}: {error}") from None
    values = _with_layer({name: _array(value) for name, value in source.state_dict().items()})
    layer = kind(**found | {"dtype": _dtype(values.values())} | config)
    layer.load_state_dict(values)
    return layer, last


def _is_sequential(module: Any) -> bool:
    return type(module).__module__.startswith("torch.nn.") and type(module).__name__ == "Sequential"


def _arguments(name: str) -> Collection[str]:
    """Those of the layer that a module of this class becomes."""
    return inspect.signature(MODULES[name][0]).parameters if name in MODULES else ()


def _refuse_unknown(source: Any, config: Mapping[str, Any]) -> None:
    """TypeError for an argument that would be of no layer of a Sequential; but all may be told a dtype."""
    kinds = {type(module).__name__ for module in source.modules()}
    for argument in config:
        if argument != "dtype" and not any(argument in _arguments(name) for name in kinds):
            raise TypeError(f"from_torch: no layer of the Sequential takes {argument}={shown(config[argument])}")


def _refuse_shared(source: Any) -> None:
    """ValueError for a module with parameters that runs twice, and for a parameter that two of them have: torch's state
    dict has both names, a layer here one."""
    met: dict[int, str] = {}
    for name, module in source.named_modules(remove_duplicate=False):
        first = met.setdefault(id(module), name)
        if first != name and any(True for _ in module.parameters()):
            raise ValueError(
                f"from_torch: {name} of the Sequential is {first} again ({type(module).__name__}), with the same "
                "parameters, which its layers here would have twice; take its parts one by one"
            )
    parameters: dict[int, str] = {}
    for name, parameter in source.named_parameters(remove_duplicate=False):
        first = parameters.setdefault(id(parameter), name)
        if first != name:
            raise ValueError(
                f"from_torch: {name} of the Sequential is {first} again, which its layers here would have twice; take "
                "its parts one by one (a Linear shares an Embedding's table by weight=)"
            )


def _sequential(source: Any, last: str, config: dict[str, Any], place: str = "") -> tuple[Sequential, str]:
    """The layers of a Sequential, and what torch has last behind it; `last` is what it has before it, `place` where it
    is in the outermost one."""
    layers: dict[str, Any] = {}
    for child, module in source._modules.items():  # named_children() leaves out what is there again
        if _is_sequential(module):
            layers[child], last = _sequential(module, last, config, f"{place}{child}.")
            continue
        known = _arguments(type(module).__name__)
        own = {argument: value for argument, value in config.items() if argument in known}
        try:
            layers[child], last = _of_module(module, last, own)
        except ValueError as error:
            what = str(error).removeprefix("from_torch: ")
            raise ValueError(f"from_torch: {place}{child} of the Sequential: {what}") from error
    return Sequential(**layers), last


def _dtype(values: Iterable[Any]) -> str:
    """float64 where all values are, but for counts."""
    kinds = {str(value.dtype).removeprefix("torch.") for value in values}
    return "float64" if kinds - {"int64"} == {"float64"} else "float32"


def _array(value: Any) -> Array:
    """Of a tensor or an array; bfloat16, which NumPy has not, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    return any_array("from_torch", "source", value)


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
            f"from_torch: a state dict with {found} is not of one recurrent layer or Linear; "
            "make the layer, and layer.load_state_dict(state_dict, prefix=...) takes its part"
        )
    shape = shapes["weight"]
    if len(shape) != 2 or shapes.get("bias") != shape[:1]:
        several = (
            "LayerNorm's, an RMSNorm's, a GroupNorm's or a PReLU's" if len(shape) == 1 else "Linear's or an Embedding's"
        )
        beside = f"and a bias of shape {shapes['bias']}" if "bias" in shapes else "alone"
        raise ValueError(
            f"from_torch: a weight of shape {shape} {beside} may be a {several}, among others: make the layer, and "
            "layer.load_state_dict(state_dict)"
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

    A Conv1d, BatchNorm1d or MaxPool1d of torch's takes (N, C, T). ValueError for a layer that torch does not have: its
    name and what about it, for a Sequential in which a layer would act on another axis, and for what is quantized or of
    another precision than float32. ImportError without torch.

        module = pyrnn.to_torch(pyrnn.GRU(8, 16))
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("to_torch needs torch: pip install torch") from error
    if not isinstance(layer, Layer):
        raise TypeError(f"to_torch: layer is {shown(layer)}, expected a layer")
    refuse_fewer_bits("to_torch", layer)
    return _to_module(torch, layer, "")[0]


# What torch calls some arguments.
RENAMED = {
    "TransformerEncoderLayer": {"embed_dim": "d_model", "num_heads": "nhead"},
    "LayerNorm": {"size": "normalized_shape"},
    "LeakyReLU": {"slope": "negative_slope"},
    "PReLU": {"n": "num_parameters"},
}


def _to_module(torch: Any, layer: Layer, last: str) -> tuple[Any, str]:
    """A module, and what torch has last behind it; `last` is what it has before it."""
    name = type(layer).__name__
    if type(layer) is Sequential:
        sequential: Any = torch.nn.Sequential()
        for child, held in children(layer).items():
            module, last = _to_module(torch, held, last)
            sequential.add_module(child, module)
        return sequential, last
    if name not in MODULES or type(layer) is not MODULES[name][0]:
        raise ValueError(f"to_torch: torch has no {name}")
    config = layer.config()
    usual: dict[str, Any] = {
        "peephole": False, "reset_after": True, "precision": "float32", "num_kv_heads": config.get("num_heads"),
        "per_sequence": False, "is_causal": False,
    }  # fmt: skip
    if type(layer) in LAYERS.values():
        usual |= {argument: values[0] for argument, values in ACTIVATIONS.items()}
    for argument, value in usual.items():
        if argument in config and config[argument] != value:
            raise ValueError(f"to_torch: torch's {name} has no {argument}={shown(config[argument])}")
    config = {argument: value for argument, value in config.items() if argument not in usual}
    for argument, value in (("nonlinearity", "sigmoid"), ("padding", "causal")):
        if config.get(argument) == value:
            raise ValueError(f"to_torch: torch's {name} has no {argument}={value!r}")
    if name.endswith("Softmax"):
        config["dim"] = 1 if last == TIME else -1
    try:
        last = _behind(name, last, config.get("dim"))
    except ValueError as error:
        raise ValueError(f"to_torch: {name}: {error}") from None
    if name in ("Conv1d", "BatchNorm1d", "MaxPool1d", "Dropout"):
        del config["batch_first"]  # torch has rows first, channels second
    dtype = config.pop("dtype")
    if layer.num_parameters:
        config["dtype"] = getattr(torch, dtype)
    renamed = RENAMED.get(name, {})
    module = getattr(torch.nn, name)(**{renamed.get(argument, argument): value for argument, value in config.items()})
    module.load_state_dict({key: torch.from_numpy(value) for key, value in layer.state_dict().items()})
    return module, last
