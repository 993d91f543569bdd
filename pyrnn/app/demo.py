"""`pyrnn demo`: a network learns in seconds which language a surname is from, and can be asked."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import click
import numpy as np

from .terminal import SEED, Real, _note, _Progress

SECONDS = 15.0
HIDDEN, BATCH, RATE, DROPOUT = 64, 64, 4e-3, 0.3
LIKELIEST = 3  # languages of an answer
JUDGED_EVERY = 1.0  # seconds


@click.command()
@click.option("--seconds", type=Real(min=0, min_open=True), default=SECONDS, show_default=True,
              help="Learn for so long.")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the initial weights and the order of names.")
def demo(seconds: float, seed: int) -> None:
    """Train a network that tells a surname's language, and ask it.

    It learns from names that come with pyrnn, is judged by others, and then reads names from the standard input, one a
    line, and answers with the likeliest languages. An empty line, Ctrl-D or Ctrl-C ends it.
    """
    guesser = Guesser(seed)
    known, new = len(guesser.learned), len(guesser.judged)
    _note(f"{known:,} surnames in {len(guesser.languages)} languages to learn from, {new:,} others to be judged by.\n"
          f"An LSTM of {HIDDEN} units in each direction reads them letter by letter.")  # fmt: skip
    part, right = 0.0, 0.0
    with contextlib.closing(_Progress(lambda: part, lambda: f"{right:.0%} of the others are right")) as progress:
        judged = -math.inf
        for part in guesser.learn(seconds):
            now = time.monotonic()
            if now - judged >= JUDGED_EVERY or part == 1:
                right, judged = guesser.share_right(), now
            progress.show()
    _note(f"It is right about {right:.0%} of the names that it never saw; by chance it would be about "
          f"{1 / len(guesser.languages):.0%}.")  # fmt: skip
    for name in _asked("A surname, or nothing to end: "):
        print(f"{name}: {guesser.answer(name)}", flush=True)


def _asked(prompt: str) -> Iterator[str]:
    """The lines of the standard input up to an empty one, asked for where somebody sits at a terminal."""
    live = sys.stdin is not None and sys.stdin.isatty()
    while sys.stdin is not None:
        try:
            line = input(prompt if live else "").strip()
        except (EOFError, KeyboardInterrupt):
            if live:
                print()
            return
        if not line:
            return
        yield line


def spellings(name: str) -> list[str]:
    """A name in small letters, as it is and without accents: "Müller" -> ["müller", "muller"]."""
    small = unicodedata.normalize("NFC", name.lower())
    bare = "".join(c for c in unicodedata.normalize("NFD", small) if not unicodedata.combining(c))
    return list(dict.fromkeys((small, bare)))


class Guesser:
    """A network from the letters of a name to languages, the names that it learns from and those it is judged by.

    guesser = Guesser(seed=0)
    for part in guesser.learn(seconds=5): ...
    guesser.answer("Kowalski")  # "Polish 98%, Greek 1%"
    """

    def __init__(self, seed: int) -> None:
        import pyrnn
        from pyrnn import data, text

        self.rng = np.random.default_rng(seed)
        self.names, languages = data.load_names()
        self.languages = sorted(set(languages))
        self.targets = np.array([self.languages.index(language) for language in languages])
        self.learned, self.judged = data.held_out(len(self.names), 0.1, seed)
        self.letters = text.Words.of(c for name in self.names for spelling in spellings(name) for c in spelling)
        self.model = pyrnn.Sequential(
            pyrnn.Embedding(len(self.letters), 32), pyrnn.Dropout(DROPOUT / 2, per_sequence=True),
            pyrnn.LSTM(32, HIDDEN, bidirectional=True), pyrnn.LastStep(bidirectional=True),
            pyrnn.Dropout(DROPOUT), pyrnn.Linear(2 * HIDDEN, len(self.languages)), rng=self.rng,
        )  # fmt: skip

    def learn(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
        """Learn for so long, and say after every batch what part of the time is over, 1 at last.

        Names of rare languages count more, n^-0.5 each of n: asked is which language a name is from, not which list.
        """
        import pyrnn
        from pyrnn import data

        pairs = [(spelling, row) for row in self.learned for spelling in spellings(self.names[row])]
        ids, targets = [self.letters.encode(name) for name, _ in pairs], self.targets[[row for _, row in pairs]]
        weight = np.maximum(np.bincount(targets, minlength=len(self.languages)), 1) ** -0.5
        adam = pyrnn.Adam(self.model)
        start, part = clock(), 0.0
        while part < 1:
            for rows in data.minibatches(len(ids), BATCH, self.rng):
                adam.lr = RATE * (1 + math.cos(math.pi * part)) / 2
                letters, lengths = data.pad([ids[row] for row in rows])
                self.model.zero_grad()
                logits, pullback = self.model.vjp(letters, lengths=lengths)
                _, dlogits = pyrnn.cross_entropy(logits, targets[rows], weight=weight)
                pullback(dlogits)
                pyrnn.clip_grad_norm(self.model, 1.0)
                adam.step()
                part = min((clock() - start) / seconds, 1.0)
                yield part
                if part == 1:
                    break

    def probabilities(self, names: Sequence[str]) -> np.ndarray:
        """How likely each of the languages is for N names, (N, V)."""
        import pyrnn

        letters, lengths = self.letters.batch(names)
        return np.exp(pyrnn.LogSoftmax()(self.model(letters, lengths=lengths)))

    def share_right(self) -> float:
        """The part of the names it is judged by whose language is the likeliest one."""
        said = self.probabilities([spellings(self.names[row])[0] for row in self.judged]).argmax(axis=1)
        return float(np.mean(said == self.targets[self.judged]))

    def answer(self, name: str) -> str:
        """The likeliest languages of a name in words; or that there are letters which no name had."""
        known = [spelling for spelling in spellings(name) if all(letter in self.letters for letter in spelling)]
        if not known:
            strange = dict.fromkeys(letter for letter in spellings(name)[-1] if letter not in self.letters)
            return f"no name had {', '.join(map(repr, strange))}, so it cannot say"
        chances = self.probabilities(known[:1])[0]
        best = [k for k in np.argsort(-chances)[:LIKELIEST] if round(100 * chances[k]) > 0]
        return ", ".join(f"{self.languages[k]} {chances[k]:.0%}" for k in best)
