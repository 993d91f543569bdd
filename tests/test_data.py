"""Padding, minibatches, held-out parts; data to begin with; windows and scales of series."""

import string
import unicodedata
from collections import Counter

import numpy as np
import pytest

import pyrnn
from pyrnn import data

LATIN = {*string.ascii_letters}


@pytest.mark.parametrize("features", [(), (3,), (2, 0)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pad_puts_every_sequence_where_lengths_says(rng, features, batch_first):
    sequences = [rng.standard_normal((steps, *features)) for steps in (4, 0, 7, 1)]
    array, lengths = data.pad(sequences, batch_first=batch_first)
    assert array.flags.c_contiguous
    assert lengths.tolist() == [4, 0, 7, 1]
    rows = array if batch_first else array.swapaxes(0, 1)
    assert rows.shape == (4, 7, *features)
    for row, sequence in zip(rows, sequences, strict=True):
        np.testing.assert_array_equal(row[: len(sequence)], sequence)
        assert not row[len(sequence) :].any()


def test_pad_keeps_the_dtype():
    assert data.pad([[], [3, 1]])[0].dtype == np.int64
    assert data.pad([np.ones(2, np.int8), np.ones(3, np.float32)])[0].dtype == np.float32
    assert data.pad([[], []])[0].shape == (0, 2)


def test_padded_rows_are_the_sequences_to_a_layer(rng):
    layer = pyrnn.GRU(3, 5, rng=0)
    sequences = [rng.standard_normal((steps, 3)).astype("float32") for steps in (4, 9, 1)]
    array, lengths = data.pad(sequences)
    _, final = layer(array, lengths=lengths)
    for n, sequence in enumerate(sequences):
        np.testing.assert_array_equal(final[:, n], layer(sequence)[1])


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([], ValueError, "pad: sequences is empty"),
        ([3], ValueError, r"sequences\[0\] has shape \(\)"),
        ([[1, 2], [[1, 2]]], ValueError, r"sequences\[1\] has shape \(1, 2\), expected .*\(2,\)"),
        ([[1], ["a"]], TypeError, r"sequences\[1\] has dtype"),
    ],
)
def test_pad_refuses(sequences, error, message):
    with pytest.raises(error, match=message):
        data.pad(sequences)


@pytest.mark.parametrize(("n", "size"), [(0, 3), (10, 3), (9, 3), (4, 100)])
def test_minibatches_have_every_row_once(n, size):
    batches = list(data.minibatches(n, size, 0))
    assert sorted(np.concatenate([*batches, []])) == list(range(n))
    assert [len(b) for b in batches] == [size] * (n // size) + [n % size] * (n % size > 0)


def test_minibatches_of_a_generator_differ_from_epoch_to_epoch(rng):
    first, second = (np.concatenate(list(data.minibatches(50, 7, rng))) for _ in range(2))
    assert first.tolist() != second.tolist()
    assert first.tolist() != sorted(first)


def test_held_out_is_a_split():
    assert len(data.held_out(1007, 0.1, 0)[1]) == 101
    train, valid = data.held_out(1003, 0.1, 0)
    assert len(valid) == 100
    assert sorted([*train, *valid]) == list(range(1003))
    assert valid.tolist() == sorted(valid)
    assert valid.tolist() == data.held_out(1003, 0.1, 0)[1].tolist()
    assert valid.tolist() != data.held_out(1003, 0.1, 1)[1].tolist()


def test_families_hold_what_is_alike():
    strings = ["abcdefgh", "xyz", "bcdefghi", "", "fghijklm"]  # the first and the last are joined by the third
    assert data.families(strings, word=3, common=2) == [[0, 2, 4], [1], [3]]
    assert data.families(strings, word=3, common=3) == [[0, 2], [1], [3], [4]]
    assert data.families(strings, word=3, common=6) == [[n] for n in range(5)]
    assert data.families([], word=1, common=1) == []
    with pytest.raises(ValueError, match="families: word is 0"):
        data.families(strings, word=0, common=1)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="minibatches: size is 0"):
        data.minibatches(3, 0)
    with pytest.raises(TypeError, match=r"minibatches: n is 3\.0"):
        data.minibatches(3.0, 1)
    with pytest.raises(ValueError, match=r"held_out: part is 1\.5"):
        data.held_out(3, 1.5)
    with pytest.raises(TypeError, match="held_out: rng"):
        data.held_out(3, 0.5, "a")


# ---- data to begin with


def test_names_have_a_language_each():
    names, languages = data.load_names()
    assert len(names) == len(languages) == 11_459
    assert languages == sorted(languages)
    assert len(set(zip(names, languages, strict=True))) == len(names)
    counts = Counter(languages)
    assert len(counts) == 19
    assert (min(counts.values()), max(counts.values())) == (49, 1000)
    assert ("Tanaka", "Japanese") in zip(names, languages, strict=True)
    assert not [name for name in names if name != name.strip() or not set(unicodedata.normalize("NFD", name)) & LATIN]


def test_passengers_are_those_of_box_and_jenkins():
    passengers = data.load_passengers()
    assert (passengers.shape, passengers.dtype) == ((144,), np.float64)
    years = passengers.reshape(12, 12)
    assert (years[0, 0], years[-1, -1], passengers.max()) == (112, 432, 622)
    assert round(passengers.mean(), 2) == 280.30  # as R's AirPassengers
    assert np.all(np.diff(years.sum(axis=1)) > 0)


def test_adding_says_the_sum_of_what_is_marked(rng):
    x, sums = data.make_adding(20, 50, rng)
    assert (x.shape, x.dtype, sums.dtype) == ((20, 50, 2), np.float32, np.float32)
    np.testing.assert_array_equal(x[:10, :, 1].sum(axis=0), np.ones(50))
    np.testing.assert_array_equal(x[10:, :, 1].sum(axis=0), np.ones(50))
    np.testing.assert_allclose(sums[0, :, 0], (x[..., 0] * x[..., 1]).sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(x, data.make_adding(20, 50, 0)[0])
    assert [array.shape for array in data.make_adding(3, 0)] == [(3, 0, 2), (1, 0, 1)]


def test_copying_says_the_first_letters_from_the_bell_on(rng):
    x, letters = data.make_copying(30, 5, rng)
    assert (x.shape, x.dtype, letters.dtype) == ((50, 5, 10), np.float32, np.int64)
    symbols = x.argmax(axis=2)
    np.testing.assert_array_equal(symbols[:10], letters)
    np.testing.assert_array_equal(np.argwhere(symbols == 9)[:, 0], np.full(5, 39))
    assert np.all(np.delete(symbols[10:], 29, axis=0) == 8)
    assert data.make_copying(1, 2, 0)[0].argmax(axis=2)[10].tolist() == [9, 9]


def test_wrong_sizes_of_tasks_are_named():
    with pytest.raises(ValueError, match="make_adding: steps is 1, expected at least 2"):
        data.make_adding(1, 3)
    with pytest.raises(TypeError, match=r"make_copying: rows is 2\.0, expected an integer"):
        data.make_copying(3, 2.0)
    with pytest.raises(TypeError, match="make_copying: rng"):
        data.make_copying(3, 2, "a")


# ---- series


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(9,), (9, 2), (5, 1)])
def test_windows_are_stretches_and_what_follows(rng, shape, batch_first):
    series = rng.standard_normal(shape).astype("f4")
    x, y = data.windows(series, 3, 2, batch_first=batch_first)
    assert x.flags.c_contiguous
    assert y.flags.c_contiguous
    assert (x.dtype, y.dtype) == (np.float32, np.float32)
    x, y = (x.swapaxes(0, 1), y.swapaxes(0, 1)) if batch_first else (x, y)
    rows = series.reshape(len(series), -1)
    assert x.shape == (3, len(series) - 4, rows.shape[1])
    for n in range(len(series) - 4):
        np.testing.assert_array_equal(x[:, n], rows[n : n + 3])
        np.testing.assert_array_equal(y[:, n], rows[n + 3 : n + 5])


def test_windows_keep_integers_and_share_no_memory():
    series = np.arange(10)
    x, y = data.windows(series, 4)
    assert x.dtype == np.int64
    assert y.shape == (1, 6, 1)
    x[0] = -1
    np.testing.assert_array_equal(series, np.arange(10))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2, 3], 3), ValueError, r"windows: series has shape \(3,\), expected \(T,\) or .* of at least 4 steps"),
        ((np.zeros((9, 2, 2)), 3), ValueError, r"windows: series has shape \(9, 2, 2\)"),
        ((3.0, 1), ValueError, r"windows: series has shape \(\)"),
        ((["a"] * 9, 3), TypeError, "windows: series has dtype"),
        ((np.zeros(9), 0), ValueError, "windows: past is 0"),
        ((np.zeros(9), 2, 1.0), TypeError, r"windows: ahead is 1\.0"),
    ],
)
def test_windows_refuse(arguments, error, message):
    with pytest.raises(error, match=message):
        data.windows(*arguments)


@pytest.mark.parametrize("shape", [(50,), (50, 3), (10, 5, 3)])
def test_the_scaler_gives_mean_0_and_deviation_1(rng, shape):
    values = rng.normal(1e3, 5, shape)
    scaler = data.Scaler(values)
    z = scaler(values)
    axes = tuple(range(max(len(shape) - 1, 1)))
    np.testing.assert_allclose(scaler.mean, values.mean(axis=axes), rtol=1e-14)
    np.testing.assert_allclose(scaler.scale, values.std(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(z.mean(axis=axes), 0, atol=1e-11)
    np.testing.assert_allclose(z.std(axis=axes), 1, rtol=1e-12)
    np.testing.assert_allclose(scaler.back(z), values, rtol=1e-14)


def test_the_scaler_takes_what_comes():
    scaler = data.Scaler([[1, 5, np.nan], [3, 5, np.nan], [np.nan, 5, np.nan]])  # missing; constant; nothing known
    np.testing.assert_array_equal(scaler.mean, [2, 5, 0])
    np.testing.assert_array_equal(scaler.scale, [1, 1, 1])
    assert scaler(np.float32([[1, 5, 7]])).dtype == np.float32
    np.testing.assert_array_equal(scaler([1, 6, np.nan]), [-1, 1, np.nan])
    assert data.Scaler([0.1] * 9).scale == 1
    assert data.Scaler([2, 4]).back([[0.0], [1.0]]).tolist() == [[3], [4]]  # one series: any shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.Scaler([]), ValueError, r"Scaler: values has shape \(0,\)"),
        (lambda: data.Scaler(3), ValueError, r"Scaler: values has shape \(\)"),
        (lambda: data.Scaler([1, np.inf]), ValueError, "Scaler: values holds infinity"),
        (lambda: data.Scaler(["a"]), TypeError, "Scaler: values has dtype"),
        (lambda: data.Scaler(np.ones((4, 2)))(np.ones((4, 3))), ValueError, r"shape \(4, 3\), expected \(\.\.\., 2\)"),
        (lambda: data.Scaler(np.ones((4, 2))).back(["a", "b"]), TypeError, r"Scaler\.back: values has dtype"),
    ],
)
def test_the_scaler_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
