"""Pictures of a training: the loss, the flow of gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import cut, mapping, shown

if TYPE_CHECKING:
    from ..training.gradient_flow import GradientFlow
from . import style

# ------------------------------------------------------------------------------------------------ training


@style.picture
def loss_curve(
    path: style.Path,
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
    highest of them is marked at the edge. TypeError and ValueError for what does not fit. Returns the axes.

        pyrnn.plots.loss_curve("loss.png", [(1000, 4.2), (2000, 3.1)], [(2000, 3.3)], "LSTM", {"5-gram": 2.4})
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    given = {"train": train, "valid": valid}
    points = [style.pairs("loss_curve", name, part).astype(float).T for name, part in given.items()]
    levels = mapping("loss_curve", "levels", levels, "losses by name")
    heights = [float(style.as_array("loss_curve", f"levels[{shown(name)}]", loss)) for name, loss in levels.items()]
    figure, panels = style.new_axes("loss_curve", ax, 1, 1, (8, 4.8))
    (axes,) = panels
    values = np.concatenate([points[0][1], points[1][1], heights])
    finite = values[np.isfinite(values)]
    highest = max((level for level in levels.values() if math.isfinite(level)), default=finite.max(initial=0.0))
    lowest = min(finite.min(initial=highest), highest)
    reach = highest - lowest or 1.0
    bottom, top = max(0.0, lowest - 0.08 * reach), highest + 0.04 * reach
    names = {}
    read, bits = points[0]
    if len(bits):
        style.draw_line(axes, read, bits, 0, top, color=style.BATCH, linewidth=0.6)
        with np.errstate(invalid="ignore"):
            smooth = style.smooth(bits)
        names["training"] = style.draw_line(
            axes,
            read,
            smooth,
            0,
            top,
            color=style.TRAIN,
            linewidth=1.6,
            label="training",
            zorder=3,
            marker="o" if len(bits) == 1 else "",
            markersize=4,
        )
    read, bits = points[1]
    if len(bits):
        marker = "o" if len(bits) <= style.MARKERS else ""
        names["held-out tenth"] = style.draw_line(
            axes,
            read,
            bits,
            0,
            top,
            color=style.VALID,
            linewidth=1.6,
            marker=marker,
            markersize=4,
            label="held-out tenth",
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
        style.mark(axes, read[best], bits[best], f"best: {bits[best]:.3f}")
    axes.set_xlabel("characters read")
    axes.set_ylabel("bits per character")
    style.titled(axes, title)
    style.open_axes(axes)
    style.draw_legend(axes, {**names, **style.mark_beyond([axes])})
    return style.single(figure, path, panels)


def _levels(axes: Any, levels: Mapping[str, float], highest: float) -> None:
    """Dotted lines with their names beneath: that of the highest at the right and the others at the left, where the
    curves are not; beside each other where the lines are near."""
    place, beside = math.inf, 4.0  # of the last name at the left, points
    points = axes.get_window_extent().height * 72 / axes.figure.dpi / np.diff(axes.get_ylim())[0]
    for name, level in sorted(levels.items(), key=lambda item: -item[1]):
        axes.axhline(level, color=style.INK, linewidth=0.8, linestyle=(0, (2, 3)))
        text = style.plain_text(name)
        if level == highest:
            side, shift, align = 1, -4.0, "right"
        else:
            beside = beside if (place - level) * points < 11 else 4.0
            side, shift, align, place = 0, beside, "left", level
            beside += 5.5 * len(text) + 10
        axes.annotate(
            text,
            (side, level),
            xycoords=("axes fraction", "data"),
            xytext=(shift, -4),
            fontsize=8,
            textcoords="offset points",
            ha=align,
            va="top",
            color=style.INK,
            zorder=2.5,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
            **style.PLAIN,
        )


@style.picture
def gradient_flow(path: style.Path, flows: Mapping[str, GradientFlow], title: str = "", *, ax: Any = None) -> Any:
    """Draw what `pyrnn.gradient_flow` saw in several layers, on logarithmic axes; of stacks the last layer.

    Left the norm of dL/dh_t against the steps back from the end: geometric mean and range over the rows (of an LSTM's
    dL/dc_t too, dashed). Right the singular values of the first Jacobian that was asked for, the rows' median. What is
    below 1e-24 or above 1e24 is marked at the edge. ValueError for a flow without Jacobians. Returns the axes (2,).

        flows = {"RNN": pyrnn.gradient_flow(rnn, x), "LSTM": pyrnn.gradient_flow(lstm, x)}  # x (T, N, I)
        pyrnn.plots.gradient_flow("flow.png", flows)
    """
    from ..training.gradient_flow import GradientFlow

    for name, flow in mapping("gradient_flow", "flows", flows, "what pyrnn.gradient_flow saw by name").items():
        if not isinstance(flow, GradientFlow):
            raise TypeError(f"gradient_flow: {cut(name)} is {shown(flow)}, expected what pyrnn.gradient_flow saw")
        if len(flow.steps) == 0:
            raise ValueError(f"gradient_flow: {cut(name)} has no Jacobian, its `steps` were empty")
        if 0 in flow.norms.shape:
            raise ValueError(f"gradient_flow: {cut(name)} has no rows, its norms have shape {flow.norms.shape}")
    figure, grid = style.new_axes("gradient_flow", ax, 2, 2, (11, 5.2), sharey=True)
    left, right = grid
    handles: dict[str, Any] = {}
    for axes in grid:
        axes.set_yscale("log")
    for k, (name, flow) in enumerate(flows.items()):
        colour = style.LINES[k % len(style.LINES)]
        for norms, dashes in [(flow.norms, "-"), (flow.cell_norms, (0, (4, 2)))]:
            if norms is not None:
                start = 0 if dashes == "-" else 1  # L has no direct part in c_T
                back = norms[::-1, -1].reshape(len(norms), -1)[start:].astype(float)
                ago = np.arange(start, len(norms))
                with np.errstate(all="ignore"):
                    mean = np.exp(np.log(back).mean(axis=1))
                least, most = (
                    np.clip(back.min(axis=1), style.LOW, style.HIGH),
                    np.clip(back.max(axis=1), style.LOW, style.HIGH),
                )
                places = np.union1d(style.thinned(least), style.thinned(most))
                left.fill_between(ago[places], least[places], most[places], color=colour, alpha=0.15, linewidth=0)
                line = style.draw_line(
                    left, ago, mean, style.LOW, style.HIGH, color=colour, linewidth=1.8, linestyle=dashes
                )
                handles.setdefault(name, line)
        values = flow.singular_values[0].reshape(-1, flow.singular_values.shape[-1]).astype(float)
        style.draw_line(
            right,
            np.arange(1, values.shape[-1] + 1),
            np.median(values, axis=0),
            style.LOW,
            style.HIGH,
            color=colour,
            linewidth=1.4,
            marker="o",
            markersize=2.5,
        )
    bottom, top = left.get_ylim()
    left.set_ylim(max(bottom, style.LOW), min(top, style.HIGH))
    for axes in grid:
        axes.axhline(1, color=style.INK, linewidth=0.8, linestyle=(0, (2, 3)))
        style.open_axes(axes)
    cells = any(flow.cell_norms is not None for flow in flows.values())
    left.set_title("norm of dL/dh$_t$" + " (dashed: of dL/dc$_t$)" * cells, fontsize=10, loc="left")
    left.set_xlim(0, None)
    left.set_xlabel("steps back from the end, T - t")
    left.set_ylabel("gradient's norm, singular value")
    right.set_title("singular values of the Jacobian of the final state", fontsize=10, loc="left")
    right.set_xlabel("from the largest to the smallest")
    style.common_legend(figure, grid, {**handles, **style.mark_beyond(grid)}, "lower center")
    style.headline(figure, title)
    return style.finished(figure, path, grid)
