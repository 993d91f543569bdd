"""Decoding: from a model that predicts the next token to sequences of tokens, for many rows at once.

All of it works over one step function

    logits, state = step(state, ids)        ids (N,) integers, logits (N, V) of the next token

A state is None, an array, or a tuple or list of states. The rows are axis 1 of its arrays, as in the states of
recurrent layers, or their only axis; so a beam can repeat and reorder them (lists become tuples).

Or over a stream of N rows, such as `Decoder.stream` or the `stream` of a Sequential that begins with an Embedding: it
takes the place of the function, and the state is None. Decoding works on a copy, the stream stays where it is.

What decodes the logits of connectionist temporal classification is here too, `ctc_greedy`, `ctc_beam_search` and
`ctc_align`; it is imported at the first use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..core.checks import (
    MOST,
    Array,
    Rng,
    any_array,
    float_array,
    generator,
    integer,
    integer_array,
    real,
    shape_error,
    shape_text,
    within,
)
from ..core.later import later

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .ctc import ctc_align as ctc_align
    from .ctc import ctc_beam_search as ctc_beam_search
    from .ctc import ctc_greedy as ctc_greedy

Step = Callable[[Any, Array], "tuple[Array, Any]"]


class Stream(Protocol):
    """What decoding asks of a stream; copy.copy makes one that goes on by itself."""

    def step(self, ids: Any, /) -> Array | None:
        """Logits of the next token."""

    def take(self, rows: Any) -> None:
        """Go on with these rows."""


def choose(logits: ArrayLike, temperature: float = 1.0, rng: Rng = None) -> Array:
    """Tokens (...) drawn from softmax(logits / temperature), logits (..., V); the likeliest ones at temperature 0.

    Above 0, one number is drawn from `rng` for each token. A logit of -inf is never drawn. rng: None, an int seed or a
    numpy.random.Generator. ValueError for logits that are NaN or all -inf, and for a negative temperature.

        token = pyrnn.decoding.choose([0.1, 2.0, -1.0], temperature=0.5, rng=0)
    """
    call = "choose"
    scores = float_array(call, "logits", logits)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise shape_error(call, "logits", scores.shape, "(..., V)")
    temperature = _temperature(call, temperature)
    drawing = None if temperature == 0 and rng is None else generator(call, rng)  # a fresh seed takes long
    most = scores.max(axis=-1, keepdims=True)
    if not np.isfinite(most).all():
        raise ValueError(f"{call}: logits are not finite")
    if drawing is None or temperature == 0:
        return np.asarray(scores.argmax(axis=-1))
    with np.errstate(over="ignore"):
        totals = np.cumsum(np.exp(np.divide(scores - most, temperature, dtype=np.float64)), axis=-1)
    drawn = drawing.random(scores.shape[:-1])[..., None] * totals[..., -1:]
    return np.asarray((totals <= drawn).sum(axis=-1))


def greedy(step: Step | Stream, state: Any, start: ArrayLike, end: int | None, max_steps: int) -> tuple[Array, Array]:
    """The likeliest token at every step: ids (T, N), lengths (N,). `sample` at temperature 0; arguments and errors as
    there.

    ids, lengths = pyrnn.decoding.greedy(model.step, model.start(vector), [0] * 3, end=1, max_steps=20)
    """
    return _run("greedy", step, state, start, end, max_steps, 0.0, None)


def sample(
    step: Step | Stream,
    state: Any,
    start: ArrayLike,
    end: int | None,
    max_steps: int,
    temperature: float = 1.0,
    rng: Rng = None,
) -> tuple[Array, Array]:
    """Tokens drawn one after the other from the model's own predictions: ids (T, N), lengths (N,).

    start      (N,) the first tokens that the model reads; they are not part of the result
    end        the token that ends a row; it is not counted in lengths, and fills the row behind it. None: no row ends
    max_steps  the most steps; T is less where all rows have ended

    temperature and rng as in `choose`. TypeError and ValueError for what does not fit.

        ids, lengths = pyrnn.decoding.sample(model.step, state, [0] * 3, end=1, max_steps=20, temperature=0.7, rng=0)
    """
    return _run("sample", step, state, start, end, max_steps, temperature, generator("sample", rng))


def _run(
    call: str, step: Step | Stream, state: Any, start: Any, end: Any, max_steps: Any, temperature: Any, rng: Any
) -> tuple[Array, Array]:
    step, state = _stepped(call, step, state)
    ids, end = _ids(call, "start", start, 1), _end(call, end)
    max_steps = integer(call, "max_steps", max_steps, 0, MOST)
    temperature = _temperature(call, temperature)
    written = [np.empty((0, len(ids)), np.int64)]
    alive, lengths = np.ones(len(ids), bool), np.zeros(len(ids), np.int64)
    while alive.any() and len(written) <= max_steps:
        logits, state = _advance(call, step, state, ids, end)
        ids = choose(logits, temperature, rng)
        if end is not None:
            ids[~alive] = end
            alive &= ids != end
        lengths += alive
        if alive.any():
            written.append(ids[None])
    return np.concatenate(written), lengths


def scheduled_inputs(step: Step | Stream, state: Any, inputs: ArrayLike, ratio: float, rng: Rng = None) -> Array:
    """Teacher forcing with a ratio: inputs (T, N) of which each after the first step is kept with probability `ratio`,
    and is else what the model itself holds for likeliest after the inputs before it.

    Ratio 1 is teacher forcing, 0 free running. No gradient goes through the choice of a token (Bengio et al. 2015,
    arXiv:1506.03099, scheduled sampling), so a model is trained with it by a `vjp` of these inputs: exact gradients in
    one call over all steps. rng: None, an int seed or a numpy.random.Generator. TypeError and ValueError for what does
    not fit.

        mixed = pyrnn.decoding.scheduled_inputs(model.step, model.start(vector), ids[:-1], ratio=0.8, rng=rng)
        logits, pullback = model.vjp(mixed, vector)
    """
    call = "scheduled_inputs"
    step, state = _stepped(call, step, state)
    mixed = _ids(call, "inputs", inputs, 2).copy()
    ratio = real(call, "ratio", ratio, 0, 1)
    kept: Array = np.less(generator(call, rng).random(mixed.shape), ratio)
    if kept[1:].all():
        return mixed
    for t in range(1, len(mixed)):
        logits, state = _advance(call, step, state, mixed[t - 1], None)
        mixed[t] = np.where(kept[t], mixed[t], choose(logits, 0.0))
    return mixed


def beam_search(
    step: Step | Stream,
    state: Any,
    start: ArrayLike,
    end: int | None,
    max_steps: int,
    width: int = 5,
    length_penalty: float = 0.0,
) -> tuple[Array, Array, Array]:
    """The likeliest whole sequences that a beam of `width` finds: ids (T, N, width), lengths and scores (N, width),
    each row's best first.

    At every step the `width` likeliest beginnings of each row go on; those that end leave the beam and make room. The
    score of a sequence is its log probability, `end` included, divided by (number of tokens)**length_penalty, `end`
    counted: 0 is the probability itself, 1 the mean per token, which is fair to long sequences. What has not ended
    after `max_steps` counts as it stands. A width of V**max_steps searches exhaustively. Where there are fewer
    sequences than `width` the rest have score -inf and length 0. Other arguments and errors as in `sample`; ValueError
    too for a length_penalty at which max_steps**length_penalty is more than a float can hold.

        ids, lengths, scores = pyrnn.decoding.beam_search(model.step, state, [0] * 3, end=1, max_steps=20)
        best = ids[:, :, 0], lengths[:, 0]
    """
    call = "beam_search"
    step, state = _stepped(call, step, state)
    first, end = _ids(call, "start", start, 1), _end(call, end)
    max_steps = integer(call, "max_steps", max_steps, 0, MOST)
    width = integer(call, "width", width, 1, MOST)
    length_penalty = real(call, "length_penalty", length_penalty, 0)
    try:
        most = float(max(max_steps, 1) ** length_penalty)
    except OverflowError:
        raise ValueError(
            f"{call}: length_penalty is {length_penalty:g}, but max_steps {max_steps} to that power is more than a "
            "float can hold"
        ) from None
    rows = np.arange(len(first))[:, None]
    if len(first) == 0:
        max_steps = 0

    # Of the beam, (N, width): scores and (steps, N, width) ids. Of what has ended: the same, and lengths.
    beam = np.full((len(first), width), -np.inf)
    beam[:, :1] = 0
    written = np.empty((0, len(first), width), np.int64)
    ended, lengths = np.full_like(beam, -np.inf), np.zeros(beam.shape, np.int64)
    texts = np.zeros((max_steps, len(first), width), np.int64)

    def keep(scores: Array, length: int) -> None:
        """Of those that ended before and now, the best."""
        nonlocal ended, lengths, texts
        now = np.zeros_like(texts)
        now[:length] = written[:length]
        scores = np.concatenate([ended, scores], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        ended = scores[rows, best]
        lengths = np.concatenate([lengths, np.full(beam.shape, length)], axis=1)[rows, best]
        texts = np.concatenate([texts, now], axis=2)[:, rows, best]

    state = _take(state, np.repeat(rows, width))
    ids = np.repeat(first, width)
    for t in range(max_steps):
        logits, state = _advance(call, step, state, ids, end)
        scores = beam[:, :, None] + _log_softmax(call, logits).reshape(*beam.shape, -1)  # (N, width, V)
        if end is not None:
            keep(scores[:, :, end] / (t + 1) ** length_penalty, t)
            scores[:, :, end] = -np.inf
        flat = scores.reshape(len(first), -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, :width]
        beam = flat[rows, best]
        origin, ids = np.divmod(best, scores.shape[2])
        written = np.concatenate([written[:, rows, origin], ids[None]])
        if np.all(beam.max(axis=1, initial=-np.inf) / most <= ended.min(axis=1, initial=np.inf)):
            break  # a beginning's score, at the greatest length, is more than what can become of it
        state = _take(state, (rows * width + origin).reshape(-1))
        ids = ids.reshape(-1)
    else:
        keep(beam / most, max_steps)
    texts[np.arange(max_steps)[:, None, None] >= lengths] = 0 if end is None else end
    return texts[: lengths.max(initial=0)], lengths, ended


def _stepped(call: str, step: Step | Stream, state: Any) -> tuple[Step, Any]:
    """A step function and its state; of a stream, which is copied, the state is the stream."""
    if not hasattr(step, "step"):
        return step, state
    if state is not None:
        raise TypeError(f"{call}: state is {type(state).__name__}, expected None: a stream has its own")

    def go_on(stream: Any, ids: Array) -> tuple[Array, Any]:
        return stream.step(ids), stream

    return go_on, copy.copy(step)


def _take(state: Any, rows: Array) -> Any:
    """The state of these rows."""
    if state is None:
        return None
    if hasattr(state, "step"):
        state.take(rows)
        return state
    if isinstance(state, (tuple, list)):
        return tuple(_take(part, rows) for part in state)
    array = any_array("beam_search", "state", state)
    return array[rows] if array.ndim == 1 else array[:, rows]


def _advance(call: str, step: Step, state: Any, ids: Array, end: int | None) -> tuple[Array, Any]:
    """One step of the model, whose logits must be (N, V), with `end` among the V tokens."""
    logits, state = step(state, ids)
    scores = float_array(call, "logits", logits)
    if scores.ndim != 2 or len(scores) != len(ids) or scores.shape[1] == 0:
        raise shape_error(call, "logits", scores.shape, shape_text(len(ids), "V"))
    if end is not None and end >= scores.shape[1]:
        raise ValueError(f"{call}: end is {end}, but there are {scores.shape[1]} tokens")
    return scores, state


def _log_softmax(call: str, logits: Array) -> Array:
    scores = logits.astype(np.float64)
    most = scores.max(axis=-1, keepdims=True)
    if not np.all(np.isfinite(most)):
        raise ValueError(f"{call}: logits are not finite")
    scores -= most
    result: Array = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return result


def _ids(call: str, name: str, value: Any, axes: int) -> Array:
    array = integer_array(call, name, value)
    if array.ndim != axes:
        raise shape_error(call, name, array.shape, "(N,)" if axes == 1 else "(T, N)")
    return within(call, name, array, MOST)


def _end(call: str, value: Any) -> int | None:
    return None if value is None else integer(call, "end", value, 0, MOST)


def _temperature(call: str, value: Any) -> float:
    return real(call, "temperature", value, 0, float(np.finfo(np.float64).max))


_LATER = ("ctc_align", "ctc_beam_search", "ctc_greedy")
__getattr__ = later(__name__, dict.fromkeys(_LATER, "pyrnn.text.ctc"))


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
