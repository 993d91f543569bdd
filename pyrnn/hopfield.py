"""Hopfield, DenseHopfield and ModernHopfield: associative memories that recall a stored pattern from a part of it."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from . import kernels
from ._arrays import (
    MOST,
    Array,
    Rng,
    boolean,
    choice,
    file_name,
    float_dtype,
    generator,
    integer,
    integer_array,
    numbers_array,
    quietly,
    real,
    real_array,
    shape_error,
    shaped_array,
    shown,
)
from ._pullback import Once

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

FLOAT64 = np.dtype("float64")
MOST_UNITS = 2**25
OFF = {"bipolar": -1, "binary": 0}
RULES = ("hebbian", "storkey", "pseudo_inverse")
BLOCK = 32  # rows of weights that are changed together, while they are in the cache
CHUNK = 2**24  # entries that are looked at together, so that checks need little memory
TRIED = 2**26  # multiply-adds that a store spends on trying whether its patterns are stable
VERSION = 1  # of the files


class CapacityWarning(UserWarning):
    """A net was given more than it can recall: more patterns than its `capacity`, or some that are too much alike."""


class Recall(NamedTuple):
    """What a recall found. With one probe the arrays (N,) are single values.

    state: like the probe, in the net's dtype. converged: True after a sweep without a flip. sweeps: their number, that
    last one included. flips: changes of units in all. energies: None, or with `record` the energy at the start and
    after each sweep, float64, (sweeps + 1,) or (N, most sweeps + 1), where a finished row's last value is repeated.
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
        from . import files

        arrays, description = self._content()
        files.save(path, arrays, {"kind": self._kind, "version": VERSION, **description})

    @classmethod
    def load(cls: type[Saved], path: str | os.PathLike[str]) -> Saved:
        """The net that `save` wrote. OSError or ValueError for a file that is missing, damaged or of another kind;
        TypeError for a subclass that is not made of the same arguments.

        net = pyrnn.Hopfield.load("net.safetensors")
        """
        from . import files

        arrays, description = files.load(path, cls._kind)
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
            raise ValueError(f"{file_name(path)} is damaged, or not written by this pyrnn: {error}") from error

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


class _Memory(NamedTuple):
    """What a Hopfield net holds; never changed, only replaced as a whole."""

    rule: str | None
    bits: Array  # hebbian, pseudo_inverse
    negative: Array
    stored: int
    weights: Array | None


class Hopfield(_Net):
    """The network of Hopfield 1982: n units of two values, symmetric weights, and an energy that recall descends.

    states: "bipolar" (-1 and 1) or "binary" (0 and 1). threshold: a number or (n,). dtype: of the weights and of the
    states that come out; fields, thresholds, external inputs and energies are float64. Unit i turns on where
    external_input_i + sum_j w_ij s_j is above threshold_i, off where it is below, and stays where it is equal. The
    energy is -1/2 sum_ij w_ij s_i s_j + sum_i threshold_i s_i - sum_i external_input_i s_i.

    Rules of `store`, none of them with self-connections; a net keeps to the first one it was given:
    "hebbian": w_ij = sum over patterns of x_i x_j, exact integers; binary patterns are mapped to -1 and 1 for learning.
    "storkey": Storkey 1997, w_ij += (x_i x_j - x_i h_ji - h_ij x_j) / n with h_ij = sum of w_ik x_k over k != i, j.
    "pseudo_inverse": Personnaz, Guyon & Dreyfus 1986, the projection on the space that the patterns span.

    `storage` tells what the net keeps. "patterns": the Hebbian patterns as bits, n * P / 8 bytes, while there are no
    more than units; local fields follow from the overlaps of state and patterns, O(P) for each unit visited, and the
    weights are only made when `weights` is asked for. "weights": the matrix (n, n) in dtype, with more patterns or
    another rule; local fields are kept, a flip costs O(n) and a unit that stays O(1). Both give the same recall, in
    Hebbian nets the same bits.

    `rule` is None until something is stored; `n_patterns` counts the patterns stored, less those forgotten. Several
    threads may recall from one net, also while one of them stores; two must not store at once. `patterns` are those
    stored, as far as the net still knows them. TypeError and ValueError for arguments that make no net.

    States go in as numbers, or as booleans, True for on; images (P, h, w) as rows, `images.reshape(P, -1) > 0.5`.

        net = pyrnn.Hopfield(100)
        net.store(patterns)  # (P, 100)
        result = net.recall(probe)  # (100,) or (N, 100)
    """

    _kind = "Hopfield"

    def __init__(
        self, n_units: int, *, states: str = "bipolar", threshold: ArrayLike = 0.0, dtype: DTypeLike = "float32"
    ) -> None:
        call = type(self).__name__
        self.n_units = integer(call, "n_units", n_units, 1, MOST_UNITS)
        self.states = choice(call, "states", states, tuple(OFF))
        self._off = OFF[self.states]
        given = real_array(call, "threshold", threshold, FLOAT64)
        if given.shape not in ((), (self.n_units,)):
            raise shape_error(call, "threshold", given.shape, f"() or ({self.n_units},)")
        self.threshold = np.array(np.broadcast_to(_finite(call, "threshold", given), self.n_units))
        self.threshold.flags.writeable = False
        self.dtype = float_dtype(call, dtype)
        nothing = kernels.hopfield.pack(np.empty((0, self.n_units), np.bool_))
        self._memory = _Memory(None, nothing, np.zeros(0, np.bool_), 0, None)

    def __repr__(self) -> str:
        return (
            f"Hopfield({self.n_units}, states={self.states!r}, dtype={self.dtype.name!r}, rule={self.rule!r}, "
            f"n_patterns={self.n_patterns}, storage={self.storage!r})"
        )

    @property
    def rule(self) -> str | None:
        """The rule of what is stored."""
        return self._memory.rule

    @property
    def storage(self) -> str:
        """ "patterns" or "weights": what is kept."""
        return "patterns" if self._memory.weights is None else "weights"

    @property
    def n_patterns(self) -> int:
        """The number of patterns stored, less those forgotten."""
        return self._memory.stored

    @property
    def weights(self) -> Array:
        """The weights (n, n): symmetric bit for bit, with a zero diagonal, read-only.

        Where `storage` is "patterns" they are made anew each time.
        """
        memory = self._memory
        weights = self._hebbian(memory.bits, memory.negative) if memory.weights is None else memory.weights.view()
        weights.flags.writeable = False
        return weights

    @property
    def patterns(self) -> Array | None:
        """The stored patterns (P, n) in dtype, made anew each time; None where only their weights are kept."""
        memory = self._memory
        if memory.weights is not None and memory.rule != "pseudo_inverse":
            return None
        on = _unpacked(memory.bits, len(memory.negative))[~memory.negative]
        patterns: Array = np.where(on, self.dtype.type(1), self.dtype.type(self._off))
        return patterns

    def store(self, patterns: ArrayLike, rule: str = "hebbian") -> None:
        """Store patterns (P, n) or one (n,), in addition to those stored before.

        rule: "hebbian", "storkey" or "pseudo_inverse". The Hebbian rule is for patterns that have little to do with
        each other, as random ones; of patterns that resemble each other, such as digits, it loses a few already, and
        "pseudo_inverse" keeps them. A `CapacityWarning` tells of more different patterns than `capacity` (of those
        whose weights alone are kept, all that came in other calls count as different), and of patterns that are less
        stable than random ones would be (as many of them are tried as takes little time). ValueError for another rule
        than before, for a wrong shape and for values that are not states; nothing is changed then.

            net.store(patterns, rule="pseudo_inverse")
        """
        call = "Hopfield.store"
        choice(call, "rule", rule, RULES)
        self._check_rule(call, rule)
        on, _ = _on(call, "patterns", patterns, self.n_units, self._off, "P")
        memory = self._memory._replace(rule=rule, stored=self._memory.stored + len(on))
        if rule == "hebbian":
            memory = self._added(memory, on, negative=False)
        elif rule == "storkey":
            memory = memory._replace(weights=self._storkey(memory.weights, on))
        else:
            bits, negative = _appended(memory.bits, memory.negative, on, negative=False)
            memory = memory._replace(bits=bits, negative=negative, weights=self._projection(bits, len(negative)))
        self._warn(call, memory, on)
        self._memory = memory

    def forget(self, patterns: ArrayLike) -> None:
        """The inverse of a Hebbian store: subtracts the patterns' weights, of patterns that were stored or not
        (unlearning, Hopfield, Feinstein & Palmer 1983). Arguments and errors as in `store`.

        net.forget(patterns)
        """
        call = "Hopfield.forget"
        self._check_rule(call, "hebbian")
        on, _ = _on(call, "patterns", patterns, self.n_units, self._off, "P")
        memory = self._memory._replace(rule="hebbian", stored=self._memory.stored - len(on))
        self._memory = self._added(memory, on, negative=True)

    def is_stable(self, state: ArrayLike, external_input: ArrayLike | None = None) -> Any:
        """Whether no unit of a state (n,) would change, or of each of (N, n).

        net.is_stable(pattern)
        """
        call = "Hopfield.is_stable"
        states, single = self._states(call, "state", state)
        external = self._external(call, external_input, states, single)
        net = copy.copy(self)
        stable = (net._all_at_once(net._begin(states), states, external) == states).all(axis=1)
        return bool(stable[0]) if single else stable

    def capacity(self) -> int:
        """The number of random patterns (each unit on or off by a coin) that the rule recalls with few errors.

        hebbian, and an empty net: 0.138 n (Amit, Gutfreund & Sompolinsky 1985; about 1.6 % of the units wrong at the
        limit; without any error n / (2 ln n), McEliece et al. 1987). storkey: n / sqrt(2 ln n) (Storkey 1997).
        pseudo_inverse: n (Personnaz, Guyon & Dreyfus 1986; from n / 2 on its basins of attraction are small).

        One pattern is always recalled. Patterns that resemble each other are no random ones: of those the first two
        rules hold fewer.

            net.capacity()
        """
        return _capacity(self.n_units, self.rule)

    # ---- what is told

    def _warn(self, call: str, memory: _Memory, on: Array) -> None:
        """Tell the caller of `store` where a recall will not find the patterns; `memory` holds them already."""
        n, most = self.n_units, _capacity(self.n_units, memory.rule)
        stored = memory.stored
        if stored > most:  # those that came again need no room of their own
            if len(memory.negative):
                stored = min(stored, _different(_unpacked(memory.bits, len(memory.negative))[~memory.negative]))
            else:
                stored += _different(on) - len(on)
        better = "" if memory.rule == "pseudo_inverse" else ", or a net with rule='pseudo_inverse',"
        if stored > most:
            warnings.warn(
                f"{call}: more patterns are stored, {stored}, than the {most} that {memory.rule} weights of {n} units "
                f"hold (capacity()), so that a recall may end elsewhere; more units{better} hold more",
                CapacityWarning,
                stacklevel=3,
            )
        elif memory.rule != "pseudo_inverse":
            net = copy.copy(self)
            net._memory = memory
            tried = on[: max(1, TRIED // (n * (n if memory.weights is not None else max(1, len(memory.negative)))))]
            states = np.where(tried, np.int8(1), np.int8(self._off))
            flips = np.count_nonzero(net._all_at_once(net._begin(states), states, None) != states)
            # So many would with random patterns and Hebbian weights, where the others are noise in a unit's field.
            active = np.count_nonzero(states, axis=1)
            usual = sum(n / 2 * math.erfc(math.sqrt(k / (2 * stored - 2))) for k in active) if stored > 1 else 0.0
            if flips > 2 * usual + 6 * math.sqrt(usual) + 2:
                moved = "; so does a threshold that is not 0" if self.threshold.any() else ""
                warnings.warn(
                    f"{call}: not all of these patterns are stable ({flips} units of {len(states)} patterns change at "
                    f"once), so that a recall ends elsewhere; of patterns that resemble each other, or of one that is "
                    f"stored many times and others, {memory.rule} weights hold few, those of rule='pseudo_inverse' "
                    f"many{moved}",
                    CapacityWarning,
                    stacklevel=3,
                )

    # ---- the file

    def _content(self) -> tuple[dict[str, Array], dict[str, Any]]:
        memory = self._memory
        arrays = {"threshold": self.threshold, "bits": memory.bits, "negative": memory.negative}
        if memory.weights is not None:
            arrays["weights"] = memory.weights
        options = {"n_units": self.n_units, "states": self.states, "dtype": self.dtype.name}
        return arrays, {**options, "rule": memory.rule, "n_patterns": memory.stored}

    @classmethod
    def _made_of(cls, arrays: dict[str, Array], description: dict[str, Any]) -> Any:
        _complete("the description", description, ("n_units", "states", "dtype", "rule", "n_patterns"))
        rule, stored = description.pop("rule"), description.pop("n_patterns")
        if rule is not None:
            choice(cls._kind, "rule", rule, RULES)
        keeps = rule == "pseudo_inverse" or (rule == "hebbian" and "weights" not in arrays)  # the patterns
        weighs = rule == "pseudo_inverse" or (rule is not None and not keeps)
        _complete("the file", arrays, ("threshold", "bits", "negative", *["weights"] * weighs))
        bits, negative, weights = arrays["bits"], arrays["negative"], arrays.get("weights")
        if arrays["threshold"].dtype != FLOAT64:
            raise ValueError(f"threshold has dtype {arrays['threshold'].dtype}, expected float64")
        net = cls(threshold=arrays["threshold"], **description)
        n = net.n_units
        if negative.dtype != np.bool_ or negative.ndim != 1:
            raise ValueError(f"negative is {negative.dtype} {negative.shape}, expected bool (P,)")
        count = len(negative)
        if count > (0 if not keeps else n if rule == "hebbian" else MOST) or (weighs and negative.any()):
            raise ValueError(f"{count} patterns are kept in it, which are none that a {rule} net of {n} units keeps")
        _check_bits(bits, n, count)
        integer(cls._kind, "n_patterns", stored, -MOST)
        if (keeps or rule is None) and stored != count - 2 * np.count_nonzero(negative):
            raise ValueError(f"n_patterns is {shown(stored)}, which the patterns in it contradict")
        if weights is not None:
            if weights.dtype != net.dtype or weights.shape != (n, n):
                raise ValueError(f"weights is {weights.dtype} {weights.shape}, expected {net.dtype} ({n}, {n})")
            if not np.isfinite(weights).all() or weights.diagonal().any() or not np.array_equal(weights, weights.T):
                raise ValueError("weights are not finite and symmetric with a zero diagonal")
        net._memory = _Memory(rule, bits, negative, stored, weights)
        return net

    # ---- rules

    def _check_rule(self, call: str, rule: str) -> None:
        if self.rule not in (None, rule):
            raise ValueError(f"{call}: this net holds {self.rule} weights, which cannot be mixed with {rule} ones")

    def _hebbian(self, bits: Array, negative: Array) -> Array:
        weights: Array = kernels.hopfield.hebbian(bits, negative, self.dtype.name)
        return weights

    def _added(self, memory: _Memory, on: Array, negative: bool) -> _Memory:
        """With the Hebbian weights of patterns added, or subtracted."""
        if memory.weights is not None:
            sign = np.full(len(on), negative)
            return memory._replace(weights=memory.weights + self._hebbian(kernels.hopfield.pack(on), sign))
        bits, signs = memory.bits, memory.negative
        if (signs != negative).any():  # what cancels is taken out
            kept, on = _cancelled(_unpacked(bits, len(signs)), signs != negative, on)
            signs = signs[kept]
            bits = kernels.hopfield.pack(_unpacked(bits, len(kept))[kept])
        bits, signs = _appended(bits, signs, on, negative)
        if len(signs) <= self.n_units:
            return memory._replace(bits=bits, negative=signs)
        return memory._replace(bits=bits[:, :0], negative=signs[:0], weights=self._hebbian(bits, signs))

    def _storkey(self, weights: Array | None, on: Array) -> Array:
        n = self.n_units
        w = np.zeros((n, n)) if weights is None else weights.astype(np.float64)
        for row in on:
            x = np.where(row, 1.0, -1.0)
            change = (x / 2 - w @ x) / n  # h_ij = h_i - w_ij x_j
            left, right = np.column_stack([change, x]), np.stack([x, change])
            for rows in (slice(first, first + BLOCK) for first in range(0, n, BLOCK)):
                w[rows] *= 1 + 2 / n
                w[rows] += left[rows] @ right  # exact products, one rounding: symmetric
            np.fill_diagonal(w, 0)
        return w.astype(self.dtype)

    def _projection(self, bits: Array, count: int) -> Array:
        x = np.where(_unpacked(bits, count), 1.0, -1.0)
        _, size, axes = np.linalg.svd(x, full_matrices=False)
        axes = axes[size > max(x.shape, default=0) * np.finfo(np.float64).eps * size.max(initial=0)]
        product = axes.T @ axes
        w: Array = ((product + product.T) / 2).astype(self.dtype)
        w[np.abs(w) < self.n_units * np.finfo(np.float64).eps] = 0  # rounding; all there is where n patterns are stored
        # A unit that the patterns determine alone (1 on the diagonal) gets no input from others; rounding must not give
        # it any.
        alone = product.diagonal() > 1 - 1e-10
        w[alone] = w[:, alone] = 0
        np.fill_diagonal(w, 0)
        return w

    # ---- recall

    def _begin(self, state: Array) -> Array:
        """The overlaps, or the local fields."""
        memory = self._memory
        work: Array = (
            kernels.hopfield.overlaps(memory.bits, memory.negative, state)
            if memory.weights is None
            else kernels.hopfield.fields(memory.weights, state)
        )
        return work

    def _fields(self, work: Array, state: Array) -> Array:
        memory = self._memory
        if memory.weights is None:
            work = kernels.hopfield.pattern_fields(memory.bits, memory.negative, work, state)
        return work

    def _sweep(self, work: Array, state: Array, order: Array, external: Array | None) -> Array:
        memory, option = self._memory, (order, self.threshold, external, self._off)
        flips: Array = (
            kernels.hopfield.pattern_sweep(memory.bits, memory.negative, work, state, *option)
            if memory.weights is None
            else kernels.hopfield.sweep(memory.weights, work, state, *option)
        )
        return flips

    def _all_at_once(self, work: Array, state: Array, external: Array | None) -> Array:
        fields = self._fields(work, state)
        if external is not None:
            fields = external + fields
        off = np.where(fields < self.threshold, np.int8(self._off), state)
        return np.where(fields > self.threshold, np.int8(1), off)

    def _energies(self, work: Array, state: Array, external: Array | None) -> Array:
        against = self.threshold if external is None else self.threshold - external
        energies: Array = (state * self._fields(work, state)).sum(axis=1) / -2 + (state * against).sum(axis=1)
        return energies


class DenseHopfield(_Net):
    """The dense associative memory of Krotov & Hopfield 2016: E = -sum_p F(pattern_p . state), bipolar.

    energy "polynomial": F(z) = z ** degree; memory for about n ** (degree - 1) patterns. "exponential": F(z) = exp(z)
    (Demircigil et al. 2017), about 2 ** (n / 2). A unit turns to the value of lower energy, given all others and its
    external input (which adds -sum_i external_input_i s_i to the energy); it stays where both are equal. In float64 the
    energy itself is -inf where exp(z) or the sum is too large for it, which recall does not depend on. Recall sums
    exponential terms in float64 relative to the largest: what is below 1e-16 of it, a term or an input, is lost.

    patterns: (P, n) or (n,) of -1 and 1. dtype: of the states that come out. TypeError and ValueError for arguments
    that make no net, such as a degree for which n ** degree is more than a float64 can hold. States go in as in
    `Hopfield`.

        net = pyrnn.DenseHopfield(patterns, energy="exponential")
        result = net.recall(probe)
    """

    _kind = "DenseHopfield"
    _off = -1

    def __init__(
        self, patterns: ArrayLike, *, energy: str = "polynomial", degree: int = 3, dtype: DTypeLike = "float32"
    ) -> None:
        call = type(self).__name__
        on, _ = _on(call, "patterns", patterns, None, self._off, "P")
        self.n_patterns, self.n_units = on.shape
        self.form = choice(call, "energy", energy, ("polynomial", "exponential"))
        self.degree = integer(call, "degree", degree, 1, MOST)
        self.dtype = float_dtype(call, dtype)
        self._bits = kernels.hopfield.pack(on)
        self._negative = np.zeros(len(on), np.bool_)
        n = self.n_units
        with np.errstate(over="ignore"):
            if self.form == "polynomial":
                values = np.arange(-n - 1, n + 2, dtype=np.float64) ** self.degree
                if not np.isfinite(np.abs(values).sum() * max(1, self.n_patterns)):
                    raise ValueError(f"{call}: degree is {self.degree}, too large for {n} units")
                self._gap = values[2:] - values[:-2]
            else:
                self._gap = (math.e - 1 / math.e) * np.exp(np.arange(-2 * n, 1, dtype=np.float64))

    def __repr__(self) -> str:
        degree = f", degree={self.degree}" if self.form == "polynomial" else ""
        return (
            f"DenseHopfield(n_units={self.n_units}, n_patterns={self.n_patterns}, energy={self.form!r}{degree}, "
            f"dtype={self.dtype.name!r})"
        )

    @property
    def patterns(self) -> Array:
        """The patterns (P, n) in dtype, made anew each time."""
        on = _unpacked(self._bits, self.n_patterns)
        patterns: Array = np.where(on, self.dtype.type(1), self.dtype.type(-1))
        return patterns

    def _content(self) -> tuple[dict[str, Array], dict[str, Any]]:
        options = {"energy": self.form, "degree": self.degree, "dtype": self.dtype.name}
        return {"bits": self._bits}, {**options, "n_patterns": self.n_patterns}

    @classmethod
    def _made_of(cls, arrays: dict[str, Array], description: dict[str, Any]) -> Any:
        _complete("the description", description, ("energy", "degree", "dtype", "n_patterns"))
        _complete("the file", arrays, ("bits",))
        count, bits = description.pop("n_patterns"), arrays["bits"]
        _check_bits(bits, len(bits) if bits.ndim else 0, integer(cls._kind, "n_patterns", count, 0))
        return cls(_unpacked(bits, count), **description)

    def _begin(self, state: Array) -> Array:
        overlaps: Array = kernels.hopfield.overlaps(self._bits, self._negative, state)
        return overlaps

    def _sweep(self, work: Array, state: Array, order: Array, external: Array | None) -> Array:
        relative = self.form == "exponential"
        flips: Array = kernels.hopfield.dense_sweep(
            self._bits, self._negative, work, state, order, self._gap, external, relative
        )
        return flips

    def _all_at_once(self, work: Array, state: Array, external: Array | None) -> Array:
        x = np.where(_unpacked(self._bits, self.n_patterns), 1, -1)
        inputs = np.zeros(state.shape) if external is None else np.broadcast_to(2 * external, state.shape).copy()
        for m, s, input_ in zip(work[:, : self.n_patterns], state, inputs, strict=True):
            rest = m[:, None] - x * s  # (P, n)
            index = rest + self.n_units
            if self.form == "exponential":
                most = rest.max(axis=0, initial=-2 * self.n_units)
                index = rest - most + 2 * self.n_units
                input_ *= np.exp(np.minimum(-most.astype(np.float64), 700))
            input_ += (x * self._gap[index]).sum(axis=0)
        return np.where(inputs > 0, np.int8(1), np.where(inputs < 0, np.int8(-1), state))

    def _energies(self, work: Array, state: Array, external: Array | None) -> Array:
        overlaps = work[:, : self.n_patterns].astype(np.float64)
        with np.errstate(over="ignore"):
            values = overlaps**self.degree if self.form == "polynomial" else np.exp(overlaps)
            energies: Array = -values.sum(axis=1)
        if external is not None:
            energies -= (state * external).sum(axis=1)
        return energies


class ModernHopfield(_Saved):
    """The continuous Hopfield network of Ramsauer et al. 2021: one step is softmax(beta s Y^T) Y, an attention, and
    computed as one. A state has the same bits alone or in a batch.

    patterns Y: (P, d), any real numbers. beta: None is 1 / sqrt(d). States and results are in dtype. TypeError and
    ValueError for arguments that make no net.

        net = pyrnn.ModernHopfield(patterns, beta=8.0)
        state = net.retrieve(probe)  # (d,) or (N, d)
    """

    _kind = "ModernHopfield"

    def __init__(self, patterns: ArrayLike, *, beta: float | None = None, dtype: DTypeLike = "float32") -> None:
        call = type(self).__name__
        self.dtype = float_dtype(call, dtype)
        given = real_array(call, "patterns", patterns, self.dtype)
        if given.ndim != 2 or 0 in given.shape:
            expected = "(P, d) with at least one pattern and one component" + _as_rows(given.shape, None)
            raise shape_error(call, "patterns", given.shape, expected)
        self.patterns = np.array(given, order="C")
        tiny, largest = float(np.finfo(self.dtype).tiny), float(np.finfo(self.dtype).max)
        self.beta = given.shape[1] ** -0.5 if beta is None else real(call, "beta", beta, tiny, largest)

    def __repr__(self) -> str:
        n_patterns, size = self.patterns.shape
        return f"ModernHopfield(n_patterns={n_patterns}, size={size}, beta={self.beta:g}, dtype={self.dtype.name!r})"

    def _content(self) -> tuple[dict[str, Array], dict[str, Any]]:
        return {"patterns": self.patterns}, {"beta": self.beta, "dtype": self.dtype.name}

    @classmethod
    def _made_of(cls, arrays: dict[str, Array], description: dict[str, Any]) -> Any:
        _complete("the description", description, ("beta", "dtype"))
        _complete("the file", arrays, ("patterns",))
        real(cls._kind, "beta", description["beta"], 0)  # None would be another net
        net = cls(arrays["patterns"], **description)
        if net.dtype != arrays["patterns"].dtype:
            raise ValueError(f"patterns has dtype {arrays['patterns'].dtype}, expected {net.dtype}")
        return net

    def retrieve(self, state: ArrayLike, *, max_steps: int = 1, tol: float = 1e-4) -> Array:
        """Steps from a state (d,) or (N, d), until no component of a row moves by more than tol; at most max_steps.

        net.retrieve(probe, max_steps=10)
        """
        states, single = self._states("ModernHopfield.retrieve", state)
        result, _ = self._steps("ModernHopfield.retrieve", states, max_steps, tol, keep=False)
        return result[0] if single else result

    def vjp(
        self, state: ArrayLike, *, max_steps: int = 1, tol: float = 1e-4
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array, Array]]]:
        """`retrieve`, and pullback(dstate) -> (dstate, dpatterns) through the steps that were made, which can be called
        once and owns what it needs.

            state, pullback = net.vjp(probe)
            dprobe, dpatterns = pullback(dstate)
        """
        call = "ModernHopfield.vjp"
        states, single = self._states(call, state)
        result, steps = self._steps(call, states, max_steps, tol, keep=True)
        kept = Once("ModernHopfield pullback", (self.patterns.copy(), steps))
        shape = result.shape[1:] if single else result.shape

        def pullback(dstate: ArrayLike) -> tuple[Array, Array]:
            d = shaped_array(kept.call, "dstate", dstate, self.dtype, shape).reshape(-1, shape[-1]).copy()
            y, steps = kept.take()
            dy = np.zeros_like(y)
            for rows, before, after, stats in reversed(steps):
                dbefore, dkey, dvalue = kernels.attention.backward(
                    d[rows][None], before[None], y[None], y[None], after, stats, scale=self.beta
                )
                dy += dkey[0] + dvalue[0]
                d[rows] = dbefore[0]
            return d.reshape(shape), dy

        return (result[0] if single else result), pullback

    @quietly
    def energy(self, state: ArrayLike) -> Any:
        """-lse(beta, Y s) + s.s / 2 + ln(P) / beta + max |y|^2 / 2 of a state (d,) or of each of (N, d), in float64;
        at least 0, and no step raises it.

        net.energy(state)
        """
        states, single = self._states("ModernHopfield.energy", state)
        s, y = states.astype(np.float64), self.patterns.astype(np.float64)
        _, stats = kernels.attention.forward(s[None], y[None], y[None], scale=self.beta)
        most, total = stats[0].T  # of each state, the largest log2(e) beta y.s, and the sum of exp(beta y.s - largest)
        lse = (most * math.log(2) + np.log(total)) / self.beta
        constant = math.log(len(y)) / self.beta + (y * y).sum(axis=1).max() / 2
        energies = -lse + (s * s).sum(axis=1) / 2 + constant
        return float(energies[0]) if single else energies

    def _states(self, call: str, value: Any) -> tuple[Array, bool]:
        array = real_array(call, "state", value, self.dtype)
        d = self.patterns.shape[1]
        if array.ndim not in (1, 2) or array.shape[-1] != d:
            raise shape_error(call, "state", array.shape, f"({d},) or (N, {d})" + _as_rows(array.shape, d))
        return array.reshape(-1, d), array.ndim == 1

    @quietly
    def _steps(
        self, call: str, s: Array, max_steps: Any, tol: Any, keep: bool
    ) -> tuple[Array, list[tuple[Array, Array, Array, Array]]]:
        """The last states; where `keep`, each step: the rows it moved, their states before, and what attention left."""
        max_steps, tol = integer(call, "max_steps", max_steps, 0, MOST), real(call, "tol", tol, 0)
        result, rows = s.copy(), np.arange(len(s))
        steps = []
        for _ in range(max_steps):
            if not rows.size:
                break
            before = result[rows]
            y = self.patterns[None]
            after, stats = kernels.attention.forward(before[None], y, y, scale=self.beta)
            result[rows] = after[0]
            if keep:
                steps.append((rows, before, after, stats))
            with np.errstate(over="ignore"):  # a tol beyond a float32
                rows = rows[(np.abs(result[rows] - before) > tol).any(axis=1)]
        return result, steps


# ---- patterns of two values


def _on(call: str, name: str, value: Any, n: int | None, off: int, letter: str) -> tuple[Array, bool]:
    """Where states (rows, n) or (n,) are on, (rows, n), and whether it was one; ValueError for another value.

    Booleans are on and off in every net.
    """
    array = numbers_array(call, name, value)
    wanted = "n" if n is None else n
    if array.ndim not in (1, 2) or (array.shape[-1] != n if n is not None else 0 in array.shape[-1:]):
        expected = f"({wanted},) or ({letter}, {wanted})" + _as_rows(array.shape, n)
        raise shape_error(call, name, array.shape, expected)
    if array.dtype == np.bool_:
        off = 0
    if array.shape[-1] > MOST_UNITS:
        raise shape_error(call, name, array.shape, f"at most {MOST_UNITS} units")
    rows = array.reshape(-1, array.shape[-1])
    on = np.empty(rows.shape, np.bool_)
    step = max(1, CHUNK // rows.shape[1])
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        np.equal(part, 1, out=on[first : first + step])
        good = on[first : first + step] | (part == off)
        if not good.all():
            raise ValueError(f"{call}: {name} holds {part[~good][0]}, expected {off} or 1")
    return on, array.ndim == 1


def _as_rows(shape: tuple[int, ...], n: int | None) -> str:
    """What to do with images, where these are some, of n pixels or any number."""
    pixels = math.prod(shape[-2:])
    if len(shape) not in (2, 3) or pixels == 0 or pixels != (n or pixels):
        return ""
    return f"; images are rows of pixels, .reshape(-1, {pixels})"


def _finite(call: str, name: str, array: Array) -> Array:
    if not np.isfinite(array).all():
        raise ValueError(f"{call}: {name} holds {array[~np.isfinite(array)][0]}, expected finite numbers")
    return array


def _capacity(n: int, rule: str | None) -> int:
    if rule == "pseudo_inverse":
        return n
    if rule == "storkey":
        return int(n / math.sqrt(2 * math.log(n))) if n > 2 else 1
    return max(1, int(0.138 * n))


def _different(on: Array) -> int:
    """How many of these patterns (P, n) are different ones."""
    return len({np.packbits(row).tobytes() for row in on})


def _complete(where: str, came: Mapping[str, Any], names: Collection[str]) -> None:
    """ValueError where not all and only these names came."""
    missing, unknown = [name for name in names if name not in came], [name for name in came if name not in names]
    if missing or unknown:
        raise ValueError(f"{where} lacks {shown(missing)} and has {shown(unknown)} too much")


def _check_bits(bits: Array, n: int, count: int) -> None:
    """ValueError where these are not the bits of `count` patterns of n units."""
    if bits.dtype != np.uint32 or bits.shape != (n, -(-count // 32)):
        raise ValueError(f"bits is {bits.dtype} {bits.shape}, expected uint32 ({n}, {-(-count // 32)})")
    if count % 32 and (bits[:, -1] >> np.uint32(count % 32)).any():
        raise ValueError(f"bits holds more than the {count} patterns")


def _unpacked(bits: Array, count: int) -> Array:
    """bits (n, words) -> (count, n) booleans."""
    octets = np.ascontiguousarray(bits, "<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little", count=count).view(np.bool_).T


def _appended(bits: Array, signs: Array, on: Array, negative: bool) -> tuple[Array, Array]:
    """Bits and signs with more patterns; the first new ones fill up the last word."""
    spare = len(signs) % 32
    if spare:
        new = kernels.hopfield.pack(np.concatenate([np.zeros((spare, len(bits)), np.bool_), on]))
        new[:, 0] |= bits[:, -1]
    else:
        new = kernels.hopfield.pack(on)
    joined = np.concatenate([bits[:, : len(signs) // 32], new], axis=1) if bits.size else new
    return joined, np.concatenate([signs, np.full(len(on), negative)])


def _cancelled(stored: Array, opposite: Array, on: Array) -> tuple[Array, Array]:
    """Which stored patterns stay (P,), and the new ones that are left; a pattern and its inverse have equal weights."""

    def key(row: Array) -> bytes:
        return np.packbits(row ^ row[0]).tobytes()

    places: dict[bytes, list[int]] = {}
    for place in np.flatnonzero(opposite).tolist():
        places.setdefault(key(stored[place]), []).append(place)
    kept, left = np.ones(len(stored), np.bool_), np.ones(len(on), np.bool_)
    for k, row in enumerate(on):
        found = places.get(key(row))
        if found:
            kept[found.pop()], left[k] = False, False
    return kept, on[left]
