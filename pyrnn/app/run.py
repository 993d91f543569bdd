"""What a training run of a character model is: settings, length, loss curve, and the state to resume it from."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..cells import CELLS
from ..core import files
from ..core.checks import choice, integer, real, shown
from ..text.corpus import Corpus

RESUME_KIND, VERSION = "character model training", 1  # of the files, the version that of models too
LARGEST = sys.float_info.max
CURVE = 512  # the loss curve keeps at most so many points


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
    shards: int = 1  # of a batch, see parallel.DataParallel

    def __post_init__(self) -> None:
        choice("settings", "cell", self.cell, CELLS)
        for name in ("hidden", "layers", "embed", "batch", "steps", "shards"):
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
