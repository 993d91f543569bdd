"""Where gradients go on their way back through the steps: a plain RNN lets them vanish or explode, gates need not.

    python -m pyrnn.examples.gradient_flow --plot flow.png

    x            noise, (T, N, I) = (100, 8, 4)
    L            the final hidden state along one direction, so |dL/dh_T| = 1
    norms        |dL/dh_t| at every step t, (T + 1, L, N): what is left of the gradient T - t steps before the end
    Jacobian     dh_T/dh_0, (H, H): its singular values are how much each direction of h_0 still matters at step T

In h_t = tanh(W h_t-1 + ...) every step multiplies by diag(1 - h^2) W: where W is small the gradient vanishes as a power
of the distance, where it is large it explodes (Bengio et al. 1994, Pascanu et al. 2013). An LSTM multiplies its cell by
the forget gate f instead, a GRU its state by z. With a bias of 0 these gates are half open, the gradient halves with
every step: gates alone cure nothing. They do where they are near 1, as training makes them, or as a bias does from the
start: log u, with u uniform in 1..T-1, remembers for about u steps (Tallec & Ollivier 2018). It takes two seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pyrnn
from pyrnn import plots

from . import count_option, lesson

INPUTS, ROWS = 4, 8


def layers(hidden: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    """The layers to compare, by what is special about each."""
    made: dict[str, Any] = {}
    for scale in (0.9, 2.0):
        rnn = made[f"RNN, W {scale:g} x orthogonal"] = pyrnn.RNN(INPUTS, hidden, dtype="float64", rng=rng)
        rnn.params["weight_hh_l0"] = scale * np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    memory = np.log(rng.uniform(1, steps - 1, hidden))  # a gate of sigmoid(log u) forgets 1 / (1 + u) at every step
    input_gate, gate = slice(0, hidden), slice(hidden, 2 * hidden)
    made["LSTM, forget gate's bias 0"] = pyrnn.LSTM(INPUTS, hidden, dtype="float64", rng=rng)
    lstm = made["LSTM, forget gate's bias log u"] = pyrnn.LSTM(INPUTS, hidden, dtype="float64", rng=rng)
    lstm.params["bias_ih_l0"][gate], lstm.params["bias_ih_l0"][input_gate] = memory, -memory
    made["GRU, update gate's bias 0"] = pyrnn.GRU(INPUTS, hidden, dtype="float64", rng=rng)
    gru = made["GRU, update gate's bias log u"] = pyrnn.GRU(INPUTS, hidden, dtype="float64", rng=rng)
    gru.params["bias_ih_l0"][gate] = memory
    return made


@lesson(__doc__)
@count_option("--hidden", 64, "Hidden units.", least=2)
@count_option("--steps", 100, "Steps T.", least=3)
def main(hidden: int, steps: int, plot: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, ROWS, INPUTS))
    flows = {name: pyrnn.gradient_flow(layer, x) for name, layer in layers(hidden, steps, rng).items()}
    halfway = steps // 2
    print(f"{'':<34}{f'|dL/dh_{halfway}|':>14}{'|dL/dh_0|':>14}   largest and median singular value of dh_{steps}/dh_0")
    for name, flow in flows.items():
        middle, start = (np.exp(np.log(flow.norms[t, 0]).mean()) for t in (halfway, 0))  # (N,) -> geometric mean
        values = np.median(flow.singular_values[0], axis=0)  # (N, H) -> (H,)
        print(f"{name:<34}{middle:>14.1e}{start:>14.1e}   {values[0]:.1e}, {np.median(values):.1e}")
    if plot:
        plots.gradient_flow(plot, flows, f"Gradients through {steps} steps, {hidden} units")


if __name__ == "__main__":
    main()
