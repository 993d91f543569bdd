"""Recurrent neural networks and associative memories on the CPU: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _command, _moved, data, kernels  # noqa: F401  _command before all others
from .core.model import Model
from .layers.dropout import Dropout
from .layers.embedding import Embedding
from .layers.linear import Linear
from .layers.recurrent import GRU, LSTM, RNN, SLSTM, IndRNN, LayerNormLSTM, MinGRU, MinLSTM
from .layers.sequential import Sequential
from .threads import get_num_threads, set_num_threads, threads

if TYPE_CHECKING:
    from . import baselines, metrics, parallel, plots, reference, sound, text
    from .associative.dense import DenseHopfield
    from .associative.hopfield import Hopfield
    from .associative.modern import ModernHopfield
    from .associative.net import CapacityWarning
    from .formats.json_models import from_json
    from .formats.keras_models import from_keras
    from .formats.native import load, save
    from .formats.onnx.export import to_onnx
    from .formats.onnx.model import from_onnx
    from .formats.torch_modules import from_torch, to_torch
    from .formats.weights import read_weights
    from .layers import init
    from .layers.activations import ELU, GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
    from .layers.attention import (
        AdditiveAttention,
        MultiheadAttention,
        PositionalEncoding,
        attention_weights,
        scaled_dot_product_attention,
        scaled_dot_product_attention_vjp,
    )
    from .layers.conv import Conv1d
    from .layers.crf import CRF
    from .layers.decoder import Decoder
    from .layers.fold import fold_batch_norms
    from .layers.graph import Graph, Merge
    from .layers.jordan import Jordan
    from .layers.learned_state import LearnedState
    from .layers.norm import BatchNorm1d, LayerNorm, LogSoftmax
    from .layers.ode import ODERNN
    from .layers.pooling import LastStep, MaxOverTime, MaxPool1d, MeanOverTime
    from .layers.population import Population
    from .layers.seq2seq import EncoderDecoder
    from .layers.transformer import TransformerEncoderLayer
    from .text import decoding, ngrams
    from .text.ctc import ctc
    from .training import schedules
    from .training.bptt import truncated_bptt
    from .training.fit import fit
    from .training.gradient_flow import GradientFlow, gradient_flow
    from .training.losses import (
        binary_cross_entropy,
        cross_entropy,
        hinge,
        mean_squared_error,
        negative_log_likelihood,
        pinball,
    )
    from .training.optim import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm, clip_grad_value

    __version__: str

__all__ = [
    "CRF",
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "ODERNN",
    "RNN",
    "SGD",
    "SLSTM",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdditiveAttention",
    "BatchNorm1d",
    "CapacityWarning",
    "Conv1d",
    "Decoder",
    "DenseHopfield",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "GradientFlow",
    "Graph",
    "Hopfield",
    "IndRNN",
    "Jordan",
    "LastStep",
    "LayerNorm",
    "LayerNormLSTM",
    "LeakyReLU",
    "LearnedState",
    "Linear",
    "LogSoftmax",
    "MaxOverTime",
    "MaxPool1d",
    "MeanOverTime",
    "Merge",
    "MinGRU",
    "MinLSTM",
    "Model",
    "ModernHopfield",
    "MultiheadAttention",
    "PReLU",
    "Population",
    "PositionalEncoding",
    "RMSprop",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "TransformerEncoderLayer",
    "__version__",
    "attention_weights",
    "baselines",
    "binary_cross_entropy",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "ctc",
    "data",
    "decoding",
    "fit",
    "fold_batch_norms",
    "from_json",
    "from_keras",
    "from_onnx",
    "from_torch",
    "get_num_threads",
    "gradient_flow",
    "hinge",
    "init",
    "kernels",
    "load",
    "mean_squared_error",
    "metrics",
    "negative_log_likelihood",
    "ngrams",
    "parallel",
    "pinball",
    "plots",
    "read_weights",
    "reference",
    "save",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_vjp",
    "schedules",
    "set_num_threads",
    "sound",
    "text",
    "threads",
    "to_onnx",
    "to_torch",
    "truncated_bptt",
]

# Modules, imported at the first use.
_LATER = ("baselines", "metrics", "ngrams", "parallel", "plots", "reference", "sound", "text")
_LATER_FROM = {  # functions and classes by their modules
    "associative.dense": ("DenseHopfield",),
    "associative.hopfield": ("Hopfield",),
    "associative.modern": ("ModernHopfield",),
    "associative.net": ("CapacityWarning",),
    "formats.json_models": ("from_json",),
    "formats.keras_models": ("from_keras",),
    "formats.native": ("load", "save"),
    "formats.onnx.export": ("to_onnx",),
    "formats.onnx.model": ("from_onnx",),
    "formats.torch_modules": ("from_torch", "to_torch"),
    "formats.weights": ("read_weights",),
    "layers.activations": ("ELU", "GELU", "LeakyReLU", "PReLU", "ReLU", "SiLU", "Sigmoid", "Softmax", "Tanh"),
    "layers.attention": (
        "AdditiveAttention",
        "MultiheadAttention",
        "PositionalEncoding",
        "attention_weights",
        "scaled_dot_product_attention",
        "scaled_dot_product_attention_vjp",
    ),
    "layers.conv": ("Conv1d",),
    "layers.crf": ("CRF",),
    "layers.decoder": ("Decoder",),
    "layers.fold": ("fold_batch_norms",),
    "layers.graph": ("Graph", "Merge"),
    "layers.jordan": ("Jordan",),
    "layers.learned_state": ("LearnedState",),
    "layers.norm": ("BatchNorm1d", "LayerNorm", "LogSoftmax"),
    "layers.ode": ("ODERNN",),
    "layers.pooling": ("LastStep", "MaxOverTime", "MaxPool1d", "MeanOverTime"),
    "layers.population": ("Population",),
    "layers.seq2seq": ("EncoderDecoder",),
    "layers.transformer": ("TransformerEncoderLayer",),
    "text.ctc": ("ctc",),
    "training.bptt": ("truncated_bptt",),
    "training.fit": ("fit",),
    "training.gradient_flow": ("GradientFlow", "gradient_flow"),
    "training.losses": (
        "binary_cross_entropy",
        "cross_entropy",
        "hinge",
        "mean_squared_error",
        "negative_log_likelihood",
        "pinball",
    ),
    "training.optim": ("Adagrad", "Adam", "AdamW", "RMSprop", "SGD", "clip_grad_norm", "clip_grad_value"),
}
_HOMES = {name: module for module, names in _LATER_FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    """What costs import time and is seldom asked for, made at the first use."""
    if name in _LATER or name in _moved.MOVED:
        import importlib

        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        import importlib

        found = globals()[name] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        return found
    if name == "__version__":
        from importlib.metadata import version

        return version("pyrnn-cpu")
    text = f"module 'pyrnn' has no attribute {name!r}"
    if not name.startswith("_"):
        from ._near import hint

        text += hint(name, __all__)
    raise AttributeError(text)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
