"""The forecaster as one of sktime's."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import clone
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from .forecaster import RNNForecaster


class SktimeForecaster(BaseForecaster):  # type: ignore[misc]
    """An `RNNForecaster` with sktime's calls. Intervals are of its `quantiles`; `update` goes on without fitting again.

    After `fit`: `forecaster_`, fitted.

        >>> from sktime.datasets import load_airline
        >>> from pyrnn.sklearn import RNNForecaster
        >>> from pyrnn.sklearn.sktime import SktimeForecaster
        >>> forecaster = SktimeForecaster(RNNForecaster(horizon=12)).fit(load_airline(), fh=[1, 2, 3])
        >>> next_quarter = forecaster.predict()
    """

    _tags: ClassVar[dict[str, Any]] = {
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:insample": False,
        "capability:non_contiguous_X": False,
        "capability:update": True,
        "capability:categorical_in_X": False,
        "requires-fh-in-fit": False,
    }

    def __init__(self, forecaster: RNNForecaster | None = None) -> None:
        self.forecaster = forecaster
        super().__init__()
        quantiles = () if forecaster is None else forecaster.quantiles
        self.set_tags(**{"capability:pred_int": len(quantiles) > 0, "capability:pred_int:insample": False})

    def _fit(self, y: Any, X: Any, fh: Any) -> SktimeForecaster:  # noqa: N803
        given = RNNForecaster() if self.forecaster is None else clone(self.forecaster)
        self.forecaster_ = given.fit(y.to_numpy(), None if X is None else X.loc[y.index].to_numpy())
        self._columns, self._last = y.columns, y.index[-1]
        return self

    def _predict(self, fh: Any, X: Any) -> Any:  # noqa: N803
        steps, x = self._asked(fh, X)
        values = self.forecaster_.predict(int(steps.max()), x)
        return pd.DataFrame(values[steps - 1], fh.to_absolute_index(self.cutoff), self._columns)

    def _predict_quantiles(self, fh: Any, X: Any, alpha: Any) -> Any:  # noqa: N803
        steps, x = self._asked(fh, X)
        found = self.forecaster_.predict_quantiles(int(steps.max()), x)
        unknown = [quantile for quantile in alpha if quantile not in found]
        if unknown:
            raise ValueError(f"SktimeForecaster: the quantile {unknown[0]} is asked for, expected one of {list(found)}")
        names = [0] if self._columns is None else list(self._columns)
        columns = pd.MultiIndex.from_product([names, alpha])
        values = np.stack([found[quantile][steps - 1] for quantile in alpha], axis=-1)
        return pd.DataFrame(values.reshape(len(steps), -1), fh.to_absolute_index(self.cutoff), columns)

    def _update(self, y: Any, X: Any = None, update_params: bool = True) -> SktimeForecaster:  # noqa: N803
        new = y.loc[y.index > self._last]
        if len(new):
            self.forecaster_.update(new.to_numpy(), None if X is None else X.loc[new.index].to_numpy())
            self._last = new.index[-1]
        return self

    def _asked(self, fh: Any, X: Any) -> tuple[Any, Any]:  # noqa: N803
        """Steps ahead, from 1, and the covariates up to the last of them."""
        steps = fh.to_relative(self.cutoff).to_numpy().astype(int)
        every = ForecastingHorizon(np.arange(1, steps.max() + 1)).to_absolute_index(self.cutoff)
        return steps, None if X is None else X.loc[every].to_numpy()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Those of sktime's tests.

        SktimeForecaster.get_test_params()
        """
        small: dict[str, Any] = {"hidden_size": 4, "epochs": 3, "lags": 2, "random_state": 0}
        return [{"forecaster": RNNForecaster(**small)}, {"forecaster": RNNForecaster(**small, horizon=2, season=3)}]
