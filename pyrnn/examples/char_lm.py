"""A character language model: three layers of 512 LSTM units read Shakespeare, and then write some.

    python -m pyrnn.examples.char_lm --data tinyshakespeare.txt --plot losses.png

    in       tokens (T, N)       T characters of N places in the text, which go on from batch to batch
    embed    (T, N, 64)
    hidden   (T, N, 512)         three layers, one on the other; their state is carried to the next batch
    out      logits (T, N, V)    of the character that follows each

The state is carried, the gradient is not: truncated backpropagation through time. Half of the numbers between layers,
and on the way to the logits, are dropped in training (Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329); without it
the network knows its million characters by heart before it can write. The last tenth of the text is held out and judges
the network beside n-grams, by bits per character, perplexity (2 to the power of those) and memory. After Karpathy 2015,
"The Unreasonable Effectiveness of Recurrent Neural Networks". It takes some twenty minutes.
"""

from __future__ import annotations

import math
import time

from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import ngrams, plots, text
from pyrnn.app.charmodel import CharModel, bits_per_character, sample, uniform_bits

from . import count_option, data_option, lesson, reading

ORDERS = 2, 3, 5
Points = list[tuple[int, float]]  # characters read, bits per character


def learn(model: CharModel, batches: text.Batches, corpus: text.Corpus, epochs: int) -> tuple[Points, Points]:
    """Train, and leave the model as it was when it was best on the held-out part: losses in training, and on that."""
    adam = pyrnn.Adam(model, lr=2e-3)
    schedule = pyrnn.schedules.Cosine(adam, total=epochs * len(batches))
    train: Points = []
    valid: Points = []
    best, best_bits, read = model.state_dict(), math.inf, 0
    with tqdm(total=epochs * batches.characters, unit="chars", unit_scale=True) as bar:
        for _ in range(epochs):
            state = None
            for k in range(len(batches)):
                tokens, targets = batches[k]
                model.zero_grad()
                (logits, state), pullback = model.vjp(tokens, state)
                loss, dlogits = pyrnn.cross_entropy(logits, targets)
                pullback(dlogits)
                pyrnn.clip_grad_norm(model, 1.0)
                adam.step()
                schedule.step()
                read += tokens.size
                train.append((read, loss / math.log(2)))
                bar.update(tokens.size)
                bar.set_postfix_str(f"{train[-1][1]:.3f} bits" + (f", held out {valid[-1][1]:.3f}" if valid else ""))
            valid.append((read, bits_per_character(model, corpus.valid, tokens.shape[1])))
            if valid[-1][1] < best_bits:
                best, best_bits = model.state_dict(), valid[-1][1]
    model.load_state_dict(best)
    return train, valid


@lesson(__doc__)
@data_option("shakespeare", "a text file, UTF-8")
@count_option("--hidden", 512, "Hidden units of a layer.")
@count_option("--layers", 3, "Layers.")
@count_option("--epochs", 10, "Passes over the text.")
@count_option("--batch", 32, "Places read side by side.")
@count_option("--steps", 96, "Steps of the gradient.")
def main(data: str, hidden: int, layers: int, epochs: int, batch: int, steps: int, plot: str | None, seed: int) -> None:
    with reading():
        corpus = text.Corpus(text.read(data), [data])
        batches = text.Batches(corpus.train, batch, steps, corpus.name)
    size = len(corpus.vocabulary)
    model = CharModel(corpus.vocabulary, "lstm", 64, hidden, layers, dropout=0.5, rng=seed)
    began = time.monotonic()
    train, valid = learn(model, batches, corpus, epochs)
    minutes = (time.monotonic() - began) / 60

    bits: dict[str, float] = {}
    print(f"{'held-out tenth':<18}{'bits per character':>20}{'perplexity':>12}{'memory':>11}")
    rows: list[tuple[str, float, float]] = []
    for order in ORDERS:
        counts = ngrams.NGram(corpus.train, order, size)
        rows.append((f"{order}-gram", counts.bits(corpus.valid), counts.nbytes))
    rows.append((f"LSTM, {layers} x {hidden}", min(valid, key=lambda point: point[1])[1], 4 * model.num_parameters))
    for name, value, nbytes in rows:
        bits[name] = value
        print(f"{name:<18}{value:>20.3f}{2**value:>12.2f}{nbytes / 2**20:>8.1f} MB")
    print(f"{epochs} epochs in {minutes:.1f} minutes. It writes:\n")
    print("".join(sample(model, "\n", 400, temperature=0.8, rng=seed)))
    if plot:
        lines = {"all characters equally likely": uniform_bits(model), f"{ORDERS[-1]}-gram": bits[f"{ORDERS[-1]}-gram"]}
        plots.loss_curve(plot, train, valid, f"LSTM, {layers} layers of {hidden} units", lines)


if __name__ == "__main__":
    main()
