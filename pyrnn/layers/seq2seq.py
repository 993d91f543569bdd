"""From a sequence to a sequence of another length: an encoder that reads in both directions, and a `Decoder`.

Letters: K steps of the source, T of the target, N rows, V tokens, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import (
    Array,
    Rng,
    boolean,
    choice,
    integer,
)
from ..core.model import Model
from ..core.pullback import Pullback
from .decoder import Decoder as Decoder
from .decoder import ids_of, shared_config
from .dropout import Dropout
from .embedding import Embedding
from .stack import LAYERS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from .decoder_stream import DecoderStream


class EncoderDecoder(Model):
    """Sequences of tokens to sequences of tokens of other lengths (Sutskever et al. 2014, Cho et al. 2014).

    The encoder reads the source in both directions. Its final states are the vector of a `Decoder`, and with
    `attention` its outputs are the decoder's memory; without, all that is known of the source is the vector. cell,
    dropout, rng and errors as in `Decoder`; hidden_size is that of each of the three recurrent networks.

        model = pyrnn.EncoderDecoder(40, 30, 32, 64, rng=0)
        logits, pullback = model.vjp(source, target[:-1], source_lengths=k, lengths=t - 1)  # -> (T, N, 30)
        pullback(pyrnn.cross_entropy(logits, target[1:], lengths=t - 1)[1])
        written, lengths = pyrnn.decoding.greedy(model.step, model.start(source, k), [0] * 8, end=1, max_steps=20)
    """

    def __init__(
        self, source_embeddings: int, target_embeddings: int, embedding_dim: int, hidden_size: int, num_layers: int = 1,
        *, cell: str = "gru", attention: bool = True, dropout: float = 0.0, dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        num_layers = integer(call, "num_layers", num_layers, 1)
        between = dropout if num_layers > 1 else 0.0
        self.attention = boolean(call, "attention", attention)
        recurrent = LAYERS[choice(call, "cell", cell, LAYERS)]
        super().__init__(rng=rng)
        self.embed = Embedding(source_embeddings, embedding_dim, dtype=dtype)
        self.drop = Dropout(dropout, dtype=dtype)
        self.encoder = recurrent(
            embedding_dim, hidden_size, num_layers, bidirectional=True, dropout=between, dtype=dtype
        )
        self.decoder = Decoder(
            target_embeddings,
            embedding_dim,
            hidden_size,
            num_layers,
            cell=cell,
            vector_size=2 * hidden_size,
            memory_size=2 * hidden_size if self.attention else 0,
            dropout=dropout,
            dtype=dtype,
        )

    def config(self) -> dict[str, Any]:
        """The arguments of its class, see Layer.config.

        pyrnn.EncoderDecoder(**model.config())
        """
        return {
            "source_embeddings": self.embed.num_embeddings,
            "target_embeddings": self.decoder.embed.num_embeddings,
            **shared_config(self.embed, self.encoder, self.drop),
            "attention": self.attention,
        }

    def encode(self, source: ArrayLike, lengths: ArrayLike | None = None) -> tuple[Array, Array | None]:
        """source (K, N) integers, lengths (N,) in 0..K -> what the decoder is given: vector (N, 2H), memory (K, N, 2H),
        None without attention.

        vector, memory = model.encode(source, lengths)
        """
        ids, lengths, _ = ids_of(f"{type(self).__name__}.encode", "source", source, lengths)
        outputs, state = self.encoder(self.embed(ids), lengths=lengths)
        return self._vector(state), outputs if self.attention else None

    def start(self, source: ArrayLike, source_lengths: ArrayLike | None = None) -> Any:
        """The state before the first step, for `step` and pyrnn.decoding.

        state = model.start(source, lengths)
        """
        return self.decoder.start(*self.encode(source, source_lengths), self._seen(source_lengths))

    def step(self, state: Any, ids: ArrayLike) -> tuple[Array, Any]:
        """One step of the decoder: ids (N,) -> logits (N, V), state.

        logits, state = model.step(state, ids)
        """
        result: tuple[Array, Any] = self.decoder.step(state, ids)
        return result

    def stream(self, source: ArrayLike, source_lengths: ArrayLike | None = None) -> DecoderStream:
        """A `DecoderStream`: the decoder's steps without packing weights anew, for pyrnn.decoding too.

        written, lengths = pyrnn.decoding.greedy(model.stream(source), None, [0] * 8, end=1, max_steps=20)
        """
        result: DecoderStream = self.decoder.stream(*self.encode(source, source_lengths), self._seen(source_lengths))
        return result

    def __call__(
        self, source: ArrayLike, ids: ArrayLike,
        *, source_lengths: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> Array:  # fmt: skip
        """As `vjp`, without gradients and dropout: logits (T, N, V).

        logits = model(source, target[:-1])
        """
        given = self.encode(source, source_lengths)
        logits: Array = self.decoder(ids, *given, lengths=lengths, memory_lengths=self._seen(source_lengths))
        return logits

    def vjp(
        self, source: ArrayLike, ids: ArrayLike,
        *, source_lengths: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> tuple[Array, Callable[[ArrayLike], None]]:  # fmt: skip
        """logits (T, N, V), pullback. pullback(dlogits) adds to `grads`; it can be called once, and owns what it needs.

        source          (K, N) integers, source_lengths (N,) their valid steps
        ids             (T, N) integers: what the decoder reads, the targets one step earlier; lengths (N,)

            logits, pullback = model.vjp(source, target[:-1])
            pullback(pyrnn.cross_entropy(logits, target[1:])[1])
        """
        source, source_lengths, _ = ids_of(f"{type(self).__name__}.vjp", "source", source, source_lengths)
        embedded, pull_embed = self.embed.vjp(source)
        x, pull_drop = self.drop.vjp(embedded)
        (outputs, state), pull_encoder = self.encoder.vjp(x, lengths=source_lengths)
        logits, pull_decoder = self.decoder.vjp(
            ids,
            self._vector(state),
            outputs if self.attention else None,
            lengths=lengths,
            memory_lengths=self._seen(source_lengths),
        )

        def back(dlogits: Array, _: None) -> None:
            dvector, dmemory = pull_decoder(dlogits)
            dx, _ = pull_encoder(dmemory, self._vector_back(dvector, state))
            pull_embed(pull_drop(dx))

        return logits, Pullback(f"{type(self).__name__} pullback", logits, None, back, "dlogits")

    def attention_weights(self, source: ArrayLike, ids: ArrayLike, *, source_lengths: ArrayLike | None = None) -> Array:
        """How much every step of the decoder looks at every place of the source, (N, T, K).

        weights = model.attention_weights(source, target[:-1])
        """
        given = self.encode(source, source_lengths)
        weights: Array = self.decoder.attention_weights(ids, *given, memory_lengths=self._seen(source_lengths))
        return weights

    def _seen(self, source_lengths: Any) -> Any:
        return source_lengths if self.attention else None

    def _vector(self, state: Any) -> Array:
        """The last layer's final h of both directions, (N, 2H)."""
        h = state[0] if isinstance(state, tuple) else state
        return np.concatenate([h[-2], h[-1]], axis=1)

    def _vector_back(self, dvector: Any, state: Any) -> Any:
        """The gradient of the encoder's state for the vector's."""
        zeros = [np.zeros_like(part) for part in (state if isinstance(state, tuple) else (state,))]
        zeros[0][-2], zeros[0][-1] = np.split(dvector, 2, axis=1)
        return tuple(zeros) if isinstance(state, tuple) else zeros[0]
