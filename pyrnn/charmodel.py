"""The character model: an embedding, recurrent layers and a linear head that predict the next character of a text.

Training keeps two files. `model.safetensors` is the best model so far, which `sample` and `eval` read: the weights, and
in the description the cell, the sizes, the vocabulary, how it was trained and how far. `model.resume.safetensors` next
to it is the state of the training itself: the current weights, Adam's moments, the hidden state carried from batch to
batch, the place in the text, the best loss and the loss curve. Both are replaced as a whole (see files.py), so a
training killed at any moment goes on from the last state written. Both name the options, the length and the text that
it began with, so neither is taken for that of a training that began otherwise.

Nothing in training is random but the initial weights and the dropout, whose generator is part of the training's state.
So a run of a given number of epochs that was stopped and resumed ends with the same bits as one that never stopped. A
run of a given number of seconds takes as many batches as the machine manages, and its learning rate follows the clock:
no two of them are equal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from . import files
from ._arrays import choice, file_name, integer, real, shown
from .cells import CELLS
from .decoding import choose
from .layers import Dropout, Embedding, Linear
from .losses import cross_entropy
from .optim import Adam, clip_grad_norm
from .parameters import Model
from .recurrent import LAYERS
from .text import Batches, Corpus, Vocabulary
from .threads import get_num_threads, threads

MODEL_KIND, RESUME_KIND, VERSION = "character model", "character model training", 1

MAX_NORM = 1.0  # of the gradient
CONSTANT = 0.7  # this part of a run has the full learning rate; it then falls in a straight line
FINAL = 0.1  # to this part of it
LOGITS = 1 << 21  # about so many logits are computed at once in an evaluation
VALIDATED = 1 << 20  # at most so many held-out characters are read at a validation
SMOOTH = 0.99  # weight of the past in the running mean of the training loss
CURVE = 512  # the loss curve keeps at most so many points
SAVE_EVERY = 30.0  # seconds between two writings of the training state
LEAST_ROW = 8  # characters, or those of one update: with fewer there is hardly a past to predict from
RUN_OFF = 4.0  # times the bits of a model that knows nothing (and 1 more): no training comes back from there
PROBED = 8  # steps of an update, by which is told how long a whole one takes
LARGEST = sys.float_info.max


# ---------------------------------------------------------------------------------------------------- the model


class CharModel(Model):
    """Characters in, logits of the next character out: `tokens` (T, N) -> (T, N, V).

    In `vjp`, `dropout` acts on the outputs of every recurrent layer, the last included (Zaremba et al. 2014).
    """

    def __init__(self, vocabulary: Vocabulary, cell: str = "lstm", embed: int = 64, hidden: int = 256,
                 layers: int = 1, dropout: float = 0.0, rng: int | np.random.Generator | None = None):  # fmt: skip
        self.rng = np.random.default_rng(rng)
        self.vocabulary = vocabulary
        self.sizes = {"cell": cell, "embed": embed, "hidden": hidden, "layers": layers}
        super().__init__(
            embed=Embedding(len(vocabulary), embed, rng=self.rng),
            rnn=LAYERS[cell](embed, hidden, layers, dropout=dropout if layers > 1 else 0.0, rng=self.rng),
            dropout=Dropout(dropout, rng=self.rng),
            head=Linear(hidden, len(vocabulary), rng=self.rng),
        )

    def __call__(self, tokens: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        """tokens (T, N) -> logits (T, N, V), state."""
        y, state = self.rnn(self.embed.params["weight"], state, ids=tokens)
        return self.head(y), state

    def vjp(self, tokens: np.ndarray, state: Any = None) -> tuple[tuple[np.ndarray, Any], Callable[[np.ndarray], None]]:
        """(logits, state), pullback. pullback(dlogits) adds to `grads`."""
        (y, state), pull_rnn = self.rnn.vjp(self.embed.params["weight"], state, ids=tokens)
        if self.dropout.p:
            y, pull_dropout = self.dropout.vjp(y)
        logits, pull_head = self.head.vjp(y)

        def pullback(dlogits: np.ndarray) -> None:
            dy = pull_head(dlogits)
            dweight, _ = pull_rnn(pull_dropout(dy) if self.dropout.p else dy)
            self.embed.grads["weight"] += dweight

        return (logits, state), pullback

    def stream(self) -> Callable[[int], np.ndarray]:
        """A function that reads one character after the other and returns the logits (V,) of the next."""
        rnn = self.rnn.stream()

        def step(number: int) -> np.ndarray:
            logits: np.ndarray = self.head(rnn.step(self.embed(number)))
            return logits

        return step


def model_file(model: CharModel, training: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a model file holds: the weights, as copies, and a description; `training` says how they came about."""
    description = {
        "kind": MODEL_KIND,
        "version": VERSION,
        "model": model.sizes,
        "vocabulary": _as_json(model.vocabulary.characters),
        "training": dict(training),
    }
    return model.state_dict(), description


def save_model(path: str | os.PathLike[str], model: CharModel, training: Mapping[str, Any]) -> None:
    """Write a model file."""
    files.save(path, *model_file(model, training))


def load_model(path: str | os.PathLike[str]) -> CharModel:
    """The model in a model file."""
    return read_model(path)[0]


def read_model(path: str | os.PathLike[str]) -> tuple[CharModel, dict[str, Any]]:
    """The model in a model file, and what the file says of its training."""
    weights, description = files.load(path, MODEL_KIND)
    with _parts_of(file_name(path), description, ("model", "vocabulary", "training")):
        sizes = description["model"]
        Settings(**sizes)
        vocabulary = Vocabulary("".join(description["vocabulary"]))
        _check_sizes(weights, len(vocabulary), sizes["cell"], sizes["embed"], sizes["hidden"], sizes["layers"])
        model = CharModel(vocabulary, **sizes)
        model.load_state_dict(weights)
        return model, dict(description["training"])


def _as_json(characters: str) -> str | list[str]:
    """A string, or the list of its characters where JSON would make one of two of them, halves of surrogate pairs."""
    return list(characters) if any("\ud800" <= character <= "\udfff" for character in characters) else characters


def _check_sizes(weights: Mapping[str, np.ndarray], size: int, cell: str, embed: int, hidden: int, layers: int) -> None:
    """ValueError unless a model of these sizes has as many numbers as there are: before its memory is asked for."""
    given = sum(array.size for array in weights.values())
    record = CELLS[cell]
    present = record.present(lambda argument: argument == "bias")
    first, other = (record.shapes(inputs, hidden) for inputs in (embed, hidden))
    recurrent = sum(math.prod(first[name]) + (layers - 1) * math.prod(other[name]) for name in present)
    if given != size * embed + recurrent + size * (hidden + 1):
        raise ValueError(
            f"its sizes ({cell}, {size} characters, embed {embed}, hidden {hidden}, layers {layers}) are not those of "
            f"its arrays, which hold {given:,} numbers"
        )


@contextlib.contextmanager
def _parts_of(name: str, description: Mapping[str, Any], parts: Sequence[str]) -> Iterator[None]:
    """As `_fitting`, for a description with these parts and no others, of the version that this pyrnn reads."""
    if description.get("version") != VERSION:
        raise ValueError(
            f"{name} is of version {shown(description.get('version'))}, this pyrnn reads version {VERSION}"
        )
    with _fitting(name):
        for part in {*parts} ^ (description.keys() - {"kind", "version"}):
            raise KeyError(part)
        yield


@contextlib.contextmanager
def _fitting(name: str) -> Iterator[None]:
    """Inside, what does not fit together in the content of the file `name` is a ValueError that names it."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{name}: {error} is missing or unknown") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error


# ---------------------------------------------------------------------------------------------------- using it


def uniform_bits(model: CharModel) -> float:
    """Bits per character of a model that holds every character for equally likely."""
    return math.log2(len(model.vocabulary))


def bits_per_character(
    model: CharModel,
    numbers: np.ndarray,
    streams: int = 1,
    report: Callable[[int], None] = lambda characters: None,
    name: str = "the text",
) -> float:
    """Mean bits that the model spends on a character of a text, given the ones before it.

    The first character is only read, not predicted. With one stream the text is read from end to end. With more it is
    cut into as many parts, each read from a zero state, side by side: faster, and a little too high, for the start of
    every part is predicted without its past. `report` is called now and then with the number of characters done.
    `name` is the text's, for errors.
    """
    predicted = len(numbers) - 1
    if predicted < 1:
        raise ValueError(f"{name} is too short: it has {len(numbers)} characters, at least two are needed")
    streams = min(streams, predicted)
    length = -(-predicted // streams)

    def columns(part: np.ndarray) -> np.ndarray:
        padded = np.zeros(streams * length, dtype=part.dtype)
        padded[:predicted] = part
        return padded.reshape(streams, length).T

    inputs, targets = columns(numbers[:-1]), columns(numbers[1:])
    counted = columns(np.ones(predicted, dtype=bool))
    steps = min(max(1, LOGITS // (streams * len(model.vocabulary))), 512)
    state, nats = None, 0.0
    for start in range(0, length, steps):
        report(start * streams)
        window = slice(start, start + steps)
        logits, state = model(inputs[window], state)
        loss, _ = cross_entropy(logits, targets[window], mask=counted[window])
        nats += loss * np.count_nonzero(counted[window])
    return float(nats / predicted / math.log(2))


def sample(
    model: CharModel,
    prompt: str = "",
    length: int = 500,
    temperature: float = 1.0,
    rng: int | np.random.Generator | None = None,
) -> Iterator[str]:
    """Yield `length` characters that the model writes after `prompt`, one by one.

    Logits are divided by `temperature`; at 0 the likeliest character is taken. One number is drawn from `rng` for a
    character. An empty prompt is read as a line end (as the first character of the vocabulary, where it has none).
    """
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"sample: temperature is {temperature}, expected a number from 0 up")
    rng = np.random.default_rng(rng)
    characters = model.vocabulary.characters
    start = prompt or ("\n" if "\n" in model.vocabulary else characters[0])
    numbers = model.vocabulary.encode(start, "prompt")
    return _sample(model.stream(), characters, numbers, length, temperature, rng)


def _sample(
    step: Callable[[int], np.ndarray],
    characters: str,
    numbers: np.ndarray,
    length: int,
    temperature: float,
    rng: np.random.Generator,
) -> Iterator[str]:
    for number in numbers:
        logits = step(int(number))
    for written in range(length):
        if written:
            logits = step(number)
        if not np.all(np.isfinite(logits)):
            raise ValueError("sample: the model's outputs are not finite, its weights are of no use")
        number = int(choose(logits, temperature, rng))
        yield characters[number]


# ---------------------------------------------------------------------------------------------------- training it


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a training run is, but for its length."""

    cell: str = "lstm"
    hidden: int = 256
    layers: int = 1
    embed: int = 64
    dropout: float = 0.0
    batch: int = 32
    steps: int = 64
    lr: float = 0.002
    seed: int = 0

    def __post_init__(self) -> None:
        choice("settings", "cell", self.cell, CELLS)
        for name in ("hidden", "layers", "embed", "batch", "steps"):
            integer("settings", name, getattr(self, name), 1)
        real("settings", "dropout", self.dropout, 0, 1)
        real("settings", "lr", self.lr, math.ulp(0.0), LARGEST)
        integer("settings", "seed", self.seed, 0)


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run is: passes over the text, or seconds on the clock, counted from its first start."""

    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.seconds is None):
            raise ValueError(
                f"length: epochs is {shown(self.epochs)} and seconds {shown(self.seconds)}, expected one of them"
            )
        if self.seconds is None:
            integer("length", "epochs", self.epochs, 1)
        else:
            real("length", "seconds", self.seconds, math.ulp(0.0), LARGEST)

    def __str__(self) -> str:
        return f"{self.epochs} epochs" if self.epochs is not None else f"{self.seconds:g} seconds"


class Curve:
    """The loss curve: means of the training loss over equal stretches, never more than CURVE of them, and validations.

    When there are too many stretches two become one, so the curve of a run of any length is small.
    """

    def __init__(self, stretch: int = 1, train: Any = (), pending: Any = (), valid: Any = ()):
        self.stretch = integer("curve", "stretch", stretch, 1)  # batches in a point
        self.train = self._points("train", train)  # [characters read so far, bits per character]
        self.pending = [real("curve", "pending", bits, 0, LARGEST) for bits in pending]  # batches after the last point
        self.valid = self._points("valid", valid)

    @staticmethod
    def _points(name: str, points: Any) -> list[list[Any]]:
        """Points that go from left to right."""
        checked = [
            [integer("curve", name, characters, 0), real("curve", name, bits, 0, LARGEST)]
            for characters, bits in points
        ]
        if any(before[0] > after[0] for before, after in itertools.pairwise(checked)):
            raise ValueError(f"curve: {name} is not in order")
        return checked

    @property
    def batches(self) -> int:
        """How many batches it shows."""
        return len(self.train) * self.stretch + len(self.pending)

    def add(self, characters: int, bits: float) -> None:
        """One more training loss, after so many characters."""
        self.pending.append(bits)
        if len(self.pending) < self.stretch:
            return
        self.train.append([characters, math.fsum(self.pending) / self.stretch])
        self.pending.clear()
        if len(self.train) == CURVE:
            pairs = zip(self.train[::2], self.train[1::2], strict=True)
            self.train = [[after, (first + second) / 2] for (_, first), (after, second) in pairs]
            self.stretch *= 2

    def as_dict(self) -> dict[str, Any]:
        """The arguments that make an equal one."""
        return {"stretch": self.stretch, "train": self.train, "pending": self.pending, "valid": self.valid}


def resume_path(path: str | os.PathLike[str]) -> str:
    """Where the training state of the model file `path` lies."""
    return os.fspath(path).removesuffix(".safetensors") + ".resume.safetensors"


@dataclasses.dataclass(frozen=True)
class Resumed:
    """The state of a training as it was written: what it was, and all it needs to go on."""

    settings: Settings
    length: Length
    sources: list[str]  # the files of its text, see text.Corpus
    digest: str  # of its text
    progress: dict[str, Any]
    curve: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Resumed:
        """The training state next to the model file `path`."""
        name = resume_path(path)
        arrays, description = files.load(name, RESUME_KIND)
        with _parts_of(name, description, ("settings", "length", "sources", "text", "progress", "curve")):
            settings, length = Settings(**description["settings"]), Length(**description["length"])
            sources, progress = description["sources"], description["progress"]
            if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
                raise TypeError("sources is no list of file names")
            if not isinstance(progress, dict):
                raise TypeError("progress is no dict")
            return cls(settings, length, sources, description["text"], progress, description["curve"], arrays)


def _identity(settings: Settings, length: Length, corpus: Corpus) -> str:
    """What two trainings share that began alike, and no others."""
    began = repr((settings, length, corpus.digest))
    return hashlib.sha256(began.encode()).hexdigest()[:32]


def _generator_state(value: Mapping[str, Any]) -> dict[str, Any]:
    """A state that NumPy's PCG64 takes as it is: of numbers out of range some versions take the low bits."""
    numbers, most = value["state"], 2**128 - 1
    return {
        "bit_generator": value["bit_generator"],
        "state": {name: integer("progress", f"rng.state.{name}", numbers[name], 0, most) for name in ("state", "inc")},
        "has_uint32": integer("progress", "rng.has_uint32", value["has_uint32"], 0, 1),
        "uinteger": integer("progress", "rng.uinteger", value["uinteger"], 0, 2**32 - 1),
    }


class _Stop(Exception):  # noqa: N818 (no error)
    """A validation was broken off."""


class Trainer:
    """Trains a character model on a corpus and keeps its two files.

    Adam, the gradient's norm clipped at 1, truncated backpropagation through `steps` characters with the state carried
    from batch to batch and zero at the start of a pass. The learning rate is constant for the first 70 % of the run and
    then falls in a straight line to a tenth. The held-out text is validated after every pass over the training text
    (more often where it is so long that only its first million characters are read) and at the end.
    """

    def __init__(self, corpus: Corpus, settings: Settings, length: Length, path: str | os.PathLike[str]):
        self.corpus, self.settings, self.length, self.path = corpus, settings, length, os.fspath(path)
        self.batches = Batches(corpus.train, settings.batch, settings.steps, corpus.name)
        row, least = self.batches.characters // settings.batch, min(settings.steps, LEAST_ROW)
        if row < least:
            raise ValueError(
                f"{corpus.name} is too short for a batch of {settings.batch} rows: each would have {row} characters, "
                f"expected at least {least}; a batch of {(len(corpus.train) - 1) // least} rows is the largest"
            )
        self.valid = corpus.valid[:VALIDATED]
        self.interval = max(1, len(self.batches) * len(self.valid) // len(corpus.valid))  # batches between validations
        self.model = CharModel(corpus.vocabulary, settings.cell, settings.embed, settings.hidden, settings.layers,
                               settings.dropout, rng=settings.seed)  # fmt: skip
        self.optimiser = Adam(self.model, lr=settings.lr)
        self.state: Any = None  # hidden, carried from batch to batch
        self.curve = Curve()
        self.done = 0  # batches
        self.validated = 0  # `done` at the last validation
        self.characters = 0  # predicted in training
        self.seconds = 0.0  # spent in run(), and of these
        self.validating = 0.0  # spent on validation
        self.best_bits: float | None = None
        self._loss = self._weight = 0.0  # running mean of the training loss
        self._best: Any = None  # content of the model file, where it is not written yet
        self.identity = _identity(settings, length, corpus)  # kept when it goes on with another length

    # What the state file holds of the attributes above, besides arrays and the curve.
    _COUNTS = ("done", "validated", "characters")
    _FIGURES = ("seconds", "validating", "_loss", "_weight")
    _PROGRESS = (*_COUNTS, *_FIGURES, "best_bits", "identity")

    @classmethod
    def resume(cls, resumed: Resumed, corpus: Corpus, length: Length, path: str | os.PathLike[str]) -> Trainer:
        """The trainer that `resumed` is the state of; `length` may be another one than it was."""
        if corpus.digest != resumed.digest:
            raise ValueError("the text is not the one that the training to resume began with")
        with _fitting(resume_path(path)):
            parts: dict[str, dict[str, np.ndarray]] = {prefix: {} for prefix in ("model", "optimiser", "state")}
            for name, array in resumed.arrays.items():
                prefix, _, rest = name.partition(".")
                parts[prefix][rest] = array
            settings = resumed.settings
            _check_sizes(parts["model"], len(corpus.vocabulary), settings.cell, settings.embed, settings.hidden,
                         settings.layers)  # fmt: skip
            trainer = cls(corpus, settings, length, path)
            trainer.model.load_state_dict(parts["model"])
            trainer.optimiser.load_state_dict(parts["optimiser"])
            trainer.model.rng.bit_generator.state = _generator_state(resumed.progress["rng"])
            trainer.curve = Curve(**resumed.curve)
            for name in cls._COUNTS:
                setattr(trainer, name, integer("progress", name, resumed.progress[name], 0))
            for name in cls._FIGURES:
                setattr(trainer, name, real("progress", name, resumed.progress[name], 0, LARGEST))
            best = resumed.progress["best_bits"]
            trainer.best_bits = None if best is None else real("progress", "best_bits", best, 0, LARGEST)
            trainer._take_state(parts["state"])
            trainer._check_progress()
            trainer.identity = str(resumed.progress.get("identity", trainer.identity))  # new in older files
        trainer._check_model_file()
        return trainer

    def _check_model_file(self) -> None:
        """FileNotFoundError or ValueError unless it holds this training's best model, or a better one.

        A better one is there where the training was killed before it could write the state as well.
        """
        name, best = file_name(self.path), self.best_bits
        if best is None and not os.path.exists(self.path):
            return
        if not os.path.exists(self.path):
            raise FileNotFoundError(f"{name} is missing: it is the best model of the training to resume")
        _, training = read_model(self.path)
        with _fitting(name):
            own = training.get("identity", self.identity) == self.identity
            bits = training.get("valid_bits_per_char", best)
            if not own or (best is not None and (bits is None or bits > best)):
                raise ValueError("it is not the best model of the training to resume, but of another one")
            if best is not None:  # only what is better still takes its place
                self.best_bits = min(best, real("training", "valid_bits_per_char", bits, 0, LARGEST))

    def _take_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the hidden state out of a file's arrays, of which there may be none between two passes."""
        if not arrays and self.done % len(self.batches) == 0:
            return
        shape = (self.settings.layers, self.settings.batch, self.settings.hidden)
        state = tuple(arrays[str(k)] for k in range(len(self.model.rnn._cell.states)))
        for array in state:
            if len(arrays) != len(state) or array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"the state is {len(arrays)} arrays of shape {array.shape} and dtype {array.dtype}, "
                                 f"expected {len(state)}, {shape} and float32")  # fmt: skip
        self.state = state if len(state) > 1 else state[0]

    def _check_progress(self) -> None:
        """ValueError unless all that counts batches or characters tells the same."""
        passes, rest = divmod(self.done, len(self.batches))
        row = self.batches.characters // self.settings.batch
        characters = self.settings.batch * (passes * row + row * rest // len(self.batches))
        best = min((bits for _, bits in self.curve.valid), default=None)
        for what, found, expected in (
            ("characters", self.characters, characters),
            ("the curve's batches", self.curve.batches, self.done),
            ("the optimiser's steps", self.optimiser.steps, self.done),
            ("best_bits", self.best_bits, best),
            ("validated", self.validated > 0, best is not None),
            ("_weight", self._weight <= 1, True),
        ):
            if found != expected:
                raise ValueError(f"progress: after {self.done} batches {what} is {found}, expected {expected}")
        if self.validated > self.done:
            raise ValueError(f"progress: validated is {self.validated}, expected at most done, {self.done}")

    # What is shown of a run.

    @property
    def epoch(self) -> float:
        """Passes over the training text."""
        return self.done / len(self.batches)

    @property
    def train_bits(self) -> float | None:
        """Training loss, mean over about the last hundred batches."""
        return self._loss / self._weight if self._weight else None

    @property
    def valid_bits(self) -> float | None:
        """The last validation loss."""
        return self.curve.valid[-1][1] if self.curve.valid else None

    @property
    def chars_per_second(self) -> float:
        """Characters trained on in a second of training; validations are left out."""
        spent = self.seconds - self.validating
        return self.characters / spent if spent > 0 else 0.0

    @property
    def progress(self) -> float:
        """The part of the run that is done, 0 to 1."""
        if self.length.epochs is not None:
            return min(1.0, self.done / (self.length.epochs * len(self.batches)))
        return min(1.0, self.seconds / (self.length.seconds or math.inf))

    @property
    def finished(self) -> bool:
        """Whether the run has its length, and its last model was judged."""
        return self.progress >= 1 and self.validated == self.done

    @property
    def saved_bits(self) -> float | None:
        """Loss of the best model, None as long as it is not in its file."""
        return self.best_bits if self._best is None else None

    # The run.

    def run(self, stop: Callable[[], bool] = lambda: False, report: Callable[[], None] = lambda: None) -> None:
        """Train until `finished` or until `stop` says so, then write the files. After every batch, call `report`.

        Where something is raised, the best model is written before it goes on, and the training state stays the one
        last written.
        """
        try:
            self._run(stop, report)
        except BaseException:
            with contextlib.suppress(OSError, MemoryError):
                self._save_best()
            raise
        self.save()

    def _run(self, stop: Callable[[], bool], report: Callable[[], None]) -> None:
        if self.length.seconds is not None and self.done == 0:
            self._check_update(self.length.seconds)
        began = time.monotonic() - self.seconds
        saved = time.monotonic()
        while not stop() and not self.finished:
            due = self.progress >= 1 or self.done % self.interval == 0
            if due and self.validated != self.done:
                self._validate(stop)
            else:
                self._step()
            self.seconds = time.monotonic() - began
            report()
            if time.monotonic() - saved >= SAVE_EVERY:
                self.save()
                saved = time.monotonic()

    def _check_update(self, seconds: float) -> None:
        """ValueError if one update takes longer than the whole run shall.

        Told by the first steps of one, on one thread and in time on the CPU: however busy the machine, no update takes
        less than that divided by the threads.
        """
        inputs, targets = self.batches[0]
        rng = self.model.rng.bit_generator.state
        taken = []
        for _ in range(3):  # the first warms up
            start = time.thread_time()
            with threads(1):
                (logits, _), pullback = self.model.vjp(inputs[:PROBED])
                pullback(cross_entropy(logits, targets[:PROBED])[1])
            taken.append((time.thread_time() - start) / get_num_threads())
            if taken[-1] > seconds:
                break
        self.model.rng.bit_generator.state = rng
        update = min(taken) * len(inputs) / len(inputs[:PROBED])
        if update > seconds:
            raise ValueError(
                f"one update of {len(inputs)} steps and {self.settings.batch} rows takes at least {update:.2g} "
                f"seconds, more than the {seconds:g} of the whole training: fewer steps, rows or units, or more time"
            )

    @np.errstate(all="ignore")  # what runs off is told by _check
    def _step(self) -> None:
        window = self.done % len(self.batches)
        inputs, targets = self.batches[window]
        if window == 0:
            self.state = None
        self.model.zero_grad()
        (logits, self.state), pullback = self.model.vjp(inputs, self.state)
        loss, dlogits = cross_entropy(logits, targets)
        self._check(loss)
        pullback(dlogits)
        self._check(clip_grad_norm(self.model, MAX_NORM))
        falling = max(0.0, self.progress - CONSTANT) / (1 - CONSTANT)
        self.optimiser.lr = self.settings.lr * (1 - (1 - FINAL) * falling)
        self.optimiser.step()
        self.done += 1
        self.characters += inputs.size
        bits = loss / math.log(2)
        self._loss = SMOOTH * self._loss + (1 - SMOOTH) * bits
        self._weight = SMOOTH * self._weight + (1 - SMOOTH)
        self.curve.add(self.characters, bits)

    def _validate(self, stop: Callable[[], bool]) -> None:
        """Validate, and keep the model if it is the best; nothing has happened if `stop` breaks it off."""

        def check(characters: int) -> None:
            if stop():
                raise _Stop

        start = time.monotonic()
        try:
            bits = bits_per_character(self.model, self.valid, self.settings.batch, check)
        except _Stop:
            return
        finally:
            self.validating += time.monotonic() - start
        self._check(bits)
        if min(bits, self.train_bits or 0.0) > RUN_OFF * (1 + uniform_bits(self.model)):
            self._ran_off(f"{bits:.4g} bits per character")
        self.validated = self.done
        self.curve.valid.append([self.characters, bits])
        if self.best_bits is None or bits < self.best_bits:
            self.best_bits = bits
            self._best = model_file(self.model, self._training(bits))

    def _check(self, value: float) -> None:
        if not math.isfinite(value):
            self._ran_off(f"{value}")

    def _ran_off(self, where: str) -> NoReturn:
        raise ValueError(
            f"training has run off to {where} after {self.done} batches: "
            f"the learning rate {self.settings.lr:g} is too high"
        )

    # The files.

    def _training(self, bits: float | None) -> dict[str, Any]:
        figures: dict[str, float | None] = {"characters": self.characters, "epochs": self.epoch}
        figures |= {"train_bits_per_char": self.train_bits, "valid_bits_per_char": bits}
        return dataclasses.asdict(self.settings) | figures | {"identity": self.identity}

    def save(self) -> None:
        """Write the best model (the model as it is, as long as none has been validated), then the training state."""
        self._save_best()
        if self.best_bits is None:
            save_model(self.path, self.model, self._training(None))
        used = self.state if self.done % len(self.batches) else None  # a new pass does not begin with it
        state = used if isinstance(used, tuple) else () if used is None else (used,)
        arrays = {f"model.{key}": array for key, array in self.model.state_dict().items()}
        arrays |= {f"optimiser.{key}": np.asarray(value) for key, value in self.optimiser.state_dict().items()}
        arrays |= {f"state.{k}": array for k, array in enumerate(state)}
        description = {
            "kind": RESUME_KIND,
            "version": VERSION,
            "settings": dataclasses.asdict(self.settings),
            "length": dataclasses.asdict(self.length),
            "sources": self.corpus.sources,
            "text": self.corpus.digest,
            "progress": {key: getattr(self, key) for key in self._PROGRESS}
            | {"rng": self.model.rng.bit_generator.state},
            "curve": self.curve.as_dict(),
        }
        files.save(resume_path(self.path), arrays, description)

    def _save_best(self) -> None:
        """Write the best model, if it is not written yet."""
        if self._best is not None:
            files.save(self.path, *self._best)
            self._best = None
