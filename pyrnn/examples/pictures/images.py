"""Small pictures in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.checks import listed
from ...plots import style


@style.picture
def pictures(
    path: style.Path,
    images: np.ndarray,
    titles: Sequence[str],
    right: Sequence[bool] | np.ndarray,
    title: str = "",
    *,
    wrong: str = "red: not right",
    ax: Any = None,
) -> Any:
    """Draw images (N, height, width, 3), numbers in 0..1, four in a row, each with its title, which is red where it is
    not right; `wrong` says so beneath a picture that has such. ValueError for what does not fit. Returns the axes
    (N,).

        pyrnn.plots.pictures("captions.png", images, ["a red disc", "a square"], [True, False])
    """
    images = style.as_array("pictures", "images", images, "N", "height", "width", 3)
    titles, right = listed("pictures", "titles", titles, "titles"), listed("pictures", "right", right, "booleans")
    if not len(images) == len(titles) == len(right):
        raise ValueError(f"pictures: {len(images)} images, {len(titles)} titles and {len(right)} right")
    figure, grid = style.new_axes("pictures", ax, len(images), 4, (12, 0.4 + 3.3 * max(-(-len(images) // 4), 1)))
    for axes, image, text, good in zip(grid, images, titles, right, strict=True):
        axes.set_axis_off()
        axes.imshow(image, interpolation="nearest")
        style.titled(axes, text, loc="center", fontsize=8, color=style.INK if good else style.VALID, pad=4)
    if ax is None and not all(right):
        style.footnote(figure, wrong)
    style.headline(figure, title)
    return style.finished(figure, path, grid)
