"""A table of vectors, one for each id."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, Rng, boolean, float_dtype, integer, integer_array, shape_error, within
from ..core.layer import Layer
from ..core.pullback import Pullback

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

ndarray, INT64 = np.ndarray, np.dtype(np.int64)  # a global is found faster than an attribute


class Embedding(Layer):
    """A table of vectors, one for each id.

    Parameter as in torch.nn.Embedding: weight (V, E), standard normal. The row `padding_idx`, where given (from the end
    if negative), starts as zeros and has no gradient from the pullback. rng and errors as in Linear.

        layer = pyrnn.Embedding(100, 16, rng=0)
        y = layer([[3, 1], [4, 1]])  # integers in 0..V-1, (...) -> (..., E)
    """

    _by_step = _has_products = True
    _features = ("", "embedding_dim")
    _op: ClassVar[Any] = kernels.embedding

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:
        call = type(self).__name__
        self.num_embeddings = v = integer(call, "num_embeddings", num_embeddings, 1, MOST)
        self.embedding_dim = integer(call, "embedding_dim", embedding_dim, 1, MOST)
        self.padding_idx = None if padding_idx is None else integer(call, "padding_idx", padding_idx, -v, v - 1) % v
        super().__init__(float_dtype(call, dtype), {"weight": (self.num_embeddings, self.embedding_dim)})
        self._begin(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        self._flat[0][:] = rng.standard_normal(self._size)
        if self.padding_idx is not None:
            self._params["weight"][self.padding_idx] = 0

    def __call__(self, ids: ArrayLike) -> Array:
        """ids (...) -> y (..., E). TypeError for what is not integers, ValueError for an id outside 0..V-1.

        y = layer(ids)
        """
        if type(ids) is ndarray and ids.dtype is INT64:  # as in Linear
            try:
                y: Array = self._op.forward(ids, self._params["weight"])
                return y
            except (TypeError, ValueError):
                pass
        return self._look_up("", ids)[1]

    def vjp(self, ids: ArrayLike, *, per_row: bool = False) -> tuple[Array, Callable[[ArrayLike], Any]]:
        """y, pullback. pullback(dy) adds to `grads` and returns nothing; it can be called once, and owns what it needs.

        With per_row ids are (..., N), and the pullback gives None and the gradients of each row, {"weight": (N, V, E)},
        instead of adding their sum.

            y, pullback = layer.vjp(ids)
            pullback(dy)
        """
        self._refuse_recording()
        if boolean(f"{type(self).__name__}.vjp", "per_row", per_row):
            return self._vjp_of_rows(ids, np.ndim(ids) - 1)
        flat, y = self._look_up(".vjp", ids)

        def back(dy: Array, flat: Array) -> None:
            grad = self._grads["weight"]
            of_padding = None if self.padding_idx is None else grad[self.padding_idx].copy()
            self._op.backward(dy.reshape(-1, self.embedding_dim), flat, grad)
            if of_padding is not None:
                grad[self.padding_idx] = of_padding

        return y, Pullback(f"{type(self).__name__} pullback", y, flat.copy(), back)

    def _vjp_of_rows(self, ids: Any, axis: int) -> tuple[Array, Callable[[ArrayLike], tuple[None, dict[str, Array]]]]:
        """`vjp` with per_row; which axis of the ids is that of the rows."""
        call = f"{type(self).__name__}.vjp"
        ids = integer_array(call, "ids", ids)
        if ids.ndim < 1:
            raise shape_error(call, "ids", ids.shape, "(..., N)")
        y = self._look_up(".vjp", ids)[1]

        def back(dy: Array, ids: Array) -> tuple[None, dict[str, Array]]:
            grad = np.zeros((ids.shape[axis], *self._shapes["weight"]), self.dtype)
            for own, of_row, at in zip(grad, np.moveaxis(dy, axis, 0), np.moveaxis(ids, axis, 0), strict=True):
                self._op.backward(of_row.reshape(-1, self.embedding_dim), at.reshape(-1), own)
            if self.padding_idx is not None:
                grad[:, self.padding_idx] = 0
            return None, {"weight": grad}

        return y, Pullback(f"{type(self).__name__} pullback", y, ids.copy(), back)

    def _look_up(self, suffix: str, ids: Any) -> tuple[Array, Array]:
        """ids (M,), y (..., E)."""
        call = type(self).__name__ + suffix
        ids = integer_array(call, "ids", ids)
        try:
            y: Array = self._op.forward(ids, self._params["weight"])
        except ValueError:
            within(call, "ids", ids, self.num_embeddings - 1)
            raise
        return ids.reshape(-1), y
