"""Decoding: choosing tokens, running a model freely, scheduled sampling and beam search."""

import itertools

import numpy as np
import pytest

from pyrnn import decoding

V, END = 3, 0


def history_step(rng, steps=6, rows=2):
    """A step function whose logits depend on all tokens so far, and the logits themselves by (row, history).

    The state is (row (N,), history (1, N)): the history is a number with a digit for each token.
    """
    table = 2 * rng.standard_normal((rows, V ** (steps + 1), V))

    def step(state, tokens):
        row, history = state
        history = history * V + tokens
        return table[row, history[0]], (row, history)

    return step, (np.arange(rows), np.zeros((1, rows), int)), table


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def score_of(table, row, text, length_penalty, end, max_steps):
    """By hand: the score of a text that starts after token 1."""
    total, history = 0.0, 1
    ends = end is not None and len(text) < max_steps
    for token in [*text, end] if ends else text:
        total += log_softmax(table[row, history])[token]
        history = history * V + token
    return total / (len(text) + ends) ** length_penalty


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("end", [END, None])
def test_a_beam_of_all_sequences_is_exhaustive_search(rng, length_penalty, end):
    steps = 4
    step, state, table = history_step(rng)
    tokens, lengths, scores = decoding.beam_search(step, state, [1, 1], end, steps, V**steps, length_penalty)
    for row in range(2):
        letters = [v for v in range(V) if v != end]
        texts = [
            t for n in range(steps + 1) for t in itertools.product(letters, repeat=n) if end is not None or n == steps
        ]
        expected = {t: score_of(table, row, t, length_penalty, end, steps) for t in texts}
        ranked = sorted(texts, key=expected.get, reverse=True)
        found = [tuple(tokens[:n, row, k]) for k, n in enumerate(lengths[row])][: len(texts)]
        assert found == ranked
        np.testing.assert_allclose(scores[row, : len(texts)], [expected[t] for t in ranked], rtol=1e-12)
        assert np.all(np.isneginf(scores[row, len(texts) :]))
        assert not lengths[row, len(texts) :].any()
    assert np.all(tokens[np.arange(len(tokens))[:, None, None] >= lengths] == (end or 0))


def test_a_beam_stops_early_with_the_same_result(rng):
    """Only where nothing better can come: the scores found are those of a model asked for few steps or for many."""
    step, state, table = history_step(rng, steps=8)
    table[:, 40:] = [9.0, 0.0, 0.0]  # from the fourth token on, the end is near
    calls = []

    def counted(state, tokens):
        calls.append(len(tokens))
        return step(state, tokens)

    tokens, lengths, scores = decoding.beam_search(counted, state, [1, 1], END, 8, 4)
    assert calls == [8] * len(calls)
    assert len(calls) < 8
    for row, k in np.ndindex(2, 4):
        text = tokens[: lengths[row, k], row, k]
        assert scores[row, k] == pytest.approx(score_of(table, row, text, 0, END, 8))
    assert np.all(np.diff(scores, axis=1) <= 0)


def test_a_beam_goes_on_while_a_longer_sequence_may_be_better():
    """To end at once is likelier, but what else there is goes on for sure, with a better mean per token."""
    after = {1: [0.2, -99, 0], 2: [-99, -99, 0]}
    step = lambda state, tokens: (np.array([after[int(token)] for token in tokens]), None)  # noqa: E731
    tokens, lengths, scores = decoding.beam_search(step, None, [1], END, 30, width=1, length_penalty=1.0)
    assert tokens[:, 0, 0].tolist() == [2] * 30
    assert lengths.tolist() == [[30]]
    assert scores[0, 0] == pytest.approx(-np.log1p(np.exp(0.2)) / 30)


def test_a_wider_beam_finds_what_greedy_misses():
    """Token 1 is likelier at first, but leads to a choice between two; 2 is followed by the end for sure."""
    after = {0: [-9, 0.5, 0.2], 1: [0, 0.1, 0], 2: [9, 0, 0]}

    def step(state, tokens):
        return np.array([after[int(token)] for token in tokens], float), None

    tokens, lengths = decoding.greedy(step, None, [0], END, 5)
    narrow, narrow_lengths, _ = decoding.beam_search(step, None, [0], END, 5, width=1)
    wide, wide_lengths, _ = decoding.beam_search(step, None, [0], END, 5, width=2)
    assert tokens[:, 0].tolist() == [1] * 5
    assert narrow[: narrow_lengths[0, 0], 0, 0].tolist() != wide[: wide_lengths[0, 0], 0, 0].tolist() == [2]
    assert lengths.tolist() == [5]


def test_length_penalty_prefers_longer_sequences():
    step = lambda state, tokens: (np.array([[0.0, 0.5, -99]] * len(tokens)), None)  # noqa: E731
    _, short, _ = decoding.beam_search(step, None, [1], END, 6, width=3)
    _, long, _ = decoding.beam_search(step, None, [1], END, 6, width=3, length_penalty=2.0)
    assert short[0, 0] == 0
    assert long[0, 0] == 6


def test_greedy_takes_the_likeliest_and_rows_end_alone():
    follow = {1: 2, 2: 3, 3: END, 4: 4, END: 1}

    def step(state, tokens):
        return np.eye(5)[[follow[int(t)] for t in tokens]], state

    tokens, lengths = decoding.greedy(step, None, [1, 3, 2], END, 10)
    assert lengths.tolist() == [2, 0, 1]
    assert tokens.tolist() == [[2, END, 3], [3, END, END]]
    tokens, lengths = decoding.greedy(step, None, [4], END, 3)
    assert (tokens[:, 0].tolist(), lengths.tolist()) == ([4, 4, 4], [3])
    tokens, lengths = decoding.greedy(step, None, [3], None, 3)
    assert tokens[:, 0].tolist() == [END, 1, 2]
    assert decoding.greedy(step, None, [1], END, 0)[0].shape == (0, 1)
    assert decoding.greedy(step, None, np.empty(0, int), END, 4)[0].shape == (0, 0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choices_have_the_probabilities_of_the_softmax(temperature):
    logits = np.array([0.3, -1.0, 1.2, -np.inf])
    drawn = decoding.choose(np.broadcast_to(logits, (100, 200, 4)), temperature, rng=3)
    assert drawn.shape == (100, 200)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_allclose(np.bincount(drawn.reshape(-1), minlength=4) / drawn.size, expected, atol=0.015)


def test_choices_at_zero_and_their_seed(rng):
    logits = rng.standard_normal((5, 7, V)).astype("float32")
    np.testing.assert_array_equal(decoding.choose(logits, 0.0), logits.argmax(-1))
    np.testing.assert_array_equal(decoding.choose(logits, 1e-310, rng=0), logits.argmax(-1))
    np.testing.assert_array_equal(decoding.choose(logits, 1.0, rng=1), decoding.choose(logits, 1.0, rng=1))
    assert decoding.choose([0.0, 5.0], 0.0) == 1


def test_sampling_is_choosing_step_by_step(rng):
    step, state, table = history_step(rng)
    tokens, lengths = decoding.sample(step, state, [1, 1], None, 5, rng=5)
    draws, history = np.random.default_rng(5), np.array([1, 1])
    for t in range(5):
        expected = decoding.choose(table[[0, 1], history], 1.0, draws)
        np.testing.assert_array_equal(tokens[t], expected)
        history = history * V + expected
    assert lengths.tolist() == [5, 5]


def test_scheduled_inputs_mix_the_given_with_the_models_own(rng):
    step, state, table = history_step(rng, rows=40)
    inputs = rng.integers(0, V, (6, 40))
    np.testing.assert_array_equal(decoding.scheduled_inputs(step, state, inputs, 1.0), inputs)
    free = decoding.scheduled_inputs(step, state, inputs, 0.0)
    assert np.array_equal(free[0], inputs[0])
    tokens, _ = decoding.greedy(step, state, inputs[0], None, 5)
    np.testing.assert_array_equal(free[1:], tokens)
    mixed = decoding.scheduled_inputs(step, state, inputs, 0.5, rng=0)
    history = np.zeros(40, int)
    for t in range(1, 6):
        history = history * V + mixed[t - 1]
        own = table[np.arange(40), history].argmax(-1)
        assert np.all((mixed[t] == inputs[t]) | (mixed[t] == own))
    differ = free != inputs
    assert 0.3 < np.mean(mixed[1:] == inputs[1:]) < 0.95
    assert differ.any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "float16"])
def test_choices_from_narrow_numbers(dtype):
    """Differences of logits do not wrap around."""
    logits = np.array([0, 1] if dtype == "bool" else [0, 100], dtype)
    assert decoding.choose(logits, 0.01, rng=0) == 1
    if dtype == "int8":
        assert decoding.choose(np.array([-100, 100], dtype), rng=0) == 1


def test_a_beam_of_no_rows_and_of_a_state_in_a_list(rng):
    step, state, _ = history_step(rng)
    tokens, lengths, scores = decoding.beam_search(step, state, np.empty(0, int), END, 4, 3)
    assert (tokens.shape, lengths.shape, scores.shape) == ((0, 0, 3), (0, 3), (0, 3))
    h = rng.standard_normal((2, 1, 2, V))

    def listed(state, tokens):
        assert isinstance(state, (tuple, list))
        a, b = state
        return a[0] + b[0], [b, a + np.eye(V)[tokens]]

    found = decoding.beam_search(listed, list(h), [1, 1], END, 4, 3)
    for ours, expected in zip(found, decoding.beam_search(listed, tuple(h), [1, 1], END, 4, 3), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("search", ["greedy", "sample", "beam_search"])
def test_logits_of_a_wrong_shape_and_an_end_that_is_no_token(search):
    search = getattr(decoding, search)
    for shape in [(1, V), (V,), (1, 2, V), (2, 0)]:
        with pytest.raises(ValueError, match=r": logits has shape \(.*\), expected \(\d+, V\)"):
            search(lambda s, t, shape=shape: (np.zeros(shape), s), None, [1, 1], END, 3)
    with pytest.raises(ValueError, match=f": end is {V}, but there are {V} tokens"):
        search(lambda s, t: (np.zeros((len(t), V)), s), None, [1, 1], V, 3)


def test_refusals(rng):
    step, state, _ = history_step(rng)
    with pytest.raises(ValueError, match=r"choose: logits has shape \(0,\), expected \(\.\.\., V\)"):
        decoding.choose([])
    with pytest.raises(ValueError, match="choose: logits are not finite"):
        decoding.choose([0.0, np.nan])
    with pytest.raises(ValueError, match="choose: temperature is -1, expected"):
        decoding.choose([0.0], -1)
    with pytest.raises(ValueError, match=r"greedy: start has shape \(1, 2\), expected \(N,\)"):
        decoding.greedy(step, state, [[1, 1]], END, 3)
    with pytest.raises(TypeError, match="sample: start has dtype float64, expected integers"):
        decoding.sample(step, state, [1.0], END, 3)
    with pytest.raises(ValueError, match="sample: max_steps is -1, expected"):
        decoding.sample(step, state, [1, 1], END, -1)
    with pytest.raises(ValueError, match="beam_search: width is 0, expected"):
        decoding.beam_search(step, state, [1, 1], END, 3, 0)
    with pytest.raises(ValueError, match="beam_search: length_penalty is -1, expected"):
        decoding.beam_search(step, state, [1, 1], END, 3, 2, -1)
    with pytest.raises(ValueError, match="beam_search: logits are not finite"):
        decoding.beam_search(lambda s, t: (np.full((len(t), V), np.nan), s), state, [1, 1], END, 3)
    with pytest.raises(ValueError, match="scheduled_inputs: ratio is 2, expected 0 to 1"):
        decoding.scheduled_inputs(step, state, [[1, 1]], 2)


def test_a_length_penalty_that_no_float_holds(rng):
    """Said before a step is made; the largest one that a float holds works."""

    def step(state, tokens):
        raise AssertionError("the model was asked")

    with pytest.raises(ValueError, match="beam_search: length_penalty is 1000, but max_steps 20 to that power is more"):
        decoding.beam_search(step, None, [1], END, 20, length_penalty=1000.0)
    with pytest.raises(ValueError, match="length_penalty is 1e\\+300"):
        decoding.beam_search(step, None, [1], None, 2, length_penalty=1e300)
    logits = rng.normal(size=(1, V))
    _, lengths, scores = decoding.beam_search(
        lambda s, t: (logits.repeat(len(t), 0), s), None, [1], None, 2, length_penalty=1000.0
    )
    best = 2 * (logits.max() - np.log(np.exp(logits).sum()))
    assert scores[0, 0] == pytest.approx(best / 2.0**1000, rel=1e-6)
    assert np.all(lengths == 2)


@pytest.mark.parametrize("temperature", [1e-46, 5e-324, 1e-39, np.float32(1e-40), np.float64(1e-46)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_temperatures_below_the_smallest_float32(dtype, temperature):
    logits = np.array([[0.0, 2.0, -1.0, 1.5], [3.0, -np.inf, 2.0, 1.0]], dtype)
    for seed in range(20):
        assert decoding.choose(logits, temperature, rng=seed).tolist() == [1, 0]
