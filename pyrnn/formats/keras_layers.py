"""Keras' layers as layers here, with their values: each by what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..cells import CELLS
from ..core.checks import Array, shown
from ..core.layer import Layer
from ..layers.activations import ELU, GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from ..layers.conv import Conv1d
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.graph import Function, Merge
from ..layers.linear import Linear
from ..layers.norm import BatchNorm1d, LayerNorm, LogSoftmax
from ..layers.pooling import LastStep, MaxOverTime, MaxPool1d, MeanOverTime
from ..layers.stack import LAYERS, Recurrent
from .keras import snake

# What a layer says of itself that its results do not depend on: how it was trained, and how Keras computes it. A model
# that carries its state from call to call (stateful) is `stream` here.
OF_NO_INTEREST = {
    "name", "trainable", "dtype", "batch_input_shape", "batch_shape", "input_shape", "input_length", "input_dtype",
    "activity_regularizer", "dropout", "recurrent_dropout", "seed", "noise_shape", "implementation", "consume_less",
    "unit_forget_bias", "stateful", "unroll", "return_state", "zero_output_for_mask", "use_cudnn", "synchronized",
    "fused", "lora_rank", "input_spec", "shared_axes", "input_dim", "build_config",
    "renorm_momentum", "renorm_clipping",
}  # fmt: skip
ENDINGS = ("_initializer", "_regularizer", "_constraint")

ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "softsign": "softsign", "linear": "identity"}
PLAIN: dict[str, Callable[..., Layer]] = {
    "elu": ELU, "gelu": GELU, "log_softmax": LogSoftmax, "relu": ReLU, "sigmoid": Sigmoid, "silu": SiLU, "swish": SiLU,
    "softmax": Softmax, "tanh": Tanh,
}  # fmt: skip


class Own:
    """A layer of Keras: what is said of it and what it holds, which its converter takes piece by piece.

    kind     the name of its class
    options  its config
    arrays   by what they are: kernel, bias
    major    of the version of Keras, None where that is not known
    dtype, batch_first  of the layers that it becomes
    rank     the number of axes of what it takes, None where that is not known
    """

    def __init__(
        self, kind: str, options: Mapping[str, Any], arrays: Mapping[str, Array], major: int | None = None,
        dtype: str = "float32", batch_first: bool = True, rank: int | None = 3,
    ) -> None:  # fmt: skip
        self.kind, self.options, self.arrays, self.major = kind, dict(options), dict(arrays), major
        self.dtype, self.batch_first, self.rank = dtype, batch_first, rank

    def option(self, name: str, usual: Any = None) -> Any:
        """What its config says of something; what Keras takes where it says nothing."""
        return self.options.pop(name, usual)

    def only(self, name: str, *usual: Any) -> None:
        """ValueError where its config says something else than these, of which the first is what Keras takes."""
        value = self.option(name, usual[0])
        if value not in usual:
            raise ValueError(f"it has {name}={shown(value)}, which no layer here has")

    def number(self, name: str, usual: Any = None) -> int:
        """A number, which Keras may write as a list of one."""
        value = self.option(name, usual)
        value = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        if type(value) is not int:
            raise ValueError(f"its {name} is {shown(value)}, expected a number")
        return value

    def agree(self, name: str, found: int) -> None:
        """ValueError where its config says another size than that of its arrays."""
        said = self.option(name, found)
        if said != found:
            raise ValueError(f"it says {name}={shown(said)}, and its arrays are of {found}")

    def over_the_last(self) -> None:
        """ValueError where its axis is not the last."""
        axis = self.option("axis", -1)
        number = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        if number != -1 and (self.rank is None or number != self.rank - 1):
            raise ValueError(f"it has axis={shown(axis)}, expected the last")

    def array(self, name: str, *axes: int | None) -> Array:
        """One of its arrays, with this many axes, of these lengths where they are known."""
        if name not in self.arrays:
            raise ValueError(f"its {name} is missing")
        array = self.arrays.pop(name)
        if len(axes) != array.ndim or any(n not in (None, came) for n, came in zip(axes, array.shape, strict=True)):
            expected = f"({', '.join('...' if n is None else str(n) for n in axes)})"
            raise ValueError(f"its {name} has shape {array.shape}, expected {expected}")
        return array

    def bias(self, length: int) -> Array | None:
        """Its bias, if it has one."""
        found = "bias" in self.arrays
        if self.option("use_bias", found) is not found:
            raise ValueError(f"it says use_bias={not found}, and a bias is {'there' if found else 'missing'}")
        return self.array("bias", length) if found else None

    def finish(self) -> None:
        """ValueError for what nobody has asked for."""
        for name, value in self.options.items():
            if name not in OF_NO_INTEREST and not name.endswith(ENDINGS) and value is not None:
                raise ValueError(f"it has {name}={shown(value)}, which is not known here")
        if self.arrays:
            raise ValueError(f"it holds {', '.join(self.arrays)}, for which no layer here has a place")


Made = dict[str, Layer]  # what a layer of Keras becomes: layers by what they are, "" for the layer itself


def layers_of(own: Own) -> Made:
    """The layers that one of Keras becomes, in their order. ValueError for what has no counterpart here."""
    if own.kind not in CONVERTERS:
        raise ValueError(f"it has no counterpart here; there is one for {', '.join(CONVERTERS)}")
    made = CONVERTERS[own.kind](own)
    own.finish()
    return made


def loaded(layer: Any, **values: Array | None) -> Any:
    """The layer with these values."""
    layer.load_state_dict({name: value for name, value in values.items() if value is not None})
    return layer


# ---- recurrent layers


def cell_of(own: Own) -> tuple[Any, dict[str, Any], dict[str, Array]]:
    """The class of the layer, its arguments, and its values without the suffix of layer and direction."""
    name = own.kind.removeprefix("CuDNN").removeprefix("Simple").lower()
    cell = CELLS[name]
    count = len(cell.gates)
    recurrent = own.array("recurrent_kernel", None, None)
    units = len(recurrent)
    if recurrent.shape[1] != count * units:
        raise ValueError(f"its recurrent_kernel has shape {recurrent.shape}, expected {(units, count * units)}")
    kernel = own.array("kernel", None, count * units)
    own.agree("units", units)
    bias, size, resets = own.arrays.pop("bias", None), count * units, None
    if own.option("use_bias", bias is not None) is not (bias is not None):
        raise ValueError(f"it says use_bias={bias is None}, and a bias is {'missing' if bias is None else 'there'}")
    if bias is None:
        biases: tuple[Array, ...] = ()
    elif bias.shape == (2 * size,) and count > 1:  # CuDNN's layout
        kernel = np.hstack([part.T.reshape(part.shape, order="F") for part in np.hsplit(kernel, count)])
        recurrent = np.hstack([part.T for part in np.hsplit(recurrent, count)])
        biases, resets = (bias[:size], bias[size:]), True
    elif bias.shape == (2, size) and name == "gru":
        biases, resets = (bias[0], bias[1]), True
    elif bias.shape == (size,):
        biases, resets = (bias, np.zeros_like(bias)), False
    else:
        raise ValueError(f"its bias has shape {bias.shape}, expected {(size,)}")
    arguments = {"input_size": len(kernel), "hidden_size": units, "bias": bias is not None, "dtype": own.dtype}
    if name == "gru":
        said = own.option("reset_after", True if own.kind == "CuDNNGRU" else resets)
        if said is None:
            raise ValueError("reset_after, whether the reset gate acts behind the product or before it, is not told")
        if resets not in (None, said):
            raise ValueError(f"it says reset_after={said}, and its bias has shape {bias.shape}")  # type: ignore[union-attr]
        arguments["reset_after"] = said
    arguments |= _activations(own, name)
    for option in ("go_backwards", "time_major"):
        own.only(option, False)
    values = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    values |= dict(zip(("bias_ih", "bias_hh"), biases, strict=False))
    order = cell.orders["keras"]
    return LAYERS[name], arguments, {
        name: np.concatenate([np.split(value, count)[order.index(gate)] for gate in cell.gates])
        for name, value in values.items()
    }  # fmt: skip


def _activations(own: Own, name: str) -> dict[str, Any]:
    """The arguments for them."""
    said = own.option("activation", "tanh")
    if name == "rnn":
        if said not in ("tanh", "relu", "sigmoid"):
            raise ValueError(f"it has activation={shown(said)}, which no RNN here has")
        return {"nonlinearity": said}
    if not isinstance(said, str) or said not in ACTIVATIONS:
        raise ValueError(f"it has activation={shown(said)}, which no layer here has")
    gates = own.option("recurrent_activation", "sigmoid" if own.kind.startswith("CuDNN") else None)
    if gates is None:
        raise ValueError(
            "recurrent_activation is not told: 'hard_sigmoid' up to Keras 2.2, 'sigmoid' later, by default"
        )
    if gates == "hard_sigmoid":
        if own.major is None:
            raise ValueError("it has hard_sigmoid gates, which Keras 3 made others, and its version is not told")
        gates = "hard_sigmoid" if own.major < 3 else "hard_sigmoid_6"
    elif gates != "sigmoid":
        raise ValueError(f"it has recurrent_activation={shown(gates)}, which no layer here has")
    return {"activation": ACTIVATIONS[said], "gate_activation": gates}


def _recurrent(own: Own) -> Made:
    whole = own.option("return_sequences", False)
    kind, arguments, values = cell_of(own)
    layer: Recurrent[Any] = kind(**arguments, batch_first=own.batch_first)
    made: Made = {"": loaded(layer, **{f"{name}_l0": value for name, value in values.items()})}
    return made if whole else made | {"last": LastStep(batch_first=own.batch_first, dtype=own.dtype)}


def _bidirectional(own: Own) -> Made:
    own.only("merge_mode", "concat")
    forth, back = own.option("layer"), own.option("backward_layer")
    halves = []
    for name, said in (("forward", forth), ("backward", back or forth)):
        if not isinstance(said, Mapping) or said.get("class_name") not in RECURRENT:
            raise ValueError(f"its {name} layer is {shown(said)}, expected one of {', '.join(RECURRENT)}")
        options = dict(said.get("config", {}))
        if name == "backward" and back is not None and options.pop("go_backwards", True) is not True:
            raise ValueError("its backward layer does not go backwards")
        prefix = f"{name}/"
        arrays = {key[len(prefix) :]: own.arrays.pop(key) for key in list(own.arrays) if key.startswith(prefix)}
        half = Own(said["class_name"], options, arrays, own.major, own.dtype)
        whole = half.option("return_sequences", False)
        halves.append((whole, *cell_of(half)))
        half.finish()
    if halves[0][:3] != halves[1][:3]:
        raise ValueError("its two directions are not of one kind")
    whole, kind, arguments, _ = halves[0]
    values = {
        f"{name}_l0{suffix}": value
        for suffix, half in zip(("", "_reverse"), halves, strict=True)
        for name, value in half[3].items()
    }
    made: Made = {"": loaded(kind(**arguments, batch_first=own.batch_first, bidirectional=True), **values)}
    return (
        made if whole else made | {"last": LastStep(bidirectional=True, batch_first=own.batch_first, dtype=own.dtype)}
    )


# ---- the others


def _activated(own: Own) -> Made:
    """What its activation becomes."""
    said = own.option("activation", "linear")
    if callable(said):
        return {"activation": Function(said)}
    if said is None or said == "linear":
        return {}
    if said == "leaky_relu":
        return {"activation": LeakyReLU(0.2, dtype=own.dtype)}
    if not isinstance(said, str) or said not in PLAIN:
        raise ValueError(f"it has activation={shown(said)}; there are linear, leaky_relu, {', '.join(PLAIN)}")
    return {"activation": PLAIN[said](dtype=own.dtype)}


def _dense(own: Own) -> Made:
    kernel = own.array("kernel", None, None)
    inputs, units = kernel.shape
    own.agree("units", units)
    bias = own.bias(units)
    layer = Linear(inputs, units, bias is not None, dtype=own.dtype)
    return {"": loaded(layer, weight=kernel.T, bias=bias)} | _activated(own)


def _embedding(own: Own) -> Made:
    table = own.array("embeddings", None, None)
    own.agree("input_dim", len(table))
    own.agree("output_dim", table.shape[1])
    if own.option("mask_zero", False):
        raise ValueError(
            "it has mask_zero=True, a mask that goes from layer to layer, which none here does. With mask_zero=False "
            "in config it is read, and `lengths` of a call leave out what is behind the end"
        )
    own.only("sparse", False)
    return {"": loaded(Embedding(*table.shape, dtype=own.dtype), weight=table)}


def _conv(own: Own) -> Made:
    kernel = own.array("kernel", None, None, None)
    size, inputs, filters = kernel.shape
    own.agree("filters", filters)
    if own.number("kernel_size", size) != size:
        raise ValueError(f"its kernel has shape {kernel.shape}, and it says another kernel_size")
    groups = own.number("groups", 1)
    own.only("data_format", "channels_last", None)
    padding = own.option("padding", "valid")
    if padding not in ("valid", "same", "causal"):
        raise ValueError(f"its padding is {shown(padding)}, expected valid, same or causal")
    padding = 0 if padding == "valid" else padding
    stride, dilation = own.number("strides", 1), own.number("dilation_rate", 1)
    bias = own.bias(filters)
    layer = Conv1d(
        inputs * groups,
        filters,
        size,
        stride,
        padding,
        dilation,
        groups,
        bias is not None,
        own.batch_first,
        dtype=own.dtype,
    )
    return {"": loaded(layer, weight=kernel.transpose(2, 1, 0), bias=bias)} | _activated(own)


def _pool(own: Own) -> Made:
    size = own.number("pool_size", 2)
    stride = own.number("strides", size) if own.options.get("strides") is not None else size
    own.option("strides")
    own.only("data_format", "channels_last", None)
    padding = own.option("padding", "valid")
    if padding not in ("valid", "same"):
        raise ValueError(f"its padding is {shown(padding)}, expected valid or same")
    if padding == "same" and size > min(2, stride):
        raise ValueError("it has padding='same', with steps before the first, which no pooling here has")
    return {"": MaxPool1d(size, stride, own.batch_first, ceil_mode=padding == "same", dtype=own.dtype)}


def _over_time(kind: Callable[..., Layer]) -> Callable[[Own], Made]:
    def converter(own: Own) -> Made:
        own.only("data_format", "channels_last", None)
        own.only("keepdims", False)
        return {"": kind(batch_first=own.batch_first, dtype=own.dtype)}

    return converter


def _norm_values(own: Own, features: int) -> tuple[Array | None, Array | None]:
    gamma = own.array("gamma", features) if own.option("scale", "gamma" in own.arrays) else None
    beta = own.array("beta", features) if own.option("center", "beta" in own.arrays) else None
    own.over_the_last()
    return gamma, beta


def _batch_norm(own: Own) -> Made:
    mean = own.array("moving_mean", None)
    variance = own.array("moving_variance", len(mean))
    gamma, beta = _norm_values(own, len(mean))
    own.only("renorm", False)
    layer = BatchNorm1d(
        len(mean), own.option("epsilon", 1e-3), 1 - own.option("momentum", 0.99), own.batch_first, dtype=own.dtype
    )
    ones = np.ones(len(mean))
    return {
        "": loaded(
            layer,
            weight=ones if gamma is None else gamma,
            bias=0 * ones if beta is None else beta,
            running_mean=mean,
            running_var=variance,
        )
    }


def _layer_norm(own: Own) -> Made:
    named = own.arrays.get("gamma", own.arrays.get("beta"))
    if named is None:
        raise ValueError("it has neither gamma nor beta, which tell its size")
    gamma, beta = _norm_values(own, named.size)
    own.only("rms_scaling", False)
    layer = LayerNorm(named.size, own.option("epsilon", 1e-3), beta is not None, dtype=own.dtype)
    return {"": loaded(layer, weight=np.ones(named.size) if gamma is None else gamma, bias=beta)}


def _dropout(own: Own) -> Made:
    return {"": Dropout(own.option("rate", 0.5), dtype=own.dtype)}


def _spatial_dropout(own: Own) -> Made:
    return {"": Dropout(own.option("rate", 0.5), per_sequence=True, batch_first=own.batch_first, dtype=own.dtype)}


def _relu(own: Own) -> Made:
    own.only("max_value", None)
    own.only("threshold", 0, None)
    slope = own.option("negative_slope", 0)
    return {"": LeakyReLU(slope, dtype=own.dtype) if slope else ReLU(dtype=own.dtype)}


def _leaky_relu(own: Own) -> Made:
    return {"": LeakyReLU(own.option("negative_slope", own.option("alpha", 0.3)), dtype=own.dtype)}


def _prelu(own: Own) -> Made:
    alpha = own.arrays.pop("alpha", None)
    if alpha is None or alpha.size != alpha.shape[-1]:
        raise ValueError("its alpha differs from step to step, that of a PReLU here from feature to feature only")
    return {"": loaded(PReLU(alpha.size, dtype=own.dtype), weight=alpha.reshape(-1))}


def _elu(own: Own) -> Made:
    return {"": ELU(own.option("alpha", 1.0), dtype=own.dtype)}


def _softmax(own: Own) -> Made:
    own.over_the_last()
    return {"": Softmax(dtype=own.dtype)}


def _time_distributed(own: Own) -> Made:
    inner = own.option("layer")
    if not isinstance(inner, Mapping) or inner.get("class_name") not in ("Dense", "Activation"):
        raise ValueError(f"it is of {shown(inner)}, expected a Dense")
    half = Own(inner["class_name"], inner.get("config", {}), own.arrays, own.major, own.dtype)
    own.arrays = {}
    return layers_of(half)


def _merge(how: str) -> Callable[[Own], Made]:
    def converter(own: Own) -> Made:
        if how == "concatenate":
            own.over_the_last()
        return {"": Merge(how, dtype=own.dtype)}

    return converter


def _nothing(own: Own) -> Made:
    for name in ("sparse", "ragged", "optional"):
        own.only(name, False)
    return {}


RECURRENT = ("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU")
MERGES = ("Concatenate", "Add", "Subtract", "Multiply", "Average", "Maximum")
CONVERTERS: dict[str, Callable[[Own], Made]] = {
    **dict.fromkeys(RECURRENT, _recurrent),
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Embedding": _embedding,
    "Conv1D": _conv,
    "MaxPooling1D": _pool,
    "GlobalMaxPooling1D": _over_time(MaxOverTime),
    "GlobalAveragePooling1D": _over_time(MeanOverTime),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Dropout": _dropout,
    "SpatialDropout1D": _spatial_dropout,
    "Activation": _activated,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "PReLU": _prelu,
    "ELU": _elu,
    "Softmax": _softmax,
    "TimeDistributed": _time_distributed,
    "InputLayer": _nothing,
    **{name: _merge(name.lower()) for name in MERGES},
}

# The names of a layer's arrays in the order in which Keras 3 numbers them; those that are not there are left out.
_RNN = ("kernel", "recurrent_kernel", "bias")
ROLES: dict[str, Sequence[str]] = {
    **dict.fromkeys(RECURRENT, _RNN),
    "Bidirectional": _RNN,
    "Dense": ("kernel", "bias"),
    "Conv1D": ("kernel", "bias"),
    "TimeDistributed": ("kernel", "bias"),
    "Embedding": ("embeddings",),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "PReLU": ("alpha",),
}


def named(kind: str, options: Mapping[str, Any], weights: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of a layer by what they are, those of a Bidirectional with its direction in front, out of the names
    that they have in a file or in memory."""
    roles = list(ROLES.get(kind, ()))
    for option, role in (("scale", "gamma"), ("center", "beta")):
        if options.get(option) is False and role in roles:
            roles.remove(role)
    found: dict[str, Array] = {}
    for path, array in weights.items():
        *way, last = path.split("/")
        if "seed_generator" in way or last in ("seed_generator_state", "seed_generator_state:0"):
            continue  # of dropout
        name = last.removesuffix(":0")
        if name.isdecimal() and int(name) < len(roles):
            name = roles[int(name)]
        if kind == "Bidirectional":
            sides = [part.partition("_")[0] for part in way if part.startswith(("forward_", "backward_"))]
            if not sides:
                raise ValueError(f"of which direction its {path} is cannot be told")
            name = f"{sides[-1]}/{name}"
        if name in found:
            raise ValueError(f"two of its arrays are its {name}")
        found[name] = array
    return found


def kind_of(name: str, weights: Mapping[str, Array], numbered: bool) -> str | None:
    """The class of a layer of which there are arrays alone, None where they do not tell it."""
    if numbered:
        kinds = {snake(kind): kind for kind in CONVERTERS}
        return kinds.get(name) or kinds.get(name.rpartition("_")[0] if name.rpartition("_")[2].isdecimal() else name)
    arrays = {path.rpartition("/")[2].removesuffix(":0"): array for path, array in weights.items()}
    roles = arrays.keys()
    if {"kernel", "recurrent_kernel"} <= roles <= {*_RNN}:
        kernel, recurrent = arrays["kernel"], arrays["recurrent_kernel"]
        count = recurrent.shape[-1] / max(len(recurrent), 1)
        kind = {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}.get(int(count) if count == int(count) else 0)
        if any("forward_" in path for path in weights):
            return "Bidirectional"
        transposed = kind != "SimpleRNN" and "bias" in roles and arrays["bias"].shape == (2 * kernel.shape[-1],)
        return f"CuDNN{kind}" if kind and transposed else kind
    if "kernel" in roles and roles <= {"kernel", "bias"}:
        return {2: "Dense", 3: "Conv1D"}.get(arrays["kernel"].ndim)
    alone = {"embeddings": "Embedding", "moving_mean": "BatchNormalization", "alpha": "PReLU"}
    return next((kind for role, kind in alone.items() if role in roles), None)


def rank_behind(kind: str, options: Mapping[str, Any], rank: int | None) -> int | None:
    """The number of axes of what a layer gives, by that of what it takes."""
    shape = options.get("batch_input_shape", options.get("batch_shape"))
    if isinstance(shape, list):  # of the first layer
        rank = len(shape)
    if kind == "Embedding":
        return None if rank is None else rank + 1
    if kind in RECURRENT:
        return 3 if options.get("return_sequences") else 2
    if kind == "Bidirectional":
        return rank_behind("LSTM", options["layer"]["config"], rank)
    return 2 if kind.startswith("Global") else rank
