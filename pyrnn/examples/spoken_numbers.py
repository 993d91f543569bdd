"""Which number was said? Three to eight digits without a pause, and nobody tells where one ends (CTC).

    python -m pyrnn.examples.spoken_numbers --data spoken-digits.npz --plot numbers.png

    in       3 to 8 recordings of one speaker, end to end   samples (S,), 8000 a second
    mel      energies of 40 bands of tones                  x (T, N, 40), 100 frames a second, as in spoken_digits
    conv     two convolutions over time                     (T / 4, N, H): what sounds within 90 ms, 25 times a second
    rnn      an LSTM both ways                              y (T / 4, N, 2H)
    out      ten digits, and a blank that says nothing      logits (T / 4, N, 11)
    ctc      all ways to say these digits, summed up        the loss is -log p(digits)

Connectionist temporal classification (Graves et al. 2006) is told what was said, not when. A step says a digit or the
blank; equal ones in a row count once, and blanks are left out: 0 0 - 0 3 - says 0 0 3. The gradient goes to all of the
many ways that say the number, each as much as it is likely, and the network finds out by itself when it is surest: its
digits become spikes between blanks.

Read greedily, a number is what the likeliest of every step says. A beam keeps the likeliest beginnings of a number,
with all ways that say each, and may ask a language model what comes next: n-grams of a directory of 1,000 numbers.

Recordings, takes and speakers are those of spoken_digits; settings were chosen on takes 5 to 9. Of takes 0 to 4
2.1% of the digits are wrong, greedily and by a beam, and 1.0% with the directory (takes 5 to 9: 1.8 and 0.9%). Of a
speaker never heard it is 19.8, 19.3 and 15.6%, greedily between 13 and 31%. Five minutes for the seven nets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import decoding, ngrams, plots, schedules, sound

from . import count_option, data_option, lesson, reading
from .spoken_digits import BANDS, RATE, Recordings, ears

LEAST, MOST, BATCH = 3, 8, 16  # digits of a number; numbers in a step
BLANK, NAMES = 0, ["blank", *"0123456789"]  # a digit's id is 1 more than it


class Number(NamedTuple):
    ids: np.ndarray  # (D,), 1 to 10
    seams: np.ndarray  # (D - 1,) seconds: where a digit ends; only the picture knows
    features: np.ndarray  # (T, BANDS)


def dial(recordings: Recordings, rows: np.ndarray, count: int, rng: np.random.Generator) -> list[Number]:
    """So many numbers, each said by one of the speakers of those recordings where rows (R,) is true."""
    numbers = []
    for speaker in rng.choice(np.unique(recordings.speaker[rows]), count):
        own = np.flatnonzero(rows & (recordings.speaker == speaker))
        said = rng.choice(own, rng.integers(LEAST, MOST + 1))
        samples = [recordings.samples[n] for n in said]
        seams = np.cumsum([len(part) for part in samples])[:-1] / RATE
        features = sound.log_mel(np.concatenate(samples), RATE, bands=BANDS)
        numbers.append(Number(recordings.digit[said].astype(np.int64) + 1, seams, features))
    return numbers


def hear(network: pyrnn.Sequential, numbers: list[Number]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (T / 4, N, 11) of these numbers, and how many steps of them count, (N,)."""
    x, lengths = pyrnn.data.pad([number.features for number in numbers])
    return network(x, lengths=lengths), network.output_lengths(lengths)


def train(recordings: Recordings, rows: np.ndarray, hidden: int, steps: int, seed: int) -> pyrnn.Sequential:
    """A network that has learned from so many batches of numbers, all of them new."""
    rng = np.random.default_rng(seed)
    network = pyrnn.Sequential(*ears(hidden, 2, rng), pyrnn.Dropout(0.4), pyrnn.Linear(2 * hidden, len(NAMES)), rng=rng)
    adam = pyrnn.Adam(network, lr=3e-3)
    schedule = schedules.Cosine(adam, steps, warmup=steps // 20)
    for _ in tqdm(range(steps), disable=None):
        numbers = dial(recordings, rows, BATCH, rng)
        x, lengths = pyrnn.data.pad([number.features for number in numbers])
        network.zero_grad()
        logits, pullback = network.vjp(x, lengths=lengths)
        ids = [number.ids for number in numbers]
        pullback(pyrnn.ctc(logits, ids, lengths=network.output_lengths(lengths))[1])
        pyrnn.clip_grad_norm(network, 5.0)
        adam.step()
        schedule.step()
    return network


def edits(said: np.ndarray, true: np.ndarray) -> int:
    """How many digits must be changed, left out or put in to make one number of the other (Levenshtein 1966)."""
    ways = np.arange(len(true) + 1)  # from no digit to the first k of the true ones
    for digit in said:
        changed = np.minimum(ways[:-1] + (true != digit), ways[1:] + 1)
        ways = np.minimum.accumulate(np.append(ways[0] + 1, changed) - np.arange(len(ways))) + np.arange(len(ways))
    return int(ways[-1])


def readings(network: pyrnn.Sequential, numbers: list[Number], seed: int) -> dict[str, list[np.ndarray]]:
    """What the network hears, in three ways."""
    logits, lengths = hear(network, numbers)
    rng = np.random.default_rng(seed)
    others = [rng.integers(1, len(NAMES), rng.integers(LEAST, MOST + 1)) for _ in range(1000 - len(numbers))]
    directory = ngrams.NGram([number.ids for number in numbers] + others, order=MOST, size=len(NAMES))
    beams = {
        "by a beam": decoding.ctc_beam_search(logits, lengths=lengths),
        "with the directory": decoding.ctc_beam_search(logits, lengths=lengths, lm=directory, lm_weight=1.0),
    }
    best = {name: [found[0][0] for found in lists] for name, lists in beams.items()}
    return {"greedily": decoding.ctc_greedy(logits, lengths=lengths)} | best


def wrong(network: pyrnn.Sequential, numbers: list[Number], seed: int) -> dict[str, float]:
    """Digit errors in percent of the digits that were said, in each of the ways to read them."""
    total = sum(len(number.ids) for number in numbers)
    return {
        name: 100 * sum(edits(ids, number.ids) for ids, number in zip(said, numbers, strict=True)) / total
        for name, said in readings(network, numbers, seed).items()
    }


def draw(path: str, network: pyrnn.Sequential, numbers: list[Number]) -> None:
    """One number that is read right, one of these with the same digit twice in a row, and one that is not."""
    logits, lengths = hear(network, numbers)
    said = decoding.ctc_greedy(logits, lengths=lengths)
    paths = decoding.ctc_align(logits, [number.ids for number in numbers], lengths=lengths)
    chances = pyrnn.Softmax()(logits)
    panels: dict[tuple[bool, bool], plots.Alignment] = {}
    for n, number in enumerate(numbers):
        true, heard = ("".join(NAMES[k] for k in ids) for ids in (number.ids, said[n]))
        kind = true != heard, bool((np.diff(number.ids) == 0).any())
        panels[kind] = panels.get(kind) or plots.Alignment(
            number.features, len(number.features) / 100, chances[: lengths[n], n], paths[: lengths[n], n],
            f"said {true}, heard {heard}", true == heard, number.seams,
        )  # fmt: skip
    title = "Numbers that the network never heard: spikes, and where the true digits are likeliest"
    plots.alignments(path, [panels[kind] for kind in sorted(panels)[:3]], NAMES, title, blank=BLANK)


@lesson(__doc__)
@data_option("digits", "spoken-digits.npz: audio end to end, offsets, digit, speaker and take of each recording")
@count_option("--hidden", 96, "Units of each direction, and channels of the convolutions.")
@count_option("--steps", 1500, "Steps of Adam, on 16 numbers each.")
@count_option("--numbers", 200, "Numbers to judge by, of each kind.")
def main(data: str, plot: str | None, hidden: int, steps: int, numbers: int, seed: int) -> None:
    with reading():
        recordings = Recordings(data)
    speaker, take = recordings.speaker, recordings.take

    def tell(name: str, found: dict[str, float]) -> None:
        print(f"{name:20}", ", ".join(f"{share:.1f}% {way}" for way, share in found.items()))

    print("digits that are wrong")
    network = train(recordings, take >= 10, hidden, steps, seed)
    rng = np.random.default_rng(seed)
    for name, rows in [("takes 5 to 9", (take >= 5) & (take < 10)), ("takes 0 to 4", take < 5)]:
        known = dial(recordings, rows, numbers, rng)
        tell(name, wrong(network, known, seed))
    if plot:
        draw(plot, network, known)
    new = []
    for name in np.unique(speaker):
        network = train(recordings, (take >= 10) & (speaker != name), hidden, steps, seed)
        new.append(wrong(network, dial(recordings, speaker == name, numbers, rng), seed))
        tell(f"{name}, never heard", new[-1])
    tell("a new speaker", {way: float(np.mean([found[way] for found in new])) for way in new[0]})


if __name__ == "__main__":
    main()
