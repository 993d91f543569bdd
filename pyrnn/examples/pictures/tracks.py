"""Paths in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import mapping, shown
from ...plots import style


class Track(NamedTuple):
    """Positions in the plane: what was seen, what came, and what was thought to come. A panel of `tracks`.

    seen  (S, 2)
    true  what came, (K, 2)
    ways  way of thinking -> (K, 2)

        pyrnn.plots.Track(seen, true, {"GRU": y})
    """

    seen: np.ndarray
    true: np.ndarray
    ways: Mapping[str, np.ndarray]


@style.picture
def tracks(
    path: style.Path,
    panels: Sequence[Track],
    box: tuple[float, float, float, float],
    title: str = "",
    *,
    ax: Any = None,
) -> Any:
    """Draw tracks, four in a row, in a box (left, right, bottom, top), which cuts them off: dots for what was seen and
    what came (grey), lines for what was thought to come. ValueError for what does not fit. Returns the axes (P,).

        pyrnn.plots.tracks("t.png", [pyrnn.plots.Track(seen, true, {"GRU": y})], (0, 1, 0, 1))
    """
    panels = style.records("tracks", "panels", panels, Track, "pyrnn.plots.Track(...)")
    for k, panel in enumerate(panels):
        mapping("tracks", f"ways of panels[{k}]", panel.ways, "positions by way")
    columns = min(4, max(len(panels), 1))
    left, right, bottom, top = style.as_array("tracks", "box", box, 4).astype(float).tolist()
    if not (left < right and bottom < top and np.isfinite([right - left, top - bottom]).all()):
        raise ValueError(f"tracks: box is {shown(box)}, expected finite left < right and bottom < top")
    upright = min(max((top - bottom) / (right - left), 0.1), 10.0)  # of a panel, whatever the box
    height = 2.9 * upright * -(-max(len(panels), 1) // columns) + 0.8
    width = max(2.9 * columns + 0.2, style.width_of(title) + 0.4)
    figure, grid = style.new_axes("tracks", ax, len(panels), columns, (width, height))
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid, panels, strict=True):
        seen, true = (
            style.as_array("tracks", "seen", panel.seen, "S", 2),
            style.as_array("tracks", "true", panel.true, "K", 2),
        )
        drawn = axes.plot(*seen.T, "o", color=style.INK, markersize=3.2, label="seen")
        drawn += axes.plot(*true.T, "o", color=style.GREY, markersize=5, label="what came")
        for k, (way, came) in enumerate(panel.ways.items()):
            places = style.as_array("tracks", f"the way {shown(way)}", came, "K", 2)
            dashes = (0, (3, 2)) if k < len(panel.ways) - 1 else "-"
            colours = (style.VALID, style.TRAIN, *style.LINES)
            drawn += axes.plot(*np.concatenate([seen[-1:], places]).T, linewidth=1.6, linestyle=dashes, label=way,
                               color=colours[(len(panel.ways) - 1 - k) % len(colours)])  # fmt: skip
        handles = handles or dict(zip(("seen", "what came", *panel.ways), drawn, strict=True))
        margin = 0.03 * (right - left)
        axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin), aspect="equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(style.GREY)
    style.common_legend(figure, grid, handles, "lower center")
    style.headline(figure, title)
    return style.finished(figure, path, grid)
