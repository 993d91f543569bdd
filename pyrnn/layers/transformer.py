"""The layer that Transformers are stacked of: self-attention, then a feed-forward network of each step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core.checks import MOST, Array, Rng, boolean, choice, float_dtype, integer, real, real_array
from ..core.layout import Layout, valid_steps
from ..core.model import Model
from ..core.pullback import Pullback
from .activations import GELU
from .attention.functional import Options
from .attention.multihead import MultiheadAttention, check_heads
from .attention.stream import AttentionStream, CausalStream
from .dropout import Dropout
from .linear import Linear
from .norm import LayerNorm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

Map = Callable[[Array], Array]
Back = Callable[[Array], Array]


class TransformerEncoderLayer(Model):
    """Self-attention and a feed-forward network of each step, each added to its input and normalised: Vaswani et al.
    2017, arXiv:1706.03762.

        x = norm1(x + attention(x)),     y = norm2(x + linear2(act(linear1(x))))
        x = x + attention(norm1(x)),     y = x + linear2(act(linear1(norm2(x))))        with norm_first

    The second form is that of Xiong et al. 2020 (arXiv:2002.04745). Names of the parameters, initialisation and values
    as in torch.nn.TransformerEncoderLayer. activation: "relu" or "gelu". dropout acts in `vjp` only, where torch has it
    but for the weights of attention. With is_causal every call is causal, in a `Sequential` too, which then has a
    `stream`. num_kv_heads and rng as in `MultiheadAttention`. TypeError and ValueError for arguments that make no
    layer.

        layer = pyrnn.TransformerEncoderLayer(64, 8, rng=0)
        y = layer(np.ones((5, 3, 64)), is_causal=True)  # (S, N, E) -> (S, N, E)
    """

    _has_stream = True
    _features = ("embed_dim", "embed_dim")

    def __init__(
        self, embed_dim: int, num_heads: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str = "relu", norm_first: bool = False, batch_first: bool = False,
        *, num_kv_heads: int | None = None, is_causal: bool = False, dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.embed_dim = integer(call, "embed_dim", embed_dim, 1, MOST)
        self.num_heads = integer(call, "num_heads", num_heads, 1, MOST)
        self.dim_feedforward = integer(call, "dim_feedforward", dim_feedforward, 1, MOST)
        self.dropout = real(call, "dropout", dropout, 0, 1)
        self.activation = choice(call, "activation", activation, ("relu", "gelu"))
        self.norm_first = boolean(call, "norm_first", norm_first)
        self.batch_first = boolean(call, "batch_first", batch_first)
        self.is_causal = boolean(call, "is_causal", is_causal)
        self.num_kv_heads = num_heads if num_kv_heads is None else integer(call, "num_kv_heads", num_kv_heads, 1)
        check_heads(call, self.embed_dim, self.num_heads, self.num_kv_heads)
        self.dtype = float_dtype(call, dtype)
        super().__init__(rng=rng)
        self.self_attn = MultiheadAttention(
            embed_dim, num_heads, num_kv_heads=num_kv_heads, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(embed_dim, dim_feedforward, dtype=dtype)
        self.linear2 = Linear(dim_feedforward, embed_dim, dtype=dtype)
        self.norm1, self.norm2 = LayerNorm(embed_dim, dtype=dtype), LayerNorm(embed_dim, dtype=dtype)
        self.drop = Dropout(dropout, dtype=dtype)

    def __call__(
        self,
        x: ArrayLike,
        lengths: ArrayLike | None = None,
        is_causal: bool = False,
        attn_mask: ArrayLike | None = None,
    ) -> Array:
        """x (S, N, E) -> y, in the layer's dtype; (N, S, E) with batch_first, or (S, E).

        lengths    (N,) integers in 0..S, or one integer: what is beyond is never read, and y is 0 there
        is_causal  each step sees itself and those before it, as always where the layer was made so
        attn_mask  as in `MultiheadAttention`, broadcast to (N, H, S, S): True = attend, which is not what torch's layer
                   means by it

        A row has the same bits alone and in any batch. TypeError for wrong dtypes, ValueError for wrong shapes and
        lengths.

            y = layer(x, lengths=[5, 2, 4])
        """
        call = type(self).__name__
        array, valid, options = self._input(call, x, lengths, is_causal, attn_mask)
        attention = self.self_attn
        y = self._through(array, lambda x: attention._attended(call, x, None, None, options), self._feed())
        return y if valid is None else np.where(valid, y, self.dtype.type(0))

    def vjp(
        self,
        x: ArrayLike,
        lengths: ArrayLike | None = None,
        is_causal: bool = False,
        attn_mask: ArrayLike | None = None,
    ) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """As a call, with dropout: y, pullback. dx = pullback(dy) adds to `grads`; it can be called once, and owns what
        it needs. In the padding dy is not read, and dx is 0.

        y, pullback = layer.vjp(x, is_causal=True)
        dx = pullback(y - target)
        """
        call = f"{type(self).__name__}.vjp"
        array, valid, options = self._input(call, x, lengths, is_causal, attn_mask)
        zero = self.dtype.type(0)
        pulls: dict[str, Back] = {}

        def attend(x: Array) -> Array:
            y, pull = self.self_attn._recorded(call, x, None, None, options)
            y, undrop = self._dropped(y)
            pulls["attend"] = lambda dy: pull(undrop(dy))[0]
            return y

        relu = self.activation == "relu"

        def feed(x: Array) -> Array:
            h, pull1 = self.linear1._recorded(x, relu=relu)
            slope = None
            if not relu:
                gelu = GELU(dtype=self.dtype)
                slope, h = gelu._slope(h), gelu(h)
            h, undrop1 = self._dropped(h)
            y, pull2 = self.linear2._recorded(h, after_relu=relu)
            y, undrop2 = self._dropped(y)

            def back(dy: Array) -> Array:
                dh = undrop1(pull2(undrop2(dy)))
                return pull1(dh if slope is None else np.multiply(dh, slope, out=dh))

            pulls["feed"] = back
            return y

        def norm(name: str) -> Map:
            def normal(x: Array) -> Array:
                y: Array
                y, pulls[name] = getattr(self, name).vjp(x)
                return y

            return normal

        y = self._through(array, attend, feed, norm("norm1"), norm("norm2"))
        y = y if valid is None else np.where(valid, y, zero)

        def back(dy: Array, pulls: dict[str, Back]) -> Array:
            dy = dy if valid is None else np.where(valid, dy, zero)
            with np.errstate(all="ignore"):
                if self.norm_first:
                    dy = _added(pulls["norm2"](pulls["feed"](dy)), dy)
                    dx = _added(pulls["norm1"](pulls["attend"](dy)), dy)
                else:
                    dy = pulls["norm2"](dy)
                    dy = pulls["norm1"](_added(pulls["feed"](dy), dy))
                    dx = _added(pulls["attend"](dy), dy)
            return dx if valid is None else np.where(valid, dx, zero)

        return y, Pullback(f"{type(self).__name__} pullback", y, pulls, back)

    def stream(self, batch: int = 1) -> TransformerStream:
        """Step by step, with a growing cache of keys and values: the same bits as a call with is_causal=True on the
        whole sequence. It works on the weights as they are now. TypeError and ValueError for a batch that is none.

        stream = layer.stream(batch=3)
        y_t = stream.step(x[t])  # (N, E) -> (N, E)
        """
        call = f"{type(self).__name__}.stream"
        return TransformerStream(call, self, integer(call, "batch", batch, 1, MOST))

    def _through(self, x: Array, attend: Map, feed: Map, norm1: Map | None = None, norm2: Map | None = None) -> Array:
        """The layer, of its parts."""
        norm1, norm2 = norm1 or self.norm1, norm2 or self.norm2
        with np.errstate(all="ignore"):
            if self.norm_first:
                x = _added(attend(norm1(x)), x)
                return _added(feed(norm2(x)), x)
            x = norm1(_added(attend(x), x))
            return norm2(_added(feed(x), x))

    def _feed(self) -> Map:
        """The feed-forward network with weights as they are now; a ReLU is part of the product."""
        relu = self.activation == "relu"
        maps = (self.linear1, "relu" if relu else "identity"), (self.linear2, "identity")
        first, second = (kernels.linear.packed(*layer._arrays("_params"), activation) for layer, activation in maps)
        if relu:
            return lambda x: second.forward(first.forward(x))
        gelu = GELU(dtype=self.dtype)
        return lambda x: second.forward(gelu(first.forward(x)))

    def _dropped(self, x: Array) -> tuple[Array, Back]:
        if not self.dropout:
            return x, lambda dy: dy
        y, pull = self.drop.vjp(x)
        return y, pull

    def _input(
        self, call: str, x: Any, lengths: Any, is_causal: Any, attn_mask: Any
    ) -> tuple[Array, Array | None, dict[str, Any]]:
        """x with zeros in the padding; which numbers are valid, None for all; arguments of the attention."""
        array = real_array(call, "x", x, self.dtype)
        layout = Layout.of(call, "x", array.shape, self.batch_first, (self.embed_dim,), "S")
        causal = boolean(call, "is_causal", is_causal) or self.is_causal
        options = {"is_causal": causal, "attn_mask": attn_mask}
        if lengths is None:
            return array, None, options
        steps, rows, _ = layout.steps_first(array).shape
        ends = layout.lengths(call, lengths, steps, rows)
        valid = layout.back(valid_steps(steps, rows, ends)[:, :, None])
        return np.where(valid, array, self.dtype.type(0)), valid, options | {"kv_lengths": ends}


def _added(fresh: Array, x: Array) -> Array:
    """fresh + x, in the memory of the first, which nobody else has."""
    return np.add(fresh, x, out=fresh)


class TransformerStream(CausalStream):
    """A `TransformerEncoderLayer`, causal and step by step: see its `stream`."""

    def __init__(self, call: str, layer: TransformerEncoderLayer, rows: int) -> None:
        super().__init__(call, copy.deepcopy(layer), rows)  # with the weights of now
        self._pack()
        options = Options(is_causal=True, enable_gqa=True)
        self._attention = AttentionStream(call, self._layer.self_attn, rows, options)

    def _pack(self) -> None:
        layer: TransformerEncoderLayer = self._layer
        self._maps = layer._feed(), layer.norm1._map(), layer.norm2._map()

    @property
    def length(self) -> int:
        """How many steps it has seen."""
        return self._attention.length

    @property
    def state(self) -> tuple[Array, Array, int]:
        """Copies of the keys and values of the steps it has seen, (N, Hk, S, d), and how many these are. It can be
        assigned."""
        return self._attention.state

    @state.setter
    def state(self, state: Any) -> None:
        self._attention.state = state

    def _keep(self, rows: Array) -> None:
        self._attention = copy.copy(self._attention)
        self._attention.take(rows)

    def _forget(self) -> None:
        self._attention.reset()

    def _go(self, x: Array) -> Array:
        y: Array = self._layer._through(x, self._attention._go, *self._maps)
        return y
