"""What the forecaster is made of: what is seen of a series at a step, the network, and a network that runs on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import Array
from ..core.model import Model
from ..layers.activations import Tanh
from ..layers.dropout import Dropout
from ..layers.linear import Linear
from ..layers.sequential import Sequential

LEAST = 0.1  # a step that every series takes once at least, in standard deviations


class View(NamedTuple):
    """What is seen at step t of a series z, and what is asked: z_t itself; how the values before, and those a season
    before the steps that are asked for, differ from it; where in the season t is; what is known of t besides."""

    lags: int
    horizon: int
    season: int  # 1: none
    known: int  # covariates

    @property
    def before(self) -> Array:
        """The steps before t whose values are seen."""
        ahead = np.arange(1, self.horizon + 1)
        ago = self.season * -(-ahead // self.season) - ahead if self.season > 1 else ahead[:0]
        return np.concatenate([np.arange(1, self.lags), ago])

    @property
    def reach(self) -> int:
        """The furthest of them."""
        return int(self.before.max(initial=0))

    @property
    def features(self) -> int:
        """How many numbers are seen at a step."""
        return 1 + len(self.before) + 2 * (self.season > 1) + self.known

    def __call__(self, z: Array, x: Array, first: int) -> tuple[Array, Array]:
        """z (reach + T, S) and x (T, known) -> what is seen at the last T steps, (T, S, features), of which the first
        is the first-th of the series; and the unit of what is uncertain there, (T, S): the square root of how far the
        series moves in a step, root mean square within reach, as what is counted has a variance that grows with its
        size. A difference to what is not known, NaN, is 0."""
        steps, series = len(z) - self.reach, z.shape[1]
        seen = np.lib.stride_tricks.sliding_window_view(z, self.reach + 1, axis=0)  # (T, S, reach + 1)
        level, moves = seen[..., -1:], np.diff(seen)
        known = np.isfinite(moves)
        total, count = np.square(np.where(known, moves, 0)).sum(axis=-1), known.sum(axis=-1)
        unit = ((total + LEAST**2) / (count + 1)) ** 0.25
        parts = [level, np.nan_to_num(seen[..., self.reach - self.before] - level)]
        if self.season > 1:
            angle = 2 * np.pi * (np.arange(first, first + steps) % self.season) / self.season
            x = np.column_stack([np.sin(angle), np.cos(angle), x])
        parts.append(np.broadcast_to(x[:, None], (steps, series, x.shape[1])))
        return np.concatenate(parts, axis=2).astype(np.float32), unit


def season_of(z: Array) -> int:
    """The length of the season of standardised series (T, S): where their autocorrelation, without a straight line, is
    highest after it was below 0 first, within a third of the series, or that divided, where it is nearly as high; 1
    where it is below 0.3."""
    steps = len(z)
    line = np.column_stack([np.ones(steps), np.linspace(-1, 1, steps)])
    z = z - line @ np.linalg.lstsq(line, z, rcond=None)[0]
    power = np.abs(np.fft.rfft(z, 2 * steps, axis=0)) ** 2
    lags = np.arange(steps // 3 + 1)
    correlation = np.fft.irfft(power, axis=0)[lags].mean(axis=1) * steps / (steps - lags)
    below = np.flatnonzero(correlation < 0)
    if len(below) == 0 or correlation[0] < 1e-9:  # a straight line but for rounding
        return 1
    best = int(below[0] + correlation[below[0] :].argmax())
    if correlation[best] < 0.3 * correlation[0]:
        return 1
    parts = (round(best / k) for k in range(best // below[0], 0, -1))
    return next(lag for lag in parts if lag >= below[0] and correlation[lag] >= 0.9 * correlation[best])


def seasonal(values: Array, horizon: int, season: int) -> Array:
    """The forecast of values (T,) that the last season comes again: (horizon,)."""
    return values[len(values) - season + np.arange(horizon) % season]


class Regression:
    """Ridge regressions (penalty 1) of changes (n, horizon) on what is seen (n, features), each for itself, and on the
    covariates of the step that is asked for, x (n, horizon, known), one for all.

    weights (features, horizon), bias (horizon,), effect (known,); rest (n, horizon), what they do not explain
    """

    def __init__(self, seen: Array, x: Array, changes: Array) -> None:
        seen, penalty = np.column_stack([seen, np.ones(len(seen))]), np.eye(seen.shape[1] + 1)
        penalty[-1, -1] = 1e-6

        def solve(of: Array) -> Array:
            weights: Array = np.linalg.solve(seen.T @ seen + penalty, seen.T @ of)
            return weights

        flat = x.reshape(len(x), changes.shape[1] * x.shape[2])
        own = (flat - seen @ solve(flat)).reshape(changes.size, x.shape[2])  # what is seen does not tell it
        left = (changes - seen @ solve(changes)).reshape(-1)
        self.effect: Array = np.linalg.solve(own.T @ own + np.eye(x.shape[2]), own.T @ left)
        weights = solve(changes - x @ self.effect)
        self.weights, self.bias = weights[:-1], weights[-1]
        self.rest: Array = changes - x @ self.effect - seen @ weights


class Network(Model):
    """x (..., T, N, features + horizon * known + 1) -> y (..., T, N, horizon * (1 + Q)): changes to the steps that are
    asked for, and Q quantiles of each.

    The change is what regressions say, on what is seen and on the covariates of the step that is asked for, which stay
    as they are, and what a recurrent layer, and one of tanh on those covariates, have learned of the rest. A quantile
    is the change and an offset, in the unit of what is uncertain, the last of x.
    """

    _takes_axes_in_front = True

    def __init__(self, rnn: Any, view: View, quantiles: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__(rng=rng)
        self.view, self.outputs, self.rnn, self.drop = view, 1 + quantiles, rnn, Dropout(dropout)
        self.head = Linear(rnn.hidden_size, view.horizon * self.outputs)
        self.linear = Linear(view.features, view.horizon)
        if view.known:
            self.effect = Linear(view.known, 1, bias=False)
            self.learned = Sequential(Linear(view.known, rnn.hidden_size), Tanh(), Linear(rnn.hidden_size, 1), rng=rng)

    def begin(self, found: Regression, unit: Array, quantiles: Sequence[float]) -> None:
        """Take the regressions, and the quantiles of what they do not explain, in units (n,). Nothing else is said."""
        for layer in (self.head, *([self.learned[2]] if self.view.known else [])):
            for name in layer.params:
                layer.params[name] *= 0
        self.linear.params["weight"], self.linear.params["bias"] = found.weights.T, found.bias
        spread = [np.quantile(found.rest / unit[:, None], quantile, axis=0) for quantile in quantiles]
        self.head.params["bias"] = np.column_stack([np.zeros(self.view.horizon), *spread]).reshape(-1)
        if self.view.known:
            self.effect.params["weight"] = found.effect[None]

    def vjp(self, x: Array, lengths: Array | None = None) -> tuple[Array, Callable[[Array], None]]:
        """y, pullback; x is what is seen, covariates and the unit."""
        seen, later = np.split(x, [self.view.features], axis=-1)
        (h, _), pull_rnn = self.rnn.vjp(seen, lengths=lengths)
        h, pull_drop = self.drop.vjp(h)
        y, pull = self.outcome(h, seen, later[..., :-1], later[..., -1])
        return y, lambda dy: pull_rnn(pull_drop(pull(dy)))

    def outcome(self, h: Array, seen: Array, later: Array, unit: Array) -> tuple[Array, Callable[[Array], Array]]:
        """y where the recurrent layer has given h (..., H), and the pullback to h. Quantiles do not move the change."""
        out, pull_head = self.head.vjp(h)
        unit, shape = unit[..., None, None], (*out.shape[:-1], self.view.horizon, self.outputs)
        learned, offset = np.split(out.reshape(shape), [1], axis=-1)
        effect, pull_effect = self.effects(later.reshape(*shape[:-1], self.view.known))
        change = self.linear(seen)[..., None] + learned + effect
        y = np.concatenate([change, change + unit * offset], axis=-1)

        def pullback(dy: Array) -> Array:
            dchange, doffset = np.split(dy.reshape(shape), [1], axis=-1)
            pull_effect(np.ascontiguousarray(dchange))
            dh: Array = pull_head(np.concatenate([dchange, doffset * unit], axis=-1).reshape(out.shape))
            return dh

        return y.reshape(out.shape), pullback

    def effects(self, x: Array) -> tuple[Any, Callable[[Array], None]]:
        """The effects of covariates x (..., known), (..., 1)."""
        if not self.view.known:
            return 0, lambda _: None
        learned, pull = self.learned.vjp(x)
        return self.effect(x) + learned, pull


class Running:
    """A network at the end of series (T, S) that it has read, as it is kept to go on."""

    def __init__(self, network: Network, series: int) -> None:
        self.network, self.steps = network, 0
        self.past = np.full((network.view.reach, series), np.nan)
        self.stream = network.rnn.stream(series)

    def read(self, z: Array, x: Array) -> None:
        """Go on over steps (T, S), with their covariates (T, known)."""
        if len(z) == 0:
            return
        z = np.concatenate([self.past, z])
        seen, unit = self.network.view(z, x, self.steps)
        self.h = self.stream.step(seen[0]) if len(seen) == 1 else self.stream(seen)[-1]
        self.seen, self.level, self.unit = seen[-1], z[-1], unit[-1].astype(np.float32)
        self.past, self.steps = z[len(z) - self.network.view.reach :], self.steps + len(seen)

    def forecast(self, x: Array) -> Array:
        """What follows, (horizon, S, outputs), of which x (up to horizon, known) are the covariates."""
        view, series = self.network.view, len(self.level)
        later = np.zeros((view.horizon, view.known), np.float32)
        later[: len(x)] = x
        y, _ = self.network.outcome(
            self.h, self.seen, np.broadcast_to(later.reshape(-1), (series, later.size)), self.unit
        )
        forecast: Array = self.level[:, None] + y.reshape(series, view.horizon, -1).swapaxes(0, 1)
        return forecast

    def ahead(self, h: int, x: Array) -> Array:
        """The next h steps, (h, S, outputs), with their covariates (h, known). What is beyond the horizon is forecast
        from forecasts."""
        horizon = self.network.view.horizon
        z = self.forecast(x[:horizon])[:h]
        if h > horizon:
            going = copy.copy(self)
            while len(z) < h:
                read = slice(len(z) - horizon, len(z))
                going.read(z[read, :, 0], x[read])
                z = np.concatenate([z, going.forecast(x[len(z) : len(z) + horizon])])
        return z[:h]

    def __copy__(self) -> Running:
        other = object.__new__(Running)
        other.__dict__ |= self.__dict__ | {"stream": copy.copy(self.stream)}
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"stream": self.stream.state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"stream": state["network"].rnn.stream(state["past"].shape[1], state=state["stream"])}
