"""Pictures: losses, attention, gradients, forecasts, confusions and more, as files or where a notebook shows them.

They need matplotlib. Every picture has a path, None where no file shall be written, and returns its axes: one, or an
array of them. `ax` are axes to draw into instead of a new figure, as many as there are panels. Text is drawn as it is:
"$" begins no formula, what the font lacks is written as Python escapes it, what is too long is cut. However much is
drawn, a new figure has at most 40 megapixels: cells shrink, and there are as many labels as there is room for.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from . import files
from ._arrays import cut, integer, numbers_array, real, shape_error, shape_text, shown

if TYPE_CHECKING:
    from .diagnostics import GradientFlow
    from .gallery import Way

Path = str | os.PathLike[str] | None
Picture = TypeVar("Picture", bound=Callable[..., Any])

INK, GRID, TRAIN, BATCH, VALID = "#333333", "#e4e4e4", "#4a78b0", "#c4d3e8", "#c8442f"
LINES = ("#c8442f", "#e0912f", "#9dbbe0", "#2f5f9e", "#9fd0ae", "#2f7d4f")  # several lines in one picture
GREY = "#b5b5b5"

DPI = 150
MOST_PIXELS, LONGEST_SIDE = 40_000_000, 30_000  # of a picture
MOST_PANELS = 100
MOST_POINTS = 4000  # of a line: twice as many as a picture has columns
MARKERS = 50  # so many validations have one each; more would merge
LOW, HIGH = 1e-24, 1e24  # of a logarithmic axis

PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
TOKEN, NAME, TITLE = 24, 40, 120  # characters; what is longer is cut


def check(path: str | os.PathLike[str]) -> None:
    """Raise, before a long training and not after it, if no picture can be written to `path`."""
    name = files.as_path(path)
    known = _matplotlib()[1].get_supported_filetypes().keys() - {"pgf"}  # that is for a TeX which is there
    if _suffix(name) not in known:
        endings = ", ".join(f".{ending}" for ending in sorted(known))
        raise ValueError(f"{cut(name)}: a picture's name ends in one of {endings}")
    files.check_writable(name)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].removeprefix(".").lower()


def _checked(picture: Picture) -> Picture:
    """The picture, whose path is checked before anything is drawn."""

    @functools.wraps(picture)
    def checked(path: Path, *args: Any, **given: Any) -> Any:
        if path is not None:
            check(path)
        return picture(path, *args, **given)

    return checked  # type: ignore[return-value]


def _array(call: str, name: str, value: Any, *axes: str | int) -> np.ndarray:
    """Real numbers of a shape such as ("T", 2)."""
    array = numbers_array(call, name, value)
    if array.ndim != len(axes) or any(
        size != axis for size, axis in zip(array.shape, axes, strict=True) if not isinstance(axis, str)
    ):
        raise shape_error(call, name, array.shape, shape_text(*axes))
    return array


# ------------------------------------------------------------------------------------------------ figures and axes


class Panels(np.ndarray[Any, Any]):
    """The axes of a picture of several, which a notebook shows as the picture."""

    def _repr_png_(self) -> bytes | None:
        return _png(self.flat[0].figure) if self.size else None


def _matplotlib() -> tuple[Any, Any]:
    """Its figures, and what they are drawn on without a screen."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("a picture needs matplotlib: pip install matplotlib") from None
    return Figure, FigureCanvasAgg


def _figure(width: float = 8, height: float = 4.8) -> Any:
    """An empty figure of so many inches, or of fewer pixels per inch than usual where those would be too many."""
    drawn, canvas = _matplotlib()
    # A little less than the square root says, which may round up.
    dpi = min(DPI, math.sqrt(0.999 * MOST_PIXELS / (width * height)), LONGEST_SIDE / max(width, height))
    figure = drawn(figsize=(width, height), dpi=dpi, layout="constrained")
    canvas(figure)
    return figure


def _axes(
    call: str, ax: Any, count: int, columns: int, size: tuple[float, float], **given: Any
) -> tuple[Any, np.ndarray]:
    """A figure and so many of its axes, (count,): those of `ax`, or of a new figure of this size."""
    if count > MOST_PANELS:
        raise ValueError(f"{call}: {count} panels are too many for one picture, expected at most {MOST_PANELS}")
    if ax is None:
        figure = _figure(*size)
        axes = figure.subplots(-(-max(count, 1) // columns), columns, squeeze=False, **given).ravel()
        for unused in axes[count:]:
            unused.set_axis_off()
        return figure, axes[:count].view(Panels)
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != count or not all(hasattr(one, "plot") for one in axes):
        raise ValueError(f"{call}: ax holds {len(axes)} objects, expected {count} axes of matplotlib")
    return axes[0].figure if count else None, axes


def _finished(figure: Any, path: Path, axes: Any) -> Any:
    """The axes, which a notebook shows as their picture, after it has been written."""
    if path is not None:
        files.replace(path, _png(figure, _suffix(files.as_path(path))))
    return axes


def _single(figure: Any, path: Path, axes: np.ndarray) -> Any:
    """The same of a picture with one panel. Other people's figures are shown by those who made them."""
    if isinstance(axes, Panels):
        axes[0]._repr_png_ = functools.partial(_png, figure)
    return _finished(figure, path, axes[0])


def _png(figure: Any, suffix: str = "png") -> bytes:
    """The picture as a file."""
    content = io.BytesIO()
    figure.figure.savefig(content, format=suffix)  # of a part of a figure the whole
    return content.getvalue()


# ------------------------------------------------------------------------------------------------ text and lines


@functools.cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """The code points that these fonts have."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    points: set[int] = set()
    for family in families:
        points.update(get_font(findfont(FontProperties(family=[family]))).get_charmap())
    return frozenset(points)


def _text(value: object, most: int = NAME) -> str:
    """What is drawn for a token, a name or a title: see the top of this file. Line ends are such in a title only."""
    from matplotlib import rcParams

    if most == TITLE and "\n" in str(value):
        return "\n".join(_text(line, most) for line in str(value).splitlines())
    known = _glyphs(tuple(rcParams["font.family"]))
    text = str(value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    drawn = (c.isprintable() or unicodedata.category(c) == "Zs" for c in text)
    return "".join(c if yes and ord(c) in known else ascii(c)[1:-1] for c, yes in zip(text, drawn, strict=True))


def _headline(figure: Any, title: str) -> None:
    if title:
        figure.suptitle(_text(title, TITLE), x=0.01, ha="left", color=INK, **PLAIN)


def _wide(title: str) -> float:
    """Inches that a title needs across."""
    return 0.1 * max(map(len, _text(title, TITLE).splitlines()), default=0)


def _titled(axes: Any, title: str, **given: Any) -> None:
    axes.set_title(_text(title, TITLE), **{"loc": "left", "color": INK, **PLAIN, **given})


def _legend(where: Any, handles: Mapping[str, Any], **given: Any) -> None:
    """In axes, or around those of a figure. handles: by their names."""
    numbered = [str(k) for k in range(len(handles))]  # matplotlib hides a name that begins with an underscore
    legend = where.legend(list(handles.values()), numbered, **{"frameon": False, **given})
    for text, name in zip(legend.get_texts(), handles, strict=True):
        text.set(text=_text(name), **PLAIN)


def _common_legend(figure: Any, axes: np.ndarray, handles: Mapping[str, Any], place: str) -> None:
    """One for all panels, outside of them; in other people's figures inside of the first."""
    if isinstance(axes, Panels):
        longest = max((_wide(_text(name)) for name in handles), default=0.0)
        columns = int(figure.get_figwidth() / (0.6 + longest))
        _legend(figure, handles, loc=f"outside {place}", ncols=min(max(columns, 1), max(len(handles), 1)))
    else:
        _legend(axes[0], handles, fontsize=8)


def _open(axes: Any) -> None:
    """A grid behind the curves, and no box around them."""
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last tenth of the values up to each: on a logarithmic axis, of the same width everywhere."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.ceil(ends / 10).astype(int)
    means: np.ndarray = (totals[ends] - totals[starts]) / (ends - starts)
    return means


def _thinned(values: np.ndarray) -> np.ndarray:
    """Places (k,) of values (T,) to draw: all, or of many the least and the largest of each stretch."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
    ends = [(places[np.argmin(values[places])], places[np.argmax(values[places])]) for places in stretches]
    return np.unique([0, len(values) - 1, *np.ravel(ends)])


def _line(axes: Any, x: np.ndarray, y: np.ndarray, low: float, high: float, **given: Any) -> Any:
    """A curve on axes that end at low and high; where it is beyond, triangles at that edge point there."""
    places = _thinned(y)
    x, y = x[places], y[places]
    (line,) = axes.plot(x, y, **given)
    for beyond, marker, edge in ((y < low, "v", 0.0), (y > high, "^", 1.0)):
        outside = np.flatnonzero(beyond)
        outside = outside[:: -(-len(outside) // 12) or 1]
        if len(outside):
            axes.plot(x[outside], np.full(len(outside), edge), marker, color=line.get_color(), markersize=5,
                      transform=axes.get_xaxis_transform(), clip_on=False, zorder=5, gid=BEYOND[marker])  # fmt: skip
    return line


BEYOND = {"v": "below the axis", "^": "above the axis"}


def _beyond(axes: Any) -> dict[str, Any]:
    """The kinds of triangles that `_line` has drawn, by their meaning, for a legend."""
    from matplotlib.lines import Line2D

    drawn = {line.get_gid() for one in axes for line in one.lines}
    return {
        name: Line2D([], [], marker=marker, color=INK, linestyle="none", markersize=5)
        for marker, name in BEYOND.items()
        if name in drawn
    }


def _mark(axes: Any, x: float, y: float, text: str) -> None:
    """A ring around a point and a text above it, which stays between the sides of the axes."""
    axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor=VALID, zorder=4)
    place = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
    axes.annotate(
        text, (x, y), xytext=(0, 14), textcoords="offset points", color=VALID, weight="bold", zorder=4,
        ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ training


@_checked
def loss_curve(
    path: Path,
    train: Sequence[Sequence[float]],
    valid: Sequence[Sequence[float]],
    title: str,
    levels: Mapping[str, float],
    *,
    ax: Any = None,
) -> Any:
    """Draw the losses in bits per character against the characters read (a logarithm), and mark the best validation.

    `train` and `valid` are points (characters read, bits per character); `levels` are losses of others by name, drawn
    as lines: of a model that knows nothing, where the curve starts, or of one to compare with. What lies above the
    highest of them is marked at the edge. Returns the axes.

        pyrnn.plots.loss_curve("loss.png", [(1000, 4.2), (2000, 3.1)], [(2000, 3.3)], "LSTM", {"5-gram": 2.4})
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    figure, panels = _axes("loss_curve", ax, 1, 1, (8, 4.8))
    (axes,) = panels
    given = {"train": train, "valid": valid}
    points = [
        _array("loss_curve", name, part if np.size(part) else np.empty((0, 2)), "K", 2).astype(float).T
        for name, part in given.items()
    ]
    heights = [float(numbers_array("loss_curve", f"levels[{shown(name)}]", level)) for name, level in levels.items()]
    values = np.concatenate([points[0][1], points[1][1], heights])
    finite = values[np.isfinite(values)]
    highest = max((level for level in levels.values() if math.isfinite(level)), default=finite.max(initial=0.0))
    lowest = min(finite.min(initial=highest), highest)
    reach = highest - lowest or 1.0
    bottom, top = max(0.0, lowest - 0.08 * reach), highest + 0.04 * reach
    names = {}
    read, bits = points[0]
    if len(bits):
        _line(axes, read, bits, 0, top, color=BATCH, linewidth=0.6)
        with np.errstate(invalid="ignore"):
            smooth = _smooth(bits)
        names["training"] = _line(axes, read, smooth, 0, top, color=TRAIN, linewidth=1.6, label="training", zorder=3,
                                  marker="o" if len(bits) == 1 else "", markersize=4)  # fmt: skip
    read, bits = points[1]
    if len(bits):
        marker = "o" if len(bits) <= MARKERS else ""
        names["held-out tenth"] = _line(
            axes, read, bits, 0, top, color=VALID, linewidth=1.6, marker=marker, markersize=4, label="held-out tenth"
        )
    axes.set_ylim(bottom, top)
    _levels(axes, levels, highest)
    if any((np.isfinite(drawn) & (read > 0)).any() for read, drawn in points):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    if np.isfinite(bits).any():
        best = int(np.nanargmin(np.where(np.isfinite(bits), bits, np.nan)))
        _mark(axes, read[best], bits[best], f"best: {bits[best]:.3f}")
    axes.set_xlabel("characters read")
    axes.set_ylabel("bits per character")
    _titled(axes, title)
    _open(axes)
    _legend(axes, {**names, **_beyond([axes])})
    return _single(figure, path, panels)


def _levels(axes: Any, levels: Mapping[str, float], highest: float) -> None:
    """Dotted lines with their names beneath: that of the highest at the right and the others at the left, where the
    curves are not; beside each other where the lines are near."""
    place, beside = math.inf, 4.0  # of the last name at the left, points
    points = axes.get_window_extent().height * 72 / axes.figure.dpi / np.diff(axes.get_ylim())[0]
    for name, level in sorted(levels.items(), key=lambda item: -item[1]):
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        text = _text(name)
        if level == highest:
            side, shift, align = 1, -4.0, "right"
        else:
            beside = beside if (place - level) * points < 11 else 4.0
            side, shift, align, place = 0, beside, "left", level
            beside += 5.5 * len(text) + 10
        axes.annotate(text, (side, level), xycoords=("axes fraction", "data"), xytext=(shift, -4), fontsize=8,
                      textcoords="offset points", ha=align, va="top", color=INK, zorder=2.5,
                      bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5}, **PLAIN)  # fmt: skip


class Learning(NamedTuple):
    """A panel of `learning_curves`: the errors of several models along their training."""

    title: str
    curves: Mapping[str, Sequence[float]]  # model -> the error of each update
    solved: float  # below it a model is good
    guess: float  # the error without memory
    unit: str


@_checked
def learning_curves(path: Path, panels: Sequence[Learning], title: str = "", mean: int = 25, *, ax: Any = None) -> Any:
    """Draw errors (on a logarithmic axis) against updates, a panel for each problem, a colour for each model. A point
    is the mean of so many updates, at the last of them. Errors beyond the axis are marked at its edge. Returns the axes
    (P,).

        panel = pyrnn.plots.Learning("T = 400", {"LSTM": errors}, 0.01, 0.167, "mean squared error")
        pyrnn.plots.learning_curves("curves.png", [panel])
    """
    call = "learning_curves"
    mean = integer(call, "mean", mean, 1)
    tops = [3 * real(call, f"guess of {shown(panel.title)}", panel.guess, LOW, HIGH) for panel in panels]
    figure, grid = _axes(call, ax, len(panels), 2, (12, 3.9 * max(-(-len(panels) // 2), 1)))
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    handles: dict[str, Any] = {}
    for axes, panel, top in zip(grid, panels, tops, strict=True):
        axes.set_yscale("log")
        for name, came in panel.curves.items():
            errors = _array(call, f"the curve {shown(name)}", came, "T")
            colour = f"C{names.index(name)}"
            pieces = [errors[k : k + mean] for k in range(0, len(errors), mean)]
            ends = np.cumsum([len(piece) for piece in pieces])
            means = np.array([np.mean(piece) for piece in pieces], dtype=float)
            handles[name] = _line(axes, ends, means, LOW, top, color=colour, linewidth=1.5, label=name, zorder=3)
            if len(means) and LOW <= means[-1] <= top:
                axes.plot(ends[-1], means[-1], "o", color=colour, markersize=4, zorder=4)
        for level, text in ((panel.guess, "without memory"), (panel.solved, "solved")):
            axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.annotate(text, (1, level), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right", fontsize=8,
                          textcoords="offset points", color=INK)  # fmt: skip
        axes.set_ylim(top=top)
        axes.set_xlim(0, None)
        _titled(axes, panel.title)
        axes.set_ylabel(_text(panel.unit), **PLAIN)
        axes.set_xlabel("updates")
        _open(axes)
    ordered = {name: handles[name] for name in names}
    _common_legend(figure, grid, {**ordered, **_beyond(grid)}, "upper right")
    _headline(figure, title)
    return _finished(figure, path, grid)


@_checked
def gradient_flow(path: Path, flows: Mapping[str, GradientFlow], title: str = "", *, ax: Any = None) -> Any:
    """Draw what `pyrnn.gradient_flow` saw in several layers, on logarithmic axes; of stacks the last layer.

    Left the norm of dL/dh_t against the steps back from the end: geometric mean and range over the rows (of an LSTM's
    dL/dc_t too, dashed). Right the singular values of the first Jacobian that was asked for, the rows' median. What is
    below 1e-24 or above 1e24 is marked at the edge. ValueError for a flow without Jacobians. Returns the axes (2,).

        flows = {"RNN": pyrnn.gradient_flow(rnn, x), "LSTM": pyrnn.gradient_flow(lstm, x)}  # x (T, N, I)
        pyrnn.plots.gradient_flow("flow.png", flows)
    """
    from .diagnostics import GradientFlow

    if not isinstance(flows, Mapping):
        raise TypeError(f"gradient_flow: flows is {shown(flows)}, expected names and what pyrnn.gradient_flow saw")
    for name, flow in flows.items():
        if not isinstance(flow, GradientFlow):
            raise TypeError(f"gradient_flow: {cut(name)} is {shown(flow)}, expected what pyrnn.gradient_flow saw")
        if len(flow.steps) == 0:
            raise ValueError(f"gradient_flow: {cut(name)} has no Jacobian, its `steps` were empty")
        if 0 in flow.norms.shape:
            raise ValueError(f"gradient_flow: {cut(name)} has no rows, its norms have shape {flow.norms.shape}")
    figure, grid = _axes("gradient_flow", ax, 2, 2, (11, 5.2), sharey=True)
    left, right = grid
    handles: dict[str, Any] = {}
    for axes in grid:
        axes.set_yscale("log")
    for k, (name, flow) in enumerate(flows.items()):
        colour = LINES[k % len(LINES)]
        for norms, dashes in [(flow.norms, "-"), (flow.cell_norms, (0, (4, 2)))]:
            if norms is not None:
                start = 0 if dashes == "-" else 1  # L has no direct part in c_T
                back = norms[::-1, -1].reshape(len(norms), -1)[start:].astype(float)
                ago = np.arange(start, len(norms))
                with np.errstate(all="ignore"):
                    mean = np.exp(np.log(back).mean(axis=1))
                least, most = np.clip(back.min(axis=1), LOW, HIGH), np.clip(back.max(axis=1), LOW, HIGH)
                places = np.union1d(_thinned(least), _thinned(most))
                left.fill_between(ago[places], least[places], most[places], color=colour, alpha=0.15, linewidth=0)
                line = _line(left, ago, mean, LOW, HIGH, color=colour, linewidth=1.8, linestyle=dashes)
                handles.setdefault(name, line)
        values = flow.singular_values[0].reshape(-1, flow.singular_values.shape[-1]).astype(float)
        _line(right, np.arange(1, values.shape[-1] + 1), np.median(values, axis=0), LOW, HIGH, color=colour,
              linewidth=1.4, marker="o", markersize=2.5)  # fmt: skip
    bottom, top = left.get_ylim()
    left.set_ylim(max(bottom, LOW), min(top, HIGH))
    for axes in grid:
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        _open(axes)
    cells = any(flow.cell_norms is not None for flow in flows.values())
    left.set_title("norm of dL/dh$_t$" + " (dashed: of dL/dc$_t$)" * cells, fontsize=10, loc="left")
    left.set_xlim(0, None)
    left.set_xlabel("steps back from the end, T - t")
    left.set_ylabel("gradient's norm, singular value")
    right.set_title("singular values of the Jacobian of the final state", fontsize=10, loc="left")
    right.set_xlabel("from the largest to the smallest")
    _common_legend(figure, grid, {**handles, **_beyond(grid)}, "lower center")
    _headline(figure, title)
    return _finished(figure, path, grid)


# ------------------------------------------------------------------------------------------------ tables


LONGEST, LABEL = 16, 0.15  # inches: of the cells of a table side by side, and what a label needs across


def _cells(ax: Any, shape: tuple[int, int], usual: float) -> tuple[float, float]:
    """Inches of a cell in a table of this shape, high and wide: in a new figure, or in axes that are there."""
    room = (LONGEST, LONGEST)
    if ax is not None:
        box = ax.get_window_extent()
        room = (box.height / ax.figure.dpi, box.width / ax.figure.dpi)
    high, wide = (min(usual, most / max(count, 1)) for most, count in zip(room, shape, strict=True))
    return high, wide


def _table(
    axes: Any,
    values: np.ndarray,
    most: float,
    names: tuple[Sequence[str], Sequence[str]],
    cells: tuple[float, float],
    top: Mapping[str, Any],
    **text: Any,
) -> Any:
    """Values as colours, from 0 to `most`, with the names at the left and on top, as many as there is room for. text:
    properties of the names, top: further ones of those on top."""
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect=cells[0] / cells[1])
    for axis, labels, cell, given in zip((axes.yaxis, axes.xaxis), names, cells, ({}, top), strict=True):
        every = math.ceil(LABEL / cell)
        axis.set_ticks(range(0, len(labels), every), labels[::every], **PLAIN, **text, **given)
        if every == 1:
            axis.set_ticks(np.arange(1, len(labels)) - 0.5, minor=True)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.grid(which="minor", color=GRID, linewidth=0.5)
    return image


Map = tuple[np.ndarray, Sequence[str], Sequence[str], str]


@_checked
def attention_map(
    path: Path,
    weights: np.ndarray,
    queries: Sequence[str],
    keys: Sequence[str],
    title: str = "",
    *,
    query_label: str = "queries",
    key_label: str = "keys",
    ax: Any = None,
) -> Any:
    """Draw weights (S, K) as a map: a row for each query, a column for each key, with their tokens at the axes, whose
    labels say what they are. ValueError where the tokens are not S and K. Returns the axes.

        weights = layer.attention_weights(x, is_causal=True)  # (N, H, S, K)
        pyrnn.plots.attention_map("map.png", weights[0, 0], list("hello"), list("hello"))
    """
    figure, panels = _maps(ax, [(weights, queries, keys, title)], query_label, key_label)
    return _single(figure, path, panels)


@_checked
def attention_maps(
    path: Path,
    maps: Sequence[Map],
    title: str = "",
    *,
    query_label: str = "queries",
    key_label: str = "keys",
    ax: Any = None,
) -> Any:
    """Draw several maps as in `attention_map`, two in a row: weights, queries, keys and a title each. Returns the axes
    (P,).

        pyrnn.plots.attention_maps("maps.png", [(weights, list("salut"), list("hello"), "first"), ...])
    """
    figure, panels = _maps(ax, maps, query_label, key_label)
    _headline(figure, title)
    return _finished(figure, path, panels)


def _maps(ax: Any, maps: Sequence[Map], query_label: str, key_label: str) -> tuple[Any, np.ndarray]:
    from matplotlib import rcParams

    fonts = ["monospace", *rcParams["font.family"]]
    drawn = []
    for weights, queries, keys, name in maps:
        weights = _array("attention_map", "weights", weights, len(queries), len(keys))
        if not weights.size:
            raise ValueError(f"attention_map: weights has shape {weights.shape}, there is nothing to draw")
        tokens = [_text(token, TOKEN) for token in queries], [_text(token, TOKEN) for token in keys]
        drawn.append((weights, tokens, name))

    sizes, titles = [], []  # inches, with the tokens
    for weights, (rows, columns), name in drawn:
        high, wide = _cells(None, weights.shape, 0.32)
        left, above = (0.085 * max(map(len, tokens), default=0) for tokens in (rows, columns))
        across = 1.6 + 1.1 * wide * len(columns)  # with the colours' scale
        titles.append(textwrap.fill(_text(name, TITLE), int(across / _wide("-"))) if ax is None else name)
        sizes.append((1.5 + 0.2 * titles[-1].count("\n") + above + high * len(rows), 1.0 + left + across))
    lines = [sizes[k : k + 2] for k in range(0, len(sizes), 2)]
    width = max((sum(wide for _, wide in line) for line in lines), default=3)
    height = sum(max(high for high, _ in line) for line in lines) or 2
    figure, panels = _axes("attention_map", ax, len(drawn), min(2, max(len(drawn), 1)), (width, height))
    for axes, (weights, tokens, _), name in zip(panels, drawn, titles, strict=True):
        most = max(float(weights.max(initial=0, where=np.isfinite(weights))), 1e-9)
        upright = all(len(token) < 2 for token in tokens[1])
        cells = _cells(None if ax is None else axes, weights.shape, 0.32)
        image = _table(axes, weights, most, tokens, cells, {"rotation": 0 if upright else 90}, family=fonts)
        axes.set_xlabel(_text(key_label), **PLAIN)
        axes.set_ylabel(_text(query_label), **PLAIN)
        _titled(axes, name)
        figure.colorbar(image, ax=axes, shrink=0.8, label="weight")
    return figure, panels


COUNTED = 40  # classes: of more the cells have no room for their counts


@_checked
def confusion_matrix(
    path: Path,
    counts: np.ndarray,
    names: Sequence[str],
    title: str = "",
    *,
    true_label: str = "true",
    said_label: str = "said",
    ax: Any = None,
) -> Any:
    """Draw counts (C, C), a row for each true class and a column for each that was said, with `names` at the axes,
    whose labels say what they are.

    The colour is the share of a row; cells hold their counts where there is room, and the right side how many of each
    row there are and how many of them are right. ValueError where counts is not (C, C). Returns the axes.

        plots.confusion_matrix("confusions.png", [[8, 2], [1, 9]], ["cat", "dog"])
    """
    counts = _array("confusion_matrix", "counts", counts, len(names), len(names))
    if not counts.size:
        raise ValueError("confusion_matrix: names is empty, there is nothing to draw")
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    shown = [_text(name, TOKEN) for name in names]
    high, wide = _cells(None, counts.shape, 0.42)
    longest = 0.07 * max(map(len, shown), default=0)
    size = (2.4 + longest + max(wide * len(names), _wide(title) - 1.5), 1.3 + longest + high * len(names))
    figure, panels = _axes("confusion_matrix", ax, 1, 1, size)
    (axes,) = panels
    if ax is not None:
        high, wide = _cells(axes, counts.shape, 0.42)
    else:
        axes.set_anchor("W")  # and the room for a long title at the right
    turned = {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
    _table(axes, shares, 1, (shown, shown), (high, wide), turned, fontsize=8)
    for row, column in np.argwhere(counts > 0) if len(names) <= COUNTED else ():
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, in_layout=False,
                  color="white" if shares[row, column] > 0.5 else INK)  # fmt: skip
    axes.set_xlabel(_text(said_label), **PLAIN)
    axes.set_ylabel(_text(true_label), **PLAIN)
    right = axes.secondary_yaxis("right")
    every = math.ceil(LABEL / high)
    right.set_yticks(range(0, len(names), every), [f"{share:4.0%} of {total}" if total else "none" for share, total in
                     zip(shares.diagonal()[::every], totals[::every], strict=True)], fontsize=8)  # fmt: skip
    right.set_ylabel("right", fontsize=8)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    _titled(axes, title)
    return _single(figure, path, panels)


# ------------------------------------------------------------------------------------------------ memories


SHOWN = 6  # states of a recall, the probe and the end among them


@_checked
def recalls(path: Path, ways: Sequence[Way], shape: tuple[int, int], title: str, *, ax: Any = None) -> Any:
    """Draw a row for each recall: the stored pattern, states from the probe to the end, and the energy along it.
    Returns the axes (P * 8,)."""
    for way in ways:
        if way.stored.size != math.prod(shape):
            raise ValueError(f"recalls: shape is {shape}, expected one of {way.stored.size} units")
    columns = SHOWN + 2
    figure, panels = _axes(
        "recalls", ax, len(ways) * columns, columns, (12, 1.0 + 1.45 * max(len(ways), 1)),
        gridspec_kw={"width_ratios": [*[1.0] * (SHOWN + 1), 2.2]},
    )  # fmt: skip
    grid = np.asarray(panels).reshape(-1, columns)
    for line, way in zip(grid, ways, strict=True):
        moved = np.flatnonzero((way.states[1:] != way.states[:-1]).any(axis=1)) + 1  # the rest is all the same
        last = int(moved.max(initial=1))
        shown = np.unique(np.round(np.linspace(0, last, SHOWN)).astype(int))
        pictures = [(way.stored, "stored")]
        pictures += [
            (way.states[k], f"{way.times[k]:g} sweep" + ("" if way.times[k] == 1 else "s")) for k in shown[:-1]
        ]
        pictures[1] = (way.states[0], "probe")
        pictures.append((way.states[last], "recalled" if not way.wrong else f"{way.wrong} units wrong"))
        for axes in line[:-1]:
            axes.set_axis_off()
        for axes, (state, text) in zip([*line[: len(pictures) - 1], line[SHOWN]], pictures, strict=True):
            axes.imshow(state.reshape(shape), cmap="gray", vmin=-1.15, vmax=1.15, interpolation="nearest")
            wrong = VALID if state is pictures[-1][0] and way.wrong else INK
            axes.set_title(text, fontsize=8, color=wrong, pad=3)
        energy = line[-1]
        energy.plot(way.times, way.energies, color=TRAIN, linewidth=1.4, marker="o", markersize=3)
        energy.set_ylabel("energy", fontsize=8)
        energy.tick_params(labelsize=7)
        energy.grid(color=GRID)
        energy.spines[["top", "right"]].set_visible(False)
    if len(grid):
        grid[-1][-1].set_xlabel("sweeps", fontsize=8)
    _headline(figure, title)
    return _finished(figure, path, panels)


RULE_COLOURS = {"hebbian": TRAIN, "storkey": "#5a9a5a", "pseudo_inverse": VALID}


@_checked
def recall_rates(
    path: Path,
    rates: Mapping[str, tuple[np.ndarray, np.ndarray]],
    estimates: Mapping[str, float],
    title: str,
    *,
    ax: Any = None,
) -> Any:
    """Draw the recall rate of each rule against the load P / n, and estimates of the Hebbian capacity as lines. Returns
    the axes."""
    figure, panels = _axes("recall_rates", ax, 1, 1, (8, 4.8))
    (axes,) = panels
    for k, (text, limit) in enumerate(sorted(estimates.items(), key=lambda item: item[1])):
        axes.axvline(limit, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate(_text(text), (limit, 1.04 + 0.045 * k), xytext=(4, 0), textcoords="offset points", fontsize=8,
                      color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, **PLAIN)  # fmt: skip
    for rule, (load, rate) in rates.items():
        axes.plot(load, rate, color=RULE_COLOURS.get(rule, INK), marker="o", markersize=3.5, linewidth=1.6,
                  label=rule.replace("_", " "))  # fmt: skip
    axes.set_ylim(-0.03, 1.2)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.set_xlim(0, None)
    axes.set_xlabel("load: patterns / units")
    axes.set_ylabel("share of patterns that stay")
    _titled(axes, title)
    _open(axes)
    if rates:
        axes.legend(frameon=False, loc=(0.64, 0.62))
    return _single(figure, path, panels)


# ------------------------------------------------------------------------------------------------ sequences


class Forecast(NamedTuple):
    """A series and what was forecast of it: a row of `forecasts`."""

    name: str
    values: np.ndarray  # (T,)
    forecasts: Mapping[int, np.ndarray]  # origin t -> the values forecast for t + 1, t + 2, ...
    errors: Mapping[str, np.ndarray]  # way of forecasting -> its error 1, 2, ... steps ahead
    unit: str = ""  # of the values
    dates: np.ndarray | None = None  # (T,) datetime64, of the values
    held_out: int = 0  # the first step that nothing was learned from
    step: str = "step"  # what a step is: "month"


@_checked
def forecasts(path: Path, rows: Sequence[Forecast], shown: int = 150, *, ax: Any = None) -> Any:
    """Draw a row for each series: left the end of it, with forecasts from their origins; right errors by the horizon.

    `shown` steps of the series end the picture. A ring marks an origin, the last value that a forecast has seen, a
    dotted line where the held-out part begins. Returns the axes (2R,).

        pyrnn.plots.forecasts("f.png", [plots.Forecast("tides", values, {80: y[80], 92: y[92]}, {"GRU": errors})])
    """
    from matplotlib import dates

    shown = integer("forecasts", "shown", shown, 1)
    rows = [_forecast(row) for row in rows]
    figure, panels = _axes(
        "forecasts", ax, 2 * len(rows), 2, (13, 0.6 + 2.9 * max(len(rows), 1)), gridspec_kw={"width_ratios": [2.6, 1]}
    )
    grid = np.asarray(panels).reshape(-1, 2)
    ways = dict.fromkeys(way for row in rows for way in row.errors)
    colours = dict(zip(ways, itertools.cycle((GREY, INK, LINES[5], TRAIN, VALID, *LINES[1:5])), strict=False))
    curves: dict[str, Any] = {}
    for (left, right), row in zip(grid, rows, strict=True):
        begin = max(0, len(row.values) - shown)
        steps = np.arange(len(row.values)) if row.dates is None else np.asarray(row.dates)
        places = begin + _thinned(row.values[begin:])
        left.margins(x=0)
        lines = {"true": left.plot(steps[places], row.values[places], color=GREY, linewidth=1.6, label="true")[0]}
        for origin, ahead in ((t, v) for t, v in sorted(row.forecasts.items()) if t >= begin):
            (line,) = left.plot(
                steps[origin : origin + len(ahead) + 1], [row.values[origin], *ahead], color=VALID, linewidth=1.5
            )
            left.plot(steps[origin], row.values[origin], "o", markersize=5, markerfacecolor="white", color=VALID)
            lines[f"forecast, {len(ahead)} {row.step}s from each ring"] = line
        _titled(left, row.name + " (all of it held out)" * (0 < row.held_out <= begin), fontsize=11)
        if begin < row.held_out < len(steps):
            left.axvline(steps[row.held_out], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
            left.annotate("held out from here", (steps[row.held_out], 1), xycoords=("data", "axes fraction"),
                          xytext=(4, -4), textcoords="offset points", fontsize=8, va="top", color=INK)  # fmt: skip
        if row.dates is not None:
            locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
            left.xaxis.set_major_locator(locator)
            left.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        curves |= {
            way: right.plot(
                np.arange(1, len(errors) + 1), errors, "o-", color=colours[way], linewidth=1.6, markersize=3, label=way
            )[0]
            for way, errors in row.errors.items()
        }
        right.set_ylim(0, None)
        _titled(right, f"error by {row.step}s ahead", fontsize=10)
        left.set_xlabel(_text(row.step) if row.dates is None else "", **PLAIN)
        right.set_xlabel(_text(row.step + "s ahead"), **PLAIN)
        for axes in (left, right):
            axes.set_ylabel(_text(row.unit), **PLAIN)
            _open(axes)
        if left is panels[0]:
            _legend(left, lines, fontsize=8, loc="upper left", frameon=True, edgecolor="none", framealpha=0.8)
    if curves:
        _legend(grid[0][1], curves, fontsize=8)
    return _finished(figure, path, panels)


def _forecast(row: Forecast) -> Forecast:
    """With arrays, all of which fit the values."""
    call, name = "forecasts", cut(row.name, NAME)
    values = _array(call, f"values of {name}", row.values, "T")
    total = len(values)
    integer(call, f"held_out of {name}", row.held_out, 0, total)
    if row.dates is not None and np.shape(row.dates) != (total,):
        raise shape_error(call, f"dates of {name}", np.shape(row.dates), f"({total},)")
    ahead = {}
    for origin, came in row.forecasts.items():
        integer(call, f"an origin of {name}", origin, 0, total - 1)
        ahead[origin] = _array(call, f"forecast {origin} of {name}", came, "K")
        if origin + len(ahead[origin]) >= total:
            raise ValueError(
                f"{call}: forecast {origin} of {name} has {len(ahead[origin])} steps, expected at most "
                f"{total - 1 - origin}, which its {total} values show; lengthen values by NaN for those to come"
            )
    return row._replace(values=values, forecasts=ahead)


class Track(NamedTuple):
    """Positions in the plane: what was seen, what came, and what was thought to come. A panel of `tracks`."""

    seen: np.ndarray  # (S, 2)
    true: np.ndarray  # (K, 2)
    ways: Mapping[str, np.ndarray]  # way of thinking -> (K, 2)


@_checked
def tracks(
    path: Path,
    panels: Sequence[Track],
    box: tuple[float, float, float, float],
    title: str = "",
    *,
    ax: Any = None,
) -> Any:
    """Draw tracks, four in a row, in a box (left, right, bottom, top), which cuts them off: dots for what was seen and
    what came (grey), lines for what was thought to come. Returns the axes (P,).

        pyrnn.plots.tracks("t.png", [plots.Track(seen, true, {"GRU": y})], (0, 1, 0, 1))
    """
    columns = min(4, max(len(panels), 1))
    left, right, bottom, top = _array("tracks", "box", box, 4).astype(float).tolist()
    if not (left < right and bottom < top and np.isfinite([right - left, top - bottom]).all()):
        raise ValueError(f"tracks: box is {shown(box)}, expected finite left < right and bottom < top")
    upright = min(max((top - bottom) / (right - left), 0.1), 10.0)  # of a panel, whatever the box
    height = 2.9 * upright * -(-max(len(panels), 1) // columns) + 0.8
    width = max(2.9 * columns + 0.2, _wide(title) + 0.4)
    figure, grid = _axes("tracks", ax, len(panels), columns, (width, height))
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid, panels, strict=True):
        seen, true = _array("tracks", "seen", panel.seen, "S", 2), _array("tracks", "true", panel.true, "K", 2)
        drawn = axes.plot(*seen.T, "o", color=INK, markersize=3.2, label="seen")
        drawn += axes.plot(*true.T, "o", color=GREY, markersize=5, label="what came")
        for k, (way, came) in enumerate(panel.ways.items()):
            places = _array("tracks", f"the way {shown(way)}", came, "K", 2)
            dashes = (0, (3, 2)) if k < len(panel.ways) - 1 else "-"
            colours = (VALID, TRAIN, *LINES)
            drawn += axes.plot(*np.concatenate([seen[-1:], places]).T, linewidth=1.6, linestyle=dashes, label=way,
                               color=colours[(len(panel.ways) - 1 - k) % len(colours)])  # fmt: skip
        handles = handles or dict(zip(("seen", "what came", *panel.ways), drawn, strict=True))
        margin = 0.03 * (right - left)
        axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin), aspect="equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(GREY)
    _common_legend(figure, grid, handles, "lower center")
    _headline(figure, title)
    return _finished(figure, path, grid)


@_checked
def spans(
    path: Path,
    rows: Mapping[str, tuple[np.ndarray, Sequence[tuple[int, int]]]],
    title: str = "",
    unit: str = "base",
    *,
    span: str = "span",
    ax: Any = None,
) -> Any:
    """Draw a sequence in each row: the chance of every step to be in a span, and beneath it the spans that there are.

    rows: name -> (chances (T,) within 0..1, true spans as (first step, the one after the last)). The line at one half
    is where a step is said to be in a span. `unit` and `span` are what a step and a span are called. Returns the axes
    (R,).

        pyrnn.plots.spans("genes.png", {"YFG1": (chances, [(20, 120)])}, span="intron")
    """
    figure, grid = _axes("spans", ax, len(rows), 1, (11, 0.9 + 1.25 * max(len(rows), 1)))
    for axes, (name, (chances, true)) in zip(grid, rows.items(), strict=True):
        chances = _array("spans", f"chances of {shown(name)}", chances, "T")
        steps = _thinned(chances)
        axes.fill_between(steps, chances[steps], color=BATCH, linewidth=0)
        (line,) = axes.plot(steps, chances[steps], color=TRAIN, linewidth=0.9)
        axes.axhline(0.5, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
        axes.axhline(-0.2, color=INK, linewidth=1)
        for first, end in true:
            axes.fill_between([first, end], -0.34, -0.06, color=VALID, linewidth=0, zorder=3)
        if axes is grid[0]:
            there = axes.fill_between([], [], color=VALID)
            handles = {f"{span}: chance of each {unit}": line, f"{span}: true": there}
            _legend(axes, handles, fontsize=8, loc="lower right", ncols=2, bbox_to_anchor=(1, 1))
        axes.set_xlim(0, max(len(chances), 1))
        axes.set_ylim(-0.4, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelsize=8)
        axes.set_ylabel(_text(name), fontsize=9, rotation=0, ha="right", va="center", **PLAIN)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    if len(grid):
        grid[-1].set_xlabel(_text(unit), **PLAIN)
    _headline(figure, title)
    return _finished(figure, path, grid)


@_checked
def pictures(
    path: Path,
    images: np.ndarray,
    titles: Sequence[str],
    right: Sequence[bool] | np.ndarray,
    title: str = "",
    *,
    wrong: str = "red: not right",
    ax: Any = None,
) -> Any:
    """Draw images (N, height, width, 3), numbers in 0..1, four in a row, each with its title, which is red where it is
    not right; `wrong` says so beneath a picture that has such. Returns the axes (N,).

        pyrnn.plots.pictures("captions.png", images, captions, [caption == truth for ...])
    """
    if not len(images) == len(titles) == len(right):
        raise ValueError(f"pictures: {len(images)} images, {len(titles)} titles and {len(right)} right")
    figure, grid = _axes("pictures", ax, len(images), 4, (12, 0.4 + 3.3 * max(-(-len(images) // 4), 1)))
    for axes, image, text, good in zip(grid, images, titles, right, strict=True):
        axes.set_axis_off()
        axes.imshow(image, interpolation="nearest")
        _titled(axes, text, loc="center", fontsize=8, color=INK if good else VALID, pad=4)
    if ax is None and not np.all(right):
        figure.supxlabel(_text(wrong, TITLE), fontsize=9, color=VALID, x=0.01, ha="left", **PLAIN)
    _headline(figure, title)
    return _finished(figure, path, grid)
