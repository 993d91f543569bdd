"""Pictures: the loss curve of a training run. Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import files

INK, GRID, TRAIN, BATCH, VALID = "#333333", "#e4e4e4", "#4a78b0", "#c4d3e8", "#c8442f"


def check(path: str | os.PathLike[str]) -> None:
    """Raise, before a long training and not after it, if no picture can be written to `path`."""
    figure = _figure()
    known = figure.canvas.get_supported_filetypes()
    if _suffix(path) not in known:
        endings = ", ".join(f".{name}" for name in sorted(known))
        raise ValueError(f"{os.fspath(path)}: a picture's name ends in one of {endings}")
    files.check_writable(path)


def _suffix(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(path)[1].removeprefix(".").lower()


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('a picture needs matplotlib: pip install "pyrnn[plot]"') from None
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last tenth of the values up to each: on a logarithmic axis, of the same width everywhere."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.ceil(ends / 10).astype(int)
    means: np.ndarray = (totals[ends] - totals[starts]) / (ends - starts)
    return means


def loss_curve(
    path: str | os.PathLike[str],
    train: Sequence[Sequence[float]],
    valid: Sequence[Sequence[float]],
    title: str,
    uniform: float,
) -> None:
    """Draw the losses in bits per character against the characters read (a logarithm), and mark the best validation.

    `train` and `valid` are points (characters read, bits per character); `uniform` is the loss of a model that knows
    nothing, where the curve starts.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    figure = _figure()
    axes = figure.add_subplot()
    if len(train):
        read, bits = np.asarray(train, dtype=float).T
        axes.plot(read, bits, color=BATCH, linewidth=0.6)
        axes.plot(read, _smooth(bits), color=TRAIN, linewidth=1.6, label="training")
    if len(valid):
        read, bits = np.asarray(valid, dtype=float).T
        best = int(np.argmin(bits))
        axes.plot(read, bits, "o-", color=VALID, linewidth=1.6, markersize=4, label="held-out tenth")
        axes.plot(read[best], bits[best], "o", markersize=11, markerfacecolor="none", markeredgecolor=VALID)
        axes.annotate(
            f"best: {bits[best]:.3f}", (read[best], bits[best]), xytext=(0, 14), textcoords="offset points",
            ha="right" if best == len(read) - 1 else "center", color=VALID, weight="bold",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    lowest = min((point[1] for point in [*train, *valid]), default=0.0)
    axes.axhline(uniform, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.annotate("all characters equally likely", (1, uniform), xycoords=("axes fraction", "data"), xytext=(-4, -4),
                  textcoords="offset points", ha="right", va="top", fontsize=8, color=INK)  # fmt: skip
    axes.set_ylim(max(0.0, lowest - 0.08 * (uniform - lowest)), uniform + 0.04 * (uniform - lowest))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("characters read")
    axes.set_ylabel("bits per character")
    axes.set_title(title, loc="left", color=INK)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(train) or len(valid):
        axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format=_suffix(path))
    files.replace(path, content.getvalue())
