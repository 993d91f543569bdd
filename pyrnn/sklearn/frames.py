"""pandas in, pandas out: what labels the steps of a series, and how that goes on."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import Array, cut


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

        first: Any = index[0] if len(index) else None
        step: Any = None
        if isinstance(index, pd.PeriodIndex):
            step = 1
        elif isinstance(index, pd.DatetimeIndex):
            step = index.freq
            if step is None and len(index) >= 3:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of another kind to come, which is taken here too
                    step = pd.tseries.frequencies.to_offset(index.inferred_freq)
        elif pd.api.types.is_integer_dtype(index) and len(index) > 1:
            first, step = int(index[0]), int(index[1]) - int(index[0]) or None
        regular = None if step is None else following(first, step, len(index))
        if regular is None or not np.all(index == regular):
            gaps = isinstance(index, pd.DatetimeIndex) and index.is_monotonic_increasing and index.is_unique
            hint = "; y.asfreq('D').interpolate() fills gaps between days" * gaps
            raise ValueError(f"{call}: the index of y, {cut(', '.join(map(str, index[:3])))}, ..., does not say how it "
                             "goes on: expected dates or integers in order, at a regular distance, or an "
                             f"array{hint}")  # fmt: skip
        return cls(flat, regular[-1], step, type(y), y.name if flat else y.columns)

    def after(self, values: Array) -> Any:
        """A forecast (h, S) as it is handed out."""
        values = values[:, 0] if self.flat else values
        if self.step is None:
            return values
        return self.kind(values, index=self.next(len(values)), **{"name" if self.flat else "columns": self.name})

    def next(self, count: int) -> Any:
        """The labels of the next steps; None without labels."""
        return None if self.step is None else following(self.last + self.step, self.step, count)

    def then(self, call: str, y: Any) -> Frame:
        """The frame after the further steps y; ValueError for labels that do not come next."""
        if self.step is None or len(y) == 0:
            return self
        expected = self.next(len(y))
        refuse_others(call, "y", labels(y), expected)
        return self._replace(last=expected[-1])


def following(first: Any, step: Any, count: int) -> Any:
    """The index of `count` labels, one step after another."""
    import pandas as pd

    if isinstance(first, pd.Timestamp):
        return pd.date_range(first, periods=count, freq=step)
    if isinstance(first, pd.Period):
        return pd.period_range(first, periods=count)
    return pd.RangeIndex(first, first + count * step, step)


def refuse_others(call: str, name: str, index: Any, expected: Any) -> None:
    """ValueError for labels that are not those expected, of as many steps; None says nothing of them."""
    if index is None or expected is None:
        return
    wrong = np.flatnonzero(np.asarray(index != expected))
    if len(wrong):
        k = wrong[0]
        raise ValueError(f"{call}: the index of {name} is {index[k]!s} at step {k}, expected {expected[k]!s}")


def labels(y: Any) -> Any:
    """The index of what pandas has made, else None."""
    index = getattr(y, "index", None)
    return None if callable(index) else index  # a list has a method of that name
