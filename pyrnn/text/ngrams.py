"""N-grams: the counts that every recurrent language model and classifier is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import MOST, Array, Rng, boolean_array, generator, integer, integer_array, real, shape_error, within

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MOST_TOKENS = 2**31  # a gram's key, the number of its context times V plus its last token, fits an int64


class NGram:
    """The chance of a token after the order - 1 before it, interpolated over all shorter contexts.

        P_k(w | u) = (count(uw) + follow(u) * P_{k-1}(w | u without its first token)) / (count(u) + follow(u))
        P_0(w) = 1 / V          where u was never seen, P_k = P_{k-1}

    follow(u) is the number of different tokens seen after u (Witten and Bell 1991, method C): a context that was always
    followed by something new trusts the shorter one more. There is nothing to tune, and no token has chance 0. order 2
    is a bigram, 3 a trigram.

    With a discount D it is the model of Kneser and Ney (1995), which is mostly better for words. D is chosen on a text
    of its own, and is often near 0.8:

        P_k(w | u) = (max(count(uw) - D, 0) + D * follow(u) * P_{k-1}(w | u without its first token)) / count(u)

    where count(uw) for all but the longest grams is the number of different tokens seen before uw (a beginning is one
    of them), and count(u) its sum over w.

    tokens    what is learned from: (T,) integers in 0..size-1, or a list of such sequences; no gram crosses their ends
    size      V, the number of different tokens
    discount  None, or D, a number in 0.001..1

    TypeError for what is not integers, ValueError for wrong shapes, tokens and sizes.

        model = pyrnn.ngrams.NGram(vocabulary.encode(text), order=5, size=len(vocabulary))
        model.bits(vocabulary.encode(other))  # bits per token of another text
    """

    def __init__(
        self, ids: ArrayLike | Sequence[ArrayLike], order: int, size: int, *, discount: float | None = None
    ) -> None:
        self.order = integer("NGram", "order", order, 1)
        self.size = integer("NGram", "size", size, 1, MOST)
        self.discount = None if discount is None else real("NGram", "discount", discount, 1e-3, 1)
        flat, place = self._flat("NGram", ids)
        if len(flat) >= MOST_TOKENS:
            raise ValueError(f"NGram: {len(flat)} tokens are too many, expected less than {MOST_TOKENS}")
        # Level k is the sorted table of the grams of k tokens. The key of a gram is (row of its first k - 1 tokens in
        # the table before) * V + its last token, so that the tables together are a trie.
        self._keys: list[Array] = []
        self._counts: list[Array] = []
        self._totals: list[Array] = []  # of each context: count(u) and follow(u)
        self._follows: list[Array] = []
        contexts, rows = 1, np.zeros(len(flat), np.int64)
        shorter = rows  # of a token: the gram that ends with it, of one token less
        for k in range(self.order):
            whole = place >= k
            keys, inverse, counts = np.unique(
                rows[whole] * self.size + flat[whole], return_inverse=True, return_counts=True
            )
            self._keys.append(keys)
            self._counts.append(counts.astype(np.int32))
            ends = np.full(len(flat), -1)
            ends[whole] = inverse
            if self.discount is not None and k > 0:
                known = place >= k - 1
                pairs = np.unique(shorter[known] * (len(keys) + 1) + ends[known] + 1)  # with what comes before, or none
                self._counts[k - 1] = np.bincount(pairs // (len(keys) + 1)).astype(np.int32)
            shorter, rows = ends, np.concatenate([[-1], ends[:-1]])  # the gram that ends before it
        for keys, counts in zip(self._keys, self._counts, strict=True):
            self._totals.append(np.bincount(keys // self.size, counts, contexts).astype(np.int32))
            self._follows.append(np.bincount(keys // self.size, minlength=contexts).astype(np.int32))
            contexts = len(keys)

    @property
    def num_counts(self) -> int:
        """How many different grams it has counted, of all lengths up to the order."""
        return sum(map(len, self._keys))

    @property
    def nbytes(self) -> int:
        """The memory of its tables, in bytes."""
        return sum(table.nbytes for tables in self._tables() for table in tables)

    def _tables(self) -> tuple[list[Array], ...]:
        return self._keys, self._counts, self._totals, self._follows

    def probabilities(self, ids: ArrayLike | Sequence[ArrayLike]) -> Array:
        """The probability of each token after those before it: ids (T,), or a list of sequences -> (T,), all in a row.

        The first tokens of a sequence have the contexts there are. Errors as in the constructor.

            model.probabilities([3, 1, 4])
        """
        flat, place = self._flat("NGram.probabilities", ids)
        probabilities = np.full(len(flat), 1 / self.size)
        rows = np.zeros(len(flat), np.int64)
        for k in range(self.order):
            known = np.flatnonzero((rows >= 0) & (place >= k))
            ends = np.full(len(flat), -1)
            ends[known], probabilities[known] = self._level(k, rows[known], flat[known], probabilities[known])
            rows = np.concatenate([[-1], ends[:-1]])
        return probabilities

    def distribution(self, context: ArrayLike) -> Array:
        """The probabilities (V,) of all tokens after a context (T,), of which the last order - 1 tokens matter.

        model.distribution([3, 1])
        """
        context = self._flat("NGram.distribution", context)[0]
        probabilities = np.full(self.size, 1 / self.size)
        words = np.arange(self.size)
        for k in range(min(self.order, len(context) + 1)):
            row = 0
            for level, token in enumerate(context[len(context) - k :]):
                row = int(self._find(level, np.array([row]), np.array([token]))[0])
                if row < 0:
                    return probabilities
            _, probabilities = self._level(k, np.full(self.size, row), words, probabilities)
        return probabilities

    def __call__(self, context: ArrayLike) -> Array:
        """The log probabilities (V,) of all tokens after a context (T,): a language model for
        `pyrnn.decoding.ctc_beam_search`.

        model([3, 1])
        """
        result: Array = np.log(self.distribution(context))
        return result

    def bits(self, ids: ArrayLike | Sequence[ArrayLike]) -> float:
        """The cross-entropy in bits per token: the mean of -log2 P; 0 for no tokens.

        model.bits([3, 1, 4])
        """
        probabilities = self.probabilities(ids)
        return float(-np.log2(probabilities).mean()) if len(probabilities) else 0.0

    def perplexity(self, ids: ArrayLike | Sequence[ArrayLike]) -> float:
        """2 to the power of `bits`: among so many equally likely tokens a guess would be as hard.

        model.perplexity([3, 1, 4])
        """
        return float(2 ** self.bits(ids))

    def sample(
        self,
        length: int,
        context: ArrayLike = (),
        *,
        temperature: float = 1.0,
        end: int | None = None,
        rng: Rng = None,
    ) -> Array:
        """Up to `length` tokens drawn one after the other, to follow `context`; drawing stops after the token `end`.

        temperature: below 1 likelier tokens come more often, at 0 the likeliest always. rng: None, an int seed or a
        numpy.random.Generator.

            model.sample(100, rng=0)
        """
        call = "NGram.sample"
        length = integer(call, "length", length, 0)
        temperature = real(call, "temperature", temperature, 0)
        if end is not None:
            end = integer(call, "end", end, 0, self.size - 1)
        rng = generator(call, rng)
        ids = self._flat(call, context)[0].tolist()
        start = len(ids)
        while len(ids) < start + length and (len(ids) == start or ids[-1] != end):
            logs = np.log(self.distribution(ids[max(0, len(ids) - self.order + 1) :]))
            noise = rng.gumbel(size=self.size)  # the largest of log P / temperature + noise is a draw
            ids.append(int(np.argmax(logs + temperature * noise)))
        return np.array(ids[start:], np.int64)

    def _find(self, k: int, rows: Array, ids: Array) -> Array:
        """The rows in table k of the grams (context row, token), -1 where there is none."""
        if not len(self._keys[k]):
            return np.full(len(rows), -1)
        keys = rows * self.size + ids
        found: Array = np.minimum(np.searchsorted(self._keys[k], keys), len(self._keys[k]) - 1)
        return np.where(self._keys[k][found] == keys, found, -1)

    def _level(self, k: int, rows: Array, ids: Array, shorter: Array) -> tuple[Array, Array]:
        """Of contexts of k tokens by their row: the rows of the grams, and P from that with shorter contexts."""
        found = self._find(k, rows, ids)
        counts = np.where(found >= 0, self._counts[k][found], 0) if len(self._counts[k]) else 0
        totals, follows = self._totals[k][rows].astype(float), self._follows[k][rows]
        seen = totals > 0
        if self.discount is None:
            return found, np.where(seen, (counts + follows * shorter) / np.where(seen, totals + follows, 1), shorter)
        given = np.maximum(counts - self.discount, 0) + self.discount * follows * shorter
        return found, np.where(seen, given / np.where(seen, totals, 1), shorter)

    def _flat(self, call: str, ids: Any) -> tuple[Array, Array]:
        """All tokens in a row (T,), and the place of each in its own sequence."""
        nested = isinstance(ids, (list, tuple)) and len(ids) > 0 and np.ndim(ids[0]) > 0
        sequences = [integer_array(call, "ids", sequence) for sequence in (ids if nested else [ids])]
        for sequence in sequences:
            if sequence.ndim != 1:
                raise shape_error(call, "ids", sequence.shape, "(T,)")
        flat = within(call, "ids", np.concatenate(sequences), self.size - 1)
        return flat, np.concatenate([np.arange(len(sequence)) for sequence in sequences])


class NaiveBayes:
    """The class of a sequence from the n-grams in it, as if these came independently of each other.

        log P(c) + sum over the n-grams of log P(n-gram | c)

    N-grams of 1 to `order` tokens count once in a sequence (Wang and Manning 2012); one is added to every count, and
    what was seen in no sequence says nothing.

    sequences  what is learned from: N sequences of hashable tokens, such as words
    classes    (N,) integers from 0 on, none left out up to the largest

    TypeError for classes that are not integers, ValueError for wrong shapes and classes that are left out.

        model = pyrnn.ngrams.NaiveBayes([["so", "good"], ["bad"]], [1, 0], order=2)
        model([["good"]]).argmax(axis=1)  # [1]
    """

    def __init__(self, sequences: Sequence[Sequence[Hashable]], classes: ArrayLike, order: int) -> None:
        self.order = integer("NaiveBayes", "order", order, 1)
        labels = integer_array("NaiveBayes", "classes", classes)
        if labels.shape != (len(sequences),):
            raise shape_error("NaiveBayes", "classes", labels.shape, f"({len(sequences)},)")
        known = len(labels) > 0 and 0 <= labels.min() <= labels.max() < len(labels)  # so that a count has few numbers
        if not known or not np.all(each := np.bincount(labels)):
            raise ValueError("NaiveBayes: classes must hold 0, 1, ... and leave none of them out")
        numbers: defaultdict[tuple[Hashable, ...], int] = defaultdict(lambda: len(numbers))
        found = [[numbers[gram] for gram in self._grams(sequence)] for sequence in sequences]
        counts = np.ones((len(each), len(numbers) + 1))  # the last is for n-grams never seen
        for label, places in zip(labels, found, strict=True):
            counts[label, places] += 1
        self._ids = dict(numbers)
        self._logs = np.log(counts / counts.sum(axis=1, keepdims=True))
        self._prior = np.log(each / len(labels))

    def __call__(self, sequences: Sequence[Sequence[Hashable]]) -> Array:
        """Logits (N, C) of N sequences: the logarithms of the classes' probabilities but for a term per sequence.

        model([["so", "bad"]])
        """
        logits = np.empty((len(sequences), len(self._prior)))
        for row, sequence in zip(logits, sequences, strict=True):
            known = [self._ids[gram] for gram in self._grams(sequence) if gram in self._ids]
            row[:] = self._prior + self._logs[:, known].sum(axis=1)
        return logits

    def _grams(self, sequence: Sequence[Hashable]) -> set[tuple[Hashable, ...]]:
        return {tuple(sequence[t : t + n]) for n in range(1, self.order + 1) for t in range(len(sequence) - n + 1)}


class LogOdds:
    """How much likelier each token of a sequence is in one kind of stretch than outside of it: log P_in - log P_out.

    Both are `NGram` models, of the stretches inside and of those outside, as for the CpG islands of Durbin, Eddy, Krogh
    and Mitchison (1998, section 3.1). Averaged over a window, they say where the stretches are.

    sequences    a list of (T,) integers in 0..size-1
    inside       a list of (T,) booleans, of each token whether it is inside
    order, size  as in `NGram`

    TypeError and ValueError as in `NGram`, and for `inside` that is not booleans or not like the sequences.

        odds = pyrnn.ngrams.LogOdds([[0, 0, 1, 2, 1, 2]], [[False, False, True, True, True, True]], order=2, size=4)
        odds([0, 1, 2])  # (3,)
    """

    def __init__(self, sequences: Sequence[ArrayLike], inside: Sequence[ArrayLike], order: int, size: int) -> None:
        if len(sequences) != len(inside):
            raise ValueError(f"LogOdds: {len(sequences)} sequences, but inside has {len(inside)}")
        parts: dict[bool, list[Array]] = {True: [], False: []}
        for n, (sequence, kinds) in enumerate(zip(sequences, inside, strict=True)):
            ids = integer_array("LogOdds", f"sequences[{n}]", sequence)
            kinds = boolean_array("LogOdds", f"inside[{n}]", kinds, ids.shape, f"{ids.shape} like its sequence")
            edges = np.flatnonzero(np.diff(kinds)) + 1
            for stretch, kind in zip(np.split(ids, edges), np.split(kinds, edges), strict=True):
                parts[bool(kind.any())].append(stretch)
        self.inside, self.outside = (NGram(parts[kind], order, size) for kind in (True, False))

    def __call__(self, ids: ArrayLike, window: int = 1) -> Array:
        """The log-odds of each token, averaged over the `window` tokens around it: ids (T,) -> (T,).

        Beyond the ends of the sequence they are 0. Errors as in `NGram`; ValueError for a window that is not odd.

            odds([0, 1, 2], window=3)
        """
        window = integer("LogOdds", "window", window, 1)
        if window % 2 == 0:
            raise ValueError(f"LogOdds: window is {window}, expected an odd number")
        odds: Array = np.log(self.inside.probabilities(ids) / self.outside.probabilities(ids))
        return np.convolve(odds, np.ones(window) / window)[window // 2 :][: len(odds)] if len(odds) else odds
