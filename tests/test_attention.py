"""Attention: finite differences, torch, exact zeros, the same bits, the layers, and wrong arguments."""

import itertools

import numpy as np
import pytest
from cells import DTYPES, assert_same_bits, cases, python

import pyrnn
from pyrnn import kernels, reference
from pyrnn import scaled_dot_product_attention as attend
from pyrnn import scaled_dot_product_attention_vjp as attend_vjp

PROMISED = {"float32": 2e-5, "float64": 1e-9}


def draw(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def assert_near(actual, expected, dtype, what=""):
    for k, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.shape == e.shape, f"{what} {k}"
        error, largest = np.max(np.abs(a - e), initial=0), np.max(np.abs(e), initial=0)
        assert error <= PROMISED[dtype] * max(largest, 1e-3), (
            f"{what} result {k} is off by {error:.3g} of {largest:.3g}"
        )


# ---- the reference


@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_reference_gradients_by_finite_differences(softcap, masked, rng):
    query, key, value = draw(rng, "f8", 2, 4, 3, 5), draw(rng, "f8", 2, 2, 6, 5), draw(rng, "f8", 2, 2, 6, 3)
    dout = draw(rng, "f8", 2, 4, 3, 3)
    mask = None
    if masked:
        mask = rng.random((2, 4, 3, 6)) < 0.6
        mask = mask if masked == "bool" else np.where(mask, draw(rng, "f8", 2, 4, 3, 6), -np.inf)
    options = {"scale": 0.7, "softcap": softcap, "left": 3, "right": 1}
    options |= {"offsets": np.array([1, 2]), "lengths": np.array([6, 4])}
    out, stats = reference.attention.forward(query, key, value, mask, **options)
    grads = reference.attention.backward(dout, query, key, value, out, stats, mask, **options)

    def loss():
        return (reference.attention.forward(query, key, value, mask, **options)[0] * dout).sum()

    by_finite_differences(loss, (query, key, value), grads)


def by_finite_differences(function, arrays, gradients):
    """gradients of function() with respect to the arrays it reads, which are changed in place."""
    for array, gradient in zip(arrays, gradients, strict=True):
        for index in np.ndindex(array.shape):
            kept, sides = array[index], []
            for step in (1e-6, -1e-6):
                array[index] = kept + step
                sides.append(function())
            array[index] = kept
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(gradient[index], rel=1e-6, abs=1e-8)


def test_reference_gradients_of_additive_attention_by_finite_differences(rng):
    query, key, value, score = (draw(rng, "f8", *s) for s in ((2, 3, 4), (2, 5, 4), (2, 5, 2), (4,)))
    lengths, dout, dscore = np.array([5, 3]), draw(rng, "f8", 2, 3, 2), np.zeros(4)
    forward, backward = reference.additive_attention.forward, reference.additive_attention.backward
    _, weights = forward(query, key, value, score, lengths)
    gradients = backward(dout, query, key, value, score, weights, dscore, lengths)

    def loss():
        return (forward(query, key, value, score, lengths)[0] * dout).sum()

    by_finite_differences(loss, (query, key, value, score), (*gradients, dscore))


def test_reference_is_the_formula(rng):
    query, key, value = draw(rng, "f8", 1, 4, 5), draw(rng, "f8", 1, 6, 5), draw(rng, "f8", 1, 6, 3)
    scores = np.exp(query[0] @ key[0].T * 0.3)
    expected = scores / scores.sum(axis=1, keepdims=True) @ value[0]
    np.testing.assert_allclose(reference.attention.forward(query, key, value, scale=0.3)[0][0], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("s", [2, 20])
def test_a_finite_bias_hides_nothing(s, dtype, rng):
    """Keys that all have the lowest number for a bias, which others write for -inf, are seen alike."""
    query, key, value, dout = draw(rng, dtype, 4, 1, s, 8)
    mask = np.where(np.arange(s)[:, None] < s // 2, np.finfo(dtype).min, 0).astype(dtype)
    out, pullback = attend_vjp(query, key, value, mask)
    alike, pull_alike = attend_vjp(np.where(np.arange(s)[:, None] < s // 2, 0, query), key, value)
    assert_near([out], [alike], dtype)
    assert_near(pullback(dout)[2:], pull_alike(dout)[2:], dtype)


def test_the_largest_cap_is_none(rng):
    query, key, value = draw(rng, "f4", 3, 1, 5, 8)
    out = attend(query, key, value, softcap=float(np.finfo("f4").max))
    assert_near([out], [attend(query, key, value)], "float32")


# ---- torch

MASKS = {
    "none": lambda rng, n, h, s, k: None,
    "rows and keys": lambda rng, n, h, s, k: rng.random((s, k)) < 0.6,
    "keys": lambda rng, n, h, s, k: rng.random((n, 1, 1, k)) < 0.6,
    "heads": lambda rng, n, h, s, k: rng.random((h, s, 1)) < 0.7,
    "all": lambda rng, n, h, s, k: rng.random((n, h, s, k)) < 0.6,
    "added": lambda rng, n, h, s, k: rng.standard_normal((s, k)),
    "added, some -inf": lambda rng, n, h, s, k: np.where(rng.random((n, 1, s, k)) < 0.5, rng.random((s, k)), -np.inf),
}  # fmt: skip


def seen_by_bounds(s, k, causal, offset, window, lengths):
    """(N, 1, S, K) booleans."""
    at, j = np.arange(s)[:, None] + np.asarray(offset).reshape(-1, 1, 1, 1), np.arange(k)
    seen = np.ones((1, 1, s, k), bool) & (at == at)
    if causal:
        seen = seen & (j <= at)
    if window and window[0] >= 0:
        seen = seen & (j >= at - window[0])
    if window and window[1] >= 0:
        seen = seen & (j <= at + window[1])
    return seen if lengths is None else seen & (j < np.reshape(lengths, (-1, 1, 1, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
def test_torch(mask, dtype):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    choices = itertools.product(
        [False, True], [0, "int", "array"], [None, (5, -1), (-1, 3), (4, 9)], [0.0, 2.0], [False, True]
    )
    for seed, (causal, offset, window, softcap, ragged) in enumerate(choices):
        rng = np.random.default_rng(seed)
        n, groups, heads = 2, int(rng.integers(1, 4)), int(rng.integers(1, 3))
        s, k = int(rng.choice([1, 7, 50, 97])), int(rng.choice([1, 9, 64, 130, 300]))
        e, ev = (int(size) for size in rng.choice([3, 8, 16, 33, 64], 2))
        offset = {0: 0, "int": 3, "array": np.array([2, -3])}[offset]
        lengths = rng.integers(0, k + 1, n) if ragged else None
        query, dout = draw(rng, dtype, n, heads * groups, s, e), draw(rng, dtype, n, heads * groups, s, ev)
        key, value = draw(rng, dtype, n, heads, k, e), draw(rng, dtype, n, heads, k, ev)
        given = MASKS[mask](rng, n, heads * groups, s, k)
        given = given if given is None or given.dtype == bool else given.astype(dtype)
        seen = np.broadcast_to(seen_by_bounds(s, k, causal, offset, window, lengths), (n, heads * groups, s, k))
        if given is not None:
            seen = seen & (given if given.dtype == bool else given > -np.inf)
        inputs = [torch.from_numpy(a.astype("f8")).requires_grad_() for a in (query, key, value)]
        scores = inputs[0] @ inputs[1].repeat_interleave(groups, 1).transpose(-1, -2) / e**0.5
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if given is not None and given.dtype != bool:
            scores = scores + torch.from_numpy(np.maximum(given, -1e30).astype("f8"))
        shown = torch.from_numpy(np.array(seen))
        weights = torch.softmax(torch.where(shown, scores, -1e300), -1) * shown
        expected = weights @ inputs[2].repeat_interleave(groups, 1)
        grads = torch.autograd.grad(expected, inputs, torch.from_numpy(dout.astype("f8")))
        out, pullback = attend_vjp(
            query, key, value, given, causal, enable_gqa=True, q_offset=offset, window=window, softcap=softcap,
            kv_lengths=lengths,
        )  # fmt: skip
        expected = [expected.detach().numpy(), *(g.numpy() for g in grads)]
        assert_near([out, *pullback(dout)], expected, dtype, f"seed {seed}")


def test_torch_defaults(rng):
    torch = pytest.importorskip("torch")
    query, key, value = draw(rng, "f4", 2, 3, 40, 16), draw(rng, "f4", 2, 3, 40, 16), draw(rng, "f4", 2, 3, 40, 8)
    for causal in (False, True):
        theirs = torch.nn.functional.scaled_dot_product_attention(
            *map(torch.from_numpy, (query, key, value)), is_causal=causal
        )
        assert_near([attend(query, key, value, is_causal=causal)], [theirs.numpy()], "float32")


# ---- shapes


def test_ranks_and_broadcasting(rng):
    query, key, value = draw(rng, "f4", 5, 8), draw(rng, "f4", 7, 8), draw(rng, "f4", 7, 3)
    out, pullback = attend_vjp(query, key, value)
    assert out.shape == (5, 3)
    assert [g.shape for g in pullback(out)] == [(5, 8), (7, 8), (7, 3)]
    assert_same_bits([attend(query[None], key[None], value[None])], [out[None]])
    queries = draw(rng, "f4", 2, 3, 4, 5, 8)
    out, pullback = attend_vjp(queries, key, value)
    assert out.shape == (2, 3, 4, 5, 3)
    dq, dk, dv = pullback(out)
    assert (dk.shape, dv.shape) == ((7, 8), (7, 3))
    each = [attend_vjp(q, key, value) for q in queries.reshape(-1, 5, 8)]
    assert_same_bits([out], [np.stack([o for o, _ in each]).reshape(out.shape)])
    grads = [pull(o) for o, pull in each]
    np.testing.assert_allclose(dk, sum(g[1] for g in grads), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dv, sum(g[2] for g in grads), rtol=1e-4, atol=1e-5)
    assert_same_bits([dq.reshape(-1, 5, 8)], [np.stack([g[0] for g in grads])])
    assert attend(draw(rng, "f4", 1, 2, 3, 8), draw(rng, "f4", 4, 1, 7, 8), draw(rng, "f4", 7, 3)).shape == (4, 2, 3, 3)


def test_dtypes(rng):
    query, key, value = draw(rng, "f4", 5, 8), draw(rng, "f4", 7, 8), draw(rng, "f4", 7, 3)
    assert attend(query, key.astype("f8"), value).dtype == "f8"
    assert attend(query.astype("f2"), key, value).dtype == "f4"
    assert attend(np.arange(6).reshape(2, 3), np.ones((4, 3), int), np.eye(4, dtype=bool)).dtype == "f4"
    assert attend(query.tolist(), key.tolist(), value.tolist()).dtype == "f8"
    assert_same_bits(
        [attend(query, key, value, np.ones((5, 7), "f8"))], [attend(query, key, value, np.ones((5, 7), "f4"))]
    )


@pytest.mark.parametrize(("s", "k"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_do(s, k, rng):
    query, key, value = draw(rng, "f4", 2, s, 8), draw(rng, "f4", 2, k, 8), draw(rng, "f4", 2, k, 3)
    out, pullback = attend_vjp(query, key, value, is_causal=True)
    np.testing.assert_array_equal(out, np.zeros((2, s, 3)))
    for grad, array in zip(pullback(out), (query, key, value), strict=True):
        np.testing.assert_array_equal(grad, np.zeros(array.shape))
    for heads in (0, 1):
        assert attend(
            draw(rng, "f4", heads, 3, 0), draw(rng, "f4", heads, 2, 0), draw(rng, "f4", heads, 2, 0)
        ).shape == (heads, 3, 0)
    assert attend(draw(rng, "f4", 0, 2, 3, 4), draw(rng, "f4", 2, 5, 4), draw(rng, "f4", 2, 5, 6)).shape == (0, 2, 3, 6)


# ---- exact zeros


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_hidden_reaches_nothing(dtype, poison, rng):
    """Keys and values seen by some queries only, by none, and queries that see nothing and hold anything."""
    s, k = 60, 330
    query, key = draw(rng, dtype, 2, s, 16), draw(rng, dtype, 2, k, 16)
    value, dout = draw(rng, dtype, 2, k, 20), draw(rng, dtype, 2, s, 20)
    mask = rng.random((2, s, k)) < 0.7
    mask[:, 5] = mask[:, 50] = False
    bad_keys, bad_values, bad_queries = [3, 70, 300], [9, 70, 301], [5, 50]
    touched = np.zeros((2, s), bool)
    for j in (*bad_keys, *bad_values):
        mask[:, 10:, j] = False
        touched |= mask[:, :, j]
    clean, pull = attend_vjp(query, key, value, mask)
    grads = pull(dout)
    query, key, value = query.copy(), key.copy(), value.copy()
    query[:, bad_queries], key[:, bad_keys], value[:, bad_values] = poison, poison, poison
    for lay in (mask, np.where(mask, 0, -np.inf).astype(dtype)):
        out, pull = attend_vjp(query, key, value, lay)
        dquery, dkey, dvalue = pull(dout)
        np.testing.assert_array_equal(out[~touched], clean[~touched])
        np.testing.assert_array_equal(dquery[~touched], grads[0][~touched])
        for grad in (out, dquery):
            np.testing.assert_array_equal(grad[:, bad_queries], 0)
        reached = (mask & touched[..., None]).any(axis=1)  # keys that a spoilt query sees
        assert not np.isfinite(out[touched]).all()
        np.testing.assert_array_equal(dkey[~reached], grads[1][~reached])
        np.testing.assert_array_equal(dvalue[~reached], grads[2][~reached])
    # Seen by nobody: padding, beyond the causal bound, outside the window.
    query[:, bad_queries] = 1
    for options in ({"kv_lengths": 3}, {"window": (0, 0), "q_offset": 3 - s}, {"is_causal": True, "q_offset": 3 - s}):
        out, pull = attend_vjp(query, key, value, **options)
        assert np.isfinite(out).all()
        assert all(np.isfinite(grad).all() for grad in pull(dout))
        assert (out == 0).all(axis=-1).any() or "kv_lengths" in options


@pytest.mark.parametrize("s", [1, 3, 20, 200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_in_a_mask_hides_nothing(dtype, s, rng):
    """It is added to a score like any number, and only -inf hides: the row is NaN, and no other one."""
    query, key, value, dout = (
        draw(rng, dtype, s, 8),
        draw(rng, dtype, 40, 8),
        draw(rng, dtype, 40, 5),
        draw(rng, dtype, s, 5),
    )
    mask = np.where(rng.random((s, 40)) < 0.7, draw(rng, dtype, s, 40), -np.inf).astype(dtype)
    out, pullback = attend_vjp(query, key, value, mask)
    dquery = pullback(dout)[0]
    mask[s // 2, 17] = np.nan
    spoilt, pullback = attend_vjp(query, key, value, mask)
    others = np.arange(s) != s // 2
    assert np.isnan(spoilt[~others]).all()
    assert_same_bits([spoilt[others]], [out[others]])
    spoilt_dquery, _, dvalue = pullback(dout)
    assert np.isnan(spoilt_dquery[~others]).all()
    assert_same_bits([spoilt_dquery[others]], [dquery[others]])
    assert np.isnan(dvalue[17]).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("s", [1, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_hidden_reaches_nothing_of_few_queries(dtype, s, poison, rng):
    """Few queries have a way back of their own: keys and values hidden from some, from all, and beyond a bound."""
    k = 600
    query, key, value = draw(rng, dtype, s, 20), draw(rng, dtype, k, 20), draw(rng, dtype, k, 7)
    dout = draw(rng, dtype, s, 7)
    mask = rng.random((s, k)) < 0.7
    mask[0, 40], mask[1:, 40], mask[:, [3, 300, 599]] = True, False, False
    options = {"attn_mask": mask, "window": (500, -1), "q_offset": 520}  # the first query sees keys from 20 on
    out, pull = attend_vjp(query, key, value, **options)
    clean = out, *pull(dout)
    key, value = key.copy(), value.copy()
    key[[0, 3, 300]], value[[5, 300, 599]] = poison, poison
    out, pull = attend_vjp(query, key, value, **options)
    assert_same_bits([out, *pull(dout)], clean)
    value[40] = poison  # which the first query sees
    out, pull = attend_vjp(query, key, value, **options)
    grads = pull(dout)
    assert not np.isfinite(out[0]).any()
    assert not np.isfinite(grads[0][0]).any()
    assert_same_bits([out[1:], grads[0][1:]], [clean[0][1:], clean[1][1:]])


@pytest.mark.parametrize("s", [2, 700])
@pytest.mark.parametrize("dtype", DTYPES)
def test_hidden_keys_of_rows_that_are_spoilt(dtype, s, rng):
    """What spoils a row lies in another block of keys, and in queries of other blocks of rows."""
    query, key, value, dout = (draw(rng, dtype, n, 16) for n in (s, 600, 600, s))
    mask = np.ones((s, 600), bool)
    mask[:, 300] = False
    mask[0, 300] = True
    mask[:, 5] = False
    mask[[0, s // 12], 7] = False
    mask[:, 9] = mask[:, 599] = False
    clean = attend_vjp(query, key, value, mask)[1](dout)
    key[300] = np.nan  # seen by the first query
    if s > 2:
        query[s // 12] = np.nan
    results = []
    for threads in (1, 2, 4, 16):
        with pyrnn.threads(threads):
            out, pull = attend_vjp(query, key, value, mask)
            results.append([out, *pull(dout)])
    for other in results[1:]:
        for one, first in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(one, first)
    _, dquery, dkey, dvalue = results[0]
    assert not np.isfinite(dquery[0]).any()
    np.testing.assert_array_equal(dkey[[5, 9, 599]], 0)
    np.testing.assert_array_equal(dvalue[[5, 9, 599]], 0)
    if s > 2:  # seen by neither of the two, but by others
        np.testing.assert_array_equal(dvalue[7], clean[2][7])


def test_scales_beyond_what_logarithms_hold():
    """A query alone and among others, where scale * log2(e) is more than the largest float."""
    query, key, value = np.full((8, 3), 1e-38, "f4"), -np.ones((5, 3), "f4"), np.ones((5, 2), "f4")
    whole = attend(query, key, value, scale=3e38)
    assert np.isfinite(whole).all()
    assert_same_bits([attend(query[:1], key, value, scale=3e38)], [whole[:1]])


def test_one_key_alone_has_no_gradient_through_the_weights(rng):
    query, key, value = draw(rng, "f4", 5, 7), draw(rng, "f4", 9, 7), draw(rng, "f4", 9, 6)
    out, pull = attend_vjp(query, key, value, window=(0, 0))
    assert_same_bits([out], [value[:5]])
    dquery, dkey, _ = pull(draw(rng, "f4", 5, 6))
    assert not dquery.any()
    assert not dkey.any()


# ---- the same bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_alone_or_among_others(dtype, rng):
    for k, e, ev, options in [
        (70, 16, 16, {}),
        (1300, 33, 20, {"is_causal": True}),
        (2600, 8, 64, {"window": (700, 90)}),
    ]:
        s = 61
        query, key, value = draw(rng, dtype, 4, s, e), draw(rng, dtype, 2, k, e), draw(rng, dtype, 2, k, ev)
        dout = draw(rng, dtype, 4, s, ev)
        offset = k - s
        options = {"enable_gqa": True, **options}
        out, pull = attend_vjp(query, key, value, q_offset=offset, **options)
        dquery = pull(dout)[0]
        for i in (0, 1, 17, 60):
            one, pull = attend_vjp(query[:, i : i + 1], key, value, q_offset=offset + i, **options)
            assert_same_bits([one, pull(dout[:, i : i + 1])[0]], [out[:, i : i + 1], dquery[:, i : i + 1]])
        few = attend(query[2:, 3:25], key[1:], value[1:], q_offset=offset + 3, **options)
        assert_same_bits([few], [out[2:, 3:25]])


@pytest.mark.parametrize("kind", [bool, float])
@pytest.mark.parametrize("shape", [(3, 2, 20, 70), (3, 1, 20, 70), (3, 1, 1, 70), (1, 2, 20, 70), (2, 20, 70), (70,)])
def test_each_element_of_a_batch_has_its_own_mask(shape, kind, rng):
    query, key, value, dout = (draw(rng, "f4", 3, 2, n, 8) for n in (20, 70, 70, 20))
    mask = rng.random(shape) < 0.5
    if kind is float:
        mask = np.where(mask, draw(rng, "f4", *shape), np.float32(-np.inf))
    offsets, lengths = np.array([5, -3, 60]), np.array([70, 31, 4])
    bounds = {"is_causal": True, "q_offset": offsets, "kv_lengths": lengths}
    for options in ({}, bounds):
        out, pullback = attend_vjp(query, key, value, mask, **options)
        gradients = pullback(dout)
        for n in range(3):
            own = np.broadcast_to(mask, (3, 2, 20, 70))[n]
            alone = {name: option[n] if name != "is_causal" else option for name, option in options.items()}
            one, pullback = attend_vjp(query[n], key[n], value[n], own, **alone)
            assert_same_bits([one, *pullback(dout[n])], [out[n], *(g[n] for g in gradients)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_and_decoding(dtype, rng):
    s = 1100
    query, key, value = draw(rng, dtype, 2, s, 12), draw(rng, dtype, 2, s, 12), draw(rng, dtype, 2, s, 12)
    whole = attend(query, key, value, is_causal=True)
    for i in (0, 1, 15, 16, 255, 256, 700, 1023, 1024, 1099):
        step = attend(query[:, i : i + 1], key[:, : i + 1], value[:, : i + 1])
        assert_same_bits([step], [whole[:, i : i + 1]])
        padded = attend(query[:, i : i + 1], key, value, kv_lengths=i + 1)
        assert_same_bits([padded], [step])
        hidden = attend(query[:, i : i + 1], key, value, np.arange(s) <= i)
        assert_same_bits([hidden], [step])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(dtype, rng):
    for groups, h, s, k, e, causal in (
        (1, 1, 1, 5000, 32, True),
        (1, 2, 300, 300, 16, True),
        (1, 1, 200, 2100, 24, True),
        (1, 3, 7, 4000, 17, True),
        (3, 1, 40, 2100, 8, True),  # several query heads to the runs of a key head
        (1, 4, 700, 300, 16, False),  # the blocks of rows depend on the threads
        (1, 5, 200, 1100, 8, False),  # and so does who packs
    ):
        query, key, value, dout = (
            draw(rng, dtype, groups * h, s, e),
            draw(rng, dtype, h, k, e),
            draw(rng, dtype, h, k, e),
            draw(rng, dtype, groups * h, s, e),
        )
        results = []
        for n in (1, 2, 3, 5, 16):
            with pyrnn.threads(n):
                out, pull = attend_vjp(query, key, value, is_causal=causal, q_offset=k - s)
                results.append([attend(query, key, value, is_causal=causal, q_offset=k - s), out, *pull(dout)])
        for other in results[1:]:
            assert_same_bits(other, results[0])


def test_more_heads_than_are_packed_at_a_time(rng):
    """A megabyte each, of sixteen in all."""
    query, key, value = (draw(rng, "f4", 16, n, e) for n, e in ((60, 128), (2200, 128), (2200, 16)))
    out = attend(query, key, value, is_causal=True, q_offset=2140)
    for h in (0, 13, 15):
        own = (a[h : h + 1] for a in (query, key, value))
        assert_same_bits([attend(*own, is_causal=True, q_offset=2140)], [out[h : h + 1]])


def test_any_layout(rng):
    whole = draw(rng, "f4", 3, 50, 2, 3, 24)  # (N, S, q/k/v in the middle, ...)
    query, key, value = (whole[:, :, 0, i].reshape(3, 50, 2, 12).transpose(0, 2, 1, 3) for i in range(3))
    plain = attend(query.copy(), key.copy(), value.copy())
    for s in (50, 40, 3):  # keys packed before, on the way, and not at all
        few = (query[:, :, :s], key, value)
        assert_same_bits([attend(*few)], [plain[:, :, :s]])
        dout = draw(rng, "f4", 3, 2, s, 12)
        assert_same_bits(attend_vjp(*few)[1](dout), attend_vjp(*(a.copy() for a in few))[1](dout))
    assert_same_bits([attend(np.asfortranarray(query), key[:, ::1], np.asfortranarray(value))], [plain])
    backwards = attend(query[:, :, ::-1], key, value)
    assert_same_bits([backwards[:, :, ::-1]], [plain])
    mask = rng.random((50, 50)) < 0.5
    assert_same_bits([attend(query, key, value, mask.T)], [attend(query, key, value, mask.T.copy())])
    added = draw(rng, "f4", 50, 50)
    assert_same_bits([attend(query, key, value, added.T)], [attend(query, key, value, added.T.copy())])
    seen = np.arange(50)[:, None] == np.full(50, 49)  # the last key alone
    for mask in (seen, np.where(seen, np.float32(0), np.float32(-np.inf))):
        np.testing.assert_array_equal(attend(query, key, value, mask.T), np.repeat(value[:, :, -1:], 50, axis=2))


def test_the_pullback_owns_what_it_needs(rng):
    arrays = [draw(rng, "f4", 2, 40, 8) for _ in range(3)]
    mask, dout = rng.random((40, 40)) < 0.5, draw(rng, "f4", 2, 40, 8)
    expected = attend_vjp(*arrays, mask)[1](dout)
    out, pullback = attend_vjp(*arrays, mask)
    out[...] = 7
    for array in (*arrays, mask):
        array[...] = 1
    with pytest.raises(ValueError, match=r"dout has shape \(3,\), expected \(2, 40, 8\)"):
        pullback(np.ones(3))
    assert_same_bits(pullback(dout), expected)
    with pytest.raises(RuntimeError, match="has been called before"):
        pullback(dout)


# ---- layers


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dims", [{}, {"kdim": 10, "vdim": 6}])
@pytest.mark.parametrize("bias", [False, True])
def test_multihead_attention_is_torchs(bias, dims, batch_first, rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first, dtype=torch.float64, **dims)
    layer = pyrnn.MultiheadAttention(12, 3, bias, batch_first=batch_first, dtype="float64", rng=0, **dims)
    assert {n: p.shape for n, p in layer.params.items()} == {n: tuple(p.shape) for n, p in theirs.state_dict().items()}
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.5)
    layer.load_state_dict({n: p.numpy() for n, p in theirs.state_dict().items()})
    shapes = [(5, 2, 12), (7, 2, dims.get("kdim", 12)), (7, 2, dims.get("vdim", 12))]
    arrays = [draw(rng, "f8", *(shape if not batch_first else (shape[1], shape[0], shape[2]))) for shape in shapes]
    seen = rng.random((5, 7)) < 0.6
    seen[:, 0] = True
    inputs = [torch.from_numpy(a).requires_grad_() for a in arrays]
    expected, weights = theirs(*inputs, attn_mask=torch.from_numpy(~seen), average_attn_weights=False)
    out, pullback = layer.vjp(*arrays, attn_mask=seen)
    dout = draw(rng, "f8", *out.shape)
    expected.backward(torch.from_numpy(dout))
    assert_near([out, layer(*arrays, attn_mask=seen)], [expected.detach().numpy()] * 2, "float64")
    assert_near(pullback(dout), [x.grad.numpy() for x in inputs], "float64")
    for name, parameter in theirs.named_parameters():
        assert_near([layer.grads[name]], [parameter.grad.numpy()], "float64", name)
    found = layer.attention_weights(arrays[0], arrays[1], attn_mask=seen) if not dims else None
    if found is not None:
        assert_near([found], [weights.detach().numpy()], "float64")


def test_multihead_attention_defaults(rng):
    layer = pyrnn.MultiheadAttention(16, 4, num_kv_heads=2, dtype="float64", rng=0)
    assert layer.params["in_proj_weight"].shape == (32, 16)
    x = draw(rng, "f8", 6, 3, 16)
    out, pullback = layer.vjp(x, is_causal=True)
    dx, dkey, dvalue = pullback(out)
    assert dkey is dvalue is None
    full, pull = layer.vjp(x, x, x, is_causal=True)
    assert_same_bits([full], [out])
    np.testing.assert_allclose(sum(pull(full)), dx, atol=1e-12)
    key = draw(rng, "f8", 4, 3, 16)
    dquery, dkey, dvalue = layer.vjp(x, key)[1](out)
    assert (dquery.shape, dkey.shape, dvalue) == (x.shape, key.shape, None)
    assert_same_bits([layer(x[:, 1], is_causal=True)], [out[:, 1]])
    assert_same_bits(
        [pyrnn.MultiheadAttention(16, 4, rng=3).params["in_proj_weight"]],
        [pyrnn.MultiheadAttention(16, 4, rng=3).params["in_proj_weight"]],
    )


def test_gradients_go_to_what_was_given(rng):
    """That of a defaulted value to the key where there is one, of both to the query where there is none."""
    layer = pyrnn.MultiheadAttention(8, 2, dtype="float64", rng=0)
    query, key = draw(rng, "f8", 5, 3, 8), draw(rng, "f8", 7, 3, 8)
    dout = draw(rng, "f8", 5, 3, 8)
    of_query, of_key, of_value = layer.vjp(query, key, key)[1](dout)
    dquery, dkey, dvalue = layer.vjp(query, key)[1](dout)
    assert dvalue is None
    assert_near([dquery, dkey], [of_query, of_key + of_value], "float64")
    same = draw(rng, "f8", 5, 3, 8)  # as many keys as queries, which would add up too
    of_query, of_key, of_value = layer.vjp(query, same, same)[1](dout)
    assert_near(layer.vjp(query, same)[1](dout)[:2], [of_query, of_key + of_value], "float64")
    assert_near(layer.vjp(query)[1](dout)[:1], [sum(layer.vjp(query, query, query)[1](dout))], "float64")


@pytest.mark.parametrize("batch_first", [False, True])
def test_stream(batch_first, rng):
    layer = pyrnn.MultiheadAttention(16, 4, num_kv_heads=2, batch_first=batch_first, rng=0)
    x = draw(rng, "f4", 70, 3, 16)
    lay = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    for options in ({}, {"window": (9, -1), "softcap": 3.0}):
        whole = lay(layer(lay(x), is_causal=True, **options))
        stream = layer.stream(3, **options)
        steps = [stream.step(x[t]) for t in range(5)]
        rest = [lay(stream(lay(x[5:40]))), lay(stream(lay(x[40:])))]
        assert stream.length == 70
        assert_same_bits([np.concatenate([np.stack(steps), *rest])], [whole])
        stream.reset()
        assert_same_bits([stream.step(x[0])], [whole[0]])
    single = layer.stream()
    assert single.step(x[0, 0]).shape == (16,)
    assert single(x[1:4, 0]).shape == (3, 16)
    with pytest.raises(ValueError, match=r"x has shape \(3, 16\), expected \(1, 16\)"):
        single.step(x[0])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"window": 5}, ValueError, r"window is 5, expected \(left, right\)"),
        ({"window": (-2, 0)}, ValueError, r"window\[0\] is -2, expected at least -1"),
        ({"window": (0, "a")}, TypeError, r"window\[1\] is 'a', expected an integer"),
        ({"softcap": -1}, ValueError, "softcap is -1, expected 0 to"),
        ({"scale": np.nan}, ValueError, "scale is nan"),
        ({"scale": "a"}, TypeError, "scale is 'a', expected a number"),
    ],
)
def test_a_stream_refuses_when_it_is_made(options, error, match):
    with pytest.raises(error, match=rf"MultiheadAttention\.stream: {match}"):
        pyrnn.MultiheadAttention(4, 2, rng=0).stream(3, **options)


@pytest.mark.parametrize("left", [0, 9, 1500])
def test_a_stream_with_a_window_keeps_only_what_it_will_look_at(left, rng):
    layer = pyrnn.MultiheadAttention(4, 1, rng=0)
    x = draw(rng, "f4", 6000, 1, 4)
    whole = layer(x, is_causal=True, window=(left, 0))
    stream = layer.stream(window=(left, 0))
    parts, bounds = [], [0, 1, 900, 1024, 1500, *range(1501, 1540), 2600, 2601, 5500, *range(5501, 5640), 6000]
    for begin, end in itertools.pairwise(bounds):
        parts.append(stream(x[begin:end]))
        assert stream.length == end
        assert stream._cache.shape[3] <= max(left, 64) + 2 * 1024 + 2 * (end - begin)
    assert_same_bits([np.concatenate(parts)], [whole])
    assert stream._cache.shape[3] <= left + 2 * 1024
    with pytest.raises(ValueError, match="x has shape"):
        stream(x[:, :, :3])
    longer = layer(np.concatenate([x, x[:1]]), is_causal=True, window=(left, 0))
    assert_same_bits([stream.step(x[0, 0])], [longer[-1, 0]])
    stream.reset()
    assert stream.length == 0
    assert_same_bits([stream(x[:1030])], [whole[:1030]])


def test_attention_weights(rng):
    query, key = draw(rng, "f4", 3, 4, 8), draw(rng, "f4", 3, 6, 8)
    weights = pyrnn.attention_weights(query, key, is_causal=True)
    assert weights.shape == (3, 4, 6)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    assert not np.triu(weights[0], 1).any()
    value = draw(rng, "f4", 3, 6, 5)
    np.testing.assert_allclose(weights @ value, attend(query, key, value, is_causal=True), rtol=1e-4, atol=1e-6)


def test_positional_encoding():
    encode = pyrnn.PositionalEncoding(5, dtype="float64")
    y = encode(np.zeros((4, 2, 5)))
    rates = 10000.0 ** (-np.array([0, 0, 2, 2, 4]) / 5)
    angles = np.arange(4)[:, None] * rates
    np.testing.assert_allclose(y[:, 1], np.where(np.arange(5) % 2 == 0, np.sin(angles), np.cos(angles)), atol=1e-14)
    assert_same_bits([encode(np.zeros((1, 5)), offset=3)], [y[3:, 0]])
    assert_same_bits(
        [pyrnn.PositionalEncoding(5, batch_first=True, dtype="float64")(np.zeros((2, 4, 5)))], [y.swapaxes(0, 1)]
    )
    again, pullback = encode.vjp(np.zeros((4, 2, 5)))
    assert_same_bits([again], [y])
    for shape in [(0, 2, 5), (4, 0, 5), (0, 5)]:
        assert encode(np.zeros(shape)).shape == shape
    assert encode(np.zeros((2, 4, 5)).swapaxes(0, 1)).flags.c_contiguous
    with pytest.raises(ValueError, match=r"PositionalEncoding pullback: dy has shape \(4, 2\), expected \(4, 2, 5\)"):
        pullback(y[..., 0])
    assert_same_bits([pullback(2 * y)], [2 * y])
    with pytest.raises(RuntimeError, match="called before"):
        pullback(y)


def test_additive_attention(rng):
    layer = pyrnn.AdditiveAttention(4, 5, 6, dtype="float64", rng=0)
    query, key, value = draw(rng, "f8", 2, 3, 4), draw(rng, "f8", 2, 7, 5), draw(rng, "f8", 2, 7, 2)
    lengths = [7, 4]
    key[1, 4:] = value[1, 4:] = np.nan
    out, weights = layer(query, key, value, kv_lengths=lengths, need_weights=True)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert not weights[1, :, 4:].any()
    dout = draw(rng, "f8", *out.shape)
    grads = layer.vjp(query, key, value, kv_lengths=lengths)[1](dout)
    arrays = {"query": query, "key": key, "value": value, **layer.params}
    found = {**dict(zip(("query", "key", "value"), grads, strict=True)), **layer.grads}
    for name, array in arrays.items():
        for index in np.ndindex(array.shape):
            kept, sides = array[index], []
            for step in (1e-6, -1e-6):
                array[index] = kept + step
                sides.append((layer(query, key, value, kv_lengths=lengths) * dout).sum())
            array[index] = kept
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(found[name][index], rel=1e-5, abs=1e-8), name
    assert layer(query, key, kv_lengths=[0, 1]).shape == (2, 3, 5)
    assert not layer(query, key, kv_lengths=[0, 1])[0].any()
    assert layer.vjp(query, key, kv_lengths=lengths)[1](draw(rng, "f8", 2, 3, 5))[2] is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_of_additive_attention(dtype, rng):
    """A query alone or among others, a row alone or in a batch, padded or not, in any layout, on any threads."""
    for n, s, k, h, ev in ((3, 5, 9, 6, 7), (2, 37, 70, 33, 40), (5, 1, 130, 17, 16)):
        layer = pyrnn.AdditiveAttention(4, 5, h, dtype=dtype, rng=0)
        query, key, value = draw(rng, dtype, n, s, 4), draw(rng, dtype, n, k, 5), draw(rng, dtype, n, k, ev)
        dout, lengths = draw(rng, dtype, n, s, ev), rng.integers(0, k + 1, n)
        lengths[0] = k

        def results(at, *arrays, layer=layer, **options):
            layer.zero_grad()
            query, key, value = arrays
            out, pullback = layer.vjp(query, key, value, **options)
            called, weights = layer(query, key, value, **options, need_weights=True)
            assert_same_bits([called], [out])
            return [out, weights, *pullback(at)], [g.copy() for g in layer.grads.values()]

        whole, grads = results(dout, query, key, value, kv_lengths=lengths)
        out, weights, dquery, dkey, dvalue = whole
        for threads in (1, 2, 3, 7):
            with pyrnn.threads(threads):
                again, their_grads = results(dout, query, key, value, kv_lengths=lengths)
            assert_same_bits([*again, *their_grads], [*whole, *grads])
        fortran, their_grads = results(*map(np.asfortranarray, (dout, query, key, value)), kv_lengths=lengths)
        assert_same_bits([*fortran, *their_grads], [*whole, *grads])
        for row in range(n):  # alone and without its padding
            one, end = slice(row, row + 1), lengths[row]
            own, _ = results(dout[one], query[one], key[one, :end], value[one, :end])
            assert_same_bits(own, [out[one], weights[one, :, :end], dquery[one], dkey[one, :end], dvalue[one, :end]])
            assert not weights[row, :, end:].any()
            assert not dkey[row, end:].any()
            assert not dvalue[row, end:].any()
        for i in (0, s // 2, s - 1):
            one = slice(i, i + 1)
            own, _ = results(dout[:, one], query[:, one], key, value, kv_lengths=lengths)
            assert_same_bits(own[:3], [out[:, one], weights[:, one], dquery[:, one]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_of_additive_attention_is_never_read(dtype, rng):
    layer = pyrnn.AdditiveAttention(3, 5, 9, dtype=dtype, rng=0)
    query, key, dout = draw(rng, dtype, 2, 4, 3), draw(rng, dtype, 2, 20, 5), draw(rng, dtype, 2, 4, 5)
    lengths, results = [20, 11], []
    for padding in (0, 7, np.nan):
        key[1, 11:] = padding
        layer.zero_grad()
        out, pullback = layer.vjp(query, key, kv_lengths=lengths)
        results.append([layer(query, key, kv_lengths=lengths), out, *pullback(dout)[:2], *layer.grads.values()])
        results[-1] = [array.copy() for array in results[-1]]
    assert np.isfinite(results[0][-1]).all()
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_weights_of_additive_attention_that_scores_do_not_tell_apart(rng):
    """Scores of -inf hide a key as a length does, and no key that is seen gives 0 and gradient 0."""
    query, key, value = (draw(rng, "f4", 1, *s) for s in ((2, 3), (5, 3), (5, 4)))
    score = np.array([np.inf, 1, 1], "f4")
    key[0, 2:, 0], query[0, :, 0], key[0, :2, 0] = -20, 0, 20
    out, weights = kernels.additive_attention.forward(query, key[:, 2:], value[:, 2:], score)
    assert not out.any()
    assert not weights.any()
    for results in kernels.additive_attention.forward(query, key[:, :0], value[:, :0], score):
        assert not results.any()


# ---- wrong arguments

Q, KEY, V = np.zeros((2, 4, 5, 8)), np.zeros((2, 4, 7, 8)), np.zeros((2, 4, 7, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Q, KEY[..., :7], V), {}, ValueError, r"key has shape \(2, 4, 7, 7\), expected \(..., Hk, K, 8\)"),
        ((Q, KEY, V[:, :, :6]), {}, ValueError, r"value has shape \(2, 4, 6, 3\)"),
        ((Q[0, 0, 0], KEY, V), {}, ValueError, r"query has shape \(8,\)"),
        ((Q, KEY[:, :2], V[:, :2]), {}, ValueError, r"key has shape \(2, 2, 7, 8\), expected \(..., 4, K, 8\)"),
        ((Q, KEY[:, :3], V[:, :3]), {"enable_gqa": True}, ValueError, "divides the 4 of query"),
        ((Q, np.zeros((3, 4, 7, 8)), np.zeros((3, 4, 7, 3))), {}, ValueError, "axes before the heads"),
        ((Q + 1j, KEY, V), {}, TypeError, "query has dtype complex128"),
        ((Q, KEY, np.zeros(V.shape, object)), {}, TypeError, "value has dtype object"),
        ((Q, KEY, V, np.ones((5, 7), int)), {}, TypeError, "attn_mask has dtype int64, expected booleans or floats"),
        ((Q, KEY, V, np.ones((5, 6), bool)), {}, ValueError, r"attn_mask has shape \(5, 6\), .*\(2, 4, 5, 7\)"),
        ((Q, KEY, V), {"is_causal": 1}, TypeError, "is_causal is 1, expected True or False"),
        ((Q, KEY, V), {"window": (-2, 0)}, ValueError, r"window\[0\] is -2, expected at least -1"),
        ((Q, KEY, V), {"window": 3}, ValueError, "window is 3"),
        ((Q, KEY, V), {"softcap": -1.0}, ValueError, "softcap is -1"),
        ((Q, KEY, V), {"softcap": float("nan")}, ValueError, "softcap is nan"),
        ((Q, KEY, V), {"scale": "1"}, TypeError, "scale is '1', expected a number"),
        ((Q, KEY, V), {"q_offset": 1.5}, TypeError, "q_offset has dtype float64, expected integers"),
        ((Q, KEY, V), {"q_offset": [1, 2, 3]}, ValueError, r"q_offset has shape \(3,\)"),
        ((Q, KEY, V), {"kv_lengths": [1, 8]}, ValueError, "kv_lengths holds 8, expected 0 to 7"),
        ((Q, KEY, V), {"kv_lengths": [1.0, 2.0]}, TypeError, "kv_lengths has dtype float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [attend, attend_vjp])
def test_wrong_arguments(function, arguments, options, error, message):
    with pytest.raises(error, match=f"^{function.__name__}: .*{message}"):
        function(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Q[0, 0], KEY, V), {}, ValueError, "query has shape"),
        ((Q, KEY[0], V), {}, ValueError, "key has shape"),
        ((Q, KEY.astype("f4"), V), {}, TypeError, "key has dtype float32, expected dtype float64"),
        ((Q, KEY[:, :3], V[:, :3]), {}, ValueError, "heads that divide"),
        ((Q, KEY, V[:, :, :6]), {}, ValueError, "value has shape"),
        ((Q, KEY, V, np.ones((5, 7), bool)), {}, ValueError, "mask has shape"),
        ((Q, KEY, V, np.ones((2, 4, 5, 7), "f4")), {}, TypeError, "mask has dtype float32"),
        ((Q, KEY, V), {"left": -2}, ValueError, "left is -2"),
        ((Q, KEY, V), {"softcap": -1.0}, ValueError, "softcap is"),
        ((Q, KEY, V), {"lengths": np.array([8, 1])}, ValueError, "lengths holds 8"),
        ((Q, KEY, V), {"offsets": np.array([8])}, ValueError, "offsets has shape"),
        ((Q, KEY, V), {"scale": "1"}, TypeError, "scale has type str, expected a number"),
        ((Q, KEY, V), {"softcap": None}, TypeError, "softcap has type NoneType, expected a number"),
        ((Q, KEY, V), {"window": (1, 2)}, TypeError, "there is no option 'window'"),
    ],
)
def test_kernels_refuse_what_does_not_fit(arguments, options, error, message):
    with pytest.raises(error, match=rf"attention\.forward: .*{message}"):
        kernels.attention.forward(*arguments, **{"scale": 1.0, **options})


ADDITIVE = {"query": np.ones((2, 3, 4)), "key": np.ones((2, 5, 4)), "value": np.ones((2, 5, 6)), "score": np.ones(4)}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"query": np.ones((3, 4))}, ValueError, r"query has shape \(3, 4\), expected \(N, S, H\)"),
        ({"query": [[[1.0]]]}, TypeError, "query has type list, expected a NumPy array"),
        ({"key": np.ones((1, 5, 4))}, ValueError, r"key has shape \(1, 5, 4\)"),
        ({"key": np.ones((2, 5, 3))}, ValueError, r"key has shape \(2, 5, 3\)"),
        ({"value": np.ones((2, 4, 6))}, ValueError, r"value has shape \(2, 4, 6\)"),
        ({"value": np.ones((2, 5, 6), "f4")}, TypeError, "value has dtype float32, expected dtype float64"),
        ({"score": np.ones(3)}, ValueError, r"score has shape \(3,\), expected \(4,\)"),
        ({"lengths": np.array([5, 6])}, ValueError, "lengths holds 6, expected 0 to 5"),
        ({"lengths": np.array([-1, 5])}, ValueError, "lengths holds -1"),
        ({"lengths": np.array([5])}, ValueError, r"lengths has shape \(1,\)"),
        ({"lengths": np.array([1.0, 2.0])}, TypeError, "lengths has dtype float64"),
    ],
)
def test_the_kernel_of_additive_attention_refuses_what_does_not_fit(changed, error, message):
    op, given = kernels.additive_attention, {**ADDITIVE, **changed}
    with pytest.raises(error, match=rf"additive_attention\.forward: {message}"):
        op.forward(**given)
    dscore = np.zeros(4)
    with pytest.raises(error, match=rf"additive_attention\.backward: {message}"):
        op.backward(dout=np.ones((2, 3, 6)), weights=np.ones((2, 3, 5)), dscore=dscore, **given)
    assert not dscore.any()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"dout": np.ones((2, 3, 5))}, ValueError, r"dout has shape \(2, 3, 5\)"),
        ({"weights": np.ones((2, 3, 6))}, ValueError, r"weights has shape \(2, 3, 6\)"),
        ({"dscore": None}, TypeError, "dscore has type NoneType"),
        ({"dscore": np.zeros(5)}, ValueError, r"dscore has shape \(5,\)"),
        ({"dscore": np.zeros(8)[::2]}, ValueError, "dscore is not C-ordered"),
    ],
)
def test_the_gradients_of_additive_attention_refuse_what_does_not_fit(changed, error, message):
    given = {"dout": np.ones((2, 3, 6)), "weights": np.ones((2, 3, 5)), "dscore": np.zeros(4), **ADDITIVE, **changed}
    with pytest.raises(error, match=rf"additive_attention\.backward: {message}"):
        kernels.additive_attention.backward(**given)


def test_axes_that_no_memory_holds():
    one = np.zeros((1, 1, 1), "f4")
    with pytest.raises(ValueError, match=r"an axis has 576460752303423488 elements, expected at most 2147483647"):
        attend(np.zeros((1, 60, 1), "f4"), np.broadcast_to(one, (1, 2**59, 1)), np.broadcast_to(one, (1, 2**59, 1)))


def test_far_offsets_and_windows(rng):
    query, key, value = draw(rng, "f4", 5, 8), draw(rng, "f4", 7, 8), draw(rng, "f4", 7, 3)
    most = 2**63 - 1
    assert_same_bits([attend(query, key, value, is_causal=True, q_offset=most)], [attend(query, key, value)])
    assert not attend(query, key, value, is_causal=True, q_offset=-most).any()
    assert_same_bits([attend(query, key, value, window=(most, 2**70))], [attend(query, key, value)])


FAR = [0, 1, 5, 2**31, 2**40 - 1, 2**40, 2**41, 2**42, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 3, 2**70]


@pytest.mark.parametrize("backend", [kernels, reference])
def test_bounds_are_those_of_pythons_integers(backend, rng):
    """Offsets and windows near the largest integers: the sums are exact, and so is what is seen."""
    s, k = 5, 7
    query, value = np.zeros((1, s, 1)), np.eye(k)[None]  # equal scores: the result is where it looks
    ends = [n for n in (*FAR, *(-n for n in FAR)) if -(2**63) <= n < 2**63]
    for _ in range(300):
        offset = int(rng.choice(np.array(ends, object))) + int(rng.integers(-9, 10))
        offset = min(max(offset, -(2**63)), 2**63 - 1)
        near = [abs(offset) + int(n) for n in rng.integers(-6, 7, 2)]
        left, right = (
            max(-1, [-1, near[side], int(rng.choice(np.array(FAR, object)))][rng.integers(3)]) for side in range(2)
        )
        length = int(rng.integers(0, k + 1))
        out, _ = backend.attention.forward(
            query, np.zeros((1, k, 1)), value, scale=1.0, left=left, right=right, offsets=np.array(offset),
            lengths=np.array(length),
        )  # fmt: skip
        for i in range(s):
            at = i + offset
            seen = [j < length and (left < 0 or j >= at - left) and (right < 0 or j <= at + right) for j in range(k)]
            assert ((out[0, i] > 0) == seen).all(), (offset, left, right, length, i)


def test_far_windows_of_far_offsets_through_the_public_call(rng):
    query, key, value = draw(rng, "f4", 3, 5, 8), draw(rng, "f4", 3, 7, 8), draw(rng, "f4", 3, 7, 3)
    everything = attend(query, key, value)
    for offset, window in ((2**41, (2**42, -1)), (-(2**41), (-1, 2**42)), (2**63 - 1, (2**64, -1))):
        assert_same_bits([attend(query, key, value, q_offset=offset, window=window)], [everything])
    nothing = attend(query, key, value, q_offset=2**42, window=(2**41, -1))
    assert not nothing.any()
    for dtype in (np.int8, np.uint8, np.uint64, np.int64):  # any integers, for every element of the batch
        batch = [a[:, None] for a in (query, key, value)]
        options = {"window": (2, 1)}
        offsets = [3, 0, 2]
        expected = [attend(*(a[b] for a in batch), q_offset=offsets[b], **options) for b in range(3)]
        assert_same_bits([attend(*batch, q_offset=np.array(offsets, dtype), **options)], [np.stack(expected)])


@pytest.mark.parametrize("name", ["q_offset", "kv_lengths"])
@pytest.mark.parametrize("number", [2**63, 2**63 + 1, 2**64 - 1])
def test_integers_that_no_int64_holds(name, number):
    query = np.zeros((3, 1, 4), "f4")
    for given in (np.array(number, "u8"), np.uint64(number), number):
        with pytest.raises(ValueError, match=f"{name} holds {number}, which is more than an int64 can hold"):
            attend(query, query, query, **{name: given})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, -0.0, 1e-30])
def test_the_sign_of_zero_in_gradients(scale, dtype, rng):
    """Of a query alone, with or without axes in front, and of the same query in a batch."""
    query, key, value, dout = (draw(rng, dtype, 2, 4, 5, n) for n in (8, 8, 3, 3))
    dquery, dkey, dvalue = attend_vjp(query, key, value, scale=scale)[1](dout)
    assert np.signbit(dquery[dquery == 0]).any() or scale > 0
    for b, h in np.ndindex(2, 4):
        at = (b, h)
        for lead in ((), (None,), (None, None)):
            one = attend_vjp(query[at][lead], key[at][lead], value[at][lead], scale=scale)[1](dout[at][lead])
            assert_same_bits(one, [dquery[at][lead], dkey[at][lead], dvalue[at][lead]])


def test_layers_refuse_what_makes_no_layer(rng):
    with pytest.raises(ValueError, match="embed_dim is 10, expected a multiple of num_heads 3"):
        pyrnn.MultiheadAttention(10, 3)
    with pytest.raises(ValueError, match="num_kv_heads is 3, expected a divisor of 4"):
        pyrnn.MultiheadAttention(8, 4, num_kv_heads=3)
    layer = pyrnn.MultiheadAttention(8, 2, rng=0)
    with pytest.raises(
        ValueError, match=r"MultiheadAttention: query has shape \(3, 7\), expected \(S, N, 8\) or \(S, 8\)"
    ):
        layer(np.zeros((3, 7)))
    with pytest.raises(TypeError, match="there is no argument 'causal'"):
        layer(np.zeros((3, 8)), causal=True)
    with pytest.raises(ValueError, match=r"key has shape \(3, 2, 8\), expected 1 rows in the batch"):
        layer(np.zeros((3, 1, 8)), np.zeros((3, 2, 8)))


def test_large_scores(rng):
    """Scores far beyond exp's range, and all equal."""
    for size in (1e3, 1e18):
        query, key, value = draw(rng, "f4", 20, 8) * size, draw(rng, "f4", 300, 8), draw(rng, "f4", 300, 4)
        best = (query.astype("f8") @ key.T.astype("f8")).argmax(axis=1)
        np.testing.assert_allclose(attend(query, key, value, scale=1e3)[0], value[best][0], rtol=1e-6)
    out = attend(np.zeros((3, 8), "f4"), np.zeros((300, 8), "f4"), value)
    np.testing.assert_allclose(out, np.broadcast_to(value.mean(axis=0), (3, 4)), atol=1e-6)


def test_never_the_whole_matrix_in_memory():
    """Forward and backward over 8192 queries and keys, whose scores alone would be 256 MB."""
    grown = python("""
        import resource
        import numpy as np, pyrnn
        query, key, value = np.random.default_rng(0).standard_normal((3, 8192, 8)).astype("f4")
        pyrnn.set_num_threads(2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out, pullback = pyrnn.scaled_dot_product_attention_vjp(query, key, value, is_causal=True)
        pullback(out)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    assert int(grown) < 50_000  # kilobytes


@pytest.mark.parametrize("seed", range(cases(20)))
def test_many_keys(seed):
    """Random long and thin calls, over several runs of keys."""
    rng = np.random.default_rng(seed)
    s, k = int(rng.choice([1, 3, 60])), int(rng.integers(1000, 5000))
    query, key, value = draw(rng, "f8", 2, s, 9), draw(rng, "f8", 1, k, 9), draw(rng, "f8", 1, k, 4)
    out = attend(query, key, value, is_causal=True, q_offset=k - s, window=(int(rng.integers(10, 4000)), -1))
    assert np.isfinite(out).all()
    expected, _ = reference.attention.forward(query, key, value, scale=1 / 3)
    assert_near([attend(query, key, value)], [expected], "float64")
