"""`pyrnn train`: a character model of texts, trained, saved, gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..cells import CELLS
from ..core.files import naming

if TYPE_CHECKING:
    from .run import Resumed
    from .trainer import Trainer
from .terminal import COUNT, FILE, SEED, Real, _note, _Progress, _signals, _write

DEFAULT_SECONDS = 60.0
TEMPERATURE = 0.8
SAMPLE_LENGTH = 500
STDIN = "-"


@click.command()
@click.argument("text", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="model.safetensors", show_default=True, help="File of the best model.")
@click.option("--cell", type=click.Choice(list(CELLS)), default="lstm", show_default=True)
@click.option("--hidden", type=COUNT, default=256, show_default=True, help="Hidden units of a layer.")
@click.option("--layers", type=COUNT, default=1, show_default=True, help="Recurrent layers.")
@click.option("--embed", type=COUNT, default=64, show_default=True, help="Embedding size.")
@click.option("--dropout", type=Real(min=0, max=1), default=0.0, show_default=True,
              help="Part of the recurrent layers' outputs that is dropped in training.")  # fmt: skip
@click.option("--batch", type=COUNT, default=32, show_default=True, help="Batch size.")
@click.option("--steps", type=COUNT, default=64, show_default=True, help="Characters between two updates.")
@click.option("--lr", type=Real(min=0, min_open=True), default=0.002, show_default=True, help="Adam's learning rate.")
@click.option("--epochs", type=COUNT, help="Train for so many passes over the text.")
@click.option("--seconds", type=Real(min=0, min_open=True),
              help=f"Train for so long.  [default, without --epochs: {DEFAULT_SECONDS:g}]")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the initial weights and the sample.")
@click.option("--shards", type=COUNT, default=1, show_default=True,
              help="Parts of a batch for `mpiexec -n K pyrnn train`: the same result for any K.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the training that was writing to --out.")
@click.option("--overwrite", is_flag=True, help="Replace the model and the state of an earlier training in --out.")
@click.option("--plot", type=FILE, help="Write the loss curve as a picture (.png, .svg, .pdf).")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object, the last line.")
@click.pass_context
def train(context: click.Context, /, text: tuple[str, ...], out: str, epochs: int | None, seconds: float | None,
          resume: bool, overwrite: bool, plot: str | None, as_json: bool, **options: Any) -> int:  # fmt: skip
    """Train a character model on TEXT files.

    They are UTF-8, and read one after the other; the last tenth is held out. Without TEXT: on the language reference
    that comes with Python; - is the standard input. Ctrl-C saves, and so does the end of the terminal; --resume goes on
    from there. It takes text and options from the saved training; --epochs and --seconds may be given anew, and count
    from its first start.
    """
    from ..core.processes import processes_of
    from ..text.corpus import Corpus
    from .run import Length, Settings
    from .trainer import Trainer

    if epochs is not None and seconds is not None:
        raise click.UsageError("--epochs and --seconds exclude each other")
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    processes = processes_of("pyrnn train")
    sources = list(text)
    saved = processes.first(lambda: _prepared(context, sources, out, resume, overwrite, plot, options))
    length = Length(epochs, DEFAULT_SECONDS if epochs is None and seconds is None else seconds)
    if saved is not None:
        sources = sources or saved.sources
        length = saved.length if epochs is None and seconds is None else length
    corpus = Corpus(processes.first(lambda: _read_all(sources)), _absolute(sources))
    if saved is not None:
        trainer = Trainer.resume(saved, corpus, length, out)
    else:
        trainer = Trainer(corpus, Settings(**options), length, out)

    _note(_about(trainer))
    idle = processes.size - trainer.settings.shards
    if idle > 0:
        _note(f"{idle} of {processes.size} processes have nothing to do: there are --shards {trainer.settings.shards}.")
    if resume and trainer.finished:
        _note(f"This training is finished after its {length}; a larger --epochs or --seconds would go on with it.")
    try:
        progress = _Progress(lambda: trainer.progress, lambda: _figures(trainer))
        with _signals() as caught, contextlib.closing(progress):
            trainer.run(lambda: bool(caught), progress.show)
    except Exception:
        if trainer.saved_bits is not None:
            _note(f"Best model until then: {trainer.saved_bits:.3f} bits per character, saved to {out}.")
        raise
    signals = [number for of_one in processes.together(lambda: caught) for number in of_one]
    return processes.first(lambda: _ended(trainer, out, plot, as_json, signals))


def _prepared(context: click.Context, text: Sequence[str], out: str, resume: bool, overwrite: bool, plot: str | None,
              options: dict[str, Any]) -> Resumed | None:  # fmt: skip
    """Find what would hinder the training before it begins, and lock its files; the state to resume, if that is
    asked."""
    from .. import plots
    from ..core import files
    from .run import Resumed, resume_path

    state = resume_path(out)
    _refuse_overwriting(text, out, plot)
    files.check_writable(out)
    files.check_writable(state)
    for name in (out, state):
        context.with_resource(files.exclusive(name))
    for name in () if resume or overwrite else (out, state):
        if os.path.lexists(name):
            raise click.UsageError(f"{name} exists: --resume goes on with the training it is from, --overwrite "
                                   "replaces it, --out writes another file")  # fmt: skip
    if plot is not None:
        plots.check(plot)
    if not resume:
        return None
    saved = Resumed.read(out)
    _refuse_contradictions(context, saved.settings, options)
    _refuse_overwriting(text or saved.sources, out, plot)
    if STDIN in saved.sources and not text:
        raise click.UsageError("the training to resume read its text from the standard input: give it again, with -")
    return saved


def _ended(trainer: Trainer, out: str, plot: str | None, as_json: bool, signals: Sequence[int]) -> int:
    """What is to show of a training that has ended or was stopped; the exit code."""
    from .. import plots
    from . import charmodel

    if plot is not None:
        plots.loss_curve(plot, trainer.curve.train, trainer.curve.valid, _title(trainer),
                         {"all characters equally likely": charmodel.uniform_bits(trainer.model)})  # fmt: skip
        _note(f"Loss curve: {plot}")
    if not trainer.finished:
        _note(f"Stopped and saved after {trainer.epoch:.2f} epochs. Go on with: "
              f"pyrnn train{' -' * (STDIN in trainer.corpus.sources)} --resume --out {_quoted(out)}")  # fmt: skip
        return 128 + signals[0]
    _note(f"Best model: {trainer.best_bits:.3f} bits per character on the held-out text, saved to {out}.")
    model = charmodel.load_model(out)
    uniform = charmodel.uniform_bits(model)
    if trainer.best_bits is not None and trainer.best_bits > uniform:
        _note(f"It has learned nothing yet: to hold all characters for equally likely takes {uniform:.3f} bits.")
    _note("It writes:\n")
    _write(charmodel.sample(model, "", SAMPLE_LENGTH, TEMPERATURE, trainer.settings.seed))
    if as_json:
        results = {
            "valid_bits_per_char": trainer.best_bits,
            "train_bits_per_char": trainer.train_bits,
            "chars_per_second": trainer.chars_per_second,
            "seconds": trainer.seconds,
            "parameters": model.num_parameters,
            "model": out,
        }
        print(json.dumps(results))
    return 0


def _refuse_contradictions(context: click.Context, settings: Any, options: dict[str, Any]) -> None:
    saved = dataclasses.asdict(settings)
    for name, value in options.items():
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and value != saved[name]:
            raise click.UsageError(f"--{name} {value} contradicts the training to resume, which has {saved[name]}")


def _refuse_overwriting(sources: Sequence[str], out: str, plot: str | None) -> None:
    """No file that is written may be one of the texts, or another one that is written."""
    from .run import resume_path

    used = {os.path.realpath(name): f"the text {name}" for name in sources if name != STDIN}
    written = [("the model", out), ("the training state", resume_path(out))]
    if plot is not None:
        written.append(("the picture", plot))
    for what, name in written:
        other = used.setdefault(os.path.realpath(name), f"{what} {name}")
        if other != f"{what} {name}":
            raise click.UsageError(f"{what} {name} would overwrite {other}")


def _absolute(sources: Sequence[str]) -> list[str]:
    return [name if name == STDIN else os.path.abspath(name) for name in sources]


def _read_all(sources: Sequence[str]) -> str:
    """The texts of these files, one after the other; of no files, the language reference."""
    from ..text.corpus import language_reference

    return "".join(map(read, sources)) if sources else language_reference()


def read(source: str) -> str:
    """The text of a file or of the standard input."""
    from ..text.corpus import decode, read

    if source != STDIN:
        return read(source)
    if sys.stdin is None:
        raise ValueError("the standard input is closed")
    with naming("standard input"):
        return decode(sys.stdin.buffer.read(), "standard input")


def _quoted(name: str) -> str:
    """A file name as a shell reads it; one that is not UTF-8 byte by byte."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(name)) + "'"
    return shlex.quote(name)


def _title(trainer: Trainer) -> str:
    settings = trainer.settings
    layers = "" if settings.layers == 1 else f"{settings.layers} layers of "
    return f"{settings.cell.upper()}, {layers}{settings.hidden} units"


def _about(trainer: Trainer) -> str:
    sources = ["standard input" if name == STDIN else os.path.basename(name) for name in trainer.corpus.sources]
    names = ", ".join(sources) or "Python's language reference"
    train, valid = len(trainer.corpus.train), len(trainer.corpus.valid)
    return (
        f"{_title(trainer)}, {trainer.model.num_parameters:,} parameters. {names}: {train:,} characters to train on, "
        f"{valid:,} held out, {len(trainer.corpus.vocabulary)} different ones."
    )


def _figures(trainer: Trainer) -> str:
    train, valid = ("-" if bits is None else f"{bits:.3f}" for bits in (trainer.train_bits, trainer.valid_bits))
    return f"epoch {trainer.epoch:.2f} train {train} valid {valid} bits {trainer.chars_per_second / 1000:.1f}k/s"
