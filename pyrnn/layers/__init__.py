"""Layers: what is called with arrays, has parameters, and gives gradients back."""

from .dropout import Dropout
from .embedding import Embedding
from .jordan import Jordan
from .linear import Linear
from .norm import LayerNorm, LogSoftmax
from .ode import ODERNN
from .pooling import LastStep, MaxOverTime
from .recurrent import GRU, LSTM, RNN, SLSTM, IndRNN, MinGRU, MinLSTM
from .seq2seq import Decoder, EncoderDecoder
from .sequential import Sequential

__all__ = [
    "GRU",
    "LSTM",
    "ODERNN",
    "RNN",
    "SLSTM",
    "Decoder",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "IndRNN",
    "Jordan",
    "LastStep",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "MaxOverTime",
    "MinGRU",
    "MinLSTM",
    "Sequential",
]
