"""pandas in, pandas out: what labels the steps of a series, and how that goes on."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import Array, shown

ENOUGH = 24  # of the last dates, from which their distance is told


class Frame(NamedTuple):
    """How a forecast is to look: like a series y, whose steps come after its last one."""

    flat: bool  # (T,), or (T, S)
    last: Any = None  # label of the last step
    step: Any = None  # from one label to the next; None: an array, without labels
    kind: Any = None  # the class of y
    name: Any = None  # of a Series, columns of a DataFrame

    @classmethod
    def of(cls, call: str, y: Any) -> Frame:
        """That of y; ValueError for an index that does not say how it goes on."""
        flat, index = np.ndim(y) == 1, labels(y)
        if index is None:
            return cls(flat)
        import pandas as pd

        step: Any = None
        if isinstance(index, pd.PeriodIndex):
            step = 1
        elif isinstance(index, pd.DatetimeIndex):
            step = index.freq
            if step is None and len(index) >= 3:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of another kind to come, which is taken here too
                    step = pd.tseries.frequencies.to_offset(index[-ENOUGH:].inferred_freq)
        elif pd.api.types.is_integer_dtype(index) and len(index) > 1 and len(set(np.diff(index))) == 1:
            step = int(index[1] - index[0])
        if step is None:
            raise ValueError(f"{call}: the index of y, {shown(list(index[:3]))}, does not say how it goes on: expected "
                             "dates at a regular distance or evenly spaced integers, or an array")  # fmt: skip
        return cls(flat, index[-1], step, type(y), y.name if flat else y.columns)

    def after(self, values: Array) -> Any:
        """A forecast (h, S) as it is handed out."""
        values = values[:, 0] if self.flat else values
        if self.step is None:
            return values
        import pandas as pd

        first, count = self.last + self.step, len(values)
        if isinstance(first, pd.Timestamp):
            index = pd.date_range(first, periods=count, freq=self.step)
        elif isinstance(first, pd.Period):
            index = pd.period_range(first, periods=count)
        else:
            index = pd.RangeIndex(first, first + count * self.step, self.step)
        return self.kind(values, index=index, **{"name" if self.flat else "columns": self.name})

    def then(self, call: str, y: Any) -> Frame:
        """The frame after the further steps y; ValueError for labels that do not come next."""
        if self.step is None:
            return self
        index = labels(y)
        if index is not None and index[0] != self.last + self.step:
            raise ValueError(f"{call}: y begins at {index[0]!s}, expected {self.last + self.step!s}, which comes "
                             "after the last step")  # fmt: skip
        return self._replace(last=self.last + len(y) * self.step if index is None else index[-1])


def labels(y: Any) -> Any:
    """The index of what pandas has made, else None."""
    index = getattr(y, "index", None)
    return None if callable(index) else index  # a list has a method of that name
