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

import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..cells import CELLS
from ..core import files
from ..core.checks import choice, file_name, instance
from ..core.config import QUANTIZED
from ..core.encoded import SCALE
from ..core.model import Model
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.linear import Linear
from ..layers.stack import LAYERS
from ..text.corpus import Vocabulary
from ..text.decoding import choose
from ..training.losses import cross_entropy
from .run import VERSION, Settings, _parts_of

MODEL_KIND = "character model"
LOGITS = 1 << 21  # about so many logits are computed at once in an evaluation


# ---------------------------------------------------------------------------------------------------- the model


class CharModel(Model):
    """Characters in, logits of the next character out: ids (T, N) -> (T, N, V). `pyrnn train` makes such a model, and
    `pyrnn.load` reads it.

    vocabulary: a `pyrnn.text.Vocabulary` of V characters, without marks. cell: "rnn", "lstm", "gru" or the name of
    another recurrent layer in small letters, of `layers` layers with `hidden` units. embed: numbers of a character's
    vector. In `vjp`, `dropout` acts on the outputs of every recurrent layer, the last included (Zaremba et al. 2014).
    TypeError and ValueError for what does not fit.

        from pyrnn.app.charmodel import CharModel

        vocabulary = pyrnn.text.Vocabulary.of("to be or not to be")
        model = CharModel(vocabulary, "gru", embed=8, hidden=16, rng=0)
        logits, state = model(vocabulary.encode("to be")[:, None])  # (5, 1, V)
    """

    def __init__(self, vocabulary: Vocabulary, cell: str = "lstm", embed: int = 64, hidden: int = 256,
                 layers: int = 1, dropout: float = 0.0, rng: int | np.random.Generator | None = None):  # fmt: skip
        instance("CharModel", "vocabulary", vocabulary, Vocabulary, "a pyrnn.text.Vocabulary")
        choice("CharModel", "cell", cell, LAYERS)
        if vocabulary.marks:
            raise ValueError(f"CharModel: the vocabulary has the marks {', '.join(vocabulary.marks)}, expected none")
        self.rng = np.random.default_rng(rng)
        self.vocabulary = vocabulary
        self.sizes = {"cell": cell, "embed": embed, "hidden": hidden, "layers": layers}
        super().__init__(
            embed=Embedding(len(vocabulary), embed, rng=self.rng),
            rnn=LAYERS[cell](embed, hidden, layers, dropout=dropout if layers > 1 else 0.0, rng=self.rng),
            dropout=Dropout(dropout, rng=self.rng),
            head=Linear(hidden, len(vocabulary), rng=self.rng),
        )

    def __call__(self, ids: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        """ids (T, N) -> logits (T, N, V), state.

        logits, state = model(ids)
        """
        y, state = self.rnn(self.embed.params["weight"], state, ids=ids)
        return self.head(y), state

    def vjp(self, ids: np.ndarray, state: Any = None) -> tuple[tuple[np.ndarray, Any], Callable[[np.ndarray], None]]:
        """(logits, state), pullback. pullback(dlogits) adds to `grads`.

        (logits, state), pullback = model.vjp(ids[:-1])
        pullback(pyrnn.cross_entropy(logits, ids[1:])[1])
        """
        (y, state), pull_rnn = self.rnn.vjp(self.embed.params["weight"], state, ids=ids)
        if self.dropout.p:
            y, pull_dropout = self.dropout.vjp(y)
        logits, pull_head = self.head.vjp(y)

        def pullback(dlogits: np.ndarray) -> None:
            dy = pull_head(dlogits)
            dweight, _ = pull_rnn(pull_dropout(dy) if self.dropout.p else dy)
            self.embed.grads["weight"] += dweight

        return (logits, state), pullback

    def stream(self) -> Callable[[int], np.ndarray]:
        """A function that reads one character after the other and returns the logits (V,) of the next.

        step = model.stream()
        logits = step(ids[0, 0])
        """
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
        "model": model.sizes | ({QUANTIZED: model.quantized} if model.quantized else {}),
        "vocabulary": _as_json(model.vocabulary.characters),
        "training": dict(training),
    }
    return model.state_dict(), description


def save_model(path: str | os.PathLike[str], model: CharModel, training: Mapping[str, Any]) -> None:
    """Write a model file."""
    files.save(path, *model_file(model, training))


def load_model(path: str | os.PathLike[str], weights: str | None = None) -> CharModel:
    """The model in a model file, with its weights as they are or in another form, see `Layer.quantize`. ValueError too
    where they are in one already that is not this."""
    model = read_model(path)[0]
    if weights in (None, model.quantized):
        return model
    if model.quantized:
        raise ValueError(f"{file_name(path)}: its weights are of {model.quantized}, and cannot become {weights}")
    frozen: CharModel = model.quantize(weights)
    return frozen


def read_model(path: str | os.PathLike[str]) -> tuple[CharModel, dict[str, Any]]:
    """The model in a model file, and what the file says of its training."""
    from ..formats.weights import telling_form

    with telling_form("load", path):
        weights, description = files.load(path, MODEL_KIND)
    with _parts_of(file_name(path), description, ("model", "vocabulary", "training")):
        sizes = dict(description["model"])
        form = sizes.pop(QUANTIZED, None)
        Settings(**sizes)
        vocabulary = Vocabulary("".join(description["vocabulary"]))
        _check_sizes(weights, len(vocabulary), sizes["cell"], sizes["embed"], sizes["hidden"], sizes["layers"])
        model = CharModel(vocabulary, **sizes)
        model = model if form is None else model.quantize(form)
        model._take(weights)
        return model, dict(description["training"])


def _as_json(characters: str) -> str | list[str]:
    """A string, or the list of its characters where JSON would make one of two of them, halves of surrogate pairs."""
    return list(characters) if any("\ud800" <= character <= "\udfff" for character in characters) else characters


def _check_sizes(weights: Mapping[str, np.ndarray], size: int, cell: str, embed: int, hidden: int, layers: int) -> None:
    """ValueError unless a model of these sizes has as many numbers as there are: before its memory is asked for."""
    given = sum(array.size for name, array in weights.items() if not name.endswith(SCALE))
    record = CELLS[cell]
    present = record.present(lambda argument: argument == "bias")
    first, other = (record.shapes(inputs, hidden) for inputs in (embed, hidden))
    recurrent = sum(math.prod(first[name]) + (layers - 1) * math.prod(other[name]) for name in present)
    if given != size * embed + recurrent + size * (hidden + 1):
        raise ValueError(
            f"its sizes ({cell}, {size} characters, embed {embed}, hidden {hidden}, layers {layers}) are not those of "
            f"its arrays, which hold {given:,} numbers"
        )


# ---------------------------------------------------------------------------------------------------- using it


def uniform_bits(model: CharModel) -> float:
    """Bits per character of a model that holds every character for equally likely."""
    return math.log2(len(model.vocabulary))


def bits_per_character(
    model: CharModel,
    ids: np.ndarray,
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
    predicted = len(ids) - 1
    if predicted < 1:
        raise ValueError(f"{name} is too short: it has {len(ids)} characters, at least two are needed")
    nats = nats_of(model, *columns(ids, streams), report)
    return float(nats / predicted / math.log(2))


def columns(ids: np.ndarray, streams: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A text cut into parts that are read side by side: inputs, targets, and which of them count, each (T, N)."""
    predicted = len(ids) - 1
    streams = min(streams, predicted)
    length = -(-predicted // streams)

    def cut(part: np.ndarray) -> np.ndarray:
        padded = np.zeros(streams * length, dtype=part.dtype)
        padded[:predicted] = part
        return padded.reshape(streams, length).T

    return cut(ids[:-1]), cut(ids[1:]), cut(np.ones(predicted, dtype=bool))


def nats_of(
    model: CharModel,
    inputs: np.ndarray,
    targets: np.ndarray,
    counted: np.ndarray,
    report: Callable[[int], None] = lambda characters: None,
) -> float:
    """The nats in all that a model spends on `columns`."""
    length, streams = inputs.shape
    steps = min(max(1, LOGITS // (streams * len(model.vocabulary))), 512)
    state, nats = None, 0.0
    for start in range(0, length, steps):
        report(start * streams)
        window = slice(start, start + steps)
        logits, state = model(inputs[window], state)
        loss, _ = cross_entropy(logits, targets[window], mask=counted[window])
        nats += loss * np.count_nonzero(counted[window])
    return nats


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
    ids = model.vocabulary.encode(start, "prompt")
    return _sample(model.stream(), characters, ids, length, temperature, rng)


def _sample(
    step: Callable[[int], np.ndarray],
    characters: str,
    ids: np.ndarray,
    length: int,
    temperature: float,
    rng: np.random.Generator,
) -> Iterator[str]:
    for number in ids:
        logits = step(int(number))
    for written in range(length):
        if written:
            logits = step(number)
        if not np.all(np.isfinite(logits)):
            raise ValueError("sample: the model's outputs are not finite, its weights are of no use")
        number = int(choose(logits, temperature, rng))
        yield characters[number]
