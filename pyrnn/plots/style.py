"""Pictures: losses, attention, gradients, forecasts, confusions and more, as files or where a notebook shows them.

They need matplotlib. Every picture has a path, None where no file shall be written, and returns its axes: one, or an
array of them. `ax` are axes to draw into instead of a new figure, as many as there are panels. Text is drawn as it is:
"$" begins no formula, what the font lacks is written as Python escapes it, what is too long is cut. However much is
drawn, a new figure has at most 40 megapixels: cells shrink, and there are as many labels as there is room for.
"""

from __future__ import annotations

import functools
import io
import math
import os
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from ..core import files
from ..core.checks import cut, instance, listed, numbers_array, shape_error, shape_text

Path = str | os.PathLike[str] | None
Picture = TypeVar("Picture", bound=Callable[..., Any])
Record = TypeVar("Record")

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
    """Raise, before a long training and not after it, if no picture can be written to `path`: ValueError for an ending
    that names no format and without matplotlib, OSError.

        pyrnn.plots.check("loss.png")
    """
    name = files.as_path(path)
    known = matplotlib_parts()[1].get_supported_filetypes().keys() - {"pgf"}  # that is for a TeX which is there
    if _suffix(name) not in known:
        endings = ", ".join(f".{ending}" for ending in sorted(known))
        raise ValueError(f"{cut(name)}: a picture's name ends in one of {endings}")
    files.check_writable(name)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].removeprefix(".").lower()


def picture(picture: Picture) -> Picture:
    """The picture, whose path is checked before anything is drawn."""

    @functools.wraps(picture)
    def checked(path: Path, *args: Any, **given: Any) -> Any:
        if path is not None:
            check(path)
        return picture(path, *args, **given)

    return checked  # type: ignore[return-value]


def as_array(call: str, name: str, value: Any, *axes: str | int) -> np.ndarray:
    """Real numbers of a shape such as ("T", 2)."""
    array = numbers_array(call, name, value)
    if array.ndim != len(axes) or any(
        size != axis for size, axis in zip(array.shape, axes, strict=True) if not isinstance(axis, str)
    ):
        raise shape_error(call, name, array.shape, shape_text(*axes))
    return array


def records(call: str, name: str, value: Any, kind: type[Record], made: str) -> list[Record]:
    """What several panels show; `made` is what makes such."""
    things = listed(call, name, value, made)
    return [instance(call, f"{name}[{k}]", thing, kind, made) for k, thing in enumerate(things)]


def pairs(call: str, name: str, value: Any) -> np.ndarray:
    """Pairs of real numbers (K, 2), of which there may be none."""
    return np.empty((0, 2)) if np.size(value) == 0 else as_array(call, name, value, "K", 2)


# ------------------------------------------------------------------------------------------------ figures and axes


class Panels(np.ndarray[Any, Any]):
    """The axes of a picture of several, which a notebook shows as the picture."""

    def _repr_png_(self) -> bytes | None:
        return _png(self.flat[0].figure) if self.size else None


def matplotlib_parts() -> tuple[Any, Any]:
    """Its figures, and what they are drawn on without a screen."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("a picture needs matplotlib: pip install matplotlib") from None
    return Figure, FigureCanvasAgg


def new_figure(width: float = 8, height: float = 4.8) -> Any:
    """An empty figure of so many inches, or of fewer pixels per inch than usual where those would be too many."""
    drawn, canvas = matplotlib_parts()
    # A little less than the square root says, which may round up.
    dpi = min(DPI, math.sqrt(0.999 * MOST_PIXELS / (width * height)), LONGEST_SIDE / max(width, height))
    figure = drawn(figsize=(width, height), dpi=dpi, layout="constrained")
    canvas(figure)
    return figure


def new_axes(
    call: str, ax: Any, count: int, columns: int, size: tuple[float, float], **given: Any
) -> tuple[Any, np.ndarray]:
    """A figure and so many of its axes, (count,): those of `ax`, or of a new figure of this size."""
    if count > MOST_PANELS:
        raise ValueError(f"{call}: {count} panels are too many for one picture, expected at most {MOST_PANELS}")
    if ax is None:
        figure = new_figure(*size)
        axes = figure.subplots(-(-max(count, 1) // columns), columns, squeeze=False, **given).ravel()
        for unused in axes[count:]:
            unused.set_axis_off()
        return figure, axes[:count].view(Panels)
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != count or not all(hasattr(one, "plot") for one in axes):
        raise ValueError(f"{call}: ax holds {len(axes)} objects, expected {count} axes of matplotlib")
    return axes[0].figure if count else None, axes


def finished(figure: Any, path: Path, axes: Any) -> Any:
    """The axes, which a notebook shows as their picture, after it has been written."""
    if path is not None:
        files.replace(path, _png(figure, _suffix(files.as_path(path))))
    return axes


def single(figure: Any, path: Path, axes: np.ndarray) -> Any:
    """The same of a picture with one panel. Other people's figures are shown by those who made them."""
    if isinstance(axes, Panels):
        axes[0]._repr_png_ = functools.partial(_png, figure)
    return finished(figure, path, axes[0])


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


def plain_text(value: object, most: int = NAME) -> str:
    """What is drawn for a token, a name or a title: see the top of this file. Line ends are such in a title only."""
    from matplotlib import rcParams

    if most == TITLE and "\n" in str(value):
        return "\n".join(plain_text(line, most) for line in str(value).splitlines())
    known = _glyphs(tuple(rcParams["font.family"]))
    text = str(value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    drawn = (c.isprintable() or unicodedata.category(c) == "Zs" for c in text)
    return "".join(c if yes and ord(c) in known else ascii(c)[1:-1] for c, yes in zip(text, drawn, strict=True))


def headline(figure: Any, title: str) -> None:
    """The title of a whole figure, if there is one."""
    if title:
        figure.suptitle(plain_text(title, TITLE), x=0.01, ha="left", color=INK, **PLAIN)


def footnote(figure: Any, text: str) -> None:
    """What red titles say, beneath a whole figure."""
    figure.supxlabel(plain_text(text, TITLE), fontsize=9, color=VALID, x=0.01, ha="left", **PLAIN)


def width_of(title: str) -> float:
    """Inches that a title needs across."""
    return 0.1 * max(map(len, plain_text(title, TITLE).splitlines()), default=0)


def titled(axes: Any, title: str, **given: Any) -> None:
    """The title of one panel."""
    axes.set_title(plain_text(title, TITLE), **{"loc": "left", "color": INK, **PLAIN, **given})


def draw_legend(where: Any, handles: Mapping[str, Any], **given: Any) -> None:
    """In axes, or around those of a figure. handles: by their names."""
    numbered = [str(k) for k in range(len(handles))]  # matplotlib hides a name that begins with an underscore
    legend = where.legend(list(handles.values()), numbered, **{"frameon": False, **given})
    for text, name in zip(legend.get_texts(), handles, strict=True):
        text.set(text=plain_text(name), **PLAIN)


def common_legend(figure: Any, axes: np.ndarray, handles: Mapping[str, Any], place: str) -> None:
    """One for all panels, outside of them; in other people's figures inside of the first."""
    if isinstance(axes, Panels):
        longest = max((width_of(plain_text(name)) for name in handles), default=0.0)
        columns = int(figure.get_figwidth() / (0.6 + longest))
        draw_legend(figure, handles, loc=f"outside {place}", ncols=min(max(columns, 1), max(len(handles), 1)))
    else:
        draw_legend(axes[0], handles, fontsize=8)


def open_axes(axes: Any) -> None:
    """A grid behind the curves, and no box around them."""
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last tenth of the values up to each: on a logarithmic axis, of the same width everywhere."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.ceil(ends / 10).astype(int)
    means: np.ndarray = (totals[ends] - totals[starts]) / (ends - starts)
    return means


def thinned(values: np.ndarray) -> np.ndarray:
    """Places (k,) of values (T,) to draw: all, or of many the least and the largest of each stretch."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
    ends = [(places[np.argmin(values[places])], places[np.argmax(values[places])]) for places in stretches]
    return np.unique([0, len(values) - 1, *np.ravel(ends)])


def draw_line(axes: Any, x: np.ndarray, y: np.ndarray, low: float, high: float, **given: Any) -> Any:
    """A curve on axes that end at low and high; where it is beyond, triangles at that edge point there."""
    places = thinned(y)
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


def mark_beyond(axes: Any) -> dict[str, Any]:
    """The kinds of triangles that `_line` has drawn, by their meaning, for a legend."""
    from matplotlib.lines import Line2D

    drawn = {line.get_gid() for one in axes for line in one.lines}
    return {
        name: Line2D([], [], marker=marker, color=INK, linestyle="none", markersize=5)
        for marker, name in BEYOND.items()
        if name in drawn
    }


def mark(axes: Any, x: float, y: float, text: str) -> None:
    """A ring around a point and a text above it, which stays between the sides of the axes."""
    axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor=VALID, zorder=4)
    place = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
    axes.annotate(
        text, (x, y), xytext=(0, 14), textcoords="offset points", color=VALID, weight="bold", zorder=4,
        ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ tables


LONGEST, LABEL = 16, 0.15  # inches: of the cells of a table side by side, and what a label needs across
