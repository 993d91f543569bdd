"""How several models learn, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import integer, mapping, real, shown
from ...plots import style


class Learning(NamedTuple):
    """A panel of `learning_curves`: the errors of several models along their training.

    title   the panel's
    curves  model -> the errors of its T updates, (T,)
    solved  an error below which a model is good
    guess   the error without memory
    unit    of the errors

        pyrnn.plots.Learning("T = 400", {"LSTM": errors}, 0.01, 0.167, "mean squared error")
    """

    title: str
    curves: Mapping[str, Sequence[float]]
    solved: float
    guess: float
    unit: str


@style.picture
def learning_curves(
    path: style.Path, panels: Sequence[Learning], title: str = "", mean: int = 25, *, ax: Any = None
) -> Any:
    """Draw errors (on a logarithmic axis) against updates, a panel for each problem, a colour for each model. A point
    is the mean of so many updates, at the last of them. Errors beyond the axis are marked at its edge. Returns the axes
    (P,).

        panel = pyrnn.plots.Learning("T = 400", {"LSTM": errors}, 0.01, 0.167, "mean squared error")
        pyrnn.plots.learning_curves("curves.png", [panel])
    """
    call = "learning_curves"
    mean = integer(call, "mean", mean, 1)
    panels = style.records(call, "panels", panels, Learning, "pyrnn.plots.Learning(...)")
    for panel in panels:
        mapping(call, f"curves of {shown(panel.title)}", panel.curves, "the errors of each update by model")
        real(call, f"solved of {shown(panel.title)}", panel.solved, 0, style.HIGH)
    tops = [3 * real(call, f"guess of {shown(panel.title)}", panel.guess, style.LOW, style.HIGH) for panel in panels]
    figure, grid = style.new_axes(call, ax, len(panels), 2, (12, 3.9 * max(-(-len(panels) // 2), 1)))
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    handles: dict[str, Any] = {}
    for axes, panel, top in zip(grid, panels, tops, strict=True):
        axes.set_yscale("log")
        for name, came in panel.curves.items():
            errors = style.as_array(call, f"the curve {shown(name)}", came, "T")
            colour = f"C{names.index(name)}"
            pieces = [errors[k : k + mean] for k in range(0, len(errors), mean)]
            ends = np.cumsum([len(piece) for piece in pieces])
            means = np.array([np.mean(piece) for piece in pieces], dtype=float)
            handles[name] = style.draw_line(
                axes, ends, means, style.LOW, top, color=colour, linewidth=1.5, label=name, zorder=3
            )
            if len(means) and style.LOW <= means[-1] <= top:
                axes.plot(ends[-1], means[-1], "o", color=colour, markersize=4, zorder=4)
        for level, text in ((panel.guess, "without memory"), (panel.solved, "solved")):
            axes.axhline(level, color=style.INK, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.annotate(text, (1, level), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right", fontsize=8,
                          textcoords="offset points", color=style.INK)  # fmt: skip
        axes.set_ylim(top=top)
        axes.set_xlim(0, None)
        style.titled(axes, panel.title)
        axes.set_ylabel(style.plain_text(panel.unit), **style.PLAIN)
        axes.set_xlabel("updates")
        style.open_axes(axes)
    ordered = {name: handles[name] for name in names}
    style.common_legend(figure, grid, {**ordered, **style.mark_beyond(grid)}, "upper right")
    style.headline(figure, title)
    return style.finished(figure, path, grid)
