"""Connectionist temporal classification: sequences whose targets are shorter and say nothing of when; loss, decoding.

At each step a network says an id or the blank. Of such a path repeated ids become one and blanks are left out: many
paths, the alignments, say the same (Graves, Fernandez, Gomez and Schmidhuber 2006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..core import checks
from ..core.checks import MOST, Array
from ..core.layout import Layout, valid_steps
from .decoding import _log_softmax

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LanguageModel = Callable[[Array], "ArrayLike"]

LEAST = -1e280  # logits, less the largest of their step, are cut here: sums of them stay finite


def ctc(
    logits: ArrayLike, targets: ArrayLike | list[Any],
    *, lengths: ArrayLike | None = None, target_lengths: ArrayLike | None = None, blank: int = 0,
    batch_first: bool = False, infeasible: str = "error",
) -> tuple[float, Array]:  # fmt: skip
    """Mean over the rows of -log p(target), summed over all alignments, in nats, and its gradient: loss, dlogits.

    logits          (T, N, V), (N, T, V) with batch_first, or (T, V); float64 or converted to float32; dlogits is like
                    it, and 0 in the padding
    targets         (N, S) ids, (S,) of one row, or a list of N id arrays; never the blank
    lengths         (N,) integers in 0..T, the valid steps of each row, or one integer; what is beyond is never read
    target_lengths  (N,) integers in 0..S, or one integer; not with a list
    blank           the id that says nothing
    infeasible      a row with fewer steps than its target needs, one for each id and one between equal ones: "error" is
                    a ValueError that names it, with "zero" it counts 0 and has gradient 0

    A row's loss is not divided by the length of its target. A loss and a gradient, before the division by N, have the
    same bits in any batch. No logits but NaN and infinite ones give NaN. TypeError for wrong dtypes, ValueError for
    wrong shapes, lengths, ids and options, whatever `infeasible` says.

        loss, dlogits = pyrnn.ctc(logits, [[3, 1, 4], [1, 5]], lengths=[50, 30])
        dx = pullback(dlogits)
    """
    call = "ctc"
    values, layout, ends = _logits(call, logits, lengths, checks.boolean(call, "batch_first", batch_first))
    blank = checks.integer(call, "blank", blank, 0, values.shape[2] - 1)
    lenient = checks.choice(call, "infeasible", infeasible, ("error", "zero")) == "zero"
    ids, counts, needed = _targets(call, targets, target_lengths, layout, values.shape, blank)
    if not lenient:
        _check_feasible(call, needed, ends)
    losses, dlogits = kernels.ctc.forward(values, ids, counts, ends, blank)
    losses[needed > ends] = 0
    return float(losses.sum() / max(len(losses), 1)), np.ascontiguousarray(layout.back(dlogits))


def ctc_greedy(logits: ArrayLike, *, lengths: ArrayLike | None = None, blank: int = 0) -> list[Array]:
    """What the likeliest id of each step says: a list of N id arrays, of one for logits (T, V).

    logits (T, N, V), lengths and errors as in `ctc`; ValueError too for logits that are NaN, infinity or all -inf, and
    name no likeliest id. It is what the likeliest path says, which need not be the likeliest target: see
    `ctc_beam_search`.

        ids = pyrnn.decoding.ctc_greedy(logits, lengths=[50, 30])
    """
    call = "ctc_greedy"
    values, _, ends = _logits(call, logits, lengths)
    blank = checks.integer(call, "blank", blank, 0, values.shape[2] - 1)
    _check_finite(call, values, ends)
    best = values.argmax(axis=2)
    new = best != blank
    new[1:] &= best[1:] != best[:-1]
    return [best[:end, n][new[:end, n]] for n, end in enumerate(ends)]


def ctc_beam_search(
    logits: ArrayLike,
    *, beam_width: int = 16, lengths: ArrayLike | None = None, blank: int = 0, lm: LanguageModel | None = None,
    lm_weight: float = 0.5, token_bonus: float = 0.0,
) -> list[list[tuple[Array, float]]]:  # fmt: skip
    """The likeliest targets that a beam finds: for each row a list of (ids, score), best first, no ids twice.

    After each step the `beam_width` best beginnings of a target are kept; the probability of one is that of all its
    alignments that are left, whether they end in its last id or in a blank (Hannun, Maas, Jurafsky and Ng 2014,
    arXiv:1408.2873).

    lm           a language model: ids so far (an int64 array) -> (V,) log probabilities of the next one, such as an
                 `NGram`; it is asked once for each beginning that is kept
    score        log p(ids) + lm_weight * (sum of log probabilities of the ids by lm) + token_bonus * number of ids

    logits (T, N, V), lengths and errors as in `ctc`; ValueError too for logits that are NaN, infinity or all -inf,
    and where lm gives NaN or a score of infinity. One list in a list for logits (T, V). Nothing of score -inf is kept:
    a list is empty where there is nothing else.

        (best, score), *others = pyrnn.decoding.ctc_beam_search(logits[:, 0], lm=ngram)[0]
    """
    call = "ctc_beam_search"
    values, _, ends = _logits(call, logits, lengths)
    classes = values.shape[2]
    blank = checks.integer(call, "blank", blank, 0, classes - 1)
    width = checks.integer(call, "beam_width", beam_width, 1, MOST)
    weight = checks.real(call, "lm_weight", lm_weight, -MOST, MOST)
    bonus = checks.real(call, "token_bonus", token_bonus, -MOST, MOST)
    if lm is not None and not callable(lm):
        raise TypeError(f"{call}: lm is {checks.shown(lm)}, expected a function of the ids so far")
    _check_finite(call, values, ends)

    def gains(ids: tuple[int, ...]) -> Array:
        """What each id adds to the score of these, beside its log probability."""
        if lm is None:
            return np.full(classes, bonus)
        logs = checks.float_array(call, "lm", lm(np.array(ids, np.int64)))
        if logs.shape != (classes,):
            raise checks.shape_error(call, "lm", logs.shape, f"({classes},)")
        if np.isnan(logs).any():
            raise ValueError(f"{call}: lm gives NaN")
        scores = weight * logs.astype(np.float64) + bonus if weight else np.full(classes, bonus)
        if np.isposinf(scores).any():
            raise ValueError(f"{call}: lm gives an id a score of infinity, at lm_weight {weight:g}")
        return scores

    return [
        _beam(_log_softmax(call, values[:end, n]), width, blank, gains) if end else [(np.empty(0, np.int64), 0.0)]
        for n, end in enumerate(ends)
    ]


def _beam(logs: Array, width: int, blank: int, gains: Callable[[tuple[int, ...]], Array]) -> list[tuple[Array, float]]:
    """Of one row's log probabilities (T, V), what `ctc_beam_search` gives for it."""
    texts: list[tuple[int, ...]] = [()]
    blanks, ids = np.zeros(1), np.full(1, -np.inf)  # log p of the alignments that end in a blank, and in the last id
    others, gain = np.zeros(1), gains(())[None]  # of the score beside log p; what an id adds to it
    for step in logs:
        count, places = len(texts), {text: k for k, text in enumerate(texts)}
        last = np.array([text[-1] if text else blank for text in texts])
        rows = np.arange(count)
        total = np.logaddexp(blanks, ids)
        longer = total[:, None] + step
        longer[rows, last] = blanks + step[last]  # an equal id needs a blank between
        longer[:, blank] = -np.inf
        ids = np.where([bool(text) for text in texts], ids + step[last], -np.inf)
        for k, text in enumerate(texts):
            parent = places.get(text[:-1]) if text else None
            if parent is not None:  # the longer one is there already
                ids[k] = np.logaddexp(ids[k], longer[parent, text[-1]])
                longer[parent, text[-1]] = -np.inf
        blanks = total + step[blank]
        scores = np.concatenate([np.logaddexp(blanks, ids) + others, (longer + others[:, None] + gain).ravel()])
        best = np.flatnonzero(scores > -np.inf)
        if not len(best):
            return []
        if len(best) > width:
            best = np.flatnonzero(scores >= np.partition(scores, -width)[-width])
        best = best[np.argsort(-scores[best], kind="stable")][:width]
        stay, (origin, new) = best < count, np.divmod(best - count, logs.shape[1])
        origin, new = np.where(stay, best, origin), np.where(stay, blank, new)
        texts = [texts[k] if same else (*texts[k], v) for k, v, same in zip(origin, new.tolist(), stay, strict=True)]
        blanks = np.where(stay, blanks[origin], -np.inf)
        ids = np.where(stay, ids[origin], longer[origin, new])
        others = np.where(stay, others[origin], others[origin] + gain[origin, new])
        gain = np.array([gain[k] if same else gains(text) for k, text, same in zip(origin, texts, stay, strict=True)])
    scores = np.logaddexp(blanks, ids) + others
    order = np.argsort(-scores, kind="stable")
    return [(np.array(texts[k], np.int64), float(scores[k])) for k in order]


def ctc_align(
    logits: ArrayLike, targets: ArrayLike | list[Any],
    *, lengths: ArrayLike | None = None, target_lengths: ArrayLike | None = None, blank: int = 0,
) -> Array:  # fmt: skip
    """The likeliest alignment of each row's target (Viterbi 1967): the id of every step, (T, N), or (T,) for logits
    (T, V); the blank in the padding.

    Arguments and errors as in `ctc`; a target that needs more steps than there are is a ValueError that names the row,
    and so are logits that are NaN, infinity or all -inf.

        path = pyrnn.decoding.ctc_align(logits, [[3, 1, 4], [1, 5]])
        when = np.flatnonzero(path[:, 0] == 3)
    """
    call = "ctc_align"
    values, layout, ends = _logits(call, logits, lengths)
    steps, rows, classes = values.shape
    blank = checks.integer(call, "blank", blank, 0, classes - 1)
    ids, counts, needed = _targets(call, targets, target_lengths, layout, values.shape, blank)
    _check_feasible(call, needed, ends)
    _check_finite(call, values, ends)
    valid = valid_steps(steps, rows, ends)
    row = np.arange(rows)
    path = np.full((rows, 2 * ids.shape[1] + 1), blank)  # blank, id, blank, id, ..., blank
    path[:, 1::2] = ids
    skips = np.zeros(path.shape, bool)  # may be reached from the id before, without the blank between
    skips[:, 3::2] = ids[:, 1:] != ids[:, :-1]
    best = np.where(np.arange(path.shape[1]) == 0, 0.0, -np.inf) + np.zeros((rows, 1))
    moves = np.zeros((steps, *path.shape), np.int8)
    with np.errstate(all="ignore"):
        for t in range(steps):
            step = values[t].astype(np.float64)
            step = np.maximum(step - step.max(axis=1, keepdims=True), LEAST)
            ways = np.full((3, *path.shape), -np.inf)
            ways[0], ways[1, :, 1:] = best, best[:, :-1]
            ways[2, :, 2:] = np.where(skips, np.roll(best, 2, axis=1), -np.inf)[:, 2:]
            moves[t] = ways.argmax(axis=0)
            best = np.where(valid[t][:, None], ways.max(axis=0) + np.take_along_axis(step, path, axis=1), best)
    at = 2 * counts
    at -= (counts > 0) & (best[row, np.maximum(at - 1, 0)] > best[row, at])
    aligned = np.full((steps, rows), blank)
    for t in range(steps - 1, -1, -1):
        aligned[t] = np.where(valid[t], path[row, at], blank)
        at -= np.where(valid[t], moves[t, row, at], 0)
    return np.ascontiguousarray(layout.back(aligned))


def _logits(call: str, logits: Any, lengths: Any, batch_first: bool = False) -> tuple[Array, Layout, Array]:
    """(T, N, V), how they lay, and the valid steps of each row, (N,)."""
    values = checks.float_array(call, "logits", logits)
    layout = Layout.of(call, "logits", values.shape, batch_first, ("V",))
    if values.shape[-1] == 0:
        raise checks.shape_error(call, "logits", values.shape, f"{layout.text('V')} with at least one class")
    values = layout.steps_first(values)
    steps, rows, _ = values.shape
    if lengths is None:
        return values, layout, np.full(rows, steps)
    return values, layout, layout.lengths(call, lengths, steps, rows)


def _targets(
    call: str, targets: Any, target_lengths: Any, layout: Layout, shape: tuple[int, ...], blank: int
) -> tuple[Array, Array, Array]:
    """Ids (N, S), blank where they do not count, how many count in each row, and how many steps it needs."""
    _, rows, classes = shape
    if isinstance(targets, (list, tuple)) and target_lengths is None and (layout.batched or _holds_sequences(targets)):
        sequences = [checks.integer_array(call, f"targets[{n}]", ids) for n, ids in enumerate(targets)]
        if len(sequences) != rows:
            raise ValueError(f"{call}: targets holds {len(sequences)} sequences, expected {rows}")
        for n, sequence in enumerate(sequences):
            if sequence.ndim != 1:
                raise checks.shape_error(call, f"targets[{n}]", sequence.shape, "(S,)")
        counts = np.array([len(sequence) for sequence in sequences], np.int64)
        ids = np.full((rows, int(counts.max(initial=0))), blank)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = sequence
    else:
        ids = checks.integer_array(call, "targets", targets)
        if not layout.batched and ids.ndim == 1:
            ids = ids[None]
        if ids.ndim != 2 or len(ids) != rows:
            raise checks.shape_error(call, "targets", ids.shape, f"({rows}, S)" if layout.batched else "(S,)")
        counts = np.full(rows, ids.shape[1])
        if target_lengths is not None:
            counts = checks.integer_array(call, "target_lengths", target_lengths)
            expected = (rows,) if layout.batched else ()
            if counts.shape != expected:
                raise checks.shape_error(call, "target_lengths", counts.shape, str(expected))
            counts = checks.within(call, "target_lengths", counts.reshape(-1), ids.shape[1])
    there = np.arange(ids.shape[1]) < counts[:, None]
    for n, k in np.argwhere(there & ((ids < 0) | (ids >= classes) | (ids == blank)))[:1]:
        reason = "which is the blank" if ids[n, k] == blank else f"expected 0 to {classes - 1}"
        raise ValueError(f"{call}: row {n} of targets holds {ids[n, k]}, {reason}")
    needed = counts + ((ids[:, 1:] == ids[:, :-1]) & there[:, 1:]).sum(axis=1)
    return np.where(there, ids, blank), counts, needed


def _holds_sequences(targets: list[Any] | tuple[Any, ...]) -> bool:
    """Whether these are sequences of ids, not the ids of one."""
    return any(isinstance(part, (list, tuple)) or np.ndim(part) for part in targets[:1])


def _check_finite(call: str, values: Array, ends: Array) -> None:
    """ValueError for a step that has no likeliest id."""
    with np.errstate(all="ignore"):
        most = values.max(axis=2)
    for t, n in np.argwhere(valid_steps(len(most), len(ends), ends) & ~np.isfinite(most))[:1]:
        found = "is all -inf" if np.isneginf(most[t, n]) else "holds NaN or infinity"
        raise ValueError(f"{call}: row {n} of logits {found} at step {t}")


def _check_feasible(call: str, needed: Array, steps: Array) -> None:
    for n in np.flatnonzero(needed > steps)[:1]:
        raise ValueError(
            f"{call}: row {n} has {steps[n]} steps, but its target needs {needed[n]}, one for each id and one between "
            "equal ones"
        )
