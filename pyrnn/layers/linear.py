"""What a model needs before, between and after its recurrent layers: tables, linear maps, normalisation, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, Rng, boolean, float_dtype, integer, precision_of, real_array, shape_error
from ..core.encoded import rounded
from ..core.layer import Layer, Search
from ..core.parameters import Home, ParameterDict, Shapes, unrecorded
from ..core.pullback import Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
from .embedding import Embedding

ndarray = np.ndarray  # a global is found faster than an attribute


class Linear(Layer):
    """y = x W^T + b over the last axis.

    Parameters as in torch.nn.Linear: weight (O, I), bias (O,), both uniform in ±1/sqrt(I), drawn in this order. With
    `weight`, an Embedding of O ids and I features, W is its table: tied weights (Press & Wolf 2017, arXiv:1608.05859).
    The table stays the Embedding's: it is drawn, counted and saved there once, and both add to its gradient. The layer
    itself has the bias alone. rng: None, an int seed or a numpy.random.Generator. TypeError and ValueError for
    arguments that make no layer. precision="bfloat16" rounds both factors of every product to bfloat16, see RNN.

        layer = pyrnn.Linear(16, 4, rng=0)
        y = layer(np.ones((5, 3, 16)))  # (..., I) -> (..., O)
    """

    _by_step = True
    _features = ("in_features", "out_features")
    _op: ClassVar[Any] = kernels.linear
    _derived = (*Layer._derived, "_weights", "_compiled")
    _has_products = True
    _compiled: Any = None  # of a quantized layer
    _unwritten = ("rng", "weight")
    _sought = ("_table",)

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True,
        *, weight: Embedding | None = None, precision: str = "float32", dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.in_features = integer(call, "in_features", in_features, 1, MOST)
        self.out_features = integer(call, "out_features", out_features, 1, MOST)
        self.bias = boolean(call, "bias", bias)
        shapes: Shapes = {} if weight is not None else {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        own_dtype = float_dtype(call, dtype)
        self.precision = precision_of(call, precision, own_dtype)
        self._options = {} if self.precision == "float32" else {"precision": self.precision}  # of the op
        super().__init__(own_dtype, shapes)
        if weight is not None:
            if not isinstance(weight, Embedding):
                raise TypeError(f"{call}: weight is {type(weight).__name__}, expected an Embedding")
            table = weight._params["weight"]
            if table.shape != (self.out_features, self.in_features) or table.dtype != self.dtype:
                raise ValueError(f"{call}: weight has shape {table.shape} and dtype {table.dtype}, "
                                 f"expected {(self.out_features, self.in_features)} and {self.dtype}")  # fmt: skip
        self._table = weight
        self._begin(rng)

    def config(self) -> dict[str, Any]:
        """The arguments of its class, see Layer.config; TypeError where it shares an Embedding's table.

        pyrnn.Linear(**layer.config())
        """
        if self._table is not None:
            raise TypeError("Linear.config: its weight is the table of an Embedding, which JSON cannot hold")
        return super().config()

    def _draw(self, rng: np.random.Generator) -> None:
        bound = self.in_features**-0.5
        self._flat[0][:] = rng.uniform(-bound, bound, self._size)

    def _find(self, prefix: str, found: Search, path: tuple[Any, ...]) -> None:
        if self._table is not None:
            self._table._find(prefix, found, path)
        super()._find(prefix, found, path)

    def __call__(self, x: ArrayLike) -> Array:
        """x (..., I) -> y (..., O), in the layer's dtype. TypeError for what is not real numbers, ValueError for a
        wrong shape.

        y = layer(x)
        """
        y: Array
        if self._compiled is not None:
            y = self._compiled.forward(self._input("", x))
            return y
        forward = self._op.forward
        weight, bias = self._weights if self._table is None else self._arrays("_params")
        # Checked there, and not twice: a call of one row takes less time than the checks here.
        if type(x) is ndarray and x.dtype is self.dtype:
            try:
                y = forward(x, weight, bias, **self._options)
                return y
            except (TypeError, ValueError):  # the error, if there is one, is the layer's
                pass
        y = forward(self._input("", x), weight, bias, **self._options)
        return y

    def _bind(self, home: Home) -> None:
        super()._bind(home)
        self._weights = self._params.get("weight"), self._params.get("bias")

    def _pack(self) -> None:
        self._compiled = self._op.packed(*self._arrays("_params"))

    def vjp(self, x: ArrayLike, *, per_row: bool = False) -> tuple[Array, Callable[[ArrayLike], Any]]:
        """y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what it needs.

        With per_row x is (..., N, I), and the pullback gives dx and the weight gradients of each row, {name: (N, ...)},
        instead of adding their sum. TypeError where the weight is the table of an Embedding.

            y, pullback = layer.vjp(x)
            dx = pullback(y - target)
        """
        if self.quantized:
            self._refuse_recording()
            return self(x), unrecorded
        x = self._input(".vjp", x)
        if per_row is not False and boolean(f"{type(self).__name__}.vjp", "per_row", per_row):
            return self._vjp_of_rows(x, x.ndim - 2)
        return self._recorded(kernels.copied(x))

    def _recorded(self, x: Array, relu: bool = False, after_relu: bool = False) -> tuple[Array, Callable[[Any], Array]]:
        """`vjp` of an x that nobody changes. With `relu` y is what a ReLU makes of the product, and the pullback still
        takes the product's gradient; with `after_relu` it gives that of what went into the ReLU that x came out of."""
        weight, bias = self._arrays("_params")
        own = x, kernels.copied(weight)
        op, product = self._op, (own[1], bias)
        y: Array = op.packed(*product, "relu").forward(x) if relu else op.forward(x, *product, **self._options)
        options = self._options | {"after_relu": True} if after_relu else self._options

        def back(dy: Array, own: tuple[Array, Array]) -> Array:
            x, weight = own
            rows = dy.reshape(-1, self.out_features), x.reshape(-1, self.in_features)
            dx: Array = self._op.backward(*rows, weight, *self._arrays("_grads"), **options)
            return dx.reshape(x.shape)

        return y, Pullback(f"{type(self).__name__} pullback", y, own, back)

    def _vjp_of_rows(self, x: Any, axis: int) -> tuple[Array, Callable[[ArrayLike], tuple[Array, dict[str, Array]]]]:
        """`vjp` with per_row; which axis of x is that of the rows."""
        call = f"{type(self).__name__}.vjp"
        if self._table is not None:
            raise TypeError(f"{call}: per_row, but the weight is the table of an Embedding")
        x = self._input(".vjp", x)
        if x.ndim < 2:
            raise shape_error(call, "x", x.shape, f"(..., N, {self.in_features})")
        weight, bias = self._arrays("_params")
        own = kernels.copied(x), kernels.copied(weight)
        y: Array = self._op.forward(*own, bias, **self._options)

        def back(dy: Array, own: tuple[Array, Array]) -> tuple[Array, dict[str, Array]]:
            x, weight = own
            rows = dy.reshape(-1, self.out_features), x.reshape(-1, self.in_features)
            unused = np.zeros_like(weight), None if bias is None else np.zeros_like(bias)
            dx: Array = self._op.backward(*rows, weight, *unused, **self._options)
            x, dy = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1, a.shape[-1]) for a in (x, dy))
            with np.errstate(all="ignore"):
                grads = {} if bias is None else {"bias": dy.sum(axis=1)}
                if self.precision == "bfloat16":
                    x, dy = rounded(x), rounded(dy)
                grads["weight"] = np.matmul(dy.swapaxes(1, 2), x)
            return dx.reshape(own[0].shape), grads

        return y, Pullback(f"{type(self).__name__} pullback", y, own, back)

    def _arrays(self, kind: str) -> tuple[Array, Array | None]:
        """Weight and bias, of "_params" or "_grads"."""
        own: ParameterDict = getattr(self, kind)
        return (own if self._table is None else getattr(self._table, kind))["weight"], own.get("bias")

    def _input(self, suffix: str, x: Any) -> Array:
        call = type(self).__name__ + suffix
        array = real_array(call, "x", x, self.dtype)
        if array.shape[-1:] != (self.in_features,):
            raise shape_error(call, "x", array.shape, f"(..., {self.in_features})")
        return array
