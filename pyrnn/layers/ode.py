"""A recurrent layer for observations at irregular times: its hidden state goes on evolving between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core import checks
from ..core.checks import Array, Rng
from ..core.layout import Layout, valid_steps
from ..core.model import Model
from ..core.pullback import Once
from .linear import Linear
from .recurrent import GRU

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

FLOAT64 = np.dtype("float64")


class ODERNN(Model):
    """The ODE-RNN of Rubanova, Chen & Duvenaud (2019): between observations dh/dt = f(h), at each a GRU's update.

        f(h) = V tanh(U h + u) + v      from one observation to the next, by Runge-Kutta of order 4 in `ode_steps`
                                        steps of equal length (Chen et al. 2018 for equations that are learned)
        h    = GRU(x_t, h)              at observation t

    A layer has one direction and one level. ode_size: features of the tanh, hidden_size where None. Parameters are
    those of GRU ("update.weight_ih_l0", ...) and of two Linear ("inner.weight" U (ode_size, H), "outer.weight" V), with
    their initial values. Gradients are exact for the steps as computed. rng and errors as in GRU.

        layer = pyrnn.ODERNN(2, 16, rng=0)
        y, h = layer(np.ones((3, 5, 2)), times=[0.0, 0.1, 2.5])  # (T, N, I) -> (T, N, H), (1, N, H)
    """

    update: GRU
    inner: Linear
    outer: Linear

    def __init__(
        self, input_size: int, hidden_size: int, ode_size: int | None = None, ode_steps: int = 4,
        batch_first: bool = False,
        *, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.input_size = checks.integer(call, "input_size", input_size, 1, checks.MOST)
        self.hidden_size = checks.integer(call, "hidden_size", hidden_size, 1, checks.MOST)
        features = hidden_size if ode_size is None else ode_size
        self.ode_size = checks.integer(call, "ode_size", features, 1, checks.MOST)
        self.ode_steps = checks.integer(call, "ode_steps", ode_steps, 1, checks.MOST)
        self.batch_first = checks.boolean(call, "batch_first", batch_first)
        self.dtype = checks.float_dtype(call, dtype)
        super().__init__(
            update=GRU(self.input_size, self.hidden_size, dtype=dtype),
            inner=Linear(self.hidden_size, self.ode_size, dtype=dtype),
            outer=Linear(self.ode_size, self.hidden_size, dtype=dtype),
            rng=rng,
        )

    def __call__(
        self, x: ArrayLike, times: ArrayLike, state: ArrayLike | None = None,
        *, start: ArrayLike | None = None, observed: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Run over whole sequences: y, state.

        x         (T, N, I), (N, T, I) with batch_first, or unbatched (T, I)
        times     when: (T,) for all rows, or (T, N) ((N, T) with batch_first), never falling
        state     h (1, N, H), (1, H) when unbatched; None is zeros
        start     when the state was that: a number or (N,); None: at the first of times
        observed  (T, N) booleans, (N, T) with batch_first, (T,) when unbatched. False: nothing is observed, x is not
                  read and y is the state that has evolved until then, to predict from; None: all are observed
        lengths   (N,) integers in 0..T: the valid steps of each row. y is 0 beyond them, nothing there is read
        y         (T, N, H), like x: the state after each step; the returned state is that at the last valid one

        TypeError for what is not real numbers, ValueError for wrong shapes and for times that fall.

            y, h = layer(x, times)
            later, h = layer(x2, times2, h, start=times[-1])
        """
        y, final, _, _ = self._walk("", x, times, state, start, observed, lengths, keep=False)
        return y, final

    def vjp(
        self, x: ArrayLike, times: ArrayLike, state: ArrayLike | None = None,
        *, start: ArrayLike | None = None, observed: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> tuple[tuple[Array, Array], Callable[..., tuple[Array, Array]]]:  # fmt: skip
        """As a call, for training: (y, state), pullback, and then dx, dstate = pullback(dy, dstate=None).

        The pullback adds to `grads`; it can be called once, and owns what it needs. dy may be None, as in a GRU's.

            (y, h), pullback = layer.vjp(x, times)
            dx, dh = pullback(y - target)
        """
        y, final, steps, layout = self._walk(".vjp", x, times, state, start, observed, lengths, keep=True)
        weights = self._weights()
        y_shape, state_shape = y.shape, final.shape
        kept = Once(f"{type(self).__name__} pullback", steps)

        @checks.quietly
        def pullback(dy: ArrayLike | None, dstate: ArrayLike | None = None) -> tuple[Array, Array]:
            dys = None
            if dy is not None:
                dys = layout.steps_first(checks.shaped_array(kept.call, "dy", dy, self.dtype, y_shape))
            dh = np.zeros((state_shape[1] if layout.batched else 1, self.hidden_size), self.dtype)
            if dstate is not None:
                dh += checks.shaped_array(kept.call, "dstate", dstate, self.dtype, state_shape).reshape(dh.shape)
            steps = kept.take()
            gru = self.update._grad_weights[0]
            dx = np.zeros((len(steps), len(dh), self.input_size), self.dtype)
            for t in range(len(steps) - 1, -1, -1):
                valid, pull_update, stages = steps.pop()
                if dys is not None:
                    dh = dh + np.where(valid[:, None], dys[t], self.dtype.type(0))
                dx[t : t + 1], (dh,) = pull_update(None, (dh,), gru)
                for dt, points in reversed(stages):
                    dh = self._step_back(dh, dt, points, weights)
            return np.ascontiguousarray(layout.back(dx)), dh.reshape(state_shape)

        return (y, final), pullback

    @checks.quietly
    def _walk(
        self, suffix: str, x: Any, times: Any, state: Any, start: Any, observed: Any, lengths: Any, *, keep: bool
    ) -> tuple[Array, Array, list[Any], Layout]:
        """y, the final state, what every step leaves to its way back (with `keep`), and how x lies."""
        call = type(self).__name__ + suffix
        x = checks.real_array(call, "x", x, self.dtype)
        layout = Layout.of(call, "x", x.shape, self.batch_first, (self.input_size,))
        steps_shape = x.shape[:-1]
        x = layout.steps_first(x).copy()
        length, rows = x.shape[:2]
        if lengths is not None:
            lengths = layout.lengths(call, lengths, length, rows)
        seen = valid = valid_steps(length, rows, lengths)
        if observed is not None:
            marks = checks.boolean_array(call, "observed", observed, steps_shape, str(steps_shape))
            seen = valid & layout.steps_first(marks)
        gaps = self._gaps(call, times, start, valid, layout)
        h = np.zeros((rows, self.hidden_size), self.dtype)
        state_shape = (1, rows, self.hidden_size) if layout.batched else (1, self.hidden_size)
        if state is not None:
            h = checks.shaped_array(call, "state", state, self.dtype, state_shape).reshape(h.shape).copy()

        weights, gru = self._weights(), self.update._weights[0]
        y = np.empty((length, rows, self.hidden_size), self.dtype)
        steps: list[Any] = []
        for t in range(length):
            stages = []
            if gaps[t].any():
                dt = (gaps[t][:, None] / self.ode_steps).astype(self.dtype)
                for _ in range(self.ode_steps):
                    h, points = self._step(h, dt, weights)
                    if keep:
                        stages.append((dt, points))
            (_, (h,)), pull = kernels.gru.vjp(
                x[t : t + 1], (h,), gru, lengths=seen[t].astype(np.int64), reset_after=self.update.reset_after
            )
            y[t] = np.where(valid[t][:, None], h, self.dtype.type(0))
            if keep:
                steps.append((valid[t], pull, stages))
        return np.ascontiguousarray(layout.back(y)), h.reshape(state_shape), steps, layout

    def _gaps(self, call: str, times: Any, start: Any, valid: Array, layout: Layout) -> Array:
        """(T, N) float64: the time that passes before each step, 0 for padding."""
        length, rows = valid.shape
        when = checks.numbers_array(call, "times", times).astype(FLOAT64)
        if when.shape == (length,):
            when = when[:, None]
        elif when.shape == layout.shape(length, rows):
            when = layout.steps_first(when)
        else:
            raise checks.shape_error(call, "times", when.shape, f"({length},) or {layout.shape(length, rows)}")
        when = np.broadcast_to(when, valid.shape)
        before = when[:1]
        if start is not None:
            begin = checks.numbers_array(call, "start", start).astype(FLOAT64)
            if begin.shape not in ((), (rows,)):
                raise checks.shape_error(call, "start", begin.shape, f"() or ({rows},)")
            before = np.broadcast_to(begin, (min(length, 1), rows))
        gaps = np.diff(when, axis=0, prepend=before)
        gaps = np.where(valid, gaps, 0.0)
        if np.any(gaps < 0):
            t, n = np.argwhere(gaps < 0)[0]
            raise ValueError(f"{call}: times fall by {-gaps[t, n]:g} before step {t} of row {n}")
        return gaps

    def _weights(self) -> tuple[Array, ...]:
        """Copies of U, u, V, v."""
        return tuple(p.copy() for layer in (self.inner, self.outer) for p in layer.params.values())

    def _step(self, h: Array, dt: Array, weights: tuple[Array, ...]) -> tuple[Array, list[tuple[Array, Array]]]:
        """One step of Runge-Kutta, h (N, H) and dt (N, 1): the state after it, and each stage's (h, tanh)."""
        inner, inner_bias, outer, outer_bias = weights
        points: list[tuple[Array, Array]] = []
        slopes: list[Array] = []
        for share in (0, 0.5, 0.5, 1):
            point = h + share * dt * slopes[-1] if share else h
            active = np.tanh(kernels.linear.forward(point, inner, inner_bias))
            slopes.append(kernels.linear.forward(active, outer, outer_bias))
            points.append((point, active))
        k1, k2, k3, k4 = slopes
        return h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), points

    def _step_back(self, dh: Array, dt: Array, points: list[tuple[Array, Array]], weights: tuple[Array, ...]) -> Array:
        """The gradient of the state before a step from that after it; adds to the gradients of f."""
        inner, _, outer, _ = weights
        total, dpoint = dh, np.zeros_like(dh)
        shares = ((1 / 6, 0.0), (1 / 3, 1.0), (1 / 3, 0.5), (1 / 6, 0.5))  # in h, and in the point of the next stage
        for (point, active), (weight, next_share) in zip(reversed(points), shares, strict=True):
            dslope = dt * (weight * dh + next_share * dpoint)
            dactive = kernels.linear.backward(dslope, active, outer, *self.outer.grads.values())
            dpoint = kernels.linear.backward(dactive * (1 - active * active), point, inner, *self.inner.grads.values())
            total = total + dpoint
        return total
