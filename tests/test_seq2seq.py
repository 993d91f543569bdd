"""Decoder and EncoderDecoder: gradients, lengths, step by step, attention, and that they learn."""

import copy
import itertools

import numpy as np
import pytest
from cells import CELLS

import pyrnn

T, K, N, V, C, M, H = 5, 6, 3, 7, 4, 5, 6


def a_decoder(cell="gru", vector=True, memory=True, **options):
    sizes = {"vector_size": C if vector else 0, "memory_size": M if memory else 0}
    return pyrnn.Decoder(V, 3, H, 2, cell=cell, **sizes, **{"dtype": "float64", "rng": 1, **options})


def given(rng, vector=True, memory=True):
    return {
        "vector": rng.standard_normal((N, C)) if vector else None,
        "memory": rng.standard_normal((K, N, M)) if memory else None,
    }


def shake(model, rng):
    params, _ = model.buffers[np.dtype("float64")]
    params += 0.3 * rng.standard_normal(params.size)
    return params


def check_gradient(model, run, inputs, dlogits, gradients, rng):
    """Along random directions of the parameters and inputs."""
    params, grads = model.buffers[np.dtype("float64")]
    start, eps = params.copy(), 1e-6
    for _ in range(3):
        w = rng.standard_normal(params.size)
        us = [rng.standard_normal(x.shape) for x in inputs]

        def loss(sign, us=us, w=w):
            params[:] = start + sign * eps * w
            return np.sum(dlogits * run(*(x + sign * eps * u for x, u in zip(inputs, us, strict=True))))

        expected = (loss(1) - loss(-1)) / (2 * eps)
        params[:] = start
        found = np.sum(grads * w) + sum(np.sum(g * u) for g, u in zip(gradients, us, strict=True))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("vector", "memory"), list(itertools.product([True, False], repeat=2)))
def test_gradients_of_the_decoder_are_finite_differences(rng, cell, vector, memory):
    decoder = a_decoder(cell, vector, memory)
    shake(decoder, rng)
    tokens, lengths = rng.integers(0, V, (T, N)), {"lengths": [5, 0, 3]}
    if memory:
        lengths["memory_lengths"] = [6, 2, 0]
    arrays = given(rng, vector, memory)
    logits, pullback = decoder.vjp(tokens, **arrays, **lengths)
    np.testing.assert_array_equal(logits, decoder(tokens, **arrays, **lengths))
    dlogits = rng.standard_normal(logits.shape)
    gradients = pullback(dlogits)
    assert [g is None for g in gradients] == [not vector, not memory]
    names = [name for name, array in arrays.items() if array is not None]

    def run(*values):
        return decoder(tokens, **dict(zip(names, values, strict=True)), **lengths)

    check_gradient(decoder, run, [arrays[n] for n in names], dlogits, [g for g in gradients if g is not None], rng)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", [True, False])
def test_gradients_of_the_encoder_decoder_are_finite_differences(rng, cell, attention):
    model = pyrnn.EncoderDecoder(V, V + 1, 3, H, 2, cell=cell, attention=attention, dtype="float64", rng=1)
    shake(model, rng)
    source, tokens = rng.integers(0, V, (K, N)), rng.integers(0, V + 1, (T, N))
    lengths = {"source_lengths": [6, 0, 2], "lengths": [5, 2, 0]}
    logits, pullback = model.vjp(source, tokens, **lengths)
    dlogits = rng.standard_normal(logits.shape)
    assert pullback(dlogits) is None
    check_gradient(model, lambda: model(source, tokens, **lengths), [], dlogits, [], rng)


def test_dropout_acts_at_every_place_and_the_same_way_back(rng):
    model = pyrnn.EncoderDecoder(V, V, 3, H, 2, dropout=0.4, dtype="float64", rng=1)
    places = [
        (model.drop, "p"),
        (model.encoder, "dropout"),
        (model.decoder.drop_in, "p"),
        (model.decoder.rnn, "dropout"),
        (model.decoder.drop_out, "p"),
    ]
    assert [getattr(layer, name) for layer, name in places] == [0.4] * 5
    source, tokens, draws = rng.integers(0, V, (K, N)), rng.integers(0, V, (T, N)), model.drop.rng
    masks = draws.bit_generator.state

    def run():
        draws.bit_generator.state = masks
        return model.vjp(source, tokens)

    logits, pullback = run()
    dlogits = rng.standard_normal(logits.shape)
    pullback(dlogits)
    check_gradient(model, lambda: run()[0], [], dlogits, [], rng)
    for layer, name in places:
        setattr(layer, name, 0.0)
    plain = model(source, tokens)
    np.testing.assert_array_equal(run()[0], plain)
    for layer, name in places:
        setattr(layer, name, 0.4)
        assert not np.allclose(run()[0], plain)
        setattr(layer, name, 0.0)


def test_padding_is_never_read(rng):
    model = pyrnn.EncoderDecoder(V, V, 3, H, dtype="float64", rng=1)
    source, tokens = rng.integers(0, V, (K, N)), rng.integers(0, V, (T, N))
    k, t = np.array([6, 1, 3]), np.array([2, 5, 0])
    lengths = {"source_lengths": k, "lengths": t}
    clean = model(source, tokens, **lengths)
    dirty_source = np.where(np.arange(K)[:, None] < k, source, -5)
    dirty_tokens = np.where(np.arange(T)[:, None] < t, tokens, 10**6)
    logits, pullback = model.vjp(dirty_source, dirty_tokens, **lengths)
    np.testing.assert_array_equal(logits, clean)
    for n in range(N):
        assert not logits[t[n] :, n].any()
        alone = model(source[: k[n], [n]], tokens[: t[n], [n]])
        np.testing.assert_array_equal(alone[:, 0], logits[: t[n], n])
    dlogits = rng.standard_normal(logits.shape)
    pullback(dlogits)
    first = {name: g.copy() for name, g in model.grads.items()}
    model.zero_grad()
    model.vjp(source, tokens, **lengths)[1](np.where(np.arange(T)[:, None, None] < t[:, None], dlogits, np.nan))
    for name, g in model.grads.items():
        np.testing.assert_array_equal(g, first[name])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_by_step_the_same_bits_come_out(rng, cell, dtype):
    model = pyrnn.EncoderDecoder(V, V, 3, H, 2, cell=cell, dtype=dtype, rng=1)
    source, tokens, k = rng.integers(0, V, (K, N)), rng.integers(0, V, (T, N)), [6, 2, 4]
    whole = model(source, tokens, source_lengths=k)
    assert whole.dtype == dtype
    state = model.start(source, k)
    for t in range(T):
        logits, state = model.step(state, tokens[t])
        np.testing.assert_array_equal(logits, whole[t])


@pytest.mark.parametrize("cell", CELLS)
def test_a_beam_repeats_and_reorders_every_part_of_the_state(rng, cell):
    """A beam over a batch finds what a beam over each row alone finds."""
    model = pyrnn.EncoderDecoder(V, V, 3, H, 2, cell=cell, dtype="float64", rng=3)
    shake(model, rng)
    source, k = rng.integers(0, V, (K, N)), np.array([6, 2, 4])
    tokens, lengths, scores = pyrnn.decoding.beam_search(model.step, model.start(source, k), [1] * N, 0, 8, 4)
    for n in range(N):
        start = model.start(source[: k[n], [n]])
        alone, alone_lengths, alone_scores = pyrnn.decoding.beam_search(model.step, start, [1], 0, 8, 4)
        np.testing.assert_array_equal(alone_lengths[0], lengths[n])
        np.testing.assert_array_equal(alone_scores[0], scores[n])
        np.testing.assert_array_equal(alone[:, 0], tokens[: len(alone), n])
        best = tokens[: lengths[n, 0], n, 0]
        read = np.concatenate([[1], best])[:, None]
        z = model(source[: k[n], [n]], read)[:, 0]
        logs = z - np.log(np.exp(z).sum(-1, keepdims=True))
        written = [*best, 0] if len(best) < 8 else best
        assert scores[n, 0] == pytest.approx(sum(logs[t, v] for t, v in enumerate(written)))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("vector", "memory"), list(itertools.product([True, False], repeat=2)))
def test_a_stream_of_a_decoder_has_the_bits_of_the_whole(rng, cell, vector, memory):
    decoder = a_decoder(cell, vector, memory, dtype="float32")
    arrays, tokens = given(rng, vector, memory), rng.integers(0, V, (T, N))
    seen = {"memory_lengths": [6, 2, 0]} if memory else {}
    whole = decoder(tokens, **arrays, **seen)
    stream = decoder.stream(**arrays, **seen, batch=N)
    for t in range(T):
        np.testing.assert_array_equal(stream.step(tokens[t]), whole[t])
    ahead = copy.copy(stream)
    stream.reset(rows=[1])
    np.testing.assert_array_equal(stream(tokens)[:, 1], whole[:, 1])
    stream.reset()
    np.testing.assert_array_equal(stream(tokens[:2]), whole[:2])
    ahead.state = stream.state
    turned = copy.copy(ahead)
    turned.take([2, 0, 1])
    np.testing.assert_array_equal(turned(tokens[2:, [2, 0, 1]]), whole[2:, [2, 0, 1]])
    ahead.take([2, 0, 0, 1])
    np.testing.assert_array_equal(ahead(tokens[2:, [2, 0, 0, 1]]), whole[2:, [2, 0, 0, 1]])
    ahead.reset()
    np.testing.assert_array_equal(ahead.step(tokens[0, [2, 0, 0, 1]]), whole[0, [2, 0, 0, 1]])
    np.testing.assert_array_equal(stream(tokens[2:]), whole[2:])


@pytest.mark.parametrize("attention", [True, False])
def test_decoding_takes_a_stream_and_leaves_it_where_it_is(rng, attention):
    model = pyrnn.EncoderDecoder(V, V, 3, H, 2, cell="lstm", attention=attention, dtype="float64", rng=3)
    shake(model, rng)
    source, k = rng.integers(0, V, (K, N)), np.array([6, 2, 4])
    stream = model.stream(source, k)
    before = stream.state
    for search, rest in (("beam_search", (8, 4)), ("greedy", (8,)), ("sample", (8, 0.7, 5))):
        run = getattr(pyrnn.decoding, search)
        expected = run(model.step, model.start(source, k), [1] * N, 0, *rest)
        for one, other in zip(run(stream, None, [1] * N, 0, *rest), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    tokens = rng.integers(0, V, (T, N))
    mixed = pyrnn.decoding.scheduled_inputs(stream, None, tokens, 0.3, rng=1)
    expected = pyrnn.decoding.scheduled_inputs(model.step, model.start(source, k), tokens, 0.3, rng=1)
    np.testing.assert_array_equal(mixed, expected)
    for one, other in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match="greedy: state is tuple, expected None: a stream has its own"):
        pyrnn.decoding.greedy(stream, model.start(source, k), [1] * N, 0, 8)


def test_decoding_takes_the_stream_of_a_chain():
    language = pyrnn.Sequential(pyrnn.Embedding(V, 3), pyrnn.GRU(3, H), pyrnn.Linear(H, V), rng=0)
    ids, _ = pyrnn.decoding.greedy(language.stream(2), None, [1, 2], None, 6)
    read = np.concatenate([[[1, 2]], ids[:-1]])
    np.testing.assert_array_equal(language(read).argmax(axis=2), ids)
    beam, _, scores = pyrnn.decoding.beam_search(language.stream(2), None, [1, 2], None, 3, width=V**3)
    assert beam.shape == (3, 2, V**3)
    assert np.exp(scores).sum(axis=1) == pytest.approx([1, 1])


def test_refusals_of_a_decoders_stream(rng):
    arrays = given(rng)
    decoder = a_decoder()
    stream = decoder.stream(**arrays)
    before = stream.state
    with pytest.raises(ValueError, match=r"Decoder\.stream: batch is 2, but there are 3 rows of vector or memory"):
        decoder.stream(**arrays, batch=2)
    with pytest.raises(ValueError, match=r"Decoder\.stream\.step: ids has shape \(2,\), expected \(3,\)"):
        stream.step([1, 2])
    with pytest.raises(ValueError, match=r"Decoder\.stream: ids has shape \(3,\), expected \(T, 3\)"):
        stream([1, 2, 3])
    with pytest.raises(ValueError, match=r"ids holds 7, expected 0 to 6"):
        stream.step([1, 2, V])
    with pytest.raises(ValueError, match="rows"):
        stream.take([3])
    np.testing.assert_array_equal(stream.state, before)
    assert repr(stream) == "Decoder.stream(batch=3)"


def test_attention_weights_are_those_that_are_used(rng):
    decoder = a_decoder()
    arrays, tokens = given(rng), rng.integers(0, V, (T, N))
    weights = decoder.attention_weights(tokens, **arrays, memory_lengths=[6, 2, 0])
    assert weights.shape == (N, T, K)
    np.testing.assert_allclose(weights.sum(axis=2), np.repeat([[1.0], [1.0], [0.0]], T, axis=1), rtol=1e-12)
    assert not weights[1, :, 2:].any()
    h, v, m, _ = decoder.start(**arrays)
    y, _ = decoder.rnn(np.concatenate([decoder.embed(tokens), np.broadcast_to(v, (T, N, C))], axis=2), h)
    context = np.einsum("ntk,knm->tnm", decoder.attention_weights(tokens, **arrays), m)
    by_hand = decoder.head(np.tanh(decoder.combine(np.concatenate([y, context], axis=2))))
    np.testing.assert_allclose(decoder(tokens, **arrays), by_hand, rtol=1e-10)
    with pytest.raises(ValueError, match="there is no attention"):
        a_decoder(memory=False).attention_weights(tokens, arrays["vector"])


def test_dropout_acts_in_vjp_only(rng):
    decoder = a_decoder(dropout=0.5)
    arrays, tokens = given(rng), rng.integers(0, V, (T, N))
    np.testing.assert_array_equal(decoder(tokens, **arrays), decoder(tokens, **arrays))
    first, second = (decoder.vjp(tokens, **arrays)[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_gradients_under_dropout_are_those_of_the_masks(rng):
    """Two copies draw the same masks, so a difference quotient sees one and the same function."""
    decoder = a_decoder(dropout=0.4)
    arrays, tokens = given(rng), rng.integers(0, V, (T, N))
    fresh = copy.deepcopy(decoder)
    logits, pullback = decoder.vjp(tokens, **arrays)
    dlogits = rng.standard_normal(logits.shape)
    gradients = pullback(dlogits)
    _, grads = decoder.buffers[np.dtype("float64")]
    w = rng.standard_normal(grads.size)
    us = [rng.standard_normal(x.shape) for x in arrays.values()]

    def loss(step):
        other = copy.deepcopy(fresh)
        other.buffers[np.dtype("float64")][0][:] += step * w
        moved = {name: x + step * u for (name, x), u in zip(arrays.items(), us, strict=True)}
        return np.sum(dlogits * other.vjp(tokens, **moved)[0])

    found = np.sum(grads * w) + sum(np.sum(g * u) for g, u in zip(gradients, us, strict=True))
    assert found == pytest.approx((loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-6)


def test_scheduled_sampling_reads_what_the_decoder_writes(rng):
    decoder = a_decoder()
    arrays, tokens = given(rng), rng.integers(0, V, (T, N))
    mixed = pyrnn.decoding.scheduled_inputs(decoder.step, decoder.start(**arrays), tokens, 0.0)
    np.testing.assert_array_equal(mixed[1:], decoder(mixed, **arrays).argmax(axis=2)[:-1])


@pytest.mark.parametrize("attention", [True, False])
def test_it_learns_to_reverse(rng, attention):
    """Sequences of 2 to 5 digits, written backwards; 0 starts and 1 ends."""
    model = pyrnn.EncoderDecoder(6, 6, 12, 24, attention=attention, rng=0)
    adam = pyrnn.Adam(model, lr=1e-2)
    texts = [list(rng.integers(2, 6, n)) for n in np.tile([2, 3, 4, 5], 8)]
    source, k = pyrnn.data.pad(texts)
    target, t = pyrnn.data.pad([[0, *text[::-1], 1] for text in texts])
    for _ in range(120):
        model.zero_grad()
        logits, pullback = model.vjp(source, target[:-1], source_lengths=k, lengths=t - 1)
        loss, dlogits = pyrnn.cross_entropy(logits, target[1:], lengths=t - 1)
        pullback(dlogits)
        adam.step()
    assert loss < 0.1
    written, lengths = pyrnn.decoding.greedy(model.step, model.start(source, k), [0] * len(k), 1, 8)
    right = [list(written[:n, row]) == texts[row][::-1] for row, n in enumerate(lengths)]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize(("vector", "memory"), [(True, True), (True, False), (False, True)])
def test_tokens_have_the_rows_of_what_is_given(rng, vector, memory):
    """One row of memory does not silently serve all rows of tokens, nor one row of tokens all of memory."""
    decoder = a_decoder(vector=vector, memory=memory)
    arrays, tokens = given(rng, vector, memory), rng.integers(0, V, (T, N))
    one = {name: None if x is None else x[:, :1] if x.ndim == 3 else x[:1] for name, x in arrays.items()}
    for ids, inputs, rows in ((tokens, one, 1), (tokens[:, :1], arrays, N)):
        expected = rf"ids has shape \(\d, {ids.shape[1]}\), expected \(T, {rows}\)"
        with pytest.raises(ValueError, match=expected):
            decoder(ids, **inputs)
        with pytest.raises(ValueError, match=expected):
            decoder.step(decoder.start(**inputs), ids[0])
        if memory:
            with pytest.raises(ValueError, match=expected):
                decoder.attention_weights(ids, **inputs)
    with pytest.raises(ValueError, match=r"Decoder\.step: ids has shape \(5, 3\), expected \(N,\)"):
        decoder.step(decoder.start(**arrays), tokens)


def test_logits_beyond_a_length_are_0_whatever_the_row_holds(rng):
    decoder, arrays = a_decoder(), given(rng)
    arrays["memory"][:, 1] = np.nan
    tokens, lengths = rng.integers(0, V, (T, N)), np.array([T, 2, 0])
    for logits in (decoder(tokens, **arrays, lengths=lengths), decoder.vjp(tokens, **arrays, lengths=lengths)[0]):
        assert np.isnan(logits[:2, 1]).all()
        assert not logits[np.arange(T)[:, None] >= lengths].any()


@pytest.mark.parametrize("attention", [True, False])
def test_no_rows_and_no_steps(attention):
    model = pyrnn.EncoderDecoder(V, V, 3, H, 2, attention=attention, rng=1)
    for k, t, n in [(K, T, 0), (0, T, N), (K, 0, N), (0, 0, 0)]:
        logits, pullback = model.vjp(np.zeros((k, n), int), np.zeros((t, n), int))
        assert logits.shape == (t, n, V)
        pullback(logits)
        assert all(np.isfinite(g).all() for g in model.grads.values())


def test_refusals(rng):
    arrays, tokens = given(rng), rng.integers(0, V, (T, N))
    decoder = a_decoder()
    with pytest.raises(ValueError, match="Decoder: cell is 'elman', expected one of rnn, lstm, gru"):
        pyrnn.Decoder(V, 3, H, cell="elman")
    with pytest.raises(ValueError, match=r"Decoder\.vjp: vector is missing, and the decoder's vector_size is 4"):
        decoder.vjp(tokens, memory=arrays["memory"])
    with pytest.raises(ValueError, match=r"Decoder\.start: memory is given, and the decoder's memory_size is 0"):
        a_decoder(memory=False)(tokens, **arrays)
    with pytest.raises(ValueError, match=r"Decoder\.start: vector has shape \(3, 2\), expected \(N, 4\)"):
        decoder.start(np.ones((3, 2)), arrays["memory"])
    with pytest.raises(ValueError, match=r"Decoder\.vjp: memory has shape \(3, 5\), expected \(K, 3, 5\)"):
        decoder.vjp(tokens, arrays["vector"], np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"Decoder: ids has shape \(3,\), expected \(T, N\)"):
        decoder(tokens[0], **arrays)
    with pytest.raises(TypeError, match=r"Decoder\.vjp: ids has dtype float64"):
        decoder.vjp(tokens * 1.0, **arrays)
    with pytest.raises(ValueError, match=r"Decoder\.vjp: lengths holds 9, expected 0 to 5"):
        decoder.vjp(tokens, **arrays, lengths=[1, 2, 9])
    with pytest.raises(ValueError, match=r"EncoderDecoder\.encode: lengths holds -1"):
        pyrnn.EncoderDecoder(V, V, 3, H).encode(tokens, [1, 2, -1])
    with pytest.raises(ValueError, match=r"Decoder\.vjp: vector has shape \(2, 4\), expected \(3, 4\)"):
        decoder.vjp(tokens, arrays["vector"][:2], arrays["memory"])
    with pytest.raises(ValueError, match=r"Decoder\.start: memory_lengths is given, but no memory"):
        a_decoder(memory=False)(tokens, arrays["vector"], memory_lengths=[1, 2, 3])
    with pytest.raises(TypeError, match="Decoder: num_layers is '2', expected an integer"):
        pyrnn.Decoder(V, 3, H, "2")
    with pytest.raises(TypeError, match="EncoderDecoder: num_layers is '2', expected an integer"):
        pyrnn.EncoderDecoder(V, V, 3, H, "2")
    logits, pullback = decoder.vjp(tokens, **arrays)
    with pytest.raises(ValueError, match="Decoder pullback: dlogits has shape"):
        pullback(logits[0])
    assert not any(g.any() for g in decoder.grads.values())
    pullback(logits)
    with pytest.raises(RuntimeError, match="called before"):
        pullback(logits)
