"""Text: reading it, turning characters or words into numbers, and cutting it into the batches of a character model.

A character is a Unicode code point. A text is used as it stands in the file: line ends are not translated, nothing is
normalised; only a byte order mark at the start of a file is dropped.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .data import pad

HELD_OUT = 10  # one part in so many, the last, is kept for validation


def read(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file. Anything else is a ValueError that names the first bad byte."""
    name = os.fspath(path)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a directory, expected a text file")
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: no such file")
    with open(name, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 text: byte 0x{data[error.start]:02x} at position {error.start} ({error.reason})"
        ) from None
    return text.removeprefix("\ufeff")


def read_all(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The texts of these files, one after the other; of no files, the language reference."""
    return "".join(map(read, paths)) if paths else language_reference()


def read_fasta(path: str | os.PathLike[str]) -> dict[str, str]:
    """The sequences of a FASTA file by their names, the first word after each ">". Errors as in `read`."""
    records = [record.splitlines() for record in read(path).split(">")[1:]]
    return {head.split()[0]: "".join(lines) for head, *lines in records}


def language_reference() -> str:
    """The language reference inside every Python (`pydoc_data.topics`), topic after topic."""
    from pydoc_data.topics import topics

    return "\n\n".join(text.strip("\n") for _, text in sorted(topics.items())) + "\n"


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


class Vocabulary:
    """The characters a model knows, sorted by code point; a character's number is its place among them."""

    def __init__(self, characters: str):
        points = _code_points(characters)
        if len(points) == 0:
            raise ValueError("Vocabulary: characters is empty")
        if np.any(points[1:] <= points[:-1]):
            raise ValueError("Vocabulary: characters are not sorted, or not all different")
        self.characters = characters
        self._numbers = np.full(0x110000, -1, dtype=np.int32)
        self._numbers[points] = np.arange(len(points), dtype=np.int32)

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of `text`."""
        seen = np.zeros(0x110000, dtype=bool)
        seen[_code_points(text)] = True
        return cls("".join(map(chr, np.flatnonzero(seen))))

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: str) -> bool:
        return character in self.characters

    def encode(self, text: str, name: str = "text") -> np.ndarray:
        """The numbers of the characters of `text`, int32; unknown characters are a ValueError that says `name`."""
        points = _code_points(text)
        numbers: np.ndarray = self._numbers[points]
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            different, first = np.unique(points[unknown], return_index=True)
            places = sorted(zip(unknown[first], different, strict=True))
            shown = [f"{chr(point)!r} (U+{point:04X}) at position {place}" for place, point in places[:5]]
            if len(places) > 5:
                shown.append(f"and {len(places) - 5} more")
            raise ValueError(
                f"{name}: characters the model does not know: {', '.join(shown)}; "
                f"its vocabulary has {len(self)} characters"
            )
        return numbers

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        """The characters with these numbers."""
        return "".join(self.characters[number] for number in numbers)


class Words:
    """The words a model knows, each with a number; 0 stands for every word it does not know.

    words: all different strings, numbered from 1 in their order; marks such as "<end>" may be among them. ValueError
    for a word that comes twice.

        words = pyrnn.text.Words.of("to be or not to be".split(), minimum=2)
        words.encode(["be", "quiet"])  # [1, 0]
    """

    UNKNOWN = "<unknown>"

    def __init__(self, words: Sequence[str]):
        self.words = [self.UNKNOWN, *words]
        self._numbers = {word: number for number, word in enumerate(self.words)}
        if len(self._numbers) < len(self.words):
            twice = next(word for number, word in enumerate(self.words) if self._numbers[word] != number)
            raise ValueError(f"Words: {twice!r} comes twice, or is the mark of the unknown")

    @classmethod
    def of(cls, words: Iterable[str], minimum: int = 1, marks: Sequence[str] = ()) -> Words:
        """`marks`, which have the first numbers, then the words that come at least `minimum` times, sorted."""
        counts = Counter(words)
        return cls([*marks, *sorted(word for word, n in counts.items() if n >= minimum and word not in marks)])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return self._numbers.get(word, 0) != 0

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """The numbers of these words, int32, 0 where one is unknown."""
        return np.array([self._numbers.get(word, 0) for word in words], dtype=np.int32)

    def batch(self, sequences: Iterable[Iterable[str]]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of N sequences of words side by side: ids (T, N), zeros after their ends, and lengths (N,).

        ids, lengths = words.batch(["to be".split(), "or not to be".split()])  # (4, 2), [2, 4]
        """
        return pad([self.encode(sequence) for sequence in sequences])

    def decode(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """The words with these numbers."""
        return [self.words[number] for number in numbers]


class Corpus:
    """A text to learn from: its vocabulary, and its numbers in a training part and a held-out part, the last tenth.

    `sources` are the files it came from; none stands for the language reference, as in `read_all`. The vocabulary is
    that of the whole text, so a character that only the held-out part has is rare but known.
    """

    def __init__(self, text: str, sources: Sequence[str] = ()):
        self.name = ", ".join(sources) or "the text"
        if len(text) < 2 * HELD_OUT:
            raise ValueError(
                f"{self.name} is too short: {len(text)} characters, at least {2 * HELD_OUT} are needed "
                "for a training part and a held-out tenth"
            )
        self.sources = list(sources)
        self.vocabulary = Vocabulary.of(text)
        numbers = self.vocabulary.encode(text)
        split = len(text) - len(text) // HELD_OUT
        self.train, self.valid = numbers[:split], numbers[split:]
        self.digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Batches:
    """The training part as batches that carry the state.

    The text is cut into `batch` streams of equal length, which are read side by side: batch k + 1 goes on in every
    stream where batch k stopped, so the state after the one is the state before the other. Item k is (inputs, targets),
    both (T, N); targets are the inputs one character later. T is at most `steps`, and as equal as can be over an epoch,
    so that no short batch ends it. Up to `batch - 1` characters at the end are left over.
    """

    def __init__(self, numbers: np.ndarray, batch: int, steps: int, name: str = "the text"):
        length = (len(numbers) - 1) // batch
        if length < 1:
            raise ValueError(
                f"{name} is too short: {len(numbers)} characters to train on (the last tenth is held out), "
                f"a batch of {batch} rows needs at least {batch + 1}"
            )
        used = length * batch
        self._inputs = np.ascontiguousarray(numbers[:used].reshape(batch, length).T)
        self._targets = np.ascontiguousarray(numbers[1 : used + 1].reshape(batch, length).T)
        count = -(-length // steps)
        self._edges = [length * k // count for k in range(count + 1)]
        self.characters = used  # predicted in one pass over all batches

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        window = slice(self._edges[k], self._edges[k + 1])
        return self._inputs[window], self._targets[window]
