"""A model whose layers run one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._arrays import Array
from .layers import MaxOverTime
from .parameters import Layer, Model
from .recurrent import Recurrent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Sequential(Model):
    """Layers by name, in their order: what comes out of one goes into the next.

    Of a recurrent layer the outputs y go on, not its final state; it starts from zeros. Recurrent layers, MaxOverTime
    and a Sequential get the `lengths`; the other layers take one array: Embedding, Linear, LayerNorm, Dropout,
    LogSoftmax. ValueError for no layers; others as in `Model`.

        tagger = pyrnn.Sequential(embed=pyrnn.Embedding(10, 8), rnn=pyrnn.GRU(8, 16), head=pyrnn.Linear(16, 3))
        logits = tagger(ids, lengths=[5, 2])  # (T, N) -> (T, N, 3)
    """

    def __init__(self, **layers: Layer) -> None:
        if not layers:
            raise ValueError(f"{type(self).__name__}: it has no layers")
        super().__init__(**layers)

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
        """What comes out of the last layer. lengths (N,) integers in 0..T; errors as in the layers.

        y = model(x, lengths=[5, 2])
        """
        out: Any = x
        for layer in self._layers.values():
            call: Any = layer
            out = call(out, lengths=lengths) if _takes_lengths(layer) else call(out)
            out = out[0] if isinstance(layer, Recurrent) else out
        y: Array = out
        return y

    def vjp(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[Array, Callable[[ArrayLike], Any]]:
        """y, pullback. dx = pullback(dy) adds to `grads` and can be called once; dx is None where x are ids.

        y, pullback = model.vjp(x, lengths=[5, 2])
        pullback(y - target)
        """
        out: Any = x
        pulls: list[tuple[bool, Callable[[Any], Any]]] = []
        for layer in self._layers.values():
            vjp = getattr(layer, "vjp")  # noqa: B009 (not of every Layer)
            out, pull = vjp(out, lengths=lengths) if _takes_lengths(layer) else vjp(out)
            recurrent = isinstance(layer, Recurrent)
            out = out[0] if recurrent else out
            pulls.append((recurrent, pull))

        def pullback(dy: ArrayLike) -> Any:
            gradient: Any = dy
            for recurrent, pull in reversed(pulls):
                gradient = pull(gradient)[0] if recurrent else pull(gradient)
            return gradient

        return out, pullback


def _takes_lengths(layer: Layer) -> bool:
    return isinstance(layer, (Recurrent, MaxOverTime, Sequential))
