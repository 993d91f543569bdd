"""Marked parts of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...core.checks import mapping, parted, shown
from ...plots import style


@style.picture
def spans(
    path: style.Path,
    rows: Mapping[str, tuple[np.ndarray, Sequence[tuple[int, int]]]],
    title: str = "",
    unit: str = "base",
    *,
    span: str = "span",
    ax: Any = None,
) -> Any:
    """Draw a sequence in each row: the chance of every step to be in a span, and beneath it the spans that there are.

    rows: name -> (chances (T,) within 0..1, true spans as (first step, the one after the last)). The line at one half
    is where a step is said to be in a span. `unit` and `span` are what a step and a span are called. TypeError and
    ValueError for what does not fit. Returns the axes (R,).

        pyrnn.plots.spans("genes.png", {"YFG1": (chances, [(20, 120)])}, span="intron")
    """
    given = mapping("spans", "rows", rows, "chances and spans by name")
    drawn = []
    for name, row in given.items():
        chances, true = parted("spans", f"rows[{shown(name)}]", row, "chances", "spans")
        chances = style.as_array("spans", f"chances of {shown(name)}", chances, "T")
        drawn.append((name, chances, style.pairs("spans", f"spans of {shown(name)}", true)))
    figure, grid = style.new_axes("spans", ax, len(rows), 1, (11, 0.9 + 1.25 * max(len(rows), 1)))
    for axes, (name, chances, true) in zip(grid, drawn, strict=True):
        steps = style.thinned(chances)
        axes.fill_between(steps, chances[steps], color=style.BATCH, linewidth=0)
        (line,) = axes.plot(steps, chances[steps], color=style.TRAIN, linewidth=0.9)
        axes.axhline(0.5, color=style.INK, linewidth=0.6, linestyle=(0, (2, 3)))
        axes.axhline(-0.2, color=style.INK, linewidth=1)
        for first, end in true:
            axes.fill_between([first, end], -0.34, -0.06, color=style.VALID, linewidth=0, zorder=3)
        if axes is grid[0]:
            there = axes.fill_between([], [], color=style.VALID)
            handles = {f"{span}: chance of each {unit}": line, f"{span}: true": there}
            style.draw_legend(axes, handles, fontsize=8, loc="lower right", ncols=2, bbox_to_anchor=(1, 1))
        axes.set_xlim(0, max(len(chances), 1))
        axes.set_ylim(-0.4, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelsize=8)
        axes.set_ylabel(style.plain_text(name), fontsize=9, rotation=0, ha="right", va="center", **style.PLAIN)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    if len(grid):
        grid[-1].set_xlabel(style.plain_text(unit), **style.PLAIN)
    style.headline(figure, title)
    return style.finished(figure, path, grid)
