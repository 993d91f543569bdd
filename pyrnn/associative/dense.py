"""DenseHopfield: polynomial and exponential energies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, choice, float_dtype, integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
from .net import _complete, _Net
from .patterns import _check_bits, _on, _unpacked


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
