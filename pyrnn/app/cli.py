"""The command line `pyrnn`: train, sample, show and evaluate character models, ask one of names, fetch data, draw
recalls, run the benchmarks, tell of the installation."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import signal
import sys
import time
from typing import Any

import click

from .. import _command
from ..associative.hopfield import RULES
from ..core.checks import cut
from ..core.encoded import FORMS
from ..core.processes import launched, tell
from ..data.fetched import SETS, fetch, folder, kept
from .demo import demo
from .terminal import COUNT, FILE, SEED, Output, Real, _note, _Progress, _silence, _unwritable, _write
from .train import SAMPLE_LENGTH, TEMPERATURE, read, train

SHOWN = 60  # characters that a page has read at first


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


COMPLETION = """\b
To have the Tab key complete commands, options, their values and files:
  bash   eval "$(_PYRNN_COMPLETE=bash_source pyrnn)"     in ~/.bashrc
  zsh    eval "$(_PYRNN_COMPLETE=zsh_source pyrnn)"      in ~/.zshrc, behind compinit
  fish   _PYRNN_COMPLETE=fish_source pyrnn | source      in ~/.config/fish/config.fish
"""


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}, epilog=COMPLETION)
@click.version_option(package_name="pyrnn-cpu", message="pyrnn %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Recurrent networks on the CPU: train a character model on a text, and see what it writes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.add_command(train)
cli.add_command(demo)


# ---------------------------------------------------------------------------------------------------- hopfield


@cli.command()
@click.argument("images", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="hopfield.png", show_default=True, help="Picture of the recalls.")
@click.option("--load", default="hopfield-load.png", show_default=True, shell_complete=FILE.shell_complete,
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
    """Store IMAGES in a Hopfield net and draw recalls from noise.

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
    """Bits per character of the file TEXT under a trained MODEL.

    TEXT is UTF-8, - the standard input. It is read from end to end. Its first character is not predicted: the mean is
    over all the others.
    """
    from . import charmodel

    trained = charmodel.load_model(model, weights)
    ids = trained.vocabulary.encode(read(text), text)
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
    """Make a page of a trained MODEL, to watch its gates.

    One types there, and sees the gates of every unit open and shut. The page is one HTML file, with the weights inside,
    for any browser; it needs no server and no network. --weights int8 makes it a quarter as large.
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


def _benchmarks() -> Any:
    """The folder bench/ of the sources; `python -m bench` has it there already."""
    return sys.modules.get("bench") or importlib.import_module("pyrnn.bench")


def _names_of_benchmarks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    with contextlib.suppress(ImportError):
        return [name for name in _benchmarks().OPS if name.startswith(incomplete)]
    return []


@cli.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=_names_of_benchmarks)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure the speed here, beside that of other libraries.

    `pyrnn bench --help` tells the options.
    """
    try:
        code = _benchmarks().main(list(arguments))
    except SystemExit as end:  # of its parser, after the help
        code = end.code
    if code:
        raise click.exceptions.Exit(code)


@cli.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice([*SETS]))
def data(names: tuple[str, ...]) -> None:
    """Fetch data sets of the examples, or list them all.

    It says where the sets NAME lie; without NAME: what there is. They are kept in a folder, ~/.cache/pyrnn or what
    PYRNN_DATA names, where the examples find them. Fetching needs a network and the package pooch; what arrives is
    compared with its known SHA-256.
    """
    for name in names:
        print(fetch(name), flush=True)
    if names:
        return
    print(f"In {folder()}:\n")
    for name, one in SETS.items():
        there = "here" if kept(name) else f"pyrnn data {name}" if one.remote else f"by hand: {one.place}"
        size = f"{one.size / 1e6:.1f} MB" if one.size else ""
        print(f"{name:<13}{size:<8}{one.licence:<14}{there}\n{'':<13}{one.about}\n{'':<13}{one.source}")


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
