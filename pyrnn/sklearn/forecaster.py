"""A forecaster of series."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ..core.checks import Array, integer, opened, real, shown
from ..core.layout import valid_steps
from ..training.fit import fit
from ..training.losses import mean_squared_error, pinball
from ..training.optim import Adam
from .frames import Frame, labels, refuse_others
from .network import Scale, averaged, ensemble, generator, members, recurrent
from .series import Network, Regression, Running, View, season_of, seasonal

WINDOW = 96  # steps of a training sequence; another begins every quarter of it
HELD_OUT = 5  # a backtest forecasts the last fifth


class RNNForecaster(BaseEstimator):  # type: ignore[misc]
    """Forecasts of one series or several, `horizon` steps at a time, with a recurrent network.

    At every step the network sees the value, the `lags` values up to it, those one season before the steps that are
    asked for, and the place in the season. A linear part, which begins as ridge regressions, and a recurrent layer,
    which is all that the network keeps of the older past, add up to the forecast of each of the next steps, as its
    difference to the last value. Several series have one network, which reads each by itself.

    lags                 None: as many as the horizon, 12 at least, a quarter of the series at most
    horizon              steps that are forecast from the values themselves; further ones are from forecasts fed back
    season               its length in steps, 1 for none; None: as long as the autocorrelation says, see `season_`
    quantiles            numbers between 0 and 1 for `predict_quantiles`, trained with the pinball loss
    cell, hidden_size, num_layers, dropout, epochs, batch_size, learning_rate, patience, n_models, random_state,
    verbose              as in `RNNClassifier`; minibatches are of windows of 96 steps
    validation_fraction  the last part of the series, not trained on; the weights with the best loss on it are kept
    standardize          bring every series, and every covariate, to mean 0 and standard deviation 1

    y is (T,), or (T, series), or a pandas Series or DataFrame, whose index goes on in the results. X (T, features) are
    covariates that are known in advance, for `predict` those of the steps that are forecast; where both have an index,
    that of X is that of the steps.

    After `fit`: `season_`, `lags_`, `network_`, `history_`. Errors as in `RNNClassifier`.

        forecaster = RNNForecaster(horizon=12, quantiles=(0.1, 0.9), random_state=0).fit(passengers)
        forecaster.predict()
    """

    def __init__(
        self, lags: int | None = None, horizon: int = 1, cell: str = "gru", hidden_size: int = 32, num_layers: int = 1,
        *, season: int | None = None, dropout: float = 0.0, epochs: int = 50, batch_size: int = 32,
        learning_rate: float = 1e-2, validation_fraction: float = 0.1, patience: int | None = 10,
        standardize: bool = True, n_models: int = 1, random_state: Any = None, verbose: int = 0,
        quantiles: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self.lags = lags
        self.horizon = horizon
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.season = season
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.n_models = n_models
        self.random_state = random_state
        self.verbose = verbose
        self.quantiles = quantiles

    def fit(self, y: Any, X: Any = None) -> RNNForecaster:  # noqa: N803
        """Train on the series up to its end, and read it. ValueError for one that is too short or not finite.

        forecaster.fit(y)
        """
        call = "RNNForecaster"
        horizon = integer(call, "horizon", self.horizon, 1)
        if isinstance(self.quantiles, str) or np.ndim(self.quantiles) != 1:
            raise TypeError(f"{call}: quantiles is {shown(self.quantiles)}, expected numbers in a row")
        quantiles = [real(call, f"quantiles[{k}]", quantile, 0, 1) for k, quantile in enumerate(self.quantiles)]
        values, frame = self._series(y), Frame.of(call, y)
        steps = len(values)
        lags = max(12, horizon) if self.lags is None else integer(call, "lags", self.lags, 1)
        lags = min(lags, max(1, steps // 4)) if self.lags is None else lags
        if steps < lags + 2 * horizon + 1:
            raise ValueError(f"{call}: y has {steps} steps, expected at least {lags + 2 * horizon + 1}: lags and "
                             "twice the horizon")  # fmt: skip
        x = self._covariates("fit", X, steps, labels(y))
        scales = [Scale.of(f"{call}: {name}", rows, self.standardize) for name, rows in (("y", values), ("X", x))]
        self.lags_, self._frame, self._quantiles, (self._y_scale, self._x_scale) = lags, frame, quantiles, scales
        z, x = self._y_scale(values).astype(np.float64), self._x_scale(x)
        self.season_ = season_of(z) if self.season is None else integer(call, "season", self.season, 1)
        view, rng = View(self.lags_, horizon, self.season_, x.shape[1]), generator(self.random_state)
        rnn = recurrent(call, self.cell, view.features, self.hidden_size, self.num_layers, self.dropout)
        network = Network(rnn, view, len(self._quantiles), self.dropout, rng)
        self.network_, self._view = ensemble(call, self.n_models, network, rng), view
        self._train(z, x, rng)
        self._running = [Running(network, z.shape[1]) for network in members(self.network_)]
        for running in self._running:
            running.read(z, x)
        return self

    def _train(self, z: Array, x: Array, rng: np.random.Generator) -> None:
        view, steps = self._view, len(z)
        seen, unit = view(np.pad(z, ((view.reach, 0), (0, 0)), constant_values=np.nan), x, 0)
        at = np.arange(steps)[:, None] + np.arange(1, view.horizon + 1)  # the steps that are asked for (T, horizon)
        inside = np.minimum(at, steps - 1)
        changes = np.where((at < steps)[:, None], z.T[:, inside].swapaxes(0, 1) - z[:, :, None], np.nan)  # (T, S, h)
        split = steps - round(real("RNNForecaster", "validation_fraction", self.validation_fraction, 0, 1) * steps)
        first = min(max(view.reach, view.lags), split // 2)  # before it too little of the past is known
        learned = np.where(((at < split) & (at[:, :1] > first))[:, None], changes, np.nan)
        rows = np.isfinite(learned).all(axis=(1, 2))
        if not rows.any():
            raise ValueError(f"RNNForecaster: y has {steps} steps, too few to hold {steps - split} of them out")
        series = z.shape[1]
        later = np.repeat(x[inside], series, axis=0).reshape(steps, series, view.horizon, view.known)
        count = int(rows.sum()) * series
        own = [array[rows].reshape(count, *array.shape[2:]).astype(np.float64) for array in (seen, later, learned)]
        found = Regression(*own)
        for network in members(self.network_):
            network.begin(found, unit[rows].reshape(-1), self._quantiles)
        flat = later.reshape(steps, series, view.horizon * view.known)
        inputs = np.concatenate([seen, flat, unit[..., None]], axis=2).astype(np.float32)

        def windows(targets: Array, starts: Any, end: int) -> tuple[list[Array], list[Array]]:
            cuts = [(slice(start, min(start + WINDOW, end)), row) for start in starts for row in range(series)]
            return [inputs[cut] for cut in cuts], [targets[cut] for cut in cuts]

        last = split - 1
        judged = np.where((at >= split)[:, None], changes, np.nan)
        begin = max(0, split - WINDOW)
        valid = ([inputs[begin:-1, row] for row in range(series)], [judged[begin:-1, row] for row in range(series)])
        self.history_ = fit(
            self.network_, *windows(learned, range(0, max(1, last - WINDOW // 4), WINDOW // 4), last), self._loss,
            valid=valid if split < steps else None, epochs=self.epochs, batch_size=self.batch_size,
            patience=self.patience, optimizer=Adam(self.network_, lr=self.learning_rate),
            progress=self.verbose > 0, rng=rng,
        )  # fmt: skip

    def _loss(self, y: Array, targets: Array, lengths: Array) -> tuple[float, Array]:
        """Squared error of the forecast and pinball loss of the quantiles, where targets (T, N, horizon) are known."""
        y = y.reshape(*targets.shape, -1)
        counts = np.isfinite(targets) & valid_steps(len(targets), len(lengths), lengths)[..., None]
        wanted = np.broadcast_to(np.nan_to_num(targets)[..., None], y.shape)
        loss, dy = mean_squared_error(y[..., :1], wanted[..., :1], mask=counts)
        if self._quantiles:
            own, dquantiles = pinball(y[..., 1:], wanted[..., 1:], self._quantiles, mask=counts)
            loss, dy = loss + own, np.concatenate([dy, dquantiles], axis=-1)
        return loss, dy.reshape(*targets.shape[:2], -1)

    def predict(self, h: int | None = None, X: Any = None, return_std: bool = False) -> Any:  # noqa: N803
        """The next h steps, the horizon by default: (h,) or (h, series), as y was; the mean of the models' forecasts. X
        (h, features), where there were covariates in `fit`. With return_std how far the models are apart, too, their
        standard deviation, likewise; ValueError where n_models is 1. How far off all of them are together is what
        `predict_quantiles` tells.

            forecaster.predict(24)
            mean, std = forecaster.predict(24, return_std=True)  # of RNNForecaster(n_models=10)
        """
        forecasts = self._forecasts("predict", h, X)[..., 0]
        found = averaged("RNNForecaster.predict", forecasts, return_std)
        return tuple(map(self._frame.after, found)) if return_std else self._frame.after(found)

    def predict_quantiles(self, h: int | None = None, X: Any = None) -> dict[float, Any]:  # noqa: N803
        """Of each of `quantiles`, the numbers below which the next steps will be with this probability: {quantile: as
        from `predict`}, the mean of the models'. h is at most the horizon: how far off forecasts are that are fed back,
        nothing tells.

            forecaster.predict_quantiles(12)[0.9]
        """
        call = "predict_quantiles"
        check_is_fitted(self, "network_")
        if not self._quantiles:
            raise ValueError(f"{call}: none were trained: RNNForecaster(..., quantiles=(0.1, 0.9))")
        h = self._view.horizon if h is None else integer(call, "h", h, 1, self._view.horizon)
        sorted_places = np.argsort(np.argsort(self._quantiles))
        y = averaged(call, self._forecasts(call, h, X))
        y = np.sort(y[..., 1:], axis=-1)[..., sorted_places]  # none crosses another
        return {quantile: self._frame.after(y[..., k]) for k, quantile in enumerate(self._quantiles)}

    def _forecasts(self, call: str, h: int | None, X: Any) -> Array:  # noqa: N803
        """(P, h, S, outputs)."""
        check_is_fitted(self, "network_")
        h = self._view.horizon if h is None else integer(call, "h", h, 1)
        x = self._x_scale(self._covariates(call, X, h, self._frame.next(h)))
        z = np.stack([running.ahead(h, x) for running in self._running])
        forecasts: Array = self._y_scale.mean[:, None] + self._y_scale.scale[:, None] * z
        return forecasts

    def update(self, y: Any, X: Any = None) -> RNNForecaster:  # noqa: N803
        """Go on over the steps that came after the last one, (t,) or (t, series), with their covariates. Nothing is
        fitted again; it takes microseconds a step.

            forecaster.update(y_new).predict()
        """
        check_is_fitted(self, "network_")
        values, frame = self._series(y), self._frame.then("update", y)
        series = len(self._y_scale.mean)
        if values.shape[1] != series:
            raise ValueError(f"update: y has shape {np.shape(y)}, expected {series} series")
        x = self._x_scale(self._covariates("update", X, len(values), self._frame.next(len(values))))
        z = self._y_scale(values).astype(np.float64)
        for running in self._running:
            running.read(z, x)
        self._frame = frame
        return self

    def backtest(self, y: Any, folds: int = 1, X: Any = None) -> Errors:  # noqa: N803
        """How far off it is beside simpler ways: the root mean square error of each of the `horizon` steps ahead,
        (horizon,), or (horizon, series), of every step of the last fifth of y from which all of them lie within it.

        The fifth is cut into `folds` parts. For each one a clone is fitted on all that comes before, then follows the
        series by `update`. "persistence" is that the last value stays, "seasonal_persistence" that the last season
        comes again, as long as `season_` says. The estimator itself stays as it is. The result is a dict that prints
        as a table.

            print(forecaster.backtest(y, folds=4))
        """
        values, horizon = self._series(y), integer("backtest", "horizon", self.horizon, 1)
        last = len(values) - horizon + 1
        first = len(values) - len(values) // HELD_OUT
        folds = integer("backtest", "folds", folds, 1, max(1, last - first))
        if last <= first:
            raise ValueError(f"backtest: y has {len(values)} steps, too few for {horizon} within its last fifth")
        x = self._covariates("backtest", X, len(values), labels(y), fitted=False)
        wrong: dict[str, list[Array]] = {"model": [], "persistence": [], "seasonal_persistence": []}
        cuts = np.linspace(first, last, folds + 1).astype(int)
        for start, stop in itertools.pairwise(cuts):
            model = clone(self).fit(values[:start], x[:start])
            for origin in range(start, stop):
                after = slice(origin, origin + horizon)
                last_season = seasonal(values[:origin], horizon, model.season_)
                ways = model.predict(X=x[after]), values[origin - 1], last_season
                for errors, forecast in zip(wrong.values(), ways, strict=True):
                    errors.append(values[after] - forecast)
                model.update(values[origin : origin + 1], x[origin : origin + 1])
        flat = Frame.of("backtest", y).flat
        figures = {way: np.sqrt(np.mean(np.square(errors), axis=0)) for way, errors in wrong.items()}
        return Errors({way: error[:, 0] if flat else error for way, error in figures.items()})

    def _series(self, y: Any) -> Array:
        """y as (T, S) finite numbers."""
        y = opened("RNNForecaster", "y", y)
        values: Array = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y", estimator=self)
        return values.reshape(len(values), -1)

    def _covariates(self, call: str, X: Any, steps: int, index: Any, *, fitted: bool = True) -> Array:  # noqa: N803
        """X as (steps, features); none are no features. Its index is to be this one, where both are there."""
        known = self._view.known if fitted and call != "fit" else None
        if X is None and not known:
            return np.zeros((steps, 0))
        if X is None:
            raise ValueError(f"RNNForecaster.{call}: X is missing, expected ({steps}, {known}): there was one in fit")
        X = opened(f"RNNForecaster.{call}", "X", X)  # noqa: N806
        if isinstance(X, np.ndarray) and X.shape == (steps, 0):
            return X.astype(np.float64)
        x: Array = check_array(X, dtype=np.float64, estimator=self)
        if len(x) != steps or known not in (None, x.shape[1]):
            raise ValueError(f"RNNForecaster.{call}: X has shape {x.shape}, expected "
                             f"({steps}, {x.shape[1] if known is None else known})")  # fmt: skip
        refuse_others(f"RNNForecaster.{call}", "X", labels(X), index)
        return x


class Errors(dict[str, Array]):
    """Root mean square errors by way of forecasting, which print as a table: steps ahead, and all of them."""

    def __str__(self) -> str:
        table = np.sqrt([np.mean(error.reshape(len(error), -1) ** 2, axis=1) for error in self.values()]).T
        lines = ["steps ahead" + "".join(f"{way.replace('_', ' '):>22}" for way in self)]
        for name, row in [*enumerate(table, 1), ("all", np.sqrt(np.mean(table**2, axis=0)))]:
            lines.append(f"{name:>11}" + "".join(f"{error:>22.4g}" for error in row))
        return "\n".join(lines)
