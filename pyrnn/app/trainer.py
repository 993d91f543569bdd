"""The training of a character model: settings, budget, loss curve, state to resume from."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from ..core import files
from ..core.checks import file_name, integer, real
from ..parallel import DataParallel
from ..text.corpus import Batches, Corpus
from ..threads import get_num_threads, threads
from ..training.losses import cross_entropy
from ..training.optim import Adam, clip_grad_norm
from .charmodel import CharModel, _check_sizes, columns, model_file, nats_of, read_model, save_model, uniform_bits
from .run import (
    LARGEST,
    RESUME_KIND,
    VERSION,
    Curve,
    Length,
    Resumed,
    Settings,
    _fitting,
    _generator_state,
    _identity,
    resume_path,
)

MAX_NORM = 1.0  # of the gradient
CONSTANT = 0.7  # this part of a run has the full learning rate; it then falls in a straight line
FINAL = 0.1  # to this part of it
VALIDATED = 1 << 20  # at most so many held-out characters are read at a validation
SMOOTH = 0.99  # weight of the past in the running mean of the training loss
SAVE_EVERY = 30.0  # seconds between two writings of the training state
LEAST_ROW = 8  # characters, or those of one update: with fewer there is hardly a past to predict from
DIVERGED = 4.0  # times the bits of a model that knows nothing (and 1 more): no training comes back from there
PROBED = 8  # steps of an update, by which is told how long a whole one takes


class _Stop(Exception):  # noqa: N818 (no error)
    """A validation was broken off."""


class Trainer:
    """Trains a character model on a corpus and keeps its two files.

    Adam, the gradient's norm clipped at 1, truncated backpropagation through `steps` characters with the state carried
    from batch to batch and zero at the start of a pass. The learning rate is constant for the first 70 % of the run and
    then falls in a straight line to a tenth. The held-out text is validated after every pass over the training text
    (more often where it is so long that only its first million characters are read) and at the end.

    Batches and validations are shared by the processes that mpiexec has started, see parallel.DataParallel: all walk
    through a run alike, each with the rows of its shards; the first has the clock and the files.
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
        self.parallel = DataParallel(self.model, shards=settings.shards)
        self.processes = self.parallel.processes
        self.rows = np.arange(settings.batch)
        self.optimiser = Adam(self.model, lr=settings.lr)
        self.states: dict[int, Any] = {}  # hidden, carried from batch to batch: of each shard here, by its first row
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
        self.best_bits = self.processes.first(self._bits_of_model_file)

    def _bits_of_model_file(self) -> float | None:
        name, best = file_name(self.path), self.best_bits
        if best is None and not os.path.exists(self.path):
            return None
        if not os.path.exists(self.path):
            raise FileNotFoundError(f"{name} is missing: it is the best model of the training to resume")
        _, training = read_model(self.path)
        with _fitting(name):
            own = training.get("identity", self.identity) == self.identity
            bits = training.get("valid_bits_per_char", best)
            if not own or (best is not None and (bits is None or bits > best)):
                raise ValueError("it is not the best model of the training to resume, but of another one")
            if best is not None:  # only what is better still takes its place
                best = min(best, real("training", "valid_bits_per_char", bits, 0, LARGEST))
        return best

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

        def take(_: CharModel, rows: np.ndarray) -> None:
            own = tuple(array[:, rows] for array in state)
            self.states[rows[0]] = own if len(own) > 1 else own[0]

        self.parallel.map(take, self.rows)

    def _state(self) -> list[np.ndarray]:
        """The hidden state of all rows."""

        def own(_: CharModel, rows: np.ndarray) -> tuple[np.ndarray, ...]:
            state = self.states[rows[0]]
            return state if isinstance(state, tuple) else (state,)

        return [np.concatenate(parts, axis=1) for parts in zip(*self.parallel.map(own, self.rows), strict=True)]

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
                if self.processes.rank == 0:
                    self._save_best()
            raise
        self.save()

    def _run(self, stop: Callable[[], bool], report: Callable[[], None]) -> None:
        seconds = self.length.seconds
        if seconds is not None and self.done == 0:
            self.processes.first(lambda: self._check_update(seconds))
        saved = self.processes.first(time.monotonic)
        began = saved - self.seconds
        while not any(self.processes.together(stop)) and not self.finished:
            due = self.progress >= 1 or self.done % self.interval == 0
            if due and self.validated != self.done:
                self._validate(stop)
            else:
                self._step()
            now = self.processes.first(time.monotonic)
            self.seconds = now - began
            report()
            if now - saved >= SAVE_EVERY:
                self.save()
                saved = now

    def _check_update(self, seconds: float) -> None:
        """ValueError if one update takes longer than the whole run shall.

        Told by the first steps of one, on one thread and in time on the CPU: however busy the machine, no update takes
        less than that divided by the threads, those of all processes.
        """
        inputs, targets = self.batches[0]
        rng = self.model.rng.bit_generator.state
        taken = []
        for _ in range(3):  # the first warms up
            start = time.thread_time()
            with threads(1):
                (logits, _), pullback = self.model.vjp(inputs[:PROBED])
                pullback(cross_entropy(logits, targets[:PROBED])[1])
            taken.append((time.thread_time() - start) / (get_num_threads() * self.processes.size))
            if taken[-1] > seconds:
                break
        self.model.rng.bit_generator.state = rng
        update = min(taken) * len(inputs) / len(inputs[:PROBED])
        if update > seconds:
            raise ValueError(
                f"one update of {len(inputs)} steps and {self.settings.batch} rows takes at least {update:.2g} "
                f"seconds, more than the {seconds:g} of the whole training: fewer steps, rows or units, or more time"
            )

    @np.errstate(all="ignore")  # what diverges is told by _check
    def _step(self) -> None:
        window = self.done % len(self.batches)
        inputs, targets = self.batches[window]
        if window == 0:
            self.states.clear()

        def loss_of(model: CharModel, part: tuple[np.ndarray, ...]) -> tuple[float, int]:
            rows, inputs, targets = part
            (logits, state), pullback = model.vjp(inputs.T, self.states.get(rows[0]))
            self.states[rows[0]] = state
            loss, dlogits = cross_entropy(logits, targets.T)
            self._check(loss)
            pullback(dlogits)
            return loss, inputs.size

        loss = self.parallel.step(loss_of, (self.rows, inputs.T, targets.T))
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

        def nats_of_part(model: CharModel, part: tuple[np.ndarray, ...]) -> float:
            inputs, targets, counted = (array.T for array in part)
            return nats_of(model, inputs, targets, counted, check)

        start = time.monotonic()
        try:
            nats = sum(self.parallel.map(nats_of_part, tuple(array.T for array in columns(self.valid, len(self.rows)))))
        except _Stop:
            return
        finally:
            self.validating += time.monotonic() - start
        bits = nats / (len(self.valid) - 1) / math.log(2)
        self._check(bits)
        if min(bits, self.train_bits or 0.0) > DIVERGED * (1 + uniform_bits(self.model)):
            self._diverged(f"{bits:.4g} bits per character")
        self.validated = self.done
        self.curve.valid.append([self.characters, bits])
        if self.best_bits is None or bits < self.best_bits:
            self.best_bits = bits
            self._best = model_file(self.model, self._training(bits))

    def _check(self, value: float) -> None:
        if not math.isfinite(value):
            self._diverged(f"{value}")

    def _diverged(self, where: str) -> NoReturn:
        raise ValueError(
            f"training has diverged to {where} after {self.done} batches: "
            f"the learning rate {self.settings.lr:g} is too high"
        )

    # The files.

    def _training(self, bits: float | None) -> dict[str, Any]:
        figures: dict[str, float | None] = {"characters": self.characters, "epochs": self.epoch}
        figures |= {"train_bits_per_char": self.train_bits, "valid_bits_per_char": bits}
        return dataclasses.asdict(self.settings) | figures | {"identity": self.identity}

    def save(self) -> None:
        """Write the best model (the model as it is, as long as none has been validated), then the training state."""
        state = self._state() if self.done % len(self.batches) else []  # a new pass does not begin with it
        self.processes.first(lambda: self._write(state))

    def _write(self, state: Sequence[np.ndarray]) -> None:
        self._save_best()
        if self.best_bits is None:
            save_model(self.path, self.model, self._training(None))
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
