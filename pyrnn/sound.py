"""Features of sound: how much there is of each band of tones, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import kernels
from .core.checks import MOST, Array, float_array, integer, real, shape_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def mel_bands(rate: float, *, window: int = 256, bands: int = 40) -> Array:
    """How much of each frequency of a spectrum is in each band of tones: (window / 2 + 1, bands) float64, 0 to 1.

    Triangles that overlap by a half, equally wide in mel, 2595 log10(1 + hertz / 700), from 0 to half of the rate:
    narrow where tones are low, as ears hear (Davis and Mermelstein 1980).

    rate    samples a second
    window  samples of a frame, an even number; the frequencies are those of its `numpy.fft.rfft`

    TypeError and ValueError for what is no such number, ValueError too for a band so narrow that it has no frequency.

        energies = np.abs(np.fft.rfft(frames)) ** 2 @ pyrnn.sound.mel_bands(8000)  # (T, 256) -> (T, 40)
    """
    return _bands("mel_bands", rate, window, bands)


def log_mel(samples: ArrayLike, rate: float, *, window: int = 256, hop: int = 80, bands: int = 40) -> Array:
    """Logarithms of the energies of `mel_bands` in each frame of a recording: (T, bands) float32, T = S // hop + 1.

    samples  (S,) real numbers, at least one
    window   samples of a frame, under a Hann window; the first is around the first sample, and there is silence beyond
             both ends
    hop      samples from one frame to the next

    Each band has mean 0 over the recording, which takes away its loudness and its microphone, and is in units of 3 nats
    (13 dB), which makes the numbers about 1; 60 dB below the loudest is silence. Errors as in `mel_bands`, and a
    TypeError or ValueError for samples that are not finite real numbers of this shape.

        x, lengths = pyrnn.data.pad([pyrnn.sound.log_mel(recording, 8000) for recording in recordings])  # (T, N, 40)
    """
    call = "log_mel"
    array = float_array(call, "samples", samples).astype(np.float64)
    if array.ndim != 1 or not len(array):
        raise shape_error(call, "samples", array.shape, "(S,), at least one of them")
    loudest = np.abs(array).max()
    if not np.isfinite(loudest):
        raise ValueError(f"{call}: samples are not all finite")
    weights, hop = _bands(call, rate, window, bands), integer(call, "hop", hop, 1, MOST)
    padded = np.pad(np.ldexp(array, -np.frexp(loudest)[1]), window // 2)  # within -1..1: squares stay finite
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    spectra = np.fft.rfft(frames, axis=1)
    energies = kernels.linear.forward(spectra.real**2 + spectra.imag**2, np.ascontiguousarray(weights.T), None)
    logs = np.log(energies + 1e-6 * energies.max() + 1e-12)
    features: Array = ((logs - logs.mean(axis=0)) / 3).astype(np.float32)
    return features


def _bands(call: str, rate: float, window: int, bands: int) -> Array:
    """What `mel_bands` gives."""
    rate, bands = real(call, "rate", rate, 1e-3, 1e12), integer(call, "bands", bands, 1, MOST)
    if integer(call, "window", window, 2, MOST) % 2:
        raise ValueError(f"{call}: window is {window}, expected an even number")
    top = 2595 * np.log10(1 + rate / 2 / 700)  # in mel
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)  # in hertz
    hertz = np.linspace(0, rate / 2, window // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    weights: Array = np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)
    if not weights.any(axis=0).all():
        raise ValueError(
            f"{call}: bands is {bands}, of which {np.sum(~weights.any(axis=0))} have no frequency; expected fewer, or "
            f"a longer window than {window}"
        )
    return weights
