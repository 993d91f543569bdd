"""The recurrent layers, a class for each cell: their arguments, and what they compute.

Letters: T steps, N batch rows, I input features, H hidden units, P projected size, L layers, D directions, G gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..cells import ACTIVATIONS, NONLINEARITIES
from ..core.checks import Array, Rng, boolean, choice, real

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
from .stack import Recurrent, StateT


class RNN(Recurrent[Array], cell="rnn"):
    """The recurrent network of Elman (1990): h' = act(W x + b_ih + R h + b_hh).

    nonlinearity: "tanh", "relu" or "sigmoid". Parameters as in torch.nn.RNN: weight_ih_l0 (H, I), weight_hh_l0 (H, H),
    bias_ih_l0 and bias_hh_l0 (H,), suffix _reverse. rng: None, an int seed or a numpy.random.Generator, for the initial
    values and dropout. TypeError and ValueError for arguments that make no layer.

    precision="bfloat16": both factors of every product, of the way back too, are rounded to bfloat16 (to nearest, of
    two as near to the even one, what is smaller than 2**-126 to 0); sums and all else are float32. Up to twice as
    fast where the CPU has an instruction for it, see the README. dtype float32 alone.

        layer = pyrnn.RNN(8, 16, nonlinearity="relu", rng=0)
        y, h = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), (1, N, H)
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        *, precision: str = "float32", dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        self.nonlinearity = choice(type(self).__name__, "nonlinearity", nonlinearity, NONLINEARITIES)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng,
            precision=precision,
        )  # fmt: skip


class LSTM(Recurrent["tuple[Array, Array]"], cell="lstm"):
    """The long short-term memory of Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000).

    The state is (h, c). Parameters as in torch.nn.LSTM, gates i, f, g, o: weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H
    or P), bias_ih_l0 and bias_hh_l0 (4*H,), suffix _reverse. proj_size P > 0 adds weight_hr_l0 (P, H) and makes h P
    wide (Sak et al. 2014); peephole adds weight_ch_l0 (3*H,), order i, f, o: i and f see the old cell state, o the new
    one (Gers et al. 2002).

    activation is the function of the candidate g and of c' on its way out: "tanh", "relu", "sigmoid", "softsign" or
    "identity"; gate_activation that of the gates: "sigmoid", "hard_sigmoid" = clip(0.2 a + 0.5, 0, 1) as in Keras 1 and
    2 and ONNX, or "hard_sigmoid_6" = clip(a / 6 + 0.5, 0, 1) as in Keras 3 and torch. precision, rng and errors as in
    RNN.

        layer = pyrnn.LSTM(8, 16, num_layers=2, rng=0)
        y, (h, c) = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), ((2, N, H), (2, N, H))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
        *, peephole: bool = False, activation: str = "tanh", gate_activation: str = "sigmoid",
        precision: str = "float32", dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        self.activation, self.gate_activation = _activations(type(self).__name__, activation, gate_activation)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng,
            proj_size, peephole, precision,
        )  # fmt: skip


def _activations(call: str, activation: str, gate_activation: str) -> tuple[str, str]:
    given = {"activation": activation, "gate_activation": gate_activation}
    of_cell, of_gates = (choice(call, name, value, ACTIVATIONS[name]) for name, value in given.items())
    return of_cell, of_gates


class GRU(Recurrent[Array], cell="gru"):
    """The gated recurrent unit of Cho et al. (2014).

    Parameters as in torch.nn.GRU, gates r, z, n: weight_ih_l0 (3*H, I), weight_hh_l0 (3*H, H), bias_ih_l0 and
    bias_hh_l0 (3*H,), suffix _reverse. reset_after=True is the GRU of torch, cuDNN and Keras' default, where the reset
    gate acts on the recurrent product; False is that of the paper (and ONNX' default), where it acts on h before the
    product: n = tanh(W x + b_ih + R (r*h) + b_hh). The two cannot be converted into each other. activation is the
    function of the candidate n, gate_activation that of the gates, see LSTM. precision, rng and errors as in RNN.

        layer = pyrnn.GRU(8, 16, bidirectional=True, rng=0)
        y, h = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, 2*H), (2, N, H)
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
        *, reset_after: bool = True, activation: str = "tanh", gate_activation: str = "sigmoid",
        precision: str = "float32", dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        self.reset_after = boolean(type(self).__name__, "reset_after", reset_after)
        self.activation, self.gate_activation = _activations(type(self).__name__, activation, gate_activation)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng,
            precision=precision,
        )  # fmt: skip


class IndRNN(Recurrent[Array], cell="indrnn"):
    """The independently recurrent network of Li et al. (2018): h' = act(W x + b + u * h), no unit sees another.

    nonlinearity: "relu", "tanh" or "sigmoid". Parameters: weight_ih_l0 (H, I), weight_hh_l0 = u (H,), bias_ih_l0 (H,),
    suffix _reverse. Everything else as in RNN.

        layer = pyrnn.IndRNN(8, 16, num_layers=2, rng=0)
        y, h = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), (2, N, H)
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "relu", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        *, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        self.nonlinearity = choice(type(self).__name__, "nonlinearity", nonlinearity, NONLINEARITIES)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)


class _WithoutOptions(Recurrent[StateT]):
    """A layer whose cell has no options."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
        *, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)


class MinGRU(_WithoutOptions[Array], cell="mingru"):
    """The minimal GRU of Feng et al. (2024), whose gates see x alone: z = sigmoid(a_z), h' = (1 - z) * h + z * a_n.

    Parameters, gates z, n: weight_ih_l0 (2*H, I), bias_ih_l0 (2*H,), suffix _reverse; a = W x + b. There is no product
    of h, so steps are cheap. Everything else as in RNN.

        layer = pyrnn.MinGRU(8, 16, rng=0)
        y, h = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), (1, N, H)
    """


class MinLSTM(_WithoutOptions[Array], cell="minlstm"):
    """The minimal LSTM of Feng et al. (2024), whose gates see x alone: h' = (f * h + i * a_n) / (f + i).

    i and f are sigmoids of a_i and a_f, a = W x + b; where both are 0 their share is what their logarithms say.
    Parameters, gates i, f, n: weight_ih_l0 (3*H, I), bias_ih_l0 (3*H,), suffix _reverse. Everything else as in RNN.

        layer = pyrnn.MinLSTM(8, 16, rng=0)
        y, h = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), (1, N, H)
    """


class LayerNormLSTM(Recurrent["tuple[Array, Array]"], cell="layernormlstm"):
    """The LSTM with layer normalisation of Ba, Kiros & Hinton (2016, arXiv:1607.06450, equations 20 to 22).

    The state is (h, c). N makes mean 0 and variance 1 of a row's numbers, all gates' or all of c':

        a = norm_ih * N(W x) + norm_hh * N(R h) + b, N(v) = (v - mean v) / sqrt(mean (v - mean v)^2 + eps)
        c' = sigmoid(a_f) * c + sigmoid(a_i) * tanh(a_g), h' = sigmoid(a_o) * tanh(norm_c * N(c') + bias_c)

    Where the numbers of a row hardly vary, as W x where x is all but zero, N enlarges their rounding errors, by up to
    1/sqrt(eps). Parameters, gates i, f, g, o: weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H), norm_ih_l0, norm_hh_l0 and
    bias_ih_l0 (4*H,), norm_c_l0 and bias_c_l0 (H,), suffix _reverse; norms start at 1, bias_c at 0. bias=False leaves
    out bias_ih alone. Everything else as in RNN.

        layer = pyrnn.LayerNormLSTM(8, 16, rng=0)
        y, (h, c) = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), ((1, N, H), (1, N, H))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
        *, eps: float = 1e-5, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        self.eps = real(type(self).__name__, "eps", eps, 0, float(np.finfo(np.float32).max))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)


class SLSTM(_WithoutOptions["tuple[Array, ...]"], cell="slstm"):
    """The sLSTM of Beck et al. (2024, arXiv:2405.04517): exponential gates and a stabilising state m.

    The state is (h, c, n, m), zeros by default, and gradients reach all of it:

        l = log sigmoid(a_f) + m, m' = max(l, a_i), i = exp(a_i - m'), f = exp(l - m')
        c' = f * c + i * tanh(a_g), n' = f * n + i, h' = sigmoid(a_o) * c' / n'

    a = W x + b_ih + R h + b_hh. A unit with n = 0 has no past: m' = a_i and f = 0. Parameters, gates i, f, g, o:
    weight_ih_l0 (4*H, I), weight_hh_l0 (4*H, H), bias_ih_l0 and bias_hh_l0 (4*H,), suffix _reverse. Everything else as
    in RNN.

        layer = pyrnn.SLSTM(8, 16, rng=0)
        y, (h, c, n, m) = layer(np.ones((5, 3, 8)))  # (T, N, I) -> (T, N, H), 4 of (1, N, H)
    """
