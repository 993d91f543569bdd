"""Text: reading it, turning characters or words into ids, and cutting it into the batches of a character model.

A character is a Unicode code point. A text is used as it stands in the file: line ends are not translated, nothing is
normalised; only a byte order mark at the start of a file is dropped.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core.checks import (
    Array,
    any_array,
    boolean,
    choice,
    cut,
    file_name,
    integer,
    integer_array,
    shape_error,
    shown,
    string,
    strings,
    within,
)
from ..core.files import as_path, existing
from ..data import pad

HELD_OUT = 10  # one part in so many, the last, is kept for validation


def read(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file. Anything else is a ValueError that names the first bad byte and its line; OSError for
    what cannot be read.

        text = pyrnn.text.read("book.txt")
    """
    path, name = existing(path, "a text file")
    with open(path, "rb") as file:
        return decode(file.read(), name)


def decode(data: bytes, name: str) -> str:
    """The same of the content of a file, or what else is called `name` in errors.

    text = pyrnn.text.decode(b"to be", "what he said")
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 text: byte 0x{data[error.start]:02x} at position {error.start}, "
            f"line {data.count(10, 0, error.start) + 1} ({error.reason})"
        ) from None
    return text.removeprefix("\ufeff")


def read_all(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The texts of these files, one after the other; of no files, the language reference. Errors as in `read`.

    text = pyrnn.text.read_all(["book.txt", "letters.txt"])
    """
    return "".join(map(read, paths)) if paths else language_reference()


def lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, each with its place, "file, line 3", for errors. They end with a line
    feed, a carriage return or both, and with nothing else that Unicode has. Errors as in `read`.

        for place, line in pyrnn.text.lines("pairs.tsv"):
            ...
    """
    name = file_name(as_path(path))
    for number, line in enumerate(re.split("\r\n|\r|\n", read(path)), 1):
        if line.strip():
            yield f"{name}, line {number}", line


def read_fasta(path: str | os.PathLike[str]) -> dict[str, str]:
    """The sequences of a FASTA file by their names, the first word after the ">" that begins a record's first line.

    Lines that begin with ";" are comments; white space in a sequence does not count, nor before those marks. Errors as
    in `read`, and a ValueError with the line for a record without a name, a name that came before, and a sequence
    before all names.

        genes = pyrnn.text.read_fasta("genes.fsa")  # {"YAL001C": "ATGGTA...", ...}
    """
    parts: dict[str, list[str]] = {}
    name = None
    for place, line in lines(path):
        line = line.strip()
        if line.startswith(">"):
            name = next(iter(line[1:].split()), "")
            if not name or name in parts:
                raise ValueError(f"{place}: " + (f"the name {shown(name)} came before" if name else "there is no name"))
            parts[name] = []
        elif not line.startswith(";"):
            if name is None:
                raise ValueError(f"{place}: {shown(line, 40)} stands before the first name, expected '>'")
            parts[name] += line.split()
    return {name: "".join(sequence) for name, sequence in parts.items()}


def language_reference() -> str:
    """The language reference inside every Python (`pydoc_data.topics`), topic after topic.

    text = pyrnn.text.language_reference()
    """
    from pydoc_data.topics import topics

    return "\n\n".join(text.strip("\n") for _, text in sorted(topics.items())) + "\n"


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _ids(call: str, ids: Sequence[int] | np.ndarray, size: int) -> list[int]:
    """Checked ids of characters or words, as Python integers."""
    array: Array = integer_array(call, "ids", ids)
    if array.ndim != 1:
        raise shape_error(call, "ids", array.shape, "(T,)")
    checked: list[int] = within(call, "ids", array, size - 1).tolist()
    return checked


class Vocabulary:
    """The characters a model knows, sorted by code point; a character's id is its place among them.

    characters: a string of all of them. TypeError for what is no string, ValueError for one that is empty, not sorted
    or has one twice; `Vocabulary.of` makes one of any text.

        vocabulary = pyrnn.text.Vocabulary.of("to be")
        vocabulary.encode("toe")  # (T,) int64: [4, 3, 2]

    marks: which tokens there are beside characters, some of "pad", "unknown", "begin" and "end", else a ValueError.
    They have the first ids, in this order, and attributes that say which: `vocabulary.begin`, None where there is none.
    So `pad` is 0, with which `pyrnn.data.pad` fills rows; `unknown` is the id of all characters that are not known.

        vocabulary = pyrnn.text.Vocabulary.of("to be", marks=["begin", "end"])
        vocabulary.encode("toe", begin=True, end=True)  # [0, 6, 5, 4, 1]
    """

    MARKS = ("pad", "unknown", "begin", "end")
    pad: Any
    unknown: Any
    begin: Any
    end: Any

    def __init__(self, characters: str, marks: Iterable[str] = ()):
        points = _code_points(string("Vocabulary", "characters", characters))
        if len(points) == 0:
            raise ValueError("Vocabulary: characters is empty")
        if np.any(points[1:] <= points[:-1]):
            raise ValueError("Vocabulary: characters are not sorted, or not all different")
        self.characters = characters
        given = {choice("Vocabulary", "marks", mark, self.MARKS) for mark in strings("Vocabulary", "marks", marks)}
        self.marks = tuple(mark for mark in self.MARKS if mark in given)
        self.pad, self.unknown, self.begin, self.end = (
            self.marks.index(mark) if mark in given else None for mark in self.MARKS
        )
        self._ids = np.full(0x110000, -1 if self.unknown is None else self.unknown, dtype=np.int64)
        self._ids[points] = np.arange(len(self.marks), len(self), dtype=np.int64)
        self._texts = ["\ufffd" if mark == "unknown" else "" for mark in self.marks] + list(characters)

    @classmethod
    def of(cls, text: str, marks: Iterable[str] = ()) -> Vocabulary:
        """The characters of `text`, and `marks`; TypeError for what is no string, ValueError for an empty one.

        vocabulary = pyrnn.text.Vocabulary.of("to be")
        """
        seen = np.zeros(0x110000, dtype=bool)
        seen[_code_points(string("Vocabulary.of", "text", text))] = True
        return cls("".join(map(chr, np.flatnonzero(seen))), marks)

    def __len__(self) -> int:
        return len(self.marks) + len(self.characters)

    def __contains__(self, character: str) -> bool:
        return isinstance(character, str) and len(character) == 1 and character in self.characters

    def encode(self, text: str, name: str = "text", *, begin: bool = False, end: bool = False) -> np.ndarray:
        """The ids of the characters of `text`, (T,) int64, with `begin` and `end` between these two marks. Unknown
        characters are a ValueError that says `name`, unless the vocabulary has a mark for them; so is a mark that it
        has not.

            ids = vocabulary.encode("to be")
        """
        points = _code_points(string("Vocabulary.encode", name, text))
        ids: np.ndarray = self._ids[points]
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            different, first = np.unique(points[unknown], return_index=True)
            places = sorted(zip(unknown[first], different, strict=True))
            bad = [f"{chr(point)!r} (U+{point:04X}) at position {place}" for place, point in places[:5]]
            if len(places) > 5:
                bad.append(f"and {len(places) - 5} more")
            raise ValueError(
                f"{cut(name)}: characters the model does not know: {', '.join(bad)}; "
                f"its vocabulary has {len(self.characters)} characters"
            )
        for mark, wanted in {"begin": begin, "end": end}.items():
            if boolean("Vocabulary.encode", mark, wanted) and mark not in self.marks:
                raise ValueError(f"Vocabulary.encode: {mark} is True, and the vocabulary has no such mark")
        if begin or end:
            ids = np.concatenate([[self.begin] * begin, ids, [self.end] * end]).astype(np.int64)
        return ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The characters with these ids (T,), integers in 0..V-1; others are a TypeError or a ValueError. Marks are
        left out, but U+FFFD stands for what was unknown.

            vocabulary.decode(vocabulary.encode("to be"))  # "to be"
        """
        return "".join(self._texts[number] for number in _ids("Vocabulary.decode", ids, len(self)))


class Words:
    """The words a model knows, each with an id; 0 stands for every word it does not know.

    words: all different strings, numbered from 1 in their order; marks such as "<end>" may be among them. ValueError
    for a word that comes twice.

        words = pyrnn.text.Words.of("to be or not to be".split(), minimum=2)
        words.encode(["be", "quiet"])  # [1, 0]
    """

    UNKNOWN = "<unknown>"

    def __init__(self, words: Sequence[str]):
        self.words = [self.UNKNOWN, *strings("Words", "words", words)]
        self._ids = {word: number for number, word in enumerate(self.words)}
        if len(self._ids) < len(self.words):
            twice = next(word for number, word in enumerate(self.words) if self._ids[word] != number)
            raise ValueError(f"Words: {shown(twice)} comes twice, or is the mark of the unknown")

    @classmethod
    def of(cls, words: Iterable[str], minimum: int = 1, marks: Sequence[str] = ()) -> Words:
        """`marks`, which have the first ids, then the words that come at least `minimum` times, sorted. TypeError for
        what is not strings.

            words = pyrnn.text.Words.of("to be or not to be".split(), minimum=2, marks=["<end>"])
        """
        counts = Counter(strings("Words.of", "words", words))
        marks, minimum = strings("Words.of", "marks", marks), integer("Words.of", "minimum", minimum, 0)
        return cls([*marks, *sorted(word for word, n in counts.items() if n >= minimum and word not in marks)])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return isinstance(word, str) and self._ids.get(word, 0) != 0

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """The ids of these words, (T,) int64, 0 where one is unknown. TypeError for what is not strings.

        words.encode(["be", "quiet"])
        """
        return np.array([self._ids.get(word, 0) for word in strings("Words.encode", "words", words)], dtype=np.int64)

    def batch(self, sequences: Iterable[Iterable[str]]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of N sequences of words side by side: ids (T, N), zeros after their ends, and lengths (N,).

        ids, lengths = words.batch(["to be".split(), "or not to be".split()])  # (4, 2), [2, 4]
        """
        if isinstance(sequences, (str, bytes)) or not isinstance(sequences, Iterable):
            raise TypeError(f"Words.batch: sequences is {shown(sequences)}, expected lists of words")
        return pad([self.encode(sequence) for sequence in sequences])

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The words with these ids (T,), integers in 0..V-1; others are a TypeError or a ValueError.

        words.decode([1, 0])  # ["be", "<unknown>"]
        """
        return [self.words[number] for number in _ids("Words.decode", ids, len(self))]


class Corpus:
    """A text to learn from: its vocabulary, and its ids in a training part and a held-out part, the last tenth.

    `sources` are the files it came from; none stands for the language reference, as in `read_all`. The vocabulary is
    that of the whole text, so a character that only the held-out part has is rare but known. TypeError for what is no
    string, ValueError for a text of less than 20 characters.

        corpus = pyrnn.text.Corpus(pyrnn.text.language_reference())
        corpus.train, corpus.valid  # (T,) int64 each
    """

    def __init__(self, text: str, sources: Sequence[str] = ()):
        string("Corpus", "text", text)
        sources = strings("Corpus", "sources", sources)
        self.name = cut(", ".join(sources) or "the text")
        if len(text) < 2 * HELD_OUT:
            raise ValueError(
                f"{self.name} is too short: {len(text)} characters, at least {2 * HELD_OUT} are needed "
                "for a training part and a held-out tenth"
            )
        self.sources = sources
        self.vocabulary = Vocabulary.of(text)
        ids = self.vocabulary.encode(text)
        split = len(text) - len(text) // HELD_OUT
        self.train, self.valid = ids[:split], ids[split:]
        self.digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Batches:
    """The training part as batches that carry the state.

    The text is cut into `batch` streams of equal length, which are read side by side: batch k + 1 goes on in every
    stream where batch k stopped, so the state after the one is the state before the other. Item k is (inputs, targets),
    both (T, N); targets are the inputs one character later. T is at most `steps`, and as equal as can be over an epoch,
    so that no short batch ends it. Up to `batch - 1` characters at the end are left over. TypeError and ValueError for
    batch and steps that are not integers above 0, ValueError for too short a text.

        for inputs, targets in pyrnn.text.Batches(corpus.train, batch=32, steps=50):  # (T, 32) each
            ...
    """

    def __init__(self, ids: np.ndarray, batch: int, steps: int, name: str = "the text"):
        ids = any_array("Batches", "ids", ids)
        if ids.ndim != 1:
            raise shape_error("Batches", "ids", ids.shape, "one axis")
        batch, steps = integer("Batches", "batch", batch, 1), integer("Batches", "steps", steps, 1)
        length = (len(ids) - 1) // batch
        if length < 1:
            raise ValueError(
                f"{name} is too short: {len(ids)} characters to train on (the last tenth is held out), "
                f"a batch of {batch} rows needs at least {batch + 1}"
            )
        used = length * batch
        self._inputs = np.ascontiguousarray(ids[:used].reshape(batch, length).T)
        self._targets = np.ascontiguousarray(ids[1 : used + 1].reshape(batch, length).T)
        count = -(-length // steps)
        self._edges = [length * k // count for k in range(count + 1)]
        self.characters = used  # predicted in one pass over all batches

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = range(len(self))[k]  # negative numbers count from the end, as in a list
        window = slice(self._edges[k], self._edges[k + 1])
        return self._inputs[window], self._targets[window]
