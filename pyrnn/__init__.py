"""Recurrent neural networks and associative memories on the CPU: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _command, data, decoding, init, kernels, schedules  # noqa: F401  _command before all others
from .attention import (
    AdditiveAttention,
    MultiheadAttention,
    PositionalEncoding,
    attention_weights,
    scaled_dot_product_attention,
    scaled_dot_product_attention_vjp,
)
from .bptt import truncated_bptt
from .diagnostics import GradientFlow, gradient_flow
from .hopfield import CapacityWarning, DenseHopfield, Hopfield, ModernHopfield
from .jordan import Jordan
from .layers import Dropout, Embedding, LastStep, LayerNorm, Linear, LogSoftmax, MaxOverTime
from .losses import binary_cross_entropy, cross_entropy, hinge, mean_squared_error, negative_log_likelihood
from .ode import ODERNN
from .optim import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm, clip_grad_value
from .parameters import Model
from .recurrent import GRU, LSTM, RNN, SLSTM, IndRNN, LayerNormLSTM, MinGRU, MinLSTM
from .seq2seq import Decoder, EncoderDecoder
from .sequential import Sequential
from .threads import get_num_threads, set_num_threads, threads

if TYPE_CHECKING:
    from . import baselines, metrics, ngrams, plots, reference, text

    __version__: str

__all__ = [
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
    "CapacityWarning",
    "Decoder",
    "DenseHopfield",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "GradientFlow",
    "Hopfield",
    "IndRNN",
    "Jordan",
    "LastStep",
    "LayerNorm",
    "LayerNormLSTM",
    "Linear",
    "LogSoftmax",
    "MaxOverTime",
    "MinGRU",
    "MinLSTM",
    "Model",
    "ModernHopfield",
    "MultiheadAttention",
    "PositionalEncoding",
    "RMSprop",
    "Sequential",
    "__version__",
    "attention_weights",
    "baselines",
    "binary_cross_entropy",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "data",
    "decoding",
    "get_num_threads",
    "gradient_flow",
    "hinge",
    "init",
    "kernels",
    "mean_squared_error",
    "metrics",
    "negative_log_likelihood",
    "ngrams",
    "plots",
    "reference",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_vjp",
    "schedules",
    "set_num_threads",
    "text",
    "threads",
    "truncated_bptt",
]

_LATER = ("baselines", "metrics", "ngrams", "plots", "reference", "text")  # modules that are imported at the first use


def __getattr__(name: str) -> Any:
    """What costs import time and is seldom asked for, made at the first use."""
    if name in _LATER:
        import importlib

        return importlib.import_module(f".{name}", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version("pyrnn")
    raise AttributeError(f"module 'pyrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
