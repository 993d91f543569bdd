"""Pullbacks: called once, with gradients that are checked first, they add to others as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from .checks import Array, shaped_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

T = TypeVar("T")
R = TypeVar("R")


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


class Pullback(Generic[T, R]):
    """The way back of one vjp with one result: pullback(dy).

    call    names it in errors: "Linear pullback"
    result  what dy is the gradient of; its shape and dtype are remembered
    kept    what the way back needs; it lives no longer than the call
    back    back(dy, kept) gives what the pullback returns
    name    of the gradient, in errors and as a keyword

    A dy that is refused (TypeError, ValueError) does not count; a second call is a RuntimeError.

        return y, Pullback("Linear pullback", y, (x, weight), back)
    """

    __slots__ = ("_back", "_dtype", "_name", "_once", "_shape")

    def __init__(self, call: str, result: Array, kept: T, back: Callable[[Array, T], R], name: str = "dy") -> None:
        self._once = Once(call, kept)
        self._shape, self._dtype, self._name, self._back = result.shape, result.dtype, name, back

    def __call__(self, *given: ArrayLike, **named: ArrayLike) -> R:
        if len(given) != 1 or named:
            if given or list(named) != [self._name]:
                raise TypeError(f"{self._once.call}: expected one gradient, {self._name}")
            given = (named[self._name],)
        dy = shaped_array(self._once.call, self._name, given[0], self._dtype, self._shape)
        return self._back(dy, self._once.take())


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
