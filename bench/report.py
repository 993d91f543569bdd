"""How results are shown: the table, its summary, the JSON file and the picture."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import click

from pyrnn import plots
from pyrnn.core import files

from .harness import DIRECTIONS, OURS, Op, Row, Settings, Shape, Time
from .machine import Machine

WHAT = {"forward": "forward", "both": "forward + backward"}
COLOURS = ["#4a78b0", "#c8442f", "#5a9a5a", "#c98a2b", "#7d5ba6", "#3f9c9c", "#8c6d5a", "#b05a86", "#777777"]

# ------------------------------------------------------------------------------------------------ terminal


def heading(machine: Machine, settings: Settings, versions: dict[str, str]) -> None:
    """Who runs, where, and the limits of the machine."""
    ceilings = ", ".join(f"{machine.bandwidth(size):.0f} ({size_text(size)})" for size in machine.sizes)
    click.echo("   ".join(f"{name} {version}" for name, version in versions.items()))
    click.echo(f"{place(machine)}, {datetime.date.today()}")
    click.echo(f"measured now: FMA peak {machine.peak:.0f} GFLOP/s; reading {ceilings} GB/s")
    click.echo(
        "± half the distance between the quartiles; * the best peer; ratio = its time / ours; share of the FMA peak,\n"
        "or (mem) of the bandwidth where the bytes, at the size they are read from, take longer than the arithmetic"
    )
    if settings.ragged:
        click.echo("lengths uniform in 1..T; by steps: our time without lengths, times valid steps / all steps")


class Table:
    """The rows of one op and direction, printed as they are measured."""

    def __init__(self, op: Op, direction: str, shapes: Sequence[Shape], settings: Settings):
        letters = op.letters.split(",")
        self.widths = [max(len(str(number)) for number in column) + 2 for column in zip(letters, *shapes, strict=True)]
        ideal = op.ideal(settings)
        self.others = [*(op.own_peers or settings.peers), *([ideal] if ideal else [])]
        numbers = "".join(f"{letter:>{width}}" for letter, width in zip(letters, self.widths, strict=True))
        others = "".join(f"{name[:13]:>14}" for name in self.others)
        click.echo()
        click.echo(click.style(f"{op.name}, {WHAT[direction]}" if len(op.shapes) > 1 else op.name, bold=True))
        click.echo(click.style(f"{numbers}{OURS:>13}{'rate':>13}{'share':>9}{others}{'ratio':>7}", dim=True))

    def row(self, row: Row, machine: Machine) -> None:
        limit, least = machine.limit(row.flops, row.bytes, row.footprint)
        rate = f"{gflops(row):.3g} GFLOP/s" if limit == "FMA" else f"{row.bytes / row.seconds / 1e9:.3g} GB/s"
        share = f"{least / row.seconds:.0%} {limit}"
        others = "".join(f"{cell(row.times.get(name), name == row.best_peer):>14}" for name in self.others)
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        slower = row.ratio is not None and row.ratio < 1
        ratio = (
            click.style(f"{ratio:>7}", fg="red" if slower else None, bold=slower)
            + (" slower" if slower else "")
            + (" busy" if row.disturbed else "")
        )
        click.echo(f"{self.numbers(row.shape)}{cell(row.times[OURS]):>13}{rate:>13}{share:>9}{others}{ratio}")

    def failure(self, shape: Shape, error: Exception) -> None:
        click.echo(f"{self.numbers(shape)}  {click.style('NOT TIMED', fg='red', bold=True)}: {error}")

    def numbers(self, shape: Shape) -> str:
        return "".join(f"{number:>{width}}" for number, width in zip(shape, self.widths, strict=True))


def summary(rows: Sequence[Row], machine: Machine) -> None:
    """Geometric means of the ratios, the shapes where we lose, and whether the machine is still what it was."""
    click.echo()
    compared = [row for row in rows if row.ratio is not None]
    if compared:
        click.echo(click.style("geometric mean of the ratios to the best peer (and the smallest)", bold=True))
        names = list(dict.fromkeys(row.op for row in compared))
        click.echo(click.style(f"{'':14}" + "".join(f"{WHAT[direction]:>24}" for direction in DIRECTIONS), dim=True))
        groups = {**{name: {name} for name in names}, **({"all": set(names)} if len(names) > 1 else {})}
        for title, chosen in groups.items():
            cells = (
                mean_text([row.ratio for row in compared if row.op in chosen and row.direction == direction])
                for direction in DIRECTIONS
            )
            click.echo((f"{title:>14}" + "".join(f"{text:>24}" for text in cells)).rstrip())
        lost = sorted((row for row in compared if row.ratio < 1), key=lambda row: row.ratio)
        click.echo(f"slower than the best peer at {len(lost)} of {len(compared)} shapes{':' if lost else ''}")
        for row in lost:
            shape = ",".join(map(str, row.shape))
            click.echo(f"{row.ratio:8.2f}  {row.op} --shape {shape} --direction {row.direction}  ({row.best_peer})")
    busy = sum(row.disturbed for row in rows)
    if busy:
        click.echo(f"busy: {busy} rows were taken while other processes kept our threads from the CPUs")
    click.echo(f"FMA peak during the run: {min(machine.peaks):.0f} to {machine.peak:.0f} GFLOP/s")


def place(machine: Machine) -> str:
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    return f"{machine.name}, {threads}, {machine.dtype}, {machine.isa}"


def mean_text(ratios: Sequence[float]) -> str:
    return f"{geometric_mean(ratios):.2f} ({min(ratios):.2f}) of {len(ratios):3}" if ratios else ""


def cell(time: Time | None, best: bool = False) -> str:
    if time is None:
        return "-"
    return f"{'*' if best else ''}{time_text(time.median)} ±{min(time.spread / time.median, 0.99):.0%}"


def time_text(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            value = seconds * factor
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"
    return f"{seconds:.2f} s"


def size_text(size: int) -> str:
    return f"{size >> 20} MB" if size >> 20 else f"{size >> 10} KB"


def gflops(row: Row, name: str = OURS) -> float:
    return row.flops / row.times[name].median / 1e9


def geometric_mean(values: Iterable[float]) -> float:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


# ------------------------------------------------------------------------------------------------ files


def check_writable(json_file: str | None, plot: str | None) -> None:
    """Raise before the benchmarks, not after them, if their results cannot be written."""
    if json_file:
        files.check_writable(json_file)
    if plot:
        plots.check(plot)


def document(
    rows: Sequence[Row], machine: Machine, settings: Settings, versions: dict[str, str], args: Sequence[str]
) -> dict[str, Any]:
    """Everything that was measured, as JSON has it."""
    return {
        "command": shlex.join(["pyrnn", "bench", *args]),
        "date": datetime.date.today().isoformat(),
        "versions": versions,
        "machine": {
            "cpu": machine.name, "isa": machine.isa, "fma_peak_gflops": machine.peak,
            "read_gbytes_per_second": {str(size): machine.bandwidth(size) for size in machine.sizes},
        },
        "settings": dataclasses.asdict(settings),
        "rows": [row_document(row, machine) for row in rows],
    }  # fmt: skip


def row_document(row: Row, machine: Machine) -> dict[str, Any]:
    limit, least = machine.limit(row.flops, row.bytes, row.footprint)
    return {
        "op": row.op,
        "direction": row.direction,
        "shape": dict(zip(row.letters.split(","), row.shape, strict=True)),
        "seconds": {name: dataclasses.asdict(time) for name, time in row.times.items()},
        "gflops": gflops(row),
        "gbytes_per_second": row.bytes / row.seconds / 1e9,
        "limit": limit,
        "share": least / row.seconds,
        "best_peer": row.best_peer,
        "ratio": row.ratio,
        "disturbed": row.disturbed,
    }


def write_json(path: str, results: dict[str, Any]) -> None:
    files.replace(path, (json.dumps(results, indent=1) + "\n").encode())


def write_plot(path: str, rows: Sequence[Row], machine: Machine, versions: dict[str, str]) -> None:
    """Left the roofline with our points and the best peers', right the ratios, one lane for an op and direction."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lanes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ratio is not None:
            lanes.setdefault((row.op, row.direction), []).append(row)
    colours = {op: COLOURS[k % len(COLOURS)] for k, op in enumerate(dict.fromkeys(row.op for row in rows))}
    figure = Figure(figsize=(13, max(5.0, 1.2 + 0.3 * len(lanes))), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    roofline, ratios = figure.subplots(1, 2)
    draw_roofline(roofline, [row for row in rows if row.flops], machine, colours)
    draw_ratios(ratios, lanes, colours)
    for axes in (roofline, ratios):
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    figure.suptitle(f"{names}\n{place(machine)}", color=plots.INK, fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format=path.rpartition(".")[2].lower())
    files.replace(path, content.getvalue())


def draw_roofline(axes: Any, rows: Sequence[Row], machine: Machine, colours: dict[str, str]) -> None:
    """GFLOP/s against flops per byte: dots are ours, rings the best peer's, under what the machine can do."""
    intensities = [row.flops / row.bytes for row in rows] or [1.0]
    left, right = min(intensities) / 4, max(intensities) * 2
    for size in machine.sizes:
        bandwidth = machine.bandwidth(size)
        ridge = min(max(machine.peak / bandwidth, left), right)
        axes.plot([left, ridge], [left * bandwidth, ridge * bandwidth], color="#bbbbbb", linewidth=1, zorder=1)
        axes.annotate(
            f"{size_text(size)}: {bandwidth:.0f} GB/s", (left, left * bandwidth), xytext=(3, 3),
            textcoords="offset points", fontsize=7, color="#888888",
        )  # fmt: skip
    axes.axhline(machine.peak, color=plots.INK, linewidth=1.2, zorder=1)
    axes.annotate(
        f"FMA peak {machine.peak:.0f} GFLOP/s", (right, machine.peak), xytext=(0, 4), textcoords="offset points",
        ha="right", fontsize=8, color=plots.INK,
    )  # fmt: skip
    for row in rows:
        x, colour, filled = row.flops / row.bytes, colours[row.op], row.direction == "forward"
        marker = "o" if filled else "s"
        axes.plot(x, gflops(row), marker, color=colour, markersize=5, zorder=3)
        if row.best_peer:
            peer = gflops(row, row.best_peer)
            axes.plot([x, x], [peer, gflops(row)], color=colour, linewidth=0.6, alpha=0.5, zorder=2)
            axes.plot(x, peer, marker, markerfacecolor="white", markeredgecolor=colour, markersize=4, zorder=2)
    for op in dict.fromkeys(row.op for row in rows):
        axes.plot([], [], "o", color=colours[op], label=op)
    axes.set(xscale="log", yscale="log", xlim=(left, right), xlabel="flops per byte that must move", ylabel="GFLOP/s")
    axes.set_title("filled: pyrnn, hollow: the best peer; circles forward, squares with backward", fontsize=9)
    axes.grid(color=plots.GRID, linewidth=0.6)
    if rows:
        axes.legend(fontsize=8, loc="lower right", framealpha=0.9)


def draw_ratios(axes: Any, lanes: dict[tuple[str, str], list[Row]], colours: dict[str, str]) -> None:
    """One lane for an op and direction: a dot for each shape, a bar at the geometric mean."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for height, ((op, _), rows) in enumerate(lanes.items()):
        values = [row.ratio for row in rows if row.ratio]
        mean = geometric_mean(values)
        axes.plot(values, [height] * len(values), "o", color=colours[op], alpha=0.6, markersize=5, markeredgewidth=0)
        axes.plot([mean, mean], [height - 0.35, height + 0.35], color=colours[op], linewidth=2.5)
        axes.annotate(
            f"{mean:.2f}", (1, height), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color=plots.INK, weight="bold",
        )  # fmt: skip
    axes.axvline(1, color=plots.INK, linewidth=1.2, zorder=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(lanes)), [f"{op}, {WHAT[direction]}" for op, direction in lanes], fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color=plots.GRID, linewidth=0.6)
    axes.set_title("time of the best peer / time of pyrnn; bar and number: geometric mean", fontsize=9)
