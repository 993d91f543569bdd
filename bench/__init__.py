"""The benchmarks: pyrnn and its peers side by side in one process (`pyrnn bench`; in the sources `python -m bench`)."""

from __future__ import annotations

import argparse
import math
import sys
from typing import NoReturn

import click

from pyrnn.app import cli
from pyrnn.threads import MOST_THREADS

from . import (
    attention,
    cells,
    conv1d,
    crf,
    cross_entropy,
    ctc,
    embedding,
    hopfield,
    layer_norm,
    linear,
    machine,
    onnx_models,
    optim,
    peers,
    precision,
    quantized,
    report,
    transformer,
)  # fmt: skip
from .harness import DIRECTIONS, Op, Settings, WrongError, measure

OPS: dict[str, Op] = {
    op.name: op
    for module in (
        cells,
        quantized,
        precision,
        attention,
        transformer,
        linear,
        layer_norm,
        conv1d,
        cross_entropy,
        ctc,
        crf,
        embedding,
        optim,
        hopfield,
        onnx_models,
    )
    for op in module.OPS
}

EXAMPLES = """examples:
  pyrnn bench lstm --shape 100,16,64,64
  pyrnn bench gru --direction both --threads 1 --peers torch
  pyrnn bench rnn lstm gru --json results.json --plot results.png
"""


class Parser(argparse.ArgumentParser):
    """Whose errors are those of the command line `pyrnn`."""

    def error(self, message: str) -> NoReturn:
        raise click.UsageError(message)


def main(args: list[str]) -> int:
    """Run the benchmarks the command line `args` asks for; the exit code is 1 if a result was wrong, else 0."""
    settings, chosen, options = parse(args)
    here = machine.Machine(settings.threads, settings.dtype)
    versions = peers.prepare(settings)
    report.heading(here, settings, versions)
    rows, wrong = [], 0
    for (op, direction), shapes in chosen.items():
        table = report.Table(op, direction, shapes, settings)
        for shape in shapes:
            try:
                rows.append(measure(op, shape, direction, settings, here))
                table.row(rows[-1], here)
            except WrongError as error:
                wrong += 1
                table.failure(shape, error)
    report.summary(rows, here)
    if options.json:
        report.write_json(options.json, report.document(rows, here, settings, versions, args))
    if options.plot:
        report.write_plot(options.plot, rows, here, versions)
    return 1 if wrong else 0


def parse(args: list[str]) -> tuple[Settings, dict[tuple[Op, str], list[tuple[int, ...]]], argparse.Namespace]:
    """What the command line asks for: settings, shapes of each op and direction, the options.

    click.UsageError if it is wrong.
    """
    parser = Parser(
        prog="pyrnn bench", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    installed = peers.installed()
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"one or more of {', '.join(OPS)} (default: all)")
    parser.add_argument(
        "--shape", action="append", metavar="T,N,I,H", help="this shape of OP (may be given repeatedly)"
    )
    parser.add_argument("--direction", choices=DIRECTIONS, help="both: forward and backward (default: each in turn)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=machine.cpus(), help="of every contender (default: %(default)s)")
    parser.add_argument("--ragged", action="store_true", help="rnn, lstm, gru: lengths uniform in 1..T")
    parser.add_argument("--peers", help=f"of {','.join(peers.NAMES)} (default: the installed ones)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for one row (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw roofline and ratios to FILE (needs matplotlib)")
    options = parser.parse_args(args)

    if not 1 <= options.threads <= MOST_THREADS:
        parser.error(f"--threads is {options.threads}, expected 1 to {MOST_THREADS}")
    if not 0 < options.seconds < math.inf:
        parser.error(f"--seconds is {options.seconds}, expected a finite number above 0")
    able = [name for name in installed if name in peers.RAGGED or not options.ragged]
    names = able if options.peers is None else [name for name in options.peers.split(",") if name]
    for name in names:
        if name not in installed:
            parser.error(f"--peers: {name} is not {'installed' if name in peers.NAMES else 'a peer'}")
    for name in options.ops:
        if name not in OPS:
            parser.error(f"there is no {name}; the benchmarks are {', '.join(OPS)}")
    ops = [OPS[name] for name in options.ops] or [op for op in OPS.values() if op.has_lengths or not options.ragged]
    if options.ragged and not all(op.has_lengths for op in ops):
        parser.error("--ragged goes with rnn, lstm and gru")
    if options.shape and not options.ops:
        parser.error("--shape goes with an OP")
    try:
        shapes = {op.name: [op.parse(text) for text in options.shape or ()] for op in ops}
        report.check_writable(options.json, options.plot)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    chosen = {
        (op, direction): shapes[op.name] or op.shapes[direction]
        for direction in DIRECTIONS
        if options.direction in (None, direction)
        for op in ops
        if direction in op.shapes
    }
    if not chosen:
        parser.error(f"{', '.join(options.ops)}: there is no direction {options.direction}")
    settings = Settings(options.dtype, options.threads, tuple(names), options.seconds, options.ragged)
    return settings, chosen, options


def run() -> None:
    """Entry point of `python -m bench`."""
    sys.exit(cli.main(["bench", *sys.argv[1:]]))
