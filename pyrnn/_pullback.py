"""What a pullback keeps for the one call it is good for, and gradients that it adds to as a whole or not at all."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Once(Generic[T]):
    """Something that can be taken once, by one of the threads that try.

    call  names the pullback in errors

    A pullback checks the gradients it is given before it takes: one that is refused can be corrected. What is taken
    lives no longer than the call.

        kept = Once("Linear pullback", (x, weight))

        def pullback(dy):
            dy = shaped_array(kept.call, "dy", dy, dtype, shape)
            x, weight = kept.take()
    """

    __slots__ = ("_kept", "call")

    def __init__(self, call: str, kept: T) -> None:
        self.call = call
        self._kept = [kept]

    def take(self) -> T:
        """RuntimeError for all but the first."""
        try:
            return self._kept.pop()  # whole for one thread, or an error
        except IndexError:
            message = "this pullback has been called before; each vjp gives one pullback for one call"
            raise RuntimeError(f"{self.call}: {message}") from None


class AllOrNone:
    """Gradients that are added to in several steps: as they were before, where one of the steps raises. So does Ctrl-C.

    grads  a flat array
    uses   rows that meet each parameter: a copy of the gradients takes as long as the work of a row or two. Where they
           are few, and the work is done in milliseconds, there is none

        with AllOrNone(layer._flat[1], steps * rows):
            ...
    """

    __slots__ = ("_before", "_grads")

    FEW = 16
    LONG = 32_000_000  # multiply-adds; as csrc/linear/driver.cpp

    def __init__(self, grads: np.ndarray[Any, Any], uses: int) -> None:
        self._grads = grads
        self._before = grads.copy() if uses >= self.FEW or uses * grads.size > self.LONG else None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None and self._before is not None:
            self._grads[...] = self._before
