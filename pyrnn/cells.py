"""What a cell is, but for its equations: one record each, which layers, initial values, benchmarks and tests read.

The compiled side says the same of itself (csrc/bindings/cells.cpp), and a test compares the two. Letters of a shape: I
inputs, H hidden units, P outputs (H without a projection), G all gates of all units; "3H" is 3 * H numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """A cell as data: CELLS has one for each, by its name in small letters.

    pyrnn.cells.CELLS["lstm"].shapes(8, 16)["weight_ih"]  # (64, 8)
    """

    gates: str  # a letter for each block of H rows of weight_ih, in this order
    states: dict[str, str]  # their widths; the first is the output
    weights: dict[str, str]  # their shapes, in the order in which ops take them
    optional: dict[str, str] = {}  # the weights that an argument of the layer brings  # noqa: RUF012
    options: dict[str, tuple[Any, ...]] = {}  # of the op, the default first  # noqa: RUF012
    orders: dict[str, str] = {}  # the gates in the order of other systems' files  # noqa: RUF012
    starts: dict[str, float] = {}  # of the weights that do not start at random  # noqa: RUF012
    keeps: str = ""  # the gate that keeps the state where it is open: of init.chrono and init.forget_gate_bias

    def shapes(self, inputs: int, hidden: int, outputs: int | None = None) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, of those that may be absent too.

        CELLS["gru"].shapes(8, 16)  # {"weight_ih": (48, 8), "weight_hh": (48, 16), ...}
        """
        sizes = {"I": inputs, "H": hidden, "P": outputs or hidden, "G": len(self.gates) * hidden}
        return {name: tuple(_length(part, sizes) for part in _parts(letters)) for name, letters in self.weights.items()}

    def widths(self, hidden: int, outputs: int | None = None) -> tuple[int, ...]:
        """Of the states.

        CELLS["lstm"].widths(16, 4)  # (4, 16), of h behind a projection and of c
        """
        return tuple((outputs or hidden) if letter == "P" else hidden for letter in self.states.values())

    def present(self, argument: Callable[[str], Any]) -> list[str]:
        """The names of the weights that are there, where argument(name) is what the layer was given.

        CELLS["rnn"].present({"bias": False}.get)  # ["weight_ih", "weight_hh"]
        """
        return [name for name in self.weights if name not in self.optional or argument(self.optional[name])]

    def recurrent(self) -> list[str]:
        """The names of the weights that the output of the step before meets: a matrix over P, or a number for each unit
        (a norm has such too, but these do not start at random).

            CELLS["indrnn"].recurrent()  # ["weight_hh"]
        """
        weights = self.weights.items()
        return [name for name, axes in weights if axes.endswith("P") or (axes == "H" and name not in self.starts)]


def _parts(letters: str) -> list[str]:
    """ "3H" -> ["3H"], "GI" -> ["G", "I"]."""
    parts, number = [], ""
    for letter in letters:
        if letter.isdigit():
            number += letter
        else:
            parts.append(number + letter)
            number = ""
    return parts


def _length(part: str, sizes: dict[str, int]) -> int:
    return int(part[:-1] or 1) * sizes[part[-1]]


NONLINEARITIES = ("tanh", "relu", "sigmoid")
ACTIVATIONS: dict[str, tuple[str, ...]] = {  # of gated cells
    "activation": ("tanh", "relu", "sigmoid", "softsign", "identity"),
    "gate_activation": ("sigmoid", "hard_sigmoid", "hard_sigmoid_6"),
}
_TWO_PRODUCTS = {"weight_ih": "GI", "weight_hh": "GP", "bias_ih": "G", "bias_hh": "G"}
_TWO_BIASES = {"bias_ih": "bias", "bias_hh": "bias"}
_ONE_BIAS = {"bias_ih": "bias"}

CELLS: dict[str, Cell] = {
    "lstm": Cell(
        gates="ifgo",
        states={"h": "P", "c": "H"},
        weights={**_TWO_PRODUCTS, "weight_hr": "PH", "weight_ch": "3H"},
        optional={**_TWO_BIASES, "weight_hr": "proj_size", "weight_ch": "peephole"},
        options=ACTIVATIONS,
        orders={"torch": "ifgo", "onnx": "iofg", "keras": "ifgo"},
        keeps="f",
    ),
    "gru": Cell(
        gates="rzn",
        states={"h": "P"},
        weights=_TWO_PRODUCTS,
        optional=_TWO_BIASES,
        options={"reset_after": (True, False), **ACTIVATIONS},
        orders={"torch": "rzn", "onnx": "zrn", "keras": "zrn"},
        keeps="z",
    ),
    "rnn": Cell(
        gates="h",
        states={"h": "P"},
        weights=_TWO_PRODUCTS,
        optional=_TWO_BIASES,
        options={"nonlinearity": NONLINEARITIES},
        orders={"torch": "h", "onnx": "h", "keras": "h"},
    ),
    "indrnn": Cell(
        gates="h",
        states={"h": "P"},
        weights={"weight_ih": "GI", "weight_hh": "H", "bias_ih": "G"},
        optional=_ONE_BIAS,
        options={"nonlinearity": ("relu", "tanh", "sigmoid")},
    ),
    "mingru": Cell(gates="zn", states={"h": "P"}, weights={"weight_ih": "GI", "bias_ih": "G"}, optional=_ONE_BIAS),
    "minlstm": Cell(
        gates="ifn", states={"h": "P"}, weights={"weight_ih": "GI", "bias_ih": "G"}, optional=_ONE_BIAS, keeps="f"
    ),
    "slstm": Cell(
        gates="ifgo",
        states={"h": "P", "c": "H", "n": "H", "m": "H"},
        weights=_TWO_PRODUCTS,
        optional=_TWO_BIASES,
        keeps="f",
    ),
    "layernormlstm": Cell(
        gates="ifgo",
        states={"h": "P", "c": "H"},
        weights={
            **{"weight_ih": "GI", "weight_hh": "GP", "norm_ih": "G", "norm_hh": "G", "bias_ih": "G"},
            **{"norm_c": "H", "bias_c": "H"},
        },
        optional=_ONE_BIAS,
        options={"eps": (1e-5, 0.1)},  # any number from 0 on
        starts={"norm_ih": 1, "norm_hh": 1, "norm_c": 1, "bias_c": 0},
        keeps="f",
    ),
}
