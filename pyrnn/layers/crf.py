"""A layer that chooses tags together: a linear-chain conditional random field over the scores of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core.checks import (
    MOST,
    Array,
    Rng,
    boolean,
    float_dtype,
    integer,
    integer_array,
    quietly,
    real_array,
    shape_error,
    shaped_array,
    shown,
)
from ..core.layer import Layer
from ..core.layout import Layout, valid_steps
from ..core.pullback import Once

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

Pair = Sequence["int | None"]


class CRF(Layer):
    """A linear-chain conditional random field: which sequence of tags, not which tag at each step.

        score(tags) = start[y_0] + sum_t scores[t, y_t] + sum_t transitions[y_t-1, y_t] + end[y_last]
        p(tags)     = e^score(tags) / sum over all sequences of e^score

    Lafferty, McCallum and Pereira 2001; over the scores of a recurrent network Huang, Xu and Yu 2015
    (arXiv:1508.01991).
    Parameters: transitions (V, V) [from, to], start (V,), end (V,), all uniform in ±0.1. rng: None, an int seed or a
    numpy.random.Generator.

    forbidden  pairs (from, to) of tags that never follow each other; (None, to) may not begin a sequence, (from, None)
               not end it. Their parameters are not looked at and have gradient 0. `CRF.bio` makes the pairs of tags
               such as B-city and I-city

    TypeError and ValueError for arguments that make no layer.

        crf = pyrnn.CRF(5, rng=0)
        loss, pullback = crf.vjp(scores, tags, lengths=[7, 3])  # (T, N, 5), (T, N)
        dscores = pullback()
        tags = crf.decode(scores, lengths=[7, 3])
    """

    def __init__(
        self, num_tags: int,
        *, batch_first: bool = False, forbidden: Sequence[Pair] | Array | None = None, dtype: DTypeLike = "float32",
        rng: Rng = None,
    ) -> None:  # fmt: skip
        call = type(self).__name__
        self.num_tags = tags = integer(call, "num_tags", num_tags, 1, MOST)
        self.batch_first = boolean(call, "batch_first", batch_first)
        self.forbidden = None if forbidden is None else _pairs(call, forbidden, tags)
        super().__init__(float_dtype(call, dtype), {"transitions": (tags, tags), "start": (tags,), "end": (tags,)})
        self._barred = _table(self.forbidden, tags)
        self._begin(rng)

    @staticmethod
    def bio(tags: Sequence[str]) -> list[list[int | None]]:
        """The forbidden pairs of tags by their names: I-x may only follow B-x and I-x (Ramshaw and Marcus 1995).

        crf = pyrnn.CRF(3, forbidden=pyrnn.CRF.bio(["O", "B-city", "I-city"]))
        """
        if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
            raise TypeError(f"CRF.bio: tags is {shown(tags)}, expected a list of names")
        inside = [(k, {f"B-{tag[2:]}", tag}) for k, tag in enumerate(tags) if tag.startswith("I-")]
        pairs: list[list[int | None]] = [[None, k] for k, _ in inside]
        return pairs + [[k, to] for to, allowed in inside for k, tag in enumerate(tags) if tag not in allowed]

    def _draw(self, rng: np.random.Generator) -> None:
        self._flat[0][:] = rng.uniform(-0.1, 0.1, self._size)

    def vjp(
        self, scores: ArrayLike, tags: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[float, Callable[..., Array]]:
        """The mean over the rows of -log p(tags), in nats, and dscores = pullback(dloss=1.0), which adds to `grads`; it
        can be called once, and owns what it needs.

        scores   (T, N, V), (N, T, V) with batch_first, or (T, V); dscores is like it, and 0 in the padding
        tags     (T, N), (N, T) or (T,) integers in 0..V-1
        lengths  (N,) integers in 0..T, or one integer: the valid steps of each row; scores and tags beyond them are
                 never read. A row of length 0 counts 0, and is counted

        A row's loss and the gradient of its scores, before the division by N, have the same bits in any batch.
        TypeError for wrong dtypes, ValueError for wrong shapes, lengths and tags and for tags that are forbidden.

            loss, pullback = crf.vjp(scores, tags)
            dscores = pullback()
        """
        call = f"{type(self).__name__}.vjp"
        values, layout, ends = self._scores(call, scores, lengths)
        chosen = self._tags(call, tags, layout, values, ends)
        losses, dscores, *dweights = kernels.crf.forward(values, chosen, *self._weights(), ends)
        loss = float(losses.sum() / max(len(losses), 1))
        kept = Once(
            f"{type(self).__name__} pullback",
            (np.ascontiguousarray(layout.back(dscores)), np.concatenate([d.reshape(-1) for d in dweights])),
        )

        @quietly
        def pullback(dloss: ArrayLike = 1.0) -> Array:
            factor = shaped_array(kept.call, "dloss", dloss, self.dtype, ())
            dscores, dweights = kept.take()
            self._flat[1][:] += factor * dweights
            dscores *= factor
            return dscores

        return loss, pullback

    def decode(self, scores: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """The likeliest sequence of tags (Viterbi 1967): scores (T, N, V) -> (T, N) int64, 0 in the padding.

        Arguments and errors as in `vjp`; ValueError too for a row of which every sequence is forbidden, and for one of
        which none is the likeliest, as scores or weights are NaN or infinity; -inf is a score.

            tags = crf.decode(scores, lengths=[7, 3])
        """
        call = f"{type(self).__name__}.decode"
        values, layout, ends = self._scores(call, scores, lengths)
        tags, best = kernels.crf.decode(values, *self._weights(), ends)
        for n in np.flatnonzero(np.isnan(best))[:1]:
            raise ValueError(f"{call}: row {n} has scores or weights that are NaN or infinity")
        self._check_possible(call, best)
        return np.ascontiguousarray(layout.back(tags))

    def marginals(self, scores: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """How likely each tag is at each step, whatever the others are: like the scores, 0 in the padding.

        Arguments and errors as in `decode`, but where that refuses NaN and infinity they are NaN.

            crf.marginals(scores).sum(axis=-1)  # 1
        """
        call = f"{type(self).__name__}.marginals"
        values, layout, ends = self._scores(call, scores, lengths)
        marginals, totals = kernels.crf.marginals(values, *self._weights(), ends)
        self._check_possible(call, totals)
        return np.ascontiguousarray(layout.back(marginals))

    def _weights(self) -> tuple[Array, Array, Array]:
        """Transitions, start and end, -inf where they are forbidden."""
        transitions, start, end = (self._params[name] for name in self._shapes)
        barred = self._barred
        if barred is None:
            return transitions, start, end
        low = self.dtype.type(-np.inf)
        return (
            np.where(barred[:-1, :-1], low, transitions),
            np.where(barred[-1, :-1], low, start),
            np.where(barred[:-1, -1], low, end),
        )

    def _scores(self, call: str, scores: Any, lengths: Any) -> tuple[Array, Layout, Array]:
        """(T, N, V), how they lay, and the valid steps of each row, (N,)."""
        values = real_array(call, "scores", scores, self.dtype)
        layout = Layout.of(call, "scores", values.shape, self.batch_first, (self.num_tags,))
        values = layout.steps_first(values)
        steps, rows, _ = values.shape
        if lengths is None:
            return values, layout, np.full(rows, steps)
        return values, layout, layout.lengths(call, lengths, steps, rows)

    def _tags(self, call: str, tags: Any, layout: Layout, values: Array, ends: Array) -> Array:
        """(T, N), 0 in the padding."""
        steps, rows, _ = values.shape
        given = integer_array(call, "tags", tags)
        expected = layout.shape(steps, rows)
        if given.shape != expected:
            raise shape_error(call, "tags", given.shape, str(expected))
        valid = valid_steps(steps, rows, ends)
        chosen = np.where(valid, layout.steps_first(given), 0)
        for t, n in np.argwhere((chosen < 0) | (chosen >= self.num_tags))[:1]:
            raise ValueError(f"{call}: row {n} of tags holds {chosen[t, n]}, expected 0 to {self.num_tags - 1}")
        if self._barred is not None:
            with_ends = np.full((steps + 2, rows), self.num_tags)
            with_ends[1:-1] = np.where(valid, chosen, self.num_tags)
            met = self._barred[with_ends[:-1], with_ends[1:]] & (np.arange(steps + 1)[:, None] <= ends) & (ends > 0)
            for t, n in np.argwhere(met)[:1]:
                tag, after = with_ends[t : t + 2, n]
                what = "begins with" if t == 0 else "ends with" if t == ends[n] else f"has {tag} before"
                raise ValueError(f"{call}: row {n} of tags {what} {tag if t == ends[n] else after}, which is forbidden")
        return chosen

    def _check_possible(self, call: str, totals: Array) -> None:
        for n in np.flatnonzero(np.isneginf(totals))[:1]:
            raise ValueError(f"{call}: every sequence of tags is forbidden for row {n}")


def _pairs(call: str, forbidden: Any, tags: int) -> list[list[int | None]]:
    """As plain lists, checked."""
    if not isinstance(forbidden, (list, tuple, np.ndarray)):
        raise TypeError(f"{call}: forbidden is {shown(forbidden)}, expected a list of pairs (from, to)")
    pairs: list[list[int | None]] = []
    for k, pair in enumerate(forbidden.tolist() if isinstance(forbidden, np.ndarray) else forbidden):
        name = f"forbidden[{k}]"
        if not isinstance(pair, (list, tuple, np.ndarray)) or len(pair) != 2 or (pair[0] is None and pair[1] is None):
            raise ValueError(f"{call}: {name} is {shown(pair)}, expected a pair (from, to) of tags")
        pairs.append([None if tag is None else integer(call, name, tag, 0, tags - 1) for tag in pair])
    return pairs


def _table(pairs: list[list[int | None]] | None, tags: int) -> Array | None:
    """(V + 1, V + 1) booleans, whose last row is before the first step, and last column behind the last; or None."""
    if not pairs:
        return None
    table = np.zeros((tags + 1, tags + 1), bool)
    table[tuple(np.array([[tags if tag is None else tag for tag in pair] for pair in pairs]).T)] = True
    return table
