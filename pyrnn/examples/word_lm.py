"""A language model of words: an LSTM reads a fifth of a million of them, beside n-grams, which are good at so few.

    python -m pyrnn.examples.word_lm --data tinyshakespeare.txt --plot words.png

    in       ids (T, N)          words without capitals, other signs and line ends, of N places that go on
    embed    (T, N, E)           a vector for each; half of its numbers are dropped in training
    rnn      (T, N, E)           an LSTM whose state is carried to the next batch; half of what it says is dropped
    out      logits (T, N, V)    how well it fits the vector of each word, the same vectors: tied weights

Tied weights (Press & Wolf 2017, arXiv:1608.05859) and dropout (Zaremba et al. 2014, arXiv:1409.2329) are what lets a
network learn from so little. All models have the same words, those that come twice in the first eight tenths of the
text; all others are one, the unknown. They learn from these tenths; the ninth chooses the epoch, the discount of Kneser
& Ney and the weights of mixtures; the last one judges: perplexity 65.7, that of the best trigram 89.5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import ngrams, plots, text
from pyrnn.plots import style

from . import count_option, data_option, enough, lesson, reading

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|\n|[^\w\s]")  # letters, digits, a line end or one other sign
DISCOUNTS = 0.7, 0.75, 0.8, 0.85, 0.9, 0.95
NINTH, LAST = "ninth tenth", "last tenth"
Array = np.ndarray


def read(path: str) -> tuple[text.Words, tuple[Array, Array, Array]]:
    """The words that are known, and the ids (T,) of the three parts."""
    words = WORD.findall(text.read(path).lower())
    enough(path, "words", len(words), 1000)
    ends = [len(words) * tenths // 10 for tenths in (0, 8, 9, 10)]
    train, valid, test = (words[a:b] for a, b in pairwise(ends))
    known = text.Words.of(train, minimum=2)
    return known, (known.encode(train), known.encode(valid), known.encode(test))


class WordModel(pyrnn.Model):
    """ids (T, N) -> logits (T, N, V) of the words that follow, and the state."""

    def __init__(self, size: int, width: int, rng: int) -> None:
        super().__init__(rng=rng)
        self.embed = pyrnn.Embedding(size, width)
        self.rnn = pyrnn.LSTM(width, width)
        self.drop = pyrnn.Dropout(0.5)
        self.out = pyrnn.Linear(width, size, weight=self.embed)
        self.embed.params["weight"] *= 0.1

    def vjp(self, ids: Array, state: Any = None) -> tuple[tuple[Array, Any], Callable[[Array], None]]:
        x, pull_embed = self.embed.vjp(ids)
        x, pull_in = self.drop.vjp(x)
        (y, state), pull_rnn = self.rnn.vjp(x, state)
        y, pull_drop = self.drop.vjp(y)
        logits, pull_out = self.out.vjp(y)
        return (logits, state), lambda d: pull_embed(pull_in(pull_rnn(pull_drop(pull_out(d)))[0]))

    def probabilities(self, ids: Array) -> Array:
        """The probability of each word but the first, after all before it: (T,) -> (T - 1,)."""
        state, found = None, []
        for k in range(0, len(ids) - 1, 256):
            after = ids[k + 1 : k + 257]
            logits, state = self(ids[k : k + len(after), None], state)
            shares = np.exp(logits[:, 0] - logits[:, 0].max(axis=-1, keepdims=True))
            found.append(shares[np.arange(len(after)), after] / shares.sum(axis=-1))
        return np.concatenate(found)


def perplexity(probabilities: Array) -> float:
    return math.exp(-np.log(probabilities).mean())


def learn(model: WordModel, train: Array, valid: Array, epochs: int) -> list[tuple[float, float]]:
    """Leave it as it was when it was best on the ninth tenth: perplexity in training and on that, of each epoch."""
    batches = text.Batches(train, 20, 35)
    adam = pyrnn.Adam(model, lr=3e-3)
    schedule = pyrnn.schedules.Cosine(adam, total=epochs * len(batches))
    curve: list[tuple[float, float]] = []
    best = model.state_dict()
    for _ in (bar := tqdm(range(epochs), disable=None)):
        state, nats = None, 0.0
        for k in range(len(batches)):
            ids, after = batches[k]
            model.zero_grad()
            (logits, state), pullback = model.vjp(ids, state)
            loss, dlogits = pyrnn.cross_entropy(logits, after)
            nats += loss / len(batches)
            pullback(dlogits)
            pyrnn.clip_grad_norm(model, 1.0)
            adam.step()
            schedule.step()
        curve.append((math.exp(nats), perplexity(model.probabilities(valid))))
        bar.set_postfix_str(f"perplexity {curve[-1][0]:.1f}, of the {NINTH} {curve[-1][1]:.1f}")
        if curve[-1][1] == min(valid for _, valid in curve):
            best = model.state_dict()
    model.load_state_dict(best)
    return curve


def weigh(parts: Array) -> Array:
    """The weights (K,) with which the mixture of K models, their probabilities (K, T), is best: by EM."""
    weights = np.full(len(parts), 1 / len(parts))
    for _ in range(200):
        shares = weights[:, None] * parts
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return weights


def counted(train: Array, size: int, parts: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """What n-grams say of the words but the first of each part, by their names."""

    def said(model: ngrams.NGram) -> dict[str, Array]:
        return {name: model.probabilities(ids)[1:] for name, ids in parts.items()}

    plain = [said(ngrams.NGram(train, order, size)) for order in (1, 2, 3)]
    weights = weigh(np.array([model[NINTH] for model in plain]))
    discounted = [said(ngrams.NGram(train, 3, size, discount=discount)) for discount in DISCOUNTS]
    return {
        "bigram": plain[1],
        "trigram": plain[2],
        "trigram, interpolated by weights": {name: weights @ [model[name] for model in plain] for name in parts},
        "trigram, Kneser-Ney": min(discounted, key=lambda model: perplexity(model[NINTH])),
    }


def draw(path: str, curve: list[tuple[float, float]], models: Mapping[str, dict[str, Array]], test: Array,
         train: Array) -> None:  # fmt: skip
    """Perplexities along the training, and of the last tenth by how often a word came before."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(curve) + 1)
    for k, (colour, name) in enumerate([(plots.TRAIN, "training"), (plots.VALID, NINTH)]):
        left.plot(epochs, [point[k] for point in curve], "o-", color=colour, label=f"LSTM, {name}", markersize=3)
    for name, line in (("trigram", ":"), ("trigram, Kneser-Ney", "--")):
        left.axhline(perplexity(models[name][NINTH]), color=plots.INK, linestyle=line, label=f"{name}, {NINTH}")
    left.set(xlabel="epochs", ylabel="perplexity", ylim=(0, 2 * perplexity(models["trigram"][NINTH])))
    said, edges = test[1:], [2, 10, 100, 1000, len(train)]
    often = np.bincount(train, minlength=int(said.max()) + 1)[said] * (said > 0)
    rows = {"unknown": said == 0, **{f"from {a}": (often >= a) & (often < b) for a, b in pairwise(edges)}}
    for name, colour in (("trigram, Kneser-Ney", plots.INK), ("LSTM", plots.VALID)):
        bits = -np.log2(models[name][LAST])
        means = [bits[row].mean() if row.any() else np.nan for row in rows.values()]
        right.plot(list(rows), means, "o-", color=colour, label=f"{name}, {LAST}")
    right.set_xticks(range(len(rows)), [f"{name}\n{row.mean():.0%}" for name, row in rows.items()], fontsize=8)
    right.set(xlabel="how often the word came in training, and its share of the words", ylabel="bits a word")
    for axes in (left, right):
        style.open_axes(axes)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


@lesson(__doc__)
@data_option("shakespeare", "a text file, UTF-8")
@count_option("--epochs", 6)
@count_option("--width", 200, "Numbers of a word's vector, and units.")
def main(data: str, width: int, epochs: int, plot: str | None, seed: int) -> None:
    with reading():
        words, (train, valid, test) = read(data)
    parts = {NINTH: valid, LAST: test}
    model = WordModel(len(words), width, seed)
    models = counted(train, len(words), parts)
    curve = learn(model, train, valid, epochs)
    models["LSTM"] = {name: model.probabilities(ids) for name, ids in parts.items()}
    both = {name: np.array([models["LSTM"][name], models["trigram, Kneser-Ney"][name]]) for name in parts}
    weights = weigh(both[NINTH])
    models[f"{weights[0]:.0%} LSTM, {weights[1]:.0%} Kneser-Ney"] = {name: weights @ both[name] for name in parts}
    unknown = ", ".join(f"{np.mean(ids == 0):.1%} of the {name}" for name, ids in parts.items())
    print(f"{len(words)} words known; unknown are {unknown}")
    print(f"{'perplexity of the':<36}{NINTH:>12}{LAST:>12}")
    for name, said in models.items():
        print(f"{name:<36}" + "".join(f"{perplexity(said[part]):>12.1f}" for part in parts))
    if plot:
        draw(plot, curve, models, test, train)


if __name__ == "__main__":
    main()
