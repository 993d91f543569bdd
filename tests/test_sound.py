"""Features of sound: log-mel energies by loops, where a tone lies, and what is refused."""

import math

import numpy as np
import pytest

from pyrnn import sound


def by_loops(samples, rate, window, hop, bands):
    """The same in plain Python: a Fourier sum for each frequency, a triangle for each band."""
    n, middle = len(samples), window // 2
    mel = [2595 * math.log10(1 + rate / 2 / 700) * k / (bands + 1) for k in range(bands + 2)]
    edges = [700 * (10 ** (m / 2595) - 1) for m in mel]
    loudest = max(map(abs, samples), default=0)
    logs = []
    for at in range(0, n + 1, hop):
        frame = [
            samples[at - middle + k] * 0.5 * (1 - math.cos(2 * math.pi * k / (window - 1)))
            if 0 <= at - middle + k < n
            else 0
            for k in range(window)
        ]
        row = [0.0] * bands
        for f in range(middle + 1):
            turns = [2 * math.pi * f * k / window for k in range(window)]
            real, imag = (sum(x * wave(t) for x, t in zip(frame, turns, strict=True)) for wave in (math.cos, math.sin))
            hertz = f * rate / window
            for b in range(bands):
                low, top, high = edges[b : b + 3]
                part = max(0, min((hertz - low) / (top - low), (high - hertz) / (high - top)))
                row[b] += part * (real**2 + imag**2) / loudest**2
        logs.append(row)
    floor = 1e-6 * max(map(max, logs))
    logs = np.log(np.array(logs) + floor)
    return (logs - logs.mean(axis=0)) / 3


@pytest.mark.parametrize(("count", "window", "hop", "bands", "rate"), [(150, 64, 20, 6, 8000), (33, 40, 7, 3, 1000.5)])
def test_log_mel_by_loops(count, window, hop, bands, rate, rng):
    samples = rng.normal(size=count) * np.linspace(0.01, 30, count)
    x = sound.log_mel(samples, rate, window=window, hop=hop, bands=bands)
    assert x.dtype == np.float32
    assert x.shape == (count // hop + 1, bands)
    # a float32 has 6e-8 of numbers up to 5; the smallest term, 1e-12, is far below 1e-6 of the loudest
    np.testing.assert_allclose(x, by_loops(samples.tolist(), rate, window, hop, bands), atol=1e-6)


def test_mel_bands_follow_the_tone():
    bands = sound.mel_bands(8000)
    assert bands.shape == (129, 40)
    assert bands.min() == 0 < bands.max() <= 1
    hertz = np.arange(129) * 8000 / 256
    centres = 700 * (10 ** (np.arange(1, 41) / 41 * np.log10(1 + 4000 / 700)) - 1)  # the same formula, in other terms
    between = (hertz > centres[0]) & (hertz < centres[-1])
    np.testing.assert_allclose(bands[between].sum(axis=1), 1, atol=1e-12)  # two neighbours share each frequency
    x = sound.log_mel(np.sin(2 * np.pi * centres[25] / 8000 * np.arange(800)) * (np.arange(800) >= 400), 8000)
    assert x.shape == (11, 40)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    assert (x[9] - x[1]).argmax() == 25


def test_how_loud_it_is_does_not_matter(rng):
    samples = rng.integers(-3000, 3000, 900).astype(np.int16)
    x = sound.log_mel(samples, 8000)
    for scale in (2.0**-15, 2.0**1000, 2.0**-1000):
        np.testing.assert_array_equal(sound.log_mel(samples * scale, 8000), x)
    assert not sound.log_mel(np.zeros(200), 8000).any()
    assert sound.log_mel([1.0], 8000).shape == (1, 40)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sound.log_mel([], 8000), ValueError, r"log_mel: samples has shape \(0,\), expected \(S,\)"),
        (lambda: sound.log_mel(np.ones((2, 9)), 8000), ValueError, r"log_mel: samples has shape \(2, 9\)"),
        (lambda: sound.log_mel(["a"], 8000), TypeError, "log_mel: samples has dtype <U1"),
        (lambda: sound.log_mel([1.0, np.inf], 8000), ValueError, "log_mel: samples are not all finite"),
        (lambda: sound.log_mel([np.nan], 8000), ValueError, "log_mel: samples are not all finite"),
        (lambda: sound.log_mel([1.0], 0), ValueError, "log_mel: rate is 0, expected"),
        (lambda: sound.log_mel([1.0], "8k"), TypeError, "log_mel: rate is '8k', expected a number"),
        (lambda: sound.log_mel([1.0], 8000, hop=0), ValueError, "log_mel: hop is 0, expected at least 1"),
        (lambda: sound.log_mel([1.0], 8000, window=5), ValueError, "log_mel: window is 5, expected an even number"),
        (lambda: sound.mel_bands(8000, bands=0), ValueError, "mel_bands: bands is 0, expected at least 1"),
        (
            lambda: sound.mel_bands(8000, bands=99),
            ValueError,
            r"mel_bands: bands is 99, of which \d+ have no frequency",
        ),
        (lambda: sound.mel_bands(8000, window=2.5), TypeError, r"mel_bands: window is 2\.5, expected an integer"),
    ],
)
def test_what_is_no_sound_is_told(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
