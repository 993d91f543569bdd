"""Pictures: the loss curve of a training run, recalls of a Hopfield net, a map of attention. Needs matplotlib (the
extra `plot`)."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import files

if TYPE_CHECKING:
    from .diagnostics import GradientFlow
    from .gallery import Way

INK, GRID, TRAIN, BATCH, VALID = "#333333", "#e4e4e4", "#4a78b0", "#c4d3e8", "#c8442f"
LINES = ("#c8442f", "#e0912f", "#9dbbe0", "#2f5f9e", "#9fd0ae", "#2f7d4f")  # several lines in one picture

MARKERS = 50  # so many validations have one each; more would merge


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


def _figure(width: float = 8, height: float = 4.8) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('a picture needs matplotlib: pip install "pyrnn[plot]"') from None
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over the last tenth of the values up to each: on a logarithmic axis, of the same width everywhere."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.ceil(ends / 10).astype(int)
    means: np.ndarray = (totals[ends] - totals[starts]) / (ends - starts)
    return means


def _open(axes: Any) -> None:
    """A grid behind the curves, and no box around them."""
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: Any, x: float, y: float, text: str) -> None:
    """A ring around a point and a text above it, which stays between the sides of the axes."""
    axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor=VALID, zorder=4)
    place = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
    axes.annotate(
        text, (x, y), xytext=(0, 14), textcoords="offset points", color=VALID, weight="bold", zorder=4,
        ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def loss_curve(
    path: str | os.PathLike[str],
    train: Sequence[Sequence[float]],
    valid: Sequence[Sequence[float]],
    title: str,
    levels: Mapping[str, float],
) -> None:
    """Draw the losses in bits per character against the characters read (a logarithm), and mark the best validation.

    `train` and `valid` are points (characters read, bits per character); `levels` are losses of others by name, drawn
    as lines: of a model that knows nothing, where the curve starts, or of one to compare with.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    figure = _figure()
    axes = figure.add_subplot()
    if len(train):
        read, bits = np.asarray(train, dtype=float).T
        axes.plot(read, bits, color=BATCH, linewidth=0.6)
        axes.plot(read, _smooth(bits), color=TRAIN, linewidth=1.6, label="training", zorder=3)
    if len(valid):
        read, bits = np.asarray(valid, dtype=float).T
        marker = "o" if len(valid) <= MARKERS else ""
        axes.plot(read, bits, color=VALID, linewidth=1.6, marker=marker, markersize=4, label="held-out tenth")
    lowest = min([point[1] for point in [*train, *valid]] + list(levels.values()))
    highest = max(levels.values())
    for name, level in levels.items():
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        side, shift, place = (1, -4, "right") if level == highest else (0, 4, "left")  # where the curves are not
        axes.annotate(name, (side, level), xycoords=("axes fraction", "data"), xytext=(shift, -4), fontsize=8,
                      textcoords="offset points", ha=place, va="top", color=INK)  # fmt: skip
    axes.set_ylim(max(0.0, lowest - 0.08 * (highest - lowest)), highest + 0.04 * (highest - lowest))
    axes.set_xscale("log")
    if len(valid):
        best = int(np.argmin(bits))
        _mark(axes, read[best], bits[best], f"best: {bits[best]:.3f}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("characters read")
    axes.set_ylabel("bits per character")
    axes.set_title(title, loc="left", color=INK)
    _open(axes)
    if len(train) or len(valid):
        axes.legend(frameon=False)
    _save(figure, path)


Map = tuple[np.ndarray, Sequence[str], Sequence[str], str]


def attention_map(
    path: str | os.PathLike[str],
    weights: np.ndarray,
    queries: Sequence[str],
    keys: Sequence[str],
    title: str = "",
) -> None:
    """Draw weights (S, K) as a map: a row for each query, a column for each key, with their tokens at the axes.

    ValueError where the tokens are not S and K.

        weights = layer.attention_weights(x, is_causal=True)  # (N, H, S, K)
        pyrnn.plots.attention_map("map.png", weights[0, 0], list("hello"), list("hello"))
    """
    attention_maps(path, [(weights, queries, keys, "")], title)


def attention_maps(path: str | os.PathLike[str], maps: Sequence[Map], title: str = "") -> None:
    """Draw several maps as in `attention_map`, two in a row: weights, queries, keys and a title each.

    pyrnn.plots.attention_maps("maps.png", [(weights, list("salut"), list("hello"), "first"), ...])
    """
    maps = [(np.asarray(weights), queries, keys, name) for weights, queries, keys, name in maps]
    for weights, queries, keys, _ in maps:
        if weights.shape != (len(queries), len(keys)):
            raise ValueError(
                f"attention_map: weights has shape {weights.shape}, expected ({len(queries)}, {len(keys)})"
            )
    cell = 0.32  # inches
    lines = [maps[k : k + 2] for k in range(0, len(maps), 2)]
    across = max((len(line) for line in lines), default=1)
    wide = max((sum(2.2 + cell * len(keys) for _, _, keys, _ in line) for line in lines), default=3)
    high = sum(max(1.6 + cell * len(queries) for _, queries, _, _ in line) for line in lines)
    figure = _figure(wide, high or 2)
    grid = figure.subplots(max(len(lines), 1), across, squeeze=False)
    for axes, (weights, queries, keys, name) in zip(grid.flat, maps, strict=False):
        image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=max(float(weights.max(initial=0)), 1e-9))
        upright = all(len(token) < 2 for token in keys)
        labels = [repr(token)[1:-1] for token in keys]
        axes.set_xticks(range(len(keys)), labels, rotation=0 if upright else 90, family="monospace")
        axes.set_yticks(range(len(queries)), [repr(token)[1:-1] for token in queries], family="monospace")
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("keys")
        axes.set_ylabel("queries")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(1, len(keys)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(queries)) - 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set_title(name, loc="left", color=INK)
        figure.colorbar(image, ax=axes, shrink=0.8, label="weight")
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, color=INK)
    _save(figure, path)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=_suffix(path))
    files.replace(path, content.getvalue())


SHOWN = 6  # states of a recall, the probe and the end among them


def recalls(path: str | os.PathLike[str], ways: Sequence[Way], shape: tuple[int, int], title: str) -> None:
    """Draw a row for each recall: the stored pattern, states from the probe to the end, and the energy along it."""
    figure = _figure(12, 1.0 + 1.45 * len(ways))
    grid = figure.subplots(
        len(ways), SHOWN + 2, squeeze=False, gridspec_kw={"width_ratios": [*[1.0] * (SHOWN + 1), 2.2]}
    )
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
    grid[-1][-1].set_xlabel("sweeps", fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    _save(figure, path)


RULE_COLOURS = {"hebbian": TRAIN, "storkey": "#5a9a5a", "pseudo_inverse": VALID}


def recall_rates(
    path: str | os.PathLike[str],
    rates: Mapping[str, tuple[np.ndarray, np.ndarray]],
    estimates: Mapping[str, float],
    title: str,
) -> None:
    """Draw the recall rate of each rule against the load P / n, and estimates of the Hebbian capacity as lines."""
    figure = _figure()
    axes = figure.add_subplot()
    for k, (text, limit) in enumerate(sorted(estimates.items(), key=lambda item: item[1])):
        axes.axvline(limit, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate(text, (limit, 1.04 + 0.045 * k), xytext=(4, 0), textcoords="offset points", fontsize=8, color=INK,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    for rule, (load, rate) in rates.items():
        axes.plot(load, rate, color=RULE_COLOURS[rule], marker="o", markersize=3.5, linewidth=1.6,
                  label=rule.replace("_", " "))  # fmt: skip
    axes.set_ylim(-0.03, 1.2)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.set_xlim(0, None)
    axes.set_xlabel("load: patterns / units")
    axes.set_ylabel("share of patterns that stay")
    axes.set_title(title, loc="left", color=INK)
    _open(axes)
    axes.legend(frameon=False, loc=(0.64, 0.62))
    _save(figure, path)


def gradient_flow(path: str | os.PathLike[str], flows: Mapping[str, GradientFlow], title: str = "") -> None:
    """Draw what `pyrnn.gradient_flow` saw in several layers, on logarithmic axes; of stacks the last layer.

    Left the norm of dL/dh_t against the steps back from the end: geometric mean and range over the rows (of an LSTM's
    dL/dc_t too, dashed). Right the singular values of the first Jacobian that was asked for, the rows' median. What is
    below 1e-24 or above 1e24 is drawn there. ValueError for a flow without Jacobians.

        flows = {"RNN": pyrnn.gradient_flow(rnn, x), "LSTM": pyrnn.gradient_flow(lstm, x)}  # x (T, N, I)
        pyrnn.plots.gradient_flow("flow.png", flows)
    """
    for name, flow in flows.items():
        if len(flow.steps) == 0:
            raise ValueError(f"gradient_flow: {name} has no Jacobian, its `steps` were empty")
    figure = _figure(11, 5.2)
    left, right = figure.subplots(1, 2, sharey=True)
    for k, (name, flow) in enumerate(flows.items()):
        colour = LINES[k % len(LINES)]
        for norms, dashes in [(flow.norms, "-"), (flow.cell_norms, (0, (4, 2)))]:
            if norms is not None:
                start = 0 if dashes == "-" else 1  # L has no direct part in c_T
                back = np.clip(norms[::-1, -1].reshape(len(norms), -1), 1e-24, 1e24)[start:]
                ago = np.arange(start, len(norms))
                left.fill_between(ago, back.min(axis=1), back.max(axis=1), color=colour, alpha=0.15, linewidth=0)
                left.plot(ago, np.exp(np.log(back).mean(axis=1)), color=colour, linewidth=1.8, linestyle=dashes,
                          label=name if dashes == "-" else None)  # fmt: skip
        values = np.clip(flow.singular_values[0], 1e-24, 1e24).reshape(-1, flow.singular_values.shape[-1])
        right.plot(np.arange(1, values.shape[-1] + 1), np.median(values, axis=0), color=colour, linewidth=1.4,
                   marker="o", markersize=2.5)  # fmt: skip
    for axes in (left, right):
        axes.set_yscale("log")
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        _open(axes)
    cells = any(flow.cell_norms is not None for flow in flows.values())
    left.set_title("norm of dL/dh$_t$" + " (dashed: of dL/dc$_t$)" * cells, fontsize=10, loc="left")
    left.set_xlim(0, None)
    left.set_xlabel("steps back from the end, T - t")
    right.set_title("singular values of the Jacobian of the final state", fontsize=10, loc="left")
    right.set_xlabel("from the largest to the smallest")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK)
    _save(figure, path)


class Forecast(NamedTuple):
    """A series and what was forecast of it: a row of `forecasts`."""

    name: str
    values: np.ndarray  # (T,)
    forecasts: Mapping[int, np.ndarray]  # origin t -> the values forecast for t + 1, t + 2, ...
    errors: Mapping[str, np.ndarray]  # way of forecasting -> its error 1, 2, ... steps ahead


def forecasts(path: str | os.PathLike[str], rows: Sequence[Forecast], shown: int = 150) -> None:
    """Draw a row for each series: left the end of it, with forecasts from their origins; right errors by the horizon.

    `shown` steps of the series end the picture. A ring marks an origin, the last value that a forecast has seen.

        pyrnn.plots.forecasts("f.png", [plots.Forecast("tides", values, {80: y[80], 92: y[92]}, {"GRU": errors})])
    """
    figure = _figure(13, 0.6 + 2.9 * len(rows))
    grid = figure.subplots(len(rows), 2, squeeze=False, gridspec_kw={"width_ratios": [2.6, 1]})
    for (left, right), row in zip(grid, rows, strict=True):
        begin = max(0, len(row.values) - shown)
        left.plot(np.arange(begin, len(row.values)), row.values[begin:], color="#b5b5b5", linewidth=1.6, label="true")
        for k, (origin, ahead) in enumerate((t, v) for t, v in sorted(row.forecasts.items()) if t >= begin):
            steps = np.arange(origin, origin + len(ahead) + 1)
            left.plot(steps, [row.values[origin], *ahead], color=VALID, linewidth=1.5,
                      label="" if k else f"forecast, {len(ahead)} steps from each ring")  # fmt: skip
            left.plot(origin, row.values[origin], "o", markersize=5, markerfacecolor="white", markeredgecolor=VALID)
        left.set_title(row.name, loc="left", color=INK, fontsize=11)
        left.set_xlim(begin, len(row.values))
        colours = dict(zip(row.errors, ("#b5b5b5", INK, LINES[5], TRAIN, VALID, *LINES[1:5]), strict=False))
        for way, errors in row.errors.items():
            right.plot(np.arange(1, len(errors) + 1), errors, "o-", color=colours[way], linewidth=1.6, markersize=3,
                       label=way)  # fmt: skip
        right.set_ylim(0, None)
        right.set_title("error by steps ahead", loc="left", color=INK, fontsize=10)
        for axes in (left, right):
            _open(axes)
    grid[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    grid[0][1].legend(frameon=False, fontsize=8)
    grid[-1][0].set_xlabel("step")
    grid[-1][1].set_xlabel("steps ahead")
    _save(figure, path)


class Track(NamedTuple):
    """Positions in the plane: what was seen, what came, and what was thought to come. A panel of `tracks`."""

    seen: np.ndarray  # (S, 2)
    true: np.ndarray  # (K, 2)
    ways: Mapping[str, np.ndarray]  # way of thinking -> (K, 2)


def tracks(
    path: str | os.PathLike[str], panels: Sequence[Track], box: tuple[float, float, float, float], title: str = ""
) -> None:
    """Draw tracks, four in a row, in a box (left, right, bottom, top), which cuts them off: dots for what was seen and
    what came (grey), lines for what was thought to come.

        pyrnn.plots.tracks("t.png", [plots.Track(seen, true, {"GRU": y})], (0, 1, 0, 1))
    """
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    left, right, bottom, top = box
    figure = _figure(2.9 * columns + 0.2, 2.9 * (top - bottom) / (right - left) * lines + 0.8)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        seen, true = np.asarray(panel.seen), np.asarray(panel.true)
        axes.plot(*seen.T, "o", color=INK, markersize=3.2, label="seen")
        axes.plot(*true.T, "o", color="#b5b5b5", markersize=5, label="what came")
        for k, (way, places) in enumerate(panel.ways.items()):
            dashes = (0, (3, 2)) if k < len(panel.ways) - 1 else "-"
            axes.plot(*np.concatenate([seen[-1:], places]).T, color=(VALID, TRAIN, *LINES)[len(panel.ways) - 1 - k],
                      linewidth=1.6, linestyle=dashes, label=way)  # fmt: skip
        margin = 0.03 * (right - left)
        axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin), aspect="equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#b5b5b5")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK)
    _save(figure, path)


def confusion_matrix(path: str | os.PathLike[str], counts: np.ndarray, names: Sequence[str], title: str = "") -> None:
    """Draw counts (C, C), a row for each true class and a column for each that was said, with `names` at the axes.

    The colour is the share of a row; cells hold their counts, and the right side how many of each row there are and how
    many of them are right. ValueError where counts is not (C, C).

        plots.confusion_matrix("confusions.png", [[8, 2], [1, 9]], ["cat", "dog"])
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"confusion_matrix: counts has shape {counts.shape}, expected ({len(names)}, {len(names)})")
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    cell = 0.42  # inches
    figure = _figure(3.0 + cell * len(names), 1.8 + cell * len(names))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7,
                  color="white" if shares[row, column] > 0.5 else INK)  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=60, ha="left", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(names)), [f"{share:4.0%} of {total}" if total else "none" for share, total in
                                         zip(shares.diagonal(), totals, strict=True)], fontsize=8)  # fmt: skip
    right.tick_params(length=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    right.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    if title:
        figure.suptitle(title, color=INK)
    _save(figure, path)


def spans(
    path: str | os.PathLike[str],
    rows: Mapping[str, tuple[np.ndarray, Sequence[tuple[int, int]]]],
    title: str = "",
    unit: str = "base",
) -> None:
    """Draw a sequence in each row: the chance of every step to be in a span, and beneath it the spans that there are.

    rows: name -> (chances (T,) within 0..1, true spans as (first step, the one after the last)). The line at one half
    is where a step is said to be in a span.

        plots.spans("genes.png", {"YFG1": (chances, [(20, 120)])})
    """
    figure = _figure(11, 0.9 + 1.25 * len(rows))
    grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, (chances, true)) in zip(grid, rows.items(), strict=True):
        steps = np.arange(len(chances))
        axes.fill_between(steps, chances, color=BATCH, linewidth=0)
        axes.plot(steps, chances, color=TRAIN, linewidth=0.9, label="chance the network gives")
        axes.axhline(0.5, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
        axes.axhline(-0.2, color=INK, linewidth=1)
        for first, end in true:
            axes.fill_between([first, end], -0.34, -0.06, color=VALID, linewidth=0, zorder=3)
        axes.fill_between([], [], color=VALID, label="true")
        axes.set_xlim(0, len(chances))
        axes.set_ylim(-0.4, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelsize=8)
        axes.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    grid[-1].set_xlabel(unit)
    grid[0].legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    figure.suptitle(title, color=INK, x=0.01, ha="left")
    _save(figure, path)


def pictures(
    path: str | os.PathLike[str],
    images: np.ndarray,
    titles: Sequence[str],
    right: Sequence[bool] | np.ndarray,
    title: str = "",
) -> None:
    """Draw images (N, height, width, 3), numbers in 0..1, four in a row, each with its title, which is red where it is
    not right.

        pyrnn.plots.pictures("captions.png", images, captions, [caption == truth for ...])
    """
    lines = -(-len(images) // 4)
    figure = _figure(12, 0.4 + 3.3 * lines)
    grid = figure.subplots(lines, 4, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, text, good in zip(grid.flat, images, titles, right, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(text, fontsize=8, color=INK if good else VALID, pad=4)
    if title:
        figure.suptitle(title, color=INK)
    _save(figure, path)


class Learning(NamedTuple):
    """A panel of `learning_curves`: the errors of several models along their training."""

    title: str
    curves: Mapping[str, Sequence[float]]  # model -> the error of each update
    solved: float  # below it a model is good
    guess: float  # the error without memory
    unit: str


def learning_curves(path: str | os.PathLike[str], panels: Sequence[Learning], title: str = "", mean: int = 25) -> None:
    """Draw errors (on a logarithmic axis) against updates, a panel for each problem, a colour for each model. A point
    is the mean of so many updates, at the last of them.

        panel = pyrnn.plots.Learning("T = 400", {"LSTM": errors}, 0.01, 0.167, "mean squared error")
        pyrnn.plots.learning_curves("curves.png", [panel])
    """
    figure = _figure(12, 3.9 * -(-len(panels) // 2))
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    for axes, panel in zip(grid, panels, strict=False):
        for name, errors in panel.curves.items():
            colour = f"C{names.index(name)}"
            pieces = [errors[k : k + mean] for k in range(0, len(errors), mean)]
            ends, means = np.cumsum([len(piece) for piece in pieces]), [np.mean(piece) for piece in pieces]
            axes.plot(ends, means, color=colour, linewidth=1.5, label=name, zorder=3)
            axes.plot(ends[-1], means[-1], "o", color=colour, markersize=4, zorder=4)
        for level, text in ((panel.guess, "without memory"), (panel.solved, "solved")):
            axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.annotate(text, (1, level), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right", fontsize=8,
                          textcoords="offset points", color=INK)  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(top=3 * panel.guess)
        axes.set_xlim(0, None)
        axes.set_title(panel.title, loc="left", color=INK)
        axes.set_ylabel(panel.unit)
        axes.set_xlabel("updates")
        _open(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    lines = {line.get_label(): line for axes in grid for line in axes.get_lines() if line.get_label() in names}
    figure.legend([lines[name] for name in names], names, frameon=False, loc="outside upper right", ncols=len(names))
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK)
    _save(figure, path)
