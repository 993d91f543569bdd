"""The command line `pyrnn`: train, sample, show and evaluate character models, draw recalls, run the benchmarks, tell
of the installation."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .. import _command
from ..associative.hopfield import RULES
from ..cells import CELLS
from ..core.checks import cut
from ..core.encoded import FORMS
from ..core.files import naming
from ..core.processes import launched, tell

if TYPE_CHECKING:
    from .run import Resumed
    from .trainer import Trainer
from .terminal import FILE, Output, Real, _note, _Progress, _signals, _silence, _unwritable, _write

DEFAULT_SECONDS = 60.0
TEMPERATURE = 0.8
SAMPLE_LENGTH = 500
SHOWN = 60  # characters that a page has read at first
STDIN = "-"

COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**63 - 1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. What goes wrong is one line on stderr."""
    _command.interruptible()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  where it was closed, as by >&-
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not have all of a text's characters
    first = (launched() or (0, 1))[0] == 0  # of several processes, which speaks for all
    try:
        with open(os.devnull, "w") as null:
            output: Any = Output(sys.stdout if first else null)
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(sys.stderr if first else null):
                code = cli.main(arguments, prog_name="pyrnn", standalone_mode=False) or 0
                output.flush()
        return code
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _silence(sys.stdout)  # nobody reads: let the last flush pass
        return 1
    except (click.ClickException, MemoryError, OSError, ValueError, ImportError) as error:
        told = tell(error)
        message, code = _in_words(error)
        silent = not first and (told or not isinstance(error, ImportError))  # of mpi4py, which one may lack alone
    with _unwritable(sys.stdout):
        sys.stdout.flush()
    if not silent:
        _note(f"Error: {cut(' '.join(message.split()), 1000)}")
    return code


def _in_words(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, MemoryError):
        return f"out of memory: {error}", 1
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}", 1
    return str(error), 1


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pyrnn-cpu", message="pyrnn %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Recurrent networks on the CPU: train a character model on a text, and see what it writes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# ---------------------------------------------------------------------------------------------------- train


@cli.command()
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
    """Train a character model on UTF-8 TEXT files (one after the other; the last tenth is held out).

    Without TEXT: on the language reference that comes with Python; - is the standard input. Ctrl-C saves, and so does
    the end of the terminal; --resume goes on from there. It takes text and options from the saved training; --epochs
    and --seconds may be given anew, and count from its first start.
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

    return "".join(map(_read, sources)) if sources else language_reference()


def _read(source: str) -> str:
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


# ---------------------------------------------------------------------------------------------------- hopfield


@cli.command()
@click.argument("images", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="hopfield.png", show_default=True, help="Picture of the recalls.")
@click.option("--load", default="hopfield-load.png", show_default=True,
              help="Picture of the recall rate against the load P / n, for all rules; '' for none.")  # fmt: skip
@click.option("--rule", type=click.Choice(RULES), default=RULES[0],
              show_default=True, help="pseudo_inverse is for images that resemble each other.")  # fmt: skip
@click.option("--noise", type=Real(min=0, max=1), default=0.15, show_default=True, help="Share of units to flip.")
@click.option("--size", type=click.IntRange(min=2, max=64), default=32, show_default=True,
              help="IMAGES are made so many pixels high and wide.")  # fmt: skip
@click.option("--show", type=COUNT, default=5, show_default=True, help="Recalls in the picture.")
@click.option("--units", type=click.IntRange(min=10, max=5000), default=200, show_default=True,
              help="Of the nets whose recall rate is measured.")  # fmt: skip
@click.option("--trials", type=COUNT, default=2, show_default=True, help="Nets for each load.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def hopfield(images: tuple[str, ...], out: str, load: str, rule: str, noise: float, size: int, show: int, units: int,
             trials: int, seed: int) -> None:  # fmt: skip
    """Store IMAGES in a Hopfield net, recall them from noise, and draw both.

    Without IMAGES: the ten digits that come with scikit-learn, too many and too much alike for the hebbian rule; see
    what --rule pseudo_inverse makes of them. Writes one picture with probes, states along the way, recalled patterns
    and energies, and one with the recall rate of random patterns for each rule.
    """
    import warnings

    import numpy as np

    from .. import plots
    from ..associative.hopfield import Hopfield
    from . import gallery

    written = [path for path in (out, load) if path]
    for path in written:
        plots.check(path)
    if len({*map(os.path.realpath, written)} - {*map(os.path.realpath, images)}) < len(written):
        raise click.UsageError("--out and --load must be two files, and none of the images")
    patterns, shape = gallery.images(images, size) if images else gallery.digits()
    net = Hopfield(patterns.shape[1])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        net.store(patterns, rule)
    for warning in told:
        _note(f"Warning: {warning.message}")
    rng = np.random.default_rng(seed)
    ways = [gallery.way(net, p, gallery.corrupted(p, noise, rng), rng) for p in patterns[:show]]
    name = rule.replace("_", " ")
    title = f"{len(patterns)} patterns in {net.n_units} units, {name}, {noise:.0%} of the units flipped"
    plots.recalls(out, ways, shape, title)
    right = sum(way.wrong == 0 for way in ways)
    _note(f"{right} of {len(ways)} recalled exactly. Picture: {out}")
    if load:
        rates = gallery.recall_rates(units, trials, seed)
        title = f"Random patterns in {units} units, at least {gallery.RIGHT:.0%} of the units right"
        plots.recall_rates(load, rates, gallery.estimates(units), title)
        _note(f"Recall rate against load: {load}")


# ---------------------------------------------------------------------------------------------------- the others

WEIGHTS = click.option(
    "--weights", type=click.Choice(FORMS), help="Use the weights in this form.  [default: as they are]"
)


@cli.command()
@click.argument("model", type=FILE)
@click.option("--prompt", default="", help="What the model goes on from.  [default: the start of a line]")
@click.option("--length", type=click.IntRange(min=0), default=SAMPLE_LENGTH, show_default=True,
              help="Characters to write.")  # fmt: skip
@click.option("--temperature", type=Real(min=0), default=TEMPERATURE, show_default=True,
              help="1: as likely as the model thinks; less: safer; 0: always the likeliest.")  # fmt: skip
@click.option("--seed", type=SEED, help="The same sample each time.  [default: another one each time]")
@WEIGHTS
def sample(model: str, prompt: str, length: int, temperature: float, seed: int | None, weights: str | None) -> None:
    """Write text with a trained MODEL."""
    from . import charmodel

    characters = charmodel.sample(charmodel.load_model(model, weights), prompt, length, temperature, seed)
    sys.stdout.write(prompt)
    _write(characters)


@cli.command("eval")
@click.argument("model", type=FILE)
@click.argument("text", type=FILE)
@WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def evaluate(model: str, text: str, weights: str | None, as_json: bool) -> None:
    """Bits per character of the UTF-8 file TEXT (- is the standard input) under a trained MODEL.

    The text is read from end to end. Its first character is not predicted: the mean is over all the others.
    """
    from . import charmodel

    trained = charmodel.load_model(model, weights)
    ids = trained.vocabulary.encode(_read(text), text)
    done, start = 0, time.monotonic()

    def figures() -> str:
        speed = done / max(time.monotonic() - start, 1e-9)
        return f"{done:,} of {len(ids):,} characters {speed / 1000:.1f}k/s"

    def report(characters: int) -> None:
        nonlocal done
        done = characters
        progress.show()

    with contextlib.closing(_Progress(lambda: done / max(len(ids), 1), figures)) as progress:
        bits = charmodel.bits_per_character(trained, ids, report=report, name=text)
        done = len(ids)
    if not math.isfinite(bits):
        raise ValueError(f"{model}: the model's outputs are not finite, its weights are of no use")
    if as_json:
        print(json.dumps({"bits_per_char": bits, "characters": len(ids)}))
    else:
        print(f"{bits:.4f} bits per character over {len(ids):,} characters")


@cli.command()
@click.argument("model", type=FILE)
@click.option("--out", type=FILE, default="page.html", show_default=True, help="File of the page.")
@click.option("--prompt", help="What the page has read at first.  [default: what the model writes]")
@WEIGHTS
def show(model: str, out: str, prompt: str | None, weights: str | None) -> None:
    """Make a page of a trained MODEL: type, and watch the gates of its units.

    The page is one HTML file, with the weights inside, for any browser; it needs no server and no network. --weights
    int8 makes it a quarter as large.
    """
    from ..core import files
    from . import charmodel
    from . import show as pages

    if os.path.realpath(out) == os.path.realpath(model):
        raise click.UsageError(f"the page {out} would overwrite the model {model}")
    trained = charmodel.load_model(model, weights)
    if prompt is None:
        prompt = "".join(charmodel.sample(trained, "", SHOWN, TEMPERATURE, 0))
    trained.vocabulary.encode(prompt, "prompt")
    page = pages.characters(trained, prompt).encode()
    files.replace(out, page)
    _note(f"Page of {len(page) / 1e6:.1f} MB: {out}")


@cli.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """The microbenchmarks, on this machine (`pyrnn bench --help` tells their options)."""
    try:
        # The folder bench/ of the sources; `python -m bench` has it there already.
        code = (sys.modules.get("bench") or importlib.import_module("pyrnn.bench")).main(list(arguments))
    except SystemExit as end:  # of its parser, after the help
        code = end.code
    if code:
        raise click.exceptions.Exit(code)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as one JSON object.")
def info(as_json: bool) -> None:
    """Version, instruction sets, threads."""
    import platform

    import numpy

    import pyrnn

    facts = {
        "version": pyrnn.__version__,
        "instruction_set": pyrnn.kernels.isa(),
        "instruction_sets": pyrnn.kernels.isas(),
        "bfloat16_products": "instruction" if pyrnn.kernels.isa().endswith("bf16") else "float32",
        "threads": pyrnn.get_num_threads(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "platform": platform.platform(),
    }
    if as_json:
        print(json.dumps(facts))
        return
    print(f"pyrnn            {facts['version']}")
    print(f"instruction set  {facts['instruction_set']} (of {', '.join(pyrnn.kernels.isas())} in this build)")
    how = {"instruction": "by an instruction of this CPU", "float32": "as float32, of rounded numbers"}
    print(f"bfloat16         products {how[str(facts['bfloat16_products'])]}")
    print(f"threads          {facts['threads']}")
    print(f"Python           {facts['python']}")
    print(f"NumPy            {facts['numpy']}")
    print(f"platform         {facts['platform']}")
