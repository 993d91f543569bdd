"""N-gram models and naive Bayes against their definitions."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from pyrnn.text.ngrams import LogOdds, NaiveBayes, NGram

V = 4


def by_hand(sequences, order):
    """context, word -> chance."""
    counts = defaultdict(Counter)
    for sequence in sequences:
        for end, word in enumerate(sequence):
            for k in range(min(order, end + 1)):
                counts[tuple(sequence[end - k : end])][word] += 1

    def chance(context, word):
        shorter = chance(context[1:], word) if context else 1 / V
        seen = counts.get(context)
        if not seen:
            return shorter
        return (seen[word] + len(seen) * shorter) / (seen.total() + len(seen))

    grams = sum(len(seen) for seen in counts.values())
    return chance, grams


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_chances_are_their_definition(rng, order):
    sequences = [rng.integers(0, V, n).tolist() for n in (30, 1, 0, 12)]
    others = [rng.integers(0, V, n).tolist() for n in (20, 0, 7)]
    model = NGram([np.array(s, int) for s in sequences], order, V)
    chance, grams = by_hand(sequences, order)
    assert model.num_counts == grams
    expected = [chance(tuple(s[max(0, t - order + 1) : t]), s[t]) for s in others for t in range(len(s))]
    got = model.probabilities([np.array(s, int) for s in others])
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert model.bits([np.array(s, int) for s in others]) == pytest.approx(-np.mean(np.log2(expected)))
    assert model.perplexity(others[0]) == pytest.approx(2 ** model.bits(others[0]))


def by_hand_discounted(sequences, order, discount):
    """context, word -> chance, of Kneser and Ney: a set of neighbours for each gram."""
    counts, before = defaultdict(Counter), defaultdict(lambda: defaultdict(set))
    for sequence in sequences:
        marked = ["<s>", *sequence]
        for end in range(1, len(marked)):
            for k in range(min(order, end)):
                context, word = tuple(marked[end - k : end]), marked[end]
                counts[context][word] += 1
                before[context][word].add(tuple(marked[max(0, end - k - 1) : end - k]))

    def chance(context, word):
        shorter = chance(context[1:], word) if context else 1 / V
        if context not in counts:
            return shorter
        whole = len(context) == order - 1
        seen = counts[context] if whole else {w: len(others) for w, others in before[context].items()}
        given = max(seen.get(word, 0) - discount, 0) + discount * len(seen) * shorter
        return given / sum(seen.values())

    return chance


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("discount", [0.7, 1])
def test_discounted_chances_are_their_definition(rng, order, discount):
    sequences = [rng.integers(0, V - 1, n).tolist() for n in (30, 1, 0, 12, 9)]
    others = [rng.integers(0, V, n).tolist() for n in (20, 0, 7)]
    model = NGram([np.array(s, int) for s in sequences], order, V, discount=discount)
    chance = by_hand_discounted(sequences, order, discount)
    expected = [chance(tuple(s[max(0, t - order + 1) : t]), s[t]) for s in others for t in range(len(s))]
    np.testing.assert_allclose(model.probabilities([np.array(s, int) for s in others]), expected, rtol=1e-12)
    for context in ([], [0], [1, 2], [V - 1], [0, V - 1, 1]):
        assert model.distribution(context).sum() == pytest.approx(1)
    assert model.num_counts == NGram([np.array(s, int) for s in sequences], order, V).num_counts


@pytest.mark.parametrize("order", [1, 2, 4])
def test_distribution_is_the_chances_of_all_tokens(rng, order):
    tokens = rng.integers(0, V - 1, 50)  # the last token never comes
    model = NGram(tokens, order, V)
    for context in [[], [0], [1, 2, 0, 1, 1], [V - 1], [0, V - 1, 1]]:
        distribution = model.distribution(context)
        assert distribution.sum() == pytest.approx(1)
        assert distribution.min() > 0
        each = [model.probabilities([*context, word])[-1] for word in range(V)]
        np.testing.assert_allclose(distribution, each, rtol=1e-12)


def test_what_was_never_learned_is_uniform():
    model = NGram([], 3, V)
    assert model.distribution([1, 2]).tolist() == [1 / V] * V
    assert model.bits([0, 1]) == 2
    assert model.bits([]) == 0
    assert model.num_counts == 0


def test_memory_is_that_of_the_counts(rng):
    small, large = (NGram(rng.integers(0, 50, n), 3, 50) for n in (100, 10_000))
    assert small.num_counts < large.num_counts
    assert small.num_counts * 12 <= small.nbytes < small.num_counts * 30  # 12 a gram, 8 a context


def test_samples_follow_the_counts():
    model = NGram([0, 1, 2] * 20, 3, V)
    assert model.sample(6, [0, 1], temperature=0).tolist() == [2, 0, 1, 2, 0, 1]
    assert model.sample(6, [0, 1], temperature=0, end=0).tolist() == [2, 0]
    # 3 to 1 becomes 9 to 1 and, in the end, 1 to 1
    assert NGram([0, 0, 0, 1] * 20, 1, 2).sample(2000, temperature=0.5, rng=0).mean() == pytest.approx(0.1, abs=0.03)
    assert NGram([0, 0, 0, 1] * 20, 1, 2).sample(2000, temperature=1e3, rng=0).mean() == pytest.approx(0.5, abs=0.05)
    drawn = model.sample(3000, rng=0)
    assert drawn.tolist() == model.sample(3000, rng=0).tolist()
    expected = model.distribution([0, 1])
    after = drawn[2:][(drawn[:-2] == 0) & (drawn[1:-1] == 1)]
    np.testing.assert_allclose(np.bincount(after, minlength=V) / len(after), expected, atol=0.03)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 4], 2, V), ValueError, "NGram: ids holds 4, expected 0 to 3"),
        (([0.5], 2, V), TypeError, "NGram: ids has dtype float64"),
        (([[0, 1], [[2]]], 2, V), ValueError, r"NGram: ids has shape \(1, 1\), expected \(T,\)"),
        (([0], 0, V), ValueError, "NGram: order is 0"),
        (([0], 1, 0), ValueError, "NGram: size is 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        NGram(*arguments)
    for discount in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="NGram: discount is"):
            NGram([0], 1, V, discount=discount)
    with pytest.raises(ValueError, match=r"NGram\.sample: temperature"):
        NGram([0], 1, V).sample(3, temperature=-1)


def test_naive_bayes_is_its_definition():
    sequences, classes = ["abab", "ba", "c"], [1, 1, 0]
    logits = NaiveBayes(sequences, classes, 2)(["ab", "cz", ""])
    # grams: a, b, c, ab, ba and one never seen; class 1 has a, b and ba twice and ab once, class 0 has c once
    seen = {1: {"a": 3, "b": 3, "ba": 3, "ab": 2, "c": 1}, 0: {"c": 2, "a": 1, "b": 1, "ab": 1, "ba": 1}}
    for c, prior, total in [(0, 1 / 3, 7), (1, 2 / 3, 13)]:
        chances = [np.prod([seen[c][gram] / total for gram in grams]) for grams in (["a", "b", "ab"], ["c"], [])]
        np.testing.assert_allclose(logits[:, c], np.log(prior * np.array(chances)))
    assert NaiveBayes([[3, 1], [2], [1]], [0, 1, 2], 1)([[2, 9], [1], [3]]).argmax(axis=1).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("classes", "order", "error", "message"),
    [
        ([0, 1], 0, ValueError, "NaiveBayes: order is 0"),
        ([0], 1, ValueError, r"NaiveBayes: classes has shape \(1,\), expected \(2,\)"),
        ([0, 2], 1, ValueError, "NaiveBayes: classes must hold 0, 1"),
        ([0, -1], 1, ValueError, "NaiveBayes: classes must hold 0, 1"),
        ([0.5, 1], 1, TypeError, "NaiveBayes: classes has dtype float64"),
    ],
)
def test_wrong_classes_are_named(classes, order, error, message):
    with pytest.raises(error, match=message):
        NaiveBayes(["a", "b"], classes, order)


def test_log_odds_are_those_of_two_models(rng):
    sequences = [rng.integers(0, V, n) for n in (30, 12)]
    inside = [np.isin(np.arange(n), [0, 1, 5, 6, 7, 11]) for n in (30, 12)]
    odds = LogOdds(sequences, [row.tolist() for row in inside], 2, V)
    stretches = [s[a:b] for s in sequences for a, b in [(0, 2), (5, 8), (11, 12)]]
    others = [s[a:b] for s in sequences for a, b in [(2, 5), (8, 11), (12, 30)]]
    models = NGram(stretches, 2, V), NGram(others, 2, V)
    tokens = rng.integers(0, V, 20)
    expected = np.log(models[0].probabilities(tokens) / models[1].probabilities(tokens))
    np.testing.assert_allclose(odds(tokens), expected, atol=1e-12)
    padded = np.pad(expected, 2)
    np.testing.assert_allclose(odds(tokens, 5), [padded[t : t + 5].mean() for t in range(20)], atol=1e-12)
    assert odds([], 5).shape == (0,)
    assert odds([1, 2], 5).shape == (2,)
    assert not LogOdds([], [], 2, V)([0, 1]).any()
    with pytest.raises(ValueError, match="LogOdds: window is 4, expected an odd number"):
        odds(tokens, 4)
    with pytest.raises(ValueError, match="LogOdds: 1 sequences, but inside has 0"):
        LogOdds([[0]], [], 2, V)
    with pytest.raises(ValueError, match=r"LogOdds: inside\[0\] has shape \(1,\)"):
        LogOdds([[0, 1]], [[True]], 2, V)
    with pytest.raises(TypeError, match=r"LogOdds: inside\[0\] has dtype int64, expected booleans"):
        LogOdds([[0, 1]], [[0, 1]], 2, V)


def test_naive_bayes_counts_no_more_classes_than_there_can_be():
    with pytest.raises(ValueError, match="classes must hold 0, 1"):
        NaiveBayes([["a"], ["b"]], [0, 2**60], order=1)
