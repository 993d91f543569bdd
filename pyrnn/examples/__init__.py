"""Systems to run, read and start from: `python -m pyrnn.examples.<name>`. README.md beside this file is the guide.

Here is what their command lines share, and the three parts of what they learn from and are judged by.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import numpy as np

from .. import plots
from ..data import fetched, held_out

PARTS = ("training", "validation", "test")


def data_option(name: str, expected: str) -> Callable[[Any], Any]:
    """The option `--data PATH`: by default the data set `name` of `pyrnn data`, where that is kept. Where it is not, or
    the path leads nowhere, the error says what is expected, and the ways to it.

    @data_option("names", "a folder with one file of names per language")
    """
    known = fetched.SETS[name]
    help_text = f"{expected[0].upper()}{expected[1:]}.  [default: what `pyrnn data` keeps as {name}]"

    def check(context: click.Context, parameter: click.Parameter, path: str | None) -> str:
        given = fetched.kept(name) if path is None else path
        if given is None or not os.path.exists(given):
            lacks = f"it is missing, and not kept in {fetched.folder()}" if given is None else f"{path} does not exist"
            way = f"`pyrnn data {name}` fetches it from" if known.remote else "It is found at"
            raise click.UsageError(f"--data PATH: {lacks}. Expected: {expected}. {way} {known.source}")
        return str(given)

    return click.option("--data", metavar="PATH", callback=check, help=help_text)


@contextmanager
def reading() -> Iterator[None]:
    """What is wrong with the data ends in one line that says so, not in a traceback.

    with reading():
        pairs = read(data)
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


def enough(where: object, what: str, count: int, least: int) -> None:
    """ValueError where there are fewer than `least` of them to learn from and to judge by."""
    if count < least:
        raise ValueError(f"{where}: {count} {what} are too few, expected at least {least}")


def parts(n: int, share: float, seed: int) -> dict[str, np.ndarray]:
    """n rows in three by chance: "training" to learn from, "validation" to choose by, "test" to be judged by, sorted.

    Validation and test have round(share * n) rows each. What is chosen, such as settings and the best of several
    baselines, is chosen on the validation part; the test part has no say in anything.
    """
    rest, validation = held_out(n, share, seed)
    training, test = held_out(len(rest), len(validation) / len(rest), seed)
    return dict(zip(PARTS, (rest[training], validation, rest[test]), strict=True))


def table(what: str, rows: Mapping[str, Sequence[float] | np.ndarray], form: str = ".1%") -> None:
    """Print figures (3,) of the three parts, a row for each name; "-" for NaN."""
    print(f"{what:<34}" + "".join(f"{part:>12}" for part in PARTS))
    for name, figures in rows.items():
        print(f"{name:<34}" + "".join(f"{'-' if np.isnan(x) else format(x, form):>12}" for x in figures))


def _drawable(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    try:
        if path is not None:
            plots.check(path)
    except (ValueError, OSError) as error:
        raise click.UsageError(f"--plot: {error}") from None
    return path


plot_option = click.option("--plot", metavar="FILE", callback=_drawable, help="Write the picture (.png, .svg, .pdf).")
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)


def lesson(doc: str | None) -> Callable[[Callable[..., None]], click.Command]:
    """The command line of a system, explained by its docstring's first line. Behind its own options stand --plot, where
    `main` takes `plot`, and --seed.

        @lesson(__doc__)
        @count_option("--hidden", 64, "Hidden units.")
        def main(hidden: int, plot: str | None, seed: int) -> None:
    """

    def made(main: Callable[..., None]) -> click.Command:
        command = click.command(help=(doc or "").split("\n", 1)[0])(main)
        if "plot" in inspect.signature(main).parameters:
            plot_option(command)
        seed_option(command)
        return command

    return made


def count_option(name: str, default: int, help_text: str | None = None, least: int = 1) -> Callable[[Any], Any]:
    """An option that takes a whole number from `least` up."""
    return click.option(name, type=click.IntRange(min=least), default=default, show_default=True, help=help_text)
