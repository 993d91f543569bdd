"""Connectionist temporal classification: the loss and its gradient, decoding, alignment."""

import itertools

import numpy as np
import pytest
from cells import DTYPES, assert_same_bits
from pyrnn.ngrams import NGram

import pyrnn
from pyrnn import decoding, kernels, reference

BACKENDS = [kernels, reference]


def collapsed(path, blank):
    """What a path says."""
    return tuple(v for t, v in enumerate(path) if v != blank and (t == 0 or v != path[t - 1]))


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def paths(logits, blank):
    """All paths of one row, their log probabilities, and what they say."""
    logs = log_softmax(logits)
    every = list(itertools.product(range(logits.shape[1]), repeat=len(logits)))
    return [(path, sum(logs[t, v] for t, v in enumerate(path)), collapsed(path, blank)) for path in every]


def enumerated(logits, target, blank):
    """Loss and gradient of one row by looking at every path."""
    fitting = [(path, p) for path, p, said in paths(logits, blank) if said == tuple(target)]
    if not fitting:
        return np.inf, np.zeros_like(logits)
    total = np.logaddexp.reduce([p for _, p in fitting])
    gradient = np.exp(log_softmax(logits))
    for path, p in fitting:
        gradient[np.arange(len(path)), path] -= np.exp(p - total)
    return -total, gradient


def draw(rng, steps, rows, classes, longest, blank=0, dtype="float64"):
    """Logits, targets of random lengths that need not fit, and all lengths."""
    logits = (3 * rng.standard_normal((steps, rows, classes))).astype(dtype)
    ids = np.delete(np.arange(classes), blank)
    targets = rng.choice(ids, (rows, longest)) if len(ids) else np.zeros((rows, longest), int)
    counts = rng.integers(0, longest + 1, rows) if len(ids) else np.zeros(rows, int)
    return logits, targets, counts, rng.integers(0, steps + 1, rows)


def fitted(targets, counts, lengths):
    """Targets cut to what their steps allow."""
    counts = np.minimum(counts, lengths)
    for row, ids in enumerate(targets):
        while counts[row] + np.sum(ids[: counts[row]][1:] == ids[: counts[row]][:-1]) > lengths[row]:
            counts[row] -= 1
    return counts


# ---- the loss


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
@pytest.mark.parametrize(("steps", "classes", "blank"), [(4, 3, 0), (5, 3, 2), (6, 2, 1), (3, 4, 1), (3, 1, 0)])
def test_by_all_alignments(backend, steps, classes, blank):
    rng = np.random.default_rng(steps)
    logits, targets, counts, lengths = draw(rng, steps, 12, classes, 4, blank)
    losses, dlogits = backend.ctc.forward(logits, targets, counts, lengths, blank)
    for n in range(12):
        loss, gradient = enumerated(logits[: lengths[n], n], targets[n, : counts[n]], blank)
        np.testing.assert_allclose(losses[n], loss, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(dlogits[: lengths[n], n] * 12, gradient, rtol=1e-12, atol=1e-12)
        assert not dlogits[lengths[n] :, n].any()


def test_gradient_of_the_reference_by_finite_differences(rng):
    logits, targets, counts, lengths = draw(rng, 6, 3, 4, 3)
    counts = fitted(targets, counts, lengths)
    _, dlogits = reference.ctc.forward(logits, targets, counts, lengths)
    for at in np.ndindex(logits.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = logits.copy()
            moved[at] += step
            ends.append(reference.ctc.forward(moved, targets, counts, lengths)[0].mean())
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(dlogits[at], abs=1e-8)


@pytest.mark.parametrize("blank", [0, 5])
@pytest.mark.parametrize(("steps", "rows", "longest"), [(30, 7, 12), (200, 3, 60), (3, 5, 4)])
def test_values_of_torch(steps, rows, longest, blank):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(steps)
    logits, targets, counts, lengths = draw(rng, steps, rows, 9, longest, blank)
    given = torch.from_numpy(logits).requires_grad_()
    theirs = torch.nn.functional.ctc_loss(
        given.log_softmax(2), torch.from_numpy(targets), torch.from_numpy(lengths), torch.from_numpy(counts), blank,
        reduction="none", zero_infinity=True,
    )  # fmt: skip
    theirs = torch.where(torch.from_numpy(lengths) == 0, 0, theirs).mean()
    theirs.backward()
    loss, dlogits = pyrnn.ctc(
        logits, targets, lengths=lengths, target_lengths=counts, blank=blank, infeasible="zero"
    )  # fmt: skip
    assert loss == pytest.approx(theirs.item(), rel=1e-9)
    np.testing.assert_allclose(dlogits, given.grad, rtol=0, atol=1e-9)


def test_the_loss_is_the_mean_of_the_rows(rng):
    logits, targets, _, _ = draw(rng, 8, 3, 5, 2)
    losses, _ = reference.ctc.forward(logits, targets, np.array([2, 1, 0]), np.array([8, 5, 2]))
    loss, dlogits = pyrnn.ctc(logits, targets, lengths=[8, 5, 2], target_lengths=[2, 1, 0])
    assert isinstance(loss, float)
    assert loss == pytest.approx(losses.mean(), rel=1e-12)
    ragged = [targets[0], targets[1, :1].tolist(), []]
    for given in (ragged, tuple(ragged)):
        again, gradient = pyrnn.ctc(logits, given, lengths=[8, 5, 2])
        assert again == loss
        assert_same_bits([gradient], [dlogits])
    again, gradient = pyrnn.ctc(logits.swapaxes(0, 1), ragged, lengths=[8, 5, 2], batch_first=True)
    assert again == loss
    assert gradient.flags.c_contiguous
    assert_same_bits([gradient], [np.ascontiguousarray(dlogits.swapaxes(0, 1))])


@pytest.mark.parametrize("targets", [[1, 2, 2], [[1, 2, 2]], np.array([1, 2, 2]), np.array([[1, 2, 2]])])
def test_unbatched(rng, targets):
    logits = rng.standard_normal((9, 4)).astype("f4")
    loss, dlogits = pyrnn.ctc(logits, targets)
    expected, gradient = pyrnn.ctc(logits[:, None], [[1, 2, 2]])
    assert loss == expected
    assert_same_bits([dlogits], [gradient[:, 0]])
    loss, dlogits = pyrnn.ctc(logits, [1, 2, 3], lengths=5, target_lengths=2)
    expected, gradient = pyrnn.ctc(logits[:5], [1, 2])
    assert loss == expected
    assert_same_bits([dlogits[:5]], [gradient])
    assert not dlogits[5:].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_any_batch(dtype, rng):
    """Before the division by the number of rows; with any padding, on any number of threads, in any order."""
    logits, targets, counts, lengths = draw(rng, 60, 17, 23, 20, dtype=dtype)
    lengths[:2] = 60, 0
    counts = fitted(targets, counts, lengths)
    losses, dlogits = kernels.ctc.forward(logits, targets, counts, lengths)
    for n in range(17):
        own, end = targets[n : n + 1, : counts[n]], lengths[n]
        loss, gradient = kernels.ctc.forward(logits[:end, n : n + 1].copy(), own.copy(), counts[n : n + 1])
        assert loss[0] == losses[n]
        assert_same_bits([gradient[:, 0] / np.asarray(17, dtype)], [dlogits[:end, n]])
    with pyrnn.threads(1):
        assert_same_bits(kernels.ctc.forward(logits, targets, counts, lengths), [losses, dlogits])
    ragged = [ids[:count] for ids, count in zip(targets, counts, strict=True)]
    by_rows = pyrnn.ctc(np.ascontiguousarray(logits.swapaxes(0, 1)), ragged, lengths=lengths, batch_first=True)
    assert_same_bits([by_rows[1].swapaxes(0, 1)], [dlogits])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
def test_padding_is_never_read(backend, dtype, rng):
    logits, targets, counts, lengths = draw(rng, 12, 6, 5, 4, dtype=dtype)
    counts = fitted(targets, counts, lengths)
    expected = backend.ctc.forward(logits, targets, counts, lengths)
    padded, ids = logits.copy(), targets.copy()
    for n in range(6):
        padded[lengths[n] :, n] = np.nan
        ids[n, counts[n] :] = -(10**12)
    assert_same_bits(backend.ctc.forward(padded, ids, counts, lengths), expected)
    loss, dlogits = pyrnn.ctc(padded, ids, lengths=lengths, target_lengths=counts)
    assert np.isfinite(loss)
    assert_same_bits(
        [dlogits], [backend.ctc.forward(padded, ids, counts, lengths)[1]] if backend is kernels else [dlogits]
    )


def test_edges():
    for shape, targets in [((5, 0, 3), []), ((0, 0, 3), []), ((5, 0, 3), np.zeros((0, 4), int))]:
        loss, dlogits = pyrnn.ctc(np.zeros(shape, "f4"), targets)
        assert (loss, dlogits.shape, dlogits.dtype) == (0.0, shape, np.float32)
    loss, dlogits = pyrnn.ctc(np.zeros((0, 2, 3)), [[], []])
    assert (loss, str(loss), dlogits.shape) == (0.0, "0.0", (0, 2, 3))
    loss, _ = pyrnn.ctc(np.zeros((4, 1, 2)), [[]])  # blanks alone
    assert loss == pytest.approx(4 * np.log(2))
    loss, dlogits = pyrnn.ctc(np.zeros((4, 1, 1)), [[]])
    assert loss == 0
    assert not dlogits.any()
    for dtype in ("f2", "f4"):
        assert pyrnn.ctc(np.zeros((2, 2), dtype), [1])[1].dtype == np.float32


def test_what_does_not_fit_is_zero_or_an_error(rng):
    logits = rng.standard_normal((3, 3, 4))
    targets = [[1, 2], [1, 1, 2], [3]]
    with pytest.raises(ValueError, match=r"^ctc: row 1 has 3 steps, but its target needs 4, one for each id"):
        pyrnn.ctc(logits, targets)
    loss, dlogits = pyrnn.ctc(logits, targets, infeasible="zero")
    fitting, gradient = pyrnn.ctc(logits[:, [0, 2]], [[1, 2], [3]])
    assert loss == pytest.approx(fitting * 2 / 3, rel=1e-14)
    np.testing.assert_allclose(dlogits[:, [0, 2]], gradient * 2 / 3, rtol=1e-14)
    assert not dlogits[:, 1].any()
    loss, dlogits = pyrnn.ctc(logits[:0, :1], [[1]], infeasible="zero")
    assert loss == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_never_nan(dtype):
    """10,000 rows: small and extreme logits, targets that fit barely or not at all."""
    rng = np.random.default_rng(0)
    largest = float(np.finfo(dtype).max)
    rows = 0
    for scale in (0, 1, 100, 1e4, 1e30, largest):
        for steps, classes, longest in [(1, 2, 1), (7, 3, 4), (20, 5, 10), (40, 30, 20)]:
            logits, targets, counts, lengths = draw(rng, steps, 420, classes, longest)
            logits = rng.uniform(-1, 1, logits.shape)
            if scale > 1:
                logits = np.where(rng.random(logits.shape) < 0.5, np.sign(logits), logits)
            logits = (logits * scale).astype(dtype)
            loss, dlogits = pyrnn.ctc(logits, targets, lengths=lengths, target_lengths=counts, infeasible="zero")
            assert np.isfinite(loss)
            assert np.all(np.abs(dlogits * np.asarray(420, dtype)) <= 1 + 1e-5)
            assert np.abs(dlogits.sum(axis=2)).max() < 1e-5
            rows += 420
    assert rows >= 10_000


def test_logits_far_apart(rng):
    """The only alignment may go through what is all but impossible: no number is lost, nor does it count for more."""
    logits, targets, counts, lengths = draw(rng, 12, 40, 4, 6)
    logits *= rng.choice([1, 100, 10_000], (12, 40, 1))
    counts = fitted(targets, counts, lengths)
    losses, dlogits = kernels.ctc.forward(logits, targets, counts, lengths)
    expected, gradient = reference.ctc.forward(logits, targets, counts, lengths)
    np.testing.assert_allclose(losses, expected, rtol=1e-13)
    np.testing.assert_allclose(dlogits, gradient, rtol=0, atol=1e-10 / 40)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
def test_an_impossible_id(backend):
    """-inf is a probability of 0; a target that needs it has an infinite loss."""
    logits = np.zeros((3, 2, 3))
    logits[:, :, 2] = -np.inf
    with np.errstate(all="ignore"):
        losses, dlogits = backend.ctc.forward(logits, np.array([[1], [2]]), np.array([1, 1]))
    assert losses[0] == pytest.approx(-np.log(6 / 8))  # of the paths of two ids, all but 000 and 101
    assert np.isposinf(losses[1])
    np.testing.assert_allclose(dlogits[:, 0].sum(axis=1), 0, atol=1e-15)
    assert not dlogits[:, 0, 2].any()


def test_nan_goes_through():
    logits = np.zeros((4, 1, 3))
    for bad in (np.nan, np.inf):
        logits[2, 0, 1] = bad
        loss, dlogits = pyrnn.ctc(logits, [[1]])
        assert np.isnan(loss)
        assert np.isnan(dlogits).all()


LOGITS = np.zeros((5, 2, 4))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"logits": np.zeros(3)}, ValueError, r"logits has shape \(3,\), expected \(T, N, V\) or \(T, V\)"),
        (
            {"logits": np.zeros((5, 2, 0))},
            ValueError,
            r"logits has shape \(5, 2, 0\), expected \(T, N, V\) with at least",
        ),
        ({"logits": np.zeros((5, 2, 4), complex)}, TypeError, "logits has dtype complex128"),
        ({"targets": [[1, 2]]}, ValueError, "targets holds 1 sequences, expected 2"),
        ({"targets": np.ones((3, 1), int)}, ValueError, r"targets has shape \(3, 1\), expected \(2, S\)"),
        ({"targets": [[1.5], [2.0]]}, TypeError, r"targets\[0\] has dtype float64, expected integers"),
        ({"targets": [[[1]], [[2]]]}, ValueError, r"targets\[0\] has shape \(1, 1\), expected \(S,\)"),
        ({"targets": [[1], [4]]}, ValueError, "row 1 of targets holds 4, expected 0 to 3"),
        ({"targets": [[1], [-1]]}, ValueError, "row 1 of targets holds -1, expected 0 to 3"),
        ({"targets": [[1, 0], [2]]}, ValueError, "row 0 of targets holds 0, which is the blank"),
        ({"targets": [[1, 2], [2]], "blank": 2}, ValueError, "row 0 of targets holds 2, which is the blank"),
        ({"blank": 4}, ValueError, "blank is 4, expected 0 to 3"),
        ({"blank": None}, TypeError, "blank is None, expected an integer"),
        ({"lengths": [6, 1]}, ValueError, "lengths holds 6, expected 0 to 5"),
        ({"lengths": [5.0, 1.0]}, TypeError, "lengths has dtype float64"),
        ({"lengths": 3}, ValueError, r"lengths has shape \(\), expected \(2,\)"),
        (
            {"targets": np.ones((2, 1), int), "target_lengths": [2, 1]},
            ValueError,
            "target_lengths holds 2, expected 0 to 1",
        ),
        (
            {"targets": np.ones((2, 1), int), "target_lengths": 1},
            ValueError,
            r"target_lengths has shape \(\), expected",
        ),
        ({"lengths": [0, 5]}, ValueError, "row 0 has 0 steps, but its target needs 1"),
    ],
)
@pytest.mark.parametrize("name", ["ctc", "ctc_align"])
def test_wrong_arguments(name, changed, error, message):
    function = pyrnn.ctc if name == "ctc" else decoding.ctc_align
    given = {"logits": LOGITS, "targets": [[1], [2, 3]]} | changed
    with pytest.raises(error, match=f"^{name}: {message}"):
        function(**given)
    if "lengths" not in changed and name == "ctc":  # only what does not fit can count 0
        with pytest.raises(error):
            function(**given, infeasible="zero")


def test_wrong_options():
    with pytest.raises(ValueError, match=r"^ctc: infeasible is 'skip', expected one of error, zero"):
        pyrnn.ctc(LOGITS, [[1], [2]], infeasible="skip")
    with pytest.raises(TypeError, match=r"^ctc: batch_first is 1, expected True or False"):
        pyrnn.ctc(LOGITS, [[1], [2]], batch_first=1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"logits": LOGITS[0]}, ValueError, r"logits has shape \(2, 4\), expected \(T, N, V\)"),
        ({"logits": LOGITS.astype(int)}, TypeError, "logits has dtype int64, expected dtype float32 or float64"),
        ({"targets": np.ones((3, 2), int)}, ValueError, r"targets has shape \(3, 2\), expected \(2, S\)"),
        ({"targets": np.ones((2, 2))}, TypeError, "targets has dtype float64, expected dtype int64"),
        ({"targets": np.full((2, 2), 4)}, ValueError, "row 0 of targets holds 4, expected 0 to 3"),
        ({"targets": np.full((2, 2), -1)}, ValueError, "row 0 of targets holds -1, expected 0 to 3"),
        ({"targets": np.zeros((2, 2), int)}, ValueError, "row 0 of targets holds 0, which is the blank"),
        ({"target_lengths": np.array([1, 3])}, ValueError, r"target_lengths\[1\] is 3, expected 0 to 2"),
        ({"target_lengths": np.array([1, -1])}, ValueError, r"target_lengths\[1\] is -1, expected 0 to 2"),
        ({"target_lengths": np.array([1])}, ValueError, r"target_lengths has shape \(1,\), expected \(2,\)"),
        ({"lengths": np.array([1, 6])}, ValueError, r"lengths\[1\] is 6, expected 0 to 5"),
        ({"blank": -1}, ValueError, "blank is -1, expected 0 to 3"),
    ],
)
def test_the_kernel_refuses_what_does_not_fit(changed, error, message):
    given = {"logits": LOGITS, "targets": np.ones((2, 2), int), "target_lengths": np.array([1, 1])} | changed
    with pytest.raises(error, match=rf"^ctc\.forward: {message}"):
        kernels.ctc.forward(**given)


# ---- decoding


def test_greedy(rng):
    logits = rng.standard_normal((9, 4, 3))
    lengths = [9, 4, 0, 1]
    for blank in range(3):
        found = decoding.ctc_greedy(logits, lengths=lengths, blank=blank)
        assert [ids.dtype for ids in found] == [np.int64] * 4
        expected = [collapsed(logits[:end, n].argmax(axis=1), blank) for n, end in enumerate(lengths)]
        assert [tuple(ids) for ids in found] == expected
    (alone,) = decoding.ctc_greedy(logits[:, 1], lengths=4, blank=1)
    np.testing.assert_array_equal(alone, decoding.ctc_greedy(logits, lengths=lengths, blank=1)[1])
    assert decoding.ctc_greedy(np.zeros((5, 0, 3))) == []


def ranked(logits, blank, score=lambda ids: 0.0):
    """Everything that one row can say, with its score, best first."""
    totals = {}
    for _, p, said in paths(logits, blank):
        totals[said] = np.logaddexp(totals.get(said, -np.inf), p)
    scores = {ids: p + score(ids) for ids, p in totals.items()}
    return sorted(scores.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_is_exhaustive_search(rng, blank):
    logits, lengths = 2 * rng.standard_normal((5, 3, 3)), [5, 3, 0]
    found = decoding.ctc_beam_search(logits, beam_width=1000, lengths=lengths, blank=blank)
    for n, end in enumerate(lengths):
        expected = ranked(logits[:end, n], blank)
        assert [tuple(ids) for ids, _ in found[n]] == [ids for ids, _ in expected]
        np.testing.assert_allclose([score for _, score in found[n]], [score for _, score in expected], rtol=1e-12)
    assert np.logaddexp.reduce([score for _, score in found[0]]) == pytest.approx(0, abs=1e-12)
    for ids, score in found[0][:5]:
        assert score == pytest.approx(-pyrnn.ctc(logits[:, 0], ids, blank=blank)[0], rel=1e-12)


def test_a_beam_with_a_language_model(rng):
    model = NGram([[1, 2, 1, 2, 2], [1, 1]], order=2, size=3)
    logits = 2 * rng.standard_normal((5, 3))

    def score(ids):
        return 0.7 * sum(np.log(model.distribution(ids[:k])[v]) for k, v in enumerate(ids)) + 0.3 * len(ids)

    (found,) = decoding.ctc_beam_search(logits, beam_width=1000, lm=model, lm_weight=0.7, token_bonus=0.3)
    expected = ranked(logits, 0, score)
    assert [tuple(ids) for ids, _ in found] == [ids for ids, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-12)
    (again,) = decoding.ctc_beam_search(
        logits, beam_width=1000, lm=lambda ids: np.log(model.distribution(ids)).tolist(), lm_weight=0.7, token_bonus=0.3
    )
    assert [s for _, s in again] == [s for _, s in found]
    banned = np.log([1.0, 1.0, 1e-300]) - [0, 0, np.inf]
    (found,) = decoding.ctc_beam_search(logits, lm=lambda ids: banned, lm_weight=1.0)
    assert not any(2 in ids for ids, _ in found)


def test_a_narrow_beam(rng):
    """A beam keeps the likeliest beginnings of each step, and no text twice; by hand."""
    logits = 2 * rng.standard_normal((12, 4, 5))
    for width in (1, 2, 5):
        found = decoding.ctc_beam_search(logits, beam_width=width, blank=1)
        for n in range(4):
            kept = {(): (0.0, -np.inf)}
            for step in log_softmax(logits[:, n]):
                ways = {}

                def add(ids, which, p, ways=ways):
                    ways.setdefault(ids, [-np.inf, -np.inf])
                    ways[ids][which] = np.logaddexp(ways[ids][which], p)

                for ids, (blank, last) in kept.items():
                    add(ids, 0, np.logaddexp(blank, last) + step[1])
                    for v in (0, 2, 3, 4):
                        if ids and ids[-1] == v:
                            add(ids, 1, last + step[v])
                            add((*ids, v), 1, blank + step[v])
                        else:
                            add((*ids, v), 1, np.logaddexp(blank, last) + step[v])
                best = sorted(ways, key=lambda ids, ways=ways: -np.logaddexp(*ways[ids]))[:width]
                kept = {ids: tuple(ways[ids]) for ids in best}
            assert [tuple(ids) for ids, _ in found[n]] == list(kept)
            np.testing.assert_allclose([s for _, s in found[n]], [np.logaddexp(*p) for p in kept.values()], rtol=1e-12)


def test_a_beam_of_which_nothing_is_left():
    logits = [[-np.inf, 0.0]] * 2  # never the blank, and the language model allows no id
    assert decoding.ctc_beam_search(logits, lm=lambda ids: [-np.inf] * 2) == [[]]


@pytest.mark.parametrize("decode", [decoding.ctc_greedy, decoding.ctc_beam_search, decoding.ctc_align])
def test_logits_without_a_likeliest_id(decode):
    """An error that names row and step; not of what is padding, nor of an id that is impossible."""
    targets = ([[1], [1]],) if decode is decoding.ctc_align else ()
    for bad in (np.nan, np.inf, -np.inf):
        message = "is all -inf" if bad == -np.inf else "holds NaN or infinity"
        for dtype in DTYPES:
            logits = np.zeros((3, 2, 4), dtype)
            logits[2, 1, slice(None) if bad == -np.inf else 3] = bad
            with pytest.raises(ValueError, match=rf"^{decode.__name__}: row 1 of logits {message} at step 2$"):
                decode(logits, *targets)
            decode(logits, *targets, lengths=[3, 2])
            logits[2, 1] = 0
            logits[:, :, 3] = -np.inf
            decode(logits, *targets)


def test_sequences_of_several_lengths_for_one_row():
    with pytest.raises(ValueError, match="ctc: targets holds 2 sequences, expected 1"):
        pyrnn.ctc(np.zeros((5, 3)), [[1], [1, 2]])


def test_wrong_arguments_of_a_beam():
    logits = np.zeros((3, 4))
    for options, error, message in [
        ({"beam_width": 0}, ValueError, "beam_width is 0, expected at least 1"),
        ({"lm": 3}, TypeError, "lm is 3, expected a function of the ids so far"),
        ({"lm": lambda ids: np.zeros(3)}, ValueError, r"lm has shape \(3,\), expected \(4,\)"),
        ({"lm": lambda ids: [np.nan] * 4}, ValueError, "lm gives NaN"),
        ({"lm": lambda ids: [np.inf] * 4}, ValueError, "lm gives an id a score of infinity"),
        ({"lm": lambda ids: [0, -np.inf, 0, 0], "lm_weight": -1}, ValueError, "lm gives an id a score of infinity"),
        ({"lm_weight": "1"}, TypeError, "lm_weight is '1', expected a number"),
        ({"token_bonus": np.nan}, ValueError, "token_bonus is nan"),
    ]:
        with pytest.raises(error, match=f"^ctc_beam_search: {message}"):
            decoding.ctc_beam_search(logits, **options)


@pytest.mark.parametrize("blank", [0, 2])
def test_alignment(rng, blank):
    logits, targets, counts, lengths = draw(rng, 6, 20, 3, 4, blank)
    counts = fitted(targets, counts, lengths)
    aligned = decoding.ctc_align(logits, targets, lengths=lengths, target_lengths=counts, blank=blank)
    assert (aligned.shape, aligned.dtype) == ((6, 20), np.int64)
    for n, end in enumerate(lengths):
        fitting = [item for item in paths(logits[:end, n], blank) if item[2] == tuple(targets[n, : counts[n]])]
        assert tuple(aligned[:end, n]) == max(fitting, key=lambda item: item[1])[0]
        assert np.all(aligned[end:, n] == blank)
        alone = decoding.ctc_align(logits[:, n], targets[n, : counts[n]], lengths=end, blank=blank)
        np.testing.assert_array_equal(alone, aligned[:, n])
    padded = np.where(np.arange(6)[:, None, None] < lengths[:, None], logits, np.nan)
    again = decoding.ctc_align(padded, targets, lengths=lengths, target_lengths=counts, blank=blank)
    np.testing.assert_array_equal(again, aligned)


def test_alignment_of_the_likeliest_path():
    """Spikes where the ids are."""
    path = [0, 3, 3, 0, 1, 0, 1, 1]
    logits = 9.0 * np.eye(4)[path]
    np.testing.assert_array_equal(decoding.ctc_align(logits, [3, 1, 1]), path)
    (ids,) = decoding.ctc_greedy(logits)
    np.testing.assert_array_equal(ids, [3, 1, 1])
    assert decoding.ctc_align(np.zeros((4, 0, 3)), []).shape == (4, 0)
    assert decoding.ctc_align(np.zeros((0, 1, 3)), [[]]).shape == (0, 1)
    assert decoding.ctc_align(1e307 * logits, [3, 1, 1]).tolist() == path


def test_the_functions_are_among_the_others():
    assert {"ctc_align", "ctc_beam_search", "ctc_greedy"} <= set(dir(decoding))
    with pytest.raises(AttributeError, match=r"module 'pyrnn\.text\.decoding' has no attribute 'ctc_search'"):
        decoding.ctc_search  # noqa: B018
