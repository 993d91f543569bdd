"""A Transformer of characters beside an LSTM: as many parameters, as many minutes, the same text.

    python -m pyrnn.examples.char_transformer --data tinyshakespeare.txt --plot race.png

    in       ids (S, N)          128 characters of each of N places
    embed    (S, N, E)           a vector for each, and sines that say where it stands
    layers   (S, N, E)           four times: look at all characters before, by attention; then a network of each step
    out      logits (S, N, V)    of the character that follows each

All steps of a Transformer are computed at once, but it knows nothing of what is before its 128 characters, and has to
learn what it is that stands one place before. An LSTM goes step by step, and its state is carried from batch to batch.
Both read the same batches, the LSTM goes on with more of them, which are as many as it reads in the same time. The last
tenth of the text is held out: its first half gives the curves, its second half was not looked at before the end.
Vaswani et al. 2017 (arXiv:1706.03762), in the form of Xiong et al. 2020 (arXiv:2002.04745).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import ngrams, plots, text
from pyrnn.app.charmodel import CharModel, bits_per_character
from pyrnn.plots import style

from . import count_option, data_option, enough, lesson, reading

BATCH, STEPS, LAYERS = 24, 128, 4
Array = np.ndarray
Points = list[tuple[float, float]]  # minutes, bits per character


class Transformer(pyrnn.Model):
    """ids (S, N) -> logits (S, N, V). It has no state: what it takes and gives in its place is None."""

    def __init__(self, size: int, width: int, rng: int) -> None:
        super().__init__(rng=rng)
        self.embed = pyrnn.Embedding(size, width)
        self.encode = pyrnn.PositionalEncoding(width)
        self.layers = [
            pyrnn.TransformerEncoderLayer(width, max(width // 32, 1), 4 * width, dropout=0.0, norm_first=True)
            for _ in range(LAYERS)
        ]
        self.norm = pyrnn.LayerNorm(width)
        self.head = pyrnn.Linear(width, size)
        self.embed.params["weight"] *= 0.5
        for layer in self.layers:  # at first each adds little
            for name in ("self_attn.out_proj.weight", "linear2.weight"):
                layer.params[name] *= (2 * LAYERS) ** -0.5

    def vjp(self, ids: Array, state: None = None) -> tuple[tuple[Array, None], Callable[[Array], None]]:
        x, pull_embed = self.embed.vjp(ids)
        pulls: list[Any] = []
        seeing = [partial(layer.vjp, is_causal=True) for layer in self.layers]  # each step what is before it
        vjps: list[Any] = [self.encode.vjp, *seeing, self.norm.vjp, self.head.vjp]
        for vjp in vjps:
            x, pull = vjp(x)
            pulls.append(pull)

        def pullback(dlogits: Array) -> None:
            for pull in reversed(pulls):
                dlogits = pull(dlogits)
            pull_embed(dlogits)

        return (x, None), pullback


def bits(model: Transformer | CharModel, ids: Array) -> float:
    """Bits per character of a text (T,). A Transformer reads it in windows, each of which begins half a window after
    the one before, and tells of its second half."""
    if isinstance(model, CharModel):
        return bits_per_character(model, ids)
    half = STEPS // 2
    places = np.arange(0, len(ids) - STEPS, half) + np.arange(STEPS)[:, None]  # (S, windows)
    nats = 0.0
    for part in np.array_split(places, -(-places.shape[1] // 64), axis=1):
        logits, _ = model(ids[part])
        nats += pyrnn.cross_entropy(logits[half:], ids[part + 1][half:])[0] * part.shape[1]
    return float(nats / places.shape[1] / math.log(2))


def learn(model: Transformer | CharModel, train: Array, valid: Array, updates: int, seed: int) -> Points:
    """Train, and judge twelve times on the way."""
    adam = pyrnn.AdamW(model, lr=3e-3, weight_decay=0.01)
    schedule = pyrnn.schedules.Cosine(adam, total=updates, warmup=min(100, updates // 10))
    rng = np.random.default_rng(seed)
    points: Points = []
    seconds, k, state, batches = 0.0, 0, None, None
    for update in (bar := tqdm(range(1, updates + 1), type(model).__name__, disable=None)):
        began = time.monotonic()
        if batches is None or k == len(batches):  # from another character on each time
            k, state, batches = 0, None, text.Batches(train[rng.integers(STEPS) :], BATCH, STEPS)
        ids, after = batches[k]
        model.zero_grad()
        (logits, state), pullback = model.vjp(ids, state)
        pullback(pyrnn.cross_entropy(logits, after)[1])
        pyrnn.clip_grad_norm(model, 1.0)
        adam.step()
        schedule.step()
        k += 1
        seconds += time.monotonic() - began
        if update % -(-updates // 12) == 0 or update == updates:
            points.append((seconds / 60, bits(model, valid)))
            bar.set_postfix_str(f"{points[-1][1]:.3f} bits after {points[-1][0]:.1f} minutes")
    return points


def lstm_of(parameters: int, vocabulary: text.Vocabulary, rng: int) -> CharModel:
    """The largest LSTM of two layers with at most so many parameters."""
    size = len(vocabulary)

    def count(h: int) -> int:
        return 64 * size + 4 * h * (64 + h + 2) + 4 * h * (2 * h + 2) + (h + 1) * size

    hidden = max(h for h in range(1, 4000) if count(h) <= max(parameters, count(1)))
    return CharModel(vocabulary, "lstm", 64, hidden, 2, dropout=0.1, rng=rng)


def draw(path: str, curves: dict[str, Points], level: float) -> None:
    """Bits per character over minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for (name, points), colour in zip(curves.items(), (plots.VALID, plots.TRAIN), strict=True):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name, markersize=4)
        axes.annotate(f"{points[-1][1]:.3f}", points[-1], xytext=(0, -12), textcoords="offset points", color=colour,
                      ha="right")  # fmt: skip
    axes.axhline(level, color=plots.INK, linestyle=":", label="5-gram")
    axes.set(xlabel="minutes", ylabel="bits per character, held out", xlim=(0, None))
    axes.legend(frameon=False)
    style.open_axes(axes)
    figure.savefig(path, dpi=120)


@lesson(__doc__)
@data_option("shakespeare", "a text file, UTF-8")
@count_option("--width", 128, "Numbers of each step in the Transformer.")
@count_option("--updates", 2800, "Of the Transformer; 8 for the LSTM take as long as 5.")
def main(data: str, width: int, updates: int, plot: str | None, seed: int) -> None:
    with reading():
        corpus = text.Corpus(text.read(data), [data])
        enough(data, "characters", len(corpus.train) + len(corpus.valid), 40 * STEPS)
    valid, test = np.array_split(corpus.valid, 2)
    transformer = Transformer(len(corpus.vocabulary), width, seed)
    lstm = lstm_of(transformer.num_parameters, corpus.vocabulary, seed)
    models: dict[str, Transformer | CharModel] = {f"Transformer, {LAYERS} x {width}": transformer}
    models[f"LSTM, 2 x {lstm.sizes['hidden']}"] = lstm
    counts = ngrams.NGram(corpus.train, 5, len(corpus.vocabulary))
    curves = {}
    print(
        f"{'bits per character':<22}{'last tenth':>12}{'1st half':>10}{'2nd half':>10}{'parameters':>12}{'minutes':>9}"
    )
    print(f"{'5-gram':<22}{counts.bits(corpus.valid):>12.3f}{counts.bits(valid):>10.3f}{counts.bits(test):>10.3f}")
    for (name, model), count in zip(models.items(), (updates, 8 * updates // 5), strict=True):
        curves[name] = learn(model, corpus.train, valid, count, seed)
        minutes, first = curves[name][-1]
        print(f"{name:<22}{bits(model, corpus.valid):>12.3f}{first:>10.3f}{bits(model, test):>10.3f}"
              f"{model.num_parameters:>12,}{minutes:>9.1f}", flush=True)  # fmt: skip
    if plot:
        draw(plot, curves, counts.bits(valid))


if __name__ == "__main__":
    main()
