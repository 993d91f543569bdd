"""pandas in, pandas out: what labels the steps of a series, and how that goes on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.checks import Array, shown

ENOUGH = 24  # of the last dates, from which their distance is told


class Frame(NamedTuple):
    """How a forecast is to look: like a series y, whose steps come after its last one."""

    flat: bool  # (T,), or (T, S)
    last: Any = None  # label of the last step; no labels where `step` is None
    step: Any = None  # from one label to the next
    kind: Any = None  # the class of y
    name: Any = None  # of a Series, columns of a DataFrame

    @classmethod
    def of(cls, call: str, y: Any) -> Frame:
        """That of y; ValueError for an index that does not say how it goes on."""
        flat = np.ndim(y) == 1
        index = getattr(y, "index", None)
        if index is None or callable(index):  # as that of a list
            return cls(flat)
        import pandas as pd

        step: Any = None
        if isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)):
            step = index.freq
            if step is None and len(index) >= 3:
                step = pd.infer_freq(index[-ENOUGH:])
                step = None if step is None else pd.tseries.frequencies.to_offset(step)
        elif pd.api.types.is_integer_dtype(index) and len(index) > 1 and len(set(np.diff(index))) == 1:
            step = int(index[1] - index[0])
        if step is None:
            raise ValueError(f"{call}: the index of y is {shown(index)}, which does not say how it goes on: expected "
                             "dates at a regular distance or evenly spaced integers, or an array")  # fmt: skip
        return cls(flat, index[-1], step, type(y), y.name if flat else y.columns)

    def after(self, values: Array) -> Any:
        """A forecast (h, S) as it is handed out."""
        values = values[:, 0] if self.flat else values
        if self.step is None:
            return values
        import pandas as pd

        if isinstance(self.last, pd.Timestamp):
            index = pd.date_range(self.last, periods=len(values) + 1, freq=self.step)[-len(values) :]
        elif isinstance(self.last, pd.Period):
            index = pd.period_range(self.last + 1, periods=len(values), freq=self.step)
        else:
            index = pd.RangeIndex(self.last + self.step, self.last + self.step * (len(values) + 1), self.step)
        if self.flat:
            return self.kind(values, index=index, name=self.name)
        return self.kind(values, index=index, columns=self.name)

    def then(self, call: str, y: Any, series: int) -> Frame:
        """The frame after the further steps y. ValueError for another number of series, and for labels that do not come after."""
        index = getattr(y, "index", None)
        labelled = index is not None and not callable(index)
        if self.step is None or not labelled:
            count = len(y)
            last = self.last if self.step is None else self._label(count)
            return self._replace(last=last)
        expected = self._label(1)
        if len(index) and index[0] != expected:
            raise ValueError(f"{call}: y begins at {shown(index[0])}, expected {expected}, which comes after the last step")
        return self._replace(last=index[-1]) if len(index) else self

    def _label(self, count: int) -> Any:
        """The label so many steps after the last."""
        return self.last + self.step * count if not hasattr(self.last, "ordinal") else self.last + count
