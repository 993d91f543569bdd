"""A name for a language: one vector in, a sequence of letters out (one-to-many).

    python -m pyrnn.examples.name_writer --data names/ --plot asked.png

    language  one number of 18, as a one-hot vector      (N, 18)
    decoder   a GRU                                      starts from the language and is told it at every step again
    in        the letters so far, after a start mark     (T, N)
    out       one number for each letter that could come (T, N, V), the end of the name among them

Training is by teacher forcing. Writing is free running: a letter is drawn from the softmax of logits / temperature and
read at the next step, until the end is drawn. A low temperature writes typical names, a high one daring ones. Languages
with few names are shown more often than their share, n^0.5 times instead of n for n names.

Two questions are asked of the names: are they new, that is in no list of any language? And does another network, the
classifier of `name_language`, trained on the same names, recognise the language that was asked for? It does not where a
small language shares its names with a large one, Scottish with English, Portuguese with Spanish. It takes a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import decoding, metrics, plots, text

from . import count_option, data_option, lesson, name_language, reading

LONGEST = 20


class Writer:
    """A decoder with its letters and languages. `writer(["Czech", "Irish"], rng)` -> two names."""

    def __init__(self, pairs: Sequence[tuple[str, str]], hidden: int, rng: np.random.Generator) -> None:
        self.letters = text.Vocabulary.of("".join(name for name, _ in pairs), marks=["begin", "end"])
        self.languages = sorted({language for _, language in pairs})
        many = len(self.languages)
        self.decoder = pyrnn.Decoder(len(self.letters), 32, hidden, vector_size=many, dropout=0.3, rng=rng)

    def vectors(self, languages: Sequence[str]) -> np.ndarray:
        """One-hot, (N, 18)."""
        return np.eye(len(self.languages), dtype=np.float32)[[self.languages.index(name) for name in languages]]

    def learn(self, pairs: Sequence[tuple[str, str]], epochs: int, rng: np.random.Generator, batch: int = 64) -> None:
        """As many names as there are in an epoch, drawn so that rare languages come more often."""
        counts = Counter(language for _, language in pairs)
        weights = np.array([counts[language] ** -0.5 for _, language in pairs])
        steps = epochs * -(-len(pairs) // batch)
        adam = pyrnn.Adam(self.decoder, lr=3e-3)
        schedule = pyrnn.schedules.Cosine(adam, steps)
        for step in (bar := tqdm(range(steps))):
            shown = [pairs[row] for row in rng.choice(len(pairs), batch, p=weights / weights.sum())]
            tokens, lengths = pyrnn.data.pad([self.letters.encode(name, begin=True, end=True) for name, _ in shown])
            vectors = self.vectors([language for _, language in shown])
            self.decoder.zero_grad()
            logits, pullback = self.decoder.vjp(tokens[:-1], vectors, lengths=lengths - 1)
            loss, dlogits = pyrnn.cross_entropy(logits, tokens[1:], lengths=lengths - 1)
            pullback(dlogits)
            pyrnn.clip_grad_norm(self.decoder, 1.0)
            adam.step()
            schedule.step()
            if step % 100 == 0:
                bar.set_description(f"{loss / np.log(2):.2f} bits per letter")

    def __call__(self, languages: Sequence[str], rng: np.random.Generator, temperature: float = 0.5) -> list[str]:
        """A name for each of the languages."""
        state, (begin, end) = self.decoder.start(self.vectors(languages)), (self.letters.begin, self.letters.end)
        first = [begin] * len(languages)
        tokens, lengths = decoding.sample(self.decoder.step, state, first, end, LONGEST, temperature, rng)
        return [self.letters.decode(tokens[:n, row]) for row, n in enumerate(lengths)]


@lesson(__doc__)
@data_option("names", "a folder with a file of names for each language, such as Czech.txt")
@count_option("--hidden", 256, "Units of the GRU.")
@count_option("--epochs", 12)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.5, show_default=True)
@count_option("--count", 100, "Names for each language.")
def main(data: str, plot: str | None, hidden: int, epochs: int, temperature: float, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with reading():
        pairs = name_language.read(data)
    writer = Writer(pairs, hidden, rng)
    print("The writer learns ...")
    writer.learn(pairs, epochs, rng)
    asked = np.repeat(writer.languages, count)
    names = writer(list(asked), rng, temperature)
    print("The classifier learns ...")
    judges = np.random.default_rng(seed)
    said = name_language.vote([name_language.train(pairs, epochs, judges) for _ in range(3)], names)
    known = {name for name, _ in pairs}
    new = np.array([name not in known for name in names])
    print(f"\n{'asked for':<12}{'new':>6}{'recognised':>12}   for instance")
    for language in writer.languages:
        own = asked == language
        examples = list(dict.fromkeys(np.array(names)[own & new]))[:5]
        right = np.mean(said[own & new] == language) if examples else 0
        print(f"{language:<12}{new[own].mean():>6.0%}{right:>12.0%}   {', '.join(examples)}")
    right = said == asked
    print(f"\n{len(names)} names: {new.mean():.1%} new, {len(set(names)) / len(names):.1%} different; the language is")
    print(f"recognised in {right[new].mean():.1%} of the new ones, in {right.mean():.1%} of all; by chance: ", end="")
    print(f"{1 / len(writer.languages):.1%}")
    if plot:
        counts = metrics.confusions(said[new], asked[new], writer.languages)
        title = f"New names: the language asked for, and what the classifier says ({right[new].mean():.0%} the same)"
        plots.confusion_matrix(
            plot, counts, writer.languages, title, true_label="asked for", said_label="recognised as"
        )


if __name__ == "__main__":
    main()
