"""Short films, and what was thought of them while they ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import listed
from ...plots import style


class Film(NamedTuple):
    """Frames, and how likely each of several things is after each of them. A panel of `films`.

    frames   (T, height, width), the darker the less
    chances  (T, V)
    title    the panel's
    right    whether it is not drawn in red

        pyrnn.plots.Film(frames, chances, "left")
    """

    frames: np.ndarray
    chances: np.ndarray
    title: str
    right: bool = True


@style.picture
def films(
    path: style.Path,
    panels: Sequence[Film],
    names: Sequence[str],
    title: str = "",
    *,
    wrong: str = "red: not right",
    ax: Any = None,
) -> Any:
    """Draw films, two in a row: frames side by side, and beneath each a bar whose colours are the chances of the V
    `names`, one on top of the other. The title of one that is not right is red; `wrong` says so beneath a picture that
    has such. TypeError and ValueError for what does not fit. Returns the axes (P,).

        pyrnn.plots.films("films.png", [pyrnn.plots.Film(frames, chances, "left")], ["left", "right"])
    """
    names = listed("films", "names", names, "names")
    panels = [
        panel._replace(
            frames=style.as_array("films", "frames", panel.frames, "T", "height", "width"),
            chances=style.as_array("films", "chances", panel.chances, len(panel.frames), len(names)),
        )
        for panel in style.records("films", "panels", panels, Film, "pyrnn.plots.Film(...)")
    ]
    longest = max((len(panel.frames) for panel in panels), default=1)
    wide = 6.8 / max(longest, 6)  # inches of a frame
    rows = -(-max(len(panels), 1) // 2)
    figure, grid = style.new_axes("films", ax, len(panels), 2, (14, 1.0 + rows * (0.3 + 1.6 * wide)))
    colours = [(*style.LINES, style.GREY, style.INK)[k % 8] for k in range(len(names))]
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid, panels, strict=True):
        low, high = (float(end) for end in np.quantile(panel.frames, [0.01, 0.99])) if panel.frames.size else (0, 1)
        for t, frame in enumerate(panel.frames):
            axes.imshow(frame, cmap="gray", vmin=low, vmax=high, extent=(t + 0.03, t + 0.97, 0.63, 1.57), zorder=2)
        bottom = np.zeros(len(panel.frames))
        for name, colour, chances in zip(names, colours, 0.58 * panel.chances.T, strict=True):
            handles[name] = axes.bar(
                np.arange(len(bottom)) + 0.5, chances, 0.94, bottom, color=colour, linewidth=0, align="center"
            )
            bottom = bottom + chances
        axes.set(xlim=(0, longest), ylim=(0, 1.6), aspect="equal")
        axes.set_axis_off()
        style.titled(axes, panel.title, fontsize=9, color=style.INK if panel.right else style.VALID, pad=3)
    style.common_legend(figure, grid, handles, "lower center")
    if ax is None and not all(panel.right for panel in panels):
        style.footnote(figure, wrong)
    style.headline(figure, title)
    return style.finished(figure, path, grid)
