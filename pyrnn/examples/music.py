"""Music: a network writes folk tunes, character by character, in ABC notation.

    python -m pyrnn.examples.music --data music/ --out tunes.abc

    in       tokens (T, N)     a tune in each column, "[M:6/8][L:1/8][K:D]f|edc d2B|...": metre, unit, key, notes, bars
    hidden   2 x 384 units     of an LSTM: the metre, the key, how much of the bar is full
    out      logits (T, N, V)  of the next character; a newline ends a tune

Rows have the lengths of their tunes. The data is that of the Nottingham Music Database, the melodies without names and
chords; a tenth of the tunes is held out. The 5-gram beside it sees four characters back: it knows what notes follow
each other and cannot count a bar. A tune parses here if all its bars are exactly as long as its metre says, save at the
ends of its parts, where they may be shorter; nobody tells the network so, but it learns from tunes that do. Longer
training makes more tunes parse and fits the held-out ones less well. It takes ten minutes.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import ngrams, text

from . import count_option, data_option, enough, lesson, reading

TOKEN = re.compile(
    r"""(?P<field>\[[A-Z]:[^\]]*\])
    | (?P<bar>:*\|+[:\]]* | ::)
    | (?P<note>(?:[_=^]*[A-Ga-gz][,']* | \[(?:[_=^]*[A-Ga-g][,']*[\d/]*)+\])(?P<times>\d*)(?P<over>/*)(?P<by>\d*))
    | \((?P<tuplet>3)
    | \[[1-9] | [-()~\s]""",
    re.VERBOSE,
)
LONGEST = 1500  # characters of a tune that is written


def read(folder: str | Path) -> list[str]:
    """The tunes of all .abc files, each once and as one line: metre, unit and key as inline fields, then the melody."""
    tunes: dict[str, None] = {}
    for file in sorted(Path(folder).glob("*.abc")):
        for tune in re.split(r"^X:.*$", file.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)[1:]:
            fields, body = {}, ""
            for line in tune.splitlines():
                line = re.sub(r'%.*|"[^"]*"|\\', "", line).strip()
                if re.match("[MLK]:", line):
                    if body:
                        body += f"[{line}]"
                    else:
                        fields[line[0]] = line[2:].strip()
                elif not re.match("[A-Za-z]:", line):
                    body += line
            if {"M", "K"} <= fields.keys() and body:
                metre = {"C": "4/4", "C|": "2/2"}.get(fields["M"], fields["M"])  # common and cut time
                short = re.fullmatch(r"\d+/[1-9]\d*", metre) and Fraction(metre) < Fraction(3, 4)
                unit = fields.get("L", "1/16" if short else "1/8")
                melody = re.sub(r"\s+", " ", body).replace("| ", "|").replace(" |", "|")
                tunes[f"[M:{metre}][L:{unit}][K:{fields['K']}]{melody}"] = None
    return list(tunes)


def bars(tune: str) -> list[tuple[Fraction, Fraction, bool]]:
    """Of each bar its length, that of its metre, and whether a part of the tune begins or ends with it, where a bar
    may be shorter. ValueError for what is not ABC."""
    metre = unit = Fraction(0)
    found, length, first = [], Fraction(0), True
    place = in_triplet = 0
    while place < len(tune):
        token = TOKEN.match(tune, place)
        if token is None:
            raise ValueError(f"{tune[place:]!r} is not ABC")
        place = token.end()
        if token["field"]:
            name, value = token["field"][1], token["field"][3:-1]
            if name == "M":
                metre = Fraction(value)
            elif name == "L":
                unit = Fraction(value)
        elif token["bar"]:
            edge = token["bar"] != "|"
            if length:
                found.append((length, metre, first or edge))
                first = False
            first, length = first or edge, Fraction(0)
        elif token["note"]:
            note = unit * Fraction(int(token["times"] or 1), int(token["by"] or 2 ** len(token["over"])))
            length += note * Fraction(2, 3) if in_triplet else note  # three in the time of two
            in_triplet = max(in_triplet - 1, 0)
        elif token["tuplet"]:
            in_triplet = 3
    if length:
        found.append((length, metre, True))
    return found


def parses(tune: str) -> bool:
    """Whether a tune is ABC of at least eight bars, each as long as its metre says, and came to an end."""
    try:
        found = bars(tune)
    except (ValueError, ZeroDivisionError):
        return False
    full = all(length == metre or (edge and length < metre) for length, metre, edge in found)
    return full and len(tune) < LONGEST and len(found) >= 8


class Composer(pyrnn.Model):
    """tokens (T, N) -> logits (T, N, V) of the characters after them."""

    def __init__(self, size: int, hidden: int, layers: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__(rng=rng)
        self.embed = pyrnn.Embedding(size, 64)
        self.rnn = pyrnn.LSTM(64, hidden, layers, dropout=dropout)
        self.drop = pyrnn.Dropout(dropout)
        self.head = pyrnn.Linear(hidden, size)

    def step(self, state: object, tokens: np.ndarray) -> tuple[np.ndarray, object]:
        """One character more: state, tokens (N,) -> logits (N, V), state."""
        y, state = self.rnn(self.embed(tokens)[None], state)
        return self.head(y[0]), state

    def learn(self, rows: list[np.ndarray], epochs: int, lr: float, rng: np.random.Generator) -> None:
        """Tunes (T,) of any lengths, 32 in a batch: from each character the next."""
        adam = pyrnn.AdamW(self, lr=lr, weight_decay=0.01)
        steps = epochs * -(-len(rows) // 32)
        schedule = pyrnn.schedules.Cosine(adam, total=steps, warmup=steps // 40)
        with tqdm(total=steps) as bar:
            for _ in range(epochs):
                for chosen in pyrnn.data.minibatches(len(rows), 32, rng):
                    tokens, lengths = pyrnn.data.pad([rows[n] for n in chosen])  # (T + 1, N), (N,)
                    self.zero_grad()
                    x, pull_embed = self.embed.vjp(tokens[:-1])
                    (h, _), pull_rnn = self.rnn.vjp(x, lengths=lengths - 1)
                    y, pull_drop = self.drop.vjp(h)
                    logits, pull_head = self.head.vjp(y)
                    loss, dlogits = pyrnn.cross_entropy(logits, tokens[1:], lengths=lengths - 1)
                    pull_embed(pull_rnn(pull_drop(pull_head(dlogits)))[0])
                    pyrnn.clip_grad_norm(self, 1.0)
                    adam.step()
                    schedule.step()
                    bar.update()
                    bar.set_description(f"{loss / np.log(2):.3f} bits per character")

    def bits(self, rows: list[np.ndarray]) -> float:
        """Bits per character of tunes."""
        tokens, lengths = pyrnn.data.pad(rows)
        logits = self.head(self.rnn(self.embed(tokens[:-1]), lengths=lengths - 1)[0])
        return float(pyrnn.cross_entropy(logits, tokens[1:], lengths=lengths - 1)[0] / np.log(2))

    def write(self, count: int, temperature: float, rng: np.random.Generator) -> list[np.ndarray]:
        """So many tunes, all at once: each starts from a newline and ends before the next one."""
        tokens, lengths = pyrnn.decoding.sample(self.step, None, [0] * count, 0, LONGEST, temperature, rng)
        return [tokens[:length, n] for n, length in enumerate(lengths)]


def abc(tune: str, number: int) -> str:
    """A tune as a player of ABC takes it: a number, its fields on lines of their own, four bars on a line."""
    fields = re.sub(r"\[([MLK]:[^\]]*)\]", r"\1\n", tune, count=3)
    return f"X:{number}\n" + re.sub(r"((?:[^|\n]*\|[:|\]]*){4})", r"\1\n", fields)


@lesson(__doc__)
@data_option("music", "a folder of .abc files")
@count_option("--hidden", 384, "Hidden units.")
@count_option("--epochs", 40)
@click.option("--dropout", type=click.FloatRange(0, 1), default=0.5, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.6, show_default=True, help="Of what it writes.")
@click.option("--out", metavar="FILE", help="Write the tunes that parse into an .abc file.")
def main(data: str, hidden: int, epochs: int, dropout: float, temperature: float, out: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with reading():
        found = read(data)
        tunes = [tune for tune in found if parses(tune)]
        enough(data, "tunes that parse in .abc files", len(tunes), 10)
    vocabulary = text.Vocabulary.of("\n" + "".join(tunes))  # newline is its first character, number 0
    rows = [vocabulary.encode(f"\n{tune}\n") for tune in tunes]
    train, valid = ([rows[n] for n in part] for part in pyrnn.data.held_out(len(rows), 0.1, rng))
    counts = ngrams.NGram(train, 5, len(vocabulary))
    chances = np.concatenate([counts.probabilities(row)[1:] for row in valid])  # the first newline is given
    model = Composer(len(vocabulary), hidden, 2, dropout, rng)
    model.learn(train, epochs, 4e-3, rng)
    print(f"held-out tunes: {model.bits(valid):.3f} bits per character, 5-gram {-np.mean(np.log2(chances)):.3f}")
    written = [vocabulary.decode(row) for row in model.write(200, temperature, rng)]
    good = [tune for tune in dict.fromkeys(written) if parses(tune)]
    share, known = np.mean([parses(tune) for tune in written]), len(set(good) & set(tunes))
    print(f"{share:.1%} of 200 tunes parse, in the data {len(tunes)} of {len(found)}; {known} of them are in the data")
    book = "\n\n".join(abc(tune, number) for number, tune in enumerate(good, 1)) + "\n"
    print("\n" + book.split("\n\n")[0])
    if out:
        Path(out).write_text(book, encoding="utf-8")


if __name__ == "__main__":
    main()
