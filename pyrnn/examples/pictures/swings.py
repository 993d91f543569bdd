"""How candidates became better, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import mapping, real, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
from ...plots import style


@style.picture
def swings(
    path: style.Path, returns: Mapping[str, ArrayLike], solved: float, heights: ArrayLike, step: float, title: str = "",
    *, ax: Any = None,
) -> Any:  # fmt: skip
    """Draw two panels: returns by generation, a curve (K,) for each name, with the level at which it counts as solved;
    and how high N pendulums stand at T moments, `step` seconds apart, heights (T, N) from -1, hanging, to 1, upright.
    TypeError and ValueError for what does not fit. Returns the axes (2,).

        pyrnn.plots.swings("swings.png", {"best": best, "mean": mean}, -200, np.cos(angles), 0.05)
    """
    call = "swings"
    solved, step = real(call, "solved", solved, -style.HIGH, style.HIGH), real(call, "step", step, 0, style.HIGH)
    tips = style.as_array(call, "heights", heights, "T", "N")
    curves = {
        name: style.as_array(call, f"the curve {shown(name)}", came, "K")
        for name, came in mapping(call, "returns", returns, "curves by name").items()
    }
    figure, grid = style.new_axes(call, ax, 2, 2, (12, 4.2))
    left, right = grid
    handles: dict[str, Any] = {}
    for k, (name, curve) in enumerate(curves.items()):
        colour = (style.TRAIN, style.VALID, *style.LINES)[k % 8]
        places = style.thinned(curve)
        (handles[name],) = left.plot(places + 1, curve[places], color=colour, linewidth=1.4)
    handles["solved"] = left.axhline(solved, color=style.INK, linewidth=0.9, linestyle=(0, (2, 3)))
    left.set_xlabel("generation")
    style.titled(left, "return")
    style.draw_legend(left, handles, loc="lower right")
    right.plot(step * np.arange(len(tips)), tips, color=style.TRAIN, linewidth=0.8, alpha=0.5)
    right.set(ylim=(-1.08, 1.08), yticks=[-1, 0, 1], yticklabels=["hanging", "level", "upright"], xlabel="seconds")
    style.titled(right, f"height of the tip, {tips.shape[1]} fresh starts")
    for axes in grid:
        style.open_axes(axes)
    style.headline(figure, title)
    return style.finished(figure, path, grid)
