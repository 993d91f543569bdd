"""Pictures of associative memories: recalls, and how many succeed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..associative.hopfield import RULES
from ..core.checks import integer, mapping, parted, shown

if TYPE_CHECKING:
    from ..app.gallery import Way
from . import style

# ------------------------------------------------------------------------------------------------ memories


SHOWN = 6  # states of a recall, the probe and the end among them


@style.picture
def recalls(path: style.Path, ways: Sequence[Way], shape: tuple[int, int], title: str, *, ax: Any = None) -> Any:
    """Draw a row for each recall: the stored pattern, states from the probe to the end, and the energy along it.

    ways: recalls as `pyrnn.app.gallery.way` makes them, of nets whose n units are pixels of `shape`; ValueError where
    they are not, TypeError for other things. Returns the axes (P * 8,).

        from pyrnn.app import gallery

        way = gallery.way(net, patterns[0], probe, np.random.default_rng(0))
        pyrnn.plots.recalls("recalls.png", [way], (10, 10), "one recall")
    """
    from ..app.gallery import Way

    ways = style.records("recalls", "ways", ways, Way, "what pyrnn.app.gallery.way makes")
    sides = parted("recalls", "shape", shape, "height", "width")
    height, width = (integer("recalls", "shape", side, 1) for side in sides)
    for way in ways:
        if way.stored.size != height * width:
            raise ValueError(f"recalls: shape is {shown(shape)}, expected one of {way.stored.size} units")
    columns = SHOWN + 2
    figure, panels = style.new_axes(
        "recalls",
        ax,
        len(ways) * columns,
        columns,
        (9, 0.8 + 1.15 * max(len(ways), 1)),
        gridspec_kw={"width_ratios": [*[1.0] * (SHOWN + 1), 2.2]},
    )
    grid = np.asarray(panels).reshape(-1, columns)
    for line, way in zip(grid, ways, strict=True):
        moved = np.flatnonzero((way.states[1:] != way.states[:-1]).any(axis=1)) + 1
        last = min(max(int(moved.max(initial=1)), SHOWN - 1), len(way.states) - 1)  # the rest is all the same
        stops = np.unique(np.round(np.linspace(0, last, SHOWN)).astype(int))
        pictures = [(way.stored, "stored")]
        pictures += [
            (way.states[k], f"{way.times[k]:g} sweep" + ("" if way.times[k] == 1 else "s")) for k in stops[:-1]
        ]
        pictures[1] = (way.states[0], "probe")
        pictures.append((way.states[last], "recalled" if not way.wrong else f"{way.wrong} units wrong"))
        for axes in line[:-1]:
            axes.set_axis_off()
        for axes, (state, text) in zip([*line[: len(pictures) - 1], line[SHOWN]], pictures, strict=True):
            axes.imshow(state.reshape(height, width), cmap="gray", vmin=-1.15, vmax=1.15, interpolation="nearest")
            wrong = style.VALID if state is pictures[-1][0] and way.wrong else style.INK
            axes.set_title(text, fontsize=8, color=wrong, pad=3)
        energy = line[-1]
        energy.plot(way.times, way.energies, color=style.TRAIN, linewidth=1.4, marker="o", markersize=3)
        energy.set_ylabel("energy", fontsize=8)
        energy.tick_params(labelsize=7)
        energy.grid(color=style.GRID)
        energy.spines[["top", "right"]].set_visible(False)
    if len(grid):
        grid[-1][-1].set_xlabel("sweeps", fontsize=8)
    style.headline(figure, title)
    return style.finished(figure, path, panels)


RULE_COLOURS = dict(zip(RULES, (style.TRAIN, "#5a9a5a", style.VALID), strict=True))


@style.picture
def recall_rates(
    path: style.Path,
    rates: Mapping[str, tuple[np.ndarray, np.ndarray]],
    estimates: Mapping[str, float],
    title: str,
    *,
    ax: Any = None,
) -> Any:
    """Draw the recall rate of each rule against the load P / n, and estimates of the Hebbian capacity as lines.

    rates: rule -> (loads (K,), rates (K,)). estimates: name -> load. TypeError and ValueError for what does not fit.
    Returns the axes.

        pyrnn.plots.recall_rates("rates.png", {"hebbian": ([0.1, 0.2], [1, 0.4])}, {"0.138 n": 0.138}, "100 units")
    """
    call = "recall_rates"
    curves = {}
    for rule, given in mapping(call, "rates", rates, "loads and rates by rule").items():
        load, rate = parted(call, f"rates[{shown(rule)}]", given, "loads", "rates")
        loads = style.as_array(call, f"the loads of {shown(rule)}", load, "K")
        curves[rule] = loads, style.as_array(call, f"the rates of {shown(rule)}", rate, len(loads))
    limits = {
        text: float(style.as_array(call, f"estimates[{shown(text)}]", limit))
        for text, limit in mapping(call, "estimates", estimates, "loads by name").items()
    }
    figure, panels = style.new_axes(call, ax, 1, 1, (8, 4.8))
    (axes,) = panels
    for k, (text, limit) in enumerate(sorted(limits.items(), key=lambda item: item[1])):
        axes.axvline(limit, color=style.INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate(
            style.plain_text(text),
            (limit, 1.04 + 0.045 * k),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color=style.INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            **style.PLAIN,
        )
    for rule, (loads, shares) in curves.items():
        axes.plot(
            loads,
            shares,
            color=RULE_COLOURS.get(rule, style.INK),
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            label=str(rule).replace("_", " "),
        )
    axes.set_ylim(-0.03, 1.2)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.set_xlim(0, None)
    axes.set_xlabel("load: patterns / units")
    axes.set_ylabel("share of patterns that stay")
    style.titled(axes, title)
    style.open_axes(axes)
    if rates:
        axes.legend(frameon=False, loc="best")
    return style.single(figure, path, panels)
