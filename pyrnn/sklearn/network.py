"""What the estimators are made of: scales, recurrent layers by name, the network behind classifier and regressor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from ..core.checks import Array, choice
from ..core.model import Model
from ..layers.dropout import Dropout
from ..layers.linear import Linear
from ..layers.pooling import MaxOverTime, MeanOverTime
from ..layers.stack import LAYERS


def recurrent(call: str, cell: str, inputs: int, hidden: int, layers: int, dropout: float, **options: Any) -> Any:
    """The layer of this name; dropout is between layers, as far as there are several."""
    kind = LAYERS[choice(call, "cell", cell, tuple(LAYERS))]
    return kind(inputs, hidden, layers, dropout=dropout if layers != 1 else 0.0, **options)


def generator(random_state: Any) -> np.random.Generator:
    """What scikit-learn calls a random state, as a generator."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))


class Scale(NamedTuple):
    """Means and standard deviations of features: numbers -> the network's float32, and back."""

    mean: Array
    scale: Array

    @classmethod
    def of(cls, rows: Array) -> Scale:
        """Those of rows (n, features); 0 and 1 of none, and 1 of what is constant."""
        if len(rows) == 0:
            return cls(np.zeros(rows.shape[1]), np.ones(rows.shape[1]))
        rows = np.ascontiguousarray(rows)  # the order of sums
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        return cls(mean, np.where(deviation > 1e-12 * np.abs(rows).max(axis=0), deviation, 1.0))

    def __call__(self, rows: Array) -> Array:
        scaled: Array = ((rows - self.mean) / self.scale).astype(np.float32)
        return scaled

    def back(self, rows: Array) -> Array:
        """From the network's numbers."""
        numbers: Array = self.mean + self.scale * rows
        return numbers


class Summary(Model):
    """x (T, N, F) -> y (N, outputs): of each sequence the final states, the maximum and the mean of the outputs."""

    def __init__(self, rnn: Any, outputs: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__(rng=rng)
        self.rnn, self.most, self.mean, self.drop = rnn, MaxOverTime(), MeanOverTime(), Dropout(dropout)
        self.directions = 2 if rnn.bidirectional else 1
        self.head = Linear(3 * self.directions * rnn.hidden_size, outputs)

    def vjp(self, x: Array, lengths: Array) -> tuple[Array, Callable[[Array], None]]:
        """y, pullback."""
        (y, state), pull_rnn = self.rnn.vjp(x, lengths=lengths)
        states = state if isinstance(state, tuple) else (state,)
        final = states[0][-self.directions :]  # of the last layer
        most, pull_most = self.most.vjp(y, lengths=lengths)
        mean, pull_mean = self.mean.vjp(y, lengths=lengths)
        summary, pull_drop = self.drop.vjp(np.hstack([*final, most, mean]))
        out, pull_head = self.head.vjp(summary)

        def pullback(dout: Array) -> None:
            dfinal, dmost, dmean = np.split(pull_drop(pull_head(dout)), 3, axis=1)
            dstates = [np.zeros_like(part) for part in states]
            dstates[0][-self.directions :] = np.split(dfinal, self.directions, axis=1)
            dy = pull_most(dmost) + pull_mean(dmean)
            pull_rnn(dy, tuple(dstates) if isinstance(state, tuple) else dstates[0])

        return out, pullback
