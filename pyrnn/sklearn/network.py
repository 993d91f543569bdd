"""What the estimators are made of: scales, layers by name, ensembles, the network of classifier and regressor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from ..core.checks import Array, boolean, choice, integer
from ..core.model import Model
from ..data.series import moments
from ..layers.dropout import Dropout
from ..layers.linear import Linear
from ..layers.pooling import MaxOverTime, MeanOverTime, added_up
from ..layers.population import MOST_MODELS, Population
from ..layers.stack import LAYERS


def recurrent(call: str, cell: str, inputs: int, hidden: int, layers: int, dropout: float, **options: Any) -> Any:
    """The layer of this name; dropout is between layers, as far as there are several."""
    kind = LAYERS[choice(call, "cell", cell, tuple(LAYERS))]
    return kind(inputs, hidden, layers, dropout=dropout if layers != 1 else 0.0, **options)


def generator(random_state: Any) -> np.random.Generator:
    """What scikit-learn calls a random state, as a generator."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))


def ensemble(call: str, n_models: Any, network: Model, rng: np.random.Generator) -> Any:
    """The network itself, or a population of so many of its like."""
    count = integer(call, "n_models", n_models, 1, MOST_MODELS)
    return network if count == 1 else Population(network, count, rng)


def members(network: Any) -> Sequence[Any]:
    """The networks of an `ensemble`."""
    return list(network) if isinstance(network, Population) else [network]


def averaged(call: str, of_models: Array, return_std: Any = False) -> Any:
    """The mean over the models (P, ...), with return_std their standard deviation, too; ValueError for that of one."""
    spread = boolean(call, "return_std", return_std)
    count = len(of_models)
    if count == 1:
        if spread:
            raise ValueError(f"{call}: return_std of one model, expected several: {call.split('.')[0]}(n_models=10)")
        return of_models[0]

    center = added_up(of_models) / count
    return (center, np.sqrt(added_up(np.square(of_models - center)) / count)) if spread else center


LARGEST = 1e30  # what a float32 holds, with some room for sums


class Scale(NamedTuple):
    """Means and standard deviations of features: numbers -> the network's float32, and back."""

    mean: Array
    scale: Array
    name: str  # of what is scaled, for errors

    @classmethod
    def of(cls, name: str, rows: Array, standardize: bool) -> Scale:
        """Those of rows (n, features), 1 of what is constant; 0 and 1 without standardize. ValueError for numbers whose
        squares are beyond a float64, without standardize for those that are beyond a float32 themselves."""
        most = np.abs(rows).max(axis=0, initial=0)
        low, high = (1e-100, 1e100) if standardize else (1 / LARGEST, LARGEST)
        beyond = most[(most > high) | ((most < low) & (most > 0))]
        if len(beyond):
            raise ValueError(f"{name} has numbers up to {beyond[0]:.3g} in size, expected {low:g} to {high:g} or only "
                             "0: scale it first")  # fmt: skip
        if not standardize or len(rows) == 0:
            return cls(np.zeros(rows.shape[1]), np.ones(rows.shape[1]), name)
        return cls(*moments(np.ascontiguousarray(rows)), name)  # the order of sums

    def __call__(self, rows: Array) -> Array:
        """ValueError for numbers that are far from those it was made of."""
        with np.errstate(over="ignore"):
            scaled = (rows - self.mean) / self.scale
        if np.abs(scaled).max(initial=0) > LARGEST:
            raise ValueError(f"{self.name} has {rows.flat[np.abs(scaled).argmax()]:.3g}, which is beyond a float32 in "
                             f"the scale of fit, {self.scale.min():.3g}")  # fmt: skip
        numbers: Array = scaled.astype(np.float32)
        return numbers

    def back(self, rows: Array) -> Array:
        """From the network's numbers."""
        numbers: Array = self.mean + self.scale * rows
        return numbers


class Summary(Model):
    """x (..., T, N, F) -> y (..., N, outputs): of each sequence the final states, the maximum and the mean of the
    outputs."""

    _takes_axes_in_front = True

    def __init__(self, rnn: Any, outputs: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__(rng=rng)
        self.rnn, self.most, self.mean, self.drop = rnn, MaxOverTime(), MeanOverTime(), Dropout(dropout)
        self.directions = 2 if rnn.bidirectional else 1
        self.head = Linear(3 * self.directions * rnn.hidden_size, outputs)

    def vjp(self, x: Array, lengths: Array) -> tuple[Array, Callable[[Array], None]]:
        """y, pullback."""
        (y, state), pull_rnn = self.rnn.vjp(x, lengths=lengths)
        states = state if isinstance(state, tuple) else (state,)
        last = (..., slice(-self.directions, None), slice(None), slice(None))  # layer, of states (..., L*D, N, H)
        most, pull_most = self.most.vjp(y, lengths=lengths)
        mean, pull_mean = self.mean.vjp(y, lengths=lengths)
        summary, pull_drop = self.drop.vjp(np.concatenate([*np.moveaxis(states[0][last], -3, 0), most, mean], axis=-1))
        out, pull_head = self.head.vjp(summary)

        def pullback(dout: Array) -> None:
            dfinal, dmost, dmean = np.split(pull_drop(pull_head(dout)), 3, axis=-1)
            dstates = [np.zeros_like(part) for part in states]
            dstates[0][last] = np.stack(np.split(dfinal, self.directions, axis=-1), axis=-3)
            dy = pull_most(dmost) + pull_mean(dmean)
            pull_rnn(dy, tuple(dstates) if isinstance(state, tuple) else dstates[0])

        return out, pullback
