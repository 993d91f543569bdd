"""Hopfield, DenseHopfield and ModernHopfield: associative memories that recall a stored pattern from a part of it."""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, choice, float_dtype, integer, real_array, shape_error, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
from .net import FLOAT64, CapacityWarning, _complete, _Net
from .patterns import MOST_UNITS, OFF, _appended, _cancelled, _check_bits, _different, _finite, _on, _unpacked

RULES = ("hebbian", "storkey", "pseudo_inverse")
BLOCK = 32  # rows of weights that are changed together, while they are in the cache
TRIED = 2**26  # multiply-adds that a store spends on trying whether its patterns are stable


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


def _capacity(n: int, rule: str | None) -> int:
    if rule == "pseudo_inverse":
        return n
    if rule == "storkey":
        return int(n / math.sqrt(2 * math.log(n))) if n > 2 else 1
    return max(1, int(0.138 * n))
