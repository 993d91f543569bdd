"""ModernHopfield: continuous states, whose update is attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, float_dtype, integer, quietly, real, real_array, shape_error
from ..core.pullback import Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
from .net import _complete, _Saved
from .patterns import _as_rows


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
        result = result[0] if single else result

        def back(dstate: Array, own: tuple[Array, list[Any]]) -> tuple[Array, Array]:
            y, steps = own
            d = dstate.reshape(-1, dstate.shape[-1]).copy()
            dy = np.zeros_like(y)
            for rows, before, after, stats in reversed(steps):
                dbefore, dkey, dvalue = kernels.attention.backward(
                    d[rows][None], before[None], y[None], y[None], after, stats, scale=self.beta
                )
                dy += dkey[0] + dvalue[0]
                d[rows] = dbefore[0]
            return d.reshape(dstate.shape), dy

        return result, Pullback("ModernHopfield pullback", result, (self.patterns.copy(), steps), back, "dstate")

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
