"""French phrases into English, letter by letter: an encoder, a decoder, and attention between them.

    python -m pyrnn.examples.translation --data eng-fra.tsv --plot attention.png

    source    "Ça marche."    letters (K, N)      the encoder, a GRU in both directions, reads it: (K, N, 2H)
    vector    its two final states, (N, 2H)       where the decoder starts
    target    "It works."     letters (T, N)      the decoder, a GRU, predicts each from those before it: (T, N, V)
    attention                 weights (N, T, K)   at every letter it writes, the decoder looks back at all of the source

K and T are of no relation: sequence to sequence (Sutskever et al. 2014, Cho et al. 2014). Without attention all the
decoder knows of the source is the vector; with it, it can look (Bahdanau et al. 2015, Luong et al. 2015). Training is
by teacher forcing: the decoder reads the right letters, so all of its steps are one call. `--ratio` below 1 gives it
its own letters now and then (scheduled sampling, Bengio et al. 2015). Translating is free running: greedy, or a beam
that keeps the likeliest beginnings.

The phrases are very short and there are 5,000 of them. A tenth of the French ones are held out, with all their
translations; a translation counts where it is one of them, letter by letter. With attention 44% of the 432 do, by a
beam of 5 (41% greedy), without 30% (27%): two minutes for the two of them on two cores. Of the 140 phrases whose
English stands nowhere in the training part, under no other French phrase either, it is 13% and 5%.
"""

from __future__ import annotations

from collections import defaultdict

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import decoding, plots, text

from . import data_option, plot_option, seed_option

START, END = "<s>", "</s>"  # numbers 0 and 1 of the English letters
LONGEST = 60


class Phrases:
    """French phrases with their translations: the letters' numbers of both, a training part and a held-out part."""

    def __init__(self, path: str, seed: int) -> None:
        lines = text.read(path).translate({0xA0: " ", 0x202F: " "}).splitlines()
        english = defaultdict(list)  # of each French phrase
        for line in lines:
            target, source = line.split("\t")[:2]
            english[source].append(target)
        phrases = sorted(english)
        train, valid = pyrnn.data.held_out(len(phrases), 0.1, seed)
        self.pairs = [(phrases[k], target) for k in train for target in english[phrases[k]]]
        self.held_out = {phrases[k]: set(english[phrases[k]]) for k in valid}
        self.known = {target for _, target in self.pairs}
        self.french = ["?", *sorted({letter for source, _ in self.pairs for letter in source} - {"?"})]
        self.english = [START, END, *sorted({letter for _, target in self.pairs for letter in target})]

    def sources(self, phrases: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (K, N), lengths (N,); a letter never seen is a "?"."""
        number = {letter: k for k, letter in enumerate(self.french)}
        return pyrnn.data.pad([[number.get(letter, 0) for letter in phrase] for phrase in phrases])

    def targets(self, phrases: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (T + 1, N), from START to END, lengths (N,) of what is read: all but END."""
        number = {letter: k for k, letter in enumerate(self.english)}
        numbers, lengths = pyrnn.data.pad([[0, *(number[letter] for letter in phrase), 1] for phrase in phrases])
        return numbers, lengths - 1


def learn(
    model: pyrnn.EncoderDecoder, phrases: Phrases, epochs: int, ratio: float, rng: np.random.Generator, name: str
) -> None:
    """Teacher forcing with this ratio, Adam, the learning rate falling along a cosine."""
    batch = 64
    adam = pyrnn.Adam(model, lr=3e-3)
    total = epochs * -(-len(phrases.pairs) // batch)
    schedule = pyrnn.schedules.Cosine(adam, total, warmup=total // 30)
    for _ in (bar := tqdm(range(epochs), desc=name)):
        losses = []
        for rows in pyrnn.data.minibatches(len(phrases.pairs), batch, rng):
            pairs = [phrases.pairs[row] for row in rows]
            source, k = phrases.sources([french for french, _ in pairs])
            target, t = phrases.targets([english for _, english in pairs])
            read = target[:-1]
            if ratio < 1:
                read = decoding.scheduled_inputs(model.step, model.start(source, k), read, ratio, rng)
            model.zero_grad()
            logits, pullback = model.vjp(source, read, source_lengths=k, lengths=t)
            loss, dlogits = pyrnn.cross_entropy(logits, target[1:], lengths=t)
            pullback(dlogits)
            pyrnn.clip_grad_norm(model, 1.0)
            adam.step()
            schedule.step()
            losses.append(loss)
        bar.set_postfix_str(f"{np.mean(losses) / np.log(2):.2f} bits per letter")


def translate(model: pyrnn.EncoderDecoder, phrases: Phrases, french: list[str], width: int) -> list[str]:
    """The likeliest translations: greedy for a width of 1, else by a beam."""
    state = model.start(*phrases.sources(french))
    if width == 1:
        letters, lengths = decoding.greedy(model.step, state, [0] * len(french), 1, LONGEST)
    else:
        beams, all_lengths, _ = decoding.beam_search(model.step, state, [0] * len(french), 1, LONGEST, width, 1.0)
        letters, lengths = beams[:, :, 0], all_lengths[:, 0]
    return ["".join(phrases.english[k] for k in letters[:n, row]) for row, n in enumerate(lengths)]


def draw(path: str, model: pyrnn.EncoderDecoder, phrases: Phrases, pairs: list[tuple[str, str]]) -> None:
    """Where the decoder looks while it writes."""
    maps = []
    for french, english in pairs:
        weights = model.attention_weights(phrases.sources([french])[0], phrases.targets([english])[0][:-1])
        maps.append((weights[0, :-1], list(english), list(french), f"{french}  ->  {english}"))
    plots.attention_maps(path, maps, "Rows: the letters as they are written. Columns: where the decoder looks")


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@data_option("a file of lines, each an English phrase, a tab, a French phrase", "https://www.manythings.org/anki/")
@click.option("--hidden", type=click.IntRange(min=1), default=128, show_default=True, help="Units of each GRU.")
@click.option("--epochs", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--ratio", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Of teacher forcing.")
@click.option("--beam", type=click.IntRange(min=1), default=5, show_default=True, help="Width.")
@plot_option
@seed_option
def main(data: str, hidden: int, epochs: int, ratio: float, beam: int, plot: str | None, seed: int) -> None:
    phrases = Phrases(data, seed)
    french = list(phrases.held_out)
    new = np.array([not phrases.held_out[phrase] & phrases.known for phrase in french])
    print(f"{len(phrases.pairs)} pairs to learn from; {len(french)} French phrases held out, {new.sum()} of them with")
    print("translations that stand nowhere in the training part.\n")
    results = {}
    for name, attention in (("without attention", False), ("with attention", True)):
        rng = np.random.default_rng(seed)
        sizes = len(phrases.french), len(phrases.english), 64, hidden
        model = pyrnn.EncoderDecoder(*sizes, attention=attention, dropout=0.3, rng=rng)
        learn(model, phrases, epochs, ratio, rng, name)
        for width in (1, beam):
            written = translate(model, phrases, french, width)
            results[name, width] = np.array([w in phrases.held_out[f] for f, w in zip(french, written, strict=True)])
    print(f"\n{'exact matches':<20}{'greedy':>10}{f'beam of {beam}':>12}{'new English':>14}")
    for name in ("without attention", "with attention"):
        greedy, beams = results[name, 1], results[name, beam]
        fresh = beams[new].mean() if new.any() else np.nan
        print(f"{name:<20}{greedy.mean():>10.1%}{beams.mean():>12.1%}{fresh:>14.1%}")
    print()
    shown = np.random.default_rng(seed).permutation(len(french))[:12]
    for k in shown:
        print(
            f"  {french[k]:<32} {written[k]:<24} {'' if results[name, beam][k] else min(phrases.held_out[french[k]])}"
        )
    if plot:
        right = [(french[k], written[k]) for k in np.flatnonzero(results[name, beam]) if len(french[k]) > 12]
        draw(plot, model, phrases, sorted(right, key=lambda pair: abs(len(pair[0]) - 22))[:4])


if __name__ == "__main__":
    main()
