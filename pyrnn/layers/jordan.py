"""Jordan's network: what is sent on to the next step is the output, not the hidden units."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core.checks import (
    MOST,
    Array,
    Rng,
    boolean,
    choice,
    float_dtype,
    integer,
    lengths_array,
    quietly,
    real_array,
    shape_error,
    shaped_array,
)
from ..core.layer import Layer
from ..core.layout import Layout, valid_steps
from ..core.parameters import Shapes
from ..core.pullback import AllOrNone, Once

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class Jordan(Layer):
    """The output-to-hidden network of Jordan (1986; Goodfellow et al. 2016, section 10.2.1).

        h_t = act(W x_t + F y_{t-1} + b)        y_t = V h_t + c

    With `targets` the network is told the right outputs and not its own (teacher forcing): y_{t-1} becomes the target
    of step t - 1. Then no step depends on another, and all of them are two products, forward and backward. Without,
    it runs freely, and gradients go back through all steps; as F y_{t-1} = (F V) h_{t-1} + F c this is the kernel of a
    network whose hidden weights are F V, of rank O at most: all it can remember has to stand in its output.

    Parameters: weight_ih (H, I), weight_yh (H, O) that is F, bias_h (H,), weight_hy (O, H) that is V, bias_y (O,), all
    uniform in ±1/sqrt(H). nonlinearity: "tanh", "relu" or "sigmoid". rng: None, an int seed or a
    numpy.random.Generator. TypeError and ValueError for arguments that make no layer.

        layer = pyrnn.Jordan(3, 32, 2, rng=0)
        (y, _), pullback = layer.vjp(x, targets=targets)  # (T, N, 3), (T, N, 2) -> (T, N, 2)
        pullback(pyrnn.mean_squared_error(y, targets)[1])
        y, last = layer(x)  # freely
    """

    _features = ("input_size", "output_size")

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, nonlinearity: str = "tanh",
        batch_first: bool = False,
        *, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.input_size = inputs = integer(call, "input_size", input_size, 1, MOST)
        self.hidden_size = hidden = integer(call, "hidden_size", hidden_size, 1, MOST)
        self.output_size = outputs = integer(call, "output_size", output_size, 1, MOST)
        self.nonlinearity = choice(call, "nonlinearity", nonlinearity, ("tanh", "relu", "sigmoid"))
        self.batch_first = boolean(call, "batch_first", batch_first)
        shapes: Shapes = {
            "weight_ih": (hidden, inputs), "weight_yh": (hidden, outputs), "bias_h": (hidden,),
            "weight_hy": (outputs, hidden), "bias_y": (outputs,),
        }  # fmt: skip
        super().__init__(float_dtype(call, dtype), shapes)
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        bound = self.hidden_size**-0.5
        self._flat[0][:] = rng.uniform(-bound, bound, self._size)

    def __call__(
        self, x: ArrayLike, y0: ArrayLike | None = None,
        *, targets: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """y (T, N, O) and the last output (N, O), to be fed back as y0: that is how a long sequence is cut in pieces,
        of a free run but for rounding.

        x        (T, N, I), (N, T, I) with batch_first
        y0       (N, O), the output before the first step; None is zeros
        targets  like y: teacher forcing; the last output is then the last target. Without, the network runs freely
        lengths  (N,) integers in 0..T, the valid steps of each row; y is 0 beyond them, and padding is never read

        TypeError for what is not real numbers, ValueError for a wrong shape.

            y, last = layer(x)
        """
        return self._run("", x, y0, targets, lengths)[0]

    def vjp(
        self, x: ArrayLike, y0: ArrayLike | None = None,
        *, targets: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> tuple[tuple[Array, Array], Callable[..., tuple[Array, Array]]]:  # fmt: skip
        """As a call of the layer: (y, last), pullback. dx, dy0 = pullback(dy, dlast=None) adds to `grads`; it can be
        called once, and owns what it needs. No gradient goes into the targets.

        (y, last), pullback = layer.vjp(x)
        dx, dy0 = pullback(y - target)
        """
        return self._run(".vjp", x, y0, targets, lengths)

    @quietly
    def _run(
        self, suffix: str, x: Any, y0: Any, targets: Any, lengths: Any
    ) -> tuple[tuple[Array, Array], Callable[..., tuple[Array, Array]]]:
        call = type(self).__name__ + suffix
        x, first, sent, lengths, valid = self._inputs(call, x, y0, targets, lengths)
        steps, rows = valid.shape
        free = sent is None
        w, f, b, v, c = (self._params[name].copy() for name in self._shapes)
        if sent is None:  # besides x the hidden units are given what h = 0 before the first step does not tell
            fed = np.zeros((steps, rows, self.output_size), self.dtype)
            fed[:1] = first - c
            weights = np.concatenate([w, f], axis=1), f @ v, b + f @ c, np.zeros_like(b)
        else:
            fed = np.concatenate([first[None], sent])[:-1]
            weights = np.concatenate([w, f], axis=1), np.zeros((len(b), len(b)), b.dtype), b, np.zeros_like(b)
        both = np.concatenate([x, fed], axis=2)
        if not free:  # all steps are rows of one step
            both = both.reshape(1, steps * rows, both.shape[2])
        (h, _), pull = kernels.rnn.vjp(
            both, None, weights, lengths=lengths if free else None, nonlinearity=self.nonlinearity
        )
        flat = h.reshape(steps * rows, self.hidden_size)
        y = np.where(valid[:, :, None], kernels.linear.forward(flat, v, c).reshape(steps, rows, self.output_size), 0)
        ends = (valid.sum(axis=0), np.arange(rows))
        last = np.concatenate([first[None], y if sent is None else sent])[ends]
        layout = Layout(self.batch_first, batched=True)
        shape = layout.shape(*y.shape)
        kept = Once(f"{type(self).__name__} pullback", pull)

        @quietly
        def pullback(dy: ArrayLike | None, dlast: ArrayLike | None = None) -> tuple[Array, Array]:
            name = kept.call
            dsent = np.zeros((steps + 1, rows, self.output_size), self.dtype)  # of first and y
            if dlast is not None:
                dsent[ends] = shaped_array(name, "dlast", dlast, self.dtype, last.shape)
            if not free:
                dsent[1:] = 0
            if dy is not None:
                dsent[1:] += layout.steps_first(shaped_array(name, "dy", dy, self.dtype, shape))
            pull = kept.take()
            dout = np.where(valid[:, :, None], dsent[1:], 0).reshape(steps * rows, self.output_size)
            grads = self.grads
            with AllOrNone(self._flat[1], steps * rows):
                dh = kernels.linear.backward(dout, flat, v, grads["weight_hy"], grads["bias_y"])
                dweights = tuple(map(np.zeros_like, weights))
                dboth, _ = pull(dh.reshape(h.shape), None, dweights)
                dboth = dboth.reshape(steps, rows, both.shape[-1])
                dw, dproduct, db, _ = dweights
                dy0 = dsent[0] + dboth[:1, :, self.input_size :].sum(axis=0)
                grads["weight_ih"] += dw[:, : self.input_size]
                grads["weight_yh"] += dw[:, self.input_size :]
                grads["bias_h"] += db
                if free:
                    grads["weight_yh"] += dproduct @ v.T + np.outer(db, c)
                    grads["weight_hy"] += f.T @ dproduct
                    grads["bias_y"] += f.T @ db - dboth[:1, :, self.input_size :].sum(axis=(0, 1))
            return np.ascontiguousarray(layout.back(dboth[:, :, : self.input_size])), dy0

        return (np.ascontiguousarray(layout.back(y)), last), pullback

    def _inputs(
        self, call: str, x: Any, y0: Any, targets: Any, lengths: Any
    ) -> tuple[Array, Array, Array | None, Array | None, Array]:
        """x (T, N, I) and targets with zeros for padding, y0 (N, O), lengths, and which steps are valid, (T, N)."""
        array = real_array(call, "x", x, self.dtype)
        layout = Layout(self.batch_first, batched=True)
        if array.ndim != 3 or array.shape[2] != self.input_size:
            raise shape_error(call, "x", array.shape, layout.text(self.input_size))
        array = layout.steps_first(array)
        steps, rows = array.shape[:2]
        first = np.zeros((rows, self.output_size), self.dtype)
        if y0 is not None:
            first = shaped_array(call, "y0", y0, self.dtype, first.shape).copy()
        told = None
        if targets is not None:
            shape = layout.shape(steps, rows, self.output_size)
            told = layout.steps_first(shaped_array(call, "targets", targets, self.dtype, shape))
        lengths = None if lengths is None else lengths_array(call, lengths, steps, rows)
        valid = valid_steps(steps, rows, lengths)
        there = valid[:, :, None]
        return np.where(there, array, 0), first, None if told is None else np.where(there, told, 0), lengths, valid
