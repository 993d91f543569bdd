"""Convolution over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, Rng, boolean, float_dtype, integer, real_array, shown
from ..core.layer import Layer
from ..core.layout import Layout, output_steps
from ..core.parameters import Shapes
from ..core.pullback import Pullback
from .stream import ConvStream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class Conv1d(Layer):
    """y[u] = bias + sum_k weight[:, :, k] x[u stride + k dilation - before], with zeros around x.

    x is (T, N, C) here, (N, T, C) with batch_first, or (T, C): features are last, unlike torch's (N, C, T). padding: so
    many zeros `before` the first step and as many behind the last; "same", as many as give y the steps of x (stride 1
    only); or "causal", dilation (kernel_size - 1) before the first only, so that no step of y knows a later one of x.
    With groups, each group of O / groups features of y reads a group of C / groups features of x. Waibel et al. 1989;
    causal and dilated: van den Oord et al. 2016, arXiv:1609.03499.

    Parameters as in torch.nn.Conv1d: weight (O, C / groups, K), bias (O,), both uniform in ±1/sqrt(C / groups * K),
    drawn in this order. rng: None, an int seed or a numpy.random.Generator. TypeError and ValueError for arguments that
    make no layer.

        layer = pyrnn.Conv1d(16, 32, 3, padding="causal", rng=0)
        y = layer(np.ones((5, 3, 16)))  # (T, N, 16) -> (T, N, 32)
    """

    _op: ClassVar[Any] = kernels.conv1d
    _has_stream = True
    _features = ("in_channels", "out_channels")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int | str = 0,
        dilation: int = 1, groups: int = 1, bias: bool = True, batch_first: bool = False,
        *, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.in_channels = integer(call, "in_channels", in_channels, 1, MOST)
        self.out_channels = integer(call, "out_channels", out_channels, 1, MOST)
        self.kernel_size = integer(call, "kernel_size", kernel_size, 1, MOST)
        self.stride = integer(call, "stride", stride, 1, MOST)
        self.dilation = integer(call, "dilation", dilation, 1, MOST)
        self.groups = integer(call, "groups", groups, 1, MOST)
        self.bias = boolean(call, "bias", bias)
        self.batch_first = boolean(call, "batch_first", batch_first)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{call}: {name} is {channels}, expected a multiple of groups, {self.groups}")
        reach = self.dilation * (self.kernel_size - 1)
        if reach > MOST:
            raise ValueError(f"{call}: dilation * (kernel_size - 1) is {reach}, expected at most {MOST}")
        self._reach = reach  # how many steps lie between the first and the last that a step of y reads
        self.padding = padding
        if padding == "same" and self.stride > 1:
            raise ValueError(f"{call}: padding is 'same' and stride {self.stride}, expected a stride of 1 with it")
        if padding == "same":
            self._before, self._after = reach // 2, reach - reach // 2
        elif padding == "causal":
            self._before, self._after = reach, 0
        elif isinstance(padding, str):
            raise ValueError(f"{call}: padding is {shown(padding)}, expected an integer, 'same' or 'causal'")
        else:
            try:
                self.padding = self._before = self._after = integer(call, "padding", padding, 0, MOST)
            except TypeError as error:
                raise TypeError(f"{error}, 'same' or 'causal'") from None
        shapes: Shapes = {"weight": (self.out_channels, self.in_channels // self.groups, self.kernel_size)}
        if self.bias:
            shapes["bias"] = (self.out_channels,)
        super().__init__(float_dtype(call, dtype), shapes)
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        bound = (self.in_channels // self.groups * self.kernel_size) ** -0.5
        self._flat[0][:] = rng.uniform(-bound, bound, self._size)

    def output_lengths(self, lengths: ArrayLike) -> Any:
        """How many steps y has for so many of x: an integer for an integer, else an array. None for no steps.

        layer.output_lengths([5, 2])
        """
        call = f"{type(self).__name__}.output_lengths"
        return output_steps(call, lengths, self._reach, self.stride, self._before + self._after)

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """x (T, N, C) -> y (U, N, O), in the layer's dtype, U = output_lengths(T). lengths (N,) integers in 0..T, one
        integer for x (T, C): a row of y is as if the row of x ended there, and 0 behind its own length. TypeError for
        what is not real numbers, ValueError for wrong shapes and lengths.

        y = layer(x, lengths=[5, 2])
        """
        return self._forward("", x, lengths)[0]

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        y, pullback = layer.vjp(x, lengths=[5, 2])
        dx = pullback(y - target)
        """
        y, array, ends, layout = self._forward(".vjp", x, lengths)
        own = kernels.copied(array), kernels.copied(self._params["weight"])

        def back(dy: Array, own: tuple[Array, Array]) -> Array:
            x, weight = own
            grads = self._grads["weight"], self._grads.get("bias")
            dx = self._op.backward(
                layout.steps_first(dy), layout.steps_first(x), weight, *grads, lengths=ends, before=self._before,
                after=self._after, **self._options(),
            )  # fmt: skip
            return np.ascontiguousarray(layout.back(dx))

        return y, Pullback(f"{type(self).__name__} pullback", y, own, back)

    def stream(self, batch: int = 1) -> ConvStream:
        """A `ConvStream` of `batch` rows on the weights as they are now: step by step at the speed of the kernels.
        ValueError for a padding that adds zeros behind the last step, which a stream does not know.

            stream = layer.stream()
            y_t = stream.step(x_t)
        """
        call = f"{type(self).__name__}.stream"
        if self._after:
            raise ValueError(f"{call}: padding is {shown(self.padding)}, with zeros behind the end, which a stream "
                             "does not know; expected 0 or 'causal'")  # fmt: skip
        batch = integer(call, "batch", batch, 1, MOST)
        params = self._params["weight"], self._params.get("bias")
        return ConvStream(self, self._op.stream(*params, batch, before=self._before, **self._options()), batch)

    def _forward(self, suffix: str, x: Any, lengths: Any) -> tuple[Array, Array, Array | None, Layout]:
        """y; x and a copy of lengths as arrays, and how x lies."""
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        layout = Layout.of(call, "x", array.shape, self.batch_first, (self.in_channels,))
        first = layout.steps_first(array)
        steps, rows = first.shape[:2]
        if lengths is not None:
            lengths = layout.lengths(call, lengths, steps, rows).copy()
        y = self._op.forward(
            first, self._params["weight"], self._params.get("bias"), lengths=lengths, before=self._before,
            after=self._after, **self._options(),
        )  # fmt: skip
        return np.ascontiguousarray(layout.back(y)), array, lengths, layout

    def _options(self) -> dict[str, int]:
        return {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
