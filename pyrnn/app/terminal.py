"""What the commands need of a terminal: kinds of arguments, progress, signals, output that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from ..core.files import naming

LINE_EVERY = 10.0  # seconds between two lines of progress where there is no terminal


class FileName(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click alone
    """A name that a file may have; the empty one is none."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not value:
            self.fail(f"{value!r} is no file name.", param, ctx)
        return value

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Names of files, which the shell knows."""
        return [CompletionItem(incomplete, type="file")]


FILE = FileName()
COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**63 - 1)


class Real(click.FloatRange):
    """A finite number in a range; click's own lets nan pass."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = super().convert(value, param, ctx)
        if number - number != 0:
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


class Output:
    """The standard output, whose errors say that they are of it."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """As of the stream, and so the rest."""
        with naming("standard output"):
            return self.stream.write(text)

    def flush(self) -> None:
        """Write out what it holds."""
        with naming("standard output"):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP (the terminal was closed) are only written down, in the list this yields, so
    nothing is left half done. What is ignored stays so, as under nohup; a thread, which gets no signals, has none.
    """
    caught: list[int] = []

    def write_down(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) == 1:
            with contextlib.suppress(OSError):  # nothing may leave a handler
                os.write(sys.stderr.fileno(), b"\nStopping: this batch is finished and the training saved.\n")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, write_down)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """What part of some work is done, and what is to say of it, on stderr.

    A live bar on a terminal, else a line now and then.
    """

    def __init__(self, part: Callable[[], float], figures: Callable[[], str]):
        from tqdm import tqdm  # type: ignore[import-untyped]

        self.part, self.figures = part, figures
        self.written = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=1.0, initial=part(), dynamic_ncols=True, mininterval=0.0,
                            bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {desc}")  # fmt: skip

    def close(self) -> None:
        if self.bar is not None:
            self.show(always=True)
            with _unwritable(sys.stderr):
                self.bar.close()

    def show(self, always: bool = False) -> None:
        now = time.monotonic()
        if self.bar is not None:
            if always or now - self.written >= 0.1:
                self.written = now
                self.bar.set_description_str(self.figures(), refresh=False)
                self.bar.n = self.part()
                with _unwritable(sys.stderr):
                    self.bar.refresh()
        elif now - self.written >= LINE_EVERY:
            self.written = now
            _note(self.figures())


def _note(message: str) -> None:
    with _unwritable(sys.stderr):
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _unwritable(stream: TextIO) -> Iterator[None]:
    """Inside, a stream that cannot be written (nobody reads it, the disk is full) is no error, but silent from then."""
    try:
        yield
    except OSError:
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """From now on what is written to `stream`, and what it still holds, goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _write(characters: Iterator[str]) -> None:
    """Write characters to stdout as they come."""
    live = sys.stdout.isatty()
    for character in characters:
        sys.stdout.write(character)
        if live:
            sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
