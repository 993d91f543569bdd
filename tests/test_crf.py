"""Conditional random fields: the kernels by looking at every sequence of tags, and the layer."""

import copy
import itertools
import json

import numpy as np
import pytest
from cells import DTYPES, assert_same_bits

import pyrnn
from pyrnn import kernels, reference

BACKENDS = [kernels, reference]


def draw(rng, steps, rows, tags, dtype="float64", scale=2):
    """Scores, tags, transitions, start, end and lengths."""
    numbers = [
        (scale * rng.standard_normal(shape)).astype(dtype) for shape in ((steps, rows, tags), (tags, tags), tags, tags)
    ]
    lengths = rng.integers(0, steps + 1, rows)
    return numbers[0], rng.integers(0, tags, (steps, rows)), *numbers[1:], lengths


def score(row, tags, transitions, start, end):
    """Of one sequence; in plain words."""
    total = start[tags[0]] + end[tags[-1]]
    for t, tag in enumerate(tags):
        total += row[t, tag]
        if t > 0:
            total += transitions[tags[t - 1], tag]
    return total


def enumerated(row, *weights):
    """All sequences of one row, and their scores."""
    every = list(itertools.product(range(row.shape[1]), repeat=len(row)))
    return every, np.array([score(row, tags, *weights) for tags in every])


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
@pytest.mark.parametrize(("steps", "tags"), [(4, 3), (6, 2), (1, 4), (3, 5), (5, 1)])
def test_by_all_sequences(backend, steps, tags):
    rng = np.random.default_rng(steps)
    rows = 7
    scores, chosen, *weights, lengths = draw(rng, steps, rows, tags)
    losses, dscores, *dweights = backend.crf.forward(scores, chosen, *weights, lengths)
    marginals, totals = backend.crf.marginals(scores, *weights, lengths)
    best, best_scores = backend.crf.decode(scores, *weights, lengths)
    expected = [np.zeros_like(w) for w in weights]
    for n, end in enumerate(lengths):
        assert not dscores[end:, n].any()
        assert not marginals[end:, n].any()
        assert not best[end:, n].any()
        if end == 0:
            assert losses[n] == totals[n] == best_scores[n] == 0
            continue
        every, each = enumerated(scores[:end, n], *weights)
        total = np.logaddexp.reduce(each)
        own = score(scores[:end, n], chosen[:end, n], *weights)
        p = np.exp(each - total)
        probable = np.zeros((end, tags))
        gradients = [np.zeros_like(w) for w in weights]
        for sequence, weight in [*zip(every, p, strict=True), (tuple(chosen[:end, n]), -1)]:
            if weight > 0:
                np.add.at(probable, (np.arange(end), sequence), weight)
            np.add.at(gradients[0], (sequence[:-1], sequence[1:]), weight)
            gradients[1][sequence[0]] += weight
            gradients[2][sequence[-1]] += weight
        for sum_of, gradient in zip(expected, gradients, strict=True):
            sum_of += gradient
        np.testing.assert_allclose(losses[n], total - own, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(totals[n], total, rtol=1e-12)
        np.testing.assert_allclose(marginals[:end, n], probable, rtol=1e-12, atol=1e-15)
        probable[np.arange(end), chosen[:end, n]] -= 1
        np.testing.assert_allclose(dscores[:end, n] * rows, probable, rtol=1e-12, atol=1e-12)
        assert tuple(best[:end, n]) == every[each.argmax()]
        np.testing.assert_allclose(best_scores[n], each.max(), rtol=1e-12)
    for found, gradient in zip(dweights, expected, strict=True):
        np.testing.assert_allclose(found * rows, gradient, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_reference_by_finite_differences(rng):
    scores, chosen, *weights, lengths = draw(rng, 5, 3, 4)
    _, *gradients = reference.crf.forward(scores, chosen, *weights, lengths)
    numbers = [scores, *weights]
    for array, gradient in zip(numbers, gradients, strict=True):
        for at in np.ndindex(array.shape):
            ends = []
            for step in (1e-6, -1e-6):
                kept = array[at]
                array[at] += step
                ends.append(reference.crf.forward(scores, chosen, *weights, lengths)[0].mean())
                array[at] = kept
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient[at], abs=1e-8)


def test_numbers_far_apart(rng):
    """Scores and transitions that differ by thousands: what a product of powers loses is added up term by term."""
    for scale, kinds in [(300, "both"), (3000, "both"), (2000, "transitions")]:
        scores, chosen, *weights, lengths = draw(rng, 9, 30, 6)
        weights[0] *= scale
        if kinds == "both":
            scores *= scale
        weights[0][rng.random((6, 6)) < 0.3] = -np.inf
        weights[0][:, 0] = -1.0  # some way is left
        with np.errstate(all="ignore"):
            expected, totals = reference.crf.marginals(scores, *weights, lengths)
            losses, *gradients = reference.crf.forward(scores, chosen, *weights, lengths)
        found, found_totals = kernels.crf.marginals(scores, *weights, lengths)
        np.testing.assert_allclose(found_totals, totals, rtol=1e-12)
        bound = 1e-15 * np.abs(totals).max() * 8  # of the reference, whose logarithms are as large
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
        found_losses, *found_gradients = kernels.crf.forward(scores, chosen, *weights, lengths)
        np.testing.assert_allclose(found_losses, losses, rtol=1e-12)
        for one, other in zip(found_gradients, gradients, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=bound * 9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_never_nan(dtype):
    rng = np.random.default_rng(0)
    for scale in (0, 1, 1e4, 1e30, float(np.finfo(dtype).max)):
        for steps, tags in [(1, 1), (6, 3), (20, 9)]:
            scores, chosen, *weights, lengths = draw(rng, steps, 300, tags, dtype, 0)
            for array in (scores, *weights):
                array[:] = rng.choice([-1, -0.3, 0, 1], array.shape) * scale
            losses, *gradients = kernels.crf.forward(scores, chosen, *weights, lengths)
            assert np.isfinite(losses).all()
            assert all(np.isfinite(gradient).all() for gradient in gradients)
            assert np.abs(gradients[0].sum(axis=2)).max() < 1e-5
            marginals, totals = kernels.crf.marginals(scores, *weights, lengths)
            _, best = kernels.crf.decode(scores, *weights, lengths)
            assert np.isfinite(totals).all()  # the largest double where they are larger
            assert np.isfinite(best).all()
            valid = np.arange(steps)[:, None] < lengths
            np.testing.assert_allclose(marginals.sum(axis=2), valid, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_any_batch(dtype, rng):
    scores, chosen, *weights, lengths = draw(rng, 30, 19, 21, dtype)
    lengths[:2] = 30, 0
    losses, dscores, *dweights = kernels.crf.forward(scores, chosen, *weights, lengths)
    marginals, totals = kernels.crf.marginals(scores, *weights, lengths)
    best, _ = kernels.crf.decode(scores, *weights, lengths)
    for n, end in enumerate(lengths):
        row, own = np.ascontiguousarray(scores[:end, n : n + 1]), np.ascontiguousarray(chosen[:end, n : n + 1])
        loss, gradient, *_ = kernels.crf.forward(row, own, *weights)
        assert loss[0] == losses[n]
        assert_same_bits([gradient[:, 0] / np.asarray(19, dtype)], [dscores[:end, n]])
        each, total = kernels.crf.marginals(row, *weights)
        assert total[0] == totals[n]
        assert_same_bits([each[:, 0]], [marginals[:end, n]])
        np.testing.assert_array_equal(kernels.crf.decode(row, *weights)[0][:, 0], best[:end, n])
    with pyrnn.threads(1):
        assert_same_bits(kernels.crf.forward(scores, chosen, *weights, lengths), [losses, dscores, *dweights])
    by_rows = np.ascontiguousarray(scores.swapaxes(0, 1)).swapaxes(0, 1)
    assert_same_bits(kernels.crf.forward(by_rows, chosen, *weights, lengths), [losses, dscores, *dweights])


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
def test_padding_is_never_read(backend, rng):
    scores, chosen, *weights, lengths = draw(rng, 8, 6, 4)
    padding = np.arange(8)[:, None] >= lengths
    other = np.where(padding[..., None], np.nan, scores), np.where(padding, -(10**12), chosen)
    for one, two in [
        (backend.crf.forward(scores, chosen, *weights, lengths), backend.crf.forward(*other, *weights, lengths)),
        (backend.crf.marginals(scores, *weights, lengths), backend.crf.marginals(other[0], *weights, lengths)),
        (backend.crf.decode(scores, *weights, lengths), backend.crf.decode(other[0], *weights, lengths)),
    ]:
        assert_same_bits(one, two)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.__name__)
def test_of_equal_sequences_the_first(backend):
    """From the end on."""
    zeros = np.zeros((4, 2, 3))
    best, scores = backend.crf.decode(zeros, np.zeros((3, 3)), np.zeros(3), np.array([0.0, 1, 1]))
    assert best[:, 0].tolist() == [0, 0, 0, 1]
    assert scores.tolist() == [1, 1]


@pytest.mark.parametrize("tags", [3, 20])  # less than a register, and not in the last one
def test_nan_goes_through(tags, rng):
    for bad in (np.nan, np.inf):
        for place in range(4):
            scores, chosen, *weights, _ = draw(rng, 5, 2, tags)
            array = [scores, *weights][place]
            array[(1,) * array.ndim] = bad
            losses, dscores, *dweights = kernels.crf.forward(scores, chosen, *weights)
            assert np.isnan(losses[1])
            assert np.isnan(dscores[:, 1]).all()
            assert all(np.isnan(d).any() for d in dweights)
            assert np.isnan(kernels.crf.marginals(scores, *weights)[1][1])
            likeliest, best = kernels.crf.decode(scores, *weights)
            assert np.isnan(best[1])
            assert not likeliest[:, 1].any()
            with np.errstate(all="ignore"):
                assert not np.isfinite(reference.crf.decode(scores, *weights)[1][1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_without_likeliest_tags(crf, bad):
    """NaN goes through where numbers come out; of tags there is none, and padding and single steps look at nothing."""
    scores = np.zeros((3, 2, 4))
    scores[1, 1, 2] = bad
    with pytest.raises(ValueError, match=r"^CRF\.decode: row 1 has scores or weights that are NaN or infinity"):
        crf.decode(scores)
    crf.decode(scores, [3, 1])
    assert np.isnan(crf.marginals(scores)[:, 1]).all()
    assert np.isfinite(crf.marginals(scores)[:, 0]).all()
    crf.params["transitions"][0, 0] = bad
    with pytest.raises(ValueError, match=r"^CRF\.decode: row 0 has scores or weights"):
        crf.decode(scores)
    crf.decode(scores, [1, 0])
    assert np.isfinite(crf.marginals(scores, [1, 0])[0, 0]).all()
    low = pyrnn.CRF(4, forbidden=[(0, 0)], dtype="float64", rng=0)
    low.params["transitions"][0, 0] = bad  # is not looked at
    low.decode(scores, [3, 1])


# ---- the layer


@pytest.fixture
def crf():
    return pyrnn.CRF(4, dtype="float64", rng=0)


def weights_of(layer):
    return [layer.params[name] for name in ("transitions", "start", "end")]


def test_what_the_layer_gives(crf, rng):
    scores, chosen, *_, lengths = draw(rng, 6, 5, 4)
    losses, dscores, *dweights = reference.crf.forward(scores, chosen, *weights_of(crf), lengths)
    loss, pullback = crf.vjp(scores, chosen, lengths)
    assert isinstance(loss, float)
    assert loss == pytest.approx(losses.mean(), rel=1e-12)
    np.testing.assert_allclose(pullback(), dscores, atol=1e-15)
    for name, expected in zip(crf.params, dweights, strict=True):
        np.testing.assert_allclose(crf.grads[name], expected, atol=1e-15)
    _, pullback = crf.vjp(scores, chosen, lengths)
    np.testing.assert_allclose(pullback(dloss=np.float32(2)), 2 * dscores, atol=1e-15)
    for name, expected in zip(crf.params, dweights, strict=True):
        np.testing.assert_allclose(crf.grads[name], 3 * expected, atol=1e-15)  # they are added up
    tags = crf.decode(scores, lengths)
    assert tags.dtype == np.int64
    np.testing.assert_array_equal(tags, reference.crf.decode(scores, *weights_of(crf), lengths)[0])
    expected = reference.crf.marginals(scores, *weights_of(crf), lengths)[0]
    np.testing.assert_allclose(crf.marginals(scores, lengths), expected, atol=1e-15)


def test_layouts(crf, rng):
    scores, chosen, *_, lengths = draw(rng, 6, 5, 4)
    rows = pyrnn.CRF(4, batch_first=True, dtype="float64", rng=0)
    loss, pullback = crf.vjp(scores, chosen, lengths)
    dscores = pullback()
    again, pullback = rows.vjp(scores.swapaxes(0, 1), chosen.swapaxes(0, 1), lengths)
    assert again == loss
    gradient = pullback()
    assert gradient.flags.c_contiguous
    assert_same_bits([gradient.swapaxes(0, 1)], [dscores])
    assert_same_bits([rows.decode(scores.swapaxes(0, 1), lengths).T], [crf.decode(scores, lengths)])
    marginals = rows.marginals(scores.swapaxes(0, 1), lengths)
    assert_same_bits([marginals.swapaxes(0, 1)], [crf.marginals(scores, lengths)])
    for layer in (crf, rows):  # unbatched
        loss, pullback = layer.vjp(scores[:, 2], chosen[:, 2], 4)
        expected, other = crf.vjp(scores[:, 2:3], chosen[:, 2:3], [4])
        assert loss == expected
        assert_same_bits([pullback()], [other()[:, 0]])
        assert_same_bits([layer.decode(scores[:, 2], 4)], [crf.decode(scores[:, 2:3], [4])[:, 0]])
        assert layer.marginals(scores[:, 2]).shape == (6, 4)


def test_edges(crf):
    for shape in ((5, 0, 4), (0, 3, 4), (0, 0, 4)):
        loss, pullback = crf.vjp(np.zeros(shape), np.zeros(shape[:2], int))
        assert loss == 0
        assert pullback().shape == shape
        assert crf.decode(np.zeros(shape)).shape == shape[:2]
        assert crf.marginals(np.zeros(shape)).shape == shape
    assert not any(grad.any() for grad in crf.grads.values())
    scores, tags = np.ones((3, 2, 4)), np.ones((3, 2), int)
    both, _ = crf.vjp(scores, tags, [3, 0])
    assert both == pytest.approx(crf.vjp(scores[:, 0], tags[:, 0])[0] / 2, rel=1e-14)


def test_the_pullback(crf, rng):
    scores, chosen, *_ = draw(rng, 4, 2, 4)
    _, pullback = crf.vjp(scores, chosen)
    with pytest.raises(ValueError, match=r"^CRF pullback: dloss has shape \(2,\), expected \(\)"):
        pullback([1.0, 2.0])
    with pytest.raises(TypeError, match=r"^CRF pullback: dloss has dtype complex128"):
        pullback(1j)
    assert not crf.grads["start"].any()
    expected = crf.vjp(scores, chosen)[1]()
    scores[:], chosen[:] = 0, 0
    crf.zero_grad()
    for array in crf.params.values():
        array[:] = 0
    assert_same_bits([pullback(1.0)], [expected])  # it owns what it needs
    with pytest.raises(RuntimeError, match=r"^CRF pullback: this pullback has been called before"):
        pullback()


def test_a_crf_learns_what_single_tags_cannot():
    """Which tag is right depends on the tag before; the scores say nothing."""
    layer = pyrnn.CRF(3, dtype="float64", rng=0)
    scores, tags = np.zeros((9, 4, 3)), (np.arange(9)[:, None] + np.arange(4)) % 3
    optimizer = pyrnn.Adam(layer, lr=0.2)
    for _ in range(150):
        layer.zero_grad()
        loss, pullback = layer.vjp(scores, tags)
        pullback()
        optimizer.step()
    assert loss < np.log(3) + 0.05  # where it begins remains unknown
    scores[0, :, 1] = 5
    np.testing.assert_array_equal(layer.decode(scores)[:, 0], (np.arange(9) + 1) % 3)


BIO = ["O", "B-to", "I-to", "B-from", "I-from"]


def test_forbidden_tags(rng):
    pairs = pyrnn.CRF.bio(BIO)
    expected = [[None, 2], [None, 4], [0, 2], [0, 4], [1, 4], [2, 4], [3, 2], [4, 2]]
    assert sorted(pairs, key=str) == sorted(expected, key=str)
    layer = pyrnn.CRF(5, forbidden=[*pairs, (1, None)], dtype="float64", rng=0)
    scores = 3 * rng.standard_normal((5, 40, 5))
    lengths = rng.integers(0, 6, 40)
    tags, marginals = layer.decode(scores, lengths), layer.marginals(scores, lengths)

    def allowed(sequence):
        names = ["start", *sequence, "end"]
        followed = {(None if a == "start" else a, None if b == "end" else b) for a, b in itertools.pairwise(names)}
        return not followed & {tuple(pair) for pair in [*pairs, (1, None)]}

    for n in range(40):
        end = lengths[n]
        if end == 0:
            continue
        every, each = enumerated(scores[:end, n], *weights_of(layer))
        fine = np.array([allowed(sequence) for sequence in every])
        assert tuple(tags[:end, n]) == every[np.where(fine, each, -np.inf).argmax()]
        p = np.where(fine, np.exp(each - np.logaddexp.reduce(each[fine])), 0)
        found = np.zeros((end, 5))
        for sequence, weight in zip(every, p, strict=True):
            found[np.arange(end), sequence] += weight
        np.testing.assert_allclose(marginals[:end, n], found, atol=1e-14)
        assert not marginals[0, n, [2, 4]].any()
    loss, pullback = layer.vjp(scores, tags, lengths)
    assert np.isfinite(loss)
    pullback()
    for before, after in pairs:
        grad = layer.grads["start"][after] if before is None else layer.grads["transitions"][before, after]
        assert grad == 0
    assert layer.grads["end"][1] == 0


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([[2], [0], [0]], "row 0 of tags begins with 2, which is forbidden"),
        ([[0], [2], [0]], "row 0 of tags has 0 before 2, which is forbidden"),
        ([[0], [0], [1]], "row 0 of tags ends with 1, which is forbidden"),
    ],
)
def test_tags_that_are_forbidden(tags, message):
    layer = pyrnn.CRF(5, forbidden=[*pyrnn.CRF.bio(BIO), (1, None)], rng=0)
    with pytest.raises(ValueError, match=rf"^CRF\.vjp: {message}"):
        layer.vjp(np.zeros((3, 1, 5)), tags)
    layer.vjp(np.zeros((4, 2, 5)), [[0, 2], [0, 2], [0, 2], [2, 2]], [3, 0])  # not where it is padding


def test_where_everything_is_forbidden():
    layer = pyrnn.CRF(2, forbidden=[(0, 0), (0, 1), (1, 1)], rng=0)
    assert layer.decode(np.zeros((2, 1, 2))).tolist() == [[1], [0]]
    for function in (layer.decode, layer.marginals):
        with pytest.raises(ValueError, match="every sequence of tags is forbidden for row 1"):
            function(np.zeros((3, 2, 2)), [2, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_tags": 0}, ValueError, "num_tags is 0, expected at least 1"),
        ({"num_tags": 2.5}, TypeError, "num_tags is 2.5, expected an integer"),
        ({"forbidden": [(0, 3)]}, ValueError, r"forbidden\[0\] is 3, expected 0 to 2"),
        ({"forbidden": [(0, 1), (1.5, 0)]}, TypeError, r"forbidden\[1\] is 1.5, expected an integer"),
        ({"forbidden": [(None, None)]}, ValueError, r"forbidden\[0\] is \(None, None\), expected a pair"),
        ({"forbidden": [3]}, ValueError, r"forbidden\[0\] is 3, expected a pair \(from, to\)"),
        ({"forbidden": 3}, TypeError, "forbidden is 3, expected a list of pairs"),
        ({"dtype": "float16"}, ValueError, "dtype is 'float16'"),
    ],
)
def test_arguments_that_make_no_layer(arguments, error, message):
    with pytest.raises(error, match=f"^CRF: {message}"):
        pyrnn.CRF(**{"num_tags": 3, **arguments})


def test_names_that_are_none():
    for names in ("O", [1, 2], 5):
        with pytest.raises(TypeError, match=r"^CRF\.bio: tags is .*, expected a list of names"):
            pyrnn.CRF.bio(names)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"scores": np.zeros((5, 2, 3))}, ValueError, r"scores has shape \(5, 2, 3\), expected \(T, N, 4\)"),
        ({"scores": np.zeros(4)}, ValueError, r"scores has shape \(4,\), expected \(T, N, 4\) or \(T, 4\)"),
        ({"scores": np.zeros((5, 2, 4), complex)}, TypeError, "scores has dtype complex128"),
        ({"tags": np.zeros((5, 3), int)}, ValueError, r"tags has shape \(5, 3\), expected \(5, 2\)"),
        ({"tags": np.zeros((5, 2))}, TypeError, "tags has dtype float64, expected integers"),
        ({"tags": np.full((5, 2), 4)}, ValueError, "row 0 of tags holds 4, expected 0 to 3"),
        ({"lengths": [5, 6]}, ValueError, "lengths holds 6, expected 0 to 5"),
        ({"lengths": [5.0, 1.0]}, TypeError, "lengths has dtype float64"),
    ],
)
def test_wrong_arguments(crf, changed, error, message):
    given = {"scores": np.zeros((5, 2, 4)), "tags": np.zeros((5, 2), int)} | changed
    with pytest.raises(error, match=rf"^CRF\.vjp: {message}"):
        crf.vjp(**given)
    if "tags" not in changed:
        del given["tags"]
        for name in ("decode", "marginals"):
            with pytest.raises(error, match=rf"^CRF\.{name}: {message}"):
                getattr(crf, name)(**given)


KERNEL = {
    "scores": np.zeros((5, 2, 4)), "tags": np.zeros((5, 2), int), "transitions": np.zeros((4, 4)), "start": np.zeros(4),
    "end": np.zeros(4),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"scores": np.zeros((5, 4))}, ValueError, r"scores has shape \(5, 4\), expected \(T, N, V\)"),
        ({"transitions": np.zeros((4, 3))}, ValueError, r"transitions has shape \(4, 3\), expected \(4, 4\)"),
        ({"start": np.zeros(4, "f4")}, TypeError, "start has dtype float32, expected dtype float64"),
        ({"end": np.zeros(3)}, ValueError, r"end has shape \(3,\), expected \(4,\)"),
        ({"tags": np.full((5, 2), -1)}, ValueError, "row 0 of tags holds -1, expected 0 to 3"),
        ({"tags": np.full((5, 2), 4)}, ValueError, "row 0 of tags holds 4, expected 0 to 3"),
        ({"tags": np.zeros((5, 1), int)}, ValueError, r"tags has shape \(5, 1\), expected \(5, 2\)"),
        ({"lengths": np.array([5, 6])}, ValueError, r"lengths\[1\] is 6, expected 0 to 5"),
    ],
)
def test_the_kernels_refuse_what_does_not_fit(changed, error, message):
    given = KERNEL | changed
    with pytest.raises(error, match=rf"^crf\.forward: {message}"):
        kernels.crf.forward(**given)
    if "tags" not in changed:
        del given["tags"]
        for name in ("decode", "marginals"):
            with pytest.raises(error, match=rf"^crf\.{name}: {message}"):
                getattr(kernels.crf, name)(**given)


def test_copies_and_files(tmp_path, rng):
    layer = pyrnn.CRF(5, batch_first=True, forbidden=pyrnn.CRF.bio(BIO), rng=0)
    assert repr(layer).startswith("CRF(5, batch_first=True, forbidden=[[None, 2], ")
    scores = rng.standard_normal((2, 6, 5)).astype("f4")
    pyrnn.save(tmp_path / "crf.safetensors", layer)
    like = pyrnn.CRF(**json.loads(json.dumps(layer.config())), rng=1)
    like.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pyrnn.load(tmp_path / "crf.safetensors"), like):
        assert_same_bits(
            [other.decode(scores), other.marginals(scores)], [layer.decode(scores), layer.marginals(scores)]
        )
    assert all(np.abs(array).max() <= 0.1 for array in layer.params.values())
