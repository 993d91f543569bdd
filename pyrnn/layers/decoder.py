"""A decoder: tokens in, logits of the next tokens out, conditioned by a vector, a memory, both or neither.

Attention stands behind the recurrent layer (Luong et al. 2015, arXiv:1508.04025), not inside its step as in Bahdanau et
al. 2015: no step needs the context of the one before. So under teacher forcing all steps are one call of the recurrent
kernel, one of the attention kernel and one of the linear kernel each, forward and backward. Step by step the same bits
come out.

Letters: T steps of the target, K steps of the source, N rows, V tokens, C features of the vector, M of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import (
    MOST,
    Array,
    Rng,
    choice,
    integer,
    integer_array,
    lengths_array,
    quietly,
    real_array,
    shape_error,
    shape_text,
)
from ..core.layout import valid_steps
from ..core.model import Model
from ..core.pullback import Pullback
from .attention import attention_weights, scaled_dot_product_attention, scaled_dot_product_attention_vjp
from .dropout import Dropout
from .embedding import Embedding
from .linear import Linear
from .stack import LAYERS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from .decoder_stream import DecoderStream


class Decoder(Model):
    """Tokens in, logits of the next tokens out, given a vector, a memory, both or neither.

    A vector (N, C), `vector_size` C > 0, gives the initial state, h_0 = tanh(W v + b) in every layer (an LSTM's c_0 is
    0), and is an input of every step (Cho et al. 2014, arXiv:1406.1078). A memory (K, N, M), `memory_size` M > 0, such
    as the outputs of an encoder, is attended to by every step (Luong et al. 2015, the "general" score):

        context_t = sum_k softmax_k(query(y_t) . memory_k / sqrt(M)) memory_k
        logits_t = head(tanh(combine([y_t, context_t])))          head(y_t) without a memory

    cell: "gru", "lstm" or "rnn". dropout acts in `vjp` only, on the embeddings, between the recurrent layers and before
    the head. rng: None, an int seed or a numpy.random.Generator. TypeError and ValueError for arguments that make no
    decoder, and in every call for what does not fit.

        decoder = pyrnn.Decoder(30, 16, 64, vector_size=5, rng=0)
        logits, pullback = decoder.vjp(ids[:-1], vector)  # (T, N), (N, 5) -> (T, N, 30)
        written, lengths = pyrnn.decoding.greedy(decoder.step, decoder.start(vector), [0] * 8, end=1, max_steps=20)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, hidden_size: int, num_layers: int = 1,
        *, cell: str = "gru", vector_size: int = 0, memory_size: int = 0, dropout: float = 0.0,
        dtype: DTypeLike = "float32", rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.vector_size = integer(call, "vector_size", vector_size, 0)
        self.memory_size = integer(call, "memory_size", memory_size, 0)
        num_layers = integer(call, "num_layers", num_layers, 1)
        recurrent = LAYERS[choice(call, "cell", cell, LAYERS)]
        between = dropout if num_layers > 1 else 0.0
        inputs = embedding_dim + self.vector_size
        super().__init__(rng=rng)
        self.embed = Embedding(num_embeddings, embedding_dim, dtype=dtype)
        self.rnn = recurrent(inputs, hidden_size, num_layers, dropout=between, dtype=dtype)
        if self.vector_size:
            self.bridge = Linear(self.vector_size, num_layers * hidden_size, dtype=dtype)
        if self.memory_size:
            self.query = Linear(hidden_size, self.memory_size, bias=False, dtype=dtype)
            self.combine = Linear(hidden_size + self.memory_size, hidden_size, dtype=dtype)
        self.head = Linear(hidden_size, num_embeddings, dtype=dtype)
        self.drop_in, self.drop_out = Dropout(dropout, dtype=dtype), Dropout(dropout, dtype=dtype)

    def config(self) -> dict[str, Any]:
        """The arguments of its class, see Layer.config.

        pyrnn.Decoder(**decoder.config())
        """
        return {
            "num_embeddings": self.embed.num_embeddings,
            **shared_config(self.embed, self.rnn, self.drop_in),
            "vector_size": self.vector_size,
            "memory_size": self.memory_size,
        }

    def start(
        self, vector: ArrayLike | None = None, memory: ArrayLike | None = None, memory_lengths: ArrayLike | None = None
    ) -> Any:
        """The state before the first step, for `step` and pyrnn.decoding. Arguments as in `vjp`.

        state = decoder.start(vector)
        """
        v, m, m_lengths = self._given(".start", vector, memory, memory_lengths)
        h = None if v is None else self._unfolded(np.tanh(self.bridge(v)))
        return self._state(h), None if v is None else v[None], m, m_lengths

    def step(self, state: Any, ids: ArrayLike) -> tuple[Array, Any]:
        """One step: ids (N,) -> logits (N, V), state.

        logits, state = decoder.step(state, ids)
        """
        call = f"{type(self).__name__}.step"
        ids = integer_array(call, "ids", ids)
        if ids.ndim != 1:
            raise shape_error(call, "ids", ids.shape, "(N,)")
        logits, state = self._run(state, ids[None], None)
        return logits[0], state

    def stream(
        self, vector: ArrayLike | None = None, memory: ArrayLike | None = None,
        memory_lengths: ArrayLike | None = None, *, batch: int | None = None,
    ) -> DecoderStream:  # fmt: skip
        """A `DecoderStream`: the steps of `step` without packing weights anew, for pyrnn.decoding too. Arguments as in
        `vjp`; batch is the number of rows where neither a vector nor a memory says it, 1 by default.

            stream = decoder.stream(vector)
            written, lengths = pyrnn.decoding.greedy(stream, None, [0] * 8, end=1, max_steps=20)
        """
        from .decoder_stream import DecoderStream

        call = f"{type(self).__name__}.stream"
        before, v, m, m_lengths = self.start(vector, memory, memory_lengths)
        given = next((array.shape[1] for array in (v, m) if array is not None), None)
        rows = given if batch is None else integer(call, "batch", batch, 1, MOST)
        if given is not None and rows != given:
            raise ValueError(f"{call}: batch is {rows}, but there are {given} rows of vector or memory")
        return DecoderStream(self, self.rnn.stream(1 if rows is None else rows, before), v, m, m_lengths)

    def __call__(
        self, ids: ArrayLike, vector: ArrayLike | None = None, memory: ArrayLike | None = None,
        *, lengths: ArrayLike | None = None, memory_lengths: ArrayLike | None = None,
    ) -> Array:  # fmt: skip
        """As `vjp`, without gradients and dropout: logits (T, N, V).

        logits = decoder(ids[:-1], vector)
        """
        ids, lengths, valid = ids_of(type(self).__name__, "ids", ids, lengths)
        logits, _ = self._run(self.start(vector, memory, memory_lengths), ids, lengths)
        result: Array = np.where(valid, logits, 0)
        return result

    def vjp(
        self, ids: ArrayLike, vector: ArrayLike | None = None, memory: ArrayLike | None = None,
        *, lengths: ArrayLike | None = None, memory_lengths: ArrayLike | None = None,
    ) -> tuple[Array, Callable[[ArrayLike], tuple[Array | None, Array | None]]]:  # fmt: skip
        """logits (T, N, V), pullback. pullback(dlogits) adds to `grads` and returns dvector and dmemory, None for what
        was not given; it can be called once, and owns what it needs.

        ids             (T, N) integers in 0..V-1: what the decoder reads, the targets one step earlier
        vector          (N, C), memory (K, N, M)
        lengths         (N,) integers in 0..T, the valid steps of the tokens; logits are 0 beyond them
        memory_lengths  (N,) integers in 0..K, those of the memory; a row without any has the context 0

        Padding is never read, and has no gradient.

            logits, pullback = decoder.vjp(ids[:-1], memory=outputs, lengths=lengths - 1)
            loss, dlogits = pyrnn.cross_entropy(logits, ids[1:], lengths=lengths - 1)
            dvector, dmemory = pullback(dlogits)
        """
        ids, lengths, valid = ids_of(f"{type(self).__name__}.vjp", "ids", ids, lengths)
        rows = ids.shape[1]
        v, m, m_lengths = self._given(".vjp", vector, memory, memory_lengths, rows)
        embedded, pull_embed = self.embed.vjp(ids)
        x, pull_drop_in = self.drop_in.vjp(embedded)
        h = None
        if v is not None:
            folded, pull_bridge = self.bridge.vjp(v)
            first = np.tanh(folded)
            h = self._unfolded(first)
            x = _with_vector(x, v)
        (y, _), pull_rnn = self.rnn.vjp(x, self._state(h), lengths=lengths)
        top = y
        if m is not None:
            query, pull_query = self.query.vjp(y)
            context, pull_attention = scaled_dot_product_attention_vjp(*_as_heads(query, m), kv_lengths=m_lengths)
            combined, pull_combine = self.combine.vjp(np.concatenate([y, _by_steps(context)], axis=2))
            top = np.tanh(combined)
        dropped, pull_drop_out = self.drop_out.vjp(top)
        logits, pull_head = self.head.vjp(dropped)

        @quietly
        def back(dlogits: Array, _: None) -> tuple[Array | None, Array | None]:
            dy = pull_drop_out(pull_head(np.where(valid, dlogits, 0)))
            dvector = dmemory = None
            if m is not None:
                dboth = pull_combine(dy * (1 - top**2))
                dquery, dkey, dvalue = pull_attention(_by_rows(dboth[:, :, self.rnn.hidden_size :]))
                dy = dboth[:, :, : self.rnn.hidden_size] + pull_query(_by_steps(dquery))
                dmemory = _by_steps(dkey) + _by_steps(dvalue)
            dx, dstate = pull_rnn(dy)
            if v is not None:
                dh = dstate[0] if isinstance(dstate, tuple) else dstate
                dvector = dx[:, :, -self.vector_size :].sum(axis=0)
                dvector += pull_bridge(dh.transpose(1, 0, 2).reshape(first.shape) * (1 - first**2))
                dx = dx[:, :, : -self.vector_size]
            pull_embed(pull_drop_in(dx))
            return dvector, dmemory

        pullback = Pullback(f"{type(self).__name__} pullback", logits, None, back, "dlogits")
        return np.where(valid, logits, 0), pullback

    def attention_weights(
        self, ids: ArrayLike, vector: ArrayLike | None = None, memory: ArrayLike | None = None,
        *, memory_lengths: ArrayLike | None = None,
    ) -> Array:  # fmt: skip
        """How much every step looks at every place of the memory, (N, T, K). Arguments as in `vjp`, with a memory.

        weights = decoder.attention_weights(tokens, memory=outputs)
        pyrnn.plots.attention_map("map.png", weights[0], target_words, source_words)
        """
        ids, _, _ = ids_of(f"{type(self).__name__}.attention_weights", "ids", ids, None)
        state, v, m, m_lengths = self.start(vector, memory, memory_lengths)
        if m is None:
            raise ValueError(f"{type(self).__name__}.attention_weights: memory_size is 0, there is no attention")
        y, _ = self.rnn(self._read(ids, v, m), state)
        query, key, _ = _as_heads(self.query(y), m)
        return attention_weights(query, key, kv_lengths=m_lengths)[:, 0]

    def _run(self, state: Any, ids: Array, lengths: Array | None) -> tuple[Array, Any]:
        """Logits of ids (T, N) from a state on, and the state after them."""
        before, v, m, m_lengths = state
        y, after = self.rnn(self._read(ids, v, m), before, lengths=lengths)
        return self._logits(y, m, m_lengths), (after, v, m, m_lengths)

    def _logits(self, y: Array, m: Array | None, m_lengths: Array | None) -> Array:
        """Of the recurrent layer's outputs (T, N, H)."""
        if m is not None:
            context = scaled_dot_product_attention(*_as_heads(self.query(y), m), kv_lengths=m_lengths)
            y = np.tanh(self.combine(np.concatenate([y, _by_steps(context)], axis=2)))
        return self.head(y)

    def _read(self, ids: Array, v: Array | None, m: Array | None) -> Array:
        """The recurrent layer's inputs for ids (T, N), which must have the rows of v (1, N, C) and m (K, N, M)."""
        for given in (v, m):
            if given is not None and given.shape[1] != ids.shape[1]:
                raise shape_error(type(self).__name__, "ids", ids.shape, shape_text("T", given.shape[1]))
        return _with_vector(self.embed(ids), v)

    def _unfolded(self, h: Array) -> Array:
        """(N, L * H) -> (L, N, H)."""
        return h.reshape(len(h), self.rnn.num_layers, self.rnn.hidden_size).transpose(1, 0, 2)

    def _state(self, h: Array | None) -> Any:
        """The recurrent layer's state with this h."""
        others = len(self.rnn._cell.states) - 1
        return (h, *(np.zeros_like(h) for _ in range(others))) if h is not None and others else h

    def _given(
        self, suffix: str, vector: Any, memory: Any, memory_lengths: Any, rows: int | str = "N"
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Vector, memory and its lengths, of so many rows where that is known."""
        call = type(self).__name__ + suffix
        for name, value, size in (("vector", vector, self.vector_size), ("memory", memory, self.memory_size)):
            if (value is None) != (size == 0):
                came = "missing" if value is None else "given"
                raise ValueError(f"{call}: {name} is {came}, and the decoder's {name}_size is {size}")
        if memory is None and memory_lengths is not None:
            raise ValueError(f"{call}: memory_lengths is given, but no memory")
        v = m = None
        if vector is not None:
            v = real_array(call, "vector", vector, self.head.dtype)
            if v.ndim != 2 or v.shape != (len(v) if rows == "N" else rows, self.vector_size):
                raise shape_error(call, "vector", v.shape, shape_text(rows, self.vector_size))
            rows = len(v)
        if memory is not None:
            m = real_array(call, "memory", memory, self.head.dtype)
            if m.ndim != 3 or m.shape[1:] != (m.shape[1] if rows == "N" else rows, self.memory_size):
                raise shape_error(call, "memory", m.shape, shape_text("K", rows, self.memory_size))
            if memory_lengths is not None:
                memory_lengths = lengths_array(call, memory_lengths, *m.shape[:2])
        return v, m, memory_lengths


def shared_config(embed: Embedding, rnn: Any, drop: Dropout) -> dict[str, Any]:
    """The arguments that a decoder and an encoder-decoder have in common."""
    return {
        "embedding_dim": embed.embedding_dim,
        "hidden_size": rnn.hidden_size,
        "num_layers": rnn.num_layers,
        "cell": rnn._cell_name,
        "dropout": drop.p,
        "dtype": rnn.dtype.name,
    }


def ids_of(call: str, name: str, ids: Any, lengths: Any) -> tuple[Array, Array | None, Array]:
    """Tokens (T, N) with 0 for padding, lengths, and where there is no padding, (T, N, 1)."""
    ids = integer_array(call, name, ids)
    if ids.ndim != 2:
        raise shape_error(call, name, ids.shape, "(T, N)")
    if lengths is None:
        return ids, None, np.ones((1, 1, 1), bool)
    lengths = lengths_array(call, lengths, *ids.shape)
    valid = valid_steps(ids.shape[0], ids.shape[1], lengths)
    return np.where(valid, ids, 0), lengths, valid[:, :, None]


def _with_vector(x: Array, v: Array | None) -> Array:
    """x (T, N, E) and at every step v (N, C) or (1, N, C) -> (T, N, E + C)."""
    if v is None:
        return x
    return np.concatenate([x, np.broadcast_to(v, (*x.shape[:2], v.shape[-1]))], axis=2)


def _by_rows(x: Array) -> Array:
    """(T, N, M) -> (N, 1, T, M): rows with one head."""
    return x.swapaxes(0, 1)[:, None]


def _by_steps(x: Array) -> Array:
    """The way back."""
    return x[:, 0].swapaxes(0, 1)


def _as_heads(query: Array, memory: Array) -> tuple[Array, Array, Array]:
    """Query, key and value for the attention kernel."""
    key = _by_rows(memory)
    return _by_rows(query), key, key
