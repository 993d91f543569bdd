"""A linear map whose weight and bias are parts of a layer's arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...core.checks import Array


class Projection(NamedTuple):
    """y = x W^T + b, on views of parameters, of copies of them, or of their gradients."""

    op: Any  # kernels.linear, or its twin
    weight: Any  # (O, I), of a quantized layer in fewer bits
    bias: Array | None  # (O,)

    def forward(self, x: Array) -> Array:
        """x (..., I) -> y (..., O)."""
        y: Array = self.op.forward(x, self.weight, self.bias)
        return y

    def packed(self) -> Any:
        """The same map for many calls, as the weights are now."""
        return self.op.packed(self.weight, self.bias)

    def backward(self, dy: Array, x: Array, grads: Projection) -> Array:
        """dx; the gradients of weight and bias are added to those of `grads`."""
        dx: Array = self.op.backward(
            dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]), self.weight, grads.weight, grads.bias
        )
        return dx.reshape(x.shape)
