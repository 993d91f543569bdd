"""Layers: what is called with arrays, has parameters, and gives gradients back."""

from .dropout import Dropout as Dropout
from .dropout import dropout_mask as dropout_mask
from .embedding import Embedding as Embedding
from .jordan import Jordan as Jordan
from .linear import Linear as Linear
from .norm import LayerNorm as LayerNorm
from .norm import LogSoftmax as LogSoftmax
from .ode import ODERNN as ODERNN
from .pooling import LastStep as LastStep
from .pooling import MaxOverTime as MaxOverTime
from .recurrent import GRU as GRU
from .recurrent import LSTM as LSTM
from .recurrent import RNN as RNN
from .recurrent import SLSTM as SLSTM
from .recurrent import IndRNN as IndRNN
from .recurrent import LayerNormLSTM as LayerNormLSTM
from .recurrent import MinGRU as MinGRU
from .recurrent import MinLSTM as MinLSTM
from .seq2seq import Decoder as Decoder
from .seq2seq import EncoderDecoder as EncoderDecoder
from .sequential import Sequential as Sequential
