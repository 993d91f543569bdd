"""The character model: an embedding, recurrent layers and a linear head that predict the next character of a text.

Training keeps two files. `model.safetensors` is the best model so far, which `sample` and `eval` read: the weights, and
in the description the cell, the sizes, the vocabulary, how it was trained and how far. `model.resume.safetensors` next
to it is the state of the training itself: the current weights, Adam's moments, the hidden state carried from batch to
batch, the place in the text, the best loss and the loss curve. Both are replaced as a whole (see files.py), so a
training killed at any moment goes on from the last state written.

Nothing in training is random but the initial weights and the dropout, whose generator is part of the training's state.
So a run of a given number of epochs that was stopped and resumed ends with the same bits as one that never stopped. A
run of a given number of seconds takes as many batches as the machine manages, and its learning rate follows the clock:
no two of them are equal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from . import files
from .decoding import choose
from .layers import Dropout, Embedding, Linear
from .losses import cross_entropy
from .optim import Adam, clip_grad_norm
from .parameters import Model
from .recurrent import CELLS
from .text import Batches, Corpus, Vocabulary

MODEL_KIND, RESUME_KIND, VERSION = "character model", "character model training", 1

MAX_NORM = 1.0  # of the gradient
CONSTANT = 0.7  # this part of a run has the full learning rate; it then falls in a straight line
FINAL = 0.1  # to this part of it
LOGITS = 1 << 21  # about so many logits are computed at once in an evaluation
VALIDATED = 1 << 20  # at most so many held-out characters are read at a validation
SMOOTH = 0.99  # weight of the past in the running mean of the training loss
CURVE = 512  # the loss curve keeps at most so many points
SAVE_EVERY = 30.0  # seconds between two writings of the training state


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
            rnn=CELLS[cell](embed, hidden, layers, dropout=dropout if layers > 1 else 0.0, rng=self.rng),
            dropout=Dropout(dropout, rng=self.rng),
            head=Linear(hidden, len(vocabulary), rng=self.rng),
        )

    def __call__(self, tokens: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        y, state = self.rnn(self.embed.params["weight"], state, ids=tokens)
        return self.head(y), state

    def vjp(self, tokens: np.ndarray, state: Any = None) -> tuple[tuple[np.ndarray, Any], Callable[[np.ndarray], None]]:
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
        "vocabulary": model.vocabulary.characters,
        "training": dict(training),
    }
    return model.state_dict(), description


def save_model(path: str | os.PathLike[str], model: CharModel, training: Mapping[str, Any]) -> None:
    """Write a model file."""
    files.save(path, *model_file(model, training))


def load_model(path: str | os.PathLike[str]) -> CharModel:
    """The model in a model file."""
    weights, description = files.load(path, MODEL_KIND)
    name = os.fspath(path)
    _check_version(name, description)
    try:
        sizes = description["model"]
        vocabulary = Vocabulary(description["vocabulary"])
        last = weights[f"rnn.weight_hh_l{sizes['layers'] - 1}"]
        if last.shape[1:] != (sizes["hidden"],) or weights["embed.weight"].shape != (len(vocabulary), sizes["embed"]):
            raise ValueError("the sizes in its description are not those of its arrays")
        model = CharModel(vocabulary, **sizes)
        model.load_state_dict(weights)
    except KeyError as error:
        raise ValueError(f"{name}: {error} is missing or unknown") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name}: {error}") from error
    return model


def _check_version(name: str, description: Mapping[str, Any]) -> None:
    if description.get("version") != VERSION:
        raise ValueError(f"{name} is of version {description.get('version')}, this pyrnn reads version {VERSION}")


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


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run is: passes over the text, or seconds on the clock, counted from its first start."""

    epochs: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.epochs} epochs" if self.epochs is not None else f"{self.seconds:g} seconds"


class Curve:
    """The loss curve: means of the training loss over equal stretches, never more than CURVE of them, and validations.

    When there are too many stretches two become one, so the curve of a run of any length is small.
    """

    def __init__(self, stretch: int = 1, train: Any = (), pending: Any = (), valid: Any = ()):
        self.stretch = stretch  # batches in a point
        self.train = [list(point) for point in train]  # [characters read so far, bits per character]
        self.pending = list(pending)  # losses of the batches after the last point
        self.valid = [list(point) for point in valid]

    def add(self, characters: int, bits: float) -> None:
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
        _check_version(name, description)
        try:
            settings, length = Settings(**description["settings"]), Length(**description["length"])
            return cls(settings, length, description["sources"], description["text"], description["progress"],
                       description["curve"], arrays)  # fmt: skip
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name}: its description is incomplete: {error}") from error


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
        self._fresh = True  # no state of this run has been written

    # What the state file holds of the attributes above, besides arrays and the curve.
    _PROGRESS = ("done", "validated", "characters", "seconds", "validating", "best_bits", "_loss", "_weight")

    @classmethod
    def resume(cls, resumed: Resumed, corpus: Corpus, length: Length, path: str | os.PathLike[str]) -> Trainer:
        """The trainer that `resumed` is the state of; `length` may be another one than it was."""
        if corpus.digest != resumed.digest:
            raise ValueError("the text is not the one that the training to resume began with")
        if resumed.progress.get("best_bits") is not None and not os.path.exists(path):
            raise FileNotFoundError(f"{os.fspath(path)} is missing: it is the best model of the training to resume")
        trainer = cls(corpus, resumed.settings, length, path)
        try:
            parts: dict[str, dict[str, np.ndarray]] = {prefix: {} for prefix in ("model", "optimiser", "state")}
            for name, array in resumed.arrays.items():
                prefix, _, rest = name.partition(".")
                parts[prefix][rest] = array
            trainer.model.load_state_dict(parts["model"])
            trainer.optimiser.load_state_dict(parts["optimiser"])
            state = tuple(parts["state"][str(k)] for k in range(len(parts["state"])))
            trainer.state = state if len(state) > 1 else state[0] if state else None
            trainer.curve = Curve(**resumed.curve)
            trainer.model.rng.bit_generator.state = resumed.progress["rng"]
            for name in cls._PROGRESS:
                setattr(trainer, name, resumed.progress[name])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{resume_path(path)} does not fit together: {error}") from error
        trainer._fresh = False
        return trainer

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
        self.validated = self.done
        self.curve.valid.append([self.characters, bits])
        if self.best_bits is None or bits < self.best_bits:
            self.best_bits = bits
            self._best = model_file(self.model, self._training(bits))

    def _check(self, value: float) -> None:
        if not math.isfinite(value):
            raise ValueError(
                f"training has run off to {value} after {self.done} batches: "
                f"the learning rate {self.settings.lr:g} is too high"
            )

    # The files.

    def _training(self, bits: float | None) -> dict[str, Any]:
        figures: dict[str, float | None] = {"characters": self.characters, "epochs": self.epoch}
        figures |= {"train_bits_per_char": self.train_bits, "valid_bits_per_char": bits}
        return dataclasses.asdict(self.settings) | figures

    def save(self) -> None:
        """Write the best model (the model as it is, as long as none has been validated), then the training state."""
        self._save_best()
        if self.best_bits is None:
            self._drop_older()
            save_model(self.path, self.model, self._training(None))
        state = self.state if isinstance(self.state, tuple) else () if self.state is None else (self.state,)
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
        self._fresh = False

    def _save_best(self) -> None:
        """Write the best model, if it is not written yet."""
        if self._best is not None:
            self._drop_older()
            files.save(self.path, *self._best)
            self._best = None

    def _drop_older(self) -> None:
        """Remove the state of an older run before a model of this one is written, that it is not taken for its own."""
        name = resume_path(self.path)
        if self._fresh and os.path.exists(name):
            os.unlink(name)
