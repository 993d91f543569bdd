"""What the nets share: recall, energy, files."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from ..core.checks import (
    MOST,
    Array,
    Rng,
    boolean,
    choice,
    file_name,
    generator,
    integer,
    integer_array,
    real_array,
    shape_error,
    shown,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
from .patterns import _finite, _on

FLOAT64 = np.dtype("float64")
VERSION = 1  # of the files


class CapacityWarning(UserWarning):
    """A net was given more than it can recall: more patterns than its `capacity`, or some that are too much alike.

    warnings.simplefilter("error", pyrnn.CapacityWarning)  # to be stopped there
    """


class Recall(NamedTuple):
    """What a recall found. With one probe the arrays (N,) are single values.

    state: like the probe, in the net's dtype. converged: True after a sweep without a flip. sweeps: their number, that
    last one included. flips: changes of units in all. energies: None, or with `record` the energy at the start and
    after each sweep, float64, (sweeps + 1,) or (N, most sweeps + 1), where a finished row's last value is repeated.

        result = net.recall(probe, record=True)
        result.state, result.converged, result.energies
    """

    state: Array
    converged: Any
    sweeps: Any
    flips: Any
    energies: Array | None

    def __repr__(self) -> str:
        """Shapes, and of a batch the smallest and the largest number."""

        def ranged(values: Any) -> str:
            if np.ndim(values) == 0 or not len(values):
                return str(values)
            return f"{np.min(values)}..{np.max(values)}"

        converged = str(self.converged)
        if np.ndim(self.converged):
            converged = f"{np.count_nonzero(self.converged)} of {len(self.converged)}"
        energies = None if self.energies is None else f"{self.energies.dtype}{self.energies.shape}"
        return (
            f"Recall(state={self.state.dtype}{self.state.shape}, converged={converged}, sweeps={ranged(self.sweeps)}, "
            f"flips={ranged(self.flips)}, energies={energies})"
        )


Saved = TypeVar("Saved", bound="_Saved")


class _Saved:
    """What can be written to a file, and read again."""

    _kind: ClassVar[str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the net to the safetensors file `path`, atomically. OSError where it cannot be written.

        net.save("net.safetensors")
        """
        from ..core import files

        arrays, description = self._content()
        files.save(path, arrays, {"kind": self._kind, "version": VERSION, **description})

    @classmethod
    def load(cls: type[Saved], path: str | os.PathLike[str]) -> Saved:
        """The net that `save` wrote. OSError or ValueError for a file that is missing, damaged or of another kind;
        TypeError for a subclass that is not made of the same arguments.

        net = pyrnn.Hopfield.load("net.safetensors")
        """
        from ..core import files

        arrays, description = files.load(path, cls._kind)
        return cls._read(file_name(path), arrays, description)

    @classmethod
    def _read(cls: type[Saved], name: str, arrays: dict[str, Array], description: dict[str, Any]) -> Saved:
        """The net in what a file of this name holds."""
        try:
            if description.pop("version", None) != VERSION:
                raise ValueError(f"it is of another version than {VERSION}, which this pyrnn reads")
            del description["kind"]
            net: Saved = cls._made_of(arrays, description)
            return net
        except (TypeError, ValueError) as error:
            if isinstance(error, TypeError) and cls.__name__ != cls._kind:
                raise TypeError(
                    f"{cls.__name__}.load: {cls.__name__} is not made as a {cls._kind} is: {error}; "
                    f"{cls._kind}.load gives the {cls._kind} that is in the file"
                ) from error
            raise ValueError(f"{name} is damaged, or not written by this pyrnn: {error}") from error

    def _content(self) -> tuple[dict[str, Array], dict[str, Any]]:
        raise NotImplementedError

    @classmethod
    def _made_of(cls, arrays: dict[str, Array], description: dict[str, Any]) -> Any:
        """The net of a `_content`, all of which is checked."""
        raise NotImplementedError


class _Net(_Saved):
    """What nets with units of two values share: states in and out, and the recall."""

    n_units: int
    dtype: np.dtype[Any]
    _off: int

    # A net keeps what it works on, such as local fields, beside the states (N, n) it belongs to.
    def _begin(self, state: Array) -> Array:
        raise NotImplementedError

    def _sweep(self, work: Array, state: Array, order: Array, external: Array | None) -> Array:
        """Visit all units; state and work are changed, the flips (N,) returned."""
        raise NotImplementedError

    def _all_at_once(self, work: Array, state: Array, external: Array | None) -> Array:
        """The state after all units have changed at the same time."""
        raise NotImplementedError

    def _energies(self, work: Array, state: Array, external: Array | None) -> Array:
        """(N,)"""
        raise NotImplementedError

    def recall(
        self,
        probe: ArrayLike,
        *,
        update: str = "async",
        order: ArrayLike | None = None,
        rng: Rng = None,
        external_input: ArrayLike | None = None,
        max_sweeps: int = 100,
        record: bool = False,
    ) -> Recall:
        """Update the units until nothing changes: the stored pattern that the probe resembles, if all goes well.

        probe: (n,) or (N, n), each row is recalled as if alone, with the same bits. update "async": units change one at
        a time, all of them once in a sweep, in `order` (a permutation of 0..n-1, the same in each sweep) or without it
        in a fresh random order for each sweep from `rng` (None is seed 0), shared by the rows. "sync": all units change
        at once; order and rng play no part; a state that returns after two steps ends the recall, not converged.
        external_input: (n,) or (N, n), added to the local fields. max_sweeps: the recall stops after so many.
        record: keep the energies.

        Returns a `Recall`. TypeError and ValueError for what does not fit: values that are not states, an order that is
        no permutation, NaN.

            result = net.recall(probe, record=True)
            result.state, result.converged, result.energies
        """
        call = f"{type(self).__name__}.recall"
        net = copy.copy(self)  # as it is now, whatever another thread stores meanwhile
        state, single = self._states(call, "probe", probe)
        external = self._external(call, external_input, state, single)
        at_once = choice(call, "update", update, ("async", "sync")) == "sync"
        rng = generator(call, 0 if rng is None else rng)
        fixed = None if order is None else self._order(call, order)
        max_sweeps = integer(call, "max_sweeps", max_sweeps, 0, MOST)
        boolean(call, "record", record)

        rows = np.arange(len(state))  # those that are still moving; state, work and external are theirs
        result = state.copy()
        converged = np.zeros(len(rows), np.bool_)
        sweeps, flips = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        work = net._begin(state)
        energies = [net._energies(work, state, external)] if record else []
        before_last = None
        for _ in range(max_sweeps):
            if not rows.size:
                break
            if at_once:
                last, state = state, net._all_at_once(work, state, external)
                changed = np.count_nonzero(state != last, axis=1)
                ended = changed == 0
                if before_last is not None:
                    ended |= (state == before_last).all(axis=1)
                before_last = last
                work = net._begin(state)
            else:
                visited = rng.permutation(self.n_units) if fixed is None else fixed
                changed = net._sweep(work, state, visited, external)
                ended = changed == 0
            result[rows] = state
            sweeps[rows] += 1
            flips[rows] += changed
            converged[rows] = changed == 0
            if record:
                energies.append(energies[-1].copy())
                energies[-1][rows] = net._energies(work, state, external)
            if ended.any():
                on = ~ended
                rows, state, work = rows[on], state[on], work[on]
                before_last = None if before_last is None else before_last[on]
                external = external if external is None or external.ndim == 1 else external[on]
        found = np.stack(energies, axis=1) if record else None
        if single:
            values = (bool(converged[0]), int(sweeps[0]), int(flips[0]))
            return Recall(result[0].astype(self.dtype), *values, None if found is None else found[0])
        return Recall(result.astype(self.dtype), converged, sweeps, flips, found)

    def energy(self, state: ArrayLike, external_input: ArrayLike | None = None) -> Any:
        """The energy of a state (n,), or of each of (N, n), in float64; it never rises in an asynchronous recall.

        net.energy(state)
        """
        call = f"{type(self).__name__}.energy"
        states, single = self._states(call, "state", state)
        external = self._external(call, external_input, states, single)
        net = copy.copy(self)
        energies = net._energies(net._begin(states), states, external)
        return float(energies[0]) if single else energies

    def _states(self, call: str, name: str, value: Any) -> tuple[Array, bool]:
        """(N, n) int8, and whether it was one state (n,). A copy."""
        on, single = _on(call, name, value, self.n_units, self._off, "N")
        state = on.view(np.int8)
        if self._off:
            state *= 2
            state -= 1
        return state, single

    def _order(self, call: str, value: Any) -> Array:
        order = integer_array(call, "order", value)
        n = self.n_units
        if order.shape != (n,):
            raise shape_error(call, "order", order.shape, f"({n},)")
        outside = order[(order < 0) | (order >= n)]
        if outside.size:
            raise ValueError(f"{call}: order holds {outside[0]}, expected a permutation of 0 to {n - 1}")
        twice = np.flatnonzero(np.bincount(order, minlength=n) > 1)
        if twice.size:
            raise ValueError(f"{call}: order holds {twice[0]} twice, expected a permutation of 0 to {n - 1}")
        return order

    def _external(self, call: str, value: Any, state: Array, single: bool) -> Array | None:
        """float64 (n,) or (N, n), whatever the net's dtype."""
        if value is None:
            return None
        array = real_array(call, "external_input", value, FLOAT64)
        if array.shape != (self.n_units,) and (single or array.shape != state.shape):
            expected = f"({self.n_units},)" + ("" if single else f" or {state.shape}")
            raise shape_error(call, "external_input", array.shape, expected)
        return _finite(call, "external_input", array)


def _complete(where: str, came: Mapping[str, Any], names: Collection[str]) -> None:
    """ValueError where not all and only these names came."""
    missing, unknown = [name for name in names if name not in came], [name for name in came if name not in names]
    if missing or unknown:
        raise ValueError(f"{where} lacks {shown(missing)} and has {shown(unknown)} too much")
